//! What one client was notified: frames, checked as they come against what it asked.

use std::collections::{HashMap, HashSet, VecDeque};

use vestnik::wire::Version;
use vestnik::wire::codec::{Message, Reader};
use vestnik::wire::frame::{self, Parsed};
use vestnik::wire::purpose::ToClient;

use super::requests::About;

/// A request that waits for its answer.
pub(crate) struct Asked {
    pub(crate) task: u8,
    pub(crate) about: About,
    /// Its place in the order in which requests were carried out.
    pub(crate) order: u64,
    /// The messages of a range, assembled from its pieces.
    pub(crate) pack: Vec<u8>,
}

/// An answer, and to what.
pub(crate) struct Answer {
    pub(crate) about: About,
    pub(crate) order: u64,
    /// The body of ACCEPTED, or the code of DECLINED.
    pub(crate) outcome: Result<Vec<u8>, String>,
}

/// A client's view.
#[derive(Default)]
pub(crate) struct Received {
    pub(crate) asked: VecDeque<Asked>,
    /// Messages notified of since the session was attached: the last by chat, and all.
    last: HashMap<u32, i64>,
    pub(crate) messages: HashSet<(u32, u64, i64)>,
    /// Times of changes that this client made itself.
    pub(crate) own: HashSet<i64>,
    /// The task of the last notification.
    pub(crate) last_task: u8,
    /// What HELLO agreed on.
    pub(crate) version: Option<Version>,
    /// DISCONNECT has come.
    pub(crate) is_ended: bool,
}

/// What a frame comes to.
pub(crate) enum News {
    Answer(Answer),
    /// Something about a chat that only its members know.
    OfChat {
        chat: u32,
    },
    /// The connection is without a session.
    Deauth,
}

impl Received {
    /// A session is attached: notifications begin anew.
    pub(crate) fn begin(&mut self) {
        self.last.clear();
        self.messages.clear();
        self.own.clear();
    }

    /// Takes whole frames.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Vec<News> {
        let mut news = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let Parsed::Frame(frame) = frame::parse(&bytes[at..], 2 << 20) else {
                panic!("what was released is not whole frames");
            };
            at += frame.bytes();
            let purpose = ToClient::from_byte(frame.purpose).expect("a purpose of the table");
            assert!(purpose.since() <= self.version.unwrap_or(Version::V0_1));
            self.frame(purpose, frame.task, frame.body, &mut news);
        }
        news
    }

    fn frame(&mut self, purpose: ToClient, task: u8, body: &[u8], news: &mut Vec<News>) {
        let mut reader = Reader::new(body);
        match purpose {
            ToClient::Part => {
                let asked = self.asked.front_mut().expect("a PART of nothing");
                assert_eq!(asked.task, task, "a PART of another answer");
                asked.pack.extend_from_slice(body);
                of_chats(&asked.about, self.version, body, news);
            }
            ToClient::Accepted | ToClient::Declined => {
                let mut asked = self.asked.pop_front().expect("an answer to nothing");
                assert_eq!(asked.task, task, "answers out of order");
                asked.pack.extend_from_slice(body);
                let outcome = if purpose == ToClient::Accepted {
                    if asked.about == About::Hello {
                        self.version = Version::negotiate(asked.pack[0], asked.pack[1]);
                    }
                    if matches!(asked.about, About::Login { .. } | About::Restore { .. }) {
                        self.begin();
                    }
                    of_chats(&asked.about, self.version, body, news);
                    Ok(asked.pack)
                } else {
                    let text = reader.str().expect("a reason");
                    let (code, words) = text.split_once(": ").expect("a code and words");
                    assert!(!words.is_empty());
                    Err(code.to_owned())
                };
                news.push(News::Answer(Answer { about: asked.about, order: asked.order, outcome }));
            }
            ToClient::Heartbeat => assert!(task == 0 && body.is_empty()),
            ToClient::Disconnect => self.is_ended = true,
            ToClient::Deauth => news.push(News::Deauth),
            ToClient::MsgNotify => self.messages(reader, news),
            ToClient::ChatNotify => {
                let chat = chat_info(&mut reader, self.version.expect("after HELLO"));
                news.push(News::OfChat { chat });
            }
            ToClient::ChatGone => {
                reader.chat_id().expect("a chat");
            }
            ToClient::MemberNotify => {
                news.push(News::OfChat { chat: reader.chat_id().expect("a chat").get() });
                reader.user_id().expect("a user");
                assert!((1..=5).contains(&reader.u8().expect("an event")));
                reader.str().expect("a nickname");
            }
            ToClient::SeenNotify | ToClient::TypingNotify => {
                news.push(News::OfChat { chat: reader.chat_id().expect("a chat").get() });
                reader.user_id().expect("a user");
                if purpose == ToClient::SeenNotify {
                    reader.time().expect("a marker");
                }
            }
            ToClient::ReactionNotify => {
                let chat = reader.chat_id().expect("a chat").get();
                let message = reader.message_id().expect("a message").get();
                let updated = reader.time().expect("when").micros();
                reader.user_id().expect("who");
                reader.bool().and_then(|_| reader.str()).expect("a reaction");
                self.changed(chat, message, updated);
                news.push(News::OfChat { chat });
            }
            ToClient::PresenceNotify => {
                reader.user_id().and_then(|_| reader.bool()).expect("a presence");
            }
        }
        if purpose.byte() >= 0x20 && purpose != ToClient::Deauth {
            assert_eq!(task, self.last_task % 255 + 1, "notifications are numbered in turn");
            self.last_task = task;
        }
    }

    fn messages(&mut self, mut reader: Reader<'_>, news: &mut Vec<News>) {
        let chat = reader.chat_id().expect("a chat").get();
        assert!(!reader.is_empty(), "a MSG_NOTIFY of nothing");
        while !reader.is_empty() {
            let message = reader.message(self.version.expect("after HELLO")).expect("a message");
            check(&message);
            self.changed(chat, message.id.get(), message.updated.micros());
        }
        news.push(News::OfChat { chat });
    }

    /// A change of a message, in the order of time with all others of its chat.
    fn changed(&mut self, chat: u32, message: u64, updated: i64) {
        let last = self.last.insert(chat, updated).unwrap_or(0);
        assert!(updated > last, "chat {chat}: {updated} sent after {last}");
        self.messages.insert((chat, message, updated));
    }
}

