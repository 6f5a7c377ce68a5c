//! Runs the protocol tests again over each of the other transports.

use std::process::Command;

/// Tests of the protocol by their modules, and those among them that count connections, which those
/// of a browser do apart.
const MODULES: [&str; 5] = ["api01_", "api10_", "api11_", "arbitrary::", "unread::"];
const PLAIN_ALONE: [&str; 3] = [
    "connections_are_limited",
    "sixty_four_unauthorized_connections_by_default",
    "unauthorized_connections_of_an_address_are_limited",
];

#[test]
fn the_tests_of_the_protocol_pass_over_websocket() {
    pass_over("ws");
}

#[test]
fn the_tests_of_the_protocol_pass_over_websocket_with_tls() {
    pass_over("wss");
}

fn pass_over(transport: &str) {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(MODULES).env("VESTNIK_TEST_TRANSPORT", transport);
    for name in PLAIN_ALONE {
        command.args(["--skip", name]);
    }
    if transport == "wss" {
        // The tunnel of the tests reads ahead, so that its consumer is not slow.
        command.args(["--skip", "a_slow_consumer_gets_the_message"]);
    }
    let output = command.output().expect("the tests run");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let run = text.lines().find(|line| line.starts_with("test result: ok.")).expect("a result");
    let passed: u32 = run.split(' ').nth(3).and_then(|count| count.parse().ok()).expect("a count");
    assert!(passed > 100, "only {passed} tests ran");
}
