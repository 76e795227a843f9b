//! `recvmmsg` and `sendmmsg`: a batch of messages in one system call.
//!
//! The headers that the kernel wants are kept by each thread and filled anew for every call, so a call allocates nothing
//! and no pointer outlives it.

use std::cell::RefCell;
use std::io;
use std::marker::PhantomData;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use libc::{c_int, c_uint, c_void, iovec, mmsghdr};

use super::cmsg::{self, Control};
use crate::slab::{Piece, SLOTS, Slab};
use crate::txq::MAX_PIECES;
use crate::vnet::VNET_LEN;

/// Bytes kept free in front of each received frame, to put a VLAN tag back. 14 bytes of Ethernet header later, the IP
/// header is aligned to 16 bytes.
pub const HEADROOM: u32 = 50;

/// Messages that one `sendmmsg` takes.
const BATCH: usize = 64;
/// Parts of one message: the offload header and the pieces of the frame.
const PARTS: usize = MAX_PIECES + 1;
/// Room for a `sockaddr_in6`, the longest address used here.
const NAME: usize = 28;

/// A socket address as the kernel lays it out.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(8))]
struct Name([u8; NAME]);

/// What to ask for beside the data of each message.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wants {
    /// A virtio_net_hdr comes first and is to be kept apart from the frame.
    pub vnet: bool,
    /// The address that the message came from.
    pub name: bool,
    /// Ancillary data.
    pub control: bool,
}

/// A message received.
#[derive(Debug)]
pub struct Received<'a> {
    /// Its bytes in the slab, the virtio_net_hdr not among them.
    pub data: Piece,
    /// It was longer than the slot; the rest is lost.
    pub truncated: bool,
    /// The virtio_net_hdr, if it was asked for.
    pub vnet: &'a [u8; VNET_LEN],
    name: &'a [u8],
    control: &'a [u8],
}

impl Received<'_> {
    /// The address that it came from; a raw socket tells no port.
    pub fn source(&self) -> Option<SocketAddr> {
        let field = |at| self.name.get(at..);
        let family = u16::from_ne_bytes(*field(0)?.first_chunk()?);
        let port = u16::from_be_bytes(*field(2)?.first_chunk()?);
        match c_int::from(family) {
            libc::AF_INET => Some(SocketAddr::from((*field(4)?.first_chunk::<4>()?, port))),
            libc::AF_INET6 => Some(SocketAddr::from((*field(8)?.first_chunk::<16>()?, port))),
            _ => None,
        }
    }

    /// The first ancillary item of that kind, if it has at least `N` bytes.
    pub fn control<const N: usize>(&self, level: c_int, kind: c_int) -> Option<&[u8; N]> {
        cmsg::find(self.control, level, kind)?.first_chunk::<N>()
    }
}

/// Headers for one `recvmmsg`.
struct RxScratch {
    messages: Box<[mmsghdr]>,
    parts: Box<[[iovec; 2]]>,
    vnets: Box<[[u8; VNET_LEN]]>,
    names: Box<[Name]>,
    controls: Box<[Control]>,
}

/// Headers for one `sendmmsg`.
struct TxScratch {
    messages: Box<[mmsghdr]>,
    parts: Box<[iovec]>,
    names: Box<[Name]>,
    controls: Box<[Control]>,
    /// The caller's number for each message.
    tags: Box<[usize]>,
}

const NO_PART: iovec = iovec { iov_base: ptr::null_mut(), iov_len: 0 };

fn boxed<T: Clone>(value: T, n: usize) -> Box<[T]> {
    vec![value; n].into_boxed_slice()
}

fn empty_message() -> mmsghdr {
    // SAFETY: mmsghdr is integers and raw pointers, for which all zeroes are valid values.
    unsafe { mem::zeroed() }
}

