//! The server's address, the transport, and which certificates to trust.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use purpose::client::{Address, Error, Options, Tls, WebSocketUrl};
use rustls::CertificateError;
use vestnik::config::WebOrigin;

use super::super::failure::Failure;
use super::super::output;
use super::report;
use super::saved_session::Folder;

/// Default port for unencrypted TCP.
const PLAIN_PORT: u16 = 7420;
/// Default port for TLS, as the documents use it.
const TLS_PORT: u16 = 7421;

/// Options of the connection.
#[derive(clap::Args)]
pub(super) struct ServerArguments {
    /// The server: a name or an address, and a port unless it is 7420, or 7421 for TLS; or the
    /// address of a WebSocket, such as wss://chat.example.org/ws
    #[arg(
        value_name = "ADDR",
        default_value = "127.0.0.1",
        env = "VESTNIK_SERVER",
        hide_env = true
    )]
    address: String,

    /// Connect over TLS, and trust the system's certificate authorities
    #[arg(long, env = "VESTNIK_TLS", hide_env = true)]
    tls: bool,

    /// Connect over TLS, and trust the one certificate with this fingerprint, as `vestnik cert`
    /// prints it; remembered for the next time
    #[arg(
        long,
        value_name = "SHA256",
        conflicts_with = "tls_ca",
        env = "VESTNIK_TLS_FINGERPRINT",
        hide_env = true
    )]
    tls_fingerprint: Option<String>,

    /// Connect over TLS, and trust the certificate authorities in this file
    #[arg(long, value_name = "PEM", env = "VESTNIK_TLS_CA", hide_env = true)]
    tls_ca: Option<PathBuf>,

    /// Speak plain TCP to a server that is not on this machine: everybody between can read all
    #[arg(long)]
    allow_plaintext: bool,

    /// The address of the browser client, with which the links of invites begin [default: that of
    /// the server]
    #[arg(long, value_name = "URL", env = "VESTNIK_PUBLIC_URL", hide_env = true)]
    public_url: Option<WebOrigin>,
}

/// A server.
pub(super) struct Server {
    /// The address as shown, and as the key of saved sessions.
    pub(super) name: String,
    pub(super) address: Address,
    pub(super) tls: Option<Tls>,
    pub(super) websocket: Option<WebSocketUrl>,
    /// The fingerprint to pin after the first connection.
    pub(super) pin: Option<String>,
}

impl ServerArguments {
    /// Resolves the options. Without an option for trust, the server's pinned fingerprint is used.
    pub(super) fn server(&self, folder: Option<&Folder>) -> Result<Server, Failure> {
        let is_set = self.tls || self.tls_ca.is_some() || self.tls_fingerprint.is_some();
        let remembered = folder.filter(|_| !is_set && !self.allow_plaintext).and_then(|folder| {
            if WebSocketUrl::is_like(&self.address) {
                return folder.pin(&self.address);
            }
            let (host, port) = split(&self.address, TLS_PORT)?;
            folder.pin(&name(host, port))
        });
        match remembered {
            Some(fingerprint) => self.find(Some(&fingerprint)),
            None => self.find(self.tls_fingerprint.as_deref()),
        }
    }

    /// The base of links into the browser client, which is on the same port.
    pub(super) fn public_url(&self, server: &Server) -> String {
        if let Some(url) = &self.public_url {
            return url.to_string();
        }
        let scheme = if server.tls.is_some() { "https" } else { "http" };
        let usual_port = if server.tls.is_some() { ":443" } else { ":80" };
        let host = match &server.websocket {
            Some(url) => name(&url.host, url.port),
            None => server.name.clone(),
        };
        format!("{scheme}://{}", host.strip_suffix(usual_port).unwrap_or(&host))
    }

