//! Chooses what a client sends next.

use vestnik::ids::{ChatId, FileId, MessageId, ServerTime, SessionId, UserId};
use vestnik::wire::extras::{Extras, put_attach, put_reply};
use vestnik::wire::request::{PushKeys, Request};

use crate::client::{Client, Kept, State};
use crate::model::{Chat, Model};
use crate::plan::Plan;
use crate::replica::{Asking, Next};
use crate::wire::{DECLINED, DELETED};

const CHAT_NAMES: [&str; 10] =
    ["hall", "Hall", "зал", "ЗАЛ", "a", "b-1", "kitchen", "Кухня", "x.y", "hal"];
const BAD_NAMES: [&str; 4] = ["", "no spaces", "a!", "thirty-three-characters-are-too-many"];
const CHAT_PASSWORDS: [&str; 3] = ["open", "sesame", "пароль"];
/// Words of messages and of searches.
const WORDS: [&str; 8] = ["red", "Apple", "apples", "apricot", "яблоко", "Яблоки", "tree", "Tre"];
const BAD_QUERIES: [&str; 4] = ["", "*", "\"\" **", "-- !"];
const EMOJI: [&str; 5] = ["👍", "❤", "+1", "👎", "no good"];
const TITLES: [&str; 3] = ["", "a title", "ещё"];

/// The login of the seed's nth user.
pub(crate) fn login_name(number: usize) -> String {
    ["anna", "Борис", "clara", "dmitri", "Eva", "foma", "gleb", "Жанна"][number % 8].to_owned()
}

pub(crate) fn first_password(number: usize) -> String {
    format!("password {number}")
}

pub(crate) fn choose(client: &mut Client, plan: &Plan, model: &Model) {
    if client.rng.one_in(150) {
        return garbage(client, plan);
    }
    match client.state {
        State::New if client.asks(0x20) && !client.rng.one_in(8) => {}
        State::Greeted if (client.asks(0x21) || client.asks(0x23)) && !client.rng.one_in(8) => {}
        State::New => {
            if client.rng.one_in(20) {
                return authorized(client, plan, model);
            }
            let (major, minor) = match (client.modern, client.rng.below(12)) {
                (_, 0) => (3, 0),
                (true, 1) if client.is_11 => (1, 9),
                (true, _) => (1, u8::from(client.is_11)),
                (false, _) => (0, 1),
            };
            say(client, &Request::Hello { major, minor });
        }
        State::Greeted if client.rng.one_in(20) => authorized(client, plan, model),
        State::Greeted => enter(client, plan, model),
        State::Authorized if client.is_suspended && !client.rng.one_in(4) => {
            enter(client, plan, model);
        }
        State::Authorized => {
            let may_catch_up = client.modern && !client.is_suspended && client.rng.one_in(2);
            if !may_catch_up || !catch_up(client) {
                authorized(client, plan, model);
            }
        }
    }
}

fn say(client: &mut Client, request: &Request<'_>) {
    say_of(client, request, None);
}

fn say_of(client: &mut Client, request: &Request<'_>, session: Option<Kept>) {
    let mut request = *request;
    if let Request::SendChatMsg { nonce, .. } = &mut request
        && client.is_11
    {
        // On 1.1 the nonce is required.
        nonce.get_or_insert_with(|| client.rng.next());
    }
    let request = &request;
    let mut bytes = Vec::new();
    request.write(&mut bytes, 0);
    client.say(bytes[4], &bytes[6..], session, asking(request));
}

/// What the answer will mean for the client's replica.
fn asking(request: &Request<'_>) -> Asking {
    match *request {
        Request::SendChatMsg { chat, content, .. } => {
            let extras = crate::wire::Extras::default();
            Asking::Send { chat: chat.get(), content: content.to_owned(), extras }
        }
        Request::React { chat, message, on, emoji } => {
            let (chat, id) = (chat.get(), message.get() as i64);
            Asking::React { chat, id, on, emoji: emoji.to_owned() }
        }
        Request::EditMsg { chat, message, content } => {
            let id = message.get() as i64;
            Asking::Edit { chat: chat.get(), id, content: Some(content.to_owned()) }
        }
        Request::DeleteMsg { chat, message } => {
            Asking::Edit { chat: chat.get(), id: message.get() as i64, content: None }
        }
        Request::JoinChat { chat, .. } => Asking::Enter(Some(chat.get())),
        Request::CreateChat { .. } | Request::StartChat { .. } | Request::UseInvite { .. } => {
            Asking::Enter(None)
        }
        Request::LeaveChat { chat } | Request::DeleteChat { chat } => Asking::Leave(chat.get()),
        _ => Asking::Other,
    }
}

