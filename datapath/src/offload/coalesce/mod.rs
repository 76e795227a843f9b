//! Putting consecutive TCP segments and UDP datagrams together again, as the kernel's GRO does, on the way to a local port.
//!
//! A worker pushes each frame for one port; what follows on what came before joins its run, and a run leaves as one
//! superframe: a new header, then the payloads where they lie. The receiving kernel sees what the sending one handed to
//! the tunnel's far end, so it must be able to take the superframe apart again without loss. Hence the rules:
//! - IPv4 without options, IPv6 without extension headers, no fragments; TCP data with ACK and perhaps PSH, or UDP with a
//!   checksum, to one station;
//! - Ethernet header, addresses, ports, TOS, TTL, flow label, and of TCP acknowledgment, window and options are the same;
//!   the IPv4 identification counts up by one a packet, unless DF makes it meaningless (RFC 6864);
//! - TCP sequence numbers follow on; each payload is as long as the first, only the last may be shorter;
//! - IPv4 header and transport checksum of each were right. A damaged packet goes on by itself, damaged as it was.
//!
//! Within a flow no frame overtakes another, but that what the kernel let overtake steps back. PSH, a short payload, or a frame that does not follow on ends a run.

mod run;
mod segment;
#[cfg(test)]
mod tests;
mod track;

use run::{Joined, Run};
use segment::Segment;

use crate::slab::{Piece, Slab};
use crate::txq::TxQueue;
use crate::vnet::VnetHdr;

/// Runs open at a time. One more ends the oldest.
const RUNS: usize = 8;

/// The runs open toward one queue.
#[derive(Debug)]
pub struct Coalescer {
    runs: [Run; RUNS],
    /// Indices of the open runs, oldest first, then those of the free.
    order: [u8; RUNS],
    open: usize,
    /// Index of the run that the last frame is in.
    last: Option<u8>,
    /// Datagrams are joined, too.
    datagrams: bool,
}

impl Coalescer {
    /// No run open.
    pub fn new() -> Coalescer {
        let runs = [const { Run::EMPTY }; RUNS];
        Coalescer { runs, order: [0, 1, 2, 3, 4, 5, 6, 7], open: 0, last: None, datagrams: true }
    }

    /// The same, for a port that takes no superframes of UDP.
    pub fn of_tcp() -> Coalescer {
        Coalescer { datagrams: false, ..Coalescer::new() }
    }

    /// Takes the next frame for `out`, which lies in the slab, complete in itself: it joins a run, or is queued. Every
    /// call between two flushes must name the same slab and queue.
    pub fn push(&mut self, slab: &mut Slab, frame: Piece, out: &mut TxQueue) {
        self.push_offloaded(slab, frame, &VnetHdr::default(), out);
    }

    /// The same for a frame with an offload header, as [`super::recognize()`] gives it. A kernel that merges the segments of a TCP
    /// superframe as a veth hands them over misses the last one, for a socket still owns it, and if that has PSH hands it out first.
    /// Here the two come together again.
    pub fn push_offloaded(&mut self, slab: &mut Slab, frame: Piece, vnet: &VnetHdr, out: &mut TxQueue) {
        self.last = None;
        let Some(segment) = self.segment(slab, frame, vnet) else {
            return out.push(*vnet, &[frame]);
        };
        let Some((place, run)) = self.find(slab, &segment) else {
            return self.open(segment, slab, out);
        };
        if segment.is_merged() {
            let followed = run.follow(slab, &segment);
            self.close(place, slab, out);
            if !followed {
                self.open(segment, slab, out);
            }
            return;
        }
        match run.join(slab, &segment) {
            Joined::Open => self.last = self.order.get(place).copied(),
            Joined::Full => self.close(place, slab, out),
            Joined::Refused => {
                self.close(place, slab, out);
                self.open(segment, slab, out);
            }
        }
    }

    /// Takes a frame without an offload header in if it follows on the last one. False: nothing has changed, and it is for
    /// [`Coalescer::push`].
    pub fn follow(&mut self, slab: &mut Slab, frame: Piece, out: &mut TxQueue) -> bool {
        let Some((last, run)) =
            self.last.and_then(|last| Some((last, self.runs.get_mut(usize::from(last))?)))
        else {
            return false;
        };
        match run.follow_track(slab, frame) {
            Joined::Refused => return false,
            Joined::Open => {}
            Joined::Full => {
                let place = self.order.iter().position(|index| *index == last);
                self.close(place.unwrap_or(0), slab, out);
            }
        }
        true
    }

    /// Call before `frame` is queued without [`Coalescer::push`]: a run of its flow goes first, so that it overtakes nothing.
    pub fn give_way(&mut self, slab: &mut Slab, frame: Piece, out: &mut TxQueue) {
        self.last = None;
        if self.open > 0
            && let Some(segment) = self.segment(slab, frame, &VnetHdr::default())
            && let Some((place, _)) = self.find(slab, &segment)
        {
            self.close(place, slab, out);
        }
    }

    /// Queues what is left, oldest first. Call when a batch ends.
    pub fn flush(&mut self, slab: &mut Slab, out: &mut TxQueue) {
        while self.open > 0 {
            self.close(0, slab, out);
        }
    }

    /// What may join a run in that frame.
    fn segment(&self, slab: &Slab, frame: Piece, vnet: &VnetHdr) -> Option<Segment> {
        Segment::parse(slab.get(frame), frame, vnet).filter(|segment| self.datagrams || !segment.is_udp())
    }

    /// The run of the segment's flow, and its place in the order.
    fn find(&mut self, slab: &Slab, segment: &Segment) -> Option<(usize, &mut Run)> {
        let place = self.order.iter().take(self.open).position(|index| {
            self.runs.get(usize::from(*index)).is_some_and(|run| run.first.same_flow(segment, slab))
        })?;
        let index = usize::from(*self.order.get(place)?);
        Some((place, self.runs.get_mut(index)?))
    }

    /// Starts a run with the segment, or queues it when nothing could join it. One with PSH waits for what it has overtaken.
    fn open(&mut self, segment: Segment, slab: &mut Slab, out: &mut TxQueue) {
        if !segment.plain || (segment.psh && segment.is_merged()) {
            return out.push(segment.vnet, &[segment.frame]);
        }
        if self.open == RUNS {
            self.close(0, slab, out);
        }
        let free = self.order.get(self.open).copied().unwrap_or(0);
        if let Some(run) = self.runs.get_mut(usize::from(free)) {
            run.start(segment);
            self.open += 1;
        }
    }

    /// Queues the run at `place` of the order.
    fn close(&mut self, place: usize, slab: &mut Slab, out: &mut TxQueue) {
        if let Some(open) = self.order.get_mut(place..self.open)
            && let Some(index) = open.first().copied()
        {
            open.rotate_left(1);
            self.open -= 1;
            self.last = None;
            if let Some(run) = self.runs.get_mut(usize::from(index)) {
                run.emit(slab, out);
            }
        }
    }
}

impl Default for Coalescer {
    fn default() -> Self {
        Self::new()
    }
}
