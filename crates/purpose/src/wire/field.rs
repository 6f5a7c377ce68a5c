//! Codecs of request fields, as named by the rows of [`super::purpose`].
//!
//! A type of the protocol's section 1 has one encoding, [`Plain`]. Fields with rules of their own
//! name another [`Codec`].

use crate::ids::{ChatId, FileId, MessageId, ServerTime, SessionId, UserId};
use crate::limits::HEARTBEAT_BYTES_MAX;
use crate::wire::Version;
use crate::wire::codec::{Malformed, Put, Reader};
use crate::wire::extras::Extras;

/// Reads and writes one field.
pub(super) trait Codec<'a, T> {
    /// Reads the field from the front of a body.
    ///
    /// # Errors
    /// The reason why the body is malformed.
    fn read(body: &mut Reader<'a>, version: Version) -> Result<T, Malformed>;

    /// Appends the field.
    fn put(value: T, out: &mut Vec<u8>);
}

/// The standard encoding of a type. `Option`: an optional field at the end.
pub(super) struct Plain;

macro_rules! plain {
    ($($type:ty: $read:ident, |$value:ident, $out:ident| $put:expr;)*) => {$(
        impl<'a> Codec<'a, $type> for Plain {
            #[inline(always)]
            fn read(body: &mut Reader<'a>, _: Version) -> Result<$type, Malformed> {
                body.$read()
            }

            fn put($value: $type, $out: &mut Vec<u8>) {
                $put;
            }
        }

        impl<'a> Codec<'a, Option<$type>> for Plain {
            #[inline(always)]
            fn read(body: &mut Reader<'a>, _: Version) -> Result<Option<$type>, Malformed> {
                body.optional(Reader::$read)
            }

            fn put(value: Option<$type>, $out: &mut Vec<u8>) {
                if let Some($value) = value {
                    $put;
                }
            }
        }
    )*};
}

plain! {
    u8: u8, |value, out| out.put_u8(value);
    u16: u16, |value, out| out.put_u16(value);
    u32: u32, |value, out| out.put_u32(value);
    u64: u64, |value, out| out.put_u64(value);
    bool: bool, |value, out| out.put_bool(value);
    &'a str: str, |value, out| out.put_str(value);
    ServerTime: time, |value, out| out.put_time(value);
    UserId: user_id, |value, out| out.put_u32(value.get());
    ChatId: chat_id, |value, out| out.put_u32(value.get());
    SessionId: session_id, |value, out| out.put_u32(value.get());
    MessageId: message_id, |value, out| out.put_u64(value.get());
    FileId: file_id, |value, out| out.put_u64(value.get());
    PushKeys<'a>: push_keys, |value, out| {
        out.put_bytes(value.p256dh);
        out.put_bytes(value.auth);
    };
}

/// The keys that a browser subscribes with; pushes are encrypted with them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PushKeys<'a> {
    /// The public key, an uncompressed point of P-256.
    pub p256dh: &'a [u8; 65],
    /// The authentication secret.
    pub auth: &'a [u8; 16],
}

impl<'a> Reader<'a> {
    fn push_keys(&mut self) -> Result<PushKeys<'a>, Malformed> {
        Ok(PushKeys { p256dh: self.bytes_of()?, auth: self.bytes_of()? })
    }
}

/// An id, or 0 for `None`.
pub(super) struct OrZero;

impl Codec<'_, Option<ChatId>> for OrZero {
    #[inline(always)]
    fn read(body: &mut Reader<'_>, _: Version) -> Result<Option<ChatId>, Malformed> {
        body.u32().map(ChatId::new)
    }

    fn put(value: Option<ChatId>, out: &mut Vec<u8>) {
        out.put_u32(value.map_or(0, ChatId::get));
    }
}

impl Codec<'_, Option<MessageId>> for OrZero {
    #[inline(always)]
    fn read(body: &mut Reader<'_>, _: Version) -> Result<Option<MessageId>, Malformed> {
        Ok(match body.u64()? {
            0 => None,
            raw => Some(MessageId::new(raw).unwrap_or(MessageId::at(ServerTime::MAX))),
        })
    }

    fn put(value: Option<MessageId>, out: &mut Vec<u8>) {
        out.put_u64(value.map_or(0, MessageId::get));
    }
}

/// All bytes up to the end of the body.
pub(super) struct Rest;

