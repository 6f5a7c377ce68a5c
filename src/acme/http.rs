//! HTTPS requests to an ACME authority: to one host only, bounded in size and time.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring::default_provider;
use ureq::http::{Response, header};
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Body};

use super::failure::Failure;
use crate::certificate::read_certificates;
use crate::limits::{
    ACME_BODY_BYTES_MAX, ACME_CONNECT_TIMEOUT_S, ACME_HEAD_BYTES_MAX, ACME_TIMEOUT_S,
    ACME_URL_BYTES_MAX,
};

/// Time limit of a whole request.
const TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 2 } else { ACME_TIMEOUT_S });

/// The answer of an authority.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// URL of the account or order that was created.
    pub(super) location: Option<String>,
    /// Nonce for the next request.
    pub(super) nonce: Option<String>,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Vec<u8>,
}

/// An HTTPS client for one authority and one attempt.
pub(super) struct Http {
    agent: Agent,
    /// Origin of the directory: `https://`, the host, and the port if the URL has one.
    origin: String,
}

impl Http {
    /// Creates a client for the authority with this directory.
    ///
    /// The authority's own certificate has to be trusted by the system, or by the PEM file `ca`.
    pub(super) fn new(directory: &str, ca: Option<&Path>) -> Result<Self, Failure> {
        let roots = match ca {
            Some(file) => read_certificates(file)?,
            None => rustls_native_certs::load_native_certs().certs,
        };
        if roots.is_empty() {
            return Err(Failure::new(
                "the system trusts no certificate authorities: install its package \
                 ca-certificates",
            ));
        }
        let roots: Vec<_> =
            roots.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(default_provider()))
            .root_certs(RootCerts::Specific(Arc::new(roots)))
            .build();
        let agent = Agent::config_builder()
            .https_only(true)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .tls_config(tls)
            .user_agent(concat!("vestnik/", env!("CARGO_PKG_VERSION")))
            .max_response_header_size(ACME_HEAD_BYTES_MAX)
            .timeout_resolve(Some(Duration::from_secs(ACME_CONNECT_TIMEOUT_S)))
            .timeout_connect(Some(Duration::from_secs(ACME_CONNECT_TIMEOUT_S)))
            .timeout_global(Some(TIMEOUT))
            .build()
            .new_agent();
        let host_begin = "https://".len();
        let path = directory.get(host_begin..).and_then(|rest| rest.find('/'));
        let origin = path.and_then(|path| directory.get(..host_begin + path));
        Ok(Self { agent, origin: origin.unwrap_or(directory).to_owned() })
    }

    /// The host, for messages.
    pub(super) fn host(&self) -> &str {
        self.origin.strip_prefix("https://").unwrap_or(&self.origin)
    }

    pub(super) fn get(&self, url: &str) -> Result<Answer, Failure> {
        self.check(url)?;
        self.read(self.agent.get(url).call())
    }

    pub(super) fn head(&self, url: &str) -> Result<Answer, Failure> {
        self.check(url)?;
        self.read(self.agent.head(url).call())
    }

    /// Posts a signed request.
    pub(super) fn post(&self, url: &str, body: &str) -> Result<Answer, Failure> {
        self.check(url)?;
        let request = self.agent.post(url).header(header::CONTENT_TYPE, "application/jose+json");
        self.read(request.send(body))
    }

    /// Rejects a URL at another host: an authority must not send this server anywhere else.
    fn check(&self, url: &str) -> Result<(), Failure> {
        let path = url.strip_prefix(&self.origin);
        if url.len() <= ACME_URL_BYTES_MAX && path.is_some_and(|path| path.starts_with('/')) {
            return Ok(());
        }
        Err(Failure::new(format!("{} answers with an address of another host", self.host())))
    }

    fn read(&self, answer: Result<Response<Body>, ureq::Error>) -> Result<Answer, Failure> {
        let mut answer = answer.map_err(|error| self.unreachable(&error))?;
        let text = |name: &str| {
            let value = answer.headers().get(name).and_then(|value| value.to_str().ok());
            value.filter(|value| value.len() <= ACME_URL_BYTES_MAX).map(str::to_owned)
        };
        // The other form, a date, is ignored: ACME authorities send seconds.
        let seconds = text("retry-after").and_then(|value| value.trim().parse().ok());
        let (location, nonce) = (text("location"), text("replay-nonce"));
        let status = answer.status().as_u16();
        let body = answer.body_mut().with_config().limit(ACME_BODY_BYTES_MAX).read_to_vec();
        let body = body.map_err(|error| self.unreachable(&error))?;
        let retry_after = seconds.map(Duration::from_secs);
        Ok(Answer { status, location, nonce, retry_after, body })
    }

    /// The failure when no answer was received.
    fn unreachable(&self, error: &ureq::Error) -> Failure {
        let host = self.host();
        let is_lookup =
            |error: &io::Error| error.to_string().starts_with("failed to lookup address");
        let why = match error {
            ureq::Error::HostNotFound => {
                "its name cannot be resolved: check the network and the DNS of this machine"
                    .to_owned()
            }
            ureq::Error::Io(error) if is_lookup(error) => {
                "its name cannot be resolved: check the network and the DNS of this machine"
                    .to_owned()
            }
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                untrusted().to_owned()
            }
            ureq::Error::Io(error) => error.kind().to_string(),
            ureq::Error::Timeout(_) => "it does not answer in time".to_owned(),
            ureq::Error::Rustls(_) | ureq::Error::Tls(_) => untrusted().to_owned(),
            ureq::Error::BodyExceedsLimit(_) | ureq::Error::LargeResponseHeader(..) => {
                "its answer is too long".to_owned()
            }
            ureq::Error::ConnectionFailed => "it cannot be connected to".to_owned(),
            _ => "it answers something that is not HTTP".to_owned(),
        };
        Failure::transient(format!("cannot ask {host}: {why}"))
    }
}

const fn untrusted() -> &'static str {
    "its certificate is not trusted: name its authority by --acme-ca, or renew the system's package \
     ca-certificates"
}
