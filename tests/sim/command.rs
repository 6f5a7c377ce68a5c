//! The command line alongside the running server: changes the database through a connection of its
//! own, and leaves a row for the server, as `vestnik user`, `chat`, `session` and `lockdown` do.

use std::path::Path;

use vestnik::auth::password::{self, Kind};
use vestnik::auth::token::{HookToken, InviteCode, ResetCode};
use vestnik::ids::{ChatId, ServerTime, SessionId, UserId};
use vestnik::store::changes::Change;
use vestnik::store::invites;
use vestnik::store::members::Member;
use vestnik::store::open::Role;
use vestnik::store::vacancies::Succession;
use vestnik::store::{Database, Store, StoreResult};
use vestnik::wire::answer::USER_OPERATOR;

use crate::file;
use crate::model::{Invite, Model};
use crate::rng::{Rng, Secrets};
use crate::vfs;
use crate::wire::Check;

/// Days that chats keep messages, once this was set. No seed lasts a day, so nothing reaches that
/// age, whatever the wall clock does.
const KEEP_DAYS: u32 = 7;

/// Days after which invites of the command line expire: no seed lasts as long.
const INVITE_DAYS: u16 = 36_500;
const DAY_US: i64 = 24 * 3600 * 1_000_000;

/// A change by the command line. An invite is removed by its whole code, or by the part that lists
/// show; the id of a bot is known once it was added; a user who is removed is not connected.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    EndSession { session: u32 },
    Password { user: u32, password: String },
    Disable { user: u32, disabled: bool },
    AddMember { chat: u32, user: u32, admin: bool, joined: i64 },
    RemoveChat { chat: u32 },
    SlowMode { chat: u32, seconds: u32 },
    Lockdown { is_on: bool },
    AddBot { chat: u32, user: u32, name: String, joined: i64 },
    RemoveUser { user: u32 },
    Operator { user: u32, is_on: bool },
    Reset { user: u32, code: String, expires: i64 },
    AddInvite { code: String, invite: Invite, created: i64 },
    RemoveInvite { code: String, by_hint: bool },
}

/// Chooses a change, if there is anything to change.
pub(crate) fn choose(rng: &mut Rng, model: &Model, wall_us: i64) -> Option<Command> {
    let users: Vec<u32> = model.users.keys().copied().collect();
    let groups = model.chats.iter().filter(|(_, chat)| chat.direct.is_none());
    let groups: Vec<u32> = groups.map(|(id, _)| *id).collect();
    let sessions: Vec<u32> = model.sessions.keys().copied().collect();
    let user = *rng.pick(&users)?;
    if rng.one_in(5) {
        return choose_of_operators(rng, model, wall_us);
    }
    Some(match rng.below(18) {
        0..4 => Command::EndSession { session: *rng.pick(&sessions)? },
        4 if model.users[&user].password.is_empty() => return None,
        4 => Command::Password { user, password: format!("by hand {}", rng.below(100)) },
        5 => Command::Disable { user, disabled: true },
        6..8 => Command::Disable { user, disabled: false },
        8..12 => {
            let chat = *rng.pick(&groups)?;
            let found = &model.chats[&chat];
            if found.members.contains_key(&user) || found.bans.contains(&user) {
                return None;
            }
            Command::AddMember { chat, user, admin: rng.one_in(2), joined: wall_us.max(0) }
        }
        12 => Command::RemoveChat { chat: *rng.pick(&groups)? },
        13..15 => Command::SlowMode {
            chat: *rng.pick(&groups)?,
            seconds: rng.weighted(&[(3, 0), (1, 1), (1, 60)]),
        },
        15 => Command::Lockdown { is_on: rng.one_in(3) },
        16 => {
            let (chat, name) = (*rng.pick(&groups)?, format!("bot{}", rng.below(6)));
            if model.users.values().any(|user| user.nickname == name) {
                return None;
            }
            Command::AddBot { chat, user: 0, name, joined: wall_us.max(0) }
        }
        _ => {
            let may_go = model.may_be_removed(user);
            let is_wanted = model.users[&user].nickname.starts_with("guest") || rng.one_in(3);
            return (may_go && is_wanted).then_some(Command::RemoveUser { user });
        }
    })
}

