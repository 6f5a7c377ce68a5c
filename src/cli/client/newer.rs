//! The jobs that need API 1.1: reactions, invites, adding people, and what operators do.

use std::collections::BTreeMap;

use purpose::client::{Client, Error, Event, NewInvite, Notify, ReactionChange};
use vestnik::ids::{ChatId, MessageId};

use super::job::{Job, News, PAGE_MESSAGES};
use super::perform::{FOUND_MAX, Surroundings, changed, name, show};
use super::report;
use super::text::{Clock, harmless};
use crate::cli::link;

/// People whose names are looked up for one list.
const NAMES_MAX: usize = 100;
/// Modules around a QR code: fewer than on paper, so that one fits into a window of 24 rows.
const QUIET_MODULES: i32 = 2;

/// Does one of them.
pub(super) fn perform(
    client: &mut Client,
    job: &Job,
    surroundings: &Surroundings,
) -> Result<Vec<News>, Error> {
    let line = |line: String| Ok(vec![News::Lines(vec![line])]);
    match job {
        Job::React { chat, message, on, emoji } => react(client, *chat, *message, *on, emoji),
        Job::Reactions { chat, message } => reactions(client, *chat, *message),
        Job::Users(prefix) => {
            Ok(vec![News::Lines(report::users(&client.find_users(prefix, FOUND_MAX)?))])
        }
        Job::Add { chat, user } => {
            let id = client.user_id(user)?;
            client.add_member(*chat, id)?;
            changed(client, *chat, format!("{} is a member now", harmless(user)))
        }
        Job::Invite { chat, with_qr, uses, days } => {
            let new = NewInvite { registers: false, chat: Some(*chat), uses: *uses, days: *days };
            let code = client.create_invite(new)?;
            Ok(invite(&code, (*uses, *days), *with_qr, surroundings))
        }
        Job::Invites(chat) => invites(client, *chat),
        Job::EndInvite(hint) => {
            client.end_invite(hint)?;
            line("the invite has ended".to_owned())
        }
        Job::Accept(code) => {
            let chat = client.use_invite(code)?;
            show(client, chat, PAGE_MESSAGES)
        }
        Job::Closed { chat, on } => {
            client.set_chat_closed(*chat, *on)?;
            let words = if *on { "closed: who joins is added or invited" } else { "open again" };
            changed(client, *chat, format!("this chat is {words}"))
        }
        Job::Notify { chat, notify } => {
            client.set_chat_notify(*chat, *notify)?;
            let what = match notify {
                Notify::All => "every message of this chat is pushed",
                Notify::Mentions => "what mentions or answers you in this chat is pushed",
                Notify::Nothing => "nothing of this chat is pushed",
            };
            changed(client, *chat, what.to_owned())
        }
        Job::Reset(user) => reset(client, user),
        Job::Disable { user, on } => {
            let id = client.user_id(user)?;
            client.set_user_disabled(id, *on)?;
            let can = if *on { "is locked out" } else { "can log in again" };
            line(format!("{} {can}", harmless(user)))
        }
        // The worker does the rest by itself.
        _ => Ok(Vec::new()),
    }
}

/// Reacts; my own reaction is no notification to me, but news all the same.
fn react(
    client: &mut Client,
    chat: ChatId,
    message: MessageId,
    on: bool,
    emoji: &str,
) -> Result<Vec<News>, Error> {
    let updated = client.react(chat, message, on, emoji)?;
    let me = client.session().and_then(|session| session.user);
    let emoji = emoji.to_owned();
    let change = me.map(|user| ReactionChange { chat, message, updated, user, on, emoji });
    Ok(change.map(|change| News::Event(Event::Reaction(change))).into_iter().collect())
}

/// Who gave which reaction, one line for an emoji.
fn reactions(client: &mut Client, chat: ChatId, message: MessageId) -> Result<Vec<News>, Error> {
    let given = client.reactions(chat, message)?;
    let mut names = BTreeMap::new();
    let mut lines: Vec<(String, Vec<String>)> = Vec::new();
    for (user, emoji) in given {
        if names.len() < NAMES_MAX && !names.contains_key(&user) {
            names.insert(user, name(client, user)?);
        }
        let name = names.get(&user).cloned().unwrap_or_else(|| report::nameless(user));
        match lines.iter_mut().find(|(known, _)| *known == emoji) {
            Some((_, users)) => users.push(harmless(&name)),
            None => lines.push((emoji, vec![harmless(&name)])),
        }
    }
    let line = |(emoji, users): (String, Vec<String>)| {
        format!("{} {}", harmless(&emoji), users.join(", "))
    };
    let mut lines: Vec<String> = lines.into_iter().map(line).collect();
    if lines.is_empty() {
        lines.push("nobody has reacted to it".to_owned());
    }
    Ok(vec![News::Lines(lines)])
}

fn invite(
    code: &str,
    (uses, days): (u16, u16),
    with_qr: bool,
    surroundings: &Surroundings,
) -> Vec<News> {
    let url = &surroundings.public_url;
    let code = harmless(code);
    let link = format!("{url}/#invite={code}");
    let uses = if uses == 1 { "one use".to_owned() } else { format!("{uses} uses") };
    let days = if days == 1 { "a day".to_owned() } else { format!("{days} days") };
    let mut lines = vec![format!("for {uses}, within {days}: {code}"), link.clone()];
    if super::server::is_loopback_url(url) {
        lines.push("the link works on this machine alone: set --public-url".to_owned());
    }
    // The code comes last, so that all of it can be seen in a small window.
    let mut news = vec![News::Lines(lines)];
    if with_qr {
        news.extend(link::qr_rows(&link, QUIET_MODULES).ok().map(News::Qr));
    }
    news
}

fn invites(client: &mut Client, chat: ChatId) -> Result<Vec<News>, Error> {
    let found = client.invites(Some(chat))?;
    let mut names = BTreeMap::new();
    for creator in found.iter().filter_map(|invite| invite.creator) {
        if names.len() < NAMES_MAX && !names.contains_key(&creator) {
            names.insert(creator, name(client, creator)?);
        }
    }
    let name = |user| names.get(&user).cloned().unwrap_or_else(|| report::nameless(user));
    Ok(vec![News::Lines(report::invites(&found, name))])
}

fn reset(client: &mut Client, user: &str) -> Result<Vec<News>, Error> {
    let id = client.user_id(user)?;
    let reset = client.reset_password(id)?;
    let clock = Clock::local();
    let (day, time) = (clock.day(reset.expires), clock.short(reset.expires));
    let user = harmless(user);
    let line = format!("a code for {user}, good until {day} {time}: {}", harmless(&reset.code));
    Ok(vec![News::Lines(vec![line])])
}
