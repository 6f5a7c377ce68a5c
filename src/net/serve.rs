//! Startup from a configuration, running, and graceful shutdown.

use std::fmt;
use std::io::Write as _;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use ring::rand::SystemRandom;

use crate::config::{CertificateSource, Checkpoints, Config};
use crate::logging::Logging;
use crate::net::clock::Clock;
use crate::net::first_run;
use crate::net::keeper::CertificateKeeper;
use crate::net::listener::{Listener, Port};
use crate::net::reactor::Reactor;
use crate::net::stats_socket::StatsSocket;
use crate::service::{DAY_US, Service, ServiceConfig};
use crate::store::{Database, Fault, Store};

/// The reason why the server did not start, or had to stop.
#[derive(Debug)]
pub enum ServeError {
    /// It could not start or continue. One line: what is wrong, and what to do.
    Failed(String),
    /// Nobody can know what is on the disk; the next start recovers.
    StorageLost(String),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(words) | Self::StorageLost(words) => f.write_str(words),
        }
    }
}

impl std::error::Error for ServeError {}

impl From<String> for ServeError {
    fn from(words: String) -> Self {
        Self::Failed(words)
    }
}

/// Serves until a signal. Prints a line per listener on standard output once connections are
/// accepted.
///
/// # Errors
/// [`ServeError`].
pub fn serve(config: &Config, logging: &Logging) -> Result<(), ServeError> {
    let certificate = CertificateKeeper::load(config)?;
    let mut database = match config.checkpoints {
        Checkpoints::Own => Database::open_server(&config.data)?,
        Checkpoints::External => Database::open_replicated_server(&config.data)?,
    };
    warn_of_readers(&config.data);
    database.start_copying()?;
    let mut store = Store::new(&database).map_err(|e| format!("{}: {e}", config.data.display()))?;
    let random = SystemRandom::new();
    let first_invite = first_run::first_invite(&mut store, &random, Clock::start().wall_us());
    let service = Service::new(store, service_config(config), &random)?;
    check_time(config, &service)?;
    let listeners = listeners(config)?;
    let first_line = match first_invite {
        Ok(code) => code.map(|code| first_run::describe(&code, config, &listeners)),
        Err(error) => {
            log::warn!("cannot create the link for the first user: {error}");
            None
        }
    };
    let stats_socket = StatsSocket::open(&config.stats_socket);
    let lines = lines(&listeners)?;
    let mut reactor =
        Reactor::new(config, logging.clone(), service, listeners, stats_socket, certificate)
            .map_err(|e| format!("cannot set up the event loop: {e}"))?;
    announce(&lines, first_line.as_deref());
    let ended = reactor.run();
    let mut service = reactor.into_service();
    let ended = ended.and_then(|()| finish(&mut service));
    drop(service);
    if matches!(ended, Err(ServeError::StorageLost(_))) {
        database.abandon();
        return ended;
    }
    if let Err(error) = database.stop_copying() {
        database.abandon();
        return Err(ServeError::StorageLost(error.to_string()));
    }
    ended
}

