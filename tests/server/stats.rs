//! Metrics: `vestnik stats` through the Unix socket, and the endpoint for Prometheus.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use crate::support::server::{run, samples};
use crate::support::wire::*;
use crate::support::{Server, eventually};
use rusqlite::Connection;

fn socket(server: &Server) -> PathBuf {
    server.dir().join("t.db.sock")
}

/// Frames, connections, declines and commits are counted one by one.
#[test]
fn what_happened_is_counted() {
    let server = Server::start();
    for name in ["anna", "boris"] {
        server.add_user(name);
    }
    server.add_chat("hall", &["anna", "boris"]);
    let (mut anna, mut boris) = (server.login("anna"), server.login("boris"));
    let _new = server.connect();
    let _greeted = server.greeted();
    let hall = anna.chat_id("hall");
    let before = server.metrics();
    for _ in 0..3 {
        anna.send(hall, "hi");
    }
    boris.notified(hall, 3);
    boris.ask(SEND_CHAT_MSG, body().id(hall).text("")).declined("empty-message");
    boris.ask(0x77, body()).declined("unknown-purpose");
    let after = server.metrics();
    for (name, grown) in [
        ("frames_received_total{purpose=\"SEND_CHAT_MSG\"}", 4.0),
        ("frames_received_total{purpose=\"unknown\"}", 1.0),
        ("frames_received_total{purpose=\"LOGIN\"}", 0.0),
        ("frames_sent_total{purpose=\"ACCEPTED\"}", 3.0),
        ("frames_sent_total{purpose=\"DECLINED\"}", 2.0),
        ("frames_sent_total{purpose=\"MSG_NOTIFY\"}", 3.0),
        ("frames_sent_total{purpose=\"unknown\"}", 0.0),
        ("declines_total{code=\"empty-message\"}", 1.0),
        ("declines_total{code=\"unknown-purpose\"}", 1.0),
        ("commit_rows_count", 3.0),
        ("commit_seconds_count", 3.0),
        ("connections_accepted_total", 0.0),
        ("turns_undone_total", 0.0),
        // 3 sends of "hi", an empty one and the unknown; 3 answers, 3 notifications.
        ("received_bytes_total", 3.0 * 13.0 + 11.0 + 6.0),
    ] {
        assert_eq!(after[name] - before[name], grown, "{name}");
    }
    for (name, value) in [
        ("connections{state=\"new\"}", 1.0),
        ("connections{state=\"greeted\"}", 1.0),
        ("connections{state=\"authorized\"}", 2.0),
        ("connections{state=\"suspended\"}", 0.0),
        ("connections_accepted_total", 4.0),
        ("online_users", 2.0),
        ("slow_readers", 0.0),
        ("outbound_bytes", 0.0),
        ("inbound_bytes", 0.0),
        ("password_queue", 0.0),
        ("storage_failing", 0.0),
    ] {
        assert_eq!(after[name], value, "{name}");
    }
    let turns = after["turn_seconds_count"];
    assert!(turns > before["turn_seconds_count"] && after["turn_rest_seconds_count"] == turns);
    assert!(after["commit_seconds_sum"] > 0.0 && after["wal_bytes"] > 0.0);
    assert!(after["commit_rows_sum"] - before["commit_rows_sum"] >= 3.0);
    assert!(after["turn_rest_seconds_sum"] <= after["turn_seconds_sum"]);
}

