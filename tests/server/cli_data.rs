//! Commands about the data file: who may read it, what is refused, backup, check, load prepare.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use vestnik::ids::ServerTime;
use vestnik::names::name_key;
use vestnik::store::{Database, Store};

use crate::support::folder::{Folder, has, one_line, row};

#[test]
fn only_the_owner_can_read_what_is_made() {
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

/// A copy that was killed while it was compacted leaves more than its `.partial`. The next one
/// removes the rest, once the operator has deleted that.
#[test]
fn a_backup_removes_what_an_interrupted_one_left() {
    let folder = Folder::filled();
    let left = ["-journal", "-wal", "-shm", ".new", ".new-journal"];
    for ending in left {
        std::fs::write(folder.path(&format!("copy.db.partial{ending}")), "half").expect("room");
    }
    folder.damage("CREATE TABLE t (x); INSERT INTO t VALUES (zeroblob(4000000)); DROP TABLE t");
    folder.done(&["backup", "copy.db", "--without-files"]);
    for ending in left {
        assert!(!folder.path(&format!("copy.db.partial{ending}")).exists(), "{ending}");
    }
    folder.done(&["check", "--data", "copy.db"]);
}

/// A copy never takes the name of a file that belongs to the database.
#[test]
fn a_backup_takes_no_name_of_the_databases_own_files() {
    let folder = Folder::filled();
    for ending in ["-wal", "-shm", "-journal", ".lock", ".reserve", ".sock", ".partial"] {
        let name = format!("vestnik.db{ending}");
        let is_there = folder.path(&name).exists();
        let line = folder.failed(&["backup", &name]);
        has(&line, &[&name, if is_there { "exists" } else { "another file" }]);
        assert_eq!(folder.path(&name).exists(), is_there, "{name}");
    }
    folder.done(&["backup", "vestnik.db-2026-11-30"]);
}

/// A copy that does not fit names both files, and leaves none.
#[test]
fn a_backup_without_room_names_its_files_and_leaves_none() {
    let folder = Folder::filled();
    let mut command = std::process::Command::new("sh");
    command.current_dir(&folder.0).env("VESTNIK", env!("CARGO_BIN_EXE_vestnik"));
    command.args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$VESTNIK\" backup copy.db"]);
    let line = one_line(&command.output().expect("a shell"), 1);
    has(&line, &["vestnik.db", "copy.db.partial", "ulimit"]);
    let names = fs::read_dir(&folder.0).expect("the folder");
    let names = names.map(|entry| entry.expect("a name").file_name().into_string().expect("UTF-8"));
    let left: Vec<_> = names.filter(|name| name.starts_with("copy")).collect();
    assert!(left.is_empty(), "{left:?}");
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

/// The pages of the data file, with all that was written in it.
fn pages(folder: &Folder) -> Vec<u8> {
    folder.damage("PRAGMA wal_checkpoint(TRUNCATE)");
    fs::read(folder.data()).expect("the data file")
}

/// Whatever page is damaged, a backup either holds what `check` accepts, or is not made.
#[test]
fn a_backup_of_a_damaged_database_is_not_completed() {
    let folder = Folder::filled();
    folder.add_session("anna");
    let sound = pages(&folder);
    let (mut refused, mut copied) = (0, 0);
    for page in 1..sound.len() / 4096 {
        let mut bytes = sound.clone();
        bytes[page * 4096..][..4096].fill(0);
        fs::write(folder.data(), bytes).expect("room");
        let output = folder.run(&["backup", "copy.db"], None);
        if output.status.code() == Some(0) {
            folder.done(&["check", "--data", "copy.db"]);
            fs::remove_file(folder.path("copy.db")).expect("the copy");
            copied += 1;
        } else {
            has(&one_line(&output, 1), &["damaged"]);
            assert!(!folder.path("copy.db").exists() && !folder.path("copy.db.partial").exists());
            refused += 1;
        }
    }
    assert!(refused > 40, "{refused} refused, {copied} copied");
    fs::write(folder.data(), {
        let mut bytes = sound.clone();
        bytes[root_of(&folder, &sound, "users") * 4096..][..4096].fill(0);
        bytes
    })
    .expect("room");
    has(&folder.failed(&["backup", "copy.db"]), &["`vestnik check`", "--accept-damage"]);
    folder.done(&["backup", "copy.db", "--accept-damage"]);
}

