//! NATs, ESP in UDP, and how two Underpasses agree on it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests too

mod pair;
mod puppet;

use std::net::SocketAddr;
use std::time::Duration;

use ikev2::{Encapsulation, Event, PeerConfig, UdpPorts};
use pair::*;

fn connected(encapsulation: [Encapsulation; 2]) -> Pair {
    let mut pair = Pair::new();
    for host in [B, A] {
        let config = PeerConfig {
            encapsulation: encapsulation[host],
            initiate: host == A,
            ..config(ADDRESSES[host], ADDRESSES[1 - host])
        };
        pair.configure(host, config);
    }
    pair.run();
    pair.pass(Duration::from_secs(1));
    pair.assert_converged();
    pair
}

#[test]
fn two_of_us_take_udp_unless_one_insists_on_protocol_50() {
    use Encapsulation::*;
    let udp = Some(UdpPorts { local: 4500, remote: 4500 });
    let cases = [
        ([Auto, Auto], udp),
        ([Auto, Udp], udp),
        ([Udp, Auto], udp),
        ([Udp, Udp], udp),
        ([Esp, Auto], None),
        ([Auto, Esp], None),
        ([Esp, Udp], None),
        ([Udp, Esp], None),
        ([Esp, Esp], None),
    ];
    for (encapsulation, ports) in cases {
        let pair = connected(encapsulation);
        for host in &pair.hosts {
            assert_eq!(host.sending().unwrap().udp, ports, "{encapsulation:?}");
            let port = host.status(pair.now).ike[0].path.remote.port();
            assert_eq!(port, if ports.is_some() { 4500 } else { 500 }, "{encapsulation:?}");
            assert!(host.keepalives.is_empty());
        }
    }
}

/// A stands behind a NAT: B knows it by the NAT's address.
fn behind_nat() -> Pair {
    let mut pair = Pair::new();
    pair.nat = Some("192.0.2.1:61000".parse().unwrap());
    let answering = PeerConfig { initiate: false, ..config(ADDRESSES[B], "192.0.2.1") };
    pair.configure(B, answering);
    pair.configure(A, config(ADDRESSES[A], ADDRESSES[B]));
    pair.run();
    pair
}

#[test]
fn initiator_behind_a_nat() {
    let mut pair = behind_nat();
    pair.assert_up_behind_nat(61001);
    let [a, b] = [A, B].map(|host| pair.hosts[host].status(pair.now));
    assert!(a.ike[0].nat_local);
    assert!(b.ike[0].nat_remote && !b.ike[0].nat_local);
    // Rekeying goes both ways
    for host in [A, B] {
        pair.rekey_child(host);
        pair.run();
        pair.rekey_ike(host);
        pair.run();
    }
    pair.pass(Duration::from_secs(120));
    pair.assert_up_behind_nat(61001);
    assert_eq!(pair.lost, 0);
}

/// strongSwan answers with selectors of the addresses that it sees (RFC 7296 2.23.1): ours is the NAT's to it, its own
/// a private one to us if it stands behind another.
#[test]
fn the_peer_may_write_the_addresses_that_it_sees() {
    use ikev2::wire::Payload;
    for (ours, its, fits) in [
        ("192.0.2.1", "10.9.0.2", true),
        ("10.9.0.1", "192.168.0.7", true),
        ("192.0.2.1", "192.168.0.7", true),
        ("fd00::1", "10.9.0.2", false),
    ] {
        let mut host = puppet::Host::new(true);
        let (mut puppet, request) = puppet::Puppet::init_asked(&mut host);
        let (header, payloads) = puppet.open(&request);
        let mut payloads = puppet.auth_answer(&payloads);
        for payload in &mut payloads {
            let (ts, address) = match payload {
                Payload::TsI(ts) => (ts, ours),
                Payload::TsR(ts) => (ts, its),
                _ => continue,
            };
            ts[0].start = address.parse().unwrap();
            ts[0].end = ts[0].start;
        }
        let answer = puppet.answer(&header, &payloads);
        host.receive(puppet::path(4500), &answer);
        assert_eq!(host.installed().len(), usize::from(fits), "{ours} {its}: {:?}", host.events);
    }
}

