//! Child SAs are rekeyed without a lost packet, whoever begins and whatever crosses on the way. The scenarios have the
//! names that strongSwan's tests have.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests too

mod pair;

use std::time::Duration;

use ikev2::ChildState;
use ikev2::proposal::Group;
use ikev2::wire::{self, Exchange, Payload, notify};
use pair::*;

fn states(pair: &Pair, host: usize) -> Vec<ChildState> {
    pair.hosts[host].status(pair.now).children.iter().map(|child| child.state).collect()
}

#[test]
fn regular() {
    for host in [A, B] {
        let mut pair = Pair::up();
        let old = pair.spis(A);
        pair.rekey_child(host);
        assert_eq!(states(&pair, host), [ChildState::Rekeying]);
        pair.step();
        // The one who answers receives by the new SA and sends by the old one
        assert_eq!(states(&pair, 1 - host), [ChildState::Rekeyed, ChildState::Installed]);
        assert_eq!(pair.hosts[1 - host].installed.len(), 2);
        assert_eq!(pair.spis(1 - host), if host == A { (old.1, old.0) } else { old });
        pair.step();
        // The one who asked sends by the new one and deletes the old one
        assert_eq!(states(&pair, host), [ChildState::Deleting, ChildState::Installed]);
        assert_ne!(pair.spis(host), if host == A { old } else { (old.1, old.0) });
        pair.step();
        assert_eq!(states(&pair, 1 - host), [ChildState::Draining, ChildState::Installed]);
        assert_ne!(pair.spis(A), old);
        pair.step();
        assert_eq!(states(&pair, host), [ChildState::Draining, ChildState::Installed]);
        assert_eq!(pair.hosts[host].installed.len(), 2, "what is under way still arrives");
        assert!(pair.wire.is_empty());
        assert_eq!(pair.hosts[A].sending().unwrap().suite.group, Some(Group::Curve25519));
        pair.assert_settled();
    }
}

#[test]
fn regular_without_pfs() {
    let mut pair = Pair::up_with(|config| config.esp.groups = vec![None]);
    let old = pair.spis(A);
    pair.rekey_child(A);
    pair.assert_settled();
    assert_ne!(pair.spis(A), old);
    assert_eq!(pair.hosts[A].sending().unwrap().suite.group, None);
}

/// What stock strongSwan and Open vSwitch ask for in a rekey.
#[test]
fn regular_ke_invalid() {
    for host in [A, B] {
        let mut pair = Pair::new();
        let mut modp = config(ADDRESSES[B], ADDRESSES[A]);
        modp.esp.groups = vec![Some(Group::Modp2048)];
        modp.initiate = false;
        pair.configure(B, modp);
        pair.configure(A, config(ADDRESSES[A], ADDRESSES[B]));
        pair.run();
        let old = pair.spis(A);
        pair.rekey_child(host);
        pair.assert_settled();
        assert_ne!(pair.spis(A), old);
        assert_eq!(pair.hosts[A].sending().unwrap().suite.group, Some(Group::Modp2048));
        // The next time there is no detour
        pair.rekey_child(A);
        pair.step();
        pair.step();
        assert_eq!(pair.installs(A), 3);
    }
}

#[test]
fn the_new_sa_is_sent_by_once_traffic_comes_by_it() {
    let mut pair = Pair::up();
    let old = pair.spis(B);
    pair.rekey_child(A);
    pair.step();
    pair.step();
    assert_eq!(pair.spis(B), old, "the request to delete has not come");
    pair.traffic(1);
    assert_ne!(pair.spis(B), old);
    pair.assert_settled();
}

/// B has granted a new SA, and cannot know whether A knows: the answer is lost again and again.
#[test]
fn the_new_sa_is_not_sent_by_while_the_answer_may_be_lost() {
    let mut pair = Pair::up();
    let old = pair.spis(B);
    pair.rekey_child(A);
    pair.step();
    pair.mute[B] = true;
    pair.pass(Duration::from_secs(20));
    assert_eq!(pair.spis(B), old);
    pair.mute[B] = false;
    pair.assert_settled();
    assert_ne!(pair.spis(B), old);
}

/// A peer that neither deletes the old SA nor sends by the new one.
#[test]
fn the_new_sa_is_sent_by_after_a_while() {
    let mut pair = Pair::up();
    let old = pair.spis(B);
    pair.rekey_child(A);
    pair.step();
    pair.step();
    pair.mute[A] = true;
    pair.pass(Duration::from_secs(29));
    assert_eq!(pair.spis(B), old);
    assert_eq!(pair.lost, 0);
}

