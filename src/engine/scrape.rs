//! The metrics endpoint: scrapes over HTTP, how many at once, and the page that they get.
//!
//! Scrapes have a listener of their own, speak HTTP from the first byte, and get one answer. No
//! limit but [`SCRAPES_MAX`] counts them, so a server full of other connections can be monitored.

use std::collections::VecDeque;

use crate::engine::connection::Connection;
use crate::engine::protocol::{HttpPeer, Protocol};
use crate::engine::{Engine, Io, State, enqueue};
use crate::http::Surface;
use crate::ids::ConnId;
use crate::limits::SCRAPES_MAX;
use crate::metrics::Rejection;

/// All scrapes in progress.
#[derive(Debug, Default)]
pub(super) struct Scrapes {
    /// Open connections, oldest first.
    open: VecDeque<ConnId>,
    /// The metrics of this turn, once a scrape has requested them.
    page: Option<String>,
}

impl Scrapes {
    /// Drops the page: metrics are rendered once per turn.
    pub(super) fn begin_turn(&mut self) {
        self.page = None;
    }
}

impl Engine<'_> {
    /// Adds a scrape. If there are [`SCRAPES_MAX`], the oldest is evicted, so a peer that never
    /// completes its request does not lock out others.
    pub(super) fn admit_scrape(
        &mut self,
        address: std::net::IpAddr,
        surface: Surface,
        open: impl FnOnce(ConnId) -> std::io::Result<()>,
    ) -> Result<ConnId, Rejection> {
        debug_assert!(surface != Surface::Public, "{surface:?} is no listener for metrics");
        let connections = &self.connections;
        let is_open = |conn: &ConnId| {
            let found = connections.get(conn.at()).filter(|found| found.id == *conn);
            found.is_some_and(|found| found.state() != State::Closed)
        };
        self.admission.scrapes.open.retain(is_open);
        if self.admission.scrapes.open.len() >= SCRAPES_MAX
            && let Some(oldest) = self.admission.scrapes.open.pop_front()
        {
            log::debug!("{oldest} is evicted for a new scrape");
            self.mark_closed(oldest);
            debug_assert_eq!(self.state(oldest), Some(State::Closed), "{oldest} was open");
        }
        let now_ms = self.now.ms();
        let conn = self.insert(address, surface, open)?;
        self.admission.scrapes.open.push_back(conn);
        debug_assert!(self.admission.scrapes.open.len() <= SCRAPES_MAX);
        if let Some(connection) = self.connections.get_mut(conn.at()) {
            debug_assert!(connection.is_scrape(), "{conn} came by another listener");
            connection.protocol =
                Protocol::Http(Box::new(HttpPeer::new(connection.address, now_ms)));
            enqueue(&mut self.queues.ready, connection);
        }
        self.arm(conn);
        Ok(conn)
    }

    /// The metrics of this turn, rendered once for all its scrapes.
    pub(super) fn metrics_page(&mut self, io: &impl Io) -> String {
        if let Some(page) = &self.admission.scrapes.page {
            return page.clone();
        }
        let page = self.render_metrics(io);
        self.admission.scrapes.page = Some(page.clone());
        page
    }
}

impl Connection {
    /// Whether this is a scrape, which gets one answer.
    pub(super) fn is_scrape(&self) -> bool {
        self.surface != Surface::Public
    }
}
