//! The screen without a terminal: keys and news in, rows out.

use std::time::{Duration, Instant};

use purpose::client::{Chat, Event, File, Member, Message, Notify, Reaction, ReactionChange, Sent};
use vestnik::ids::{ChatId, FileId, MessageId, ServerTime, UserId};
use vestnik::wire::answer::MemberEvent;

use super::super::controller::Controller;
use super::super::job::{Job, News, Progress};
use super::super::model::Model;
use super::super::text::Clock;
use super::keys::Key;
use super::state::Screen;

const HALL: u32 = 1;
const KITCHEN: u32 = 2;
const WITH_BORIS: u32 = 3;
const ANNA: u32 = 1;
const BORIS: u32 = 2;
/// 20:15 on 22 November 2026.
const EVENING: i64 = 1_795_378_500;

fn chat(id: u32) -> ChatId {
    ChatId::new(id).expect("not 0")
}

fn user(id: u32) -> UserId {
    UserId::new(id).expect("not 0")
}

fn time(second: i64) -> ServerTime {
    ServerTime::new((EVENING + second) * 1_000_000).expect("positive")
}

fn info(id: u32, name: &str) -> Chat {
    Chat {
        id: chat(id),
        direct: id == WITH_BORIS,
        has_password: false,
        member: true,
        admin: false,
        members: 2,
        last_message: ServerTime::ZERO,
        seen: ServerTime::ZERO,
        unread: 0,
        name: if id == WITH_BORIS { String::new() } else { name.to_owned() },
        title: if id == WITH_BORIS { name.to_owned() } else { String::new() },
        closed: false,
        notify: Notify::All,
    }
}

fn said(second: i64, sender: u32, content: &str) -> Message {
    Message {
        id: MessageId::at(time(second)),
        sender: user(sender),
        created: time(second),
        updated: time(second),
        edited: false,
        deleted: false,
        content: content.to_owned(),
        reply: None,
        files: Vec::new(),
        reactions: Vec::new(),
    }
}

fn members() -> Vec<Member> {
    let member = |id, name: &str, online| Member {
        user: user(id),
        admin: false,
        online,
        banned: false,
        seen: ServerTime::ZERO,
        nickname: name.to_owned(),
    };
    vec![member(ANNA, "anna", true), member(BORIS, "boris", false)]
}

/// A file of this name.
fn file(name: &str) -> File {
    let (id, media_type) = (FileId::new(7).expect("not 0"), "image/png".to_owned());
    File { id, size: 1_200_000, width: 800, height: 600, media_type, name: name.to_owned() }
}

/// Somebody at a screen.
struct Seat {
    screen: Screen,
    now: Instant,
}

impl Seat {
    /// Anna in the hall, in which the messages were said; she is in the kitchen, too.
    #[allow(clippy::disallowed_methods, reason = "a moment to count from")]
    fn in_hall(size: (usize, usize), messages: Vec<Message>) -> Self {
        let controller = Controller::new(Model::new(user(ANNA), "anna".to_owned()), 7, 50);
        let screen = Screen::new(controller, "anna@chat.lan:7420".to_owned(), size);
        let mut seat = Self { screen, now: Instant::now() };
        seat.hears(News::Chats(vec![
            info(HALL, "hall"),
            info(KITCHEN, "kitchen"),
            info(WITH_BORIS, "boris"),
        ]));
        seat.hears(News::Members(chat(WITH_BORIS), members()));
        seat.opened(HALL, "hall", messages);
        seat
    }

    fn opened(&mut self, id: u32, name: &str, messages: Vec<Message>) {
        let chat = Box::new(info(id, name));
        let news = News::Opened { chat, members: members(), messages, is_whole: false };
        self.hears(news);
        self.hears(News::Done);
    }

    fn hears(&mut self, news: News) -> Vec<Job> {
        self.screen.heard(news, self.now)
    }

    fn presses(&mut self, key: Key) -> Vec<Job> {
        self.screen.pressed(key, self.now)
    }

