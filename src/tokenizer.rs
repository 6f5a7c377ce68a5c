//! Splits text into words, and parses search queries (protocol section 5, SEARCH_MSG).
//!
//! Owns the definition of a word, the meaning of a query, and the score of a match. It knows
//! nothing about storage or users.
//!
//! A word is a run of letters and digits of any script with their marks, normalized as names are.
//! In scripts without spaces between words, every letter is a word of its own. Adjacent words of a
//! query must be adjacent in the text, so such scripts can be searched by any substring.

use std::collections::BTreeSet;

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory as _};

use crate::limits::{INDEXED_WORD_BYTES_MAX, QUERY_WORDS_MAX};
use crate::names;

/// Normalizes a text for comparison, and removes invisible characters.
pub fn fold(text: &str) -> String {
    if text.is_ascii() || !text.chars().any(is_ignored) {
        return names::text_key(text);
    }
    names::text_key(&text.chars().filter(|&c| !is_ignored(c)).collect::<String>())
}

/// Invisible characters inside words: joiners, soft hyphens and the like.
fn is_ignored(c: char) -> bool {
    matches!(c, '\u{AD}' | '\u{200C}'..='\u{200F}' | '\u{2060}' | '\u{FEFF}')
        || names::is_invisible(c)
}

/// The role of a character in splitting words.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Continues a word, or begins one.
    Joined,
    /// Is a word of its own, together with the marks after it.
    Alone,
    /// Continues a word, if there is one.
    Mark,
    /// Separates words.
    Between,
}

fn class(c: char) -> Class {
    if c.is_ascii() {
        return if c.is_ascii_alphanumeric() { Class::Joined } else { Class::Between };
    }
    match c.general_category_group() {
        GeneralCategoryGroup::Letter if is_unspaced(c) => Class::Alone,
        GeneralCategoryGroup::Letter | GeneralCategoryGroup::Number => Class::Joined,
        GeneralCategoryGroup::Mark => Class::Mark,
        _ => Class::Between,
    }
}

/// Letters of scripts that have no spaces between words: Thai, Lao, Burmese, Khmer, kana,
/// ideographs.
fn is_unspaced(c: char) -> bool {
    matches!(c,
        '\u{0E00}'..='\u{0EFF}' | '\u{1000}'..='\u{109F}' | '\u{1780}'..='\u{17FF}'
        | '\u{3005}'..='\u{3007}' | '\u{3040}'..='\u{30FF}' | '\u{3400}'..='\u{4DBF}'
        | '\u{4E00}'..='\u{9FFF}' | '\u{F900}'..='\u{FAFF}' | '\u{FF66}'..='\u{FF9F}'
        | '\u{20000}'..='\u{3FFFF}')
}

/// Iterator over the words of a normalized text, each with its byte offset.
#[derive(Clone, Debug)]
pub struct Words<'a> {
    text: &'a str,
    at: usize,
}

/// The words of a normalized text.
pub const fn words(folded: &str) -> Words<'_> {
    Words { text: folded, at: 0 }
}

impl<'a> Iterator for Words<'a> {
    type Item = (usize, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let mut start = None;
        let mut is_alone = false;
        let mut end = self.text.len();
        for (offset, c) in self.text.get(self.at..)?.char_indices() {
            let place = self.at + offset;
            match (start, class(c)) {
                (None, kind @ (Class::Joined | Class::Alone)) => {
                    start = Some(place);
                    is_alone = kind == Class::Alone;
                }
                (None, _) | (Some(_), Class::Mark) => {}
                (Some(_), Class::Joined) if !is_alone => {}
                (Some(_), _) => {
                    end = place;
                    break;
                }
            }
        }
        self.at = end;
        let start = start?;
        self.text.get(start..end).map(|word| (start, word))
    }
}

/// A word as the index stores it: very long ones are truncated.
pub fn indexed(word: &str) -> &str {
    let mut end = word.len().min(INDEXED_WORD_BYTES_MAX);
    while !word.is_char_boundary(end) {
        end -= 1;
    }
    word.get(..end).unwrap_or(word)
}

