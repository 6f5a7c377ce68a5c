//! TLS of the real binary: certificates from files, reloads, and peers that do not use TLS.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::server::{in_memory_of, run, signal, vestnik};
use crate::support::wire::{ACCEPTED, DECLINED, DISCONNECT, Frame, HEARTBEAT, HELLO, LOGIN};
use crate::support::{Client, PASSWORD, Server, TempDir, eventually};

/// Makes a pair in the folder by the command line, and returns what it prints.
#[track_caller]
fn make_pair(folder: &Path) -> String {
    let mut command = vestnik(folder);
    command.args(["cert", "self-signed", "localhost", "127.0.0.1"]);
    let output = run(command, None);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8").trim_end().to_owned()
}

/// A server with a plain and a TLS listener, and the folder of its certificate.
fn server() -> (Server, TempDir) {
    let folder = TempDir::new();
    make_pair(folder.path());
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let server = Server::with(&[
        "--listen",
        "127.0.0.1:0",
        "--tls-listen",
        "127.0.0.1:0",
        "--tls-cert",
        cert.to_str().expect("UTF-8"),
        "--tls-key",
        key.to_str().expect("UTF-8"),
        "--auth-timeout",
        "2",
    ]);
    (server, folder)
}

fn tls_address(server: &Server) -> SocketAddr {
    server.addresses()[1]
}

/// A client that trusts what is in the folder now.
struct TlsClient {
    stream: StreamOwned<ClientConnection, TcpStream>,
    buffer: Vec<u8>,
}

impl TlsClient {
    fn try_connect(address: SocketAddr, folder: &Path) -> std::io::Result<Self> {
        let root = CertificateDer::from_pem_file(folder.join("cert.pem")).expect("a certificate");
        let mut roots = RootCertStore::empty();
        roots.add(root).expect("a root");
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").expect("a name");
        let session = ClientConnection::new(Arc::new(config), name).expect("a session");
        let socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        socket.set_nodelay(true)?;
        let mut client = Self { stream: StreamOwned::new(session, socket), buffer: Vec::new() };
        client.try_ask(Frame::new(HELLO, 1, [0, 1]))?;
        Ok(client)
    }

    #[track_caller]
    fn connect(address: SocketAddr, folder: &Path) -> Self {
        Self::try_connect(address, folder).expect("a greeted connection over TLS")
    }

    fn try_ask(&mut self, request: Frame) -> std::io::Result<Frame> {
        self.stream.write_all(&request.encode())?;
        self.try_next()?.ok_or_else(|| ErrorKind::UnexpectedEof.into())
    }

    /// The next frame; `None` at the end, when it came with close_notify.
    fn try_next(&mut self) -> std::io::Result<Option<Frame>> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(frame) = Frame::take(&mut self.buffer) {
                return Ok(Some(frame));
            }
            let count = self.stream.read(&mut chunk)?;
            if count == 0 {
                return Ok(None);
            }
            self.buffer.extend_from_slice(&chunk[..count]);
        }
    }

    #[track_caller]
    fn is_alive(&mut self, words: &[u8]) {
        let answer = self.try_ask(Frame::new(HEARTBEAT, 9, words)).expect("an answer");
        assert_eq!(answer, Frame::new(ACCEPTED, 9, words));
    }
}

/// The same frames go over TLS, large ones cut into records too; the end is a close_notify.
#[test]
fn frames_go_over_tls() {
    let (server, folder) = server();
    let mut client = TlsClient::connect(tls_address(&server), folder.path());
    client.is_alive(b"hello");
    client.is_alive(&[7; 1024]);
    let request = Frame::new(0x77, 5, vec![0; 64 * 1024]);
    let answer = client.try_ask(request).expect("an answer");
    answer.declined("login-required");
    client.stream.write_all(&Frame::new(DISCONNECT, 0, []).encode()).expect("written");
    assert!(client.try_next().expect("close_notify, not just an end").is_none());
}

