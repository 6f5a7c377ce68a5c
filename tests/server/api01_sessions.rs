//! Sessions: LOGIN, LOGOFF, RESTORE_SESSION, takeover, suspension, rate limits of logins, and
//! commands that end sessions (protocol sections 3, 4 and 7).

use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use crate::support::client::{login_body, read_session};
use crate::support::wire::*;
use crate::support::{Client, PASSWORD, Server, Session};

/// A server with anna and boris in the chat `hall`.
fn hall() -> Server {
    hall_with(&[])
}

fn hall_with(options: &[&str]) -> Server {
    let server = Server::with(options);
    server.add_user("anna");
    server.add_user("boris");
    server.add_chat("hall", &["anna", "boris"]);
    server
}

#[track_caller]
fn expect_greeted(client: &mut Client) {
    client.ask(GET_USER_ID, body().text("anna")).declined("login-required");
}

#[track_caller]
fn expect_suspended(client: &mut Client, chat: u32) {
    let requests = [
        (HELLO, body().u8(0).u8(1)),
        (LOGIN, login_body("anna", PASSWORD)),
        (GET_USER_ID, body().text("anna")),
        (GET_CHAT_ID, body().text("hall")),
        (CHAT_REQ_PASS, body().id(chat)),
        (JOIN_CHAT, body().id(chat)),
        (SEND_CHAT_MSG, body().id(chat).text("hi")),
        (SEND_CHAT_MSG, body().u8(0xff)),
        (REQUEST_CHAT_MSG, body().id(chat).time(0)),
        (MARK_SEEN, body().id(chat).time(0)),
        (0x77, body()),
    ];
    for (purpose, request) in requests {
        client.ask(purpose, request).declined("session-suspended");
    }
    client.expect_quiet();
}

/// A connection that comes from another address of this machine.
fn connect_from(source: Ipv4Addr, server: SocketAddr) -> Client {
    let socket =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((source, 0)).into()).expect("an address of the loopback");
    socket.connect(&server.into()).expect("a connection");
    let mut client = Client::over(TcpStream::from(socket));
    client.hello(0, 1);
    client
}

// LOGIN and LOGOFF.

/// LOGIN gives a session with a fresh secret each time.
#[test]
fn login_gives_a_session_of_its_own() {
    let server = hall();
    let sessions: Vec<Session> = (0..4).map(|_| server.greeted().login("anna")).collect();
    for (index, session) in sessions.iter().enumerate() {
        for other in &sessions[..index] {
            assert_ne!(session.id, other.id);
            assert_ne!(session.hash, other.hash);
        }
    }
}

/// The login is compared without regard to case.
#[test]
fn login_in_any_case() {
    let server = hall();
    server.add_user("Борис-2");
    for login in ["anna", "ANNA", "aNnA", "борис-2", "БОРИС-2"] {
        server.greeted().login(login);
    }
}

/// A wrong password, an unknown login and what can be nobody's are all `bad-credentials`, in the
/// same words, and the connection stays greeted.
#[test]
fn bad_credentials_are_all_alike() {
    let server = hall();
    let long_login = "x".repeat(2000);
    let mut words = Vec::new();
    for (login, password) in [
        ("anna", "wrong password"),
        ("anna", ""),
        ("anna", "correct horse "),
        ("anna", "Correct horse"),
        ("nobody", PASSWORD),
        ("", PASSWORD),
        ("no such name", PASSWORD),
        (&long_login, PASSWORD),
    ] {
        let mut client = server.greeted();
        let answer = client.ask(LOGIN, login_body(login, password));
        words.push(answer.declined("bad-credentials"));
        expect_greeted(&mut client);
    }
    words.dedup();
    assert_eq!(words.len(), 1, "the words say logins apart: {words:?}");
}

