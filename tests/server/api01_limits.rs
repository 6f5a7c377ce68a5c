//! Timeouts and limits of connections (protocol sections 3 and 7).

use std::time::{Duration, Instant};

use crate::support::wire::*;
use crate::support::{Client, PASSWORD, Server, eventually};

fn anna(options: &[&str]) -> Server {
    let server = Server::with(options);
    server.add_user("anna");
    server
}

/// The server says DISCONNECT and closes, not before `least`.
#[track_caller]
#[allow(clippy::disallowed_methods, reason = "the test measures a time-out")]
fn expect_disconnect_after(client: &mut Client, least: Duration) {
    let begun = Instant::now();
    client.expect_disconnect();
    let took = begun.elapsed();
    // The connection is a little older than the measurement.
    let slack = Duration::from_millis(200);
    assert!(took + slack >= least, "after {took:?}, not {least:?}");
    assert!(took < least + Duration::from_secs(3), "after {took:?}");
}

/// A connection that is closed without a byte.
#[track_caller]
fn expect_refused(client: &mut Client) {
    client.expect_end();
}

/// A connection that does not log in is closed, new or greeted, whatever it says meanwhile; one
/// that logged in stays.
#[test]
fn connections_without_a_session_are_closed() {
    let server = anna(&["--auth-timeout", "1"]);
    let mut logged_in = server.login("anna");
    let mut greeted = server.greeted();
    let mut new = server.connect();
    greeted.ask(HEARTBEAT, body()).accepted_empty();
    expect_disconnect_after(&mut new, Duration::from_secs(1));
    greeted.expect_disconnect();
    logged_in.user_id("anna");
}

/// A connection that feeds a frame byte by byte does not live longer without a session.
#[test]
fn a_dribbling_connection_is_closed() {
    let server = anna(&["--auth-timeout", "1"]);
    let mut client = server.connect();
    client.write(&[2, 0, 0]);
    std::thread::sleep(Duration::from_millis(500));
    client.write(&[0]);
    client.expect_disconnect();
}

/// A connection whose session was taken or given up has the time of a new one to log in again.
#[test]
fn a_connection_that_lost_its_session_is_closed_later() {
    let server = anna(&["--auth-timeout", "1"]);
    let mut first = server.greeted();
    let session = first.login("anna");
    std::thread::sleep(Duration::from_millis(1200));
    let mut second = server.greeted();
    second.restore(&session);
    first.expect_deauth();
    first.ask(HEARTBEAT, body()).accepted_empty();
    expect_disconnect_after(&mut first, Duration::from_secs(1));
    second.ask(LOGOFF, body()).accepted_empty();
    second.login("anna");
    std::thread::sleep(Duration::from_millis(1200));
    second.user_id("anna");
}

/// A silent client is asked by HEARTBEAT; one that answers stays, as often as it is asked.
#[test]
fn a_silent_client_that_answers_stays() {
    let server = anna(&["--idle-timeout", "1", "--heartbeat-timeout", "1"]);
    let mut anna = server.login("anna");
    for _ in 0..3 {
        let asked = anna.expect(HEARTBEAT);
        assert_eq!(asked.task, 0);
        anna.write_frame(ACCEPTED, 0, asked.body);
    }
    anna.user_id("anna");
}

/// Any byte is a sign of life.
#[test]
fn any_byte_is_a_sign_of_life() {
    let server = anna(&["--idle-timeout", "1", "--heartbeat-timeout", "1"]);
    let mut anna = server.login("anna");
    anna.expect(HEARTBEAT);
    anna.write(&[0]);
    anna.expect(HEARTBEAT);
    anna.write(&[0, 0, 0, HEARTBEAT, 9]);
    assert_eq!(anna.next_frame(), Some(Frame::new(ACCEPTED, 9, [])));
}

/// A silent client that does not answer is closed, and is notified so even if nothing was sent to
/// it for so long that it would pass for one that takes nothing.
#[test]
fn a_silent_client_that_does_not_answer_is_closed() {
    let server = anna(&["--idle-timeout", "1", "--heartbeat-timeout", "1", "--stall-timeout", "1"]);
    let mut anna = server.login("anna");
    anna.expect(HEARTBEAT);
    expect_disconnect_after(&mut anna, Duration::from_secs(1));
}

