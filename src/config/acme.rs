//! Options of certificates from an ACME authority.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use super::web::is_authority;
use super::{ConfigError, Options, wrong};
use crate::limits::{ACME_URL_BYTES_MAX, DOMAINS_MAX};

/// The directory of Let's Encrypt, the default authority.
pub(super) const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// The staging directory of Let's Encrypt (`staging`), whose certificates nobody trusts.
pub(super) const LETS_ENCRYPT_STAGING: &str =
    "https://acme-staging-v02.api.letsencrypt.org/directory";

/// Longest domain, in bytes: it becomes a file name.
const DOMAIN_BYTES_MAX: usize = 240;

/// The settings of ACME.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acme {
    /// The names of the certificate; links use the first.
    pub domains: Vec<String>,
    /// The directory of the authority.
    pub directory: String,
    /// Mail address of the operator for the authority.
    pub contact: Option<String>,
    /// Trusted authorities for the directory's own certificate; `None`: those of the system.
    pub ca: Option<PathBuf>,
}

/// The default TLS listeners if a domain is set.
pub(super) fn default_listeners() -> Vec<SocketAddr> {
    let port = 443;
    vec![(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()]
}

/// Takes these options, and checks that they go together.
pub(super) fn acme(options: &mut Options) -> Result<Option<Acme>, ConfigError> {
    let (directory, contact) = (options.acme_directory.take(), options.acme_contact.take());
    let ca = options.acme_ca.take();
    let Some(domains) = options.domain.take() else {
        let idle = [
            ("acme-directory", directory.is_some()),
            ("acme-contact", contact.is_some()),
            ("acme-ca", ca.is_some()),
        ];
        return match idle.iter().find(|(_, is_set)| *is_set) {
            Some((option, _)) => wrong(format!("{option} has no effect without domain")),
            None => Ok(None),
        };
    };
    if domains.is_empty() || domains.len() > DOMAINS_MAX {
        return wrong(format!("domain names 1 to {DOMAINS_MAX} domains"));
    }
    if domains.iter().enumerate().any(|(at, domain)| domains.iter().take(at).any(|d| d == domain)) {
        return wrong("domain names a domain twice".to_owned());
    }
    Ok(Some(Acme {
        domains: domains.into_iter().map(|domain| domain.0).collect(),
        directory: directory.map_or_else(|| LETS_ENCRYPT.to_owned(), |directory| directory.0),
        contact: contact.map(|contact| contact.0),
        ca,
    }))
}

/// A name for which there is to be a certificate: a host that an authority on the internet could
/// know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain(String);

impl FromStr for Domain {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.trim().trim_end_matches('.');
        let bad =
            |why: &str| Err(format!("{text:?} is not a domain, such as chat.example.org: {why}"));
        if name.starts_with("*.") {
            return bad("name each host, since the check by TLS knows no wildcards");
        }
        let Ok(ascii) = idna::domain_to_ascii_strict(name) else {
            return bad("use letters, digits, hyphens and dots");
        };
        if ascii.len() > DOMAIN_BYTES_MAX {
            return bad("it is too long");
        }
        let last = ascii.rsplit('.').next().unwrap_or_default();
        if !ascii.contains('.') || last.bytes().all(|byte| byte.is_ascii_digit()) {
            return bad(
                "an authority knows only names of the internet (for a LAN: vestnik cert ca)",
            );
        }
        Ok(Self(ascii))
    }
}

/// The directory of an authority: an address of HTTPS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcmeDirectory(String);

impl FromStr for AcmeDirectory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text == "staging" {
            return Ok(Self(LETS_ENCRYPT_STAGING.to_owned()));
        }
        let is_directory = text.strip_prefix("https://").is_some_and(|rest| {
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            is_authority(authority) && path.bytes().all(|byte| byte.is_ascii_graphic())
        });
        if !is_directory || text.len() > ACME_URL_BYTES_MAX {
            return Err(format!(
                "{text:?} is not the directory of an authority, such as {LETS_ENCRYPT}"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// The address of mail at which an authority can reach the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcmeContact(String);

impl FromStr for AcmeContact {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let mail = text.strip_prefix("mailto:").unwrap_or(text);
        let is_mail = mail.split_once('@').is_some_and(|(user, host)| {
            !user.is_empty() && host.contains('.') && !host.contains('@')
        });
        let is_plain = mail.chars().all(|c| c.is_ascii_graphic() && !",?&%\"<>".contains(c));
        if is_mail && is_plain && mail.len() <= 254 {
            return Ok(Self(mail.to_owned()));
        }
        Err(format!("{text:?} is not an address of mail, such as admin@example.org"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_a_name_of_the_internet() {
        for (given, name) in [
            (" Chat.Example.org. ", "chat.example.org"),
            ("чат.example", "xn--80a0bn.example"),
            ("a-b.c", "a-b.c"),
        ] {
            assert_eq!(given.parse(), Ok(Domain(name.to_owned())));
        }
        for wrong in [
            "",
            ".",
            "chat",
            "*.example.org",
            "a b.c",
            "https://a.b",
            "a.b:443",
            "a.b/c",
            "1.2.3.4",
            "[::1]",
            "a..b",
            "-a.b",
        ] {
            let error = wrong.parse::<Domain>().expect_err(wrong);
            assert!(error.contains("is not a domain"), "{error}");
        }
    }

    #[test]
    fn a_directory_is_an_address_of_https() {
        let staging = AcmeDirectory(LETS_ENCRYPT_STAGING.to_owned());
        assert_eq!("staging".parse(), Ok(staging));
        for right in [LETS_ENCRYPT, "https://localhost:14000/dir", "https://a"] {
            assert_eq!(right.parse(), Ok(AcmeDirectory(right.to_owned())));
        }
        for wrong in
            ["", "http://a/dir", "a.example/dir", "https://", "https://u@a/", "https://a/ b"]
        {
            wrong.parse::<AcmeDirectory>().expect_err(wrong);
        }
    }

    #[test]
    fn a_contact_is_an_address_of_mail() {
        for (given, mail) in [("me@example.org", "me@example.org"), ("mailto:a@b.c", "a@b.c")] {
            assert_eq!(given.parse(), Ok(AcmeContact(mail.to_owned())));
        }
        for wrong in ["", "me", "@a.b", "a@b", "a@b.c,d@e.f", "a b@c.d", "a@b.c?d", "a@b@c.d"] {
            wrong.parse::<AcmeContact>().expect_err(wrong);
        }
    }
}