/// Sends the next request of a catch-up. False when nothing is left to request.
pub(crate) fn catch_up(client: &mut Client) -> bool {
    let (request, asking) = match client.replica.next() {
        Next::Nothing => return false,
        Next::MyChats => (Request::GetMyChats, Asking::MyChats),
        Next::Updates { from } => {
            let from = ServerTime::new(from).unwrap_or_default();
            (Request::RequestUpdates { from }, Asking::Updates)
        }
        Next::Range { chat: id, to } => {
            let (chat, from) = (ChatId::new(id).expect("not 0"), ServerTime::ZERO);
            let asking = if to.is_some() { Asking::Older(id) } else { Asking::Whole(id) };
            (Request::RequestChatMsg { chat, from, to: to.and_then(ServerTime::new) }, asking)
        }
    };
    let mut bytes = Vec::new();
    request.write(&mut bytes, 0);
    client.say(bytes[4], &bytes[6..], None, asking);
    true
}

/// The actions of a client that only catches up: nothing without a session.
pub(crate) fn rest(client: &mut Client) {
    let (major, minor) = if client.modern { (1, u8::from(client.is_11)) } else { (0, 1) };
    match client.state {
        State::New if !client.asks(0x20) => say(client, &Request::Hello { major, minor }),
        State::Greeted if !client.asks(0x23) => {
            if let Some(kept) = client.session.clone() {
                restore(client, kept);
            }
        }
        State::Authorized if client.is_suspended && !client.asks(0x23) => {
            if let Some(kept) = client.session.clone() {
                restore(client, kept);
            }
        }
        State::Authorized if client.modern => drop(catch_up(client)),
        _ => {}
    }
}

fn garbage(client: &mut Client, plan: &Plan) {
    let rng = &mut client.rng;
    let purpose = rng.next() as u8;
    let len = rng.weighted(&[(4, 3), (4, 20), (1, 1500)]);
    let body: Vec<u8> = (0..rng.below(len)).map(|_| rng.below(256) as u8).collect();
    match rng.below(8) {
        // Too long: the server declines it, whatever the purpose, and closes the connection.
        0 => {
            let body = vec![0; plan.rules.body_bytes_max + 1];
            client.say(purpose | 0x20, &body, None, Asking::Other);
            client.has_ended = true;
        }
        // An unexpected answer may suspend the session; see `leave`.
        _ if purpose == 0x01 || purpose == 0x03 && body.is_empty() => {}
        // A random HELLO would agree on a version that the client does not know.
        _ if purpose == 0x20 && client.state == State::New => {}
        _ => client.say(purpose, &body, None, Asking::Other),
    }
}

/// LOGIN, RESTORE_SESSION or REGISTER_USER.
fn enter(client: &mut Client, plan: &Plan, model: &Model) {
    // Another registration waits for its password with the last use of an invite.
    if client.modern
        && let Some(code) = model.invite_in_use()
        && client.rng.one_in(2)
    {
        return register(client, "password guest", Some(code));
    }
    let choice = client.rng.below(20);
    let others: Vec<u32> = model.sessions.keys().copied().collect();
    match (&client.session, choice) {
        (Some(session), 0..15) => {
            let kept = session.clone();
            restore(client, kept);
        }
        // Another session's secret, or any session with its own secret.
        (Some(session), 15) => {
            let secret = session.secret.clone();
            let id = client.rng.pick(&others).copied().unwrap_or(7);
            restore(client, Kept { id, secret });
        }
        (_, 16) => {
            let taken = client.rng.pick(&others).and_then(|id| model.sessions.get_key_value(id));
            if let Some((id, session)) = taken {
                restore(client, Kept { id: *id, secret: session.secret.clone() });
            }
        }
        (_, 17) if client.modern => {
            let password = client.rng.weighted(&[(4, "password guest"), (1, "short")]);
            let good = model.invites.iter();
            let good = good.filter(|(_, invite)| invite.registers && invite.uses_left > 0);
            let good: Vec<&String> = good.map(|(code, _)| code).collect();
            let code = client.rng.pick(&good).map(|code| (*code).clone());
            let code = code.filter(|_| !client.rng.one_in(3));
            let code = code.unwrap_or_else(|| an_invite(client, model));
            let invite = Some(&code[..]).filter(|_| !client.rng.one_in(3));
            register(client, password, invite);
        }
        (_, 18) if client.is_11 => {
            let codes = model
                .users
                .values()
                .filter_map(|user| Some((user.nickname.clone(), user.reset.clone()?.0)));
            let codes: Vec<_> = codes.collect();
            let known = client.rng.pick(&codes).cloned().filter(|_| !client.rng.one_in(8));
            let (login, code) = known.unwrap_or_else(|| (login_name(0), NO_CODE.to_owned()));
            let new = format!("password {}", client.rng.below(1000));
            let password = if client.rng.one_in(8) { "short" } else { &new[..] };
            say(client, &Request::SetPassword { login: &login, code: &code, password });
        }
        _ => login(client, plan, model),
    }
}

