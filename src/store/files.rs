//! Files: uploads, and parts of messages once they are sent. Their bytes are stored in rows of at
//! most 64 KiB.
//!
//! A removed file leaves its chunks, which [`Store::erase_slice`] erases: deleted data is
//! overwritten, so a large file would take long at once.

use rusqlite::Row;

use super::copy::FILES_LEFT_OUT;
use super::{Store, StoreResult, bytes, checksum, id, time};
use crate::ids::{ChatId, FileId, MessageId, ServerTime, UserId};
use crate::limits::FILE_CHUNK_BYTES;
use crate::wire::extras::FileInfo;

/// A row of `files`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileState {
    /// Its id.
    pub id: FileId,
    /// The chat that it belongs to.
    pub chat: ChatId,
    /// The user who uploaded it.
    pub user: UserId,
    /// The message that it is part of; `None`: an upload.
    pub message: Option<MessageId>,
    /// Its size, as announced.
    pub size: u64,
    /// Number of bytes stored.
    pub stored: u64,
    /// When the upload began or last received bytes.
    pub touched: ServerTime,
}

impl FileState {
    /// Whether it is complete.
    pub const fn is_complete(&self) -> bool {
        self.stored == self.size
    }

    /// The bytes of it that count as used: none of a file that a copy has left out.
    const fn used_bytes(&self) -> u64 {
        if self.message.is_none() || self.is_complete() { self.size } else { 0 }
    }
}

const COLUMNS: &str = "file_id, chat_id, user_id, message_id, size, stored, touched";

fn file(row: &Row<'_>) -> rusqlite::Result<FileState> {
    let message: Option<i64> = row.get(3)?;
    Ok(FileState {
        id: id(FileId::from_row, 0, row.get(0)?)?,
        chat: id(ChatId::from_row, 1, row.get(1)?)?,
        user: id(UserId::from_row, 2, row.get(2)?)?,
        message: message.and_then(ServerTime::new).map(MessageId::at),
        size: bytes(row, 4)?,
        stored: bytes(row, 5)?,
        touched: time(row, 6)?,
    })
}

/// The total of one user's files, or of all files.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FileUsage {
    /// The sum of their announced sizes.
    pub bytes: u64,
    /// Number of uploads that are not part of a message.
    pub uploads: u32,
}

/// The row of `file_usage` with the total of all users.
const EVERYBODY: i64 = 0;

