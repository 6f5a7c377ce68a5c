//! The model of replies, reactions and files (API 1.1).

use std::rc::Rc;

use vestnik::ids::ConnId;

use super::streams::Kind;
use super::{Caller, Message, Model, Turn};
use crate::wire::{self, Attached, Body, Check, DELETED, Extras};

/// Microseconds without activity after which an upload may be gone.
const UPLOAD_LIFETIME_US: i64 = 3_600_000_000;
/// Uploads per user.
const UPLOADS: usize = 16;
/// Reactions allowed in the time below.
const REACTIONS: usize = 30;
const REACTIONS_MS: u64 = 10_000;

/// A file: an upload, or part of a message.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) chat: u32,
    pub(crate) user: u32,
    pub(crate) size: u64,
    pub(crate) name: String,
    pub(crate) bytes: Rc<Vec<u8>>,
    pub(crate) message: Option<i64>,
    pub(crate) touched: i64,
}

impl File {
    pub(crate) fn attached(&self, id: u64) -> Attached {
        let (size, name) = (self.size, self.name.clone());
        Attached { id, size, width: 1, height: 2, media_type: "a/b".to_owned(), name }
    }
}

impl Message {
    /// The message as a connection gets it.
    pub(crate) fn wire_for(&self, id: i64, is_11: bool) -> wire::Message {
        let mut message = self.wire(id);
        if is_11 {
            let shown = |users: &Vec<u32>| users.iter().take(20).copied().collect();
            message.extras = Extras {
                reply: self.reply,
                files: self.files.clone(),
                reactions: self
                    .reactions
                    .iter()
                    .map(|(emoji, users)| (emoji.clone(), users.len() as u16, shown(users)))
                    .collect(),
            };
            return message;
        }
        for file in &self.files {
            let line = format!("[{}, {} bytes]", file.name, file.size);
            if !message.content.is_empty() {
                message.content.push('\n');
            }
            message.content.push_str(&line);
        }
        message
    }
}

impl Model {
    fn was_declined(turn: &Turn<'_>, me: Caller, code: &str) -> bool {
        let next = turn.staged.get(&me.conn).and_then(|staged| staged.front());
        next.is_some_and(|next| {
            next.task == me.task && next.body.starts_with(format!("{code}:").as_bytes())
        })
    }

    pub(super) fn react(
        &mut self,
        turn: &mut Turn<'_>,
        me: Caller,
        (chat, id): (u32, i64),
        is_on: bool,
        emoji: &str,
    ) -> Check {
        if let Some(code) = self.not_member(me.user, chat) {
            return self.decline(turn, me.conn, me.task, code);
        }
        let found = self.chats[&chat].messages.get(&id).filter(|m| m.status & DELETED == 0);
        let Some(found) = found else {
            return self.decline(turn, me.conn, me.task, "no-such-message");
        };
        let is_space = |c: char| c.is_whitespace() || c.is_control();
        if !(1..=32).contains(&emoji.len()) || emoji.contains(is_space) {
            return self.decline(turn, me.conn, me.task, "bad-name");
        }
        let at = found.reactions.iter().position(|(other, _)| other == emoji);
        let users = at.and_then(|at| found.reactions.get(at)).map(|(_, users)| users);
        let place = users.and_then(|users| users.iter().position(|user| *user == me.user));
        if place.is_some() == is_on {
            let updated = found.updated.to_le_bytes();
            return self.accept(turn, me.conn, me.task, &updated);
        }
        if at.is_none() && found.reactions.len() >= 20 {
            return self.decline(turn, me.conn, me.task, "too-many");
        }
        let now_ms = self.now_ms;
        let times = self.reacted_ms.entry(me.user).or_default();
        times.retain(|at_ms| at_ms + REACTIONS_MS + 1000 >= now_ms);
        if times.len() >= REACTIONS && Self::was_declined(turn, me, "rate-limited") {
            return self.decline(turn, me.conn, me.task, "rate-limited");
        }
        times.push(now_ms);
        let shows_another =
            users.is_some_and(|users| users.len() > 20) && place.is_some_and(|place| place < 20);
        self.note("reacted");
        let body = self.accepted(turn, me.conn, me.task)?;
        let mut rest = Body::of(&body);
        let updated = rest.i64()?;
        rest.end()?;
        self.event(turn, updated)?;
        let Some(found) = self.chats.get_mut(&chat) else { return Ok(()) };
        let Some(message) = found.messages.get_mut(&id) else { return Ok(()) };
        found.by_updated.remove(&message.updated);
        found.by_updated.insert(updated, id);
        message.updated = updated;
        match (at, is_on) {
            (None, _) => message.reactions.push((emoji.to_owned(), vec![me.user])),
            (Some(at), true) => message.reactions[at].1.push(me.user),
            (Some(at), false) => {
                message.reactions[at].1.retain(|user| *user != me.user);
                message.reactions.retain(|(_, users)| !users.is_empty());
            }
        }
        let out = wire::Out::default().u32(chat).i64(id).i64(updated).u32(me.user);
        let change = out.u8(u8::from(is_on)).str(emoji).0;
        self.owe_reaction(me, (chat, id), if shows_another { None } else { Some(change) });
        Ok(())
    }

