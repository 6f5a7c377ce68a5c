//! Frames, bodies and names of protocol.md sections 1, 4, 5 and 6, as the tests read them.

use super::api11::Extras;

/// Both ways.
pub(crate) const ACCEPTED: u8 = 0x00;
pub(crate) const DECLINED: u8 = 0x01;
pub(crate) const HEARTBEAT: u8 = 0x02;
pub(crate) const DISCONNECT: u8 = 0x03;
pub(crate) const PART: u8 = 0x04;

/// To the server, API 0.1.
pub(crate) const HELLO: u8 = 0x20;
pub(crate) const LOGIN: u8 = 0x21;
pub(crate) const LOGOFF: u8 = 0x22;
pub(crate) const RESTORE_SESSION: u8 = 0x23;
pub(crate) const GET_USER_ID: u8 = 0x24;
pub(crate) const GET_CHAT_ID: u8 = 0x25;
pub(crate) const CHAT_REQ_PASS: u8 = 0x26;
pub(crate) const JOIN_CHAT: u8 = 0x27;
pub(crate) const SEND_CHAT_MSG: u8 = 0x28;
pub(crate) const REQUEST_CHAT_MSG: u8 = 0x29;
pub(crate) const MARK_SEEN: u8 = 0x2A;

/// To the client, API 0.1.
pub(crate) const MSG_NOTIFY: u8 = 0x20;
pub(crate) const DEAUTH: u8 = 0x22;

/// Every reason of section 6: a DECLINED with another code is itself a failure.
const REASONS: &[&str] = &[
    "malformed",
    "unknown-purpose",
    "hello-required",
    "login-required",
    "session-suspended",
    "rate-limited",
    "storage-failed",
    "shutting-down",
    "unsupported-version",
    "already-greeted",
    "already-authorized",
    "bad-credentials",
    "bad-session",
    "no-such-user",
    "no-such-chat",
    "no-such-message",
    "not-member",
    "already-member",
    "password-required",
    "bad-password",
    "bad-name",
    "name-taken",
    "registration-closed",
    "bad-invite",
    "forbidden",
    "last-admin",
    "too-long",
    "too-large",
    "empty-message",
    "bad-query",
    "not-ready",
    "bad-code",
    "push-off",
    "bad-endpoint",
    "too-many",
    "no-such-file",
    "bad-offset",
    "quota-exceeded",
];

/// One frame, either way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Frame {
    pub(crate) purpose: u8,
    pub(crate) task: u8,
    pub(crate) body: Vec<u8>,
}

impl Frame {
    pub(crate) fn new(purpose: u8, task: u8, body: impl Into<Vec<u8>>) -> Self {
        Self { purpose, task, body: body.into() }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let length = u32::try_from(self.body.len()).expect("a test's body is short");
        let mut bytes = Vec::with_capacity(6 + self.body.len());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.push(self.purpose);
        bytes.push(self.task);
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Takes the first whole frame out of `buffer`, if there is one.
    pub(crate) fn take(buffer: &mut Vec<u8>) -> Option<Self> {
        let header: [u8; 6] = buffer.get(..6)?.try_into().ok()?;
        let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let body = buffer.get(6..6 + length)?.to_vec();
        buffer.drain(..6 + length);
        Some(Self::new(header[4], header[5], body))
    }

    /// ACCEPTED, DECLINED or PART: what answers a request.
    pub(crate) fn is_answer(&self) -> bool {
        matches!(self.purpose, ACCEPTED | DECLINED | PART)
    }

    /// The body of an ACCEPTED.
    #[track_caller]
    pub(crate) fn accepted(self) -> Vec<u8> {
        if self.purpose == DECLINED {
            panic!("declined: {}", self.reason());
        }
        assert_eq!(self.purpose, ACCEPTED, "not an ACCEPTED: {self:?}");
        self.body
    }

    /// An ACCEPTED with nothing to say.
    #[track_caller]
    pub(crate) fn accepted_empty(self) {
        assert_eq!(self.accepted(), b"", "the ACCEPTED should have been empty");
    }

    /// The words after the code of a DECLINED, whose code must be `code`.
    #[track_caller]
    pub(crate) fn declined(self, code: &str) -> String {
        assert_eq!(self.purpose, DECLINED, "not a DECLINED {code}: {self:?}");
        let reason = self.reason();
        let (said, words) =
            reason.split_once(": ").unwrap_or_else(|| panic!("no `code: words`: {reason:?}"));
        assert!(REASONS.contains(&said), "not a code of section 6: {said:?}");
        assert_eq!(said, code, "declined with other words: {reason:?}");
        assert!(!words.is_empty(), "no words for a person: {reason:?}");
        words.to_owned()
    }

    /// The one number in the words of a DECLINED with `code`.
    #[track_caller]
    pub(crate) fn declined_with_number(self, code: &str) -> i64 {
        let words = self.declined(code);
        let numbers: Vec<i64> = words
            .split(|letter: char| !letter.is_ascii_digit())
            .filter(|digits| !digits.is_empty())
            .map(|digits| digits.parse().expect("digits that fit"))
            .collect();
        assert_eq!(numbers.len(), 1, "not exactly one number: {words:?}");
        numbers[0]
    }

    fn reason(&self) -> String {
        let mut reader = Reader::new(&self.body);
        let reason = reader.text();
        reader.finish();
        reason
    }
}

/// A body under construction: `body().id(5).text("hi")`.
#[derive(Clone, Default, Debug)]
pub(crate) struct Body(Vec<u8>);

/// An empty body.
pub(crate) fn body() -> Body {
    Body::default()
}

impl Body {
    pub(crate) fn u8(self, value: u8) -> Self {
        self.bytes(&[value])
    }

