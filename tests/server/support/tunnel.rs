//! TLS for clients that speak over a plain socket: a thread of the test carries the bytes.

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use socket2::SockRef;

use super::server::{TempDir, run, vestnik};

/// Whether this run of the tests goes over TLS.
pub(crate) fn is_over_tls() -> bool {
    std::env::var("VESTNIK_TEST_TRANSPORT").is_ok_and(|transport| transport == "wss")
}

/// A certificate and its key, made once for all servers.
pub(crate) fn pair() -> (PathBuf, PathBuf) {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = TempDir::new();
        let mut command = vestnik(folder.path());
        command.args(["cert", "self-signed", "localhost", "127.0.0.1"]);
        assert!(run(command, None).status.success(), "a certificate");
        folder
    });
    (folder.join("cert.pem"), folder.join("key.pem"))
}

fn ports() -> &'static Mutex<HashSet<SocketAddr>> {
    static PORTS: OnceLock<Mutex<HashSet<SocketAddr>>> = OnceLock::new();
    PORTS.get_or_init(Mutex::default)
}

/// Notes that TLS is spoken at an address.
pub(crate) fn note(address: SocketAddr) {
    ports().lock().expect("no test has panicked here").insert(address);
}

/// A plain stream to where this one leads, if TLS is spoken there.
pub(crate) fn through(server: TcpStream) -> TcpStream {
    let address = server.peer_addr();
    let is_tls = address
        .is_ok_and(|address| ports().lock().expect("no test has panicked here").contains(&address));
    if !is_over_tls() || !is_tls {
        return server;
    }
    // What the tests see of backpressure is the near stream's: this one holds little.
    SockRef::from(&server).set_recv_buffer_size(64 * 1024).expect("a socket option");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let near = TcpStream::connect(listener.local_addr().expect("an address")).expect("a stream");
    let (far, _) = listener.accept().expect("a stream");
    std::thread::spawn(move || carry(&far, &server));
    near
}

fn session() -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pair().0).expect("a certificate")).expect("a root");
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from("localhost").expect("a name");
    let mut session = ClientConnection::new(Arc::new(config), name).expect("a session");
    session.set_buffer_limit(None);
    session
}

/// Carries bytes both ways until both have ended.
fn carry(mut near: &TcpStream, mut server: &TcpStream) -> Option<()> {
    let mut session = session();
    near.set_nonblocking(true).ok()?;
    server.set_nonblocking(true).ok()?;
    let mut chunk = [0; 16 * 1024];
    let (mut to_near, mut near_ended, mut server_ended) = (Vec::new(), false, false);
    while !(server_ended && to_near.is_empty()) {
        let mut is_idle = true;
        // A server that does not read is not written to.
        if !near_ended && !session.wants_write() {
            match near.read(&mut chunk) {
                Ok(0) => {
                    near_ended = true;
                    session.send_close_notify();
                }
                Ok(count) => {
                    session.writer().write_all(chunk.get(..count)?).ok()?;
                    is_idle = false;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return server.shutdown(Shutdown::Both).ok(),
            }
        }
        while session.wants_write() {
            match session.write_tls(&mut server) {
                Ok(_) => is_idle = false,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return near.shutdown(Shutdown::Both).ok(),
            }
        }
        // A peer that does not read is not read for.
        if !server_ended && to_near.len() < 64 * 1024 {
            match session.read_tls(&mut server) {
                Ok(0) => server_ended = true,
                Ok(_) => {
                    let state = session.process_new_packets().ok()?;
                    server_ended |= state.peer_has_closed();
                    let start = to_near.len();
                    to_near.resize(start + state.plaintext_bytes_to_read(), 0);
                    session.reader().read_exact(to_near.get_mut(start..)?).ok()?;
                    is_idle = false;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => server_ended = true,
            }
        }
        match near.write(&to_near) {
            Ok(count) if count > 0 => {
                to_near.drain(..count);
                is_idle = false;
            }
            Err(error) if error.kind() != ErrorKind::WouldBlock => return None,
            _ => {}
        }
        if is_idle {
            std::thread::sleep(Duration::from_micros(300));
        }
    }
    near.shutdown(Shutdown::Write).ok()?;
    server.shutdown(Shutdown::Both).ok()
}
