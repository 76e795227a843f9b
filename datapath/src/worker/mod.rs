//! Worker threads: wait, receive a batch, forward it, flush every output.
//!
//! 1. [`Worker::run`] sleeps in epoll until a source of its own has something, or control wakes it;
//! 2. it takes up a new snapshot if there is one, and says so ([`sources`]);
//! 3. each ready source gives a batch, which [`forward`] sends through the bridge, frame by frame;
//! 4. what the batch came to is flushed, output by output ([`output`]), and the slab is used again.
//!
//! Between snapshots nothing here allocates per frame. The one lock is that of the FDB's writers, taken when an address is
//! new or has moved; the one device that costs a system call per frame is the TAP, which knows no batches.

mod forward;
pub mod keeper;
mod limit;
mod mirror;
mod output;
mod patch;
mod retag;
mod sample;
mod sources;
#[cfg(test)]
mod tests;
mod trail;
mod weight;

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use foldhash::fast::RandomState;

use crate::counters::{DropCell, DropReason};
use crate::handle::{Event, Shared};
use crate::port::{Refusal, RxFrame, RxPacket, TxPacket};
use crate::slab::{SLOTS, Slab};
use crate::snapshot::{PortKind, Snapshot};
use crate::sys::epoll::{self, Epoll};
use crate::vlan::Edit;

use forward::{Decided, Passing};
use keeper::Gait;
use limit::Limit;
use output::Outputs;
use patch::Crossings;
use sample::Sampling;
use sources::{Source, Sources};
use trail::Trail;

/// Batches taken from one source before the others have their turn.
const TURN: usize = 4;

/// ICMP too-big answers a second that one worker gives to a station, and as many at once.
const ANSWERS_PER_SECOND: u32 = 50;

/// Times a second that one worker tells control of unknown SPIs from one host.
const UNKNOWN_SPIS_PER_SECOND: u32 = 2;

/// A worker thread's state.
#[derive(Debug)]
pub(crate) struct Worker {
    index: usize,
    shared: Arc<Shared>,
    snapshot: Arc<Snapshot>,
    epoll: Epoll,
    sources: Sources,
    slab: Slab,
    frames: Vec<RxFrame>,
    packets: Vec<RxPacket>,
    outputs: Outputs,
    decided: Option<Decided>,
    trail: Option<Trail>,
    crossings: Crossings,
    /// The frame being flooded, as ports have it that show it with other tags.
    copies: Vec<(Edit, Passing)>,
    answers: Limit,
    /// Far ends of the snapshot's tunnels.
    peers: HashSet<IpAddr, RandomState>,
    unknown_spis: Limit,
    gait: Gait,
    sampling: Sampling,
}

impl Worker {
    /// Worker `index` of `shared`.
    pub(crate) fn new(shared: Arc<Shared>, index: usize) -> io::Result<Worker> {
        let epoll = Epoll::new()?;
        if let Some(own) = shared.workers.get(index) {
            epoll.add(&own.wake, sources::WAKE)?;
        }
        Ok(Worker {
            index,
            snapshot: shared.snapshot.load_full(),
            shared,
            epoll,
            sources: Sources::default(),
            slab: Slab::new(),
            frames: Vec::with_capacity(SLOTS),
            packets: Vec::with_capacity(SLOTS),
            outputs: Outputs::new(index),
            decided: None,
            trail: None,
            crossings: Crossings::new(),
            copies: Vec::with_capacity(8),
            answers: Limit::new(ANSWERS_PER_SECOND),
            peers: HashSet::default(),
            unknown_spis: Limit::new(UNKNOWN_SPIS_PER_SECOND),
            gait: Gait::default(),
            sampling: Sampling::default(),
        })
    }

