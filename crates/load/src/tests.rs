//! The load generator against a small server that can cheat: each cheat must be detected.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;

use super::*;
use purpose::ids::{MessageId, ServerTime, UserId};
use purpose::wire::Version;
use purpose::wire::answer as say;
use purpose::wire::codec::{Message, Put, put_message};
use purpose::wire::decline::Decline;
use purpose::wire::extras::Extras;
use purpose::wire::frame::{self, Parsed, parse};
use purpose::wire::purpose::{ToClient, ToServer};
use purpose::wire::request::Request;

/// How the server cheats, once or every time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cheat {
    Nothing,
    LosesOne,
    SwapsTwo,
    HarmsOne,
    RepeatsOne,
    DeclinesOne,
}

struct Peer {
    stream: TcpStream,
    inbound: Vec<u8>,
    out: Vec<u8>,
    is_member: bool,
}

/// A server with one chat, which keeps all messages.
struct Fake {
    peers: Vec<Peer>,
    stored: Vec<(i64, String)>,
    cheat: Cheat,
}

/// Serves until the returned handle is dropped.
fn serve(cheat: Cheat) -> (SocketAddr, Arc<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("a socket");
    let address = listener.local_addr().expect("bound");
    let handle = Arc::new(());
    let alive = Arc::downgrade(&handle);
    std::thread::Builder::new()
        .spawn(move || {
            let mut fake = Fake { peers: Vec::new(), stored: Vec::new(), cheat };
            while alive.strong_count() > 0 {
                if let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true).expect("a socket");
                    let (inbound, out) = (Vec::new(), Vec::new());
                    fake.peers.push(Peer { stream, inbound, out, is_member: false });
                }
                if !fake.turn() {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
        })
        .expect("a thread");
    (address, handle)
}

impl Fake {
    fn turn(&mut self) -> bool {
        let mut did = false;
        for place in 0..self.peers.len() {
            let mut chunk = [0; 65536];
            if let Ok(bytes) = self.peers[place].stream.read(&mut chunk) {
                self.peers[place].inbound.extend_from_slice(&chunk[..bytes]);
                did |= bytes > 0;
            }
            let inbound = std::mem::take(&mut self.peers[place].inbound);
            let mut used = 0;
            while let Parsed::Frame(frame) = parse(&inbound[used..], 1 << 16) {
                used += frame.bytes();
                let purpose = ToServer::from_byte(frame.purpose).expect("a purpose");
                let request =
                    Request::decode(purpose, Version::V1_0, frame.body).expect("well formed");
                self.answer(place, frame.task, &request);
            }
            self.peers[place].inbound = inbound[used..].to_vec();
        }
        for peer in &mut self.peers {
            match peer.stream.write(&peer.out) {
                Ok(bytes) => drop(peer.out.drain(..bytes)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => peer.out.clear(),
            }
        }
        did
    }

    fn answer(&mut self, place: usize, task: u8, request: &Request<'_>) {
        let sent = match *request {
            Request::SendChatMsg { content, .. } => self.send(place, content),
            _ => 0,
        };
        let out = &mut self.peers[place].out;
        match *request {
            Request::Hello { major, minor } => {
                say::accepted(out, task, |body| body.put_bytes(&[major, minor]));
            }
            Request::Login { .. } => say::accepted(out, task, |body| {
                body.put_u32(1);
                body.put_str("secret");
            }),
            Request::Heartbeat { echo } => say::accepted(out, task, |body| body.put_bytes(echo)),
            Request::GetChatId { .. } => say::accepted(out, task, |body| body.put_u32(7)),
            Request::JoinChat { chat, .. } => {
                self.peers[place].is_member = true;
                say::declined(&mut self.peers[place].out, task, Decline::AlreadyMember(chat));
            }
            Request::SendChatMsg { .. } if sent == 5 && self.cheat == Cheat::DeclinesOne => {
                say::declined(out, task, Decline::StorageFailed);
            }
            Request::SendChatMsg { .. } => say::accepted(out, task, |body| {
                body.put_u64(sent as u64);
                body.put_u64(sent as u64);
            }),
            Request::RequestChatPage { before, limit, .. } => {
                let end = before.map_or(self.stored.len(), |before| before.get() as usize - 1);
                let start = end.saturating_sub(limit.into());
                let page = self.stored[start..end].to_vec();
                say::accepted(out, task, |body| {
                    page.iter().for_each(|(at, content)| put(body, *at, content));
                });
            }
            _ => say::accepted(out, task, |_| {}),
        }
    }

    /// Stores a message and notifies the other members. Returns its id.
    fn send(&mut self, from: usize, content: &str) -> i64 {
        let at = self.stored.len() as i64 + 1;
        self.stored.push((at, content.to_owned()));
        let mut sent = vec![(at, content.to_owned())];
        match (self.cheat, at) {
            (Cheat::LosesOne | Cheat::DeclinesOne, 5) => sent.clear(),
            (Cheat::SwapsTwo, 5) => sent.clear(),
            (Cheat::SwapsTwo, 6) => sent.push(self.stored[4].clone()),
            (Cheat::HarmsOne, 5) => sent[0].1.replace_range(30..31, "X"),
            (Cheat::RepeatsOne, 5) => sent.push(sent[0].clone()),
            _ => {}
        }
        for (place, peer) in self.peers.iter_mut().enumerate() {
            if place != from && peer.is_member && !sent.is_empty() {
                frame::write(&mut peer.out, ToClient::MsgNotify.byte(), 1, |body| {
                    body.put_u32(7);
                    sent.iter().for_each(|(at, content)| put(body, *at, content));
                });
            }
        }
        at
    }
}

fn put(out: &mut Vec<u8>, at: i64, content: &str) {
    let at = ServerTime::new(at).expect("positive");
    let message = Message {
        id: MessageId::at(at),
        sender: UserId::new(1).expect("not 0"),
        created: at,
        updated: at,
        status: 0,
        content,
        extras: Extras::NONE,
    };
    put_message(out, Version::V1_0, &message);
}

/// The arguments of a short run against this address.
fn args(address: SocketAddr, line: &str) -> LoadRunArgs {
    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: LoadRunArgs,
    }
    let fixed = format!("load --addr {address} --warmup 0 --seconds 1 {line}");
    Line::parse_from(fixed.split_whitespace()).run
}

