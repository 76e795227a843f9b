//! New child SAs in an IKE SA that stands.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests too

mod pair;

use std::time::Duration;

use ikev2::wire::notify;
use pair::*;

/// A has lost its child SA and is about to ask for another.
fn bare() -> Pair {
    let mut pair = Pair::up();
    for host in [A, B] {
        let mut answering = config(ADDRESSES[host], ADDRESSES[1 - host]);
        answering.initiate = false;
        pair.configure(host, answering);
        pair.lose_child(host);
    }
    // Both asked for signs of life, and what the other answers to the forgery will do
    pair.run();
    assert!(pair.hosts.iter().all(|host| !host.is_up() && host.installed.is_empty()));
    pair
}

fn create(pair: &mut Pair, host: usize) {
    pair.with(host, |endpoint, now| endpoint.initiate(now, PEER));
}

#[test]
fn regular() {
    for host in [A, B] {
        let mut pair = bare();
        let ike = pair.ike(A);
        create(&mut pair, host);
        pair.run();
        pair.assert_converged();
        assert_eq!(pair.ike(A), ike);
    }
}

/// Both ask at once: one child SA remains, by the rule of rekeying.
#[test]
fn collision() {
    for (nonces, winner) in [([0x00, 0xff], B), ([0xff, 0x00], A)] {
        let mut pair = bare();
        pair.hosts[A].rng.nonces(&[nonces[0], 0xff]);
        pair.hosts[B].rng.nonces(&[nonces[1], 0xff]);
        create(&mut pair, A);
        create(&mut pair, B);
        pair.step_from(A);
        pair.step_from(B);
        pair.run();
        pair.pass(Duration::from_secs(120));
        pair.assert_converged();
        assert_eq!((pair.installs(winner), pair.installs(1 - winner)), (3, 2));
    }
}

/// B's request arrives when A has the answer to its own, and rekeys what that brought: A sees no collision, and B, who does,
/// lets go of the wrong one. One child SA remains all the same.
#[test]
fn collision_seen_by_one_end_alone() {
    for (nonces, rekeyed) in [([0x20, 0xf0], true), ([0xf0, 0x20], true), ([0x20, 0xf0], false)] {
        let mut pair = bare();
        pair.hosts[A].rng.nonces(&[nonces[0], 0xff]);
        pair.hosts[B].rng.nonces(&[nonces[1], 0xff]);
        pair.lost = 0;
        create(&mut pair, A);
        create(&mut pair, B);
        let late = pair.take_from(B);
        pair.run();
        if rekeyed {
            pair.rekey_child(A);
            pair.run();
        }
        pair.deliver(late);
        pair.run();
        assert!(pair.hosts.iter().all(|host| host.sending().is_some()));
        pair.pass(Duration::from_secs(300));
        pair.assert_converged();
        assert_eq!(pair.lost, 0);
    }
}

/// A asks for a child SA, B rekeys the IKE SA: both are put off, and A asks again.
#[test]
fn collision_ike_rekey() {
    let mut pair = bare();
    let ike = pair.ike(A);
    create(&mut pair, A);
    pair.rekey_ike(B);
    pair.step_from(A);
    pair.step_from(B);
    for host in [A, B] {
        let answer = pair.take_from(host);
        assert!(notifies(&pair.open(&answer), notify::TEMPORARY_FAILURE));
        pair.deliver(answer);
    }
    pair.pass(Duration::from_secs(10));
    create(&mut pair, A);
    pair.pass(Duration::from_secs(60));
    pair.assert_converged();
    assert_ne!(pair.ike(A), ike);
}

/// A asks for a child SA, B deletes the IKE SA.
#[test]
fn collision_ike_delete() {
    let mut pair = bare();
    create(&mut pair, A);
    pair.with(B, |endpoint, now| endpoint.remove(now, PEER));
    pair.step_from(A);
    pair.step_from(B);
    pair.run();
    assert!(pair.hosts.iter().all(|host| host.installed.is_empty()));
    pair.pass(Duration::from_secs(60));
    assert!(pair.hosts[A].status(pair.now).ike.is_empty());
}
