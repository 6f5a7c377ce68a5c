//! The command line: what commands do to the file, what they print, and how they fail.

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
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("vestnik-cli-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder for the test");
        Self(path)
    }

    /// A folder with a file of users anna and boris, and anna's chat hall.
    fn filled() -> Self {
        let folder = Self::new();
        for name in ["anna", "boris"] {
            folder.add_user(name);
        }
        folder.done(&["chat", "add", "hall", "--admin", "anna"]);
        folder
    }

    fn add_user(&self, name: &str) {
        let output = self.run(
            &["user", "add", name, "--password-stdin", "--password-iterations", "1"],
            Some("correct horse\n"),
        );
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn data(&self) -> PathBuf {
        self.path("vestnik.db")
    }

    /// The binary in this folder, with nothing of the caller's surroundings.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vestnik"));
        let names = std::env::vars_os().map(|(name, _)| name);
        for name in names.filter(|name| name.to_string_lossy().starts_with("VESTNIK_")) {
            command.env_remove(name);
        }
        command.current_dir(&self.0).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str], input: Option<&str>) -> Output {
        run(self.command(arguments), input)
    }

    /// What a command that succeeds prints, which is all on standard output.
    #[track_caller]
    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments, None);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
        assert_eq!(output.stderr, b"", "{arguments:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// The one line that a command fails with.
    #[track_caller]
    fn failed(&self, arguments: &[&str]) -> String {
        one_line(&self.run(arguments, None), 1)
    }

    /// The one line that shows how the arguments are wrong.
    #[track_caller]
    fn misused(&self, arguments: &[&str]) -> String {
        one_line(&self.run(arguments, None), 2)
    }

    /// Lets the test work on the file as a command does.
    fn store<T>(&self, work: impl FnOnce(&mut Store<'_>) -> T) -> T {
        let database = Database::open_command(&self.data(), false).expect("the data file");
        let mut store = Store::new(&database).expect("its tables");
        let done = work(&mut store);
        store.commit().expect("a commit");
        done
    }

    /// What was noted for a running server since the last time.
    fn changes(&self) -> Vec<Option<Change>> {
        self.store(|store| {
            let changes = store.changes(1000).expect("changes");
            if let Some((last, _)) = changes.last() {
                store.forget_changes(*last).expect("a deletion");
            }
            changes.into_iter().map(|(_, change)| change).collect()
        })
    }

    fn user(&self, name: &str) -> UserId {
        self.store(|store| store.user_by_key(name).expect("users").expect(name).user)
    }

    fn add_session(&self, name: &str) -> SessionId {
        let user = self.user(name);
        let now = ServerTime::new(1_000_000).expect("a time");
        self.store(|store| store.add_session(user, &[7; 32], now, "10.0.0.1")).expect("a session")
    }

    /// Damages the file by SQL.
    fn damage(&self, sql: &str) {
        let db = rusqlite::Connection::open(self.data()).expect("the data file");
        db.execute_batch(&format!("PRAGMA foreign_keys = OFF; {sql}")).expect(sql);
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn run(mut command: Command, input: Option<&str>) -> Output {
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
fn one_line(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let words = str::from_utf8(&output.stderr).expect("UTF-8");
    let line = words.strip_prefix("vestnik: ").and_then(|rest| rest.strip_suffix('\n'));
    let line = line.unwrap_or_else(|| panic!("not one line of ours: {words:?}"));
    assert!(!line.contains('\n') && !line.is_empty(), "{words:?}");
    line.to_owned()
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

/// The data cells of the list's row that has this name second.
#[track_caller]
fn row(list: &str, name: &str) -> Vec<String> {
    let rows = list.lines().map(|line| line.split_whitespace().map(str::to_owned).collect());
    let found = rows.into_iter().find(|row: &Vec<String>| row.get(1).is_some_and(|n| n == name));
    found.unwrap_or_else(|| panic!("{name} is not in\n{list}"))
}

// Arguments.

#[test]
fn help_and_version_go_to_standard_output() {
    let folder = Folder::new();
    has(&folder.done(&["--version"]), &["vestnik ", env!("CARGO_PKG_VERSION")]);
    has(&folder.done(&["--help"]), &["serve", "user", "chat", "backup", "Examples:"]);
    has(&folder.done(&["serve", "--help"]), &["--listen", "--tls-cert", "VESTNIK_LISTEN"]);
    has(&folder.done(&["user", "add", "--help"]), &["--password-stdin"]);
    has(&folder.done(&["help", "chat"]), &["join"]);
}

#[test]
fn wrong_usage_is_one_line_and_exit_2() {
    let folder = Folder::new();
    for (arguments, about) in [
        (&[][..], "see 'vestnik --help'"),
        (&["user"], "see 'vestnik user --help'"),
        (&["no-such-command"], "no-such-command"),
        (&["serve", "--no-such-option"], "--no-such-option"),
        (&["serve", "--lissen", "127.0.0.1:1"], "--listen"),
        (&["user", "add"], "see 'vestnik user add --help'"),
        (&["user", "add", "a", "b"], "'b'"),
        (&["user", "add", "anna", "--password-iterations", "x"], "--password-iterations"),
        (&["session", "end", "x"], "'x'"),
        (&["session", "end", "-1"], "-1"),
        (&["chat", "set", "hall"], "--slow-mode"),
        (&["chat", "set", "hall", "--slow-mode", "86401"], "86401"),
        (&["invite", "add", "--uses", "0"], "--uses"),
        (&["invite", "add", "--days", "40000"], "--days"),
        (&["load", "prepare"], "--users"),
        (&["load", "prepare", "--users", "1", "--payload", "16385"], "--payload"),
    ] {
        has(&folder.misused(arguments), &[about]);
    }
    assert!(!folder.data().exists(), "wrong usage made a file");
}

#[test]
fn serve_options_out_of_bounds_or_against_each_other_are_wrong_usage() {
    let folder = Folder::new();
    for (options, about) in [
        (&["--listen", "nonsense"][..], "nonsense"),
        (&["--listen", "localhost:7420"], "localhost"),
        (&["--listen", "0.0.0.0:0"], "allow-plaintext"),
        (&["--listen", "0.0.0.0:0", "--allow-plaintext=no"], "allow-plaintext"),
        (&["--metrics-listen", "[::]:0"], "allow-plaintext"),
        (&["--tls-listen", "127.0.0.1:0"], "tls-cert"),
        (&["--tls-cert", "c.pem"], "tls-listen"),
        (&["--registration", "perhaps"], "closed, invite, open"),
        (&["--auth-timeout", "soon"], "--auth-timeout"),
        (&["--auth-timeout", "0"], "auth-timeout"),
        (&["--password-iterations", "0"], "password-iterations"),
        (&["--max-connections", "-1"], "-1"),
        (&["--outbound-limit", "1"], "outbound-limit"),
        (&["--content-limit", "65536"], "body-limit"),
    ] {
        let arguments: Vec<_> = ["serve"].iter().chain(options).copied().collect();
        has(&folder.misused(&arguments), &[about]);
    }
    assert!(!folder.data().exists(), "wrong usage made a file");
}

#[test]
fn the_command_line_wins_over_the_environment_and_that_over_the_file() {
    let folder = Folder::new();
    let config = folder.path("vestnik.toml");
    fs::write(&config, "listen = ['10.0.0.1:1']\nallow-plaintext = true").expect("a file");
    // Each layer names an address that is refused unless plaintext is allowed, and so is notified.
    let refused = |environment: &[(&str, &str)], options: &[&str]| {
        let mut command = folder.command(&["serve", "--config"]);
        command.arg(&config).args(options).envs(environment.iter().copied());
        one_line(&run(command, None), 2)
    };
    let deny = ("VESTNIK_ALLOW_PLAINTEXT", "false");
    has(&refused(&[deny], &[]), &["10.0.0.1:1"]);
    has(&refused(&[deny, ("VESTNIK_LISTEN", "127.0.0.1:1,10.0.0.2:1")], &[]), &["10.0.0.2:1"]);
    let options = ["--allow-plaintext=false", "--listen", "10.0.0.3:1"];
    has(&refused(&[("VESTNIK_LISTEN", "10.0.0.2:1")], &options), &["10.0.0.3:1"]);
    let allow = ("VESTNIK_ALLOW_PLAINTEXT", "true");
    has(&refused(&[allow], &options), &["10.0.0.3:1"]);
}

#[test]
fn the_data_file_is_named_in_three_ways() {
    let folder = Folder::new();
    let config = folder.path("vestnik.toml");
    fs::write(&config, "data = 'of-file.db'").expect("a file");
    let missing = |environment: &[(&str, &str)], arguments: &[&str]| {
        let mut command = folder.command(arguments);
        command.envs(environment.iter().copied());
        one_line(&run(command, None), 1)
    };
    has(&missing(&[], &["user", "list"]), &["vestnik.db", "--data"]);
    has(&missing(&[], &["user", "list", "--config", "vestnik.toml"]), &["of-file.db"]);
    let environment = [("VESTNIK_DATA", "of-env.db"), ("VESTNIK_CONFIG", "vestnik.toml")];
    has(&missing(&environment[1..], &["user", "list"]), &["of-file.db"]);
    has(&missing(&environment, &["user", "list"]), &["of-env.db"]);
    has(&missing(&environment, &["--data", "before.db", "user", "list"]), &["before.db"]);
    has(&missing(&environment, &["user", "list", "--data", "after.db"]), &["after.db"]);
    has(&missing(&environment, &["user", "--data", "amid.db", "list"]), &["amid.db"]);
}

#[test]
fn a_bad_file_of_options_is_notified_with_its_line() {
    let folder = Folder::new();
    let config = folder.path("vestnik.toml");
    for (text, about) in [
        ("\nlissen = 'x'", "line 2"),
        ("listen = 'x'", "\"x\""),
        ("auth-timeout = 'soon'", "line 1"),
        ("[serve]\nlisten = '127.0.0.1:1'", "serve"),
        ("data = ", "line 1"),
    ] {
        fs::write(&config, text).expect("a file");
        let words = folder.misused(&["serve", "--config", "vestnik.toml"]);
        has(&words, &["vestnik.toml", about]);
    }
    has(&folder.misused(&["serve", "--config", "missing.toml"]), &["missing.toml"]);
}

#[test]
fn a_closed_standard_output_is_no_failure_and_a_full_one_is() {
    let folder = Folder::filled();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = folder.command(&["user", "list"]);
    command.stdout(writer);
    let output = run(command, None);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(output.stderr, b"");
    if let Ok(full) = fs::OpenOptions::new().write(true).open("/dev/full") {
        let mut command = folder.command(&["user", "list"]);
        command.stdout(full);
        has(&one_line(&run(command, None), 1), &["standard output"]);
    }
}

#[test]
fn only_the_owner_can_read_what_is_made() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::filled();
    folder.done(&["backup", "copy.db"]);
    for name in ["vestnik.db", "copy.db"] {
        let mode = fs::metadata(folder.path(name)).expect(name).permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn what_is_no_data_file_is_refused_and_left_alone() {
    let folder = Folder::new();
    let text = "shopping: milk, bread\n".repeat(300);
    fs::write(folder.data(), &text).expect("a file");
    for arguments in
        [&["user", "list"][..], &["chat", "add", "hall"], &["check"], &["backup", "copy.db"]]
    {
        has(&folder.failed(arguments), &["vestnik.db"]);
    }
    assert_eq!(fs::read_to_string(folder.data()).expect("the file"), text);
    assert!(!folder.path("copy.db").exists());
}

/// A file of two names would have two locks and two WALs: no command opens it until it has one.
#[test]
fn a_data_file_of_two_names_is_refused() {
    let folder = Folder::filled();
    fs::hard_link(folder.data(), folder.path("other.db")).expect("another name");
    for data in ["vestnik.db", "other.db"] {
        for arguments in [&["user", "list"][..], &["chat", "add", "attic"], &["check"]] {
            let arguments: Vec<_> =
                ["--data", data].into_iter().chain(arguments.to_vec()).collect();
            has(&folder.failed(&arguments), &[data, "hard link"]);
        }
    }
    fs::remove_file(folder.path("other.db")).expect("one name again");
    folder.done(&["chat", "add", "attic"]);
}

// Users.

#[test]
fn users_are_added_and_listed() {
    let folder = Folder::new();
    folder.add_user("Анна");
    folder.add_user("boris");
    let list = folder.done(&["user", "list"]);
    assert_eq!(row(&list, "Анна")[..3], ["1", "Анна", "enabled"]);
    assert_eq!(row(&list, "boris")[..3], ["2", "boris", "enabled"]);
    assert_eq!(list.lines().count(), 3);
}

#[test]
fn a_name_is_taken_in_any_case_and_composition() {
    let folder = Folder::new();
    folder.add_user("Йорик");
    let add = |name: &str| {
        let arguments = ["user", "add", name, "--password-stdin", "--password-iterations", "1"];
        one_line(&folder.run(&arguments, Some("correct horse\n")), 1)
    };
    has(&add("йорик"), &["already"]);
    has(&add("И\u{306}орик"), &["already"]);
    has(&add("two words"), &["two words"]);
    has(&add(&"x".repeat(33)), &["32"]);
    assert_eq!(folder.done(&["user", "list"]).lines().count(), 2);
}

#[test]
fn passwords_have_a_length_and_come_as_one_line() {
    let folder = Folder::new();
    let long = "x".repeat(257);
    let too_long = "x".repeat(10_000);
    for (input, about) in [
        ("", "no password"),
        ("\n", "at least 8"),
        ("1234567\n", "at least 8"),
        (&long, "at most 256"),
        (&too_long, "at most 256"),
        ("12345678\0\n", "NUL"),
    ] {
        let output = folder.run(&["user", "add", "anna", "--password-stdin"], Some(input));
        has(&one_line(&output, 1), &[about]);
    }
    assert!(!folder.data().exists(), "a failed command made a file");
    has(&folder.misused(&["user", "add", "anna"]), &["--password-stdin"]);
}

#[test]
fn everything_but_the_newline_belongs_to_the_password() {
    use vestnik::auth::password::{prepare_attempt, verify};
    let folder = Folder::new();
    let input = "  ключ от дома \r\nsecond line\n";
    let add = ["user", "add", "anna", "--password-stdin", "--password-iterations", "3"];
    assert_eq!(folder.run(&add, Some(input)).status.code(), Some(0));
    let stored = folder.store(|store| store.user_by_key("anna").expect("users").expect("anna"));
    let matches =
        |text: &str| verify(&stored.password, &prepare_attempt(text).expect("a password"));
    assert!(matches("  ключ от дома \r"));
    assert!(!matches("ключ от дома"));
    assert!(stored.password.contains("$3$"), "the rounds that were asked for");
}

#[test]
fn rounds_come_from_every_layer() {
    let folder = Folder::new();
    fs::write(folder.path("c.toml"), "password-iterations = 5").expect("a file");
    let rounds = |name: &str, environment: Option<&str>, option: Option<&str>| {
        let arguments = ["--config", "c.toml", "user", "add", name, "--password-stdin"];
        let mut command = folder.command(&arguments);
        command.envs(environment.map(|rounds| ("VESTNIK_PASSWORD_ITERATIONS", rounds)));
        command.args(option.iter().flat_map(|rounds| ["--password-iterations", rounds]));
        let output = run(command, Some("correct horse\n"));
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let user = folder.store(|store| store.user_by_key(name).expect("users").expect(name));
        vestnik::auth::password::rounds(&user.password)
    };
    assert_eq!(rounds("a", None, None), Some(5));
    assert_eq!(rounds("b", Some("6"), None), Some(6));
    assert_eq!(rounds("c", Some("6"), Some("7")), Some(7));
}

#[test]
fn a_new_password_ends_the_sessions() {
    let folder = Folder::filled();
    let (annas, boris) = (folder.user("anna"), folder.add_session("boris"));
    folder.add_session("anna");
    let before = folder.store(|store| store.user(annas).expect("users").expect("anna").password);
    folder.changes();
    let passwd = ["user", "passwd", "ANNA", "--password-stdin", "--password-iterations", "1"];
    let output = folder.run(&passwd, Some("another horse\n"));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let after = folder.store(|store| store.user(annas).expect("users").expect("anna").password);
    assert_ne!(before, after);
    let left = folder.store(|store| store.sessions(None).expect("sessions"));
    assert_eq!(left.iter().map(|session| session.session).collect::<Vec<_>>(), [boris]);
    assert_eq!(folder.changes(), [Some(Change::SessionsEnded(annas))]);
    has(&folder.failed(&["user", "passwd", "nobody", "--password-stdin"]), &["nobody"]);
}

#[test]
fn a_disabled_user_has_no_sessions_and_can_be_enabled() {
    let folder = Folder::filled();
    let anna = folder.user("anna");
    folder.add_session("anna");
    folder.changes();
    folder.done(&["user", "disable", "Anna"]);
    assert_eq!(folder.changes(), [Some(Change::SessionsEnded(anna))]);
    assert_eq!(row(&folder.done(&["user", "list"]), "anna")[2], "disabled");
    assert!(folder.store(|store| store.sessions(None).expect("sessions")).is_empty());
    folder.done(&["user", "enable", "anna"]);
    assert_eq!(row(&folder.done(&["user", "list"]), "anna")[2], "enabled");
    assert_eq!(folder.changes(), []);
    has(&folder.failed(&["user", "disable", "nobody"]), &["nobody"]);
    has(&folder.failed(&["user", "enable", &"x".repeat(1000)]), &["there is no user"]);
}

// Chats.

#[test]
fn chats_are_added_joined_and_listed() {
    let folder = Folder::filled();
    folder.done(&["chat", "join", "HALL", "Boris"]);
    let add = ["chat", "add", "Кухня", "--password-stdin", "--password-iterations", "1"];
    assert_eq!(folder.run(&add, Some("x\n")).status.code(), Some(0));
    let list = folder.done(&["chat", "list"]);
    assert_eq!(row(&list, "hall")[..4], ["1", "hall", "2", "no"]);
    assert_eq!(row(&list, "Кухня")[..4], ["2", "Кухня", "0", "yes"]);
    let (anna, boris) = (folder.user("anna"), folder.user("boris"));
    let hall = folder.store(|store| store.chat_by_key("hall").expect("chats").expect("hall").chat);
    let admin = |user| {
        folder.store(|store| store.member(hall, user).expect("members").expect("a member").admin)
    };
    assert!(admin(anna) && !admin(boris));
    let joined = [anna, boris].map(|user| Some(Change::MemberJoined(hall, user)));
    assert_eq!(folder.changes(), joined);
}

#[test]
fn chats_that_cannot_be_added_or_joined() {
    let folder = Folder::filled();
    has(&folder.failed(&["chat", "add", "Hall"]), &["already"]);
    has(&folder.failed(&["chat", "add", "no way"]), &["no way"]);
    has(&folder.failed(&["chat", "add", "x", "--admin", "nobody"]), &["nobody"]);
    assert_eq!(folder.done(&["chat", "list"]).lines().count(), 2, "nothing was half done");
    has(&folder.failed(&["chat", "join", "nowhere", "anna"]), &["nowhere"]);
    has(&folder.failed(&["chat", "join", "hall", "nobody"]), &["nobody"]);
    has(&folder.failed(&["chat", "join", "hall", "anna"]), &["already"]);
    let boris = folder.user("boris");
    folder.store(|store| {
        let hall = store.chat_by_key("hall").expect("chats").expect("hall").chat;
        store.set_banned(hall, boris, true).expect("a ban");
    });
    has(&folder.failed(&["chat", "join", "hall", "boris"]), &["banned"]);
    let output = folder.run(&["chat", "add", "y", "--password-stdin"], Some("\n"));
    has(&one_line(&output, 1), &["at least 1"]);
}

#[test]
fn policy_is_set_in_parts() {
    let folder = Folder::filled();
    let hall = folder.store(|store| store.chat_by_key("hall").expect("chats").expect("hall").chat);
    folder.changes();
    folder.done(&["chat", "set", "hall", "--slow-mode", "5"]);
    folder.done(&["chat", "set", "hall", "--keep-days", "30"]);
    assert_eq!(row(&folder.done(&["chat", "list"]), "hall")[4..6], ["5", "30"]);
    assert_eq!(folder.changes(), [Some(Change::ChatChanged(hall)); 2]);
    folder.done(&["chat", "set", "hall", "--keep-days", "0", "--slow-mode", "0"]);
    assert_eq!(row(&folder.done(&["chat", "list"]), "hall")[4..6], ["0", "0"]);
    has(&folder.failed(&["chat", "set", "nowhere", "--slow-mode", "1"]), &["nowhere"]);
}

#[test]
fn a_removed_chat_takes_its_messages_along_unless_a_server_does() {
    let folder = Folder::filled();
    let prepare = ["load", "prepare", "--users", "1", "--messages", "30", "--chat"];
    for chat in ["one", "two"] {
        folder.done(&[&prepare[..], &[chat]].concat());
    }
    let waiting = "wait to be swept";
    folder.changes();
    let one = folder.store(|store| store.chat_by_key("one").expect("chats").expect("one").chat);
    folder.done(&["chat", "remove", "One", "--yes"]);
    assert_eq!(folder.changes(), [Some(Change::ChatRemoved(one))]);
    let report = folder.done(&["check"]);
    has(&report, &["30 messages"]);
    assert!(!report.contains(waiting), "{report}");
    // What holds the file as a server does.
    let server = Database::open_server(&folder.data()).expect("the lock");
    folder.done(&["chat", "remove", "two", "--yes"]);
    has(&folder.done(&["check"]), &["0 messages", "30 rows", waiting]);
    drop(server);
    has(&folder.failed(&["chat", "remove", "two", "--yes"]), &["two"]);
}

// Sessions and invites.

#[test]
fn sessions_are_listed_and_ended() {
    let folder = Folder::filled();
    let (annas, boris) = (folder.add_session("anna"), folder.add_session("boris"));
    let list = folder.done(&["session", "list"]);
    assert_eq!(
        row(&list, "anna"),
        [&annas.to_string(), "anna", "1970-01-01T00:00:01Z", "1970-01-01T00:00:01Z", "10.0.0.1"]
    );
    assert_eq!(list.lines().count(), 3);
    assert_eq!(folder.done(&["session", "list", "Boris"]).lines().count(), 2);
    has(&folder.failed(&["session", "list", "nobody"]), &["nobody"]);
    folder.changes();
    folder.done(&["session", "end", &annas.to_string()]);
    assert_eq!(folder.changes(), [Some(Change::SessionEnded(annas))]);
    let left = folder.store(|store| store.sessions(None).expect("sessions"));
    assert_eq!(left.iter().map(|session| session.session).collect::<Vec<_>>(), [boris]);
    for id in [annas.to_string(), "0".to_owned(), u32::MAX.to_string()] {
        has(&folder.failed(&["session", "end", &id]), &["no session", &id]);
    }
}

#[test]
fn an_invite_is_printed_alone_and_works_until_removed() {
    use vestnik::auth::token::InviteCode;
    let folder = Folder::new();
    let printed = folder.done(&["invite", "add", "--uses", "3", "--days", "2"]);
    let code = InviteCode::parse(printed.trim_end()).expect("a code");
    assert_eq!(printed, format!("{}\n", code.expose()));
    let invites = folder.store(|store| store.invites().expect("invites"));
    let invite = &invites[0];
    assert_eq!(invite.uses_left, 3);
    assert_eq!(invite.expires.micros() - invite.created.micros(), 2 * 86_400 * 1_000_000);
    let is_good = || {
        let created = invite.created;
        let found = folder.store(|store| store.invite(&code.digest().0)).expect("invites");
        found.is_some_and(|invite| invite.is_good(created))
    };
    assert!(is_good());
    let list = folder.done(&["invite", "list"]);
    has(&list, &[&printed[..4], "good"]);
    assert!(!list.contains(printed.trim_end()), "a list must not let anybody in");
    folder.done(&["invite", "remove", &printed.trim_end().to_uppercase()]);
    assert!(!is_good());
    has(&folder.failed(&["invite", "remove", printed.trim_end()]), &["not known"]);
}

#[test]
fn an_invite_is_removed_by_what_the_list_shows() {
    let folder = Folder::new();
    let printed = folder.done(&["invite", "add"]);
    has(&folder.failed(&["invite", "remove", "uuuu"]), &["not known"]);
    folder.done(&["invite", "remove", &printed[..7]]);
    assert_eq!(folder.done(&["invite", "list"]).lines().count(), 1);
}

#[test]
fn a_lockdown_is_set_and_noted() {
    let folder = Folder::filled();
    folder.changes();
    let is_on = || folder.store(|store| store.lockdown().expect("meta"));
    folder.done(&["lockdown", "on"]);
    assert!(is_on());
    folder.done(&["lockdown", "off"]);
    assert!(!is_on());
    assert_eq!(folder.changes(), [Some(Change::PolicyChanged); 2]);
    has(&folder.misused(&["lockdown", "perhaps"]), &["on, off"]);
}

#[test]
fn a_certificate_is_made_once_and_shows_what_to_pin() {
    let folder = Folder::new();
    let made = folder.done(&["cert", "self-signed", "chat.lan", "10.0.0.1"]);
    assert_eq!(made.trim_end().split(':').count(), 32, "{made}");
    assert_eq!(folder.done(&["cert", "fingerprint", "cert.pem"]), made);
    has(&folder.failed(&["cert", "self-signed", "chat.lan"]), &["key.pem", "exists"]);
    has(&folder.failed(&["cert", "fingerprint", "key.pem"]), &["key.pem"]);
    has(&folder.misused(&["cert", "self-signed"]), &["<NAMES>"]);
}

#[test]
fn an_authority_issues_and_renews() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    let authority = folder.done(&["cert", "ca"]);
    assert_eq!(folder.done(&["cert", "fingerprint", "ca.crt"]), authority);
    let mode = |name: &str| {
        let file = std::fs::metadata(folder.path(name)).expect("written");
        file.permissions().mode() & 0o777
    };
    let issued = folder.done(&["cert", "issue", "chat.lan", "192.168.1.5"]);
    assert_eq!(folder.done(&["cert", "fingerprint", "cert.pem"]), issued);
    assert_eq!([mode("ca.key"), mode("key.pem")], [0o600; 2]);
    let read = |name: &str| std::fs::read(folder.path(name)).expect("a file");
    let (key, first) = (read("key.pem"), read("cert.pem"));
    has(&folder.failed(&["cert", "issue", "chat.lan"]), &["key.pem", "exists"]);
    assert_eq!(read("cert.pem"), first);
    folder.done(&["cert", "issue", "--renew", "chat.lan", "192.168.1.5"]);
    assert!(read("key.pem") == key && read("cert.pem") != first);
    let other = ["--cert", "b.pem", "--key", "b.key"];
    let outside = folder.failed(&[&["cert", "issue", "example.org"][..], &other].concat());
    has(&outside, &["ca.crt", "example.org", "vestnik cert ca"]);
    has(&folder.misused(&["cert", "issue", "chat.lan", "--days", "826"]), &["825"]);
    has(&folder.failed(&["cert", "ca", "--name", "b"]), &["ca.key", "exists"]);
}

/// A certificate that ends soon is a problem of the options, since clients will refuse it.
#[test]
fn a_certificate_that_ends_soon_is_a_problem() {
    let folder = Folder::new();
    folder.done(&["cert", "ca"]);
    let check = |days: &str| {
        let pair = ["--cert", "c.pem", "--key", "c.key"];
        let _ = std::fs::remove_file(folder.path("c.key"));
        let _ = std::fs::remove_file(folder.path("c.pem"));
        folder.done(&[&["cert", "issue", "chat.lan", "--days", days][..], &pair].concat());
        let options = "tls-listen = '127.0.0.1:0'\ntls-cert = 'c.pem'\ntls-key = 'c.key'\n";
        std::fs::write(folder.path("o.toml"), options).expect("a file");
        let mut command = folder.command(&["--config", "o.toml", "config", "check"]);
        let output = command.output().expect("it runs");
        (output.status.code(), String::from_utf8(output.stdout).expect("UTF-8"))
    };
    assert_eq!(check("30"), (Some(0), "the options are valid\n".to_owned()));
    let (code, printed) = check("10");
    has(&printed, &["c.pem expires in 9 days: renew it"]);
    assert_eq!((code, printed.lines().count()), (Some(2), 1));
}

/// What lists and shows prints one JSON value with --json.
#[test]
fn lists_are_json_when_asked() {
    use serde_json::Value;
    let folder = Folder::filled();
    folder.add_session("anna");
    folder.done(&["invite", "add", "--chat", "hall"]);
    let json = |arguments: &[&str]| -> Value {
        let printed = folder.done(&[arguments, &["--json"]].concat());
        assert_eq!(printed.lines().count(), 1, "{printed}");
        serde_json::from_str(&printed).expect("JSON")
    };
    let users = json(&["user", "list"]);
    assert_eq!((&users[0]["name"], &users[0]["id"]), (&"anna".into(), &1.into()));
    assert_eq!((&users[1]["state"], &users[1]["operator"]), (&"enabled".into(), &false.into()));
    let chats = json(&["chat", "list"]);
    assert_eq!((&chats[0]["name"], &chats[0]["members"]), (&"hall".into(), &1.into()));
    assert_eq!((&chats[0]["keep_days"], &chats[0]["closed"]), (&0.into(), &false.into()));
    let members = json(&["chat", "members", "hall"]);
    assert_eq!((&members[0]["name"], &members[0]["role"]), (&"anna".into(), &"admin".into()));
    let sessions = json(&["session", "list"]);
    assert_eq!(
        (&sessions[0]["user"], &sessions[0]["used"]),
        (&"anna".into(), &"1970-01-01T00:00:01Z".into())
    );
    assert_eq!(json(&["invite", "list"])[0]["chat"], "hall");
    assert_eq!(json(&["hook", "list"]), Value::Array(Vec::new()));
    let report = json(&["check"]);
    assert_eq!((&report["users"], &report["wrong"]), (&2.into(), &Value::Array(Vec::new())));
    let version = json(&["version"]);
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    let spoken = version["protocol"].as_array().expect("an array");
    assert_eq!((&spoken[0], spoken.last()), (&"0.1".into(), Some(&"1.1".into())));
    // Damage is listed in it, and the exit code says so, too.
    folder.damage("UPDATE chats SET member_count = 9");
    let output = folder.run(&["check", "--json"], None);
    has(&one_line(&output, 1), &["1 things are wrong"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    has(report["wrong"][0].as_str().expect("text"), &["chat 1 counts 9"]);
}

/// Completions and manual pages know every command.
#[test]
fn shells_and_man_know_the_commands() {
    let folder = Folder::new();
    for shell in ["bash", "zsh", "fish"] {
        has(&folder.done(&["completions", shell]), &["vestnik", "members", "tls-listen"]);
    }
    fs::create_dir(folder.path("man")).expect("a folder");
    folder.done(&["man", "man"]);
    for page in ["vestnik.1", "vestnik-serve.1", "vestnik-chat-members.1"] {
        let text = fs::read_to_string(folder.path("man").join(page)).expect(page);
        assert!(text.contains(".TH"), "{page}");
    }
}

// The file as a whole.

#[test]
fn a_backup_is_a_whole_file_and_overwrites_nothing() {
    let folder = Folder::filled();
    folder.done(&["backup", "copy.db"]);
    let list = folder.done(&["user", "list"]);
    assert_eq!(folder.done(&["user", "list", "--data", "copy.db"]), list);
    has(&folder.done(&["check", "--data", "copy.db"]), &["2 users", "1 chats"]);
    has(&folder.failed(&["backup", "copy.db"]), &["copy.db", "exists"]);
    has(&folder.failed(&["backup", "vestnik.db"]), &["vestnik.db", "exists"]);
    has(&folder.failed(&["backup", "no-folder/copy.db"]), &["no-folder"]);
    has(&folder.failed(&["backup", "x.db", "--data", "none.db"]), &["none.db"]);
    assert!(!folder.path("x.db").exists());
}

#[test]
fn a_backup_has_its_name_once_it_is_whole() {
    let folder = Folder::filled();
    // As one that was killed leaves it.
    std::fs::write(folder.path("copy.db.partial"), "half").expect("room");
    has(&folder.failed(&["backup", "copy.db"]), &["copy.db.partial", "exists", "remove"]);
    assert!(!folder.path("copy.db").exists());
    std::fs::remove_file(folder.path("copy.db.partial")).expect("there");
    folder.done(&["backup", "copy.db"]);
    assert!(!folder.path("copy.db.partial").exists());
    folder.done(&["check", "--data", "copy.db"]);
}

#[test]
fn commands_work_while_a_server_holds_the_file() {
    let folder = Folder::filled();
    let server = Database::open_server(&folder.data()).expect("the lock");
    let mut store = Store::new(&server).expect("a store");
    store.commit().expect("an end of looking");
    let before = store.data_version().expect("a version");
    folder.add_user("clara");
    folder.done(&["chat", "join", "hall", "clara"]);
    folder.done(&["check"]);
    folder.done(&["backup", "copy.db"]);
    assert_ne!(store.data_version().expect("a version"), before, "the server sees it");
    assert!(store.user_by_key("clara").expect("users").is_some());
}

#[test]
fn check_lists_what_is_wrong() {
    let folder = Folder::filled();
    has(&folder.done(&["check"]), &["nothing is wrong", "2 users", "1 chats", "0 messages"]);
    folder.damage(
        "UPDATE chats SET member_count = 9; UPDATE users SET name_key = 'x' WHERE user_id = 1;
         UPDATE users SET password = 'guess me' WHERE user_id = 2;",
    );
    let output = folder.run(&["check"], None);
    has(&one_line(&output, 1), &["3 things", "backup"]);
    let list = String::from_utf8(output.stdout).expect("UTF-8");
    has(&list, &["chat 1 counts 9, has 1", "key: user 1", "match: user 2"]);
    assert!(!list.contains("guess me"), "a stored password is nobody's to read");
    assert_eq!(list.lines().count(), 3);
}

#[test]
fn check_finds_damaged_pages() {
    let folder = Folder::new();
    folder.done(&["load", "prepare", "--users", "100", "--messages", "200"]);
    folder.damage("PRAGMA wal_checkpoint(TRUNCATE)");
    // Rows that an index should have and has not: only a look at all of the file shows.
    folder.damage(
        "PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = sql || ' AND 0' WHERE name = 'messages_updated';
         PRAGMA writable_schema = RESET;
         UPDATE messages SET updated = message_id + 1, status = 1;
         PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = replace(sql, ' AND 0', '') WHERE name = 'messages_updated';",
    );
    let output = folder.run(&["check"], None);
    one_line(&output, 1);
    has(str::from_utf8(&output.stdout).expect("UTF-8"), &["messages_updated"]);
}

#[test]
fn check_lists_what_is_wrong_with_a_file_that_others_refuse() {
    let folder = Folder::new();
    folder.done(&["load", "prepare", "--users", "100", "--messages", "2000"]);
    folder.damage("PRAGMA wal_checkpoint(TRUNCATE)");
    let mut bytes = std::fs::read(folder.data()).expect("the data file");
    for page in [20, 25, 30] {
        bytes[page * 4096..][..2048].fill(0x5a);
    }
    std::fs::write(folder.data(), bytes).expect("room");
    has(&folder.failed(&["user", "list"]), &["damaged", "backup"]);
    let output = folder.run(&["check"], None);
    has(&one_line(&output, 1), &["things are wrong", "backup"]);
    let list = str::from_utf8(&output.stdout).expect("UTF-8");
    assert!(list.lines().count() >= 3, "{list}");
    assert!(list.lines().all(|line| line.len() < 200), "{list}");
}

/// What is no data file is named as such before anything waits for it or stands next to it.
#[test]
fn what_is_no_file_is_refused() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("vestnik.db")).expect("a folder");
    has(&folder.failed(&["user", "list"]), &["vestnik.db", "not a regular file"]);
    has(&folder.failed(&["serve"]), &["vestnik.db", "not a regular file"]);
    assert!(!folder.path("vestnik.db.lock").exists());
}

#[test]
fn words_that_are_not_utf8_are_wrong_usage() {
    use std::os::unix::ffi::OsStrExt as _;
    let folder = Folder::new();
    let mut command = folder.command(&["user", "disable"]);
    command.arg(std::ffi::OsStr::from_bytes(b"\xff"));
    one_line(&run(command, None), 2);
}

/// A chat that was made without an admin gets one.
#[test]
fn a_member_becomes_an_admin() {
    let folder = Folder::new();
    folder.add_user("anna");
    folder.done(&["chat", "add", "hall"]);
    folder.done(&["chat", "join", "hall", "anna"]);
    has(&folder.failed(&["chat", "join", "hall", "anna"]), &["already"]);
    folder.done(&["chat", "join", "hall", "anna", "--admin"]);
    folder.store(|store| {
        let chat = store.chat_by_key("hall").expect("chats").expect("hall").chat;
        let user = store.user_by_key("anna").expect("users").expect("anna").user;
        assert!(store.member(chat, user).expect("members").expect("anna").admin);
    });
    has(&folder.failed(&["chat", "join", "hall", "anna", "--admin"]), &["already"]);
}

// Load.

#[test]
fn load_prepare_makes_users_who_are_members() {
    use vestnik::auth::password::{prepare_attempt, rounds, verify};
    let folder = Folder::new();
    folder.done(&["load", "prepare", "--users", "3"]);
    let user = folder.store(|store| store.user_by_key("load2").expect("users").expect("load2"));
    assert_eq!(rounds(&user.password), Some(1));
    assert!(verify(&user.password, &prepare_attempt("load-password").expect("a password")));
    assert_eq!(row(&folder.done(&["chat", "list"]), "load")[2], "3");
    // Again with more: what is there stays.
    folder.done(&["load", "prepare", "--users", "5", "--chat", "load", "--chat", "Other"]);
    let list = folder.done(&["chat", "list"]);
    assert_eq!((&*row(&list, "load")[2], &*row(&list, "Other")[2]), ("5", "5"));
    assert_eq!(folder.done(&["user", "list"]).lines().count(), 6);
    has(&folder.done(&["check"]), &["5 users", "2 chats"]);
}

#[test]
fn load_prepare_spreads_users_over_chats_as_the_load_does() {
    let folder = Folder::new();
    let prepare = ["load", "prepare", "--users", "5", "--chats", "2", "--spread"];
    folder.done(&[&prepare[..], &["--messages", "20"]].concat());
    let list = folder.done(&["chat", "list"]);
    assert_eq!((&*row(&list, "load")[2], &*row(&list, "load-1")[2]), ("3", "2"));
    has(&folder.done(&["check"]), &["5 users", "2 chats", "40 messages"]);
    folder.store(|store| {
        let chat = store.chat_by_key("load-1").expect("chats").expect("load-1").chat;
        let given = store.server_time().expect("a time");
        let mut senders = Vec::new();
        let walk = store.messages_updated(chat, ServerTime::ZERO, given, |message| {
            senders.push(message.sender);
            true
        });
        assert!(walk.is_ok() && senders.len() == 20);
        for sender in senders {
            assert!(store.member(chat, sender).expect("members").is_some(), "{sender:?}");
        }
    });
}

#[test]
fn load_prepare_stores_messages_below_the_times_to_come() {
    let folder = Folder::new();
    let prepare =
        &["load", "prepare", "--users", "3", "--chat", "a", "--chat", "b", "--messages", "50"];
    for _ in 0..2 {
        folder.done(&[&prepare[..], &["--payload", "64"]].concat());
    }
    has(&folder.done(&["check"]), &["200 messages"]);
    let key = name_key("a").expect("a key");
    folder.store(|store| {
        let chat = store.chat_by_key(&key).expect("chats").expect("a").chat;
        let given = store.server_time().expect("a time");
        let mut sizes = Vec::new();
        store
            .messages_updated(chat, ServerTime::ZERO, given, |message| {
                sizes.push(message.content.len());
                true
            })
            .expect("messages");
        assert_eq!(sizes, [64; 100], "all of them at or below the last time given");
    });
}

#[test]
fn load_prepare_stores_no_messages_next_to_a_server() {
    let folder = Folder::filled();
    let server = Database::open_server(&folder.data()).expect("the lock");
    let prepare = ["load", "prepare", "--users", "1"];
    has(&folder.failed(&[&prepare[..], &["--messages", "1"]].concat()), &["vestnik.db"]);
    assert_eq!(folder.done(&["user", "list"]).lines().count(), 3, "nothing was half done");
    folder.done(&prepare);
    drop(server);
}

#[test]
fn nothing_printed_has_a_hash_in_it() {
    let folder = Folder::filled();
    folder.add_session("anna");
    for arguments in [&["user", "list"][..], &["session", "list"], &["chat", "list"], &["check"]] {
        let printed = folder.done(arguments);
        assert!(!printed.contains("pbkdf2") && !printed.contains("0707"), "{printed}");
    }
}
