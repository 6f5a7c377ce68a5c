//! Signed requests: JSON Web Signatures by ES256 (RFC 7515, RFC 7518), as RFC 8555 uses them.

use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::json;
use zeroize::Zeroizing;

use super::failure::Failure;
use crate::wire::base64::encode_url;

/// The key of an account. It has no `Debug`, so that it is not logged.
pub(super) struct AccountKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

impl AccountKey {
    /// Generates a key, encoded for storage (PKCS#8).
    pub(super) fn generate() -> Result<Zeroizing<Vec<u8>>, Failure> {
        let made =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        made.map(|stored| Zeroizing::new(stored.as_ref().to_vec())).map_err(no_randomness)
    }

    /// Decodes a stored key; `None` when it is not valid.
    pub(super) fn from_stored(stored: &[u8]) -> Option<Self> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, stored, &random);
        pair.ok().map(|pair| Self { pair, random })
    }

    /// The public key as a JWK (RFC 7517), with its members in the order that the thumbprint needs.
    fn public(&self) -> String {
        // An uncompressed point: 4, x, y.
        let point = self.pair.public_key().as_ref();
        let (x, y) = point.get(1..).unwrap_or_default().split_at(point.len() / 2);
        format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, encode_url(x), encode_url(y))
    }

    /// The key authorization of a challenge's token (RFC 8555, section 8.1).
    pub(super) fn key_authorization(&self, token: &str) -> String {
        let thumbprint = digest(&SHA256, self.public().as_bytes());
        format!("{token}.{}", encode_url(thumbprint.as_ref()))
    }

    /// Signs a request to `url` and returns its body.
    ///
    /// The signature names the account; without one it holds the public key.
    pub(super) fn sign(
        &self,
        url: &str,
        nonce: &str,
        account: Option<&str>,
        payload: &str,
    ) -> Result<String, Failure> {
        let mut protected = json!({ "alg": "ES256", "nonce": nonce, "url": url });
        let (member, value) = match account {
            Some(account) => ("kid", account.into()),
            None => ("jwk", serde_json::from_str(&self.public()).unwrap_or_default()),
        };
        if let Some(members) = protected.as_object_mut() {
            members.insert(member.to_owned(), value);
        }
        let protected = encode_url(protected.to_string().as_bytes());
        let payload = encode_url(payload.as_bytes());
        let signed = format!("{protected}.{payload}");
        let signature = self.pair.sign(&self.random, signed.as_bytes()).map_err(no_randomness)?;
        let signature = encode_url(signature.as_ref());
        let body = json!({ "protected": protected, "payload": payload, "signature": signature });
        Ok(body.to_string())
    }
}

fn no_randomness(_: ring::error::Unspecified) -> Failure {
    Failure::new("the operating system gave no random bytes")
}

#[cfg(test)]
mod tests {
    use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
    use serde_json::Value;

    use super::*;
    use crate::wire::base64::decode_url;

    fn key() -> AccountKey {
        AccountKey::from_stored(&AccountKey::generate().unwrap()).unwrap()
    }

    fn json_of(text: &Value) -> Value {
        serde_json::from_slice(&decode_url(text.as_str().unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn a_request_is_signed_by_the_key_that_it_shows() {
        let key = key();
        let body = key.sign("https://a.example/new", "n1", None, r#"{"a":1}"#).unwrap();
        let body: Value = serde_json::from_str(&body).unwrap();
        let protected = json_of(&body["protected"]);
        assert_eq!(protected["alg"], "ES256");
        assert_eq!(
            (&protected["nonce"], &protected["url"]),
            (&"n1".into(), &json!("https://a.example/new"))
        );
        assert!(protected.get("kid").is_none());
        let point: Vec<u8> = [
            &[4_u8][..],
            &decode_url(protected["jwk"]["x"].as_str().unwrap()).unwrap(),
            &decode_url(protected["jwk"]["y"].as_str().unwrap()).unwrap(),
        ]
        .concat();
        assert_eq!(point.len(), 65);
        let part = |name: &str| body[name].as_str().unwrap().to_owned();
        let signed = format!("{}.{}", part("protected"), part("payload"));
        let signature = decode_url(&part("signature")).unwrap();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .verify(signed.as_bytes(), &signature)
            .unwrap();
        assert_eq!(json_of(&body["payload"])["a"], 1);
    }

    #[test]
    fn an_account_is_named_instead_of_its_key() {
        let body = key().sign("https://a.example/o", "n", Some("https://a.example/1"), "").unwrap();
        let body: Value = serde_json::from_str(&body).unwrap();
        let protected = json_of(&body["protected"]);
        assert_eq!(protected["kid"], "https://a.example/1");
        assert!(protected.get("jwk").is_none());
        // POST-as-GET has an empty payload, not an empty object.
        assert_eq!(body["payload"], "");
    }

    #[test]
    fn the_thumbprint_is_of_the_sorted_members() {
        // RFC 7638 wants the members in the order of their names, without white space.
        let key = key();
        let public = key.public();
        let members: Vec<_> = public.split('"').skip(1).step_by(4).collect();
        assert_eq!(members, ["crv", "kty", "x", "y"]);
        assert!(!public.contains(' '));
        let authorization = key.key_authorization("token");
        let (token, thumbprint) = authorization.split_once('.').unwrap();
        assert_eq!((token, decode_url(thumbprint).unwrap().len()), ("token", 32));
    }

    #[test]
    fn what_is_stored_is_read_back_and_nothing_else() {
        let stored = AccountKey::generate().unwrap();
        let (one, two) =
            (AccountKey::from_stored(&stored).unwrap(), AccountKey::from_stored(&stored).unwrap());
        assert_eq!(one.public(), two.public());
        assert!(AccountKey::from_stored(&stored[1..]).is_none());
        assert!(AccountKey::from_stored(b"").is_none());
    }
}