/// What was decrypted is wiped from the server's memory, if there was a password in it.
#[test]
fn passwords_over_tls_are_wiped_from_memory() {
    let (server, folder) = server();
    let mut client = TlsClient::connect(tls_address(&server), folder.path());
    // At the ends of long frames, which are not overwritten at once by whatever comes next.
    client.is_alive(format!("{:>900}", "no secret at all").as_bytes());
    let secret = "sEcrEt through TLS";
    for is_in_pieces in [false, true] {
        let mut login = Frame::new(LOGIN, 3, format!("anna\0{secret:>250}\0").as_bytes()).encode();
        if is_in_pieces {
            let last = login.pop().expect("a NUL");
            client.stream.write_all(&login).expect("written");
            client.stream.flush().expect("sent");
            thread::sleep(Duration::from_millis(50));
            login = vec![last];
        }
        client.stream.write_all(&login).expect("written");
        client.try_next().expect("an answer").expect("a frame").declined("bad-credentials");
    }
    let words = ["no secret at all", secret];
    let Some(seen) = in_memory_of(server.process_id(), &words) else {
        return eprintln!("the memory of another process cannot be read: nothing is tested");
    };
    assert!(seen[0] > 0, "nothing can be seen here");
    assert_eq!(seen[1], 0, "a password is still in memory");
}

/// Who does not log in gets a decline and is closed, over TLS as without.
#[test]
fn a_silent_tls_client_gets_a_disconnect() {
    let (server, folder) = server();
    let mut client = TlsClient::connect(tls_address(&server), folder.path());
    let last = client.try_next().expect("a frame").expect("DISCONNECT");
    assert_eq!(last.purpose, DISCONNECT);
    assert!(client.try_next().expect("close_notify").is_none());
}

/// A connection that never finishes its handshake is closed in the same time.
#[test]
fn a_handshake_that_stops_is_closed() {
    let (server, _folder) = server();
    let mut silent = TcpStream::connect(tls_address(&server)).expect("a connection");
    let mut halfway = TcpStream::connect(tls_address(&server)).expect("a connection");
    halfway.write_all(b"\x16\x03\x01\x02\x00\x01").expect("written");
    for stream in [&mut silent, &mut halfway] {
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("an option");
        // A reset is an end, too: there is nothing to lose yet.
        if let Err(error) = stream.read(&mut [0; 100]) {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
        }
    }
}

/// Incomplete records count as inbound bytes, and no more once their connections are closed.
#[test]
fn incomplete_records_count_under_the_memory_limit() {
    const PEERS: usize = 40;
    let (server, _folder) = server();
    // The head of the longest record, and most of a ClientHello.
    let mut part = b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03".to_vec();
    part.resize(15_000, 0);
    let peers: Vec<TcpStream> = (0..PEERS)
        .map(|_| {
            let mut peer = TcpStream::connect(tls_address(&server)).expect("a connection");
            peer.write_all(&part).expect("written");
            peer
        })
        .collect();
    let all = (PEERS * part.len()) as f64;
    eventually(|| server.metrics()["inbound_bytes"] >= all);
    assert!(server.metrics()["inbound_bytes"] < 2.0 * all);
    drop(peers);
    eventually(|| server.metrics()["inbound_bytes"] == 0.0);
}

/// HELLO in the clear to the TLS port: an alert, the end, and one line that says why.
#[test]
fn plaintext_to_the_tls_port() {
    let (server, _folder) = server();
    let mut stream = TcpStream::connect(tls_address(&server)).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("an option");
    stream.write_all(&Frame::new(HELLO, 1, [0, 1]).encode()).expect("written");
    stream.write_all(&[0; 10_000]).expect("written");
    let mut got = Vec::new();
    stream.read_to_end(&mut got).expect("an end, not a reset");
    assert_eq!((got.len(), got[0]), (7, 0x15), "a fatal alert");
    drop(stream);
    eventually(|| server.stderr().contains("does not speak TLS"));
    assert_eq!(server.stderr().matches("does not speak TLS").count(), 1);
}

/// A ClientHello to the plain port: DECLINED too-large, the end, and one line that says why.
#[test]
fn tls_to_the_plain_port() {
    let (server, _folder) = server();
    let mut client = Client::connect(server.address());
    let mut hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec();
    hello.resize(517, 0);
    client.write(&hello);
    let answer = client.next_frame().expect("an answer");
    assert_eq!(answer.purpose, DECLINED);
    answer.declined("too-large");
    assert_eq!(client.next_frame().expect("DISCONNECT").purpose, DISCONNECT);
    assert!(client.next_frame().is_none());
    eventually(|| server.stderr().contains("speaks TLS to a plain port"));
}

