//! `vestnik config check`: reports every problem of the options at once.

use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use clap::builder::Resettable;
use clap::{FromArgMatches as _, Subcommand};
use vestnik::acme::{Storage, covered_by, schedule};
use vestnik::certificate::read_certificates;
use vestnik::config::{Acme, CertificateSource, Config, ConfigError, Options};
use vestnik::net::tls::Identity;

use super::failure::Failure;
use super::{Context, Outcome, environment, file, output, tree, usage};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Check the options of `serve` in the environment and in the file of --config
    Check,
}

/// `of_file` is what is wrong with the file of options.
pub(super) fn run(
    command: &Command,
    of_file: &[ConfigError],
    context: &mut Context<'_>,
) -> Outcome {
    let Command::Check = command;
    let mut problems: Vec<_> = of_file.iter().map(ToString::to_string).collect();
    problems.extend(environment::unknown_variables());
    let options = environment_options(&mut problems).or(context.options.clone());
    match Config::check(options) {
        Ok(config) => problems.extend(file_problems(&config)),
        Err(found) => problems.extend(found.iter().map(ToString::to_string)),
    }
    report(&problems, context)
}

/// Prints the problems, one per line.
fn report(problems: &[String], context: &mut Context<'_>) -> Outcome {
    for problem in problems {
        writeln!(context.out, "{}", problem.replace(char::is_control, " "))?;
    }
    match problems.len() {
        0 => Ok(writeln!(context.out, "the options are valid")?),
        1 => Err(Failure::Usage("1 problem: correct it, and check again".to_owned())),
        count => Err(Failure::Usage(format!("{count} problems: correct them, and check again"))),
    }
}

/// Reads the options of `serve` in the environment. Each is parsed separately, so that one error
/// does not hide the next.
fn environment_options(problems: &mut Vec<String>) -> Options {
    let root = tree();
    let Some(serve) = root.find_subcommand("serve") else { return Options::default() };
    let alone = serve.clone().mut_args(|argument| argument.env(Resettable::Reset));
    let mut options = Options::default();
    for argument in serve.get_arguments() {
        let (Some(name), Some(variable)) = (argument.get_long(), argument.get_env()) else {
            continue;
        };
        let Some(value) = std::env::var_os(variable) else { continue };
        let given = ["serve".into(), format!("--{name}={}", value.to_string_lossy())];
        match alone.clone().try_get_matches_from(given) {
            Ok(found) => {
                options = options.or(Options::from_arg_matches(&found).unwrap_or_default());
            }
            Err(error) => {
                let line = usage::one_line(&error.render().to_string());
                let why = line.split_once("': ").map_or(line.as_str(), |(_, why)| why);
                problems.push(format!("{}: {why}", variable.to_string_lossy()));
            }
        }
    }
    options
}

/// Files and folders of the options that do not exist or cannot be used.
fn file_problems(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    let folder = config.data.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder
        && !folder.is_dir()
    {
        problems.push(format!("data: the folder {} does not exist", folder.display()));
    }
    problems.extend(data_problem(&config.data));
    problems.extend(socket_problem(&config.stats_socket));
    match config.tls.as_ref().map(|tls| &tls.certificate) {
        Some(CertificateSource::Files { cert, key }) => problems.extend(load(cert, key).err()),
        Some(CertificateSource::Acme(acme)) => {
            let ca = acme.ca.as_deref().map(read_certificates);
            problems.extend(ca.and_then(Result::err).map(|error| error.to_string()));
            problems.extend(overdue(&config.data, acme));
        }
        None => {}
    }
    problems
}

/// What stands in the place of the data file, and is none.
fn data_problem(data: &Path) -> Option<String> {
    let found = data.metadata().ok()?;
    let problem = match (found.is_file(), found.len()) {
        (false, _) => "is not a regular file",
        (true, 0) => "is empty: restore a backup, or remove it",
        (true, _) => return None,
    };
    Some(format!("data: {} {problem}", data.display()))
}

/// Why the socket of `vestnik stats` cannot be created at this path.
fn socket_problem(path: &Path) -> Option<String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let problem = match path.symlink_metadata() {
        Ok(found) if !found.file_type().is_socket() => "is there, and is not a socket".to_owned(),
        _ if folder.is_some_and(|folder| !folder.is_dir()) => "is in no folder".to_owned(),
        _ => match SocketAddr::from_pathname(path) {
            Err(error) => output::reason(&error),
            Ok(_) => return None,
        },
    };
    Some(format!("stats-socket: {} {problem}", path.display()))
}

/// Whether the renewal of an ACME certificate is overdue.
fn overdue(data: &Path, acme: &Acme) -> Option<String> {
    let storage = Storage::new(data, acme);
    let (validity, _) = covered_by(storage.pair(), &acme.domains)?;
    let left = validity.not_after.saturating_sub(now());
    (left < schedule::overdue(validity)).then(|| {
        format!(
            "the certificate in {} has {} left and is not renewed: the log of the server says why",
            storage.pair().display(),
            schedule::readable(left)
        )
    })
}

fn now() -> Duration {
    Duration::from_micros(file::now().micros().unsigned_abs())
}

/// Problems of a certificate and its key; an imminent expiry is one, too.
fn load(cert: &Path, key: &Path) -> Result<(), String> {
    let identity = Identity::load(cert, key).map_err(|error| error.to_string())?;
    identity.expiry_warning(now()).map_or(Ok(()), |warning| Err(format!("{warning}: renew it")))
}
