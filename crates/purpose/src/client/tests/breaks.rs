//! Connections that break, sessions that are declined, and the cursor over both.

use super::*;
use crate::wire::answer::MemberEvent;

fn react(out: &mut Vec<u8>, at: i64) {
    frame::write(out, ToClient::ReactionNotify.byte(), 2, |body| {
        body.put_u32(7);
        body.put_u64(1);
        body.put_time(time(at));
        body.put_u32(2);
        body.put_u8(1);
        body.put_str("+");
    });
}

fn accept_send(task: u8, out: &mut Vec<u8>) {
    say::accepted(out, task, |body| {
        body.put_u64(200);
        body.put_time(time(200));
    });
}

/// What a catch-up hands over: the times of the messages.
fn caught_up(client: &mut Client) -> Result<Vec<i64>, Error> {
    let mut times = Vec::new();
    client.catch_up(|_, message| times.push(message.updated.micros()))?;
    Ok(times)
}

#[test]
fn a_reaction_that_waits_does_not_hide_the_message_before_it() {
    let (address, _from) = serve(Version::V1_0, |connection, task, request, out| {
        match *request {
            Request::SendChatMsg { .. } if connection == 0 => {
                notify(out, 7, 105);
                react(out, 106);
                say::bare(out, ToClient::Deauth);
                return false;
            }
            Request::SendChatMsg { .. } => accept_send(task, out),
            Request::GetMyChats => {
                say::accepted(out, task, |body| put_chat(body, Version::V1_0, 7));
            }
            Request::RequestUpdates { from } => say::accepted(out, task, |body| {
                if from <= time(105) {
                    body.put_u32(7);
                    put_message(body, 105, "not lost");
                }
            }),
            _ => panic!("not expected: {}", request.purpose().name()),
        }
        true
    });
    let mut client = client(address, Version::V1_0);
    client.send(chat(7), "hi").expect("the second time");
    assert_eq!(client.next_event(WAIT).expect("connected"), Some(Event::Missed));
    assert_eq!(caught_up(&mut client).expect("it answers"), [105]);
    assert_eq!(client.next_event(Duration::ZERO).expect("connected"), None);
}

/// The first message of a chat on 0.1, of which nothing was known before.
#[test]
fn on_0_1_a_message_that_is_left_out_makes_its_chat_known() {
    let (address, _from) = serve(Version::V0_1, |_, task, request, out| {
        match *request {
            Request::GetChatId { .. } => {
                notify(out, 7, 105);
                say::accepted(out, task, |body| body.put_u32(7));
            }
            Request::RequestChatMsg { from, to: None, .. } => {
                assert_eq!(from, time(105));
                say::accepted(out, task, |body| put_message(body, 105, "not lost"));
            }
            _ => panic!("not expected: {}", request.purpose().name()),
        }
        true
    });
    let options = Options { version: Version::V0_1, queue_bytes_max: 0, ..Options::default() };
    let mut client = Client::connect(address, options).expect("it listens");
    client.login("anna", "correct horse").expect("anybody may");
    client.chat_id("hall").expect("accepted");
    assert_eq!(client.next_event(WAIT).expect("connected"), Some(Event::Missed));
    assert_eq!(caught_up(&mut client).expect("it answers"), [105]);
}

/// Breaks the first connection at any request, declines the session on the second, and answers on
/// the third.
fn decline_once(connection: u32, task: u8, request: &Request<'_>, out: &mut Vec<u8>) -> bool {
    match (connection, request) {
        (1, Request::RestoreSession { .. }) => say::declined(out, task, Decline::RateLimited(1)),
        (_, Request::GetMyChats) => say::accepted(out, task, |_| {}),
        (0, Request::BeginFile { .. }) => say::accepted(out, task, |body| body.put_u64(9)),
        (_, request) if greet(task, request, out) => {}
        (0, _) => return false,
        (1, _) => say::declined(out, task, Decline::LoginRequired),
        (_, Request::SendChatMsg { .. }) => accept_send(task, out),
        _ => say::accepted(out, task, |body| body.put_u32(7)),
    }
    true
}

#[test]
fn a_session_that_is_declined_for_now_leaves_a_broken_connection() {
    let (address, _from) = serve_all(Version::V1_0, decline_once, true);
    let mut client = client(address, Version::V1_0);
    assert!(client.chat_id("hall").expect_err("it broke").is_broken());
    let declined = client.reconnect().expect_err("not now");
    assert_eq!(declined.code(), Some("rate-limited"));
    let error = client.chat_id("hall").expect_err("no session");
    assert!(error.is_broken(), "{error}");
    client.reconnect().expect("now it may");
    assert_eq!(client.chat_id("hall").expect("accepted"), chat(7));
}

/// The server said nothing of the message or the file, so the error must not say that it did.
#[test]
fn a_session_that_is_declined_declines_no_message_and_no_file() {
    let (address, _from) = serve_all(Version::V1_0, decline_once, true);
    let mut sender = client(address, Version::V1_0);
    let error = sender.send_with_nonce(chat(7), "hi", 5).expect_err("nobody knows");
    assert!(error.is_broken(), "{error}");
    sender.reconnect().expect("now it may");
    assert_eq!(sender.send_with_nonce(chat(7), "hi", 5).expect("again").created, time(200));

    let (address, from) = serve_all(Version::V1_1, decline_once, true);
    let mut uploader = client(address, Version::V1_1);
    let new = NewFile { name: "a", media_type: "text/plain", size: 3, width: 0, height: 0 };
    let mut content = std::io::Cursor::new(b"abc");
    let error = uploader.upload(chat(7), &new, &mut content, |_| {}).expect_err("it broke");
    assert!(error.is_broken(), "{error}");
    assert!(!heard(&from).contains(&"END_FILE".to_owned()));
}

