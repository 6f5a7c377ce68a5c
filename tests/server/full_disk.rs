//! A full disk: requests that free space or restrict users work, and the server starts.

use std::fs;
use std::path::PathBuf;

use crate::support::api10::{DELETE_CHAT, DELETE_MSG};
use crate::support::api11::END_FILE;
use crate::support::client::login_body;
use crate::support::web::Http;
use crate::support::wire::*;
use crate::support::{Client, PASSWORD, Server, eventually, in_time};

/// A disk on which space is kept.
const DISK_KIB: u32 = 32 * 1024;

/// A server with three users in a group of anna's, on a disk that is full; and what fills it.
fn full(lasting: bool) -> Option<(Server, Client, u32, PathBuf)> {
    let server = match lasting {
        true => Server::on_lasting_disk(DISK_KIB, &[])?,
        false => Server::on_small_disk(DISK_KIB, &[])?,
    };
    for name in ["anna", "boris", "clara"] {
        server.add_user(name);
    }
    server.add_chat("hall", &["anna", "boris", "clara"]);
    server.add_chat("attic", &["clara"]);
    let mut anna = server.login10("anna");
    let hall = anna.chat_id("hall");
    for number in 0..20 {
        anna.send(hall, &format!("{number}"));
    }
    let ballast = server.disk().join("ballast");
    fill(&ballast);
    Some((server, anna, hall, ballast))
}

/// Takes all the space that there is.
fn fill(ballast: &PathBuf) {
    use std::io::Write;
    let mut file = fs::File::create(ballast).expect("a file");
    while file.write_all(&[1; 4096]).is_ok() {}
}

/// Sends until the server says that it cannot store.
fn send_until_declined(client: &mut Client, chat: u32) {
    for _ in 0..5000 {
        let answer = client.ask(SEND_CHAT_MSG, body().id(chat).text(&"x".repeat(8_000)));
        if answer.purpose == DECLINED {
            answer.declined("storage-failed");
            return;
        }
    }
    panic!("the disk never gets full");
}

/// While the disk is full nobody can send, and anyone who makes room or keeps somebody out can;
/// with space again all is as before, without a restart.
#[test]
fn what_makes_room_works_on_a_full_disk() {
    let Some((server, mut anna, hall, ballast)) = full(false) else { return };
    let (clara_id, first) = (anna.user_id("clara"), anna.history(hall)[0].id);
    std::thread::sleep(std::time::Duration::from_millis(500));
    let mut boris = server.login("boris");
    send_until_declined(&mut anna, hall);
    boris.hear_everything();
    // Whatever is left by now is taken by somebody else.
    let more = server.disk().join("more");
    boris.ask(SEND_CHAT_MSG, body().id(hall).text("x")).declined("storage-failed");

    anna.delete(hall, first);
    let _ = anna.set_ban(hall, clara_id, true).accepted();
    boris.ask(LOGOFF, body()).accepted();
    boris.ask(LOGIN, login_body("boris", PASSWORD)).accepted();
    for command in [
        &["user", "disable", "clara"][..],
        &["session", "list"],
        &["lockdown", "on"],
        &["chat", "remove", "attic", "--yes"],
    ] {
        let output = server.admin(command, None);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        // An older command line asks nothing.
        if stderr.contains("--yes") {
            server.admin_ok(&command[..command.len() - 1], None);
        } else {
            assert!(output.status.success(), "{command:?}: {stderr}");
        }
    }
    anna.ask(SEND_CHAT_MSG, body().id(hall).text("x")).declined("storage-failed");
    let stderr = server.stderr();
    assert!(stderr.contains("the disk is full"), "{stderr}");
    assert!(!stderr.contains("restore"), "{stderr}");

    let _ = fs::remove_file(more);
    fs::remove_file(ballast).expect("the ballast gone");
    eventually(|| anna.ask(SEND_CHAT_MSG, body().id(hall).text("space")).purpose == ACCEPTED);
    server.admin_ok(&["check"], None);
}

/// Sends fill the disk, with much in the WAL that is not checkpointed. The reserve is not spent on
/// that: small requests work long after.
#[test]
fn checkpoints_do_not_take_the_reserve() {
    let Some(server) = Server::on_small_disk(24 * 1024, &["--user-bytes-per-day", "0"]) else {
        return;
    };
    for name in ["anna", "boris", "clara"] {
        server.add_user(name);
    }
    server.add_chat("hall", &["anna", "boris", "clara"]);
    let mut anna = server.login10("anna");
    let (hall, clara) = (anna.chat_id("hall"), anna.user_id("clara"));
    let first = anna.send(hall, "first").id;
    send_until_declined(&mut anna, hall);
    // The checkpointer, woken by the last COMMITs, has had time for its work.
    std::thread::sleep(std::time::Duration::from_secs(2));
    anna.ask(SEND_CHAT_MSG, body().id(hall).text("x")).declined("storage-failed");
    assert_eq!(Http::connect(server.address()).get("/healthz", "").status, 503);

    anna.delete(hall, first);
    for is_banned in [true, false, true] {
        let _ = anna.set_ban(hall, clara, is_banned).accepted();
    }
    server.login10("boris").ask(LOGOFF, body()).accepted();
    server.admin_ok(&["user", "disable", "boris"], None);
    server.admin_ok(&["lockdown", "on"], None);
    server.admin_ok(&["lockdown", "off"], None);
    server.admin_ok(&["check"], None);
}

