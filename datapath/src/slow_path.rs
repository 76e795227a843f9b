//! Frames that control takes part in: workers pass up those that are meant for the switch itself, and send out of one port
//! those that control makes.
//!
//! Anybody on a port can send frames of a kind, so each port has so much room and so many a second of each kind, and one that
//! floods takes nothing from the others.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::snapshot::PortId;
use crate::sys::eventfd::EventFd;

/// What a frame is passed up for. Each kind has a queue and one who takes from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum FrameKind {
    /// To the bridge group address 01-80-C2-00-00-00: a BPDU (IEEE 802.1D-2004 table 7-10).
    Bpdu,
    /// A BFD control packet (RFC 5881) to a session of its port.
    Bfd,
    /// The beginning of a continuity check (IEEE 802.1ag) to the maintenance point of its port.
    Cfm,
    /// IGMP or MLD on a bridge with multicast snooping. A copy: the frame itself goes on.
    Membership,
    /// One of the bridge's own probes that has come back ([`crate::wire::loopback`]).
    Probe,
    /// A probe of another switch. A copy: the frame itself goes on.
    OthersProbe,
}

impl FrameKind {
    /// Every kind, in order.
    pub const ALL: [FrameKind; 6] = [
        FrameKind::Bpdu,
        FrameKind::Bfd,
        FrameKind::Cfm,
        FrameKind::Membership,
        FrameKind::Probe,
        FrameKind::OthersProbe,
    ];

    /// Frames a second of one port. A bridge sends ten BPDUs a second at most; several may be behind one port.
    const fn rate(self) -> u32 {
        match self {
            // in a loop they come as fast as the links are
            FrameKind::Bpdu | FrameKind::Probe | FrameKind::OthersProbe => 100,
            // the shortest interval is a millisecond
            FrameKind::Bfd => 1500,
            // and there may be 256 others
            FrameKind::Cfm => 3000,
            // every container behind one port answers a router's question within ten seconds
            FrameKind::Membership => 1000,
        }
    }

    /// Frames of one port that wait at most.
    const fn room(self) -> u32 {
        match self {
            FrameKind::Bpdu | FrameKind::Bfd | FrameKind::Probe | FrameKind::OthersProbe => 32,
            FrameKind::Membership => 256,
            // of 256 others, and these are short
            FrameKind::Cfm => 512,
        }
    }
}

/// A frame that was passed up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PuntedFrame {
    /// Where it came in.
    pub port: PortId,
    /// The frame from its destination address on.
    pub bytes: Vec<u8>,
}

/// The longest frame that is passed up, in bytes.
const LONGEST: usize = 2048;
/// Frames that wait to be sent by one worker at most: one for each of a good many ports, and some more.
const INJECTED: usize = 8192;

/// The frames of one kind on their way up.
#[derive(Debug)]
pub(crate) struct Lift {
    kind: FrameKind,
    up: Mutex<Upward>,
    readable: EventFd,
}

#[derive(Debug, Default)]
struct Upward {
    frames: Vec<PuntedFrame>,
    ports: HashMap<PortId, Share>,
}

/// What a port has used of what it may.
#[derive(Debug, Default)]
struct Share {
    waiting: u32,
    second: u32,
    taken: u32,
}

impl Lift {
    pub(crate) fn new(kind: FrameKind) -> io::Result<Lift> {
        Ok(Lift { kind, up: Mutex::default(), readable: EventFd::new()? })
    }

    /// Queues a copy of a frame that came in by `port` in the second `now`; false when the port has had its share.
    pub(crate) fn push(&self, port: PortId, frame: &[u8], now: u32) -> bool {
        let mut up = lock(&self.up);
        let share = up.ports.entry(port).or_default();
        if share.second != now {
            (share.second, share.taken) = (now, 0);
        }
        if frame.len() > LONGEST || share.waiting >= self.kind.room() || share.taken >= self.kind.rate() {
            return false;
        }
        share.waiting += 1;
        share.taken += 1;
        up.frames.push(PuntedFrame { port, bytes: frame.to_vec() });
        if up.frames.len() == 1 {
            self.readable.notify();
        }
        true
    }

    /// Everything that waits, in order.
    pub(crate) fn take(&self) -> Vec<PuntedFrame> {
        let mut up = lock(&self.up);
        self.readable.drain();
        up.ports.values_mut().for_each(|share| share.waiting = 0);
        std::mem::take(&mut up.frames)
    }

    /// Readable while something waits.
    pub(crate) fn readable(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }
}

/// The frames that one worker shall send for control.
#[derive(Debug, Default)]
pub(crate) struct Injections(Mutex<VecDeque<(PortId, Vec<u8>)>>);

impl Injections {
    /// Queues a frame for `port`; false when too many wait.
    pub(crate) fn push(&self, port: PortId, frame: &[u8]) -> bool {
        let mut waiting = lock(&self.0);
        let room = waiting.len() < INJECTED;
        if room {
            waiting.push_back((port, frame.to_vec()));
        }
        room
    }

    /// Everything that waits, in order.
    pub(crate) fn take(&self) -> VecDeque<(PortId, Vec<u8>)> {
        std::mem::take(&mut lock(&self.0))
    }
}

/// A thread that panicked while it held a lock leaves queues that are still whole.
fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_floods_leaves_the_others_theirs() {
        let lift = Lift::new(FrameKind::Bpdu).unwrap();
        let push = |port, now| (0..1000).filter(|_| lift.push(PortId(port), b"bpdu", now)).count();
        let room = FrameKind::Bpdu.room() as usize;
        assert_eq!((push(1, 7), push(2, 7)), (room, room));
        assert_eq!(lift.take().len(), 2 * room);
        // room again, until the second's share is used up
        let rest = (0..10).map(|_| (push(1, 7), lift.take()).0).sum::<usize>();
        assert_eq!(rest + room, FrameKind::Bpdu.rate() as usize);
        assert!(lift.push(PortId(2), b"bpdu", 7) && lift.push(PortId(1), b"bpdu", 8));
        assert!(!lift.push(PortId(3), &[0; LONGEST + 1], 8));
        let order: Vec<u16> = lift.take().into_iter().map(|frame| frame.port.0).collect();
        assert_eq!(order, [2, 1]);
    }

    #[test]
    fn what_waits_to_be_sent_is_bounded() {
        let injections = Injections::default();
        assert_eq!((0..2 * INJECTED).filter(|_| injections.push(PortId(1), b"x")).count(), INJECTED);
        assert_eq!(injections.take().len(), INJECTED);
        assert!(injections.push(PortId(1), b"x"));
    }
}