    /// The thread's life.
    pub(crate) fn run(mut self) {
        let mut events = [epoll::Event::EMPTY; 64];
        while !self.shared.stop.load(Ordering::Acquire) {
            // an interrupted or failing wait is tried again; `stop` bounds it
            let ready = self.epoll.wait(&mut events, None).unwrap_or(0);
            let (wake, sources) = (sources::WAKE, events.iter().take(ready).map(epoll::Event::token));
            // drained before looking for a snapshot: one that is published after that wakes us again
            let woken = sources.clone().any(|token| token == wake);
            if woken && let Some(own) = self.shared.workers.get(self.index) {
                own.wake.drain();
            }
            // taken before looking for a snapshot, too: what was published before a frame was injected is in force for it
            let injected = if woken { self.injected() } else { Default::default() };
            self.refresh();
            self.send_injected(&injected);
            for token in sources.filter(|token| *token != wake) {
                self.serve(token);
            }
            self.outputs.weight.turn();
            // the index is below the number of workers from the start
            self.shared.bell.turn(&mut self.gait, &self.shared.workers[self.index].pulse, Instant::now);
        }
    }

    /// Takes up the newest snapshot and confirms it.
    fn refresh(&mut self) {
        let generation = self.shared.generation.load(Ordering::Acquire);
        if generation == self.snapshot.generation {
            return;
        }
        self.snapshot = self.shared.snapshot.load_full();
        let workers = self.shared.workers.len();
        self.sources.update(&self.epoll, &self.snapshot, self.index, workers);
        self.outputs.update(&self.snapshot);
        let tunnels = self.snapshot.ports.iter().flatten().filter_map(|port| match &port.kind {
            PortKind::Tunnel(tunnel) => Some(tunnel.config.remote),
            PortKind::Local(_) | PortKind::Patch(_) => None,
        });
        self.peers.clear();
        self.peers.extend(tunnels);
        self.shared.confirm(self.index, self.snapshot.generation);
    }

    /// Takes a few batches from the source behind `token` and forwards them.
    fn serve(&mut self, token: u64) {
        let Some(source) = self.sources.get(token).cloned() else { return };
        let batch = match &source {
            Source::Local(..) => SLOTS,
            Source::Underlay(underlay) => underlay.batch(),
        };
        for _ in 0..TURN {
            let received = match &source {
                Source::Local(id, port) => {
                    let received = port.rx(&mut self.slab, batch, &mut self.frames);
                    if received.is_ok() {
                        self.forward_frames(*id);
                    }
                    received
                }
                Source::Underlay(underlay) => {
                    let received = underlay.rx(&mut self.slab, batch, &mut self.packets);
                    if received.is_ok() {
                        self.forward_packets();
                    }
                    received
                }
            };
            self.flush();
            match received {
                Ok(n) if n == batch => {}
                Ok(_) => return,
                Err(_) => {
                    // nothing more comes from it: a level-triggered wait would spin on its error
                    self.sources.mute(&self.epoll, token);
                    if let Source::Local(id, _) = source {
                        self.shared.raise(Event::PortFailed(id));
                    }
                    return;
                }
            }
        }
        // more waits than is taken in a turn, and perhaps more came than its buffer holds
        if let Source::Underlay(underlay) = &source {
            self.drops().add(DropReason::UnderlayRx, underlay.take_lost());
        }
    }

    fn drops(&self) -> &DropCell {
        // the index is below the number of workers from the start
        &self.shared.workers[self.index].drops
    }

    /// Sends what the batch came to and starts the slab anew.
    fn flush(&mut self) {
        let mut refused = refused(&self.shared, &self.snapshot, self.index);
        let drops = &self.shared.workers[self.index].drops;
        self.outputs.flush(&mut self.slab, &self.snapshot, drops, &mut refused);
        self.slab.reset();
    }
}

/// What happens when an underlay refuses a packet of worker `index`.
fn refused(shared: &Shared, snapshot: &Snapshot, index: usize) -> impl FnMut(&TxPacket, Refusal) {
    move |packet, why| {
        output::take_back(snapshot, index, &shared.workers[index].drops, packet, why);
        if why == Refusal::TooBig {
            shared.raise(Event::PathMtu(packet.port));
        }
    }
}