thread_local! {
    static RX: RefCell<RxScratch> = RefCell::new(RxScratch {
        messages: boxed(empty_message(), SLOTS),
        parts: boxed([NO_PART; 2], SLOTS),
        vnets: boxed([0; VNET_LEN], SLOTS),
        names: boxed(Name([0; NAME]), SLOTS),
        controls: boxed(Control::EMPTY, SLOTS),
    });
    static TX: RefCell<TxScratch> = RefCell::new(TxScratch {
        messages: boxed(empty_message(), BATCH),
        parts: boxed(NO_PART, BATCH * PARTS),
        names: boxed(Name([0; NAME]), BATCH),
        controls: boxed(Control::EMPTY, BATCH),
        tags: boxed(0, BATCH),
    });
}

/// Receives up to `max` (at most [`SLOTS`]) messages, each into its slot of `slab`, [`HEADROOM`] behind the slot's start,
/// and calls `each` for them in order. Never blocks. Returns how many came.
///
/// # Errors
/// What the socket says: EAGAIN when nothing is waiting, else an error that was pending on it.
pub fn receive(
    fd: BorrowedFd<'_>,
    slab: &mut Slab,
    max: usize,
    wants: Wants,
    mut each: impl FnMut(&mut Slab, Received<'_>),
) -> io::Result<usize> {
    RX.with_borrow_mut(|scratch| {
        let n = max.min(SLOTS);
        scratch.aim(slab, n, wants);
        let (messages, fd) = (scratch.messages.as_mut_ptr(), fd.as_raw_fd());
        // SAFETY: `aim` has just pointed the first `n` headers at this scratch and at ranges of `slab` that do not
        // overlap; both are borrowed mutably until the call is over.
        let got = unsafe { libc::recvmmsg(fd, messages, n as c_uint, libc::MSG_DONTWAIT, ptr::null_mut()) };
        let got = super::check(got)? as usize;
        for i in 0..got {
            if let Some(message) = scratch.received(i, wants) {
                each(slab, message);
            }
        }
        Ok(got)
    })
}

impl RxScratch {
    /// Points the first `n` headers at the slots of `slab`.
    fn aim(&mut self, slab: &mut Slab, n: usize, wants: Wants) {
        let base = slab.bytes_mut().as_mut_ptr();
        let vnets = self.vnets.as_mut_ptr();
        for (i, [vnet, frame]) in self.parts.iter_mut().enumerate().take(n) {
            let slot = Slab::slot(i).skip(HEADROOM);
            *vnet = iovec { iov_base: vnets.wrapping_add(i).cast(), iov_len: VNET_LEN };
            *frame =
                iovec { iov_base: base.wrapping_add(slot.off as usize).cast(), iov_len: slot.len as usize };
        }
        let parts = self.parts.as_mut_ptr().cast::<iovec>();
        let names = self.names.as_mut_ptr();
        let skip = usize::from(!wants.vnet);
        let headers = self.messages.iter_mut().zip(self.controls.iter_mut()).enumerate();
        for (i, (message, control)) in headers.take(n) {
            let header = &mut message.msg_hdr;
            header.msg_iov = parts.wrapping_add(2 * i + skip);
            header.msg_iovlen = 2 - skip;
            header.msg_name = if wants.name { names.wrapping_add(i).cast() } else { ptr::null_mut() };
            header.msg_namelen = if wants.name { NAME as libc::socklen_t } else { 0 };
            let room = if wants.control { control.room() } else { &mut [] };
            header.msg_control = room.as_mut_ptr().cast::<c_void>();
            header.msg_controllen = room.len();
            header.msg_flags = 0;
        }
    }

    /// What the kernel wrote about message `i`.
    fn received(&self, i: usize, wants: Wants) -> Option<Received<'_>> {
        let message = self.messages.get(i)?;
        let slot = Slab::slot(i).skip(HEADROOM);
        let prefix = if wants.vnet { VNET_LEN as u32 } else { 0 };
        Some(Received {
            data: Piece { off: slot.off, len: message.msg_len.saturating_sub(prefix).min(slot.len) },
            truncated: message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            vnet: self.vnets.get(i)?,
            name: self.names.get(i)?.0.get(..message.msg_hdr.msg_namelen as usize).unwrap_or(&[]),
            control: self.controls.get(i)?.written(message.msg_hdr.msg_controllen),
        })
    }
}

/// What to do about a message that the kernel refused; see [`Sender::flush`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Go on with the next.
    Skip,
    /// Try this one again.
    Again,
    /// Give up this one and those behind it.
    Stop,
}