impl<'a> Codec<'a, &'a [u8]> for Rest {
    #[inline(always)]
    fn read(body: &mut Reader<'a>, _: Version) -> Result<&'a [u8], Malformed> {
        Ok(body.take_rest())
    }

    fn put(value: &'a [u8], out: &mut Vec<u8>) {
        out.put_bytes(value);
    }
}

/// All bytes up to the end, at most [`HEARTBEAT_BYTES_MAX`].
pub(super) struct Echo;

impl<'a> Codec<'a, &'a [u8]> for Echo {
    #[inline(always)]
    fn read(body: &mut Reader<'a>, _: Version) -> Result<&'a [u8], Malformed> {
        let echo = body.take_rest();
        if echo.len() > HEARTBEAT_BYTES_MAX { Err(Malformed::HeartbeatTooLong) } else { Ok(echo) }
    }

    fn put(value: &'a [u8], out: &mut Vec<u8>) {
        out.put_bytes(value);
    }
}

/// Bytes of a file: all up to the end, at least one.
pub(super) struct FileBytes;

impl<'a> Codec<'a, &'a [u8]> for FileBytes {
    #[inline(always)]
    fn read(body: &mut Reader<'a>, _: Version) -> Result<&'a [u8], Malformed> {
        match body.take_rest() {
            [] => Err(Malformed::NoBytes),
            bytes => Ok(bytes),
        }
    }

    fn put(value: &'a [u8], out: &mut Vec<u8>) {
        out.put_bytes(value);
    }
}

/// The size of a file, not 0.
pub(super) struct FileSize;

impl Codec<'_, u64> for FileSize {
    #[inline(always)]
    fn read(body: &mut Reader<'_>, _: Version) -> Result<u64, Malformed> {
        match body.u64()? {
            0 => Err(Malformed::NoBytes),
            size => Ok(size),
        }
    }

    fn put(value: u64, out: &mut Vec<u8>) {
        out.put_u64(value);
    }
}

/// An idempotency key: absent on 0.1, optional on 1.0, required on 1.1.
pub(super) struct Nonce;

impl Codec<'_, Option<u64>> for Nonce {
    #[inline(always)]
    fn read(body: &mut Reader<'_>, version: Version) -> Result<Option<u64>, Malformed> {
        match version {
            Version::V0_1 => Ok(None),
            Version::V1_0 => body.optional(Reader::u64),
            Version::V1_1 => body.u64().map(Some),
        }
    }

    fn put(value: Option<u64>, out: &mut Vec<u8>) {
        Plain::put(value, out);
    }
}

/// The extras that a sender may send; since 1.1.
pub(super) struct SentExtras;

impl<'a> Codec<'a, Extras<'a>> for SentExtras {
    #[inline(always)]
    fn read(body: &mut Reader<'a>, version: Version) -> Result<Extras<'a>, Malformed> {
        match version {
            Version::V0_1 | Version::V1_0 => Ok(Extras::NONE),
            Version::V1_1 => Extras::read_sent(body.take_rest()),
        }
    }

    fn put(value: Extras<'a>, out: &mut Vec<u8>) {
        out.put_bytes(value.bytes());
    }
}

/// An optional bool at the end, since 1.1; false is not written.
pub(super) struct LaterFlag;

impl Codec<'_, bool> for LaterFlag {
    #[inline(always)]
    fn read(body: &mut Reader<'_>, version: Version) -> Result<bool, Malformed> {
        Ok(version.has_extras() && body.optional(Reader::bool)?.unwrap_or(false))
    }

    fn put(value: bool, out: &mut Vec<u8>) {
        if value {
            out.put_bool(true);
        }
    }
}

/// Highest value of SET_CHAT_NOTIFY: no pushes.
const NOTIFY_MAX: u8 = 2;

/// The push level of a member: 0 to [`NOTIFY_MAX`].
pub(super) struct NotifyLevel;

impl Codec<'_, u8> for NotifyLevel {
    #[inline(always)]
    fn read(body: &mut Reader<'_>, _: Version) -> Result<u8, Malformed> {
        match body.u8()? {
            level if level <= NOTIFY_MAX => Ok(level),
            _ => Err(Malformed::BadValue),
        }
    }

    fn put(value: u8, out: &mut Vec<u8>) {
        out.put_u8(value);
    }
}
