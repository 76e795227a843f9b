//! AF_XDP sockets: packets that an XDP program redirects are copied into memory of ours, once, and nothing else is made of them.
//!
//! Two rings, which both sides have mapped, say whose a frame of that memory is: the fill ring names those that the kernel may write
//! to, the other those that it has written. Here all frames but those being looked at are the kernel's.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Release};

use libc::socklen_t;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::area::Area;
use super::{check, get_option, set_option};
use crate::slab::Piece;

/// Bytes of a frame: what the kernel keeps before the packet, and the packet.
pub const FRAME: usize = 2048;
/// What the kernel keeps before the packet (XDP_PACKET_HEADROOM).
const HEADROOM: usize = 256;
/// The longest packet that finds room.
pub const LONGEST: usize = FRAME - HEADROOM;

/// Entries of the ring for what was sent, which nothing ever is; the kernel wants that ring all the same.
const NONE_SENT: u32 = 2;

/// A socket bound to a queue of a device.
#[derive(Debug)]
pub struct Xsk(OwnedFd);

/// What is shared with the kernel, for who receives.
#[derive(Debug)]
pub struct Rings {
    received: Ring,
    fill: Ring,
    frames: usize,
    /// Frames that are ours.
    held: Vec<u64>,
}

#[derive(Debug)]
struct Ring {
    map: NonNull<u8>,
    len: usize,
    producer: usize,
    consumer: usize,
    entries: usize,
    mask: u32,
    /// How far we have come: as consumer of what is received, as producer of what is to be filled.
    own: u32,
}

// SAFETY: the mapping is this ring's alone on our side.
unsafe impl Send for Ring {}

/// `struct xdp_umem_reg`
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct UmemReg {
    addr: u64,
    len: u64,
    chunk: u32,
    headroom: u32,
    flags: u32,
    metadata: u32,
}

/// `struct xdp_ring_offset`
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes)]
#[repr(C)]
struct Offsets {
    producer: u64,
    consumer: u64,
    entries: u64,
    flags: u64,
}

/// `struct xdp_desc`
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Descriptor {
    addr: u64,
    len: u32,
    options: u32,
}

impl Xsk {
    /// Opens one for packets of that receive queue of the device with that index, in the calling thread's network namespace. It has the first
    /// `frames` (a power of two) times [`FRAME`] bytes of `area` to itself; what is received lies there.
    ///
    /// # Errors
    /// EINVAL: the device has no such queue. EBUSY: another socket has it. ENOBUFS: no more memory may be locked. EPERM:
    /// CAP_NET_RAW is missing. EAFNOSUPPORT: no AF_XDP in this kernel, or the service may not use it. Unsupported: before Linux 5.4.
    pub fn open(ifindex: u32, queue: u32, area: &mut Area, frames: usize) -> io::Result<(Xsk, Rings)> {
        let len = frames * FRAME;
        if len > area.len() || !frames.is_power_of_two() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (kind, count) = (libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, frames as u32);
        // SAFETY: takes no pointers.
        let fd = check(unsafe { libc::socket(libc::AF_XDP, kind, 0) })?;
        // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
        let xsk = Xsk(unsafe { OwnedFd::from_raw_fd(fd) });
        // What the kernel is told of is pages, which it holds: if the area goes first, they are not ours any more and its alone.
        let umem = UmemReg {
            addr: area.as_mut_ptr().addr() as u64,
            len: len as u64,
            chunk: FRAME as u32,
            headroom: 0,
            flags: 0,
            metadata: 0,
        };
        set_option(&xsk, libc::SOL_XDP, libc::XDP_UMEM_REG, &umem)?;
        for (ring, entries) in [
            (libc::XDP_UMEM_FILL_RING, count),
            (libc::XDP_UMEM_COMPLETION_RING, NONE_SENT),
            (libc::XDP_RX_RING, count),
        ] {
            set_option(&xsk, libc::SOL_XDP, ring, &entries)?;
        }
        let [rx, _, fill, sent]: [Offsets; 4] = get_option(&xsk, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS)?;
        if sent.entries == 0 {
            // three numbers a ring and not four
            return Err(io::ErrorKind::Unsupported.into());
        }
        let received = Ring::map(&xsk, rx, count, size_of::<Descriptor>(), libc::XDP_PGOFF_RX_RING)?;
        let fill = Ring::map(&xsk, fill, count, size_of::<u64>(), libc::XDP_UMEM_PGOFF_FILL_RING as i64)?;
        let held = (0..frames).map(|i| (i * FRAME) as u64).collect();
        let mut rings = Rings { received, fill, frames, held };
        rings.give_back();
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: libc::XDP_COPY,
            sxdp_ifindex: ifindex,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: 0,
        };
        let size = size_of_val(&address) as socklen_t;
        // SAFETY: pointer and length are those of one structure, which outlives the call.
        check(unsafe { libc::bind(fd, ptr::from_ref(&address).cast(), size) })?;
        Ok((xsk, rings))
    }

    /// Packets that found no frame free, since it was opened.
    pub fn dropped(&self) -> u64 {
        // struct xdp_statistics: no frame, or the packet was too long; descriptors that are none, twice; the ring was full
        let counts = get_option::<[u64; 6]>(self, libc::SOL_XDP, libc::XDP_STATISTICS);
        counts.map_or(0, |[dropped, _, _, full, ..]| dropped + full)
    }
}

