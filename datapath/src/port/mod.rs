//! Where frames enter and leave: local devices ([`LocalPort`]) and the sockets that tunnels ride on ([`Underlay`]).
//!
//! All of them take and give batches, refer to the worker's [`Slab`], and never block. They are shared by `Arc`
//! between control (which opens them) and workers; receiving is done by one worker only, sending by any.

pub mod device;
pub mod esp_device;
pub mod fence;
#[cfg(any(test, feature = "memory"))]
pub mod memory;
mod packet;
mod raw;
mod tap;
mod udp;
mod underlay;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::slab::{Piece, Slab};
use crate::sys;
use crate::sys::mmsg::Refused;
use crate::txq::TxQueue;
use crate::vnet::VnetHdr;
use crate::wire::parse::Link;

pub use device::DeviceRoad;
pub use underlay::{
    DEFAULT_TTL, GENEVE_PORT, GRE_UDP_PORT, InUdp, RxPacket, RxRoad, SOURCE_PORTS, TxPacket, Underlay,
    VXLAN_PORT,
};

/// A frame received from a local port.
#[derive(Debug, Clone, Copy)]
pub struct RxFrame {
    /// The Ethernet frame, a VLAN tag that the kernel had stripped put back.
    pub data: Piece,
    /// Its offload header; offsets count from the frame's first byte (a restored tag is accounted for).
    pub vnet: VnetHdr,
}

/// What became of a batch that was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// Taken by the kernel.
    pub ok: usize,
    /// Refused for lack of buffers (ENOBUFS, EAGAIN): congestion.
    pub full: usize,
    /// Refused for another reason (device down, no route, too big).
    pub failed: usize,
}

impl Sent {
    /// What became of another part of the batch.
    fn add(&mut self, other: Sent) {
        self.ok += other.ok;
        self.full += other.full;
        self.failed += other.failed;
    }
}

/// A device of this host.
#[derive(Debug)]
pub struct LocalPort {
    device: Device,
    mtu: AtomicU32,
}

#[derive(Debug)]
enum Device {
    Packet(packet::PacketPort),
    Tap(tap::TapPort),
    #[cfg(any(test, feature = "memory"))]
    Memory(memory::MemoryPort),
}

impl From<Device> for LocalPort {
    fn from(device: Device) -> LocalPort {
        LocalPort { device, mtu: AtomicU32::new(0) }
    }
}

impl LocalPort {
    /// A packet socket on the device, which must exist in the calling thread's network namespace.
    /// Sets promiscuous mode, virtio_net_hdr, auxdata, PACKET_IGNORE_OUTGOING.
    ///
    /// # Errors
    /// ENODEV: no such device. EPERM: CAP_NET_RAW is missing. InvalidInput: its frames are not Ethernet.
    pub fn packet(device: &str) -> io::Result<LocalPort> {
        Ok(Device::Packet(packet::PacketPort::open(device)?).into())
    }

    /// Makes a TAP of that name with virtio_net_hdr and all offloads, or takes over one that was kept. It goes when the port is
    /// dropped, unless it is kept.
    ///
    /// # Errors
    /// EBUSY: another process has it. EINVAL: a device of that name is there already and no TAP, or the name is none.
    /// EPERM: CAP_NET_ADMIN is missing. ENOENT: /dev/net/tun is missing.
    pub fn tap(device: &str) -> io::Result<LocalPort> {
        Ok(Device::Tap(tap::TapPort::open(device)?).into())
    }

    /// Whether a TAP stays when the port is dropped or the process killed, with its addresses and routes. Others always do.
    ///
    /// # Errors
    /// EBADFD: somebody has deleted it.
    pub fn keep_device(&self, keep: bool) -> io::Result<()> {
        match &self.device {
            Device::Tap(p) => p.keep(keep),
            _ => Ok(()),
        }
    }

    /// A port that ends in the handle returned beside it, for tests without devices.
    #[cfg(any(test, feature = "memory"))]
    pub fn memory() -> io::Result<(LocalPort, std::sync::Arc<memory::Far>)> {
        let (port, far) = memory::MemoryPort::open()?;
        Ok((Device::Memory(port).into(), far))
    }

    /// Interface index in the namespace it was opened in.
    pub fn ifindex(&self) -> u32 {
        match &self.device {
            Device::Packet(p) => p.ifindex(),
            Device::Tap(p) => p.ifindex(),
            #[cfg(any(test, feature = "memory"))]
            Device::Memory(_) => 0,
        }
    }

    /// Whether it takes superframes of UDP (USO): kernels do from Linux 6.2 on. May read a file.
    pub fn takes_datagrams(&self) -> bool {
        match &self.device {
            Device::Packet(_) | Device::Tap(_) => sys::kernel().is_some_and(|version| version >= (6, 2)),
            #[cfg(any(test, feature = "memory"))]
            Device::Memory(_) => true,
        }
    }

    /// MTU last told by control (0: unknown, no limit).
    pub fn mtu(&self) -> u32 {
        self.mtu.load(Relaxed)
    }

    /// The longest that `frame` may be to be sent as it is, by the MTU that control told last. That counts no Ethernet header,
    /// nor, where the device is asked and not the kernel's packet sockets, tags.
    pub fn max_frame(&self, frame: &[u8]) -> usize {
        let beyond = || match &self.device {
            Device::Packet(_) => packet::beyond_mtu(frame),
            _ => Link::parse(frame).map_or(0, |link| link.len),
        };
        match self.mtu() {
            0 => usize::MAX,
            mtu => mtu as usize + beyond(),
        }
    }