    /// Owes the reaction to connections on 1.1, and the message to those that read a range.
    fn owe_reaction(&mut self, me: Caller, (chat, id): (u32, i64), change: Option<Vec<u8>>) {
        let message = self.chats.get(&chat).and_then(|chat| chat.messages.get(&id)).cloned();
        let Some(message) = message else { return };
        for conn in self.listeners(chat) {
            let Some(state) = self.conns.get_mut(&conn).filter(|_| conn != me.conn) else {
                continue;
            };
            let is_reading = state.stream.as_ref().is_some_and(super::streams::Stream::is_by_time);
            if !state.is_11 && !is_reading {
                continue;
            }
            let mut owed = message.wire_for(id, state.is_11);
            owed.change = change.clone().filter(|_| !is_reading);
            state.owed.entry(chat).or_default().push_back(Rc::new(owed));
        }
    }

    pub(super) fn get_reactions(
        &mut self,
        turn: &mut Turn<'_>,
        me: Caller,
        chat: u32,
        id: i64,
    ) -> Check {
        if let Some(code) = self.not_member(me.user, chat) {
            return self.decline(turn, me.conn, me.task, code);
        }
        let found = self.chats[&chat].messages.get(&id).filter(|m| m.status & DELETED == 0);
        if found.is_none() {
            return self.decline(turn, me.conn, me.task, "no-such-message");
        }
        self.stream(me, Kind::Reactions { chat, id })
    }

    /// Whether a wall clock that the server may have trusted makes this upload stale.
    pub(crate) fn may_be_swept(&self, file: &File) -> bool {
        let is_past = self.highest_wall.saturating_sub(file.touched) >= UPLOAD_LIFETIME_US;
        let is_future = file.touched.saturating_sub(self.lowest_wall) >= UPLOAD_LIFETIME_US;
        file.message.is_none() && (is_past || is_future)
    }

    /// A file that the caller may read. An old upload may be gone; the answer shows it.
    fn visible_file(&mut self, turn: &Turn<'_>, me: Caller, id: u64) -> Option<File> {
        let file = self.files.get(&id)?.clone();
        let is_old = self.may_be_swept(&file);
        let is_mine = file.user == me.user;
        if is_old && is_mine && Self::was_declined(turn, me, "no-such-file") {
            self.files.remove(&id);
            return None;
        }
        let is_visible = self.is_member(me.user, file.chat) && (file.message.is_some() || is_mine);
        is_visible.then_some(file)
    }

    pub(super) fn begin_file(
        &mut self,
        turn: &mut Turn<'_>,
        me: Caller,
        chat: u32,
        size: u64,
        name: &str,
    ) -> Check {
        if let Some(code) = self.not_member(me.user, chat) {
            return self.decline(turn, me.conn, me.task, code);
        }
        let mine = self.files.values().filter(|file| file.user == me.user);
        let uploads = mine.filter(|file| file.message.is_none()).count();
        if uploads >= UPLOADS && Self::was_declined(turn, me, "quota-exceeded") {
            return self.decline(turn, me.conn, me.task, "quota-exceeded");
        }
        if uploads >= UPLOADS {
            let mine = self.files.iter().filter(|(_, file)| file.user == me.user);
            let uploads = mine.filter(|(_, file)| file.message.is_none());
            let idlest = uploads.min_by_key(|(_, file)| file.touched).map(|(id, _)| *id);
            idlest.map(|id| self.files.remove(&id));
        }
        let body = self.accepted(turn, me.conn, me.task)?;
        let mut rest = Body::of(&body);
        let id = rest.i64()? as u64;
        rest.end()?;
        if id == 0 || self.files.contains_key(&id) {
            return Err(format!("file {id} is given twice"));
        }
        self.note("uploads");
        let (user, name) = (me.user, name.to_owned());
        let (bytes, touched) = (Rc::default(), turn.wall);
        self.files.insert(id, File { chat, user, size, name, bytes, message: None, touched });
        Ok(())
    }

