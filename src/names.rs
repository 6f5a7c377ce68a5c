//! Names of users and chats: which are valid, and which are equal (protocol section 7).
//!
//! Owns the alphabet and the comparison. It knows nothing about owners, or whether a name is taken.
//!
//! A name is stored as given, in NFC, together with a key: lower case, then NFC. Two names are
//! equal when their keys are. One step is added to the lower case: the final sigma `ς` becomes `σ`.
//! Both are the lower case of `Σ`, and which one is used depends on the position in the word;
//! without this step, a prefix of a name would not always give a prefix of its key.
//!
//! New names follow UTS 39: letters of one script, nothing that NFKC would change, few marks. Two
//! logins look alike when their [`Skeletons`] overlap. Names stored under older rules stay valid
//! ([`Name::parse_stored`]).
//!
//! All work is bounded: a text too long to be a name is rejected before it is normalized.

use std::fmt;

use unicode_normalization::{UnicodeNormalization, is_nfkc};
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory as _};
use unicode_script::{Script, UnicodeScript as _};
use unicode_security::confusable_detection::skeleton;
use unicode_security::mixed_script::AugmentedScriptSet;

use crate::limits::{FILE_NAME_BYTES_MAX, MEDIA_TYPE_BYTES_MAX, NAME_CHARS_MAX, NAME_MARKS_MAX};

/// Longest text, in Unicode scalar values, that can become a name by NFC. No canonical
/// decomposition has more than four of them, so NFC shortens a text to a quarter at most.
const SOURCE_CHARS_MAX: usize = 4 * NAME_CHARS_MAX;

/// Whether a text is a valid file name.
pub fn is_file_name(name: &str) -> bool {
    (1..=FILE_NAME_BYTES_MAX).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.chars().any(|c| c.is_control() || c == '/' || c == '\\')
}

/// Whether a text is a valid media type.
pub fn is_media_type(text: &str) -> bool {
    let is_token = |part: &str| {
        let is_in =
            |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&c);
        !part.is_empty() && part.bytes().all(is_in)
    };
    text.len() <= MEDIA_TYPE_BYTES_MAX
        && text.split_once('/').is_some_and(|(kind, sub)| is_token(kind) && is_token(sub))
}

/// A valid name of a user or a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    text: String,
    key: String,
}

impl Name {
    /// Parses a login name; these have the strictest rules.
    pub fn parse(given: &str) -> Result<Self, BadName> {
        let name = Self::parse_strict(given)?;
        check_scripts(&name.text)?;
        Ok(name)
    }

    /// Parses the name of a group: each part between `-`, `_` and `.` may have a script of its own.
    pub fn parse_group(given: &str) -> Result<Self, BadName> {
        let name = Self::parse_strict(given)?;
        name.text.split(['-', '_', '.']).try_for_each(check_scripts)?;
        Ok(name)
    }

    /// Parses a name that is stored already, perhaps under older rules.
    pub fn parse_stored(given: &str) -> Result<Self, BadName> {
        let text = composed(given).ok_or(BadName::TooLong)?;
        if text.is_empty() {
            return Err(BadName::Empty);
        }
        if text.chars().count() > NAME_CHARS_MAX {
            return Err(BadName::TooLong);
        }
        check_alphabet(&text, usize::MAX)?;
        let key = folded(&text);
        Ok(Self { text, key })
    }

    /// Applies all rules except the one on scripts.
    fn parse_strict(given: &str) -> Result<Self, BadName> {
        let name = Self::parse_stored(given)?;
        check_alphabet(&name.text, NAME_MARKS_MAX)?;
        if !name.text.chars().any(is_letter_or_digit) {
            return Err(BadName::NoLetter);
        }
        if let Some(c) = changed_by_nfkc(&name.text) {
            return Err(BadName::Compatibility(c));
        }
        Ok(name)
    }

