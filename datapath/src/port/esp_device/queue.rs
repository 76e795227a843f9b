//! Inward: a receive queue of a device, whose ESP is opened where the kernel has copied it to.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use zerocopy::FromBytes;

use crate::port::{RxPacket, RxRoad};
use crate::slab::{Piece, Slab};
use crate::sys::xsk::{FRAME, Rings, Xsk};
use crate::wire::{ethernet, ipv4};

/// Packets taken at a time: as many as a batch of trains mostly holds.
pub const BATCH: usize = 512;

/// A queue of a device. Its packets stay in its own slab.
#[derive(Debug)]
pub struct Queue {
    socket: Xsk,
    reader: Mutex<Reader>,
    lost: AtomicU64,
}

/// What receiving takes.
#[derive(Debug)]
pub struct Reader {
    rings: Rings,
    slab: Slab,
}

impl Queue {
    /// Opens it for that queue of the device with that index, with room for `frames` packets.
    ///
    /// # Errors
    /// As [`Xsk::open`].
    pub(super) fn open(ifindex: u32, queue: u32, frames: usize) -> io::Result<Queue> {
        let mut slab = Slab::behind(frames * FRAME);
        let (socket, rings) = Xsk::open(ifindex, queue, slab.area_mut(), frames)?;
        Ok(Queue { socket, reader: Mutex::new(Reader { rings, slab }), lost: AtomicU64::new(0) })
    }

    /// For the one worker that receives from it.
    pub fn reader(&self) -> MutexGuard<'_, Reader> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Packets that found no room since the last call. One system call.
    pub fn take_lost(&self) -> u64 {
        let now = self.socket.dropped();
        now.saturating_sub(self.lost.swap(now, Relaxed))
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Reader {
    /// Exchanges `slab` with that in which packets lie: before the first of them is looked at, and after the last.
    pub fn exchange(&mut self, slab: &mut Slab) {
        std::mem::swap(&mut self.slab, slab);
    }

    /// Receives up to [`BATCH`] packets, which lie in the slab that was exchanged until [`Reader::give_back`]. Clears `out` first.
    /// Returns how many came.
    pub fn rx(&mut self, slab: &Slab, out: &mut Vec<RxPacket>) -> usize {
        out.clear();
        self.rings.receive(BATCH, |frame| out.extend(packet(slab, frame)))
    }

    /// Nothing refers to packets received any more.
    pub fn give_back(&mut self) {
        self.rings.give_back();
    }
}

/// The packet in a frame that the program has sent here. What it has not looked at is the header's checksum; None: that is wrong.
fn packet(slab: &Slab, frame: Piece) -> Option<RxPacket> {
    let ip = frame.skip(ethernet::HEADER as u32);
    let bytes = slab.get(ip).get(..ipv4::HEADER)?;
    let (header, _) = ipv4::Ipv4::ref_from_prefix(bytes).ok()?;
    ipv4::checksum_ok(bytes).then(|| RxPacket {
        data: ip.skip(ipv4::HEADER as u32),
        road: RxRoad::Esp,
        src: Ipv4Addr::from(header.src).into(),
        src_port: 0,
        dst: Ipv4Addr::from(header.dst).into(),
        tos: header.tos,
    })
}
