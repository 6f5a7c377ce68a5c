//! From a frame to its handler: the checks that every request passes, in the order of protocol
//! section 3, then one flat match.

use crate::auth::helper::Outcome;
use crate::ids::{ConnId, FileId};
use crate::service::peer::Intent;
use crate::service::turn::IfUndone;
use crate::service::{Flow, HandlerError, HandlerResult, Service};
use crate::wire::Version;
use crate::wire::decline::Decline;
use crate::wire::extras::FileInfo;
use crate::wire::frame::Frame;
use crate::wire::purpose::{Needs, ToClient, ToServer};
use crate::wire::request::Request;

impl Service<'_> {
    /// Handles one frame of a connection that is not held.
    pub fn frame(&mut self, conn: ConnId, frame: &Frame<'_>) -> Flow {
        debug_assert!(!self.is_held(conn), "{conn} is held and handled");
        let Some(peer) = self.presence.peers.get_mut(conn) else { return Flow::Close };
        if frame.purpose == ToServer::Disconnect.byte() && frame.body.is_empty() {
            self.metrics.frame_received(frame.purpose);
            return Flow::Close;
        }
        peer.hear(self.clock.now_ms());
        self.turn.save(peer);
        self.turn.note_frame(conn, frame);
        self.background.indexing.note_request();
        if self.turn.failed.is_some() {
            // The turn has failed: this request is declined when it is undone.
            self.metrics.frame_received(frame.purpose);
            return Flow::Continue;
        }
        let reply = self.check_preconditions(conn, frame);
        if reply == Err(HandlerError::Busy) {
            self.turn.forget_request();
            self.put_back(conn);
            return Flow::PutBack;
        }
        self.metrics.frame_received(frame.purpose);
        self.settle(conn, frame.task, reply);
        if self.is_held(conn) { Flow::Hold } else { Flow::Continue }
    }

    /// Answers a frame whose body is longer than allowed, and closes: the stream cannot be trusted.
    pub fn oversized(&mut self, conn: ConnId, task: u8) -> Flow {
        self.turn.note_request(conn, task, IfUndone::TooLarge);
        self.stage_oversized(conn, task);
        Flow::Close
    }

    pub(super) fn stage_oversized(&mut self, conn: ConnId, task: u8) {
        let reason = Decline::FrameTooLarge(self.config.body_bytes_max);
        self.outbox.decline(conn.index, task, reason);
        self.outbox.stage_bare(conn.index, ToClient::Disconnect);
    }

    /// Stages nothing more for a connection: its closing frames are queued.
    pub fn close_queue(&mut self, conn: ConnId) {
        self.turn.note_request(conn, 0, IfUndone::Close);
        self.outbox.close(conn.index);
    }

    /// Suspends the session if the task that the client declined is a notification.
    pub(super) fn suspend_if_notified(&mut self, conn: ConnId, task: u8) {
        if self.presence.peers.get(conn).is_some_and(|peer| peer.was_notified(task)) {
            self.suspend(conn);
        }
    }

    fn check_preconditions(&mut self, conn: ConnId, frame: &Frame<'_>) -> HandlerResult {
        let Some(peer) = self.presence.peers.get(conn) else { return Ok(()) };
        let purpose = ToServer::from_byte(frame.purpose);
        let version = peer.state.version;
        let attached = peer.state.attached;
        let needs = purpose.map(ToServer::needs);
        match needs {
            Some(Needs::IsAnswer) => {
                if purpose == Some(ToServer::Declined) {
                    self.suspend_if_notified(conn, frame.task);
                }
                return Ok(());
            }
            Some(Needs::Nothing) => return self.handle(conn, frame, purpose, Version::V1_0),
            _ => {}
        }
        if attached.is_some_and(|attached| attached.suspended)
            && !matches!(purpose, Some(ToServer::Logoff | ToServer::RestoreSession))
        {
            return Err(Decline::SessionSuspended.into());
        }
        let Some(version) = version else {
            if needs == Some(Needs::New) {
                return self.handle(conn, frame, purpose, Version::V1_0);
            }
            return Err(Decline::HelloRequired.into());
        };
        if needs == Some(Needs::New) {
            return Err(Decline::AlreadyGreeted.into());
        }
        let purpose = purpose.filter(|purpose| purpose.since() <= version);
        let needs = purpose.map(ToServer::needs);
        if attached.is_none() && needs != Some(Needs::Greeted) {
            return Err(Decline::LoginRequired.into());
        }
        if purpose.is_none() {
            return Err(Decline::UnknownPurpose(frame.purpose).into());
        }
        // A suspended session restores itself on its own connection.
        let is_suspended = attached.is_some_and(|attached| attached.suspended);
        if attached.is_some() && needs == Some(Needs::Greeted) && !is_suspended {
            return Err(Decline::AlreadyAuthorized.into());
        }
        self.handle(conn, frame, purpose, version)
    }

    fn handle(
        &mut self,
        conn: ConnId,
        frame: &Frame<'_>,
        purpose: Option<ToServer>,
        version: Version,
    ) -> HandlerResult {
        let Some(purpose) = purpose else { return Ok(()) };
        let request = Request::decode(purpose, version, frame.body).map_err(Decline::from)?;
        self.note_purpose(purpose);
        self.dispatch(conn, frame.task, request)
    }

    #[allow(clippy::too_many_lines)] // one line per purpose
    fn dispatch(&mut self, conn: ConnId, task: u8, request: Request<'_>) -> HandlerResult {
        // Requests that need no session.
        match request {
            Request::Accepted { .. }
            | Request::Declined { .. }
            | Request::Part { .. }
            | Request::Disconnect => return Ok(()),
            Request::Heartbeat { echo } => return self.heartbeat(conn, task, echo),
            Request::Hello { major, minor } => return self.hello(conn, task, major, minor),
            Request::Login { login, password } => return self.login(conn, task, login, password),
            Request::RestoreSession { session, hash } => {
                return self.restore_session(conn, task, session, hash);
            }
            Request::RegisterUser { login, password, invite } => {
                return self.register_user(conn, task, login, password, invite);
            }
            Request::SetPassword { login, code, password } => {
                return self.set_password(conn, task, login, code, password);
            }
            _ => {}
        }
        let Some(me) = self.caller(conn, task) else { return Err(Decline::LoginRequired.into()) };
        match request {
            Request::Logoff => self.logoff(me),
            Request::GetUserId { nickname } => self.get_user_id(me, nickname),
            Request::GetChatId { name } => self.get_chat_id(me, name),
            Request::ChatReqPass { chat } => self.chat_req_pass(me, chat),
            Request::JoinChat { chat, password } => self.join_chat(me, chat, password),
            Request::SendChatMsg { chat, content, nonce, extras } => {
                self.send_chat_msg(me, chat, content, nonce, extras)
            }
            Request::RequestChatMsg { chat, from, to } => self.request_chat_msg(me, chat, from, to),
            Request::MarkSeen { chat, time } => self.mark_seen(me, chat, time),
            Request::ChangePassword { old, new } => self.change_password(me, old, new),
            Request::GetUser { user } => self.get_user(me, user),
            Request::GetSessions => self.get_sessions(me),
            Request::EndSession { session } => self.end_session(me, session),
            Request::CreateChat { name, password } => self.create_chat(me, name, password),
            Request::LeaveChat { chat } => self.leave_chat(me, chat),
            Request::StartChat { user } => self.start_chat(me, user),
            Request::DeleteChat { chat } => self.delete_chat(me, chat),
            Request::RenameChat { chat, name } => self.rename_chat(me, chat, name),
            Request::SetChatTitle { chat, title } => self.set_chat_title(me, chat, title),
            Request::SetChatPassword { chat, password } => {
                self.set_chat_password(me, chat, password)
            }
            Request::SetChatAdmin { chat, user, admin } => {
                self.set_chat_admin(me, chat, user, admin)
            }
            Request::SetChatBan { chat, user, banned } => self.set_chat_ban(me, chat, user, banned),
            Request::GetChat { chat } => self.get_chat(me, chat),
            Request::GetMyChats => self.get_my_chats(me),
            Request::GetMembers { chat } => self.get_members(me, chat),
            Request::FindChats { prefix, limit } => self.find_chats(me, prefix, limit),
            Request::EditMsg { chat, message, content } => {
                self.edit_msg(me, chat, message, content)
            }
            Request::DeleteMsg { chat, message } => self.delete_msg(me, chat, message),
            Request::RequestChatPage { chat, before, limit, newer } => {
                self.request_chat_page(me, chat, before, limit, newer)
            }
            Request::SearchMsg { chat, limit, query } => self.search_msg(me, chat, limit, query),
            Request::RequestUpdates { from } => self.request_updates(me, from),
            Request::Typing { chat } => self.typing(me, chat),
            Request::ResetPassword { user } => self.reset_password(me, user),
            Request::FindUsers { prefix, limit } => self.find_users(me, prefix, limit),
            Request::SetUserDisabled { user, disabled } => {
                self.set_user_disabled(me, user, disabled)
            }
            Request::AddMember { chat, user } => self.add_member(me, chat, user),
            Request::SetChatClosed { chat, closed } => self.set_chat_closed(me, chat, closed),
            Request::SetChatNotify { chat, notify } => self.set_chat_notify(me, chat, notify),
            Request::SubscribePush { endpoint, keys } => self.subscribe_push(me, endpoint, keys),
            Request::CreateInvite { registers, uses, days, chat } => {
                self.create_invite(me, registers, uses, days, chat)
            }
            Request::GetInvites { chat } => self.get_invites(me, chat),
            Request::EndInvite { hint } => self.end_invite(me, hint),
            Request::UseInvite { code } => self.use_invite(me, code),
            Request::React { chat, message, on, emoji } => self.react(me, chat, message, on, emoji),
            Request::GetReactions { chat, message } => self.get_reactions(me, chat, message),
            Request::BeginFile { chat, size, width, height, media_type, name } => {
                let id = FileId::MAX;
                let new = FileInfo { id, size, width, height, media_type, name };
                self.begin_file(me, chat, &new)
            }
            Request::PutFile { file, offset, bytes } => self.put_file(me, file, offset, bytes),
            Request::GetFile { file, offset, length } => self.get_file(me, file, offset, length),
            Request::EndFile { file } => self.end_file(me, file),
            Request::Accepted { .. }
            | Request::Declined { .. }
            | Request::Part { .. }
            | Request::Disconnect
            | Request::Heartbeat { .. }
            | Request::Hello { .. }
            | Request::Login { .. }
            | Request::RestoreSession { .. }
            | Request::RegisterUser { .. }
            | Request::SetPassword { .. } => Ok(()),
        }
    }

    /// Continues a request whose password work is done.
    pub(super) fn dispatch_done(
        &mut self,
        conn: ConnId,
        task: u8,
        intent: Intent,
        outcome: &Outcome,
    ) -> HandlerResult {
        self.note_intent(&intent);
        match (intent, outcome) {
            (_, Outcome::Failed(why)) => {
                log::error!("cannot hash a password: {why}");
                Err(Decline::StorageFailed.into())
            }
            (Intent::Login { user, login, checked }, Outcome::Verified { ok, upgraded }) => {
                let user = user.filter(|_| *ok);
                self.login_verified(conn, task, user, login, checked, upgraded.as_deref())
            }
            (Intent::JoinChat { chat, checked }, Outcome::Verified { ok, .. }) => {
                self.join_verified(conn, task, chat, checked, *ok)
            }
            (Intent::CheckOldPassword { new }, Outcome::Verified { ok, .. }) => {
                self.old_password_verified(conn, task, *ok, new)
            }
            (Intent::Register { nickname, key, invite }, Outcome::Hashed(stored)) => {
                self.register_hashed(conn, task, &nickname, &key, invite, stored)
            }
            (Intent::HashNewPassword, Outcome::Hashed(stored)) => {
                self.new_password_hashed(conn, task, stored)
            }
            (Intent::CreateChat { name, key }, Outcome::Hashed(stored)) => {
                self.create_chat_hashed(conn, task, &name, &key, stored)
            }
            (Intent::CompareChatPassword { chat, checked }, Outcome::Verified { ok, .. }) => {
                self.chat_password_compared(conn, task, chat, checked, *ok)
            }
            (Intent::SetChatPassword { chat }, Outcome::Hashed(stored)) => {
                self.chat_password_hashed(conn, task, chat, stored)
            }
            (Intent::SetPassword { login, digest }, Outcome::Hashed(stored)) => {
                self.reset_password_hashed(conn, task, &login, digest, stored)
            }
            // A job always returns the kind of work that was asked for.
            _ => Err(Decline::StorageFailed.into()),
        }
    }
}
