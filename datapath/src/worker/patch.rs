//! Frames that go on into another bridge, by a pair of patch ports.

use super::Worker;
use super::forward::Passing;
use crate::counters::{DropReason, bump};
use crate::offload::Fit;
use crate::snapshot::{Patch, Port, PortId, Snapshot};

/// Through how many pairs one frame goes, one after the other: patch ports can be wired into a loop.
const DEEPEST: u8 = 8;
/// How often one frame and what flooding makes of it may cross in all: a loop with branches multiplies it.
const MOST: usize = 256;

/// Where a frame shall go on.
#[derive(Debug, Clone, Copy)]
struct Crossing {
    into: PortId,
    frame: Passing,
    depth: u8,
}

/// What one received frame has become that is to enter other bridges. They refer to the frame where it lies.
#[derive(Debug)]
pub(super) struct Crossings {
    list: Vec<Crossing>,
    next: usize,
    depth: u8,
}

impl Crossings {
    pub(super) fn new() -> Crossings {
        Crossings { list: Vec::with_capacity(MOST), next: 0, depth: 0 }
    }

    /// Adds one; false when it has come too far.
    fn push(&mut self, into: PortId, frame: Passing) -> bool {
        let room = self.depth < DEEPEST && self.list.len() < MOST;
        if room {
            self.list.push(Crossing { into, frame, depth: self.depth + 1 });
        }
        room
    }

    /// Whether the frame under way has come by a patch port: then it may wait to be sent elsewhere, too.
    #[inline]
    pub(super) fn under_way(&self) -> bool {
        self.depth > 0
    }

    /// The next one, whose own crossings are added behind. None: there is no more, and another frame may begin.
    fn next(&mut self) -> Option<(PortId, Passing)> {
        let Some(crossing) = self.list.get(self.next) else {
            self.list.clear();
            (self.next, self.depth) = (0, 0);
            return None;
        };
        (self.next, self.depth) = (self.next + 1, crossing.depth);
        Some((crossing.into, crossing.frame))
    }
}

impl Worker {
    /// Notes that a frame leaves by a patch port; [`Worker::cross`] lets it enter at the other end.
    pub(super) fn leave(&mut self, port: &Port, patch: &Patch, frame: Passing) -> Fit {
        let Some(into) = patch.peer else { return Fit::Dropped(DropReason::PatchNoPeer) };
        if !self.crossings.push(into, frame) {
            return Fit::Dropped(DropReason::PatchLoop);
        }
        let cell = port.counters.cell(self.index);
        bump(&cell.tx_packets, frame.vnet.packets(frame.data.len));
        bump(&cell.tx_bytes, u64::from(frame.data.len));
        Fit::Sent(1)
    }

