//! A device by its packet socket.

use std::io;
use std::iter;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use zerocopy::{FromBytes, IntoBytes};

use super::{RxFrame, Sent, Tally};
use crate::slab::{Piece, Slab};
use crate::sys;
use crate::sys::cmsg::Control;
use crate::sys::mmsg::{self, Sender, Wants};
use crate::sys::packet_socket::{PacketSocket, VlanTag, stripped_tag};
use crate::txq::TxQueue;
use crate::vnet::VnetHdr;
use crate::wire::ethernet::{DOT1Q, HEADER, TAG};

/// Bytes of socket buffer each way: some 60 superframes, or 5,000 small frames, while the worker is elsewhere.
const BUFFERS: usize = 4 << 20;

/// How often one call tries again after a frame that the kernel could not hand out.
const RETRIES: usize = 8;

#[derive(Debug)]
pub(super) struct PacketPort {
    socket: PacketSocket,
    lost: AtomicU64,
}

/// Bytes of a frame that the kernel takes beyond the device's MTU: the Ethernet header, and one tag if that is of 802.1Q
/// (`packet_extra_vlan_len_allowed` in its `net/packet/af_packet.c`).
pub(super) fn beyond_mtu(frame: &[u8]) -> usize {
    let tag = frame.get(12..14) == Some(&DOT1Q.to_be_bytes());
    HEADER + if tag { TAG } else { 0 }
}

impl PacketPort {
    pub(super) fn open(device: &str) -> io::Result<PacketPort> {
        let socket = PacketSocket::open(sys::ifindex(device)?, BUFFERS)?;
        Ok(PacketPort { socket, lost: AtomicU64::new(0) })
    }

    pub(super) fn ifindex(&self) -> u32 {
        self.socket.ifindex()
    }

    pub(super) fn is_gone(&self) -> bool {
        self.socket.is_gone()
    }

    pub(super) fn lost(&self) -> u64 {
        let drops = u64::from(self.socket.take_drops());
        self.lost.fetch_add(drops, Relaxed) + drops
    }

    pub(super) fn rx(&self, slab: &mut Slab, max: usize, out: &mut Vec<RxFrame>) -> io::Result<()> {
        let wants = Wants { vnet: true, control: true, name: false };
        for _ in 0..RETRIES {
            let got =
                mmsg::receive(
                    self.as_fd(),
                    slab,
                    max,
                    wants,
                    |slab, message| match VnetHdr::read_from_bytes(message.vnet) {
                        Ok(vnet) if !message.truncated => {
                            out.push(restore_tag(slab, message.data, vnet, stripped_tag(&message)));
                        }
                        _ => self.lose(1),
                    },
                );
            match got.map_err(|e| (e.raw_os_error(), e)) {
                // All of them truncated: there may be more behind them.
                Ok(_) if out.is_empty() => {}
                Ok(_) => break,
                Err((Some(libc::EAGAIN | libc::EINTR), _)) => break,
                // Told once when the device goes down. It may come back.
                Err((Some(libc::ENETDOWN), _)) if !self.is_gone() => break,
                // A superframe of a kind that virtio_net_hdr has no name for; the kernel has dropped it.
                Err((Some(libc::EINVAL), _)) => self.lose(1),
                Err((_, error)) => return Err(error),
            }
        }
        Ok(())
    }

    fn lose(&self, n: u64) {
        self.lost.fetch_add(n, Relaxed);
    }

    pub(super) fn tx(&self, slab: &Slab, queue: &TxQueue) -> Sent {
        let mut tally = Tally::default();
        mmsg::with_sender(|sender| {
            for frame in queue.frames() {
                if sender.is_full() && !self.flush(sender, &mut tally) {
                    return;
                }
                let pieces = queue.pieces(frame).iter().map(|p| slab.get(*p));
                if !sender.push(0, None, &Control::EMPTY, iter::once(frame.vnet.as_bytes()).chain(pieces)) {
                    tally.refuse(libc::EMSGSIZE);
                }
            }
            self.flush(sender, &mut tally);
        });
        tally.close(queue.frames().len())
    }

