//! Web Push: the real binary with a push service over HTTPS (protocol section 5a).

use std::process::Command;

use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

use crate::support::push_service::{Answer, Browser, PushService, base64url};
use crate::support::server::{run, vestnik};
use crate::support::wire::*;
use crate::support::{Client, Server, TempDir, in_time};

const SUBSCRIBE_PUSH: u8 = 0x51;

/// A server that pushes to a service of the test's, which goes by some names.
struct World {
    server: Server,
    service: PushService,
    _folder: TempDir,
}

impl World {
    fn new(names: &[&str], options: &[&str]) -> Self {
        let folder = TempDir::new();
        let service = PushService::start(folder.path(), names);
        let hosts = names.join(",");
        let resolves: Vec<_> =
            names.iter().map(|name| format!("{name}={}", service.address)).collect();
        let resolves = resolves.join(",");
        let mut all = vec!["--push", "on", "--push-hosts", &hosts, "--push-resolve", &resolves];
        all.extend(options);
        let environment = format!("export SSL_CERT_FILE='{}'", service.ca.display());
        let server = Server::after(&environment, &all);
        Self { server, service, _folder: folder }
    }

    /// `vestnik push test`, as the operator would run it.
    fn push_test(&self, args: &[&str]) -> std::process::Output {
        let mut command = vestnik(self.server.dir().path());
        command.env("SSL_CERT_FILE", &self.service.ca);
        command.args(["push", "test"]).args(args).arg("--data").arg(self.server.data());
        let address = self.service.address;
        command.args(["--push-hosts", "push.example"]);
        command.arg("--push-resolve").arg(format!("push.example={address}"));
        run(command, None)
    }

    /// How many pushes wait, once they are in the database.
    fn pending(&self) -> u32 {
        let db = rusqlite::Connection::open(self.server.data()).expect("the database");
        db.query_row("SELECT count(*) FROM push_pending", [], |row| row.get(0)).expect("a count")
    }

    fn subscriptions(&self) -> Vec<String> {
        let db = rusqlite::Connection::open(self.server.data()).expect("the database");
        let mut rows = db
            .prepare("SELECT endpoint FROM push_subscriptions ORDER BY endpoint")
            .expect("the table");
        let rows = rows.query_map([], |row| row.get(0)).expect("rows");
        rows.collect::<Result<_, _>>().expect("texts")
    }
}

#[track_caller]
fn subscribe(client: &mut Client, endpoint: &str, browser: &Browser) {
    let request = body().text(endpoint).bytes(&browser.public).bytes(&browser.auth);
    client.ask(SUBSCRIBE_PUSH, request).accepted_empty();
}

/// Has a user subscribe in a session that is not connected afterwards.
#[track_caller]
fn subscribe_and_leave(server: &Server, name: &str, endpoint: &str) -> Browser {
    let browser = Browser::new();
    let mut client = server.login11(name);
    subscribe(&mut client, endpoint, &browser);
    browser
}

/// What a server says is its key for pushes.
fn push_key(server: &Server) -> String {
    let mut client = server.connect();
    let hello = client.ask(HELLO, [1, 1]);
    let mut reader = Reader::of(true, &hello.body);
    reader.take(2 + 4 + 4);
    reader.text();
    reader.u64();
    reader.text()
}

