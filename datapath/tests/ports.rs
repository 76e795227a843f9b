//! Ports against a real kernel: veth pairs, TAPs and raw sockets in network namespaces that each test makes for itself.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail as tests do")]

#[path = "namespace/mod.rs"]
mod namespace;

use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use datapath::port::{LocalPort, Sent};
use datapath::slab::{SLOTS, Slab};
use datapath::sys::epoll::{Epoll, Event};
use datapath::txq::TxQueue;
use datapath::vnet::{F_NEEDS_CSUM, GSO_TCPV4, VnetHdr};
use namespace::{Host, PATIENCE, drain, in_namespace, recv, send, sh, veth, wait_for};

/// An Ethernet frame between two made-up addresses.
fn frame(rest: &[u8]) -> Vec<u8> {
    [&b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01"[..], rest].concat()
}

/// Joins two ports until it is dropped; counts the superframes that pass.
struct Wire {
    stop: Arc<AtomicBool>,
    superframes: Arc<AtomicUsize>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Wire {
    fn join(a: LocalPort, b: LocalPort) -> Wire {
        let (stop, superframes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, count) = (stop.clone(), superframes.clone());
        let body = move || {
            let ports = [a, b];
            let epoll = Epoll::new().unwrap();
            epoll.add(&ports[0], 0).unwrap();
            epoll.add(&ports[1], 1).unwrap();
            let mut events = [Event::EMPTY; 2];
            let (mut slab, mut frames, mut queue) = (Slab::new(), Vec::new(), TxQueue::new());
            while !stopped.load(Relaxed) {
                let n = epoll.wait(&mut events, Some(Duration::from_millis(50))).unwrap();
                for event in &events[..n] {
                    let from = event.token() as usize;
                    ports[from].rx(&mut slab, SLOTS, &mut frames).unwrap();
                    for f in &frames {
                        count.fetch_add(usize::from(f.vnet.is_gso()), Relaxed);
                        // In two parts, as a frame with a new header would be.
                        let head = datapath::slab::Piece { len: 14, ..f.data };
                        queue.push(f.vnet, &[head, f.data.skip(14)]);
                    }
                    ports[1 - from].tx(&slab, &queue);
                    queue.clear();
                }
            }
        };
        Wire { stop, superframes, thread: Some(thread::spawn(body)) }
    }

    fn superframes(&self) -> usize {
        self.superframes.load(Relaxed)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(t) = self.thread.take() {
            let result = t.join();
            if !thread::panicking() {
                result.unwrap();
            }
        }
    }
}

/// 200 MB by TCP from `from` to 10.9.0.2 on `to`, and a UDP datagram that wants IP fragments.
fn tcp_between(from: Option<&Host>, to: &Host) {
    let mut server = to.command("exec iperf3 -s -1 -B 10.9.0.2 >&2").stderr(Stdio::null()).spawn().unwrap();
    let run = |command: &str| match from {
        Some(host) => host.command(command).status().unwrap(),
        None => Command::new("sh").args(["-ec", command]).status().unwrap(),
    };
    let listening = || to.command("ss -Hltn 'sport = 5201' | grep -q .").status().unwrap().success();
    wait_for("iperf3", listening);
    let moved = run("timeout 60 iperf3 -c 10.9.0.2 -n 200M >/dev/null");
    let _ = server.kill();
    let _ = server.wait();
    assert!(moved.success(), "TCP did not get through");
    assert!(run("ping -q -c 1 -W 5 -s 4000 10.9.0.2 >/dev/null").success(), "fragments did not get through");
}

/// Two hosts with a veth each into this namespace, where a packet port ends it.
fn two_hosts(setup_here: &str) -> (Host, Host, Wire) {
    let (a, b) = (Host::new(), Host::new());
    for (host, name, address) in [(&a, "a", "10.9.0.1"), (&b, "b", "10.9.0.2")] {
        veth(name, &format!("{name}-far"));
        sh(&format!("ip link set dev {name}-far netns {}", host.pid()));
        host.sh(&format!("ip address add {address}/24 dev {name}-far; ip link set dev {name}-far up"));
    }
    sh(setup_here);
    let wire = Wire::join(LocalPort::packet("a").unwrap(), LocalPort::packet("b").unwrap());
    (a, b, wire)
}

#[test]
fn tcp_crosses_packet_ports_in_superframes() {
    in_namespace("tcp_crosses_packet_ports_in_superframes", || {
        let (a, b, wire) = two_hosts("true");
        tcp_between(Some(&a), &b);
        assert!(wire.superframes() > 200, "{} superframes", wire.superframes());
    });
}

/// The device that we send by has no offloads, so the kernel does what our virtio_net_hdr asks for in software: it cuts the
/// superframes and finishes checksums, and the receiver verifies them.
#[test]
fn the_kernel_makes_good_segments_of_our_superframes() {
    in_namespace("the_kernel_makes_good_segments_of_our_superframes", || {
        let (a, b, wire) = two_hosts("ethtool -K b tx off tso off gso off sg off >/dev/null");
        b.sh("ethtool -K b-far rx off gro off >/dev/null");
        tcp_between(Some(&a), &b);
        assert!(wire.superframes() > 200, "{} superframes", wire.superframes());
        b.sh("nstat -az TcpInCsumErrors | grep -E 'TcpInCsumErrors +0 '");
    });
}

#[test]
fn tcp_crosses_a_tap_in_superframes() {
    in_namespace("tcp_crosses_a_tap_in_superframes", || {
        let b = Host::new();
        veth("b", "b-far");
        sh(&format!("ip link set dev b-far netns {}", b.pid()));
        b.sh("ip address add 10.9.0.2/24 dev b-far; ip link set dev b-far up");
        let tap = LocalPort::tap("br0").unwrap();
        assert_ne!(tap.ifindex(), 0);
        sh("ip address add 10.9.0.1/24 dev br0; ip link set dev br0 up");
        let wire = Wire::join(tap, LocalPort::packet("b").unwrap());
        tcp_between(None, &b);
        assert!(wire.superframes() > 200, "{} superframes", wire.superframes());
    });
}

#[test]
fn a_vlan_tag_stays_in_the_frame() {
    in_namespace("a_vlan_tag_stays_in_the_frame", || {
        veth("a", "b");
        let (a, b) = (LocalPort::packet("a").unwrap(), LocalPort::packet("b").unwrap());
        for tag in [&b"\x81\0\x60\x05"[..], b"\x88\xa8\0\x07\x81\0\0\x08"] {
            let sent = frame(&[tag, b"\x88\xb5", &[7; 60]].concat());
            assert_eq!(send(&a, VnetHdr::default(), &[&sent[..14], &sent[14..]]).ok, 1);
            let (vnet, got) = recv(&b);
            assert_eq!(got, sent);
            assert_eq!(vnet.csum_start.get(), 0);
        }
    });
}

/// A TCP superframe with a tag: the offsets in the offload header count from the frame with its tag.
#[test]
fn a_tagged_superframe_keeps_its_offsets() {
    in_namespace("a_tagged_superframe_keeps_its_offsets", || {
        veth("a", "b");
        let (a, b) = (LocalPort::packet("a").unwrap(), LocalPort::packet("b").unwrap());
        let payload = vec![0x55; 20_000];
        let mut ip = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        ip[2..4].copy_from_slice(&(40 + payload.len() as u16).to_be_bytes());
        let tcp = [0, 1, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0];
        let sent = frame(&[&b"\x81\0\0\x05\x08\0"[..], &ip, &tcp, &payload].concat());
        let vnet = VnetHdr {
            flags: F_NEEDS_CSUM,
            gso_type: GSO_TCPV4,
            hdr_len: 58.into(),
            gso_size: 1400.into(),
            csum_start: 38.into(),
            csum_offset: 16.into(),
        };
        assert_eq!(send(&a, vnet, &[&sent]).ok, 1);
        let (got_vnet, got) = recv(&b);
        assert_eq!(got, sent);
        assert_eq!((got_vnet.gso_type, got_vnet.gso_size.get()), (GSO_TCPV4, 1400));
        assert_eq!((got_vnet.csum_start.get(), got_vnet.csum_offset.get()), (38, 16));
        assert!(got_vnet.needs_csum());
    });
}

#[test]
fn own_frames_never_come_back() {
    in_namespace("own_frames_never_come_back", || {
        veth("a", "b");
        let (a, other, b) = (
            LocalPort::packet("a").unwrap(),
            LocalPort::packet("a").unwrap(),
            LocalPort::packet("b").unwrap(),
        );
        let sent = frame(&[0x88, 0xb5, 1, 2, 3]);
        assert_eq!(send(&a, VnetHdr::default(), &[&sent]).ok, 1);
        assert_eq!(recv(&b).1, sent);
        assert!(drain(&a).is_empty());
        // Nor what another socket of this host sends through the device.
        assert!(drain(&other).is_empty());
    });
}

/// Offload headers that lie, empty and monstrous frames: each refused or sent, none stops the ones behind it.
#[test]
fn a_bad_frame_does_not_hold_up_the_next() {
    in_namespace("a_bad_frame_does_not_hold_up_the_next", || {
        veth("a", "b");
        let tap = LocalPort::tap("t").unwrap();
        sh("ip link set dev t up");
        let good = frame(&[0x88, 0xb5, 1, 2, 3]);
        let lie = VnetHdr {
            flags: F_NEEDS_CSUM,
            gso_type: GSO_TCPV4,
            hdr_len: 9999.into(),
            gso_size: 0.into(),
            csum_start: 60_000.into(),
            csum_offset: 60_000.into(),
        };
        let unknown = VnetHdr { gso_type: 0x77, ..VnetHdr::default() };
        // A TAP takes a frame of any length.
        for (port, taken) in [(LocalPort::packet("a").unwrap(), 2), (tap, 3)] {
            let (mut slab, mut queue) = (Slab::new(), TxQueue::new());
            let big = slab.alloc(200_000).unwrap();
            let small = slab.alloc(good.len()).unwrap();
            slab.get_mut(small).copy_from_slice(&good);
            queue.push(lie, &[small]);
            queue.push(VnetHdr::default(), &[small]);
            queue.push(unknown, &[small]);
            queue.push(VnetHdr::default(), &[big]);
            queue.push(VnetHdr::default(), &[]);
            queue.push(VnetHdr::default(), &[small]);
            let sent = Sent { ok: taken, full: 0, failed: 6 - taken };
            assert_eq!(port.tx(&slab, &queue), sent, "{port:?}");
        }
    });
}

/// Waits until the port reports what the kernel found out about its device.
fn rx_error(port: &LocalPort) -> i32 {
    let (mut slab, mut frames, mut error) = (Slab::new(), Vec::new(), None);
    wait_for("an error", || {
        error = port.rx(&mut slab, SLOTS, &mut frames).err();
        error.is_some() || port.is_gone()
    });
    error.and_then(|e| e.raw_os_error()).unwrap_or(0)
}

#[test]
fn a_device_may_go_down_and_come_back_but_not_be_removed() {
    in_namespace("a_device_may_go_down_and_come_back_but_not_be_removed", || {
        veth("a", "b");
        let (a, b) = (LocalPort::packet("a").unwrap(), LocalPort::packet("b").unwrap());
        let sent = frame(&[0x88, 0xb5, 1, 2, 3]);
        sh("ip link set dev a down");
        assert!(drain(&a).is_empty());
        assert!(!a.is_gone());
        assert_eq!(send(&a, VnetHdr::default(), &[&sent]), Sent { failed: 1, ..Sent::default() });
        sh("ip link set dev a up");
        wait_for("the carrier", || {
            send(&b, VnetHdr::default(), &[&sent]);
            drain(&a).iter().any(|f| f.1 == sent)
        });
        assert_eq!(send(&a, VnetHdr::default(), &[&sent]).ok, 1);
        sh("ip link del dev a");
        rx_error(&a);
        rx_error(&b);
        assert!(a.is_gone() && b.is_gone());
        assert_eq!(send(&a, VnetHdr::default(), &[&sent]), Sent { failed: 1, ..Sent::default() });
    });
}

#[test]
fn a_tap_may_go_down_and_be_removed() {
    in_namespace("a_tap_may_go_down_and_be_removed", || {
        let tap = LocalPort::tap("t").unwrap();
        let sent = frame(&[0x88, 0xb5, 1, 2, 3]);
        assert_eq!(send(&tap, VnetHdr::default(), &[&sent]), Sent { failed: 1, ..Sent::default() });
        assert!(drain(&tap).is_empty());
        sh("ip link set dev t up");
        assert_eq!(send(&tap, VnetHdr::default(), &[&sent]).ok, 1);
        assert!(!tap.is_gone());
        let epoll = Epoll::new().unwrap();
        epoll.add(tap.as_fd(), 1).unwrap();
        drain(&tap);
        sh("ip link del dev t");
        let mut events = [Event::EMPTY; 2];
        assert_eq!(epoll.wait(&mut events, Some(PATIENCE)).unwrap(), 1);
        assert_ne!(rx_error(&tap), 0);
        assert!(tap.is_gone());
    });
}

#[test]
fn opening_says_what_is_wrong() {
    in_namespace("opening_says_what_is_wrong", || {
        let errno = |r: std::io::Result<LocalPort>| r.unwrap_err().raw_os_error();
        assert_eq!(errno(LocalPort::packet("nosuch")), Some(libc::ENODEV));
        assert_eq!(errno(LocalPort::packet("nul\0inside")), None);
        assert_eq!(errno(LocalPort::packet("lo")), None);
        for name in ["", "a-name-of-sixteen", "t%d"] {
            assert_eq!(errno(LocalPort::tap(name)), Some(libc::EINVAL), "{name:?}");
        }
        veth("a", "b");
        assert_eq!(errno(LocalPort::tap("a")), Some(libc::EINVAL));
        let _first = LocalPort::tap("t").unwrap();
        assert_eq!(errno(LocalPort::tap("t")), Some(libc::EBUSY));
    });
}

/// Frames that find the socket's buffer full are counted, not forgotten.
#[test]
fn frames_lost_in_the_socket_are_counted() {
    in_namespace("frames_lost_in_the_socket_are_counted", || {
        veth("a", "b");
        let (a, b) = (LocalPort::packet("a").unwrap(), LocalPort::packet("b").unwrap());
        let (mut slab, mut queue) = (Slab::new(), TxQueue::new());
        let piece = slab.alloc(1000).unwrap();
        slab.get_mut(piece).copy_from_slice(&frame(&[0x88, 0xb5].repeat(494)));
        for _ in 0..100 {
            queue.push(VnetHdr::default(), &[piece]);
        }
        let mut sent = 0;
        while b.lost() == 0 {
            sent += a.tx(&slab, &queue).ok;
            assert!(sent < 10_000_000);
        }
        assert_eq!(drain(&b).len() as u64 + b.lost(), sent as u64);
    });
}
