//! The state that the service keeps per connection.

use std::net::{IpAddr, Ipv6Addr};

use crate::auth::helper::JobId;
use crate::auth::password::Password;
use crate::auth::token::Digest;
use crate::ids::{ChatId, ConnId, ServerTime, SessionId, UserId};
use crate::service::backlog::Backlog;
use crate::service::stream::Stream;
use crate::wire::Version;

/// The session that is attached to a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Attached {
    pub(crate) session: SessionId,
    pub(crate) user: UserId,
    /// A notification was declined: no notifications and almost no requests until restored.
    pub(crate) suspended: bool,
}

/// The part of a connection's state that a turn may change, and an undo restores.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct PeerState {
    /// The version that HELLO agreed on; `None` for a *new* connection.
    pub(crate) version: Option<Version>,
    /// The session, on an *authorized* connection.
    pub(crate) attached: Option<Attached>,
    /// The task byte of the last notification, 1 to 255; 0 before the first.
    pub(crate) notify_task: u8,
    /// Notifications since the session was attached, up to the 255 that task bytes can distinguish.
    pub(crate) notified: u8,
    /// A request waits for another process that holds the write lock.
    pub(crate) waits_for_lock: bool,
    /// When the use of the session was last stored.
    pub(crate) touched: ServerTime,
    /// Milliseconds of the monotonic clock: when the last frame came; without a session, when the
    /// connection was made or lost its session.
    pub(crate) since_ms: u64,
}

/// A request that waits for the password helper, and how it continues.
#[derive(Clone)]
pub(crate) struct Waiting {
    pub(crate) job: JobId,
    pub(crate) task: u8,
    pub(crate) intent: Intent,
}

/// A password to check, with the stored form that it is compared with. The stored form may change
/// meanwhile; the result then counts for nothing.
#[derive(Clone)]
pub(crate) struct Checked {
    pub(crate) password: Password,
    /// `None` for a user who does not exist or is disabled.
    pub(crate) stored: Option<String>,
}

/// The request that password work is done for.
#[derive(Clone)]
pub(crate) enum Intent {
    Login {
        user: Option<UserId>,
        login: String,
        checked: Checked,
    },
    JoinChat {
        chat: ChatId,
        checked: Checked,
    },
    Register {
        nickname: String,
        key: String,
        /// The digest of the invite to use.
        invite: Option<[u8; 32]>,
    },
    /// CHANGE_PASSWORD: the old password is being checked; the new one is hashed next.
    CheckOldPassword {
        new: Password,
    },
    HashNewPassword,
    CreateChat {
        name: String,
        key: String,
    },
    /// The chat may have this password already; otherwise it is hashed next.
    CompareChatPassword {
        chat: ChatId,
        checked: Checked,
    },
    SetChatPassword {
        chat: ChatId,
    },
    /// SET_PASSWORD: a new password by a reset code, with the digest of the code.
    SetPassword {
        login: String,
        digest: Digest,
    },
}

/// One connection. There may be very many, so keep it small.
pub(crate) struct Peer {
    pub(crate) conn: ConnId,
    /// The remote address; as IPv6, which is one byte smaller than an enum of both.
    address: Ipv6Addr,
    pub(crate) state: PeerState,
    /// Index of the saved state for an undo. Valid only if that entry is this connection's.
    pub(crate) saved_at: u32,
    /// Number of the batch that it last sent a message to, modulo 2^32.
    pub(crate) sent_in: u32,
    pub(crate) waiting: Option<Box<Waiting>>,
    /// A streamed answer in progress.
    pub(crate) stream: Option<Box<Stream>>,
    /// Set while notifications are left out.
    pub(crate) backlog: Option<Box<Backlog>>,
}

impl Peer {
    pub(crate) fn new(conn: ConnId, address: IpAddr, now_ms: u64) -> Self {
        Self {
            conn,
            address: match address {
                IpAddr::V4(address) => address.to_ipv6_mapped(),
                IpAddr::V6(address) => address,
            },
            state: PeerState { since_ms: now_ms, ..PeerState::default() },
            saved_at: 0,
            sent_in: 0,
            waiting: None,
            stream: None,
            backlog: None,
        }
    }

    /// The remote address.
    pub(crate) fn address(&self) -> IpAddr {
        self.address.to_canonical()
    }

    /// Notes that a frame has come.
    pub(crate) fn hear(&mut self, now_ms: u64) {
        if self.state.attached.is_some() {
            self.state.since_ms = now_ms;
        }
    }

    /// The user; `None` without a session.
    pub(crate) fn user(&self) -> Option<UserId> {
        self.state.attached.map(|attached| attached.user)
    }

    /// The protocol version.
    pub(crate) fn version(&self) -> Version {
        self.state.version.unwrap_or(Version::V0_1)
    }

    /// Whether it speaks 1.0 or later, which has more notifications.
    pub(crate) fn is_modern(&self) -> bool {
        self.state.version >= Some(Version::V1_0)
    }

    /// Uses up the next task byte for a notification.
    pub(crate) fn next_notify_task(&mut self) -> u8 {
        let state = &mut self.state;
        state.notify_task = if state.notify_task == u8::MAX { 1 } else { state.notify_task + 1 };
        state.notified = state.notified.saturating_add(1);
        state.notify_task
    }

    /// Whether a task byte belongs to a notification of the present session.
    pub(crate) fn was_notified(&self, task: u8) -> bool {
        // Notification tasks cycle through 1 to 255: how many steps back is this one?
        let state = &self.state;
        let back = (i32::from(state.notify_task) - i32::from(task)).rem_euclid(255);
        task != 0 && back < i32::from(state.notified)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_peer_comes_from_where_it_came_from() {
        let conn = ConnId { index: 0, generation: 0 };
        for address in ["127.0.0.1", "255.255.255.255", "::1", "2001:db8::7f00:1"] {
            let address = address.parse().expect("an address");
            assert_eq!(Peer::new(conn, address, 0).address(), address);
        }
    }

    #[test]
    fn what_the_service_knows_of_an_idle_connection_is_small() {
        assert!(size_of::<Option<Peer>>() <= 88);
    }

    #[test]
    fn notifications_are_numbered_from_1_to_255_in_turn() {
        let conn = ConnId { index: 0, generation: 0 };
        let mut peer = Peer::new(conn, Ipv4Addr::LOCALHOST.into(), 0);
        assert!(!peer.was_notified(0) && !peer.was_notified(1) && !peer.was_notified(255));
        for expected in (1..=255).chain(1..=3) {
            assert_eq!(peer.next_notify_task(), expected);
            assert!(peer.was_notified(expected));
        }
        peer.state.notified = 5;
        let known = [3, 2, 1, 255, 254];
        for task in 0..=255 {
            assert_eq!(peer.was_notified(task), known.contains(&task), "{task}");
        }
    }
}