    fn types(&mut self, text: &str) -> Vec<Job> {
        let mut jobs = Vec::new();
        for c in text.chars() {
            let key = if c == '\n' { Key::Enter } else { Key::Char(c) };
            jobs.extend(self.presses(key));
        }
        jobs
    }

    fn rows(&self) -> Vec<String> {
        self.screen.draw(&Clock::utc()).text()
    }

    /// The rows of messages that hold something.
    fn conversation(&self) -> Vec<String> {
        let rows = self.rows();
        let rows = &rows[1..rows.len() - 2];
        rows.iter().filter(|row| !row.is_empty()).cloned().collect()
    }
}

/// The nonce of the message that is among the jobs.
fn nonce_of(jobs: &[Job]) -> Option<u64> {
    jobs.iter().find_map(|job| match job {
        Job::Send { nonce, .. } => Some(*nonce),
        _ => None,
    })
}

#[test]
fn a_wide_screen_shows_chats_people_messages_and_what_is_typed() {
    let mut seat = Seat::in_hall((64, 10), vec![said(0, BORIS, "hello"), said(61, ANNA, "hi")]);
    seat.hears(News::Message(chat(KITCHEN), said(70, BORIS, "soup!")));
    seat.hears(News::Event(Event::Presence { user: user(BORIS), online: true }));
    seat.hears(News::Event(Event::Typing { chat: chat(HALL), user: user(BORIS) }));
    seat.types("how are");
    assert_eq!(
        seat.rows(),
        [
            "hall           │ hall                       2 members, 2 online",
            "kitchen       1│",
            "@boris •       │",
            "               │",
            "               │── 2026-11-22 ──",
            "               │20:15 boris: hello",
            "               │20:16 anna: hi",
            "               │--    new in kitchen: /open kitchen",
            " connected  anna@chat.lan:7420                  boris is typing",
            "> how are",
        ]
    );
    seat.now += Duration::from_secs(7);
    assert_eq!(seat.screen.expire(seat.now), None);
    assert!(!seat.rows()[8].contains("typing"));
}

#[test]
fn a_narrow_screen_keeps_to_the_messages_and_any_size_can_be_drawn() {
    let long = "many words that do not fit into one row, 日本語 and more";
    let mut seat = Seat::in_hall((24, 8), vec![said(0, BORIS, long)]);
    assert_eq!(
        seat.conversation(),
        [
            "── 2026-11-22 ──",
            "20:15 boris: many words",
            "      that do not fit",
            "      into one row, 日本",
            "      語 and more",
        ][..]
    );
    for columns in 0..40 {
        for rows in 0..12 {
            seat.screen.size = (columns, rows);
            assert_eq!(seat.rows().len(), rows);
        }
    }
}

#[test]
fn what_is_sent_is_marked_until_it_is_stored_and_shown_once() {
    let mut seat = Seat::in_hall((50, 10), vec![said(0, BORIS, "hello")]);
    let nonce = nonce_of(&seat.types("hi\n")).expect("it is sent");
    assert_eq!(seat.conversation()[2], "…     anna: hi");
    // The connection breaks; the catch-up brings the message, then the second try is answered.
    seat.hears(News::Lost { why: "reset".to_owned() });
    assert!(seat.rows()[8].starts_with(" not connected (reset): trying again"));
    let sent = Sent { id: MessageId::at(time(60)), created: time(60) };
    seat.hears(News::Message(chat(HALL), said(60, ANNA, "hi")));
    seat.hears(News::Sent { chat: chat(HALL), nonce, sent, files: Vec::new() });
    seat.hears(News::Message(chat(HALL), said(60, ANNA, "hi")));
    seat.hears(News::Connected);
    let rows = seat.conversation();
    assert_eq!(rows.iter().filter(|row| row.contains("anna: hi")).count(), 1, "{rows:?}");
    assert!(rows.contains(&"20:16 anna: hi".to_owned()), "{rows:?}");
    assert!(seat.screen.controller.is_settled());
}