/// The responder deletes the old SA, which is the initiator's business. No harm is done.
#[test]
fn regular_responder_incorrect_delete() {
    let mut pair = Pair::up();
    let old = pair.spis(A);
    pair.rekey_child(A);
    pair.step();
    pair.step();
    let proper = pair.take_from(A);
    let request = pair.ask(B);
    let request = pair.substitute(&request, &[delete(&[old.1])]);
    pair.deliver(request);
    let answer = pair.take_from(A);
    assert_eq!(pair.open(&answer), [], "A is deleting it already (RFC 7296 1.4.1)");
    pair.deliver(answer);
    pair.deliver(proper);
    pair.run();
    pair.assert_settled();
}

/// The responder does not know the SA (RFC 7296 2.25): the initiator makes another one from scratch.
#[test]
fn regular_responder_lost_sa() {
    let mut pair = Pair::up();
    let old = pair.spis(A);
    let mut answering = config(ADDRESSES[B], ADDRESSES[A]);
    answering.initiate = false;
    pair.configure(B, answering);
    pair.lose_child(B);
    pair.run();
    assert!(!pair.hosts[B].is_up());
    pair.rekey_child(A);
    pair.step();
    let answer = pair.take_from(B);
    assert!(notifies(&pair.open(&answer), notify::CHILD_SA_NOT_FOUND));
    pair.deliver(answer);
    pair.run();
    pair.pass(Duration::from_secs(60));
    pair.assert_converged();
    assert_ne!(pair.spis(A), old);
}

/// The responder wants to do nothing but be asked again.
#[test]
fn regular_responder_busy() {
    let mut pair = Pair::up();
    let old = pair.spis(A);
    pair.rekey_child(A);
    let request = pair.take_from(A);
    // What B gets makes it say CHILD_SA_NOT_FOUND, and A is told TEMPORARY_FAILURE
    let spi = 0xdead_beef_u32.to_be_bytes().to_vec();
    let rekey = wire::Notify { protocol: 3, spi, kind: notify::REKEY_SA, data: vec![] };
    let request = pair.substitute(&request, &[Payload::Notify(rekey)]);
    pair.deliver(request);
    let answer = pair.take_from(B);
    let answer = pair.substitute(&answer, &[notification(notify::TEMPORARY_FAILURE)]);
    pair.deliver(answer);
    assert_eq!(states(&pair, A), [ChildState::Installed]);
    assert_eq!(pair.spis(A), old);
    pair.pass(Duration::from_secs(3));
    assert_ne!(pair.spis(A), old, "it was asked again");
    pair.assert_settled();
}

/// A peer that refuses to rekey at all: a new IKE SA brings a new child SA before the old one expires.
#[test]
fn regular_responder_refuses() {
    let mut pair = Pair::new();
    let mut ecp = config(ADDRESSES[B], ADDRESSES[A]);
    ecp.esp.groups = vec![Some(Group::Ecp256)];
    ecp.initiate = false;
    pair.configure(B, ecp);
    let mut modp = config(ADDRESSES[A], ADDRESSES[B]);
    modp.esp.groups = vec![Some(Group::Modp2048)];
    pair.configure(A, modp);
    pair.run();
    let (old, ike) = (pair.spis(A), pair.ike(A));
    pair.rekey_child(A);
    pair.assert_settled();
    assert_ne!((pair.spis(A), pair.ike(A)), (old, ike));
    let [refused] = &pair.hosts[A].complaints()[..] else { panic!("{:?}", pair.hosts[A].complaints()) };
    assert!(refused.contains("NO_PROPOSAL_CHOSEN") && refused.contains("MODP_2048"), "{refused}");
    let [refused] = &pair.hosts[B].complaints()[..] else { panic!("{:?}", pair.hosts[B].complaints()) };
    assert!(refused.contains("MODP_2048") && refused.contains("ECP_256"), "{refused}");
}

/// Both rekey at once: the SA of the exchange with the lowest nonce is deleted by who made it.
#[test]
fn collision() {
    for (nonces, winner) in COLLISIONS {
        let mut pair = collide(nonces);
        // requests arrive, then the answers
        pair.step_from(A);
        pair.step_from(B);
        pair.run();
        assert_winner(&mut pair, winner);
    }
}

