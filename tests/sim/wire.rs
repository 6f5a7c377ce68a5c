//! Decodes the server's frames by a codec of the simulation's own: with the crate's, a mistake
//! could cancel out on both sides.

/// The result of a check: an error describes what is wrong.
pub(crate) type Check<T = ()> = Result<T, String>;

pub(crate) const ACCEPTED: u8 = 0x00;
pub(crate) const DECLINED: u8 = 0x01;
pub(crate) const HEARTBEAT: u8 = 0x02;
pub(crate) const DISCONNECT: u8 = 0x03;
pub(crate) const PART: u8 = 0x04;
pub(crate) const MSG_NOTIFY: u8 = 0x20;
pub(crate) const DEAUTH: u8 = 0x22;
pub(crate) const CHAT_NOTIFY: u8 = 0x30;
pub(crate) const CHAT_GONE: u8 = 0x31;
pub(crate) const MEMBER_NOTIFY: u8 = 0x32;
pub(crate) const SEEN_NOTIFY: u8 = 0x33;
pub(crate) const TYPING_NOTIFY: u8 = 0x34;
pub(crate) const PRESENCE_NOTIFY: u8 = 0x35;
pub(crate) const REACTION_NOTIFY: u8 = 0x36;

pub(crate) const EDITED: u8 = 0x01;
pub(crate) const DELETED: u8 = 0x02;

/// A complete frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Frame {
    pub(crate) purpose: u8,
    pub(crate) task: u8,
    pub(crate) body: Vec<u8>,
}

impl Frame {
    pub(crate) fn is_notification(&self) -> bool {
        self.purpose >= MSG_NOTIFY && self.purpose != DEAUTH
    }

    /// A description for traces.
    pub(crate) fn words(&self) -> String {
        let body = &self.body[..self.body.len().min(24)];
        let text = String::from_utf8_lossy(body).replace(|c: char| c.is_control(), ".");
        format!("0x{:02x}/{} {} bytes {text:?}", self.purpose, self.task, self.body.len())
    }
}

/// Takes the first complete frame from the front.
pub(crate) fn take_frame(bytes: &[u8]) -> Option<(Frame, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<6>()?;
    let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let (body, rest) = rest.split_at_checked(len)?;
    Some((Frame { purpose: head[4], task: head[5], body: body.to_vec() }, rest))
}

/// All frames of a buffer that contains only complete ones.
pub(crate) fn frames(mut bytes: &[u8]) -> Check<Vec<Frame>> {
    let mut all = Vec::new();
    while let Some((frame, rest)) = take_frame(bytes) {
        all.push(frame);
        bytes = rest;
    }
    if bytes.is_empty() { Ok(all) } else { Err(format!("{} bytes after a frame", bytes.len())) }
}

/// A file in a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Attached {
    pub(crate) id: u64,
    pub(crate) size: u64,
    pub(crate) width: u16,
    pub(crate) height: u16,
    pub(crate) media_type: String,
    pub(crate) name: String,
}

/// The extras of a message on 1.1.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Extras {
    pub(crate) reply: Option<i64>,
    pub(crate) files: Vec<Attached>,
    /// Emoji, count, and first users.
    pub(crate) reactions: Vec<(String, u16, Vec<u32>)>,
}

impl Extras {
    /// Applies a REACTION_NOTIFY, as a client does.
    pub(crate) fn react(&mut self, user: u32, is_on: bool, emoji: &str) {
        let at = self.reactions.iter().position(|(of, _, _)| of == emoji);
        match (at, is_on) {
            (None, true) => self.reactions.push((emoji.to_owned(), 1, vec![user])),
            (Some(at), true) => {
                let (_, count, shown) = &mut self.reactions[at];
                *count += 1;
                if shown.len() < 20 {
                    shown.push(user);
                }
            }
            (Some(at), false) => {
                let (_, count, shown) = &mut self.reactions[at];
                *count -= 1;
                shown.retain(|other| *other != user);
                if *count == 0 {
                    self.reactions.remove(at);
                }
            }
            (None, false) => {}
        }
    }
}

