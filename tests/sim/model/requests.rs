//! The model of the checks that every request passes (protocol section 3), and the dispatch of
//! requests.

use vestnik::ids::{ChatId, ConnId, MessageId};
use vestnik::wire::Version;
use vestnik::wire::purpose::{Needs, ToServer};
use vestnik::wire::request::Request;

use super::{Caller, Intent, Model, Turn};
use crate::wire::{Check, Frame, take_frame};

/// Longest body of a HEARTBEAT.
const HEARTBEAT_BYTES_MAX: usize = 1024;

impl Model {
    pub(super) fn frame(
        &mut self,
        turn: &mut Turn<'_>,
        conn: ConnId,
        bytes: &[u8],
        suspended: bool,
    ) -> Check {
        let (frame, _) = take_frame(bytes).ok_or("an input is no frame")?;
        let Some(state) = self.conns.get(&conn) else {
            return Err(format!("{conn} is fed but not there"));
        };
        let attached = state.attached;
        let was_suspended = attached.is_some_and(|attached| attached.suspended);
        let purpose = ToServer::from_byte(frame.purpose);
        if turn.is_excused(conn, frame.task) {
            return Ok(());
        }
        match purpose {
            Some(ToServer::Accepted | ToServer::Part) => return Ok(()),
            Some(ToServer::Declined) => return self.declined(turn, conn, frame.task, suspended),
            Some(ToServer::Heartbeat) if frame.body.len() > HEARTBEAT_BYTES_MAX => {
                return self.decline(turn, conn, frame.task, "malformed");
            }
            Some(ToServer::Heartbeat) => return self.accept(turn, conn, frame.task, &frame.body),
            Some(ToServer::Disconnect) if frame.body.is_empty() => {
                self.closing(conn);
                return Ok(());
            }
            Some(ToServer::Disconnect) => return self.decline(turn, conn, frame.task, "malformed"),
            _ => {}
        }
        let is_way_back = matches!(purpose, Some(ToServer::Logoff | ToServer::RestoreSession));
        if was_suspended && !is_way_back {
            return self.decline(turn, conn, frame.task, "session-suspended");
        }
        let is_hello = purpose == Some(ToServer::Hello);
        let version = match (state.modern, is_hello) {
            (None, false) => return self.decline(turn, conn, frame.task, "hello-required"),
            (Some(_), true) => return self.decline(turn, conn, frame.task, "already-greeted"),
            (Some(true), _) if state.is_11 => Version::V1_1,
            (None, true) | (Some(true), _) => Version::V1_0,
            (Some(false), _) => Version::V0_1,
        };
        let purpose = purpose.filter(|purpose| purpose.since() <= version);
        let is_entry = purpose.is_some_and(|purpose| purpose.needs() == Needs::Greeted);
        if !is_hello && attached.is_none() && !is_entry {
            return self.decline(turn, conn, frame.task, "login-required");
        }
        let Some(purpose) = purpose else {
            return self.decline(turn, conn, frame.task, "unknown-purpose");
        };
        if attached.is_some() && is_entry && !was_suspended {
            return self.decline(turn, conn, frame.task, "already-authorized");
        }
        match Request::decode(purpose, version, &frame.body) {
            Ok(request) => self.request(turn, conn, frame.task, request),
            Err(_) => self.decline(turn, conn, frame.task, "malformed"),
        }
    }

    fn request(
        &mut self,
        turn: &mut Turn<'_>,
        conn: ConnId,
        task: u8,
        request: Request<'_>,
    ) -> Check {
        self.note(request.purpose().name());
        match request {
            Request::Hello { major, minor } => return self.hello(turn, conn, task, major, minor),
            Request::Login { login, password } => {
                return self.login(turn, conn, task, login, password);
            }
            Request::RestoreSession { session, hash } => {
                return self.restore(turn, conn, task, session.get(), hash);
            }
            Request::RegisterUser { login, password, invite } => {
                return self.register(turn, conn, task, login, password, invite);
            }
            Request::SetPassword { login, code, password } => {
                return self.set_password(turn, conn, task, login, code, password);
            }
            _ => {}
        }
        let me = self.caller(conn, task).ok_or("a request without a session got this far")?;
        self.session_request(turn, me, request)
    }

