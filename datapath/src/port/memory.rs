//! A local port without a device: whole switches in one test, no privileges needed.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{RxFrame, Sent};
use crate::slab::{Piece, SLOTS, Slab};
use crate::sys::eventfd::EventFd;
use crate::sys::mmsg::HEADROOM;
use crate::txq::TxQueue;
use crate::vnet::VnetHdr;

/// The port's side.
#[derive(Debug)]
pub(super) struct MemoryPort {
    far: Arc<Far>,
}

/// The test's side: what it sends the port receives, and what the port sends waits here.
#[derive(Debug)]
pub struct Far {
    readable: EventFd,
    queues: Mutex<Queues>,
}

#[derive(Debug, Default)]
struct Queues {
    to_port: VecDeque<(VnetHdr, Vec<u8>)>,
    from_port: VecDeque<(VnetHdr, Vec<u8>)>,
}

impl Far {
    /// Have the port receive a frame.
    pub fn send(&self, vnet: VnetHdr, frame: &[u8]) {
        self.queues().to_port.push_back((vnet, frame.to_vec()));
        self.readable.notify();
    }

    /// Have the port receive frames, in one batch.
    pub fn send_all(&self, frames: Vec<(VnetHdr, Vec<u8>)>) {
        self.queues().to_port.extend(frames);
        self.readable.notify();
    }

    /// The next frame that the port sent.
    pub fn recv(&self) -> Option<(VnetHdr, Vec<u8>)> {
        self.queues().from_port.pop_front()
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryPort {
    pub(super) fn open() -> io::Result<(MemoryPort, Arc<Far>)> {
        let far = Arc::new(Far { readable: EventFd::new()?, queues: Mutex::default() });
        Ok((MemoryPort { far: far.clone() }, far))
    }

    pub(super) fn rx(&self, slab: &mut Slab, max: usize, out: &mut Vec<RxFrame>) -> io::Result<()> {
        let mut queues = self.far.queues();
        for i in 0..max.min(SLOTS) {
            let Some((vnet, frame)) = queues.to_port.pop_front() else { break };
            let slot = Slab::slot(i).skip(HEADROOM);
            let data = Piece { len: slot.len.min(frame.len() as u32), ..slot };
            slab.get_mut(data).copy_from_slice(frame.get(..data.len as usize).unwrap_or(&[]));
            out.push(RxFrame { data, vnet });
        }
        // Under the lock, so that no frame comes between looking and draining.
        if queues.to_port.is_empty() {
            self.far.readable.drain();
        }
        Ok(())
    }

    pub(super) fn tx(&self, slab: &Slab, queue: &TxQueue) -> Sent {
        let mut queues = self.far.queues();
        for frame in queue.frames() {
            let bytes = queue.pieces(frame).iter().flat_map(|p| slab.get(*p)).copied().collect();
            queues.from_port.push_back((frame.vnet, bytes));
        }
        Sent { ok: queue.frames().len(), ..Sent::default() }
    }
}

impl AsFd for MemoryPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.far.readable.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::super::LocalPort;
    use super::*;

    #[test]
    fn frames_pass_both_ways() {
        let (port, far) = LocalPort::memory().unwrap();
        let (mut slab, mut frames, mut queue) = (Slab::new(), Vec::new(), TxQueue::new());
        far.send(VnetHdr::default(), b"one");
        far.send(VnetHdr { gso_type: 1, ..VnetHdr::default() }, b"two");
        assert_eq!(port.rx(&mut slab, SLOTS, &mut frames).unwrap(), 2);
        for f in &frames {
            queue.push(f.vnet, &[f.data.skip(1), f.data]);
        }
        assert_eq!(port.tx(&slab, &queue), Sent { ok: 2, full: 0, failed: 0 });
        assert_eq!(far.recv().unwrap().1, b"neone");
        assert_eq!(far.recv().unwrap(), (VnetHdr { gso_type: 1, ..VnetHdr::default() }, b"wotwo".to_vec()));
        assert_eq!(far.recv(), None);
        assert_eq!(port.rx(&mut slab, SLOTS, &mut frames).unwrap(), 0);
    }
}