/// Messages gathered for `sendmmsg`. Their bytes live as long as `'d`, hence longer than the sender.
pub struct Sender<'d, 's> {
    scratch: &'s mut TxScratch,
    messages: usize,
    parts: usize,
    data: PhantomData<&'d [u8]>,
}

impl std::fmt::Debug for Sender<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("messages", &self.messages).finish_non_exhaustive()
    }
}

/// Runs `body` with this thread's sender, empty.
pub fn with_sender<'d, R>(body: impl FnOnce(&mut Sender<'d, '_>) -> R) -> R {
    TX.with_borrow_mut(|scratch| body(&mut Sender { scratch, messages: 0, parts: 0, data: PhantomData }))
}

impl<'d> Sender<'d, '_> {
    /// No further message fits: [`Sender::flush`] first.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.messages == BATCH
    }

    /// Adds a message made of `parts`, in order, to `to` (None on a socket that knows its destination; port 0 on a raw one),
    /// with `control` beside it. False when the sender is full or the message has too many parts; nothing is added then.
    pub fn push(
        &mut self,
        tag: usize,
        to: Option<SocketAddr>,
        control: &Control,
        parts: impl Iterator<Item = &'d [u8]>,
    ) -> bool {
        let scratch = &mut *self.scratch;
        let (Some(message), Some(name), Some(control_slot), Some(tag_slot), Some(room)) = (
            scratch.messages.get_mut(self.messages),
            scratch.names.get_mut(self.messages),
            scratch.controls.get_mut(self.messages),
            scratch.tags.get_mut(self.messages),
            scratch.parts.get_mut(self.parts..self.parts + PARTS),
        ) else {
            return false;
        };
        let mut count = 0;
        for bytes in parts {
            let Some(part) = room.get_mut(count) else { return false };
            *part = iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            count += 1;
        }
        *tag_slot = tag;
        message.msg_hdr.msg_iovlen = count;
        message.msg_hdr.msg_namelen = name.set(to);
        message.msg_hdr.msg_controllen = control.as_bytes().len();
        if message.msg_hdr.msg_controllen > 0 {
            *control_slot = *control;
        }
        self.messages += 1;
        self.parts += count;
        true
    }

    /// Sends what was gathered, in order, and forgets it. When the kernel refuses a message, `refused` is told its tag and
    /// the error number, and says how to go on. Never blocks. Returns how many the kernel took.
    pub fn flush(&mut self, fd: BorrowedFd<'_>, refused: &mut dyn FnMut(usize, i32) -> Refused) -> usize {
        self.aim();
        let (mut next, mut taken) = (0, 0);
        while next < self.messages {
            let rest = self.scratch.messages.as_mut_ptr().wrapping_add(next);
            let (count, fd) = ((self.messages - next) as c_uint, fd.as_raw_fd());
            // SAFETY: the `count` headers from `rest` on were just pointed at this scratch, borrowed mutably, and at bytes
            // borrowed for 'd, which outlives self. The kernel writes the msg_len fields alone.
            match super::check(unsafe { libc::sendmmsg(fd, rest, count, libc::MSG_DONTWAIT) }) {
                Ok(n) => {
                    // Fewer than asked for: the next one was refused, and says why when it comes first.
                    taken += n as usize;
                    next += n as usize;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    let tag = self.scratch.tags.get(next).copied().unwrap_or_default();
                    match refused(tag, e.raw_os_error().unwrap_or(libc::EIO)) {
                        Refused::Skip => next += 1,
                        Refused::Again => {}
                        Refused::Stop => break,
                    }
                }
            }
        }
        (self.messages, self.parts) = (0, 0);
        taken
    }

    /// Points the headers at their parts, names and ancillary data.
    fn aim(&mut self) {
        let mut parts = self.scratch.parts.as_mut_ptr();
        let names = self.scratch.names.as_mut_ptr();
        let controls = self.scratch.controls.as_mut_ptr();
        for (i, message) in self.scratch.messages.iter_mut().enumerate().take(self.messages) {
            let header = &mut message.msg_hdr;
            header.msg_iov = parts;
            parts = parts.wrapping_add(header.msg_iovlen);
            let (named, controlled) = (header.msg_namelen != 0, header.msg_controllen != 0);
            header.msg_name = if named { names.wrapping_add(i).cast() } else { ptr::null_mut() };
            // the items come first in a Control
            header.msg_control = if controlled { controls.wrapping_add(i).cast() } else { ptr::null_mut() };
        }
    }
}

