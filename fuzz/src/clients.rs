//! What is outside of the engine: clients at the ends of streams, the password helper, and threads
//! that send pushes. What the server releases is compared in the step that releases it, and not
//! when a stream accepts it: a stalled client, too, may get only what was its own then.

use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;

use vestnik::auth::helper::{self, Job, JobDone};
use vestnik::engine::{Engine, Event, Io, SharedWrite, Transfer};
use vestnik::ids::ConnId;
use vestnik::outbox::Outbox;
use vestnik::outbox::parts::Part;
use vestnik::push;
use vestnik::service::{Flow, Service, TurnEnd};
use vestnik::wire::frame;

use super::file::Counting;
use super::model::Model;
use super::received::{Asked, Received};
use super::requests::{About, PUSH_HOST};
use super::stream::Stream;

/// A client and its connection.
pub(crate) struct Client {
    pub(crate) at: usize,
    pub(crate) conn: ConnId,
    pub(crate) stream: Stream,
    /// Frames that were sent and not handled, with what they are about; `None`: not answered.
    pub(crate) sent: VecDeque<(Vec<u8>, Option<About>)>,
    pub(crate) received: Received,
    /// How many of the bytes that wait for it were compared.
    looked: usize,
    /// Nothing more is staged for it.
    pub(crate) is_closing: bool,
    /// The service has forgotten it.
    is_forgotten: bool,
    pub(crate) user: Option<u32>,
    /// The present when the session was attached, at the latest.
    pub(crate) since: i64,
    /// It declined something: it may be suspended.
    pub(crate) may_be_suspended: bool,
    /// It sent DISCONNECT, or a frame that is too large: what follows is not handled.
    pub(crate) has_parted: bool,
    pub(crate) task: u8,
}

impl Client {
    pub(crate) fn new(at: usize, conn: ConnId, is_websocket: bool) -> Self {
        Self {
            at,
            conn,
            stream: Stream::new(is_websocket),
            sent: VecDeque::new(),
            received: Received::default(),
            looked: 0,
            is_closing: false,
            is_forgotten: false,
            user: None,
            since: 0,
            may_be_suspended: false,
            has_parted: false,
            task: 0,
        }
    }

    pub(crate) fn send(&mut self, bytes: Vec<u8>, about: Option<About>) {
        if !self.stream.is_ended {
            self.stream.send(&bytes);
            self.sent.push_back((bytes, about));
        }
    }

    /// Whether everything that it sent is handled and answered.
    pub(crate) fn is_answered(&self) -> bool {
        self.sent.is_empty() && self.received.asked.is_empty()
    }

    /// The server is done with it: what came in whole before its end was answered.
    fn check_forgotten(&self) {
        let is_http = self.stream.websocket.as_ref().is_some_and(|socket| !socket.is_upgraded);
        let was_cut = self.stream.is_broken || self.stream.has_stalled || is_http;
        if self.stream.is_ended && !was_cut && !self.received.is_ended && !self.has_parted {
            assert!(self.is_answered(), "client {} ended its side, and got no answer", self.at);
            assert!(self.stream.released.is_empty(), "client {} was not sent it", self.at);
        }
    }
}

/// All clients, and the model of what they may get.
pub(crate) struct Clients {
    pub(crate) all: Vec<Option<Client>>,
    pub(crate) model: Model,
    pub(crate) is_disk_full: bool,
    /// What many are notified of is sent from where it is.
    pub(crate) sends_parts: bool,
    /// Jobs that the helper will do in the next turn.
    pub(crate) workable: usize,
    pub(crate) jobs: VecDeque<(Job, ConnId)>,
    /// Whose password work is handled.
    result: Option<ConnId>,
    pushes: VecDeque<push::Job>,
    /// Grows with each request that is carried out.
    order: u64,
}

impl Clients {
    pub(crate) fn new(count: usize, model: Model, sends_parts: bool) -> Self {
        Self {
            all: (0..count).map(|_| None).collect(),
            model,
            is_disk_full: false,
            sends_parts,
            workable: 0,
            jobs: VecDeque::new(),
            result: None,
            pushes: VecDeque::new(),
            order: 0,
        }
    }

