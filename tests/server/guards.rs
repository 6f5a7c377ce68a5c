//! Floods of log lines, connections and outbound bytes are bounded; notifications to systemd.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::server::{TempDir, serve_command, signal};
use crate::support::web::{self, Http, WebSocket};
use crate::support::wire::*;
use crate::support::{Server, eventually};

/// A server that is started by hand; killed when dropped.
struct Bare {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Bare {
    fn start(options: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        let folder = TempDir::new();
        let mut command = serve_command(folder.path(), &folder.join("t.db"), options);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        prepare(&mut command);
        let mut child = command.spawn().expect("it starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("a pipe");
        BufReader::new(out).read_line(&mut line).expect("a line");
        let address = line.trim().rsplit(' ').next().and_then(|text| text.parse().ok());
        Self { child, address: address.expect("an address"), _folder: folder }
    }

    fn ends_within(&mut self, limit: Duration) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < limit {
            if self.child.try_wait().expect("a state").is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Nobody reads standard error, and peers cause more lines than its pipe holds: everybody is served
/// all the same, and the server ends when it is asked to.
#[test]
fn a_log_that_nobody_reads_stops_nobody() {
    let mut server = Bare::start(&["--max-unauthorized-per-address", "0"], |command| {
        command.stderr(Stdio::piped()).env("RUST_LOG", "debug");
    });
    // Some 200 bytes of lines for each; the pipe holds 64 KiB.
    for _ in 0..1_500 {
        let mut peer = TcpStream::connect(server.address).expect("a connection");
        let _ = peer.write_all(&[0xff, 0xff, 0xff, 0xff, 0x20, 0x01]);
    }
    let mut client = Client::connect(server.address);
    client.hello(1, 0);
    client.ask(HEARTBEAT, b"alive".to_vec()).accepted();
    signal(server.child.id(), "TERM");
    assert!(server.ends_within(Duration::from_secs(10)), "SIGTERM does nothing");
}

/// systemd's protocol: ready once connections are accepted, a sign of life from the loop, and the
/// end.
#[test]
fn the_service_manager_is_notified() {
    let folder = TempDir::new();
    let path = folder.join("notify.sock");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    let mut server = Bare::start(&[], |command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000");
    });
    let next = || {
        let mut bytes = [0; 128];
        let count = socket.recv(&mut bytes).expect("a datagram");
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    };
    assert_eq!(next(), "READY=1");
    let begun = Instant::now();
    for _ in 0..5 {
        assert_eq!(next(), "WATCHDOG=1");
    }
    assert!(begun.elapsed() > Duration::from_millis(600), "{:?}", begun.elapsed());
    signal(server.child.id(), "TERM");
    while next() != "STOPPING=1" {}
    assert!(server.ends_within(Duration::from_secs(10)));
}

/// A table full of silent connections takes newcomers in: the oldest of the largest network goes.
/// Those with a session stay.
#[test]
fn a_full_table_takes_newcomers_in() {
    let server = Server::with(&["--max-connections", "20", "--max-unauthorized-per-address", "0"]);
    server.add_user("anna");
    let mut anna = server.login10("anna");
    let mut silent: Vec<Client> = (0..19).map(|_| server.connect()).collect();
    for _ in 0..60 {
        let mut newcomer = server.connect();
        newcomer.hello(1, 0);
        silent.push(newcomer);
    }
    anna.ask(HEARTBEAT, b"still here".to_vec()).accepted();
    let mut login = server.login10("anna");
    login.ask(HEARTBEAT, b"in".to_vec()).accepted();
    silent[0].expect_end();
    assert!(server.metrics()["connections_refused_total{why=\"full\"}"] >= 60.0);
}

/// However many connections of one user read nothing, what waits for them is bounded.
#[test]
fn sessions_that_read_nothing_share_a_budget() {
    const SESSIONS: usize = 40;
    let server = Server::start();
    server.add_user("anna");
    let mut anna = server.login10("anna");
    let hall = anna.create_chat("hall");
    let deaf: Vec<Client> = (0..SESSIONS).map(|_| server.login10("anna")).collect();
    let text = "x".repeat(16_000);
    // 6 MB for each of them; the kernel takes some of it.
    for _ in 0..10 {
        let count =
            anna.post_all((0..40).map(|_| (SEND_CHAT_MSG, Vec::from(body().id(hall).text(&text)))));
        for _ in 0..count {
            anna.answer().accepted();
        }
    }
    let waiting = server.metrics()["outbound_bytes"];
    assert!(waiting < 14.0 * 1024.0 * 1024.0, "{waiting} bytes wait for {SESSIONS} sessions");
    drop(deaf);
}

/// The head of a frame, and most of its body.
fn most_of_a_frame(body_bytes: usize) -> Vec<u8> {
    let mut bytes = (body_bytes as u32).to_le_bytes().to_vec();
    bytes.extend([SEND_CHAT_MSG, 1]);
    bytes.resize(bytes.len() + body_bytes - body_bytes / 10, b'x');
    bytes
}

/// Hundreds of peers that announce large requests and send most of them hold bounded memory, in
/// frames, in messages of WebSockets and in bodies of hooks. The connections that go are theirs.
#[test]
fn unfinished_requests_are_bounded() {
    const EACH: usize = 150;
    const LIMIT: usize = 8 * 1024 * 1024;
    let limit = LIMIT.to_string();
    let options = ["--memory-limit", &limit, "--max-unauthorized-per-address", "0"];
    let server = Server::with(&options);
    let [(mut anna, _), (mut boris, _)] = server.users10(["anna", "boris"]);
    let hall = anna.create_chat("hall");
    let long = Frame::new(SEND_CHAT_MSG, 9, body().id(hall).text(&"a".repeat(16_000))).encode();
    let (first, last) = long.split_at(15_000);
    anna.write(first);
    // What the first connections bring with them is not what is measured.
    drop((0..EACH).map(|_| server.greeted()).collect::<Vec<_>>());
    let before = server.resident_bytes();

    let (mut frames, mut posts, mut sockets) = (Vec::new(), Vec::new(), Vec::new());
    let part = most_of_a_frame(65_536);
    for n in 0..EACH {
        let mut peer = server.connect();
        peer.write(&part);
        frames.push(peer);
        let mut post = Http::connect(server.address());
        post.send("POST /hook/t HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n");
        post.send("Content-Length: 65536\r\n\r\n");
        post.send(&part[..58_000]);
        posts.push(post);
        let mut socket = WebSocket::open(&server);
        // Fragments without an end.
        socket.send(web::BINARY, &part[..30_000]);
        socket.send(web::CONTINUATION, &part[30_000..]);
        sockets.push(socket);
        if n % 10 == 9 {
            let waiting = server.metrics()["inbound_bytes"];
            assert!(waiting <= (LIMIT + 2 * 1024 * 1024) as f64, "{waiting} bytes wait");
            boris.ask(HEARTBEAT, b"served".to_vec()).accepted();
        }
    }
    eventually(|| server.metrics()["inbound_bytes"] <= LIMIT as f64);
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 2 * LIMIT as u64, "{grown} bytes for {} peers", 3 * EACH);
    let metrics = server.metrics();
    assert!(metrics["connections_refused_total{why=\"memory\"}"] > EACH as f64);
    assert_eq!(metrics["inbound_limit_bytes"], LIMIT as f64);
    // Those who hold little go on, in the middle of a request as well, and newcomers get in.
    anna.write(last);
    anna.next_frame().expect("it was not closed").accepted();
    server.login10("boris").ask(HEARTBEAT, b"in".to_vec()).accepted();
    drop((frames, posts, sockets));
    eventually(|| server.metrics()["inbound_bytes"] == 0.0);
}

/// However many connections of one user hold unfinished requests, the sum is bounded, and others
/// keep theirs.
#[test]
fn unfinished_requests_of_a_user_share_a_budget() {
    const SUM: f64 = 8.0 * 1024.0 * 1024.0;
    const BODY: usize = 1024 * 1024;
    let server = Server::with(&["--body-limit", "1048576"]);
    let [(mut boris, _)] = server.users10(["boris"]);
    server.add_user("anna");
    let part = most_of_a_frame(BODY);
    boris.write(&part);
    let mut many: Vec<Client> = (0..20).map(|_| server.login10("anna")).collect();
    for (n, client) in many.iter_mut().enumerate() {
        // The later, the larger.
        client.write(&part[..part.len() - 10_000 + n * 100]);
    }
    let own = part.len() as f64;
    eventually(|| {
        let waiting = server.metrics()["inbound_bytes"];
        waiting > 6.0 * own && waiting <= SUM + own + 1024.0
    });
    std::thread::sleep(Duration::from_millis(200));
    assert!(server.metrics()["inbound_bytes"] <= SUM + own + 1024.0);
    // A short body ends the frame of the other user: it is read to its end and answered.
    boris.write(&vec![b'x'; BODY / 10]);
    let answer = boris.next_frame().expect("it was not closed");
    assert!(answer.body.starts_with(b"malformed"), "{answer:?}");
    drop(many);
}

/// A filter that would hide every line does not count.
#[test]
fn a_misspelt_level_of_the_log_is_named() {
    let mut server = Server::after("export RUST_LOG=wran", &[]);
    server.stop_by("TERM");
    let log = server.stderr();
    assert!(log.contains("RUST_LOG=\"wran\" names no level") && log.contains("INFO"), "{log}");
}