    fn find(&self, fingerprint: Option<&str>) -> Result<Server, Failure> {
        if WebSocketUrl::is_like(&self.address) {
            return self.find_websocket(fingerprint);
        }
        if let Some(url) = address_of_browser(&self.address) {
            let words = format!("{} is for browsers: write {url}, or HOST:PORT", self.address);
            return Err(Failure::Usage(words));
        }
        let is_tls = self.tls || self.tls_ca.is_some() || fingerprint.is_some();
        let default_port = if is_tls { TLS_PORT } else { PLAIN_PORT };
        let (host, port) = split(&self.address, default_port).ok_or_else(|| {
            Failure::Usage(format!("{} is not an address: write HOST or HOST:PORT", self.address))
        })?;
        let tls = if is_tls { Some(self.trust(fingerprint, host)?) } else { None };
        let address = self.resolve(host, port, is_tls)?;
        let pin = self.tls_fingerprint.clone();
        Ok(Server { name: name(host, port), address, tls, websocket: None, pin })
    }

    /// Like the above for a WebSocket URL, whose scheme says whether it uses TLS.
    fn find_websocket(&self, fingerprint: Option<&str>) -> Result<Server, Failure> {
        let url: WebSocketUrl = self.address.parse().map_err(Failure::Usage)?;
        let wants_tls = self.tls || self.tls_ca.is_some() || fingerprint.is_some();
        if wants_tls && !url.is_tls {
            return Err(Failure::Usage(format!("{url} is not over TLS: write wss://")));
        }
        let tls = if url.is_tls { Some(self.trust(fingerprint, &url.host)?) } else { None };
        let address = self.resolve(&url.host, url.port, url.is_tls)?;
        let pin = self.tls_fingerprint.clone();
        Ok(Server { name: self.address.clone(), address, tls, websocket: Some(url), pin })
    }

    /// Finds the host, and checks that passwords may go there unencrypted.
    fn resolve(&self, host: &str, port: u16, is_tls: bool) -> Result<Address, Failure> {
        // The resolver needs punycode for names in other scripts; addresses are unchanged.
        let ascii = idna::domain_to_ascii(host);
        let resolvable = ascii.as_deref().unwrap_or(host);
        let resolved = (resolvable, port).to_socket_addrs();
        let addresses: Vec<SocketAddr> = resolved
            .map_err(|error| Failure::Failed(format!("cannot find {host}: {}", why(&error))))?
            .collect();
        if is_tls || self.allow_plaintext {
            return Ok((host, port).into());
        }
        if addresses.iter().any(|at| !at.ip().is_loopback()) {
            return Err(Failure::Usage(format!(
                "{host} is not this machine, and plain TCP would show the password to the network: \
                 say --tls, --tls-fingerprint or --tls-ca; or --allow-plaintext"
            )));
        }
        // What was checked stays: the name could mean another machine at the next connection.
        Ok(addresses.into())
    }

    fn trust(&self, fingerprint: Option<&str>, host: &str) -> Result<Tls, Failure> {
        match (fingerprint, &self.tls_ca) {
            (Some(fingerprint), _) => Tls::pinned(fingerprint, host)
                .map_err(|error| Failure::Usage(format!("--tls-fingerprint: {error}"))),
            (None, Some(pem)) => Tls::trusting(pem, host)
                .map_err(|error| Failure::Failed(format!("--tls-ca: {error}"))),
            (None, None) => Tls::system(host).map_err(Failure::new),
        }
    }
}

impl Server {
    /// Options of the library. The worker reconnects by itself, so the library's calls do not.
    pub(super) fn options(&self) -> Options {
        Options {
            tls: self.tls.clone(),
            websocket: self.websocket.clone(),
            reconnects_max: 0,
            ..Options::default()
        }
    }

    /// The error message for a failed connection, with a hint.
    pub(super) fn unreachable(&self, error: &Error) -> Failure {
        let name = &self.name;
        let words = report::reason(&described(error));
        let help = match error {
            Error::Io(io) if io.kind() == std::io::ErrorKind::ConnectionRefused => {
                ": does `vestnik serve` run there?"
            }
            Error::Io(io) if io.kind() == std::io::ErrorKind::InvalidData => "",
            Error::Closed if self.tls.is_some() => ": is this its TLS port?",
            Error::Closed => ": is this its port for plain TCP?",
            _ => "",
        };
        Failure::Failed(format!("cannot talk to {name}: {words}{help}"))
    }
}

