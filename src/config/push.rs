//! Options of pushes: where they go, and how their services reach the operator.

use std::net::SocketAddr;
use std::str::FromStr;

use super::{ConfigError, wrong};

/// The push services of the browsers: of Chrome, Firefox, Edge and Safari.
pub const PUSH_HOSTS: [&str; 5] = [
    "fcm.googleapis.com",
    "updates.push.services.mozilla.com",
    ".push.services.mozilla.com",
    ".notify.windows.com",
    ".push.apple.com",
];

/// A host that pushes may go to, in lower case; one with a dot before it stands for all hosts below
/// it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushHost(String);

impl FromStr for PushHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let host = text.trim().to_ascii_lowercase();
        let name = host.strip_prefix('.').unwrap_or(&host);
        let is_label = |label: &str| {
            !label.is_empty()
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        // An address would be one of a machine of this network as easily as of a push service.
        let is_name = name.split('.').all(is_label) && name.contains(|c: char| c.is_alphabetic());
        if is_name { Ok(Self(host)) } else { Err(format!("{text:?} is not the name of a host")) }
    }
}

/// The hosts that are set, or the push services of the browsers.
pub(super) fn push_hosts(given: Option<Vec<PushHost>>) -> Result<Vec<String>, ConfigError> {
    match given {
        None => Ok(PUSH_HOSTS.map(str::to_owned).to_vec()),
        Some(hosts) if hosts.is_empty() => wrong("push-hosts names no host".to_owned()),
        Some(hosts) => Ok(hosts.into_iter().map(|host| host.0).collect()),
    }
}

/// How push services reach the operator: an address of mail or of a site, as `mailto:` or
/// `https:` (RFC 8292, section 2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
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
            let host: PushHost =
                host.parse().ok().filter(|host: &PushHost| !host.0.starts_with('.'))?;
            Some(Self { host: host.0, address: address.parse().ok()? })
        });
        parsed.ok_or_else(|| {
            format!("{text:?} is not HOST=ADDR:PORT, such as ntfy.example.org=192.168.1.5:443")
        })
    }
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

    #[test]
    fn a_push_host_is_a_name() {
        assert_eq!(" Push.Example".parse(), Ok(PushHost("push.example".to_owned())));
        assert_eq!(".example.org".parse(), Ok(PushHost(".example.org".to_owned())));
        for text in ["", ".", "a..b", "a b", "https://a.b", "a.b:443", "127.0.0.1", "[::1]", "*.a"]
        {
            assert!(text.parse::<PushHost>().is_err(), "{text}");
        }
        for host in PUSH_HOSTS {
            assert_eq!(host.parse(), Ok(PushHost(host.to_owned())));
        }
    }
}