/// The index of the root page of a table of this sound file.
fn root_of(folder: &Folder, sound: &[u8], table: &str) -> usize {
    let path = folder.path("sound.db");
    fs::write(&path, sound).expect("room");
    let db = rusqlite::Connection::open(&path).expect("the file");
    let sql = "SELECT rootpage - 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    let page: u32 = db.query_row(sql, [table], |row| row.get(0)).expect("the table");
    page as usize
}

/// A large database is not read as a whole at the start, but the root page of each table is, also
/// where an index has all that a query needs.
#[test]
fn a_damaged_root_page_of_a_large_database_is_found_at_the_start() {
    let folder = Folder::filled();
    folder.add_session("anna");
    folder.damage("CREATE TABLE filler (x); INSERT INTO filler VALUES (zeroblob(18 << 20))");
    let sound = pages(&folder);
    assert!(sound.len() / 4096 > 4096);
    folder.done(&["clock", "confirm"]);
    for table in ["users", "chats", "members", "sessions", "invites", "files", "meta"] {
        let mut bytes = sound.clone();
        bytes[root_of(&folder, &sound, table) * 4096..][..4096].fill(0);
        fs::write(folder.data(), bytes).expect("room");
        has(&folder.failed(&["clock", "confirm"]), &["damaged", "backup"]);
    }
}

/// A file with the mark of vestnik's that has tables and no version, or one below zero.
#[test]
fn a_file_of_an_impossible_version_is_refused_in_one_short_line() {
    let folder = Folder::filled();
    for version in [0, -1] {
        folder.damage(&format!("PRAGMA user_version = {version}"));
        for arguments in [&["user", "list"][..], &["backup", "copy.db"], &["check"]] {
            let line = folder.failed(arguments);
            has(&line, &["this is not a vestnik data file"]);
            assert!(line.len() < 200, "{line}");
        }
    }
}

/// Tables that lack a column make a statement fail, whose text is not shown.
#[test]
fn an_error_does_not_show_sql() {
    let folder = Folder::filled();
    folder.damage("ALTER TABLE users RENAME COLUMN created TO made");
    let line = folder.failed(&["user", "list"]);
    has(&line, &["no such column"]);
    assert!(!line.contains("SELECT"), "{line}");
}

/// An empty file is a database that was truncated: no command makes a new one of it.
#[test]
fn an_empty_file_is_refused_and_stays_empty() {
    let folder = Folder::new();
    fs::write(folder.data(), "").expect("room");
    let commands: [&[&str]; 7] = [
        &["user", "list"],
        &["chat", "add", "hall"],
        &["chat", "title", "hall", "x"],
        &["invite", "add"],
        &["check"],
        &["backup", "copy.db"],
        &["serve", "--listen", "127.0.0.1:0"],
    ];
    for command in commands {
        has(&folder.failed(command), &["vestnik.db", "is empty", "restore a backup"]);
        assert_eq!(fs::metadata(folder.data()).expect("the file").len(), 0, "{command:?}");
    }
    fs::remove_file(folder.data()).expect("the file");
    folder.done(&["chat", "add", "hall"]);
    // The mode of the data file is its owner's choice from then on.
    fs::set_permissions(folder.data(), fs::Permissions::from_mode(0o640)).expect("own file");
    folder.done(&["chat", "add", "kitchen"]);
    let mode = fs::metadata(folder.data()).expect("the data file").permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
}

/// Commands that create the database at the same moment wait for each other.
#[test]
fn several_commands_may_create_the_database_at_once() {
    let folder = Folder::new();
    let started = ["a", "b", "c", "d"].map(|name| {
        let mut command = folder.command(&["chat", "add", name]);
        command.spawn().expect("a command")
    });
    for child in started {
        let output = child.wait_with_output().expect("its end");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    assert_eq!(folder.done(&["chat", "list"]).lines().count(), 5);
}

/// A database that cannot be filled does not stay behind empty.
#[test]
fn a_database_without_room_is_not_left_empty() {
    let folder = Folder::new();
    let mut command = std::process::Command::new("sh");
    command.current_dir(&folder.0).env("VESTNIK", env!("CARGO_BIN_EXE_vestnik"));
    command.args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$VESTNIK\" chat add hall"]);
    has(&one_line(&command.output().expect("a shell"), 1), &["vestnik.db", "ulimit"]);
    assert!(!folder.data().exists());
    folder.done(&["chat", "add", "hall"]);
}

