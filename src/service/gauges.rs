//! The service's metrics: counters since the start, and gauges of the present state.

use crate::metrics::{Kind, Page};
use crate::service::Service;
use crate::service::peer::Peer;
use crate::wire::decline;
use crate::wire::purpose::{ToClient, ToServer};

/// The states of a connection, as label values of the metrics.
const STATES: [&str; 4] = ["new", "greeted", "authorized", "suspended"];

fn state(peer: &Peer) -> usize {
    match (peer.state.version, peer.state.attached) {
        (None, _) => 0,
        (Some(_), None) => 1,
        (Some(_), Some(attached)) => 2 + usize::from(attached.suspended),
    }
}

impl Service<'_> {
    /// Writes all metrics to a page. Visits every connection, so call it per scrape, not per turn.
    pub fn describe(&self, page: &mut Page) {
        let mut states = [0_u64; STATES.len()];
        let (mut slow_readers, mut long_answers) = (0_u64, 0_u64);
        for peer in self.presence.peers.iter() {
            if let Some(count) = states.get_mut(state(peer)) {
                *count += 1;
            }
            slow_readers += u64::from(peer.backlog.is_some());
            long_answers += u64::from(peer.stream.is_some());
        }
        page.begin("connections", Kind::Gauge, "Connections, by what they may do.");
        for (state, count) in STATES.into_iter().zip(states) {
            page.sample("connections", Some(("state", state)), count);
        }
        page.gauge(
            "online_users",
            "Users with a session in use.",
            self.presence.roster.online_count(),
        );
        page.gauge("slow_readers", "Connections with notifications left out.", slow_readers);
        page.gauge("long_answers", "Connections with an answer under way.", long_answers);
        page.gauge("outbound_bytes", "Bytes that wait to be sent.", self.outbox.buffered_bytes());
        let help = "Bytes that may wait for all peers together.";
        page.gauge("outbound_limit_bytes", help, self.outbound_share());
        self.describe_pushing(page);
        page.gauge(
            "password_queue",
            "Passwords that wait for the helper.",
            self.passwords.jobs.len(),
        );
        let help = "Messages that wait to be indexed for searches.";
        page.gauge("search_backlog", help, self.background.indexing.backlog());
        let scanning = u8::from(self.background.indexing.is_scanning());
        page.gauge("search_scanning", "1 while chats are scanned for messages to index.", scanning);
        let failing = u8::from(self.storage.is_failing);
        page.gauge("storage_failing", "1 while the data file cannot be written.", failing);
        let checkpoints = self.store.checkpoints();
        page.begin("checkpoints_total", Kind::Counter, "Checkpoints of the WAL.");
        for (by, count) in [("thread", checkpoints.by_thread), ("loop", checkpoints.by_loop)] {
            page.sample("checkpoints_total", Some(("by", by)), count);
        }
        let help = "Times that it failed, to be tried again.";
        page.counter("checkpoints_failed_total", help, checkpoints.failed);
        let help = "Damaged messages that were met when they were read.";
        page.counter("damaged_messages_total", help, self.store.damage_met().0);
        let help = "Damaged parts of files that were met when they were read.";
        page.counter("damaged_files_total", help, self.store.damaged_files_met().0);
        let received = ToServer::ALL.iter().map(|purpose| (purpose.byte(), purpose.name()));
        let sent = ToClient::ALL.iter().map(|purpose| (purpose.byte(), purpose.name()));
        self.metrics.render(page, received, sent, decline::CODES);
    }
}
