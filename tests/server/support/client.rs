//! A connection to the server, frame by frame, with helpers that read like the protocol.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::PASSWORD;
use super::web::Layer;
use super::wire::*;

/// How long a test waits for bytes that must come.
const READ_WAIT: Duration = Duration::from_secs(20);

/// What LOGIN gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Session {
    pub(crate) id: u32,
    pub(crate) hash: String,
}

/// One end of a conversation. Requests of the server (notifications, DEAUTH, HEARTBEAT,
/// DISCONNECT) that come while an answer is waited for are kept in the inbox.
pub(crate) struct Client {
    stream: TcpStream,
    /// The connection goes through a WebSocket.
    web: Option<Layer>,
    buffer: Vec<u8>,
    inbox: VecDeque<Frame>,
    last_task: u8,
    waiting: VecDeque<u8>,
    /// Purposes of the server that this test does not want to hear of.
    deaf_to: Vec<u8>,
    /// HELLO gave 1.1.
    is_11: bool,
    nonce: u64,
}

impl Client {
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).expect("a connection"))
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        let mut stream = super::tunnel::through(stream);
        stream
            .set_read_timeout(Some(READ_WAIT))
            .and_then(|()| stream.set_write_timeout(Some(READ_WAIT)))
            .and_then(|()| stream.set_nodelay(true))
            .expect("socket options");
        let web = Layer::begin(&mut stream);
        Self {
            stream,
            web,
            buffer: Vec::new(),
            inbox: VecDeque::new(),
            last_task: 0,
            waiting: VecDeque::new(),
            deaf_to: Vec::new(),
            is_11: false,
            nonce: 0,
        }
    }

    pub(crate) fn is_11(&self) -> bool {
        self.is_11
    }

    /// A reader of structures of the version that is spoken.
    pub(crate) fn reader<'a>(&self, bytes: &'a [u8]) -> Reader<'a> {
        Reader::of(self.is_11, bytes)
    }

    /// A nonce that this connection did not use yet.
    pub(crate) fn next_nonce(&mut self) -> u64 {
        self.nonce += 1;
        u64::from(self.stream.local_addr().expect("an address").port()) << 32 | self.nonce
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Lets little wait in the kernel while this end does not read. By itself the buffer of a
    /// socket grows with what comes, to as much as the system allows.
    pub(crate) fn take_little(&self, bytes: usize) {
        SockRef::from(&self.stream).set_recv_buffer_size(bytes).expect("a socket option");
    }

    // Bytes and frames.

    /// Writes raw bytes as they are.
    #[track_caller]
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let wrapped = self.web.as_ref().map(|web| web.wrap(bytes));
        self.stream.write_all(wrapped.as_deref().unwrap_or(bytes)).expect("written bytes");
    }

    /// Writes one frame with a task of the test's choice.
    #[track_caller]
    pub(crate) fn write_frame(&mut self, purpose: u8, task: u8, body: impl Into<Vec<u8>>) {
        let bytes = Frame::new(purpose, task, body).encode();
        self.write(&bytes);
    }

    /// Ends this side of the stream.
    #[track_caller]
    pub(crate) fn end_writing(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("a shutdown");
    }

    /// The next frame whatever it is; `None` at the end of the stream.
    #[track_caller]
    pub(crate) fn next_frame(&mut self) -> Option<Frame> {
        if let Some(frame) = self.inbox.pop_front() {
            return Some(frame);
        }
        self.read_frame()
    }

    #[track_caller]
    fn read_frame(&mut self) -> Option<Frame> {
        loop {
            match self.try_read_frame() {
                Ok(Some(frame)) if !frame.is_answer() && self.deaf_to.contains(&frame.purpose) => {}
                Ok(frame) => return frame,
                Err(error) => panic!("no frame: {error}"),
            }
        }
    }

    /// From now on frames of the server with that purpose are taken and forgotten.
    pub(crate) fn ignore(&mut self, purpose: u8) {
        self.deaf_to.push(purpose);
        self.inbox.retain(|frame| frame.purpose != purpose);
    }

    /// From now on every frame of the server is heard again.
    pub(crate) fn hear_everything(&mut self) {
        self.deaf_to.clear();
    }

    fn try_read_frame(&mut self) -> std::io::Result<Option<Frame>> {
        let mut chunk = [0; 64 * 1024];
        loop {
            if let Some(frame) = Frame::take(&mut self.buffer) {
                return Ok(Some(frame));
            }
            let count = match self.stream.read(&mut chunk) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                count => count?,
            };
            if count == 0 {
                assert!(self.buffer.is_empty(), "the stream ended inside a frame");
                return Ok(None);
            }
            self.take(&chunk[..count]);
        }
    }

    /// Bytes that came.
    fn take(&mut self, bytes: &[u8]) {
        match &mut self.web {
            Some(web) => web.unwrap(bytes, &mut self.buffer),
            None => self.buffer.extend_from_slice(bytes),
        }
    }

    /// Every whole frame up to the end of the stream, however that came: for servers that die.
    pub(crate) fn frames_until_broken(&mut self) -> Vec<Frame> {
        self.frames_until(usize::MAX)
    }

    /// The next `count` frames, or fewer if the stream ends, however it does.
    pub(crate) fn frames_until(&mut self, count: usize) -> Vec<Frame> {
        let mut frames: Vec<Frame> = self.inbox.drain(..).collect();
        let mut chunk = [0; 64 * 1024];
        loop {
            while let Some(frame) = Frame::take(&mut self.buffer) {
                frames.push(frame);
            }
            if frames.len() >= count {
                return frames;
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return frames,
                Ok(count) => self.take(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return frames,
                Err(error) => panic!("neither bytes nor an end: {error}"),
            }
        }
    }

    /// The server must end the stream now, without another byte.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        if let Some(frame) = self.next_frame() {
            panic!("a frame after the end: {frame:?}");
        }
    }

    /// DISCONNECT, then the end of the stream: the server closes on its own account.
    #[track_caller]
    pub(crate) fn expect_disconnect(&mut self) {
        let frame = self.next_frame().expect("a DISCONNECT before the end");
        assert_eq!(frame, Frame::new(DISCONNECT, 0, []));
        self.expect_end();
    }

    /// Whether something came without waiting for it.
    pub(crate) fn has_bytes(&mut self) -> bool {
        let mut byte = [0];
        self.stream.set_nonblocking(true).expect("socket options");
        let peeked = self.stream.peek(&mut byte);
        self.stream.set_nonblocking(false).expect("socket options");
        !self.inbox.is_empty() || !self.buffer.is_empty() || peeked.is_ok()
    }

    // Requests and answers.

    /// Sends a request with the next task and does not wait.
    #[track_caller]
    pub(crate) fn post(&mut self, purpose: u8, body: impl Into<Vec<u8>>) -> u8 {
        self.last_task = self.last_task.wrapping_add(1);
        let task = self.last_task;
        self.waiting.push_back(task);
        self.write_frame(purpose, task, body);
        task
    }

    /// Sends many requests in one write and does not wait.
    #[track_caller]
    pub(crate) fn post_all(&mut self, requests: impl IntoIterator<Item = (u8, Vec<u8>)>) -> usize {
        let mut bytes = Vec::new();
        let mut count = 0;
        for (purpose, body) in requests {
            self.last_task = self.last_task.wrapping_add(1);
            self.waiting.push_back(self.last_task);
            bytes.extend_from_slice(&Frame::new(purpose, self.last_task, body).encode());
            count += 1;
        }
        self.write(&bytes);
        count
    }

    /// The answer to the oldest request that waits for one. Answers come in order.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> Frame {
        let task = *self.waiting.front().expect("a request that waits");
        loop {
            let frame = self.read_frame().expect("an answer before the end");
            if frame.is_answer() {
                assert_eq!(frame.task, task, "an answer out of order: {frame:?}");
                if frame.purpose != PART {
                    self.waiting.pop_front();
                }
                return frame;
            }
            self.inbox.push_back(frame);
        }
    }

    /// Sends a request and waits for its answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, purpose: u8, body: impl Into<Vec<u8>>) -> Frame {
        self.post(purpose, body);
        self.answer()
    }

    /// Sends a request and waits for its answer, assembled from its PARTs.
    #[track_caller]
    pub(crate) fn ask_whole(&mut self, purpose: u8, body: impl Into<Vec<u8>>) -> Frame {
        self.post(purpose, body);
        self.whole_answer()
    }

    /// The answer to the oldest request that waits, assembled from its PARTs.
    #[track_caller]
    pub(crate) fn whole_answer(&mut self) -> Frame {
        let mut whole = Vec::new();
        loop {
            let mut frame = self.answer();
            match frame.purpose {
                PART => whole.append(&mut frame.body),
                ACCEPTED => {
                    whole.append(&mut frame.body);
                    return Frame::new(ACCEPTED, frame.task, whole);
                }
                _ => return frame,
            }
        }
    }

    // Requests of the server.

    /// The next request of the server, of that purpose.
    #[track_caller]
    pub(crate) fn expect(&mut self, purpose: u8) -> Frame {
        let frame = self.next_frame().expect("a request before the end");
        assert_eq!(frame.purpose, purpose, "another frame came: {frame:?}");
        frame
    }

    #[track_caller]
    pub(crate) fn expect_deauth(&mut self) {
        assert_eq!(self.expect(DEAUTH), Frame::new(DEAUTH, 0, []));
    }

    /// The next MSG_NOTIFY, which must be about `chat`: its task and its messages.
    #[track_caller]
    pub(crate) fn notify(&mut self, chat: u32) -> (u8, Vec<Message>) {
        let frame = self.expect(MSG_NOTIFY);
        let mut reader = self.reader(&frame.body);
        assert_eq!(reader.id(), chat, "a message of another chat");
        let pack = reader.messages();
        assert!(!pack.is_empty(), "a MSG_NOTIFY without a message");
        assert_ne!(frame.task, 0, "a notification with task 0");
        (frame.task, pack)
    }

    /// The next `count` messages that the server notifies of, all of `chat`, in however many
    /// frames.
    #[track_caller]
    pub(crate) fn notified(&mut self, chat: u32, count: usize) -> Vec<Message> {
        let mut messages = Vec::new();
        while messages.len() < count {
            messages.extend(self.notify(chat).1);
        }
        assert_eq!(messages.len(), count, "more messages than expected");
        messages
    }

    /// Everything that the server sends before it answers a HEARTBEAT said now. What was committed
    /// before is on its way by then, so this is all that there is without waiting for time.
    #[track_caller]
    pub(crate) fn drain(&mut self) -> Vec<Frame> {
        self.ask(HEARTBEAT, body()).accepted_empty();
        self.inbox.drain(..).collect()
    }

    /// The server sends nothing.
    #[track_caller]
    pub(crate) fn expect_quiet(&mut self) {
        let frames = self.drain();
        assert!(frames.is_empty(), "the server sent: {frames:?}");
    }

    /// Waits up to a second for the server to send something by itself.
    #[track_caller]
    pub(crate) fn expect_within_a_second(&mut self, purpose: u8) -> Frame {
        let begun = Instant::now();
        let frame = self.expect(purpose);
        let took = begun.elapsed();
        // Half a second more is for a busy machine.
        assert!(took < Duration::from_millis(1500), "it took {took:?}");
        frame
    }

    // The purposes of API 0.1.

    #[track_caller]
    pub(crate) fn hello(&mut self, major: u8, minor: u8) {
        let answer = self.ask(HELLO, body().u8(major).u8(minor)).accepted();
        assert_eq!(answer[..2], [major, minor], "another version is spoken");
        self.is_11 = (major, minor) == (1, 1);
    }

    /// LOGIN with the password that every user of the tests has, on 0.1.
    #[track_caller]
    pub(crate) fn login(&mut self, name: &str) -> Session {
        let answer = self.ask(LOGIN, login_body(name, PASSWORD)).accepted();
        read_session(&answer)
    }

    #[track_caller]
    pub(crate) fn restore(&mut self, session: &Session) {
        self.try_restore(session).accepted_empty();
    }

    #[track_caller]
    pub(crate) fn try_restore(&mut self, session: &Session) -> Frame {
        self.ask(RESTORE_SESSION, body().id(session.id).text(session.hash.as_str()))
    }

    #[track_caller]
    pub(crate) fn chat_id(&mut self, name: &str) -> u32 {
        let answer = self.ask(GET_CHAT_ID, body().text(name)).accepted();
        read_id(&answer)
    }

    #[track_caller]
    pub(crate) fn user_id(&mut self, name: &str) -> u32 {
        let answer = self.ask(GET_USER_ID, body().text(name)).accepted();
        read_id(&answer)
    }

    #[track_caller]
    pub(crate) fn join(&mut self, chat: u32) {
        self.ask(JOIN_CHAT, body().id(chat)).accepted_empty();
    }

    #[track_caller]
    pub(crate) fn send(&mut self, chat: u32, content: &str) -> Sent {
        let mut request = body().id(chat).text(content);
        if self.is_11 {
            request = request.u64(self.next_nonce());
        }
        let answer = self.ask(SEND_CHAT_MSG, request);
        Sent::read(&answer.accepted())
    }

    #[track_caller]
    pub(crate) fn range(&mut self, chat: u32, from: i64, to: Option<i64>) -> Vec<Message> {
        let answer = self.ask_whole(REQUEST_CHAT_MSG, range_body(chat, from, to));
        self.reader(&answer.accepted()).messages()
    }

    /// Every message of the chat, following `too-large` as a client of 0.1 does.
    #[track_caller]
    pub(crate) fn history(&mut self, chat: u32) -> Vec<Message> {
        let mut all = Vec::new();
        let mut from = 0;
        loop {
            let answer = self.ask_whole(REQUEST_CHAT_MSG, range_body(chat, from, None));
            if answer.purpose == ACCEPTED {
                all.extend(self.reader(&answer.body).messages());
                return all;
            }
            let to = answer.declined_with_number("too-large");
            assert!(to >= from, "a range that does not grow");
            all.extend(self.range(chat, from, Some(to)));
            from = to + 1;
        }
    }
}

pub(crate) fn login_body(name: &str, password: &str) -> Body {
    body().text(name).text(password)
}

pub(crate) fn range_body(chat: u32, from: i64, to: Option<i64>) -> Body {
    let body = body().id(chat).time(from);
    match to {
        Some(to) => body.time(to),
        None => body,
    }
}

#[track_caller]
pub(crate) fn read_id(bytes: &[u8]) -> u32 {
    let mut reader = Reader::new(bytes);
    let id = reader.id();
    reader.finish();
    id
}

/// What LOGIN answers on 0.1.
#[track_caller]
pub(crate) fn read_session(bytes: &[u8]) -> Session {
    let mut reader = Reader::new(bytes);
    let session = Session { id: reader.id(), hash: reader.text() };
    reader.finish();
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    assert!(
        session.hash.len() == 64 && session.hash.bytes().all(is_hex),
        "not 64 lowercase hex digits: {}",
        session.hash
    );
    session
}
