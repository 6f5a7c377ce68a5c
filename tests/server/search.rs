//! SEARCH_MSG: queries, ranking, fairness of indexing, and erased words (protocol section 5).

use std::time::{Duration, Instant};

use crate::support::wire::*;
use crate::support::{Client, PASSWORD, Server, eventually};

const LEAVE_CHAT: u8 = 0x39;
const START_CHAT: u8 = 0x3A;
const DELETE_CHAT: u8 = 0x3B;
const EDIT_MSG: u8 = 0x48;
const DELETE_MSG: u8 = 0x49;
const SEARCH_MSG: u8 = 0x4B;

/// A connection of a user on API 1.0.
fn login(server: &Server, name: &str) -> Client {
    let mut client = server.connect();
    client.hello(1, 0);
    client.ask(LOGIN, body().text(name).text(PASSWORD)).accepted();
    client
}

/// A server with these users in the chat `hall`.
fn hall(users: &[&str]) -> Server {
    let server = Server::start();
    for user in users {
        server.add_user(user);
    }
    server.add_chat("hall", users);
    server
}

fn search_body(chat: u32, limit: u16, query: &str) -> Body {
    body().id(chat).u16(limit).text(query)
}

/// The results, best first, each with its chat.
#[track_caller]
fn search(client: &mut Client, chat: u32, limit: u16, query: &str) -> Vec<(u32, Message)> {
    let answer = client.ask_whole(SEARCH_MSG, search_body(chat, limit, query)).accepted();
    let mut reader = Reader::new(&answer);
    let mut found = Vec::new();
    while !reader.is_empty() {
        found.push((reader.id(), reader.message()));
    }
    found
}

/// The contents of the results, in the order of the alphabet.
#[track_caller]
fn contents_of(client: &mut Client, chat: u32, query: &str) -> Vec<String> {
    let found = search(client, chat, 100, query);
    let mut contents: Vec<_> = found.into_iter().map(|(_, message)| message.content).collect();
    contents.sort();
    contents
}

/// What was just sent is found at once, by words, beginnings of words and phrases in any script.
#[test]
fn words_prefixes_and_phrases() {
    let server = hall(&["anna"]);
    let mut anna = login(&server, "anna");
    let hall = anna.chat_id("hall");
    for text in [
        "The quick brown fox",
        "quick, said the fox; brown it was",
        "Съешь же ещё этих мягких булок",
        "ЁЖИК в тумане",
        "日本語のテスト",
        "नमस्ते दुनिया",
        "don't panic",
        "👍",
    ] {
        anna.send(hall, text);
    }
    let mut found = |query: &str| contents_of(&mut anna, hall, query).join(" | ");
    let both = "The quick brown fox | quick, said the fox; brown it was";
    assert_eq!(found("quick"), both);
    assert_eq!(found("FOX Brown"), both);
    assert_eq!(found("qui* fo*"), both);
    assert_eq!(found("\"quick brown\""), "The quick brown fox");
    assert_eq!(found("\"quick bro*\""), "The quick brown fox");
    assert_eq!(found("\"brown quick\""), "");
    assert_eq!(found("quic"), "");
    assert_eq!(found("quick cat"), "");
    assert_eq!(found("ЕЩЁ"), "Съешь же ещё этих мягких булок");
    assert_eq!(found("мягк*"), "Съешь же ещё этих мягких булок");
    assert_eq!(found("ёжик"), "ЁЖИК в тумане");
    assert_eq!(found("Е\u{308}жик"), "ЁЖИК в тумане", "in NFC");
    assert_eq!(found("日本"), "日本語のテスト");
    assert_eq!(found("本日"), "");
    assert_eq!(found("दुनिया"), "नमस्ते दुनिया");
    assert_eq!(found("don't"), "don't panic");
}