/// States that are not for long: unfinished frames, suspended sessions, refused connections, a
/// file that cannot be written.
#[test]
fn what_goes_wrong_is_counted() {
    let server = Server::with(&["--max-connections", "3"]);
    for name in ["anna", "boris"] {
        server.add_user(name);
    }
    server.add_chat("hall", &["anna", "boris"]);
    let (mut anna, mut boris) = (server.login("anna"), server.login("boris"));
    let hall = anna.chat_id("hall");
    anna.send(hall, "unwanted");
    let (task, _) = boris.notify(hall);
    boris.write_frame(DECLINED, task, body().text("no: I do not want it"));
    // With a session it does not make room for the fourth.
    let mut third = server.login("anna");
    third.write(&[9, 0, 0]);
    server.connect().expect_end();
    let other = Connection::open(server.data()).expect("the data file");
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    anna.ask(SEND_CHAT_MSG, body().id(hall).text("held")).declined("storage-failed");
    let got = server.metrics();
    for (name, value) in [
        ("connections{state=\"suspended\"}", 1.0),
        ("connections_refused_total{why=\"full\"}", 1.0),
        ("connections_refused_total{why=\"address\"}", 0.0),
        ("declines_total{code=\"storage-failed\"}", 1.0),
        ("frames_received_total{purpose=\"SEND_CHAT_MSG\"}", 2.0),
        ("frames_sent_total{purpose=\"DECLINED\"}", 1.0),
        ("inbound_bytes", 3.0),
        ("storage_failing", 1.0),
    ] {
        assert_eq!(got[name], value, "{name}");
    }
    other.execute_batch("ROLLBACK").expect("the end of the lock");
    anna.send(hall, "free again");
    assert_eq!(server.metrics()["storage_failing"], 0.0);
}

/// Without --raw there is a line for each figure, for people.
#[test]
fn metrics_for_people() {
    let server = Server::start();
    server.greeted();
    let text = server.admin_ok(&["stats"], None);
    let has = |words: &[&str]| {
        text.lines().any(|line| line.split_whitespace().collect::<Vec<_>>().starts_with(words))
    };
    assert!(has(&["frames", "received", "HELLO", "1"]), "{text}");
    assert!(has(&["turn"]) && has(&["commit", "rows"]), "{text}");
    assert!(!text.contains("LOGIN") && !text.contains('#'), "{text}");
}

/// Only the owner may ask. The socket goes with the server, and one that a killed server left is
/// replaced.
#[test]
fn the_socket_is_the_owners_and_never_stale() {
    let mut server = Server::start();
    let mode = fs::metadata(socket(&server)).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    server.kill();
    assert!(socket(&server).exists());
    let output = server.admin(&["stats"], None);
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("no server answers") && words.lines().count() == 1, "{words}");
    server.restart();
    server.metrics();
    server.stop_by("TERM");
    assert!(!socket(&server).exists(), "left behind");
}

/// A file that is no socket, or the socket of somebody who answers, is left alone: the server runs
/// without.
#[test]
fn what_is_in_the_sockets_place_is_left_alone() {
    let mut server = Server::start();
    server.stop_by("TERM");
    fs::write(socket(&server), "notes").expect("a file");
    server.restart();
    server.greeted();
    assert_eq!(fs::read(socket(&server)).expect("the file"), b"notes");
    server.stop_by("TERM");
    fs::remove_file(socket(&server)).expect("the file");
    let _others = UnixListener::bind(socket(&server)).expect("a socket");
    server.restart();
    server.greeted();
    server.stop_by("TERM");
    let kind = fs::metadata(socket(&server)).expect("the socket").file_type();
    assert!(kind.is_socket());
    assert_eq!(server.stderr().matches("`vestnik stats` will not work").count(), 2);
}

/// The reason for a missing socket is in plain words.
#[test]
fn a_socket_that_cannot_be_made_is_explained() {
    for (path, reason) in [
        ("none/metrics", "none/metrics: it does not exist"),
        (&"x".repeat(200), "its path is too long for a socket"),
    ] {
        let server = Server::with(&["--stats-socket", path]);
        eventually(|| server.stderr().contains("will not work"));
        let log = server.stderr();
        assert!(log.contains(reason) && !log.contains("os error"), "{log}");
    }
}

/// The socket can be named, for the server and for who asks.
#[test]
fn a_socket_by_another_name() {
    let server = Server::with(&["--stats-socket", "metrics"]);
    server.admin_ok(&["stats", "--stats-socket", "metrics"], None);
    assert!(!socket(&server).exists());
    let output = server.admin(&["stats"], None);
    assert_eq!(output.status.code(), Some(1));
}

fn with_http() -> Server {
    Server::with(&["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"])
}

#[track_caller]
fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.addresses()[1]).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
    stream
}

/// Head and body of an answer.
#[track_caller]
fn ask(server: &Server, request: &[u8]) -> (String, String) {
    let mut stream = connect(server);
    stream.write_all(request).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer and its end");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned())
}