    /// What has left by patch ports enters the bridges behind them.
    #[inline]
    pub(super) fn cross(&mut self, snapshot: &Snapshot, now: u32) {
        while let Some((into, frame)) = self.crossings.next() {
            self.enter(snapshot, into, frame, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::fdb::Fdb;
    use crate::handle::Datapath;
    use crate::port::LocalPort;
    use crate::port::memory::Far;
    use crate::snapshot::{Bridge, BridgeId, PortKind};
    use crate::vnet::VnetHdr;

    const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
    const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];

    struct Lab {
        datapath: Datapath,
        ports: Vec<Arc<Port>>,
        ends: Vec<Arc<Far>>,
    }

    /// Two bridges with a device each (ports 0 and 1), and patch ports from 2 on: (bridge, peer).
    fn lab(patches: &[(u16, Option<u16>)]) -> Lab {
        let datapath = Datapath::start(1).unwrap();
        let (locals, ends): (Vec<_>, Vec<_>) = (0..2).map(|_| LocalPort::memory().unwrap()).unzip();
        let locals = locals.into_iter().zip(0..).map(|(local, b)| (b, PortKind::Local(Arc::new(local))));
        let patches = patches.iter().map(|&(bridge, peer)| {
            (bridge, PortKind::Patch(Arc::new(Patch { name: "peer".into(), peer: peer.map(PortId) })))
        });
        let ports: Vec<Arc<Port>> = (0..)
            .zip(locals.chain(patches))
            .map(|(i, (b, kind))| Arc::new(Port::new(PortId(i), BridgeId(b), i + 1, format!("p{i}"), kind)))
            .collect();
        let bridge = |b| {
            let flood = ports.iter().filter(|p| p.bridge == BridgeId(b)).map(|p| p.id).collect();
            Some(Arc::new(Bridge { flood, ..Bridge::new(format!("br{b}"), Arc::new(Fdb::new(100, 300))) }))
        };
        let snapshot = Snapshot {
            bridges: vec![bridge(0), bridge(1)],
            ports: ports.iter().cloned().map(Some).collect(),
            ..Snapshot::default()
        };
        let generation = datapath.publish(snapshot);
        assert!(datapath.wait_applied(generation, Duration::from_secs(10)));
        Lab { datapath, ports, ends }
    }

    impl Lab {
        /// Waits until as many frames have come out of that device.
        fn received(&self, end: usize, count: u64) {
            let limit = Instant::now() + Duration::from_secs(10);
            while self.ports[end].counters.sum().tx_packets < count {
                assert!(Instant::now() < limit, "{:?}", self.ports[end].counters.sum());
                std::thread::yield_now();
            }
        }

        fn dropped(&self, why: DropReason) -> u64 {
            self.datapath.drops().into_iter().find(|(reason, _)| *reason == why).map_or(0, |(_, n)| n)
        }
    }

    fn frame(dst: [u8; 6], src: [u8; 6]) -> Vec<u8> {
        [&dst[..], &src, &[0x88, 0xb5], &[0; 46]].concat()
    }

    #[test]
    fn a_pair_joins_two_bridges_and_both_count() {
        let lab = lab(&[(0, Some(3)), (1, Some(2))]);
        lab.ends[0].send(VnetHdr::default(), &frame([0xff; 6], A));
        lab.received(1, 1);
        lab.ends[1].send(VnetHdr::default(), &frame(A, B));
        lab.received(0, 1);
        assert_eq!(lab.ends[0].recv().unwrap().1, frame(A, B));
        for patch in [2, 3] {
            let sum = lab.ports[patch].counters.sum();
            assert_eq!((sum.rx_packets, sum.tx_packets, sum.rx_bytes, sum.tx_bytes), (1, 1, 60, 60));
        }
        assert_eq!(lab.datapath.drops().iter().map(|(_, n)| n).sum::<u64>(), 0);
    }

    #[test]
    fn without_a_peer_nothing_goes_on() {
        let lab = lab(&[(0, None)]);
        lab.ends[0].send(VnetHdr::default(), &frame([0xff; 6], A));
        while lab.dropped(DropReason::PatchNoPeer) == 0 {
            std::thread::yield_now();
        }
        assert_eq!(lab.ports[1].counters.sum().tx_packets, 0);
    }

    #[test]
    fn loops_of_patches_end() {
        // two pairs: a loop; then five pairs, each frame of which would branch
        for (pairs, longest) in [(2, 2 * u64::from(DEEPEST)), (5, MOST as u64)] {
            let patches: Vec<(u16, Option<u16>)> =
                (0..pairs).flat_map(|i| [(0, Some(3 + 2 * i)), (1, Some(2 + 2 * i))]).collect();
            let lab = lab(&patches);
            lab.ends[0].send(VnetHdr::default(), &frame([0xff; 6], A));
            lab.received(1, u64::from(pairs));
            while lab.dropped(DropReason::PatchLoop) == 0 {
                std::thread::yield_now();
            }
            let crossed: u64 = lab.ports[2..].iter().map(|p| p.counters.sum().tx_packets).sum();
            assert!((u64::from(pairs)..=longest).contains(&crossed), "{crossed}");
        }
    }
}
