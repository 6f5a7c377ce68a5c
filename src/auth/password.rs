//! Passwords: normalizing, hashing and verifying them.
//!
//! Owns the form of a stored password, and wipes all intermediate secrets. It does not know users,
//! chats, threads or rate limits.
//!
//! A stored password contains its own parameters, so the configured rounds can change while old
//! passwords stay valid:
//!
//! ```text
//! pbkdf2-sha256$600000$<32 hex digits of salt>$<64 hex digits of hash>
//! ```
//!
//! Before hashing, a password is normalized as OpaqueString (RFC 8265): spaces outside ASCII become
//! U+0020, then NFC. It is not truncated, and case matters. Characters that the RFC forbids are
//! allowed here: a password is never displayed, and rejecting it at a later login would lock the
//! user out.

use std::fmt;
use std::num::NonZeroU32;

use ring::pbkdf2;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory as _};
use zeroize::{Zeroize as _, Zeroizing};

use super::random::{NoRandomness, RandomSource};
use crate::limits::{PASSWORD_BYTES_MAX, PASSWORD_ITERATIONS_MAX, USER_PASSWORD_CHARS_MIN};

const SCHEME: &str = "pbkdf2-sha256";
const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;

/// Longest text, in bytes, that is normalized. Normalizing never shortens a text to less than a
/// quarter (the worst case is U+1FBE with two marks: seven bytes to two), so longer texts exceed
/// [`PASSWORD_BYTES_MAX`] in any case.
const GIVEN_BYTES_MAX: usize = 4 * PASSWORD_BYTES_MAX;

/// Text that must not be displayed, such as a typed password. Wiped on drop; its Debug form hides
/// it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes ownership of the text, without a copy.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text. Use it only to normalize or to send it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// A normalized password: the only type that can be hashed, so normalizing cannot be forgotten.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Password(Secret);

impl Password {
    fn bytes(&self) -> &[u8] {
        self.0.expose().as_bytes()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The kind of a password, which determines its length limits (protocol section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// At least 8 characters, at most 256 bytes.
    User,
    /// 1 to 256 bytes.
    Chat,
}

/// The reason why a text cannot be a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPassword {
    /// It has fewer characters (Unicode scalar values) than this, after normalizing.
    TooShort(usize),
    /// It has over 256 bytes, after normalizing.
    TooLong,
}

impl fmt::Display for BadPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort(1) => f.write_str("a password must not be empty"),
            Self::TooShort(least) => write!(f, "a password has at least {least} characters here"),
            Self::TooLong => write!(f, "a password has at most {PASSWORD_BYTES_MAX} bytes"),
        }
    }
}

impl std::error::Error for BadPassword {}

/// Normalizes a new password, and checks the length of the result: a minimum of characters, a
/// maximum of bytes.
pub fn prepare(given: &str, kind: Kind) -> Result<Password, BadPassword> {
    let least = match kind {
        Kind::User => USER_PASSWORD_CHARS_MIN,
        Kind::Chat => 1,
    };
    let prepared = opaque_string(given).ok_or(BadPassword::TooLong)?;
    if prepared.0.expose().chars().count() < least {
        return Err(BadPassword::TooShort(least));
    }
    Ok(prepared)
}

/// Normalizes a password to be verified. `None`: empty or over 256 bytes, so it is wrong and need
/// not be hashed.
pub fn prepare_attempt(given: &str) -> Option<Password> {
    opaque_string(given).filter(|prepared| !prepared.bytes().is_empty())
}

/// OpaqueString of RFC 8265, section 4.2.2; `None` if the result is over 256 bytes.
fn opaque_string(given: &str) -> Option<Password> {
    if given.len() > GIVEN_BYTES_MAX {
        return None;
    }
    // NFC makes a text at most three times longer. With this capacity, the buffer never moves and
    // leaves no copy behind.
    let mut prepared = Zeroizing::new(String::with_capacity(3 * given.len()));
    let spaced = given.chars().map(ascii_space);
    if is_nfc_quick(spaced.clone()) == IsNormalized::Yes {
        // The common case: avoids the internal buffers of the normalizer.
        prepared.extend(spaced);
    } else {
        prepared.extend(spaced.nfc());
    }
    debug_assert!(prepared.len() <= 3 * given.len());
    (prepared.len() <= PASSWORD_BYTES_MAX).then_some(Password(Secret(prepared)))
}