    /// The name as given, in NFC: 1 to 32 Unicode scalar values.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The key that names are compared by.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whether it has the form of the name of a removed account: `deleted-17`, `deleted-17-2`.
    pub fn is_of_removed(&self) -> bool {
        has_form_of_removed(&self.key, |c| c.is_ascii_digit())
    }

    /// The name and its key.
    pub fn into_parts(self) -> (String, String) {
        (self.text, self.key)
    }
}

/// Whether a text is `deleted-`, a number, and perhaps `-` and another number.
fn has_form_of_removed(text: &str, is_digit: impl Fn(char) -> bool) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.chars().all(&is_digit);
    text.strip_prefix("deleted-").is_some_and(|rest| rest.splitn(2, '-').all(is_number))
}

/// The UTS 39 skeletons of a login. Two logins look alike when any of their skeletons are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skeletons {
    /// The skeleton of the name as stored.
    pub stored: String,
    /// The skeleton of the name in lower case.
    pub lower: String,
}

impl Skeletons {
    /// The skeletons of a valid name.
    pub fn of(nickname: &str) -> Self {
        Self { stored: skeleton(nickname).collect(), lower: skeleton(&folded(nickname)).collect() }
    }

    /// Whether the login looks like the name of a removed account.
    pub fn are_of_removed(&self) -> bool {
        let digits: String = skeleton("0123456789").collect();
        [&self.stored, &self.lower].iter().any(|s| has_form_of_removed(s, |c| digits.contains(c)))
    }
}

/// Version of [`Skeletons::of`]. It grows with the Unicode tables; stored skeletons of an older
/// version are computed again.
pub const SKELETONS_VERSION: i64 = {
    let (major, minor, patch) = unicode_security::UNICODE_VERSION;
    (major * 10_000 + minor * 100 + patch) as i64
};

/// The reason why a text is not a valid name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadName {
    /// It is empty.
    Empty,
    /// It has over 32 Unicode scalar values after NFC.
    TooLong,
    /// Contains a character that is invisible, or not a letter, digit, mark, `_`, `-` or `.`.
    NotAllowed(char),
    /// A mark does not follow a letter.
    StrayMark(char),
    /// A letter has too many marks.
    TooManyMarks(char),
    /// It has neither a letter nor a digit.
    NoLetter,
    /// A character is a variant of a plainer one.
    Compatibility(char),
    /// It has letters of several scripts.
    MixedScripts,
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "a name cannot be empty"),
            Self::TooLong => write!(f, "a name has at most {NAME_CHARS_MAX} characters"),
            Self::NotAllowed(c) => {
                write!(f, "a name has letters, digits, \"_\", \"-\" and \".\", not ")?;
                match c {
                    ' ' => write!(f, "spaces"),
                    c if c.is_ascii_graphic() => write!(f, "\"{c}\""),
                    c => write!(f, "U+{:04X}", u32::from(*c)),
                }
            }
            Self::StrayMark(c) => {
                write!(f, "a mark follows a letter: U+{:04X} does not", u32::from(*c))
            }
            Self::TooManyMarks(c) => {
                let c = u32::from(*c);
                write!(f, "a letter has at most {NAME_MARKS_MAX} marks: U+{c:04X} is one too many")
            }
            Self::NoLetter => write!(f, "a name has at least one letter or digit"),
            Self::Compatibility(c) => {
                write!(f, "U+{:04X} is a variant of a plainer letter: use that", u32::from(*c))
            }
            Self::MixedScripts => write!(f, "the letters of a name are of one script"),
        }
    }
}

impl std::error::Error for BadName {}

/// The key to look up a typed name; `None` if it is too long for any name. Other texts that are not
/// valid names have keys that no name has.
pub fn name_key(given: &str) -> Option<String> {
    composed(given).map(|text| folded(&text))
}

/// The prefix of the keys of all names with this prefix. The empty prefix matches every name.
/// `None` if it is too long for any name.
pub fn prefix_key(given: &str) -> Option<String> {
    name_key(given)
}

