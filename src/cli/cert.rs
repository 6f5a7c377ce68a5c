//! `vestnik cert`: self-signed certificates and fingerprints.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use vestnik::net::tls::self_signed::{fingerprint_of_file, self_signed};

use super::failure::Failure;
use super::{Context, Outcome, file};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make a certificate and its key for a LAN, and print the fingerprint that clients can pin
    SelfSigned {
        /// Host names and IP addresses that clients connect to
        #[arg(required = true)]
        names: Vec<String>,
        /// The file that the certificate is written to
        #[arg(long, value_name = "PEM", default_value = "cert.pem")]
        cert: PathBuf,
        /// The file that its key is written to
        #[arg(long, value_name = "PEM", default_value = "key.pem")]
        key: PathBuf,
    },
    /// Print the SHA-256 fingerprint of a certificate
    Fingerprint {
        /// The certificate
        cert: PathBuf,
    },
}

pub(super) fn run(command: Command, context: &mut Context<'_>) -> Outcome {
    match command {
        Command::SelfSigned { names, cert, key } => {
            let now = Duration::from_micros(file::now().micros().unsigned_abs());
            let made = self_signed(&names, now).map_err(Failure::new)?;
            made.write(&cert, &key).map_err(Failure::new)?;
            writeln!(context.out, "{}", made.fingerprint)?;
        }
        Command::Fingerprint { cert } => {
            writeln!(context.out, "{}", fingerprint_of_file(&cert).map_err(Failure::new)?)?;
        }
    }
    Ok(())
}
