//! The Rust client library against the real server: its events, and reconnects after kills.

use std::io::Cursor;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use crate::support::{PASSWORD, Server};
use purpose::client::{Client, Event, NewFile, NewMessage, Options};
use vestnik::ids::{ChatId, ServerTime};
use vestnik::wire::Version;

const WAIT: Duration = Duration::from_secs(5);

/// A server on a port that it gets again after a restart, with anna and boris in a chat.
fn hall() -> (Server, SocketAddr) {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = free.local_addr().expect("bound");
    drop(free);
    let server = Server::with(&["--listen", &address.to_string()]);
    server.add_user("anna");
    server.add_user("boris");
    server.add_chat("hall", &["anna", "boris"]);
    (server, address)
}

fn login(address: SocketAddr, name: &str, version: Version) -> (Client, ChatId) {
    let options = Options { version, ..Options::default() };
    let mut client = Client::connect(address, options).expect("it listens");
    client.login(name, PASSWORD).expect("a good password");
    let hall = client.chat_id("hall").expect("it is there");
    (client, hall)
}

/// The text of the next message; other events are passed over.
#[track_caller]
fn next_text(client: &mut Client) -> String {
    loop {
        match client.next_event(WAIT).expect("connected").expect("something comes") {
            Event::Message { message, .. } => return message.content,
            Event::Missed => panic!("nothing was missed"),
            _ => {}
        }
    }
}

/// Everything that a catch-up hands over.
fn caught_up(client: &mut Client) -> Vec<String> {
    let mut texts = Vec::new();
    client.catch_up(|_, message| texts.push(message.content)).expect("connected");
    texts
}

#[test]
fn two_talk_and_read_what_was_said() {
    let (_server, address) = hall();
    let (mut anna, hall) = login(address, "anna", Version::V1_0);
    let (mut boris, _) = login(address, "boris", Version::V0_1);
    let sent = anna.send(hall, "привет").expect("a member");
    assert_eq!(next_text(&mut boris), "привет");
    boris.send(hall, "и тебе").expect("a member");
    assert_eq!(next_text(&mut anna), "и тебе");
    let stored = boris.messages(hall, ServerTime::ZERO, None).expect("a member");
    assert_eq!(stored.len(), 2);
    assert_eq!((stored[0].id, stored[0].created), (sent.id, sent.created));
    let page = anna.page(hall, None, 1).expect("a member");
    assert_eq!(page[0].content, "и тебе");
    let mine = anna.my_chats().expect("logged in");
    assert_eq!((mine.len(), mine[0].unread), (1, 1));
    anna.mark_seen(hall, stored[1].updated).expect("a member");
    assert_eq!(anna.chat(hall).expect("it is there").unread, 0);
    let error = anna.chat_id("nowhere").expect_err("no such chat");
    assert_eq!(error.code(), Some("no-such-chat"));
    anna.disconnect();
}

#[test]
fn a_killed_server_costs_no_message_on_1_0() {
    let (mut server, address) = hall();
    let (mut anna, hall) = login(address, "anna", Version::V1_0);
    let (mut boris, _) = login(address, "boris", Version::V1_0);
    anna.send(hall, "one").expect("a member");
    assert_eq!(next_text(&mut boris), "one");

    server.kill();
    server.restart();
    // The connection is gone: the client makes another, and sends again.
    anna.send(hall, "two").expect("the client comes back by itself");
    assert!(boris.next_event(WAIT).expect_err("the connection is gone").is_broken());
    boris.reconnect().expect("the session lives on");
    assert_eq!(boris.next_event(WAIT).expect("connected"), Some(Event::Missed));
    assert_eq!(caught_up(&mut boris), ["two"]);
    assert_eq!(caught_up(&mut boris), Vec::<String>::new(), "the cursor has moved");
    anna.send(hall, "three").expect("a member");
    assert_eq!(next_text(&mut boris), "three");
    // Anna's own messages come with her catch-up: no notification ever notified her of them.
    assert_eq!(caught_up(&mut anna), ["one", "two", "three"]);
}

