//! IKE SAs are rekeyed, and the child SAs move to the new one, whatever crosses on the way. The scenarios have the names
//! that strongSwan's tests have.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests too

mod pair;

use std::time::Duration;

use ikev2::IkeState;
use ikev2::proposal::Group;
use ikev2::wire::notify;
use pair::*;

fn states(pair: &Pair, host: usize) -> Vec<IkeState> {
    pair.hosts[host].status(pair.now).ike.iter().map(|ike| ike.state).collect()
}

#[test]
fn regular() {
    for host in [A, B] {
        let mut pair = Pair::up();
        let (old, spis) = (pair.ike(A), pair.spis(A));
        pair.rekey_ike(host);
        assert_eq!(states(&pair, host), [IkeState::Rekeying]);
        pair.step();
        assert_eq!(states(&pair, 1 - host), [IkeState::Rekeyed, IkeState::Established]);
        pair.step();
        assert_eq!(states(&pair, host), [IkeState::Deleting, IkeState::Established]);
        pair.run();
        pair.assert_settled();
        assert_ne!(pair.ike(A), old);
        assert_eq!(pair.spis(A), spis, "the child SA is the same");
        // The child SA can be rekeyed in the new one, from either side
        for host in [A, B] {
            pair.rekey_child(host);
            pair.assert_settled();
        }
        // So can the new one itself
        pair.rekey_ike(1 - host);
        pair.assert_settled();
    }
}

#[test]
fn regular_ke_invalid() {
    let mut pair = other_groups();
    let old = pair.ike(A);
    assert_eq!(pair.hosts[A].status(pair.now).ike[0].suite.unwrap().group, Group::Ecp256);
    pair.rekey_ike(A);
    pair.assert_settled();
    assert_ne!(pair.ike(A), old);
    // From the other side: A prefers what B does not begin with
    pair.rekey_ike(B);
    pair.step();
    let refused = pair.take_from(A);
    assert!(notifies(&pair.open(&refused), notify::INVALID_KE_PAYLOAD));
    pair.deliver(refused);
    pair.assert_settled();
    assert_eq!(pair.hosts[A].status(pair.now).ike[0].suite.unwrap().group, Group::Curve25519);
}

/// Each prefers a group that the other does not begin with.
fn other_groups() -> Pair {
    let mut pair = Pair::new();
    let mut b = config(ADDRESSES[B], ADDRESSES[A]);
    b.ike.groups = vec![Group::Ecp256, Group::Curve25519];
    b.initiate = false;
    pair.configure(B, b);
    let mut a = config(ADDRESSES[A], ADDRESSES[B]);
    a.ike.groups = vec![Group::Curve25519, Group::Ecp256];
    pair.configure(A, a);
    pair.run();
    pair
}

/// A peer that does not rekey IKE SAs: it is authenticated anew, make before break.
#[test]
fn regular_responder_refuses() {
    let mut pair = Pair::up();
    let (old, spis) = (pair.ike(A), pair.spis(A));
    pair.rekey_ike(A);
    pair.step();
    let answer = pair.take_from(B);
    let answer = pair.substitute(&answer, &[notification(notify::NO_ADDITIONAL_SAS)]);
    pair.deliver(answer);
    pair.run();
    // B, who thinks that all went well, sees by this that A has moved on
    pair.traffic(1);
    pair.assert_settled();
    assert_ne!((pair.ike(A), pair.spis(A)), (old, spis));
}

/// Nonces of A's request, B's request, B's answer, A's answer; and whose IKE SA remains.
const COLLISIONS: [([u8; 4], usize); 4] = [
    ([0x00, 0xff, 0xff, 0xff], B),
    ([0xff, 0x00, 0xff, 0xff], A),
    ([0xff, 0xff, 0x00, 0xff], B),
    ([0xff, 0xff, 0xff, 0x00], A),
];

fn collide([request_a, request_b, answer_b, answer_a]: [u8; 4]) -> Pair {
    let mut pair = Pair::up();
    pair.hosts[A].rng.nonces(&[request_a, answer_a]);
    pair.hosts[B].rng.nonces(&[request_b, answer_b]);
    pair.rekey_ike(A);
    pair.rekey_ike(B);
    pair
}

fn assert_winner(pair: &mut Pair, winner: usize) {
    pair.assert_settled();
    for host in [A, B] {
        let status = pair.hosts[host].status(pair.now);
        assert_eq!(status.ike[0].initiator, host == winner);
        assert_eq!(status.children.len(), 1);
        assert_eq!(pair.installs(host), 1, "the child SA moves");
    }
    pair.rekey_child(A);
    pair.assert_settled();
}

#[test]
fn collision() {
    for (nonces, winner) in COLLISIONS {
        let mut pair = collide(nonces);
        pair.step_from(A);
        pair.step_from(B);
        pair.run();
        assert_winner(&mut pair, winner);
    }
}