/// A text of any length, normalized as names are.
pub fn text_key(given: &str) -> String {
    if given.is_ascii() {
        return given.to_ascii_lowercase();
    }
    folded(&given.nfc().collect::<String>())
}

/// The text in NFC; `None`, after bounded work, if it is too long to be a name.
fn composed(given: &str) -> Option<String> {
    let bounded = given.chars().nth(SOURCE_CHARS_MAX).is_none();
    bounded.then(|| given.nfc().collect())
}

/// The key of a text in NFC.
fn folded(text: &str) -> String {
    let lower = text.to_lowercase();
    lower.chars().map(|c| if c == 'ς' { 'σ' } else { c }).nfc().collect()
}

/// Checks for letters, digits, `_`, `-`, `.`, and at most `marks_max` marks after each letter.
fn check_alphabet(text: &str, marks_max: usize) -> Result<(), BadName> {
    // How many more marks may follow; `None` where no mark may.
    let mut marks_left = None;
    for c in text.chars() {
        match c.general_category_group() {
            _ if is_invisible(c) => return Err(BadName::NotAllowed(c)),
            GeneralCategoryGroup::Letter => marks_left = Some(marks_max),
            GeneralCategoryGroup::Mark => match &mut marks_left {
                None => return Err(BadName::StrayMark(c)),
                Some(0) => return Err(BadName::TooManyMarks(c)),
                Some(left) => *left -= 1,
            },
            _ if is_digit(c) || matches!(c, '_' | '-' | '.') => marks_left = None,
            _ => return Err(BadName::NotAllowed(c)),
        }
    }
    Ok(())
}

fn is_letter_or_digit(c: char) -> bool {
    c.general_category_group() == GeneralCategoryGroup::Letter || is_digit(c)
}

fn is_digit(c: char) -> bool {
    c.general_category() == GeneralCategory::DecimalNumber
}

/// Thai and Lao AM: everyday letters, although NFKC decomposes them.
fn is_am(c: char) -> bool {
    matches!(c, '\u{0E33}' | '\u{0EB3}')
}

/// The first character of a text in NFC that NFKC would change.
fn changed_by_nfkc(text: &str) -> Option<char> {
    let is_changed = |c: &char| !is_am(*c) && !is_nfkc(c.encode_utf8(&mut [0; 4]));
    text.chars().find(is_changed)
}

/// Checks that letters and marks are of one script (UTS 39, "highly restrictive"). Latin may be
/// mixed with Japanese, Korean and Chinese, whose writing systems use several scripts.
fn check_scripts(text: &str) -> Result<(), BadName> {
    let (mut all, mut but_latin) = (AugmentedScriptSet::default(), AugmentedScriptSet::default());
    for c in text.chars().filter(|c| !is_digit(*c)) {
        let scripts = AugmentedScriptSet::from(c);
        all.intersect_with(scripts);
        if !c.script_extension().contains_script(Script::Latin) {
            but_latin.intersect_with(scripts);
        }
    }
    let is_east_asian = but_latin.hanb || but_latin.jpan || but_latin.kore;
    if all.is_empty() && !is_east_asian { Err(BadName::MixedScripts) } else { Ok(()) }
}

