//! Names of users and chats: what may be one, and when two are the same (protocol section 7).
//!
//! Owns the alphabet and the comparison. Must not know whose name it is, or whether it is taken.
//!
//! A name is stored as given, in NFC, beside a key: lower-cased, then NFC. Two names are the same
//! when their keys are. One step is added to lower-casing: the final sigma `ς` becomes `σ`, for
//! both are the lower case of `Σ` and only its place in the word decides which, so that a prefix
//! of a name would otherwise not be a prefix of its key.
//!
//! Everything here is bounded: a text too long to be a name is refused before it is normalised.

use std::fmt;

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory as _};

use crate::limits::NAME_CHARS_MAX;

/// Longest text, in Unicode scalar values, that can become a name by NFC: no scalar value has a
/// canonical decomposition of more than four, so NFC shortens a text to a quarter at most.
const SOURCE_CHARS_MAX: usize = 4 * NAME_CHARS_MAX;

/// A name that may be given to a user or a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    text: String,
    key: String,
}

impl Name {
    /// Checks a text against the alphabet and the length of names.
    pub fn parse(given: &str) -> Result<Self, BadName> {
        let text = composed(given).ok_or(BadName::TooLong)?;
        if text.is_empty() {
            return Err(BadName::Empty);
        }
        if text.chars().count() > NAME_CHARS_MAX {
            return Err(BadName::TooLong);
        }
        check_alphabet(&text)?;
        let key = folded(&text);
        Ok(Self { text, key })
    }

    /// The name as it was given, in NFC: 1 to 32 Unicode scalar values.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the name is compared by.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The name and its key.
    pub fn into_parts(self) -> (String, String) {
        (self.text, self.key)
    }
}

/// Why a text is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadName {
    /// Nothing was given.
    Empty,
    /// Over 32 Unicode scalar values after NFC.
    TooLong,
    /// Neither letter nor digit nor mark, and not one of `_`, `-`, `.`; or one that nobody sees.
    NotAllowed(char),
    /// A mark that follows no letter.
    StrayMark(char),
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "a name cannot be empty"),
            Self::TooLong => write!(f, "a name has at most {NAME_CHARS_MAX} characters"),
            Self::NotAllowed(c) => write!(
                f,
                "a name has letters, digits, \"_\", \"-\" and \".\", not U+{:04X}",
                u32::from(*c)
            ),
            Self::StrayMark(c) => {
                write!(f, "a mark follows a letter: U+{:04X} does not", u32::from(*c))
            }
        }
    }
}

impl std::error::Error for BadName {}

/// The key by which to look up a name that somebody typed; `None` when the text is too long to be
/// any name. A text that is no name for other reasons has a key that no name has.
pub fn name_key(given: &str) -> Option<String> {
    composed(given).map(|text| folded(&text))
}

/// What the keys of all names that begin so begin with; the empty prefix is that of every name.
/// `None` when the text is too long to begin any name.
pub fn prefix_key(given: &str) -> Option<String> {
    name_key(given)
}

/// A text of any length in the form that names are compared in.
pub fn text_key(given: &str) -> String {
    if given.is_ascii() {
        return given.to_ascii_lowercase();
    }
    folded(&given.nfc().collect::<String>())
}

/// The text in NFC; `None`, after bounded work, when it is too long to be a name.
fn composed(given: &str) -> Option<String> {
    let bounded = given.chars().nth(SOURCE_CHARS_MAX).is_none();
    bounded.then(|| given.nfc().collect())
}

/// The key of a text in NFC.
fn folded(text: &str) -> String {
    let lower = text.to_lowercase();
    lower.chars().map(|c| if c == 'ς' { 'σ' } else { c }).nfc().collect()
}

fn check_alphabet(text: &str) -> Result<(), BadName> {
    let mut after_letter = false;
    for c in text.chars() {
        match c.general_category_group() {
            _ if is_invisible(c) => return Err(BadName::NotAllowed(c)),
            GeneralCategoryGroup::Letter => after_letter = true,
            GeneralCategoryGroup::Mark if after_letter => {}
            GeneralCategoryGroup::Mark => return Err(BadName::StrayMark(c)),
            _ if is_digit(c) || matches!(c, '_' | '-' | '.') => after_letter = false,
            _ => return Err(BadName::NotAllowed(c)),
        }
    }
    Ok(())
}

fn is_digit(c: char) -> bool {
    c.general_category() == GeneralCategory::DecimalNumber
}

