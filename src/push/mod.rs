//! Web Push without I/O: encryption (RFC 8291), signatures (RFC 8292), and allowed addresses.
//!
//! Owns the bytes of a push and the rule which addresses it may be sent to. Must not know which
//! sessions get one and when (`service::push`), nor sockets (`net::push_client`).

pub mod address;
pub mod encryption;
pub mod vapid;

/// A push for one subscription, ready to be encrypted and sent.
///
/// Holds keys of a browser and text of a message, so it has no `Debug`.
#[derive(Clone)]
pub struct Job {
    /// Number of the job; the result carries it.
    pub id: u64,
    /// URL of the subscription at the push service.
    pub endpoint: String,
    /// The browser's public key, an uncompressed point of P-256.
    pub p256dh: Vec<u8>,
    /// The secret that authenticates pushes to the browser.
    pub auth: Vec<u8>,
    /// The content for the browser, in JSON.
    pub text: String,
    /// Seconds for which the push service keeps the push for a browser that is offline.
    pub ttl_s: u32,
    /// Whether the push may wake a device that saves its battery.
    pub urgency: Urgency,
    /// A later push with the same topic replaces this one at the push service.
    pub topic: String,
    /// The present time, in seconds since the Unix epoch. The signature's lifetime starts here.
    pub now_s: u64,
}

/// How urgent a push is (RFC 8030, section 5.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Urgency {
    /// A message to many.
    Normal,
    /// A message to one person, or one that mentions or answers them.
    High,
}

impl Urgency {
    /// The value of the Urgency header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::High => "high",
        }
    }
}

/// The result of a [`Job`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Done {
    /// Number of the job.
    pub id: u64,
    /// The answer of the push service, or why there is none.
    pub outcome: Outcome,
}

/// The answer of a push service to a push, or why there is none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The push service accepted the push.
    Delivered {
        /// HTTP status.
        status: u16,
    },
    /// The subscription has ended: the push service answered 404 or 410.
    Gone {
        /// HTTP status.
        status: u16,
    },
    /// The push service did not accept the push; it may accept it later.
    Declined {
        /// HTTP status.
        status: u16,
        /// Retry-After in seconds, if the answer had one.
        retry_after_s: Option<u64>,
        /// The beginning of the answer's body, for the log line.
        excerpt: String,
    },
    /// There was no valid answer.
    Failed {
        /// The reason, in one line.
        why: String,
        /// The host did not answer at all, so other pushes to it are likely to fail as well.
        is_unreachable: bool,
    },
    /// The push cannot be sent, now or later: the reason, in one line.
    Impossible(String),
}
