//! Inward: from a GRE packet to the frame in it and the port it came by.

use crate::counters::Drop;
use crate::offload::clamp_mss;
use crate::port::RxPacket;
use crate::slab::{Piece, Slab};
use crate::snapshot::{PortId, PortKind, Snapshot};
use crate::tunnel::ecn;
use crate::vnet::VnetHdr;
use crate::wire::parse::{Ip, Link};
use crate::wire::{ethernet, gre};

/// Takes the frame out of `packet`, which lies in `slab`.
///
/// 1. The GRE header must be one that RFC 2784 and RFC 2890 let us process, its checksum, if present, right;
/// 2. the payload must be Ethernet;
/// 3. a tunnel must want it (the sequence number is not looked at: frames may arrive in any order);
/// 4. the outer congestion mark moves inward (RFC 6040);
/// 5. a SYN's maximum segment size comes down to what the way back can carry.
///
/// # Errors
/// Why the packet goes no further.
pub fn decap(snapshot: &Snapshot, slab: &mut Slab, packet: &RxPacket) -> Result<(PortId, Piece), Drop> {
    let (header, len) = gre::decode(slab.get(packet.data)).map_err(|discard| match discard {
        gre::Discard::Short => Drop::Malformed,
        gre::Discard::Unsupported => Drop::GreUnsupported,
        gre::Discard::Checksum => Drop::GreChecksum,
    })?;
    if header.protocol != ethernet::TEB {
        return Err(Drop::GreProtocol);
    }
    let id = snapshot.demux.find(packet.src, packet.dst, header.key).ok_or(Drop::GreNoTunnel)?;
    let Some(PortKind::Tunnel(tunnel)) = snapshot.port(id).map(|p| &p.kind) else {
        return Err(Drop::GreNoTunnel);
    };
    let data = packet.data.skip(len as u32);
    let frame = slab.get_mut(data);
    if let Some(ip) = Link::parse(frame).and_then(|link| Ip::parse(frame, &link)) {
        let mark = ecn::decapsulate(ip.ecn(), packet.tos).ok_or(Drop::EcnDrop)?;
        if mark != ip.ecn() {
            ecn::mark(frame, &ip, mark);
        }
    }
    clamp_mss(frame, &VnetHdr::default(), tunnel.max_frame());
    Ok((id, data))
}