/// Letters and marks that are invisible (`Default_Ignorable_Code_Point`): with them, names could
/// look equal or empty.
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
        for text in [
            "anna",
            "Анна",
            "Ёлка-2",
            "ΣΟΦΟΣ",
            "한국어",
            "नमस्ते",
            "名前",
            "٣٤",
            "a_b-c.d",
            "2",
            "น้ำ",
            "ນ້ຳ",
        ] {
            assert_eq!(Name::parse(text).unwrap().text(), text);
        }
    }

    #[test]
    fn case_does_not_distinguish_names() {
        assert_eq!(key("АННА"), key("анна"));
        assert_eq!(key("ЁЖ"), key("ёж"));
        assert_eq!(key("ANNA"), "anna");
        assert_eq!(key("ΣΟΦΟΣ"), key("σοφος"));
        assert_eq!(key("ΣΟΦΟΣ"), key("σοφοσ"));
        assert_eq!(name_key("ǅ"), name_key("ǆ"));
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
        assert_eq!(name_key("\u{212A}\u{2126}").as_deref(), Some("kω"));
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
    fn a_letter_has_two_marks_at_most() {
        assert!(Name::parse("q\u{323}\u{307}").is_ok());
        assert!(Name::parse("a-\u{301}").is_err());
        let pile = "q\u{323}\u{307}\u{308}";
        assert_eq!(Name::parse(pile), Err(BadName::TooManyMarks('\u{308}')));
        assert_eq!(Name::parse_group(pile), Err(BadName::TooManyMarks('\u{308}')));
        assert!(Name::parse_stored(pile).is_ok());
    }

    #[test]
    fn variants_of_plainer_letters_are_refused() {
        for text in ["ａｎｎａ", "𝐚𝐧𝐧𝐚", "ﬁn", "ªnna", "ǅ", "ｱﾅ", "ℵ", "１2", "𝟏"]
        {
            assert!(matches!(Name::parse(text), Err(BadName::Compatibility(_))), "{text}");
            assert!(matches!(Name::parse_group(text), Err(BadName::Compatibility(_))), "{text}");
            assert!(Name::parse_stored(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn the_letters_of_a_name_are_of_one_script() {
        for text in ["аnna", "annа", "Αnna", "аννа", "anna-Анна", "한русский", "a\u{94D}"]
        {
            assert_eq!(Name::parse(text), Err(BadName::MixedScripts), "{text}");
            assert!(Name::parse_stored(text).is_ok(), "{text}");
        }
        for text in ["Team東京タワー", "김Kim", "ㄅㄆ漢字abc", "ラーメンbar", "дом2", "anna_٣"]
        {
            assert!(Name::parse(text).is_ok(), "{text}");
        }
        for text in ["команда-dev", "anna.Анна_Άννα", "ops-운영"] {
            assert!(Name::parse_group(text).is_ok(), "{text}");
        }
        for text in ["аnna-dev", "dev-аnna", "dev.тест1тest"] {
            assert_eq!(Name::parse_group(text), Err(BadName::MixedScripts), "{text}");
        }
    }

    #[test]
    fn a_name_has_a_letter_or_a_digit() {
        for text in [".", "-", "_._"] {
            assert_eq!(Name::parse(text), Err(BadName::NoLetter));
            assert_eq!(Name::parse_group(text), Err(BadName::NoLetter));
        }
    }

    #[test]
    fn names_that_look_alike_share_a_skeleton() {
        let meet = |one: &str, other: &str| {
            let (one, other) = (Skeletons::of(one), Skeletons::of(other));
            one.stored == other.stored || one.lower == other.lower
        };
        for (one, other) in [
            ("anna", "аnna"),
            ("paypal", "раураl"),
            ("boris1", "borisl"),
            ("borisI", "borisl"),
            ("Boris1", "boRISl"),
            ("corn", "com"),
            ("ОЛЕГ", "OЛEГ"),
        ] {
            assert!(meet(one, other), "{one} {other}");
        }
        for (one, other) in [("anna", "boris"), ("load10", "load11"), ("Анна", "Инна")] {
            assert!(!meet(one, other), "{one} {other}");
        }
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

    /// For every scalar value allowed in a name: alone, before a mark, and after a letter.
    #[test]
    fn a_key_is_its_own_key_and_all_cases_share_it() {
        let mut seen = 0;
        for c in char::MIN..=char::MAX {
            // SOURCE_CHARS_MAX depends on this.
            assert!(c.nfd().count() <= 4);
            if Name::parse_stored(&format!("α{c}")).is_err() {
                continue;
            }
            seen += 1;
            for text in [c.to_string(), format!("{c}\u{301}"), format!("α{c}")] {
                let Ok(name) = Name::parse_stored(&text) else {
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
