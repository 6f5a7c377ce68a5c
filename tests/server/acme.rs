//! ACME certificates: runs `scripts/acme-check.py` against pebble, if it is installed.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

/// `config check` knows a certificate whose renewal fails, and the file of the authority's own.
#[test]
fn a_renewal_that_fails_is_a_problem() {
    let folder = TempDir::new();
    let does = |arguments: &[&str]| {
        let mut command = vestnik(folder.path());
        command.args(arguments);
        let output = run(command, None);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let kept = folder.join("vestnik.db.acme/a.example_dir");
    fs::create_dir_all(&kept).expect("a folder");
    let options = "domain = 'chat.example'\nacme-directory = 'https://a.example/dir'\n";
    fs::write(folder.join("o.toml"), options).expect("a file");
    // A pair of 90 days, of which these are left.
    let check = |left_days: u32| {
        let day = Duration::from_secs(24 * 60 * 60);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after the epoch");
        let mut params =
            rcgen::CertificateParams::new(["chat.example".to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + (now - day * (90 - left_days));
        params.not_after = params.not_before + day * 90;
        let key = rcgen::KeyPair::generate().expect("a key");
        let made = params.self_signed(&key).expect("a certificate");
        fs::write(kept.join("chat.example.pem"), key.serialize_pem() + &made.pem()).expect("kept");
        does(&["--config", "o.toml", "config", "check"])
    };
    assert_eq!(check(20), (Some(0), "the options are valid\n".to_owned()));
    let (code, printed) = check(10);
    assert_eq!(code, Some(2));
    assert!(printed.contains("chat.example.pem has 9 days left and is not renewed"), "{printed}");
    fs::write(folder.join("o.toml"), options.to_owned() + "acme-ca = 'none.pem'\n")
        .expect("a file");
    let (_, printed) = does(&["--config", "o.toml", "config", "check"]);
    assert!(printed.contains("cannot read none.pem: it does not exist"), "{printed}");
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
