//! Certificates from an ACME authority: `scripts/acme-check.py` against pebble, where it is
//! installed.

use std::path::Path;
use std::process::Command;

use crate::support::TempDir;
use crate::support::server::{run, vestnik};

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).exists())
}

/// Issue, and what is wrong with a name; that nothing is asked for without `--domain`. Renewals
/// under load and restarts take minutes: the script does them, too.
#[test]
fn an_authority_issues_a_certificate() {
    for program in ["pebble", "pebble-challtestsrv", "python3"] {
        if !is_installed(program) {
            println!("skipped: {program} is missing");
            return;
        }
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/acme-check.py");
    let mut command = Command::new("python3");
    command.arg(script).args(["--binary", env!("CARGO_BIN_EXE_vestnik")]);
    let output = command.args(["issue", "wrong", "idle"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    println!("{}", String::from_utf8_lossy(&output.stdout));
}

/// What is wrong with the options is an error before anything is asked for.
#[test]
fn options_of_an_authority_are_checked() {
    let folder = TempDir::new();
    for (wrong, about) in [
        (&["--domain", "chat"][..], "chat.example.org"),
        (&["--domain", "a.example", "--acme-directory", "http://a"], "http://a"),
        (&["--domain", "a.example", "--tls-cert", "c", "--tls-key", "k"], "contradicts domain"),
        (&["--acme-contact", "a@b.c"], "has no effect without domain"),
    ] {
        let mut command = vestnik(folder.path());
        command.arg("serve").args(wrong);
        let output = run(command, None);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(about), "{said}");
    }
}