/// The distinct words of a normalized text as the index stores them, sorted.
pub fn distinct(folded: &str) -> BTreeSet<&str> {
    words(folded).map(|(_, word)| indexed(word)).collect()
}

/// Adjacent words; usually one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// The words, at least one.
    pub words: Vec<String>,
    /// The last word is a prefix.
    pub is_prefix: bool,
}

/// A parsed query: all groups must occur in a match.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Query {
    groups: Vec<Group>,
}

impl Query {
    /// Parses a query: words, prefixes with `*` at the end, and phrases in quotation marks. All
    /// other characters separate words. `None` if there are no words, or too many.
    pub fn parse(text: &str) -> Option<Self> {
        let folded = fold(text);
        let mut groups: Vec<Group> = Vec::new();
        let mut count = 0;
        let mut parts = folded.split(['"', '\u{201C}', '\u{201D}', '\u{201E}']).peekable();
        let mut is_quoted = false;
        while let Some(part) = parts.next() {
            let starred = is_quoted && parts.peek().is_some_and(|next| next.starts_with('*'));
            let mut open: Option<(usize, Group)> = None;
            for (start, word) in words(part) {
                count += 1;
                if count > QUERY_WORDS_MAX {
                    return None;
                }
                let end = start + word.len();
                let is_prefix = part.get(end..).is_some_and(|rest| rest.starts_with('*'));
                match &mut open {
                    Some((last_end, group)) if is_quoted || *last_end == start => {
                        group.words.push(word.to_owned());
                        group.is_prefix = is_prefix;
                        *last_end = end;
                    }
                    _ => {
                        let next = Group { words: vec![word.to_owned()], is_prefix };
                        keep(&mut groups, open.replace((end, next)));
                    }
                }
            }
            if let Some((_, group)) = &mut open {
                group.is_prefix |= starred;
            }
            keep(&mut groups, open);
            is_quoted = !is_quoted;
        }
        (!groups.is_empty()).then_some(Self { groups })
    }

    /// The groups that must occur, at least one.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The score of a text; `None` if it does not match. More occurrences and a shorter text score
    /// higher.
    pub fn score(&self, text: &str) -> Option<f64> {
        let folded = fold(text);
        let words: Vec<&str> = words(&folded).map(|(_, word)| word).collect();
        let mut score = 0.0;
        for group in &self.groups {
            let count = group.occurrences(&words);
            if count == 0 {
                return None;
            }
            score += saturated(count, words.len());
        }
        Some(score)
    }
}

fn keep(groups: &mut Vec<Group>, group: Option<(usize, Group)>) {
    if let Some((_, group)) = group
        && !groups.contains(&group)
    {
        groups.push(group);
    }
}

/// The BM25 weight of a word count in a text of this length.
fn saturated(count: usize, words: usize) -> f64 {
    const SATURATION: f64 = 1.2;
    const LENGTH_SHARE: f64 = 0.75;
    const USUAL_WORDS: f64 = 12.0;
    let length = 1.0 - LENGTH_SHARE + LENGTH_SHARE * words as f64 / USUAL_WORDS;
    count as f64 / (count as f64 + SATURATION * length)
}

impl Group {
    fn occurrences(&self, words: &[&str]) -> usize {
        words.windows(self.words.len()).filter(|window| self.is(window)).count()
    }