impl Store<'_> {
    /// A file.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn file(&mut self, file_id: FileId) -> StoreResult<Option<FileState>> {
        let sql = format!("SELECT {COLUMNS} FROM files WHERE file_id = ?1");
        self.get(&sql, [file_id.row()], file)
    }

    /// The last file whose bytes are not here because a copy of the database has left them out.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn files_left_out(&mut self) -> StoreResult<Option<FileId>> {
        let sql = "SELECT value FROM meta WHERE key = ?1";
        Ok(self.get(sql, [FILES_LEFT_OUT], |row| row.get(0))?.and_then(FileId::from_row))
    }

    /// The total of a user's files, or of all files.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn file_usage(&mut self, user: Option<UserId>) -> StoreResult<FileUsage> {
        let sql = "SELECT bytes, uploads FROM file_usage WHERE user_id = ?1";
        let user = user.map_or(EVERYBODY, UserId::row);
        let usage = self.get(sql, [user], |row| {
            Ok(FileUsage { bytes: bytes(row, 0)?, uploads: row.get(1)? })
        })?;
        Ok(usage.unwrap_or_default())
    }

    fn change_usage(&mut self, user: i64, bytes: i64, uploads: i64) -> StoreResult<()> {
        let sql = "INSERT INTO file_usage (user_id, bytes, uploads) VALUES (?1, ?2, ?3)
                   ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes,
                                             uploads = uploads + excluded.uploads";
        for user in [user, EVERYBODY] {
            self.run(sql, (user, bytes, uploads))?;
        }
        Ok(())
    }

    /// Begins an upload.
    ///
    /// # Errors
    /// As every write.
    pub fn begin_file(
        &mut self,
        chat: ChatId,
        user: UserId,
        new: &FileInfo<'_>,
        now: ServerTime,
    ) -> StoreResult<FileId> {
        let row = self.insert(
            "INSERT INTO files (chat_id, user_id, size, width, height, media_type, name, touched)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            (
                chat.row(),
                user.row(),
                new.size as i64,
                new.width,
                new.height,
                new.media_type,
                new.name,
                now.micros(),
            ),
        )?;
        self.change_usage(user.row(), new.size as i64, 1)?;
        Ok(id(FileId::from_row, 0, row)?)
    }

    /// Appends bytes to an upload that has `stored` bytes. Returns how many bytes were written: a
    /// short last chunk is rewritten.
    ///
    /// # Errors
    /// As every write.
    pub fn append_file(
        &mut self,
        file_id: FileId,
        stored: u64,
        bytes: &[u8],
        now: ServerTime,
    ) -> StoreResult<usize> {
        let sql = "SELECT start, bytes, checksum FROM file_chunks WHERE file_id = ?1
                   ORDER BY start DESC LIMIT 1";
        let last = self.get(sql, [file_id.row()], |row| {
            let start = row.get(0)?;
            // Do not give a damaged chunk a valid checksum.
            let chunk = checksum::read_chunk(row, [1, 2], file_id.row(), start)?;
            let chunk = chunk.filter(|chunk| chunk.len() + bytes.len() <= FILE_CHUNK_BYTES);
            Ok((start, chunk.map(|chunk| [chunk, bytes].concat())))
        })?;
        let sum = |start, bytes: &[u8]| checksum::of_chunk(file_id.row(), start, bytes);
        let written = if let Some((start, Some(whole))) = last {
            let sql = "UPDATE file_chunks SET bytes = ?3, checksum = ?4
                       WHERE file_id = ?1 AND start = ?2";
            self.run(sql, (file_id.row(), start, &whole[..], sum(start, &whole)))?;
            whole.len()
        } else {
            let sql = "INSERT INTO file_chunks (file_id, start, bytes, checksum)
                       VALUES (?1, ?2, ?3, ?4)";
            let start = stored as i64;
            self.run(sql, (file_id.row(), start, bytes, sum(start, bytes)))?;
            bytes.len()
        };
        let sql = "UPDATE files SET stored = stored + ?2, touched = ?3 WHERE file_id = ?1";
        self.run(sql, (file_id.row(), bytes.len() as i64, now.micros()))?;
        Ok(written)
    }

    /// Appends up to `length` bytes of a file from `offset` on to `out`. False, and nothing is
    /// appended, when some of them are damaged.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn read_file(
        &mut self,
        file_id: FileId,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> StoreResult<bool> {
        let sql = "SELECT start, bytes, checksum FROM file_chunks WHERE file_id = ?1 AND start >=
                       (SELECT max(start) FROM file_chunks WHERE file_id = ?1 AND start <= ?2)
                   ORDER BY start";
        let begun = out.len();
        let end = begun + length;
        let mut offset = offset;
        let mut is_sound = true;
        let Ok(from) = i64::try_from(offset) else { return Ok(true) };
        self.each(sql, (file_id.row(), from), |row| {
            let start = bytes(row, 0)?;
            let Some(chunk) = checksum::read_chunk(row, [1, 2], file_id.row(), row.get(0)?)? else {
                is_sound = false;
                return Ok(false);
            };
            let Some(skip) = offset.checked_sub(start) else { return Ok(false) };
            let rest = chunk.get(skip as usize..).unwrap_or_default();
            let part = rest.get(..rest.len().min(end - out.len())).unwrap_or_default();
            out.extend_from_slice(part);
            offset += part.len() as u64;
            Ok(out.len() < end && !part.is_empty())
        })?;
        if !is_sound {
            out.truncate(begun);
            self.damage.note_file(file_id.row());
        }
        Ok(is_sound)
    }

    /// Attaches uploads to a message, in this order.
    ///
    /// # Errors
    /// As every write.
    pub fn attach_files(
        &mut self,
        chat: ChatId,
        message: MessageId,
        files: &[FileState],
    ) -> StoreResult<()> {
        for (place, file) in files.iter().enumerate() {
            let sql = "UPDATE files SET message_id = ?2, place = ?3 WHERE file_id = ?1";
            self.run(sql, (file.id.row(), message.created().micros(), place as i64))?;
            self.change_usage(file.user.row(), 0, -1)?;
        }
        if files.is_empty() {
            return Ok(());
        }
        self.set_status_bit(chat, message, super::extras::HAS_FILES, true)
    }

    /// Removes a file; its chunks wait to be erased.
    ///
    /// # Errors
    /// As every write.
    pub fn remove_file(&mut self, file: &FileState) -> StoreResult<()> {
        self.run("DELETE FROM files WHERE file_id = ?1", [file.id.row()])?;
        self.run("INSERT INTO files_erased (file_id) VALUES (?1)", [file.id.row()])?;
        let uploads = if file.message.is_none() { -1 } else { 0 };
        self.change_usage(file.user.row(), -(file.used_bytes() as i64), uploads)
    }

    fn remove_all(&mut self, files: &[FileState]) -> StoreResult<()> {
        files.iter().try_for_each(|file| self.remove_file(file))
    }

    /// Removes the files of a message.
    pub(super) fn remove_files_of(&mut self, (chat, message): (i64, i64)) -> StoreResult<()> {
        let sql = format!("SELECT {COLUMNS} FROM files WHERE chat_id = ?1 AND message_id = ?2");
        let files = self.all(&sql, (chat, message), file)?;
        self.remove_all(&files)
    }

    /// Removes the uploads of a user to a chat.
    ///
    /// # Errors
    /// As every write.
    pub fn remove_uploads(&mut self, chat: ChatId, user: UserId) -> StoreResult<()> {
        let sql = format!(
            "SELECT {COLUMNS} FROM files INDEXED BY files_by_user
             WHERE user_id = ?1 AND chat_id = ?2 AND message_id IS NULL"
        );
        if self.file_usage(Some(user))?.uploads == 0 {
            return Ok(());
        }
        let files = self.all(&sql, (user.row(), chat.row()), file)?;
        self.remove_all(&files)
    }

    /// Removes all uploads to a chat.
    pub(super) fn remove_uploads_to(&mut self, chat: ChatId) -> StoreResult<()> {
        let sql = format!(
            "SELECT {COLUMNS} FROM files INDEXED BY files_under_way
             WHERE message_id IS NULL AND chat_id = ?1"
        );
        let files = self.all(&sql, [chat.row()], file)?;
        self.remove_all(&files)
    }

    /// The upload of a user that has received no bytes for the longest time.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn idlest_upload(&mut self, user: UserId) -> StoreResult<Option<FileState>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM files INDEXED BY files_by_user
             WHERE user_id = ?1 AND message_id IS NULL ORDER BY touched, file_id LIMIT 1"
        );
        self.get(&sql, [user.row()], file)
    }

    /// Removes up to `limit` uploads of each kind: those that received no bytes since `since`, and
    /// those that received some later than `until`, by a clock that was wrong.
    ///
    /// # Errors
    /// As every write.
    pub fn remove_stale_uploads(
        &mut self,
        since: ServerTime,
        until: ServerTime,
        limit: u32,
    ) -> StoreResult<()> {
        for (side, bound) in [("<", since), (">", until)] {
            let sql = format!(
                "SELECT {COLUMNS} FROM files INDEXED BY files_under_way
                 WHERE message_id IS NULL AND touched {side} ?1 ORDER BY touched LIMIT ?2"
            );
            let files = self.all(&sql, (bound.micros(), limit), file)?;
            self.remove_all(&files)?;
        }
        Ok(())
    }

    /// Erases up to `limit` chunks of removed files. False when none is left.
    ///
    /// # Errors
    /// As every write.
    pub fn erase_slice(&mut self, limit: u32) -> StoreResult<bool> {
        let sql = "SELECT file_id FROM files_erased LIMIT 1";
        let Some(file_id) = self.get(sql, [], |row| row.get::<_, i64>(0))? else {
            return Ok(false);
        };
        let sql = "DELETE FROM file_chunks WHERE rowid IN
                   (SELECT rowid FROM file_chunks WHERE file_id = ?1 LIMIT ?2)";
        if self.run(sql, (file_id, limit))? < limit as usize {
            self.run("DELETE FROM files_erased WHERE file_id = ?1", [file_id])?;
        }
        Ok(true)
    }

    /// Free bytes on the disk of the database; `None` when unknown, as for a database in memory.
    pub fn disk_free_bytes(&self) -> Option<u64> {
        let path = self.db.path().filter(|path| !path.is_empty())?;
        let disk = rustix::fs::statvfs(path).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Database;
    use crate::store::messages::tests::at;

    const NEW: FileInfo<'static> = FileInfo {
        id: FileId::MAX,
        size: 200_000,
        width: 0,
        height: 0,
        media_type: "text/plain",
        name: "a.txt",
    };

    fn content(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|place| (place % 251) as u8).collect()
    }

    #[test]
    fn a_file_reads_back_from_anywhere_however_it_came() {
        let database = Database::in_memory().expect("memory");
        let store = &mut Store::new(&database).expect("its tables");
        let (chat, user) = (ChatId::new(7).expect("not 0"), UserId::new(3).expect("not 0"));
        let content = content(200_000);
        for pieces in [&[1, 2, 60_000, 5_533, 1, 65_000, 60_000][..], &[65_520; 4], &[40_000; 6]] {
            let id = store.begin_file(chat, user, &NEW, at(1)).expect("stored");
            let mut stored = 0;
            for piece in pieces {
                let end = content.len().min(stored + piece);
                let part = &content[stored..end];
                store.append_file(id, stored as u64, part, at(2)).expect("stored");
                stored = end;
            }
            assert_eq!(store.file(id).expect("read").expect("there").stored, stored as u64);
            for (offset, length) in [
                (0, 200_000),
                (0, 65_536),
                (1, 65_536),
                (65_535, 2),
                (130_000, 65_536),
                (stored, 1),
            ] {
                let mut out = Vec::new();
                store.read_file(id, offset as u64, length, &mut out).expect("read");
                let end = stored.min(offset + length);
                assert_eq!(out, content[offset..end], "{length} from {offset} on");
            }
            let sql = "SELECT max(length(bytes)) FROM file_chunks";
            let longest: i64 = store.get(sql, [], |row| row.get(0)).expect("read").expect("a row");
            assert!(longest <= 65_536);
        }
    }

    #[test]
    fn a_damaged_chunk_is_not_given_and_keeps_its_checksum() {
        let database = Database::in_memory().expect("memory");
        let store = &mut Store::new(&database).expect("its tables");
        let (chat, user) = (ChatId::new(7).expect("not 0"), UserId::new(3).expect("not 0"));
        let id = store.begin_file(chat, user, &NEW, at(1)).expect("stored");
        for n in 0..2 {
            store.append_file(id, n * 60_000, &content(60_000), at(2)).expect("stored");
        }
        store.commit().expect("committed");
        let harm = "UPDATE file_chunks SET bytes = CAST(bytes || x'00' AS BLOB) WHERE start > 0";
        database.connection().execute_batch(harm).expect("harmed");
        let mut out = Vec::new();
        assert_eq!(store.read_file(id, 0, 10, &mut out), Ok(true));
        assert_eq!(store.read_file(id, 59_000, 2_000, &mut out), Ok(false));
        assert_eq!(store.read_file(id, 60_000, 10, &mut out), Ok(false));
        assert_eq!((out.len(), store.damaged_files_met()), (10, (2, id.row())));
        store.append_file(id, 120_000, &content(5), at(3)).expect("stored");
        assert_eq!(store.read_file(id, 60_000, 10, &mut out), Ok(false));
        assert_eq!(store.read_file(id, 120_000, 10, &mut out), Ok(true));
    }

    #[test]
    fn usage_follows_and_chunks_are_erased_in_slices() {
        let database = Database::in_memory().expect("memory");
        let store = &mut Store::new(&database).expect("its tables");
        let (chat, user) = (ChatId::new(7).expect("not 0"), UserId::new(3).expect("not 0"));
        let message = MessageId::at(at(10));
        let one = store.begin_file(chat, user, &NEW, at(1)).expect("stored");
        let other = store.begin_file(chat, user, &NEW, at(2)).expect("stored");
        for n in 0..4 {
            store.append_file(one, n * 50_000, &content(50_000), at(3)).expect("stored");
        }
        assert_eq!(
            store.file_usage(Some(user)).expect("read"),
            FileUsage { bytes: 400_000, uploads: 2 }
        );
        store.add_message(chat, message, user, "").expect("stored");
        let file = store.file(one).expect("read").expect("there");
        store.attach_files(chat, message, &[file]).expect("stored");
        store.remove_uploads(chat, user).expect("stored");
        assert_eq!(store.file(other).expect("read"), None);
        assert_eq!(store.file_usage(None).expect("read"), FileUsage { bytes: 200_000, uploads: 0 });
        store.delete_message(chat, message, at(11)).expect("stored");
        assert_eq!(store.file_usage(Some(user)).expect("read"), FileUsage::default());
        let mut slices = 0;
        while store.erase_slice(3).expect("stored") {
            slices += 1;
        }
        assert_eq!(slices, 3, "two of four chunks, and one of none");
        let count = store.get("SELECT count(*) FROM file_chunks", [], |row| row.get(0));
        assert_eq!(count.expect("read"), Some(0));
    }
}
