//! ESP and IKE in UDP (RFC 3948).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use super::{Refusal, RxPacket, Sent, TxPacket};
use crate::slab::Slab;

#[derive(Debug)]
pub(super) struct UdpSocket {
    socket: std::net::UdpSocket,
    v6: bool,
}

impl UdpSocket {
    pub(super) fn v4(port: u16) -> io::Result<UdpSocket> {
        Ok(UdpSocket { socket: std::net::UdpSocket::bind(("0.0.0.0", port))?, v6: false })
    }

    pub(super) fn v6(port: u16) -> io::Result<UdpSocket> {
        Ok(UdpSocket { socket: std::net::UdpSocket::bind(("::", port))?, v6: true })
    }

    pub(super) fn is_v6(&self) -> bool {
        self.v6
    }

    pub(super) fn take_lost(&self) -> u64 {
        0
    }

    pub(super) fn rx(&self, _: &mut Slab, _: usize, _: &mut Vec<RxPacket>) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn tx(
        &self,
        _: &[u8],
        packets: &[TxPacket],
        refused: &mut dyn FnMut(&TxPacket, Refusal),
    ) -> Sent {
        packets.iter().for_each(|packet| refused(packet, Refusal::Failed));
        Sent { failed: packets.len(), ..Sent::default() }
    }

    pub(super) fn send_ike(&self, _: IpAddr, _: SocketAddr, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
