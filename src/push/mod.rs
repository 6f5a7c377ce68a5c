//! Web Push without I/O: what is sent (RFC 8291), who signs it (RFC 8292), and which addresses it
//! may be sent to.
//!
//! Owns the bytes of a push and the rules of where they may go. Must not know who gets one and
//! when (`service::push`), nor sockets (`net::push_sender`).

pub mod address;
pub mod encryption;
pub mod vapid;

/// A push for one subscription, ready to be encrypted and sent. Holds keys of a browser and text
/// of a message, so it has no `Debug`.
#[derive(Clone)]
pub struct Job {
    /// Comes back with the outcome.
    pub id: u64,
    /// The address at the push service.
    pub endpoint: String,
    /// The browser's public key, an uncompressed point of P-256.
    pub p256dh: Vec<u8>,
    /// The secret that authenticates pushes to the browser.
    pub auth: Vec<u8>,
    /// What the browser is to read.
    pub text: String,
    /// Seconds for which the push service keeps it for a browser that is away.
    pub ttl_s: u32,
    /// Whether it is worth waking a device that saves its battery.
    pub urgency: Urgency,
    /// A later push with the same topic replaces this one at the push service.
    pub topic: String,
    /// Seconds since the Unix epoch: the signature is valid from then on.
    pub now_s: u64,
}

/// The Urgency of RFC 8030.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Urgency {
    /// A message to many.
    Normal,
    /// A message to one person, or one that mentions or answers them.
    High,
}

impl Urgency {
    /// As the header has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::High => "high",
        }
    }
}

/// What came of a [`Job`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Done {
    /// Of which job.
    pub id: u64,
    /// What the push service answered.
    pub outcome: Outcome,
}

/// What a push service answered, or why it did not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It accepted the push, with this status.
    Delivered {
        /// Of HTTP.
        status: u16,
    },
    /// The subscription is over: 404 or 410.
    Gone {
        /// Of HTTP.
        status: u16,
    },
    /// It did not accept the push now.
    Declined {
        /// Of HTTP.
        status: u16,
        /// Seconds after which it wants to be asked again.
        retry_after_s: Option<u64>,
        /// The beginning of what it said, for people.
        said: String,
    },
    /// There was no answer that makes sense: one line that says why.
    Failed {
        /// In words for people.
        why: String,
        /// Nothing was answered at all, so that pushes of others to this host are likely to fail
        /// as well.
        is_unreachable: bool,
    },
    /// It cannot be sent, now or later: one line that says why.
    Impossible(String),
}
