//! One frame to the queues of many.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use vestnik::limits::HEADER_BYTES;
use vestnik::metrics::Metrics;
use vestnik::outbox::Outbox;
use vestnik::wire::frame::header;

/// Bytes of the frame: a notification of a message of about 90 bytes.
const FRAME_BYTES: usize = 128;

/// Stages, releases and takes, as a turn does, with sockets that take everything.
pub(crate) fn fan_out(criterion: &mut Criterion) {
    let mut frame = [7; FRAME_BYTES];
    frame[..HEADER_BYTES].copy_from_slice(&header(FRAME_BYTES - HEADER_BYTES, 0x20, 1));
    let mut metrics = Metrics::default();
    let mut group = criterion.benchmark_group("outbox");
    for peers in [10, 100, 1_000, 10_000] {
        group.throughput(Throughput::Elements(u64::from(peers)));
        let mut outbox = Outbox::default();
        let id = BenchmarkId::new("one frame to peers", peers);
        group.bench_with_input(id, &peers, |bencher, &peers| {
            bencher.iter(|| {
                for index in 0..peers {
                    outbox.stage(index, |out| out.extend_from_slice(black_box(&frame)));
                }
                outbox.release(&mut metrics);
                while let Some(index) = outbox.pop_dirty() {
                    let bytes = outbox.sendable(index).len();
                    assert_eq!(bytes, FRAME_BYTES);
                    outbox.advance(index, bytes);
                }
            });
        });
    }
    group.finish();
}