#[test]
fn a_message_that_is_refused_is_shown_with_the_reason() {
    let mut seat = Seat::in_hall((60, 10), Vec::new());
    let nonce = nonce_of(&seat.types("hi\n")).expect("it is sent");
    seat.hears(News::Slowed { why: "slow mode".to_owned(), pause: Duration::from_secs(4) });
    seat.hears(News::NotSent { nonce, why: "you are not a member".to_owned() });
    assert!(seat.conversation().iter().any(|row| row.contains("slow mode: sent in 4 s")));
    let last = seat.conversation().pop().unwrap_or_default();
    assert!(last.ends_with("not sent: you are not a member: hi"), "{last}");
}

#[test]
fn edits_and_deletions_change_what_is_shown_and_nothing_acts_on_the_terminal() {
    let first =
        [said(0, BORIS, "one"), said(1, BORIS, "two"), said(2, BORIS, "\x1b[2Jthree\nfour")];
    let mut seat = Seat::in_hall((50, 10), first.to_vec());
    let edited = Message { updated: time(9), edited: true, ..said(0, BORIS, "ONE") };
    let deleted = Message { updated: time(9), deleted: true, ..said(1, BORIS, "") };
    seat.hears(News::Message(chat(HALL), edited));
    seat.hears(News::Message(chat(HALL), deleted));
    // What is older than what is known changes nothing.
    seat.hears(News::Message(chat(HALL), said(0, BORIS, "one")));
    assert_eq!(
        seat.conversation()[1..],
        [
            "20:15 boris: ONE (edited)",
            "20:15 boris: (deleted)",
            "20:15 boris: \u{fffd}[2Jthree",
            "      four",
        ]
    );
}

#[test]
fn older_messages_are_asked_for_when_they_are_scrolled_to_and_nothing_moves() {
    let newest: Vec<Message> = (50..70).map(|n| said(n, BORIS, &n.to_string())).collect();
    let mut seat = Seat::in_hall((40, 10), newest);
    let jobs = seat.presses(Key::PageUp);
    assert!(jobs.is_empty());
    let jobs = [seat.presses(Key::PageUp), seat.presses(Key::PageUp)].concat_jobs();
    let [Job::Page { before: Some(before), .. }] = jobs.as_slice() else {
        panic!("one page is asked for");
    };
    assert_eq!(*before, MessageId::at(time(50)));
    let seen = seat.conversation();
    assert_eq!(seen[1], "20:15 boris: 50");
    let older = (30..50).map(|n| said(n, BORIS, &n.to_string())).collect();
    seat.hears(News::Page { chat: chat(HALL), messages: older, is_first: true });
    seat.hears(News::Done);
    assert_eq!(seat.conversation()[1..], seen[1..]);
    // What comes meanwhile does not move it either, and is seen when it is shown.
    let jobs = seat.hears(News::Message(chat(HALL), said(99, BORIS, "new")));
    assert!(jobs.is_empty());
    assert_eq!(seat.conversation()[1..], seen[1..]);
    assert!(seat.rows()[8].contains("more below"));
    for _ in 0..9 {
        assert!(seat.presses(Key::PageUp).is_empty(), "there is no more");
    }
    assert_eq!(seat.conversation()[..2], ["── 2026-11-22 ──", "20:15 boris: 30"]);
    let mut jobs = Vec::new();
    for _ in 0..9 {
        jobs.extend(seat.presses(Key::PageDown));
    }
    assert!(matches!(jobs.as_slice(), [Job::Seen { time: seen, .. }] if *seen == time(99)));
    assert_eq!(seat.conversation().pop().as_deref(), Some("20:16 boris: new"));
}

#[test]
fn what_a_larger_window_shows_is_seen_and_no_more_is_below() {
    let messages: Vec<Message> = (0..20).map(|n| said(n, BORIS, &n.to_string())).collect();
    let mut seat = Seat::in_hall((40, 10), messages);
    seat.presses(Key::PageUp);
    assert!(seat.hears(News::Message(chat(HALL), said(99, BORIS, "new"))).is_empty());
    assert!(seat.screen.resize((40, 12)).is_empty());
    assert!(seat.rows()[10].contains("more below"));
    let jobs = seat.screen.resize((40, 40));
    assert!(matches!(jobs.as_slice(), [Job::Seen { time: seen, .. }] if *seen == time(99)));
    assert!(!seat.rows()[38].contains("more below"), "{:?}", seat.rows()[38]);
    assert_eq!(seat.conversation().pop().as_deref(), Some("20:16 boris: new"));
}

