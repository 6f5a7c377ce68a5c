//! Wrong uses of the command line: each gives one line (what failed, on what, what to do) and an
//! exit code.
//!
//! The lines are compared exactly, so that no change goes unnoticed.

use std::fs;
use std::net::TcpListener;

use crate::support::server::{run, vestnik};
use crate::support::{Server, TempDir};

/// One wrong use.
struct Use {
    /// Arguments, separated by spaces; `#` stands for a port that is taken, in the line as well.
    arguments: &'static str,
    /// Variables of the environment, or standard input after `<`.
    with: &'static str,
    code: i32,
    line: &'static str,
}

const fn wrong(arguments: &'static str, code: i32, line: &'static str) -> Use {
    Use { arguments, with: "", code, line }
}

const fn with(with: &'static str, arguments: &'static str, code: i32, line: &'static str) -> Use {
    Use { arguments, with, code, line }
}

/// In a folder with a database of users anna and boris and anna's group hall, and the files that
/// [`folder`] makes.
const USES: &[Use] = &[
    // Arguments.
    wrong("", 2, "a command is missing: see 'vestnik --help'"),
    wrong("user", 2, "a command is missing: see 'vestnik user --help'"),
    wrong("no-such-command", 2, "unknown command 'no-such-command'; see 'vestnik --help'"),
    wrong(
        "usr list",
        2,
        "unknown command 'usr' (some similar commands exist: 'push', 'user'); see 'vestnik --help'",
    ),
    wrong(
        "serve --lissen 127.0.0.1:1",
        2,
        "unexpected argument '--lissen' found (a similar argument exists: '--listen'); see \
         'vestnik serve --help'",
    ),
    wrong("user add", 2, "missing: <NAME>; see 'vestnik user add --help'"),
    wrong("user add a b", 2, "unexpected argument 'b' found; see 'vestnik user add --help'"),
    wrong(
        "session end x",
        2,
        "invalid value 'x' for '<ID>': it must be a whole number; see 'vestnik session end --help'",
    ),
    wrong(
        "session end -1",
        2,
        "invalid value '-1' for '<ID>': it must be a whole number from 0 to 4294967295; see \
         'vestnik session end --help'",
    ),
    wrong(
        "chat set hall",
        2,
        "missing: --slow-mode <SECONDS> or --keep-days <N>; see 'vestnik chat set --help'",
    ),
    wrong(
        "chat set hall --keep-days -1",
        2,
        "invalid value '-1' for '--keep-days <N>': it must be a whole number from 0 to 36500; see \
         'vestnik chat set --help'",
    ),
    wrong(
        "invite add --uses 0",
        2,
        "invalid value '0' for '--uses <N>': it must be a whole number from 1 to 65535; see \
         'vestnik invite add --help'",
    ),
    wrong("invite add --no-register", 2, "missing: --chat <NAME>; see 'vestnik invite add --help'"),
    wrong(
        "invite add --link",
        2,
        "a link needs the address of the browser client: set public-url, such as \
         https://chat.example.org",
    ),
    wrong(
        "lockdown perhaps",
        2,
        "invalid value 'perhaps' for '<STATE>' [possible values: on, off]; see 'vestnik lockdown \
         --help'",
    ),
    wrong(
        "stats --raw --json",
        2,
        "the argument '--raw' cannot be used with '--json'; see 'vestnik stats --help'",
    ),
    wrong(
        "load prepare --users 0",
        2,
        "invalid value '0' for '--users <N>': it must be a whole number from 1 to 10000000; see \
         'vestnik load prepare --help'",
    ),
    // Options of serve.
    wrong(
        "serve --listen localhost:7420",
        2,
        "invalid value 'localhost:7420' for '--listen <ADDR:PORT>': \"localhost:7420\" is not an \
         address with a port, such as 127.0.0.1:7420 or [::1]:7420; see 'vestnik serve --help'",
    ),
    wrong(
        "serve --listen 0.0.0.0:7420",
        2,
        "listen 0.0.0.0:7420 is not a loopback address, and passwords would cross the network in \
         the clear: use tls-listen, or set allow-plaintext",
    ),
    wrong(
        "serve --registration perhaps",
        2,
        "invalid value 'perhaps' for '--registration <WHO>' [possible values: closed, invite, \
         open]; see 'vestnik serve --help'",
    ),
    wrong("serve --auth-timeout 0", 2, "auth-timeout must be 0.1 to 86400 seconds, not 0"),
    wrong(
        "serve --auth-timeout soon",
        2,
        "invalid value 'soon' for '--auth-timeout <SECONDS>': it is not a number of seconds; see \
         'vestnik serve --help'",
    ),
    wrong(
        "serve --max-connections -1",
        2,
        "invalid value '-1' for '--max-connections <N>': it must be a whole number; see 'vestnik \
         serve --help'",
    ),
    wrong("serve --session-days 0", 2, "session-days must be 1 to 36500, not 0"),
    wrong(
        "serve --tls-listen 127.0.0.1:1",
        2,
        "tls-listen needs a certificate: set tls-cert, or domain",
    ),
    wrong("serve --tls-key key.pem", 2, "tls-key has no effect without tls-listen"),
    wrong(
        "serve --allow-plaintext=perhaps",
        2,
        "invalid value 'perhaps' for '--allow-plaintext[=<BOOL>]': it must be true or false; see \
         'vestnik serve --help'",
    ),
    // The environment.
    with(
        "VESTNIK_LISTEN=nonsense",
        "serve",
        2,
        "invalid value 'nonsense' in VESTNIK_LISTEN: \"nonsense\" is not an address with a port, \
         such as 127.0.0.1:7420 or [::1]:7420; see 'vestnik serve --help'",
    ),
    with(
        "VESTNIK_MAX_CONNECTIONS=-1",
        "serve",
        2,
        "invalid value '-1' in VESTNIK_MAX_CONNECTIONS: it must be a whole number; see 'vestnik \
         serve --help'",
    ),
    with("VESTNIK_LISTNE=127.0.0.1:0", "config check", 2, "1 problem: correct it, and check again"),
    // Files of options.
    wrong(
        "serve --config type.toml",
        2,
        "type.toml: line 2: auth-timeout must be a number of seconds, not \"soon\"",
    ),
    wrong(
        "serve --config key.toml",
        2,
        "key.toml: line 1: lissen is not an option; did you mean listen?",
    ),
    wrong("serve --config missing.toml", 2, "missing.toml: the file does not exist"),
    wrong("serve --config junk.bin", 2, "junk.bin: it is not UTF-8"),
    // What cannot be undone.
    wrong(
        "chat remove hall",
        2,
        "this deletes the chat hall and all its messages for good, and there is no terminal to \
         ask on; pass --yes to confirm",
    ),
    wrong(
        "user remove anna",
        2,
        "this removes the account anna for good, and there is no terminal to ask on; pass --yes \
         to confirm",
    ),
    wrong(
        "user purge anna",
        2,
        "this deletes all messages of anna for good, and there is no terminal to ask on; pass \
         --yes to confirm",
    ),
    // Users and passwords.
    with(
        "<correct horse",
        "user add ANNA --password-stdin",
        1,
        "there is a user \"ANNA\", or one whose name looks like it, already: choose another name",
    ),
    with(
        "<",
        "user add clara --password-stdin",
        1,
        "standard input holds no password: write it as one line",
    ),
    wrong(
        "user add clara",
        2,
        "there is no terminal to ask for a password: pass --password-stdin, and the password as \
         one line of standard input",
    ),
    wrong("user disable nobody", 1, "there is no user \"nobody\": see 'vestnik user list'"),
    wrong(
        "user rename anna boris",
        1,
        "there is a user \"boris\", or one whose name looks like it, already: choose another name",
    ),
    // Chats, sessions and invites.
    wrong("chat add hall", 1, "there is a chat \"hall\" already: choose another name"),
    wrong("chat join nowhere anna", 1, "there is no chat \"nowhere\": see 'vestnik chat list'"),
    wrong("chat join hall anna", 1, "anna is an admin of hall already"),
    with("<\n", "chat passwd hall --password-stdin", 1, "a password must not be empty"),
    wrong(
        "chat passwd hall",
        2,
        "there is no terminal to ask for a password: pass --password-stdin, and the password as \
         one line of standard input; or pass --none to remove the password",
    ),
    wrong("hook remove nosuch", 1, "there is no hook \"nosuch\": see 'vestnik hook list'"),
    wrong("hook remove anna", 1, "there is no hook \"anna\": see 'vestnik hook list'"),
    wrong(
        "hook add hall anna",
        1,
        "there is a user \"anna\", or one whose name looks like it, already: choose another name",
    ),
    wrong("chat kick hall boris", 1, "user boris is not a member of hall"),
    wrong("chat unban hall boris", 1, "user boris is not banned from hall"),
    wrong("chat open hall", 1, "chat hall is open already"),
    wrong("session end 999", 1, "there is no session 999: see 'vestnik session list'"),
    wrong("invite remove zzzz", 1, "this invite is not known: see 'vestnik invite list'"),
    // Files.
    wrong(
        "serve --data nowhere/x.db --listen 127.0.0.1:0",
        1,
        "nowhere/x.db: the folder nowhere does not exist; make it first",
    ),
    wrong(
        "backup nowhere/x.db",
        1,
        "nowhere/x.db: the folder nowhere does not exist; make it first",
    ),
    wrong("backup t.db", 1, "t.db: exists already: name a file that does not"),
    wrong(
        "import junk.txt",
        1,
        "junk.txt: line 1 is not JSON: name a file that 'vestnik export' wrote",
    ),
    wrong("import missing", 1, "cannot read missing: it does not exist"),
    wrong("check --data junk.txt", 1, "junk.txt: this is not a vestnik data file"),
    wrong("man nowhere", 1, "nowhere: the folder nowhere does not exist; make it first"),
    wrong("cert fingerprint missing", 1, "cannot read missing: it does not exist"),
    wrong(
        "cert fingerprint junk.txt",
        1,
        "no certificate in junk.txt: a PEM file with BEGIN CERTIFICATE is needed",
    ),
    with(
        "<{}",
        "import -",
        1,
        "-: line 1 is not one of an exported chat: name a file that 'vestnik export' wrote",
    ),
    // The network.
    wrong(
        "client https://chat.example.org/",
        2,
        "https://chat.example.org/ is for browsers: write wss://chat.example.org/ws, or \
         HOST:PORT",
    ),
    wrong("stats", 1, "no server answers on t.db.sock: start one, or name its database by --data"),
    wrong(
        "serve --listen 127.0.0.1:#",
        1,
        "cannot listen on 127.0.0.1:#: another program listens there; stop it, or choose \
         another port",
    ),
    wrong(
        "serve --listen 127.0.0.1:0 --metrics-listen 127.0.0.1:#",
        1,
        "cannot listen on 127.0.0.1:#: another program listens there; stop it, or choose \
         another port",
    ),
];

