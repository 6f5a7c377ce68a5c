//! `vestnik serve`: the server, and every option that it has.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::{BoolishValueParser, PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, ArgMatches, FromArgMatches as _};
use vestnik::config::{
    Config, InvitesBy, Network, OnOff, Options, PushContact, PushContent, PushResolve,
    Registration, Seconds, UserList, WebOrigin, acme_contact, acme_directory, address, domain,
    push_host,
};
use vestnik::logging::Logging;
use vestnik::net::{self, ServeError};

use super::failure::Failure;
use super::{Context, Outcome, environment, file};

const EXAMPLES: &str = "\
Every option can also be given in the environment (VESTNIK_LISTEN=127.0.0.1:7420,[::1]:7420) and,
under its long name, in the TOML file of --config; the command line wins over the environment, and
the environment over the file.

Examples:
  vestnik serve
  vestnik serve --data /var/lib/vestnik/chat.db --listen 127.0.0.1:7420
  vestnik serve --domain chat.example.org
  vestnik serve --tls-listen 0.0.0.0:7421 --tls-cert fullchain.pem --tls-key privkey.pem

SIGTERM and SIGINT stop the server cleanly, SIGHUP reads the certificate again.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten, next_help_heading = "Connections")]
    listeners: Listeners,
    #[command(flatten, next_help_heading = "Web")]
    web: Web,
    #[command(flatten, next_help_heading = "People")]
    people: People,
    #[command(flatten, next_help_heading = "Time-outs, in seconds")]
    timeouts: Timeouts,
    #[command(flatten, next_help_heading = "Limits")]
    limits: Limits,
    #[command(flatten, next_help_heading = "Operation")]
    operation: Operation,
}

#[derive(clap::Args)]
struct Listeners {
    /// Accept unencrypted connections here; port 0 picks a free one; may be repeated
    /// [default: 127.0.0.1:7420]
    #[arg(long, value_name = "ADDR:PORT", value_delimiter = ',', value_parser = address, env = "VESTNIK_LISTEN", hide_env = true)]
    listen: Option<Vec<SocketAddr>>,

    /// Accept unencrypted connections on addresses that are not loopback, too: passwords cross the
    /// network in the clear
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, action = ArgAction::Set, value_parser = BoolishValueParser::new(), env = "VESTNIK_ALLOW_PLAINTEXT", hide_env = true)]
    allow_plaintext: Option<bool>,

    /// Accept TLS connections here; may be repeated; without --listen there is no plain TCP then
    #[arg(long, value_name = "ADDR:PORT", value_delimiter = ',', value_parser = address, env = "VESTNIK_TLS_LISTEN", hide_env = true)]
    tls_listen: Option<Vec<SocketAddr>>,

    /// The certificate and its chain
    #[arg(long, value_name = "PEM", env = "VESTNIK_TLS_CERT", hide_env = true)]
    tls_cert: Option<PathBuf>,

    /// The certificate's private key
    #[arg(long, value_name = "PEM", env = "VESTNIK_TLS_KEY", hide_env = true)]
    tls_key: Option<PathBuf>,

    /// Get a certificate for this name, and renew it: the server is reached at port 443 of the
    /// name, and listens there without --tls-listen; may be repeated. This agrees to the terms of
    /// the authority
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = domain, env = "VESTNIK_DOMAIN", hide_env = true)]
    domain: Option<Vec<String>>,

    /// The ACME authority that issues it, or `staging`, the rehearsal of Let's Encrypt
    /// [default: Let's Encrypt]
    #[arg(long, value_name = "URL", value_parser = acme_directory, env = "VESTNIK_ACME_DIRECTORY", hide_env = true)]
    acme_directory: Option<String>,

    /// Where that authority can reach you
    #[arg(long, value_name = "MAIL", value_parser = acme_contact, env = "VESTNIK_ACME_CONTACT", hide_env = true)]
    acme_contact: Option<String>,

    /// Who vouches for that authority [default: whom the system trusts]
    #[arg(long, value_name = "PEM", env = "VESTNIK_ACME_CA", hide_env = true)]
    acme_ca: Option<PathBuf>,
}

