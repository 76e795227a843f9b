//! Frames of our own making out of container A: many sources, many destinations, at a given rate.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use datapath::port::LocalPort;
use datapath::slab::{Piece, Slab};
use datapath::txq::TxQueue;
use datapath::vnet::VnetHdr;
use etherparse::PacketBuilder;
use nix::sys::prctl::set_timerslack;

use crate::interrupted;
use crate::netns::Netns;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Frames handed over at once.
pub const BURST: usize = 32;
/// Coprime to every number of stations used, so that a walk by it comes to each before it comes to one again.
const STRIDE: usize = 611_953;

/// Addresses of a row, by number; `row` tells rows apart.
pub fn mac(row: u8, i: usize) -> Mac {
    let [.., a, b, c, d] = (i as u64).to_be_bytes();
    [2, row, a, b, c, d]
}

/// Sends frames that differ in their addresses alone.
#[derive(Debug)]
pub struct Traffic {
    port: LocalPort,
    slab: Slab,
    queue: TxQueue,
    pieces: Vec<Piece>,
    pairs: Vec<(Mac, Mac)>,
    next: usize,
    /// Frames in a row from one pair.
    row: usize,
    sent: usize,
}

impl Traffic {
    /// UDP frames of `len` bytes out of eth0 of `container`, from each pair's first address to its second, `row` of them before
    /// the next pair has its turn.
    pub fn new(container: &Netns, len: usize, pairs: Vec<(Mac, Mac)>, row: usize) -> Result<Traffic> {
        let port = container.enter(|| LocalPort::packet("eth0").context("a packet socket on eth0"))?;
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2([0; 6], [0; 6]).ipv4([10, 0, 11, 2], [10, 0, 42, 2], 64);
        let builder = builder.udp(9, 9);
        let headers = builder.size(0);
        builder.write(&mut frame, &vec![0x5a; len.saturating_sub(headers)])?;
        let (mut slab, mut queue, mut pieces) = (Slab::new(), TxQueue::new(), Vec::new());
        for _ in 0..BURST {
            let piece = slab.alloc(frame.len()).context("frames too long")?;
            slab.get_mut(piece).copy_from_slice(&frame);
            queue.push(VnetHdr::default(), &[piece]);
            pieces.push(piece);
        }
        Ok(Traffic { port, slab, queue, pieces, pairs, next: 0, row, sent: 0 })
    }

    /// Frames until every pair has had its turn.
    pub fn lap(&self) -> usize {
        self.pairs.len() * self.row
    }

    fn burst(&mut self) -> Result<usize> {
        let count = self.pairs.len().max(1);
        for piece in &self.pieces {
            let pair = self.pairs.get(self.next % count).copied().unwrap_or_default();
            self.sent += 1;
            if self.sent.is_multiple_of(self.row) {
                self.next = (self.next + STRIDE) % count;
            }
            if let Some((addresses, _)) = self.slab.get_mut(*piece).split_first_chunk_mut::<12>() {
                addresses[..6].copy_from_slice(&pair.1);
                addresses[6..].copy_from_slice(&pair.0);
            }
        }
        let sent = self.port.tx(&self.slab, &self.queue);
        if sent.failed > 0 {
            bail!("eth0 takes no frames");
        }
        Ok(sent.ok)
    }

    /// Sends `rate` frames a second for `time`; as fast as it can when `rate` is infinite. Returns how many went.
    pub fn send(&mut self, rate: f64, time: Duration) -> Result<u64> {
        let _ = set_timerslack(1);
        let (start, mut sent) = (Instant::now(), 0);
        while start.elapsed() < time {
            if interrupted() {
                bail!("interrupted");
            }
            if (sent as f64) < rate * start.elapsed().as_secs_f64() {
                sent += self.burst()? as u64;
            } else {
                sleep(Duration::from_micros(100));
            }
        }
        Ok(sent)
    }

    /// Sends a little more than a [`Traffic::lap`], at `rate`.
    pub fn send_lap(&mut self, rate: f64) -> Result<()> {
        let seconds = (self.lap() + 2 * BURST) as f64 / rate;
        self.send(rate, Duration::from_secs_f64(seconds)).map(drop)
    }
}
