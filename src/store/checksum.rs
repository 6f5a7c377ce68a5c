//! Checksums of messages and chunks of files, so that damage by the disk does not go unnoticed.
//!
//! It is CRC-32C: it detects all changes within 32 consecutive bits, and all but one in 2^32 of the
//! others. The checksum of a message is stored in its row. It covers the message's key, sender,
//! status bits and content, but not the time of the last change: the index of changed messages
//! contains that, too, and SQLite's own check compares the two.

use std::cell::Cell;

use crc32c::{crc32c, crc32c_append};
use rusqlite::Row;
use rusqlite::types::ValueRef;

use crate::ids::{ChatId, MessageId, ServerTime, UserId};
use crate::wire::codec::{Message, STATUS_DELETED, STATUS_EDITED};
use crate::wire::extras::Extras;

/// The content shown for a damaged message (protocol section 5).
pub const DAMAGED: &str = "\u{FFFD}";

/// The covered status bits; the others refer to other tables.
const STATUS_COVERED: u8 = STATUS_EDITED | STATUS_DELETED;

/// The checksum of a row of `messages`.
pub fn of(chat: i64, message: i64, sender: i64, status: u8, content: &[u8]) -> u32 {
    let mut head = [0; 25];
    head[..8].copy_from_slice(&chat.to_le_bytes());
    head[8..16].copy_from_slice(&message.to_le_bytes());
    head[16..24].copy_from_slice(&sender.to_le_bytes());
    head[24] = status & STATUS_COVERED;
    crc32c_append(crc32c(&head), content)
}

/// The checksum of a row of `file_chunks`.
pub fn of_chunk(file: i64, start: i64, bytes: &[u8]) -> u32 {
    let mut head = [0; 16];
    head[..8].copy_from_slice(&file.to_le_bytes());
    head[8..].copy_from_slice(&start.to_le_bytes());
    crc32c_append(crc32c(&head), bytes)
}

/// The bytes of a chunk whose columns are, in this order, bytes and checksum; `None` when damaged.
pub(super) fn read_chunk<'row>(
    row: &'row Row<'_>,
    columns: [usize; 2],
    file: i64,
    start: i64,
) -> rusqlite::Result<Option<&'row [u8]>> {
    let ValueRef::Blob(bytes) = row.get_ref(columns[0])? else { return Ok(None) };
    let is_same = match row.get_ref(columns[1])? {
        // Written by an older version.
        ValueRef::Null => true,
        ValueRef::Integer(checksum) => checksum == i64::from(of_chunk(file, start, bytes)),
        _ => false,
    };
    Ok(Some(bytes).filter(|_| is_same))
}

/// Damaged messages and files read since the start: their number, and the last one.
#[derive(Debug, Default)]
pub(super) struct Damage {
    count: Cell<u64>,
    last: Cell<(i64, i64)>,
    files: Cell<u64>,
    last_file: Cell<i64>,
}

impl Damage {
    fn note(&self, chat: i64, message: i64) {
        self.count.set(self.count.get() + 1);
        self.last.set((chat, message));
    }

    pub(super) fn note_file(&self, file: i64) {
        self.files.set(self.files.get() + 1);
        self.last_file.set(file);
    }

    /// The number of damaged chunks read, and the last file.
    pub(super) fn files_met(&self) -> (u64, i64) {
        (self.files.get(), self.last_file.get())
    }

    /// The number of damaged messages read, and the last one's chat and id.
    pub(super) fn met(&self) -> (u64, i64, i64) {
        let (chat, message) = self.last.get();
        (self.count.get(), chat, message)
    }
}

/// A row as it is stored: reading it cannot fail, whatever it contains.
struct Stored<'row> {
    sender: i64,
    status: i64,
    content: &'row [u8],
    is_text: bool,
    checksum: Option<i64>,
}

