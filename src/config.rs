//! The options of `serve`: layers of them, and the checked settings made of them.
//!
//! Owns the meaning, the bounds and the contradictions of options, and the TOML file. Must not
//! know the command line or the environment: they come as one more layer of [`Options`].

mod acme;
mod file;
mod people;
mod push;
mod web;

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use acme::{Acme, acme_contact, acme_directory, domain};
pub use file::nearest;
pub use people::{InvitesBy, PUSH_HOSTS, UserList, push_host};
pub use push::{PushContact, PushContent, PushResolve};
use serde::{Deserialize, Deserializer};
pub use web::{Network, WebOrigin, is_authority};

use crate::limits;

/// The settings of a server, checked: each within its bounds, and no two against each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The data file.
    pub data: PathBuf,
    /// Where plain TCP is taken; port 0 picks a free one. May be empty when TLS is on.
    pub listen: Vec<SocketAddr>,
    /// Where and with which certificate TLS is taken.
    pub tls: Option<Tls>,
    /// Who may register over the network.
    pub registration: Registration,
    /// Who may make invites that register.
    pub invites_by: InvitesBy,
    /// Who may look for users by name.
    pub user_list: UserList,
    /// Whether clients may subscribe to pushes.
    pub push: bool,
    /// Hosts that pushes may go to; one with a dot before it stands for all hosts below it.
    pub push_hosts: Vec<String>,
    /// What a push says of a message.
    pub push_content: PushContent,
    /// How push services reach the operator.
    pub push_contact: Option<PushContact>,
    /// Hosts of push services that are not resolved.
    pub push_resolve: Vec<PushResolve>,
    /// PBKDF2 rounds for new passwords.
    pub password_iterations: u32,
    /// Days after which an unused session ends.
    pub session_days: u32,
    /// A connection that is not authorized by then is closed.
    pub auth_timeout_ms: u64,
    /// Silence of the client after which the server asks with HEARTBEAT.
    pub idle_timeout_ms: u64,
    /// Silence after that question after which the server closes.
    pub heartbeat_timeout_ms: u64,
    /// A peer that takes nothing for so long while bytes wait for it is closed.
    pub stall_timeout_ms: u64,
    /// How long the server reads on after it ended its side of a connection.
    pub drain_timeout_ms: u64,
    /// How long peers get to take their last bytes when the server stops.
    pub shutdown_timeout_ms: u64,
    /// Connections at once; the limit of open files may allow fewer.
    pub max_connections: usize,
    /// Unauthorized connections of one address at once; 0: no limit.
    pub max_unauthorized_per_address: usize,
    /// Longest body of a frame to the server, in bytes.
    pub body_limit_bytes: usize,
    /// Longest content of a message, in bytes of UTF-8.
    pub content_limit_bytes: usize,
    /// Bytes that wait for one peer, past which notifications are left out.
    pub outbound_limit_bytes: usize,
    /// Bytes that wait for all peers together, about.
    pub memory_limit_bytes: usize,
    /// Messages and edits of one user in a second; 0: no limit.
    pub sends_per_second: u32,
    /// Bytes of text that one user sends and edits in a day of UTC; 0: no limit.
    pub user_bytes_per_day: u64,
    /// Largest file, in bytes; 0: no files.
    pub file_limit_bytes: u64,
    /// Most bytes of the files of one user.
    pub user_files_limit_bytes: u64,
    /// Most bytes of all files.
    pub files_limit_bytes: u64,
    /// Bytes that files leave free on the disk.
    pub disk_reserve_bytes: u64,
    /// Start although the database holds times more than a day ahead of the clock.
    pub accept_future_time: bool,
    /// Where metrics are served to Prometheus, if anywhere.
    pub metrics_listen: Option<SocketAddr>,
    /// The Unix socket on which `vestnik stats` asks.
    pub stats_socket: PathBuf,
    /// Serve HTTP and WebSocket on the listeners, too.
    pub web: bool,
    /// Origins of web pages that may open a WebSocket, besides the server's own.
    pub web_origin: Vec<WebOrigin>,
    /// Proxies whose X-Forwarded-For names the client.
    pub trusted_proxy: Vec<Network>,
    /// The site that links name.
    pub public_url: Option<WebOrigin>,
}

/// TLS: all of it or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Where TLS is taken: at least one address; port 0 picks a free one.
    pub listen: Vec<SocketAddr>,
    /// Where the certificate comes from.
    pub certificate: CertificateSource,
}