fn ascii_space(c: char) -> char {
    if c.general_category() == GeneralCategory::SpaceSeparator { ' ' } else { c }
}

/// Hashes a password with a new salt. Rounds are clamped to 1..=[`PASSWORD_ITERATIONS_MAX`]. Takes
/// about a quarter of a microsecond per round.
pub fn hash(
    password: &Password,
    rounds: u32,
    random: &dyn RandomSource,
) -> Result<String, NoRandomness> {
    let mut salt = [0; SALT_BYTES];
    random.fill(&mut salt)?;
    let rounds = bounded(rounds);
    let mut derived = Zeroizing::new([0; HASH_BYTES]);
    derive(password, rounds, &salt, &mut derived);
    Ok(format!("{SCHEME}${rounds}${}${}", Hex(&salt), Hex(&*derived)))
}

/// Whether a password matches a stored one, compared in constant time. Returns `false` at once if
/// the stored text is not in the format of this module.
pub fn verify(stored: &str, password: &Password) -> bool {
    let Some(stored) = Stored::parse(stored) else {
        return false;
    };
    let secret = password.bytes();
    pbkdf2::verify(ALGORITHM, stored.rounds, &stored.salt, secret, &stored.hash).is_ok()
}

/// A stored password with this number of rounds that belongs to nobody. Ignore the result of
/// verifying against it.
pub fn nobody(rounds: u32) -> String {
    let rounds = bounded(rounds);
    format!("{SCHEME}${rounds}${}${}", Hex(&[0; SALT_BYTES]), Hex(&[0; HASH_BYTES]))
}

/// Whether a stored password is that of [`nobody`].
pub fn is_nobodys(stored: &str) -> bool {
    rounds(stored).is_some_and(|rounds| nobody(rounds) == stored)
}

/// Does the work of verifying with this number of rounds, and discards the result.
pub fn verify_nothing(password: &Password, rounds: u32) {
    let mut derived = Zeroizing::new([0; HASH_BYTES]);
    derive(password, bounded(rounds), &[0; SALT_BYTES], &mut derived);
    // Prevents the optimizer from removing the unused result.
    std::hint::black_box(&derived);
}

/// The rounds of a stored password; `None` if it is not in the format of this module.
pub fn rounds(stored: &str) -> Option<u32> {
    Stored::parse(stored).map(|stored| stored.rounds.get())
}

/// Whether a stored password has fewer rounds than configured. More rounds are left alone: they are
/// not weaker.
pub fn needs_upgrade(stored: &str, configured_rounds: u32) -> bool {
    rounds(stored).is_some_and(|rounds| rounds > 1 && rounds < bounded(configured_rounds).get())
}

const ALGORITHM: pbkdf2::Algorithm = pbkdf2::PBKDF2_HMAC_SHA256;

fn derive(password: &Password, rounds: NonZeroU32, salt: &[u8], out: &mut [u8; HASH_BYTES]) {
    pbkdf2::derive(ALGORITHM, rounds, salt, password.bytes(), out);
}

fn bounded(rounds: u32) -> NonZeroU32 {
    NonZeroU32::new(rounds.min(PASSWORD_ITERATIONS_MAX)).unwrap_or(NonZeroU32::MIN)
}

/// A parsed stored password. Wiped on drop, although it is not a secret itself.
struct Stored {
    rounds: NonZeroU32,
    salt: [u8; SALT_BYTES],
    hash: [u8; HASH_BYTES],
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.hash.zeroize();
    }
}