/// A client that is notified a lot and says nothing is silent all the same.
#[test]
fn a_silent_listener_is_asked() {
    let server = anna(&["--idle-timeout", "1", "--heartbeat-timeout", "30"]);
    server.add_chat("hall", &["anna"]);
    let (mut writer, mut listener) = (server.login("anna"), server.login("anna"));
    let hall = writer.chat_id("hall");
    let mut asked = false;
    for _ in 0..200 {
        writer.send(hall, "hi");
        let frame = listener.next_frame().expect("a frame");
        asked |= frame.purpose == HEARTBEAT;
        if asked {
            break;
        }
        assert_eq!(frame.purpose, MSG_NOTIFY);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(asked, "notifications were taken for signs of life");
}

/// Beyond the unauthorized connections of an address the next is closed without a byte; one that
/// logs in or goes makes room.
#[test]
fn unauthorized_connections_of_an_address_are_limited() {
    let server = anna(&["--max-unauthorized-per-address", "3"]);
    let mut waiting: Vec<Client> = (0..3).map(|_| server.greeted()).collect();
    expect_refused(&mut server.connect());
    let mut first = waiting.remove(0);
    first.login("anna");
    let next = server.greeted();
    expect_refused(&mut server.connect());
    drop(next);
    eventually(|| is_served(&server));
    first.user_id("anna");
}

/// Whether a new connection is taken. One that is refused has bytes unread, so its end may come as
/// a reset.
fn is_served(server: &Server) -> bool {
    let mut client = server.connect();
    client.write_frame(HELLO, 1, [0, 1]);
    !client.frames_until(1).is_empty()
}

/// Zero means no limit.
#[test]
fn no_limit_of_unauthorized_connections() {
    let server = anna(&["--max-unauthorized-per-address", "0"]);
    let mut waiting: Vec<Client> = (0..100).map(|_| server.connect()).collect();
    for client in &mut waiting {
        client.hello(0, 1);
    }
}

/// Without an option the limit is 64.
#[test]
fn sixty_four_unauthorized_connections_by_default() {
    let server = anna(&[]);
    let mut waiting: Vec<Client> = (0..64).map(|_| server.connect()).collect();
    expect_refused(&mut server.connect());
    for client in &mut waiting {
        client.hello(0, 1);
    }
}

/// Beyond the connections in all the next is closed without a byte when all have a session, until
/// one goes.
#[test]
fn connections_are_limited() {
    let server = anna(&["--max-connections", "3"]);
    let mut first = server.login("anna");
    let (_second, third) = (server.login("anna"), server.login("anna"));
    expect_refused(&mut server.connect());
    first.user_id("anna");
    drop(third);
    eventually(|| is_served(&server));
}

/// Right passwords cost nothing, however many are under way at once.
#[test]
fn many_right_logins_at_once_all_get_in() {
    let server = anna(&["--max-unauthorized-per-address", "0"]);
    let mut clients: Vec<Client> = (0..120).map(|_| server.greeted()).collect();
    for client in &mut clients {
        client.post(LOGIN, body().text("anna").text(PASSWORD));
    }
    for client in &mut clients {
        client.answer().accepted();
    }
}

/// Guesses that are all sent before the first is answered get no further than guesses one after
/// the other.
#[test]
fn guesses_at_once_get_no_further_than_one_after_the_other() {
    let server = anna(&[]);
    let mut clients: Vec<Client> = (0..12).map(|_| server.greeted()).collect();
    for client in &mut clients {
        client.post(LOGIN, body().text("anna").text("wrong horse"));
    }
    let answers: Vec<Frame> = clients.iter_mut().map(Client::answer).collect();
    let scanned = answers.iter().filter(|answer| answer.body.starts_with(b"bad-credentials"));
    assert_eq!(scanned.count(), 5);
    let refused = answers.iter().filter(|answer| answer.body.starts_with(b"rate-limited"));
    assert_eq!(refused.count(), 7);
}
