//! The client against a server of a few lines that says exactly what each test needs.

mod breaks;
mod hostile;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::*;
use crate::ids::{ChatId, MessageId, ServerTime, SessionId, UserId};
use crate::wire::answer as say;
use crate::wire::codec::{self, Put};
use crate::wire::decline::Decline;
use crate::wire::extras::Extras;
use crate::wire::frame::{Parsed, parse};

const WAIT: Duration = Duration::from_secs(5);

fn chat(id: u32) -> ChatId {
    ChatId::new(id).expect("not 0")
}

fn time(micros: i64) -> ServerTime {
    ServerTime::new(micros).expect("positive")
}

fn put_message(out: &mut Vec<u8>, at: i64, content: &str) {
    let message = codec::Message {
        id: MessageId::at(time(at)),
        sender: UserId::new(2).expect("not 0"),
        created: time(at),
        updated: time(at),
        status: 0,
        content,
        extras: Extras::NONE,
    };
    codec::put_message(out, Version::V1_0, &message);
}

fn notify(out: &mut Vec<u8>, chat: u32, at: i64) {
    frame::write(out, ToClient::MsgNotify.byte(), 1, |body| {
        body.put_u32(chat);
        put_message(body, at, "live");
    });
}

/// When the session of a login was made.
const SESSION_CREATED: i64 = 2;

/// Answers what begins a session; whether it was that.
fn greet(task: u8, request: &Request<'_>, out: &mut Vec<u8>) -> bool {
    match *request {
        Request::Hello { major, minor } => {
            say::accepted(out, task, |body| body.put_bytes(&[major, minor]));
        }
        Request::Login { .. } => say::accepted(out, task, |body| {
            body.put_u32(3);
            body.put_str("secret");
        }),
        Request::RestoreSession { session, hash } => {
            assert_eq!((session, hash), (SessionId::new(3).expect("not 0"), "secret"));
            say::accepted(out, task, |_| {});
        }
        Request::GetSessions => say::accepted(out, task, |body| {
            for (id, flags, created) in [(2, 2, 1), (3, 3, SESSION_CREATED)] {
                body.put_u32(id);
                body.put_u8(flags);
                body.put_time(time(created));
                body.put_time(time(created));
                body.put_str("127.0.0.1");
            }
        }),
        _ => return false,
    }
    true
}

fn put_chat(out: &mut Vec<u8>, version: Version, id: u32) {
    let info = say::ChatInfo {
        chat: chat(id),
        kind: say::CHAT_KIND_GROUP,
        flags: say::CHAT_MEMBER,
        members: 2,
        last_message: ServerTime::ZERO,
        seen: ServerTime::ZERO,
        unread: 0,
        name: "",
        title: "",
        notify: 0,
    };
    say::put_chat_info(out, version, &info);
}

/// What a test's server does with one request: writes frames, and says whether to go on.
type Handler = fn(connection: u32, task: u8, request: &Request<'_>, out: &mut Vec<u8>) -> bool;

/// Serves one connection after the other with `handler` until the test ends; HELLO, LOGIN, what a
/// login asks for, and RESTORE_SESSION are answered here. Every request is reported to the test as
/// text.
fn serve(version: Version, handler: Handler) -> (SocketAddr, Receiver<String>) {
    serve_all(version, handler, false)
}

/// As above; with `is_raw` the handler gets all requests.
fn serve_all(version: Version, handler: Handler, is_raw: bool) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (report, heard) = channel();
    std::thread::Builder::new()
        .spawn(move || {
            for connection in 0.. {
                let Ok((stream, _)) = listener.accept() else { return };
                serve_one(stream, version, connection, (handler, is_raw), &report);
            }
        })
        .expect("a thread");
    (address, heard)
}

