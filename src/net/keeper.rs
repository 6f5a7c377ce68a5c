//! The server's certificate at run time: loading, reloading, renewal, and warnings of its expiry.
//!
//! Owns the identity, the worker that renews it, and the time of the next check. It knows no
//! connections.

use std::io;
use std::path::Path;
use std::time::Duration;

use mio::net::TcpStream;

use crate::acme::{Event, Storage, Worker};
use crate::config::{Acme, CertificateSource, Config};
use crate::engine::NEVER_MS;
use crate::net::clock;
use crate::net::tls::Identity;
use crate::net::transport::Transport;

/// Milliseconds between two warnings.
const WARN_EVERY_MS: u64 = 24 * 60 * 60 * 1000;

/// The certificate of the TLS listeners, if there are any.
pub(super) struct CertificateKeeper {
    identity: Option<Identity>,
    /// The worker that gets and renews it.
    worker: Option<Worker>,
    warn_ms: u64,
}

impl CertificateKeeper {
    /// Loads the files named by the options.
    pub(super) fn load(config: &Config) -> Result<Self, String> {
        let identity = match config.tls.as_ref().map(|tls| &tls.certificate) {
            None => None,
            Some(CertificateSource::Files { cert, key }) => Some(Identity::load(cert, key)),
            Some(CertificateSource::Acme(acme)) => Some(load_kept(&config.data, acme)),
        };
        let identity = identity.transpose().map_err(|error| error.to_string())?;
        Ok(Self { identity, worker: None, warn_ms: 0 })
    }

    /// Starts the worker that renews the certificate, if it comes from an authority. `wake` makes
    /// the loop call [`CertificateKeeper::turn`].
    pub(super) fn start(
        &mut self,
        config: &Config,
        wake: impl Fn() + Send + 'static,
    ) -> io::Result<()> {
        let source = config.tls.as_ref().map(|tls| &tls.certificate);
        if let Some(CertificateSource::Acme(acme)) = source {
            self.worker = Some(Worker::start(acme, &config.data, clock::both, wake)?);
        }
        Ok(())
    }

    /// Begins TLS on an accepted socket.
    pub(super) fn accept(&self, socket: TcpStream) -> io::Result<Transport> {
        match &self.identity {
            Some(identity) => identity.accept(socket),
            None => Err(io::Error::other("no certificate is loaded")),
        }
    }

    /// Reloads the files, and requests a renewal that is due. If the files are not usable, the old
    /// pair stays in use.
    pub(super) fn reload(&mut self) {
        if let Some(worker) = &self.worker {
            worker.try_again();
            // The first certificate may not have arrived yet.
            if self.identity.as_ref().is_some_and(|identity| !identity.is_there()) {
                return;
            }
        }
        self.load_again();
    }

    fn load_again(&mut self) {
        let Some(identity) = &mut self.identity else { return };
        match identity.reload() {
            Ok(()) => {
                log::info!("certificate and key are reloaded");
                // Let the next turn warn if the new one expires soon, too.
                self.warn_ms = 0;
            }
            Err(error) => {
                log::error!("cannot reload certificate and key, the old ones stay in use: {error}");
            }
        }
    }

    /// Applies the worker's results. Once a day, warns of a certificate that has expired or is
    /// about to, since clients will reject it.
    pub(super) fn turn(&mut self, now_ms: u64, wall_us: i64) {
        self.serve_worker();
        if now_ms < self.warn_ms {
            return;
        }
        self.warn_ms = now_ms.saturating_add(WARN_EVERY_MS);
        let now = Duration::from_micros(u64::try_from(wall_us).unwrap_or_default());
        let Some(identity) = &self.identity else { return };
        match (&self.worker, identity.expiry_warning(now)) {
            (None, Some(warning)) => log::warn!("{warning}: renew it and send SIGHUP"),
            (Some(_), Some(warning)) if identity.is_overdue(now) => {
                log::warn!("{warning}, and its renewal fails: see the earlier log lines about it");
            }
            _ => {}
        }
    }

    fn serve_worker(&mut self) {
        let Some(worker) = self.worker.take() else { return };
        worker.apply(|event| match (event, &mut self.identity) {
            (Event::Renewed, _) => self.load_again(),
            (Event::Challenge(challenge), Some(identity)) => {
                if let Err(error) = identity.answer_challenge(challenge) {
                    log::error!("cannot answer the authority's challenge: {error}");
                }
            }
            (Event::Challenge(_), None) => {}
        });
        self.worker = Some(worker);
    }

    /// When [`CertificateKeeper::turn`] has to be called again, at the latest, in milliseconds.
    pub(super) fn next_ms(&self) -> u64 {
        if self.identity.is_some() { self.warn_ms } else { NEVER_MS }
    }

    /// When the certificate expires, in seconds since the Unix epoch.
    pub(super) fn ends_s(&self) -> Option<u64> {
        self.identity.as_ref()?.not_after().map(|end| end.as_secs())
    }
}

/// The stored pair of an authority. Without one, handshakes fail until the first arrives.
fn load_kept(data: &Path, acme: &Acme) -> Result<Identity, crate::certificate::CertificateError> {
    let storage = Storage::new(data, acme);
    let mut identity = Identity::without_pair(storage.pair(), storage.pair())?;
    if storage.pair().exists()
        && let Err(error) = identity.reload()
    {
        log::error!("{error}; a new certificate is requested");
    }
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::self_signed::self_signed;
    use crate::config::Options;

    #[test]
    fn the_end_of_a_certificate_is_looked_for_every_day() {
        let folder = std::env::temp_dir().join(format!("vestnik-keeper-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        let made = self_signed(&["chat.lan".to_owned()], Duration::from_secs(1_795_305_600));
        made.unwrap().write(&cert, &key).unwrap();
        let options = Options {
            tls_listen: Some(vec!["127.0.0.1:0".parse().unwrap()]),
            tls_cert: Some(cert),
            tls_key: Some(key),
            ..Options::default()
        };
        let mut keeper = CertificateKeeper::load(&Config::new(options).unwrap()).unwrap();
        assert_eq!(keeper.ends_s(), Some(1_795_305_600 + (3650 - 1) * 86_400));
        let (mut now_ms, mut looks) = (0, 0);
        while now_ms < 3 * WARN_EVERY_MS {
            now_ms = now_ms.max(keeper.next_ms());
            keeper.turn(now_ms, 0);
            assert_eq!(keeper.next_ms(), now_ms + WARN_EVERY_MS);
            looks += 1;
        }
        assert_eq!(looks, 4);
        keeper.reload();
        assert_eq!(keeper.next_ms(), 0);
        std::fs::remove_dir_all(folder).unwrap();
        let none = CertificateKeeper::load(&Config::new(Options::default()).unwrap()).unwrap();
        assert_eq!((none.next_ms(), none.ends_s()), (NEVER_MS, None));
    }
}
