//! API 1.1 for the tests: the purposes of protocol.md section 5a, extras, and notifications.

use super::wire::*;
use super::{Client, Server};

/// To the server, API 1.1.
pub(crate) const REACT: u8 = 0x4E;
pub(crate) const GET_REACTIONS: u8 = 0x4F;
pub(crate) const BEGIN_FILE: u8 = 0x58;
pub(crate) const PUT_FILE: u8 = 0x59;
pub(crate) const GET_FILE: u8 = 0x5A;
pub(crate) const END_FILE: u8 = 0x5B;

/// To the client, API 1.1.
pub(crate) const REACTION_NOTIFY: u8 = 0x36;

/// Kinds of extras.
pub(crate) const REPLY: u8 = 0x01;
pub(crate) const FILE: u8 = 0x02;
pub(crate) const REACTIONS: u8 = 0x03;
pub(crate) const ATTACH: u8 = 0x04;

/// What is behind the content of a message on 1.1.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Extras {
    pub(crate) reply: Option<u64>,
    pub(crate) files: Vec<FileEntry>,
    pub(crate) reactions: Vec<ReactionEntry>,
}

/// A FILE.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FileEntry {
    pub(crate) id: u64,
    pub(crate) size: u64,
    pub(crate) width: u16,
    pub(crate) height: u16,
    pub(crate) media_type: String,
    pub(crate) name: String,
}

/// One emoji of REACTIONS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ReactionEntry {
    pub(crate) emoji: String,
    pub(crate) count: u16,
    pub(crate) shown: Vec<u32>,
}

impl Reader<'_> {
    /// `extra_bytes` and the extras behind it, in the order REPLY, FILE, REACTIONS.
    #[track_caller]
    pub(crate) fn extras(&mut self) -> Extras {
        let length = usize::from(self.u16());
        let mut all = Reader::of(true, self.take(length));
        let mut extras = Extras::default();
        let mut last_kind = 0;
        while !all.is_empty() {
            let kind = all.u8();
            let length = usize::from(all.u16());
            let mut entry = Reader::of(true, all.take(length));
            assert!(kind > last_kind || kind == FILE && last_kind == FILE, "extras out of order");
            last_kind = kind;
            match kind {
                REPLY => extras.reply = Some(entry.u64()),
                FILE => extras.files.push(FileEntry {
                    id: entry.u64(),
                    size: entry.u64(),
                    width: entry.u16(),
                    height: entry.u16(),
                    media_type: entry.text(),
                    name: entry.text(),
                }),
                REACTIONS => {
                    assert!(!entry.is_empty(), "REACTIONS without any");
                    while !entry.is_empty() {
                        let (emoji, count) = (entry.text(), entry.u16());
                        let shown: Vec<u32> = (0..entry.u8()).map(|_| entry.id()).collect();
                        assert_eq!(shown.len(), usize::from(count).min(20), "who is shown");
                        extras.reactions.push(ReactionEntry { emoji, count, shown });
                    }
                }
                other => panic!("an extra of kind {other}"),
            }
            entry.finish();
        }
        extras
    }
}

impl Server {
    /// A connection that said HELLO 1.1.
    #[track_caller]
    pub(crate) fn greeted11(&self) -> Client {
        let mut client = self.connect();
        client.hello(1, 1);
        client
    }

    /// A connection of a user on 1.1, as [`Server::login10`] makes one on 1.0.
    #[track_caller]
    pub(crate) fn login11(&self, name: &str) -> Client {
        let mut client = self.greeted11();
        client.ignore(super::api10::PRESENCE_NOTIFY);
        client.login10(name);
        client
    }

    /// Users with connections on 1.1, each with its id.
    #[track_caller]
    pub(crate) fn users11<const N: usize>(&self, names: [&str; N]) -> [(Client, u32); N] {
        for name in names {
            self.add_user(name);
        }
        names.map(|name| {
            let mut client = self.login11(name);
            let id = client.user_id(name);
            (client, id)
        })
    }
}

