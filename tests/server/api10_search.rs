//! SEARCH_MSG; deleted messages are not found (protocol section 5).

use crate::support::api10::*;
use crate::support::wire::*;
use crate::support::{Client, Server};

const EDITED: u8 = 0x01;

/// anna made `hall` and is its admin, boris is a member of it.
struct Hall {
    server: Server,
    anna: Client,
    boris: Client,
    chat: u32,
}

fn hall() -> Hall {
    let server = Server::start();
    let [(mut anna, _), (mut boris, _)] = server.users10(["anna", "boris"]);
    let chat = anna.create_chat("hall");
    boris.join(chat);
    anna.drain();
    Hall { server, anna, boris, chat }
}

/// The contents of what was found, sorted.
fn found(results: &[(u32, Message)]) -> Vec<&str> {
    let contents = results.iter().map(|(_, message)| message.content.as_str());
    let mut contents: Vec<&str> = contents.collect();
    contents.sort_unstable();
    contents
}

/// All words must occur, in any order, case and normal form; a deleted or edited word does not.
#[test]
fn search_msg() {
    let mut hall = hall();
    let chat = hall.chat;
    for content in [
        "Съешь ещё этих мягких булок",
        "мягких французских булок",
        "Zoe\u{308} eats rolls",
        "nothing of that kind",
    ] {
        hall.anna.send(chat, content);
    }
    let mut search = |query: &str| {
        let results = hall.boris.search(chat, 10, query);
        assert!(results.iter().all(|(of, _)| *of == chat));
        results.len()
    };
    for (query, count) in [
        ("булок", 2),
        ("БУЛОК мягких", 2),
        ("булок французских", 1),
        ("булок zoë", 0),
        ("ZOË", 1),
        ("ещё", 1),
        ("еще", 0),
        ("zoe", 0),
        ("rolls  eats", 1),
        ("бул", 0),
        ("бул*", 2),
        ("МЯГ* фран*", 1),
        ("\"мягких булок\"", 1),
        ("\"булок мягких\"", 0),
        ("\"of that\" kind", 1),
        ("missing", 0),
    ] {
        assert_eq!(search(query), count, "{query}");
    }
}

/// What looks like an operator is a word like any other, and no sign breaks a query.
#[test]
fn search_has_no_operators() {
    let mut hall = hall();
    hall.anna.send(hall.chat, "this and that");
    hall.anna.send(hall.chat, "this or that, not near");
    let mut search = |query: &str| {
        let results = hall.boris.search(hall.chat, 10, query);
        found(&results).join("|")
    };
    assert_eq!(search("this AND that"), "this and that");
    assert_eq!(search("this OR that"), "this or that, not near");
    assert_eq!(search("that NOT near"), "this or that, not near");
    assert_eq!(search("that NEAR this"), "this or that, not near");
    assert_eq!(search("content:that"), "");
    assert_eq!(search("that' OR 1=1 --"), "");
    assert_eq!(search("this, (that)"), "this and that|this or that, not near");
}

/// A query without a word is `bad-query`.
#[test]
fn bad_queries() {
    let mut hall = hall();
    hall.anna.send(hall.chat, "hi");
    for query in ["", " ", "*", "\"\"", "\" \"", "!?.,", "* *", "()", "-"] {
        for chat in [hall.chat, 0] {
            hall.anna.ask(SEARCH_MSG, body().id(chat).u16(10).text(query)).declined("bad-query");
        }
    }
}

/// So is one with more words than are looked for, and the answer says how many may be.
#[test]
fn a_query_of_too_many_words() {
    let mut hall = hall();
    let query = vec!["hi"; 65].join(" ");
    let request = body().id(hall.chat).u16(10).text(&query);
    let words = hall.anna.ask(SEARCH_MSG, request).declined("bad-query");
    assert!(words.contains("64"), "{words}");
}