fn register(client: &mut Client, password: &str, invite: Option<&str>) {
    let login = format!("guest{}", client.rng.below(20));
    say(client, &Request::RegisterUser { login: &login, password, invite });
}

fn restore(client: &mut Client, kept: Kept) {
    let Some(session) = SessionId::new(kept.id) else { return };
    let hash = kept.secret.clone();
    say_of(client, &Request::RestoreSession { session, hash: &hash }, Some(kept));
}

fn login(client: &mut Client, plan: &Plan, model: &Model) {
    let own = client.number % plan.users;
    let guests = model.users.values().filter(|user| user.nickname.starts_with("guest"));
    let guests: Vec<&str> = guests.map(|user| &user.nickname[..]).collect();
    let name = match client.rng.below(12) {
        0 => "nobody".to_owned(),
        1 => client.rng.pick(&guests).map_or_else(|| login_name(own), |name| (*name).to_owned()),
        2 => login_name(own).to_uppercase(),
        _ => login_name(own),
    };
    let user = model.users.values().find(|user| user.nickname.eq_ignore_ascii_case(&name));
    let right = user.map_or("whatever", |user| &user.password[..]).to_owned();
    let password = match client.rng.below(16) {
        0 => "wrong",
        1 => "",
        _ => &right,
    };
    say(client, &Request::Login { login: &name, password });
}

/// A chat id: mostly one of the user's own, sometimes another, sometimes invalid.
fn a_chat(client: &mut Client, model: &Model, user: u32) -> ChatId {
    let mine = model.chats_of(user);
    let all: Vec<u32> = model.chats.keys().copied().collect();
    let chosen = match client.rng.below(20) {
        0 => Some(client.rng.between(1, 40) as u32),
        1..3 => client.rng.pick(&all).copied(),
        _ => client.rng.pick(&mine).copied(),
    };
    ChatId::new(chosen.unwrap_or(1)).expect("not 0")
}

fn a_user(client: &mut Client, model: &Model) -> UserId {
    let all: Vec<u32> = model.users.keys().copied().collect();
    let chosen = match client.rng.below(20) {
        0 => 99,
        _ => client.rng.pick(&all).copied().unwrap_or(1),
    };
    UserId::new(chosen).expect("not 0")
}

fn a_message(client: &mut Client, model: &Model, user: u32, chat: ChatId) -> MessageId {
    let chat = model.chats.get(&chat.get());
    let mut ids: Vec<i64> = Vec::new();
    if let Some(chat) = chat {
        let own_only = !client.rng.one_in(4);
        let newest = chat.messages.iter().rev().take(30);
        let chosen = newest.filter(|(_, message)| !own_only || message.sender == user);
        ids.extend(chosen.map(|(id, _)| *id));
    }
    let id = client.rng.pick(&ids).copied().unwrap_or(model.high + 5);
    MessageId::new(id as u64).expect("positive")
}

/// One of the newest messages that are not deleted, of any author.
fn any_message(client: &mut Client, model: &Model, chat: ChatId) -> MessageId {
    let messages = model.chats.get(&chat.get()).map(|chat| &chat.messages);
    let newest = messages.into_iter().flat_map(|messages| messages.iter().rev());
    let there = newest.filter(|(_, message)| message.status & DELETED == 0).take(10);
    let ids: Vec<i64> = there.map(|(id, _)| *id).collect();
    let id = client.rng.pick(&ids).copied().unwrap_or(model.high + 5);
    MessageId::new(id as u64).expect("positive")
}

/// A time: the present, a random one, one at which something happened, or one next to it.
fn a_time(client: &mut Client, model: &Model, chat: ChatId) -> ServerTime {
    let chat = model.chats.get(&chat.get());
    let times: Vec<i64> = chat.map(|c| c.by_updated.keys().copied().collect()).unwrap_or_default();
    let at = client.rng.pick(&times).copied().unwrap_or(model.high);
    let micros = match client.rng.below(10) {
        0 => 0,
        1 => i64::MAX,
        2 => model.high + client.rng.below(10_000_000) as i64,
        3 => at + 1,
        4 => at - 1,
        5 => model.high,
        _ => at,
    };
    ServerTime::new(micros.max(0)).expect("positive")
}

