//! What is kept of chats, how much of it, and what counts as new.

use purpose::client::Notify;

use super::*;

fn chat() -> Chat {
    Chat {
        id: ChatId::new(1).unwrap(),
        direct: false,
        has_password: false,
        member: true,
        admin: false,
        members: 1,
        last_message: ServerTime::ZERO,
        seen: ServerTime::ZERO,
        unread: 0,
        name: "hall".to_owned(),
        title: String::new(),
        closed: false,
        notify: Notify::All,
    }
}

fn message(at: i64, content: &str) -> Message {
    let time = ServerTime::new(at).unwrap();
    Message {
        id: MessageId::at(time),
        sender: UserId::new(2).unwrap(),
        created: time,
        updated: time,
        edited: false,
        deleted: false,
        content: content.to_owned(),
        reply: None,
        files: Vec::new(),
        reactions: Vec::new(),
    }
}

fn kept(model: &Model) -> (usize, i64) {
    let messages = &model.chats[&chat().id].messages;
    (messages.len(), messages.keys().next().map_or(0, |id| id.created().micros()))
}

fn model() -> Model {
    Model::new(UserId::new(1).unwrap(), "anna".to_owned())
}

#[test]
fn what_is_kept_is_bounded_by_number_and_by_size() {
    let mut model = model();
    model.open(chat(), Vec::new(), true);
    for at in 1..=OPEN_MESSAGES_MAX as i64 + 10 {
        assert_eq!(model.take(chat().id, message(at, "x")), Taken::New);
    }
    assert_eq!(kept(&model), (OPEN_MESSAGES_MAX, 11));
    let view = model.open_view().unwrap();
    assert!(view.is_full() && !view.is_whole);
    // What went is not new when it comes again.
    assert_eq!(model.take(chat().id, message(3, "x")), Taken::Known);
    let huge = "x".repeat(BYTES_MAX / 2);
    for at in 1..4 {
        model.take(chat().id, message(1_000_000 + at, &huge));
    }
    assert_eq!(kept(&model), (2, 1_000_002));
    assert_eq!(model.chats[&chat().id].bytes, 2 * huge.len());
}

#[test]
fn reactions_change_a_message_once_and_what_is_answered_stays_known() {
    let mut model = model();
    let first = message(5, "x");
    model.open(chat(), vec![first.clone()], false);
    let time = |at| ServerTime::new(at).unwrap();
    let user = UserId::new(2).unwrap();
    let (chat, emoji) = (chat().id, "👍".to_owned());
    let change =
        ReactionChange { chat, message: first.id, updated: time(9), user, on: true, emoji };
    assert_eq!(model.react(&change).map(|message| message.reactions.len()), Some(1));
    assert_eq!(model.react(&change), None);
    let back = ReactionChange { updated: time(10), on: false, ..change.clone() };
    assert_eq!(model.react(&back).map(|message| message.reactions.len()), Some(0));
    let reacted = Message { updated: time(11), ..first.clone() };
    assert_eq!(model.take(chat, reacted.clone()), Taken::Reacted);
    let edited = Message { updated: time(12), edited: true, ..reacted };
    assert_eq!(model.take(chat, edited), Taken::Changed);
    let unknown = ReactionChange { message: message(7, "").id, ..change };
    assert_eq!(model.react(&unknown), None);

    let older = message(3, "older");
    model.quote(chat, older.clone());
    let content = |model: &Model| {
        model.open_view().unwrap().message(older.id).map(|message| message.content.clone())
    };
    assert_eq!(content(&model).as_deref(), Some("older"));
    let edited = Message { updated: time(20), ..message(3, "changed") };
    assert_eq!(model.take(chat, edited), Taken::Known);
    assert_eq!(content(&model).as_deref(), Some("changed"));
    for at in 10..20 + QUOTES_MAX as i64 {
        model.quote(chat, message(at, "x"));
    }
    assert_eq!(model.open_view().unwrap().quotes.len(), QUOTES_MAX);
}

#[test]
fn what_came_while_a_chat_was_shut_is_shown_when_it_is_opened() {
    let mut model = model();
    let other = Chat { id: ChatId::new(2).unwrap(), ..chat() };
    let ids = |messages: Vec<Message>| {
        messages.iter().map(|message| message.created.micros()).collect::<Vec<_>>()
    };
    let all = |upto| (1..=upto).map(|at| message(at, "x")).collect::<Vec<_>>();
    assert_eq!(ids(model.open(chat(), all(3), true)), [1, 2, 3]);
    model.open(other.clone(), Vec::new(), true);
    model.take(chat().id, message(4, "x"));
    model.take(chat().id, message(5, "x"));
    assert_eq!(ids(model.open(chat(), all(5), true)), [4, 5]);
    model.take(chat().id, message(6, "x"));
    assert_eq!(ids(model.open(chat(), all(6), true)), [] as [i64; 0], "it was open");
    model.open(other, Vec::new(), true);
    assert_eq!(ids(model.open(chat(), all(7), true)), [7]);
}

#[test]
fn a_page_that_does_not_meet_what_is_kept_takes_its_place() {
    let mut model = model();
    let page = |range: std::ops::Range<i64>| range.map(|at| message(at, "x")).collect();
    assert_eq!(model.open(chat(), page(1..5), true).len(), 4);
    assert_eq!(model.open(chat(), page(3..8), false).len(), 3);
    assert_eq!(kept(&model), (7, 1));
    assert_eq!(model.open(chat(), page(20..25), false).len(), 5);
    assert_eq!(kept(&model), (5, 20));
    assert_eq!(model.take_page(chat().id, page(15..20), false).len(), 5);
    assert_eq!(kept(&model), (10, 15));
    let edited = Message { updated: ServerTime::new(99).unwrap(), ..message(16, "y") };
    assert_eq!(model.take(chat().id, edited.clone()), Taken::Changed);
    assert_eq!(model.take(chat().id, edited), Taken::Known);
    assert_eq!(model.take(chat().id, message(16, "x")), Taken::Known);
    assert_eq!(model.take(ChatId::new(9).unwrap(), message(50, "x")), Taken::Counted);
}

#[test]
fn chats_are_found_by_name_in_any_case_and_people_by_theirs() {
    let mut model = model();
    let direct = Chat {
        id: ChatId::new(2).unwrap(),
        direct: true,
        name: String::new(),
        title: "Hall".to_owned(),
        ..chat()
    };
    model.take_chats(vec![direct, chat()]);
    assert_eq!(model.find("HALL"), ChatId::new(1));
    assert_eq!(model.find("@hall"), ChatId::new(2));
    assert_eq!(model.find("hal"), None);
    model.take_chats(vec![chat()]);
    assert_eq!(model.find("@hall"), None);
}
