//! HTTP on the ports of Purpose (protocol section 9).

use std::io::Read;
use std::time::{Duration, Instant};

use crate::support::web::{Http, upgrade};
use crate::support::wire::*;
use crate::support::{Server, eventually};

#[test]
fn one_port_speaks_both() {
    let server = Server::start();
    let mut http = Http::connect(server.address());
    let page = http.get("/", "");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.text().starts_with("<!doctype html>"), "{}", page.text());
    server.greeted();
    // The connection is kept, and so is one of HEAD.
    let head = http.ask("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((head.status, head.header("content-length")), (200, page.header("content-length")));
    assert_eq!(http.get("/nothing", "").status, 404);
    assert_eq!(http.get("/", "").status, 200);
}

#[test]
fn the_page_and_its_parts() {
    let server = Server::start();
    let mut http = Http::connect(server.address());
    let page = http.get("/", "");
    assert_eq!(page.header("cache-control"), Some("no-cache"));
    let html = page.text();
    let mut parts = html.split('"').filter(|text| text.starts_with("/a/"));
    let part = parts.next().expect("the page names its parts").to_owned();
    assert_eq!(part.split('/').nth(2).map(str::len), Some(16));
    let part = http.get(&part, "");
    assert_eq!(part.status, 200);
    assert_eq!(part.header("cache-control"), Some("public, max-age=31536000, immutable"));
    assert_eq!(http.get("/a/0123456789abcdef/app.js", "").status, 404);
    let tag = page.header("etag").expect("an ETag").to_owned();
    let known = http.get("/", &format!("If-None-Match: {tag}\r\n"));
    assert_eq!((known.status, known.body.len()), (304, 0));
    let gzip = http.get("/", "Accept-Encoding: gzip\r\n");
    assert_eq!(gzip.header("content-encoding"), Some("gzip"));
    let mut plain = String::new();
    flate2::read::GzDecoder::new(&gzip.body[..]).read_to_string(&mut plain).expect("gzip");
    assert_eq!(plain, html);
    for path in ["/sw.js", "/manifest.webmanifest"] {
        assert_eq!(http.get(path, "").status, 200, "{path}");
    }
    assert!(page.header("content-security-policy").is_some_and(|policy| policy.contains("'self'")));
}

#[test]
fn requests_at_once_are_answered_in_order() {
    let server = Server::start();
    let mut http = Http::connect(server.address());
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let all: String = ["/nothing", "/healthz", "/ws", "/", "/nothing"].map(get).concat();
    for cut in [0, 1, 30, all.len() - 3] {
        http.send(&all[..cut]);
        std::thread::sleep(Duration::from_millis(20));
        http.send(&all[cut..]);
        let statuses: Vec<_> = (0..5).map(|_| http.answer(false).status).collect();
        assert_eq!(statuses, [404, 200, 426, 200, 404], "cut at {cut}");
    }
    // What came before the end of the client's side is answered.
    http.send(&all);
    crate::support::web::end(&http.stream);
    let statuses: Vec<_> = (0..5).map(|_| http.answer(false).status).collect();
    assert_eq!(statuses, [404, 200, 426, 200, 404]);
    http.expect_end();
}

#[test]
fn what_is_ambiguous_is_refused_and_ends_the_connection() {
    let server = Server::start();
    let post = "POST /hook/t HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n";
    for request in [
        format!("{post}Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        format!("{post}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        "GET / HTTP/1.1\nHost: a\n\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n".to_owned(),
        "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab".to_owned(),
    ] {
        let mut http = Http::connect(server.address());
        let second = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let answer = http.ask(format!("{request}{second}"));
        assert_eq!(answer.status, 400, "{request}");
        assert_eq!(answer.header("connection"), Some("close"));
        http.expect_end();
    }
    // Behind a request that is one, too: CONNECT and the preface of HTTP/2 begin like no other.
    for request in ["CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        let mut http = Http::connect(server.address());
        http.send(format!("GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n{request}"));
        assert_eq!(http.answer(false).status, 404);
        assert_eq!(http.answer(false).status, 400);
        http.expect_end();
    }
}

#[test]
fn heads_and_bodies_have_bounds() {
    let server = Server::start();
    for (request, status) in [
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(9000)), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(64)), 431),
        (format!("GET /{}", "a".repeat(9000)), 431),
        ("POST /hook/t HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n\r\n".to_owned(), 411),
        (
            "POST /hook/t HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n\
             Content-Length: 65537\r\n\r\n"
                .to_owned(),
            413,
        ),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(), 505),
    ] {
        let mut http = Http::connect(server.address());
        let answer = http.ask(&request);
        assert_eq!((answer.status, answer.header("connection")), (status, Some("close")));
        http.expect_end();
    }
    let mut http = Http::connect(server.address());
    assert_eq!(http.post("/hook/t", "text/html", "x").status, 415);
}

