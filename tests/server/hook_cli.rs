//! `vestnik hook`: adding, listing and removing bots.

use crate::support::Server;

#[test]
fn a_hook_is_added_listed_and_removed() {
    let server = Server::start();
    server.admin_ok(&["chat", "add", "ops"], None);
    let token = server.admin_ok(&["hook", "add", "ops", "monitor"], None);
    let token = token.trim_end();
    assert_eq!(token.len(), 64, "{token}");
    assert!(token.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')), "{token}");
    let link = ["hook", "add", "ops", "builder", "--link", "--public-url", "https://c.example/"];
    let link = server.admin_ok(&link, None);
    let second = link.trim_end().strip_prefix("https://c.example/hook/").expect("a URL");
    assert_ne!(token, second);
    let list = server.admin_ok(&["hook", "list"], None);
    assert!(list.contains("monitor") && list.contains("builder") && list.contains("ops"), "{list}");
    assert!(!list.contains(token) && !list.contains(second), "{list}");
    // The token is nowhere in the data.
    let data = std::fs::read(server.data()).expect("the data file");
    assert!(!data.windows(64).any(|bytes| bytes == token.as_bytes()));

    let json = server.admin_ok(&["hook", "list", "--json"], None);
    let hooks: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(hooks[0]["name"], "builder");
    let members = server.admin_ok(&["chat", "members", "ops"], None);
    assert!(members.contains("monitor"), "{members}");

    server.admin_ok(&["hook", "remove", "Monitor"], None);
    let list = server.admin_ok(&["hook", "list"], None);
    assert!(!list.contains("monitor"), "{list}");
    let users = server.admin_ok(&["user", "list"], None);
    let row = users.lines().find(|line| line.contains("monitor")).expect("its user stays");
    assert!(row.contains("disabled"), "{row}");
    // The same name can write again, with another token.
    let again = server.admin_ok(&["hook", "add", "ops", "monitor"], None);
    assert_ne!(again.trim_end(), token);
}

#[test]
fn what_is_wrong_with_a_hook_is_one_line() {
    let server = Server::start();
    server.admin_ok(&["chat", "add", "ops"], None);
    server.add_user("anna");
    server.admin_ok(&["hook", "add", "ops", "monitor"], None);
    for (arguments, about) in [
        (&["hook", "add", "ops", "anna"][..], "there is a user"),
        (&["hook", "add", "ops", "monitor"], "there is a hook"),
        (&["hook", "add", "nowhere", "other"], "no chat"),
        (&["hook", "add", "ops", "two words"], "name"),
        (&["hook", "remove", "anna"], "no hook"),
        (&["hook", "add", "ops", "other", "--link"], "--public-url"),
    ] {
        let output = server.admin(arguments, None);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{arguments:?}");
        assert!(error.contains(about) && error.lines().count() == 1, "{arguments:?}: {error}");
    }
}