/// A folder with what the uses need.
fn folder() -> TempDir {
    let folder = TempDir::new();
    fs::write(folder.join("type.toml"), "listen = '127.0.0.1:0'\nauth-timeout = 'soon'\n")
        .and_then(|()| fs::write(folder.join("key.toml"), "lissen = '127.0.0.1:0'\n"))
        .and_then(|()| fs::write(folder.join("junk.txt"), "shopping: milk, bread\n".repeat(100)))
        .and_then(|()| fs::write(folder.join("junk.bin"), b"\xff\xfe\xff"))
        .expect("files of the test");
    for name in ["anna", "boris"] {
        let mut command = vestnik(folder.path());
        command.args(["user", "add", name, "--password-stdin", "--password-iterations", "1"]);
        command.args(["--data", "t.db"]);
        assert!(run(command, Some("correct horse\n")).status.success());
    }
    let mut command = vestnik(folder.path());
    command.args(["chat", "add", "hall", "--admin", "anna", "--data", "t.db"]);
    assert!(run(command, None).status.success());
    folder
}

#[test]
fn each_wrong_use_gives_its_line() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its number").port().to_string();
    assert!(USES.len() >= 40);
    let mut complaints = Vec::new();
    for Use { arguments, with, code, line } in USES {
        let mut command = vestnik(folder.path());
        command.env("VESTNIK_DATA", "t.db");
        let input = with.strip_prefix('<');
        if let Some((name, value)) = with.split_once('=').filter(|_| input.is_none()) {
            command.env(name, value);
        }
        let words = arguments.split(' ').filter(|word| !word.is_empty());
        command.args(words.map(|word| word.replace('#', &port)));
        let output = run(command, input);
        let expected = format!("vestnik: {}\n", line.replace('#', &port));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // Lines of the log come before it.
        let last = said.lines().last().map(|line| format!("{line}\n")).unwrap_or_default();
        if output.status.code() != Some(*code) || last != expected {
            complaints.push(format!(
                "{with} {arguments}:\n  expected {code}: {expected}  got {:?}: {said}",
                output.status.code()
            ));
        }
        assert!(!said.contains("os error"), "{arguments}: {said}");
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// Names with characters that they cannot have: those that people see are shown as they are.
#[test]
fn a_name_that_is_not_valid_shows_why() {
    let folder = folder();
    for (name, why) in [
        ("a b", "not spaces"),
        ("a@b", "not \"@\""),
        ("a\u{200d}b", "not U+200D"),
        ("", "a name cannot be empty"),
        (&"x".repeat(33), "at most 32"),
    ] {
        let mut command = vestnik(folder.path());
        command.args(["user", "add", name, "--password-stdin", "--data", "t.db"]);
        let output = run(command, Some("correct horse\n"));
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(why) && said.lines().count() == 1, "{name:?}: {said}");
    }
}

