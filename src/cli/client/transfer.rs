//! Uploads and downloads, one request at a time, with messages in between.
//!
//! They resume after a break: stored bytes are not transferred again.

use std::collections::VecDeque;
use std::fs::File as Stored;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use purpose::client::{Client, Error, File, NewFile};
use vestnik::ids::{ChatId, FileId};

use super::media;
use super::save::Partial;
use super::text::harmless;
use crate::cli::output::reason;

/// Bytes per request: the maximum of the protocol.
const PIECE_BYTES: u32 = 64 * 1024;
/// Longest name of an uploaded file, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// The result of one step of a transfer.
pub(super) enum Step {
    /// There is more to do.
    More,
    /// One of several files was saved under this path.
    Saved(File, PathBuf),
    /// The upload is complete, and can be sent.
    Uploaded(File),
    /// All files are saved.
    Done,
}

/// The error of a step.
pub(super) enum Failed {
    /// The connection broke, or the server declined; it may be temporary.
    Server(Error),
    /// Permanent, with the reason.
    Here(String),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Server(error)
    }
}

/// An upload, to be sent in a message with this nonce.
pub(super) struct Upload {
    pub(super) chat: ChatId,
    pub(super) nonce: u64,
    pub(super) content: String,
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) offset: u64,
    source: Stored,
    media_type: &'static str,
    width: u16,
    height: u16,
    id: Option<FileId>,
    /// Whether it was begun again, because the server had dropped it.
    is_again: bool,
}

impl Upload {
    /// Opens a file for an upload.
    pub(super) fn open(
        (chat, nonce): (ChatId, u64),
        path: &str,
        content: &str,
        size_max: u64,
    ) -> Result<Self, String> {
        let shown = harmless(path);
        let cannot = |error: io::Error| format!("cannot read {shown}: {}", reason(&error));
        let path = home(path);
        // Opening a pipe would block until its other end is opened.
        let kind = path.metadata().map_err(cannot)?;
        if !kind.is_file() {
            return Err(format!("{shown} is not a file that can be sent"));
        }
        let source = Stored::open(&path).map_err(cannot)?;
        let size = source.metadata().map_err(cannot)?.len();
        if size == 0 {
            return Err(format!("{shown} is empty"));
        }
        if size_max == 0 {
            return Err("this server takes no files".to_owned());
        }
        if size > size_max {
            let (size, most) = (super::report::size(size), super::report::size(size_max));
            return Err(format!("{shown} has {size}, and this server takes at most {most}"));
        }
        let mut head = vec![0; media::HEAD_BYTES];
        let count = source.read_at(&mut head, 0).map_err(cannot)?;
        let (width, height) = media::dimensions(head.get(..count).unwrap_or_default());
        let name = sent_name(&path);
        Ok(Self {
            chat,
            nonce,
            content: content.to_owned(),
            media_type: media::media_type(&name),
            name,
            size,
            offset: 0,
            source,
            width,
            height,
            id: None,
            is_again: false,
        })
    }

    /// Makes one request.
    pub(super) fn step(&mut self, client: &mut Client) -> Result<Step, Failed> {
        let Some(id) = self.id else {
            let new = NewFile {
                name: &self.name,
                media_type: self.media_type,
                size: self.size,
                width: self.width,
                height: self.height,
            };
            self.id = Some(client.begin_file(self.chat, &new)?);
            return Ok(Step::More);
        };
        let most = client.piece_bytes_max();
        let left = usize::try_from(self.size - self.offset).unwrap_or(most);
        let mut piece = vec![0; left.min(most)];
        self.source.read_exact_at(&mut piece, self.offset).map_err(|error| {
            let why = match error.kind() {
                io::ErrorKind::UnexpectedEof => "it has become shorter".to_owned(),
                _ => reason(&error),
            };
            Failed::Here(format!("cannot read {}: {why}", harmless(&self.name)))
        })?;
        match client.put_file(id, self.offset, &piece) {
            Ok(stored) if stored > self.offset && stored <= self.size => self.offset = stored,
            Ok(_) => return Err(Failed::Here("the server does not store it".to_owned())),
            Err(error) if error.code() == Some("no-such-file") && !self.is_again => {
                (self.id, self.offset, self.is_again) = (None, 0, true);
                return Ok(Step::More);
            }
            Err(error) => return Err(error.into()),
        }
        if self.offset < self.size { Ok(Step::More) } else { Ok(Step::Uploaded(self.file(id))) }
    }