impl Name {
    /// Writes the `sockaddr` of `to` and returns its length; 0 for none.
    fn set(&mut self, to: Option<SocketAddr>) -> libc::socklen_t {
        let Some(to) = to else { return 0 };
        let bytes = &mut self.0;
        bytes.fill(0);
        let mut put = |at: usize, value: &[u8]| {
            if let Some(field) = bytes.get_mut(at..at + value.len()) {
                field.copy_from_slice(value);
            }
        };
        put(2, &to.port().to_be_bytes());
        match to {
            SocketAddr::V4(a) => {
                put(0, &(libc::AF_INET as u16).to_ne_bytes());
                put(4, &a.ip().octets());
                16
            }
            SocketAddr::V6(a) => {
                put(0, &(libc::AF_INET6 as u16).to_ne_bytes());
                put(8, &a.ip().octets());
                NAME as libc::socklen_t
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    fn udp_pair() -> (UdpSocket, UdpSocket) {
        let (a, b) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        a.connect(b.local_addr().unwrap()).unwrap();
        (a, b)
    }

    #[test]
    fn more_messages_than_a_batch_arrive_whole_and_in_order() {
        let (a, b) = udp_pair();
        let bodies: Vec<Vec<u8>> = (0..100u8).map(|i| vec![i; usize::from(i) + 1]).collect();
        let taken = with_sender(|sender| {
            let mut taken = 0;
            for (i, body) in bodies.iter().enumerate() {
                if sender.is_full() {
                    taken += sender.flush(a.as_fd(), &mut |_, e| panic!("refused: {e}"));
                }
                let (left, right) = body.split_at(i / 2);
                assert!(sender.push(i, None, &Control::EMPTY, [left, right].into_iter()));
            }
            taken + sender.flush(a.as_fd(), &mut |_, e| panic!("refused: {e}"))
        });
        assert_eq!(taken, 100);
        let (mut slab, mut got) = (Slab::new(), Vec::new());
        while let Ok(n) = receive(b.as_fd(), &mut slab, SLOTS, Wants::default(), |slab, m| {
            assert!(!m.truncated);
            got.push(slab.get(m.data).to_vec());
        }) {
            assert!(n > 0);
        }
        assert_eq!(got, bodies);
    }

    #[test]
    fn a_refused_message_is_reported_by_its_tag_and_the_others_go() {
        let (a, b) = udp_pair();
        let (small, big) = (vec![1; 100], vec![2; 70_000]);
        let mut refused = Vec::new();
        let taken = with_sender(|sender| {
            for (tag, body) in [(10, &small), (11, &big), (12, &big), (13, &small)] {
                assert!(sender.push(tag, None, &Control::EMPTY, std::iter::once(&body[..])));
            }
            sender.flush(a.as_fd(), &mut |tag, errno| {
                refused.push((tag, errno));
                if refused.len() == 1 { Refused::Again } else { Refused::Skip }
            })
        });
        let errors = [11, 11, 12].map(|tag| (tag, libc::EMSGSIZE));
        assert_eq!((taken, refused), (2, errors.to_vec()));
        let mut slab = Slab::new();
        let each = |_: &mut Slab, m: Received<'_>| assert_eq!(m.data.len, 100);
        assert_eq!(receive(b.as_fd(), &mut slab, SLOTS, Wants::default(), each).unwrap(), 2);
    }

    #[test]
    fn too_many_parts_are_not_taken() {
        with_sender(|sender| {
            assert!(!sender.push(0, None, &Control::EMPTY, std::iter::repeat_n(&b"x"[..], PARTS + 1)));
            assert!(sender.push(0, None, &Control::EMPTY, std::iter::repeat_n(&b"x"[..], PARTS)));
            assert_eq!(sender.messages, 1);
        });
    }
}
