//! Encryption of pushes: RFC 8291, with the content encoding aes128gcm of RFC 8188.

use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use ring::rand::SystemRandom;
use zeroize::Zeroizing;

use crate::auth::random::RandomSource as _;

/// Length of an uncompressed point of P-256, in bytes.
pub const POINT_BYTES: usize = 65;
/// Length of the secret shared with the browser, in bytes.
pub const AUTH_BYTES: usize = 16;
/// Longest body of a push, in bytes: what every push service accepts (RFC 8030, section 7.2).
pub const BODY_BYTES_MAX: usize = 4096;

const SALT_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
/// Salt, record size, key length, key.
const HEADER_BYTES: usize = SALT_BYTES + 4 + 1 + POINT_BYTES;
/// Longest text of a push, in bytes: the delimiter and the tag follow it.
pub const TEXT_BYTES_MAX: usize = BODY_BYTES_MAX - HEADER_BYTES - 1 - TAG_BYTES;
/// Texts are padded to multiples of this many bytes, so that their length reveals little.
const PAD_BYTES: usize = 256;
/// The delimiter after the text of the last record (RFC 8188, section 2).
const DELIMITER: u8 = 2;

/// The reason why a push cannot be encrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EncryptionError {
    /// The browser's key is not a point of the curve, or the secret has a wrong length.
    BadKeys,
    /// The text is longer than [`TEXT_BYTES_MAX`].
    TooLong,
    /// The operating system gave no random bytes.
    NoRandomness,
}

impl std::fmt::Display for EncryptionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::BadKeys => "the keys of the subscription are not valid",
            Self::TooLong => "the text is too long for a push",
            Self::NoRandomness => "the operating system gave no random bytes",
        })
    }
}

impl std::error::Error for EncryptionError {}

/// Key and nonce of the only record.
struct RecordKey {
    key: Zeroizing<[u8; 16]>,
    nonce: [u8; 12],
}

/// Encrypts a text for the browser with this public key and secret. Returns the body of the push.
///
/// # Errors
/// [`EncryptionError`].
pub fn encrypt(text: &str, p256dh: &[u8], auth: &[u8]) -> Result<Vec<u8>, EncryptionError> {
    if auth.len() != AUTH_BYTES || p256dh.len() != POINT_BYTES {
        return Err(EncryptionError::BadKeys);
    }
    if text.len() > TEXT_BYTES_MAX {
        return Err(EncryptionError::TooLong);
    }
    let no_randomness = |_| EncryptionError::NoRandomness;
    let random = SystemRandom::new();
    let mut salt = [0; SALT_BYTES];
    random.fill(&mut salt).map_err(|_| EncryptionError::NoRandomness)?;
    let private = EphemeralPrivateKey::generate(&ECDH_P256, &random).map_err(no_randomness)?;
    let public = private.compute_public_key().map_err(no_randomness)?;
    let peer = UnparsedPublicKey::new(&ECDH_P256, p256dh);
    let record_key = agree_ephemeral(private, &peer, |secret| {
        derive(secret, auth, p256dh, public.as_ref(), &salt)
    });
    let record_key = record_key.map_err(|_| EncryptionError::BadKeys)?;
    let padding = padding(text.len());
    seal(&record_key?, &salt, public.as_ref(), text.as_bytes(), padding)
}

/// Bytes of zero padding after a text, up to the next multiple of [`PAD_BYTES`] that fits.
fn padding(text_bytes: usize) -> usize {
    let padded = text_bytes.next_multiple_of(PAD_BYTES).clamp(PAD_BYTES, TEXT_BYTES_MAX);
    padded.saturating_sub(text_bytes)
}

/// Derives the record key (RFC 8291, section 3.4) from the ECDH secret, the browser's secret, both
/// public keys, and the salt.
fn derive(
    ecdh_secret: &[u8],
    auth: &[u8],
    ua_public: &[u8],
    as_public: &[u8],
    salt: &[u8],
) -> Result<RecordKey, EncryptionError> {
    let prk_key = Salt::new(HKDF_SHA256, auth).extract(ecdh_secret);
    let mut ikm = Zeroizing::new([0; 32]);
    expand(&prk_key, &[b"WebPush: info\0", ua_public, as_public], &mut *ikm)?;
    let prk = Salt::new(HKDF_SHA256, salt).extract(&*ikm);
    let mut key = Zeroizing::new([0; 16]);
    expand(&prk, &[b"Content-Encoding: aes128gcm\0"], &mut *key)?;
    let mut nonce = [0; 12];
    expand(&prk, &[b"Content-Encoding: nonce\0"], &mut nonce)?;
    Ok(RecordKey { key, nonce })
}

