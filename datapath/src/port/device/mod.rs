//! The device road: GRE whose TCP superframes the kernel cuts, as it does for tunnels of its own.
//!
//! A packet socket takes any number of bytes as one message and says by virtio_net_hdr how they are to be cut, but it knows no tunnels. So
//! the outer headers travel as data, and a program of ours ([`program`]) makes tunnel headers of them before the packet reaches the
//! device. It sits on the loopback device, where no other traffic can meet it but the host's with itself: from there
//! it sends each packet on to the device that the tunnel's route says.
//!
//! Nothing of it outlives the process: the program is attached for as long as its descriptor is open.

mod program;

use std::io;
use std::iter;
use std::os::fd::AsFd;

use super::{Refusal, Sent, Tally, TxPacket};
use crate::slab::{Piece, Slab};
use crate::sys;
use crate::sys::bpf::Link;
use crate::sys::cmsg::Control;
use crate::sys::mmsg::{self, Refused, Sender};
use crate::sys::packet_socket::PacketSender;
use crate::vnet::{VNET_LEN, VnetHdr};
use crate::wire::{ethernet, put16};

use program::{FRONT, MAX_HANG, OUTER_V6};

/// Bytes of socket buffer.
const BUFFERS: usize = 8 << 20;

/// Bytes in front of a packet's outer IP header.
pub const LEAD: usize = VNET_LEN + FRONT;

/// The way out for packets that the kernel cuts.
#[derive(Debug)]
pub struct DeviceRoad {
    socket: PacketSender,
    /// Keeps the program at work.
    _link: Link,
}

/// A message for the device road.
#[derive(Debug, Clone, Copy)]
pub struct Parcel {
    /// What stands in the outbox: [`LEAD`] bytes, outer headers, and the frame or the first part of it. Its other fields are for
    /// counters.
    pub packet: TxPacket,
    /// The rest of the frame, in the slab; empty: there is none.
    pub body: Piece,
}

/// How a superframe is to be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Its offload header, offsets from the start of the inner frame.
    pub vnet: VnetHdr,
    /// Bytes of inner Ethernet header, tags included.
    pub l2: usize,
    /// The inner packet is IPv6.
    pub v6: bool,
}

/// The bytes in front of the outer headers of a packet that leaves by device `ifindex`, in one piece, or of a superframe with `outer` bytes
/// of outer IP and GRE header. None: these are more than the program takes.
pub fn lead(ifindex: u32, v6: bool, outer: usize, cut: Option<&Cut>) -> Option<[u8; LEAD]> {
    let (mut vnet, mut hang, mut flags, mut inner_v6) = (VnetHdr::default(), 0, 0, v6);
    if let Some(cut) = cut {
        vnet = cut.vnet;
        let shift = u16::try_from(FRONT + outer).ok()?;
        vnet.hdr_len = vnet.hdr_len.get().checked_add(shift)?.into();
        vnet.csum_start = vnet.csum_start.get().checked_add(shift)?.into();
        hang = u8::try_from(outer + cut.l2).ok().filter(|len| usize::from(*len) <= MAX_HANG)?;
        flags = u8::try_from(cut.l2).ok()? | if v6 { OUTER_V6 } else { 0 };
        inner_v6 = cut.v6;
    }
    let mut lead = [0; LEAD];
    let (head, front) = lead.split_at_mut(VNET_LEN);
    head.copy_from_slice(zerocopy::IntoBytes::as_bytes(&vnet));
    front.get_mut(6..10)?.copy_from_slice(&ifindex.to_ne_bytes());
    *front.get_mut(10)? = hang;
    *front.get_mut(11)? = flags;
    put16(front, 12, if inner_v6 { ethernet::IPV6 } else { ethernet::IPV4 });
    Some(lead)
}

impl DeviceRoad {
    /// Opens it in the calling thread's network namespace.
    ///
    /// # Errors
    /// EPERM: CAP_BPF, CAP_NET_ADMIN or CAP_NET_RAW is missing. EINVAL: the kernel is older than 6.6. ENODEV: there is no loopback device.
    pub fn open() -> io::Result<DeviceRoad> {
        let ifindex = sys::ifindex("lo")?;
        let mark = mark()?;
        let link = program::attach(mark, ifindex)?;
        Ok(DeviceRoad { socket: PacketSender::open(ifindex, mark, BUFFERS)?, _link: link })
    }