fn serve_one(
    mut stream: TcpStream,
    version: Version,
    connection: u32,
    (handler, is_raw): (Handler, bool),
    report: &Sender<String>,
) {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    let mut begins = false;
    loop {
        let Parsed::Frame(frame) = parse(&bytes, 1 << 20) else {
            match stream.read(&mut chunk) {
                Ok(read) if read > 0 => bytes.extend_from_slice(&chunk[..read]),
                _ => return,
            }
            continue;
        };
        let purpose = ToServer::from_byte(frame.purpose).expect("a purpose");
        let request = Request::decode(purpose, version, frame.body).expect("well formed");
        let mut words = purpose.name().to_owned();
        if let Request::SendChatMsg { nonce: Some(nonce), .. } = request {
            words += &format!(" {nonce}");
        }
        // A test that has ended hears nothing.
        let _ = report.send(words);
        let mut out = Vec::new();
        begins |= matches!(request, Request::Login { .. });
        let goes_on = if is_raw {
            handler(connection, frame.task, &request, &mut out)
        } else if matches!(request, Request::GetMyChats) && std::mem::take(&mut begins) {
            say::accepted(&mut out, frame.task, |body| put_chat(body, version, 7));
            true
        } else {
            greet(frame.task, &request, &mut out)
                || handler(connection, frame.task, &request, &mut out)
        };
        let whole = frame.bytes();
        bytes.drain(..whole);
        if stream.write_all(&out).is_err() || !goes_on {
            return;
        }
    }
}

fn client(address: SocketAddr, version: Version) -> Client {
    let mut client =
        Client::connect(address, Options { version, ..Options::default() }).expect("it listens");
    let session = client.login("anna", "correct horse").expect("anybody may");
    assert!(!format!("{session:?}").contains("secret"));
    client
}

fn heard(from: &Receiver<String>) -> Vec<String> {
    let mut all = Vec::new();
    while let Ok(words) = from.recv_timeout(Duration::from_millis(100)) {
        all.push(words);
    }
    all
}

#[test]
fn parts_are_assembled_and_what_comes_between_them_waits() {
    let (address, from) = serve(Version::V1_0, |_, task, request, out| {
        if !matches!(request, Request::RequestChatMsg { .. }) {
            return true;
        }
        say::part(out, task, |body| put_message(body, 10, "one"));
        say::bare(out, ToClient::Heartbeat);
        notify(out, 7, 30);
        say::part(out, task, |body| put_message(body, 20, "two"));
        say::part(out, task, |_| {});
        say::accepted(out, task, |_| {});
        true
    });
    let mut client = client(address, Version::V1_0);
    let messages = client.messages(chat(7), ServerTime::ZERO, None).expect("a pack");
    let contents: Vec<_> = messages.iter().map(|message| message.content.as_str()).collect();
    assert_eq!(contents, ["one", "two"]);
    let event = client.next_event(WAIT).expect("connected").expect("it waited");
    assert!(matches!(event, Event::Message { message, .. } if message.content == "live"));
    assert_eq!(client.next_event(Duration::ZERO).expect("connected"), None);
    assert!(heard(&from).contains(&"ACCEPTED".to_owned()), "the heartbeat was answered");
}

#[test]
fn a_decline_names_its_code_and_the_connection_lives_on() {
    let (address, _from) = serve(Version::V1_0, |_, task, request, out| {
        match request {
            Request::GetChatId { .. } => say::declined(out, task, Decline::NoSuchChat),
            _ => say::accepted(out, task, |body| body.put_u32(9)),
        }
        true
    });
    let mut client = client(address, Version::V1_0);
    let error = client.chat_id("hall").expect_err("declined");
    assert_eq!(error.code(), Some("no-such-chat"));
    assert!(!error.is_broken());
    assert_eq!(client.user_id("boris").expect("accepted").get(), 9);
}

#[test]
fn a_send_that_loses_its_connection_is_repeated_with_its_nonce() {
    let (address, from) = serve(Version::V1_0, |connection, task, request, out| {
        if matches!(request, Request::SendChatMsg { .. }) && connection == 0 {
            return false;
        }
        say::accepted(out, task, |body| {
            body.put_u64(5);
            body.put_time(time(5));
        });
        true
    });
    let mut client = client(address, Version::V1_0);
    assert_eq!(client.send(chat(7), "hi").expect("the second time").created, time(5));
    assert_eq!(client.next_event(WAIT).expect("connected"), Some(Event::Missed));
    let heard = heard(&from);
    let sends: Vec<_> = heard.iter().filter(|words| words.starts_with("SEND")).collect();
    assert_eq!(sends.len(), 2);
    assert_eq!(sends[0], sends[1], "the same nonce");
    assert_eq!(heard[5..7], ["HELLO", "RESTORE_SESSION"]);
}

#[test]
fn a_send_on_0_1_is_not_repeated() {
    let (address, from) = serve(Version::V0_1, |_, _, _, _| false);
    let mut client = client(address, Version::V0_1);
    assert!(client.send(chat(7), "hi").expect_err("nobody knows").is_broken());
    assert_eq!(heard(&from), ["HELLO", "LOGIN", "SEND_CHAT_MSG"]);
}