    pub(super) fn caller(&self, conn: ConnId, task: u8) -> Option<Caller> {
        let state = self.conns.get(&conn)?;
        let attached = state.attached?;
        let (user, session) = (attached.user, attached.session);
        Some(Caller { conn, task, user, session, modern: state.is_modern(), is_11: state.is_11 })
    }

    #[allow(clippy::too_many_lines)] // one arm per purpose
    fn session_request(&mut self, turn: &mut Turn<'_>, me: Caller, request: Request<'_>) -> Check {
        let chat_id = |chat: ChatId| chat.get();
        let message_id = |id: MessageId| id.get() as i64;
        match request {
            Request::Logoff => self.logoff(turn, me),
            Request::GetUserId { nickname } => self.get_user_id(turn, me, nickname),
            Request::GetChatId { name } => self.get_chat_id(turn, me, name),
            Request::ChatReqPass { chat } => self.chat_req_pass(turn, me, chat.get()),
            Request::JoinChat { chat, password } => self.join_chat(turn, me, chat.get(), password),
            Request::SendChatMsg { chat, content, nonce, extras } => {
                let reply = extras.reply().map(message_id);
                let files: Vec<u64> = extras.attached().map(|file| file.get()).collect();
                self.send(turn, me, chat.get(), content, (nonce, reply, &files))
            }
            Request::RequestChatMsg { chat, from, to } => {
                let to = to.map(|to| to.micros());
                self.range(turn, me, chat.get(), from.micros(), to)
            }
            Request::MarkSeen { chat, time } => self.mark_seen(turn, me, chat.get(), time.micros()),
            Request::ChangePassword { old, new } => self.change_password(turn, me, old, new),
            Request::GetUser { user } => self.get_user(turn, me, user.get()),
            Request::GetSessions => self.get_sessions(turn, me),
            Request::EndSession { session } => self.end_session(turn, me, session.get()),
            Request::CreateChat { name, password } => self.create_chat(turn, me, name, password),
            Request::LeaveChat { chat } => self.leave_chat(turn, me, chat.get()),
            Request::StartChat { user } => self.start_chat(turn, me, user.get()),
            Request::DeleteChat { chat } => self.delete_chat(turn, me, chat.get()),
            Request::RenameChat { chat, name } => self.rename_chat(turn, me, chat.get(), name),
            Request::SetChatTitle { chat, title } => {
                self.set_chat_title(turn, me, chat.get(), title)
            }
            Request::SetChatPassword { chat, password } => {
                self.set_chat_password(turn, me, chat.get(), password)
            }
            Request::SetChatAdmin { chat, user, admin } => {
                self.set_chat_admin(turn, me, chat.get(), user.get(), admin)
            }
            Request::SetChatBan { chat, user, banned } => {
                self.set_chat_ban(turn, me, chat.get(), user.get(), banned)
            }
            Request::GetChat { chat } => self.get_chat(turn, me, chat.get()),
            Request::GetMyChats => self.my_chats(me),
            Request::GetMembers { chat } => self.members(turn, me, chat.get()),
            Request::FindChats { prefix, limit } => self.find_chats(me, prefix, limit),
            Request::EditMsg { chat, message, content } => {
                self.edit(turn, me, chat_id(chat), message_id(message), content)
            }
            Request::DeleteMsg { chat, message } => {
                self.delete(turn, me, chat_id(chat), message_id(message))
            }
            Request::RequestChatPage { chat, before, limit, newer } => {
                self.page(turn, me, chat_id(chat), before.map(message_id), (limit, newer))
            }
            Request::SearchMsg { chat, limit, query } => {
                self.search(turn, me, chat.map(chat_id), limit, query)
            }
            Request::RequestUpdates { from } => self.updates(turn, me, from.micros()),
            Request::Typing { chat } => self.typing(turn, me, chat.get()),
            Request::ResetPassword { user } => self.reset_password(turn, me, user.get()),
            Request::SetUserDisabled { user, disabled } => {
                self.set_user_disabled(turn, me, user.get(), disabled)
            }
            Request::FindUsers { prefix, limit } => self.find_users(turn, me, prefix, limit),
            Request::SubscribePush { endpoint, keys } => {
                self.subscribe_push(turn, me, endpoint, keys)
            }
            Request::AddMember { chat, user } => self.add_member(turn, me, chat.get(), user.get()),
            Request::SetChatClosed { chat, closed } => {
                self.set_chat_closed(turn, me, chat.get(), closed)
            }
            Request::SetChatNotify { chat, notify } => {
                self.set_chat_notify(turn, me, chat.get(), notify)
            }
            Request::CreateInvite { registers, uses, days, chat } => {
                let chat = chat.map(chat_id);
                self.create_invite(turn, me, registers, (uses, days), chat)
            }
            Request::GetInvites { chat } => self.get_invites(turn, me, chat.map(chat_id)),
            Request::EndInvite { hint } => self.end_invite(turn, me, hint),
            Request::UseInvite { code } => self.use_invite(turn, me, code),
            Request::React { chat, message, on, emoji } => {
                self.react(turn, me, (chat.get(), message_id(message)), on, emoji)
            }
            Request::GetReactions { chat, message } => {
                self.get_reactions(turn, me, chat.get(), message_id(message))
            }
            Request::BeginFile { chat, size, name, .. } => {
                self.begin_file(turn, me, chat.get(), size, name)
            }
            Request::PutFile { file, offset, bytes } => {
                self.put_file(turn, me, file.get(), offset, bytes)
            }
            Request::GetFile { file, offset, length } => {
                self.get_file(turn, me, file.get(), offset, length)
            }
            Request::EndFile { file } => self.end_file(turn, me, file.get()),
            Request::Accepted { .. }
            | Request::Declined { .. }
            | Request::Part { .. }
            | Request::Disconnect
            | Request::Heartbeat { .. }
            | Request::Hello { .. }
            | Request::Login { .. }
            | Request::RestoreSession { .. }
            | Request::RegisterUser { .. } => Err("a purpose went the wrong way".into()),
            _ => Err("a purpose that no client of this world sends".into()),
        }
    }

