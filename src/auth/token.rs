//! Session secrets, hook tokens, invite codes and reset codes.
//!
//! Owns their form and their digests; the database stores only digests. It does not know their
//! owners or lifetimes.
//!
//! All are random and long, so a plain SHA-256 suffices: they cannot be guessed.

use std::fmt;

use ring::digest::{Context, SHA256};
use zeroize::{Zeroize as _, Zeroizing};

use super::random::{NoRandomness, RandomSource};

/// Length of a session secret, in hex digits.
pub const SESSION_SECRET_DIGITS: usize = 64;

/// The stored digest of a secret: enough to verify it, useless to log in.
#[derive(Clone, Copy)]
pub struct Digest(pub [u8; 32]);

impl PartialEq for Digest {
    /// Compares in constant time.
    fn eq(&self, other: &Self) -> bool {
        let pairs = self.0.iter().zip(&other.0);
        let difference = pairs.fold(0, |all, (mine, theirs)| all | (mine ^ theirs));
        std::hint::black_box(difference) == 0
    }
}

impl Eq for Digest {}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(…)")
    }
}

impl Digest {
    /// The digest of a secret. `purpose` separates the kinds, so that one is never accepted as
    /// another.
    fn of(purpose: &str, secret: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(purpose.as_bytes());
        context.update(&[0]);
        context.update(secret);
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        Self(digest)
    }

    /// Reads a row; `None` if it is not a valid digest.
    pub fn from_row(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

/// The secret of a session (`session_hash` of the protocol): 256 random bits as 64 lowercase hex
/// digits. Wiped when dropped.
pub struct SessionSecret([u8; SESSION_SECRET_DIGITS]);

impl SessionSecret {
    /// Generates a new secret.
    pub fn generate(random: &dyn RandomSource) -> Result<Self, NoRandomness> {
        random_digits(random).map(Self)
    }

    /// The secret as on the wire, without the NUL.
    pub fn expose(&self) -> &[u8; SESSION_SECRET_DIGITS] {
        &self.0
    }

    /// The digest to store.
    pub fn digest(&self) -> Digest {
        Digest::of("session", &self.0)
    }
}

impl Drop for SessionSecret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for SessionSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionSecret(…)")
    }
}

/// The digest of a presented session secret; `None` if it does not have the form of one.
pub fn session_digest(presented: &str) -> Option<Digest> {
    let digits = presented.as_bytes();
    let formed = digits.len() == SESSION_SECRET_DIGITS
        && digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    formed.then(|| Digest::of("session", digits))
}

/// 256 random bits as hex digits.
fn random_digits(random: &dyn RandomSource) -> Result<[u8; SESSION_SECRET_DIGITS], NoRandomness> {
    let mut bits = Zeroizing::new([0; SESSION_SECRET_DIGITS / 2]);
    random.fill(&mut *bits)?;
    let mut digits = [0; SESSION_SECRET_DIGITS];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bits.iter()) {
        pair[0] = hex_digit(byte >> 4);
        pair[1] = hex_digit(byte & 15);
    }
    Ok(digits)
}

/// The token of a hook: 256 random bits as 64 lowercase hex digits. Wiped when dropped.
pub struct HookToken([u8; SESSION_SECRET_DIGITS]);

impl HookToken {
    /// Generates a new token.
    pub fn generate(random: &dyn RandomSource) -> Result<Self, NoRandomness> {
        random_digits(random).map(Self)
    }

    /// The token as in the path of the hook.
    pub fn expose(&self) -> &str {
        // Hex digits are UTF-8.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The digest to store.
    pub fn digest(&self) -> Digest {
        hook_digest(self.expose())
    }
}

impl Drop for HookToken {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for HookToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HookToken(…)")
    }
}

/// The digest of a presented hook token.
pub fn hook_digest(presented: &str) -> Digest {
    Digest::of("hook", presented.as_bytes())
}

fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}

/// The characters of an invite code: 32 that are not confused with each other.
const INVITE_ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Length of an invite code without hyphens: 100 bits.
const INVITE_CHARS: usize = 20;

/// Characters between hyphens.
const INVITE_GROUP: usize = 4;

/// Length of the prefix of a code that lists display, hyphen included.
const INVITE_HINT_BYTES: usize = 7;

/// Longest text that is parsed as an invite code, in bytes.
const INVITE_BYTES_MAX: usize = 64;

/// An invite code: 100 random bits, easy to read aloud. Wiped on drop.
#[derive(PartialEq, Eq)]
pub struct InviteCode([u8; INVITE_CHARS]);

impl InviteCode {
    /// Generates a new code.
    pub fn generate(random: &dyn RandomSource) -> Result<Self, NoRandomness> {
        let mut code = Self([0; INVITE_CHARS]);
        random.fill(&mut code.0)?;
        for byte in &mut code.0 {
            // 32 divides 256, so all characters are equally likely.
            *byte = INVITE_ALPHABET[usize::from(*byte % 32)];
        }
        Ok(code)
    }

    /// Parses a typed code: ignores case, spaces and hyphens; `o` is read as `0`, `i` and `l` as
    /// `1`. `None` if it is not a code.
    pub fn parse(typed: &str) -> Option<Self> {
        if typed.len() > INVITE_BYTES_MAX {
            return None;
        }
        let mut code = Self([0; INVITE_CHARS]);
        let mut length = 0;
        for byte in typed.bytes().filter(|byte| !matches!(byte, b' ' | b'-')) {
            *code.0.get_mut(length)? = canonical(byte)?;
            length += 1;
        }
        (length == INVITE_CHARS).then_some(code)
    }

