//! The example bot of `crates/purpose` against the real server.

// Tests stand outside of the server: they start threads.
#![allow(clippy::disallowed_methods)]

#[path = "../../crates/purpose/examples/echo_bot.rs"]
#[allow(dead_code, reason = "a test runs all but its main")]
mod bot;

use std::io::{Read, Write, copy};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::{PASSWORD, Server, in_time};
use purpose::client::{Client, Event, Message, NewMessage, Options};
use purpose::ids::{ChatId, UserId};

/// Long enough for an answer on a busy machine.
const WAIT: Duration = Duration::from_secs(20);
/// Long enough for an answer that must not come.
const SILENCE: Duration = Duration::from_millis(500);

/// A server on a port that it gets again after a restart, with a person and the bots in a chat.
fn hall(bots: &[&'static str]) -> (Server, SocketAddr) {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = free.local_addr().expect("bound");
    drop(free);
    let server = Server::with(&["--listen", &address.to_string()]);
    server.add_user("anna");
    server.add_chat("hall", &["anna"]);
    for bot in bots {
        server.add_user(bot);
        server.admin_ok(&["chat", "join", "hall", bot], None);
    }
    (server, address)
}

/// Runs a bot until the test's process ends, and waits until it is there.
fn begin(anna: &mut Client, address: SocketAddr, name: &'static str) -> UserId {
    thread::spawn(move || bot::run(&address.to_string(), name, PASSWORD));
    let id = anna.user_id(name).expect("a user");
    in_time(|| anna.user(id).expect("there").online);
    // The requests after its login are answered before what is sent from now on.
    thread::sleep(Duration::from_millis(200));
    id
}

fn anna(address: SocketAddr) -> (Client, ChatId) {
    let mut anna = Client::connect(address, Options::default()).expect("it listens");
    anna.login("anna", PASSWORD).expect("a good password");
    let hall = anna.chat_id("hall").expect("it is there");
    (anna, hall)
}

/// The next message within a time.
fn next(client: &mut Client, wait: Duration) -> Option<Message> {
    loop {
        match client.next_event(wait).expect("connected")? {
            Event::Message { message, .. } => return Some(message),
            _ => continue,
        }
    }
}

#[test]
fn it_answers_its_messages_once_and_nothing_else() {
    let (_server, address) = hall(&["echo"]);
    let (mut anna, hall) = anna(address);
    anna.send(hall, "@echo before it came").expect("a member");
    let echo = begin(&mut anna, address, "echo");
    let asked = anna.send(hall, "@echo hello").expect("a member");
    let answer = next(&mut anna, WAIT).expect("an answer");
    assert_eq!((answer.sender, &*answer.content), (echo, "hello"));
    assert_eq!(answer.reply, Some(asked.id));
    for nothing in ["hello", "@echoes", "@echo", "say @echo"] {
        anna.send(hall, nothing).expect("a member");
    }
    // Neither a reaction, nor an edit, nor a reply makes it answer again.
    anna.react(hall, asked.id, true, "👍").expect("a member");
    anna.edit(hall, asked.id, "@echo hello again").expect("mine");
    let reply = NewMessage { content: "@echo so", reply: Some(answer.id), files: &[] };
    anna.send_with(hall, reply).expect("a member");
    assert_eq!(next(&mut anna, SILENCE), None);
    // In a direct chat it answers everything.
    let direct = anna.start_chat(echo).expect("a user");
    anna.send(direct, "psst").expect("a member");
    assert_eq!(next(&mut anna, WAIT).expect("an answer").content, "psst");
}

#[test]
fn it_comes_back_and_answers_what_it_missed_once() {
    let (mut server, address) = hall(&["echo"]);
    let (mut anna, hall) = anna(address);
    begin(&mut anna, address, "echo");
    anna.send(hall, "@echo one").expect("a member");
    assert_eq!(next(&mut anna, WAIT).expect("an answer").content, "one");
    server.kill();
    server.restart();
    anna.reconnect().expect("the session lives on");
    anna.send(hall, "@echo two").expect("a member");
    let mut answers = Vec::new();
    in_time(|| {
        answers = anna.page(hall, None, 50).expect("a member");
        answers.iter().any(|message| message.content == "two")
    });
    let texts: Vec<&str> = answers.iter().map(|message| &*message.content).collect();
    assert_eq!(texts, ["@echo one", "one", "@echo two", "two"]);
    // A session that was ended elsewhere is followed by another.
    let sessions = server.admin_ok(&["session", "list", "echo"], None);
    let id = sessions.lines().nth(1).and_then(|row| row.split_whitespace().next());
    server.admin_ok(&["session", "end", id.expect("an id")], None);
    anna.send(hall, "@echo three").expect("a member");
    in_time(|| {
        let page = anna.page(hall, None, 50).expect("a member");
        page.iter().any(|message| message.content == "three")
    });
}

/// Passes connections on to a server. What a client sends once the flag is set ends its connection.
fn cutter(server: SocketAddr) -> (SocketAddr, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let cut = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&cut);
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.expect("a connection");
            let mut upstream = TcpStream::connect(server).expect("it listens");
            let mut down =
                (upstream.try_clone().expect("a handle"), client.try_clone().expect("a handle"));
            thread::spawn(move || copy(&mut down.0, &mut down.1));
            let flag = Arc::clone(&flag);
            thread::spawn(move || {
                let mut chunk = [0; 4096];
                while let Ok(bytes @ 1..) = client.read(&mut chunk) {
                    if flag.swap(false, Ordering::SeqCst)
                        || upstream.write_all(&chunk[..bytes]).is_err()
                    {
                        break;
                    }
                }
                // Either may have ended before.
                let _ = (client.shutdown(Shutdown::Both), upstream.shutdown(Shutdown::Both));
            });
        }
    });
    (address, cut)
}

