//! Networks of proxies and addresses of web pages, as options name them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// An address, or the network that its first bits name: `10.0.0.0/8`, `::1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    /// Whether an address lies in it. An IPv4 address may come as the IPv6 address for it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differing = u32::from(network) ^ u32::from(address);
                differing.checked_shr(32 - self.bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differing = u128::from(network) ^ u128::from(address);
                differing.checked_shr(128 - self.bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not an address or a network, such as 127.0.0.1, 10.0.0.0/8 or \
                 fd00::/8"
            )
        };
        let (address, bits) = match text.trim().split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text.trim(), None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => bits_max,
            Some(bits) if bits.bytes().all(|digit| digit.is_ascii_digit()) => {
                bits.parse().map_err(|_| wrong())?
            }
            Some(_) => return Err(wrong()),
        };
        if bits > bits_max {
            return Err(wrong());
        }
        Ok(Self { address, bits })
    }
}

/// The origin of a web page: `https://chat.example.org`, in lower case and without a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebOrigin(String);

impl WebOrigin {
    /// As a browser sends it, and as links begin.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host, with its port if it has one.
    pub fn authority(&self) -> &str {
        self.0.split_once("://").map_or("", |(_, authority)| authority)
    }
}

impl fmt::Display for WebOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for WebOrigin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let origin = text.trim().to_ascii_lowercase();
        let origin = origin.strip_suffix('/').unwrap_or(&origin);
        let authority = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        if !authority.is_some_and(is_authority) {
            return Err(format!(
                "{text:?} is not the address of a site, such as https://chat.example.org"
            ));
        }
        Ok(Self(origin.to_owned()))
    }
}

/// Whether a text is a host with or without a port, as a Host header and an origin carry it.
pub fn is_authority(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let Some((host, after)) = rest.split_once(']') else { return false };
            if host.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            match after.strip_prefix(':') {
                Some(port) => ("", Some(port)),
                None if after.is_empty() => ("", None),
                None => return false,
            }
        }
        None => {
            let (host, port) = match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            };
            if host.is_empty() {
                return false;
            }
            (host, port)
        }
    };
    let is_host = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    let is_digits = |port: &str| port.bytes().all(|digit| digit.is_ascii_digit());
    is_host && port.is_none_or(|port| is_digits(port) && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_the_addresses_of_its_first_bits() {
        for (network, inside, outside) in [
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("127.0.0.1", "::ffff:127.0.0.1", "::1"),
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("172.16.0.0/12", "172.31.255.255", "172.32.0.0"),
            ("192.168.1.128/25", "192.168.1.128", "192.168.1.127"),
            ("0.0.0.0/0", "8.8.8.8", "2001:db8::1"),
            ("::/0", "2001:db8::1", "8.8.8.8"),
            ("fd00::/8", "fdff::1", "fe80::1"),
            ("2001:db8::1", "2001:db8::1", "2001:db8::2"),
        ] {
            let network: Network = network.parse().unwrap();
            assert!(network.contains(inside.parse().unwrap()), "{network:?} {inside}");
            assert!(!network.contains(outside.parse().unwrap()), "{network:?} {outside}");
        }
        for wrong in ["", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "::/129", "host", "1.2.3.4:5"]
        {
            wrong.parse::<Network>().expect_err(wrong);
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        for (given, origin) in [
            ("https://chat.example.org", "https://chat.example.org"),
            ("HTTPS://Chat.Example.org/", "https://chat.example.org"),
            ("http://localhost:8080", "http://localhost:8080"),
            ("http://[::1]:7420", "http://[::1]:7420"),
        ] {
            assert_eq!(given.parse::<WebOrigin>().unwrap().as_str(), origin);
        }
        for wrong in [
            "",
            "null",
            "chat.example.org",
            "ftp://chat.example.org",
            "https://",
            "https://a/b",
            "https://a//",
            "https://u@a",
            "https://a?b",
            "https://a:b",
            "https://a:99999",
            "https://[::1",
            "https://[a]",
            "https://a b",
            "https://a\u{e9}",
        ] {
            wrong.parse::<WebOrigin>().expect_err(wrong);
        }
    }
}
