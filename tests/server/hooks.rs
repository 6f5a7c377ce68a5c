//! Messages of hooks: waiting for the write lock, rate limits, and answers (protocol section 9).

use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::support::client::login_body;
use crate::support::web::{self, Http};
use crate::support::wire::*;
use crate::support::{PASSWORD, Server, eventually};

/// Longer than anything takes that does not wait for the lock, on a busy machine.
const AT_ONCE: Duration = Duration::from_millis(400);

/// A group `ops` with a hook; returns the hook's path.
fn add_hook(server: &Server, members: &[&str]) -> String {
    for name in members {
        server.add_user(name);
    }
    server.add_chat("ops", members);
    let token = server.admin_ok(&["hook", "add", "ops", "monitor"], None);
    format!("/hook/{}", token.trim_end())
}

fn hold(server: &Server) -> Connection {
    let other = Connection::open(server.data()).expect("the data file");
    other.busy_timeout(Duration::from_secs(5)).expect("a timeout");
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    other
}

fn request(path: &str, lines: &str, text: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n\
         Content-Length: {}\r\n{lines}\r\n{text}",
        text.len()
    )
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// The status of an answer to a hook, and its Retry-After.
#[track_caller]
fn post(http: &mut Http, path: &str, text: &str) -> (u16, Option<u64>) {
    let answer = http.ask(request(path, "", text));
    let wait = answer.header("retry-after").map(|text| text.parse().expect("seconds"));
    (answer.status, wait)
}

/// While another process holds the write lock, messages of hooks wait in their order like all
/// writes, and pages and health checks do not.
#[test]
fn hooks_wait_for_the_write_lock() {
    let server = Server::start();
    let path = add_hook(&server, &["anna", "boris"]);
    let (mut anna, mut boris) = (server.login("anna"), server.login("boris"));
    let ops = anna.chat_id("ops");
    let mut posts: Vec<Http> = (0..3).map(|_| Http::connect(server.address())).collect();
    let mut page = Http::connect(server.address());
    for round in 0..3 {
        let other = hold(&server);
        for (number, http) in posts.iter_mut().enumerate() {
            // The next request on the same connection waits for its turn.
            http.send(request(&path, "", &format!("{round}/{number}")) + &get("/nothing"));
            std::thread::sleep(Duration::from_millis(20));
        }
        anna.post(SEND_CHAT_MSG, body().id(ops).text("also waits"));
        let begun = Instant::now();
        assert_eq!(page.get("/", "").status, 200);
        assert_eq!(page.get("/healthz", "").status, 200, "nothing has failed");
        assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
        std::thread::sleep(Duration::from_millis(200));
        other.execute_batch("COMMIT").expect("the end of the lock");
        for http in &mut posts {
            assert_eq!(http.answer(false).status, 204, "round {round}");
            assert_eq!(http.answer(false).status, 404, "what came after it");
        }
        anna.answer().accepted();
        let notified = boris.notified(ops, 4);
        let mut got = contents(&notified);
        got.retain(|text| *text != "also waits");
        let expected: Vec<String> = (0..3).map(|number| format!("{round}/{number}")).collect();
        assert_eq!(got, expected);
        anna.drain();
    }
    assert!(!server.stderr().contains("cannot write"), "{}", server.stderr());
}

/// After two seconds a message of a hook that waits is declined, and kept nowhere; a client that
/// has gone meanwhile, or has ended its side, does no harm.
#[test]
fn hooks_do_not_wait_for_ever() {
    let server = Server::start();
    let path = add_hook(&server, &["anna"]);
    let other = hold(&server);
    let begun = Instant::now();
    let mut gone = Http::connect(server.address());
    gone.send(request(&path, "", "gone"));
    let mut half = Http::connect(server.address());
    half.send(request(&path, "", "half"));
    web::end(&half.stream);
    let mut http = Http::connect(server.address());
    http.send(request(&path, "", "held"));
    std::thread::sleep(Duration::from_millis(100));
    drop(gone);
    for http in [&mut half, &mut http] {
        let answer = http.answer(false);
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{answer:?}");
        assert!(answer.text().contains("storage-failed"), "{answer:?}");
    }
    half.expect_end();
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(1900) && took < Duration::from_secs(4), "{took:?}");
    // Until a write succeeds, later ones are declined at once.
    let begun = Instant::now();
    assert_eq!(post(&mut http, &path, "held").0, 503);
    assert_eq!(http.get("/healthz", "").status, 503);
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    other.execute_batch("ROLLBACK").expect("the end of the lock");
    eventually(|| post(&mut http, &path, "free").0 == 204);
    let mut anna = server.login("anna");
    let ops = anna.chat_id("ops");
    assert_eq!(contents(&anna.history(ops)), ["free"]);
}

/// A server that stops answers the messages that wait.
#[test]
fn a_hook_that_waits_when_the_server_stops_is_answered() {
    let mut server = Server::start();
    let path = add_hook(&server, &[]);
    let mut http = Http::connect(server.address());
    let _other = hold(&server);
    http.send(request(&path, "", "held"));
    std::thread::sleep(Duration::from_millis(200));
    let begun = Instant::now();
    server.stop_by("TERM");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert_eq!(http.answer(false).status, 503);
    http.expect_end();
}

