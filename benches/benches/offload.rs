//! TCP superframes up to 64 KiB: taken apart for a tunnel, and put together again.

mod frames;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use datapath::offload::{Coalescer, Fit, FrameSink, fit};
use datapath::slab::{Piece, Slab};
use datapath::txq::TxQueue;

/// Full segments of a superframe: up to 64 KiB.
const SEGMENTS: [usize; 4] = [1, 4, 11, 44];
/// What a GRE tunnel over a path of 1500 bytes takes.
const MAX_FRAME: usize = 1500 - 20 - 4;

/// Slots one behind the other, like a tunnel's send buffer.
struct Slots {
    memory: Vec<u8>,
    used: usize,
}

impl FrameSink for Slots {
    fn slot(&mut self, len: usize) -> Option<&mut [u8]> {
        let slot = self.memory.get_mut(self.used..)?.get_mut(..len)?;
        self.used += len;
        Some(slot)
    }
}

fn segment(c: &mut Criterion) {
    let mut g = c.benchmark_group("fit");
    let mut sink = Slots { memory: vec![0; 1 << 20], used: 0 };
    for segments in SEGMENTS {
        let (frame, vnet) = frames::superframe(segments);
        g.throughput(Throughput::Bytes(frame.len() as u64));
        g.bench_function(BenchmarkId::new("superframe", segments), |b| {
            b.iter(|| {
                sink.used = 0;
                let fitted = fit(black_box(&frame), &vnet, MAX_FRAME, &mut sink);
                debug_assert!(matches!(fitted, Fit::Sent(n) if n > segments));
                fitted
            });
        });
    }
    let small = frames::tcp4(1, 64);
    g.throughput(Throughput::Bytes(small.len() as u64));
    g.bench_function("small_frame", |b| {
        b.iter(|| {
            sink.used = 0;
            fit(black_box(&small), &Default::default(), MAX_FRAME, &mut sink)
        });
    });
}

fn coalesce(c: &mut Criterion) {
    let mut g = c.benchmark_group("coalesce");
    let mut slab = Slab::new();
    let mut coalescer = Coalescer::new();
    let mut out = TxQueue::new();
    for segments in SEGMENTS {
        let mut pieces = Vec::new();
        for i in 0..segments {
            let frame = frames::tcp4((1 + i * frames::MSS) as u32, frames::MSS);
            let piece = Piece { len: frame.len() as u32, ..Slab::slot(i) };
            slab.get_mut(piece).copy_from_slice(&frame);
            pieces.push(piece);
        }
        g.throughput(Throughput::Bytes((segments * frames::MSS) as u64));
        g.bench_function(BenchmarkId::new("segments", segments), |b| {
            b.iter(|| {
                slab.reset();
                out.clear();
                for piece in &pieces {
                    coalescer.push(&mut slab, black_box(*piece), &mut out);
                }
                coalescer.flush(&mut slab, &mut out);
                debug_assert_eq!(out.frames().len(), 1);
                out.frames().len()
            });
        });
    }
}

criterion_group!(benches, segment, coalesce);
criterion_main!(benches);
