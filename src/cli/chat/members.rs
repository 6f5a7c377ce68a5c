//! `vestnik chat members|kick|ban|unban`: who is in a group, by the operator's hand.

use vestnik::store::Store;
use vestnik::store::changes::Change;
use vestnik::store::chats::Chat;
use vestnik::store::members::Member;
use vestnik::store::users::User;
use vestnik::store::vacancies::Succession;

use crate::cli::failure::Failure;
use crate::cli::file::{self, Stop};
use crate::cli::output::{self, Cell, Format};
use crate::cli::{Context, Outcome};

/// Rows read in one query.
const ROWS_PER_QUERY: u32 = 1000;

/// Members, then banned users: as GET_MEMBERS lists them to an admin.
pub(super) fn list(name: &str, format: Format, context: &mut Context<'_>) -> Outcome {
    let rows = file::look(&context.data, |store| {
        let chat = file::chat(store, name)?.chat;
        let mut rows = Vec::new();
        let mut after = None;
        loop {
            let members = store.members(chat, after, ROWS_PER_QUERY)?;
            let Some((last, _)) = members.last() else { break };
            after = Some(last.user);
            rows.extend(members.into_iter().map(|(member, nickname)| {
                [
                    Cell::from(member.user.get()),
                    Cell::from(nickname),
                    Cell::from(if member.admin { "admin" } else { "member" }),
                    Cell::from(member.joined),
                ]
            }));
        }
        let mut after = None;
        loop {
            let banned = store.banned(chat, after, ROWS_PER_QUERY)?;
            let Some((last, _)) = banned.last() else { return Ok(rows) };
            after = Some(*last);
            rows.extend(banned.into_iter().map(|(user, nickname)| {
                [Cell::from(user.get()), Cell::from(nickname), Cell::from("banned"), Cell::Nothing]
            }));
        }
    })?;
    Ok(output::list(context.out, format, ["ID", "NAME", "ROLE", "JOINED"], &rows)?)
}

pub(super) fn kick(name: &str, user: &str, context: &mut Context<'_>) -> Outcome {
    let (chat, user) = file::change(&context.data, |store| {
        let (chat, user) = both(store, name, user)?;
        let Some(member) = store.member(chat.chat, user.user)? else {
            let words = format!("user {} is not a member of {}", user.nickname, chat.name);
            return Err(Failure::Failed(words).into());
        };
        leave(store, &member)?;
        Ok((chat, user))
    })?;
    writeln!(context.out, "user {} is no longer a member of {}", user.nickname, chat.name)?;
    Ok(())
}

pub(super) fn set_banned(
    name: &str,
    user: &str,
    is_banned: bool,
    context: &mut Context<'_>,
) -> Outcome {
    let (chat, user) = file::change(&context.data, |store| {
        let (chat, user) = both(store, name, user)?;
        if store.is_banned(chat.chat, user.user)? == is_banned {
            let state = if is_banned { "already" } else { "not" };
            let words = format!("user {} is {state} banned from {}", user.nickname, chat.name);
            return Err(Failure::Failed(words).into());
        }
        store.set_banned(chat.chat, user.user, is_banned)?;
        if is_banned {
            let member = store.member(chat.chat, user.user)?;
            store.remove_member(chat.chat, user.user)?;
            store.note_change(Change::MemberBanned(chat.chat, user.user))?;
            if let Some(member) = member {
                settle(store, &member)?;
            }
        }
        Ok((chat, user))
    })?;
    let state = if is_banned { "banned from" } else { "no longer banned from" };
    writeln!(context.out, "user {} is {state} {}", user.nickname, chat.name)?;
    Ok(())
}

fn both(store: &mut Store<'_>, chat: &str, user: &str) -> Result<(Chat, User), Stop> {
    Ok((file::chat(store, chat)?, file::user(store, user)?))
}

/// Ends a membership as LEAVE_CHAT does.
pub(in crate::cli) fn leave(store: &mut Store<'_>, member: &Member) -> Result<(), Stop> {
    store.remove_member(member.chat, member.user)?;
    store.note_change(Change::MemberLeft(member.chat, member.user))?;
    settle(store, member)
}

/// The group may have an heir to its last admin, or be gone with its last member.
fn settle(store: &mut Store<'_>, gone: &Member) -> Result<(), Stop> {
    let now = file::at_least_server_time(store)?;
    match store.settle_departure(gone.chat, gone.admin, now)? {
        Succession::Unchanged => Ok(()),
        Succession::Heir(heir) => Ok(store.note_change(Change::MadeAdmin(gone.chat, heir))?),
        Succession::Gone => Ok(store.note_change(Change::ChatRemoved(gone.chat))?),
    }
}