impl Stored {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('$');
        let (scheme, rounds, salt, hash) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if scheme != SCHEME || parts.next().is_some() {
            return None;
        }
        if !rounds.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        let rounds = rounds.parse().ok().and_then(NonZeroU32::new)?;
        if rounds.get() > PASSWORD_ITERATIONS_MAX {
            return None;
        }
        Some(Self { rounds, salt: unhex(salt)?, hash: unhex(hash)? })
    }
}

/// Writes bytes as lowercase hex digits.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4) | digit(pair[1])?;
    }
    Some(bytes)
}

fn digit(hex: u8) -> Option<u8> {
    match hex {
        b'0'..=b'9' => Some(hex - b'0'),
        b'a'..=b'f' => Some(hex - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::fixed::{Counting, Empty};
    use super::*;

    const ROUNDS: u32 = 1000;

    fn secret(text: &str) -> Password {
        prepare_attempt(text).unwrap()
    }

    #[test]
    fn what_was_hashed_is_verified_and_nothing_else() {
        let stored = hash(&secret("correct horse"), ROUNDS, &Counting::default()).unwrap();
        assert!(stored.starts_with("pbkdf2-sha256$1000$000102030405060708090a0b0c0d0e0f$"));
        assert!(verify(&stored, &secret("correct horse")));
        for wrong in ["correct hors", "correct horse ", "Correct horse"] {
            assert!(!verify(&stored, &secret(wrong)));
        }
    }

    /// Computed by another implementation (Python's hashlib.pbkdf2_hmac).
    #[test]
    fn the_stored_form_is_pbkdf2_hmac_sha256() {
        let stored = "pbkdf2-sha256$4096$000102030405060708090a0b0c0d0e0f$\
                      8750ad7301ef1b2b80b2ce8deddc4b202af4decc15d43c39c9fcd2cb74dfb9ce";
        assert!(verify(stored, &secret("correct horse")));
    }

    #[test]
    fn two_hashes_of_one_password_differ() {
        let random = Counting::default();
        let password = secret("correct horse");
        assert_ne!(hash(&password, 1, &random), hash(&password, 1, &random));
    }

    #[test]
    fn without_randomness_nothing_is_hashed() {
        assert_eq!(hash(&secret("correct horse"), 1, &Empty), Err(NoRandomness));
    }

    #[test]
    fn damaged_stored_passwords_open_to_nobody() {
        let good = hash(&secret("correct horse"), 1, &Counting::default()).unwrap();
        let (head, digits) = good.rsplit_once('$').unwrap();
        let damaged = [
            String::new(),
            "$$$".to_owned(),
            good.replace("sha256", "sha512"),
            good.replace("$1$", "$0$"),
            good.replace("$1$", "$+1$"),
            good.replace("$1$", "$10000001$"),
            good.replace("$1$", "$99999999999$"),
            format!("{good}$"),
            format!("{head}${}", &digits[..62]),
            format!("{head}${}", digits.to_uppercase()),
            format!("{head}$é{}", &digits[2..]),
            head.to_owned(),
        ];
        for stored in &damaged {
            assert!(!verify(stored, &secret("correct horse")), "{stored}");
            assert_eq!(rounds(stored), None, "{stored}");
            assert!(!needs_upgrade(stored, u32::MAX), "{stored}");
        }
        assert!(verify(&good, &secret("correct horse")));
    }

    #[test]
    fn nobodys_password_is_one_in_form() {
        assert_eq!(rounds(&nobody(ROUNDS)), Some(ROUNDS));
        assert_eq!(
            nobody(ROUNDS).len(),
            hash(&secret("x"), ROUNDS, &Counting::default()).unwrap().len()
        );
        assert!(!verify(&nobody(ROUNDS), &secret("correct horse")));
        assert!(is_nobodys(&nobody(ROUNDS)) && is_nobodys(&nobody(ROUNDS + 1)));
        let stored = hash(&secret("x"), ROUNDS, &Counting::default()).unwrap();
        assert!(!is_nobodys(&stored) && !is_nobodys(""));
    }

    #[test]
    fn only_fewer_rounds_ask_for_an_upgrade() {
        let stored = hash(&secret("correct horse"), ROUNDS, &Counting::default()).unwrap();
        assert!(needs_upgrade(&stored, ROUNDS + 1));
        assert!(!needs_upgrade(&stored, ROUNDS));
        assert!(!needs_upgrade(&stored, ROUNDS - 1));
        assert_eq!(rounds(&stored), Some(ROUNDS));
        assert_eq!(rounds(&hash(&secret("x"), 0, &Counting::default()).unwrap()), Some(1));
    }

    #[test]
    fn passwords_are_prepared_as_opaque_strings() {
        assert_eq!(secret("caf\u{65}\u{301} \u{3000}\u{a0}x").0.expose(), "café   x");
        assert_eq!(secret("Пароль").0.expose(), "Пароль");
        assert_eq!(secret("\u{212A}").0.expose(), "K");
        assert_eq!(secret("tab\tstays").0.expose(), "tab\tstays");
    }

    #[test]
    fn length_is_that_of_the_prepared_form() {
        assert_eq!(prepare("seven77", Kind::User), Err(BadPassword::TooShort(8)));
        assert!(prepare("eight888", Kind::User).is_ok());
        assert_eq!(prepare("", Kind::Chat), Err(BadPassword::TooShort(1)));
        assert!(prepare("x", Kind::Chat).is_ok());
        assert!(prepare(&"x".repeat(256), Kind::User).is_ok());
        assert_eq!(prepare(&"x".repeat(257), Kind::User), Err(BadPassword::TooLong));
        // 768 bytes that become 256.
        assert!(prepare(&"\u{3000}".repeat(256), Kind::User).is_ok());
        assert!(prepare(&"\u{212A}".repeat(256), Kind::User).is_ok());
        // Eight characters before they are composed, seven after.
        assert_eq!(prepare("passe\u{301}x1", Kind::User), Err(BadPassword::TooShort(8)));
        // Characters count, not bytes.
        assert_eq!(prepare("пароль7", Kind::User), Err(BadPassword::TooShort(8)));
        assert!(prepare("пароль77", Kind::User).is_ok());
        assert_eq!(prepare("密码密码密", Kind::User), Err(BadPassword::TooShort(8)));
    }

    #[test]
    fn attempts_out_of_bounds_are_not_worth_hashing() {
        assert_eq!(prepare_attempt(""), None);
        assert_eq!(prepare_attempt(&"x".repeat(257)), None);
        assert_eq!(prepare_attempt(&"e\u{301}".repeat(1 << 20)), None);
        assert!(prepare_attempt("short").is_some());
    }

    /// The capacity in `opaque_string` and GIVEN_BYTES_MAX depend on these.
    #[test]
    fn preparing_grows_to_three_times_and_shrinks_to_a_quarter_at_most() {
        // The longest text that is canonically equivalent to each scalar value.
        let mut longest: std::collections::HashMap<char, usize> = Default::default();
        for c in char::MIN..=char::MAX {
            let c_spaced = ascii_space(c);
            let apart: usize = c.nfd().map(char::len_utf8).sum();
            assert!(apart <= 3 * c.len_utf8(), "{c:?}");
            let mut canonical = c_spaced.nfd();
            if let (Some(only), None) = (canonical.next(), canonical.next()) {
                let bytes = longest.entry(only).or_default();
                *bytes = c.len_utf8().max(*bytes);
            }
        }
        let settled = |c: &char| ascii_space(*c).nfc().eq([*c]);
        for c in (char::MIN..=char::MAX).filter(settled) {
            let given: usize = c.nfd().map(|part| longest[&part]).sum();
            assert!(given < 4 * c.len_utf8(), "{c:?}");
        }
    }

    #[test]
    fn a_secret_does_not_show_itself() {
        let shown = format!("{:?} {:#?}", secret("correct horse"), Some(secret("correct horse")));
        assert!(!shown.contains("horse"));
    }
}