/// SIGHUP takes a new pair for new connections and drops nobody; a bad pair changes nothing, and
/// a line says so.
#[test]
fn a_certificate_is_swapped_while_everybody_talks() {
    let (server, folder) = server();
    let mut old = TlsClient::connect(tls_address(&server), folder.path());

    fs::write(folder.join("key.pem"), "no key").expect("written");
    signal(server.process_id(), "HUP");
    eventually(|| server.stderr().contains("stay in use"));
    TlsClient::connect(tls_address(&server), folder.path()).is_alive(b"the old pair is in use");

    let stale = TempDir::new();
    fs::copy(folder.join("cert.pem"), stale.join("cert.pem")).expect("copied");
    for name in ["cert.pem", "key.pem"] {
        fs::remove_file(folder.join(name)).expect("removed");
    }
    make_pair(folder.path());
    signal(server.process_id(), "HUP");
    eventually(|| server.stderr().contains("are reloaded"));
    assert!(TlsClient::try_connect(tls_address(&server), stale.path()).is_err());
    TlsClient::connect(tls_address(&server), folder.path()).is_alive(b"the new pair is in use");
    old.is_alive(b"nobody was dropped");
}

/// A pipe in the place of the certificate is refused, at the start and by SIGHUP: reading it could
/// wait forever.
#[test]
fn a_certificate_from_a_pipe_is_refused() {
    let (server, folder) = server();
    let cert = folder.join("cert.pem");
    fs::remove_file(&cert).expect("removed");
    let made = Command::new("mkfifo").arg(&cert).status().expect("mkfifo");
    assert!(made.success());
    signal(server.process_id(), "HUP");
    eventually(|| server.stderr().contains("not a regular file"));
    let (cert, key) = (cert.to_str().expect("UTF-8"), folder.join("key.pem"));
    let other = TempDir::new();
    let mut command = vestnik(other.path());
    command.args(["serve", "--tls-listen", "127.0.0.1:0", "--tls-cert", cert, "--tls-key"]);
    let output = command.arg(key).output().expect("its end");
    let line = String::from_utf8_lossy(&output.stderr);
    assert!(line.contains("cert.pem: it is not a regular file"), "{line}");
    assert_eq!(output.status.code(), Some(1));
}