/// Jobs of several keys.
trait Concat {
    fn concat_jobs(self) -> Vec<Job>;
}

impl<const N: usize> Concat for [Vec<Job>; N] {
    fn concat_jobs(self) -> Vec<Job> {
        self.into_iter().flatten().collect()
    }
}

#[test]
fn keys_go_through_the_chats_and_a_chat_is_open_at_once() {
    let mut seat = Seat::in_hall((64, 10), vec![said(0, BORIS, "hello")]);
    let jobs = seat.presses(Key::Ctrl('n'));
    assert!(matches!(jobs.as_slice(), [Job::Show { chat: id, .. }] if *id == chat(KITCHEN)));
    let rows = seat.rows();
    assert!(rows[0].contains("│ kitchen") && rows[1].contains("reading"), "{rows:?}");
    // Typed before the server has answered: it goes where it was seen to go.
    assert!(
        seat.types("soup?\n")
            .iter()
            .any(|job| matches!(job, Job::Send { chat: id, .. } if *id == chat(KITCHEN)))
    );
    seat.opened(KITCHEN, "kitchen", vec![said(5, BORIS, "soup!")]);
    assert!(seat.conversation().iter().any(|row| row.ends_with("boris: soup!")));
    seat.presses(Key::AltUp);
    assert!(seat.conversation().iter().any(|row| row.ends_with("boris: hello")));
    seat.hears(News::Message(chat(WITH_BORIS), said(8, BORIS, "psst")));
    let jobs = seat.presses(Key::Tab);
    assert!(matches!(jobs.as_slice(), [Job::Show { chat: id, .. }] if *id == chat(WITH_BORIS)));
    assert!(seat.rows()[0].contains("│ @boris"));
}

#[test]
fn tab_completes_commands_chats_and_people() {
    let mut seat = Seat::in_hall((64, 10), Vec::new());
    for (typed, completed) in [
        ("/he", "/help "),
        ("/se", "/se"),
        ("/sea", "/search"),
        ("/open ki", "/open kitchen "),
        ("/dm bo", "/dm boris "),
        ("bo", "boris: "),
        ("hi, BO", "hi, boris "),
        ("nobody", "nobody"),
        ("/react he", "/react heart "),
        ("/reply @bo", "/reply @boris "),
    ] {
        seat.presses(Key::Escape);
        seat.types(typed);
        seat.presses(Key::Tab);
        assert_eq!(seat.screen.editor.text(), completed, "{typed}");
    }
}

#[test]
fn passwords_are_asked_for_and_never_shown() {
    let mut seat = Seat::in_hall((64, 10), Vec::new());
    seat.types("/password\n");
    for (prompt, typed) in [
        ("Your password: ", "correct horse"),
        ("New password: ", "battery staple"),
        ("Again: ", "battery staple"),
    ] {
        assert_eq!(seat.rows()[9], prompt.trim_end());
        seat.types(typed);
        assert_eq!(seat.rows()[9], format!("{prompt}(not shown)"));
        let jobs = seat.types("\n");
        if prompt == "Again: " {
            let [Job::Password { old, new }] = jobs.as_slice() else { panic!("it is changed") };
            assert_eq!((old.expose(), new.expose()), ("correct horse", "battery staple"));
        }
    }
    seat.types("/lock\none\ntwo\n");
    assert!(seat.conversation().pop().unwrap_or_default().contains("the two differ"));
    seat.types("/password\nsecret");
    seat.presses(Key::Escape);
    assert_eq!(seat.rows()[9], ">");
    seat.presses(Key::Up);
    assert_eq!(seat.rows()[9], "> /password");
    seat.hears(News::PasswordNeeded { name: "cellar".to_owned() });
    let jobs = seat.types("tea\n");
    assert!(
        matches!(jobs.as_slice(), [Job::Join { password: Some(tea), .. }] if tea.expose() == "tea")
    );
    seat.presses(Key::Escape);
    seat.types("/join attic sesame\n");
    seat.presses(Key::Up);
    assert_eq!(seat.rows()[9], "> /password", "what holds a password is not remembered");
}