fn some_text(client: &mut Client, plan: &Plan) -> String {
    client.sent += 1;
    let mut text = format!("{}.{} ", client.number, client.sent);
    for _ in 0..client.rng.weighted(&[(2, 0), (1, 2), (1, 5)]) {
        text = text + client.rng.pick(&WORDS).expect("some") + " ";
    }
    if client.rng.one_in(plan.long_one_in) {
        let bytes = client.rng.below(plan.long_bytes + 8) as usize;
        let fill = client.rng.weighted(&[(1, "x"), (1, "ж")]);
        text = text + &fill.repeat(bytes / fill.len());
    }
    if client.rng.one_in(8) {
        let number = client.rng.index(8);
        let name = if client.rng.one_in(3) { "all".to_owned() } else { login_name(number) };
        let before = client.rng.weighted(&[(8, ""), (1, "x")]);
        text =
            format!("{text}{before}@{name}") + client.rng.weighted(&[(4, ""), (2, "!"), (1, "s")]);
    }
    if client.rng.one_in(100) {
        text.clear();
    }
    text
}

/// Any request that needs a session.
fn authorized(client: &mut Client, plan: &Plan, model: &Model) {
    let user = client.user(model).unwrap_or(1);
    let chat = a_chat(client, model, user);
    if client.modern && client.rng.one_in(6) && end_a_slow_one(client, model, user) {
        return;
    }
    let wants_more_chats = if model.chats_of(user).len() < 3 { 10 } else { 2 };
    let kind = client.rng.weighted(&[
        (40, 0),
        (10, 1),
        (8, 2),
        (wants_more_chats, 3),
        (4, 4),
        (3, 5),
        (if client.modern { 14 } else { 0 }, 6),
        (if client.modern { 4 } else { 0 }, 7),
        (if client.is_11 { 14 } else { 0 }, 8),
        (if client.is_11 { 12 } else { 0 }, 9),
        (if client.is_11 { 14 } else { 0 }, 10),
    ]);
    match kind {
        0 => send(client, plan, model, chat),
        1 => read(client, model, chat),
        2 => change(client, plan, model, user, chat),
        3 => gather(client, model, chat),
        4 => ask(client, chat),
        5 => leave(client),
        6 => modern_ask(client, model, chat),
        7 => manage(client, model, chat),
        8 => people(client, model, chat),
        9 => react(client, model, user, chat),
        _ => upload(client, model, user, chat),
    }
}

fn send(client: &mut Client, plan: &Plan, model: &Model, chat: ChatId) {
    let text = some_text(client, plan);
    let (mut chat, mut text, mut nonce) = (chat, text, None);
    if client.modern && client.rng.one_in(3) {
        let known = client.rng.pick(&client.nonces.clone()).cloned();
        if let Some((of, number, content)) = known.filter(|_| client.rng.one_in(3)) {
            chat = ChatId::new(of).unwrap_or(chat);
            text = content;
            nonce = Some(number);
        } else {
            let number = client.rng.weighted(&[(1, 0), (1, u64::MAX), (20, 1)]);
            match number {
                1 => nonce = Some(client.rng.next()),
                // Other clients of the same user send these nonces, too, so the content must be the
                // same.
                _ => {
                    text = format!("nonce {number}");
                    nonce = Some(number);
                }
            }
            client.nonces.push((chat.get(), nonce.unwrap_or_default(), text.clone()));
        }
    }
    if client.is_11 && nonce.is_none() {
        if client.rng.one_in(3) {
            return send_with_extras(client, model, chat, &text);
        }
        nonce = Some(client.rng.next());
    }
    say(client, &Request::SendChatMsg { chat, content: &text, nonce, extras: Extras::NONE });
}

/// Sends a reply, or complete uploads, or both.
fn send_with_extras(client: &mut Client, model: &Model, chat: ChatId, text: &str) {
    let user = client.user(model).unwrap_or(1);
    let (mut bytes, mut expected) = (Vec::new(), crate::wire::Extras::default());
    if client.rng.one_in(2) {
        let reply = a_message(client, model, user, chat);
        put_reply(&mut bytes, reply);
        expected.reply = Some(reply.get() as i64);
    }
    let mine = model.files.iter().filter(|(_, file)| file.user == user);
    let whole = mine.filter(|(_, file)| file.bytes.len() as u64 == file.size);
    let whole: Vec<u64> = whole.map(|(id, _)| *id).collect();
    for _ in 0..client.rng.below(3) {
        let Some(&id) = client.rng.pick(&whole) else { break };
        put_attach(&mut bytes, FileId::new(id).expect("an id"));
        expected.files.push(model.files[&id].attached(id));
    }
    let text = if !expected.files.is_empty() && client.rng.one_in(3) { "" } else { text };
    let (nonce, extras) = (Some(client.rng.next()), Extras::trusted(&bytes));
    let request = Request::SendChatMsg { chat, content: text, nonce, extras };
    let mut frame = Vec::new();
    request.write(&mut frame, 0);
    let content = text.to_owned();
    let asking = Asking::Send { chat: chat.get(), content, extras: expected };
    client.say(frame[4], &frame[6..], None, asking);
}

