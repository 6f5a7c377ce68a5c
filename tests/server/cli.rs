//! The command line: arguments, layers of options, what is printed and where; certificates.

use std::fs;

use crate::support::folder::{Folder, has, one_line, run};

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
fn words_that_are_not_utf8_are_wrong_usage() {
    use std::os::unix::ffi::OsStrExt as _;
    let folder = Folder::new();
    let mut command = folder.command(&["user", "disable"]);
    command.arg(std::ffi::OsStr::from_bytes(b"\xff"));
    one_line(&run(command, None), 2);
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

/// What users have put into titles stands in JSON as escapes: exact, and nothing for a terminal.
#[test]
fn json_has_nothing_that_acts_on_a_terminal() {
    let folder = Folder::filled();
    let title = "x\u{9b}31m \u{202e}abc";
    folder.done(&["chat", "title", "hall", "plain"]);
    folder.damage(&format!("UPDATE chats SET title = '{title}'"));
    let printed = folder.done(&["chat", "list", "--json"]);
    has(&printed, &["x\\u009b31m \\u202eabc"]);
    let chats: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(chats[0]["title"], title);
}

/// A secret that could not be printed would be lost, for only its digest is stored: then nothing
/// is.
#[test]
fn a_secret_that_nobody_gets_is_not_stored() {
    let folder = Folder::filled();
    for command in [
        &["invite", "add"][..],
        &["invite", "add", "--chat", "hall", "--qr"],
        &["user", "reset", "anna"],
        &["hook", "add", "hall", "monitor"],
    ] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("a full disk");
        let mut command = folder.command(command);
        command.stdout(full);
        has(&one_line(&run(command, None), 1), &["standard output", "full", "nothing was stored"]);
    }
    assert_eq!(folder.done(&["invite", "list", "--json"]), "[]\n");
    assert_eq!(folder.done(&["hook", "list", "--json"]), "[]\n");
    assert!(!folder.done(&["user", "list"]).contains("monitor"));
    let is_reset = "SELECT count(*) FROM reset_codes";
    let db = rusqlite::Connection::open(folder.data()).expect("the data file");
    assert_eq!(db.query_row(is_reset, [], |row| row.get(0)), Ok(0));
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

/// Two data files in one command would leave it to chance which one it acts on.
#[test]
fn an_option_on_both_sides_of_the_command_has_one_value() {
    let folder = Folder::filled();
    let twice = ["--data", "vestnik.db", "user", "remove", "anna", "--yes", "--data", "b.db"];
    has(&folder.misused(&twice), &["--data", "twice", "vestnik.db", "b.db"]);
    let named = ["--config", "a.toml", "serve", "--config", "b.toml"];
    fs::write(folder.path("a.toml"), "").expect("room");
    fs::write(folder.path("b.toml"), "").expect("room");
    has(&folder.misused(&named), &["--config", "twice"]);
    folder.done(&["--data", "vestnik.db", "user", "list", "--data", "vestnik.db"]);
}

/// Paths at which the server would not start, or only without `vestnik stats`.
#[test]
fn config_check_looks_at_the_paths_of_the_options() {
    let folder = Folder::new();
    fs::create_dir(folder.path("some-folder")).expect("a folder");
    fs::write(folder.path("a-file"), "").expect("room");
    let long = format!("stats-socket = '{}'", "x".repeat(200));
    for (options, problem) in [
        ("data = 'some-folder'", "data: some-folder is not a regular file"),
        ("data = 'a-file'", "data: a-file is empty"),
        ("data = ''", "line 1: data must be the path of a file, not \"\""),
        ("stats-socket = ''", "line 1: stats-socket must be the path of a file, not \"\""),
        ("stats-socket = 'a-file'", "stats-socket: a-file is there, and is not a socket"),
        ("stats-socket = 'none/a'", "stats-socket: none/a is in no folder"),
        (&long, "its path is too long for a socket"),
    ] {
        fs::write(folder.path("o.toml"), options).expect("a file");
        let output = folder.run(&["--config", "o.toml", "config", "check"], None);
        assert_eq!(output.status.code(), Some(2), "{options}: {output:?}");
        has(str::from_utf8(&output.stdout).expect("UTF-8"), &[problem]);
    }
    fs::write(folder.path("o.toml"), "data = 'new.db'\nstats-socket = 'new.sock'").expect("a file");
    folder.done(&["--config", "o.toml", "config", "check"]);
}
