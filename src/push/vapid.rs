//! VAPID (RFC 8292): the key and signatures by which push services identify the server.

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use zeroize::Zeroizing;

use crate::auth::random::NoRandomness;
use crate::wire::base64::encode_url;

/// Seconds for which a signature is valid; push services accept at most a day.
const LIFETIME_S: u64 = 12 * 3600;

/// The server's key pair. Its Debug form hides it.
pub struct VapidKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

impl std::fmt::Debug for VapidKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("VapidKey(…)")
    }
}

impl VapidKey {
    /// Generates a key pair, encoded for storage (PKCS#8).
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn generate() -> Result<Zeroizing<Vec<u8>>, NoRandomness> {
        let random = SystemRandom::new();
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
        made.map(|stored| Zeroizing::new(stored.as_ref().to_vec())).map_err(|_| NoRandomness)
    }

    /// Decodes a stored key pair.
    ///
    /// # Errors
    /// When it is not valid.
    pub fn from_stored(stored: &[u8]) -> Result<Self, BadKey> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, stored, &random);
        pair.map(|pair| Self { pair, random }).map_err(|_| BadKey)
    }

    /// The public key for browsers: base64url of an uncompressed point.
    pub fn public(&self) -> String {
        encode_url(self.pair.public_key().as_ref())
    }

    /// The Authorization header for a push service.
    ///
    /// `audience` is the origin of the push service, `contact` a URL of the operator, if set.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn authorization(
        &self,
        audience: &str,
        contact: Option<&str>,
        now_s: u64,
    ) -> Result<String, NoRandomness> {
        let mut claims = serde_json::json!({
            "aud": audience,
            "exp": now_s.saturating_add(LIFETIME_S),
        });
        if let (Some(contact), Some(claims)) = (contact, claims.as_object_mut()) {
            claims.insert("sub".to_owned(), contact.into());
        }
        let header = encode_url(br#"{"typ":"JWT","alg":"ES256"}"#);
        let signed = format!("{header}.{}", encode_url(claims.to_string().as_bytes()));
        let signature = self.pair.sign(&self.random, signed.as_bytes());
        let signature = encode_url(signature.map_err(|_| NoRandomness)?.as_ref());
        Ok(format!("vapid t={signed}.{signature},k={}", self.public()))
    }
}

/// The stored key is not valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadKey;

impl std::fmt::Display for BadKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the key for pushes in the database is damaged")
    }
}

impl std::error::Error for BadKey {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::base64::decode_url;
    use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    #[test]
    fn a_push_service_can_verify_who_signed_and_for_whom() {
        let key = VapidKey::from_stored(&VapidKey::generate().unwrap()).unwrap();
        let header = key
            .authorization("https://push.example", Some("mailto:me@example.org"), 1_000)
            .unwrap();
        let (token, public) = header.strip_prefix("vapid t=").unwrap().split_once(",k=").unwrap();
        assert_eq!(public, key.public());
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, decode_url(public).unwrap());
        public.verify(signed.as_bytes(), &decode_url(signature).unwrap()).unwrap();
        let (header, claims) = signed.split_once('.').unwrap();
        let json = |text: &str| {
            let bytes = decode_url(text).unwrap();
            serde_json::from_slice::<serde_json::Value>(&bytes).unwrap()
        };
        assert_eq!(json(header), serde_json::json!({ "typ": "JWT", "alg": "ES256" }));
        let expected = serde_json::json!({
            "aud": "https://push.example",
            "exp": 1_000 + 12 * 3600,
            "sub": "mailto:me@example.org",
        });
        assert_eq!(json(claims), expected);
    }

    #[test]
    fn a_contact_is_left_out_where_none_is_set() {
        let key = VapidKey::from_stored(&VapidKey::generate().unwrap()).unwrap();
        let header = key.authorization("https://push.example", None, 0).unwrap();
        let claims = decode_url(header.split('.').nth(1).unwrap()).unwrap();
        assert!(!String::from_utf8(claims).unwrap().contains("sub"));
    }

    #[test]
    fn a_key_survives_being_stored_and_shows_nothing() {
        let stored = VapidKey::generate().unwrap();
        let (one, other) = (VapidKey::from_stored(&stored), VapidKey::from_stored(&stored));
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!(one.public(), other.public());
        assert_eq!(decode_url(&one.public()).unwrap().len(), 65);
        assert_eq!(format!("{one:?}"), "VapidKey(…)");
        assert!(VapidKey::from_stored(&stored[1..]).is_err());
    }
}
