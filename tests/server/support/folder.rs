//! A folder with a data file, and commands that are run in it.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use vestnik::ids::{ServerTime, SessionId, UserId};
use vestnik::names::name_key;
use vestnik::store::changes::Change;
use vestnik::store::{Database, Store};

/// A folder of one test, with the data file in it; gone with the test.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("vestnik-cli-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder for the test");
        Self(path)
    }

    /// A folder with a file of users anna and boris, and anna's chat hall.
    pub(crate) fn filled() -> Self {
        let folder = Self::new();
        for name in ["anna", "boris"] {
            folder.add_user(name);
        }
        folder.done(&["chat", "add", "hall", "--admin", "anna"]);
        folder
    }

    pub(crate) fn add_user(&self, name: &str) {
        let output = self.run(
            &["user", "add", name, "--password-stdin", "--password-iterations", "1"],
            Some("correct horse\n"),
        );
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path("vestnik.db")
    }

    /// The binary in this folder, with nothing of the caller's surroundings.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vestnik"));
        let names = std::env::vars_os().map(|(name, _)| name);
        for name in names.filter(|name| name.to_string_lossy().starts_with("VESTNIK_")) {
            command.env_remove(name);
        }
        command.current_dir(&self.0).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str], input: Option<&str>) -> Output {
        run(self.command(arguments), input)
    }

    /// What a command that succeeds prints, which is all on standard output.
    #[track_caller]
    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments, None);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
        assert_eq!(output.stderr, b"", "{arguments:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// The one line that a command fails with.
    #[track_caller]
    pub(crate) fn failed(&self, arguments: &[&str]) -> String {
        one_line(&self.run(arguments, None), 1)
    }

    /// The one line that shows how the arguments are wrong.
    #[track_caller]
    pub(crate) fn misused(&self, arguments: &[&str]) -> String {
        one_line(&self.run(arguments, None), 2)
    }

    /// Lets the test work on the file as a command does.
    pub(crate) fn store<T>(&self, work: impl FnOnce(&mut Store<'_>) -> T) -> T {
        let database = Database::open_command(&self.data(), false).expect("the data file");
        let mut store = Store::new(&database).expect("its tables");
        let done = work(&mut store);
        store.commit().expect("a commit");
        done
    }

    /// What was noted for a running server since the last time.
    pub(crate) fn changes(&self) -> Vec<Option<Change>> {
        self.store(|store| {
            let changes = store.changes(0, 1000).expect("changes");
            if let Some((last, _)) = changes.last() {
                store.forget_changes(*last).expect("a deletion");
            }
            changes.into_iter().map(|(_, change)| change).collect()
        })
    }

    pub(crate) fn user(&self, name: &str) -> UserId {
        self.store(|store| store.user_by_key(name).expect("users").expect(name).user)
    }

    pub(crate) fn add_session(&self, name: &str) -> SessionId {
        let user = self.user(name);
        let now = ServerTime::new(1_000_000).expect("a time");
        self.store(|store| store.add_session(user, &[7; 32], now, "10.0.0.1")).expect("a session")
    }

    /// Damages the file by SQL.
    pub(crate) fn damage(&self, sql: &str) {
        let db = rusqlite::Connection::open(self.data()).expect("the data file");
        db.execute_batch(&format!("PRAGMA foreign_keys = OFF; {sql}")).expect(sql);
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn run(mut command: Command, input: Option<&str>) -> Output {
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().expect("the binary starts");
    if let (Some(input), Some(mut pipe)) = (input, child.stdin.take()) {
        // A command that fails before it reads its input closes the pipe: its status says why.
        let _ = pipe.write_all(input.as_bytes());
    }
    child.wait_with_output().expect("its end")
}

/// The one line of words that a command ends with, without `vestnik: ` before it.
#[track_caller]
pub(crate) fn one_line(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let words = str::from_utf8(&output.stderr).expect("UTF-8");
    let line = words.strip_prefix("vestnik: ").and_then(|rest| rest.strip_suffix('\n'));
    let line = line.unwrap_or_else(|| panic!("not one line of ours: {words:?}"));
    assert!(!line.contains('\n') && !line.is_empty(), "{words:?}");
    line.to_owned()
}

#[track_caller]
pub(crate) fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

/// The data cells of the list's row that has this name second.
#[track_caller]
pub(crate) fn row(list: &str, name: &str) -> Vec<String> {
    let rows = list.lines().map(|line| line.split_whitespace().map(str::to_owned).collect());
    let found = rows.into_iter().find(|row: &Vec<String>| row.get(1).is_some_and(|n| n == name));
    found.unwrap_or_else(|| panic!("{name} is not in\n{list}"))
}
