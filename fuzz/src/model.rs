//! What must be so: who is in which chat and may know what, which passwords work, what is in the
//! database and what must never be. Made of the answers alone, as they are released.

use std::collections::{HashMap, HashSet};

use vestnik::wire::Version;
use vestnik::wire::codec::Reader;

use super::clients::Client;
use super::received::{Answer, News};
use super::requests::{About, File, Known};

/// The model.
pub(crate) struct Model {
    pub(crate) known: Known,
    pub(crate) may_fail: bool,
    /// Who is in which chat since when, by chat and user; and who was at some time in this step.
    pub(crate) members: HashMap<(u32, u32), i64>,
    were_members: HashSet<(u32, u32)>,
    pub(crate) passwords: HashMap<u32, usize>,
    pub(crate) disabled: HashSet<u32>,
    /// Texts that are in the database, and such that must never be.
    /// Each with its chat, its id, and when it was sent, in the order of requests.
    pub(crate) sent: Vec<(u32, u64, String, u64)>,
    pub(crate) refused: Vec<String>,
    /// Times of reactions, of which connections before 1.1 are not notified.
    pub(crate) reactions: HashSet<i64>,
    /// Whose the sessions are.
    sessions: HashMap<u32, u32>,
    /// The answer to the last probe.
    pub(crate) probed: Option<Result<Vec<u8>, String>>,
    effects: Vec<(u64, Effect)>,
    /// Of which chats a client, which was of these users, got something that members know.
    named: Vec<(usize, Vec<u32>, Vec<u32>)>,
}

/// What an accepted request does for others, too.
enum Effect {
    Enters { chat: u32, user: u32 },
    Leaves { chat: u32, user: u32 },
    IsGone { chat: u32 },
    Password { user: u32, new: usize },
    Disabled { user: u32, disabled: bool },
}

impl Model {
    pub(crate) fn new(may_fail: bool) -> Self {
        Self {
            known: Known::default(),
            may_fail,
            members: [(1, 1), (1, 2), (1, 3), (2, 1)].map(|key| (key, 0)).into(),
            were_members: HashSet::new(),
            passwords: HashMap::new(),
            disabled: HashSet::new(),
            sent: Vec::new(),
            refused: Vec::new(),
            reactions: HashSet::new(),
            sessions: HashMap::new(),
            probed: None,
            effects: Vec::new(),
            named: Vec::new(),
        }
    }

    /// Which of the passwords works for a user, by number.
    pub(crate) fn password_of(&self, user: u32) -> usize {
        self.passwords.get(&user).copied().unwrap_or(0)
    }

    /// A step of a turn is released; `now` is the last time that the server gave.
    pub(crate) fn begin_step(&mut self, now: i64) {
        self.known.time = now;
        self.were_members = self.members.keys().copied().collect();
    }

    /// Takes what was released to a client in this step.
    pub(crate) fn take(&mut self, at: usize, client: &mut Client, bytes: &[u8]) {
        let mut chats = Vec::new();
        let mut users: Vec<u32> = client.user.into_iter().collect();
        for news in client.received.take(bytes) {
            match news {
                News::Answer(answer) => self.note_answer(client, answer),
                News::Deauth => self.set_user(client, None),
                News::OfChat { chat } => chats.push(chat),
            }
            users.extend(client.user);
        }
        self.named.push((at, chats, users));
    }