/// The message has come, so that no catch-up brings it again.
#[test]
fn a_message_whose_answer_fails_is_answered_later() {
    let (_server, address) = hall(&["echo"]);
    let (mut anna, hall) = anna(address);
    let (through, cut) = cutter(address);
    begin(&mut anna, through, "echo");
    cut.store(true, Ordering::SeqCst);
    anna.send(hall, "@echo kept").expect("a member");
    assert_eq!(next(&mut anna, WAIT).expect("an answer").content, "kept");
    assert!(!cut.load(Ordering::SeqCst), "the connection was cut");
}

/// Neither a bot that says so, nor two of these, go on for ever.
#[test]
fn it_leaves_other_bots_alone() {
    let (server, address) = hall(&["echo", "other"]);
    let (mut anna, hall) = anna(address);
    let echo = begin(&mut anna, address, "echo");
    let other = begin(&mut anna, address, "other");
    // Each is a user without the flag: the answers are replies.
    let asked = anna.send(hall, "@echo @other hello").expect("a member");
    let answer = next(&mut anna, WAIT).expect("an answer");
    assert_eq!((answer.sender, answer.reply), (echo, Some(asked.id)));
    assert_eq!(answer.content, "@other hello");
    assert_eq!(next(&mut anna, SILENCE), None, "{other:?}");
    // One with the flag is not answered at all.
    let token = server.admin_ok(&["hook", "add", "hall", "deploys"], None);
    let mut hook = TcpStream::connect(address).expect("it listens");
    let text = "@echo done";
    let (token, bytes) = (token.trim(), text.len());
    let request = format!(
        "POST /hook/{token} HTTP/1.1\r\nHost: {address}\r\nContent-Type: text/plain\r\n\
         Content-Length: {bytes}\r\n\r\n{text}"
    );
    hook.write_all(request.as_bytes()).expect("it reads");
    assert_eq!(next(&mut anna, WAIT).expect("the bot's").content, text);
    assert_eq!(next(&mut anna, SILENCE), None);
}

#[test]
fn a_wrong_password_ends_it() {
    let (_server, address) = hall(&["echo"]);
    let error = bot::run(&address.to_string(), "echo", "wrong");
    assert_eq!(error.code(), Some("bad-credentials"));
}