#[test]
fn on_0_1_each_chat_is_caught_up_with() {
    let (mut server, address) = hall();
    let (mut anna, hall) = login(address, "anna", Version::V0_1);
    let (mut boris, _) = login(address, "boris", Version::V0_1);
    anna.send(hall, "one").expect("a member");
    assert_eq!(next_text(&mut boris), "one");
    server.kill();
    server.restart();
    assert!(anna.send(hall, "lost").expect_err("nobody knows").is_broken());
    anna.reconnect().expect("the session lives on");
    anna.send(hall, "two").expect("a member");
    boris.reconnect().expect("the session lives on");
    assert_eq!(caught_up(&mut boris), ["two"]);
}

#[test]
fn a_nonce_sent_twice_is_stored_once() {
    let (_server, address) = hall();
    let (mut anna, hall) = login(address, "anna", Version::V1_0);
    let first = anna.send_with_nonce(hall, "once", 7).expect("a member");
    let again = anna.send_with_nonce(hall, "once", 7).expect("a member");
    assert_eq!(first, again);
    assert_eq!(anna.messages(hall, ServerTime::ZERO, None).expect("a member").len(), 1);
}

#[test]
fn a_long_history_comes_whole_on_both_versions() {
    let (_server, address) = hall();
    let (mut anna, hall) = login(address, "anna", Version::V1_0);
    let (mut boris, _) = login(address, "boris", Version::V0_1);
    let long = "x".repeat(16_000);
    for number in 0..150 {
        anna.send(hall, &format!("{number} {long}")).expect("a member");
    }
    for client in [&mut anna, &mut boris] {
        let mut numbers = Vec::new();
        client
            .range(hall, ServerTime::ZERO, None, |message| {
                let number = message.content.split(' ').next().map(str::to_owned);
                numbers.push(number.expect("a number"));
            })
            .expect("a member");
        let expected: Vec<String> = (0..150).map(|number| number.to_string()).collect();
        assert_eq!(numbers, expected);
    }
}

/// The calls of 1.1 about accounts, members and invites.
#[test]
fn an_operator_manages_people() {
    use purpose::client::{NewInvite, Notify};
    let (server, address) = hall();
    server.add_user("clara");
    server.admin_ok(&["user", "set", "anna", "--operator", "on"], None);
    let (mut anna, hall) = login(address, "anna", Version::V1_1);
    let options = || Options { version: Version::V1_1, ..Options::default() };
    let mut clara = Client::connect(address, options()).expect("it listens");
    let found = anna.find_users("cl", 10).expect("users");
    let id = found[0].id;
    assert_eq!((found.len(), &*found[0].nickname, found[0].operator), (1, "clara", false));
    let reset = anna.reset_password(id).expect("an operator");
    assert_eq!(clara.set_password("clara", &reset.code, "new password").expect("a good code"), id);
    clara.login("clara", "new password").expect("the new one");
    anna.set_chat_closed(hall, true).expect("an admin");
    assert_eq!(clara.chat_id("hall").expect_err("closed").code(), Some("no-such-chat"));
    let new = NewInvite { registers: false, chat: Some(hall), uses: 2, days: 3 };
    let code = anna.create_invite(new).expect("an admin");
    let invites = anna.invites(Some(hall)).expect("an admin");
    assert_eq!((invites.len(), invites[0].uses_left, invites[0].chat), (1, 2, Some(hall)));
    assert!(code.starts_with(&invites[0].hint));
    assert_eq!(clara.use_invite(&code).expect("good"), hall);
    anna.end_invite(&invites[0].hint).expect("an operator");
    let left = anna.invites(None).expect("an operator");
    assert!(left.iter().all(|invite| invite.chat.is_none()), "one for the first user is left");
    anna.set_chat_notify(hall, Notify::Mentions).expect("a member");
    let chat = anna.chat(hall).expect("mine");
    assert_eq!((chat.closed, chat.notify), (true, Notify::Mentions));
    clara.leave(hall).expect("a member");
    anna.add_member(hall, id).expect("an admin");
    clara.unsubscribe_push().expect("always");
    let declined = clara.subscribe_push("https://a/", &[4; 65], &[0; 16]).expect_err("off");
    assert_eq!(declined.code(), Some("push-off"));
    anna.set_user_disabled(id, true).expect("an operator");
    let user = anna.user(id).expect("there");
    assert!(user.disabled && !user.online);
}