    pub(super) fn put_file(
        &mut self,
        turn: &mut Turn<'_>,
        me: Caller,
        id: u64,
        offset: u64,
        bytes: &[u8],
    ) -> Check {
        let file = self.visible_file(turn, me, id).filter(|file| file.user == me.user);
        let Some(file) = file else {
            return self.decline(turn, me.conn, me.task, "no-such-file");
        };
        if offset != file.bytes.len() as u64 {
            return self.decline(turn, me.conn, me.task, "bad-offset");
        }
        let stored = offset + bytes.len() as u64;
        if stored > file.size {
            return self.decline(turn, me.conn, me.task, "too-large");
        }
        if let Some(file) = self.files.get_mut(&id) {
            Rc::make_mut(&mut file.bytes).extend_from_slice(bytes);
            file.touched = turn.wall;
        }
        self.note("pieces of uploads");
        self.stream(me, Kind::Stored { stored })
    }

    pub(super) fn get_file(
        &mut self,
        turn: &mut Turn<'_>,
        me: Caller,
        id: u64,
        offset: u64,
        length: u32,
    ) -> Check {
        if self.visible_file(turn, me, id).is_none() {
            return self.decline(turn, me.conn, me.task, "no-such-file");
        }
        self.stream(me, Kind::File { id, offset, length: length.min(65_536) as usize })
    }

    pub(super) fn end_file(&mut self, turn: &mut Turn<'_>, me: Caller, id: u64) -> Check {
        let Some(file) = self.visible_file(turn, me, id) else {
            return self.decline(turn, me.conn, me.task, "no-such-file");
        };
        if file.message.is_none() {
            self.files.remove(&id);
        }
        self.accept(turn, me.conn, me.task, &[])
    }

    /// What is wrong with the extras of a new message.
    pub(super) fn extras_wrong(
        &self,
        turn: &Turn<'_>,
        me: Caller,
        chat: u32,
        reply: Option<i64>,
        files: &[u64],
    ) -> Option<&'static str> {
        let messages = &self.chats[&chat].messages;
        let is_there = |id: i64| messages.get(&id).is_some_and(|m| m.status & DELETED == 0);
        if reply.is_some_and(|id| !is_there(id)) {
            return Some("no-such-message");
        }
        for (at, id) in files.iter().enumerate() {
            let file = self.files.get(id).filter(|file| self.is_member(file.user, file.chat));
            let is_good = file.is_some_and(|file| {
                file.chat == chat
                    && file.user == me.user
                    && file.message.is_none()
                    && file.bytes.len() as u64 == file.size
            });
            if !is_good || files[..at].contains(id) {
                return Some("no-such-file");
            }
        }
        // One of the files may be gone; the answer does not say which.
        let is_old = |id: &u64| self.may_be_swept(&self.files[id]);
        if files.iter().any(is_old) && Self::was_declined(turn, me, "no-such-file") {
            return Some("no-such-file");
        }
        None
    }

    /// Attaches the files of a message that was stored.
    pub(super) fn attach_files(&mut self, id: i64, files: &[u64]) -> Vec<Attached> {
        let mut attached = Vec::new();
        for file_id in files {
            if let Some(file) = self.files.get_mut(file_id) {
                file.message = Some(id);
                attached.push(file.attached(*file_id));
            }
        }
        if !attached.is_empty() {
            self.note("files sent");
        }
        attached
    }

    /// Drops the uploads of a user who left.
    pub(super) fn drop_uploads(&mut self, user: u32, chat: u32) {
        let is_gone =
            |file: &File| file.message.is_none() && file.user == user && file.chat == chat;
        self.files.retain(|_, file| !is_gone(file));
    }

    /// Drops the files of a deleted message.
    pub(super) fn drop_files(&mut self, chat: u32, message: i64) {
        self.files.retain(|_, file| file.chat != chat || file.message != Some(message));
    }

    /// Checks the answer to GET_FILE.
    pub(super) fn file_piece(
        &self,
        user: u32,
        (id, offset, length): (u64, u64, usize),
        body: Body<'_>,
    ) -> Check {
        let file = self.files.get(&id).filter(|file| self.is_member(user, file.chat));
        let file = file.ok_or("the file is not there")?;
        let from = file.bytes.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
        let to = file.bytes.len().min(from + length);
        if body.rest == &file.bytes[from..to] {
            return Ok(());
        }
        Err(format!("{} bytes from {offset} on are not those of file {id}", body.rest.len()))
    }

    /// Checks the answer to GET_REACTIONS, in the order in which they were given.
    pub(super) fn reactions_piece(&self, chat: u32, id: i64, mut body: Body<'_>) -> Check {
        let found = self.chats.get(&chat).and_then(|chat| chat.messages.get(&id));
        while !body.is_empty() {
            let (user, emoji) = (body.u32()?, body.str()?);
            let is_given = found.is_some_and(|message| {
                message.reactions.iter().any(|(of, users)| of == emoji && users.contains(&user))
            });
            if !is_given {
                return Err(format!("user {user} did not give {emoji}"));
            }
        }
        Ok(())
    }

    pub(super) fn reads(&mut self, conn: ConnId) {
        self.reads_11 = self.conns.get(&conn).is_some_and(|conn| conn.is_11);
    }
}
