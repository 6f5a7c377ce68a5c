//! The options of `serve`: layers of them, and the checked settings made of them.
//!
//! Owns the meaning, the bounds and the contradictions of options, and the TOML file. Must not
//! read the command line or the environment: what they set comes as one more layer of [`Options`].

mod acme;
mod file;
mod options;
mod push;
mod value;
mod web;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

pub use acme::Acme;
pub use file::nearest;
pub use options::{CONTENT_LIMIT_BYTES_MAX, Options, PushOptions, VARIABLE_PREFIX, variable_of};
pub use push::{PUSH_HOSTS, PushContact, PushResolve};
pub use value::{Checkpoints, InvitesBy, OnOff, PushContent, Registration, UserList};
pub use web::{Network, WebOrigin, is_authority};

use crate::limits;

/// The checked settings of a server: each is within its bounds, and none contradicts another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The data file.
    pub data: PathBuf,
    /// Listeners for plain TCP; port 0 picks a free one. May be empty if TLS is on.
    pub listen: Vec<SocketAddr>,
    /// TLS listeners and their certificate.
    pub tls: Option<Tls>,
    /// Who may register over the network.
    pub registration: Registration,
    /// Who may create invites that register.
    pub invites_by: InvitesBy,
    /// Who may search for users by name.
    pub user_list: UserList,
    /// Whether clients may subscribe to pushes.
    pub push: bool,
    /// Hosts to which pushes may be sent; a leading dot stands for all hosts below it.
    pub push_hosts: Vec<String>,
    /// The content of pushes.
    pub push_content: PushContent,
    /// Contact of the operator for push services.
    pub push_contact: Option<PushContact>,
    /// Hosts of push services with a fixed address.
    pub push_resolve: Vec<PushResolve>,
    /// PBKDF2 rounds for new passwords.
    pub password_iterations: u32,
    /// Days after which an unused session ends.
    pub session_days: u32,
    /// Time after which an unauthorized connection is closed.
    pub auth_timeout_ms: u64,
    /// Silence of the client after which the server sends HEARTBEAT.
    pub idle_timeout_ms: u64,
    /// Silence after HEARTBEAT after which the server closes.
    pub heartbeat_timeout_ms: u64,
    /// Time after which a peer that reads nothing, while bytes wait for it, is disconnected.
    pub stall_timeout_ms: u64,
    /// Time for which the server continues to read after it ended its side of a connection.
    pub drain_timeout_ms: u64,
    /// Time that a graceful shutdown gives peers to read their last bytes.
    pub shutdown_timeout_ms: u64,
    /// Connections at once, at most; the limit of open files may allow fewer.
    pub max_connections: usize,
    /// Unauthorized connections of one address at once; 0: no limit.
    pub max_unauthorized_per_address: usize,
    /// Longest body of a frame to the server, in bytes.
    pub body_limit_bytes: usize,
    /// Longest content of a message, in bytes of UTF-8.
    pub content_limit_bytes: usize,
    /// Outbound buffer of one peer, in bytes, above which it is a slow consumer with a backlog.
    pub outbound_limit_bytes: usize,
    /// Bytes that wait for all peers together, about.
    pub memory_limit_bytes: usize,
    /// Messages and edits of one user in a second; 0: no limit.
    pub sends_per_second: u32,
    /// Bytes of text that one user sends and edits in a day of UTC; 0: no limit.
    pub user_bytes_per_day: u64,
    /// Largest file, in bytes; 0: no files.
    pub file_limit_bytes: u64,
    /// Quota of files of one user, in bytes.
    pub user_files_limit_bytes: u64,
    /// Quota of all files, in bytes.
    pub files_limit_bytes: u64,
    /// Bytes that files leave free on the disk.
    pub disk_reserve_bytes: u64,
    /// Which program checkpoints the WAL.
    pub checkpoints: Checkpoints,
    /// Start although the database holds times more than a day ahead of the clock.
    pub accept_future_time: bool,
    /// Listener of the metrics endpoint for Prometheus, if any.
    pub metrics_listen: Option<SocketAddr>,
    /// The Unix socket of `vestnik stats`.
    pub stats_socket: PathBuf,
    /// Serve HTTP and WebSocket on the listeners, too.
    pub web: bool,
    /// Origins of web pages that may open a WebSocket, besides the server's own.
    pub web_origin: Vec<WebOrigin>,
    /// Proxies whose X-Forwarded-For is trusted.
    pub trusted_proxy: Vec<Network>,
    /// The origin of links.
    pub public_url: Option<WebOrigin>,
}

/// The settings of TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Listeners: at least one address; port 0 picks a free one.
    pub listen: Vec<SocketAddr>,
    /// The source of the certificate.
    pub certificate: CertificateSource,
}

