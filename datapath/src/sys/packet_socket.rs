//! AF_PACKET sockets: every frame of a device, offload headers and stripped VLAN tags included.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use libc::c_int;
use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{get_option, mmsg, set_buffers, set_option};

// linux/if_packet.h
const PACKET_ADD_MEMBERSHIP: c_int = 1;
const PACKET_STATISTICS: c_int = 6;
const PACKET_AUXDATA: c_int = 8;
const PACKET_VNET_HDR: c_int = 15;
const PACKET_IGNORE_OUTGOING: c_int = 23;
const PACKET_MR_PROMISC: u16 = 1;
const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
const TP_STATUS_VLAN_TPID_VALID: u32 = 1 << 6;
const TPID_8021Q: u16 = 0x8100;

/// `struct packet_mreq`
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Membership {
    ifindex: c_int,
    kind: u16,
    address_len: u16,
    address: [u8; 8],
}

/// `struct tpacket_auxdata`
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Auxdata {
    status: u32,
    len: u32,
    snaplen: u32,
    mac: u16,
    net: u16,
    vlan_tci: u16,
    vlan_tpid: u16,
}

/// `struct tpacket_stats`
#[derive(FromBytes, IntoBytes)]
#[repr(C)]
struct Statistics {
    packets: u32,
    drops: u32,
}

/// A tag that the kernel took out of the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VlanTag {
    /// 0x8100 or 0x88a8.
    pub tpid: u16,
    /// Priority, DEI and VLAN id.
    pub tci: u16,
}

/// A packet socket bound to one device. Messages start with a virtio_net_hdr in both directions.
#[derive(Debug)]
pub struct PacketSocket {
    socket: Socket,
    /// What sends. Each time that a frame of a socket has left, the kernel wakes whoever waits for that socket: nobody waits
    /// for this one.
    exit: Socket,
    ifindex: u32,
}

impl PacketSocket {
    /// Opens it on the device with that index, in the calling thread's network namespace: promiscuous, deaf to what this
    /// host sends through the device, with buffers of `buffers` bytes.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW; ENODEV when there is no such device; InvalidInput when its frames are not Ethernet.
    pub fn open(ifindex: u32, buffers: usize) -> io::Result<PacketSocket> {
        let index = c_int::try_from(ifindex).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
        // No protocol yet: frames come only once it is bound, and then from this device alone.
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), None)?;
        for option in [PACKET_VNET_HDR, PACKET_AUXDATA, PACKET_IGNORE_OUTGOING] {
            set_option(&socket, libc::SOL_PACKET, option, &1i32)?;
        }
        set_buffers(&socket, buffers)?;
        let member = Membership { ifindex: index, kind: PACKET_MR_PROMISC, address_len: 0, address: [0; 8] };
        set_option(&socket, libc::SOL_PACKET, PACKET_ADD_MEMBERSHIP, &member)?;
        socket.bind(&address(index, libc::ETH_P_ALL))?;
        // bound without a protocol, it receives nothing
        let exit = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), None)?;
        set_option(&exit, libc::SOL_PACKET, PACKET_VNET_HDR, &1i32)?;
        set_buffers(&exit, buffers)?;
        exit.bind(&address(index, 0))?;
        let socket = PacketSocket { socket, exit, ifindex };
        if link_layer(socket.socket.local_addr()?).sll_hatype != libc::ARPHRD_ETHER {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not an Ethernet device"));
        }
        Ok(socket)
    }

    /// The index that the device had when this was opened.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// The device has been removed or moved to another namespace: nothing will come any more.
    pub fn is_gone(&self) -> bool {
        self.socket.local_addr().map_or(true, |a| link_layer(a).sll_ifindex != self.ifindex as c_int)
    }

    /// What to send by.
    pub fn exit(&self) -> BorrowedFd<'_> {
        self.exit.as_fd()
    }

    /// Frames that found the receive buffer full since the last call.
    pub fn take_drops(&self) -> u32 {
        get_option::<Statistics>(&self.socket, libc::SOL_PACKET, PACKET_STATISTICS).map_or(0, |s| s.drops)
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The VLAN tag that belongs to a received frame but stands beside it.
#[inline]
pub fn stripped_tag(message: &mmsg::Received<'_>) -> Option<VlanTag> {
    let bytes = message.control::<{ size_of::<Auxdata>() }>(libc::SOL_PACKET, PACKET_AUXDATA)?;
    let aux = Auxdata::read_from_bytes(bytes).ok()?;
    if aux.status & TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let tpid = if aux.status & TP_STATUS_VLAN_TPID_VALID != 0 { aux.vlan_tpid } else { TPID_8021Q };
    Some(VlanTag { tpid, tci: aux.vlan_tci })
}

/// A packet socket that only sends, by one device. Messages start with a virtio_net_hdr.
#[derive(Debug)]
pub struct PacketSender(Socket);

impl PacketSender {
    /// Opens it for the device with that index, in the calling thread's network namespace. Everything that it sends has `mark`.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW; ENODEV when there is no such device.
    pub fn open(ifindex: u32, mark: u32, buffers: usize) -> io::Result<PacketSender> {
        let index = c_int::try_from(ifindex).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), None)?;
        set_option(&socket, libc::SOL_PACKET, PACKET_VNET_HDR, &1i32)?;
        set_buffers(&socket, buffers)?;
        socket.set_mark(mark)?;
        // no protocol, so it receives nothing, and the kernel looks for that of each frame in the frame
        socket.bind(&address(index, 0))?;
        Ok(PacketSender(socket))
    }
}

impl AsFd for PacketSender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A device, and the protocol of it to receive.
fn address(ifindex: c_int, protocol: c_int) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is integers alone, is shorter than the storage, and zero is valid in all of its fields.
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    link.sll_family = libc::AF_PACKET as u16;
    link.sll_protocol = (protocol as u16).to_be();
    link.sll_ifindex = ifindex;
    // SAFETY: a sockaddr_ll of that length has just been written there.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}

/// The address of a packet socket, as the kernel tells it.
fn link_layer(address: SockAddr) -> libc::sockaddr_ll {
    let mut storage = address.as_storage();
    // SAFETY: sockaddr_ll is integers alone and shorter than the storage, which is initialized whole.
    *unsafe { storage.view_as::<libc::sockaddr_ll>() }
}