/// A password of 256 bytes may be right; one that is longer is wrong, even if it begins so.
#[test]
fn passwords_of_256_bytes_and_more() {
    let server = Server::start();
    let longest = "p".repeat(256);
    server.add_user_with_password("anna", &longest);
    let mut client = server.greeted();
    for length in [257, 300, 60_000] {
        client.ask(LOGIN, login_body("anna", &"p".repeat(length))).declined("bad-credentials");
    }
    let answer = client.ask(LOGIN, login_body("anna", &longest)).accepted();
    read_session(&answer);
}

/// LOGOFF ends the session for good and leaves the connection greeted, ready for another login.
#[test]
fn logoff_ends_the_session() {
    let server = hall();
    let mut client = server.greeted();
    let session = client.login("anna");
    client.ask(LOGOFF, body()).accepted_empty();
    expect_greeted(&mut client);
    client.try_restore(&session).declined("bad-session");
    client.ask(LOGOFF, body()).declined("login-required");
    let next = client.login("boris");
    assert_ne!(next.id, session.id);
    assert_ne!(next.hash, session.hash);
}

/// After LOGOFF nothing of the chats reaches the connection any more.
#[test]
fn logoff_ends_notifications() {
    let server = hall();
    let (mut anna, mut boris) = (server.login("anna"), server.login("boris"));
    let hall = anna.chat_id("hall");
    boris.ask(LOGOFF, body()).accepted_empty();
    anna.send(hall, "hi");
    boris.expect_quiet();
}

/// Requests sent behind a LOGIN are handled as if they had waited for its answer.
#[test]
fn requests_wait_for_the_login_before_them() {
    let server = hall();
    let hall = server.login("anna").chat_id("hall");
    let mut client = server.connect();
    client.post_all([
        (HELLO, body().u8(0).u8(1).into()),
        (LOGIN, login_body("anna", "wrong password").into()),
        (SEND_CHAT_MSG, body().id(hall).text("too soon").into()),
        (LOGIN, login_body("anna", PASSWORD).into()),
        (SEND_CHAT_MSG, body().id(hall).text("in time").into()),
        (LOGIN, login_body("boris", PASSWORD).into()),
        (LOGOFF, body().into()),
        (SEND_CHAT_MSG, body().id(hall).text("too late").into()),
        (LOGIN, login_body("boris", PASSWORD).into()),
        (REQUEST_CHAT_MSG, body().id(hall).time(0).into()),
    ]);
    client.answer().accepted();
    client.answer().declined("bad-credentials");
    client.answer().declined("login-required");
    client.answer().accepted();
    client.answer().accepted();
    client.answer().declined("already-authorized");
    client.answer().accepted_empty();
    client.answer().declined("login-required");
    client.answer().accepted();
    let kept = Reader::new(&client.answer().accepted()).messages();
    assert_eq!(contents(&kept), ["in time"]);
}

/// A password that takes long to check delays nobody else.
#[test]
fn a_slow_password_delays_nobody() {
    let server = hall();
    let mut args = vec!["user", "add", "slow", "--password-stdin"];
    args.extend(["--password-iterations", "4000000"]);
    server.admin_ok(&args, Some("correct horse\n"));
    let mut anna = server.login("anna");
    let hall = anna.chat_id("hall");
    let mut slow = server.greeted();
    slow.post(LOGIN, login_body("slow", PASSWORD));
    for _ in 0..20 {
        anna.send(hall, "meanwhile");
    }
    assert!(!slow.has_bytes(), "the check ended before twenty sends did");
    read_session(&slow.answer().accepted());
}

/// A client that goes away while its password is checked leaves nothing behind.
#[test]
fn a_client_that_does_not_wait_for_its_login() {
    let server = hall();
    for _ in 0..10 {
        let mut client = server.greeted();
        client.post(LOGIN, login_body("anna", PASSWORD));
    }
    let mut anna = server.login("anna");
    let hall = anna.chat_id("hall");
    anna.send(hall, "hi");
}

// RESTORE_SESSION.

/// A session outlives its connection and comes back with its id and hash.
#[test]
fn restore_after_the_connection_is_gone() {
    let server = hall();
    let session = server.greeted().login("anna");
    for _ in 0..3 {
        let mut client = server.greeted();
        client.restore(&session);
        let hall = client.chat_id("hall");
        client.send(hall, "back");
    }
}

