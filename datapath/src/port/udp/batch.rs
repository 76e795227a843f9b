//! A batch on its way out, in order, train by train.

use std::iter;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::Relaxed;

use super::{Exit, PAUSE, UdpSocket, remote, train};
use crate::port::{Refusal, Sent, Tally, TxPacket};
use crate::sys::mmsg::{self, Refused, Sender};

pub(super) struct Batch<'a> {
    socket: &'a UdpSocket,
    buf: &'a [u8],
    packets: &'a [TxPacket],
    trains: bool,
    /// Which exit what waits in the sender leaves by.
    exit: Exit,
    tally: Tally,
    /// The socket takes no more: the first packet that was not tried.
    end: Option<usize>,
}

type OnRefusal<'r> = &'r mut dyn FnMut(&TxPacket, Refusal);

impl<'a> Batch<'a> {
    /// `packets` lie in `buf`. `trains`: several may go as one message.
    pub(super) fn new(
        socket: &'a UdpSocket,
        buf: &'a [u8],
        packets: &'a [TxPacket],
        trains: bool,
    ) -> Batch<'a> {
        Batch { socket, buf, packets, trains, exit: Exit::Own, tally: Tally::default(), end: None }
    }

    pub(super) fn send(mut self, refused: OnRefusal<'_>) -> Sent {
        mmsg::with_sender(|sender| {
            let mut next = 0;
            while let (Some(first), None) = (self.packets.get(next), self.end) {
                let count = self.train_at(next);
                let exit = self.socket.exit_of(first);
                if self.exit != exit {
                    self.flush(sender, refused);
                    self.exit = exit;
                }
                if self.socket.clear_df.is_some() && !first.df {
                    self.flush(sender, refused);
                    self.send_singly(next, count, refused);
                } else {
                    if sender.is_full() {
                        self.flush(sender, refused);
                    }
                    self.push(sender, next, count, refused);
                }
                next += count;
            }
            self.flush(sender, refused);
        });
        self.close(refused)
    }

    /// How many packets from `first` on go as one message; at least 1.
    fn train_at(&self, first: usize) -> usize {
        if !self.trains {
            return 1;
        }
        match self.packets.get(first..) {
            // the kernel cuts no message without a checksum
            Some(rest) if rest.first().is_some_and(|p| !matches!(self.socket.exit_of(p), Exit::Bare(_))) => {
                train::len(rest).max(1)
            }
            _ => 1,
        }
    }

    /// The bytes of some packets that lie one behind the other.
    fn bytes(&self, first: usize, count: usize) -> Option<&'a [u8]> {
        let (first, last) = (self.packets.get(first)?, self.packets.get(first + count - 1)?);
        self.buf.get(first.start as usize..last.start as usize + last.len as usize)
    }

    fn push(&mut self, sender: &mut Sender<'a, '_>, first: usize, count: usize, refused: OnRefusal<'_>) {
        let (Some(packet), Some(bytes)) = (self.packets.get(first), self.bytes(first, count)) else {
            self.refuse(first, count, libc::EINVAL, refused);
            return;
        };
        let mut control = self.socket.control(packet);
        if count > 1 {
            control.train(packet.len as u16);
        }
        sender.push(first, Some(remote(packet)), &control, iter::once(bytes));
    }

    fn flush(&mut self, sender: &mut Sender<'a, '_>, refused: OnRefusal<'_>) {
        if self.end.is_none() {
            let (socket, _) = self.socket.exit(self.exit);
            sender.flush(socket.as_fd(), &mut |first, errno| self.judge(first, errno, refused));
        }
    }

    /// The message that starts with packet `first` met an error.
    fn judge(&mut self, first: usize, errno: i32, refused: OnRefusal<'_>) -> Refused {
        let count = self.train_at(first);
        // EINVAL: the kernel knows no trains, or one datagram is too long; newer ones say EMSGSIZE then. EIO: the device
        // does not compute checksums.
        if count == 1 || !matches!(errno, libc::EINVAL | libc::EMSGSIZE | libc::EIO) {
            return self.refuse(first, count, errno, refused);
        }
        let before = self.tally.refused();
        let verdict = self.send_singly(first, count, refused);
        if self.tally.refused() == before {
            self.socket.pause.store(PAUSE, Relaxed);
        }
        verdict
    }

    /// A system call for each, where it stands in the order.
    fn send_singly(&mut self, first: usize, count: usize, refused: OnRefusal<'_>) -> Refused {
        for (i, packet) in self.packets.iter().enumerate().skip(first).take(count) {
            let sent = match self.bytes(i, 1) {
                Some(bytes) => self.socket.send(packet, bytes).map_err(|e| e.raw_os_error()),
                None => Err(Some(libc::EINVAL)),
            };
            if let Err(errno) = sent
                && self.refuse(i, 1, errno.unwrap_or(libc::EIO), refused) == Refused::Stop
            {
                return Refused::Stop;
            }
        }
        Refused::Skip
    }

    /// Accounts for packets that were refused together.
    fn refuse(&mut self, first: usize, count: usize, errno: i32, refused: OnRefusal<'_>) -> Refused {
        let mut verdict = Refused::Skip;
        for packet in self.packets.iter().skip(first).take(count) {
            refused(packet, Refusal::of(errno));
            verdict = self.tally.refuse(errno);
        }
        if verdict == Refused::Stop {
            self.end = Some(first + count);
        }
        verdict
    }

    /// The account of the whole batch.
    fn close(mut self, refused: OnRefusal<'_>) -> Sent {
        let end = self.end.unwrap_or(self.packets.len());
        self.tally.sent.ok = end.saturating_sub(self.tally.refused());
        let rest = self.tally.rest.unwrap_or(Refusal::Failed);
        self.packets.iter().skip(end).for_each(|packet| refused(packet, rest));
        self.tally.close(self.packets.len())
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::os::fd::AsFd;

    use super::*;
    use crate::port::RxRoad;
    use crate::slab::{SLOTS, Slab};
    use crate::snapshot::PortId;
    use crate::sys::udp::Udp;

    /// A kernel or a device that knows no trains: what one would have held goes all the same, and the next ones are not tried.
    #[test]
    fn a_train_that_is_refused_goes_in_pieces() {
        let socket = UdpSocket::new(Udp::v4(0, 64, 1 << 20).unwrap(), RxRoad::Udp, 0, None);
        let here = socket2::SockRef::from(&socket.as_fd()).local_addr().unwrap().as_socket_ipv4().unwrap();
        let to = SocketAddr::from(([127, 0, 0, 1], here.port()));
        let packet = |i: u32| TxPacket {
            dst_port: to.port(),
            ..TxPacket::raw(100 * i, 100, to.ip(), PortId(i as u16))
        };
        let packets: Vec<TxPacket> = (0..5).map(packet).collect();
        let buf: Vec<u8> = (0..500u32).map(|i| (i / 100) as u8).collect();
        let received = || {
            let (mut slab, mut out) = (Slab::new(), Vec::new());
            let messages = socket.rx(&mut slab, SLOTS, &mut out).unwrap();
            (messages, out.iter().map(|p| slab.get(p.data).to_vec()).collect::<Vec<_>>())
        };
        let whole: Vec<Vec<u8>> = buf.chunks(100).map(<[u8]>::to_vec).collect();
        let nothing: &mut dyn FnMut(&TxPacket, Refusal) = &mut |p, why| panic!("{p:?} {why:?}");

        for errno in [libc::EINVAL, libc::EIO, libc::EMSGSIZE] {
            socket.pause.store(0, Relaxed);
            let mut batch = Batch::new(&socket, &buf, &packets, true);
            assert_eq!(batch.judge(0, errno, nothing), Refused::Skip);
            assert_eq!(batch.close(nothing), Sent { ok: 5, ..Sent::default() });
            assert_eq!(received(), (5, whole.clone()));
            assert_eq!(socket.pause.load(Relaxed), PAUSE);
        }
        assert_eq!(socket.tx(&buf, &packets, nothing).ok, 5);
        assert_eq!(received(), (5, whole.clone()));
        assert_eq!(socket.pause.load(Relaxed), PAUSE - 1);

        // no room: nobody is tried again
        let mut refused = 0;
        let count: &mut dyn FnMut(&TxPacket, Refusal) = &mut |_, why| {
            assert_eq!(why, Refusal::Full);
            refused += 1;
        };
        let mut batch = Batch::new(&socket, &buf, &packets, true);
        assert_eq!(batch.judge(0, libc::EAGAIN, count), Refused::Stop);
        assert_eq!(batch.close(nothing), Sent { full: 5, ..Sent::default() });
        assert_eq!((refused, received()), (5, (0, vec![])));
    }
}