#[test]
fn typing_is_sent_now_and_then_but_not_for_commands() {
    let mut seat = Seat::in_hall((64, 10), Vec::new());
    let typing = |jobs: Vec<Job>| jobs.iter().filter(|job| matches!(job, Job::Typing(_))).count();
    assert_eq!(typing(seat.types("hello")), 1);
    seat.now += Duration::from_secs(5);
    assert_eq!(typing(seat.types(", you")), 1);
    assert_eq!(typing(seat.types("\n/members")), 0);
}

#[test]
fn a_half_typed_line_stays_with_its_chat() {
    let mut seat = Seat::in_hall((64, 10), Vec::new());
    seat.types("for the hall");
    seat.presses(Key::Ctrl('n'));
    assert_eq!(seat.screen.controller.model.open, Some(chat(KITCHEN)));
    assert!(seat.screen.editor.is_empty(), "the line was typed for the hall");
    seat.types("soup");
    // The server opens a chat by itself when a join is answered late.
    seat.opened(HALL, "hall", Vec::new());
    assert_eq!(seat.screen.editor.text(), "for the hall");
    let jobs = seat.presses(Key::Enter);
    assert!(matches!(jobs.first(), Some(Job::Send { chat: to, .. }) if *to == chat(HALL)));
    seat.presses(Key::Ctrl('n'));
    assert_eq!(seat.screen.editor.text(), "soup");
}

#[test]
fn people_are_counted_when_a_chat_is_opened_and_when_they_join() {
    let mut seat = Seat::in_hall((64, 12), Vec::new());
    // A chat that was not known before, as after /join, /create and /dm.
    seat.opened(9, "cellar", Vec::new());
    assert!(seat.rows().iter().any(|row| row.contains("2 members, 1 online")));
    let (user, nickname) = (user(7), "vera".to_owned());
    let event = MemberEvent::Joined;
    seat.hears(News::Event(Event::Member { chat: chat(9), user, event, nickname }));
    seat.hears(News::Event(Event::Presence { user, online: true }));
    assert!(seat.rows().iter().any(|row| row.contains("3 members, 2 online")));
}

#[test]
fn leaving_with_something_unsent_takes_a_second_thought() {
    let mut seat = Seat::in_hall((64, 10), Vec::new());
    seat.types("hi\n");
    seat.presses(Key::Ctrl('c'));
    assert!(seat.screen.end.is_none());
    assert!(seat.conversation().iter().any(|row| row.contains("1 message is not sent")));
    seat.types("x");
    seat.presses(Key::Ctrl('c'));
    assert!(seat.screen.editor.is_empty(), "a half-typed line is cleared first");
    seat.presses(Key::Ctrl('c'));
    assert!(seat.screen.end.is_none(), "a key in between starts over");
    seat.presses(Key::Ctrl('c'));
    assert_eq!(seat.screen.end, Some(Ok(())));
    let mut seat = Seat::in_hall((64, 10), Vec::new());
    seat.types("/logoff\n");
    assert_eq!((seat.screen.end.clone(), seat.screen.logoff), (Some(Ok(())), true));
}

#[test]
fn members_come_and_go_and_a_chat_that_is_gone_is_shut() {
    let mut seat = Seat::in_hall((64, 12), Vec::new());
    let mut member = |event, name: &str, id| {
        let (chat, user, nickname) = (chat(HALL), user(id), name.to_owned());
        seat.hears(News::Event(Event::Member { chat, user, event, nickname }));
        seat.rows()[0].clone()
    };
    assert!(member(MemberEvent::Joined, "clara", 9).contains("3 members"));
    assert!(member(MemberEvent::Left, "boris", BORIS).contains("2 members"));
    let said = seat.conversation().join("\n");
    assert!(said.contains("clara has joined") && said.contains("boris has left"), "{said}");
    seat.hears(News::Event(Event::ChatGone(chat(HALL))));
    assert!(seat.rows()[0].contains("no chat is open"));
    seat.types("hello?\n");
    assert!(seat.conversation().join("\n").contains("/join NAME"));
    assert!(seat.screen.controller.is_settled());
}