/// Every connection of a user may have a session of its own, and each is restored by itself.
#[test]
fn sessions_of_one_user_are_apart() {
    let server = hall();
    let (mut first, mut second) = (server.greeted(), server.greeted());
    let (one, two) = (first.login("anna"), second.login("anna"));
    first.ask(LOGOFF, body()).accepted_empty();
    second.expect_quiet();
    server.greeted().try_restore(&one).declined("bad-session");
    server.greeted().restore(&two);
}

/// A wrong hash, an unknown id and another session's hash are `bad-session`.
#[test]
fn bad_sessions() {
    let server = hall();
    let mine = server.greeted().login("anna");
    let other = server.greeted().login("boris");
    let zeros = "0".repeat(64);
    let mut flipped = mine.hash.clone().into_bytes();
    flipped[63] = if flipped[63] == b'0' { b'1' } else { b'0' };
    let flipped = String::from_utf8(flipped).expect("hex digits");
    let long = mine.hash.repeat(100);
    for (id, hash) in [
        (mine.id, zeros.as_str()),
        (mine.id, flipped.as_str()),
        (mine.id, other.hash.as_str()),
        (other.id, mine.hash.as_str()),
        (mine.id + 100, mine.hash.as_str()),
        (u32::MAX, mine.hash.as_str()),
        (mine.id + 101, ""),
        (mine.id + 102, "é"),
        (mine.id + 103, long.as_str()),
    ] {
        let mut client = server.greeted();
        let hash = hash.to_owned();
        client.try_restore(&Session { id, hash }).declined("bad-session");
        expect_greeted(&mut client);
    }
    server.greeted().restore(&mine);
}

/// A part of the hash, or the hash and more, does not open a session.
#[test]
fn a_part_of_the_hash_is_a_bad_session() {
    let server = hall();
    let session = server.greeted().login("anna");
    for hash in ["", &session.hash[..63], &session.hash[..32], &format!("{}0", session.hash)] {
        let hash = hash.to_owned();
        let wrong = Session { id: session.id, hash };
        server.greeted().try_restore(&wrong).declined("bad-session");
    }
    server.greeted().restore(&session);
}

/// A second connection takes the session over: the first gets DEAUTH and falls back to greeted,
/// from where it can take it back.
#[test]
fn takeover_and_back() {
    let server = hall();
    let (mut first, mut second) = (server.greeted(), server.greeted());
    let session = first.login("anna");
    for _ in 0..3 {
        second.restore(&session);
        first.expect_deauth();
        expect_greeted(&mut first);
        second.chat_id("hall");
        std::mem::swap(&mut first, &mut second);
    }
}

/// After a takeover only the connection that has the session is notified.
#[test]
fn takeover_moves_the_notifications() {
    let server = hall();
    let (mut first, mut second) = (server.greeted(), server.greeted());
    let session = first.login("anna");
    second.restore(&session);
    first.expect_deauth();
    let mut boris = server.login("boris");
    let hall = boris.chat_id("hall");
    boris.send(hall, "hi");
    assert_eq!(contents(&second.notified(hall, 1)), ["hi"]);
    first.expect_quiet();
    first.login("boris");
    boris.send(hall, "again");
    assert_eq!(contents(&first.notified(hall, 1)), ["again"]);
}

/// What a connection had sent before its session was taken over is answered before the DEAUTH.
#[test]
fn takeover_in_the_middle_of_a_stream() {
    let server = hall();
    let mut first = server.greeted();
    let session = first.login("anna");
    let hall = first.chat_id("hall");
    let count = first.post_all(
        (0..200).map(|index| (SEND_CHAT_MSG, body().id(hall).text(&index.to_string()).into())),
    );
    let mut second = server.greeted();
    second.restore(&session);
    let mut accepted = 0;
    let mut ended = false;
    for _ in 0..=count {
        let frame = first.next_frame().expect("an answer or the DEAUTH");
        match (frame.purpose, ended) {
            (ACCEPTED, false) => accepted += 1,
            (DEAUTH, false) => ended = true,
            (DECLINED, true) => drop(frame.declined("login-required")),
            _ => panic!("after the DEAUTH or before it: {frame:?}"),
        }
    }
    assert!(ended, "no DEAUTH");
    assert_eq!(second.history(hall).len(), accepted);
}

