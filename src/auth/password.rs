//! Passwords: preparing, hashing, checking.
//!
//! Owns the form of a stored password and the wiping of what leads to it. Must not know users,
//! chats, threads or how often somebody may try.
//!
//! A stored password is text that carries its own parameters, so that the configured rounds may
//! change while old ones still open:
//!
//! ```text
//! pbkdf2-sha256$600000$<32 hex digits of salt>$<64 hex digits of hash>
//! ```
//!
//! Before hashing, a password is prepared as RFC 8265 says for OpaqueString: spaces outside ASCII
//! become U+0020, then NFC; nothing is cut off and case counts. The classes of characters which
//! that RFC forbids are not refused: a password is never shown, and refusing it at the next login
//! would lock somebody out.

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

/// Longest text, in bytes, that preparing is tried on. Preparing makes a text less than four times
/// shorter (iota by its other name U+1FBE with two marks, seven bytes to two, is the worst), so
/// what is longer than this is over [`PASSWORD_BYTES_MAX`] prepared, too.
const GIVEN_BYTES_MAX: usize = 4 * PASSWORD_BYTES_MAX;

/// Text that must not be shown, such as a password as somebody typed it. Wiped when dropped; its
/// Debug form shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over; no copy of it is left behind.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself: only for preparing it, or sending it where it belongs.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// A prepared password: the only form that is hashed, so that nobody forgets to prepare one.
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

/// Whose password it is: they have different lengths (protocol section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// At least 8 characters, at most 256 bytes.
    User,
    /// 1 to 256 bytes.
    Chat,
}

/// Why a text cannot become a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPassword {
    /// Fewer characters (Unicode scalar values) than this after preparation.
    TooShort(usize),
    /// Over 256 bytes after preparation.
    TooLong,
}

impl fmt::Display for BadPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort(least) => write!(f, "a password has at least {least} characters here"),
            Self::TooLong => write!(f, "a password has at most {PASSWORD_BYTES_MAX} bytes"),
        }
    }
}

impl std::error::Error for BadPassword {}

/// Prepares a new password and checks its length, which is that of the prepared form: at least so
/// many characters, at most that many bytes.
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

/// Prepares a password that somebody tries. `None`, for an empty one or one over 256 bytes, means
/// that it is wrong: no password can be like that, so it need not be hashed.
pub fn prepare_attempt(given: &str) -> Option<Password> {
    opaque_string(given).filter(|prepared| !prepared.bytes().is_empty())
}

/// RFC 8265 section 4.2.2; `None` when the outcome is over 256 bytes.
fn opaque_string(given: &str) -> Option<Password> {
    if given.len() > GIVEN_BYTES_MAX {
        return None;
    }
    // NFC triples a text at most; with room for that it is never moved, so no copy escapes wiping.
    let mut prepared = Zeroizing::new(String::with_capacity(3 * given.len()));
    let spaced = given.chars().map(ascii_space);
    if is_nfc_quick(spaced.clone()) == IsNormalized::Yes {
        // The usual password: nothing passes through the normaliser's own buffers.
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

/// Hashes a prepared password with a fresh salt into the stored form. Rounds are brought into
/// 1..=[`PASSWORD_ITERATIONS_MAX`]. Takes about a quarter of a microsecond per round.
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

/// Whether the prepared password is the one stored, compared in constant time. `false`, at once,
/// when the stored text is not of the form this module writes.
pub fn verify(stored: &str, password: &Password) -> bool {
    let Some(stored) = Stored::parse(stored) else {
        return false;
    };
    let secret = password.bytes();
    pbkdf2::verify(ALGORITHM, stored.rounds, &stored.salt, secret, &stored.hash).is_ok()
}

/// A stored form with a number of rounds that belongs to nobody. Whether a password is verified by
/// it says nothing.
pub fn nobody(rounds: u32) -> String {
    let rounds = bounded(rounds);
    format!("{SCHEME}${rounds}${}${}", Hex(&[0; SALT_BYTES]), Hex(&[0; HASH_BYTES]))
}

/// Does the work of checking a password with a number of rounds, and knows nothing after it.
pub fn verify_nothing(password: &Password, rounds: u32) {
    let mut derived = Zeroizing::new([0; HASH_BYTES]);
    derive(password, bounded(rounds), &[0; SALT_BYTES], &mut derived);
    // Or the optimiser might see that nobody looks at it.
    std::hint::black_box(&derived);
}

/// The rounds a stored password asks for; `None` when it is not of this module's form.
pub fn rounds(stored: &str) -> Option<u32> {
    Stored::parse(stored).map(|stored| stored.rounds.get())
}

/// Whether a stored password has fewer rounds than are configured now. (More are left alone: they
/// are no weaker, and a single round is nobody's protection but a load test's way around it.)
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

/// A stored password taken apart. Not a secret of the first order, but wiped all the same.
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

    /// Made by another implementation (Python's hashlib.pbkdf2_hmac).
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

    /// The capacity in `opaque_string` and GIVEN_BYTES_MAX stand on these.
    #[test]
    fn preparing_grows_to_three_times_and_shrinks_to_a_quarter_at_most() {
        // The longest way to write what a scalar value is canonically.
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
