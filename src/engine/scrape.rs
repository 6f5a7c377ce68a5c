//! Connections that scrape metrics by HTTP: how many at once, and the page that they get.
//!
//! They come by a listener of their own, speak HTTP from the first byte, get one answer, and are
//! counted by nothing but [`SCRAPES_MAX`]: a server that is full of other connections can still be
//! watched.

use std::collections::VecDeque;

use crate::engine::connection::Connection;
use crate::engine::protocol::{HttpPeer, Protocol};
use crate::engine::{Engine, Io, State, enqueue};
use crate::http::Surface;
use crate::ids::ConnId;
use crate::limits::SCRAPES_MAX;
use crate::metrics::Rejection;

/// All scrapes.
#[derive(Debug, Default)]
pub(super) struct Scrapes {
    /// Those that are open, the oldest first.
    open: VecDeque<ConnId>,
    /// The metrics of this turn, once a scrape has asked for them.
    page: Option<String>,
}

impl Scrapes {
    /// Metrics are rendered anew in each turn.
    pub(super) fn begin_turn(&mut self) {
        self.page = None;
    }
}

impl Engine<'_> {
    /// Adds a connection that scrapes. When there are [`SCRAPES_MAX`], the oldest makes room: a
    /// peer that begins a request and does not go on keeps nobody out.
    pub(super) fn admit_scrape(
        &mut self,
        address: std::net::IpAddr,
        surface: Surface,
        open: impl FnOnce(ConnId) -> std::io::Result<()>,
    ) -> Result<ConnId, Rejection> {
        let connections = &self.connections;
        let is_open = |conn: &ConnId| {
            let found = connections.get(conn.at()).filter(|found| found.id == *conn);
            found.is_some_and(|found| found.state() != State::Closed)
        };
        self.scrapes.open.retain(is_open);
        if self.scrapes.open.len() >= SCRAPES_MAX
            && let Some(oldest) = self.scrapes.open.pop_front()
        {
            log::debug!("{oldest} makes room for another scrape");
            self.mark_closed(oldest);
        }
        let now_ms = self.now.ms();
        let conn = self.insert(address, surface, open)?;
        self.scrapes.open.push_back(conn);
        if let Some(connection) = self.connections.get_mut(conn.at()) {
            connection.protocol = Protocol::Http(Box::new(HttpPeer::new(now_ms)));
            enqueue(&mut self.ready, connection);
        }
        self.arm(conn);
        Ok(conn)
    }

    /// The metrics as they are in this turn, rendered once for all that ask in it.
    pub(super) fn metrics_page(&mut self, io: &impl Io) -> String {
        if let Some(page) = &self.scrapes.page {
            return page.clone();
        }
        let page = self.render_metrics(io);
        self.scrapes.page = Some(page.clone());
        page
    }
}

impl Connection {
    /// Whether it scrapes metrics, and so gets one answer.
    pub(super) fn is_scrape(&self) -> bool {
        self.surface != Surface::Public
    }
}