/// A length of HKDF output.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand(prk: &Prk, info: &[&[u8]], out: &mut [u8]) -> Result<(), EncryptionError> {
    let okm = prk.expand(info, Length(out.len()));
    // It fails only for lengths that HKDF does not support, and these are supported.
    okm.and_then(|okm| okm.fill(out)).map_err(|_| EncryptionError::BadKeys)
}

/// Assembles the header of RFC 8188 and the only record.
fn seal(
    record_key: &RecordKey,
    salt: &[u8],
    as_public: &[u8],
    text: &[u8],
    padding: usize,
) -> Result<Vec<u8>, EncryptionError> {
    let mut record = Zeroizing::new(Vec::with_capacity(text.len() + 1 + padding + TAG_BYTES));
    record.extend_from_slice(text);
    record.push(DELIMITER);
    record.resize(text.len() + 1 + padding, 0);
    let key = UnboundKey::new(&AES_128_GCM, &*record_key.key);
    let key = LessSafeKey::new(key.map_err(|_| EncryptionError::BadKeys)?);
    let nonce = Nonce::assume_unique_for_key(record_key.nonce);
    let sealed = key.seal_in_place_append_tag(nonce, Aad::empty(), &mut *record);
    sealed.map_err(|_| EncryptionError::TooLong)?;
    let mut body = Vec::with_capacity(HEADER_BYTES + record.len());
    body.extend_from_slice(salt);
    body.extend_from_slice(&(BODY_BYTES_MAX as u32).to_be_bytes());
    body.push(POINT_BYTES as u8);
    body.extend_from_slice(as_public);
    body.extend_from_slice(&record);
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::base64::{decode_url, encode_url};

    const UA_PUBLIC: &str =
        "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
    const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";

    fn bytes(text: &str) -> Vec<u8> {
        decode_url(text).unwrap()
    }

    /// Appendix A of RFC 8291, starting from the ECDH secret, since ring cannot import an ephemeral
    /// key.
    #[test]
    fn the_vector_of_the_rfc() {
        let as_public = bytes(
            "BP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A8",
        );
        let ecdh_secret = bytes("kyrL1jIIOHEzg3sM2ZWRHDRB62YACZhhSlknJ672kSs");
        let salt = bytes("DGv6ra1nlYgDCS1FRnbzlw");
        let record_key =
            derive(&ecdh_secret, &bytes(AUTH), &bytes(UA_PUBLIC), &as_public, &salt).ok().unwrap();
        assert_eq!(encode_url(&*record_key.key), "oIhVW04MRdy2XN9CiKLxTg");
        assert_eq!(encode_url(&record_key.nonce), "4h_95klXJ5E_qnoN");
        let text = b"When I grow up, I want to be a watermelon";
        let body = seal(&record_key, &salt, &as_public, text, 0).unwrap();
        assert_eq!(
            encode_url(&body),
            "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLoc\
             InmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLV\
             WGNWQexSgSxsj_Qulcy4a-fN"
        );
    }

    #[test]
    fn no_two_bodies_are_alike_and_each_fits() {
        let encrypted = |text: &str| encrypt(text, &bytes(UA_PUBLIC), &bytes(AUTH)).unwrap();
        assert_ne!(encrypted("hello"), encrypted("hello"));
        for (text_bytes, body_bytes) in [
            (0, HEADER_BYTES + PAD_BYTES + 1 + TAG_BYTES),
            (1, HEADER_BYTES + PAD_BYTES + 1 + TAG_BYTES),
            (PAD_BYTES, HEADER_BYTES + PAD_BYTES + 1 + TAG_BYTES),
            (PAD_BYTES + 1, HEADER_BYTES + 2 * PAD_BYTES + 1 + TAG_BYTES),
            (TEXT_BYTES_MAX - 1, BODY_BYTES_MAX),
            (TEXT_BYTES_MAX, BODY_BYTES_MAX),
        ] {
            assert_eq!(encrypted(&"x".repeat(text_bytes)).len(), body_bytes, "{text_bytes}");
        }
    }

    #[test]
    fn keys_that_are_none_and_texts_that_are_too_long_are_refused() {
        let (ua_public, auth) = (bytes(UA_PUBLIC), bytes(AUTH));
        let mut off_curve = ua_public.clone();
        off_curve[64] ^= 1;
        let refused = |text: &str, key: &[u8], auth: &[u8]| encrypt(text, key, auth).unwrap_err();
        assert_eq!(refused("x", &off_curve, &auth), EncryptionError::BadKeys);
        assert_eq!(refused("x", &[4; POINT_BYTES], &auth), EncryptionError::BadKeys);
        assert_eq!(refused("x", &ua_public[..33], &auth), EncryptionError::BadKeys);
        assert_eq!(refused("x", &ua_public, &auth[..15]), EncryptionError::BadKeys);
        let long = "x".repeat(TEXT_BYTES_MAX + 1);
        assert_eq!(refused(&long, &ua_public, &auth), EncryptionError::TooLong);
    }
}
