//! The client address behind trusted proxies (protocol section 9, "Proxies").

use std::net::{IpAddr, SocketAddr};

use crate::config::Network;
use crate::http::request::Request;

/// The client of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// The address that all limits count for.
    pub address: IpAddr,
    /// It sent X-Forwarded-For but is not a trusted proxy: the operator may have forgotten one.
    pub is_distrusted: bool,
}

/// The client address: the right-most untrusted entry of X-Forwarded-For, if a trusted proxy sent
/// it.
pub(super) fn peer(socket: IpAddr, request: &Request<'_>, trusted: &[Network]) -> Peer {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let socket = socket.to_canonical();
    let mut entries = request.items("x-forwarded-for").rev().peekable();
    if !is_trusted(socket) {
        return Peer { address: socket, is_distrusted: entries.peek().is_some() };
    }
    let mut address = socket;
    for entry in entries {
        // The entry is not an address: use the one to its right.
        let Some(named) = address_of(entry) else { break };
        address = named;
        if !is_trusted(address) {
            break;
        }
    }
    Peer { address, is_distrusted: false }
}

/// The address of an entry, which may include a port.
fn address_of(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let address = match text.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) => match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(bare) => IpAddr::V6(bare.parse().ok()?),
            None => text.parse::<SocketAddr>().ok()?.ip(),
        },
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::super::request;
    use super::*;

    fn named(socket: &str, lines: &[&str], trusted: &[&str]) -> (String, bool) {
        let mut head = "GET / HTTP/1.1\r\nHost: a\r\n".to_owned();
        for line in lines {
            head.push_str(&format!("X-Forwarded-For: {line}\r\n"));
        }
        head.push_str("\r\n");
        let mut lines = request::LINES;
        let head = request::parse(head.as_bytes(), &mut lines).unwrap();
        let trusted: Vec<_> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        let peer = peer(socket.parse().unwrap(), &head.request, &trusted);
        (peer.address.to_string(), peer.is_distrusted)
    }

    #[test]
    fn the_right_most_untrusted_entry_counts() {
        let proxies = &["127.0.0.1", "10.0.0.0/8", "fd00::/8"];
        for (lines, address) in [
            (&["203.0.113.7"][..], "203.0.113.7"),
            (&["1.1.1.1, 203.0.113.7"], "203.0.113.7"),
            (&["203.0.113.7, 10.0.0.2"], "203.0.113.7"),
            (&["1.1.1.1", "203.0.113.7, 10.0.0.2", "10.9.9.9"], "203.0.113.7"),
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            (&["203.0.113.7:5000"], "203.0.113.7"),
            (&["2001:db8::7"], "2001:db8::7"),
            (&["[2001:db8::7]"], "2001:db8::7"),
            (&["[2001:db8::7]:5000 ,fd00::1"], "2001:db8::7"),
            (&["::ffff:203.0.113.7"], "203.0.113.7"),
            // Not an address: the entry to its right, or in the end the proxy.
            (&["1.1.1.1, unknown"], "127.0.0.1"),
            (&["1.1.1.1, unknown, 10.0.0.2"], "10.0.0.2"),
            (&["1.1.1.1,,10.0.0.2"], "10.0.0.2"),
            (&["_hidden"], "127.0.0.1"),
            (&["1.1.1.1\u{e9}"], "127.0.0.1"),
            (&[""], "127.0.0.1"),
            (&[], "127.0.0.1"),
        ] {
            assert_eq!(
                named("127.0.0.1", lines, proxies),
                (address.to_owned(), false),
                "{lines:?}"
            );
        }
        let mapped = named("::ffff:127.0.0.1", &["203.0.113.7"], proxies);
        assert_eq!(mapped.0, "203.0.113.7");
    }

    #[test]
    fn who_is_not_trusted_names_nobody() {
        for trusted in [&[][..], &["10.0.0.0/8"]] {
            let (address, is_distrusted) = named("192.0.2.1", &["203.0.113.7"], trusted);
            assert_eq!((address.as_str(), is_distrusted), ("192.0.2.1", true));
            assert_eq!(named("192.0.2.1", &[], trusted), ("192.0.2.1".to_owned(), false));
        }
    }
}