/// A mistyped variable does not keep the server from starting, but is named.
#[test]
fn an_unknown_variable_is_named() {
    let folder = folder();
    let mut command = vestnik(folder.path());
    command.env("VESTNIK_REGISTRATON", "open").args(["config", "check"]);
    let output = run(command, None);
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(said, "VESTNIK_REGISTRATON is not an option; did you mean VESTNIK_REGISTRATION?\n");
}

/// `config check` lists every problem at once, and says so when there is none.
#[test]
fn every_problem_of_the_options_is_listed() {
    let folder = folder();
    fs::write(
        folder.join("many.toml"),
        "session-days = 0\nlissen = 'x'\nauth-timeout = 'soon'\ncontent-limit = 65536\n",
    )
    .expect("a file");
    let mut command = vestnik(folder.path());
    command.env("VESTNIK_LISTEN", "nonsense").env("VESTNIK_LISTNE", "x");
    command.args(["config", "check", "--config", "many.toml"]);
    let output = run(command, None);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    for problem in [
        "many.toml: line 2: lissen is not an option; did you mean listen?",
        "many.toml: line 3: auth-timeout must be a number of seconds, not \"soon\"",
        "VESTNIK_LISTNE is not an option; did you mean VESTNIK_LISTEN?",
        "VESTNIK_LISTEN: \"nonsense\" is not an address with a port, such as 127.0.0.1:7420 or \
         [::1]:7420",
        "session-days must be 1 to 36500, not 0",
        "body-limit must be at least 65600, so that a content of 65536 bytes (content-limit) fits \
         into a body",
    ] {
        assert!(said.lines().any(|line| line == problem), "{problem:?} is not in\n{said}");
    }
    assert_eq!(said.lines().count(), 6, "{said}");
    let mut command = vestnik(folder.path());
    command.args(["config", "check"]);
    let output = run(command, None);
    assert_eq!(output.stdout, b"the options are valid\n");
}

/// A client that speaks TLS to a plain port, and one that nobody answers.
#[test]
fn a_client_says_what_is_wrong() {
    let server = Server::start();
    let address = server.address().to_string();
    let client = |arguments: &[&str]| {
        let mut command = vestnik(server.dir().path());
        command.arg("client").args(arguments).args(["--user", "anna", "--chat", "hall"]);
        command.arg("--password-stdin");
        let output = run(command, Some("correct horse\n"));
        (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
    };
    let (code, said) = client(&[&address, "--tls"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("it does not speak TLS there: name its TLS port"), "{said}");
    let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let (code, said) = client(&[&free.expect("a port").to_string()]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("refused") && !said.contains("os error"), "{said}");
}