#[test]
fn no_keys_and_no_size_make_it_stumble() {
    let mut seat =
        Seat::in_hall((64, 10), (0..30).map(|n| said(n, BORIS, "日本語 e\u{301} x")).collect());
    let mut seed = 1_u64;
    let mut dice = |bound: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % bound
    };
    for turn in 0..1_000 {
        let letters = ['a', 'я', '日', '\u{301}', '/', ' ', '👩', '\u{200d}'];
        let letter = letters[dice(8) as usize];
        let key = match dice(24) {
            0 => Key::Enter,
            1 => Key::Tab,
            2 => Key::Backspace,
            3 => Key::Delete,
            4 => Key::Left,
            5 => Key::Right,
            6 => Key::WordLeft,
            7 => Key::WordRight,
            8 => Key::Up,
            9 => Key::Down,
            10 => Key::AltUp,
            11 => Key::Ctrl(['a', 'e', 'k', 'u', 'w', 'j', 'n', 'd'][dice(8) as usize]),
            12 => Key::PageUp,
            13 => Key::PageDown,
            14 => Key::Home,
            15 => Key::Escape,
            16 => Key::Paste(format!("{letter}\n\t\u{1b}{letter}")),
            _ => Key::Char(letter),
        };
        seat.presses(key);
        if dice(5) == 0 {
            seat.hears(News::Message(
                chat(1 + dice(4) as u32),
                said(turn, BORIS, "more\nthan one"),
            ));
        }
        if dice(4) == 0 {
            seat.screen.size = (dice(90) as usize, dice(30) as usize);
        }
        // Rows that were kept are those that would be drawn anew.
        let shown = seat.rows();
        *seat.screen.drawn.get_mut() = None;
        let anew = seat.rows();
        assert_eq!(shown, anew);
    }
}

#[test]
fn messages_of_a_chat_in_the_background_are_counted_once() {
    let mut seat = Seat::in_hall((64, 10), Vec::new());
    for _ in 0..3 {
        seat.hears(News::Message(chat(KITCHEN), said(5, BORIS, "soup!")));
    }
    seat.hears(News::Message(chat(KITCHEN), said(6, ANNA, "mine, from elsewhere")));
    assert_eq!(seat.rows()[1], "kitchen       1│");
    let mut kitchen = info(KITCHEN, "kitchen");
    kitchen.unread = 1000;
    seat.hears(News::Chats(vec![info(HALL, "hall"), kitchen]));
    assert_eq!(seat.rows()[1], "kitchen   1000+│");
    assert!(!seat.rows()[2].contains("boris"));
}

#[test]
fn files_replies_and_reactions_are_drawn_and_reactions_change_the_line() {
    let hello = Message {
        files: vec![file("a\u{1b}b.png")],
        reactions: vec![Reaction { emoji: "🎉".to_owned(), count: 1, shown: vec![user(ANNA)] }],
        ..said(0, BORIS, "hello")
    };
    let answer = Message { reply: Some(hello.id), ..said(1, ANNA, "hi\nyou") };
    let lost = Message { reply: Some(MessageId::at(time(-99))), ..said(2, ANNA, "hm") };
    let photo = Message { files: vec![file("b.png")], ..said(3, ANNA, "") };
    let messages = vec![hello.clone(), answer, lost, photo];
    let mut seat = Seat::in_hall((50, 16), messages);
    assert_eq!(
        seat.conversation()[1..],
        [
            "20:15 boris: hello",
            "      [a\u{fffd}b.png, 800×600, 1.2 MB]",
            "      [🎉 1]",
            "20:15 anna ↩ boris: hello",
            "      hi",
            "      you",
            "20:15 anna ↩ an earlier message",
            "      hm",
            "20:15 anna: [b.png, 800×600, 1.2 MB]",
        ]
    );
    let change = |at, by, on, emoji: &str| {
        News::Event(Event::Reaction(ReactionChange {
            chat: chat(HALL),
            message: hello.id,
            updated: time(at),
            user: user(by),
            on,
            emoji: emoji.to_owned(),
        }))
    };
    seat.hears(change(10, BORIS, true, "🎉"));
    seat.hears(change(11, BORIS, true, "\u{202e}x"));
    // What is older than what is known changes nothing.
    seat.hears(change(5, BORIS, false, "🎉"));
    assert_eq!(seat.conversation()[3], "      [🎉 2]  \u{fffd}x 1");
    seat.hears(change(12, ANNA, false, "🎉"));
    seat.hears(change(13, BORIS, false, "🎉"));
    seat.hears(change(14, BORIS, false, "\u{202e}x"));
    assert!(seat.conversation()[3].starts_with("20:15 anna ↩"));
    seat.hears(News::Quoted(chat(HALL), said(-99, BORIS, "long ago, in a message of many words")));
    assert_eq!(seat.conversation()[6], "20:15 anna ↩ boris: long ago, in a message of man…");
}

