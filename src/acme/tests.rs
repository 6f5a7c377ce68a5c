//! Tests with an authority that misbehaves, over real HTTPS: each defect fails the attempt and
//! nothing else.

use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::crypto::ring::default_provider;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::attempt::{Callbacks, attempt};
use super::failure::Failure;
use super::storage::{Storage, StoredOrder};
use super::{Now, Worker};
use crate::certificate::self_signed::self_signed;
use crate::certificate::x509::Validity;
use crate::certificate::{read_certificates, read_key};
use crate::config::Acme;
use crate::wire::base64::decode_url;

/// 22 November 2026.
const NOW: Duration = Duration::from_secs(1_795_305_600);
const NAME: &str = "chat.example";

/// An answer of the authority.
#[derive(Clone)]
enum Reply {
    Json(u16, Value),
    Bytes(u16, Vec<u8>),
    /// A body without end.
    Endless,
    /// A byte now and then.
    Drip,
    /// Something that is not HTTP.
    Garbage,
    Nothing,
}

type Answer = Box<dyn Fn(&str, usize, &Value) -> Option<Reply> + Send>;

/// An authority on its own port. Its thread ends with the process.
struct Authority {
    acme: Acme,
    storage: Storage,
    folder: PathBuf,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Authority {
    /// Starts an authority. `answer` gets the path, the number of earlier requests for it, and
    /// the payload; where it returns `None`, the authority answers as a correct one does.
    fn new(
        test: &str,
        answer: impl Fn(&str, usize, &Value) -> Option<Reply> + Send + 'static,
    ) -> Self {
        let name = format!("vestnik-acme-{}-{test}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        #[allow(clippy::disallowed_methods, reason = "the client checks it by the real clock")]
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        self_signed(&["127.0.0.1".to_owned()], now).unwrap().write(&cert, &key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = format!("https://{}", listener.local_addr().unwrap());
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(read_certificates(&cert).unwrap(), read_key(&key).unwrap())
            .unwrap();
        let acme = Acme {
            domains: vec![NAME.to_owned()],
            directory: format!("{origin}/dir"),
            contact: Some("me@example.org".to_owned()),
            ca: Some(cert),
        };
        let requests = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&requests);
        let answer: Answer = Box::new(answer);
        std::thread::Builder::new()
            .spawn(move || serve(&listener, &Arc::new(config), &origin, &answer, &heard))
            .unwrap();
        let storage = Storage::new(&folder.join("t.db"), &acme);
        Self { acme, storage, folder, requests }
    }

    /// Makes one attempt. Returns its result, its pauses, and the names of challenges it was to
    /// answer.
    fn attempt(&self) -> (Result<Validity, Failure>, usize, Vec<Option<String>>) {
        let (pauses, answers) = (RefCell::new(0), RefCell::new(Vec::new()));
        let mut callbacks = Callbacks {
            answer: &mut |challenge| {
                answers.borrow_mut().push(challenge.map(|challenge| challenge.name));
                Ok(())
            },
            pause: &mut |_| {
                *pauses.borrow_mut() += 1;
                Ok(())
            },
            now: NOW,
        };
        let outcome = attempt(&self.acme, &self.storage, &mut callbacks);
        (outcome, pauses.into_inner(), answers.into_inner())
    }

    /// The message of an attempt that fails.
    #[track_caller]
    fn fails(&self) -> Failure {
        let failure = self.attempt().0.expect_err("it fails");
        let message = failure.to_string();
        assert!(!message.contains(char::is_control) && message.len() < 900, "{message}");
        assert!(!self.storage.pair().exists(), "nothing takes the place of a pair");
        failure
    }

    fn requests(&self, path: &str) -> usize {
        self.requests.lock().unwrap().iter().filter(|heard| *heard == path).count()
    }
}

fn serve(
    listener: &TcpListener,
    config: &Arc<ServerConfig>,
    origin: &str,
    answer: &Answer,
    heard: &Mutex<Vec<String>>,
) {
    for socket in listener.incoming() {
        let Ok(socket) = socket else { return };
        let session = ServerConnection::new(Arc::clone(config)).unwrap();
        let mut stream = StreamOwned::new(session, socket);
        if let Some((path, payload)) = request(&mut stream) {
            let count = {
                let mut heard = heard.lock().unwrap();
                heard.push(path.clone());
                heard.iter().filter(|earlier| **earlier == path).count() - 1
            };
            let reply = answer(&path, count, &payload).unwrap_or_else(|| content(&path, origin));
            let _ = send(&mut stream, &path, origin, reply);
        }
    }
}

/// The path and the payload of a request.
fn request(stream: &mut StreamOwned<ServerConnection, TcpStream>) -> Option<(String, Value)> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let count = stream.read(&mut chunk).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok()
        });
        if body.len() < length.unwrap_or(0) {
            continue;
        }
        let path = head.split(' ').nth(1)?.to_owned();
        let signed: Value = serde_json::from_str(body).unwrap_or_default();
        let payload = signed["payload"].as_str().and_then(decode_url).unwrap_or_default();
        return Some((path, serde_json::from_slice(&payload).unwrap_or_default()));
    }
}