    /// DECLINED from a client. Whether a notification of this same turn had that task byte cannot
    /// be determined from outside; then the server's state decides.
    pub(super) fn declined(
        &mut self,
        turn: &Turn<'_>,
        conn: ConnId,
        task: u8,
        suspended: bool,
    ) -> Check {
        let Some(state) = self.conns.get_mut(&conn) else { return Ok(()) };
        let Some(attached) = &mut state.attached else { return Ok(()) };
        if attached.suspended {
            return Ok(());
        }
        let back = (i32::from(state.notify_task) - i32::from(task)).rem_euclid(255);
        let (sure, unsure) = (i32::from(state.notified), i32::from(state.unsure));
        let new = turn.notices.get(&conn).copied().unwrap_or(0) as i32;
        let was_notified = task != 0 && back < sure && new < 128;
        let was_never_notified = task == 0 || back >= sure + unsure && back < 255 - new;
        if turn.is_declined && was_never_notified {
            // Another input of the same turn may have suspended it.
            return Ok(());
        }
        if was_notified && !suspended && !state.unsettled {
            return Err(format!("{conn} declined notification {task} and is not suspended"));
        }
        if was_never_notified && suspended {
            return Err(format!("{conn} declined no notification ({task}) and is suspended"));
        }
        if suspended {
            attached.suspended = true;
            state.disown_all();
            self.note("suspended");
        }
        Ok(())
    }

    /// The password work of a request is done.
    pub(super) fn done(&mut self, turn: &mut Turn<'_>, conn: ConnId, wait: u64) -> Check {
        let guess = self.guesses.remove(&wait).unwrap_or_default();
        let state = self.conns.get_mut(&conn);
        let waiting = state.and_then(|state| state.waiting.take_if(|it| it.number == wait));
        let Some(waiting) = waiting else {
            self.spend(&guess);
            return Ok(());
        };
        let task = waiting.task;
        if turn.is_excused(conn, task) {
            return Ok(());
        }
        match waiting.intent {
            Intent::Login { user, key, checked } => {
                self.login_checked(turn, conn, task, user, key, checked)
            }
            Intent::Join { chat, checked } => self.join_checked(turn, conn, task, chat, checked),
            Intent::Register { name, password, invite } => {
                self.register_hashed(turn, conn, task, &name, password, invite)
            }
            Intent::SetPassword { key, code, password } => {
                self.set_password_hashed(turn, conn, task, &key, &code, password)
            }
            Intent::OldPassword { right, new } => {
                self.old_password_checked(turn, conn, task, right, new)
            }
            Intent::NewPassword(new) => self.new_password_hashed(turn, conn, task, new),
            Intent::CreateChat { name, password } => {
                self.create_chat_hashed(turn, conn, task, &name, password)
            }
            Intent::SameChatPassword { chat, checked } => {
                self.chat_password_compared(turn, conn, task, chat, checked)
            }
            Intent::ChatPassword { chat, password } => {
                self.chat_password_hashed(turn, conn, task, chat, password)
            }
        }
    }

