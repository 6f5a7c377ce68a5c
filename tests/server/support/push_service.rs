//! A push service over HTTPS that a test answers for, and browsers that can read what it gets.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ring::agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A request that reached the service.
#[derive(Clone)]
pub(crate) struct Received {
    pub(crate) host: String,
    pub(crate) path: String,
    /// By lower-cased name.
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// What the service does with one.
#[derive(Clone)]
pub(crate) enum Answer {
    /// A status, and header lines, each with its end.
    Status(u16, &'static str),
    /// Nothing, as long as the connection lives.
    Silence,
    /// A body without end.
    Endless,
    /// Bytes that are no HTTP.
    Garbage,
    /// The end of the connection.
    Close,
}

type Decide = dyn Fn(&Received) -> Answer + Send + Sync;

/// The service. Its threads end with the test's process.
pub(crate) struct PushService {
    pub(crate) address: SocketAddr,
    /// Its certificate, which is its own authority.
    pub(crate) ca: PathBuf,
    received: Arc<Mutex<Vec<Received>>>,
    decide: Arc<Mutex<Arc<Decide>>>,
}

impl PushService {
    /// A service by some names, whose certificate lies in a folder.
    pub(crate) fn start(folder: &Path, names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let ca = folder.join("push-ca.pem");
        std::fs::write(&ca, made.cert.pem()).expect("a file");
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], PrivateKeyDer::Pkcs8(key))
            .expect("a pair");
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let received = Arc::new(Mutex::new(Vec::new()));
        let decide: Arc<Decide> = Arc::new(|_: &Received| Answer::Status(201, ""));
        let decide = Arc::new(Mutex::new(decide));
        let service = Self { address, ca, received, decide };
        let (received, decide) = (Arc::clone(&service.received), Arc::clone(&service.decide));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let connection = ServerConnection::new(Arc::clone(&config)).expect("a connection");
                let stream = StreamOwned::new(connection, stream);
                let (received, decide) = (Arc::clone(&received), Arc::clone(&decide));
                std::thread::spawn(move || serve(stream, &received, &decide));
            }
        });
        service
    }

    /// Decides what is answered from now on.
    pub(crate) fn answer(&self, decide: impl Fn(&Received) -> Answer + Send + Sync + 'static) {
        *self.decide.lock().expect("no panic") = Arc::new(decide);
    }

    /// All requests so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().expect("no panic").clone()
    }

    /// The paths of all requests so far.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.received().into_iter().map(|received| received.path).collect()
    }

    /// Waits until there are that many requests.
    #[track_caller]
    pub(crate) fn wait_for(&self, count: usize) -> Vec<Received> {
        let begun = Instant::now();
        loop {
            let received = self.received();
            if received.len() >= count {
                return received;
            }
            let paths = self.paths();
            assert!(begun.elapsed() < Duration::from_secs(120), "{paths:?} of {count}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

type Tls = StreamOwned<ServerConnection, TcpStream>;

fn serve(stream: Tls, received: &Mutex<Vec<Received>>, decide: &Mutex<Arc<Decide>>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream) {
        let decide = Arc::clone(&decide.lock().expect("no panic"));
        let answer = decide(&request);
        received.lock().expect("no panic").push(request);
        let out = stream.get_mut();
        let sent = match answer {
            Answer::Status(status, headers) => {
                let said = "{\"reason\":\"as the test says\"}";
                let length = said.len();
                write!(
                    out,
                    "HTTP/1.1 {status} x\r\n{headers}content-length: {length}\r\n\r\n{said}"
                )
            }
            Answer::Silence => {
                std::thread::sleep(Duration::from_secs(600));
                return;
            }
            Answer::Endless => endless(out),
            Answer::Garbage => out.write_all(&[0xff; 4096]),
            Answer::Close => return,
        };
        if sent.and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

fn endless(out: &mut Tls) -> std::io::Result<()> {
    out.write_all(b"HTTP/1.1 503 x\r\ntransfer-encoding: chunked\r\n\r\n")?;
    loop {
        out.write_all(b"400\r\n")?;
        out.write_all(&[b'x'; 0x400])?;
        out.write_all(b"\r\n")?;
        out.flush()?;
    }
}

fn read(stream: &mut BufReader<Tls>) -> Option<Received> {
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let path = line.strip_prefix("POST ")?.split(' ').next()?.to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok())?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    let host = headers.get("host").cloned().unwrap_or_default();
    Some(Received { host, path, headers, body })
}

/// A browser that has subscribed: it can read one push.
pub(crate) struct Browser {
    private: EphemeralPrivateKey,
    pub(crate) public: Vec<u8>,
    pub(crate) auth: [u8; 16],
}

impl Browser {
    pub(crate) fn new() -> Self {
        let random = SystemRandom::new();
        let private = EphemeralPrivateKey::generate(&ECDH_P256, &random).expect("a key");
        let public = private.compute_public_key().expect("a key").as_ref().to_vec();
        let mut auth = [0; 16];
        random.fill(&mut auth).expect("randomness");
        Self { private, public, auth }
    }

    /// Reads the body of a push, by RFC 8291 and 8188.
    #[track_caller]
    pub(crate) fn read(self, body: &[u8]) -> serde_json::Value {
        let (salt, rest) = body.split_at(16);
        let (head, rest) = rest.split_at(5);
        assert_eq!(head[..4], 4096_u32.to_be_bytes());
        let (server, record) = rest.split_at(usize::from(head[4]));
        assert!(body.len() <= 4096, "{}", body.len());
        let peer = UnparsedPublicKey::new(&ECDH_P256, server);
        let prk = agree_ephemeral(self.private, &peer, |secret| {
            Salt::new(HKDF_SHA256, &self.auth).extract(secret)
        });
        let ikm: [u8; 32] =
            expand(&prk.expect("a secret"), &[b"WebPush: info\0", &self.public, server]);
        let prk = Salt::new(HKDF_SHA256, salt).extract(&ikm);
        let key: [u8; 16] = expand(&prk, &[b"Content-Encoding: aes128gcm\0"]);
        let nonce: [u8; 12] = expand(&prk, &[b"Content-Encoding: nonce\0"]);
        let key = ring::aead::UnboundKey::new(&ring::aead::AES_128_GCM, &key).expect("a key");
        let nonce = ring::aead::Nonce::assume_unique_for_key(nonce);
        let mut record = record.to_vec();
        let text = ring::aead::LessSafeKey::new(key)
            .open_in_place(nonce, ring::aead::Aad::empty(), &mut record)
            .expect("a record for this browser");
        let end = text.iter().rposition(|byte| *byte != 0).expect("a delimiter");
        assert_eq!(text[end], 2, "the last record");
        serde_json::from_slice(&text[..end]).expect("JSON")
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand<const N: usize>(prk: &Prk, info: &[&[u8]]) -> [u8; N] {
    let mut out = [0; N];
    prk.expand(info, Length(N)).expect("a length").fill(&mut out).expect("a length");
    out
}

/// The bytes of a text of base64url.
pub(crate) fn base64url(text: &str) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for letter in text.bytes() {
        let value = DIGITS.iter().position(|digit| *digit == letter).expect("base64url");
        bits = bits << 6 | value as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}
