//! HTTPS client for push services, protected against server-side request forgery (SSRF).
//!
//! An endpoint is a URL that a user has made up. So the client connects to port 443 of allowed
//! hosts only, and only to addresses of the public internet: nobody reaches machines of the
//! operator's network through the server. A name is resolved once, and the connection goes to the
//! address that was checked. The client follows no redirect, uses no proxy, and reads a bounded
//! part of the answer.

use std::fmt;
use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use ureq::config::Config as AgentConfig;
use ureq::http::{HeaderMap, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Connector as _, NextTimeout, RustlsConnector, TcpConnector};
use ureq::{Agent, Timeout};

use crate::config::{Config, PushResolve};
use crate::limits::PUSH_ANSWER_BYTES_MAX;
use crate::push::address::is_public;
use crate::push::encryption::encrypt;
use crate::push::vapid::VapidKey;
use crate::push::{Job, Outcome};
use crate::service::push::{endpoint_host, is_endpoint};

/// Seconds for one push, from the resolution to the end of the answer.
const PUSH_S: u64 = 20;
/// Seconds of [`PUSH_S`] for connecting and the TLS handshake.
const CONNECT_S: u64 = 10;
/// Longest part of an answer's body in a log line, in characters.
const EXCERPT_CHARS: usize = 200;
/// Longest header of an answer, in bytes.
const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Seconds after which an idle connection is closed.
const IDLE_S: u64 = 30;
/// Idle connections kept for the next push: in all, and per host.
const IDLE_CONNECTIONS: (usize, usize) = (8, 4);

/// A function that resolves a name. Tests replace it.
pub type LookUp = Arc<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// The operator's options for pushes.
#[derive(Clone, Debug)]
pub struct PushRules {
    /// Allowed hosts. An entry with a leading dot stands for all hosts below it.
    pub hosts: Vec<String>,
    /// Hosts with a fixed address, which are not resolved.
    pub resolve: Vec<PushResolve>,
    /// Contact of the operator for push services: a mailto: or https: URL.
    pub contact: Option<String>,
}

impl PushRules {
    /// Takes the options from a configuration. The public URL is the default contact.
    pub fn new(config: &Config) -> Self {
        let site = config.public_url.as_ref().map(|url| url.as_str());
        let site = site.filter(|url| url.starts_with("https://"));
        let contact = config.push_contact.as_ref().map(|contact| contact.as_str()).or(site);
        Self {
            hosts: config.push_hosts.clone(),
            resolve: config.push_resolve.clone(),
            contact: contact.map(str::to_owned),
        }
    }
}

/// A client of push services, shared by the worker threads.
pub struct PushClient {
    agent: Agent,
    key: Arc<VapidKey>,
    rules: PushRules,
}

impl PushClient {
    /// Creates a client with the system's resolver and its trusted certificates.
    pub fn new(key: Arc<VapidKey>, rules: PushRules) -> Self {
        Self::with_look_up(key, rules, Arc::new(look_up))
    }

    /// Creates a client with another resolver.
    pub fn with_look_up(key: Arc<VapidKey>, rules: PushRules, look_up: LookUp) -> Self {
        let resolver = VettedResolver { rules: rules.clone(), look_up };
        let connector = ().chain(TcpConnector::default()).chain(RustlsConnector::default());
        let agent = Agent::with_parts(agent_config(), connector, resolver);
        Self { agent, key, rules }
    }

    /// Encrypts, signs and sends one push, and waits for the answer.
    pub fn send(&self, job: &Job) -> Outcome {
        if !is_endpoint(&job.endpoint, &self.rules.hosts) {
            return Outcome::Impossible("pushes to this host are not allowed".to_owned());
        }
        let body = match encrypt(&job.text, &job.p256dh, &job.auth) {
            Ok(body) => body,
            Err(error) => return Outcome::Impossible(error.to_string()),
        };
        let audience = format!("https://{}", endpoint_host(&job.endpoint));
        let contact = self.rules.contact.as_deref();
        let authorization = match self.key.authorization(&audience, contact, job.now_s) {
            Ok(header) => header,
            Err(error) => return Outcome::Impossible(error.to_string()),
        };
        let request = self
            .agent
            .post(&job.endpoint)
            .header("Authorization", authorization)
            .header("Content-Encoding", "aes128gcm")
            .header("Content-Type", "application/octet-stream")
            .header("TTL", job.ttl_s.to_string())
            .header("Urgency", job.urgency.as_str())
            .header("Topic", &job.topic);
        match request.send(&body[..]) {
            Ok(mut answer) => {
                let status = answer.status().as_u16();
                let retry_after_s = retry_after_s(answer.headers(), job.now_s);
                outcome(status, retry_after_s, excerpt(answer.body_mut().as_reader()))
            }
            Err(error) => failed(&error),
        }
    }
}

