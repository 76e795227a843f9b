//! ESP read from a device's receive queue: what comes there, what comes elsewhere, and what is too much.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail as tests do")]

#[path = "namespace/mod.rs"]
mod namespace;

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use datapath::port::esp_device::{Attached, Inlet, Queue};
use datapath::port::{LocalPort, RxRoad};
use datapath::slab::Slab;
use datapath::sys;
use datapath::txq::TxQueue;
use datapath::vnet::VnetHdr;
use datapath::wire::ipv4;
use etherparse::{IpNumber, PacketBuilder};
use namespace::{in_namespace, sh, veth, wait_for};

const SPI: u32 = 0x1122_3344;
const OURS: [u8; 4] = [10, 9, 0, 1];
const THEIRS: [u8; 4] = [10, 9, 0, 2];
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Packets that there is room for on a device with one queue.
const ROOM: u32 = 4096;
/// The longest frame that comes by the queue.
const LONGEST: usize = 2048 - 256;

/// One end of a wire has the inlet; we write to the other.
struct Wire {
    attached: Attached,
    _inlet: Inlet,
    udp: UdpSocket,
    far: LocalPort,
}

impl Wire {
    fn new() -> Wire {
        veth("u0", "w0");
        let mac = MAC.map(|byte| format!("{byte:02x}")).join(":");
        sh(&format!(
            "ip link set dev u0 mtu 3000 address {mac}; ip link set dev w0 mtu 3000; ip address add 10.9.0.1/24 dev u0"
        ));
        let udp = UdpSocket::bind("10.9.0.1:0").unwrap();
        udp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let inlet = Inlet::open(udp.local_addr().unwrap().port()).unwrap();
        inlet.take([(OURS.into(), SPI)].into()).unwrap();
        let mut attached = inlet.attach(sys::ifindex("u0").unwrap()).unwrap();
        attached.open_queues("u0").unwrap();
        assert_eq!(attached.queues().len(), 1);
        Wire { attached, _inlet: inlet, udp, far: LocalPort::packet("w0").unwrap() }
    }

    fn queue(&self) -> Arc<Queue> {
        self.attached.queues()[0].clone()
    }

    /// Sends frames, all of which the wire takes.
    fn send(&self, frames: impl Iterator<Item = Vec<u8>>) {
        let frames: Vec<_> = frames.collect();
        let (mut slab, mut queue) = (Slab::new(), TxQueue::new());
        for some in frames.chunks(32) {
            for frame in some {
                let piece = slab.alloc(frame.len()).unwrap();
                slab.get_mut(piece).copy_from_slice(frame);
                queue.push(VnetHdr::default(), &[piece]);
            }
            assert_eq!(self.far.tx(&slab, &queue).ok, some.len());
            queue.clear();
            slab.reset();
        }
    }

    /// What comes as UDP.
    fn datagram(&self) -> Vec<u8> {
        let mut bytes = vec![0; 4000];
        let (len, from) = self.udp.recv_from(&mut bytes).unwrap();
        assert_eq!((from.ip(), from.port()), (THEIRS.into(), 0));
        bytes.truncate(len);
        bytes
    }
}

/// ESP number `number`, in a frame of `len` bytes.
fn esp(spi: u32, number: u32, len: usize) -> Vec<u8> {
    let mut payload = vec![number as u8; len - 34];
    payload[..4].copy_from_slice(&spi.to_be_bytes());
    payload[4..8].copy_from_slice(&number.to_be_bytes());
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([4; 6], MAC).ipv4(THEIRS, OURS, 61);
    builder.write(&mut frame, IpNumber(50), &payload).unwrap();
    // expedited, and a congestion experienced
    frame[15] = 0xbb;
    ipv4::set_checksum(&mut frame[14..34]);
    frame
}

/// What has come to the queue, packet by packet, and in how many frames.
fn taken(queue: &Queue) -> (Vec<Vec<u8>>, usize) {
    let (mut slab, mut packets, mut all, mut frames) = (Slab::new(), Vec::new(), Vec::new(), 0);
    let mut reader = queue.reader();
    reader.exchange(&mut slab);
    loop {
        let received = reader.rx(&slab, &mut packets);
        for packet in &packets {
            assert_eq!((packet.road, packet.src_port, packet.tos), (RxRoad::Esp, 0, 0xbb));
            assert_eq!((packet.src, packet.dst), (THEIRS.into(), OURS.into()));
            all.push(slab.get(packet.data).to_vec());
        }
        reader.give_back();
        frames += received;
        if received == 0 {
            reader.exchange(&mut slab);
            return (all, frames);
        }
    }
}