/// The message of a failed connection; about a certificate also what to do.
pub(super) fn described(error: &Error) -> String {
    let cause = match error {
        Error::Io(io) => io.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()),
        _ => None,
    };
    match cause {
        Some(rustls::Error::InvalidCertificate(why)) => untrusted(why).to_owned(),
        // The library's own check of a pinned certificate.
        Some(rustls::Error::General(words)) => {
            format!("{words}; if its operator says so, pass this one by --tls-fingerprint")
        }
        _ => error.to_string(),
    }
}

/// Why a certificate is not trusted, and what to do.
fn untrusted(why: &CertificateError) -> &'static str {
    use CertificateError as Why;
    match why {
        Why::Expired | Why::ExpiredContext { .. } => {
            "its certificate has expired: renew it on the server, or set the clock of this machine"
        }
        Why::NotValidYet | Why::NotValidYetContext { .. } => {
            "its certificate is not valid yet: set the clock of this machine, or of the server"
        }
        Why::NotValidForName | Why::NotValidForNameContext { .. } => {
            "its certificate is not for the name in the address: connect by a name that is in \
             it, or pin it by --tls-fingerprint"
        }
        Why::UnknownIssuer => {
            "no trusted authority has issued its certificate: pin it by --tls-fingerprint, or name \
             its authority by --tls-ca"
        }
        // The cause has a type of another library, and only its name says which one it is.
        Why::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "its certificate is that of an authority, not of a server: pin it by --tls-fingerprint"
        }
        _ => {
            "its certificate is not a valid one: give the server another, or pin it by \
              --tls-fingerprint"
        }
    }
}

/// The canonical form of an address, as shown and as the key of saved sessions.
fn name(host: &str, port: u16) -> String {
    let host = host.to_lowercase();
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Whether an address of the browser client works on this machine only.
pub(super) fn is_loopback_url(url: &str) -> bool {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = split(authority, PLAIN_PORT).map_or(authority, |(host, _)| host);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Parses host and port.
fn split(address: &str, default_port: u16) -> Option<(&str, u16)> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        // An IPv6 address has several colons, and needs brackets to have a port.
        None if address.matches(':').count() > 1 => (address, None),
        None => match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        },
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|&port| port != 0)?,
        None => default_port,
    };
    (!host.is_empty()).then_some((host, port))
}

/// The WebSocket of the server whose browser client has this address.
fn address_of_browser(address: &str) -> Option<String> {
    let (scheme, rest) = address.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next().filter(|host| !host.is_empty())?;
    match scheme.to_ascii_lowercase().as_str() {
        "https" => Some(format!("wss://{host}/ws")),
        "http" => Some(format!("ws://{host}/ws")),
        _ => None,
    }
}