/// Chooses a change of what operators change by requests.
fn choose_of_operators(rng: &mut Rng, model: &Model, wall_us: i64) -> Option<Command> {
    let users: Vec<u32> = model.users.keys().copied().collect();
    let codes: Vec<&String> = model.invites.keys().collect();
    let groups = model.chats.iter().filter(|(_, chat)| chat.direct.is_none());
    let groups: Vec<u32> = groups.map(|(id, _)| *id).collect();
    let (user, chat) = (*rng.pick(&users)?, rng.pick(&groups).copied());
    let found = &model.users[&user];
    let (secrets, created) = (Secrets::new(rng.fork()), wall_us.max(0));
    Some(match rng.below(8) {
        0..2 if found.is_bot => return None,
        0..2 => Command::Operator { user, is_on: !rng.one_in(3) },
        2..4 if found.is_bot || found.disabled => return None,
        2..4 => {
            let code = ResetCode::generate(&secrets).ok()?.expose();
            Command::Reset { user, code, expires: created + DAY_US }
        }
        4..7 => {
            let chat = chat.filter(|_| rng.one_in(2));
            let registers = chat.is_none() || rng.one_in(2);
            let (uses_left, days, creator) = (1, INVITE_DAYS, 0);
            let code = InviteCode::generate(&secrets).ok()?.expose();
            let invite = Invite { registers, chat, uses_left, days, creator };
            Command::AddInvite { code, invite, created }
        }
        _ => {
            let code = model.invite_in_use().map(str::to_owned);
            let code = code.or_else(|| rng.pick(&codes).map(|code| (*code).clone()))?;
            Command::RemoveInvite { code, by_hint: rng.one_in(2) }
        }
    })
}

/// Makes the change in the database, in one transaction.
pub(crate) fn run(command: &mut Command, rng: Rng) -> Check {
    let database = Database::open_with_vfs(Path::new(file::PATH), vfs::NAME, Role::Command, None)?;
    let mut store = Store::new(&database).map_err(|e| e.to_string())?;
    store.begin_write().map_err(|e| e.to_string())?;
    change(command, &mut store, rng)?.map_err(|e| e.to_string())?;
    store.commit().map(drop).map_err(|e| e.to_string())
}