/// Nonces of A's request, B's request, B's answer, A's answer; and whose SA remains.
const COLLISIONS: [([u8; 4], usize); 4] = [
    ([0x00, 0xff, 0xff, 0xff], B),
    ([0xff, 0x00, 0xff, 0xff], A),
    ([0xff, 0xff, 0x00, 0xff], B),
    ([0xff, 0xff, 0xff, 0x00], A),
];

/// Both have sent their requests.
fn collide([request_a, request_b, answer_b, answer_a]: [u8; 4]) -> Pair {
    let mut pair = Pair::up();
    pair.hosts[A].rng.nonces(&[request_a, answer_a]);
    pair.hosts[B].rng.nonces(&[request_b, answer_b]);
    pair.rekey_child(A);
    pair.rekey_child(B);
    pair
}

fn assert_winner(pair: &mut Pair, winner: usize) {
    pair.assert_settled();
    // The loser never installs its own
    assert_eq!((pair.installs(winner), pair.installs(1 - winner)), (3, 2));
}

#[test]
fn collision_delayed_response() {
    for (nonces, winner) in COLLISIONS {
        let mut pair = collide(nonces);
        pair.step_from(A);
        pair.step_from(B);
        // B's answer waits while B gets A's and acts on it
        let delayed = pair.take_from(B);
        assert!(delayed.is_response());
        pair.run();
        pair.deliver(delayed);
        pair.run();
        if winner == A {
            assert_winner(&mut pair, A);
        } else {
            pair.assert_settled();
        }
    }
}

/// A's request arrives when B has not only rekeyed the SA but deleted it.
#[test]
fn collision_delayed_request() {
    let mut pair = collide([0xff; 4]);
    let delayed = pair.take_from(A);
    pair.step_from(B); // B's request
    pair.step_from(A); // the answer; B deletes the old one
    pair.step_from(B); // which A grants
    pair.deliver(delayed); // TEMPORARY_FAILURE, as B is deleting it
    pair.run();
    pair.assert_settled();
}

/// It arrives when the deletion is over: CHILD_SA_NOT_FOUND.
#[test]
fn collision_delayed_request_more() {
    let mut pair = collide([0xff; 4]);
    let delayed = pair.take_from(A);
    pair.step_from(B);
    pair.step_from(A);
    pair.step_from(B);
    pair.step_from(A);
    pair.deliver(delayed);
    pair.run();
    pair.assert_settled();
    assert_eq!(pair.installs(A), 2, "A makes no new one, as it has B's");
}

/// Both are sent back for another group, and collide with the second request.
#[test]
fn collision_ke_invalid() {
    for (nonces, winner) in COLLISIONS {
        let mut pair = other_groups();
        let [request_a, request_b, answer_b, answer_a] = nonces;
        pair.hosts[A].rng.nonces(&[0xff, request_a, answer_a]);
        pair.hosts[B].rng.nonces(&[0xff, request_b, answer_b]);
        pair.rekey_child(A);
        pair.rekey_child(B);
        // INVALID_KE_PAYLOAD both ways
        for host in [A, B, A, B] {
            pair.step_from(host);
        }
        pair.step_from(A);
        pair.step_from(B);
        pair.run();
        assert_winner(&mut pair, winner);
    }
}

/// A's second request is late: B's is granted and done before it arrives.
#[test]
fn collision_ke_invalid_delayed_retry() {
    let mut pair = other_groups();
    pair.rekey_child(A);
    pair.rekey_child(B);
    for host in [A, B, A, B] {
        pair.step_from(host);
    }
    let delayed = pair.take_from(A);
    pair.step_from(B);
    pair.step_from(A);
    pair.step_from(B);
    pair.deliver(delayed);
    pair.run();
    pair.assert_settled();
}

/// Each prefers a group that the other does not begin with.
fn other_groups() -> Pair {
    let mut pair = Pair::new();
    let mut b = config(ADDRESSES[B], ADDRESSES[A]);
    b.esp.groups = vec![Some(Group::Ecp256), Some(Group::Curve25519)];
    b.initiate = false;
    pair.configure(B, b);
    let mut a = config(ADDRESSES[A], ADDRESSES[B]);
    a.esp.groups = vec![Some(Group::Curve25519), Some(Group::Ecp256)];
    pair.configure(A, a);
    pair.run();
    pair
}