#[test]
fn methods_and_upgrades() {
    let server = Server::start();
    let mut http = Http::connect(server.address());
    for (request, status, name, value) in [
        ("POST / HTTP/1.1\r\nHost: a\r\n\r\n", 405, "allow", "GET, HEAD"),
        ("GET /hook/t HTTP/1.1\r\nHost: a\r\n\r\n", 405, "allow", "POST"),
        ("GET /ws HTTP/1.1\r\nHost: a\r\n\r\n", 426, "sec-websocket-version", "13"),
    ] {
        let answer = http.ask(request);
        assert_eq!((answer.status, answer.header(name)), (status, Some(value)), "{request}");
    }
    let refused = |lines: &str| {
        let mut http = Http::connect(server.address());
        http.ask(upgrade(lines)).status
    };
    assert_eq!(refused("Origin: https://evil.example\r\n"), 403);
    assert_eq!(refused("Origin: null\r\n"), 403);
    assert_eq!(refused("Origin: http://chat.example\r\n"), 101);
    assert_eq!(refused("Origin: HTTPS://Chat.Example\r\n"), 101);
    let open = Server::with(&["--web-origin", "https://app.example"]);
    let mut http = Http::connect(open.address());
    assert_eq!(http.ask(upgrade("Origin: https://app.example\r\n")).status, 101);
}

#[test]
fn the_web_can_be_turned_off() {
    let server = Server::with(&["--web", "off"]);
    for request in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), upgrade("")] {
        let mut http = Http::connect(server.address());
        let answer = http.ask(request);
        assert_eq!((answer.status, answer.header("connection")), (403, Some("close")));
        let text = answer.text();
        assert!(text.contains("--web off") && text.lines().count() == 1, "{text}");
        http.expect_end();
    }
    server.greeted();
}

#[test]
fn a_hook_sends_a_message() {
    let server = Server::start();
    server.add_user("anna");
    server.add_chat("ops", &["anna"]);
    let token = server.admin_ok(&["hook", "add", "ops", "monitor"], None);
    let path = format!("/hook/{}", token.trim_end());
    let mut anna = server.login("anna");
    let ops = anna.chat_id("ops");
    anna.drain();
    let mut http = Http::connect(server.address());
    let answer = http.post(&path, "text/plain", "the backup is done");
    assert_eq!((answer.status, answer.body.len()), (204, 0), "{answer:?}");
    assert_eq!(anna.notify(ops).1[0].content, "the backup is done");
    let json = r#"{"text":"[FIRING]","attachments":[{"title":"disk","text":"97 %"}]}"#;
    assert_eq!(http.post(&path, "application/json", json).status, 204);
    assert_eq!(anna.notify(ops).1[0].content, "[FIRING]\ndisk\n97 %");
    let monitor = anna.user_id("monitor");
    assert_eq!(anna.history(ops)[0].sender, monitor);

    assert_eq!(http.post("/hook/0123", "text/plain", "x").status, 404);
    let long = "x".repeat(16 * 1024 + 1);
    let answer = http.post(&path, "text/plain", &long);
    assert_eq!((answer.status, answer.header("connection")), (413, Some("close")));
    let mut http = Http::connect(server.address());
    assert_eq!(http.post(&path, "application/json", "{}").status, 400);
    // A bot cannot log in.
    let mut bot = server.greeted();
    assert!(bot.ask(LOGIN, *b"monitor\0\0").body.starts_with(b"bad-credentials"));

    server.admin_ok(&["hook", "remove", "monitor"], None);
    let mut http = Http::connect(server.address());
    eventually(|| http.post(&path, "text/plain", "x").status == 404);
    assert!(!server.stderr().contains(token.trim_end()));
}