/// A chat of the user in which a slow consumer on 1.1 is notified of reactions.
fn chat_of_a_slow_one(client: &mut Client, model: &Model, user: u32) -> Option<ChatId> {
    let slow = model.conns.values().filter(|conn| conn.behind && conn.is_11);
    let slow: Vec<u32> = slow.filter_map(|conn| conn.listener()).collect();
    let mine = model.chats_of(user).into_iter();
    let is_slow = |chat: &u32| slow.iter().any(|user| model.is_member(*user, *chat));
    let chats: Vec<u32> = mine.filter(is_slow).collect();
    client.rng.pick(&chats).and_then(|chat| ChatId::new(*chat))
}

fn react(client: &mut Client, model: &Model, user: u32, chat: ChatId) {
    let slow = if client.rng.one_in(2) { chat_of_a_slow_one(client, model, user) } else { None };
    let chat = slow.unwrap_or(chat);
    let message = match client.rng.one_in(3) {
        true => a_message(client, model, user, chat),
        false => any_message(client, model, chat),
    };
    let emoji = *client.rng.pick(&EMOJI).expect("some");
    let on = !client.rng.one_in(3);
    match client.rng.below(8) {
        0 => say(client, &Request::GetReactions { chat, message }),
        _ => say(client, &Request::React { chat, message, on, emoji }),
    }
}

/// Begins an upload, continues one, reads a file, or ends one.
fn upload(client: &mut Client, model: &Model, user: u32, chat: ChatId) {
    let mine = |file: &crate::model::extras::File| file.user == user && file.message.is_none();
    let uploads: Vec<u64> =
        model.files.iter().filter(|(_, f)| mine(f)).map(|(id, _)| *id).collect();
    let all: Vec<u64> = model.files.keys().copied().collect();
    let id = match client.rng.below(8) {
        0 => client.rng.pick(&all).copied(),
        1 => Some(client.rng.below(50) + 1),
        _ => client.rng.pick(&uploads).copied(),
    };
    let known = id.and_then(|id| model.files.get(&id));
    let (stored, size) = known.map_or((0, 10), |file| (file.bytes.len() as u64, file.size));
    let file = FileId::new(id.unwrap_or(1)).expect("an id");
    let offset = if client.rng.one_in(12) { client.rng.below(100) } else { stored };
    match client.rng.below(12) {
        0..3 if uploads.len() < 6 => {
            client.sent += 1;
            let name = format!("file {}.{}", client.number, client.sent);
            let size = 1 + client.rng.below(3000);
            let (width, height, media_type) = (1, 2, "a/b");
            say(client, &Request::BeginFile { chat, size, width, height, media_type, name: &name });
        }
        0..9 => {
            let left = (size - stored.min(size)) as usize;
            let most = if client.rng.one_in(20) { left + 5 } else { left };
            let count = if client.rng.one_in(2) { most } else { most.min(700) }.max(1);
            let bytes: Vec<u8> = (0..count).map(|_| client.rng.next() as u8).collect();
            say(client, &Request::PutFile { file, offset, bytes: &bytes });
        }
        9..11 => {
            let length = client.rng.weighted(&[(3, u32::MAX), (1, 0), (1, 100)]);
            let file = client.rng.pick(&all).and_then(|id| FileId::new(*id)).unwrap_or(file);
            let offset = client.rng.weighted(&[(3, 0), (1, offset), (1, u64::MAX)]);
            say(client, &Request::GetFile { file, offset, length });
        }
        _ => say(client, &Request::EndFile { file }),
    }
}