/// What REACTION_NOTIFY says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ReactionChange {
    pub(crate) chat: u32,
    pub(crate) message: u64,
    pub(crate) updated: i64,
    pub(crate) user: u32,
    pub(crate) on: bool,
    pub(crate) emoji: String,
}

/// The body of a SEND_CHAT_MSG with extras.
pub(crate) fn send_body(chat: u32, content: &str, nonce: u64, reply: u64, files: &[u64]) -> Body {
    let mut body = body().id(chat).text(content).u64(nonce);
    if reply != 0 {
        body = body.u8(REPLY).u16(8).u64(reply);
    }
    files.iter().fold(body, |body, file| body.u8(ATTACH).u16(8).u64(*file))
}

/// The body of a BEGIN_FILE of plain text.
pub(crate) fn begin_body(chat: u32, size: u64, name: &str) -> Body {
    body().id(chat).u64(size).u16(0).u16(0).text("text/plain").text(name)
}

impl Client {
    /// A message with extras; reply 0 is none.
    #[track_caller]
    pub(crate) fn send_with(
        &mut self,
        chat: u32,
        content: &str,
        reply: u64,
        files: &[u64],
    ) -> Sent {
        let request = send_body(chat, content, self.next_nonce(), reply, files);
        Sent::read(&self.ask(SEND_CHAT_MSG, request).accepted())
    }

    #[track_caller]
    pub(crate) fn react(&mut self, chat: u32, message: u64, on: bool, emoji: &str) -> i64 {
        let request = body().id(chat).u64(message).u8(u8::from(on)).text(emoji);
        let answer = self.ask(REACT, request).accepted();
        let mut reader = Reader::new(&answer);
        let updated = reader.time();
        reader.finish();
        updated
    }

    #[track_caller]
    pub(crate) fn reactions(&mut self, chat: u32, message: u64) -> Vec<(u32, String)> {
        let answer = self.ask_whole(GET_REACTIONS, body().id(chat).u64(message)).accepted();
        let mut reader = Reader::new(&answer);
        let mut pack = Vec::new();
        while !reader.is_empty() {
            pack.push((reader.id(), reader.text()));
        }
        pack
    }

    #[track_caller]
    pub(crate) fn reaction_notify(&mut self) -> ReactionChange {
        let frame = self.expect(REACTION_NOTIFY);
        let mut reader = Reader::new(&frame.body);
        let change = ReactionChange {
            chat: reader.id(),
            message: reader.u64(),
            updated: reader.time(),
            user: reader.id(),
            on: reader.bool(),
            emoji: reader.text(),
        };
        reader.finish();
        change
    }

    #[track_caller]
    pub(crate) fn begin_file(&mut self, chat: u32, size: u64, name: &str) -> u64 {
        let answer = self.ask(BEGIN_FILE, begin_body(chat, size, name)).accepted();
        Reader::new(&answer).u64()
    }

    #[track_caller]
    pub(crate) fn put_file(&mut self, file: u64, offset: u64, bytes: &[u8]) -> Frame {
        self.ask(PUT_FILE, body().u64(file).u64(offset).bytes(bytes))
    }

    /// Uploads a whole file.
    #[track_caller]
    pub(crate) fn upload(&mut self, chat: u32, name: &str, content: &[u8]) -> u64 {
        let file = self.begin_file(chat, content.len() as u64, name);
        let mut stored = 0;
        for piece in content.chunks(60_000) {
            let answer = self.put_file(file, stored, piece).accepted();
            stored += piece.len() as u64;
            assert_eq!(Reader::new(&answer).u64(), stored);
        }
        file
    }

    #[track_caller]
    pub(crate) fn get_file(&mut self, file: u64, offset: u64, length: u32) -> Frame {
        self.ask(GET_FILE, body().u64(file).u64(offset).id(length))
    }

    /// Downloads a whole file.
    #[track_caller]
    pub(crate) fn download(&mut self, file: u64) -> Vec<u8> {
        let mut content = Vec::new();
        loop {
            let piece = self.get_file(file, content.len() as u64, u32::MAX).accepted();
            if piece.is_empty() {
                return content;
            }
            content.extend(piece);
        }
    }
}
