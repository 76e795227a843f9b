//! Child and IKE SAs are deleted, by one side or by both.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests too

mod pair;

use std::time::Duration;

use ikev2::IkeState;
use ikev2::wire::{Payload, notify};
use pair::*;

#[test]
fn child_regular() {
    let mut pair = Pair::up();
    let (own, peers) = pair.spis(A);
    let request = pair.ask(B);
    let request = pair.substitute(&request, &[delete(&[peers])]);
    pair.deliver(request);
    assert!(!pair.hosts[A].is_up() && pair.hosts[A].installed.is_empty());
    let answer = pair.take_from(A);
    assert_eq!(pair.open(&answer), [delete(&[own])]);
}

#[test]
fn child_unknown() {
    let mut pair = Pair::up();
    let request = pair.ask(B);
    let request = pair.substitute(&request, &[delete(&[0xdead_beef, 1, 2, 3])]);
    pair.deliver(request);
    let answer = pair.take_from(A);
    assert_eq!(pair.open(&answer), []);
    pair.deliver(answer);
    pair.assert_settled();
}

#[test]
fn ike_regular() {
    for host in [A, B] {
        let mut pair = Pair::up();
        pair.with(host, |endpoint, now| endpoint.remove(now, PEER));
        assert!(pair.hosts[host].installed.is_empty(), "at once, whether the peer answers or not");
        assert!(pair.hosts[host].endpoint.status(pair.now).is_empty());
        pair.step();
        assert!(pair.hosts[1 - host].installed.is_empty());
        pair.step();
        assert!(pair.hosts[host].endpoint.secrets().is_empty());
        assert_eq!(pair.hosts[host].complaints(), ["the tunnel was removed"]);
        assert_eq!(pair.hosts[1 - host].complaints(), ["the peer has deleted the IKE SA"]);
    }
}

/// Both delete it at once: each grants the other's request and is done (RFC 7296 2.25.2).
#[test]
fn ike_collision() {
    let mut pair = Pair::up();
    for host in [A, B] {
        pair.with(host, |endpoint, now| endpoint.remove(now, PEER));
    }
    pair.run();
    pair.pass(Duration::from_secs(60));
    for host in &pair.hosts {
        assert!(host.endpoint.secrets().is_empty());
        assert_eq!(host.endpoint.timeout(), None, "nothing is left");
    }
}

/// The answer is lost: the one who deletes asks again, and is answered although the SA is gone.
#[test]
fn ike_lost_answer() {
    let mut pair = Pair::up();
    pair.with(A, |endpoint, now| endpoint.remove(now, PEER));
    pair.step();
    pair.wire.clear();
    pair.configure(B, ikev2::PeerConfig { initiate: false, ..config(ADDRESSES[B], ADDRESSES[A]) });
    pair.pass(Duration::from_secs(1));
    assert!(pair.hosts[A].endpoint.secrets().is_empty());
}

#[test]
fn shutdown_tells_everybody_even_while_a_request_is_under_way() {
    for answered in [false, true] {
        let mut pair = Pair::up();
        pair.configure(B, ikev2::PeerConfig { initiate: false, ..config(ADDRESSES[B], ADDRESSES[A]) });
        pair.rekey_child(A);
        let request = pair.take();
        if answered {
            pair.deliver(request);
            pair.wire.clear();
        }
        pair.with(A, |endpoint, now| endpoint.shutdown(now));
        assert!(pair.hosts[A].installed.is_empty() && !pair.hosts[A].is_up());
        assert_eq!(pair.hosts[A].endpoint.timeout(), None);
        pair.run();
        assert!(pair.hosts[B].installed.is_empty(), "answered: {answered}");
    }
}

/// The same configuration again does nothing; one with another key makes everything anew.
#[test]
fn configuration_changes() {
    let mut pair = Pair::up();
    let ike = pair.ike(A);
    pair.configure(A, config(ADDRESSES[A], ADDRESSES[B]));
    pair.configure(
        A,
        ikev2::PeerConfig {
            name: "gre7".to_owned(),
            liveness: Duration::from_secs(7),
            ..config(ADDRESSES[A], ADDRESSES[B])
        },
    );
    assert!(pair.wire.is_empty());
    assert_eq!(pair.ike(A), ike);
    assert_eq!(pair.hosts[A].status(pair.now).name, "gre7");
    for host in [A, B] {
        let other = psk("other");
        pair.configure(
            host,
            ikev2::PeerConfig {
                credential: ikev2::auth::Credential::Psk(other.clone()),
                trust: ikev2::auth::Trust::Psk(other),
                ..config(ADDRESSES[host], ADDRESSES[1 - host])
            },
        );
    }
    pair.run();
    pair.pass(Duration::from_secs(120));
    pair.assert_converged();
    assert_ne!(pair.ike(A), ike);
}

/// Removed and added again while the old IKE SA is being deleted.
#[test]
fn removed_and_back_again() {
    let mut pair = Pair::up();
    let ike = pair.ike(A);
    pair.with(A, |endpoint, now| endpoint.remove(now, PEER));
    pair.configure(A, config(ADDRESSES[A], ADDRESSES[B]));
    pair.run();
    pair.pass(Duration::from_secs(120));
    pair.assert_converged();
    assert_ne!(pair.ike(A), ike);
}

/// A peer that has lost our child SA says so, authenticated.
#[test]
fn invalid_spi() {
    let mut pair = Pair::up();
    let (_, peers) = pair.spis(A);
    let request = pair.ask(B);
    let lost = ikev2::wire::Notify::new(notify::INVALID_SPI, peers.to_be_bytes());
    let request = pair.substitute(&request, &[Payload::Notify(lost)]);
    pair.deliver(request);
    pair.run();
    pair.pass(Duration::from_secs(120));
    pair.assert_converged();
    assert_ne!(pair.spis(A).1, peers);
    assert_eq!(pair.hosts[A].status(pair.now).ike[0].state, IkeState::Established);
}