/// Files, replies and reactions by the client's own calls, over a server that is killed meanwhile.
#[test]
fn files_replies_and_reactions() {
    let (mut server, address) = hall();
    let (mut anna, hall) = login(address, "anna", Version::V1_1);
    let (mut boris, _) = login(address, "boris", Version::V1_1);
    let info = anna.server();
    assert_eq!((info.file_bytes_max, info.content_bytes_max), (25 * 1024 * 1024, 16 * 1024));
    assert_eq!(info.registration, Some(purpose::client::Registration::Closed));
    assert!(info.name.contains("vestnik") && info.body_bytes_max == 64 * 1024, "{info:?}");
    let content: Vec<u8> = (0..300_000_u32).map(|place| (place % 251) as u8).collect();
    let new = NewFile {
        name: "a.bin",
        media_type: "application/octet-stream",
        size: content.len() as u64,
        width: 0,
        height: 0,
    };
    let (mut kills, mut last) = (0, 0);
    let file = anna
        .upload(hall, &new, &mut Cursor::new(&content), |stored| {
            assert!(stored >= last, "what was stored stays");
            last = stored;
            if kills == 0 && stored > 100_000 {
                kills += 1;
                server.kill();
                server.restart();
            }
        })
        .expect("uploaded");
    assert_eq!((kills, last), (1, 300_000));
    let first = anna.send(hall, "first").expect("a member");
    let look = NewMessage { content: "look", reply: Some(first.id), files: &[file] };
    let sent = anna.send_with(hall, look).expect("a whole file");
    boris.reconnect().expect("it is there again");
    let mut messages = Vec::new();
    boris.catch_up(|_, message| messages.push(message)).expect("connected");
    let mut message = messages.pop().expect("two messages");
    assert_eq!((message.id, message.reply), (sent.id, Some(first.id)));
    assert_eq!((message.files[0].id, &*message.files[0].name), (file, "a.bin"));
    let mut got = Vec::new();
    let end = boris.download(file, 0, &mut got, |_| {}).expect("a member");
    assert!(end == 300_000 && got == content);
    let updated = anna.react(hall, sent.id, true, "👍").expect("a member");
    let change = loop {
        match boris.next_event(WAIT).expect("connected").expect("something comes") {
            Event::Reaction(change) => break change,
            _ => continue,
        }
    };
    assert_eq!((change.message, change.updated, change.on), (sent.id, updated, true));
    assert!(message.apply(&change) && !message.apply(&change));
    let page = boris.page(hall, None, 1).expect("a member");
    assert_eq!(page, [message]);
    assert_eq!(boris.page_after(hall, Some(first.id), 5).expect("a member"), page);
    let reactions = boris.reactions(hall, sent.id).expect("a member");
    assert_eq!(reactions, [(change.user, "👍".to_owned())]);
}

#[test]
fn the_same_through_a_websocket() {
    let (mut server, address) = hall();
    let login = |name: &str| {
        let url = format!("ws://{address}/ws").parse().expect("an address");
        let options = Options { websocket: Some(url), ..Options::default() };
        let mut client = Client::connect(address, options).expect("it listens");
        client.login(name, PASSWORD).expect("a good password");
        let hall = client.chat_id("hall").expect("it is there");
        (client, hall)
    };
    let (mut anna, hall) = login("anna");
    let (mut boris, _) = login("boris");
    for text in ["привет", &"x".repeat(126), &"y".repeat(16_000)] {
        anna.send(hall, text).expect("a member");
        assert_eq!(next_text(&mut boris), text);
    }
    server.kill();
    server.restart();
    anna.send(hall, "again").expect("it comes back");
    boris.reconnect().expect("it comes back");
    assert_eq!(caught_up(&mut boris).last().map(String::as_str), Some("again"));
    anna.disconnect();

    // Where there is no WebSocket the error says so.
    let url = format!("ws://{address}/nothing").parse().expect("an address");
    let options = Options { websocket: Some(url), ..Options::default() };
    let error = Client::connect(address, options).err().expect("none").to_string();
    assert!(error.contains("404"), "{error}");
}