#[allow(clippy::too_many_lines, reason = "one arm per command")]
fn change(command: &mut Command, store: &mut Store<'_>, rng: Rng) -> Check<StoreResult<()>> {
    let user_id = |id: u32| UserId::new(id).ok_or("a user id of 0");
    let chat_id = |id: u32| ChatId::new(id).ok_or("a chat id of 0");
    Ok(match command {
        Command::EndSession { session } => {
            let session = SessionId::new(*session).ok_or("a session id of 0")?;
            let ended = store.end_session(session).map(drop);
            ended.and_then(|()| store.note_change(Change::SessionEnded(session)))
        }
        Command::Password { user, password } => {
            let user = user_id(*user)?;
            let prepared = password::prepare(password, Kind::User).map_err(|e| e.to_string())?;
            let stored = password::hash(&prepared, 1, &Secrets::new(rng));
            let stored = stored.map_err(|e| e.to_string())?;
            let set = store.change_password(user, &stored);
            set.and_then(|()| store.end_sessions(user, None))
                .and_then(|()| store.note_change(Change::SessionsEnded(user)))
        }
        Command::Disable { user, disabled } => {
            let user = user_id(*user)?;
            let set = store.set_disabled(user, *disabled);
            let made = if *disabled {
                set.and_then(|()| store.end_sessions(user, None))
                    .and_then(|()| store.note_change(Change::SessionsEnded(user)))
                    .and_then(|()| store.settle_disabled(user, ServerTime::ZERO))
            } else {
                let chats = set.and_then(|()| store.settle_enabled(user));
                chats.map(|chats| chats.into_iter().map(|chat| (chat, user)).collect())
            };
            made.and_then(|made| {
                let mut made = made.into_iter();
                made.try_for_each(|(chat, user)| store.note_change(Change::MadeAdmin(chat, user)))
            })
        }
        Command::AddMember { chat, user, admin, joined } => {
            let (chat, user) = (chat_id(*chat)?, user_id(*user)?);
            let joined = ServerTime::new(*joined).unwrap_or_default();
            let member = Member { chat, user, admin: *admin, joined, seen: ServerTime::ZERO };
            let added = store.add_member(member);
            added.and_then(|_| store.note_change(Change::MemberJoined(chat, user)))
        }
        Command::RemoveChat { chat } => {
            let chat = chat_id(*chat)?;
            let removed = store.remove_chat(chat);
            removed.and_then(|()| store.note_change(Change::ChatRemoved(chat)))
        }
        Command::SlowMode { chat, seconds } => {
            let chat = chat_id(*chat)?;
            let set = store.set_chat_policy(chat, *seconds, KEEP_DAYS);
            set.and_then(|()| store.note_change(Change::ChatChanged(chat)))
        }
        Command::Lockdown { is_on } => {
            let set = store.set_lockdown(*is_on);
            set.and_then(|()| store.note_change(Change::PolicyChanged))
        }
        Command::AddBot { chat, user, name, joined } => {
            let chat = chat_id(*chat)?;
            let joined = ServerTime::new(*joined).unwrap_or_default();
            let added = store.add_user(name, name, &password::nobody(1), joined);
            let added = added.map_err(|e| e.to_string())?.ok_or("the name of a bot is taken")?;
            *user = added.get();
            let seen = ServerTime::ZERO;
            let member = Member { chat, user: added, admin: false, joined, seen };
            let digest = HookToken::generate(&Secrets::new(rng)).map_err(|e| e.to_string())?;
            let digest = digest.digest();
            let done = store.add_hook(&digest.0, added, chat, joined);
            done.and_then(|()| store.add_member(member))
                .and_then(|_| store.note_change(Change::MemberJoined(chat, added)))
        }
        Command::RemoveUser { user } => remove_user(user_id(*user)?, store),
        Command::Operator { user, is_on } => {
            store.set_user_flag(user_id(*user)?, USER_OPERATOR, *is_on)
        }
        Command::Reset { user, code, expires } => {
            let digest = ResetCode::parse(code).ok_or("a code that is none")?.digest();
            let at = |micros: i64| ServerTime::new(micros).unwrap_or_default();
            let (expires, created) = (at(*expires), at(*expires - DAY_US));
            store.set_reset_code(user_id(*user)?, &digest.0, expires, created)
        }
        Command::AddInvite { code, invite, created } => {
            let code = InviteCode::parse(code).ok_or("a code that is none")?;
            let at = |micros: i64| ServerTime::new(micros).unwrap_or_default();
            let row = invites::Invite {
                hint: code.hint(),
                uses_left: invite.uses_left.into(),
                expires: at(*created + i64::from(invite.days) * DAY_US),
                created: at(*created),
                registers: invite.registers,
                operator: false,
                chat: invite.chat.and_then(ChatId::new),
                creator: None,
            };
            store.add_invite(&code.digest().0, &row)
        }
        Command::RemoveInvite { code, by_hint } => {
            let code = InviteCode::parse(code).ok_or("a code that is none")?;
            match by_hint {
                true => store.remove_invites_with_hint(&code.hint()).map(drop),
                false => store.remove_invite(&code.digest().0).map(drop),
            }
        }
    })
}

/// What `vestnik user remove` does.
fn remove_user(user: UserId, store: &mut Store<'_>) -> StoreResult<()> {
    store.end_sessions(user, None)?;
    store.note_change(Change::SessionsEnded(user))?;
    for Member { chat, admin, .. } in store.memberships(user)? {
        if store.chat(chat)?.is_some_and(|chat| chat.direct.is_some()) {
            continue;
        }
        store.remove_member(chat, user)?;
        store.note_change(Change::MemberLeft(chat, user))?;
        match store.settle_departure(chat, admin, ServerTime::ZERO)? {
            Succession::Unchanged => {}
            Succession::Heir(heir) => store.note_change(Change::MadeAdmin(chat, heir))?,
            Succession::Gone => store.note_change(Change::ChatRemoved(chat))?,
        }
    }
    store.remove_bans_of(user)?;
    let name = removed_name(user.get());
    store.retire_user(user, &name, &name, &password::nobody(1))?;
    store.note_change(Change::UserRenamed(user))
}

/// The name of an account that was removed.
pub(crate) fn removed_name(user: u32) -> String {
    format!("deleted-{user}")
}