/// Pairs good and bad are taken and refused while eight connections talk without a pause: each
/// gets each of its answers, and newcomers get in.
#[test]
fn swaps_under_load_drop_nobody() {
    const TALKERS: usize = 8;
    let (server, folder) = server();
    let address = tls_address(&server);
    let is_over = AtomicBool::new(false);
    let said = [const { AtomicU64::new(0) }; TALKERS];
    let clients: Vec<_> = said.iter().map(|_| logged_in(&server, folder.path())).collect();
    thread::scope(|scope| {
        let talks: Vec<_> = clients
            .into_iter()
            .zip(&said)
            .map(|(mut client, said)| {
                let is_over = &is_over;
                scope.spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        client.is_alive(&said.load(Ordering::Relaxed).to_le_bytes());
                        said.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        // Whatever fails here, the talkers come to their end.
        let over = Over(&is_over);
        // Everybody has said something more, while this is the pair, or somebody has stopped.
        let all_go_on = || {
            let before: Vec<_> = said.iter().map(|said| said.load(Ordering::Relaxed)).collect();
            let is_on = |(said, before): (&AtomicU64, u64)| said.load(Ordering::Relaxed) > before;
            while !said.iter().zip(before.iter().copied()).all(is_on) {
                assert!(!talks.iter().any(|talk| talk.is_finished()), "somebody was dropped");
                thread::sleep(Duration::from_millis(2));
            }
        };
        let says = |words: &str, times: usize| {
            let until = Instant::now() + Duration::from_secs(60);
            while server.stderr().matches(words).count() < times {
                assert!(!talks.iter().any(|talk| talk.is_finished()), "somebody was dropped");
                assert!(Instant::now() < until, "never said {words:?} {times} times");
                thread::sleep(Duration::from_millis(2));
            }
        };
        for round in 1..=5 {
            fs::write(folder.join("key.pem"), "no key").expect("written");
            signal(server.process_id(), "HUP");
            says("stay in use", round);
            all_go_on();
            TlsClient::connect(address, folder.path()).is_alive(b"the old pair is in use");
            for name in ["cert.pem", "key.pem"] {
                fs::remove_file(folder.join(name)).expect("removed");
            }
            make_pair(folder.path());
            signal(server.process_id(), "HUP");
            says("are reloaded", round);
            all_go_on();
            TlsClient::connect(address, folder.path()).is_alive(b"the new pair is in use");
        }
        drop(over);
    });
}

/// A certificate that ends soon is in the log and in `stats`; one by an authority of a LAN serves
/// clients that trust the authority.
#[test]
fn the_end_of_a_certificate_is_shown() {
    let folder = TempDir::new();
    let make = |arguments: &[&str]| {
        let mut command = vestnik(folder.path());
        command.args(arguments);
        let output = run(command, None);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    make(&["cert", "ca"]);
    let issue = ["cert", "issue", "localhost", "127.0.0.1", "--cert", "chain.pem", "--days"];
    make(&[&issue[..], &["14"]].concat());
    let (cert, key) = (folder.join("chain.pem"), folder.join("key.pem"));
    let server = Server::with(&[
        "--tls-listen",
        "127.0.0.1:0",
        "--tls-cert",
        cert.to_str().expect("UTF-8"),
        "--tls-key",
        key.to_str().expect("UTF-8"),
    ]);
    eventually(|| server.stderr().contains("chain.pem expires in 13 days: renew it"));
    let stats = server.admin_ok(&["stats"], None);
    let line = stats.lines().find(|line| line.starts_with("certificate expiry "));
    assert!(line.expect("a line").ends_with(", in 13 days"), "{stats}");
    // What the client trusts is in a file of this name.
    fs::copy(folder.join("ca.crt"), folder.join("cert.pem")).expect("a copy");
    TlsClient::connect(server.addresses()[0], folder.path()).is_alive(b"by an authority");
    make(&[&issue[..], &["800", "--renew"]].concat());
    signal(server.process_id(), "HUP");
    eventually(|| server.admin_ok(&["stats"], None).contains("in 799 days"));
    assert_eq!(server.stderr().matches("expires in").count(), 1, "{}", server.stderr());
}

/// Ends what others look at when it goes.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A client of a user of its own: one without a session would be closed after a while.
fn logged_in(server: &Server, folder: &Path) -> TlsClient {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let name = format!("talker-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    server.add_user(&name);
    let mut client = TlsClient::connect(tls_address(server), folder);
    let body = format!("{name}\0{PASSWORD}\0");
    let answer = client.try_ask(Frame::new(LOGIN, 2, body)).expect("an answer");
    assert_eq!(answer.purpose, ACCEPTED);
    client
}

/// The key is its owner's alone, nothing is overwritten, and both ways to the fingerprint agree.
#[test]
fn the_command_line_makes_a_pair() {
    use std::os::unix::fs::PermissionsExt;
    let folder = TempDir::new();
    let fingerprint = make_pair(folder.path());
    assert_eq!(fingerprint.split(':').count(), 32, "{fingerprint}");
    let mode = fs::metadata(folder.join("key.pem")).expect("a key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let mut command = vestnik(folder.path());
    command.args(["cert", "fingerprint", "cert.pem"]);
    assert_eq!(run(command, None).stdout, format!("{fingerprint}\n").as_bytes());

    for wrong in [&["cert", "self-signed", "x"][..], &["cert", "fingerprint", "key.pem"]] {
        let mut command = vestnik(folder.path());
        command.args(wrong);
        let output = run(command, None);
        assert_eq!(output.status.code(), Some(1), "{wrong:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1, "{wrong:?}");
    }
    let mut command = vestnik(folder.path());
    command.args(["cert", "self-signed"]);
    assert_eq!(run(command, None).status.code(), Some(2));
}

/// Files that cannot be a pair keep the server from starting, with a line that names one.
#[test]
fn bad_files_keep_the_server_from_starting() {
    let folder = TempDir::new();
    make_pair(folder.path());
    for (cert, key) in [("none.pem", "key.pem"), ("key.pem", "key.pem"), ("cert.pem", "cert.pem")] {
        let mut command = vestnik(folder.path());
        command.args(["serve", "--tls-listen", "127.0.0.1:0"]);
        command.args(["--tls-cert", cert, "--tls-key", key]);
        let output = run(command, None);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.lines().count() == 1 && said.contains(".pem"), "{said}");
    }
}
