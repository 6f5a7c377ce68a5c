//! The TLS record path: what a client says may be cut, changed, or not TLS at all. Nothing panics,
//! every read and write ends, and what arrives was said, in order.
//!
//! The two ends are a pair of local sockets, which pass for those of TCP: what one end has written
//! the other can read at once, on a busy machine, too, so that a run depends on its input alone.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use vestnik::certificate::self_signed::self_signed;
use vestnik::net::tls::Identity;
use vestnik::net::transport::Transport;

use super::input::Input;

/// Reads and writes that one thing that happens may cost.
const CALLS_MAX: usize = 10_000;

struct Setting {
    identity: Identity,
    clients: [Arc<ClientConfig>; 2],
}

/// One identity for the whole run; its files are gone once they are loaded.
fn setting() -> &'static Setting {
    static SETTING: OnceLock<Setting> = OnceLock::new();
    SETTING.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("vestnik-fuzz-tls-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        let now = Duration::from_secs(1_795_305_600);
        let pair = self_signed(&["localhost".to_owned()], now).expect("a pair");
        pair.write(&certificate, &key).expect("written");
        let identity = Identity::load(&certificate, &key).expect("loaded");
        std::fs::remove_dir_all(&folder).expect("removed");
        let mut roots = RootCertStore::empty();
        let der = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).expect("PEM");
        roots.add(der).expect("a root");
        let client = |version| {
            let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
                .with_protocol_versions(&[version])
                .expect("a version")
                .with_root_certificates(roots.clone())
                .with_no_client_auth();
            Arc::new(config)
        };
        Setting { identity, clients: [client(&TLS13), client(&TLS12)] }
    })
}

/// Both ends, and what each was given and has got.
struct Ends {
    socket: TcpStream,
    session: ClientConnection,
    server: Transport,
    /// What the client said, before the server got it.
    said: Vec<u8>,
    heard: usize,
    /// What the server took for the client.
    accepted: Vec<u8>,
    taken: usize,
    /// Something was changed on the way: only beginnings arrive.
    is_spoilt: bool,
    is_over: bool,
}

/// `data`: the version, then what happens.
pub fn tls(data: &[u8]) {
    let mut input = Input::new(data);
    let mut ends = Ends::new(input.u8());
    while !input.is_empty() && !ends.is_over {
        ends.step(&mut input);
    }
    if !ends.is_spoilt && !ends.is_over {
        ends.finish();
    }
    // However it was left, it can be ended.
    let _ = ends.server.shutdown_write();
    let _ = ends.server.flush();
}

impl Ends {
    fn new(version: u8) -> Self {
        let setting = setting();
        let (client, server) = UnixStream::pair().expect("sockets");
        let [socket, server] = [client, server].map(|end| TcpStream::from(OwnedFd::from(end)));
        for end in [&socket, &server] {
            end.set_nonblocking(true).expect("a socket");
        }
        let name = ServerName::try_from("localhost").expect("a name");
        let config = Arc::clone(&setting.clients[usize::from(version & 1)]);
        let mut ends = Self {
            socket,
            session: ClientConnection::new(config, name).expect("a session"),
            server: setting.identity.accept(mio::net::TcpStream::from_std(server)).expect("TLS"),
            said: Vec::new(),
            heard: 0,
            accepted: Vec::new(),
            taken: 0,
            is_spoilt: false,
            is_over: false,
        };
        if version & 2 == 0 {
            ends.settle();
            assert!(!ends.session.is_handshaking() && !ends.server.is_handshaking());
        }
        ends
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(12) {
            0 | 1 => {
                let count = usize::from(input.u8()) << (input.u8() % 8);
                let fresh: Vec<u8> = (0..count).map(|n| (self.said.len() + n) as u8).collect();
                if let Ok(count) = self.session.writer().write(&fresh) {
                    self.said.extend_from_slice(&fresh[..count]);
                }
            }
            2 => self.send(usize::MAX),
            3 => self.send(usize::from(input.u8()) + 1),
            4 => self.serve(1 << (input.u8() % 16)),
            5 | 6 => {
                let count = usize::from(input.u8()) << (input.u8() % 9);
                let fresh: Vec<u8> = (0..count).map(|n| (self.accepted.len() + n) as u8).collect();
                match self.server.write(&fresh) {
                    Ok(count) => self.accepted.extend_from_slice(&fresh[..count]),
                    Err(error) => self.expected(&error),
                }
            }
            7 => {
                if let Err(error) = self.server.flush() {
                    self.expected(&error);
                }
            }
            8 => self.receive(),
            9 => {
                // Whatever comes, between two records or in the midst of one.
                let count = usize::from(input.u8());
                let bytes = input.bytes(count);
                self.is_spoilt |= !bytes.is_empty();
                let _ = self.socket.write(bytes);
            }
            10 => self.send_spoilt(input),
            _ => match input.below(8) {
                0 => {
                    self.is_spoilt = true;
                    let _ = self.socket.shutdown(Shutdown::Write);
                }
                // rustls itself asserts that it says nothing more after that.
                1 if !self.session.is_handshaking() => {
                    self.is_spoilt = true;
                    self.session.send_close_notify();
                }
                2 => {
                    self.is_spoilt = true;
                    let _ = self.server.shutdown_write();
                }
                _ => self.settle(),
            },
        }
    }