/// A server that was killed starts on a full disk, has everything that it accepted, and gets rid of
/// what somebody deletes.
#[test]
fn a_server_starts_on_a_full_disk() {
    let Some((mut server, mut anna, hall, _)) = full(true) else { return };
    send_until_declined(&mut anna, hall);
    let mut history = anna.history(hall);
    server.kill();
    for round in 0..2 {
        server.restart();
        let mut anna = server.login10("anna");
        assert_eq!(anna.history(hall).len(), history.len(), "round {round}");
        // The WAL that was checkpointed may have left some space.
        send_until_declined(&mut anna, hall);
        // The request that finds the disk full is declined, whatever it is; the next one works.
        let oldest = body().id(hall).u64(history[round + 1].id);
        eventually(|| anna.ask(DELETE_MSG, oldest.clone()).purpose == ACCEPTED);
        history = anna.history(hall);
        server.kill();
    }
    assert!(!server.stderr().contains("restore it"), "{}", server.stderr());
}

/// Deleting a large chat makes room for messages: the free pages of the database are returned to
/// the disk.
#[test]
fn deleting_a_chat_makes_room_for_messages() {
    let options = ["--user-bytes-per-day", "0"];
    let Some(mut server) = Server::on_lasting_disk(24 * 1024, &options) else { return };
    for name in ["anna", "boris"] {
        server.add_user(name);
    }
    server.add_chat("hall", &["anna", "boris"]);
    let mut anna = server.login10("anna");
    let (hall, attic) = (anna.chat_id("hall"), anna.create_chat("attic"));
    for number in 0..1_000 {
        anna.send(attic, &format!("{number}{}", "x".repeat(8_000)));
    }
    // The start checkpoints the WAL, so little is left to do for it on the full disk.
    server.stop_by("TERM");
    server.restart();
    let mut anna = server.login10("anna");
    fill(&server.disk().join("ballast"));
    send_until_declined(&mut anna, attic);
    eventually(|| anna.ask(DELETE_CHAT, body().id(attic)).purpose == ACCEPTED);
    in_time(|| anna.ask(SEND_CHAT_MSG, body().id(hall).text("space")).purpose == ACCEPTED);
    for number in 0..100 {
        anna.send(hall, &format!("{number}{}", "x".repeat(8_000)));
    }
    server.admin_ok(&["check"], None);
}

/// A command's change is acted on although the server cannot delete it from the database; and
/// everybody else goes on reading.
#[test]
fn a_change_takes_effect_on_a_full_disk() {
    let Some((server, mut anna, hall, ballast)) = full(false) else { return };
    send_until_declined(&mut anna, hall);
    let mut clara = server.login("clara");
    // The reserve goes to somebody else, except for what the command needs.
    let more = server.disk().join("more");
    eventually(|| {
        fill(&more);
        fs::metadata(&more).is_ok_and(|more| more.len() > 0)
    });
    eventually(|| {
        let length = fs::metadata(&ballast).expect("the ballast").len();
        let file = fs::OpenOptions::new().write(true).open(&ballast).expect("the ballast");
        file.set_len(length - 8 * 1024).expect("less ballast");
        server.admin(&["user", "disable", "clara"], None).status.success()
    });
    fill(&server.disk().join("rest"));
    clara.expect_deauth();
    for _ in 0..3 {
        let mut boris = server.greeted10();
        boris.ask(HEARTBEAT, body()).accepted();
        assert!(!anna.history(hall).is_empty());
    }
    fs::remove_file(ballast).expect("the ballast gone");
    eventually(|| anna.ask(SEND_CHAT_MSG, body().id(hall).text("space")).purpose == ACCEPTED);
    server.admin_ok(&["check"], None);
}

/// The owner of an unfinished upload can end it, and an operator can keep somebody out.
#[test]
fn uploads_can_be_ended_on_a_full_disk() {
    let options = ["--disk-reserve", "0", "--user-bytes-per-day", "0"];
    let Some(server) = Server::on_small_disk(DISK_KIB, &options) else { return };
    for name in ["anna", "clara"] {
        server.add_user(name);
    }
    server.make_operator("anna");
    server.add_chat("hall", &["anna"]);
    let mut anna = server.login11("anna");
    let (hall, clara) = (anna.chat_id("hall"), anna.user_id("clara"));
    let file = anna.begin_file(hall, 100_000, "half.txt");
    anna.put_file(file, 0, &[b'x'; 50_000]).accepted();
    let mut sender = server.login("anna");
    fill(&server.disk().join("ballast"));
    send_until_declined(&mut sender, hall);
    eventually(|| anna.ask(END_FILE, body().u64(file)).purpose == ACCEPTED);
    anna.disable(clara, true).accepted_empty();
    anna.close_chat(hall, true).accepted_empty();
}

/// After a graceful shutdown there is no WAL: a full disk need not take SQLite's shared memory.
#[test]
fn reading_commands_work_on_a_full_disk() {
    let Some(mut server) = Server::on_lasting_disk(DISK_KIB, &[]) else { return };
    server.add_user("boris");
    let (status, _) = server.stop_by("TERM");
    assert!(status.success());
    fill(&server.disk().join("more"));
    let users = server.admin_ok(&["user", "list"], None);
    assert!(users.contains("boris"), "{users}");
    server.admin_ok(&["check"], None);
    server.restart();
    eventually(|| server.stderr().contains("the disk is full"));
}