    /// Control saw the device's MTU change. 0: unknown, no limit.
    pub fn set_mtu(&self, mtu: u32) {
        self.mtu.store(mtu, Relaxed);
    }

    /// Receives up to `max` (≤ SLOTS) frames into the slab's slots. Clears `out` first. Ok(0): nothing waiting, or what
    /// waited could not be taken (see [`LocalPort::lost`]).
    ///
    /// # Errors
    /// The device is gone for good. A device that is merely down is silent instead.
    pub fn rx(&self, slab: &mut Slab, max: usize, out: &mut Vec<RxFrame>) -> io::Result<usize> {
        out.clear();
        match &self.device {
            Device::Packet(p) => p.rx(slab, max, out)?,
            Device::Tap(p) => p.rx(slab, max, out)?,
            #[cfg(any(test, feature = "memory"))]
            Device::Memory(p) => p.rx(slab, max, out)?,
        }
        Ok(out.len())
    }

    /// Sends the queue in order. Never blocks.
    pub fn tx(&self, slab: &Slab, queue: &TxQueue) -> Sent {
        match &self.device {
            Device::Packet(p) => p.tx(slab, queue),
            Device::Tap(p) => p.tx(slab, queue),
            #[cfg(any(test, feature = "memory"))]
            Device::Memory(p) => p.tx(slab, queue),
        }
    }

    /// Frames that arrived and could not be received, since the port was opened: longer than a slot, of a kind of offload
    /// that virtio_net_hdr cannot tell, or finding the socket's buffer full. One system call.
    pub fn lost(&self) -> u64 {
        match &self.device {
            Device::Packet(p) => p.lost(),
            Device::Tap(p) => p.lost(),
            #[cfg(any(test, feature = "memory"))]
            Device::Memory(_) => 0,
        }
    }

    /// The device has been removed, or moved to another namespace. `rx` says so only when that happens to a device that is
    /// up; this finds out about the others. One system call.
    pub fn is_gone(&self) -> bool {
        match &self.device {
            Device::Packet(p) => p.is_gone(),
            Device::Tap(p) => p.is_gone(),
            #[cfg(any(test, feature = "memory"))]
            Device::Memory(_) => false,
        }
    }
}

impl AsFd for LocalPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.device {
            Device::Packet(p) => p.as_fd(),
            Device::Tap(p) => p.as_fd(),
            #[cfg(any(test, feature = "memory"))]
            Device::Memory(p) => p.as_fd(),
        }
    }
}

/// Keeps account of a batch while it is sent.
#[derive(Debug, Default)]
struct Tally {
    sent: Sent,
    /// The device takes nothing more now: what is left of the batch is of this kind, and not tried.
    rest: Option<Refusal>,
}

/// Why something was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Lack of buffers: congestion.
    Full,
    /// Longer than the device or the path takes (EMSGSIZE).
    TooBig,
    /// Another reason.
    Failed,
}

impl Refusal {
    fn of(errno: i32) -> Refusal {
        match errno {
            libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => Refusal::Full,
            libc::EMSGSIZE => Refusal::TooBig,
            _ => Refusal::Failed,
        }
    }
}

impl Tally {
    /// One was refused with that error.
    fn refuse(&mut self, errno: i32) -> Refused {
        let refusal = Refusal::of(errno);
        // No room in the socket, or the device is down or gone: the same awaits every other.
        // ENOBUFS is different: the kernel dropped this one (a queue was full), the next may find room.
        if matches!(
            errno,
            libc::EAGAIN | libc::ENETDOWN | libc::ENXIO | libc::ENODEV | libc::EIO | libc::EBADFD
        ) {
            self.rest = Some(refusal);
        }
        self.add(refusal, 1);
        if self.rest.is_none() { Refused::Skip } else { Refused::Stop }
    }

    fn add(&mut self, refusal: Refusal, n: usize) {
        match refusal {
            Refusal::Full => self.sent.full += n,
            Refusal::TooBig | Refusal::Failed => self.sent.failed += n,
        }
    }

    fn refused(&self) -> usize {
        self.sent.full + self.sent.failed
    }

    fn tried(&self) -> usize {
        self.sent.ok + self.refused()
    }

    /// The account of a batch of `all`, those not tried included.
    fn close(mut self, all: usize) -> Sent {
        self.add(self.rest.unwrap_or(Refusal::Failed), all.saturating_sub(self.tried()));
        self.sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_of_a_batch_is_accounted_for() {
        let mut t = Tally::default();
        assert_eq!(t.refuse(libc::ENOBUFS), Refused::Skip);
        assert_eq!(t.refuse(libc::EMSGSIZE), Refused::Skip);
        t.sent.ok += 3;
        assert_eq!(t.refuse(libc::EAGAIN), Refused::Stop);
        assert_eq!(t.close(10), Sent { ok: 3, full: 6, failed: 1 });
        let mut t = Tally::default();
        assert_eq!(t.refuse(libc::ENETDOWN), Refused::Stop);
        assert_eq!(t.close(4), Sent { ok: 0, full: 0, failed: 4 });
    }
}