/// The outcome that an HTTP status means.
fn outcome(status: u16, retry_after_s: Option<u64>, excerpt: String) -> Outcome {
    match status {
        200..=299 => Outcome::Delivered { status },
        404 | 410 => Outcome::Gone { status },
        _ => Outcome::Declined { status, retry_after_s, excerpt },
    }
}

/// The beginning of an answer's body, on one line.
fn excerpt(body: impl io::Read) -> String {
    let mut bytes = Vec::new();
    // If reading fails, the part that was read is enough.
    let _ = body.take(PUSH_ANSWER_BYTES_MAX).read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().filter(|c| !c.is_control()).take(EXCERPT_CHARS).collect()
}

/// The Retry-After header in seconds. It holds a number of seconds or a date.
fn retry_after_s(headers: &HeaderMap, now_s: u64) -> Option<u64> {
    let text = headers.get("retry-after")?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp().as_second();
    Some(u64::try_from(at).unwrap_or_default().saturating_sub(now_s))
}

fn agent_config() -> AgentConfig {
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let found = rustls_native_certs::load_native_certs().certs;
    let roots: Vec<_> =
        found.iter().map(|found| Certificate::from_der(found.as_ref()).to_owned()).collect();
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::from(roots))
        .unversioned_rustls_crypto_provider(provider)
        .build();
    Agent::config_builder()
        .tls_config(tls)
        .https_only(true)
        .http_status_as_error(false)
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("vestnik/", env!("CARGO_PKG_VERSION")))
        .timeout_global(seconds(PUSH_S))
        .timeout_connect(seconds(CONNECT_S))
        .max_response_header_size(HEADER_BYTES_MAX)
        .input_buffer_size(HEADER_BYTES_MAX)
        .max_idle_connections(IDLE_CONNECTIONS.0)
        .max_idle_connections_per_host(IDLE_CONNECTIONS.1)
        .max_idle_age(Duration::from_secs(IDLE_S))
        .build()
}

/// A resolver that returns public addresses only, or the fixed address of a host.
struct VettedResolver {
    rules: PushRules,
    look_up: LookUp,
}

impl fmt::Debug for VettedResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VettedResolver").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl VettedResolver {
    /// The addresses that the client may connect to for a host.
    fn addresses(&self, host: &str) -> io::Result<Vec<SocketAddr>> {
        let host = host.to_ascii_lowercase();
        if let Some(fixed) = self.rules.resolve.iter().find(|fixed| fixed.host == host) {
            return Ok(vec![fixed.address]);
        }
        let found = (self.look_up)(&host)?;
        let public = found.into_iter().filter(|address| is_public(*address));
        let public: Vec<_> = public.map(|address| SocketAddr::new(address, HTTPS_PORT)).collect();
        if public.is_empty() {
            let message = "the host has no address on the public internet";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        Ok(public)
    }
}

const HTTPS_PORT: u16 = 443;
/// Addresses of a host that are tried, at most.
const ADDRESSES_MAX: usize = 4;

impl Resolver for VettedResolver {
    fn resolve(
        &self,
        uri: &Uri,
        _: &AgentConfig,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let is_https = uri.scheme_str() == Some("https");
        let is_port = uri.port_u16().is_none_or(|port| port == HTTPS_PORT);
        let (true, true, Some(host)) = (is_https, is_port, uri.host()) else {
            return Err(ureq::Error::HostNotFound);
        };
        let mut resolved = self.empty();
        for address in self.addresses(host)?.into_iter().take(ADDRESSES_MAX) {
            resolved.push(address);
        }
        Ok(resolved)
    }
}

/// Resolves a name with the system's resolver.
fn look_up(host: &str) -> io::Result<Vec<IpAddr>> {
    let found = (host, HTTPS_PORT).to_socket_addrs();
    match found {
        Ok(found) => Ok(found.map(|address| address.ip()).collect()),
        // The system's error has no useful kind.
        Err(_) => Err(io::Error::new(io::ErrorKind::NotFound, "the name cannot be resolved")),
    }
}

/// The outcome that an error means. Only a missing answer is the host's fault for sure
/// (`is_unreachable`); anything else may be due to the endpoint, which a user has made up.
fn failed(error: &ureq::Error) -> Outcome {
    let (why, is_unreachable) = match error {
        ureq::Error::Timeout(Timeout::Connect) => {
            ("no connection was made in time".to_owned(), true)
        }
        ureq::Error::Timeout(_) => ("no answer came in time".to_owned(), true),
        ureq::Error::HostNotFound => ("the name cannot be resolved".to_owned(), true),
        ureq::Error::Rustls(error) => (describe_tls(error), true),
        ureq::Error::Io(error) => (describe_io(error), true),
        ureq::Error::ConnectionFailed => ("the connection failed".to_owned(), true),
        ureq::Error::LargeResponseHeader(..) => {
            ("the answer's header is too long".to_owned(), false)
        }
        ureq::Error::Protocol(_) => ("the answer is not HTTP".to_owned(), false),
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
            return Outcome::Impossible("the endpoint is not a valid address".to_owned());
        }
        _ => ("the request failed".to_owned(), false),
    };
    Outcome::Failed { why, is_unreachable }
}