/// Letters and marks by category that show nothing (`Default_Ignorable_Code_Point`): with them two
/// names could look the same, or like nothing at all.
pub(crate) fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{034F}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{180B}'..='\u{180F}'
        | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FFA0}' | '\u{E0100}'..='\u{E01EF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> String {
        Name::parse(text).unwrap().key().to_owned()
    }

    #[test]
    fn names_of_any_script_are_taken_as_given() {
        for text in
            ["anna", "Анна", "Ёлка-2", "ΣΟΦΟΣ", "한국어", "नमस्ते", "名前", "٣٤", "a_b-c.d", "."]
        {
            assert_eq!(Name::parse(text).unwrap().text(), text);
        }
    }

    #[test]
    fn case_does_not_tell_names_apart() {
        assert_eq!(key("АННА"), key("анна"));
        assert_eq!(key("ЁЖ"), key("ёж"));
        assert_eq!(key("ANNA"), "anna");
        assert_eq!(key("ΣΟΦΟΣ"), key("σοφος"));
        assert_eq!(key("ΣΟΦΟΣ"), key("σοφοσ"));
        assert_eq!(key("ǅ"), key("ǆ"));
        assert_ne!(key("анна"), key("анны"));
    }

    #[test]
    fn turkish_letters_follow_the_root_locale() {
        assert_eq!(key("İstanbul"), "i\u{307}stanbul");
        assert_eq!(key("ISTANBUL"), "istanbul");
        assert_eq!(key("ısı"), "ısı");
        assert_eq!(key("İstanbul"), key("i\u{307}stanbul"));
    }

    #[test]
    fn composed_and_decomposed_are_one_name() {
        let decomposed = Name::parse("Cafe\u{301}").unwrap();
        assert_eq!(decomposed.text(), "Café");
        assert_eq!(decomposed, Name::parse("Café").unwrap());
        assert_eq!(key("\u{1112}\u{1161}\u{11ab}"), key("한"));
        assert_eq!(key("и\u{306}"), key("Й"));
        // The Kelvin sign is K to NFC, the Ohm sign omega.
        assert_eq!(key("\u{212A}\u{2126}"), "kω");
    }

    #[test]
    fn what_is_no_name() {
        assert_eq!(Name::parse(""), Err(BadName::Empty));
        for text in
            ["a b", "a\n", "a\u{0}", "a/b", "a@b", "🦀", "½", "Ⅷ", "a\u{200D}b", "a\u{202E}"]
        {
            assert!(matches!(Name::parse(text), Err(BadName::NotAllowed(_))), "{text:?}");
        }
        for text in ["\u{301}a", "1\u{301}", "_\u{20DD}"] {
            assert!(matches!(Name::parse(text), Err(BadName::StrayMark(_))), "{text:?}");
        }
        for text in ["\u{3164}", "anna\u{FE0F}", "anna\u{34F}", "\u{1160}"] {
            assert!(matches!(Name::parse(text), Err(BadName::NotAllowed(_))), "{text:?}");
        }
    }

    #[test]
    fn the_length_is_counted_after_nfc() {
        assert!(Name::parse(&"я".repeat(32)).is_ok());
        assert_eq!(Name::parse(&"я".repeat(33)), Err(BadName::TooLong));
        // Four scalar values each before NFC, one after.
        assert!(Name::parse(&"α\u{313}\u{300}\u{345}".repeat(32)).is_ok());
        assert_eq!(Name::parse(&"α\u{313}\u{300}\u{345}".repeat(33)), Err(BadName::TooLong));
        assert_eq!(name_key(&"a\u{301}".repeat(1 << 20)), None);
        assert_eq!(prefix_key(&"a".repeat(129)), None);
    }

    #[test]
    fn marks_may_follow_marks_after_a_letter() {
        assert!(Name::parse("q\u{323}\u{307}").is_ok());
        assert!(Name::parse("a-\u{301}").is_err());
    }

    #[test]
    fn looking_up_finds_what_was_named() {
        for (named, typed) in [("Анна", "аННА"), ("Café", "CAFE\u{301}"), ("Σοφός", "ΣΟΦΌΣ")]
        {
            assert_eq!(name_key(typed).unwrap(), key(named));
        }
        assert_eq!(name_key("").as_deref(), Some(""));
    }

    #[test]
    fn a_prefix_of_a_name_is_a_prefix_of_its_key() {
        for name in ["Σοφοσύνη", "ΟΔΟΣ.ΟΔΟΣ", "Анна-Мария", "한국어", "İi"]
        {
            let whole = key(name);
            for (end, _) in name.char_indices() {
                let prefix = prefix_key(&name[..end]).unwrap();
                assert!(whole.starts_with(&prefix), "{name}: {prefix}");
            }
        }
    }

    /// Over every scalar value that may stand in a name, alone, before a mark and after a letter.
    #[test]
    fn a_key_is_its_own_key_and_all_cases_share_it() {
        let mut seen = 0;
        for c in char::MIN..=char::MAX {
            // SOURCE_CHARS_MAX stands on this.
            assert!(c.nfd().count() <= 4);
            if Name::parse(&format!("α{c}")).is_err() {
                continue;
            }
            seen += 1;
            for text in [c.to_string(), format!("{c}\u{301}"), format!("α{c}")] {
                let Ok(name) = Name::parse(&text) else {
                    continue;
                };
                assert_eq!(name_key(name.key()).as_deref(), Some(name.key()), "{text:?}");
                assert_eq!(name_key(name.text()).as_deref(), Some(name.key()), "{text:?}");
                let lower = name.text().to_lowercase();
                assert_eq!(name_key(&lower).as_deref(), Some(name.key()), "{text:?}");
            }
        }
        assert!(seen > 100_000);
    }
}