    /// The same in a turn that could not be stored.
    pub(super) fn refused_job(&mut self, turn: &mut Turn<'_>, conn: ConnId, wait: u64) -> Check {
        self.guesses.remove(&wait);
        let state = self.conns.get_mut(&conn);
        let waiting = state.and_then(|state| state.waiting.take_if(|it| it.number == wait));
        match waiting {
            Some(waiting) => self.decline(turn, conn, waiting.task, "storage-failed"),
            None => Ok(()),
        }
    }

    /// A job that was declined in the password queue, because too many guesses had failed.
    pub(super) fn refused(&mut self, conn: ConnId, frame: &Frame) -> Check {
        let state = self.conns.get_mut(&conn);
        let Some(waiting) = state.and_then(|state| state.waiting.take()) else { return Ok(()) };
        let keys = self.keys_of(conn, &waiting.intent);
        self.note("rate-limited");
        let is_it = frame.task == waiting.task && frame.body.starts_with(b"rate-limited:");
        if is_it && self.is_limited(&keys) {
            return Ok(());
        }
        Err(format!("it waits for task {}, and is not limited", waiting.task))
    }

    /// The keys that a wrong guess counts against.
    fn keys_of(&self, conn: ConnId, intent: &Intent) -> Vec<(String, u32)> {
        let user = self.conns.get(&conn).and_then(|state| state.user()).unwrap_or_default();
        match intent {
            Intent::Login { key, .. } => self.entry_keys(conn, &format!("login {key}")).to_vec(),
            Intent::Join { chat, .. } => vec![(format!("join {user} {chat}"), 5)],
            Intent::OldPassword { .. } => vec![(format!("password of {user}"), 5)],
            _ => Vec::new(),
        }
    }

    /// The connection waits for password work from now on.
    pub(super) fn wait(&mut self, turn: &mut Turn<'_>, conn: ConnId, task: u8, intent: Intent) {
        self.next_wait += 1;
        let number = self.next_wait;
        let is_wrong = match &intent {
            Intent::Login { user, checked, .. } => user.is_none() || !checked.right,
            Intent::Join { checked, .. } => !checked.right,
            Intent::OldPassword { right, .. } => !right,
            _ => false,
        };
        if is_wrong {
            self.guesses.insert(number, self.keys_of(conn, &intent));
        }
        if let Some(state) = self.conns.get_mut(&conn) {
            state.waiting = Some(super::Waiting { number, task, intent });
        }
        turn.began.push((conn, number));
    }

    /// Whether a request may be declined `rate-limited`: a full bucket of failures was counted,
    /// which may not have come back.
    pub(super) fn is_limited(&self, keys: &[(String, u32)]) -> bool {
        keys.iter().any(|(key, bucket)| {
            let spent = self.failures.get(key).copied().unwrap_or(0);
            spent + self.failures_unsure >= *bucket
        })
    }

    pub(super) fn spend(&mut self, keys: &[(String, u32)]) {
        for (key, _) in keys {
            *self.failures.entry(key.clone()).or_default() += 1;
        }
    }

    /// The request was declined `rate-limited`; checks that this was allowed.
    pub(super) fn was_limited(
        &mut self,
        turn: &mut Turn<'_>,
        conn: ConnId,
        task: u8,
        keys: &[(String, u32)],
    ) -> bool {
        let next = turn.staged.get(&conn).and_then(|staged| staged.front());
        let is_it =
            next.is_some_and(|next| next.task == task && next.body.starts_with(b"rate-limited:"));
        if is_it && self.is_limited(keys) {
            if let Some(staged) = turn.staged.get_mut(&conn) {
                staged.pop_front();
            }
            self.note("rate-limited");
            return true;
        }
        false
    }
}
