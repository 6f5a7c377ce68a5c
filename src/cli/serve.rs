//! `vestnik serve`: the server, with the options of `vestnik::config`.

use vestnik::config::{Config, Options};
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
    #[command(flatten)]
    options: Options,
}

pub(super) fn run(arguments: Arguments, context: &mut Context<'_>) -> Outcome {
    let config = Config::new(arguments.options.or(context.options.clone()))?;
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