fn read(client: &mut Client, model: &Model, chat: ChatId) {
    let from = a_time(client, model, chat);
    let to = a_time(client, model, chat);
    let limit = client.rng.weighted(&[(1, 0), (3, 5), (1, 1000)]);
    let before = (to > ServerTime::ZERO).then(|| MessageId::at(to));
    let newer = client.is_11 && client.rng.one_in(2);
    let request = match client.rng.below(if client.modern { 8 } else { 5 }) {
        0 => Request::RequestChatMsg { chat, from, to: None },
        1..3 => Request::RequestChatMsg { chat, from, to: Some(to) },
        3..5 => Request::MarkSeen { chat, time: from },
        5 => Request::RequestChatPage { chat, before: None, limit, newer: false },
        6 => Request::RequestChatPage { chat, before, limit, newer },
        _ => Request::RequestUpdates { from },
    };
    say(client, &request);
}

fn change(client: &mut Client, plan: &Plan, model: &Model, user: u32, chat: ChatId) {
    let message = a_message(client, model, user, chat);
    let text = some_text(client, plan);
    match client.rng.below(3) {
        0 => say(client, &Request::DeleteMsg { chat, message }),
        _ => say(client, &Request::EditMsg { chat, message, content: &text }),
    }
}

/// Joins and creates chats.
fn gather(client: &mut Client, model: &Model, chat: ChatId) {
    let name = *client.rng.pick(&CHAT_NAMES).expect("some");
    let name =
        if client.rng.one_in(20) { *client.rng.pick(&BAD_NAMES).expect("some") } else { name };
    let guess = *client.rng.pick(&CHAT_PASSWORDS).expect("some");
    let all: Vec<u32> = model.chats.keys().copied().collect();
    let other = client.rng.pick(&all).and_then(|id| ChatId::new(*id)).unwrap_or(chat);
    let known = model.chats.get(&other.get()).and_then(|chat| chat.password.clone());
    let right = known.unwrap_or_default();
    let user = a_user(client, model);
    match client.rng.below(if client.modern { 10 } else { 7 }) {
        0..5 => {
            let password = if right.is_empty() { None } else { Some(&right[..]) };
            say(client, &Request::JoinChat { chat: other, password });
        }
        5 => say(client, &Request::JoinChat { chat: other, password: None }),
        6 => say(client, &Request::JoinChat { chat: other, password: Some(guess) }),
        7 => say(client, &Request::CreateChat { name, password: None }),
        8 => say(client, &Request::CreateChat { name, password: Some(guess) }),
        _ => say(client, &Request::StartChat { user }),
    }
}

/// Requests of API 0.1 that change nothing.
fn ask(client: &mut Client, chat: ChatId) {
    let name = *client.rng.pick(&CHAT_NAMES).expect("some");
    let login = login_name(client.rng.index(9));
    match client.rng.below(5) {
        0 => say(client, &Request::GetUserId { nickname: &login }),
        1 => say(client, &Request::GetChatId { name }),
        2 => say(client, &Request::ChatReqPass { chat }),
        3 => say(client, &Request::Heartbeat { echo: b"are you there" }),
        _ => say(client, &Request::Hello { major: 1, minor: u8::from(client.is_11) }),
    }
}

/// Ends something: the session, the connection, or notifications.
fn leave(client: &mut Client) {
    let last = client.last_notification;
    match client.rng.below(8) {
        0 => say(client, &Request::Logoff),
        1 => {
            client.say(0x03, &[], None, Asking::Other);
            client.has_ended = true;
        }
        2 => (client.has_ended, client.hung_up) = (true, true),
        3..6 if last != 0 => {
            client.say_raw(DECLINED, last, b"no\0");
            client.is_suspended = true;
            client.replica.detached();
        }
        6 => {
            let task = client.rng.below(256) as u8;
            client.say_raw(DECLINED, task, b"no\0");
            // It may have declined a real notification, and learns of the suspension only by its
            // next request.
            client.is_suspended = true;
            client.replica.detached();
        }
        _ => client.say_raw(0x00, last, b""),
    }
}

fn modern_ask(client: &mut Client, model: &Model, chat: ChatId) {
    let user = a_user(client, model);
    let prefix = client.rng.weighted(&[(1, ""), (1, "HA"), (1, "зал"), (1, "q")]);
    let limit = client.rng.weighted(&[(1, 0), (1, 2), (3, 100)]);
    if client.rng.one_in(4) {
        return search(client, chat);
    }
    let request = match client.rng.below(9) {
        0 => Request::GetUser { user },
        1 => Request::GetSessions,
        2 => Request::GetChat { chat },
        3..5 => Request::GetMyChats,
        5..7 => Request::GetMembers { chat },
        7 => Request::FindChats { prefix, limit },
        _ => Request::Typing { chat },
    };
    say(client, &request);
}