// Suspension.

/// The state that a DECLINED to a notification brings: a connection of boris, suspended.
fn suspended(server: &Server) -> (Client, Session, u32) {
    let mut boris = server.greeted();
    let session = boris.login("boris");
    let mut anna = server.login("anna");
    let hall = anna.chat_id("hall");
    anna.send(hall, "unwanted");
    let (task, _) = boris.notify(hall);
    boris.write_frame(DECLINED, task, body().text("forbidden: not now"));
    expect_suspended(&mut boris, hall);
    (boris, session, hall)
}

/// DECLINED to a notification suspends: no notifications, and requests are `session-suspended`,
/// with bodies that parse or not.
#[test]
fn a_declined_notification_suspends() {
    let server = hall();
    let (mut boris, _, hall) = suspended(&server);
    let mut anna = server.login("anna");
    anna.send(hall, "nobody hears");
    boris.expect_quiet();
    expect_suspended(&mut boris, hall);
}

/// RESTORE_SESSION of its own session on the same connection makes it active again.
#[test]
fn restore_on_the_same_connection_ends_the_suspension() {
    let server = hall();
    let (mut boris, session, hall) = suspended(&server);
    boris.restore(&session);
    boris.send(hall, "back");
    server.login("anna").send(hall, "welcome");
    assert_eq!(contents(&boris.notified(hall, 1)), ["welcome"]);
}

/// RESTORE_SESSION on another connection takes the suspended session over, active again.
#[test]
fn restore_on_another_connection_ends_the_suspension() {
    let server = hall();
    let (mut boris, session, hall) = suspended(&server);
    let mut other = server.greeted();
    other.restore(&session);
    boris.expect_deauth();
    expect_greeted(&mut boris);
    server.login("anna").send(hall, "welcome");
    assert_eq!(contents(&other.notified(hall, 1)), ["welcome"]);
    boris.expect_quiet();
}

/// A suspended connection takes back its own session only, and only by its hash.
#[test]
fn a_suspended_connection_restores_only_its_own_session() {
    let server = hall();
    let (mut boris, session, hall) = suspended(&server);
    let other = server.greeted().login("anna");
    boris.try_restore(&other).declined("already-authorized");
    let wrong = Session { id: session.id, hash: "0".repeat(64) };
    boris.try_restore(&wrong).declined("bad-session");
    expect_suspended(&mut boris, hall);
    boris.restore(&session);
    boris.send(hall, "back");
}

/// A suspended session may be logged off, after which the connection is greeted.
#[test]
fn logoff_of_a_suspended_session() {
    let server = hall();
    let (mut boris, session, _) = suspended(&server);
    boris.ask(LOGOFF, body()).accepted_empty();
    expect_greeted(&mut boris);
    boris.try_restore(&session).declined("bad-session");
    boris.login("boris");
}

/// DISCONNECT is taken from a suspended connection, and the session comes back active.
#[test]
fn a_suspended_session_comes_back_active() {
    let server = hall();
    let (mut boris, session, hall) = suspended(&server);
    boris.write_frame(DISCONNECT, 1, []);
    boris.expect_end();
    let mut boris = server.greeted();
    boris.restore(&session);
    boris.send(hall, "back");
}