/// The source of the certificate of the TLS listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// Files that another program renews.
    Files {
        /// The certificate and its chain, as PEM.
        cert: PathBuf,
        /// Its private key, as PEM.
        key: PathBuf,
    },
    /// An ACME authority.
    Acme(Acme),
}

/// An error of an option: one line that begins with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// The default data file.
pub const DATA: &str = "vestnik.db";

/// The default listener for plain TCP.
pub const LISTEN: &str = "127.0.0.1:7420";

/// Bytes of a body around a message's content: chat, nonce, NUL, and a reserve.
const CONTENT_OVERHEAD_BYTES: usize = 64;

const _: () = assert!(limits::CONTENT_BYTES_MAX + CONTENT_OVERHEAD_BYTES <= limits::BODY_BYTES_MAX);

impl Config {
    /// Checks options and fills in the defaults, as [`Config::new`], but finds every problem.
    ///
    /// # Errors
    /// All options that are out of their bounds or contradict each other.
    pub fn check(mut options: Options) -> Result<Self, Vec<ConfigError>> {
        let mut problems = Vec::new();
        loop {
            let error = match Self::new(options.clone()) {
                Ok(config) if problems.is_empty() => return Ok(config),
                Ok(_) => return Err(problems),
                Err(error) => error,
            };
            // Unset the option with this problem, to find the next one.
            let option = error.0.split([' ', ':']).next().unwrap_or_default().to_owned();
            problems.push(error);
            if !options.unset(&option) {
                return Err(problems);
            }
            let dependent: &[&str] = match option.as_str() {
                "tls-listen" => &["tls-cert", "tls-key"],
                "domain" => &["acme-directory", "acme-contact", "acme-ca"],
                _ => &[],
            };
            for option in dependent {
                options.unset(option);
            }
        }
    }

    /// Checks options and fills in the defaults.
    ///
    /// # Errors
    /// An option out of its bounds, or two that contradict each other.
    pub fn new(mut options: Options) -> Result<Self, ConfigError> {
        // Before the bounds of each, so that an error names the lower bound that counts.
        let content = options.content_limit()?;
        check_sizes(content, options.body_limit, options.outbound_limit)?;
        let stats_socket = options.stats_socket();
        let data = options.data.take().unwrap_or_else(|| DATA.into());
        let acme = acme::acme(&mut options)?;
        let has_tls = options.tls_listen.is_some() || acme.is_some();
        let site = acme.as_ref().and_then(|acme| acme.domains.first());
        let site = site.and_then(|domain| format!("https://{domain}").parse().ok());
        let config = Self {
            stats_socket,
            data,
            listen: plain_listeners(options.listen.take(), has_tls),
            tls: tls(&mut options, acme)?,
            registration: options.registration.unwrap_or(Registration::Closed),
            invites_by: options.invites_by.unwrap_or(InvitesBy::Operators),
            user_list: options.user_list.unwrap_or(UserList::All),
            push: options.push == Some(OnOff::On),
            push_hosts: push::push_hosts(options.push_hosts.take())?,
            push_content: options.push_content.unwrap_or(PushContent::Full),
            push_contact: options.push_contact.take(),
            push_resolve: options.push_resolve.take().unwrap_or_default(),
            password_iterations: options.password_iterations()?,
            session_days: options.session_days()?,
            auth_timeout_ms: options.auth_timeout()?.ms,
            idle_timeout_ms: options.idle_timeout()?.ms,
            heartbeat_timeout_ms: options.heartbeat_timeout()?.ms,
            stall_timeout_ms: options.stall_timeout()?.ms,
            drain_timeout_ms: options.drain_timeout()?.ms,
            shutdown_timeout_ms: options.shutdown_timeout()?.ms,
            max_connections: options.max_connections()?,
            max_unauthorized_per_address: options.max_unauthorized_per_address()?,
            body_limit_bytes: options.body_limit()?,
            content_limit_bytes: content,
            outbound_limit_bytes: options.outbound_limit()?,
            memory_limit_bytes: options.memory_limit()?,
            sends_per_second: options.sends_per_second()?,
            user_bytes_per_day: options.user_bytes_per_day()?,
            file_limit_bytes: options.file_limit()?,
            user_files_limit_bytes: options.user_files_limit()?,
            files_limit_bytes: options.files_limit()?,
            disk_reserve_bytes: options.disk_reserve()?,
            checkpoints: options.checkpoints.unwrap_or(Checkpoints::Own),
            accept_future_time: options.accept_future_time.unwrap_or(false),
            metrics_listen: options.metrics_listen,
            web: options.web != Some(OnOff::Off),
            web_origin: options.web_origin.take().unwrap_or_default(),
            trusted_proxy: options.trusted_proxy.take().unwrap_or_default(),
            // An authority checks a domain at port 443: that is where browsers find it, too.
            public_url: options.public_url.take().or(site),
        };
        check_sizes(content, Some(config.body_limit_bytes), Some(config.outbound_limit_bytes))?;
        push::check_resolves(&config.push_resolve, &config.push_hosts)?;
        config.check_listeners(options.allow_plaintext.unwrap_or(false))?;
        Ok(config)
    }

