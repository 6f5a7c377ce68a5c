//! Commands about users, chats, sessions and invites: what they change, print and note.

use std::fs;

use vestnik::store::Database;
use vestnik::store::changes::Change;

use crate::support::folder::{Folder, has, one_line, row, run};

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
fn everything_but_the_end_of_the_line_belongs_to_the_password() {
    use vestnik::auth::password::{prepare_attempt, verify};
    let folder = Folder::new();
    let input = "  ключ от дома \r\nsecond line\n";
    let add = ["user", "add", "anna", "--password-stdin", "--password-iterations", "3"];
    assert_eq!(folder.run(&add, Some(input)).status.code(), Some(0));
    let stored = folder.store(|store| store.user_by_key("anna").expect("users").expect("anna"));
    let matches =
        |text: &str| verify(&stored.password, &prepare_attempt(text).expect("a password"));
    assert!(matches("  ключ от дома "));
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
    has(&one_line(&output, 1), &["must not be empty"]);
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

/// A chat that was made without an admin gets one.
#[test]
fn a_member_becomes_an_admin() {
    let folder = Folder::new();
    folder.add_user("anna");
    folder.done(&["chat", "add", "hall"]);
    folder.done(&["chat", "join", "hall", "anna"]);
    has(&folder.failed(&["chat", "join", "hall", "anna"]), &["already"]);
    let said = folder.done(&["chat", "join", "hall", "anna", "--admin"]);
    assert_eq!(said, "anna is an admin of hall\n");
    folder.store(|store| {
        let chat = store.chat_by_key("hall").expect("chats").expect("hall").chat;
        let user = store.user_by_key("anna").expect("users").expect("anna").user;
        assert!(store.member(chat, user).expect("members").expect("anna").admin);
    });
    has(&folder.failed(&["chat", "join", "hall", "anna", "--admin"]), &["already"]);
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

/// A bot has no password: neither before nor after its hook is removed, nor with another one.
#[test]
fn a_bot_gets_no_password() {
    let folder = Folder::filled();
    folder.done(&["hook", "add", "hall", "bot"]);
    let passwd = ["user", "passwd", "bot", "--password-stdin", "--password-iterations", "1"];
    let refused = |name: &str| {
        let mut passwd = passwd;
        passwd[2] = name;
        one_line(&folder.run(&passwd, Some("correct horse\n")), 1)
    };
    has(&refused("bot"), &["bot is a bot", "token"]);
    // Nor does it administer a chat, for which it had to log in.
    for command in [&["chat", "join", "hall", "bot"][..], &["chat", "add", "new"]] {
        let name = if command[1] == "add" { Some("bot") } else { None };
        let command = [command, &["--admin"], name.as_slice()].concat();
        has(&folder.failed(&command), &["bot is a bot", "admin"]);
    }
    folder.done(&["hook", "remove", "bot"]);
    has(&refused("bot"), &["bot is a bot"]);
    // One that an older version accepted goes with the next hook, as its sessions do.
    let stored = folder.store(|store| {
        let anna = store.user_by_key("anna").expect("users").expect("anna").password;
        let bot = store.user_by_key("bot").expect("users").expect("the bot").user;
        store.set_password(bot, &anna).expect("room");
        anna
    });
    folder.add_session("bot");
    folder.done(&["hook", "add", "hall", "bot"]);
    let bot = folder.store(|store| store.user_by_key("bot").expect("users").expect("the bot"));
    assert!(bot.password != stored && vestnik::auth::password::is_nobodys(&bot.password));
    assert_eq!(folder.done(&["session", "list"]).lines().count(), 1, "the heading");
}

/// What is left of a removed account holds its messages together, and is not a user again.
#[test]
fn a_removed_account_is_not_brought_back() {
    let folder = Folder::filled();
    folder.done(&["user", "remove", "boris", "--yes"]);
    let passwd = ["user", "passwd", "deleted-2", "--password-stdin", "--password-iterations", "1"];
    let line = one_line(&folder.run(&passwd, Some("correct horse\n")), 1);
    has(&line, &["deleted-2 was removed", "add a user"]);
    for command in [
        &["user", "enable", "deleted-2"][..],
        &["user", "rename", "deleted-2", "boris"],
        &["user", "set", "deleted-2", "--operator", "on"],
        &["chat", "join", "hall", "deleted-2"],
        &["chat", "join", "hall", "deleted-2", "--admin"],
    ] {
        has(&folder.failed(command), &["deleted-2 was removed"]);
    }
    // Nobody else gets a login of that form, or one that looks like it.
    folder.add_user("clara");
    for name in ["deleted-3", "DELETED-3", "deleted-3-2", "deIeted-3", "deleted-lO"] {
        let add = ["user", "add", name, "--password-stdin", "--password-iterations", "1"];
        has(&one_line(&folder.run(&add, Some("correct horse\n")), 1), &[name, "already"]);
        has(&folder.failed(&["user", "rename", "clara", name]), &[name, "already"]);
    }
    for name in ["deleted", "deleted-", "deleted-3x", "deleted-3-2-1", "undeleted-3"] {
        folder.done(&["user", "rename", "clara", name]);
        folder.done(&["user", "rename", name, "clara"]);
    }
    // One of before, with a password, is a user like any other.
    folder.damage(
        "UPDATE users SET nickname = 'deleted-3', name_key = 'deleted-3' WHERE user_id = 3",
    );
    folder.done(&["user", "disable", "deleted-3"]);
    folder.done(&["user", "enable", "deleted-3"]);
}