/// Who is away gets the newest message ten seconds later, encrypted for their browser and signed by
/// the server's key; nobody else gets anything.
#[test]
fn a_push_reaches_who_is_away_and_nobody_else() {
    let url = "https://chat.example.org";
    let options = ["--public-url", url, "--push-contact", "admin@example.org"];
    let world = World::new(&["push.example"], &options);
    let (server, service) = (&world.server, &world.service);
    for name in ["anna", "boris", "clara", "dmitri", "elena"] {
        server.add_user(name);
    }
    server.add_chat("kitchen", &["anna", "boris", "clara", "dmitri", "elena"]);
    let mut anna = server.login11("anna");
    let kitchen = anna.chat_id("kitchen");
    let browser = subscribe_and_leave(server, "boris", "https://push.example/boris?x=1");
    // Clara is here, Dmitri wants nothing, and Elena reads it in another session.
    let mut clara = server.login11("clara");
    subscribe(&mut clara, "https://push.example/clara", &Browser::new());
    {
        let mut dmitri = server.login11("dmitri");
        subscribe(&mut dmitri, "https://push.example/dmitri", &Browser::new());
        dmitri.set_notify(kitchen, 2).accepted_empty();
    }
    subscribe_and_leave(server, "elena", "https://push.example/elena");
    // The sender's own other session gets none either.
    subscribe_and_leave(server, "anna", "https://push.example/anna");
    anna.send(kitchen, "first");
    let sent = anna.send(kitchen, "Tea is ready, @boris");
    let mut elena = server.login11("elena");
    elena.ask(MARK_SEEN, body().id(kitchen).time(sent.created)).accepted_empty();

    let received = service.wait_for(1).remove(0);
    assert_eq!((received.host.as_str(), received.path.as_str()), ("push.example", "/boris?x=1"));
    let header = |name: &str| received.headers.get(name).map(String::as_str);
    assert_eq!(header("content-encoding"), Some("aes128gcm"));
    assert_eq!(header("ttl"), Some("86400"));
    assert_eq!(header("urgency"), Some("high"));
    assert_eq!(header("topic").map(str::len), Some(32));
    let authorization = header("authorization").expect("a signature").to_owned();
    let text = browser.read(&received.body);
    let expected = serde_json::json!({
        "web_push": 8030,
        "notification": {
            "title": "kitchen",
            "body": "anna: Tea is ready, @boris",
            "navigate": format!("{url}/#chat={kitchen}"),
            "tag": format!("chat-{kitchen}"),
            "app_badge": 1,
        },
        "app_badge": 1,
    });
    assert_eq!(text, expected);
    check_signature(&authorization, &push_key(server));
    in_time(|| world.pending() == 0);
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(service.paths(), ["/boris?x=1"]);
    let metrics = server.metrics();
    assert_eq!(metrics["push_sent_total{outcome=\"delivered\"}"], 1.0);
}

/// RFC 8292: a token that anybody can verify by the key that clients are given.
#[track_caller]
fn check_signature(authorization: &str, key: &str) {
    let (token, shown) = authorization
        .strip_prefix("vapid t=")
        .expect("a token")
        .split_once(",k=")
        .expect("a token");
    assert_eq!(shown, key);
    let (signed, signature) = token.rsplit_once('.').expect("a token");
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, base64url(key))
        .verify(signed.as_bytes(), &base64url(signature))
        .expect("a signature");
    let claims = base64url(signed.split_once('.').expect("a token").1);
    let claims: serde_json::Value = serde_json::from_slice(&claims).expect("a token");
    assert_eq!(claims["aud"], "https://push.example");
    assert_eq!(claims["sub"], "mailto:admin@example.org");
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a token").as_secs();
    let lifetime_s = claims["exp"].as_u64().expect("a token") - now;
    assert!((3600..=24 * 3600).contains(&lifetime_s), "{lifetime_s}");
}

/// The key is the same after a restart, and is in no log and no metric.
#[test]
fn the_key_stays_and_is_shown_to_nobody() {
    let mut world = World::new(&["push.example"], &[]);
    let key = push_key(&world.server);
    assert_eq!(base64url(&key).len(), 65);
    world.server.kill();
    world.server.restart();
    assert_eq!(push_key(&world.server), key);
    assert_eq!(push_key(&Server::start()), "", "without pushes");
    let stored: Vec<u8> = {
        let db = rusqlite::Connection::open(world.server.data()).expect("the database");
        db.query_row("SELECT pkcs8 FROM push_key", [], |row| row.get(0)).expect("a key")
    };
    let hex: String = stored[36..68].iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(!world.server.stderr().to_lowercase().contains(&hex));
}