#[test]
fn a_hook_is_limited() {
    let server = Server::start();
    server.admin_ok(&["chat", "add", "ops"], None);
    let token = server.admin_ok(&["hook", "add", "ops", "monitor"], None);
    let path = format!("/hook/{}", token.trim_end());
    let mut http = Http::connect(server.address());
    for n in 0..30 {
        assert_eq!(http.post(&path, "text/plain", "x").status, 204, "{n}");
    }
    let answer = http.post(&path, "text/plain", "x");
    assert_eq!(answer.status, 429);
    let wait: u32 = answer.header("retry-after").expect("a time").parse().expect("seconds");
    assert!((1..=10).contains(&wait), "{wait}");
    let second = server.admin_ok(&["hook", "add", "ops", "builder"], None);
    let second = format!("/hook/{}", second.trim_end());
    assert_eq!(http.post(&second, "text/plain", "x").status, 204, "each bot by itself");
}

#[test]
fn a_slow_head_and_an_idle_connection_end() {
    let server = Server::start();
    let mut slow = Http::connect(server.address());
    let begun = Instant::now();
    slow.send("GET / HTTP/1.1\r\nHost: a\r\n");
    let mut half = Http::connect(server.address());
    half.send("POST /hook/t HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\nx");
    slow.stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket option");
    let answer = slow.answer(false);
    assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
    slow.expect_end();
    let took = begun.elapsed();
    assert!((9..20).contains(&took.as_secs()), "{took:?}");
}

#[test]
fn http_counts_by_itself() {
    let server = Server::with(&["--max-unauthorized-per-address", "2"]);
    let mut kept: Vec<_> = (0..12)
        .map(|_| {
            let mut http = Http::connect(server.address());
            assert_eq!(http.get("/nothing", "").status, 404);
            http
        })
        .collect();
    let mut one_too_many = Http::connect(server.address());
    let answer = one_too_many.get("/nothing", "");
    assert_eq!((answer.status, answer.header("connection")), (503, Some("close")));
    assert!(answer.header("retry-after").is_some());
    one_too_many.expect_end();
    // Purpose has its own count, and an HTTP connection less is one more again.
    server.greeted();
    drop(kept.pop());
    eventually(|| Http::connect(server.address()).get("/nothing", "").status == 404);
}

#[test]
fn connections_of_a_proxy_count_for_those_that_it_names() {
    let options = ["--max-unauthorized-per-address", "1", "--trusted-proxy", "127.0.0.1"];
    let server = Server::with(&options);
    let from = |n: u32| format!("X-Forwarded-For: 198.51.100.{n}\r\n");
    let mut kept = Vec::new();
    for n in [1, 1, 1, 1, 1, 1, 2, 3, 4] {
        let mut http = Http::connect(server.address());
        assert_eq!(http.get("/nothing", &from(n)).status, 404, "{n}");
        kept.push(http);
    }
    let mut http = Http::connect(server.address());
    assert_eq!(http.get("/nothing", &from(1)).status, 503);
}

#[test]
fn health_is_what_can_be_stored() {
    let server = Server::start();
    let mut http = Http::connect(server.address());
    let answer = http.get("/healthz", "");
    assert_eq!((answer.status, answer.text().trim_end()), (200, "ok"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

#[test]
fn a_full_disk_is_reported_and_recovers() {
    let server = Server::start();
    server.admin_ok(&["chat", "add", "ops"], None);
    let token = server.admin_ok(&["hook", "add", "ops", "monitor"], None);
    let path = format!("/hook/{}", token.trim_end());
    let mut http = Http::connect(server.address());
    assert_eq!(http.post(&path, "text/plain", "first").status, 204);
    let other = rusqlite::Connection::open(server.data()).expect("the data file");
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let answer = http.post(&path, "text/plain", "held");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.text().contains("storage-failed"), "{answer:?}");
    assert_eq!(http.get("/healthz", "").status, 503);
    other.execute_batch("ROLLBACK").expect("the end of the lock");
    // Nobody writes, and it turns green.
    let begun = Instant::now();
    while http.get("/healthz", "").status != 200 {
        assert!(begun.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(50));
    }
    let stored: i64 =
        other.query_row("SELECT count(*) FROM messages", [], |row| row.get(0)).expect("a count");
    assert_eq!(stored, 1);
}
