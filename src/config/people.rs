//! Options about users: who makes invites, who finds whom, where pushes go.

use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use super::{ConfigError, wrong};

/// Who may make invites that register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InvitesBy {
    /// Operators.
    Operators,
    /// Operators, and admins of a chat for that chat.
    Admins,
}

impl InvitesBy {
    /// What may be written for it.
    pub const NAMES: [&str; 2] = ["operators", "admins"];
}

impl FromStr for InvitesBy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "operators" => Ok(Self::Operators),
            "admins" => Ok(Self::Admins),
            _ => Err(format!("it is one of {}", Self::NAMES.join(", "))),
        }
    }
}

/// Who may look for users by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UserList {
    /// All users.
    All,
    /// Operators.
    Operators,
}

impl UserList {
    /// What may be written for it.
    pub const NAMES: [&str; 2] = ["all", "operators"];
}

impl FromStr for UserList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            "operators" => Ok(Self::Operators),
            _ => Err(format!("it is one of {}", Self::NAMES.join(", "))),
        }
    }
}

/// The push services of the browsers: of Chrome, Firefox, Edge and Safari.
pub const PUSH_HOSTS: [&str; 5] = [
    "fcm.googleapis.com",
    "updates.push.services.mozilla.com",
    ".push.services.mozilla.com",
    ".notify.windows.com",
    ".push.apple.com",
];

/// Parses a host that pushes may go to.
///
/// # Errors
/// When it is not the name of a host, with a dot before it or not.
pub fn push_host(text: &str) -> Result<String, String> {
    let host = text.trim().to_ascii_lowercase();
    let name = host.strip_prefix('.').unwrap_or(&host);
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    // An address would be one of a machine of this network as easily as of a push service.
    let is_name = name.split('.').all(is_label) && name.contains(|c: char| c.is_alphabetic());
    if is_name { Ok(host) } else { Err(format!("{text:?} is not the name of a host")) }
}

/// The hosts that are set, or the push services of the browsers.
pub(super) fn push_hosts(given: Option<Vec<String>>) -> Result<Vec<String>, ConfigError> {
    match given {
        None => Ok(PUSH_HOSTS.map(str::to_owned).to_vec()),
        Some(hosts) if hosts.is_empty() => wrong("push-hosts names no host".to_owned()),
        Some(hosts) => Ok(hosts),
    }
}

/// Hosts as one text, separated by commas, or as an array of texts.
pub(super) fn hosts<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a host, or an array of hosts")]
    enum Given {
        Text(String),
        Array(Vec<String>),
    }
    let hosts: Result<Vec<_>, String> = match Given::deserialize(input)? {
        Given::Text(text) => text.split(',').map(push_host).collect(),
        Given::Array(texts) => texts.iter().map(|text| push_host(text)).collect(),
    };
    hosts.map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_host_is_a_name() {
        assert_eq!(push_host(" Push.Example"), Ok("push.example".to_owned()));
        assert_eq!(push_host(".example.org"), Ok(".example.org".to_owned()));
        for text in ["", ".", "a..b", "a b", "https://a.b", "a.b:443", "127.0.0.1", "[::1]", "*.a"]
        {
            assert!(push_host(text).is_err(), "{text}");
        }
        for host in PUSH_HOSTS {
            assert_eq!(push_host(host).as_deref(), Ok(host));
        }
    }
}