/// A hook is answered when its client has ended its side or asks for the end of the connection, and
/// before what came after it.
#[test]
fn hooks_are_answered_before_the_end_and_in_order() {
    let server = Server::start();
    let path = add_hook(&server, &[]);
    let mut http = Http::connect(server.address());
    http.send(request(&path, "Connection: close\r\n", "last"));
    let answer = http.answer(false);
    assert_eq!((answer.status, answer.header("connection")), (204, Some("close")));
    http.expect_end();

    let mut http = Http::connect(server.address());
    http.send(request(&path, "", "half"));
    web::end(&http.stream);
    assert_eq!(http.answer(false).status, 204);
    http.expect_end();

    let mut http = Http::connect(server.address());
    let all = [
        get("/nothing"),
        request(&path, "", "one"),
        get("/healthz"),
        request("/hook/0123", "", "x"),
        request(&path, "", "two"),
        get("/ws"),
    ];
    http.send(all.concat());
    web::end(&http.stream);
    let statuses = [404, 204, 200, 404, 204, 426];
    for (n, status) in statuses.into_iter().enumerate() {
        assert_eq!(http.answer(false).status, status, "{n}");
    }
    http.expect_end();
}

/// Slow mode holds for a bot as for every member, and its wait is shortened with it.
#[test]
fn slow_mode_holds_for_bots() {
    let server = Server::start();
    let path = add_hook(&server, &["anna"]);
    server.admin_ok(&["chat", "set", "ops", "--slow-mode", "3600"], None);
    let mut http = Http::connect(server.address());
    assert_eq!(post(&mut http, &path, "one"), (204, None));
    let (status, wait) = post(&mut http, &path, "two");
    assert_eq!(status, 429);
    assert!(wait.is_some_and(|wait| (3590..=3600).contains(&wait)), "{wait:?}");
    // Each member by itself.
    let mut anna = server.login("anna");
    let ops = anna.chat_id("ops");
    anna.send(ops, "mine");
    server.admin_ok(&["chat", "set", "ops", "--slow-mode", "0"], None);
    eventually(|| post(&mut http, &path, "three").0 == 204);
    assert_eq!(contents(&anna.history(ops)), ["one", "mine", "three"]);
}

/// The text of a day holds for a bot as for every user, across restarts too.
#[test]
fn the_text_of_a_day_holds_for_bots() {
    let mut server = Server::with(&["--user-bytes-per-day", "10000"]);
    let path = add_hook(&server, &[]);
    let mut http = Http::connect(server.address());
    assert_eq!(post(&mut http, &path, &"a".repeat(8_000)), (204, None));
    let (status, wait) = post(&mut http, &path, &"b".repeat(2_001));
    assert_eq!(status, 429);
    assert!(wait.is_some_and(|wait| (1..=86_400).contains(&wait)), "{wait:?}");
    assert_eq!(post(&mut http, &path, &"b".repeat(1_000)).0, 204);
    server.stop_by("TERM");
    server.restart();
    let mut http = Http::connect(server.address());
    assert_eq!(post(&mut http, &path, &"c".repeat(1_001)).0, 429);
    assert_eq!(post(&mut http, &path, &"c".repeat(900)).0, 204);
}

/// `--sends-per-second` holds for a bot as for every user.
#[test]
fn sends_per_second_hold_for_bots() {
    let server = Server::with(&["--sends-per-second", "2"]);
    let path = add_hook(&server, &[]);
    let mut http = Http::connect(server.address());
    http.send((0..12).map(|n| request(&path, "", &n.to_string())).collect::<String>());
    let statuses: Vec<u16> = (0..12).map(|_| http.answer(false).status).collect();
    let stored = statuses.iter().filter(|status| **status == 204).count();
    assert!((2..=6).contains(&stored), "{statuses:?}");
    assert!(statuses.iter().all(|status| [204, 429].contains(status)), "{statuses:?}");
    eventually(|| post(&mut http, &path, "later").0 == 204);
}

/// A bot cannot log in, whatever password it has, and is never an admin: neither made one nor as
/// the member of longest standing.
#[test]
fn a_bot_neither_logs_in_nor_leads() {
    let server = Server::start();
    add_hook(&server, &["anna"]);
    server.add_user("boris");
    server.admin_ok(&["chat", "join", "ops", "boris"], None);
    let file = Connection::open(server.data()).expect("the data file");
    let copy = "UPDATE users SET password = (SELECT password FROM users WHERE nickname = 'anna')
                WHERE nickname = 'monitor'";
    assert_eq!(file.execute(copy, []), Ok(1));
    let mut greeted = server.greeted();
    greeted.ask(LOGIN, login_body("monitor", PASSWORD)).declined("bad-credentials");

    let (mut anna, mut boris) = (server.login10("anna"), server.login10("boris"));
    let ops = anna.chat_id("ops");
    let bot = anna.user_id("monitor");
    anna.set_admin(ops, bot, true).declined("forbidden");
    anna.leave(ops);
    let his = boris.user_id("boris");
    boris.set_admin(ops, his, false).declined("last-admin");
}

/// A bot that is added to a group without an admin does not become one, nor does one that is
/// enabled in it; the next person does.
#[test]
fn a_bot_fills_no_vacancy() {
    for states in [&[][..], &["disable", "enable"]] {
        let server = Server::start();
        add_hook(&server, &["boris"]);
        server.add_user("anna");
        server.admin_ok(&["chat", "kick", "ops", "boris"], None);
        server.admin_ok(&["hook", "add", "ops", "other"], None);
        for state in states {
            server.admin_ok(&["user", state, "other"], None);
        }
        server.admin_ok(&["chat", "join", "ops", "anna"], None);
        let mut anna = server.login10("anna");
        let (ops, me) = (anna.chat_id("ops"), anna.user_id("anna"));
        anna.set_admin(ops, me, false).declined("last-admin");
    }
}
