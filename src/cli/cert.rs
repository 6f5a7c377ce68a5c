//! `vestnik cert`: self-signed certificates, a small authority, and fingerprints.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use vestnik::certificate::authority::{Files, ISSUED_DAYS_MAX, authority, issue};
use vestnik::certificate::self_signed::self_signed;
use vestnik::certificate::{fingerprint_of_file, replace};

use super::failure::Failure;
use super::{Context, Outcome, file, number};

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
    /// Make an authority for a LAN, whose certificate is installed on phones, and print its
    /// fingerprint
    Ca {
        /// Host names, addresses and networks that it may issue certificates for, and for no others
        /// [default: names and addresses of private networks, such as chat.lan and 192.168.1.5]
        names: Vec<String>,
        /// What phones show as its name [default: vestnik CA and four digits]
        #[arg(long, value_name = "TEXT")]
        name: Option<String>,
        /// The file that its certificate is written to
        #[arg(long, value_name = "PEM", default_value = "ca.crt")]
        cert: PathBuf,
        /// The file that its key is written to
        #[arg(long, value_name = "PEM", default_value = "ca.key")]
        key: PathBuf,
    },
    /// Issue a certificate for the server by the authority of `cert ca`, and print its fingerprint
    Issue(Issue),
    /// Print the SHA-256 fingerprint of a certificate
    Fingerprint {
        /// The certificate
        cert: PathBuf,
    },
}

#[derive(clap::Args)]
pub(super) struct Issue {
    /// Host names and IP addresses that clients connect to
    #[arg(required = true)]
    names: Vec<String>,
    /// Days for which it is good; iOS accepts at most 825
    #[arg(long, value_name = "N", default_value_t = ISSUED_DAYS_MAX, value_parser = number(1..=ISSUED_DAYS_MAX))]
    days: u32,
    /// Renew: keep the key that is there, and replace the certificate
    #[arg(long)]
    renew: bool,
    /// The certificate of the authority
    #[arg(long, value_name = "PEM", default_value = "ca.crt")]
    ca_cert: PathBuf,
    /// The key of the authority
    #[arg(long, value_name = "PEM", default_value = "ca.key")]
    ca_key: PathBuf,
    /// The file that the certificate is written to
    #[arg(long, value_name = "PEM", default_value = "cert.pem")]
    cert: PathBuf,
    /// The file of its key
    #[arg(long, value_name = "PEM", default_value = "key.pem")]
    key: PathBuf,
}

pub(super) fn run(command: Command, context: &mut Context<'_>) -> Outcome {
    let now = Duration::from_micros(file::now().micros().unsigned_abs());
    let fingerprint = match command {
        Command::SelfSigned { names, cert, key } => {
            let made = self_signed(&names, now).map_err(Failure::new)?;
            made.write(&cert, &key).map_err(Failure::new)?;
            made.fingerprint
        }
        Command::Ca { names, name, cert, key } => {
            let made = authority(name.as_deref(), &names, now).map_err(Failure::new)?;
            made.write(&cert, &key).map_err(Failure::new)?;
            made.fingerprint
        }
        Command::Issue(arguments) => {
            let by = Files { certificate: &arguments.ca_cert, key: &arguments.ca_key };
            let (cert, key) = (&arguments.cert, &arguments.key);
            let kept = arguments.renew.then_some(key.as_path());
            let made = issue(by, &arguments.names, arguments.days, kept, now);
            let made = made.map_err(Failure::new)?;
            match arguments.renew {
                true => replace(cert, 0o644, made.certificate.as_bytes()),
                false => made.write(cert, key),
            }
            .map_err(Failure::new)?;
            made.fingerprint
        }
        Command::Fingerprint { cert } => fingerprint_of_file(&cert).map_err(Failure::new)?,
    };
    Ok(writeln!(context.out, "{fingerprint}")?)
}