    fn is(&self, window: &[&str]) -> bool {
        let Some((last, before)) = self.words.split_last() else { return false };
        let Some((word, words)) = window.split_last() else { return false };
        let is_at_end = if self.is_prefix { word.starts_with(last.as_str()) } else { word == last };
        is_at_end && words.iter().zip(before).all(|(word, wanted)| word == wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<String> {
        words(&fold(text)).map(|(_, word)| word.to_owned()).collect()
    }

    #[test]
    fn words_of_any_script() {
        assert_eq!(split("Don't panic: 42nd_try!"), ["don", "t", "panic", "42nd", "try"]);
        assert_eq!(split("ПРИВЕТ, Ёжик"), ["привет", "ёжик"]);
        assert_eq!(split("ΣΟΦΟΣ ὈΔΥΣΣΕΎΣ"), ["σοφοσ", "ὀδυσσεύσ"]);
        assert_eq!(split("नमस्ते दुनिया"), ["नमस्ते", "दुनिया"]);
        assert_eq!(split("日本語abc、テスト"), ["日", "本", "語", "abc", "テ", "ス", "ト"]);
        assert_eq!(split("한국어 مرحبا"), ["한국어", "مرحبا"]);
        assert_eq!(split("e\u{301}te\u{301}"), ["été"], "marks compose");
        assert_eq!(split("co\u{AD}op می\u{200C}خواهم"), ["coop", "میخواهم"], "joined unseen");
        assert_eq!(split(" \u{1}*\"👍 -- "), [""; 0]);
        assert_eq!(split(""), [""; 0]);
    }

    #[test]
    fn the_index_has_the_beginning_of_a_long_word() {
        let long = "ж".repeat(100);
        assert_eq!(indexed(&long), "ж".repeat(32));
        assert_eq!(indexed("abc"), "abc");
        let text = format!("b a b {long} {long}ж");
        assert_eq!(distinct(&text).into_iter().collect::<Vec<_>>(), ["a", "b", &"ж".repeat(32)]);
    }

    fn groups(text: &str) -> String {
        let Some(query) = Query::parse(text) else { return "none".to_owned() };
        let shown = query.groups.iter().map(|group| {
            format!("{}{}", group.words.join("+"), if group.is_prefix { "*" } else { "" })
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn queries_are_words_prefixes_and_phrases() {
        for (text, read) in [
            ("Hello  World hello", "hello world"),
            ("hel* Wor*", "hel* wor*"),
            ("\"the quick fox\" jumps", "the+quick+fox jumps"),
            ("\"the qui*\"", "the+qui*"),
            ("\"the qui\"* x", "the+qui* x"),
            ("“so quoted” x", "so+quoted x"),
            ("don't", "don t"),
            ("a*b", "a* b"),
            ("日本語 abc日", "日+本+語 abc+日"),
            ("日本*", "日+本*"),
            // Operators of FTS5 are words here, or nothing.
            ("a OR b NOT c NEAR(d, 2)", "a or b not c near d 2"),
            ("content:x ^y -z {q} 'r' (", "content x y z q r"),
            ("\"open phrase", "open+phrase"),
            ("*", "none"),
            ("\"\" ** \"*\"", "none"),
            ("-!()", "none"),
            ("", "none"),
        ] {
            assert_eq!(groups(text), read, "{text}");
        }
        let many = |count: usize| "x ".repeat(count);
        assert_eq!(groups(&many(QUERY_WORDS_MAX)), "x");
        assert_eq!(groups(&many(QUERY_WORDS_MAX + 1)), "none");
    }

    #[test]
    fn all_groups_must_occur() {
        let fits = |query: &str, text: &str| Query::parse(query).unwrap().score(text).is_some();
        assert!(fits("WORLD hello", "Hello, world"));
        assert!(!fits("hello moon", "Hello, world"));
        assert!(fits("wor*", "world") && fits("world*", "world") && !fits("orl*", "world"));
        assert!(!fits("wor", "world"));
        assert!(fits("\"quick brown\"", "the quick, brown fox"));
        assert!(!fits("\"brown quick\"", "the quick brown fox"));
        assert!(!fits("\"quick fox\"", "the quick brown fox"));
        assert!(fits("本語", "日本語") && !fits("日語", "日本語"));
        assert!(fits("Ёж", "ёж"));
        assert!(!fits("a b c", "a"));
    }

    #[test]
    fn more_often_and_shorter_is_better() {
        let score = |text: &str| Query::parse("cat").unwrap().score(text).unwrap();
        assert!(score("cat cat dog") > score("cat dog dog"));
        assert!(score("cat dog") > score(&"cat dog ".repeat(2).replace("cat dog cat", "cat the")));
        assert!(score("the cat") > score("the cat sat on the mat and watched the other one"));
    }
}