#[test]
fn how_far_a_file_has_come_is_shown_until_it_is_sent() {
    let mut seat = Seat::in_hall((59, 12), Vec::new());
    let jobs = seat.types("/send a.png look\n");
    let [Job::Upload { nonce, .. }] = jobs.as_slice() else { panic!("it is sent") };
    let key = *nonce;
    assert_eq!(seat.conversation(), ["…     anna: look", "      [a.png]"]);
    let name = "a.png".to_owned();
    seat.hears(News::Progress(Progress { key, name, is_upload: true, done: 50, size: 200 }));
    assert_eq!(seat.conversation()[1], "      [a.png, 25 %]");
    assert!(seat.rows()[10].starts_with(" sending a.png 25 %"));
    seat.types("and more\n");
    assert_eq!(seat.conversation()[2], "…     anna: and more");
    seat.presses(Key::Ctrl('c'));
    assert!(seat.conversation().join(" ").contains("2 messages are not sent"));
    seat.hears(News::TransferEnded(key));
    let sent = Sent { id: MessageId::at(time(60)), created: time(60) };
    let files = vec![file("a.png")];
    seat.hears(News::Sent { chat: chat(HALL), nonce: key, sent, files });
    // After the note, which was made when there was no message, and the day.
    let shown = seat.conversation();
    assert_eq!(shown[2..4], ["20:16 anna: look", "      [a.png, 800×600, 1.2 MB]"]);
    assert!(!seat.screen.controller.is_settled(), "the other is not sent yet");

    let jobs = seat.types("/save\n");
    let [Job::Save(files)] = jobs.as_slice() else { panic!("it is saved") };
    assert_eq!(files.len(), 1);
    let name = "b".to_owned();
    seat.hears(News::Progress(Progress { key: 1, name, is_upload: false, done: 1, size: 3 }));
    assert!(seat.rows()[10].starts_with(" saving b 33 %"));
}

#[test]
fn a_qr_code_is_shown_where_there_is_room() {
    let mut seat = Seat::in_hall((80, 24), Vec::new());
    let rows = || vec!["█▀".repeat(18); 19];
    seat.hears(News::Qr(rows()));
    assert_eq!(seat.conversation().iter().filter(|row| row.contains("█▀█▀")).count(), 19);
    seat.screen.size = (40, 20);
    seat.hears(News::Qr(rows()));
    assert!(seat.conversation().join(" ").contains("a QR code needs a larger window"));
}