    /// What the streams have to report.
    pub(crate) fn report(&mut self, engine: &mut Engine<'_>) {
        for at in 0..self.all.len() {
            if let Some(client) = &mut self.all[at] {
                let (conn, ready) = (client.conn, client.stream.report());
                engine.on_ready(self, conn, ready);
            }
        }
    }

    fn of(&mut self, conn: ConnId) -> Option<&mut Client> {
        self.all.iter_mut().flatten().find(|client| client.conn == conn)
    }

    fn stream(&mut self, conn: ConnId) -> io::Result<&mut Stream> {
        let client = self.of(conn).ok_or(io::ErrorKind::NotConnected)?;
        Ok(&mut client.stream)
    }

    /// A frame was handled: it is the next one that the client sent, to the byte.
    fn note_handled(&mut self, conn: ConnId, bytes: &[u8]) {
        self.order += 1;
        let order = self.order;
        let client = self.of(conn).expect("a frame of nobody");
        let (sent, about) = client.sent.pop_front().expect("a frame that nobody sent");
        assert!(sent == bytes, "another frame than was sent");
        if let Some(about) = about {
            let asked = Asked { task: bytes[5], about, order, pack: Vec::new() };
            client.received.asked.push_back(asked);
        }
    }

    /// Nothing of the turn may be sent before its COMMIT.
    fn check_nothing_leaks(&self, outbox: &Outbox) {
        for client in self.all.iter().flatten().filter(|client| !client.is_forgotten) {
            let is_flat = outbox.slice_bytes(client.conn.index) == 0;
            let sendable = outbox.sendable(client.conn.index).len();
            assert!(!is_flat || sendable <= client.looked, "released before the COMMIT");
        }
    }

    /// Looks at what was released to whom in this step, taken or not.
    fn look(&mut self, service: &Service<'_>) {
        let Self { all, model, .. } = self;
        model.begin_step(service.last_time().micros());
        for client in all.iter_mut().flatten().filter(|client| !client.is_forgotten) {
            let conn = client.conn;
            client.is_closing |= service.outbox.is_closed(conn.index);
            let fresh = client.fresh(&service.outbox);
            // Without the service a connection is sent HTTP.
            let is_known =
                service.unauthorized_since_ms(conn).is_some() || service.is_authorized(conn);
            if is_known && !fresh.is_empty() {
                model.take(client.at, client, &fresh);
            }
        }
        model.end_step();
    }
}

impl Client {
    /// What was released since the last look.
    fn fresh(&mut self, outbox: &Outbox) -> Vec<u8> {
        let index = self.conn.index;
        let pending = outbox.pending_bytes(index);
        if outbox.slice_bytes(index) == 0 {
            assert_eq!(outbox.sendable(index).len(), pending, "staged after the step");
        }
        if pending <= self.looked {
            assert_eq!(pending, self.looked, "released bytes are gone");
            return Vec::new();
        }
        let mut whole = outbox.copy_of(index);
        assert_eq!(whole.len(), pending);
        let fresh = whole.split_off(self.looked);
        self.looked = pending;
        self.stream.released.extend(&fresh);
        fresh
    }
}

impl Io for Clients {
    fn read(&mut self, conn: ConnId, buffer: &mut [u8]) -> io::Result<Transfer> {
        self.stream(conn)?.read(buffer)
    }

    fn write(&mut self, conn: ConnId, head: &[u8], body: &[u8]) -> io::Result<Transfer> {
        let client = self.of(conn).ok_or(io::ErrorKind::NotConnected)?;
        let (transfer, of_body) = client.stream.write(head, body)?;
        client.looked -= of_body;
        Ok(transfer)
    }