/// What is FTS5's own syntax elsewhere is only words here, and without a word a query is bad.
#[test]
fn a_query_without_a_word_is_bad() {
    let server = hall(&["anna", "boris"]);
    server.add_chat("attic", &["boris"]);
    let mut anna = login(&server, "anna");
    let hall = anna.chat_id("hall");
    let attic = anna.chat_id("attic");
    for query in ["", " ", "*", "\"\"", "\"* *\"", "()", "-", "^ : + {}", "👍", &"x ".repeat(65)]
    {
        anna.ask(SEARCH_MSG, search_body(hall, 10, query)).declined("bad-query");
        anna.ask(SEARCH_MSG, search_body(0, 10, query)).declined("bad-query");
    }
    for query in [
        "NOT", "a OR", "AND b", "NEAR(", "words:x", "x NOT y", "\"", "\"x", "x\"", "'; DROP",
        "{x}", "rank:1", "x + y", "^x", "-x", "x*y*", "* x", "\\x",
    ] {
        let answer = anna.ask_whole(SEARCH_MSG, search_body(hall, 10, query));
        if query == "\"" {
            answer.declined("bad-query");
        } else {
            answer.accepted_empty();
        }
    }
    // Who may not look is notified that first.
    anna.ask(SEARCH_MSG, search_body(attic, 10, "")).declined("not-member");
    anna.ask(SEARCH_MSG, search_body(attic, 10, "x")).declined("not-member");
    anna.ask(SEARCH_MSG, search_body(99, 10, "x")).declined("no-such-chat");
    anna.ask(SEARCH_MSG, body().id(hall).u16(1)).declined("malformed");
    anna.ask(SEARCH_MSG, search_body(hall, 1, "x").u8(0)).declined("malformed");
    let mut old = server.login("anna");
    old.ask(SEARCH_MSG, search_body(hall, 10, "x")).declined("unknown-purpose");
}

/// Better is what has the words more often, then what is shorter, then what is newer.
#[test]
fn the_best_come_first() {
    let server = hall(&["anna"]);
    let mut anna = login(&server, "anna");
    let hall = anna.chat_id("hall");
    let long = "cat and then a very long tale about anything else that one could think of";
    for text in [long, "a cat", "cat cat", "no dog", "my cat"] {
        anna.send(hall, text);
    }
    let order = |found: Vec<(u32, Message)>| -> Vec<String> {
        found.into_iter().map(|(_, message)| message.content).collect()
    };
    assert_eq!(order(search(&mut anna, hall, 10, "cat")), ["cat cat", "my cat", "a cat", long]);
    assert_eq!(order(search(&mut anna, 0, 2, "cat")), ["cat cat", "my cat"]);
    assert_eq!(order(search(&mut anna, 0, 0, "cat")), [""; 0]);
}

/// Nobody finds a word of a chat that they are not in, whichever way they ask.
#[test]
fn only_my_chats_are_searched() {
    let server = hall(&["anna", "boris", "clara"]);
    server.add_chat("attic", &["boris"]);
    server.add_user("dmitri");
    let mut anna = login(&server, "anna");
    let mut boris = login(&server, "boris");
    let (hall, attic) = (anna.chat_id("hall"), anna.chat_id("attic"));
    let clara = boris.user_id("clara");
    let direct =
        crate::support::client::read_id(&boris.ask(START_CHAT, body().id(clara)).accepted());
    boris.send(hall, "secret in the hall");
    boris.send(attic, "secret in the attic");
    boris.send(direct, "secret between two");
    let all = ["secret between two", "secret in the attic", "secret in the hall"];
    assert_eq!(contents_of(&mut boris, 0, "secret"), all);
    assert_eq!(contents_of(&mut boris, attic, "sec*"), [all[1]]);
    assert_eq!(contents_of(&mut anna, 0, "secret"), [all[2]]);
    let mut clara = login(&server, "clara");
    assert_eq!(contents_of(&mut clara, 0, "secret"), [all[0], all[2]]);
    anna.ask(SEARCH_MSG, search_body(attic, 9, "secret")).declined("not-member");
    anna.ask(SEARCH_MSG, search_body(direct, 9, "secret")).declined("no-such-chat");
    assert_eq!(contents_of(&mut login(&server, "dmitri"), 0, "secret"), [""; 0], "in no chat");
    boris.ask(LEAVE_CHAT, body().id(attic)).accepted_empty();
    assert_eq!(contents_of(&mut boris, 0, "secret"), [all[0], all[2]]);
}