/// Waits for that many frames.
fn await_frames(queue: &Queue, count: usize) -> Vec<Vec<u8>> {
    let (mut all, mut frames) = (Vec::new(), 0);
    wait_for("packets", || {
        let (packets, more) = taken(queue);
        all.extend(packets);
        frames += more;
        frames >= count
    });
    assert_eq!(frames, count);
    all
}

#[test]
fn packets_come_whole_and_in_order_for_ever() {
    in_namespace("packets_come_whole_and_in_order_for_ever", || {
        let mut wire = Wire::new();
        wire.attached.feed().unwrap();
        let queue = wire.queue();
        // each frame is used several times
        for first in (0..4 * ROOM).step_by(1000) {
            let len = |i: u32| 66 + 4 * (i as usize % 400);
            wire.send((first..first + 1000).map(|i| esp(SPI, i, len(i))));
            for (i, packet) in (first..).zip(await_frames(&queue, 1000)) {
                assert_eq!(packet, esp(SPI, i, len(i))[34..], "{i}");
            }
        }
        assert_eq!(queue.take_lost(), 0);
    });
}

#[test]
fn what_finds_no_room_is_counted() {
    in_namespace("what_finds_no_room_is_counted", || {
        let mut wire = Wire::new();
        wire.attached.feed().unwrap();
        let queue = wire.queue();
        wire.send((0..ROOM + 100).map(|i| esp(SPI, i, 98)));
        wait_for("the last", || queue.take_lost() == 100);
        assert_eq!(queue.take_lost(), 0);
        assert_eq!(await_frames(&queue, ROOM as usize).len(), ROOM as usize);
        // and then there is room again
        wire.send([esp(SPI, 1, 98)].into_iter());
        assert_eq!(await_frames(&queue, 1), [&esp(SPI, 1, 98)[34..]]);
    });
}

#[test]
fn only_what_fits_is_ours_and_whole_comes_there() {
    in_namespace("only_what_fits_is_ours_and_whole_comes_there", || {
        let mut wire = Wire::new();
        let queue = wire.queue();
        // nobody reads it yet
        wire.send([esp(SPI, 1, 98)].into_iter());
        assert_eq!(wire.datagram(), esp(SPI, 1, 98)[34..]);
        wire.attached.feed().unwrap();
        // as much as fits, from a length that ESP has
        let longest = LONGEST - (LONGEST - 34) % 4;
        wire.send([esp(SPI, 2, longest), esp(SPI, 3, longest + 4), esp(SPI + 1, 4, 98)].into_iter());
        assert_eq!(wire.datagram(), esp(SPI, 3, longest + 4)[34..]);
        assert_eq!(await_frames(&queue, 1), [&esp(SPI, 2, longest)[34..]]);
        // a header whose checksum is wrong says nothing that could be believed
        let mut wrong = esp(SPI, 5, 98);
        wrong[15] ^= 1;
        wire.send([wrong].into_iter());
        assert_eq!(await_frames(&queue, 1), [[0; 0]; 0]);
        assert_eq!((taken(&queue).1, queue.take_lost()), (0, 0));
    });
}

#[test]
fn a_device_that_goes_leaves_a_queue_that_is_silent() {
    in_namespace("a_device_that_goes_leaves_a_queue_that_is_silent", || {
        let mut wire = Wire::new();
        wire.attached.feed().unwrap();
        let queue = wire.queue();
        // each queue has one reader
        let again = wire.attached.open_queues("u0").unwrap_err();
        assert_eq!(again.raw_os_error(), Some(libc::EBUSY));
        assert_eq!(wire.attached.queues().len(), 1);
        wire.send([esp(SPI, 1, 98)].into_iter());
        sh("ip link set dev u0 down; ip link set dev u0 up");
        await_frames(&queue, 1);
        sh("ip link del dev u0");
        assert_eq!(taken(&queue).1, 0);
        let epoll = sys::epoll::Epoll::new().unwrap();
        epoll.add(&*queue, 1).unwrap();
        let mut events = [sys::epoll::Event::EMPTY; 1];
        assert_eq!(epoll.wait(&mut events, Some(Duration::ZERO)).unwrap(), 0, "a worker would never sleep");
        drop(wire);
        assert_eq!((taken(&queue).1, queue.take_lost()), (0, 0));
    });
}