impl<'row> Stored<'row> {
    /// Columns from `first` on: sender_id, status, content, checksum.
    fn read(row: &'row Row<'_>, columns: [usize; 4]) -> rusqlite::Result<Self> {
        let number = |column| Ok::<_, rusqlite::Error>(row.get_ref(column)?.as_i64().ok());
        let [sender, status, content, checksum] = columns;
        let (content, is_text) = match row.get_ref(content)? {
            ValueRef::Text(text) => (text, true),
            _ => (&[][..], false),
        };
        Ok(Self {
            sender: number(sender)?.unwrap_or_default(),
            status: number(status)?.unwrap_or(-1),
            content,
            is_text,
            checksum: number(checksum)?,
        })
    }

    /// The content, unless it is damaged. Rows of older versions have no checksum.
    fn text(&self, chat: i64, message: i64) -> Option<&'row str> {
        let status = u8::try_from(self.status).ok().filter(|_| self.is_text)?;
        let is_same = self.checksum.is_none_or(|checksum| {
            checksum == i64::from(of(chat, message, self.sender, status, self.content))
        });
        std::str::from_utf8(self.content).ok().filter(|_| is_same)
    }
}

/// A message from a row with the columns message_id, sender_id, updated, status, content, checksum.
/// A damaged one gets [`DAMAGED`] as its content.
pub(super) fn read_message<'row>(
    row: &'row Row<'_>,
    chat: ChatId,
    damage: &Damage,
) -> rusqlite::Result<Message<'row>> {
    let created = super::time(row, 0)?;
    let stored = Stored::read(row, [1, 3, 4, 5])?;
    let text = stored.text(chat.row(), created.micros());
    if text.is_none() {
        damage.note(chat.row(), created.micros());
    }
    let status = u8::try_from(stored.status).unwrap_or_default();
    let updated = row.get_ref(2)?.as_i64().ok().and_then(ServerTime::new);
    Ok(Message {
        id: MessageId::at(created),
        // A placeholder, if the sender is damaged.
        sender: UserId::from_row(stored.sender).unwrap_or(NOBODY),
        created,
        updated: updated.unwrap_or(created),
        // If a damaged message seems deleted, its content may be what is damaged.
        status: if text.is_some() { status } else { status & !STATUS_DELETED },
        content: text.unwrap_or(DAMAGED),
        extras: Extras::NONE,
    })
}

/// An id that no user reaches.
const NOBODY: UserId = UserId::MAX;

/// The content of a row with the columns, in this order: sender_id, status, content, checksum;
/// `None` when damaged.
pub(super) fn read_content<'row>(
    row: &'row Row<'_>,
    columns: [usize; 4],
    chat: i64,
    message: i64,
) -> rusqlite::Result<Option<&'row str>> {
    Ok(Stored::read(row, columns)?.text(chat, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Databases contain these values, so they never change.
    #[test]
    fn it_is_crc_32c() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c_append(crc32c(b"1234"), b"56789"), 0xE306_9283);
    }

    #[test]
    fn a_chunk_belongs_to_its_place() {
        let right = of_chunk(7, 65_536, b"bytes");
        assert_ne!(of_chunk(8, 65_536, b"bytes"), right);
        assert_ne!(of_chunk(7, 0, b"bytes"), right);
        assert_ne!(of_chunk(7, 65_536, b"bytez"), right);
    }

    #[test]
    fn every_flipped_bit_shows() {
        let content = b"the quick brown fox".to_vec();
        let right = of(7, 1_700_000_000_000_000, 9, 1, &content);
        for bit in 0..content.len() * 8 {
            let mut other = content.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(of(7, 1_700_000_000_000_000, 9, 1, &other), right);
        }
        for bit in 0..63 {
            assert_ne!(of(7 ^ 1 << bit, 1_700_000_000_000_000, 9, 1, &content), right);
            assert_ne!(of(7, 1_700_000_000_000_000 ^ 1 << bit, 9, 1, &content), right);
            assert_ne!(of(7, 1_700_000_000_000_000, 9 ^ 1 << bit, 1, &content), right);
        }
        assert_ne!(of(7, 1_700_000_000_000_000, 9, 3, &content), right);
        assert_eq!(of(7, 1_700_000_000_000_000, 9, 0x41, &content), right);
    }
}