/// A result is the message as it is now; deleted ones are none.
#[test]
fn edits_and_deletions_count_at_once() {
    let server = hall(&["anna"]);
    let mut anna = login(&server, "anna");
    let hall = anna.chat_id("hall");
    let edited = anna.send(hall, "apples and pears");
    let deleted = anna.send(hall, "apples and plums");
    assert_eq!(contents_of(&mut anna, hall, "apples").len(), 2);
    let request = body().id(hall).u64(edited.id);
    anna.ask(EDIT_MSG, request.clone().text("cherries and pears")).accepted();
    anna.ask(DELETE_MSG, body().id(hall).u64(deleted.id)).accepted();
    assert_eq!(contents_of(&mut anna, hall, "apples"), [""; 0]);
    let found = search(&mut anna, 0, 10, "pears");
    assert_eq!(found.len(), 1);
    let (chat, message) = &found[0];
    assert_eq!((*chat, message.id, message.status), (hall, edited.id, 0x01));
    assert_eq!(message.content, "cherries and pears");
    anna.ask(EDIT_MSG, request.text("grapes")).accepted();
    assert_eq!(contents_of(&mut anna, hall, "cherries"), [""; 0]);
    assert_eq!(contents_of(&mut anna, hall, "grapes"), ["grapes"]);
}

/// Many results come whole, in PARTs, up to 200 of them; requests behind a search are answered
/// after it.
#[test]
fn many_results() {
    let server = hall(&["anna"]);
    let mut anna = login(&server, "anna");
    let hall = anna.chat_id("hall");
    let long = "x".repeat(8000);
    let count = anna.post_all((0..700).map(|n| {
        let text = format!("common number{n} {}", if n % 10 == 0 { long.as_str() } else { "" });
        (SEND_CHAT_MSG, body().id(hall).text(&text).into())
    }));
    for _ in 0..count {
        anna.answer().accepted();
    }
    anna.post(SEARCH_MSG, search_body(hall, u16::MAX, "common"));
    anna.post(HEARTBEAT, body());
    let answer = anna.whole_answer().accepted();
    let mut reader = Reader::new(&answer);
    let mut found = 0;
    while !reader.is_empty() {
        assert_eq!(reader.id(), hall);
        assert!(reader.message().content.starts_with("common number"));
        found += 1;
    }
    assert_eq!(found, 200);
    anna.answer().accepted_empty();
    for n in [0, 7, 350, 690, 699] {
        assert_eq!(search(&mut anna, 0, 10, &format!("number{n}")).len(), 1, "{n}");
    }
    assert_eq!(search(&mut anna, hall, 200, "number*").len(), 200);
    assert_eq!(search(&mut anna, hall, 200, "number69*").len(), 11);
    assert_eq!(search(&mut anna, hall, 200, "xxx* common").len(), 70);
}

/// Everything is found after a crash, and after an end gracefully.
#[test]
fn the_index_catches_up_after_a_restart() {
    let mut server = hall(&["anna"]);
    for round in 0..4 {
        let mut anna = login(&server, "anna");
        let hall = anna.chat_id("hall");
        for before in 0..round {
            let one = format!("word{before}x7");
            assert_eq!(search(&mut anna, 0, 10, &one).len(), 1, "{one}");
            assert_eq!(search(&mut anna, 0, 200, &format!("round{before}")).len(), 50);
        }
        let count = anna.post_all((0..50).map(|n| {
            let text = format!("round{round} word{round}x{n}");
            (SEND_CHAT_MSG, body().id(hall).text(&text).into())
        }));
        for _ in 0..count {
            anna.answer().accepted();
        }
        if round % 2 == 0 {
            server.kill();
        } else {
            server.stop_by("TERM");
        }
        server.restart();
    }
    server.admin_ok(&["check"], None);
}