/// Completes the graceful shutdown. An error is not fatal if the next start can redo the work.
fn finish(service: &mut Service<'_>) -> Result<(), ServeError> {
    match service.finish() {
        Err(error) if error.fault == Fault::Lost => Err(ServeError::StorageLost(error.to_string())),
        Err(error) => {
            log::warn!("the data file was not tidied up, which the next start does: {error}");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Warns if others may read the database. It was created for its owner only, so its mode may have
/// been changed by mistake.
fn warn_of_readers(data: &Path) {
    let mode = std::fs::metadata(data).map_or(0, |file| file.permissions().mode() & 0o777);
    if mode & 0o077 != 0 {
        let data = data.display();
        log::warn!("{data} can be read by others on this machine (mode {mode:03o}); chmod 600 it");
    }
}

fn service_config(config: &Config) -> ServiceConfig {
    ServiceConfig {
        body_bytes_max: config.body_limit_bytes,
        content_bytes_max: config.content_limit_bytes,
        outbound_bytes_max: config.outbound_limit_bytes,
        memory_bytes_max: config.memory_limit_bytes,
        session_lifetime_us: i64::from(config.session_days) * DAY_US,
        password_rounds: config.password_iterations,
        registration: config.registration,
        invites_by: config.invites_by,
        user_list: config.user_list,
        push: config.push,
        push_hosts: config.push_hosts.clone(),
        push_content: config.push_content,
        push_site: config.public_url.as_ref().map(ToString::to_string),
        sends_per_second: config.sends_per_second,
        user_bytes_per_day: config.user_bytes_per_day,
        file_bytes_max: config.file_limit_bytes,
        user_files_bytes_max: config.user_files_limit_bytes,
        files_bytes_max: config.files_limit_bytes,
        disk_reserve_bytes: config.disk_reserve_bytes,
    }
}

/// Rejects a database with times in the future, since all new messages would get such times, too.
fn check_time(config: &Config, service: &Service<'_>) -> Result<(), String> {
    let ahead_us = service.last_time().micros() - Clock::start().wall_us();
    if ahead_us <= DAY_US || config.accept_future_time {
        return Ok(());
    }
    Err(format!(
        "{}: holds times {} hours ahead of this machine's clock; set the clock, or start with \
         --accept-future-time",
        config.data.display(),
        ahead_us / (DAY_US / 24)
    ))
}

fn listeners(config: &Config) -> Result<Vec<Listener>, String> {
    let tls: &[SocketAddr] = config.tls.as_ref().map_or(&[], |tls| &tls.listen);
    let plain = config.listen.iter().map(|address| (*address, Port::Plain));
    let metrics = config.metrics_listen.iter().map(|address| (*address, Port::Metrics));
    let all = plain.chain(tls.iter().map(|address| (*address, Port::Tls))).chain(metrics);
    let mut listeners = Vec::new();
    for (address, port) in all {
        match Listener::bind(address, port) {
            Ok(listener) => listeners.push(listener),
            Err(error) if is_dispensable(config, address, &error) => {
                log::info!("this machine has no IPv6: nothing listens on {address}");
            }
            Err(error) => return Err(cannot_listen(address, &error)),
        }
    }
    Ok(listeners)
}

/// Whether the server does as well without a listener: that for IPv6, which no option has named,
/// on a machine without it.
fn is_dispensable(config: &Config, address: SocketAddr, error: &std::io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    let is_absent = error.kind() == std::io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(EAFNOSUPPORT);
    let source = config.tls.as_ref().map(|tls| &tls.certificate);
    let is_default = matches!(source, Some(CertificateSource::Acme(_)))
        && address == SocketAddr::from((Ipv6Addr::UNSPECIFIED, 443));
    is_absent && is_default
}

/// The error message for an address that cannot be listened on: why, and what to do.
pub(super) fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> String {
    use std::io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
    let why = match error.kind() {
        AddrInUse => "another program listens there; stop it, or choose another port".to_owned(),
        AddrNotAvailable => "this machine does not have that address".to_owned(),
        PermissionDenied => "permission denied; ports below 1024 need a privilege".to_owned(),
        _ => error.to_string(),
    };
    format!("cannot listen on {address}: {why}")
}

fn lines(listeners: &[Listener]) -> Result<String, String> {
    let mut lines = String::new();
    for listener in listeners {
        let address = listener.socket.local_addr().map_err(|e| e.to_string())?;
        let port = match listener.port {
            Port::Plain => "plain",
            Port::Tls => "tls",
            Port::Metrics => "metrics",
        };
        lines.push_str(&format!("listening {port} {address}\n"));
    }
    Ok(lines)
}

fn announce(lines: &str, first_line: Option<&str>) {
    if let Some(line) = first_line {
        // Not to the log: it contains a secret.
        let _ = writeln!(std::io::stderr(), "{line}");
    }
    let mut out = std::io::stdout();
    if out.write_all(lines.as_bytes()).and_then(|()| out.flush()).is_err() {
        // The program that started the server does not read its output; clients can connect anyway.
        log::warn!("standard output is closed");
    }
    log::info!("{}", lines.trim_end().replace('\n', ", "));
}