#[derive(clap::Args)]
struct Web {
    /// Serve the browser client, WebSocket and hooks on the same ports [default: on]
    #[arg(long, value_name = "on|off", value_parser = on_off(), env = "VESTNIK_WEB", hide_env = true, hide_possible_values = true)]
    web: Option<OnOff>,

    /// Let pages of another site open a WebSocket; may be repeated
    #[arg(
        long,
        value_name = "URL",
        value_delimiter = ',',
        env = "VESTNIK_WEB_ORIGIN",
        hide_env = true
    )]
    web_origin: Option<Vec<WebOrigin>>,

    /// Believe the X-Forwarded-For of this proxy; may be repeated [default: nobody's]
    #[arg(
        long,
        value_name = "ADDR[/BITS]",
        value_delimiter = ',',
        env = "VESTNIK_TRUSTED_PROXY",
        hide_env = true
    )]
    trusted_proxy: Option<Vec<Network>>,

    /// The site that links name, such as https://chat.example.org
    #[arg(long, value_name = "URL", env = "VESTNIK_PUBLIC_URL", hide_env = true)]
    public_url: Option<WebOrigin>,
}

#[derive(clap::Args)]
struct People {
    /// Who may register over the network: nobody, anyone with an invite, or everybody
    /// [default: closed]
    #[arg(long, value_name = "WHO", value_parser = registration(), env = "VESTNIK_REGISTRATION", hide_env = true)]
    registration: Option<Registration>,

    /// Who may make invites that register: operators, or admins of a chat as well
    /// [default: operators]
    #[arg(long, value_name = "WHO", value_parser = one_of::<InvitesBy>(&InvitesBy::NAMES), env = "VESTNIK_INVITES_BY", hide_env = true)]
    invites_by: Option<InvitesBy>,

    /// Who may look for users by name [default: all]
    #[arg(long, value_name = "WHO", value_parser = one_of::<UserList>(&UserList::NAMES), env = "VESTNIK_USER_LIST", hide_env = true)]
    user_list: Option<UserList>,

    /// Let clients subscribe to pushes: on or off [default: off]
    #[arg(long, value_name = "on|off", value_parser = on_off(), env = "VESTNIK_PUSH", hide_env = true, hide_possible_values = true)]
    push: Option<OnOff>,

    /// Hosts that pushes may go to; `.HOST` is all hosts below it
    /// [default: the services of the browsers]
    #[arg(long, value_name = "HOST", value_delimiter = ',', value_parser = push_host, env = "VESTNIK_PUSH_HOSTS", hide_env = true)]
    push_hosts: Option<Vec<String>>,

    /// What a push says: author and text of the message, or nothing of it [default: full]
    #[arg(long, value_name = "WHAT", value_parser = one_of::<PushContent>(&PushContent::NAMES), env = "VESTNIK_PUSH_CONTENT", hide_env = true)]
    push_content: Option<PushContent>,

    /// How push services reach you: an address of mail or of a site [default: --public-url]
    #[arg(long, value_name = "MAIL-OR-URL", env = "VESTNIK_PUSH_CONTACT", hide_env = true)]
    push_contact: Option<PushContact>,

    /// Connect to this address for a host of --push-hosts, instead of resolving its name: a push
    /// service in your own network; may be repeated
    #[arg(
        long,
        value_name = "HOST=ADDR:PORT",
        value_delimiter = ',',
        env = "VESTNIK_PUSH_RESOLVE",
        hide_env = true
    )]
    push_resolve: Option<Vec<PushResolve>>,

    /// PBKDF2 rounds for new passwords; each stored hash keeps its own [default: 600000]
    #[arg(long, value_name = "N", env = "VESTNIK_PASSWORD_ITERATIONS", hide_env = true)]
    password_iterations: Option<u32>,

    /// Days after which an unused session ends [default: 30]
    #[arg(long, value_name = "N", env = "VESTNIK_SESSION_DAYS", hide_env = true)]
    session_days: Option<u32>,

    /// Messages and edits of one user in a second; 0: any number [default: 0]
    #[arg(long, value_name = "N", env = "VESTNIK_SENDS_PER_SECOND", hide_env = true)]
    sends_per_second: Option<u32>,

    /// Bytes of text that one user may send and edit in a day of UTC; 0: any number
    /// [default: 268435456]
    #[arg(long, value_name = "BYTES", env = "VESTNIK_USER_BYTES_PER_DAY", hide_env = true)]
    user_bytes_per_day: Option<u64>,
}