/// Who has said DISCONNECT gets what is queued, though something crosses it on the way.
#[test]
fn what_crosses_a_disconnect_destroys_no_answer() {
    let server = hall();
    let mut client = server.greeted();
    client.take_little(8 * 1024);
    for number in 0..700 {
        client.write_frame(HEARTBEAT, (number % 256) as u8, vec![b'x'; 1000]);
    }
    client.write_frame(DISCONNECT, 1, []);
    // Most of the answers are in nobody's hands but the kernel's by then.
    std::thread::sleep(std::time::Duration::from_millis(200));
    client.write_frame(ACCEPTED, 1, []);
    for number in 0..700 {
        let answer = client.next_frame().expect("an answer before the end");
        assert_eq!((answer.purpose, answer.task), (ACCEPTED, (number % 256) as u8));
    }
    client.expect_end();
}

/// Only an answer to a notification counts: not one to task 0, nor to a number not yet used.
#[test]
fn declined_to_nothing_is_ignored() {
    let server = hall();
    let (mut anna, mut boris) = (server.login("anna"), server.login("boris"));
    let hall = anna.chat_id("hall");
    let no = || body().text("forbidden: no");
    boris.write_frame(DECLINED, 1, no());
    // Its answer shows that the server has read what came before: no notification 1 exists yet.
    boris.chat_id("hall");
    anna.send(hall, "one");
    let (task, _) = boris.notify(hall);
    boris.write_frame(ACCEPTED, task, []);
    boris.write_frame(DECLINED, 0, no());
    boris.write_frame(DECLINED, task + 1, no());
    boris.write_frame(DECLINED, 255, no());
    boris.send(hall, "still here");
    anna.send(hall, "two");
    assert_eq!(contents(&boris.notified(hall, 1)), ["two"]);
}

/// A DECLINED to a notification of an earlier session of the connection suspends nobody, and the
/// numbers go on over the sessions of a connection.
#[test]
fn declined_to_a_notification_of_an_earlier_session() {
    let server = hall();
    let (mut anna, mut boris) = (server.login("anna"), server.login("boris"));
    let hall = anna.chat_id("hall");
    anna.send(hall, "one");
    let (first, _) = boris.notify(hall);
    boris.ask(LOGOFF, body()).accepted_empty();
    boris.login("boris");
    boris.write_frame(DECLINED, first, body().text("forbidden: late"));
    boris.send(hall, "still here");
    anna.send(hall, "two");
    let (second, _) = boris.notify(hall);
    assert_eq!(second, first + 1, "the numbers do not go on");
    boris.write_frame(DECLINED, second, body().text("forbidden: now"));
    expect_suspended(&mut boris, hall);
}

/// A DECLINED that arrives in a greeted connection suspends nothing: there is no session.
#[test]
fn declined_after_a_takeover() {
    let server = hall();
    let (mut anna, mut first) = (server.login("anna"), server.greeted());
    let session = first.login("boris");
    let hall = anna.chat_id("hall");
    anna.send(hall, "one");
    let (task, _) = first.notify(hall);
    let mut second = server.greeted();
    second.restore(&session);
    first.expect_deauth();
    first.write_frame(DECLINED, task, body().text("forbidden: late"));
    expect_greeted(&mut first);
    second.send(hall, "not suspended");
    second.write_frame(DECLINED, task, body().text("forbidden: not mine"));
    second.send(hall, "still not suspended");
}

// Limits of failures (section 7).

/// After five wrong passwords the sixth try is `rate-limited` though it is right, with the seconds
/// to wait as the one number in the words; other logins are untouched.
#[test]
fn logins_are_limited_by_failures() {
    let server = hall();
    let mut client = server.greeted();
    for login in ["anna", "ANNA", "Anna", "anna", "annA"] {
        client.ask(LOGIN, login_body(login, "wrong password")).declined("bad-credentials");
    }
    let wait = client.ask(LOGIN, login_body("anna", PASSWORD)).declined_with_number("rate-limited");
    assert!((1..=10).contains(&wait), "wait {wait} s");
    server.greeted().ask(LOGIN, login_body("aNNa", PASSWORD)).declined_with_number("rate-limited");
    client.login("boris");
}