    fn check_listeners(&self, allow_plaintext: bool) -> Result<(), ConfigError> {
        let plain = self.listen.iter().map(|address| ("listen", address));
        let metrics = self.metrics_listen.iter().map(|address| ("metrics-listen", address));
        let tls = self.tls.iter().flat_map(|tls| &tls.listen);
        let tls = tls.map(|address| ("tls-listen", address));
        if self.listen.is_empty() && self.tls.as_ref().is_none_or(|tls| tls.listen.is_empty()) {
            return wrong("there is nothing to listen on: set listen or tls-listen".to_owned());
        }
        let mut seen = Vec::new();
        for (option, address) in plain.chain(metrics).chain(tls) {
            if option != "tls-listen" && !allow_plaintext && !is_loopback(address) {
                let remedy = if option == "listen" {
                    "passwords would cross the network in the clear: use tls-listen, or set"
                } else {
                    "anybody could read the metrics there: use a loopback address, or set"
                };
                return wrong(format!(
                    "{option} {address} is not a loopback address, and {remedy} allow-plaintext"
                ));
            }
            if address.port() != 0 && seen.contains(&address) {
                return wrong(format!("{option} {address} is given twice"));
            }
            seen.push(address);
        }
        Ok(())
    }
}

/// Checks the limits that have to leave space for a content of this length.
fn check_sizes(
    content: usize,
    body: Option<usize>,
    outbound: Option<usize>,
) -> Result<(), ConfigError> {
    let least = (content + CONTENT_OVERHEAD_BYTES).max(options::BODY_LIMIT_BYTES_MIN);
    if body.is_some_and(|body| body < least) {
        return wrong(format!(
            "body-limit must be at least {least}, so that a content of {content} bytes \
             (content-limit) fits into a body"
        ));
    }
    let least = content + limits::PIECE_BYTES_MAX;
    if outbound.is_some_and(|outbound| outbound < least) {
        return wrong(format!(
            "outbound-limit must be at least {least}, so that a content of {content} bytes \
             (content-limit) fits into a piece of an answer"
        ));
    }
    Ok(())
}

/// Plain TCP on loopback when no listener of either kind is set.
fn plain_listeners(said: Option<Vec<SocketAddr>>, is_tls_said: bool) -> Vec<SocketAddr> {
    match said {
        Some(addresses) => addresses,
        None if is_tls_said => Vec::new(),
        None => vec![SocketAddr::from(([127, 0, 0, 1], 7420))],
    }
}

fn tls(options: &mut Options, acme: Option<Acme>) -> Result<Option<Tls>, ConfigError> {
    let listen = options.tls_listen.take();
    let (cert, key) = (options.tls_cert.take(), options.tls_key.take());
    if let Some(acme) = acme {
        if cert.is_some() || key.is_some() {
            let option = if cert.is_some() { "tls-cert" } else { "tls-key" };
            return wrong(format!(
                "{option} contradicts domain, which gets a certificate by itself"
            ));
        }
        let listen = listen.unwrap_or_else(acme::default_listeners);
        return Ok(Some(Tls { listen, certificate: CertificateSource::Acme(acme) }));
    }
    match (listen, cert, key) {
        (None, None, None) => Ok(None),
        (Some(listen), Some(cert), Some(key)) => {
            Ok(Some(Tls { listen, certificate: CertificateSource::Files { cert, key } }))
        }
        (None, Some(_), _) => wrong("tls-cert has no effect without tls-listen".to_owned()),
        (None, ..) => wrong("tls-key has no effect without tls-listen".to_owned()),
        (Some(_), None, _) => {
            wrong("tls-listen needs a certificate: set tls-cert, or domain".to_owned())
        }
        (Some(_), _, None) => {
            wrong("tls-listen needs the certificate's key: set tls-key".to_owned())
        }
    }
}

fn is_loopback(address: &SocketAddr) -> bool {
    // 127.0.0.1 may be given as an IPv4-mapped IPv6 address.
    address.ip().to_canonical().is_loopback()
}

fn wrong<T>(words: String) -> Result<T, ConfigError> {
    Err(ConfigError(words))
}

#[cfg(test)]
mod tests;