/// Where the certificate of the TLS listeners comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// From files that somebody else renews.
    Files {
        /// The certificate and its chain, as PEM.
        cert: PathBuf,
        /// Its private key, as PEM.
        key: PathBuf,
    },
    /// From an ACME authority.
    Acme(Acme),
}

/// Who may register over the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Registration {
    /// Nobody: the operator adds users.
    Closed,
    /// Who has a code that the operator or `vestnik invite` made.
    Invite,
    /// Everybody.
    Open,
}

impl Registration {
    /// What may be written for it.
    pub const NAMES: [&str; 3] = ["closed", "invite", "open"];
}

impl FromStr for Registration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "closed" => Ok(Self::Closed),
            "invite" => Ok(Self::Invite),
            "open" => Ok(Self::Open),
            _ => Err(format!("it is one of {}", Self::NAMES.join(", "))),
        }
    }
}

/// A switch, written `on` or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnOff {
    /// It is on.
    On,
    /// It is off.
    Off,
}

impl OnOff {
    /// The values of such an option.
    pub const NAMES: [&str; 2] = ["on", "off"];
}

impl FromStr for OnOff {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err("it is on or off".to_owned()),
        }
    }
}

/// A length of time, written in seconds with or without a fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "f64")]
pub struct Seconds {
    ms: u64,
}

impl Seconds {
    /// Of milliseconds.
    pub const fn from_ms(ms: u64) -> Self {
        Self { ms }
    }
}

impl TryFrom<f64> for Seconds {
    type Error = String;

    fn try_from(seconds: f64) -> Result<Self, String> {
        // Far past every bound, and far from where a float is no longer exact.
        if !(0.0..=1e9).contains(&seconds) {
            return Err("it is not a number of seconds".to_owned());
        }
        Ok(Self { ms: (seconds * 1000.0).round() as u64 })
    }
}

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let seconds: Result<f64, _> = text.parse();
        seconds.map_err(|_| "it is not a number of seconds".to_owned())?.try_into()
    }
}

/// Reads one address.
///
/// # Errors
/// When it is not a numeric address with a port.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    text.parse().map_err(|_| {
        format!("{text:?} is not an address with a port, such as 127.0.0.1:7420 or [::1]:7420")
    })
}