/// A cursor is of one user: another one whose session is restored begins at the beginning, unless
/// theirs was set.
#[test]
fn a_session_of_another_user_does_not_go_on_from_the_cursor_of_the_first() {
    let handler: Handler = |_, task, request, out| {
        match request {
            Request::Login { login, .. } => say::accepted(out, task, |body| {
                body.put_u32(3);
                body.put_str("secret");
                body.put_u32(if *login == "anna" { 1 } else { 2 });
            }),
            Request::GetMyChats => {
                say::accepted(out, task, |body| put_chat(body, Version::V1_0, 7));
            }
            Request::Logoff => say::accepted(out, task, |_| {}),
            _ => return greet(task, request, out),
        }
        true
    };
    let (address, _heard) = serve_all(Version::V1_0, handler, true);
    let mut client = client(address, Version::V1_0);
    assert_eq!(client.cursor().all, time(SESSION_CREATED));
    let of_anna = client.session().expect("logged in").clone();
    let user = Some(UserId::new(2).expect("not 0"));
    let of_boris = Session { user, ..of_anna.clone() };
    client.logoff().expect("accepted");
    client.restore(&of_boris).expect("accepted");
    assert_eq!(client.cursor(), &Cursor::default());
    // Of the same user, also after a while without a session, it stays.
    client.logoff().expect("accepted");
    client.set_cursor(Cursor { all: time(9), ..Cursor::default() });
    client.restore(&of_anna).expect("accepted");
    assert_eq!(client.cursor().all, time(9), "it was set for who comes next");
    client.restore(&of_anna).expect("accepted");
    assert_eq!(client.cursor().all, time(9));
    client.set_cursor(Cursor { all: time(10), ..Cursor::default() });
    client.restore(&of_boris).expect("accepted");
    assert_eq!(client.cursor(), &Cursor::default(), "it was set with a session of anna");
}

/// Answers as a server with chats 7 and 8: of 8, which the client does not know, a message at 4.
fn missed_messages(task: u8, request: &Request<'_>, out: &mut Vec<u8>) {
    match *request {
        Request::GetMyChats => say::accepted(out, task, |body| {
            put_chat(body, Version::V1_0, 7);
            put_chat(body, Version::V1_0, 8);
        }),
        Request::RequestChatMsg { chat: id, from, to } => {
            assert_eq!((id, from, to), (chat(8), ServerTime::ZERO, Some(time(10))));
            say::part(out, task, |body| put_message(body, 4, "of a new chat"));
            say::accepted(out, task, |_| {});
        }
        Request::RequestUpdates { from } => {
            assert_eq!(from, time(11));
            say::part(out, task, |body| {
                body.put_u32(7);
                put_message(body, 12, "missed");
            });
            notify(out, 7, 20);
            say::accepted(out, task, |body| {
                body.put_u32(8);
                put_message(body, 11, "missed too");
            });
        }
        _ => panic!("not expected: {}", request.purpose().name()),
    }
}

#[test]
fn after_a_reconnect_the_catch_up_reads_from_the_cursor_and_unknown_chats_from_zero() {
    let (address, _from) = serve(Version::V1_0, |connection, task, request, out| {
        match request {
            Request::Typing { .. } => {
                notify(out, 7, 10);
                notify(out, 7, 11);
                say::accepted(out, task, |_| {});
            }
            _ => missed_messages(task, request, out),
        }
        connection < 2
    });
    let mut client = client(address, Version::V1_0);
    client.typing(chat(7)).expect("accepted");
    assert!(client.next_event(WAIT).expect("connected").is_some());
    assert_eq!(client.cursor().all, time(10), "the second was not handed over");
    client.reconnect().expect("it listens");
    assert_eq!(client.next_event(WAIT).expect("connected"), Some(Event::Missed));
    let mut caught = Vec::new();
    client
        .catch_up(|chat, message| caught.push((chat.get(), message.updated.micros())))
        .expect("it answers");
    assert_eq!(caught, [(8, 4), (7, 12), (8, 11)]);
    assert_eq!(client.cursor().all, time(12));
    // It came before the catch-up was complete: the cursor waits for the next.
    assert!(client.next_event(WAIT).expect("connected").is_some());
    assert_eq!(client.cursor().all, time(12));
    assert!(client.cursor().chats.contains_key(&chat(8)));
}