/// A message in a pack.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) id: i64,
    pub(crate) sender: u32,
    pub(crate) created: i64,
    pub(crate) updated: i64,
    pub(crate) status: u8,
    pub(crate) content: String,
    pub(crate) extras: Extras,
    /// A REACTION_NOTIFY that may be sent instead.
    pub(crate) change: Option<Vec<u8>>,
}

impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        let numbers = |m: &Self| (m.id, m.sender, m.created, m.updated, m.status);
        numbers(self) == numbers(other)
            && self.content == other.content
            && self.extras == other.extras
    }
}

impl Eq for Message {}

/// Reads the fields of a body.
#[derive(Clone, Copy)]
pub(crate) struct Body<'a> {
    /// The bytes not read yet.
    pub(crate) rest: &'a [u8],
    /// Structures are those of 1.1.
    pub(crate) is_11: bool,
}

impl<'a> Body<'a> {
    /// A body in the structures of 0.1 and 1.0.
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Self::spoken(bytes, false)
    }

    /// A body on a connection that speaks 1.1, or does not.
    pub(crate) fn spoken(bytes: &'a [u8], is_11: bool) -> Self {
        Self { rest: bytes, is_11 }
    }

    fn bytes<const N: usize>(&mut self) -> Check<[u8; N]> {
        let (head, rest) =
            self.rest.split_first_chunk::<N>().ok_or("a body ends inside a field")?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Check<u8> {
        self.bytes::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Check<u16> {
        self.bytes().map(u16::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Check<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Check<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    pub(crate) fn i64(&mut self) -> Check<i64> {
        self.bytes().map(i64::from_le_bytes)
    }

    pub(crate) fn str(&mut self) -> Check<&'a str> {
        let end = self.rest.iter().position(|&byte| byte == 0).ok_or("a str without its NUL")?;
        let text = std::str::from_utf8(&self.rest[..end]).map_err(|e| e.to_string())?;
        self.rest = &self.rest[end + 1..];
        Ok(text)
    }

    pub(crate) fn message(&mut self) -> Check<Message> {
        let message = Message {
            id: self.i64()?,
            sender: self.u32()?,
            created: self.i64()?,
            updated: self.i64()?,
            status: self.u8()?,
            content: self.str()?.to_owned(),
            extras: Extras::default(),
            change: None,
        };
        if self.is_11 {
            let length = usize::from(self.u16()?);
            let (mine, rest) = self.rest.split_at_checked(length).ok_or("extras end too early")?;
            self.rest = rest;
            return Ok(Message { extras: Body::of(mine).extras()?, ..message });
        }
        Ok(message)
    }

    fn extras(mut self) -> Check<Extras> {
        let mut extras = Extras::default();
        while !self.is_empty() {
            let (kind, length) = (self.u8()?, usize::from(self.u16()?));
            let (mine, rest) =
                self.rest.split_at_checked(length).ok_or("an extra ends too early")?;
            self.rest = rest;
            let mut body = Body::of(mine);
            match kind {
                1 => extras.reply = Some(body.i64()?),
                2 => extras.files.push(Attached {
                    id: body.u64()?,
                    size: body.u64()?,
                    width: body.u16()?,
                    height: body.u16()?,
                    media_type: body.str()?.to_owned(),
                    name: body.str()?.to_owned(),
                }),
                3 => {
                    while !body.is_empty() {
                        let (emoji, count) = (body.str()?.to_owned(), body.u16()?);
                        let shown = (0..body.u8()?).map(|_| body.u32());
                        let shown = shown.collect::<Check<Vec<u32>>>()?;
                        extras.reactions.push((emoji, count, shown));
                    }
                }
                other => return Err(format!("an extra of kind {other}")),
            }
            body.end()?;
        }
        Ok(extras)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn end(self) -> Check {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(format!("{} bytes too many", self.rest.len()))
        }
    }
}

/// Encodes the bodies that the model expects.
#[derive(Default)]
pub(crate) struct Out(pub(crate) Vec<u8>);

impl Out {
    pub(crate) fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn i64(mut self, value: i64) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn str(mut self, text: &str) -> Self {
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
        self
    }
}