    /// False: the device takes no more.
    fn flush(&self, sender: &mut Sender<'_, '_>, tally: &mut Tally) -> bool {
        let taken = sender.flush(self.socket.exit(), &mut |_, errno| tally.refuse(errno));
        tally.sent.ok += taken;
        tally.rest.is_none()
    }
}

impl AsFd for PacketPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Puts a tag that stands beside the frame back behind its addresses, which move into the headroom for it.
#[inline]
fn restore_tag(slab: &mut Slab, data: Piece, mut vnet: VnetHdr, tag: Option<VlanTag>) -> RxFrame {
    let Some(tag) = tag else { return RxFrame { data, vnet } };
    let tagged = Piece { off: data.off.saturating_sub(4), len: data.len + 4 };
    let bytes = slab.get_mut(tagged);
    if bytes.len() < 16 {
        return RxFrame { data, vnet };
    }
    bytes.copy_within(4..16, 0);
    if let Some(field) = bytes.get_mut(12..16) {
        let [a, b] = tag.tpid.to_be_bytes();
        let [c, d] = tag.tci.to_be_bytes();
        field.copy_from_slice(&[a, b, c, d]);
    }
    if vnet.needs_csum() {
        vnet.csum_start = vnet.csum_start.get().saturating_add(4).into();
    }
    if vnet.is_gso() {
        vnet.hdr_len = vnet.hdr_len.get().saturating_add(4).into();
    }
    RxFrame { data: tagged, vnet }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vnet::{F_NEEDS_CSUM, GSO_TCPV4};

    #[test]
    fn a_restored_tag_shifts_addresses_and_checksum() {
        let mut slab = Slab::new();
        let data = Slab::slot(0).skip(mmsg::HEADROOM);
        let data = Piece { len: 20, ..data };
        slab.get_mut(data).copy_from_slice(b"DDDDDDSSSSSS\x08\x00payloa");
        let vnet = VnetHdr {
            flags: F_NEEDS_CSUM,
            gso_type: GSO_TCPV4,
            hdr_len: 54.into(),
            csum_start: 34.into(),
            csum_offset: 16.into(),
            ..VnetHdr::default()
        };
        let got = restore_tag(&mut slab, data, vnet, Some(VlanTag { tpid: 0x88a8, tci: 0x6005 }));
        assert_eq!(slab.get(got.data), b"DDDDDDSSSSSS\x88\xa8\x60\x05\x08\x00payloa");
        assert_eq!((got.vnet.csum_start.get(), got.vnet.csum_offset.get()), (38, 16));
        assert_eq!(got.vnet.hdr_len.get(), 58);
    }

    /// A sender may have put as many bytes as it liked in the linear part, whose length the kernel reports here.
    #[test]
    fn a_header_of_any_length_takes_a_tag() {
        let data = Piece { len: 20, ..Slab::slot(0).skip(mmsg::HEADROOM) };
        let most = u16::MAX.into();
        let vnet = VnetHdr {
            flags: F_NEEDS_CSUM,
            gso_type: GSO_TCPV4,
            hdr_len: most,
            csum_start: most,
            ..VnetHdr::default()
        };
        let tag = Some(VlanTag { tpid: 0x8100, tci: 1 });
        assert_eq!(restore_tag(&mut Slab::new(), data, vnet, tag).vnet, vnet);
    }

    #[test]
    fn one_tag_of_a_customer_is_not_part_of_the_mtu() {
        let cases: [(&[u8], usize); 5] = [
            (&[8, 0], 14),
            (&[0x81, 0, 0, 10, 8, 0], 18),
            (&[0x88, 0xa8, 0, 10, 8, 0], 14),
            (&[0x81, 0, 0, 10, 0x81, 0, 0, 11, 8, 0], 18),
            (&[], 14),
        ];
        for (rest, beyond) in cases {
            assert_eq!(beyond_mtu(&[&[2; 12], rest].concat()), beyond, "{rest:x?}");
        }
    }

    #[test]
    fn a_runt_keeps_its_bytes() {
        let mut slab = Slab::new();
        let data = Piece { len: 11, ..Slab::slot(0).skip(mmsg::HEADROOM) };
        let tag = Some(VlanTag { tpid: 0x8100, tci: 1 });
        assert_eq!(restore_tag(&mut slab, data, VnetHdr::default(), tag).data, data);
    }
}