/// A rekeys the SA while B deletes it for good.
#[test]
fn collision_delete() {
    let mut pair = Pair::up();
    let old = pair.spis(A);
    pair.rekey_child(A);
    let rekey = pair.take_from(A);
    pair.lose_child(A);
    let granted = pair.take_from(A);
    assert_eq!(
        pair.open(&granted),
        [delete(&[old.0])],
        "it is deleted while it is being rekeyed (RFC 7296 2.25.1)"
    );
    pair.deliver(granted);
    refuse(&mut pair, rekey, notify::TEMPORARY_FAILURE);
    assert!(!pair.hosts[A].is_up());
    assert_new_child(&mut pair);
}

/// The request to delete comes only after the refusal.
#[test]
fn collision_delete_drop_delete() {
    let mut pair = Pair::up();
    pair.rekey_child(A);
    let rekey = pair.take_from(A);
    refuse(&mut pair, rekey, notify::TEMPORARY_FAILURE);
    assert!(pair.hosts[A].is_up());
    pair.lose_child(A);
    pair.run();
    assert!(!pair.hosts[A].is_up());
    assert_new_child(&mut pair);
}

/// The request to rekey comes when the SA has long been deleted.
#[test]
fn collision_delete_drop_rekey() {
    let mut pair = Pair::up();
    pair.rekey_child(A);
    let rekey = pair.take_from(A);
    pair.lose_child(A);
    pair.run();
    refuse(&mut pair, rekey, notify::CHILD_SA_NOT_FOUND);
    assert_new_child(&mut pair);
}

/// Lets a request of A fail: B sees one that it must refuse, A sees the answer that is wanted.
fn refuse(pair: &mut Pair, request: Message, kind: u16) {
    let spi = 0xdead_beef_u32.to_be_bytes().to_vec();
    let rekey = wire::Notify { protocol: 3, spi, kind: notify::REKEY_SA, data: vec![] };
    let request = pair.substitute(&request, &[Payload::Notify(rekey)]);
    pair.deliver(request);
    let answer = pair.take_from(B);
    assert!(answer.is_response() && answer.exchange() == Exchange::CreateChildSa);
    let answer = pair.substitute(&answer, &[notification(kind)]);
    pair.deliver(answer);
}

/// A, which has none, makes a new child SA in the same IKE SA. B, which did not mean to delete its own, has two for a
/// while.
fn assert_new_child(pair: &mut Pair) {
    let ike = pair.ike(A);
    pair.pass(Duration::from_secs(5));
    assert_eq!(pair.ike(A), ike);
    assert!(pair.hosts[A].is_up());
    let (a, b) = (pair.spis(A), &pair.hosts[B]);
    assert!(b.installed.values().any(|child| (child.outbound.spi, child.inbound.spi) == a));
}

/// A rekeys the child SA, B the IKE SA: both are put off (RFC 7296 2.25), and both done in the end.
#[test]
fn collision_ike_rekey() {
    let mut pair = Pair::up();
    let (old, ike) = (pair.spis(A), pair.ike(A));
    pair.rekey_child(A);
    pair.rekey_ike(B);
    pair.step_from(A);
    pair.step_from(B);
    for host in [A, B] {
        let answer = pair.take_from(host);
        assert!(notifies(&pair.open(&answer), notify::TEMPORARY_FAILURE));
        pair.deliver(answer);
    }
    pair.assert_settled();
    assert_ne!(pair.spis(A), old);
    assert_ne!(pair.ike(A), ike);
}

/// A rekeys the child SA, B deletes the IKE SA.
#[test]
fn collision_ike_delete() {
    let mut pair = Pair::up();
    pair.rekey_child(A);
    pair.with(B, |endpoint, now| endpoint.remove(now, PEER));
    pair.step_from(A);
    pair.step_from(B);
    let answer = pair.take_from(B);
    assert!(notifies(&pair.open(&answer), notify::TEMPORARY_FAILURE));
    pair.deliver(answer);
    pair.run();
    assert!(pair.hosts.iter().all(|host| host.installed.is_empty() && !host.is_up()));
    assert_eq!(pair.hosts[A].complaints(), ["the peer has deleted the IKE SA"]);
    // B knows nothing of A any more
    pair.pass(Duration::from_secs(10));
    assert!(pair.hosts[A].complaints()[1].contains("knows nothing of us (NO_PROPOSAL_CHOSEN)"));
}