    pub(crate) fn u16(self, value: u16) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    /// A user_id, chat_id or session_id, or any u32.
    pub(crate) fn id(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn time(self, value: i64) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    /// A str with its NUL.
    pub(crate) fn text(self, value: &str) -> Self {
        self.bytes(value.as_bytes()).u8(0)
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
}

impl From<Body> for Vec<u8> {
    fn from(body: Body) -> Self {
        body.0
    }
}

/// Reads a body from the server field by field and complains at the first that is wrong.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    /// Structures are those of 1.1.
    is_11: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, is_11: false }
    }

    /// Reads structures of 1.1.
    pub(crate) fn of(is_11: bool, bytes: &'a [u8]) -> Self {
        Self { bytes, is_11 }
    }

    pub(crate) fn is_11(&self) -> bool {
        self.is_11
    }

    #[track_caller]
    pub(crate) fn take(&mut self, count: usize) -> &'a [u8] {
        let (head, rest) = self.bytes.split_at_checked(count).expect("a whole field");
        self.bytes = rest;
        head
    }

    #[track_caller]
    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    #[track_caller]
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let (head, rest) = self.bytes.split_first_chunk::<N>().expect("a whole field");
        self.bytes = rest;
        *head
    }

    #[track_caller]
    pub(crate) fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    #[track_caller]
    pub(crate) fn bool(&mut self) -> bool {
        match self.u8() {
            0 => false,
            1 => true,
            other => panic!("not a bool: {other}"),
        }
    }

    #[track_caller]
    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// A user_id, chat_id or session_id: never 0.
    #[track_caller]
    pub(crate) fn id(&mut self) -> u32 {
        let id = self.u32();
        assert_ne!(id, 0, "an id of 0");
        id
    }

    #[track_caller]
    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    #[track_caller]
    pub(crate) fn time(&mut self) -> i64 {
        let time = i64::from_le_bytes(self.array());
        assert!(time >= 0, "a negative time: {time}");
        time
    }

    #[track_caller]
    pub(crate) fn text(&mut self) -> String {
        let end = self.bytes.iter().position(|byte| *byte == 0).expect("a NUL");
        let text = std::str::from_utf8(&self.bytes[..end]).expect("UTF-8");
        self.bytes = &self.bytes[end + 1..];
        text.to_owned()
    }

    #[track_caller]
    pub(crate) fn message(&mut self) -> Message {
        let message = Message {
            id: self.u64(),
            sender: self.id(),
            created: self.time(),
            updated: self.time(),
            status: self.u8(),
            content: self.text(),
            extras: if self.is_11 { self.extras() } else { Extras::default() },
        };
        assert_ne!(message.id, 0, "a message_id of 0");
        assert_eq!(message.status & !0x03, 0, "an unknown status bit");
        message
    }

    /// Messages up to the end of the body.
    #[track_caller]
    pub(crate) fn messages(&mut self) -> Vec<Message> {
        let mut pack = Vec::new();
        while !self.is_empty() {
            pack.push(self.message());
        }
        pack
    }

    /// There must be nothing left.
    #[track_caller]
    pub(crate) fn finish(&self) {
        assert!(self.bytes.is_empty(), "bytes left over: {:?}", self.bytes);
    }
}

/// One entry of a pack of message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Message {
    pub(crate) id: u64,
    pub(crate) sender: u32,
    pub(crate) created: i64,
    pub(crate) updated: i64,
    pub(crate) status: u8,
    pub(crate) content: String,
    pub(crate) extras: Extras,
}

/// What the server says of a message in an answer to SEND_CHAT_MSG.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sent {
    pub(crate) id: u64,
    pub(crate) created: i64,
}

impl Sent {
    #[track_caller]
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let mut reader = Reader::new(bytes);
        let sent = Self { id: reader.u64(), created: reader.time() };
        reader.finish();
        assert_ne!(sent.id, 0, "a message_id of 0");
        sent
    }
}

/// The contents of a pack, for comparisons that read well.
pub(crate) fn contents(pack: &[Message]) -> Vec<&str> {
    pack.iter().map(|message| message.content.as_str()).collect()
}
