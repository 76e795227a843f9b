//! What comes to the ESP port and is no ESP, or none that anybody can open: through a running datapath.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail as tests do")]

#[path = "namespace/mod.rs"]
mod namespace;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use datapath::counters::DropReason;
use datapath::handle::{Datapath, Punt};
use datapath::port::Underlay;
use datapath::snapshot::{BridgeId, Port, PortId, PortKind, Snapshot};
use datapath::sys::epoll::{Epoll, Event};
use datapath::tunnel::{Tunnel, TunnelConfig};
use namespace::{PATIENCE, in_namespace, wait_for};

const HERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4500);
/// The far end of a tunnel, and somebody else.
const PEER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// A datapath with one tunnel to `PEER` and the ESP port.
fn datapath() -> Datapath {
    let tunnel = Tunnel::new(TunnelConfig::to(PEER.into()), None, 1500);
    let port = Port::new(PortId(0), BridgeId(0), 1, "gre0", PortKind::Tunnel(Arc::new(tunnel)));
    let datapath = Datapath::start(2).unwrap();
    let generation = datapath.publish(Snapshot {
        ports: vec![Some(Arc::new(port))],
        underlays: vec![Arc::new(Underlay::udp4(HERE.port()).unwrap())],
        ..Snapshot::default()
    });
    assert!(datapath.wait_applied(generation, PATIENCE));
    datapath
}

fn host(address: Ipv4Addr) -> UdpSocket {
    let socket = UdpSocket::bind((address, 0)).unwrap();
    socket.connect(HERE).unwrap();
    socket
}

fn ike(first: u8, len: usize) -> Vec<u8> {
    [&[0; 4][..], &[first], &vec![7; len - 1]].concat()
}

fn dropped(datapath: &Datapath, why: DropReason) -> u64 {
    datapath.drops().into_iter().find(|(reason, _)| *reason == why).unwrap().1
}

#[test]
fn each_kind_goes_its_way() {
    in_namespace("each_kind_goes_its_way", || {
        let datapath = datapath();
        let epoll = Epoll::new().unwrap();
        epoll.add(datapath.event_fd(), 0).unwrap();
        let (peer, stranger) = (host(PEER), host(STRANGER));
        let unopened = |spi: u32| [&spi.to_be_bytes()[..], &[0; 40]].concat();
        for socket in [&stranger, &peer] {
            for datagram in [vec![0xff], vec![], vec![0xff; 3], vec![1; 8], vec![0; 20], unopened(0xabcd)] {
                socket.send(&datagram).unwrap();
            }
        }
        // told once, however often it comes
        (0..9).for_each(|_| _ = peer.send(&unopened(0xabcd)).unwrap());
        stranger.send(&ike(1, 28)).unwrap();
        peer.send(&ike(2, 3000)).unwrap();
        wait_for("both", || dropped(&datapath, DropReason::EspNoSa) == 11);
        assert_eq!(epoll.wait(&mut [Event::EMPTY], Some(PATIENCE)).unwrap(), 1);
        let mut punted = Vec::new();
        wait_for("what control is told", || {
            // events first: taking one kind must not hide that there is another
            assert_eq!(datapath.events(), []);
            punted.extend(datapath.punted());
            punted.len() >= 3
        });
        let message = |from: &UdpSocket, bytes: Vec<u8>| Punt::Ike {
            local: HERE.ip(),
            remote: from.local_addr().unwrap(),
            bytes: bytes[4..].to_vec(),
        };
        let told = Punt::UnknownSpi { remote: PEER.into(), spi: 0xabcd };
        assert_eq!(punted, [told, message(&stranger, ike(1, 28)), message(&peer, ike(2, 3000))]);
        assert_eq!(dropped(&datapath, DropReason::Malformed), 2 * 4);
        assert_eq!(epoll.wait(&mut [Event::EMPTY], Some(std::time::Duration::ZERO)).unwrap(), 0);
        datapath.stop();
    });
}

/// Nobody takes them, and more and more come: what waits stays bounded, and a peer still gets a word in.
#[test]
fn a_flood_of_ike_is_bounded() {
    in_namespace("a_flood_of_ike_is_bounded", || {
        let datapath = datapath();
        let (peer, stranger) = (host(PEER), host(STRANGER));
        let mut sent = 0;
        while sent < 20_000 {
            for _ in 0..100 {
                stranger.send(&ike(1, 200)).unwrap();
            }
            sent += 100;
            wait_for("the worker", || dropped(&datapath, DropReason::IkeFull) + 64 >= sent);
        }
        peer.send(&ike(2, 200)).unwrap();
        let mut punted = Vec::new();
        wait_for("the peer's message", || {
            punted.extend(datapath.punted());
            punted.iter().any(|p| matches!(p, Punt::Ike { bytes, .. } if bytes[0] == 2))
        });
        assert_eq!(punted.len(), 64 + 1);
        assert_eq!(dropped(&datapath, DropReason::IkeFull), sent - 64);
        datapath.stop();
    });
}