/// What a process left that was killed while it created the database does not disturb the next one,
/// which in a container has the same id.
#[test]
fn a_creation_follows_one_that_was_killed() {
    let folder = Folder::new();
    let mut command = std::process::Command::new("sh");
    command.current_dir(&folder.0).env("VESTNIK", env!("CARGO_BIN_EXE_vestnik"));
    let left = "echo half > vestnik.db.new-$$; echo half > vestnik.db.new-$$-journal";
    command.args(["-c", &format!("{left}; exec \"$VESTNIK\" chat add hall")]);
    let output = command.output().expect("a shell");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let names = fs::read_dir(&folder.0).expect("the folder");
    let names = names.map(|entry| entry.expect("a name").file_name().into_string().expect("UTF-8"));
    let left: Vec<_> = names.filter(|name| name.contains(".new")).collect();
    assert!(left.is_empty(), "{left:?}");
    folder.done(&["check"]);
}

/// It does not stay there either, unless its process is still at it, or it is something else.
#[test]
fn what_killed_creations_left_is_removed() {
    let folder = Folder::new();
    let mut ended = std::process::Command::new("true").spawn().expect("a process");
    ended.wait().expect("its end");
    let gone = ended.id();
    let new = |rest: &str| folder.path(&format!("vestnik.db.new-{rest}"));
    let removed = [format!("{gone}"), format!("{gone}-journal"), format!("{gone}-wal")];
    let own = std::process::id();
    let kept = [
        format!("{own}"),
        format!("{own}-journal"),
        format!("{gone}-notes"),
        format!("x{gone}"),
        "0".to_owned(),
        String::new(),
    ];
    for name in removed.iter().chain(&kept) {
        fs::write(new(name), "half").expect("room");
    }
    folder.done(&["chat", "add", "hall"]);
    for name in removed {
        assert!(!new(&name).exists(), "{name}");
    }
    for name in kept {
        assert!(new(&name).exists(), "{name}");
    }
}

/// With a version of the format that SQLite does not know, it only reads: `check` says so, and so
/// does a command that should write.
#[test]
fn check_finds_a_header_that_forbids_writing() {
    let folder = Folder::filled();
    let mut bytes = pages(&folder);
    bytes[18] = 7;
    fs::write(folder.data(), bytes).expect("room");
    let output = folder.run(&["check"], None);
    one_line(&output, 1);
    has(str::from_utf8(&output.stdout).expect("UTF-8"), &["header", "nothing can be written"]);
    for command in [&["chat", "add", "attic"][..], &["serve", "--listen", "127.0.0.1:0"]] {
        has(&folder.failed(command), &["vestnik.db", "damaged", "header", "backup"]);
    }
}

/// A path that leads nowhere is named with the reason, in the same words everywhere.
#[test]
fn a_path_that_leads_nowhere_is_explained() {
    let folder = Folder::filled();
    let line = folder.failed(&["user", "list", "--data", "x.db"]);
    has(&line, &["x.db: no such data file", "--data", "'vestnik user add'"]);
    std::os::unix::fs::symlink("nowhere.db", folder.path("link.db")).expect("a link");
    let serve = &["serve", "--listen", "127.0.0.1:0"][..];
    for command in [&["user", "list"][..], &["chat", "add", "hall"], serve] {
        let command = [command, &["--data", "link.db"]].concat();
        has(&folder.failed(&command), &["link.db", "a link to a file that does not exist"]);
    }
    let line = folder.failed(&["user", "list", "--data", "vestnik.db/x"]);
    has(&line, &["vestnik.db/x: a part of its path is not a folder"]);
}

/// `check` does not advise to run `check`.
#[test]
fn check_of_a_file_that_cannot_be_read_at_all_advises_what_to_do() {
    let folder = Folder::filled();
    let mut bytes = pages(&folder);
    bytes[100..4096].fill(0x5a);
    fs::write(folder.data(), bytes).expect("room");
    let line = folder.failed(&["check"]);
    has(&line, &["the database is damaged", "keep a copy", "restore a backup"]);
    assert!(!line.contains("run `vestnik check`"), "{line}");
    has(&folder.failed(&["user", "list"]), &["run `vestnik check`"]);
}
