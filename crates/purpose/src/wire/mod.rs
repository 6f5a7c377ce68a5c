//! The Purpose protocol as bytes: frames, requests, answers and reasons (protocol sections 1, 2, 4
//! to 6).
//!
//! It knows no sessions, clocks or sockets. The server reads [`request::Request`] and writes
//! through [`answer`]; clients write requests through [`request`] and read with [`codec::Reader`].

pub mod answer;
pub mod base64;
pub mod codec;
pub mod decline;
pub mod extras;
mod field;
pub mod frame;
pub mod purpose;
pub mod request;
pub mod websocket;

/// The version of the protocol that a connection speaks, agreed by HELLO.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Version {
    /// API 0.1: the purposes of section 4.
    V0_1,
    /// API 1.0: adds section 5.
    V1_0,
    /// API 1.1: adds section 5a.
    V1_1,
}

impl Version {
    /// The version for a HELLO of `major.minor`: 0.1 for 0.1, the highest 1.y for any 1.x.
    pub const fn negotiate(major: u8, minor: u8) -> Option<Self> {
        match (major, minor) {
            (0, 1) => Some(Self::V0_1),
            (1, 0) => Some(Self::V1_0),
            (1, _) => Some(Self::V1_1),
            _ => None,
        }
    }

    /// Major and minor number.
    pub const fn numbers(self) -> (u8, u8) {
        match self {
            Self::V0_1 => (0, 1),
            Self::V1_0 => (1, 0),
            Self::V1_1 => (1, 1),
        }
    }

    /// Whether messages have extras, and other structures the additions of section 5a.
    pub const fn has_extras(self) -> bool {
        matches!(self, Self::V1_1)
    }
}