/// Runs the only measurement of these arguments.
fn outcome(args: &LoadRunArgs) -> engine::Outcome {
    let plan = scenario::plans(args).expect("it can be done").swap_remove(0);
    engine::run(args, plan).expect("it runs")
}

#[test]
fn every_delivery_of_an_honest_server_is_counted() {
    let (address, _handle) = serve(Cheat::Nothing);
    let outcome = outcome(&args(address, "fanout --members 5 --publishers 2 --window 3"));
    assert_eq!(outcome.faults.reported, Vec::<String>::new());
    assert!(outcome.counters.sends > 0 && outcome.checked >= 4 * outcome.counters.sends);
    assert!(outcome.answers.len() >= outcome.counters.sends / 2);
    assert!(report::table(&outcome).contains("all there, in order, intact"));
    assert!(report::json(&outcome).contains("\"faults\":0"));
}

/// Runs against a server that cheats; the faults must contain `words`.
fn found_out(cheat: Cheat, words: &str) {
    let (address, _handle) = serve(cheat);
    let args = args(address, "fanout --members 3 --publishers 1 --window 2");
    let plan = scenario::plans(&args).expect("it can be done").swap_remove(0);
    let faults = engine::run_with_drain(&args, plan, 1).expect("it runs").faults;
    assert!(faults.reported.iter().any(|fault| fault.contains(words)), "{words}: {faults:?}");
}

#[test]
fn a_server_that_loses_a_message_is_found_out() {
    found_out(Cheat::LosesOne, "got ");
}

#[test]
fn a_server_that_swaps_messages_is_found_out() {
    found_out(Cheat::SwapsTwo, "message 5 is damaged or out of order");
}

#[test]
fn a_server_that_harms_a_message_is_found_out() {
    found_out(Cheat::HarmsOne, "message 5 is damaged or out of order");
}

#[test]
fn a_server_that_repeats_a_message_is_found_out() {
    found_out(Cheat::RepeatsOne, "message 5 is damaged or out of order");
}

#[test]
fn a_server_that_declines_a_send_is_found_out() {
    found_out(Cheat::DeclinesOne, "storage-failed");
}

#[test]
fn paced_sends_keep_their_rate_and_are_timed_from_when_they_were_due() {
    let (address, _handle) = serve(Cheat::Nothing);
    let outcome = outcome(&args(address, "rate --members 4 --publishers 2 --rate 800"));
    assert_eq!(outcome.faults.reported, Vec::<String>::new());
    let sends = outcome.counters.sends;
    assert!((150..=205).contains(&sends), "800 deliveries to 4 members are 200 sends: {sends}");
    // All members except the sender; those due within the second, however late they arrived.
    assert!((590..=600).contains(&outcome.deliveries.len()), "{}", outcome.deliveries.len());
}

#[test]
fn echoes_and_history_are_counted_and_checked() {
    let (address, _handle) = serve(Cheat::Nothing);
    for line in ["echo --connections 3 --payload 0", "echo --connections 3 --payload 64"] {
        let outcome = outcome(&args(address, line));
        assert_eq!(outcome.faults.reported, Vec::<String>::new());
        assert!(outcome.counters.echoes > 0);
    }
    let sent = outcome(&args(address, "durable --connections 2"));
    assert!(sent.counters.sends > 0);
    let read = outcome(&args(address, "history --connections 2"));
    assert_eq!(read.faults.reported, Vec::<String>::new());
    assert!(read.counters.stored > 0);
}

#[test]
fn what_cannot_work_is_refused() {
    let address = "127.0.0.1:1".parse().expect("an address");
    assert!(scenario::plans(&args(address, "fanout --payload 10")).is_err());
    assert!(scenario::plans(&args(address, "login --speak redis")).is_err());
    assert!(scenario::plans(&args(address, "login --connections 1000")).is_err());
    let args = args(address, "echo");
    let plan = scenario::plans(&args).expect("it can be done").swap_remove(0);
    assert!(engine::run(&args, plan).is_err(), "nobody listens there");
}

#[test]
fn wrong_arguments_are_explained_in_one_line() {
    let line = |words: &[&str]| match Arguments::try_parse_from(words) {
        Ok(_) => panic!("{words:?} are accepted"),
        Err(error) => one_line(&error),
    };
    assert_eq!(line(&["vestnik-load"]), "a command is missing; see --help");
    for words in [
        &["vestnik-load", "run"][..],
        &["vestnik-load", "run", "echo", "--what"],
        &["vestnik-load", "run", "nothing"],
    ] {
        let line = line(words);
        assert!(!line.contains('\n') && line.ends_with("; see --help"), "{line}");
        assert!(!line.contains("Usage"), "{line}");
    }
}