#[derive(clap::Args)]
struct Timeouts {
    /// To log in, counted from the start of a connection [default: 30]
    #[arg(long, value_name = "SECONDS", env = "VESTNIK_AUTH_TIMEOUT", hide_env = true)]
    auth_timeout: Option<Seconds>,

    /// Without a byte from a client before the server sends HEARTBEAT [default: 60]
    #[arg(long, value_name = "SECONDS", env = "VESTNIK_IDLE_TIMEOUT", hide_env = true)]
    idle_timeout: Option<Seconds>,

    /// To answer that HEARTBEAT [default: 30]
    #[arg(long, value_name = "SECONDS", env = "VESTNIK_HEARTBEAT_TIMEOUT", hide_env = true)]
    heartbeat_timeout: Option<Seconds>,

    /// For which a client may read nothing while bytes wait for it [default: 300]
    #[arg(long, value_name = "SECONDS", env = "VESTNIK_STALL_TIMEOUT", hide_env = true)]
    stall_timeout: Option<Seconds>,

    /// For which the server reads on after it ended a connection, so that its last bytes arrive
    /// [default: 2]
    #[arg(long, value_name = "SECONDS", env = "VESTNIK_DRAIN_TIMEOUT", hide_env = true)]
    drain_timeout: Option<Seconds>,

    /// For clients to receive their last bytes when the server stops [default: 5]
    #[arg(long, value_name = "SECONDS", env = "VESTNIK_SHUTDOWN_TIMEOUT", hide_env = true)]
    shutdown_timeout: Option<Seconds>,
}

#[derive(clap::Args)]
struct Limits {
    /// Connections; the limit of open files may allow fewer [default: 50000]
    #[arg(long, value_name = "N", env = "VESTNIK_MAX_CONNECTIONS", hide_env = true)]
    max_connections: Option<usize>,

    /// Connections of one address that are not logged in; 0: any number [default: 64]
    #[arg(long, value_name = "N", env = "VESTNIK_MAX_UNAUTHORIZED_PER_ADDRESS", hide_env = true)]
    max_unauthorized_per_address: Option<usize>,

    /// Longest body of a frame from a client [default: 65536]
    #[arg(long, value_name = "BYTES", env = "VESTNIK_BODY_LIMIT", hide_env = true)]
    body_limit: Option<usize>,

    /// Longest content of a message [default: 16384]
    #[arg(long, value_name = "BYTES", env = "VESTNIK_CONTENT_LIMIT", hide_env = true)]
    content_limit: Option<usize>,

    /// Bytes that may wait for a slow consumer; beyond, notifications come later, from storage
    /// [default: 1048576]
    #[arg(long, value_name = "BYTES", env = "VESTNIK_OUTBOUND_LIMIT", hide_env = true)]
    outbound_limit: Option<usize>,

    /// Bytes that may wait for all clients together; beyond, all are slow consumers sooner
    /// [default: 268435456]
    #[arg(long, value_name = "BYTES", env = "VESTNIK_MEMORY_LIMIT", hide_env = true)]
    memory_limit: Option<usize>,

    /// Largest file, in bytes; 0: no files [default: 26214400]
    #[arg(long, value_name = "BYTES", env = "VESTNIK_FILE_LIMIT", hide_env = true)]
    file_limit: Option<u64>,

    /// Most bytes of the files of one user [default: 1073741824]
    #[arg(long, value_name = "BYTES", env = "VESTNIK_USER_FILES_LIMIT", hide_env = true)]
    user_files_limit: Option<u64>,

    /// Most bytes of all files [default: 8589934592]
    #[arg(long, value_name = "BYTES", env = "VESTNIK_FILES_LIMIT", hide_env = true)]
    files_limit: Option<u64>,

    /// Bytes that files leave free on the disk [default: 268435456]
    #[arg(long, value_name = "BYTES", env = "VESTNIK_DISK_RESERVE", hide_env = true)]
    disk_reserve: Option<u64>,
}