/// Ends one of the user's sessions whose connection is slow. False when there is none.
fn end_a_slow_one(client: &mut Client, model: &Model, user: u32) -> bool {
    let behind = model.conns.values().filter(|conn| conn.behind);
    let session = behind.filter_map(|conn| conn.attached).find(|attached| attached.user == user);
    let Some(session) = session.and_then(|attached| SessionId::new(attached.session)) else {
        return false;
    };
    say(client, &Request::EndSession { session });
    true
}

fn search(client: &mut Client, chat: ChatId) {
    let limit = client.rng.weighted(&[(1, 0), (2, 3), (4, 100), (1, 1000)]);
    let chat = Some(chat).filter(|_| client.rng.one_in(2));
    let mut word = || *client.rng.pick(&WORDS).expect("some");
    let (one, two) = (word(), word());
    let query = match client.rng.below(16) {
        0..5 => one.to_owned(),
        5..7 => format!("{one} {two}"),
        7..9 => format!("{}*", one.chars().take(2).collect::<String>()),
        9..11 => format!("\"{one} {two}\""),
        11 => format!("\"{one} {}\"*", two.chars().take(2).collect::<String>()),
        12 => format!("\"{}.{}\"", client.rng.below(4), client.rng.below(20)),
        13 => format!("{}, {two}!", one.to_uppercase()),
        14 => "word ".repeat(65),
        _ => (*client.rng.pick(&BAD_QUERIES).expect("some")).to_owned(),
    };
    say(client, &Request::SearchMsg { chat, limit, query: &query });
}

/// A code with a valid form that was never created.
const NO_CODE: &str = "0000-0000-0000-0000-0000";

/// An invite code, mostly of an existing invite.
fn an_invite(client: &mut Client, model: &Model) -> String {
    let codes: Vec<&String> = model.invites.keys().collect();
    let code = client.rng.pick(&codes).map(|code| (*code).clone());
    code.filter(|_| !client.rng.one_in(8)).unwrap_or_else(|| NO_CODE.to_owned())
}

/// FIND_USERS, mostly by a prefix that users have.
fn find_users(client: &mut Client, model: &Model) {
    let limit = client.rng.weighted(&[(1, 0), (2, 1), (2, 3), (4, 200), (1, u16::MAX)]);
    let names: Vec<&String> = model.users.values().map(|user| &user.nickname).collect();
    let name = client.rng.pick(&names).map_or("", |name| &name[..]);
    let count = client.rng.weighted(&[(4, 1), (1, 3), (1, 32)]);
    let start: String = name.chars().take(count).collect();
    let prefix = match client.rng.below(12) {
        0..4 => String::new(),
        4 => "GUEST".to_owned(),
        5 => "zz".to_owned(),
        6 => "x".repeat(129),
        7 => start.to_uppercase(),
        _ => start,
    };
    say(client, &Request::FindUsers { prefix: &prefix, limit });
}

/// Endpoints that are not allowed.
const BAD_ENDPOINTS: [&str; 9] = [
    "http://push.example/1",
    "https://push.example",
    "https://push.example?1",
    "https://push.example:80/1",
    "https://push.example.evil.test/1",
    "https://user@push.example/1",
    "https://push.test/1",
    "https://push.example/#1",
    "https://127.0.0.1/1",
];

/// SUBSCRIBE_PUSH: with a new endpoint, the same again, one that is not allowed, or none.
fn subscribe(client: &mut Client, model: &Model) {
    client.sent += 1;
    let (number, sent) = (client.number, client.sent);
    let present = client.session.as_ref().and_then(|session| model.sessions.get(&session.id));
    let present = present.and_then(|session| session.push.clone());
    let kind = client.rng.below(16);
    let good = match client.rng.below(3) {
        0 => format!("https://PUSH.example:443/{number}.{sent}"),
        1 => format!("https://a.b-c.push.test/?{number}.{sent}"),
        _ => format!("https://push.example/{number}.{sent}"),
    };
    let (mut p256dh, mut auth) = ([client.rng.next() as u8; 65], [client.rng.next() as u8; 16]);
    p256dh[0] = if kind == 0 { 2 } else { 4 };
    let endpoint = match (kind, present) {
        (1, _) => (*client.rng.pick(&BAD_ENDPOINTS).expect("some")).to_owned(),
        (2, _) => good + &"x".repeat(1024),
        (3, _) => return say(client, &Request::SubscribePush { endpoint: "", keys: None }),
        // An endpoint without keys is malformed.
        (4, _) => return client.say(0x51, b"https://push.example/1\0", None, Asking::Other),
        (5..7, Some(present)) => {
            p256dh.copy_from_slice(&present.keys[..65]);
            auth.copy_from_slice(&present.keys[65..]);
            present.endpoint
        }
        _ => good,
    };
    let keys = Some(PushKeys { p256dh: &p256dh, auth: &auth });
    say(client, &Request::SubscribePush { endpoint: &endpoint, keys });
}

