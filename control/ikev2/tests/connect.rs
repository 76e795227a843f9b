//! IKE_SA_INIT and IKE_AUTH between two endpoints.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests too

mod pair;

use pair::*;

#[test]
fn regular() {
    let mut pair = Pair::up();
    assert_eq!(pair.lost, 0);
    assert_eq!(pair.hosts[A].complaints(), [""; 0]);
    assert_eq!(pair.hosts[B].complaints(), [""; 0]);
    pair.traffic(1);
    assert_eq!(pair.hosts[A].status(pair.now).state, ikev2::PeerState::Up);
}

/// Both begin at once: of the two IKE SAs one remains, the one without the lowest of the four nonces.
#[test]
fn simultaneous_initiation() {
    for (nonces_a, nonces_b, winner) in [([0x00, 0x80], [0x40, 0x80], B), ([0x40, 0x80], [0x00, 0x80], A)] {
        let mut pair = Pair::new();
        pair.hosts[A].rng.nonces(&nonces_a);
        pair.hosts[B].rng.nonces(&nonces_b);
        for host in [A, B] {
            pair.configure(host, config(ADDRESSES[host], ADDRESSES[1 - host]));
        }
        pair.run();
        pair.pass(std::time::Duration::from_secs(60));
        pair.assert_converged();
        assert!(pair.hosts[winner].status(pair.now).ike[0].initiator);
    }
}

#[test]
fn wrong_psk_is_told_on_both_sides() {
    let mut pair = Pair::new();
    pair.configure(B, config(ADDRESSES[B], ADDRESSES[A]));
    pair.wire.clear();
    let wrong = psk("thisisabetterpsk");
    let wrong = ikev2::PeerConfig {
        credential: ikev2::auth::Credential::Psk(wrong.clone()),
        trust: ikev2::auth::Trust::Psk(wrong),
        ..config(ADDRESSES[A], ADDRESSES[B])
    };
    pair.configure(A, wrong);
    pair.run();
    assert_eq!(
        pair.hosts[B].complaints(),
        ["10.9.0.1 (10.9.0.1): PSK does not match: check options:psk on both hosts"]
    );
    let [told] = &pair.hosts[A].complaints()[..] else { panic!("{:?}", pair.hosts[A].complaints()) };
    assert!(told.contains("10.9.0.2 refuses our proof of identity (AUTHENTICATION_FAILED)"), "{told}");
    assert!(pair.hosts.iter().all(|host| host.installed.is_empty()));
}

/// Somebody on the path, without the key, sends A's messages back to it from B's address.
#[test]
fn nobody_meets_himself() {
    let mut pair = Pair::new();
    pair.configure(A, config(ADDRESSES[A], ADDRESSES[B]));
    let mut sent = 0;
    while let Some(message) = pair.wire.pop_front() {
        sent += 1;
        assert!(sent < 100, "A talks to itself");
        // B's address, and the port that the message went to
        let turned = |ip: std::net::SocketAddr, port: u16| std::net::SocketAddr::new(ip.ip(), port);
        let path = ikev2::Path {
            local: turned(message.path.local, message.path.remote.port()),
            remote: turned(message.path.remote, message.path.local.port()),
        };
        pair.with(A, |endpoint, now| endpoint.receive(now, UNIX_NOW, path, &message.datagram));
    }
    assert!(pair.hosts[A].installed.is_empty());
    assert_eq!(pair.hosts[A].status(pair.now).state, ikev2::PeerState::Connecting);
}