    /// The code as displayed, in groups: `xxxx-xxxx-xxxx-xxxx-xxxx`.
    pub fn expose(&self) -> String {
        let mut text = String::with_capacity(INVITE_CHARS + INVITE_CHARS / INVITE_GROUP);
        for (index, &byte) in self.0.iter().enumerate() {
            if index > 0 && index % INVITE_GROUP == 0 {
                text.push('-');
            }
            text.push(char::from(byte));
        }
        text
    }

    /// The prefix that lists display: the first six characters. The other fourteen are 70 random
    /// bits.
    pub fn hint(&self) -> String {
        let mut text = self.expose();
        text.truncate(INVITE_HINT_BYTES);
        text
    }

    /// The digest to store.
    pub fn digest(&self) -> Digest {
        Digest::of("invite", &self.0)
    }
}

impl Drop for InviteCode {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for InviteCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InviteCode(…)")
    }
}

/// A reset code for one new password. It looks like an invite code, but its digest differs.
#[derive(PartialEq, Eq)]
pub struct ResetCode(InviteCode);

impl ResetCode {
    /// Generates a new code.
    pub fn generate(random: &dyn RandomSource) -> Result<Self, NoRandomness> {
        InviteCode::generate(random).map(Self)
    }

    /// Parses a typed code, as [`InviteCode::parse`] does.
    pub fn parse(typed: &str) -> Option<Self> {
        InviteCode::parse(typed).map(Self)
    }

    /// The code as displayed, in groups.
    pub fn expose(&self) -> String {
        self.0.expose()
    }

    /// The digest to store.
    pub fn digest(&self) -> Digest {
        Digest::of("reset", &self.0.0)
    }
}

impl fmt::Debug for ResetCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResetCode(…)")
    }
}

fn canonical(byte: u8) -> Option<u8> {
    let byte = match byte.to_ascii_lowercase() {
        b'o' => b'0',
        b'i' | b'l' => b'1',
        other => other,
    };
    INVITE_ALPHABET.contains(&byte).then_some(byte)
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::super::random::fixed::{Counting, Empty};
    use super::*;

    #[test]
    fn a_session_secret_is_64_lowercase_hex_digits() {
        let secret = SessionSecret::generate(&Counting::default()).unwrap();
        let text = std::str::from_utf8(secret.expose()).unwrap();
        assert_eq!(text, "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
    }

    #[test]
    fn the_digest_recognises_the_secret_and_no_other() {
        let random = SystemRandom::new();
        let mine = SessionSecret::generate(&random).unwrap();
        let other = SessionSecret::generate(&random).unwrap();
        let text = std::str::from_utf8(mine.expose()).unwrap();
        assert_eq!(session_digest(text), Some(mine.digest()));
        assert_ne!(mine.digest(), other.digest());
        for wrong in ["", &text[1..], &format!("{text}0"), &"A".repeat(64), &"é".repeat(32)] {
            assert_eq!(session_digest(wrong), None);
        }
    }

    #[test]
    fn every_bit_of_a_digest_counts() {
        let digest = SessionSecret::generate(&Counting::default()).unwrap().digest();
        for bit in 0..256 {
            let mut other = digest;
            other.0[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(digest, other);
        }
        assert_eq!(Digest::from_row(&digest.0), Some(digest));
        assert_eq!(Digest::from_row(&digest.0[1..]), None);
    }

    #[test]
    fn an_invite_survives_being_typed() {
        let code = InviteCode::generate(&Counting::default()).unwrap();
        assert_eq!(code.expose(), "0123-4567-89ab-cdef-ghjk");
        for typed in
            ["0123-4567-89ab-cdef-ghjk", "OI23 4567 89AB CDEF GHJK", "ol23456789abcdefghjk"]
        {
            let parsed = InviteCode::parse(typed).unwrap();
            assert_eq!(parsed.digest(), code.digest(), "{typed}");
        }
        for wrong in ["", "0123", "0123-4567-89ab-cdef-ghju", "0123-4567-89ab-cdef-ghjk0"] {
            assert_eq!(InviteCode::parse(wrong), None, "{wrong}");
        }
        assert_eq!(InviteCode::parse(&"-".repeat(1 << 20)), None);
    }

    #[test]
    fn a_hint_is_how_the_code_begins() {
        let code = InviteCode::generate(&Counting::default()).unwrap();
        assert_eq!(code.hint(), "0123-45");
        assert!(code.expose().starts_with(&code.hint()));
    }

    #[test]
    fn a_reset_code_is_no_invite() {
        let code = ResetCode::generate(&Counting::default()).unwrap();
        assert_eq!(ResetCode::parse(&code.expose()).unwrap().digest(), code.digest());
        let invite = InviteCode::parse(&code.expose()).unwrap();
        assert_ne!(invite.digest(), code.digest());
    }

    #[test]
    fn without_randomness_there_are_no_secrets() {
        assert!(SessionSecret::generate(&Empty).is_err());
        assert!(InviteCode::generate(&Empty).is_err());
    }

    #[test]
    fn secrets_do_not_show_themselves() {
        let secret = SessionSecret::generate(&Counting::default()).unwrap();
        let code = InviteCode::generate(&Counting::default()).unwrap();
        let shown = format!("{secret:?} {code:?} {:?}", secret.digest());
        assert_eq!(shown, "SessionSecret(…) InviteCode(…) Digest(…)");
    }
}