    fn write_shared(
        &mut self,
        conn: ConnId,
        queue: &mut SharedWrite<'_>,
        _peers: usize,
    ) -> Option<io::Result<usize>> {
        if !self.sends_parts || queue.slice_bytes() == 0 {
            return None;
        }
        let broadcast = queue.broadcast().to_vec();
        let client = self.of(conn)?;
        let sent = queue.send(|part| {
            let bytes = match part {
                Part::Own(bytes) => bytes,
                Part::Slice(piece) => &broadcast[piece],
            };
            client.stream.write(&[], bytes).map(|(transfer, _)| transfer.bytes)
        });
        client.looked -= sent.as_ref().copied().unwrap_or_default();
        Some(sent)
    }

    /// The client sees the end, and ends its own side.
    fn end(&mut self, conn: ConnId) -> io::Result<()> {
        let stream = self.stream(conn)?;
        if stream.is_broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if !stream.is_stalled() {
            stream.end();
        }
        Ok(())
    }

    fn close(&mut self, conn: ConnId) {
        let is_gone = |client: &Client| client.conn == conn;
        for client in &mut self.all {
            drop(client.take_if(|client| is_gone(client)));
        }
    }

    fn next_done(&mut self) -> Option<JobDone> {
        self.workable = self.workable.checked_sub(1)?;
        let (job, conn) = self.jobs.pop_front()?;
        self.result = Some(conn);
        Some(helper::run(job, &Counting::default()))
    }

    fn is_helper_busy(&self) -> bool {
        !self.jobs.is_empty()
    }

    fn submit(&mut self, job: Job, conn: ConnId) -> io::Result<()> {
        self.jobs.push_back((job, conn));
        Ok(())
    }

    fn next_pushed(&mut self) -> Option<push::Done> {
        let push = self.pushes.pop_front()?;
        let outcome = match push.id % 4 {
            0 => push::Outcome::Gone { status: 410 },
            1 => push::Outcome::Failed { why: "unreachable".to_owned(), is_unreachable: true },
            _ => push::Outcome::Delivered { status: 201 },
        };
        Some(push::Done { id: push.id, outcome })
    }

    fn submit_push(&mut self, push: push::Job) -> bool {
        assert_eq!(vestnik::service::push::endpoint_host(&push.endpoint), PUSH_HOST);
        self.pushes.push_back(push);
        true
    }

    fn observe(&mut self, event: Event<'_>, service: &mut Service<'_>) -> ControlFlow<()> {
        match event {
            Event::ChangesTaken => {}
            Event::Frame { flow: Flow::PutBack, .. } => {}
            Event::Frame { conn, bytes, .. } => self.note_handled(conn, bytes),
            Event::Oversized { conn, task } => {
                let header = frame::header(super::service::BODY_BYTES_MAX + 1, 0x28, task);
                self.note_handled(conn, &header);
            }
            // What came of it is carried out now, and not when it was asked for.
            Event::JobDone => {
                self.order += 1;
                let order = self.order;
                let conn = self.result.take();
                let client = conn.and_then(|conn| self.of(conn));
                if let Some(asked) = client.and_then(|client| client.received.asked.back_mut()) {
                    asked.order = order;
                }
            }
            Event::Committing => self.check_nothing_leaks(&service.outbox),
            Event::Ended(end) => {
                let is_fine = end == TurnEnd::Committed || self.is_disk_full;
                assert!(is_fine, "declined for no reason");
                // The process ends when nobody knows what is on the disk.
                if service.lost().is_none() {
                    self.look(service);
                }
            }
            // What was staged since is no frame of Purpose.
            Event::Served => {
                for client in self.all.iter_mut().flatten().filter(|client| !client.is_forgotten) {
                    client.fresh(&service.outbox);
                }
            }
            Event::ConnectionForgotten(conn) => {
                if let Some(client) = self.of(conn) {
                    client.check_forgotten();
                    client.is_forgotten = true;
                    client.is_closing = true;
                }
            }
            Event::ConnectionsForgotten | Event::Pumped | Event::Housekept => self.look(service),
        }
        ControlFlow::Continue(())
    }
}