/// The answer of a correct authority.
fn content(path: &str, origin: &str) -> Reply {
    let at = |path: &str| format!("{origin}{path}");
    let challenge = |status| json!({ "type": "tls-alpn-01", "url": at("/challenge"), "token": "tok", "status": status });
    Reply::Json(
        if matches!(path, "/account" | "/new-order") { 201 } else { 200 },
        match path {
            "/dir" => json!({ "newNonce": at("/nonce"), "newAccount": at("/account"),
                "newOrder": at("/new-order"), "meta": { "website": "https://a.example" } }),
            "/authz" => json!({ "status": "valid", "identifier": { "type": "dns", "value": NAME },
                "challenges": [challenge("valid")] }),
            "/new-order" | "/order" => json!({ "status": "valid", "finalize": at("/finalize"),
                "authorizations": [at("/authz")], "certificate": at("/certificate") }),
            _ => json!({}),
        },
    )
}

fn send(
    stream: &mut StreamOwned<ServerConnection, TcpStream>,
    path: &str,
    origin: &str,
    reply: Reply,
) -> std::io::Result<()> {
    let head = |status: u16, length: usize| {
        let location = match path {
            "/account" => format!("Location: {origin}/account/1\r\n"),
            "/new-order" => format!("Location: {origin}/order\r\n"),
            _ => String::new(),
        };
        format!(
            "HTTP/1.1 {status} X\r\nReplay-Nonce: abc\r\nRetry-After: 7200\r\n{location}\
             Content-Length: {length}\r\nConnection: close\r\n\r\n"
        )
    };
    match reply {
        Reply::Json(status, value) => {
            let body = value.to_string();
            let body = if path == "/nonce" { "" } else { &body };
            stream.write_all((head(status, body.len()) + body).as_bytes())?;
        }
        Reply::Bytes(status, body) => {
            stream.write_all(head(status, body.len()).as_bytes())?;
            stream.write_all(&body)?;
        }
        Reply::Endless => {
            stream.write_all(head(200, 1 << 40).as_bytes())?;
            while stream.write_all(&[b' '; 8192]).is_ok() {}
        }
        Reply::Drip => {
            stream.write_all(head(200, 1000).as_bytes())?;
            while stream.write_all(b" ").and_then(|()| stream.flush()).is_ok() {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        Reply::Garbage => stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n")?,
        Reply::Nothing => {}
    }
    stream.conn.send_close_notify();
    stream.flush()
}

/// A problem of this type.
fn problem(status: u16, kind: &str) -> Option<Reply> {
    let kind = format!("urn:ietf:params:acme:error:{kind}");
    Some(Reply::Json(status, json!({ "type": kind, "detail": "so\u{1b} it\nis" })))
}

#[test]
fn hostile_answers_cost_the_attempt_alone() {
    let cases: [(&str, Reply, &str); 9] = [
        ("/dir", Reply::Garbage, "something that is not HTTP"),
        ("/dir", Reply::Nothing, "cannot ask"),
        ("/dir", Reply::Endless, "too long"),
        ("/dir", Reply::Drip, "does not answer in time"),
        ("/dir", Reply::Bytes(200, b"<html>welcome</html>".to_vec()), "not ACME"),
        ("/dir", Reply::Bytes(200, "[".repeat(100_000).into_bytes()), "not ACME"),
        ("/dir", Reply::Bytes(302, Vec::new()), "answers 302"),
        ("/account", Reply::Bytes(500, b"\x1b[2J".to_vec()), "answers 500"),
        ("/order", Reply::Json(200, json!({ "status": 7 })), "not ACME"),
    ];
    for (number, (path, reply, message)) in cases.into_iter().enumerate() {
        let answer = move |asked: &str, _: usize, _: &Value| (asked == path).then(|| reply.clone());
        let authority = Authority::new(&format!("hostile-{number}"), answer);
        let failure = authority.fails().to_string();
        assert!(failure.contains(message), "{number}: {failure}");
    }
}

#[test]
fn an_authority_sends_nobody_elsewhere() {
    for (number, url) in ["https://169.254.169.254/", "http://127.0.0.1/", "file:///etc/passwd", ""]
        .iter()
        .enumerate()
    {
        let answer = move |path: &str, _: usize, _: &Value| {
            let order = json!({ "status": "valid", "finalize": "", "certificate": url });
            (path == "/order").then_some(Reply::Json(200, order))
        };
        let authority = Authority::new(&format!("elsewhere-{number}"), answer);
        let failure = authority.fails().to_string();
        assert!(failure.contains("address of another host"), "{failure}");
    }
}

#[test]
fn a_nonce_that_is_not_known_is_tried_again() {
    let authority = Authority::new("nonce", |path, count, _| match path {
        "/account" if count < 5 => problem(400, "badNonce"),
        "/new-order" => problem(400, "badNonce"),
        _ => None,
    });
    let failure = authority.fails().to_string();
    assert!(failure.contains("as if it had been sent twice"), "{failure}");
    assert_eq!(authority.requests("/account"), 6);
    assert_eq!(authority.requests("/new-order"), crate::limits::ACME_NONCE_TRIES_MAX);
    // Each answer brings the next nonce.
    assert_eq!(authority.requests("/nonce"), 1);
}

#[test]
fn problems_say_what_to_do_and_when() {
    for (kind, message) in [
        ("rateLimited", "limits how often"),
        ("externalAccountRequired", "--acme-directory"),
        ("rejectedIdentifier", "no certificates for chat.example"),
    ] {
        let answer = move |path: &str, _: usize, _: &Value| {
            (path == "/new-order").then(|| problem(403, kind).unwrap())
        };
        let failure = Authority::new(kind, answer).fails();
        assert!(failure.to_string().contains(message), "{failure}");
        assert!(failure.to_string().contains("so it is"), "{failure}");
        assert_eq!(failure.retry_after, Some(Duration::from_secs(7200)));
    }
}

/// An authority whose order needs a check, which ends with this status.
fn checked(
    path: &str,
    challenges: Value,
    status: &str,
    order: &str,
    origin: &str,
) -> Option<Reply> {
    let identifier = json!({ "type": "dns", "value": NAME });
    match path {
        "/order" => Some(Reply::Json(
            200,
            json!({ "status": order, "finalize": format!("{origin}/finalize"),
                "authorizations": [format!("{origin}/authz")] }),
        )),
        "/authz" => Some(Reply::Json(
            200,
            json!({ "status": status, "identifier": identifier, "challenges": challenges }),
        )),
        _ => None,
    }
}

/// An authority whose `answer` also gets its origin, for the URLs in its answers.
fn with_origin(
    test: &str,
    answer: impl Fn(&str, usize, &str) -> Option<Reply> + Send + 'static,
) -> Authority {
    let origin = Arc::new(Mutex::new(String::new()));
    let known = Arc::clone(&origin);
    let authority = Authority::new(test, move |path, count, _| {
        let origin = known.lock().unwrap().clone();
        answer(path, count, &origin)
    });
    let directory = &authority.acme.directory;
    *origin.lock().unwrap() = directory.strip_suffix("/dir").unwrap().to_owned();
    authority
}

#[test]
fn a_failed_check_names_its_reason_and_ends_the_order() {
    let authority = with_origin("failed", |path, count, origin| {
        let error = json!({ "type": "urn:ietf:params:acme:error:connection", "detail": "refused" });
        let challenge = json!([{ "type": "http-01", "url": "", "token": "" },
            { "type": "tls-alpn-01", "url": format!("{origin}/challenge"), "token": "t",
              "status": "pending", "error": if count > 0 { error } else { Value::Null } }]);
        let status = if count > 0 { "invalid" } else { "pending" };
        checked(path, challenge, status, "pending", origin)
    });
    let (outcome, _, answers) = authority.attempt();
    let failure = outcome.unwrap_err().to_string();
    assert!(failure.contains("port 443 of chat.example cannot be reached"), "{failure}");
    assert_eq!(answers, [Some(NAME.to_owned()), None], "the answer ends with the check");
    assert_eq!(authority.requests("/challenge"), 1);
    assert_eq!(authority.storage.order(&authority.acme.domains), None);
}

#[test]
fn other_checks_are_not_supported() {
    let authority = with_origin("other", |path, _, origin| {
        let challenges = json!([{ "type": "http-01", "url": format!("{origin}/c"), "token": "t" }]);
        checked(path, challenges, "pending", "pending", origin)
    });
    let failure = authority.fails().to_string();
    assert!(failure.contains("does not check chat.example by tls-alpn-01"), "{failure}");
}

#[test]
fn a_name_that_was_not_ordered_is_not_answered_for() {
    let authority = with_origin("unordered", |path, _, origin| {
        let identifier = json!({ "type": "dns", "value": "victim.example" });
        let challenges = json!([{ "type": "tls-alpn-01", "url": format!("{origin}/challenge"),
            "token": "t", "status": "pending" }]);
        let asked = json!({ "status": "pending", "identifier": identifier,
            "challenges": challenges });
        match path {
            "/authz" => Some(Reply::Json(200, asked)),
            _ => checked(path, json!([]), "pending", "pending", origin),
        }
    });
    let (outcome, _, answers) = authority.attempt();
    assert!(outcome.unwrap_err().to_string().contains("was not ordered"));
    assert_eq!((answers.len(), authority.requests("/challenge")), (0, 0));
}

#[test]
fn the_worker_waits_after_a_failure_unless_it_is_asked_again() {
    let mut authority = Authority::new("worker", |path, _, _| match path {
        "/new-order" => problem(429, "rateLimited"),
        _ => None,
    });
    authority.acme.contact = None;
    let clock = || Now { wall: NOW, forward: Duration::ZERO };
    let data = authority.folder.join("t.db");
    let worker = Worker::start(&authority.acme, &data, clock, || {}).unwrap();
    let wait_for = |attempts| {
        for _ in 0..1000 {
            if authority.requests("/new-order") >= attempts {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("no attempt number {attempts}");
    };
    wait_for(1);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(authority.requests("/new-order"), 1);
    worker.try_again();
    wait_for(2);
    drop(worker);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(authority.requests("/new-order"), 2);
}

#[test]
fn an_authority_that_does_not_decide_is_not_asked_for_ever() {
    let authority = with_origin("undecided", |path, _, origin| {
        checked(path, json!([]), "valid", "processing", origin)
    });
    let (outcome, pauses, _) = authority.attempt();
    let failure = outcome.unwrap_err();
    assert!(failure.to_string().contains("comes to no decision") && failure.keeps_order);
    assert_eq!(pauses, 60);
    // The next attempt continues the same order.
    assert!(authority.storage.order(&authority.acme.domains).is_some());
    let _ = authority.attempt();
    assert_eq!(authority.requests("/new-order"), 1);
}

#[test]
fn an_order_that_is_void_is_replaced_by_another() {
    let authority = with_origin("void", |path, count, _| match path {
        "/order" if count == 0 => problem(404, "malformed"),
        _ => None,
    });
    authority.storage.prepare().unwrap();
    let order = authority.acme.directory.replace("/dir", "/order");
    let stored = StoredOrder::new(order, &authority.acme.domains, b"key");
    authority.storage.keep_order(&stored).unwrap();
    let _ = authority.attempt();
    assert_eq!(authority.requests("/new-order"), 1);
}

/// The authority has checked while the server was down: the order failed, but not by its name.
#[test]
fn a_continued_order_that_fails_is_replaced_once() {
    let authority = with_origin("replaced", |path, count, origin| {
        let challenges = json!([{ "type": "tls-alpn-01", "url": format!("{origin}/challenge"),
            "token": "t", "status": "pending" }]);
        let status = if count < 2 { "invalid" } else { "valid" };
        checked(path, challenges, status, "pending", origin)
    });
    authority.storage.prepare().unwrap();
    let order = authority.acme.directory.replace("/dir", "/order");
    let key = rcgen::KeyPair::generate().unwrap().serialize_der();
    let stored = StoredOrder::new(order, &authority.acme.domains, &key);
    authority.storage.keep_order(&stored).unwrap();
    let _ = authority.attempt();
    assert_eq!((authority.requests("/new-order"), authority.requests("/challenge")), (1, 1));
}

#[test]
fn a_certificate_that_clients_would_refuse_is_not_kept() {
    let pem = |names: &[&str], now: Duration| {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        self_signed(&names, now).unwrap().certificate.clone().into_bytes()
    };
    for (number, (body, message)) in [
        (b"no certificate".to_vec(), "sent no certificate"),
        (pem(&["other.example"], NOW), "for other names"),
        (pem(&[NAME], NOW), "for another key"),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = move |path: &str, _: usize, _: &Value| {
            (path == "/certificate").then(|| Reply::Bytes(200, body.clone()))
        };
        let authority = Authority::new(&format!("refused-{number}"), answer);
        let failure = authority.fails().to_string();
        assert!(failure.contains(message), "{failure}");
    }
}

#[test]
fn an_authority_that_is_not_there_or_not_trusted_is_named() {
    let mut authority = Authority::new("absent", |_, _, _| None);
    authority.acme.ca = Some(authority.folder.join("none.pem"));
    assert!(authority.fails().to_string().contains("none.pem"));
    let other = authority.folder.join("other.pem");
    let made = self_signed(&["127.0.0.1".to_owned()], NOW).unwrap();
    std::fs::write(&other, &made.certificate).unwrap();
    authority.acme.ca = Some(other);
    let failure = authority.fails().to_string();
    assert!(failure.contains("its certificate is not trusted"), "{failure}");
    authority.acme.directory = "https://127.0.0.1:1/dir".to_owned();
    let failure = authority.fails();
    assert!(failure.to_string().contains("127.0.0.1:1: connection refused"), "{failure}");
    assert!(failure.keeps_order);
    authority.acme.directory = "https://nowhere.invalid/dir".to_owned();
    let failure = authority.fails().to_string();
    assert!(failure.contains("cannot be resolved"), "{failure}");
}
