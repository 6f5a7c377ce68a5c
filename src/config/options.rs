//! The options of `serve`, one row each: key, flag, environment variable, default, bounds and help
//! come from it.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command, FromArgMatches};

use super::acme::{AcmeContact, AcmeDirectory, Domain};
use super::push::{PushContact, PushHost, PushResolve};
use super::value::{Checkpoints, InvitesBy, PushContent, Registration, UserList};
use super::value::{Number, OnOff, OptionValue, Seconds};
use super::web::{Network, WebOrigin};
use super::{ConfigError, DATA, wrong};
use crate::limits;

/// From where every request but SEND_CHAT_MSG and EDIT_MSG fits at its longest, to what one
/// connection may make the server hold of an unfinished frame.
const BODY_LIMIT_BYTES: RangeInclusive<usize> = BODY_LIMIT_BYTES_MIN..=1024 * 1024;
pub(super) const BODY_LIMIT_BYTES_MIN: usize = 2 * 1024;
/// What `--content-limit` may be set to.
const CONTENT_LIMIT_BYTES: RangeInclusive<usize> = 1..=CONTENT_LIMIT_BYTES_MAX;
/// The longest content that any server can be set to accept.
pub const CONTENT_LIMIT_BYTES_MAX: usize = 1024 * 1024;
const MEMORY_LIMIT_BYTES: RangeInclusive<usize> = 1024 * 1024..=usize::MAX;
const OUTBOUND_LIMIT_BYTES: RangeInclusive<usize> = limits::PIECE_BYTES_MAX..=1024 * 1024 * 1024;
const CONNECTIONS: RangeInclusive<usize> = 1..=10_000_000;
const SESSION_DAYS: RangeInclusive<u32> = 1..=36_500;
const SENDS_PER_SECOND: RangeInclusive<u32> = 0..=1_000_000;
/// No file and no sum of files is longer than a disk.
const FILES_BYTES: RangeInclusive<u64> = 0..=1 << 50;
const ITERATIONS: RangeInclusive<u32> = 1..=limits::PASSWORD_ITERATIONS_MAX;
/// Shortest and longest time that a time-out may have.
const TIMEOUT: RangeInclusive<Seconds> = Seconds::from_ms(100)..=Seconds::from_s(24 * 60 * 60);

const _: () = {
    assert!(limits::HEARTBEAT_BYTES_MAX <= BODY_LIMIT_BYTES_MIN);
    assert!(limits::NAME_CHARS_MAX * 4 + 2 * limits::PASSWORD_BYTES_MAX <= BODY_LIMIT_BYTES_MIN);
    assert!(limits::TITLE_CHARS_MAX * 4 <= BODY_LIMIT_BYTES_MIN);
};