macro_rules! options {
    ($($(#[$attribute:meta])* $name:ident: $type:ty,)*) => {
        /// One layer of options, each set or not; [`Config`] says what each means. The field names
        /// with `-` for `_` are the keys of the TOML file.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
        #[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
        pub struct Options {
            $($(#[$attribute])* pub $name: Option<$type>,)*
        }

        impl Options {
            /// This layer above another: where it sets nothing, the lower one counts.
            #[must_use]
            pub fn or(self, lower: Self) -> Self {
                Self { $($name: self.$name.or(lower.$name),)* }
            }

            /// The keys of the TOML file.
            pub fn keys() -> impl Iterator<Item = String> {
                [$(stringify!($name),)*].into_iter().map(|name| name.replace('_', "-"))
            }

            /// Takes an option out, by its key; false when it was not set.
            fn unset(&mut self, key: &str) -> bool {
                match key.replace('-', "_").as_str() {
                    $(stringify!($name) => self.$name.take().is_some(),)*
                    _ => false,
                }
            }
        }
    };
}

options! {
    /// The data file.
    data: PathBuf,
    /// Plain TCP. Here and in `tls_listen` a list that is set replaces the lower layer's.
    #[serde(deserialize_with = "text_or_array")]
    listen: Vec<SocketAddr>,
    /// Plain TCP not only on loopback.
    allow_plaintext: bool,
    /// TLS.
    #[serde(deserialize_with = "text_or_array")]
    tls_listen: Vec<SocketAddr>,
    /// Its certificate.
    tls_cert: PathBuf,
    /// Its key.
    tls_key: PathBuf,
    /// Names to get a certificate for.
    #[serde(deserialize_with = "acme::domains")]
    domain: Vec<String>,
    /// The authority that issues it.
    #[serde(deserialize_with = "acme::directory")]
    acme_directory: String,
    /// Whom it can write to.
    #[serde(deserialize_with = "acme::contact")]
    acme_contact: String,
    /// Who vouches for the authority.
    acme_ca: PathBuf,
    /// Who may register.
    registration: Registration,
    /// Who makes invites that register.
    invites_by: InvitesBy,
    /// Who looks for users.
    user_list: UserList,
    /// Pushes.
    push: OnOff,
    /// Hosts that pushes go to.
    #[serde(deserialize_with = "people::hosts")]
    push_hosts: Vec<String>,
    /// What pushes say.
    push_content: PushContent,
    /// The operator's address.
    push_contact: PushContact,
    /// Addresses of hosts that pushes go to.
    #[serde(deserialize_with = "push::resolves")]
    push_resolve: Vec<PushResolve>,
    /// PBKDF2 rounds.
    password_iterations: u32,
    /// Lifetime of unused sessions.
    session_days: u32,
    /// Seconds to become authorized.
    auth_timeout: Seconds,
    /// Seconds of silence.
    idle_timeout: Seconds,
    /// Seconds of silence after HEARTBEAT.
    heartbeat_timeout: Seconds,
    /// Seconds without reading.
    stall_timeout: Seconds,
    /// Seconds of reading on.
    drain_timeout: Seconds,
    /// Seconds to say good-bye.
    shutdown_timeout: Seconds,
    /// Connections.
    max_connections: usize,
    /// Unauthorized connections of an address.
    max_unauthorized_per_address: usize,
    /// Bytes of a body.
    body_limit: usize,
    /// Bytes of a content.
    content_limit: usize,
    /// Bytes that wait for a peer.
    outbound_limit: usize,
    /// Bytes that wait for all peers.
    memory_limit: usize,
    /// Messages of a user in a second.
    sends_per_second: u32,
    /// Bytes of text of a user in a day.
    user_bytes_per_day: u64,
    /// Bytes of a file.
    file_limit: u64,
    /// Bytes of the files of a user.
    user_files_limit: u64,
    /// Bytes of all files.
    files_limit: u64,
    /// Bytes that files leave free.
    disk_reserve: u64,
    /// Start in spite of times in the future.
    accept_future_time: bool,
    /// Prometheus.
    metrics_listen: SocketAddr,
    /// `vestnik stats`.
    stats_socket: PathBuf,
    /// HTTP and WebSocket.
    web: OnOff,
    /// Origins of web pages.
    #[serde(deserialize_with = "text_or_array")]
    web_origin: Vec<WebOrigin>,
    /// Proxies.
    #[serde(deserialize_with = "text_or_array")]
    trusted_proxy: Vec<Network>,
    /// What links begin with.
    public_url: WebOrigin,
}

/// Values as one text, separated by commas, or as an array of texts.
fn text_or_array<'de, D: Deserializer<'de>, T: OptionValue>(
    input: D,
) -> Result<Option<Vec<T>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "an address, or an array of addresses")]
    enum Given {
        Text(String),
        Array(Vec<String>),
    }
    let values: Result<Vec<_>, String> = match Given::deserialize(input)? {
        Given::Text(text) => text.split(',').map(T::read).collect(),
        Given::Array(texts) => texts.iter().map(|text| T::read(text)).collect(),
    };
    values.map(Some).map_err(serde::de::Error::custom)
}

/// A value of which an option may have several.
trait OptionValue: Sized {
    fn read(text: &str) -> Result<Self, String>;
}

impl OptionValue for SocketAddr {
    fn read(text: &str) -> Result<Self, String> {
        address(text)
    }
}

impl OptionValue for WebOrigin {
    fn read(text: &str) -> Result<Self, String> {
        text.parse()
    }
}

impl OptionValue for Network {
    fn read(text: &str) -> Result<Self, String> {
        text.parse()
    }
}

impl Options {
    /// The Unix socket for metrics: the one that is set, or the one next to the data file.
    pub fn stats_socket(&self) -> PathBuf {
        let data = self.data.as_deref().unwrap_or(Path::new(DATA));
        self.stats_socket.clone().unwrap_or_else(|| sibling_path(data, ".sock"))
    }
}

/// One line that begins with the option that is wrong, and says why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// The data file when none is named.
pub const DATA: &str = "vestnik.db";

/// Where plain TCP is taken when no listener is named.
pub const LISTEN: &str = "127.0.0.1:7420";

/// Bytes of a body around a message's content: chat, nonce, NUL, and a reserve.
const CONTENT_OVERHEAD_BYTES: usize = 64;

/// From where every request but SEND_CHAT_MSG and EDIT_MSG fits at its longest, to what one
/// connection may make the server hold of an unfinished frame.
const BODY_LIMIT_BYTES: RangeInclusive<usize> = BODY_LIMIT_BYTES_MIN..=1024 * 1024;
const BODY_LIMIT_BYTES_MIN: usize = 2 * 1024;
/// What `--content-limit` may be set to.
pub const CONTENT_LIMIT_BYTES: RangeInclusive<usize> = 1..=CONTENT_LIMIT_BYTES_MAX;
/// The longest content that any server can be set to accept.
pub const CONTENT_LIMIT_BYTES_MAX: usize = 1024 * 1024;
const MEMORY_LIMIT_BYTES: RangeInclusive<usize> = 1024 * 1024..=usize::MAX;
const OUTBOUND_LIMIT_BYTES: RangeInclusive<usize> = limits::PIECE_BYTES_MAX..=1024 * 1024 * 1024;
const CONNECTIONS_MAX: usize = 10_000_000;
const SESSION_DAYS_MAX: u32 = 36_500;
const SENDS_PER_SECOND_MAX: u32 = 1_000_000;
/// No file and no sum of files is longer than a disk.
const FILES_BYTES_MAX: u64 = 1 << 50;

/// Shortest and longest time that a time-out may have, and what each is when nobody says.
const TIMEOUT_MS: RangeInclusive<u64> = 100..=24 * 60 * 60 * 1000;
const AUTH_MS: u64 = limits::AUTH_TIMEOUT_S * 1000;
const IDLE_MS: u64 = limits::IDLE_TIMEOUT_S * 1000;
const HEARTBEAT_MS: u64 = limits::HEARTBEAT_TIMEOUT_S * 1000;
const STALL_MS: u64 = limits::STALL_TIMEOUT_S * 1000;
const DRAIN_MS: u64 = limits::DRAIN_TIMEOUT_MS;
const SHUTDOWN_MS: u64 = limits::SHUTDOWN_TIMEOUT_S * 1000;

const _: () = {
    assert!(limits::HEARTBEAT_BYTES_MAX <= BODY_LIMIT_BYTES_MIN);
    assert!(limits::NAME_CHARS_MAX * 4 + 2 * limits::PASSWORD_BYTES_MAX <= BODY_LIMIT_BYTES_MIN);
    assert!(limits::TITLE_CHARS_MAX * 4 <= BODY_LIMIT_BYTES_MIN);
    assert!(limits::CONTENT_BYTES_MAX + CONTENT_OVERHEAD_BYTES <= limits::BODY_BYTES_MAX);
};

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
            // The next problem shows when the option that has this one is not set.
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
    pub fn new(options: Options) -> Result<Self, ConfigError> {
        let said = options;
        let stats_socket = said.stats_socket();
        let data = said.data.unwrap_or_else(|| DATA.into());
        let per_address = said.max_unauthorized_per_address;
        let connections = said.max_connections.unwrap_or(limits::CONNECTIONS_MAX);
        let session_days = said.session_days.unwrap_or(limits::SESSION_DAYS);
        let body = said.body_limit.unwrap_or(limits::BODY_BYTES_MAX);
        let content = said.content_limit.unwrap_or(limits::CONTENT_BYTES_MAX);
        let outbound = said.outbound_limit.unwrap_or(limits::OUTBOUND_BYTES_MAX);
        let memory = said.memory_limit.unwrap_or(limits::MEMORY_BYTES_MAX);
        let sends = said.sends_per_second.unwrap_or(0);
        let file = said.file_limit.unwrap_or(limits::FILE_BYTES_MAX);
        let user_files = said.user_files_limit.unwrap_or(limits::USER_FILES_BYTES_MAX);
        let files = said.files_limit.unwrap_or(limits::FILES_BYTES_MAX);
        let reserve = said.disk_reserve.unwrap_or(limits::DISK_RESERVE_BYTES);
        let acme = acme::acme(said.domain, said.acme_directory, said.acme_contact, said.acme_ca)?;
        let has_tls = said.tls_listen.is_some() || acme.is_some();
        let site = acme.as_ref().and_then(|acme| acme.domains.first());
        let site = site.and_then(|domain| format!("https://{domain}").parse().ok());
        let config = Self {
            stats_socket,
            data,
            listen: plain_listeners(said.listen, has_tls),
            tls: tls(said.tls_listen, said.tls_cert, said.tls_key, acme)?,
            registration: said.registration.unwrap_or(Registration::Closed),
            invites_by: said.invites_by.unwrap_or(InvitesBy::Operators),
            user_list: said.user_list.unwrap_or(UserList::All),
            push: said.push == Some(OnOff::On),
            push_hosts: people::push_hosts(said.push_hosts)?,
            push_content: said.push_content.unwrap_or(PushContent::Full),
            push_contact: said.push_contact,
            push_resolve: said.push_resolve.unwrap_or_default(),
            password_iterations: password_iterations(said.password_iterations)?,
            session_days: within("session-days", session_days, 1..=SESSION_DAYS_MAX)?,
            auth_timeout_ms: timeout("auth-timeout", said.auth_timeout, AUTH_MS)?,
            idle_timeout_ms: timeout("idle-timeout", said.idle_timeout, IDLE_MS)?,
            heartbeat_timeout_ms: timeout(
                "heartbeat-timeout",
                said.heartbeat_timeout,
                HEARTBEAT_MS,
            )?,
            stall_timeout_ms: timeout("stall-timeout", said.stall_timeout, STALL_MS)?,
            drain_timeout_ms: timeout("drain-timeout", said.drain_timeout, DRAIN_MS)?,
            shutdown_timeout_ms: timeout("shutdown-timeout", said.shutdown_timeout, SHUTDOWN_MS)?,
            max_connections: within("max-connections", connections, 1..=CONNECTIONS_MAX)?,
            max_unauthorized_per_address: per_address
                .unwrap_or(limits::UNAUTHORIZED_PER_ADDRESS_MAX),
            body_limit_bytes: within("body-limit", body, BODY_LIMIT_BYTES)?,
            content_limit_bytes: within("content-limit", content, CONTENT_LIMIT_BYTES)?,
            outbound_limit_bytes: within("outbound-limit", outbound, OUTBOUND_LIMIT_BYTES)?,
            memory_limit_bytes: within("memory-limit", memory, MEMORY_LIMIT_BYTES)?,
            sends_per_second: within("sends-per-second", sends, 0..=SENDS_PER_SECOND_MAX)?,
            user_bytes_per_day: said.user_bytes_per_day.unwrap_or(limits::USER_TEXT_BYTES_PER_DAY),
            file_limit_bytes: within("file-limit", file, 0..=FILES_BYTES_MAX)?,
            user_files_limit_bytes: within("user-files-limit", user_files, 0..=FILES_BYTES_MAX)?,
            files_limit_bytes: within("files-limit", files, 0..=FILES_BYTES_MAX)?,
            disk_reserve_bytes: within("disk-reserve", reserve, 0..=FILES_BYTES_MAX)?,
            accept_future_time: said.accept_future_time.unwrap_or(false),
            metrics_listen: said.metrics_listen,
            web: said.web != Some(OnOff::Off),
            web_origin: said.web_origin.unwrap_or_default(),
            trusted_proxy: said.trusted_proxy.unwrap_or_default(),
            // An authority checks a domain at port 443: that is where browsers find it, too.
            public_url: said.public_url.or(site),
        };
        config.check_sizes()?;
        push::check_resolves(&config.push_resolve, &config.push_hosts)?;
        config.check_listeners(said.allow_plaintext.unwrap_or(false))?;
        Ok(config)
    }

    fn check_sizes(&self) -> Result<(), ConfigError> {
        let content = self.content_limit_bytes;
        let least = content + CONTENT_OVERHEAD_BYTES;
        if self.body_limit_bytes < least {
            return wrong(format!(
                "body-limit must be at least {least}, so that a content of {content} bytes \
                 (content-limit) fits into a body"
            ));
        }
        let least = content + limits::PIECE_BYTES_MAX;
        if self.outbound_limit_bytes < least {
            return wrong(format!(
                "outbound-limit must be at least {least}, so that a content of {content} bytes \
                 (content-limit) fits into a piece of an answer"
            ));
        }
        Ok(())
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

/// The rounds for new passwords: those that are set, or the default.
///
/// # Errors
/// When they are out of bounds.
pub fn password_iterations(said: Option<u32>) -> Result<u32, ConfigError> {
    let rounds = said.unwrap_or(limits::PASSWORD_ITERATIONS);
    within("password-iterations", rounds, 1..=limits::PASSWORD_ITERATIONS_MAX)
}

/// Plain TCP on loopback when no listener of either kind is set.
fn plain_listeners(said: Option<Vec<SocketAddr>>, is_tls_said: bool) -> Vec<SocketAddr> {
    match said {
        Some(addresses) => addresses,
        None if is_tls_said => Vec::new(),
        None => vec![SocketAddr::from(([127, 0, 0, 1], 7420))],
    }
}

fn tls(
    listen: Option<Vec<SocketAddr>>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    acme: Option<Acme>,
) -> Result<Option<Tls>, ConfigError> {
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
    // 127.0.0.1 may come as the IPv6 address that stands for it.
    address.ip().to_canonical().is_loopback()
}

/// A file's name with an ending added to the whole of it.
fn sibling_path(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn within<T: PartialOrd + fmt::Display>(
    option: &str,
    value: T,
    bounds: RangeInclusive<T>,
) -> Result<T, ConfigError> {
    if bounds.contains(&value) {
        return Ok(value);
    }
    wrong(format!("{option} must be {} to {}, not {value}", bounds.start(), bounds.end()))
}

fn timeout(option: &str, said: Option<Seconds>, default_ms: u64) -> Result<u64, ConfigError> {
    let ms = said.map_or(default_ms, |seconds| seconds.ms);
    if TIMEOUT_MS.contains(&ms) {
        return Ok(ms);
    }
    let seconds = |ms: u64| ms as f64 / 1000.0;
    wrong(format!(
        "{option} must be {} to {} seconds, not {}",
        seconds(*TIMEOUT_MS.start()),
        seconds(*TIMEOUT_MS.end()),
        seconds(ms),
    ))
}

fn wrong<T>(words: String) -> Result<T, ConfigError> {
    Err(ConfigError(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(toml: &str) -> Result<Config, ConfigError> {
        Options::parse(toml).and_then(Config::new)
    }

    #[track_caller]
    fn refused(toml: &str, about: &str) {
        let words = config(toml).expect_err(toml).to_string();
        assert!(words.contains(about), "{toml}: {words}");
        assert!(!words.contains('\n'), "{words}");
    }

    #[test]
    fn nothing_said_gives_the_defaults() {
        let config = config("").unwrap();
        assert_eq!(config.data, Path::new(DATA));
        assert_eq!(config.listen, [address(LISTEN).unwrap()]);
        assert_eq!(config.stats_socket, Path::new("vestnik.db.sock"));
        assert_eq!(config.registration, Registration::Closed);
        assert_eq!(config.auth_timeout_ms, 30_000);
        assert_eq!(config.drain_timeout_ms, 2_000);
        assert_eq!(config.body_limit_bytes, limits::BODY_BYTES_MAX);
        assert_eq!(config.tls, None);
    }

    #[test]
    #[allow(clippy::too_many_lines, reason = "a table")]
    fn every_option_of_the_file_arrives() {
        let config = config(
            r#"
            data = "/srv/chat.db"
            listen = ["127.0.0.1:1", "[::1]:2"]
            tls-listen = "0.0.0.0:3, [::]:3"
            tls-cert = "c.pem"
            tls-key = "k.pem"
            registration = "invite"
            invites-by = "admins"
            user-list = "operators"
            push = "on"
            push-hosts = "push.example,.services.example"
            push-content = "none"
            push-contact = "admin@example.org"
            push-resolve = ["push.example=127.0.0.1:8443"]
            password-iterations = 1000
            session-days = 2
            auth-timeout = 1
            idle-timeout = 2.5
            heartbeat-timeout = 3
            stall-timeout = 4
            drain-timeout = 0.25
            shutdown-timeout = 6
            max-connections = 7
            max-unauthorized-per-address = 0
            body-limit = 5000
            content-limit = 100
            outbound-limit = 70000
            memory-limit = 9000000
            sends-per-second = 9
            user-bytes-per-day = 1000000
            file-limit = 10
            user-files-limit = 11
            files-limit = 12
            disk-reserve = 13
            accept-future-time = true
            metrics-listen = "127.0.0.1:4"
            stats-socket = "/run/v.sock"
            web = "off"
            web-origin = ["https://a.example", "http://localhost:8080"]
            trusted-proxy = "127.0.0.1, 10.0.0.0/8"
            public-url = "https://chat.example.org/"
            "#,
        );
        let list = |text: &str| text.split(' ').map(|text| address(text).unwrap()).collect();
        let expected = Config {
            data: "/srv/chat.db".into(),
            listen: list("127.0.0.1:1 [::1]:2"),
            tls: Some(Tls {
                listen: list("0.0.0.0:3 [::]:3"),
                certificate: CertificateSource::Files { cert: "c.pem".into(), key: "k.pem".into() },
            }),
            registration: Registration::Invite,
            invites_by: InvitesBy::Admins,
            user_list: UserList::Operators,
            push: true,
            push_hosts: vec!["push.example".into(), ".services.example".into()],
            push_content: PushContent::None,
            push_contact: Some("mailto:admin@example.org".parse().unwrap()),
            push_resolve: vec!["push.example=127.0.0.1:8443".parse().unwrap()],
            password_iterations: 1000,
            session_days: 2,
            auth_timeout_ms: 1000,
            idle_timeout_ms: 2500,
            heartbeat_timeout_ms: 3000,
            stall_timeout_ms: 4000,
            drain_timeout_ms: 250,
            shutdown_timeout_ms: 6000,
            max_connections: 7,
            max_unauthorized_per_address: 0,
            body_limit_bytes: 5000,
            content_limit_bytes: 100,
            outbound_limit_bytes: 70_000,
            memory_limit_bytes: 9_000_000,
            sends_per_second: 9,
            user_bytes_per_day: 1_000_000,
            file_limit_bytes: 10,
            user_files_limit_bytes: 11,
            files_limit_bytes: 12,
            disk_reserve_bytes: 13,
            accept_future_time: true,
            metrics_listen: Some(address("127.0.0.1:4").unwrap()),
            stats_socket: "/run/v.sock".into(),
            web: false,
            web_origin: ["https://a.example", "http://localhost:8080"]
                .map(|origin| origin.parse().unwrap())
                .into(),
            trusted_proxy: ["127.0.0.1", "10.0.0.0/8"]
                .map(|network| network.parse().unwrap())
                .into(),
            public_url: Some("https://chat.example.org".parse().unwrap()),
        };
        assert_eq!(config, Ok(expected));
    }

    #[test]
    fn a_higher_layer_wins_where_it_speaks() {
        let high = Options::parse("auth-timeout = 5\nlisten = '127.0.0.1:1'").unwrap();
        let low = Options::parse("auth-timeout = 6\nidle-timeout = 7\nlisten = '127.0.0.1:2'");
        let config = Config::new(high.or(low.unwrap())).unwrap();
        assert_eq!(config.auth_timeout_ms, 5000);
        assert_eq!(config.idle_timeout_ms, 7000);
        assert_eq!(config.listen, [address("127.0.0.1:1").unwrap()]);
    }

    #[test]
    fn plain_tcp_stays_at_home_unless_allowed() {
        for public in ["0.0.0.0:1", "[::]:1", "192.168.1.2:1", "[::ffff:10.0.0.1]:1"] {
            refused(&format!("listen = '{public}'"), "allow-plaintext");
            refused(&format!("metrics-listen = '{public}'"), "allow-plaintext");
            config(&format!("listen = '{public}'\nallow-plaintext = true")).expect(public);
            let tls = format!("tls-listen = '{public}'\ntls-cert = 'c'\ntls-key = 'k'");
            config(&tls).expect(public);
        }
        for loopback in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            config(&format!("listen = '{loopback}'")).expect(loopback);
        }
    }

    #[test]
    fn tls_is_whole_or_absent() {
        refused("tls-listen = '127.0.0.1:1'", "tls-cert");
        refused("tls-listen = '127.0.0.1:1'\ntls-key = 'k'", "tls-cert");
        refused("tls-listen = '127.0.0.1:1'\ntls-cert = 'c'", "tls-key");
        refused("tls-cert = 'c'\ntls-key = 'k'", "tls-listen");
        let config = config("tls-listen = '127.0.0.1:1'\ntls-cert = 'c'\ntls-key = 'k'").unwrap();
        assert!(config.listen.is_empty(), "with a TLS listener alone there is no plain TCP");
    }

    #[test]
    fn a_domain_is_the_whole_of_tls() {
        let alone = config("domain = 'chat.example.org'").unwrap();
        assert!(alone.listen.is_empty());
        assert_eq!(alone.public_url.as_ref().unwrap().as_str(), "https://chat.example.org");
        let tls = alone.tls.unwrap();
        let addresses: Vec<_> = tls.listen.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["0.0.0.0:443", "[::]:443"]);
        let CertificateSource::Acme(acme) = tls.certificate else { panic!("no ACME") };
        assert_eq!(acme.domains, ["chat.example.org"]);
        assert_eq!(acme.directory, acme::LETS_ENCRYPT);
        let whole = config(
            "domain = ['Chat.Example.org', 'www.example.org']\ntls-listen = '127.0.0.1:1'\n\
             acme-directory = 'staging'\nacme-contact = 'a@b.c'\nacme-ca = 'ca.pem'\n\
             listen = '127.0.0.1:2'\npublic-url = 'https://www.example.org'",
        )
        .unwrap();
        assert_eq!(whole.listen.len(), 1);
        assert_eq!(whole.public_url.unwrap().as_str(), "https://www.example.org");
        let expected = Acme {
            domains: vec!["chat.example.org".to_owned(), "www.example.org".to_owned()],
            directory: acme::LETS_ENCRYPT_STAGING.to_owned(),
            contact: Some("a@b.c".to_owned()),
            ca: Some("ca.pem".into()),
        };
        let tls = Tls {
            listen: vec![address("127.0.0.1:1").unwrap()],
            certificate: CertificateSource::Acme(expected),
        };
        assert_eq!(whole.tls, Some(tls));
        refused("acme-directory = 'staging'", "acme-directory has no effect without domain");
        refused("acme-contact = 'a@b.c'", "acme-contact has no effect without domain");
        refused("domain = 'a.b'\ntls-cert = 'c'\ntls-key = 'k'", "tls-cert contradicts domain");
        refused("domain = 'a.b, A.b'", "twice");
        refused("domain = []", "1 to 10");
        refused("domain = 'localhost'", "localhost");
        refused("domain = 'a.b'\nacme-directory = 'http://a'", "http://a");
        refused("domain = 'a.b'\nacme-contact = 'a'", "address of mail");
    }

    #[test]
    fn an_address_is_named_once() {
        refused("listen = '127.0.0.1:1,127.0.0.1:1'", "twice");
        refused("listen = '127.0.0.1:1'\nmetrics-listen = '127.0.0.1:1'", "twice");
        config("listen = '127.0.0.1:0,127.0.0.1:0'").expect("two free ports");
        refused("listen = []", "nothing to listen on");
    }

    #[test]
    fn values_have_bounds() {
        refused("password-iterations = 0", "password-iterations");
        refused("password-iterations = 10000001", "password-iterations");
        refused("session-days = 0", "session-days");
        refused("max-connections = 0", "max-connections");
        refused("auth-timeout = 0", "auth-timeout must be 0.1 to 86400 seconds, not 0");
        refused("idle-timeout = 86401", "idle-timeout");
        refused("stall-timeout = -1", "line 1");
        refused("stall-timeout = nan", "line 1");
        refused("body-limit = 100", "body-limit");
        refused("content-limit = 0", "content-limit");
        refused("content-limit = 65536", "body-limit must be at least 65600");
        refused("content-limit = 60000\noutbound-limit = 65536", "outbound-limit");
        refused("outbound-limit = 100", "outbound-limit");
    }

    #[test]
    fn all_problems_of_the_options_are_found() {
        let toml = "session-days = 0\nmax-connections = 0\ncontent-limit = 65536\n\
                    tls-listen = '0.0.0.0:1'\ntls-key = 'k'\nlisten = '10.0.0.1:1'";
        let problems = Config::check(Options::parse(toml).unwrap()).unwrap_err();
        let options: Vec<_> = problems
            .iter()
            .map(|problem| problem.to_string().split(' ').next().unwrap().to_owned())
            .collect();
        let expected = ["tls-listen", "session-days", "max-connections", "body-limit"];
        assert_eq!(options[..4], expected, "{problems:?}");
        assert!(Config::check(Options::default()).is_ok());
    }

    #[test]
    fn what_is_no_option_is_named_with_its_line() {
        refused("\nlissen = '127.0.0.1:1'", "line 2: lissen is not an option");
        refused("listen = ['127.0.0.1']", "127.0.0.1");
        refused("listen = 7", "an address");
        refused("registration = 'perhaps'", "perhaps");
        refused("data = [", "line 1");
        refused("max-connections = -1", "line 1");
        refused("web = 'perhaps'", "perhaps");
        refused("web-origin = 'chat.example.org'", "https://chat.example.org");
        refused("trusted-proxy = ['10.0.0.0/33']", "10.0.0.0/33");
        refused("public-url = 'https://chat.example.org/chat'", "not the address of a site");
    }
}
