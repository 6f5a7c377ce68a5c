//! TLS tested with other implementations: a scan by openssl for old versions and weak suites, and
//! connections by openssl and Python.
//!
//! The scan offers everything that the installed openssl supports, at its lowest security level.
//! Without openssl or python3, a line says that nothing was tested.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::server::{run, vestnik};
use crate::support::wire::{ACCEPTED, DISCONNECT, Frame, HELLO};
use crate::support::{Server, TempDir};

/// All suites that there are.
const EVERYTHING: &str = "ALL:COMPLEMENTOFALL:@SECLEVEL=0";

/// The suites of TLS 1.2 that the server may take, for either kind of key.
const STRONG_12: [[&str; 3]; 2] = [
    [
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    ],
    ["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305"],
];

const STRONG_13: [&str; 3] =
    ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];

/// Whether a program can be run; says so when not.
fn is_there(program: &str, version: &str) -> bool {
    let tried = Command::new(program).arg(version).output();
    let is_there = tried.is_ok_and(|output| output.status.success());
    if !is_there {
        eprintln!("{program} is not installed: nothing is tested");
    }
    is_there
}

/// Pairs of certificate and key: with a key on an elliptic curve, as `vestnik cert` makes it, and
/// with one of RSA, made by openssl.
fn pairs() -> [TempDir; 2] {
    let curve = TempDir::new();
    let mut command = vestnik(curve.path());
    command.args(["cert", "self-signed", "localhost"]);
    assert!(run(command, None).status.success());
    let rsa = TempDir::new();
    let made = Command::new("openssl")
        .current_dir(rsa.path())
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "7"])
        .args(["-subj", "/CN=localhost", "-keyout", "key.pem", "-out", "cert.pem"])
        .output()
        .expect("openssl runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    [curve, rsa]
}

fn serve(pair: &Path) -> Server {
    let (cert, key) = (pair.join("cert.pem"), pair.join("key.pem"));
    Server::with(&[
        "--tls-listen",
        "127.0.0.1:0",
        "--tls-cert",
        cert.to_str().expect("UTF-8"),
        "--tls-key",
        key.to_str().expect("UTF-8"),
        "--max-unauthorized-per-address",
        "0",
    ])
}

fn tls_address(server: &Server) -> SocketAddr {
    let lines = server.addresses();
    *lines.last().expect("a TLS listener")
}

/// What openssl says of a handshake, on either of its outputs.
fn handshake(server: &Server, options: &[&str]) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &tls_address(server).to_string()])
        .args(options)
        .stdin(std::process::Stdio::null())
        .output()
        .expect("openssl runs");
    let Output { stdout, stderr, .. } = output;
    String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned()
}

/// A client that can do TLS 1.1 at most is refused by an alert of the server, whatever suites it
/// offers.
#[test]
fn old_versions_are_refused() {
    if !is_there("openssl", "version") {
        return;
    }
    for pair in pairs() {
        let server = serve(pair.path());
        let mut tried = 0;
        for version in ["-ssl3", "-tls1", "-tls1_1"] {
            let said = handshake(&server, &[version, "-cipher", EVERYTHING]);
            if said.contains("no protocols available") || said.contains("nknown option") {
                eprintln!("this openssl cannot do {version}: it is not tried");
                continue;
            }
            tried += 1;
            let alerts = ["alert protocol version", "alert handshake failure"];
            assert!(alerts.iter().any(|alert| said.contains(alert)), "{version}: {said}");
            assert!(said.contains("Cipher is (NONE)"), "{version}: {said}");
        }
        let said = handshake(&server, &["-tls1_2", "-cipher", EVERYTHING]);
        assert!(said.contains("New, TLSv1.2, Cipher is ECDHE-"), "after {tried}: {said}");
    }
}

