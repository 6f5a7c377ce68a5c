//! `vestnik cert`: a certificate for a LAN, and what clients pin of one.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use vestnik::net::tls::self_signed::{fingerprint_of_file, self_signed};

use super::failure::Failure;
use super::{Context, Outcome, file};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make a certificate that no authority vouches for, and print its SHA-256 fingerprint
    SelfSigned {
        /// Host names and IP addresses under which clients reach the server
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// The file for the certificate, which must not exist
        #[arg(long, value_name = "PEM", default_value = "cert.pem")]
        cert: PathBuf,
        /// The file for its private key, which must not exist
        #[arg(long, value_name = "PEM", default_value = "key.pem")]
        key: PathBuf,
    },
    /// Print the SHA-256 fingerprint of a certificate, for clients to pin
    Fingerprint {
        /// A PEM file; of several certificates in it, the first is the server's
        file: PathBuf,
    },
}

pub(super) fn run(command: Command, context: &mut Context<'_>) -> Outcome {
    let fingerprint = match command {
        Command::SelfSigned { names, cert, key } => {
            let now = Duration::from_micros(file::now().micros().unsigned_abs());
            let made = self_signed(&names, now).map_err(Failure::new)?;
            made.write(&cert, &key).map_err(Failure::new)?;
            made.fingerprint
        }
        Command::Fingerprint { file } => fingerprint_of_file(&file).map_err(Failure::new)?,
    };
    writeln!(context.out, "{fingerprint}")?;
    Ok(())
}
