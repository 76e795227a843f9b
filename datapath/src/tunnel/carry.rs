//! Outward by the device road: the outer headers of GRE in the clear, finished, around superframes that the kernel cuts, and around
//! frames that are sent as they are.

use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;

use super::encap::{Layout, MAX_HEAD, headers, marks};
use super::{Tunnel, Way};
use crate::counters::DropReason;
use crate::offload::{Fit, FrameSink, Whole, fit, whole};
use crate::port::device::{Cut, LEAD, Parcel, lead};
use crate::port::{RxRoad, TxPacket};
use crate::slab::{Piece, Slab};
use crate::snapshot::PortId;
use crate::vnet::VnetHdr;
use crate::wire::parse::{Ip, Version};
use crate::wire::{ipv4, put16};

/// Parcels of one worker that wait for the end of the batch, and the bytes of them that are not in the slab.
#[derive(Debug)]
pub struct Parcels {
    buf: Box<[u8]>,
    used: usize,
    list: Vec<Parcel>,
}

impl Parcels {
    const BYTES: usize = 512 * 1024;
    const COUNT: usize = 1024;

    /// None wait. Pages are touched only when used.
    pub fn new() -> Parcels {
        let buf = vec![0; Self::BYTES].into_boxed_slice();
        Parcels { buf, used: 0, list: Vec::with_capacity(Self::COUNT) }
    }

    /// Whether a frame that may become `bytes`, or `count` parcels, might not fit any more.
    pub fn short_of(&self, bytes: usize, count: usize) -> bool {
        self.buf.len() - self.used < bytes || Self::COUNT - self.list.len() < count
    }

    /// What waits.
    pub fn list(&self) -> (&[u8], &[Parcel]) {
        (&self.buf, &self.list)
    }

    /// Forget all.
    pub fn clear(&mut self) {
        self.used = 0;
        self.list.clear();
    }

    /// One more parcel, of `len` bytes and `body`; its bytes, to be filled. None: no room.
    fn push(
        &mut self,
        len: usize,
        dst: IpAddr,
        port: PortId,
        body: Piece,
    ) -> Option<(&mut Parcel, &mut [u8])> {
        if self.short_of(len, 1) {
            return None;
        }
        let (start, end) = (self.used, self.used + len);
        self.used = end;
        self.list.push(Parcel { packet: TxPacket::raw(start as u32, len as u32, dst, port), body });
        Some((self.list.last_mut()?, self.buf.get_mut(start..end)?))
    }
}

impl Default for Parcels {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether packets of this tunnel may go by the device road: what it sends besides the frame must be the same in every segment, and it
/// must be known where it comes from. Fragments need identifications, which the kernel gives on the other road alone.
pub fn may_carry(tunnel: &Tunnel) -> bool {
    let config = &tunnel.config;
    tunnel.policy.is_none()
        && config.in_udp.is_none()
        && !config.csum
        && !config.seq
        && (config.df || config.remote.is_ipv6())
        && !config.remote.is_multicast()
        && tunnel.source.is_some()
}

/// A frame to be carried.
#[derive(Debug, Clone, Copy)]
pub struct Freight<'a> {
    /// Where it lies. It must stay there as it is until its parcels have been sent.
    pub slab: &'a Slab,
    /// Which of the bytes there.
    pub data: Piece,
    /// Its offload header.
    pub vnet: &'a VnetHdr,
    /// The IP packet in it.
    pub ip: &'a Ip,
}

/// The parcels that one frame becomes on its way into one tunnel.
#[derive(Debug)]
pub struct Carry<'a> {
    tunnel: &'a Tunnel,
    port: PortId,
    egress: u32,
    parcels: &'a mut Parcels,
    layout: Layout,
    head: [u8; MAX_HEAD],
    /// Packets made, segments counted one by one.
    pub packets: u64,
    /// Inner bytes in them.
    pub bytes: u64,
    /// Why room that was asked for was not given.
    pub refused: Option<DropReason>,
}

impl<'a> Carry<'a> {
    /// For `port`'s tunnel, and a frame with the IP packet `inner` in it. None: the tunnel's packets go by another road.
    pub fn new(tunnel: &'a Tunnel, port: PortId, inner: &Ip, parcels: &'a mut Parcels) -> Option<Carry<'a>> {
        let egress = tunnel.egress.load(Relaxed);
        if egress == 0 || !may_carry(tunnel) {
            return None;
        }
        let (tos, ttl) = marks(tunnel, Some(inner));
        let layout = Layout::new(tunnel, RxRoad::Gre);
        let head = headers(tunnel, Way::Plain, &layout, tos, ttl)?;
        Some(Carry { tunnel, port, egress, parcels, layout, head, packets: 0, bytes: 0, refused: None })
    }

    /// Makes the frame into parcels: one, if it is a superframe that the kernel can cut.
    pub fn carry(&mut self, freight: &Freight<'_>) -> Fit {
        let Freight { slab, data, vnet, ip } = *freight;
        let frame = slab.get(data);
        let max_frame = self.tunnel.max_frame(RxRoad::Gre);
        let superframe = whole(frame, ip, vnet, max_frame);
        match superframe.and_then(|whole| self.superframe(data, ip, &whole)) {
            Some(fit) => fit,
            // what is too long for one outer packet, above all
            None => fit(frame, vnet, max_frame, self),
        }
    }

    fn superframe(&mut self, data: Piece, ip: &Ip, whole: &Whole) -> Option<Fit> {
        let cut = Cut { vnet: whole.vnet, l2: ip.l3, v6: ip.version == Version::V6 };
        let body = Piece { len: whole.len as u32, ..data };
        let bytes = whole.len + (whole.segments - 1) * whole.head;
        self.packet(0, body, Some(&cut), whole.segments, bytes)?;
        Some(Fit::Sent(whole.segments))
    }

    /// A packet whose frame is of `room` bytes, which are given, and of `body`.
    fn packet(
        &mut self,
        room: usize,
        body: Piece,
        cut: Option<&Cut>,
        packets: usize,
        bytes: usize,
    ) -> Option<&mut [u8]> {
        let remote = self.tunnel.config.remote;
        let (ip, outer) = (self.tunnel.ip_len(), self.layout.frame);
        let total = u16::try_from(outer + room + body.len as usize).ok()?;
        let lead = lead(self.egress, remote.is_ipv6(), outer, cut)?;
        let (parcel, place) = self.parcels.push(LEAD + outer + room, remote, self.port, body)?;
        (parcel.packet.frame, parcel.packet.packets) = (bytes as u32, packets as u32);
        let (front, place) = place.split_at_mut_checked(LEAD)?;
        let (head, place) = place.split_at_mut_checked(outer)?;
        front.copy_from_slice(&lead);
        head.copy_from_slice(self.head.get(..outer)?);
        match ip {
            ipv4::HEADER => {
                put16(head, 2, total);
                ipv4::set_checksum(head.get_mut(..ip)?);
            }
            _ => put16(head, 4, total - ip as u16),
        }
        self.packets += packets as u64;
        self.bytes += bytes as u64;
        Some(place)
    }
}

impl FrameSink for Carry<'_> {
    fn slot(&mut self, len: usize) -> Option<&mut [u8]> {
        // asked first, for the sake of the borrow checker: there is no room for what is too long either
        if self.parcels.short_of(LEAD + self.layout.frame + len, 1) {
            self.refused = Some(DropReason::NoRoom);
            return None;
        }
        self.packet(len, Piece::default(), None, 1, len)
    }
}
