//! Options of pushes: what they say, and where they go.

use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use super::{ConfigError, push_host, wrong};

/// What a push says of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PushContent {
    /// Its author and its text.
    Full,
    /// Only that there is one.
    None,
}

impl PushContent {
    /// What may be written for it.
    pub const NAMES: [&str; 2] = ["full", "none"];
}

impl FromStr for PushContent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "full" => Ok(Self::Full),
            "none" => Ok(Self::None),
            _ => Err(format!("it is one of {}", Self::NAMES.join(", "))),
        }
    }
}

/// How push services reach the operator: an address of mail or of a site, as `mailto:` or
/// `https:` (RFC 8292, section 2.1).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PushContact(String);

impl PushContact {
    /// As push services are given it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PushContact {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let mail = text.strip_prefix("mailto:").unwrap_or(text);
        let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
        let is_site = text.strip_prefix("https://").is_some_and(|rest| !rest.is_empty());
        let is_mail = mail.split_once('@').is_some_and(|(name, host)| {
            !name.is_empty() && !host.is_empty() && !mail.contains([':', '/'])
        });
        match (is_plain, is_site, is_mail) {
            (true, true, _) => Ok(Self(text.to_owned())),
            (true, _, true) => Ok(Self(format!("mailto:{mail}"))),
            _ => Err(format!(
                "{text:?} is not an address of mail or of a site, such as admin@example.org"
            )),
        }
    }
}

impl TryFrom<String> for PushContact {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// A host that is not resolved: connections to it go to this address. The operator's way to a push
/// service in the own network, or on another port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushResolve {
    /// The name, in lower case.
    pub host: String,
    /// Where it is.
    pub address: SocketAddr,
}

impl FromStr for PushResolve {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.trim().split_once('=').and_then(|(host, address)| {
            let host = push_host(host).ok().filter(|host| !host.starts_with('.'))?;
            Some(Self { host, address: address.parse().ok()? })
        });
        parsed.ok_or_else(|| {
            format!("{text:?} is not HOST=ADDR:PORT, such as ntfy.example.org=192.168.1.5:443")
        })
    }
}

/// Hosts with addresses as one text, separated by commas, or as an array of texts.
pub(super) fn resolves<'de, D: Deserializer<'de>>(
    input: D,
) -> Result<Option<Vec<PushResolve>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "HOST=ADDR:PORT, or an array of these")]
    enum Given {
        Text(String),
        Array(Vec<String>),
    }
    let values: Result<Vec<_>, String> = match Given::deserialize(input)? {
        Given::Text(text) => text.split(',').map(str::parse).collect(),
        Given::Array(texts) => texts.iter().map(|text| text.parse()).collect(),
    };
    values.map(Some).map_err(serde::de::Error::custom)
}

/// Hosts that are not resolved are hosts that pushes may go to.
pub(super) fn check_resolves(
    resolves: &[PushResolve],
    hosts: &[String],
) -> Result<(), ConfigError> {
    let is_allowed = |host: &str| {
        hosts.iter().any(|allowed| {
            allowed == host || allowed.starts_with('.') && host.ends_with(allowed.as_str())
        })
    };
    match resolves.iter().find(|resolve| !is_allowed(&resolve.host)) {
        Some(PushResolve { host, .. }) => {
            wrong(format!("push-resolve names {host}, to which no push goes: add it to push-hosts"))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contact_is_a_mail_address_or_a_site() {
        for (given, contact) in [
            ("admin@example.org", "mailto:admin@example.org"),
            (" mailto:admin@example.org ", "mailto:admin@example.org"),
            ("https://chat.example.org/about", "https://chat.example.org/about"),
        ] {
            assert_eq!(given.parse::<PushContact>().unwrap().as_str(), contact);
        }
        for wrong in ["", "admin", "@b", "a@", "http://a.b", "https://", "a b@c", "a@b\"", "x:a@b"]
        {
            wrong.parse::<PushContact>().expect_err(wrong);
        }
    }

    #[test]
    fn a_host_can_be_given_an_address() {
        let parsed: PushResolve = "Ntfy.Lan=192.168.1.5:8443".parse().unwrap();
        assert_eq!(parsed.host, "ntfy.lan");
        assert_eq!(parsed.address, SocketAddr::from(([192, 168, 1, 5], 8443)));
        for wrong in ["", "ntfy.lan", "ntfy.lan=1.2.3.4", ".lan=1.2.3.4:443", "1.2.3.4=1.2.3.4:443"]
        {
            wrong.parse::<PushResolve>().expect_err(wrong);
        }
        let hosts = [".lan".to_owned()];
        assert!(check_resolves(std::slice::from_ref(&parsed), &hosts).is_ok());
        assert!(check_resolves(&[parsed], &["lan".to_owned()]).is_err());
    }
}