#[test]
fn the_nat_is_kept_awake() {
    let mut pair = behind_nat();
    pair.pass(Duration::from_secs(61));
    let local: SocketAddr = "10.9.0.1:4500".parse().unwrap();
    assert_eq!(pair.hosts[A].keepalives.iter().map(|path| path.local).collect::<Vec<_>>(), [local; 3]);
    assert!(pair.hosts[B].keepalives.is_empty());
}

/// The NAT has restarted and maps A to another port: B follows as soon as an authentic message comes by it.
#[test]
fn the_nat_changes_its_mind() {
    let mut pair = behind_nat();
    pair.nat = Some("192.0.2.1:62000".parse().unwrap());
    pair.rekey_child(A);
    pair.run();
    pair.pass(Duration::from_secs(60));
    pair.assert_up_behind_nat(62001);
    let moved = pair.hosts[B].events.iter().filter(|event| matches!(event, Event::Moved(..))).count();
    assert_eq!(moved, 1);
}

/// What is not authentic, or has been seen before, moves nothing.
#[test]
fn nobody_else_moves_the_peer() {
    let mut pair = behind_nat();
    let request = pair.ask(A);
    pair.deliver(request.clone());
    pair.run();
    pair.nat = Some("192.0.2.1:63000".parse().unwrap());
    let mut forged = request.clone();
    *forged.datagram.last_mut().unwrap() ^= 1;
    pair.deliver(request);
    pair.deliver(forged);
    let [answer] = &pair.wire.make_contiguous()[..] else { panic!("the known request is answered, once") };
    assert_eq!(answer.path.remote, "192.0.2.1:63001".parse().unwrap(), "to where it came from");
    pair.wire.clear();
    pair.assert_up_behind_nat(61001);
}

/// A peer with MOBIKE sends IKE_AUTH from port 4500 though there is no NAT: IKE follows, ESP stays out of UDP.
#[test]
fn mobike_moves_to_port_4500_without_a_nat() {
    let mut pair = Pair::new();
    pair.configure(
        B,
        PeerConfig {
            initiate: false,
            encapsulation: Encapsulation::Esp,
            ..config(ADDRESSES[B], ADDRESSES[A])
        },
    );
    pair.configure(A, PeerConfig { encapsulation: Encapsulation::Esp, ..config(ADDRESSES[A], ADDRESSES[B]) });
    pair.step();
    pair.step();
    let mut auth = pair.take();
    auth.path.local.set_port(4500);
    auth.path.remote.set_port(4500);
    pair.deliver(auth);
    let answer = pair.wire[0].clone();
    assert_eq!((answer.path.local.port(), answer.path.remote.port()), (4500, 4500));
    pair.run();
    pair.assert_converged();
    assert_eq!(pair.hosts[B].sending().unwrap().udp, None);
    assert_eq!(pair.hosts[B].status(pair.now).ike[0].path.remote.port(), 4500);
}

impl Pair {
    fn assert_up_behind_nat(&self, port: u16) {
        let (a, b) = (self.hosts[A].sending().unwrap(), self.hosts[B].sending().unwrap());
        assert_eq!((a.outbound.spi, a.inbound.spi), (b.inbound.spi, b.outbound.spi));
        assert_eq!((a.local, a.remote), (self.hosts[A].address, self.hosts[B].address));
        assert_eq!((b.local, b.remote), (self.hosts[B].address, "192.0.2.1".parse().unwrap()));
        assert_eq!(a.udp, Some(UdpPorts { local: 4500, remote: 4500 }));
        assert_eq!(b.udp, Some(UdpPorts { local: 4500, remote: port }));
    }
}