/// Whether any of the server's files holds these bytes.
fn is_in_files(server: &Server, text: &str) -> bool {
    let folder = server.data().parent().expect("a folder").to_owned();
    let files = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a file"));
    let mut data = files.filter(|file| file.file_name().to_string_lossy().starts_with("t.db"));
    data.any(|file| {
        let bytes = std::fs::read(file.path()).unwrap_or_default();
        bytes.windows(text.len()).any(|part| part == text.as_bytes())
    })
}

/// What is deleted, edited or gone with its chat is not in the file any more, index included.
#[test]
fn what_is_deleted_is_gone_from_the_file() {
    let mut server = hall(&["anna"]);
    server.add_chat("attic", &["anna"]);
    let mut anna = login(&server, "anna");
    let (hall, attic) = (anna.chat_id("hall"), anna.chat_id("attic"));
    let long: String = (0..1000).map(|n| format!("longwinded{n} ")).collect();
    let edited = anna.send(hall, "xylophone stays");
    let deleted = anna.send(hall, "quadrature of the circle");
    let deleted_long = anna.send(hall, &long);
    anna.send(attic, "labyrinthine");
    anna.send(hall, "marzipan");
    assert_eq!(contents_of(&mut anna, 0, "labyrinthine").len(), 1);
    anna.ask(EDIT_MSG, body().id(hall).u64(edited.id).text("it stays")).accepted();
    for gone in [deleted, deleted_long] {
        anna.ask(DELETE_MSG, body().id(hall).u64(gone.id)).accepted();
    }
    anna.ask(DELETE_CHAT, body().id(attic)).accepted_empty();
    assert_eq!(contents_of(&mut anna, 0, "labyrinthine"), [""; 0]);
    let check = || server.admin_ok(&["check"], None);
    eventually(|| !check().contains("swept"));
    server.stop_by("TERM");
    assert!(is_in_files(&server, "marzipan"));
    for gone in ["xylophone", "quadrature", "longwinded777", "labyrinthine"] {
        assert!(!is_in_files(&server, gone), "{gone}");
    }
    server.admin_ok(&["check"], None);
    server.restart();
    assert_eq!(contents_of(&mut login(&server, "anna"), 0, "stays"), ["it stays"]);
}

/// One user's flood makes nobody else wait for the index, and a search of the flooded chat is
/// complete or `not-ready`.
#[test]
fn a_flood_makes_nobody_else_wait() {
    let server = Server::start();
    let [(mut anna, _), (mut boris, _)] = server.users10(["anna", "boris"]);
    let (flooded, attic) = (anna.create_chat("flooded"), boris.create_chat("attic"));
    let words: String = (0..2000).map(|n| format!("w{n:06} ")).collect();
    let count = anna.post_all((0..600).map(|n| {
        (SEND_CHAT_MSG, Vec::from(body().id(flooded).text(&format!("flood{n} {words}"))))
    }));
    for _ in 0..count {
        anna.answer().accepted();
    }
    boris.send(attic, "a needle");
    let begun = Instant::now();
    assert_eq!(boris.search(attic, 10, "needle").len(), 1);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(boris.search(0, 10, "needle").len(), 1);
    crate::support::in_time(|| {
        let answer = anna.ask_whole(SEARCH_MSG, body().id(flooded).u16(10).text("flood599"));
        if answer.purpose == DECLINED {
            let wait = answer.declined_with_number("not-ready");
            assert!((1..=600).contains(&wait), "{wait}");
            return false;
        }
        let body = answer.accepted();
        assert!(!body.is_empty(), "an answer that is wrong");
        true
    });
    let metrics = server.metrics();
    assert_eq!(metrics["search_backlog"], 0.0);
    // Merging is spread: no commit of it is large.
    let all = metrics["commit_rows_count"];
    assert_eq!(metrics["commit_rows_bucket{le=\"1024\"}"], all, "{metrics:?}");
}