#[derive(clap::Args)]
struct Operation {
    /// Serve metrics to Prometheus here, as http://ADDR:PORT/metrics [default: nowhere]
    #[arg(long, value_name = "ADDR:PORT", value_parser = address, env = "VESTNIK_METRICS_LISTEN", hide_env = true)]
    metrics_listen: Option<SocketAddr>,

    /// Serve metrics to `vestnik stats` on this Unix socket
    /// [default: the data file's name and .sock]
    #[arg(long, value_name = "FILE", env = "VESTNIK_STATS_SOCKET", hide_env = true)]
    stats_socket: Option<PathBuf>,

    /// Start although the database holds times more than a day ahead of the clock
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, action = ArgAction::Set, value_parser = BoolishValueParser::new(), env = "VESTNIK_ACCEPT_FUTURE_TIME", hide_env = true)]
    accept_future_time: Option<bool>,
}

fn registration() -> impl TypedValueParser<Value = Registration> {
    one_of(&Registration::NAMES)
}

/// Parses `on` or `off`.
pub(super) fn on_off() -> impl TypedValueParser<Value = OnOff> {
    one_of(&OnOff::NAMES)
}

/// Parses one of the names of a type.
fn one_of<T>(names: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err = String> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(names).try_map(|name| name.parse::<T>())
}

impl Arguments {
    fn into_options(self) -> Options {
        let Self { listeners, web, people, timeouts, limits, operation } = self;
        Options {
            data: None,
            listen: listeners.listen,
            allow_plaintext: listeners.allow_plaintext,
            tls_listen: listeners.tls_listen,
            tls_cert: listeners.tls_cert,
            tls_key: listeners.tls_key,
            domain: listeners.domain,
            acme_directory: listeners.acme_directory,
            acme_contact: listeners.acme_contact,
            acme_ca: listeners.acme_ca,
            web: web.web,
            web_origin: web.web_origin,
            trusted_proxy: web.trusted_proxy,
            public_url: web.public_url,
            registration: people.registration,
            invites_by: people.invites_by,
            user_list: people.user_list,
            push: people.push,
            push_hosts: people.push_hosts,
            push_content: people.push_content,
            push_contact: people.push_contact,
            push_resolve: people.push_resolve,
            password_iterations: people.password_iterations,
            session_days: people.session_days,
            sends_per_second: people.sends_per_second,
            user_bytes_per_day: people.user_bytes_per_day,
            auth_timeout: timeouts.auth_timeout,
            idle_timeout: timeouts.idle_timeout,
            heartbeat_timeout: timeouts.heartbeat_timeout,
            stall_timeout: timeouts.stall_timeout,
            drain_timeout: timeouts.drain_timeout,
            shutdown_timeout: timeouts.shutdown_timeout,
            max_connections: limits.max_connections,
            max_unauthorized_per_address: limits.max_unauthorized_per_address,
            body_limit: limits.body_limit,
            content_limit: limits.content_limit,
            outbound_limit: limits.outbound_limit,
            memory_limit: limits.memory_limit,
            file_limit: limits.file_limit,
            user_files_limit: limits.user_files_limit,
            files_limit: limits.files_limit,
            disk_reserve: limits.disk_reserve,
            metrics_listen: operation.metrics_listen,
            stats_socket: operation.stats_socket,
            accept_future_time: operation.accept_future_time,
        }
    }
}

/// The options that arguments of `serve` set.
pub(super) fn options_from(found: &ArgMatches) -> Options {
    Arguments::from_arg_matches(found).map(Arguments::into_options).unwrap_or_default()
}

pub(super) fn run(arguments: Arguments, context: &mut Context<'_>) -> Outcome {
    let config = Config::new(arguments.into_options().or(context.options.clone()))?;
    file::check_folder(&config.data)?;
    let logging = Logging::start().map_err(|e| Failure::Failed(format!("cannot log: {e}")))?;
    for line in environment::unknown_variables() {
        log::warn!("{line}");
    }
    let served = net::serve(&config, &logging);
    logging.finish();
    served.map_err(|error| match error {
        ServeError::Failed(words) => Failure::Failed(words),
        ServeError::StorageLost(words) => Failure::StorageLost(words),
    })
}