/// The reason why a name was not found, without what the resolver puts before it.
fn why(error: &io::Error) -> String {
    let text = output::reason(error);
    text.strip_prefix("failed to lookup address information: ").unwrap_or(&text).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_leave_out_its_port() {
        for (given, host, port) in [
            ("127.0.0.1", "127.0.0.1", 1),
            ("chat.lan:7", "chat.lan", 7),
            ("::1", "::1", 1),
            ("[::1]", "::1", 1),
            ("[fe80::2]:7", "fe80::2", 7),
        ] {
            assert_eq!(split(given, 1), Some((host, port)), "{given}");
        }
        for bad in ["", ":7", "chat.lan:", "chat.lan:x", "chat.lan:0", "[::1]7", "[::1", "a:70000"]
        {
            assert_eq!(split(bad, 1), None, "{bad}");
        }
    }

    fn arguments(address: &str, tls: bool, allow_plaintext: bool) -> ServerArguments {
        let address = address.to_owned();
        ServerArguments {
            address,
            tls,
            tls_fingerprint: None,
            tls_ca: None,
            allow_plaintext,
            public_url: None,
        }
    }

    #[test]
    fn links_begin_with_the_address_of_the_server_or_what_is_given() {
        let url = |arguments: ServerArguments| {
            let server = arguments.server(None).unwrap();
            arguments.public_url(&server)
        };
        assert_eq!(url(arguments("127.0.0.1", false, false)), "http://127.0.0.1:7420");
        assert_eq!(url(arguments("192.0.2.1:443", true, false)), "https://192.0.2.1");
        assert_eq!(url(arguments("wss://192.0.2.1/ws", false, false)), "https://192.0.2.1");
        let given = "https://chat.example.org".parse().unwrap();
        let given = ServerArguments { public_url: Some(given), ..arguments("::1", false, false) };
        assert_eq!(url(given), "https://chat.example.org");
        for (url, is_here) in [
            ("http://127.0.0.1:7420", true),
            ("http://[::1]:7420", true),
            ("https://localhost", true),
            ("https://192.0.2.1", false),
            ("https://chat.example.org", false),
        ] {
            assert_eq!(is_loopback_url(url), is_here, "{url}");
        }
    }

    #[test]
    fn certificates_that_are_not_trusted_are_explained() {
        let said = |error: rustls::Error| {
            let server = arguments("127.0.0.1", true, false).server(None).ok();
            let error = Error::Io(io::Error::new(io::ErrorKind::InvalidData, error));
            match server.map(|server| server.unreachable(&error)) {
                Some(Failure::Failed(words)) => words,
                // A machine without certificates.
                _ => format!(": {}", described(&error)),
            }
        };
        let ca = "CaUsedAsEndEntity";
        let other = rustls::OtherError(std::sync::Arc::new(io::Error::other(ca)));
        for (why, words) in [
            (CertificateError::Expired, ": its certificate has expired: renew it"),
            (CertificateError::NotValidYet, ": its certificate is not valid yet: set the clock"),
            (CertificateError::NotValidForName, ": its certificate is not for the name"),
            (CertificateError::UnknownIssuer, ": no trusted authority has issued"),
            (CertificateError::Other(other), ": its certificate is that of an authority"),
            (CertificateError::BadSignature, ": its certificate is not a valid one"),
        ] {
            let said = said(rustls::Error::InvalidCertificate(why));
            assert!(said.contains(words) && said.contains(": "), "{said}");
            assert!(!said.contains("Other") && !said.contains("invalid peer"), "{said}");
        }
        let pin = "the server's certificate is not the pinned one: its fingerprint is AB";
        let said = said(rustls::Error::General(pin.to_owned()));
        assert!(said.contains(pin) && !said.contains("unexpected error"), "{said}");
    }

    #[test]
    fn plain_tcp_stays_on_this_machine_unless_it_is_allowed() {
        assert_eq!(
            arguments("127.0.0.1", false, false).server(None).unwrap().name,
            "127.0.0.1:7420"
        );
        assert_eq!(arguments("::1", false, false).server(None).unwrap().name, "[::1]:7420");
        let refused = arguments("192.0.2.1", false, false).server(None).err();
        assert!(matches!(refused, Some(Failure::Usage(words)) if words.contains("--tls")));
        assert!(arguments("192.0.2.1", false, true).server(None).is_ok());
        let pinned = ServerArguments {
            tls_fingerprint: Some("ab".repeat(32)),
            ..arguments("192.0.2.1", false, false)
        };
        let server = pinned.server(None).unwrap();
        assert_eq!((server.name.as_str(), server.tls.is_some()), ("192.0.2.1:7421", true));
    }

    #[test]
    fn the_address_of_the_browser_names_the_websocket() {
        for (address, url) in [
            ("https://chat.example.org", Some("wss://chat.example.org/ws")),
            ("HTTPS://chat.example.org:8443/#invite=x", Some("wss://chat.example.org:8443/ws")),
            ("http://[::1]:7420/", Some("ws://[::1]:7420/ws")),
            ("chat.example.org", None),
            ("wss://chat.example.org/ws", None),
            ("https://", None),
        ] {
            assert_eq!(address_of_browser(address).as_deref(), url, "{address}");
        }
    }
}