/// A search over all my chats finds nothing in those of others, nor what was said in a chat that
/// I left.
#[test]
fn search_in_all_my_chats() {
    let mut hall = hall();
    let mine = hall.boris.create_chat("mine");
    let other = hall.anna.create_chat("other");
    hall.anna.send(hall.chat, "word in the hall");
    hall.boris.send(mine, "word of mine");
    hall.anna.send(other, "word of others");
    let results = hall.boris.search(0, 10, "word");
    assert_eq!(found(&results), ["word in the hall", "word of mine"]);
    for (chat, message) in &results {
        let expected = if message.content == "word of mine" { mine } else { hall.chat };
        assert_eq!(*chat, expected);
    }
    hall.boris.ask(SEARCH_MSG, body().id(other).u16(10).text("word")).declined("not-member");
    hall.boris.leave(hall.chat);
    assert_eq!(found(&hall.boris.search(0, 10, "word")), ["word of mine"]);
}

/// What is deleted is not found, and what was edited is found as it is now.
#[test]
fn search_follows_edits_and_deletions() {
    let mut hall = hall();
    let one = hall.anna.send(hall.chat, "a cat");
    let two = hall.anna.send(hall.chat, "another cat");
    assert_eq!(hall.boris.search(hall.chat, 10, "cat").len(), 2);
    hall.anna.delete(hall.chat, one.id);
    hall.anna.edit(hall.chat, two.id, "a dog");
    assert_eq!(hall.boris.search(hall.chat, 10, "cat"), []);
    let dogs = hall.boris.search(hall.chat, 10, "dog");
    assert_eq!(found(&dogs), ["a dog"]);
    assert_eq!(dogs[0].1.status, EDITED);
    hall.anna.delete(hall.chat, two.id);
    assert_eq!(hall.boris.search(0, 10, "dog"), []);
}

/// At most `limit` are found, the best first: more of the word in less of a text is better.
#[test]
fn search_is_ranked_and_limited() {
    let mut hall = hall();
    let filler = "filler ".repeat(200);
    hall.anna.send(hall.chat, &format!("{filler} word {filler}"));
    hall.anna.send(hall.chat, "word word word");
    for _ in 0..10 {
        hall.anna.send(hall.chat, &format!("{filler} word {filler}"));
    }
    let best = hall.boris.search(hall.chat, 1, "word");
    assert_eq!(found(&best), ["word word word"]);
    assert_eq!(hall.boris.search(hall.chat, 5, "word").len(), 5);
    assert_eq!(hall.boris.search(0, 100, "word").len(), 12);
}

/// A message is found as soon as it was accepted, also right behind it in the same write.
#[test]
fn search_finds_what_was_just_sent() {
    let mut hall = hall();
    for round in 1..=20 {
        hall.anna.post(SEND_CHAT_MSG, body().id(hall.chat).text("needle"));
        hall.anna.post(SEARCH_MSG, body().id(hall.chat).u16(100).text("needle"));
        Sent::read(&hall.anna.answer().accepted());
        let answer = hall.anna.whole_answer().accepted();
        let mut reader = Reader::new(&answer);
        let mut count = 0;
        while !reader.is_empty() {
            reader.id();
            reader.message();
            count += 1;
        }
        assert_eq!(count, round);
    }
}

/// The index is there after a kill.
#[test]
fn search_survives_a_kill() {
    let mut hall = hall();
    for number in 0..50 {
        hall.anna.send(hall.chat, &format!("needle {number}"));
    }
    hall.server.kill();
    hall.server.restart();
    let mut anna = hall.server.login10("anna");
    assert_eq!(anna.search(0, 100, "needle").len(), 50);
}

/// What is deleted is gone from the file too, and what was edited away.
#[test]
fn deleted_contents_leave_the_file() {
    let mut hall = hall();
    let sent = hall.anna.send(hall.chat, "unforgettable-one");
    hall.anna.delete(hall.chat, sent.id);
    let sent = hall.anna.send(hall.chat, "unforgettable-two");
    hall.anna.edit(hall.chat, sent.id, "harmless");
    hall.anna.search(hall.chat, 1, "harmless");
    hall.server.stop_by("TERM");
    for name in ["t.db", "t.db-wal"] {
        let bytes = std::fs::read(hall.server.dir().join(name)).unwrap_or_default();
        let holds = bytes.windows(13).any(|window| window == b"unforgettable");
        assert!(!holds, "{name} still holds it");
    }
}