fn describe_tls(error: &rustls::Error) -> String {
    use rustls::CertificateError as Bad;
    let why = match error {
        rustls::Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            "its certificate has expired"
        }
        rustls::Error::InvalidCertificate(
            Bad::NotValidForName | Bad::NotValidForNameContext { .. },
        ) => "its certificate is for another name",
        rustls::Error::InvalidCertificate(Bad::UnknownIssuer) => {
            "this system does not trust the issuer of its certificate"
        }
        rustls::Error::InvalidCertificate(_) => "its certificate is not valid",
        _ => "the TLS handshake failed",
    };
    why.to_owned()
}

fn describe_io(error: &io::Error) -> String {
    if let Some(inner) = error.get_ref() {
        if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
            return describe_tls(tls);
        }
        if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound) {
            return inner.to_string();
        }
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "the connection was refused".to_owned(),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => "the connection was closed without an answer".to_owned(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "no answer came in time".to_owned(),
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
            "the network does not reach it".to_owned()
        }
        kind => format!("the connection failed: {kind}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::push::Urgency;
    use crate::wire::base64::decode_url;

    fn key() -> Arc<VapidKey> {
        Arc::new(VapidKey::from_stored(&VapidKey::generate().unwrap()).unwrap())
    }

    fn rules() -> PushRules {
        PushRules { hosts: vec!["push.example".to_owned()], resolve: Vec::new(), contact: None }
    }

    fn job(endpoint: &str) -> Job {
        let p256dh = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRp\
                      kNtoIAiw4";
        Job {
            id: 1,
            endpoint: endpoint.to_owned(),
            p256dh: decode_url(p256dh).unwrap(),
            auth: decode_url("BTBZMqHH6r4Tts7J_aSIgg").unwrap(),
            text: "{}".to_owned(),
            ttl_s: 60,
            urgency: Urgency::Normal,
            topic: "topic".to_owned(),
            now_s: 1,
        }
    }

    /// A client whose resolver returns these answers in turn, and the names that it was asked for.
    fn client(
        answers: &'static [&'static [&'static str]],
    ) -> (PushClient, Arc<Mutex<Vec<String>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (names, count) = (Arc::clone(&asked), AtomicUsize::new(0));
        let look_up = move |host: &str| {
            names.lock().unwrap().push(host.to_owned());
            let answer = answers[count.fetch_add(1, Ordering::Relaxed) % answers.len()];
            Ok(answer.iter().map(|address| address.parse().unwrap()).collect())
        };
        (PushClient::with_look_up(key(), rules(), Arc::new(look_up)), asked)
    }

    #[test]
    fn an_allowed_host_with_a_private_address_is_not_connected_to() {
        for addresses in [
            &["127.0.0.1"][..],
            &["10.0.0.1", "192.168.1.1"],
            &["::1"],
            &["::ffff:169.254.169.254"],
            &["64:ff9b::a00:1"],
            &["2002:7f00:1::1"],
            &["fd00::1", "fe80::1"],
            &[],
        ] {
            let resolver = VettedResolver {
                rules: rules(),
                look_up: Arc::new(|_: &str| {
                    Ok(addresses.iter().map(|address| address.parse().unwrap()).collect())
                }),
            };
            let error = resolver.addresses("push.example").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{addresses:?}");
        }
        let (client, asked) = client(&[&["127.0.0.1"]]);
        let outcome = client.send(&job("https://push.example/x"));
        let why = "the host has no address on the public internet";
        let expected = Outcome::Failed { why: why.to_owned(), is_unreachable: true };
        assert_eq!(outcome, expected);
        assert_eq!(asked.lock().unwrap().len(), 1, "one resolution");
    }

    /// A resolver that names a public address at first, and a private one when it is asked again,
    /// gets nowhere: it is asked once, and that address is connected to.
    #[test]
    fn a_resolver_that_changes_its_mind_is_asked_once() {
        let answers = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&answers);
        let look_up = move |_: &str| {
            let first = count.fetch_add(1, Ordering::Relaxed) == 0;
            let address = if first { [203, 1, 2, 3] } else { [127, 0, 0, 1] };
            Ok(vec![IpAddr::from(address)])
        };
        let resolver = VettedResolver { rules: rules(), look_up: Arc::new(look_up) };
        let addresses = resolver.addresses("push.example").unwrap();
        assert_eq!(addresses, [SocketAddr::from(([203, 1, 2, 3], 443))]);
        assert_eq!(answers.load(Ordering::Relaxed), 1);
        resolver.addresses("push.example").unwrap_err();
    }

    #[test]
    fn private_addresses_among_public_ones_are_left_out() {
        let resolver = VettedResolver {
            rules: rules(),
            look_up: Arc::new(|_: &str| {
                Ok(vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([203, 1, 2, 3])])
            }),
        };
        let addresses = resolver.addresses("push.example").unwrap();
        assert_eq!(addresses, [SocketAddr::from(([203, 1, 2, 3], 443))]);
    }

    #[test]
    fn hosts_that_are_not_allowed_are_not_even_resolved() {
        let (client, asked) = client(&[&["203.1.2.3"]]);
        for endpoint in [
            "https://evil.example/x",
            "http://push.example/x",
            "https://push.example:8443/x",
            "https://user@push.example/x",
            "https://127.0.0.1/x",
            "https://[::1]/x",
        ] {
            let outcome = client.send(&job(endpoint));
            assert!(matches!(outcome, Outcome::Impossible(_)), "{endpoint}: {outcome:?}");
        }
        assert!(asked.lock().unwrap().is_empty());
    }

    /// A made-up endpoint pauses no host; otherwise one user could stop the pushes of all others.
    #[test]
    fn endpoints_and_keys_that_are_none_blame_no_host() {
        let (client, _) = client(&[&["203.1.2.3"]]);
        for endpoint in
            ["https://push.example/{", "https://push.example/\"x\"", "https://push.example/%"]
        {
            let bad_key = Job { p256dh: vec![4; 65], ..job(endpoint) };
            assert!(matches!(client.send(&bad_key), Outcome::Impossible(_)), "{endpoint}");
        }
        let bad = ureq::http::Uri::try_from("https://push.example/\u{7f}").unwrap_err();
        let outcome = failed(&ureq::Error::Http(bad.into()));
        assert!(matches!(outcome, Outcome::Impossible(_)), "{outcome:?}");
        let outcome = failed(&ureq::Error::LargeResponseHeader(2, 1));
        assert!(matches!(outcome, Outcome::Failed { is_unreachable: false, .. }), "{outcome:?}");
        let outcome = failed(&ureq::Error::Timeout(Timeout::Global));
        assert!(matches!(outcome, Outcome::Failed { is_unreachable: true, .. }), "{outcome:?}");
    }

    #[test]
    fn a_host_with_a_set_address_is_not_resolved() {
        let rules =
            PushRules { resolve: vec!["push.example=127.0.0.1:8443".parse().unwrap()], ..rules() };
        let look_up = Arc::new(|_: &str| panic!("nobody asks"));
        let resolver = VettedResolver { rules, look_up };
        let addresses = resolver.addresses("Push.Example").unwrap();
        assert_eq!(addresses, [SocketAddr::from(([127, 0, 0, 1], 8443))]);
    }

    #[test]
    fn statuses_mean_delivered_gone_or_not_now() {
        let of = |status| outcome(status, None, String::new());
        for status in [200, 201, 202, 204] {
            assert_eq!(of(status), Outcome::Delivered { status });
        }
        for status in [404, 410] {
            assert_eq!(of(status), Outcome::Gone { status });
        }
        for status in [301, 307, 400, 401, 403, 413, 429, 500, 503] {
            assert!(matches!(of(status), Outcome::Declined { .. }), "{status}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let parse = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", text.parse().unwrap());
            retry_after_s(&headers, 1_445_412_440)
        };
        assert_eq!(parse("120"), Some(120));
        assert_eq!(parse("Wed, 21 Oct 2015 07:28:00 GMT"), Some(40));
        assert_eq!(parse("Wed, 21 Oct 2015 07:20:00 GMT"), Some(0));
        assert_eq!(parse("soon"), None);
        assert_eq!(retry_after_s(&HeaderMap::new(), 0), None);
    }

    #[test]
    fn little_of_an_answer_is_read_and_shown_on_one_line() {
        let long = "x ".repeat(1_000_000);
        let mut rest = long.as_bytes();
        assert_eq!(excerpt(&mut rest).chars().count(), EXCERPT_CHARS);
        assert_eq!(long.len() - rest.len(), PUSH_ANSWER_BYTES_MAX as usize);
        assert_eq!(
            excerpt(&b" {\n\"reason\":\t\"\x1bno\"}\xff"[..]),
            "{ \"reason\": \"no\"}\u{fffd}"
        );
    }
}