#[test]
fn collision_ke_invalid() {
    for (nonces, winner) in COLLISIONS {
        let mut pair = other_groups();
        // A began with its own group and was sent back; B begins with what was agreed upon, which A likes less
        let [request_a, request_b, answer_b, answer_a] = nonces;
        pair.hosts[A].rng.nonces(&[request_a, answer_a]);
        pair.hosts[B].rng.nonces(&[0xff, request_b, answer_b]);
        pair.rekey_ike(B);
        pair.step_from(B);
        pair.step_from(A);
        pair.rekey_ike(A);
        pair.step_from(A);
        pair.step_from(B);
        pair.run();
        assert_winner(&mut pair, winner);
    }
}

#[test]
fn collision_ke_invalid_delayed_retry() {
    let mut pair = other_groups();
    pair.rekey_ike(B);
    pair.step_from(B);
    pair.step_from(A);
    let delayed = pair.take_from(B);
    pair.rekey_ike(A);
    pair.step_from(A);
    pair.step_from(B);
    // A deletes the old one, which B grants; B's second request comes too late
    pair.step_from(A);
    pair.deliver(delayed);
    pair.run();
    pair.assert_settled();
}

#[test]
fn collision_delayed_response() {
    for (nonces, winner) in COLLISIONS {
        let mut pair = collide(nonces);
        pair.step_from(A);
        pair.step_from(B);
        let delayed = pair.take_from(B);
        assert!(delayed.is_response());
        pair.run();
        pair.deliver(delayed);
        pair.run();
        if winner == A { assert_winner(&mut pair, A) } else { pair.assert_settled() }
    }
}

/// B never sees A's request. It goes on with its own and deletes the IKE SA while A still waits.
#[test]
fn collision_dropped_request() {
    let mut pair = collide([0xff; 4]);
    pair.drop_from(A);
    pair.step_from(B);
    pair.step_from(A);
    pair.run();
    assert_winner(&mut pair, B);
}

/// A's request comes when B has rekeyed: B is deleting the old IKE SA.
#[test]
fn collision_delayed_request() {
    let mut pair = collide([0xff; 4]);
    let delayed = pair.take_from(A);
    pair.step_from(B);
    pair.step_from(A);
    pair.deliver(delayed);
    let deleting = pair.take_from(B);
    let answer = pair.take_from(B);
    assert!(notifies(&pair.open(&answer), notify::TEMPORARY_FAILURE));
    pair.deliver(answer);
    pair.deliver(deleting);
    pair.run();
    assert_winner(&mut pair, B);
}

/// A's request comes when the old IKE SA is no more.
#[test]
fn collision_delayed_request_and_delete() {
    let mut pair = collide([0xff; 4]);
    let delayed = pair.take_from(A);
    pair.step_from(B);
    pair.step_from(A);
    pair.run();
    pair.deliver(delayed);
    pair.run();
    assert_winner(&mut pair, B);
}

/// IKE SA and child SA are rekeyed by both at once.
#[test]
fn collision_mixed() {
    for first in [A, B] {
        let mut pair = Pair::up();
        let (ike, child) = (pair.ike(A), pair.spis(A));
        pair.rekey_ike(first);
        pair.rekey_child(first);
        pair.rekey_child(1 - first);
        pair.rekey_ike(1 - first);
        pair.assert_settled();
        assert_ne!(pair.ike(A), ike);
        assert_ne!(pair.spis(A), child);
    }
}

/// A rekeys the IKE SA, B deletes it.
#[test]
fn collision_delete() {
    let mut pair = Pair::up();
    pair.rekey_ike(A);
    pair.with(B, |endpoint, now| endpoint.remove(now, PEER));
    pair.step_from(A);
    pair.step_from(B);
    pair.run();
    assert!(pair.hosts.iter().all(|host| host.installed.is_empty() && !host.is_up()));
    assert_eq!(pair.hosts[A].complaints(), ["the peer has deleted the IKE SA"]);
    pair.pass(Duration::from_secs(60));
    assert!(states(&pair, A).iter().all(|state| *state == IkeState::Connecting));
}

/// The request to delete gets lost; the one to rekey is refused first.
#[test]
fn collision_delete_drop_delete() {
    let mut pair = Pair::up();
    pair.rekey_ike(A);
    pair.with(B, |endpoint, now| endpoint.remove(now, PEER));
    pair.drop_from(B);
    pair.step_from(A);
    let answer = pair.take_from(B);
    assert!(notifies(&pair.open(&answer), notify::TEMPORARY_FAILURE));
    pair.deliver(answer);
    assert!(pair.hosts[A].is_up());
    pair.pass(Duration::from_secs(5));
    assert!(pair.hosts.iter().all(|host| host.installed.is_empty() && !host.is_up()));
}

/// A message of the old IKE SA that comes once more makes no difference.
#[test]
fn replayed_messages_are_answered_alike_and_do_nothing() {
    let mut pair = Pair::up();
    pair.rekey_ike(A);
    let request = pair.take();
    pair.deliver(request.clone());
    let answer = pair.take();
    pair.deliver(request.clone());
    let again = pair.take();
    assert_eq!(answer.datagram, again.datagram, "byte for byte (RFC 7296 2.1)");
    pair.deliver(answer.clone());
    pair.deliver(again);
    pair.run();
    let ike = pair.ike(A);
    pair.deliver(request);
    pair.deliver(answer);
    pair.run();
    assert_eq!(pair.ike(A), ike);
    pair.assert_settled();
}