/// Of which chats an answer, or a piece of one, says what only members know: its entries are whole.
fn of_chats(about: &About, version: Option<Version>, body: &[u8], news: &mut Vec<News>) {
    let version = version.unwrap_or(Version::V1_0);
    let mut reader = Reader::new(body);
    match about {
        About::Messages { chat, .. } => {
            while !reader.is_empty() {
                check(&reader.message(version).expect("a message"));
            }
            news.push(News::OfChat { chat: *chat });
        }
        About::MessagesOfChats => {
            while !reader.is_empty() {
                let chat = reader.chat_id().expect("a chat").get();
                check(&reader.message(version).expect("a message"));
                news.push(News::OfChat { chat });
            }
        }
        About::Members { chat } => news.push(News::OfChat { chat: *chat }),
        _ => {}
    }
}

/// Checks a chat_info, and says of which chat it is.
fn chat_info(reader: &mut Reader<'_>, version: Version) -> u32 {
    let chat = reader.chat_id().expect("a chat").get();
    assert!(reader.u8().expect("a kind") <= 1);
    assert!(reader.u8().expect("flags") & 0x02 != 0, "CHAT_NOTIFY to one who is no member");
    reader.u32().expect("members");
    reader.time().and_then(|_| reader.time()).expect("times");
    reader.u32().expect("unread");
    reader.str().and_then(|_| reader.str()).expect("name and title");
    if version.has_extras() {
        assert!(reader.u8().expect("a level") <= 2);
    }
    assert!(reader.is_empty());
    chat
}

/// What is true of every message.
fn check(message: &Message<'_>) {
    assert_eq!(message.id.created(), message.created);
    assert!(message.updated >= message.created);
    assert!(message.status <= 3);
    let is_deleted = message.status & 2 != 0;
    let has_files = message.extras.files().next().is_some();
    assert!(!is_deleted || message.content.is_empty() && message.extras.is_empty());
    assert!(is_deleted || has_files || !message.content.is_empty());
    // A reaction changes a message, too, and leaves its status.
    assert!(message.status == 0 || message.updated > message.created);
}