    /// Sends up to `most` bytes of what the client's session has for the server.
    fn send(&mut self, most: usize) {
        let mut left = most;
        while self.session.wants_write() && left > 0 {
            let mut limited = Limited { socket: &self.socket, left };
            match self.session.write_tls(&mut limited) {
                Ok(0) | Err(_) => break,
                Ok(count) => left -= count,
            }
        }
    }

    /// The same, with one byte changed on the way.
    fn send_spoilt(&mut self, input: &mut Input<'_>) {
        let mut bytes = Vec::new();
        while self.session.wants_write() {
            if self.session.write_tls(&mut bytes).is_err() {
                break;
            }
        }
        let at = usize::from(input.u8()) << (input.u8() % 6);
        let change = input.u8();
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= change;
            self.is_spoilt |= change != 0;
        }
        // What the socket does not take is lost.
        let sent = self.socket.write(&bytes).unwrap_or(0);
        self.is_spoilt |= sent < bytes.len();
    }

    /// The server reads until there is nothing more for now.
    fn serve(&mut self, room: usize) {
        let mut buffer = vec![0; room];
        for _ in 0..CALLS_MAX {
            match self.server.read(&mut buffer) {
                Ok(0) => {
                    assert!(self.is_spoilt, "an end that nobody said");
                    return;
                }
                Ok(count) => {
                    if self.is_over {
                        continue;
                    }
                    let got = &buffer[..count];
                    let expected = self.said.get(self.heard..self.heard + count);
                    // After its end, what comes is not decrypted.
                    assert!(expected == Some(got) || self.is_spoilt, "what was not said");
                    self.heard += count;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    self.expected(&error);
                    if self.is_over {
                        return;
                    }
                }
            }
        }
        assert!(room < 64 || self.is_over, "reading does not end");
    }

    /// The client reads what the server said.
    fn receive(&mut self) {
        for _ in 0..CALLS_MAX {
            match self.session.read_tls(&mut self.socket) {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            if self.session.process_new_packets().is_err() {
                assert!(self.is_spoilt, "the server said what is not TLS");
                self.is_over = true;
                return;
            }
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = self.session.reader().read(&mut buffer) {
                let expected = self.accepted.get(self.taken..self.taken + count);
                assert_eq!(expected, Some(&buffer[..count]), "what the server never took");
                self.taken += count;
            }
        }
    }

    /// An error of the server's end is no surprise when the client did something wrong, or is not
    /// ready.
    fn expected(&mut self, error: &io::Error) {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::Interrupted => {}
            ErrorKind::NotConnected if self.server.is_handshaking() => {}
            _ => {
                assert!(self.is_spoilt, "an error for no reason: {error}");
                self.is_over = true;
            }
        }
    }

    /// Everything that either has to say is sent and read.
    fn settle(&mut self) {
        for _ in 0..200 {
            let before = (self.heard, self.taken, self.session.is_handshaking());
            self.send(usize::MAX);
            self.serve(16 * 1024);
            if self.is_over {
                return;
            }
            let _ = self.server.flush();
            self.receive();
            let is_quiet = !self.session.wants_write()
                && !self.server.wants_write()
                && before == (self.heard, self.taken, self.session.is_handshaking());
            if is_quiet || self.is_over {
                return;
            }
        }
    }

    /// Nothing was changed on the way: all that was said arrives.
    fn finish(&mut self) {
        self.settle();
        assert_eq!(self.heard, self.said.len(), "not all that the client said arrived");
        assert_eq!(self.taken, self.accepted.len(), "not all that the server took arrived");
    }
}

/// A socket that accepts a limited number of bytes.
struct Limited<'a> {
    socket: &'a TcpStream,
    left: usize,
}

impl io::Write for Limited<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = (&mut &*self.socket).write(&bytes[..bytes.len().min(self.left)])?;
        self.left -= count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