/// Prometheus gets the same metrics, in the format that it reads.
#[test]
fn metrics_by_http() {
    let server = with_http();
    server.greeted();
    let (head, page) = ask(&server, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("Content-Type: text/plain; version=0.0.4"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}", page.len())), "{head}");
    assert!(page.ends_with('\n'));
    let got = samples(&page);
    assert_eq!(got["frames_received_total{purpose=\"HELLO\"}"], 1.0);
    let mut by_socket: Vec<String> = server.metrics().into_keys().collect();
    let mut by_http: Vec<String> = got.into_keys().collect();
    by_socket.sort();
    by_http.sort();
    assert_eq!(by_socket, by_http);
    for line in page.lines().filter(|line| line.starts_with("# TYPE ")) {
        let kind = line.rsplit(' ').next();
        assert!(matches!(kind, Some("counter" | "gauge" | "histogram")), "{line}");
        let name = line.split(' ').nth(2).expect("a name");
        assert_eq!(kind == Some("counter"), name.ends_with("_total"), "{line}");
        assert!(page.contains(&format!("# HELP {name} ")), "{line}");
    }
}

/// What is not GET /metrics gets words, what is too long or cut off gets an end.
#[test]
fn other_requests_by_http() {
    let server = with_http();
    for (request, status) in [
        (&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], "404"),
        (b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", "405"),
        (b"HELO metrics\r\n\r\n", "400"),
        (b"GET /metrics HTTP/1.1\r\n\r\n", "400"),
        // A page that has given its own name this address.
        (b"GET /metrics HTTP/1.1\r\nHost: evil.example:9420\r\n\r\n", "403"),
    ] {
        let (head, page) = ask(&server, request);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert_eq!(page.lines().count(), 1, "{page}");
    }
    let mut long = b"GET /metrics HTTP/1.1\r\nCookie: ".to_vec();
    long.resize(8 * 1024 + 1, b'x');
    let (head, _) = ask(&server, &long);
    assert!(head.starts_with("HTTP/1.1 431 "), "{head}");
    let mut stream = connect(&server);
    stream.write_all(b"GET /metrics HT").expect("half a request");
    stream.shutdown(Shutdown::Write).expect("an end");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an end");
    assert_eq!(answer, b"");
}

/// A scrape that does not go on gets an error after some seconds. Until then the newest is served
/// all the same, in place of the oldest, and so are the clients.
#[test]
fn scrapes_are_bounded_and_keep_nobody_out() {
    let server = with_http();
    server.add_user("anna");
    let mut anna = server.login("anna");
    let mut idle: Vec<TcpStream> = (0..8).map(|_| connect(&server)).collect();
    for stream in &mut idle {
        stream.write_all(b"GET /metrics").expect("half a request");
    }
    anna.user_id("anna");
    let (head, _) = ask(&server, b"GET /metrics HTTP/1.1\r\nHost: [::1]\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let mut answer = Vec::new();
    // A reset is as good: it had got nothing.
    assert_eq!(idle.remove(0).read_to_end(&mut answer).unwrap_or(0), 0);
    server.admin_ok(&["stats"], None);
    for stream in &mut idle {
        answer.clear();
        stream.read_to_end(&mut answer).expect("an end");
        assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", answer.escape_ascii());
    }
    anna.user_id("anna");
}

/// A peer that asks through the Unix socket and does not read holds nobody up.
#[test]
fn who_does_not_read_its_metrics() {
    let mut server = with_http();
    let _idle: Vec<UnixStream> =
        (0..20).map(|_| UnixStream::connect(socket(&server)).expect("a connection")).collect();
    server.greeted();
    let (status, lines) = server.stop_by("TERM");
    assert!(status.success() && lines.is_empty());
}

/// A port for metrics that is in use keeps the server from starting; a public one asks for
/// --allow-plaintext.
#[test]
fn bad_ports_for_metrics() {
    let server = with_http();
    let taken = server.addresses()[1].to_string();
    for (address, code) in [(taken.as_str(), 1), ("0.0.0.0:0", 2)] {
        let options = ["--listen", "127.0.0.1:0", "--metrics-listen", address];
        let data = server.dir().join("other.db");
        let output =
            run(crate::support::server::serve_command(server.dir().path(), &data, &options), None);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    }
}