impl AsFd for Xsk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Rings {
    /// Calls `each` with up to `max` packets in order, by where they lie in the area. They are ours until [`Rings::give_back`].
    /// Returns how many.
    pub fn receive(&mut self, max: usize, mut each: impl FnMut(Piece)) -> usize {
        let ready = self.received.producer().load(Acquire).wrapping_sub(self.received.own);
        let room = self.frames - self.held.len().min(self.frames);
        let count = (ready as usize).min(max).min(room);
        for i in 0..count as u32 {
            // SAFETY: the kernel has written this descriptor and will write no more to it before the consumer moves on; the load
            // above makes it visible.
            let packet =
                unsafe { self.received.entry::<Descriptor>(self.received.own.wrapping_add(i)).read() };
            self.held.push(packet.addr - packet.addr % FRAME as u64);
            each(Piece { off: packet.addr as u32, len: packet.len });
        }
        self.received.own = self.received.own.wrapping_add(count as u32);
        self.received.consumer().store(self.received.own, Release);
        count
    }

    /// Lets the kernel have the frames of all packets received, which must not be looked at any more.
    pub fn give_back(&mut self) {
        for addr in self.held.drain(..) {
            let entry = self.fill.entry::<u64>(self.fill.own);
            // SAFETY: in the mapping and aligned. There is an entry for each frame, and this frame is in none: one is free, and that
            // is the next. The kernel reads none that the producer has not come past.
            unsafe { entry.write(addr) };
            self.fill.own = self.fill.own.wrapping_add(1);
        }
        self.fill.producer().store(self.fill.own, Release);
    }
}

impl Ring {
    fn map(xsk: &Xsk, at: Offsets, count: u32, size: usize, offset: i64) -> io::Result<Ring> {
        let (producer, consumer, entries) = (at.producer as usize, at.consumer as usize, at.entries as usize);
        let len = entries + count as usize * size;
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
        let fd = xsk.0.as_raw_fd();
        // SAFETY: no address is asked for, so no mapping is replaced.
        let map = unsafe { libc::mmap(ptr::null_mut(), len, access, kind, fd, offset) };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let map = NonNull::new(map.cast()).ok_or(io::ErrorKind::InvalidData)?;
        let ring = Ring { map, len, producer, consumer, entries, mask: count - 1, own: 0 };
        let whole = producer.max(consumer) + size_of::<AtomicU32>() <= len;
        let aligned = producer.is_multiple_of(4) && consumer.is_multiple_of(4) && entries.is_multiple_of(8);
        if whole && aligned { Ok(ring) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: in the mapping and aligned, which was looked at when it was made; the kernel, too, uses it atomically.
        unsafe { AtomicU32::from_ptr(self.map.as_ptr().add(self.producer).cast()) }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { AtomicU32::from_ptr(self.map.as_ptr().add(self.consumer).cast()) }
    }

    /// Where entry `index` is: in the mapping, if `T` is what the ring was made for, and aligned.
    fn entry<T>(&self, index: u32) -> *mut T {
        let at = self.entries + (index & self.mask) as usize * size_of::<T>();
        self.map.as_ptr().wrapping_add(at).cast()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing refers to it any more.
        unsafe { libc::munmap(self.map.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_the_kernels() {
        assert_eq!(size_of::<UmemReg>(), size_of::<libc::xdp_umem_reg>());
        assert_eq!(size_of::<[Offsets; 4]>(), size_of::<libc::xdp_mmap_offsets>());
        assert_eq!(size_of::<[u64; 6]>(), size_of::<libc::xdp_statistics>());
        assert_eq!(size_of::<Descriptor>(), 16);
    }

    #[test]
    fn more_frames_than_there_is_memory_for_are_refused() {
        let mut area = Area::new(4 * FRAME);
        for frames in [3, 8] {
            let error = Xsk::open(1, 0, &mut area, frames).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{frames}");
        }
    }
}
