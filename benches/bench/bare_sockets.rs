//! What the system takes for an echo, whatever program answers it: a loop that reads the bytes of
//! 16 HEARTBEATs from each of 50 WebSockets and writes those of their answers, without looking at
//! them. No server that reads and writes each connection once a turn can be faster.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::files::is_measuring;

/// As in `scripts/compare-ws.sh`: connections,
const CONNECTIONS: usize = 50;
/// requests in flight on each,
const WINDOW: u64 = 16;
/// and bytes of that many requests and answers, each in one WebSocket message.
const REQUEST_BYTES: usize = 102;
const ANSWER_BYTES: usize = 98;

/// Prints how many echoes a second of the server's CPU allows.
pub(crate) fn run() {
    let time = Duration::from_millis(if is_measuring() { 4_000 } else { 50 });
    let listener = TcpListener::bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = thread::spawn(move || serve(listener));
    let until = Instant::now() + time;
    let peers = (0..CONNECTIONS).map(|_| connect(address)).collect();
    turns(peers, [ANSWER_BYTES, REQUEST_BYTES], || Instant::now() < until);
    let (echoes, cpu_s) = server.join().expect("the server ends");
    println!("bare sockets: {:.0} echoes per CPU-second", echoes as f64 / cpu_s);
}

/// Answers until all peers have gone. Returns the echoes and the CPU seconds of this thread.
fn serve(listener: TcpListener) -> (u64, f64) {
    let mut peers = Vec::new();
    while peers.len() < CONNECTIONS {
        match listener.accept() {
            Ok((socket, _)) => peers.push(ready(socket)),
            Err(e) if e.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(1)),
            Err(e) => panic!("{e}"),
        }
    }
    let begun_s = cpu_s();
    let rounds = turns(peers, [REQUEST_BYTES, ANSWER_BYTES], || true);
    (rounds * WINDOW, cpu_s() - begun_s)
}

/// A connected peer that has sent its first requests.
fn connect(address: SocketAddr) -> TcpStream {
    let socket = std::net::TcpStream::connect(address).expect("a connection");
    (&socket).write_all(&[0; REQUEST_BYTES]).expect("a write");
    socket.set_nonblocking(true).expect("a mode");
    ready(TcpStream::from_std(socket))
}

fn ready(socket: TcpStream) -> TcpStream {
    socket.set_nodelay(true).expect("an option");
    socket
}

/// Reads `sizes[0]` bytes and then writes `sizes[1]`, for each connection that is ready, while
/// `goes_on` and somebody is left. Returns how often it wrote.
fn turns(mut peers: Vec<TcpStream>, sizes: [usize; 2], goes_on: impl Fn() -> bool) -> u64 {
    let mut poll = Poll::new().expect("a poll");
    let mut events = Events::with_capacity(1_024);
    for (i, peer) in peers.iter_mut().enumerate() {
        poll.registry().register(peer, Token(i), Interest::READABLE).expect("an entry");
    }
    let (mut buffer, output) = (vec![0; 64 * 1_024], vec![0; sizes[1]]);
    let mut read = vec![0; peers.len()];
    let (mut left, mut writes) = (peers.len(), 0);
    while left > 0 && goes_on() {
        poll.poll(&mut events, Some(Duration::from_secs(10))).expect("events");
        for event in &events {
            let Token(i) = event.token();
            match peers[i].read(&mut buffer) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => left -= 1,
                Ok(bytes) => read[i] += bytes,
            }
        }
        for event in &events {
            let Token(i) = event.token();
            if read[i] >= sizes[0] {
                read[i] -= sizes[0];
                // The other side may have gone.
                writes += u64::from(peers[i].write(&output).is_ok());
            }
        }
    }
    writes
}

/// CPU seconds of this thread.
fn cpu_s() -> f64 {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").expect("statistics");
    let on_cpu_ns = stat.split(' ').next().and_then(|ns| ns.parse::<f64>().ok());
    on_cpu_ns.expect("a number") / 1e9
}