    /// Everything of the step was taken: nobody got what they may not know.
    pub(crate) fn end_step(&mut self) {
        self.effects.sort_by_key(|(order, _)| *order);
        for (_, effect) in std::mem::take(&mut self.effects) {
            self.apply(effect);
        }
        for (at, chats, users) in self.named.drain(..) {
            for chat in chats {
                let is_known = users.iter().any(|user| self.were_members.contains(&(chat, *user)));
                assert!(is_known, "client {at} got something of chat {chat}, and is no member");
            }
        }
    }

    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Enters { chat, user } => {
                self.were_members.insert((chat, user));
                self.members.entry((chat, user)).or_insert(self.known.time);
            }
            Effect::Leaves { chat, user } => drop(self.members.remove(&(chat, user))),
            Effect::IsGone { chat } => self.members.retain(|key, _| key.0 != chat),
            Effect::Password { user, new } => drop(self.passwords.insert(user, new)),
            Effect::Disabled { user, disabled } => {
                if disabled {
                    self.disabled.insert(user);
                } else {
                    self.disabled.remove(&user);
                }
            }
        }
    }

    fn set_user(&mut self, client: &mut Client, user: Option<u32>) {
        client.user = user;
        client.since = self.known.time;
        client.may_be_suspended = false;
    }

    fn note_answer(&mut self, client: &mut Client, answer: Answer) {
        let version = client.received.version.unwrap_or(Version::V1_0);
        if answer.about == About::Probe {
            self.probed = Some(answer.outcome);
            return;
        }
        match answer.outcome {
            Err(code) => {
                if let About::Send { text, .. } = answer.about
                    && !text.is_empty()
                {
                    self.refused.push(text);
                }
                assert!(code != "storage-failed" || self.may_fail, "nothing failed");
            }
            Ok(body) => {
                let body = Reader::new(&body);
                self.note_attached(client, &answer.about, answer.order, body, version);
                if let Some(user) = client.user {
                    self.note_chats(user, &answer.about, answer.order, body);
                    self.note_messages(client, answer.about, answer.order, body, version);
                }
            }
        }
    }

    /// What an answer says about who is who.
    fn note_attached(
        &mut self,
        client: &mut Client,
        about: &About,
        order: u64,
        mut body: Reader<'_>,
        version: Version,
    ) {
        match *about {
            About::Login { user } => {
                let (session, user) = (body.u32().expect("a session"), user as u32 + 1);
                let secret = body.str().expect("its secret").to_owned();
                assert!(version == Version::V0_1 || body.u32() == Ok(user), "another user");
                assert!(!version.has_extras() || body.u8().is_ok(), "without flags");
                assert!(body.is_empty());
                self.known.sessions.push((session, secret));
                self.sessions.insert(session, user);
                self.set_user(client, Some(user));
            }
            About::Restore { session } => {
                let user = self.sessions.get(&session).copied();
                assert!(version == Version::V0_1 || body.u32().ok() == user, "another user");
                self.set_user(client, user);
            }
            About::Logoff => self.set_user(client, None),
            About::SetPassword { new } => {
                let user = body.u32().expect("a user");
                self.effects.push((order, Effect::Password { user, new }));
            }
            _ => {}
        }
    }

    /// What an answer does to memberships and users.
    fn note_chats(&mut self, me: u32, about: &About, order: u64, mut body: Reader<'_>) {
        let mut effect = |effect| self.effects.push((order, effect));
        match *about {
            About::Join { chat, user } => {
                effect(Effect::Enters { chat, user: user.unwrap_or(me) });
            }
            About::UseInvite | About::Create => {
                let chat = body.chat_id().expect("a chat").get();
                effect(Effect::Enters { chat, user: me });
            }
            About::Start { user } => {
                let chat = body.chat_id().expect("a chat").get();
                effect(Effect::Enters { chat, user: me });
                effect(Effect::Enters { chat, user });
            }
            About::Leave { chat } => effect(Effect::Leaves { chat, user: me }),
            About::Ban { chat, user } => effect(Effect::Leaves { chat, user }),
            About::Delete { chat } => effect(Effect::IsGone { chat }),
            About::Password { new } => effect(Effect::Password { user: me, new }),
            About::Disable { user, disabled } => effect(Effect::Disabled { user, disabled }),
            About::ResetPassword { user } => {
                let code = body.str().expect("a code").to_owned();
                self.known.codes.push((user, code));
            }
            About::Invite => self.known.invites.push(body.str().expect("a code").to_owned()),
            _ => {}
        }
    }

    /// What an answer says about messages and files.
    fn note_messages(
        &mut self,
        client: &mut Client,
        about: About,
        order: u64,
        mut body: Reader<'_>,
        version: Version,
    ) {
        match about {
            About::Send { chat, text, files } => {
                let id = body.message_id().expect("an id").get();
                let created = body.time().expect("a time").micros();
                assert_eq!(id, created as u64);
                let is_elsewhere = |file: &File| {
                    files.contains(&file.id) && file.message.is_some_and(|message| message != id)
                };
                assert!(!self.known.files.iter().any(is_elsewhere), "a file was sent twice");
                // A nonce that came again stands for the first text, whose answer may come later.
                if let Some(sent) = self.sent.iter_mut().find(|sent| sent.1 == id) {
                    if order < sent.3 {
                        (sent.2, sent.3) = (text, order);
                    }
                } else {
                    self.sent.push((chat, id, text, order));
                    self.known.messages.push((chat, id));
                    self.with_files(
                        |file| files.contains(&file.id),
                        |file| file.message = Some(id),
                    );
                }
                client.received.own.insert(created);
            }
            About::Change | About::React | About::DeleteMsg { .. } => {
                let updated = body.time().expect("a time").micros();
                client.received.own.insert(updated);
                if about == About::React {
                    self.reactions.insert(updated);
                }
                if let About::DeleteMsg { message } = about {
                    let is_of = |file: &File| file.message == Some(message);
                    self.with_files(is_of, |file| file.gone = Some(order));
                }
            }
            About::Messages { is_range: true, .. } => {
                let mut last = -1;
                while !body.is_empty() {
                    let message = body.message(version).expect("a message");
                    assert!(message.updated.micros() > last, "a range ascends");
                    last = message.updated.micros();
                }
            }
            About::BeginFile { chat, size } => {
                let id = body.u64().expect("a file");
                let owner = client.user.unwrap_or(0);
                self.known.files.push(File::new(id, chat, owner, size));
            }
            About::PutFile { file } => {
                let stored = body.u64().expect("a size");
                self.with_files(|found| found.id == file, |found| found.stored = stored);
            }
            About::GetFile { file, offset } => self.check_file(client, file, offset, order, body),
            _ => {}
        }
    }

    fn with_files(&mut self, is_meant: impl Fn(&File) -> bool, change: impl Fn(&mut File)) {
        self.known.files.iter_mut().filter(|file| is_meant(file)).for_each(change);
    }

    /// Bytes of a file: those that were put there, and for those who may have them.
    fn check_file(
        &mut self,
        client: &Client,
        id: u64,
        offset: u64,
        order: u64,
        mut body: Reader<'_>,
    ) {
        let bytes = body.take_rest();
        assert!(bytes == File::bytes(id, offset, bytes.len()), "other bytes of a file");
        let Some(file) = self.known.files.iter().find(|file| file.id == id) else { return };
        assert!(file.gone.is_none_or(|gone| order < gone), "a file of a deleted message");
        if file.message.is_some() || client.user != Some(file.owner) {
            self.named.push((client.at, vec![file.chat], client.user.into_iter().collect()));
        }
    }
}