    fn file(&self, id: FileId) -> File {
        File {
            id,
            size: self.size,
            width: self.width,
            height: self.height,
            media_type: self.media_type.to_owned(),
            name: self.name.clone(),
        }
    }

    /// Cancels the upload, so that it does not use the user's quota.
    pub(super) fn end(&self, client: &mut Client) {
        if let Some(id) = self.id {
            // If this fails, the server drops the upload after an hour.
            let _ = client.end_file(id);
        }
    }
}

/// Downloads of files, one after the other.
pub(super) struct Download {
    /// The key of the transfer.
    pub(super) key: u64,
    folder: PathBuf,
    files: VecDeque<File>,
    current: Option<Partial>,
    pub(super) offset: u64,
}

impl Download {
    pub(super) fn new(key: u64, folder: &Path, files: Vec<File>) -> Self {
        let folder = folder.to_owned();
        Self { key, folder, files: files.into(), current: None, offset: 0 }
    }

    /// The file that is being written.
    pub(super) fn file(&self) -> Option<&File> {
        self.files.front()
    }

    /// Makes one request.
    pub(super) fn step(&mut self, client: &mut Client) -> Result<Step, Failed> {
        let Some(file) = self.files.front() else { return Ok(Step::Done) };
        let cannot = |error: io::Error| {
            let folder = self.folder.display().to_string();
            Failed::Here(format!("cannot save to {}: {}", harmless(&folder), reason(&error)))
        };
        let mut partial = match self.current.take() {
            Some(partial) => partial,
            None => Partial::create(&self.folder, &file.name).map_err(cannot)?,
        };
        let bytes = match client.get_file(file.id, self.offset, PIECE_BYTES) {
            Ok(bytes) => bytes,
            Err(error) => {
                // It resumes here after the reconnect.
                self.current = Some(partial);
                return Err(error.into());
            }
        };
        partial.write(&bytes).map_err(cannot)?;
        self.offset += bytes.len() as u64;
        if self.offset > file.size || (bytes.is_empty() && self.offset < file.size) {
            let name = harmless(&file.name);
            return Err(Failed::Here(format!("not saved: {name} is not as long as announced")));
        }
        if self.offset < file.size {
            self.current = Some(partial);
            return Ok(Step::More);
        }
        let path = partial.finish().map_err(cannot)?;
        self.offset = 0;
        match self.files.pop_front() {
            Some(file) => Ok(Step::Saved(file, path)),
            None => Ok(Step::Done),
        }
    }
}

/// Expands a typed path: `~/` is the user's home.
pub(super) fn home(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => PathBuf::from(path),
    }
}

/// The name of an uploaded file, made valid for the protocol.
fn sent_name(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let allowed = |c: char| if c.is_control() || c == '\\' { '_' } else { c };
    let mut name: String = name.unwrap_or_default().chars().map(allowed).collect();
    while name.len() > NAME_BYTES_MAX {
        name.pop();
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_sent_by_its_name_alone() {
        assert_eq!(sent_name(Path::new("/home/anna/a b.txt")), "a b.txt");
        assert_eq!(sent_name(Path::new("a\\b\u{7}")), "a_b_");
        assert!(sent_name(Path::new(&"я".repeat(200))).len() <= NAME_BYTES_MAX);
        assert_eq!(home("x/~/y"), PathBuf::from("x/~/y"));
    }

    #[test]
    fn what_cannot_be_sent_is_refused_in_one_line() {
        let open = |path: &str, most| {
            let chat = ChatId::new(1).unwrap();
            Upload::open((chat, 1), path, "", most).err().unwrap_or_default()
        };
        assert_eq!(open("/nowhere/x", 9), "cannot read /nowhere/x: it does not exist");
        assert_eq!(open("/dev/null", 9), "/dev/null is not a file that can be sent");
        let here = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        assert!(open(here, 9).ends_with("and this server takes at most 9 bytes"));
        assert_eq!(open(here, 0), "this server takes no files");
    }
}