/// Makes the options of rows, which stand under the headings of the help text: `NAME: TYPE = VALUE`
/// is the field `NAME`, the key and the flag with `-` for `_`, and the variable `VESTNIK_NAME`; the
/// help shows VALUE for what follows the flag. A number has its default and its bounds, too.
macro_rules! options {
    ($($heading:literal {$(
        $(#[doc = $help:literal])+
        $name:ident: $type:ty = $value:literal $(, $default:expr, $bounds:expr)?;
    )+})+) => {
        /// One layer of options, each set or not. In the place of a list that is set, the lower
        /// layers' do not count.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[allow(rustdoc::bare_urls, reason = "the help text, which is not Markdown")]
        pub struct Options {$($(
            $(#[doc = $help])+
            pub $name: Option<$type>,
        )+)+}

        impl Options {
            /// This layer above another: where it sets nothing, the lower one counts.
            #[must_use]
            pub fn or(self, lower: Self) -> Self {
                Self { $($($name: self.$name.or(lower.$name),)+)+ }
            }

            /// The keys of the TOML file.
            pub fn keys() -> impl Iterator<Item = String> {
                [$($(stringify!($name),)+)+].into_iter().map(key_of)
            }

            /// The arguments of the command line, in the order of the help text.
            fn arguments() -> impl Iterator<Item = Arg> {
                [$($({
                    let argument = Arg::new(stringify!($name)).value_name($value);
                    let defaults: &[String] = &[$(($default).to_string())?];
                    let argument = argument.help(help(&[$($help),+], defaults.first()));
                    <$type as OptionValue>::argument(argument.help_heading($heading))
                },)+)+].into_iter().map(with_names)
            }

            /// The options that arguments set. The command may have only some of them.
            fn from_matches(found: &ArgMatches) -> Self {
                Self { $($($name: OptionValue::from_matches(found, stringify!($name)),)+)+ }
            }

            /// Sets an option, by its key, as the file does.
            ///
            /// # Errors
            /// What is wrong with the value: the end of a sentence that begins with the key.
            pub(super) fn set(&mut self, key: &str, value: &toml::Value) -> Result<(), String> {
                match key.replace('-', "_").as_str() {
                    $($(stringify!($name) => self.$name = Some(OptionValue::from_toml(value)?),)+)+
                    _ => return Err(" is not an option".to_owned()),
                }
                Ok(())
            }

            /// Takes an option out, by its key; false when it was not set.
            pub(super) fn unset(&mut self, key: &str) -> bool {
                match key.replace('-', "_").as_str() {
                    $($(stringify!($name) => self.$name.take().is_some(),)+)+
                    _ => false,
                }
            }

            $($($(
                /// The number that is set, or the default.
                ///
                /// # Errors
                /// When it is out of bounds.
                pub fn $name(&self) -> Result<$type, ConfigError> {
                    within(stringify!($name), self.$name.unwrap_or($default), $bounds)
                }
            )?)+)+
        }
    };
}

options! {
    "Everywhere" {
        /// The data file
        data: PathBuf = "FILE";
    }
    "Connections" {
        /// Accept unencrypted connections here; port 0 picks a free one; may be repeated
        /// [default: 127.0.0.1:7420]
        listen: Vec<SocketAddr> = "ADDR:PORT";
        /// Accept unencrypted connections on addresses other than loopback, too; passwords then
        /// cross the network in the clear
        allow_plaintext: bool = "BOOL";
        /// Accept TLS connections here; may be repeated; turns plain TCP off unless --listen is set
        tls_listen: Vec<SocketAddr> = "ADDR:PORT";
        /// The certificate and its chain
        tls_cert: PathBuf = "PEM";
        /// The certificate's private key
        tls_key: PathBuf = "PEM";
        /// Get a certificate for this domain name by ACME, and renew it; listens on port 443 unless
        /// --tls-listen is set; may be repeated. This accepts the authority's terms of service
        domain: Vec<Domain> = "NAME";
        /// The ACME directory to get it from, or `staging` for that of Let's Encrypt
        /// [default: Let's Encrypt]
        acme_directory: AcmeDirectory = "URL";
        /// Your mail address, for messages of the ACME authority
        acme_contact: AcmeContact = "MAIL";
        /// Root certificates to trust for the ACME directory's site [default: the system's]
        acme_ca: PathBuf = "PEM";
    }
    "Web" {
        /// Serve the browser client, WebSocket and hooks on the same ports [default: on]
        web: OnOff = "on|off";
        /// Another origin whose pages may open a WebSocket; may be repeated
        web_origin: Vec<WebOrigin> = "URL";
        /// Trust X-Forwarded-For of this proxy or network; may be repeated [default: none]
        trusted_proxy: Vec<Network> = "ADDR[/BITS]";
        /// The URL that links begin with, such as https://chat.example.org
        public_url: WebOrigin = "URL";
    }
    "People" {
        /// Who may register over the network: nobody, anyone with an invite, or everybody
        /// [default: closed]
        registration: Registration = "WHO";
        /// Who may make invites that register: operators, or admins of a chat as well
        /// [default: operators]
        invites_by: InvitesBy = "WHO";
        /// Who may look for users by name [default: all]
        user_list: UserList = "WHO";
        /// Let clients subscribe to pushes: on or off [default: off]
        push: OnOff = "on|off";
        /// Hosts of push services that may be used; `.HOST` includes all its subdomains
        /// [default: those of the browsers]
        push_hosts: Vec<PushHost> = "HOST";
        /// Content of a push: author and text of the message, or neither [default: full]
        push_content: PushContent = "WHAT";
        /// Contact for push services: a mail address or a URL [default: --public-url]
        push_contact: PushContact = "MAIL-OR-URL";
        /// Connect to this address for a host of --push-hosts instead of resolving it, for a push
        /// service in your own network; may be repeated
        push_resolve: Vec<PushResolve> = "HOST=ADDR:PORT";
        /// PBKDF2 iterations for new passwords; each stored hash keeps its own
        password_iterations: u32 = "N", limits::PASSWORD_ITERATIONS, ITERATIONS;
        /// Days after which an unused session ends
        session_days: u32 = "N", limits::SESSION_DAYS, SESSION_DAYS;
        /// Messages and edits of one user per second; 0: no limit
        sends_per_second: u32 = "N", 0, SENDS_PER_SECOND;
        /// Bytes of text that one user may send and edit per day (UTC); 0: no limit
        user_bytes_per_day: u64 = "BYTES", limits::USER_TEXT_BYTES_PER_DAY, 0..=u64::MAX;
    }
    "Time-outs, in seconds" {
        /// To log in, counted from the start of a connection
        auth_timeout: Seconds = "SECONDS", Seconds::from_s(limits::AUTH_TIMEOUT_S), TIMEOUT;
        /// Without input from a client, after which the server sends HEARTBEAT
        idle_timeout: Seconds = "SECONDS", Seconds::from_s(limits::IDLE_TIMEOUT_S), TIMEOUT;
        /// For the client to answer that HEARTBEAT
        heartbeat_timeout: Seconds =
            "SECONDS", Seconds::from_s(limits::HEARTBEAT_TIMEOUT_S), TIMEOUT;
        /// Without progress of a client that has bytes to read
        stall_timeout: Seconds = "SECONDS", Seconds::from_s(limits::STALL_TIMEOUT_S), TIMEOUT;
        /// To wait for a client's end of the connection after the server has ended it
        drain_timeout: Seconds = "SECONDS", Seconds::from_ms(limits::DRAIN_TIMEOUT_MS), TIMEOUT;
        /// To deliver what is queued when the server stops
        shutdown_timeout: Seconds = "SECONDS", Seconds::from_s(limits::SHUTDOWN_TIMEOUT_S), TIMEOUT;
    }
    "Limits" {
        /// Connections at the same time; the limit of open files may allow fewer
        max_connections: usize = "N", limits::CONNECTIONS_MAX, CONNECTIONS;
        /// Connections of one address that are not logged in; 0: no limit
        max_unauthorized_per_address: usize =
            "N", limits::UNAUTHORIZED_PER_ADDRESS_MAX, 0..=usize::MAX;
        /// Longest body of a frame from a client
        body_limit: usize = "BYTES", limits::BODY_BYTES_MAX, BODY_LIMIT_BYTES;
        /// Longest content of a message
        content_limit: usize = "BYTES", limits::CONTENT_BYTES_MAX, CONTENT_LIMIT_BYTES;
        /// Outbound buffer of a client; beyond, notifications are sent later, from the database
        outbound_limit: usize = "BYTES", limits::OUTBOUND_BYTES_MAX, OUTBOUND_LIMIT_BYTES;
        /// Buffers of all clients; beyond, those that hold the most are limited first
        memory_limit: usize = "BYTES", limits::MEMORY_BYTES_MAX, MEMORY_LIMIT_BYTES;
        /// Largest file, in bytes; 0: no files
        file_limit: u64 = "BYTES", limits::FILE_BYTES_MAX, FILES_BYTES;
        /// Quota of one user's files
        user_files_limit: u64 = "BYTES", limits::USER_FILES_BYTES_MAX, FILES_BYTES;
        /// Quota of all files
        files_limit: u64 = "BYTES", limits::FILES_BYTES_MAX, FILES_BYTES;
        /// Free disk space below which no file is accepted
        disk_reserve: u64 = "BYTES", limits::DISK_RESERVE_BYTES, FILES_BYTES;
    }
    "Operation" {
        /// Serve metrics to Prometheus here, as http://ADDR:PORT/metrics [default: nowhere]
        metrics_listen: SocketAddr = "ADDR:PORT";
        /// Serve metrics to `vestnik stats` on this Unix socket
        /// [default: the data file's name and .sock]
        stats_socket: PathBuf = "FILE";
        /// Which program checkpoints the WAL: this one, or another one such as Litestream
        /// [default: own]
        checkpoints: Checkpoints = "own|external";
        /// Start although the database holds times more than a day ahead of the clock
        accept_future_time: bool = "BOOL";
    }
}

impl Options {
    /// The Unix socket for metrics: the one that is set, or the one next to the data file.
    pub fn stats_socket(&self) -> PathBuf {
        let data = self.data.as_deref().unwrap_or(Path::new(DATA));
        self.stats_socket.clone().unwrap_or_else(|| sibling_path(data, ".sock"))
    }
}

/// The environment variable of an option, by its key.
pub fn variable_of(key: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", key.to_uppercase().replace('-', "_"))
}

/// What every variable of ours begins with.
pub const VARIABLE_PREFIX: &str = "VESTNIK_";

fn key_of(field: &str) -> String {
    field.replace('_', "-")
}

/// The flag and the variable of an argument that is named as a field.
fn with_names(argument: Arg) -> Arg {
    let key = key_of(argument.get_id().as_str());
    let variable = variable_of(&key);
    argument.long(key).env(variable).hide_env(true)
}

/// The lines of a doc comment as one, with the default behind them.
fn help(lines: &[&str], default: Option<&String>) -> String {
    let lines = lines.iter().map(|line| line.trim().to_owned());
    let default = default.map(|default| format!("[default: {default}]"));
    lines.chain(default).collect::<Vec<_>>().join(" ")
}

fn within<T: Number>(field: &str, number: T, bounds: RangeInclusive<T>) -> Result<T, ConfigError> {
    if bounds.contains(&number) {
        return Ok(number);
    }
    let (least, most, unit) = (bounds.start(), bounds.end(), T::UNIT);
    wrong(format!("{} must be {least} to {most}{unit}, not {number}", key_of(field)))
}

/// A file's name with an ending added to the whole of it.
fn sibling_path(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// As arguments of `serve`: all but the data file, which every command has.
impl clap::Args for Options {
    fn augment_args(command: Command) -> Command {
        command.args(Self::arguments().filter(|argument| argument.get_id() != "data"))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Options {
    fn from_arg_matches(found: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self::from_matches(found))
    }

    fn update_from_arg_matches(&mut self, found: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_matches(found).or(std::mem::take(self));
        Ok(())
    }
}

/// The options that say where pushes go, as arguments of a command of its own.
#[derive(Clone, Debug)]
pub struct PushOptions(pub Options);

impl clap::Args for PushOptions {
    fn augment_args(command: Command) -> Command {
        let fields = ["push_hosts", "push_resolve", "push_contact", "public_url"];
        let is_ours = |argument: &Arg| fields.contains(&argument.get_id().as_str());
        command
            .args(Options::arguments().filter(is_ours).map(|argument| argument.help_heading(None)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for PushOptions {
    fn from_arg_matches(found: &ArgMatches) -> Result<Self, clap::Error> {
        Options::from_arg_matches(found).map(Self)
    }

    fn update_from_arg_matches(&mut self, found: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_makes_flag_variable_default_and_help() {
        let arguments: Vec<Arg> = Options::arguments().collect();
        let row = arguments.iter().find(|argument| argument.get_id() == "idle_timeout").unwrap();
        assert_eq!(row.get_long(), Some("idle-timeout"));
        assert_eq!(row.get_env().unwrap(), "VESTNIK_IDLE_TIMEOUT");
        let help = row.get_help().unwrap().to_string();
        assert!(help.ends_with("the server sends HEARTBEAT [default: 60]"), "{help}");
        assert_eq!(arguments.len(), Options::keys().count());
    }

    #[test]
    fn every_default_is_within_its_bounds() {
        let unset = Options::default();
        super::super::Config::new(unset).expect("the defaults are valid");
    }
}
