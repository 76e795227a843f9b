//! A TAP: a device that this process is the other end of. The bridge's own port is one.

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use zerocopy::IntoBytes;

use super::{RxFrame, Sent, Tally};
use crate::slab::{Piece, SLOTS, Slab};
use crate::sys;
use crate::sys::mmsg::{HEADROOM, Refused};
use crate::txq::{MAX_PIECES, TxQueue};
use crate::vnet::{VNET_LEN, VnetHdr};

#[derive(Debug)]
pub(super) struct TapPort {
    file: File,
    ifindex: u32,
    lost: AtomicU64,
}

impl TapPort {
    pub(super) fn open(device: &str) -> io::Result<TapPort> {
        let file = sys::tun::open_tap(device)?;
        Ok(TapPort { file, ifindex: sys::ifindex(device)?, lost: AtomicU64::new(0) })
    }

    pub(super) fn keep(&self, keep: bool) -> io::Result<()> {
        sys::tun::keep_tap(&self.file, keep)
    }

    pub(super) fn ifindex(&self) -> u32 {
        self.ifindex
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// A write of nothing is refused as too short while there is a device, and as a bad descriptor when there is none.
    pub(super) fn is_gone(&self) -> bool {
        matches!((&self.file).write(&[]), Err(e) if e.raw_os_error() == Some(libc::EBADFD))
    }

    pub(super) fn rx(&self, slab: &mut Slab, max: usize, out: &mut Vec<RxFrame>) -> io::Result<()> {
        for i in 0..max.min(SLOTS) {
            let slot = Slab::slot(i).skip(HEADROOM);
            let mut vnet = VnetHdr::default();
            let mut parts = [IoSliceMut::new(vnet.as_mut_bytes()), IoSliceMut::new(slab.get_mut(slot))];
            match (&self.file).read_vectored(&mut parts) {
                // A slot filled to the last byte: the kernel cuts what is longer, and does not say so.
                Ok(n) if n < VNET_LEN || n >= VNET_LEN + slot.len as usize => {
                    self.lost.fetch_add(1, Relaxed);
                }
                Ok(n) => {
                    out.push(RxFrame { data: Piece { off: slot.off, len: (n - VNET_LEN) as u32 }, vnet });
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => break,
                // What was received first goes first; the error will come again.
                Err(_) if !out.is_empty() => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    pub(super) fn tx(&self, slab: &Slab, queue: &TxQueue) -> Sent {
        let mut tally = Tally::default();
        let mut parts = [IoSlice::new(&[]); MAX_PIECES + 1];
        for frame in queue.frames() {
            let pieces = queue.pieces(frame);
            let Some((head, rest)) = parts.get_mut(..=pieces.len()).and_then(|p| p.split_first_mut()) else {
                tally.refuse(libc::EMSGSIZE);
                continue;
            };
            *head = IoSlice::new(frame.vnet.as_bytes());
            for (part, piece) in rest.iter_mut().zip(pieces) {
                *part = IoSlice::new(slab.get(*piece));
            }
            match (&self.file).write_vectored(parts.get(..=pieces.len()).unwrap_or(&[])) {
                // A frame is taken whole or not at all.
                Ok(n) => tally.sent.ok += usize::from(n > 0),
                Err(e) => {
                    if tally.refuse(e.raw_os_error().unwrap_or(libc::EIO)) == Refused::Stop {
                        break;
                    }
                }
            }
        }
        tally.close(queue.frames().len())
    }
}

impl AsFd for TapPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