    /// Sends parcels, in order: what they have in `buf`, then their bodies in `slab`. Calls `refused` with each that did not go, and why.
    pub fn tx(
        &self,
        buf: &[u8],
        slab: &Slab,
        parcels: &[Parcel],
        refused: &mut dyn FnMut(&TxPacket, Refusal),
    ) -> Sent {
        let mut report = Report { parcels, refused, tally: Tally::default() };
        mmsg::with_sender(|sender| {
            for (i, Parcel { packet, body }) in parcels.iter().enumerate() {
                if sender.is_full() && !self.flush(sender, &mut report) {
                    return;
                }
                let start = packet.start as usize;
                let head = buf.get(start..start + packet.len as usize).unwrap_or(&[]);
                let body = Some(slab.get(*body)).filter(|body| !body.is_empty());
                if !sender.push(i, None, &Control::EMPTY, iter::once(head).chain(body)) {
                    report.refuse(i, libc::EINVAL);
                }
            }
            self.flush(sender, &mut report);
        });
        report.close()
    }

    /// False: the socket takes no more.
    fn flush(&self, sender: &mut Sender<'_, '_>, report: &mut Report<'_>) -> bool {
        let taken = sender.flush(self.socket.as_fd(), &mut |i, errno| report.refuse(i, errno));
        report.tally.sent.ok += taken;
        report.tally.rest.is_none()
    }
}

/// What becomes of a batch while it is sent.
struct Report<'a> {
    parcels: &'a [Parcel],
    refused: &'a mut dyn FnMut(&TxPacket, Refusal),
    tally: Tally,
}

impl Report<'_> {
    fn refuse(&mut self, i: usize, errno: i32) -> Refused {
        if let Some(parcel) = self.parcels.get(i) {
            (self.refused)(&parcel.packet, Refusal::of(errno));
        }
        self.tally.refuse(errno)
    }

    /// The account of the whole batch; those behind the one that ended it were not tried.
    fn close(self) -> Sent {
        let rest = self.tally.rest.unwrap_or(Refusal::Failed);
        for parcel in self.parcels.iter().skip(self.tally.tried()) {
            (self.refused)(&parcel.packet, rest);
        }
        self.tally.close(self.parcels.len())
    }
}

/// A mark that nobody else gives to packets but by chance.
fn mark() -> io::Result<u32> {
    let random = ring::rand::generate::<[u8; 4]>(&ring::rand::SystemRandom::new());
    let bytes = random.map_err(|_| io::Error::other("no random numbers to be had"))?.expose();
    // 0 is what all unmarked packets have
    Ok(u32::from_ne_bytes(bytes).max(1))
}

#[cfg(test)]
mod tests {
    use nix::sched::{CloneFlags, unshare};

    use super::*;
    use crate::sys::bpf::{Hook, attached};

    #[test]
    fn what_was_attached_goes_with_its_road() {
        // in a namespace of its own, on whose loopback device nobody else puts programs
        let test = || {
            if unshare(CloneFlags::CLONE_NEWNET).is_err() {
                eprintln!("what_was_attached_goes_with_its_road: skipped, needs root");
                return;
            }
            let lo = sys::ifindex("lo").unwrap();
            let attached = || attached(Hook::TcxEgress, lo).unwrap();
            assert_eq!(attached(), 0);
            let roads = [DeviceRoad::open().unwrap(), DeviceRoad::open().unwrap()];
            assert_eq!(attached(), 2);
            drop(roads);
            assert_eq!(attached(), 0);
        };
        std::thread::spawn(test).join().unwrap();
    }

    #[test]
    fn the_lead_says_how_to_cut() {
        let vnet = VnetHdr {
            hdr_len: 54.into(),
            csum_start: 34.into(),
            gso_size: 1000.into(),
            ..VnetHdr::default()
        };
        let cut = Cut { vnet, l2: 14, v6: true };
        let bytes = lead(0x0102_0304, false, 28, Some(&cut)).unwrap();
        let want = VnetHdr { hdr_len: (54 + 14 + 28).into(), csum_start: (34 + 14 + 28).into(), ..vnet };
        assert_eq!(&bytes[..VNET_LEN], zerocopy::IntoBytes::as_bytes(&want));
        assert_eq!(bytes[VNET_LEN..], [0, 0, 0, 0, 0, 0, 4, 3, 2, 1, 42, 14, 0x86, 0xdd]);
        let bytes = lead(0x0102_0304, false, 24, None).unwrap();
        assert_eq!(bytes[..VNET_LEN], [0; VNET_LEN]);
        assert_eq!(bytes[VNET_LEN..], [0, 0, 0, 0, 0, 0, 4, 3, 2, 1, 0, 0, 8, 0]);
        // no headers that long, and no such offsets
        assert_eq!(lead(1, true, MAX_HANG, Some(&cut)), None);
        let far = Cut { vnet: VnetHdr { csum_start: u16::MAX.into(), ..vnet }, ..cut };
        assert_eq!(lead(1, true, 44, Some(&far)), None);
    }
}