/// One by one the strong suites of TLS 1.2 are taken; of all others together, none is.
#[test]
fn only_strong_suites_are_taken() {
    if !is_there("openssl", "version") {
        return;
    }
    for (pair, strong) in pairs().iter().zip(STRONG_12) {
        let server = serve(pair.path());
        for suite in strong {
            let said = handshake(&server, &["-tls1_2", "-cipher", suite]);
            let taken = format!("New, TLSv1.2, Cipher is {suite}");
            assert!(said.contains(&taken), "{suite}: {said}");
            assert!(said.contains("Compression: NONE"), "{suite}: {said}");
        }
        let others = strong.map(|suite| format!(":!{suite}")).concat();
        let others = EVERYTHING.replace(":@", &format!("{others}:@"));
        let said = handshake(&server, &["-tls1_2", "-cipher", &others]);
        assert!(said.contains("alert handshake failure"), "{others}: {said}");
        assert!(said.contains("Cipher is (NONE)"), "{others}: {said}");
    }
}

/// The same of TLS 1.3, where the short tags of CCM are what is weakest.
#[test]
fn only_strong_suites_of_1_3_are_taken() {
    if !is_there("openssl", "version") {
        return;
    }
    let [pair, _] = pairs();
    let server = serve(pair.path());
    for suite in STRONG_13 {
        let said = handshake(&server, &["-tls1_3", "-ciphersuites", suite]);
        assert!(said.contains(&format!("New, TLSv1.3, Cipher is {suite}")), "{suite}: {said}");
        assert!(!said.contains("Early data was accepted"), "{said}");
    }
    let weak = "TLS_AES_128_CCM_SHA256:TLS_AES_128_CCM_8_SHA256";
    let said = handshake(&server, &["-tls1_3", "-ciphersuites", weak]);
    assert!(said.contains("alert handshake failure"), "{said}");
}

/// HELLO, then DISCONNECT.
fn conversation() -> Vec<u8> {
    [Frame::new(HELLO, 1, [0, 1]).encode(), Frame::new(DISCONNECT, 0, []).encode()].concat()
}

fn answer() -> Vec<u8> {
    Frame::new(ACCEPTED, 1, [0, 1]).encode()
}

/// openssl carries a HELLO there and its answer back, by both versions.
#[test]
fn openssl_talks_to_the_server() {
    if !is_there("openssl", "version") {
        return;
    }
    let [pair, _] = pairs();
    let server = serve(pair.path());
    let address = tls_address(&server).to_string();
    let said = pair.join("said");
    fs::write(&said, conversation()).expect("written");
    for version in ["-tls1_2", "-tls1_3"] {
        let output = Command::new("openssl")
            .args(["s_client", "-quiet", "-verify_return_error", version])
            .args(["-connect", &address, "-servername", "localhost", "-CAfile"])
            .arg(pair.join("cert.pem"))
            .stdin(fs::File::open(&said).expect("a file"))
            .output()
            .expect("openssl runs");
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.stdout, answer(), "{version}: {words}");
    }
}

/// So does Python's ssl.
#[test]
fn python_talks_to_the_server() {
    const TALK: &str = "
import socket, ssl, sys
port, trusted, version, said = sys.argv[1:]
context = ssl.create_default_context(cafile=trusted)
context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
plain = socket.create_connection(('127.0.0.1', int(port)), 20)
with context.wrap_socket(plain, server_hostname='localhost', suppress_ragged_eofs=False) as talk:
    talk.sendall(bytes.fromhex(said))
    heard = b''
    while piece := talk.recv(4096):
        heard += piece
print(heard.hex(), end='')
";
    if !is_there("python3", "-V") {
        return;
    }
    let pair = TempDir::new();
    let mut command = vestnik(pair.path());
    command.args(["cert", "self-signed", "localhost"]);
    assert!(run(command, None).status.success());
    let server = serve(pair.path());
    let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    for version in ["TLSv1_2", "TLSv1_3"] {
        let output = Command::new("python3")
            .args(["-c", TALK, &tls_address(&server).port().to_string()])
            .arg(pair.join("cert.pem"))
            .args([version, &hex(conversation())])
            .output()
            .expect("python3 runs");
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        let heard = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(heard, hex(answer()), "{version}: {words}");
    }
}
