//! One frame to the queues of many.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use vestnik::limits::HEADER_BYTES;
use vestnik::metrics::Metrics;
use vestnik::outbox::{BROADCAST_HEAD_BYTES, Dirty, Outbox};
use vestnik::wire::frame::header;
use vestnik::wire::purpose::ToClient;

/// Bytes of the frame: a notification of a message of about 90 bytes.
const FRAME_BYTES: usize = 128;

/// Queues, and a frame for them.
pub(crate) struct FanOut {
    outbox: Outbox,
    metrics: Metrics,
    frame: [u8; FRAME_BYTES],
}

impl FanOut {
    pub(crate) fn new() -> Self {
        let mut frame = [7; FRAME_BYTES];
        frame[..HEADER_BYTES].copy_from_slice(&header(FRAME_BYTES - HEADER_BYTES, 0x20, 1));
        Self { outbox: Outbox::default(), metrics: Metrics::default(), frame }
    }

    /// Stages, releases and takes, as a turn does, with sockets that take everything.
    pub(crate) fn turn(&mut self, peers: u32) {
        let outbox = &mut self.outbox;
        outbox.begin_turn();
        let head = [0; BROADCAST_HEAD_BYTES];
        let rest = self.frame.len() - BROADCAST_HEAD_BYTES;
        outbox.broadcast_mut().extend_from_slice(black_box(&self.frame[BROADCAST_HEAD_BYTES..]));
        for index in 0..peers {
            outbox.stage_broadcast(index, ToClient::MsgNotify, head, 0..rest);
        }
        outbox.release(&mut self.metrics);
        while let Some(Dirty { index, .. }) = outbox.pop_dirty() {
            let bytes = outbox.sendable(index).len();
            assert_eq!(bytes, FRAME_BYTES);
            outbox.advance(index, bytes);
        }
    }
}

/// What it costs to send one frame to many.
pub(crate) fn fan_out(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("outbox");
    for peers in [10, 100, 1_000, 10_000] {
        group.throughput(Throughput::Elements(u64::from(peers)));
        let mut queues = FanOut::new();
        let id = BenchmarkId::new("one frame to peers", peers);
        group.bench_with_input(id, &peers, |bencher, &peers| bencher.iter(|| queues.turn(peers)));
    }
    group.finish();
}