/// An unknown login is limited like a known one: the limit shows nobody who exists.
#[test]
fn unknown_logins_are_limited_too() {
    let server = hall();
    let mut client = server.greeted();
    for _ in 0..5 {
        client.ask(LOGIN, login_body("nobody", PASSWORD)).declined("bad-credentials");
    }
    client.ask(LOGIN, login_body("nobody", PASSWORD)).declined_with_number("rate-limited");
}

/// Success spends nothing, and gives nothing back.
#[test]
fn success_neither_spends_nor_refills() {
    let server = hall();
    for _ in 0..8 {
        server.login("anna");
    }
    let mut client = server.greeted();
    for _ in 0..4 {
        client.ask(LOGIN, login_body("anna", "wrong password")).declined("bad-credentials");
    }
    server.login("anna");
    client.ask(LOGIN, login_body("anna", "wrong password")).declined("bad-credentials");
    client.ask(LOGIN, login_body("anna", PASSWORD)).declined_with_number("rate-limited");
}

/// Right passwords are no failures, however many are being checked at once.
#[test]
fn many_right_passwords_at_once_are_no_failures() {
    let server = hall();
    let mut args = vec!["user", "add", "slow", "--password-stdin"];
    args.extend(["--password-iterations", "200000"]);
    server.admin_ok(&args, Some("correct horse\n"));
    let mut clients: Vec<Client> = (0..12).map(|_| server.greeted()).collect();
    for client in &mut clients {
        client.post(LOGIN, login_body("slow", PASSWORD));
    }
    for client in &mut clients {
        read_session(&client.answer().accepted());
    }
}

/// Wrong passwords sent at once from many connections buy no more guesses than one by one.
#[test]
fn many_wrong_passwords_at_once_are_limited() {
    let server = hall();
    let mut clients: Vec<Client> = (0..20).map(|_| server.greeted()).collect();
    for client in &mut clients {
        client.post(LOGIN, login_body("anna", "wrong password"));
    }
    let mut guesses = 0;
    for client in &mut clients {
        let answer = client.answer();
        if answer.body.starts_with(b"bad-credentials") {
            guesses += 1;
        } else {
            answer.declined_with_number("rate-limited");
        }
    }
    assert_eq!(guesses, 5);
}

/// A newcomer at another address locks nobody out.
#[test]
fn failures_count_per_address() {
    let server = hall();
    let mut newcomer = connect_from(Ipv4Addr::new(127, 0, 0, 2), server.address());
    for _ in 0..5 {
        newcomer.ask(LOGIN, login_body("anna", "wrong password")).declined("bad-credentials");
    }
    newcomer.ask(LOGIN, login_body("anna", "wrong password")).declined_with_number("rate-limited");
    server.login("anna");
}

/// Wrong session hashes are limited per session, and the session itself is not lost by it.
#[test]
fn restores_are_limited_by_failures() {
    let server = hall();
    let (mine, other) = (server.greeted().login("anna"), server.greeted().login("boris"));
    let wrong = Session { id: mine.id, hash: "0".repeat(64) };
    let mut client = server.greeted();
    for _ in 0..5 {
        client.try_restore(&wrong).declined("bad-session");
    }
    let wait = client.try_restore(&mine).declined_with_number("rate-limited");
    assert!((1..=10).contains(&wait), "wait {wait} s");
    client.restore(&other);
    connect_from(Ipv4Addr::new(127, 0, 0, 3), server.address()).restore(&mine);
}

/// An address alone has a hundred failures, over however many logins.
#[test]
fn an_address_is_limited_over_all_logins() {
    let server = hall();
    let mut client = server.greeted();
    let mut failures = 0;
    // The bucket gets one back every second, so a few more than a hundred may fail.
    let wait = loop {
        let login = format!("nobody{failures}");
        let answer = client.ask(LOGIN, login_body(&login, PASSWORD));
        if answer.clone().body.starts_with(b"rate-limited") {
            break answer.declined_with_number("rate-limited");
        }
        answer.declined("bad-credentials");
        failures += 1;
        assert!(failures < 200, "no limit of the address");
    };
    assert!(failures >= 100, "only {failures} failures");
    assert!((1..=2).contains(&wait), "wait {wait} s");
    connect_from(Ipv4Addr::new(127, 0, 0, 4), server.address()).login("anna");
}