#[test]
fn a_reply_goes_to_what_was_there_when_it_was_begun_and_its_target_is_shown() {
    let messages = vec![said(0, BORIS, "tea?"), said(1, ANNA, "hm")];
    let mut seat = Seat::in_hall((59, 12), messages);
    seat.types("/reply ye");
    assert!(seat.rows()[10].ends_with("to boris: tea?"), "{:?}", seat.rows()[10]);
    seat.hears(News::Message(chat(HALL), said(5, BORIS, "or shall we fire everybody?")));
    seat.types("s");
    assert!(seat.rows()[10].ends_with("to boris: tea?"), "{:?}", seat.rows()[10]);
    let jobs = seat.types("\n");
    let reply = jobs.iter().find_map(|job| match job {
        Job::Send { reply, .. } => *reply,
        _ => None,
    });
    assert_eq!(reply, Some(MessageId::at(time(0))));
    // The next line is about what is there now, and one's own last message is always that.
    seat.types("/react ");
    assert!(seat.rows()[10].ends_with("to boris: or shall we fire e…"), "{:?}", seat.rows()[10]);
    seat.presses(Key::Escape);
    seat.types("/edit ");
    seat.hears(News::Message(chat(HALL), said(9, ANNA, "from elsewhere")));
    let nonce = seat.screen.controller.unsent[0].nonce;
    let sent = Sent { id: MessageId::at(time(8)), created: time(8) };
    seat.hears(News::Sent { chat: chat(HALL), nonce, sent, files: Vec::new() });
    let jobs = seat.types("x\n");
    let [Job::Edit { message, .. }] = jobs.as_slice() else { panic!("it is changed") };
    assert_eq!(*message, MessageId::at(time(9)));
}

/// Esc looks like the beginning of an arrow that came in two parts.
#[test]
fn a_line_that_is_cleared_is_in_the_history() {
    let mut seat = Seat::in_hall((80, 24), Vec::new());
    for key in [Key::Escape, Key::Ctrl('c')] {
        seat.types("a long draft");
        seat.presses(key);
        assert!(seat.screen.editor.is_empty() && seat.screen.end.is_none());
        seat.presses(Key::Up);
        assert_eq!(seat.screen.editor.text(), "a long draft");
        seat.presses(Key::Ctrl('u'));
    }
    seat.types("/join cellar tea");
    seat.presses(Key::Escape);
    seat.presses(Key::Up);
    assert_eq!(seat.screen.editor.text(), "a long draft");
}

#[test]
fn the_reason_of_a_long_declined_message_stays_on_the_screen() {
    let mut seat = Seat::in_hall((80, 24), Vec::new());
    let jobs = seat.types(&format!("{}\n", "word ".repeat(3000)));
    let nonce = nonce_of(&jobs).expect("it is sent");
    seat.hears(News::NotSent { nonce, why: "too long".to_owned() });
    let rows = seat.rows();
    assert!(rows.iter().any(|row| row.contains("not sent: too long: word")), "{rows:#?}");
    seat.presses(Key::Up);
    assert!(seat.screen.editor.text().starts_with("word word"));
}

#[test]
fn a_narrow_window_shows_the_name_of_the_chat() {
    for columns in 8..60 {
        let seat = Seat::in_hall((columns, 24), Vec::new());
        let rows = seat.rows();
        assert!(rows[0].contains("hall"), "{columns}: {rows:#?}");
    }
}

#[test]
fn a_long_word_begins_next_to_the_name() {
    let seat = Seat::in_hall((30, 24), vec![said(1, BORIS, &"x".repeat(60))]);
    let rows = seat.rows();
    assert!(rows.iter().any(|row| row.contains("boris: xxx")), "{rows:#?}");
}

/// Typing in a conversation that is scrolled far up wraps nothing again, and what changes shows.
#[test]
fn rows_are_kept_until_something_changes() {
    let messages = (0..40).map(|second| said(second, BORIS, "hello")).collect();
    let mut seat = Seat::in_hall((80, 12), messages);
    seat.presses(Key::PageUp);
    let before = seat.rows();
    let kept = seat.screen.drawn.borrow().is_some();
    seat.types("abc");
    assert!(kept && seat.screen.drawn.borrow().is_some());
    assert_eq!(seat.rows()[1..10], before[1..10]);
    seat.presses(Key::PageDown);
    seat.hears(News::Message(chat(HALL), said(50, BORIS, "new")));
    assert!(seat.rows().iter().any(|row| row.contains("boris: new")));
    seat.screen.resize((60, 8));
    assert!(seat.rows().iter().any(|row| row.contains("boris: new")));
}
