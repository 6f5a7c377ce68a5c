//! The first start: the link with which the operator creates an account.

use crate::support::Server;
use crate::support::web::Http;
use crate::support::wire::*;

/// The line of the link, if there is one.
fn line(server: &Server) -> Option<String> {
    server.stderr().lines().rfind(|line| line.starts_with("no users yet")).map(str::to_owned)
}

fn code(line: &str) -> String {
    let rest = line.split("#invite=").nth(1).expect("a code");
    rest.split(' ').next().expect("a code").to_owned()
}

fn register(server: &Server, name: &str, code: &str) -> Frame {
    let mut client = server.connect();
    client.hello(1, 0);
    let text = format!("{name}\0correct horse\0{code}\0");
    client.ask(0x30, text.into_bytes())
}

/// Anna is an operator, and the next start prints no link.
#[track_caller]
fn check_that_anna_is_the_first(server: &mut Server) {
    let mut anna = server.connect();
    anna.hello(1, 1);
    let answer = anna.ask(LOGIN, *b"anna\0correct horse\0").accepted();
    assert!(answer.last().is_some_and(|flags| flags & 1 != 0), "an operator");

    assert!(server.stop_by("TERM").0.success());
    let before = server.stderr().matches("no users yet").count();
    server.restart();
    assert_eq!(server.stderr().matches("no users yet").count(), before);
}

#[test]
fn a_server_without_users_prints_a_link_that_makes_an_operator() {
    let mut server = Server::start();
    let first = line(&server).expect("a line");
    assert!(first.contains(&format!("http://{}/#invite=", server.address())), "{first}");
    let page = Http::connect(server.address()).get("/", "").text();
    assert!(page.contains("content=\"1\""), "the page of the first run: {page}");
    // The next start makes another one, and the first is void.
    assert!(server.stop_by("TERM").0.success());
    server.restart();
    let second = line(&server).expect("a line");
    assert_ne!(code(&first), code(&second));
    assert_eq!(register(&server, "mallory", &code(&first)).purpose, DECLINED);
    // It registers although registration is closed, once.
    register(&server, "anna", &code(&second)).accepted();
    let again = register(&server, "boris", &code(&second));
    assert_eq!(again.purpose, DECLINED);
    let page = Http::connect(server.address()).get("/", "").text();
    assert!(page.contains("content=\"0\"") && !page.contains("content=\"1\""), "{page}");
    check_that_anna_is_the_first(&mut server);
}

#[test]
fn a_user_of_the_command_line_makes_the_link_void() {
    for options in [&[][..], &["--registration", "invite"]] {
        let mut server = Server::with(options);
        let code = code(&line(&server).expect("a line"));
        server.add_user("anna");
        assert_eq!(register(&server, "mallory", &code).purpose, DECLINED, "{options:?}");
        let listed = server.admin_ok(&["invite", "list", "--json"], None);
        assert_eq!(listed.trim(), "[]", "a void invite is none");
        assert!(server.stop_by("TERM").0.success());
        server.restart();
        let count: rusqlite::Result<i64> = rusqlite::Connection::open(server.data())
            .and_then(|db| db.query_row("SELECT count(*) FROM invites", [], |row| row.get(0)));
        assert_eq!(count, Ok(0), "the start removes it");
        assert_eq!(register(&server, "mallory", &code).purpose, DECLINED, "{options:?}");
    }
}

/// Bots cannot log in: the server still has no users, whether they came before the start or after.
#[test]
fn a_bot_does_not_make_the_link_void() {
    let mut server = Server::start();
    server.admin_ok(&["chat", "add", "ops"], None);
    server.admin_ok(&["hook", "add", "ops", "monitor"], None);
    let first = code(&line(&server).expect("a line"));
    assert!(server.admin_ok(&["invite", "list"], None).contains(&first[..4]));
    assert!(server.stop_by("TERM").0.success());
    server.restart();
    let second = code(&line(&server).expect("a line"));
    assert_ne!(first, second);
    let page = Http::connect(server.address()).get("/", "").text();
    assert!(page.contains("content=\"1\""), "the page of the first run: {page}");
    register(&server, "anna", &second).accepted();
    let page = Http::connect(server.address()).get("/", "").text();
    assert!(page.contains("content=\"0\""), "{page}");
    assert_eq!(register(&server, "boris", &second).purpose, DECLINED);
    check_that_anna_is_the_first(&mut server);
}

#[test]
fn an_open_server_gives_no_operators_to_old_clients() {
    // On 1.0, an invite that is none is ignored where registration needs none.
    let server = Server::with(&["--registration", "open"]);
    let code = code(&line(&server).expect("a line"));
    server.add_user("anna");
    register(&server, "boris", &code).accepted();
    let listed = server.admin_ok(&["user", "list", "--json"], None);
    let users: serde_json::Value = serde_json::from_str(&listed).expect("one JSON value");
    let operators = users.as_array().expect("an array");
    assert!(operators.iter().all(|user| user["operator"] == false), "{listed}");
}

#[test]
fn the_link_names_the_public_site() {
    let server = Server::with(&["--public-url", "https://chat.example.org"]);
    let line = line(&server).expect("a line");
    assert!(line.contains("https://chat.example.org/#invite="), "{line}");
    let server = Server::with(&["--web", "off"]);
    let line = crate::first_run::line(&server).expect("a line");
    assert!(line.contains("with the invite ") && !line.contains("http"), "{line}");
}
