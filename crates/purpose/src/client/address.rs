//! The address of a server, whose name is resolved again for each connection.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

/// Where a server is: a name or an IP address, and a port. Made by [`From`] of `"HOST:PORT"`, of
/// `(host, port)`, and of socket addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address(Place);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Place {
    Text(String),
    Host(String, u16),
    Fixed(Vec<SocketAddr>),
}

impl Address {
    /// The addresses that the name has now.
    pub(super) fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        match &self.0 {
            Place::Fixed(addresses) => Ok(addresses.clone()),
            Place::Host(host, port) => resolve(host, *port),
            Place::Text(text) => {
                if let Ok(address) = text.parse() {
                    return Ok(vec![address]);
                }
                let parts = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
                let (host, port) = parts
                    .and_then(|(host, port)| Some((host, port.parse().ok()?)))
                    .ok_or_else(|| {
                        let words = format!("{text} is not an address: write HOST:PORT");
                        io::Error::new(io::ErrorKind::InvalidInput, words)
                    })?;
                resolve(host, port)
            }
        }
    }
}

fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    // The resolver needs punycode for names in other scripts. Addresses stay as they are.
    let ascii = match host.parse::<IpAddr>() {
        Ok(_) => host.to_owned(),
        Err(_) => idna::domain_to_ascii(host).unwrap_or_else(|_| host.to_owned()),
    };
    Ok((ascii.as_str(), port).to_socket_addrs()?.collect())
}

impl From<&str> for Address {
    fn from(text: &str) -> Self {
        Self(Place::Text(text.to_owned()))
    }
}

impl From<String> for Address {
    fn from(text: String) -> Self {
        Self(Place::Text(text))
    }
}

impl From<&String> for Address {
    fn from(text: &String) -> Self {
        Self(Place::Text(text.clone()))
    }
}

impl From<(&str, u16)> for Address {
    fn from((host, port): (&str, u16)) -> Self {
        Self(Place::Host(host.to_owned(), port))
    }
}

impl From<(String, u16)> for Address {
    fn from((host, port): (String, u16)) -> Self {
        Self(Place::Host(host, port))
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self(Place::Fixed(vec![address]))
    }
}

impl From<&[SocketAddr]> for Address {
    fn from(addresses: &[SocketAddr]) -> Self {
        Self(Place::Fixed(addresses.to_vec()))
    }
}

impl From<Vec<SocketAddr>> for Address {
    fn from(addresses: Vec<SocketAddr>) -> Self {
        Self(Place::Fixed(addresses))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        let here: SocketAddr = "127.0.0.1:7420".parse().expect("an address");
        let six: SocketAddr = "[::1]:7420".parse().expect("an address");
        for (address, expected) in [
            (Address::from("127.0.0.1:7420"), here),
            (Address::from(("127.0.0.1", 7420)), here),
            (Address::from(String::from("[::1]:7420")), six),
            (Address::from(("::1".to_owned(), 7420)), six),
            (Address::from(here), here),
        ] {
            assert_eq!(address.resolve().expect("no name"), [expected]);
        }
        for wrong in ["", "chat.lan", ":7420", "chat.lan:", "chat.lan:x", "chat.lan:70000"] {
            let error = Address::from(wrong).resolve().expect_err(wrong).to_string();
            assert!(error.contains("HOST:PORT"), "{error}");
        }
    }
}
