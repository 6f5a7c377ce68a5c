//! API 1.1 for the tests: the purposes of protocol.md section 5a, extras, and notifications.

use super::wire::*;
use super::{Client, Server};

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