/// Services that are silent, endless, nonsense or far away: pushes to others arrive meanwhile, and
/// messages as ever. Redirects are not followed.
#[test]
fn hostile_push_services_delay_nobody() {
    let names = ["push.example", "silent.example", "hostile.example"];
    let world = World::new(&names, &[]);
    let (server, service) = (&world.server, &world.service);
    service.answer(|received| match (received.host.as_str(), received.path.as_str()) {
        ("silent.example", _) => Answer::Silence,
        (_, "/endless") => Answer::Endless,
        (_, "/garbage") => Answer::Garbage,
        (_, "/close") => Answer::Close,
        (_, "/redirect") => Answer::Status(307, "location: https://push.example/elsewhere\r\n"),
        _ => Answer::Status(201, ""),
    });
    server.add_user("anna");
    server.add_chat("hall", &["anna"]);
    let endpoints: Vec<String> = (0..8)
        .map(|at| format!("https://silent.example/{at}"))
        .chain(
            ["endless", "garbage", "close", "redirect"]
                .map(|path| format!("https://hostile.example/{path}")),
        )
        .chain(["https://push.example/good".to_owned()])
        .collect();
    for (at, endpoint) in endpoints.iter().enumerate() {
        let name = format!("user{at}");
        server.add_user(&name);
        server.admin_ok(&["chat", "join", "hall", &name], None);
        subscribe_and_leave(server, &name, endpoint);
    }
    let mut anna = server.login11("anna");
    let hall = anna.chat_id("hall");
    anna.send(hall, "hello");
    in_time(|| service.paths().contains(&"/good".to_owned()));
    // The silent ones are silent still, half of the threads at most wait for them, and messages go.
    anna.send(hall, "again");
    in_time(|| {
        let paths = service.paths();
        ["/endless", "/garbage", "/close", "/redirect"]
            .iter()
            .all(|path| paths.contains(&(*path).to_owned()))
    });
    let paths = service.paths();
    assert!(!paths.contains(&"/elsewhere".to_owned()), "{paths:?}");
    let silent = service.received().iter().filter(|it| it.host == "silent.example").count();
    assert!(silent <= 8, "{silent}");
    in_time(|| server.metrics()["push_sent_total{outcome=\"failed\"}"] >= 1.0);
    anna.send(hall, "and again");
}

/// What could not be sent is sent after a crash, and a subscription that is over ends.
#[test]
fn pushes_survive_a_crash_and_subscriptions_end() {
    let mut world = World::new(&["push.example"], &[]);
    world.service.answer(|received| match received.path.as_str() {
        "/gone" => Answer::Status(410, ""),
        "/unknown" => Answer::Status(404, ""),
        _ => Answer::Status(503, ""),
    });
    for name in ["anna", "boris", "clara", "dmitri"] {
        world.server.add_user(name);
    }
    world.server.add_chat("hall", &["anna", "boris", "clara", "dmitri"]);
    let browser = subscribe_and_leave(&world.server, "boris", "https://push.example/boris");
    subscribe_and_leave(&world.server, "clara", "https://push.example/gone");
    subscribe_and_leave(&world.server, "dmitri", "https://push.example/unknown");
    {
        let mut anna = world.server.login11("anna");
        let hall = anna.chat_id("hall");
        anna.send(hall, "hello");
    }
    world.service.wait_for(3);
    in_time(|| world.pending() == 1 && world.subscriptions().len() == 1);
    assert_eq!(world.subscriptions(), ["https://push.example/boris"]);
    world.server.kill();
    world.service.answer(|_| Answer::Status(201, ""));
    world.server.restart();
    let received = world.service.wait_for(4);
    assert_eq!(received[3].path, "/boris");
    let text = browser.read(&received[3].body);
    assert_eq!(text["notification"]["body"], "anna: hello");
    in_time(|| world.pending() == 0);
}