/// Requests of API 1.1 about accounts, members and invites.
fn people(client: &mut Client, model: &Model, chat: ChatId) {
    if client.rng.one_in(12) {
        return find_users(client, model);
    }
    let session = client.session.as_ref().and_then(|session| model.sessions.get(&session.id));
    let is_subscribed = session.is_some_and(|session| session.push.is_some());
    if client.rng.one_in(if is_subscribed { 12 } else { 3 }) {
        return subscribe(client, model);
    }
    let user = a_user(client, model);
    let flag = client.rng.one_in(2);
    let code = an_invite(client, model);
    let me = client.user(model).unwrap_or(1);
    let is_admin = |chat: &Chat| chat.members.get(&me).is_some_and(|member| member.admin);
    let own: Vec<u32> =
        model.chats.iter().filter(|(_, chat)| is_admin(chat)).map(|(id, _)| *id).collect();
    let own = client.rng.pick(&own).and_then(|id| ChatId::new(*id));
    let chat = own.filter(|_| !client.rng.one_in(6)).unwrap_or(chat);
    let uses = client.rng.weighted(&[(3, 1), (2, 2), (1, 9)]);
    let notify = client.rng.below(3) as u8;
    let request = match client.rng.below(24) {
        0..2 => Request::ResetPassword { user },
        2 => Request::SetUserDisabled { user, disabled: client.rng.one_in(3) },
        3 => Request::SetUserDisabled { user, disabled: false },
        4..8 => Request::AddMember { chat, user },
        8..11 => Request::SetChatClosed { chat, closed: flag },
        11..13 => Request::SetChatNotify { chat, notify },
        13..17 => {
            let chat = Some(chat).filter(|_| !client.rng.one_in(4));
            let registers = flag || chat.is_none();
            Request::CreateInvite { registers, uses, days: 60_000, chat }
        }
        17 => Request::GetInvites { chat: Some(chat).filter(|_| flag) },
        18 => Request::EndInvite { hint: &code[..7] },
        _ if code == NO_CODE && !client.rng.one_in(8) => {
            Request::CreateInvite { registers: flag, uses, days: 60_000, chat: Some(chat) }
        }
        _ => Request::UseInvite { code: &code },
    };
    say(client, &request);
}

/// Requests of admins, and changes of the own account.
fn manage(client: &mut Client, model: &Model, chat: ChatId) {
    let user = a_user(client, model);
    let me = client.user(model).unwrap_or(1);
    let flag = client.rng.one_in(2);
    let name = *client.rng.pick(&CHAT_NAMES).expect("some");
    let title = (*client.rng.pick(&TITLES).expect("some")).to_owned();
    let title = if client.rng.one_in(20) { "t".repeat(129) } else { title };
    let password = *client.rng.pick(&CHAT_PASSWORDS).expect("some");
    let mine: Vec<u32> =
        model.sessions.iter().filter(|(_, s)| s.user == me).map(|(id, _)| *id).collect();
    let session = client.rng.pick(&mine).copied().unwrap_or(1);
    let session = SessionId::new(session).expect("not 0");
    let old = model.users.get(&me).map(|user| user.password.clone()).unwrap_or_default();
    let old = if client.rng.one_in(4) { "not it".to_owned() } else { old };
    let new = format!("password {}", client.rng.below(1000));
    let request = match client.rng.below(20) {
        0..3 => Request::LeaveChat { chat },
        3 if client.rng.one_in(3) => Request::DeleteChat { chat },
        3..6 => Request::RenameChat { chat, name },
        6..8 => Request::SetChatTitle { chat, title: &title },
        8 => Request::SetChatPassword { chat, password: None },
        9 => Request::SetChatPassword { chat, password: Some(password) },
        10..13 => Request::SetChatAdmin { chat, user, admin: flag },
        13..17 => Request::SetChatBan { chat, user, banned: client.rng.one_in(3) },
        17 => Request::EndSession { session },
        18 if client.rng.one_in(3) => Request::ChangePassword { old: &old, new: &new },
        _ => Request::GetChat { chat },
    };
    let is_recipient = matches!(request, Request::RenameChat { .. } | Request::SetChatTitle { .. });
    if is_recipient && client.rng.one_in(2) {
        // In the same turn, so that members get the event before the message.
        let nonce = client.is_11.then(|| client.rng.next());
        let before =
            Request::SendChatMsg { chat, content: "so be it", nonce, extras: Extras::NONE };
        say(client, &before);
    }
    say(client, &request);
}