#[test]
fn a_login_begins_the_cursor_and_a_second_one_keeps_it() {
    let (address, _from) = serve_all(
        Version::V1_0,
        |connection, task, request, out| {
            match *request {
                Request::RestoreSession { .. } if connection == 2 => {
                    say::declined(out, task, Decline::BadSession);
                }
                _ if greet(task, request, out) => {}
                Request::GetMyChats => {
                    say::accepted(out, task, |body| put_chat(body, Version::V1_0, 7));
                }
                Request::RequestUpdates { from } => {
                    let (created, next) = (SESSION_CREATED + 1, [110, 120]);
                    let at = if from == time(created) { next[0] } else { next[1] };
                    assert!(from == time(created) || from == time(111), "{from:?}");
                    say::accepted(out, task, |body| {
                        body.put_u32(7);
                        put_message(body, at, "new");
                    });
                }
                Request::Heartbeat { .. } => return false,
                _ => panic!("not expected: {}", request.purpose().name()),
            }
            true
        },
        true,
    );
    let mut client = client(address, Version::V1_0);
    assert_eq!(client.cursor().all, time(SESSION_CREATED));
    assert!(client.cursor().chats.contains_key(&chat(7)));
    assert_eq!(client.next_event(Duration::ZERO).expect("connected"), None, "nothing is missing");
    assert!(client.heartbeat().expect_err("it broke").is_broken());
    client.reconnect().expect("it listens");
    assert_eq!(caught_up(&mut client).expect("it answers"), [110]);
    assert!(client.heartbeat().expect_err("it broke").is_broken());
    assert_eq!(client.reconnect().expect_err("it ended").code(), Some("bad-session"));
    client.login("anna", "correct horse").expect("on the same connection");
    assert_eq!(client.next_event(WAIT).expect("connected"), Some(Event::Missed));
    assert_eq!(caught_up(&mut client).expect("it answers"), [120]);
}

#[test]
fn what_waits_does_not_move_a_cursor_that_is_set() {
    let (address, _from) = serve(Version::V1_0, |_, task, request, out| {
        match *request {
            Request::Typing { .. } => {
                notify(out, 7, 100);
                say::accepted(out, task, |_| {});
            }
            Request::GetMyChats => {
                say::accepted(out, task, |body| put_chat(body, Version::V1_0, 7));
            }
            Request::RequestUpdates { from } => {
                assert_eq!(from, time(51));
                say::accepted(out, task, |body| {
                    body.put_u32(7);
                    put_message(body, 60, "of another day");
                });
            }
            _ => panic!("not expected: {}", request.purpose().name()),
        }
        true
    });
    let mut client = client(address, Version::V1_0);
    client.typing(chat(7)).expect("accepted");
    let chats = [(chat(7), ServerTime::ZERO)].into();
    client.set_cursor(Cursor { all: time(50), chats });
    assert_eq!(client.next_event(WAIT).expect("connected"), Some(Event::Missed));
    assert_eq!(caught_up(&mut client).expect("it answers"), [60]);
    assert!(matches!(client.next_event(WAIT), Ok(Some(Event::Message { .. }))));
}

#[test]
fn a_chat_that_vanishes_does_not_end_a_catch_up_and_an_error_does_not_hide_it() {
    let (address, from) = serve(Version::V1_0, |connection, task, request, out| {
        match *request {
            Request::GetMyChats => say::accepted(out, task, |body| {
                put_chat(body, Version::V1_0, 7);
                put_chat(body, Version::V1_0, 8);
            }),
            Request::RequestChatMsg { chat, .. } => {
                say::declined(out, task, Decline::NotMember(chat));
            }
            Request::RequestUpdates { .. } if connection == 0 => {
                say::declined(out, task, Decline::StorageFailed);
            }
            Request::RequestUpdates { .. } => say::accepted(out, task, |body| {
                body.put_u32(7);
                put_message(body, 60, "here");
            }),
            _ => panic!("not expected: {}", request.purpose().name()),
        }
        true
    });
    let mut client = client(address, Version::V1_0);
    let error = caught_up(&mut client).expect_err("not now");
    assert_eq!(error.code(), Some("storage-failed"));
    assert_eq!(client.next_event(WAIT).expect("connected"), Some(Event::Missed));
    client.reconnect().expect("it listens");
    assert_eq!(caught_up(&mut client).expect("it answers"), [60]);
    assert!(!client.cursor().chats.contains_key(&chat(8)), "it is not known");
    assert!(heard(&from).contains(&"REQUEST_CHAT_MSG".to_owned()));
}

#[test]
fn a_name_is_resolved_again_and_the_last_addresses_are_kept() {
    let (address, _from) = serve(Version::V1_0, |_, _, _, _| false);
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let mut client = client(address, Version::V1_0);
    client.address = address.to_string().into();
    client.addresses = vec![nobody];
    client.reconnect().expect("where the name is now");
    client.address = "what cannot be resolved".into();
    client.reconnect().expect("where it was");
}

/// Ephemeral events move no cursor: they may wait over a break.
#[test]
fn other_events_leave_the_cursor_alone() {
    let mut cursor = Cursor::default();
    let (chat, user) = (chat(7), UserId::new(2).expect("not 0"));
    for event in [
        Event::Seen { chat, user, time: time(9) },
        Event::Typing { chat, user },
        Event::Presence { user, online: true },
        Event::Member { chat, user, event: MemberEvent::Left, nickname: String::new() },
        Event::Missed,
        Event::Deauth,
    ] {
        cursor.note(&event, true);
    }
    assert_eq!(cursor, Cursor::default());
}
