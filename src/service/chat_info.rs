//! Reads about chats: names, passwords, lists, members (protocol sections 4 and 5).

use crate::ids::{ChatId, ServerTime, UserId};
use crate::limits::FOUND_CHATS_MAX;
use crate::names;
use crate::service::stream::{Progress, SCAN_BUDGET_BYTES, Source};
use crate::service::{Caller, HandlerError, HandlerResult, Service};
use crate::store::StoreResult;
use crate::store::chats::{Chat, MyChat};
use crate::store::members::Member;
use crate::wire::Version;
use crate::wire::answer::{self, ChatInfo};
use crate::wire::codec::Put;
use crate::wire::decline::Decline;

impl Service<'_> {
    /// The chat, if it exists for the caller.
    pub(super) fn visible_chat(
        &mut self,
        caller: Caller,
        chat: ChatId,
    ) -> Result<Chat, HandlerError> {
        let found = self.store.chat(chat)?.ok_or(Decline::NoSuchChat)?;
        match self.is_visible(caller.user, &found)? {
            true => Ok(found),
            false => Err(Decline::NoSuchChat.into()),
        }
    }

    pub(super) fn get_chat_id(&mut self, caller: Caller, name: &str) -> HandlerResult {
        let found = match names::name_key(name) {
            Some(key) => self.store.chat_by_key(&key)?,
            None => None,
        };
        let found = found.ok_or(Decline::NoSuchChat)?;
        if !self.is_visible(caller.user, &found)? {
            return Err(Decline::NoSuchChat.into());
        }
        self.accept(caller, |body| body.put_u32(found.chat.get()));
        Ok(())
    }

    pub(super) fn chat_req_pass(&mut self, caller: Caller, chat: ChatId) -> HandlerResult {
        let has_password = self.visible_chat(caller, chat)?.password.is_some();
        self.accept(caller, |body| body.put_bool(has_password));
        Ok(())
    }

    pub(super) fn get_chat(&mut self, caller: Caller, chat: ChatId) -> HandlerResult {
        let found = self.visible_chat(caller, chat)?;
        if self.is_scan_budget_spent() {
            self.begin_stream(caller, Source::Chat(chat));
            return Ok(());
        }
        let mut info = Vec::new();
        self.put_chat(&mut info, caller.version, &found, caller.user)?;
        self.accept(caller, |body| body.put_bytes(&info));
        Ok(())
    }

    pub(super) fn find_chats(&mut self, caller: Caller, prefix: &str, limit: u16) -> HandlerResult {
        match names::prefix_key(prefix) {
            Some(prefix) => {
                let left = limit.min(FOUND_CHATS_MAX);
                self.begin_stream(caller, Source::Found { prefix, after: None, left });
            }
            None => self.accept(caller, |_| {}),
        }
        Ok(())
    }

    /// The next piece of the answer to FIND_CHATS.
    pub(super) fn found_piece(
        &mut self,
        caller: Caller,
        prefix: &str,
        after: &mut Option<String>,
        left: &mut u16,
    ) -> Result<Progress, HandlerError> {
        /// Chats in one piece: about one millisecond of work.
        const CHATS: u16 = 64;
        let most = (*left).min(CHATS);
        self.pieces(caller, |service, pieces| {
            let chats = service.store.chats_by_prefix(prefix, after.as_deref(), most)?;
            for chat in &chats {
                if service.is_scan_budget_spent() {
                    return Ok(Progress::More);
                }
                service.streams.scanned_bytes += SCAN_BUDGET_BYTES / usize::from(CHATS);
                *after = names::name_key(&chat.name);
                if service.is_visible(caller.user, chat)? {
                    service.put_chat(pieces.out(), caller.version, chat, caller.user)?;
                    *left -= 1;
                }
            }
            let is_last = chats.len() < usize::from(most) || *left == 0;
            Ok(if is_last { Progress::Ended } else { Progress::More })
        })
    }

    /// GET_MY_CHATS.
    pub(super) fn get_my_chats(&mut self, caller: Caller) -> HandlerResult {
        self.begin_stream(caller, Source::MyChats { after: None });
        Ok(())
    }

    /// The next piece of the answer to GET_MY_CHATS.
    pub(super) fn my_chats_piece(
        &mut self,
        caller: Caller,
        after: &mut Option<ChatId>,
    ) -> Result<Progress, HandlerError> {
        /// Chats read from the database at once.
        const CHATS: usize = 256;
        self.pieces(caller, |service, pieces| {
            loop {
                let chats = service.store.my_chats(caller.user, *after, CHATS)?;
                for mine in &chats {
                    if service.is_scan_budget_spent() || !pieces.has_budget() {
                        return Ok(Progress::More);
                    }
                    service.put_mine(pieces.out(), caller.version, caller.user, mine)?;
                    *after = Some(mine.chat);
                }
                if chats.len() < CHATS {
                    return Ok(Progress::Ended);
                }
            }
        })
    }

    /// GET_MEMBERS.
    pub(super) fn get_members(&mut self, caller: Caller, chat: ChatId) -> HandlerResult {
        self.require_member(caller, chat)?;
        self.begin_stream(caller, Source::Members { chat, after: None });
        Ok(())
    }

    /// The next piece of the answer to GET_MEMBERS.
    pub(super) fn member_pieces(
        &mut self,
        caller: Caller,
        source: &mut Source,
    ) -> Result<Progress, HandlerError> {
        const ROWS: u32 = 256;
        let mut next = None;
        let progress = match source {
            Source::Members { chat, after } => {
                let chat = *chat;
                let me = self.require_member(caller, chat)?;
                self.pieces(caller, |service, pieces| {
                    let members = service.store.members(chat, *after, ROWS)?;
                    for (member, nickname) in &members {
                        service.put_member(pieces.out(), member, nickname);
                        *after = Some(member.user);
                    }
                    let is_last = members.len() < ROWS as usize;
                    if is_last && me.admin {
                        next = Some(Source::Banned { chat, after: None });
                    }
                    Ok(if is_last && !me.admin { Progress::Ended } else { Progress::More })
                })?
            }
            Source::Banned { chat, after } => {
                let chat = *chat;
                let is_admin = self.require_member(caller, chat)?.admin;
                self.pieces(caller, |service, pieces| {
                    if !is_admin {
                        // No longer an admin: the banned users are left out from here on.
                        return Ok(Progress::Ended);
                    }
                    let banned = service.store.banned(chat, *after, ROWS)?;
                    for (user, nickname) in &banned {
                        service.put_banned(pieces.out(), *user, nickname);
                        *after = Some(*user);
                    }
                    let is_last = banned.len() < ROWS as usize;
                    Ok(if is_last { Progress::Ended } else { Progress::More })
                })?
            }
            _ => Progress::Ended,
        };
        if let Some(next) = next {
            *source = next;
        }
        Ok(progress)
    }

    /// Appends a chat as one of its members sees it. False when the user is not a member.
    pub(super) fn put_my_chat(
        &mut self,
        out: &mut Vec<u8>,
        version: Version,
        user: UserId,
        chat: ChatId,
    ) -> StoreResult<bool> {
        match self.store.my_chat(user, chat)? {
            Some(mine) => self.put_mine(out, version, user, &mine).map(|()| true),
            None => Ok(false),
        }
    }

    /// Appends a chat as the member of this row sees it.
    pub(super) fn put_mine(
        &mut self,
        out: &mut Vec<u8>,
        version: Version,
        user: UserId,
        mine: &MyChat,
    ) -> StoreResult<()> {
        let unread = self.unread(mine, user)?;
        let mut flags = answer::CHAT_MEMBER;
        flags |= if mine.has_password { answer::CHAT_HAS_PASSWORD } else { 0 };
        flags |= if mine.is_admin { answer::CHAT_ADMIN } else { 0 };
        flags |= if mine.is_closed { answer::CHAT_CLOSED } else { 0 };
        let kind = if mine.is_direct { answer::CHAT_KIND_DIRECT } else { answer::CHAT_KIND_GROUP };
        answer::put_chat_info(
            out,
            version,
            &ChatInfo {
                chat: mine.chat,
                kind,
                flags,
                members: mine.member_count,
                last_message: unread.last,
                seen: mine.seen,
                unread: unread.count,
                name: &mine.name,
                title: &mine.title,
                notify: mine.notify,
            },
        );
        Ok(())
    }

    /// Appends a chat that the user may see, as a member or not.
    pub(super) fn put_chat(
        &mut self,
        out: &mut Vec<u8>,
        version: Version,
        chat: &Chat,
        user: UserId,
    ) -> StoreResult<()> {
        if self.put_my_chat(out, version, user, chat.chat)? {
            return Ok(());
        }
        // Not a member, so this is a group: direct chats are visible to their members only.
        answer::put_chat_info(
            out,
            version,
            &ChatInfo {
                chat: chat.chat,
                kind: answer::CHAT_KIND_GROUP,
                flags: if chat.password.is_some() { answer::CHAT_HAS_PASSWORD } else { 0 },
                members: chat.member_count,
                last_message: ServerTime::ZERO,
                seen: ServerTime::ZERO,
                unread: 0,
                name: &chat.name,
                title: &chat.title,
                notify: 0,
            },
        );
        Ok(())
    }

    /// Appends a member as GET_MEMBERS lists it.
    pub(super) fn put_member(&self, out: &mut Vec<u8>, member: &Member, nickname: &str) {
        let mut flags = if member.admin { answer::MEMBER_ADMIN } else { 0 };
        if self.presence.roster.is_online(member.user) {
            flags |= answer::MEMBER_ONLINE;
        }
        answer::put_member(out, member.user, flags, member.seen, nickname);
    }

    /// Appends a banned user as GET_MEMBERS lists them.
    pub(super) fn put_banned(&self, out: &mut Vec<u8>, user: UserId, nickname: &str) {
        let online = if self.presence.roster.is_online(user) { answer::MEMBER_ONLINE } else { 0 };
        let flags = answer::MEMBER_BANNED | online;
        answer::put_member(out, user, flags, ServerTime::ZERO, nickname);
    }
}
