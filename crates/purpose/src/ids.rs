//! Typed identifiers, and server time.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(u32);

        impl $name {
            /// The highest number, which is never assigned.
            pub const MAX: Self = Self(u32::MAX);

            /// `None` for 0, which the protocol never uses.
            pub const fn new(raw: u32) -> Option<Self> {
                if raw == 0 { None } else { Some(Self(raw)) }
            }

            /// From a row; `None` if the number is not a valid id.
            pub fn from_row(raw: i64) -> Option<Self> {
                u32::try_from(raw).ok().and_then(Self::new)
            }

            /// The number as the wire carries it.
            pub const fn get(self) -> u32 {
                self.0
            }

            /// The number as stored in the database.
            pub const fn row(self) -> i64 {
                self.0 as i64
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// A user: 1 to 2^32-1, never reused.
    UserId
);
id!(
    /// A chat, group or direct: 1 to 2^32-1, never reused.
    ChatId
);
id!(
    /// A session: 1 to 2^32-1, never reused.
    SessionId
);

/// Server time: microseconds since the Unix epoch, strictly increasing over all events of the
/// server (protocol section 3). Never negative.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ServerTime(i64);

impl ServerTime {
    /// The epoch: before every event.
    pub const ZERO: Self = Self(0);
    /// After every event.
    pub const MAX: Self = Self(i64::MAX);

    /// `None` for a negative number, which the protocol calls malformed.
    pub const fn new(micros: i64) -> Option<Self> {
        if micros < 0 { None } else { Some(Self(micros)) }
    }

    /// Microseconds since the Unix epoch.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// The next microsecond; the end of time stays where it is.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The microsecond before; zero stays zero.
    pub const fn previous(self) -> Self {
        Self(if self.0 > 0 { self.0 - 1 } else { 0 })
    }
}

impl fmt::Display for ServerTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A message is named by the server time of its creation: unique, growing, and the key of its row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MessageId(i64);

impl MessageId {
    /// `None` for 0 and for numbers past every server time.
    pub fn new(raw: u64) -> Option<Self> {
        i64::try_from(raw).ok().filter(|&id| id > 0).map(Self)
    }

    /// The message created at this time.
    pub const fn at(created: ServerTime) -> Self {
        Self(created.0)
    }

    /// The time of its creation.
    pub const fn created(self) -> ServerTime {
        ServerTime(self.0)
    }

    /// The number as the wire carries it.
    pub const fn get(self) -> u64 {
        self.0 as u64
    }
}

/// Names a file: given once, and never again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileId(i64);

impl FileId {
    /// The highest of all, which no server gives.
    pub const MAX: Self = Self(i64::MAX);

    /// `None` for 0 and for numbers that no row can have.
    pub fn new(raw: u64) -> Option<Self> {
        i64::try_from(raw).ok().and_then(Self::from_row)
    }

    /// The id in a row; `None` for a number that is none.
    pub const fn from_row(raw: i64) -> Option<Self> {
        if raw > 0 { Some(Self(raw)) } else { None }
    }

    /// The number as the wire carries it.
    pub const fn get(self) -> u64 {
        self.0 as u64
    }

    /// The number as a row has it.
    pub const fn row(self) -> i64 {
        self.0
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
