//! Tests with a rustls client over a loopback socket, in one thread, with records cut anywhere.

use std::fs;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion, version};

use super::*;
use crate::engine::looks_like_tls;
use crate::limits::{PEM_BYTES_MAX, TLS_OUTGOING_BYTES_MAX, TLS_WRITE_BYTES_MAX};

/// The folder of one test; removed on drop.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("vestnik-tls-{}-{test}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a new certificate for "localhost" and its key as cert.pem and key.pem.
    fn pair(&self) -> CertificateDer<'static> {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(self.file("cert.pem"), cert.pem()).unwrap();
        fs::write(self.file("key.pem"), signing_key.serialize_pem()).unwrap();
        cert.der().clone()
    }

    fn load(&self) -> Result<Identity, CertificateError> {
        Identity::load(&self.file("cert.pem"), &self.file("key.pem"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A connected pair of sockets, both non-blocking.
fn sockets() -> (TcpStream, mio::net::TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    client.set_nodelay(true).unwrap();
    client.set_nonblocking(true).unwrap();
    server.set_nonblocking(true).unwrap();
    (client, mio::net::TcpStream::from_std(server))
}

/// A client, and the server side of its connection.
struct Pair {
    client: ClientConnection,
    socket: TcpStream,
    server: Transport,
    /// Bytes that the server has read.
    heard: Vec<u8>,
    /// Most bytes that the client writes to the socket at once.
    cut: usize,
}

impl Pair {
    fn new(test: &str, versions: &[&'static SupportedProtocolVersion]) -> Self {
        let folder = Folder::new(test);
        let root = folder.pair();
        let identity = folder.load().unwrap();
        Self::with(&identity, root, versions)
    }

    fn with(
        identity: &Identity,
        root: CertificateDer<'static>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(root).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let client = ClientConnection::new(Arc::new(config), name).unwrap();
        let (socket, accepted) = sockets();
        let server = identity.accept(accepted).unwrap();
        Self { client, socket, server, heard: Vec::new(), cut: usize::MAX }
    }

    fn connected(test: &str) -> Self {
        let mut pair = Self::new(test, &[&version::TLS13]);
        pair.shake_hands();
        pair
    }

    fn shake_hands(&mut self) {
        while self.client.is_handshaking() || self.server.is_handshaking() {
            self.turn();
        }
    }

    /// The client sends what it has, the server reads it, the client reads what has arrived.
    fn turn(&mut self) {
        self.client_sends();
        assert!(!self.server_reads(), "the client has not ended");
        self.client_receives();
    }

    fn client_sends(&mut self) {
        let mut records = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut records).unwrap();
        }
        for piece in records.chunks(self.cut) {
            (&self.socket).write_all(piece).unwrap();
            if self.cut < usize::MAX {
                assert!(!self.server_reads());
            }
        }
    }

    /// Reads until `WouldBlock`. True when the client's side has ended.
    fn server_reads(&mut self) -> bool {
        // Loopback delivers at once, but not within the call that sends.
        std::thread::sleep(Duration::from_micros(200));
        let mut buf = [0; 1000];
        loop {
            match self.server.read(&mut buf) {
                Ok(0) => return true,
                Ok(count) => self.heard.extend(&buf[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn client_receives(&mut self) {
        std::thread::sleep(Duration::from_micros(200));
        loop {
            match self.client.read_tls(&mut self.socket) {
                Ok(0) => return,
                Ok(_) => self.client.process_new_packets().unwrap(),
                // "received plaintext buffer full" is another kind of error: the rest is read
                // later.
                Err(_) => return,
            };
        }
    }

    fn client_says(&mut self, bytes: &[u8]) {
        self.client.writer().write_all(bytes).unwrap();
        self.client_sends();
    }

    fn client_hears(&mut self) -> Vec<u8> {
        let mut heard = Vec::new();
        loop {
            self.client_receives();
            let before = heard.len();
            // Ends with WouldBlock.
            let _ = self.client.reader().read_to_end(&mut heard);
            if heard.len() == before {
                return heard;
            }
        }
    }

    fn stream(&self) -> &TlsStream {
        match &self.server {
            Transport::Tls(stream) => stream,
            Transport::Plain(_) => panic!("not TLS"),
        }
    }
}

#[test]
fn both_versions_carry_bytes_both_ways() {
    for version in [&version::TLS13, &version::TLS12] {
        let mut pair = Pair::new("versions", &[version]);
        pair.shake_hands();
        pair.client_says(b"to the server");
        pair.server_reads();
        assert_eq!(pair.heard, b"to the server");
        assert_eq!(pair.server.write(b"to the client").unwrap(), 13);
        assert_eq!(pair.client_hears(), b"to the client");
    }
}

#[test]
fn records_may_come_byte_by_byte() {
    for version in [&version::TLS13, &version::TLS12] {
        let mut pair = Pair::new("bytes", &[version]);
        pair.cut = 1;
        pair.shake_hands();
        pair.client_says(b"HELLO");
        pair.client_says(b", and more");
        assert_eq!(pair.heard, b"HELLO, and more");
    }
}

#[test]
fn records_may_be_cut_anywhere() {
    let mut pair = Pair::connected("cut");
    let said: Vec<u8> = (0..40_000u32).map(|index| index as u8).collect();
    for cut in [50, 1000, 4099, 20_000] {
        pair.cut = cut;
        pair.heard.clear();
        // The client holds 64 KiB at most; this is three records.
        pair.client_says(&said);
        pair.server_reads();
        assert!(pair.heard == said, "cut by {cut}");
    }
}

#[test]
fn decrypted_bytes_that_were_not_taken_are_reported() {
    let mut pair = Pair::connected("buffered");
    pair.client_says(b"twelve bytes");
    std::thread::sleep(Duration::from_millis(5));
    let mut buf = [0; 5];
    assert!(!pair.server.has_buffered_input());
    assert_eq!(pair.server.read(&mut buf).unwrap(), 5);
    assert!(pair.server.has_buffered_input());
    assert_eq!(pair.server.read(&mut buf).unwrap(), 5);
    assert_eq!(pair.server.read(&mut buf).unwrap(), 2);
    assert!(!pair.server.has_buffered_input());
    assert_eq!(pair.server.read(&mut buf).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn writing_goes_on_while_a_record_is_unfinished() {
    let mut pair = Pair::connected("unfinished");
    pair.client.writer().write_all(b"late").unwrap();
    let mut record = Vec::new();
    pair.client.write_tls(&mut record).unwrap();
    (&pair.socket).write_all(&record[..10]).unwrap();
    assert!(!pair.server_reads());
    assert_eq!(pair.server.write(b"meanwhile").unwrap(), 9);
    assert_eq!(pair.client_hears(), b"meanwhile");
    (&pair.socket).write_all(&record[10..]).unwrap();
    pair.server_reads();
    assert_eq!(pair.heard, b"late");
}

#[test]
fn keys_may_be_updated_under_way() {
    let mut pair = Pair::connected("update");
    for round in 0..50 {
        pair.client.refresh_traffic_keys().unwrap();
        pair.client_says(&[round]);
        pair.server_reads();
        assert_eq!(pair.server.write(&[round]).unwrap(), 1);
        assert_eq!(pair.client_hears(), [round]);
    }
    assert_eq!(pair.heard, Vec::from_iter(0..50));
}

#[test]
fn close_notify_ends_the_clients_side_and_not_the_servers() {
    let mut pair = Pair::connected("close");
    pair.client_says(b"last bytes");
    pair.client.send_close_notify();
    pair.client_sends();
    assert!(pair.server_reads());
    assert_eq!(pair.heard, b"last bytes");
    assert_eq!(pair.server.write(b"an answer").unwrap(), 9);
    pair.server.shutdown_write().unwrap();
    let mut heard = Vec::new();
    pair.client_receives();
    // The client got close_notify: otherwise this would be UnexpectedEof.
    pair.client.reader().read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"an answer");
    assert!(pair.server.write(b"too late").is_err());
}

#[test]
fn an_end_without_close_notify_is_an_end() {
    let mut pair = Pair::connected("eof");
    pair.client_says(b"last bytes");
    pair.socket.shutdown(Shutdown::Write).unwrap();
    assert!(pair.server_reads());
    assert_eq!(pair.heard, b"last bytes");
    assert_eq!(pair.server.write(b"an answer").unwrap(), 9);
    assert_eq!(pair.client_hears(), b"an answer");
}

#[test]
fn an_end_in_the_handshake_is_an_end() {
    let mut pair = Pair::new("early", &[&version::TLS13]);
    pair.client_sends();
    pair.socket.shutdown(Shutdown::Write).unwrap();
    assert!(pair.server_reads());
    pair.server.shutdown_write().unwrap();
}

#[test]
fn before_the_handshake_nothing_can_be_said() {
    let mut pair = Pair::new("before", &[&version::TLS13]);
    assert_eq!(pair.server.write(b"x").unwrap_err().kind(), ErrorKind::NotConnected);
    pair.shake_hands();
    assert_eq!(pair.server.write(b"x").unwrap(), 1);
}

/// Sends the server bytes that are not TLS. Returns its error, and the bytes that the client got.
fn garbage(test: &str, bytes: &[u8]) -> (io::Error, Vec<u8>) {
    let folder = Folder::new(test);
    folder.pair();
    let (mut client, accepted) = sockets();
    let mut server = folder.load().unwrap().accept(accepted).unwrap();
    client.write_all(bytes).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    let mut buf = [0; 1000];
    let error = server.read(&mut buf).unwrap_err();
    server.shutdown_write().unwrap();
    // Everything else that the client sends is discarded, up to its end.
    client.write_all(b"and more").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    while server.read(&mut buf).unwrap() > 0 {}
    drop(server);
    let mut got = Vec::new();
    client.set_nonblocking(false).unwrap();
    client.read_to_end(&mut got).unwrap();
    (error, got)
}

#[test]
fn plaintext_on_the_tls_port_gets_a_clear_end() {
    // HELLO of Purpose, and an HTTP request.
    for bytes in [&b"\x02\0\0\0\x20\x01\0\x01"[..], b"GET / HTTP/1.1\r\n\r\n"] {
        let (error, got) = garbage("plaintext", bytes);
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(error.to_string().contains("does not speak TLS"), "{error}");
        // A fatal alert and the end.
        assert_eq!(got.len(), 7);
        assert_eq!((got[0], got[5]), (0x15, 2));
    }
}

#[test]
fn garbage_that_begins_like_tls_gets_an_alert() {
    // A ClientHello of 28 senseless bytes.
    let mut bytes = b"\x16\x03\x01\x00\x20\x01\x00\x00\x1c".to_vec();
    bytes.extend([0xff; 28]);
    let (error, got) = garbage("garbage", &bytes);
    assert!(error.to_string().starts_with("TLS: "), "{error}");
    assert_eq!(got[0], 0x15);
}

#[test]
fn garbage_after_the_handshake_ends_it_after_what_was_whole() {
    let mut pair = Pair::connected("tampered");
    pair.client_says(b"whole");
    (&pair.socket).write_all(b"\x17\x03\x03\x00\x20tampered-tampered-tampered-tamp!").unwrap();
    std::thread::sleep(Duration::from_millis(5));
    let mut buf = [0; 100];
    assert_eq!(pair.server.read(&mut buf).unwrap(), 5);
    assert_eq!(&buf[..5], b"whole");
    assert_eq!(pair.server.read(&mut buf).unwrap_err().kind(), ErrorKind::InvalidData);
    assert!(pair.server.write(b"x").is_err());
}

#[test]
fn after_its_own_close_notify_the_server_hears_nothing() {
    let mut pair = Pair::connected("deaf");
    pair.server.shutdown_write().unwrap();
    pair.client_says(b"unheard");
    (&pair.socket).write_all(b"\x17\x03\x03\x00\x20tampered-tampered-tampered-tamp!").unwrap();
    pair.socket.shutdown(Shutdown::Write).unwrap();
    // Thrown away, up to the end.
    assert!(pair.server_reads());
}

#[test]
fn a_handshake_message_without_end_is_refused() {
    let folder = Folder::new("endless");
    folder.pair();
    let (client, accepted) = sockets();
    let mut server = folder.load().unwrap().accept(accepted).unwrap();
    // A ClientHello of 16 MiB, in records of 16 KiB.
    let mut record = b"\x16\x03\x01\x40\x00".to_vec();
    record.extend([0; 16 * 1024]);
    record[5..9].copy_from_slice(&[1, 0xff, 0xff, 0xff]);
    let mut buf = [0; 1000];
    for sent in 0..64 {
        (&client).write_all(&record).unwrap();
        record[5..9].copy_from_slice(&[0; 4]);
        std::thread::sleep(Duration::from_millis(1));
        match server.read(&mut buf) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::InvalidData);
                assert!(sent * record.len() <= crate::limits::TLS_INCOMING_BYTES_MAX);
                return;
            }
            Ok(_) => panic!("nothing was said"),
        }
    }
    panic!("a megabyte was kept");
}

#[test]
fn a_peer_that_does_not_read_costs_bounded_memory() {
    let mut pair = Pair::connected("slow");
    let bytes = vec![7; 1 << 20];
    let mut taken = 0;
    let error = loop {
        match pair.server.write(&bytes) {
            Ok(count) => {
                assert!(count <= TLS_WRITE_BYTES_MAX);
                taken += count;
            }
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(pair.server.wants_write());
    assert!(pair.stream().waiting() <= TLS_OUTGOING_BYTES_MAX);
    // As it reads, everything comes, and the end behind it.
    assert_eq!(pair.server.shutdown_write().unwrap_err().kind(), ErrorKind::WouldBlock);
    let mut heard = 0;
    while heard < taken || pair.server.wants_write() {
        heard += pair.client_hears().len();
        let _ = pair.server.flush();
    }
    assert_eq!(heard, taken);
    pair.client_receives();
    assert_eq!(pair.client.reader().read(&mut [0]).unwrap(), 0);
}

#[test]
fn an_idle_connection_holds_no_buffer() {
    let mut pair = Pair::connected("idle");
    pair.client_says(&[1; 30_000]);
    pair.server_reads();
    assert_eq!(pair.server.write(&[2; 30_000]).unwrap(), 30_000);
    pair.client_hears();
    pair.server.flush().unwrap();
    assert_eq!(pair.stream().room(), 0);
}

/// A small random number generator, deterministic by its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % sides
    }
}

/// Damages records: changes, omits, inserts or duplicates bytes.
fn hurt(records: &mut Vec<u8>, dice: &mut Dice) {
    if records.is_empty() || dice.roll(3) > 0 {
        return;
    }
    let at = dice.roll(records.len());
    match dice.roll(5) {
        0 => records[at] ^= 1 << dice.roll(8),
        1 => records[at.min(8)] = dice.roll(256) as u8,
        2 => records.truncate(at),
        3 => records.insert(at, dice.roll(256) as u8),
        _ => records.extend_from_within(..),
    }
}

/// The server's end does whatever a caller may do, in any order, while the client's records come
/// hurt: it ends or it waits, and it never panics.
#[test]
fn no_record_makes_the_server_panic() {
    let folder = Folder::new("hurt");
    let root = folder.pair();
    let identity = folder.load().unwrap();
    let (mut broken, mut heard) = (0, 0);
    for seed in 1..=400 {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let version = [&version::TLS13, &version::TLS12][dice.roll(2)];
        let mut pair = Pair::with(&identity, root.clone(), &[version]);
        let mut buf = vec![0; [1, 100, 20_000][dice.roll(3)]];
        let mut is_over = false;
        for _ in 0..12 {
            if !pair.client.is_handshaking() {
                let _ = pair.client.writer().write_all(&vec![7; dice.roll(5000)]);
            }
            let mut records = Vec::new();
            while pair.client.wants_write() {
                pair.client.write_tls(&mut records).unwrap();
            }
            hurt(&mut records, &mut dice);
            let _ = (&pair.socket).write_all(&records);
            std::thread::sleep(Duration::from_micros(50));
            for _ in 0..dice.roll(10) {
                match pair.server.read(&mut buf) {
                    Ok(count) => heard += count,
                    Err(error) => broken += usize::from(error.kind() == ErrorKind::InvalidData),
                }
            }
            match dice.roll(12) {
                0 => drop(pair.server.shutdown_write()),
                1..6 => drop(pair.server.write(&vec![7; dice.roll(40_000)])),
                6 => {
                    pair.client.send_close_notify();
                    is_over = true;
                }
                7 if !is_over && !pair.client.is_handshaking() => {
                    drop(pair.client.refresh_traffic_keys())
                }
                _ => drop(pair.server.flush()),
            }
            // A rustls session asserts that it checks nothing after its own close_notify.
            let _ = pair.client.read_tls(&mut pair.socket);
            is_over = is_over || pair.client.process_new_packets().is_err();
            if is_over {
                continue;
            }
            let _ = pair.client.reader().read(&mut [0; 10_000]);
        }
    }
    // Both kinds of ends were met.
    assert!(broken > 50 && heard > 10_000, "{broken} {heard}");
}

#[test]
fn a_new_certificate_leaves_old_connections_alone() {
    let folder = Folder::new("reload");
    let old_root = folder.pair();
    let mut identity = folder.load().unwrap();
    let mut old = Pair::with(&identity, old_root.clone(), &[&version::TLS13]);
    old.shake_hands();

    // A bad pair keeps the old one.
    fs::write(folder.file("key.pem"), "nonsense").unwrap();
    let error = identity.reload().unwrap_err();
    assert!(error.to_string().contains("key.pem"), "{error}");
    Pair::with(&identity, old_root, &[&version::TLS13]).shake_hands();

    let new_root = folder.pair();
    identity.reload().unwrap();
    let mut new = Pair::with(&identity, new_root, &[&version::TLS13]);
    new.shake_hands();
    old.client_says(b"still here");
    old.server_reads();
    assert_eq!(old.heard, b"still here");
}

#[test]
fn bad_files_are_named_in_one_line() {
    let folder = Folder::new("files");
    folder.pair();
    let (certificate, key) = (folder.file("cert.pem"), folder.file("key.pem"));
    let other = folder.file("other.pem");
    let newcomer = generate_simple_self_signed(["x".to_owned()]).unwrap().signing_key;
    let says = |certificate: &Path, key: &Path, words: &str| {
        let error = Identity::load(certificate, key).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert!(!error.contains('\n'), "{error}");
    };
    says(&folder.file("none.pem"), &key, "cannot read");
    says(&key, &key, "no certificate in");
    says(&certificate, &certificate, "no private key in");
    fs::write(&other, newcomer.serialize_pem()).unwrap();
    says(&certificate, &other, "is not that of the certificate");
    fs::write(&other, "").unwrap();
    says(&other, &key, "no certificate in");
    fs::write(&other, "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n").unwrap();
    says(&other, &key, "is damaged");
    fs::write(&other, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    says(&other, &key, "other.pem");
    fs::write(&other, vec![b'x'; PEM_BYTES_MAX as usize + 1]).unwrap();
    says(&other, &key, "too long");
    says(&folder.0, &key, "cannot read");
}

#[test]
fn a_client_hello_is_sent_from_a_frame() {
    let mut pair = Pair::new("looks", &[&version::TLS13]);
    let mut hello = Vec::new();
    pair.client.write_tls(&mut hello).unwrap();
    assert!(looks_like_tls(&hello));
    assert!(!looks_like_tls(b"\x02\0\0\0\x20\x01\0\x01"));
    assert!(!looks_like_tls(b"\x16\x03"));
}

#[test]
fn a_certificate_that_ends_is_reported_in_time() {
    use std::time::Duration;
    let folder = std::env::temp_dir().join(format!("vestnik-expiry-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let now = Duration::from_secs(1_795_305_600);
    let made = crate::certificate::self_signed::self_signed(&["chat.lan".to_owned()], now).unwrap();
    made.write(&certificate, &key).unwrap();
    let identity = super::Identity::load(&certificate, &key).unwrap();
    let day = Duration::from_secs(24 * 60 * 60);
    let after = |days: u32| identity.expiry_warning(now + day * days);
    assert_eq!(after(0), None);
    assert!(after(3640).unwrap().contains("expires in"));
    assert!(after(3651).unwrap().contains("has expired"));
    std::fs::remove_dir_all(folder).unwrap();
}

/// Accepts every certificate: whether the challenge's is right is the authority's to check.
#[derive(Debug)]
struct Authority(rustls::crypto::WebPkiSupportedAlgorithms);

impl rustls::client::danger::ServerCertVerifier for Authority {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// The certificate that a client gets who asks for a name by these protocols, and what the server
/// reads of what it says next; `None` when the handshake fails.
fn asked(identity: &Identity, name: &str, protocols: &[&[u8]]) -> Option<(Vec<u8>, Vec<u8>)> {
    let algorithms = default_provider().signature_verification_algorithms;
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Authority(algorithms)))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let client = ClientConnection::new(Arc::new(config), name).unwrap();
    let (socket, accepted) = sockets();
    let server = identity.accept(accepted).unwrap();
    let mut pair = Pair { client, socket, server, heard: Vec::new(), cut: usize::MAX };
    pair.client_says(b"GET /");
    for _ in 0..20 {
        pair.client_sends();
        let mut buf = [0; 100];
        std::thread::sleep(Duration::from_micros(200));
        match pair.server.read(&mut buf) {
            Ok(0) => break,
            Ok(count) => pair.heard.extend_from_slice(&buf[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
        let _ = pair.client.read_tls(&mut pair.socket);
        pair.client.process_new_packets().ok()?;
    }
    let certificate = pair.client.peer_certificates()?.first()?.to_vec();
    Some((certificate, pair.heard))
}

#[test]
fn a_challenge_is_answered_for_its_name_alone_and_ends_there() {
    let folder = Folder::new("challenge");
    let own = folder.pair().to_vec();
    let mut identity = folder.load().unwrap();
    let acme: &[&[u8]] = &[b"acme-tls/1"];
    assert_eq!(asked(&identity, "localhost", acme), None, "no challenge is under way");

    let made = generate_simple_self_signed(["chat.example.org".to_owned()]).unwrap();
    let (expected, key) = (made.cert.der().clone(), made.signing_key.serialize_der());
    let challenge = acme::Challenge {
        name: "chat.example.org".to_owned(),
        certificate: expected.clone(),
        key: rustls::pki_types::PrivateKeyDer::try_from(key).unwrap(),
    };
    identity.answer_challenge(Some(challenge)).unwrap();
    let answer = asked(&identity, "Chat.Example.org", acme);
    assert_eq!(answer, Some((expected.to_vec(), Vec::new())), "and nothing is read");
    assert_eq!(asked(&identity, "localhost", acme), None);
    // Everybody else gets the server's own, by whatever other protocol.
    for protocols in [&[][..], &[&b"http/1.1"[..]], &[&b"acme-tls/1"[..], b"http/1.1"]] {
        let answer = asked(&identity, "chat.example.org", protocols);
        assert_eq!(answer, Some((own.clone(), b"GET /".to_vec())));
    }
    // A reload in between keeps the challenge.
    let own = folder.pair().to_vec();
    identity.reload().unwrap();
    assert_eq!(asked(&identity, "chat.example.org", acme).unwrap().0, expected.to_vec());
    assert_eq!(asked(&identity, "chat.example.org", &[]).unwrap().0, own);
    identity.answer_challenge(None).unwrap();
    assert_eq!(asked(&identity, "chat.example.org", acme), None);
}

#[test]
fn without_a_certificate_handshakes_fail() {
    let folder = Folder::new("without");
    let mut identity =
        Identity::without_pair(&folder.file("cert.pem"), &folder.file("key.pem")).unwrap();
    assert_eq!(asked(&identity, "localhost", &[]), None);
    assert!(identity.reload().is_err());
    let own = folder.pair().to_vec();
    identity.reload().unwrap();
    assert_eq!(asked(&identity, "localhost", &[]).unwrap().0, own);
}