/// With `--push-content none` nothing of a message leaves the server.
#[test]
fn a_push_can_keep_the_text_back() {
    let world = World::new(&["push.example"], &["--push-content", "none"]);
    for name in ["anna", "boris"] {
        world.server.add_user(name);
    }
    let browser = subscribe_and_leave(&world.server, "boris", "https://push.example/boris");
    let mut anna = world.server.login11("anna");
    let boris = anna.user_id("boris");
    let chat = anna.start_chat(boris);
    anna.send(chat, "a secret");
    let received = world.service.wait_for(1).remove(0);
    let text = browser.read(&received.body);
    assert_eq!(text["notification"]["body"], "New message");
    assert!(!text.to_string().contains("secret"), "{text}");
}

/// The operator sees what a push service says.
#[test]
fn push_test_shows_what_the_service_answers() {
    let world = World::new(&["push.example"], &[]);
    for name in ["anna", "boris"] {
        world.server.add_user(name);
    }
    let browser = subscribe_and_leave(&world.server, "boris", "https://push.example/boris");
    let none = world.push_test(&["anna"]);
    assert_eq!(none.status.code(), Some(1));
    let said = String::from_utf8_lossy(&none.stderr).into_owned();
    assert!(said.contains("has no subscription"), "{said}");

    let sent = world.push_test(&["boris", "--json"]);
    let said = String::from_utf8_lossy(&sent.stderr).into_owned();
    assert_eq!(sent.status.code(), Some(0), "{said}");
    let rows: serde_json::Value = serde_json::from_slice(&sent.stdout).expect("JSON");
    assert_eq!(rows[0]["host"], "push.example");
    assert_eq!(rows[0]["status"], 201);
    assert_eq!(rows[0]["answer"], "delivered");
    let received = world.service.wait_for(1).remove(0);
    assert_eq!(browser.read(&received.body)["notification"]["title"], "vestnik");

    world.service.answer(|_| Answer::Status(403, ""));
    let declined = world.push_test(&["boris"]);
    assert_eq!(declined.status.code(), Some(1));
    let shown = String::from_utf8_lossy(&declined.stdout).into_owned();
    assert!(shown.contains("403") && shown.contains("as the test says"), "{shown}");
    let unknown = world.push_test(&["nobody"]);
    assert_eq!(unknown.status.code(), Some(1));
}

/// A server that nobody has subscribed to resolves and connects to nothing, with pushes on.
#[test]
fn nothing_is_resolved_or_connected_to_without_a_subscription() {
    if !Command::new("strace").arg("-V").output().is_ok_and(|output| output.status.success()) {
        eprintln!("there is no strace here: nothing is tested");
        return;
    }
    let folder = TempDir::new();
    let trace_file = folder.join("trace");
    // -D: the tracer is no parent, so that the test's signals reach the server.
    let trace = trace_file.display();
    // -D: the tracer is no parent, so that the test's signals reach the server.
    let strace = format!("strace -D -f -e trace=connect,openat -o '{trace}'");
    let tried = Command::new("sh").args(["-c", &format!("{strace} true")]).status();
    if !tried.is_ok_and(|status| status.success()) {
        eprintln!("strace may not trace here: nothing is tested");
        return;
    }
    let mut server = Server::after(&format!("exec {strace} \"$0\" \"$@\""), &["--push", "on"]);
    let [(mut anna, _), (boris, boris_id)] = server.users11(["anna", "boris"]);
    let chat = anna.start_chat(boris_id);
    drop(boris);
    anna.send(chat, "hello");
    std::thread::sleep(std::time::Duration::from_secs(13));
    server.stop_by("TERM");
    let trace = std::fs::read_to_string(&trace_file).expect("a trace");
    assert!(trace.contains("t.db"), "the server was traced");
    for forbidden in ["AF_INET", "resolv.conf", "/etc/hosts", "nsswitch", "ca-certificates"] {
        let found: Vec<_> = trace.lines().filter(|line| line.contains(forbidden)).collect();
        assert!(found.is_empty(), "{forbidden}: {found:?}");
    }
}
