//! Saves files of other users: in one folder, under safe names, without overwriting any file.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::cli::output::harmless_char;

/// Longest name, in bytes: file systems allow 255, and a number or an ending may follow.
const NAME_BYTES_MAX: usize = 200;
/// Longest extension that is kept when a name is cut, in bytes.
const ENDING_BYTES_MAX: usize = 16;
/// Names that are tried before giving up.
const NUMBERS_MAX: u32 = 1000;

/// Converts an untrusted name to a safe one: no path, no hidden file, nothing special to a
/// terminal, a shell or another system.
pub(super) fn safe_name(name: &str) -> String {
    let is_special = |c: char| matches!(c, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|');
    let is_hidden = |c: char| matches!(c, '\u{200C}' | '\u{200D}');
    let plain = |c: char| match c {
        ' ' => c,
        _ if is_special(c) || is_hidden(c) || c.is_whitespace() || harmless_char(c) != c => '_',
        _ => c,
    };
    let plain: String = name.chars().map(plain).collect();
    // A leading dot hides a file, a dash makes it an option, a tilde is a home folder.
    let bare = plain.trim_start_matches(['.', '-', '~', ' ']).trim_end_matches(['.', ' ']);
    let cut = shorten(bare);
    if cut.is_empty() { "file".to_owned() } else { cut }
}

/// Cuts a name to [`NAME_BYTES_MAX`] bytes, keeping its extension.
fn shorten(name: &str) -> String {
    if name.len() <= NAME_BYTES_MAX {
        return name.to_owned();
    }
    let (stem, ending) = split(name);
    let ending = if ending.len() <= ENDING_BYTES_MAX { ending } else { "" };
    let mut end = NAME_BYTES_MAX - ending.len();
    while !stem.is_char_boundary(end.min(stem.len())) {
        end -= 1;
    }
    format!("{}{ending}", stem.get(..end).unwrap_or(stem))
}

/// Splits a name into stem and extension with the dot.
fn split(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(dot) if dot > 0 => name.split_at(dot),
        _ => (name, ""),
    }
}

/// `NAME`, then `NAME (2)` and so on, before the extension.
fn numbered(name: &str, number: u32) -> String {
    let (stem, ending) = split(name);
    if number == 1 { name.to_owned() } else { format!("{stem} ({number}){ending}") }
}

/// A file that is being written. Its name ends in `.partial` until it is complete; an abandoned one
/// is removed.
pub(super) struct Partial {
    folder: PathBuf,
    name: String,
    path: PathBuf,
    file: File,
    is_whole: bool,
}

impl Partial {
    /// Creates a file in a folder for an untrusted name.
    pub(super) fn create(folder: &Path, name: &str) -> io::Result<Self> {
        let name = safe_name(name);
        let ending = |name: &str| format!("{name}.partial");
        let (path, file) = create_new(folder, &name, ending)?;
        Ok(Self { folder: folder.to_owned(), name, path, file, is_whole: false })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// Renames the complete file, with a number if the name is taken; returns the path.
    pub(super) fn finish(mut self) -> io::Result<PathBuf> {
        self.file.flush()?;
        // An empty new file reserves the name, so that nothing else is overwritten.
        let (path, _) = create_new(&self.folder, &self.name, str::to_owned)?;
        if let Err(error) = fs::rename(&self.path, &path) {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        self.is_whole = true;
        Ok(path)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.is_whole {
            // If it cannot be removed, its ending shows that it is incomplete.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Creates a new file under the first free name. Never follows a link.
fn create_new(
    folder: &Path,
    name: &str,
    with_ending: impl Fn(&str) -> String,
) -> io::Result<(PathBuf, File)> {
    for number in 1..=NUMBERS_MAX {
        let path = folder.join(with_ending(&numbered(name, number)));
        match File::options().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of this test's own.
    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("vestnik-save-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn saved(folder: &Path, name: &str, content: &str) -> PathBuf {
        let mut partial = Partial::create(folder, name).unwrap();
        partial.write(content.as_bytes()).unwrap();
        partial.finish().unwrap()
    }

    #[test]
    fn a_name_of_others_is_a_name_and_nothing_more() {
        for (name, safe) in [
            ("photo.jpg", "photo.jpg"),
            ("Фото 2.jpg", "Фото 2.jpg"),
            ("../../x", "_.._x"),
            ("/etc/passwd", "_etc_passwd"),
            ("..\\x", "_x"),
            (".bashrc", "bashrc"),
            ("...", "file"),
            ("", "file"),
            ("-rf", "rf"),
            ("~root", "root"),
            ("a\u{1b}[2J\n\u{7}b", "a_[2J__b"),
            ("gpj.\u{202e}exe", "gpj._exe"),
            ("a\u{200d}b\u{2028}c", "a_b_c"),
            ("C:evil?.txt. ", "C_evil_.txt"),
        ] {
            assert_eq!(safe_name(name), safe, "{name:?}");
        }
        let long = safe_name(&format!("{}.tar", "я".repeat(300)));
        assert!(long.len() <= NAME_BYTES_MAX && long.ends_with("я.tar"), "{long}");
        assert_eq!(safe_name(&format!("a.{}", "b".repeat(300))), "a");
        assert!(safe_name(&"x".repeat(5000)).len() <= NAME_BYTES_MAX);
    }

    #[test]
    fn any_name_becomes_one_part_of_a_path() {
        let letters = [
            '.', '/', '\\', '-', '~', ' ', '\0', '\n', '\u{1b}', '\u{9b}', '\u{202e}', '\u{200d}',
            '\u{feff}', 'a', 'я', '日', '👩', '\u{301}', ':', '*',
        ];
        let mut seed = 7_u64;
        let mut dice = |bound: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize % bound
        };
        for _ in 0..20_000 {
            let name: String = (0..dice(300)).map(|_| letters[dice(letters.len())]).collect();
            let safe = safe_name(&name);
            let mut parts = Path::new(&safe).components();
            let is_normal = matches!(parts.next(), Some(std::path::Component::Normal(_)));
            assert!(is_normal && parts.next().is_none(), "{name:?} became {safe:?}");
            assert!(safe.len() <= NAME_BYTES_MAX && !safe.starts_with(['.', '-']), "{safe:?}");
            assert!(safe.chars().all(|c| harmless_char(c) == c), "{safe:?}");
        }
    }

    #[test]
    fn nothing_is_written_over_and_nothing_leaves_the_folder() {
        let folder = folder("over");
        let inside = folder.join("inside");
        fs::create_dir(&inside).unwrap();
        assert_eq!(saved(&inside, "a.txt", "one"), inside.join("a.txt"));
        assert_eq!(saved(&inside, "a.txt", "two"), inside.join("a (2).txt"));
        // A link that somebody put there is no way out.
        std::os::unix::fs::symlink(folder.join("outside"), inside.join("b")).unwrap();
        std::os::unix::fs::symlink(folder.join("outside"), inside.join("b.partial")).unwrap();
        assert_eq!(saved(&inside, "b", "three"), inside.join("b (2)"));
        assert_eq!(saved(&inside, "../outside", "four"), inside.join("_outside"));
        assert!(!folder.join("outside").exists());
        assert_eq!(fs::read_to_string(inside.join("a.txt")).unwrap(), "one");
        // One that is given up leaves nothing.
        let before = fs::read_dir(&inside).unwrap().count();
        let mut partial = Partial::create(&inside, "c").unwrap();
        partial.write(b"half").unwrap();
        drop(partial);
        assert_eq!(fs::read_dir(&inside).unwrap().count(), before);
        fs::remove_dir_all(folder).unwrap();
    }
}