// The command line.

/// `user add` while the server runs: the user can log in at once.
#[test]
fn a_new_user_logs_in_at_once() {
    let server = Server::start();
    let mut client = server.greeted();
    server.add_user("Late");
    client.login("late");
}

/// `user disable` takes the sessions for good and the logins until `user enable`.
#[test]
fn a_disabled_user_is_out_within_a_second() {
    let server = hall();
    let mut anna = server.greeted();
    let session = anna.login("anna");
    server.admin_ok(&["user", "disable", "anna"], None);
    let frame = anna.expect_within_a_second(DEAUTH);
    assert_eq!(frame, Frame::new(DEAUTH, 0, []));
    expect_greeted(&mut anna);
    anna.try_restore(&session).declined("bad-session");
    anna.ask(LOGIN, login_body("anna", PASSWORD)).declined("bad-credentials");
    server.admin_ok(&["user", "enable", "anna"], None);
    anna.try_restore(&session).declined("bad-session");
    anna.login("anna");
}

/// `user passwd` ends the sessions, and the new password is the one that counts.
#[test]
fn a_new_password_ends_the_sessions() {
    let server = hall();
    let mut anna = server.greeted();
    let session = anna.login("anna");
    server.admin_ok(&["user", "passwd", "anna", "--password-stdin"], Some("battery staple\n"));
    anna.expect_within_a_second(DEAUTH);
    anna.try_restore(&session).declined("bad-session");
    anna.ask(LOGIN, login_body("anna", PASSWORD)).declined("bad-credentials");
    anna.ask(LOGIN, login_body("anna", "battery staple")).accepted();
}

/// A login that was under way when the password changed does not get in by the old one, or is
/// thrown out again; and the old one, which it would have had hashed with more rounds, stays gone.
#[test]
fn a_login_under_way_when_the_password_changes() {
    let server = hall_with(&["--password-iterations", "800000"]);
    let slow = ["user", "passwd", "anna", "--password-stdin", "--password-iterations", "600000"];
    server.admin_ok(&slow, Some(&format!("{PASSWORD}\n")));
    let mut anna = server.greeted();
    anna.post(LOGIN, login_body("anna", PASSWORD));
    let quick = ["user", "passwd", "anna", "--password-stdin", "--password-iterations", "1000"];
    server.admin_ok(&quick, Some("battery staple\n"));
    let answer = anna.answer();
    if answer.purpose == ACCEPTED {
        // It was quicker than the command.
        anna.expect_within_a_second(DEAUTH);
    } else {
        answer.declined("bad-credentials");
    }
    expect_greeted(&mut anna);
    anna.ask(LOGIN, login_body("anna", PASSWORD)).declined("bad-credentials");
    anna.ask(LOGIN, login_body("anna", "battery staple")).accepted();
}

/// Logins at once that all find too few rounds get in, whichever of them has the password hashed
/// anew.
#[test]
fn logins_at_once_that_raise_the_rounds() {
    let server = hall_with(&["--password-iterations", "100000"]);
    let mut clients: Vec<Client> = (0..4).map(|_| server.greeted()).collect();
    for client in &mut clients {
        client.post(LOGIN, login_body("anna", PASSWORD));
    }
    for client in &mut clients {
        client.answer().accepted();
    }
}

/// `session end` ends one session and no other.
#[test]
fn session_end_ends_one_session() {
    let server = hall();
    let (mut first, mut second) = (server.greeted(), server.greeted());
    let (one, two) = (first.login("anna"), second.login("anna"));
    server.admin_ok(&["session", "end", &one.id.to_string()], None);
    first.expect_within_a_second(DEAUTH);
    first.try_restore(&one).declined("bad-session");
    second.expect_quiet();
    server.greeted().restore(&two);
    second.expect_deauth();
}
