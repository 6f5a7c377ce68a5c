//! Figures for whoever asks.

use slab::Slab;

use crate::config::Config;
use crate::metrics::Page;
use crate::net::connection::{Connection, Phase};
use crate::service::Service;

use super::Reactor;

/// What the loop adds to the figures of the service.
pub(super) fn describe(
    service: &Service<'_>,
    connections: &Slab<Connection>,
    config: &Config,
) -> String {
    let mut page = Page::default();
    let closing = connections.iter().filter(|(_, connection)| connection.phase != Phase::Open);
    let inbound: usize = connections.iter().map(|(_, connection)| connection.inbox.len()).sum();
    service.describe(&mut page);
    page.gauge("connections_closing", "Connections on their way out.", closing.count());
    page.gauge("inbound_bytes", "Bytes of frames that are not whole, or wait.", inbound);
    let mut wal = config.data.clone().into_os_string();
    wal.push("-wal");
    let wal_bytes = std::fs::metadata(wal).map_or(0, |file| file.len());
    page.gauge("wal_bytes", "Size of the file's write-ahead log.", wal_bytes);
    page.into_text()
}

impl Reactor<'_, '_> {
    pub(super) fn serve_askers(&mut self) {
        let Self { metrics_server, service, connections, config, .. } = self;
        metrics_server.serve(self.poll.registry(), self.clock.now_ms(), || {
            describe(service, connections, config)
        });
    }
}