#[test]
fn on_0_1_each_chat_is_caught_up_with_in_ranges_that_fit() {
    let (address, _from) = serve(Version::V0_1, |_, task, request, out| {
        let Request::RequestChatMsg { from, to, .. } = *request else { return false };
        match (from.micros(), to.map(ServerTime::micros)) {
            (6, None) => say::declined(out, task, Decline::RangeTooLarge(time(50))),
            (6, Some(50)) => say::accepted(out, task, |body| put_message(body, 50, "a")),
            (51, None) => say::accepted(out, task, |body| put_message(body, 60, "b")),
            other => panic!("not expected: {other:?}"),
        }
        true
    });
    let mut client = client(address, Version::V0_1);
    client.watch(chat(7), time(5));
    let mut caught = Vec::new();
    client.catch_up(|_, message| caught.push(message.updated.micros())).expect("it answers");
    assert_eq!(caught, [50, 60]);
    assert_eq!(client.cursor().chats[&chat(7)], time(60));
}

#[test]
fn a_server_that_says_nothing_is_waited_for_no_longer_than_allowed() {
    let (address, _from) = serve(Version::V1_0, |_, _, _, _| true);
    let options = Options { answer_timeout: Duration::from_millis(50), ..Options::default() };
    let mut client = Client::connect(address, options).expect("it listens");
    assert!(matches!(client.chat_id("hall"), Err(Error::TimedOut)));
}

#[test]
fn disconnect_of_the_server_ends_the_connection() {
    let (address, _from) = serve(Version::V1_0, |_, _, _, out| {
        say::bare(out, ToClient::Disconnect);
        false
    });
    let mut client = client(address, Version::V1_0);
    assert!(matches!(client.chat_id("hall"), Err(Error::Closed)));
    assert!(matches!(client.next_event(WAIT), Err(Error::Closed)));
}

/// An upload that is answered with nothing new does not go on for ever; one that is ahead of what
/// the caller knows goes on from there.
#[test]
fn an_upload_follows_what_is_stored_and_does_not_go_in_circles() {
    let (address, heard) = serve(Version::V1_1, |_, task, request, out| {
        match *request {
            Request::BeginFile { .. } => say::accepted(out, task, |body| body.put_u64(9)),
            Request::PutFile { offset: 0, .. } => say::declined(out, task, Decline::BadOffset(7)),
            Request::PutFile { offset: 7, bytes, .. } => {
                assert_eq!(bytes, b"hijkl");
                say::accepted(out, task, |body| body.put_u64(7));
            }
            Request::EndFile { .. } => say::accepted(out, task, |_| {}),
            _ => panic!("not expected: {}", request.purpose().name()),
        }
        true
    });
    let mut client = client(address, Version::V1_1);
    let new = NewFile { name: "a", media_type: "text/plain", size: 12, width: 0, height: 0 };
    let mut stored = Vec::new();
    let mut content = std::io::Cursor::new(b"abcdefghijkl");
    let outcome = client.upload(chat(1), &new, &mut content, |bytes| stored.push(bytes));
    assert!(matches!(outcome, Err(Error::Protocol("an upload does not go on"))), "{outcome:?}");
    assert_eq!(stored, [7]);

    // What cannot be read here is no broken connection, and the upload is ended.
    let short = NewFile { size: 99, ..new };
    let outcome = client.upload(chat(1), &short, &mut content, |_| {});
    assert!(matches!(&outcome, Err(error @ Error::File(_)) if !error.is_broken()), "{outcome:?}");
    drop(client);
    assert_eq!(heard.try_iter().last().as_deref(), Some("END_FILE"));
}

#[test]
fn older_versions_are_not_asked_for_what_they_do_not_know() {
    let (address, heard) = serve(Version::V1_0, |_, _, _, _| panic!("nothing is sent"));
    let mut client = client(address, Version::V1_0);
    let files = [crate::ids::FileId::new(1).expect("not 0")];
    for message in [
        NewMessage { files: &files, ..NewMessage::default() },
        NewMessage { reply: Some(MessageId::at(time(1))), ..NewMessage::from("x") },
    ] {
        let error = client.send_with(chat(1), message).expect_err("not known");
        assert_eq!(error.code(), Some("unknown-purpose"));
    }
    drop(client);
    assert_eq!(heard.try_iter().last().as_deref(), Some("GET_MY_CHATS"));
}
