//! Several kinds of traffic under one IKE SA: GRE and VXLAN between the same two hosts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests too

mod pair;

use std::collections::BTreeSet;
use std::time::Duration;

use ikev2::wire::{Exchange, Header, Payload, notify};
use ikev2::{PeerConfig, PeerState, Selector};
use pair::*;

const VXLAN: [Selector; 2] = [Selector::UdpOut(4789), Selector::UdpIn(4789)];
const ALL: [Selector; 3] = [Selector::Gre, VXLAN[0], VXLAN[1]];

fn protecting(host: usize, protects: &[Selector]) -> PeerConfig {
    PeerConfig { protects: protects.to_vec(), ..config(ADDRESSES[host], ADDRESSES[1 - host]) }
}

fn up(pair: &Pair, host: usize) -> Vec<Selector> {
    pair.hosts[host].up.iter().copied().collect()
}

fn spis(pair: &Pair) -> BTreeSet<u32> {
    pair.hosts[A].installed.values().map(|child| child.inbound.spi).collect()
}

fn all() -> Pair {
    Pair::up_with(|config| config.protects = ALL.to_vec())
}

#[test]
fn all_of_it_comes_up_at_once_under_one_ike_sa() {
    for protects in [&ALL[..], &VXLAN] {
        let pair = Pair::up_with(|config| config.protects = protects.to_vec());
        assert_eq!(up(&pair, A), protects);
        assert_eq!((pair.installs(A), pair.installs(B)), (protects.len(), protects.len()));
        let ports = pair.hosts[A].installed.values().map(|child| child.selector).collect::<BTreeSet<_>>();
        assert!(ports.iter().eq(protects));
    }
}

#[test]
fn each_is_rekeyed_and_nothing_is_lost() {
    for host in [A, B] {
        let mut pair = all();
        let before = spis(&pair);
        pair.rekey_child(host);
        pair.pass(Duration::from_secs(10));
        assert!(spis(&pair).is_disjoint(&before));
        pair.rekey_ike(host);
        pair.run();
        pair.rekey_child(1 - host);
        pair.assert_settled();
        assert_eq!(up(&pair, B).len(), 3);
    }
}

/// Proofs of identity anew: the old IKE SA goes when the new one has child SAs for everything.
#[test]
fn reauthenticated_without_loss() {
    for host in [A, B] {
        let mut pair = all();
        let before = spis(&pair);
        pair.with(host, |endpoint, now| endpoint.reauthenticate(now, PEER));
        pair.assert_settled();
        assert!(spis(&pair).is_disjoint(&before));
    }
}

/// B proves itself twice. The first time the answer that grants the last child SA does not arrive: A must not fall back to that
/// one when the second time has made the old IKE SA superfluous.
#[test]
fn reauthenticated_twice_and_one_answer_lost() {
    let mut pair = all();
    pair.with(B, |endpoint, now| endpoint.reauthenticate(now, PEER));
    let first = pair.take();
    // What is rekeyed after it began is what the second time takes the place of, too
    pair.rekey_ike(A);
    pair.run();
    pair.deliver(first);
    while pair.hosts[A].installed.len() < 6 {
        pair.step();
    }
    pair.drop_from(A);
    pair.with(B, |endpoint, now| endpoint.reauthenticate(now, PEER));
    pair.assert_settled();
}

/// Both prove themselves at once. The IKE SA that is to remain gets its last child SA late: until then the other one is needed.
#[test]
fn reauthenticated_by_both_and_one_of_them_slow() {
    for slow in [A, B] {
        let mut pair = all();
        // Those of IKE_SA_INIT rank them
        pair.hosts[slow].rng.nonces(&[0xf0]);
        pair.hosts[1 - slow].rng.nonces(&[0x10, 0xf1]);
        pair.with(slow, |endpoint, now| endpoint.reauthenticate(now, PEER));
        pair.with(1 - slow, |endpoint, now| endpoint.reauthenticate(now, PEER));
        let mut late = Vec::new();
        for _ in 0..200 {
            while !pair.wire.is_empty() {
                let message = pair.take();
                let id = Header::peek(&message.datagram).unwrap().message_id;
                let last = message.from == slow && message.exchange() == Exchange::CreateChildSa && id == 3;
                if last && !message.is_response() { late.push(message) } else { pair.deliver(message) }
            }
            pair.timers(Duration::from_millis(50));
        }
        assert!(!late.is_empty());
        pair.assert_settled();
    }
}

#[test]
fn both_begin_at_once() {
    let mut pair = Pair::new();
    for host in [A, B] {
        pair.configure(host, protecting(host, &ALL));
    }
    pair.pass(Duration::from_secs(200));
    pair.assert_converged();
    assert_eq!(up(&pair, A), ALL);
}

/// A tunnel of another kind comes, at one host after the other, and goes: what was there is not touched.
#[test]
fn more_and_less_as_it_is_configured() {
    for first in [A, B] {
        let mut pair = Pair::up();
        let gre = spis(&pair);
        pair.configure(first, protecting(first, &ALL));
        pair.pass(Duration::from_secs(5));
        assert_eq!(up(&pair, first), [Selector::Gre]);
        let said = pair.hosts[first].complaints().pop().unwrap();
        assert!(said.starts_with("10.9.0.") && said.contains("other traffic than UDP to "), "{said}");
        pair.configure(1 - first, protecting(1 - first, &ALL));
        pair.assert_settled();
        assert_eq!(up(&pair, A), ALL);
        assert!(spis(&pair).is_superset(&gre), "GRE has not been touched");
        assert_eq!(pair.hosts[first].status(pair.now).last_error, None);

        for host in [first, 1 - first] {
            pair.configure(host, protecting(host, &[Selector::Gre]));
            pair.run();
        }
        pair.pass(Duration::from_secs(120));
        pair.assert_converged();
        assert_eq!((up(&pair, A), spis(&pair)), (vec![Selector::Gre], gre));
    }
}

/// The peer does not know the first kind: the others come up all the same, and stay up.
#[test]
fn what_one_host_does_not_protect_is_in_nobody_elses_way() {
    let mut pair = Pair::new();
    pair.configure(B, PeerConfig { initiate: false, ..protecting(B, &VXLAN) });
    pair.configure(A, protecting(A, &ALL));
    pair.run();
    let (before, ike) = (spis(&pair), pair.ike(A));
    assert_eq!(up(&pair, A), VXLAN);
    assert_eq!(pair.hosts[A].status(pair.now).state, PeerState::Connecting);
    pair.pass(Duration::from_secs(300));
    assert_eq!((spis(&pair), pair.ike(A)), (before, ike), "GRE is asked for again, nothing else is touched");
    assert_eq!(pair.lost, 0);
    // Geneve is no VXLAN
    assert!(pair.hosts[A].complaints()[0].contains("other traffic than GRE between us (TS_UNACCEPTABLE)"));
}

/// When the peer has been lost all kinds come back together.
#[test]
fn one_deleted_comes_back_alone() {
    let mut pair = all();
    let gre = pair.spis(A);
    let lost = *pair.hosts[B].outbound.get(&VXLAN[0]).unwrap();
    let spi = pair.hosts[B].installed[&lost].outbound.spi;
    let request = pair.ask(A);
    let request = pair.substitute(&request, &[delete(&[spi])]);
    pair.deliver(request);
    assert_eq!(up(&pair, B), [Selector::Gre, VXLAN[1]]);
    pair.pass(Duration::from_secs(5));
    assert_eq!(up(&pair, B), ALL);
    assert_eq!(pair.spis(A), gre);
}

/// RFC 7296 2.9.2: what takes a child SA's place is for the same, whatever else the peer would like.
#[test]
fn a_child_sa_is_not_rekeyed_into_another_kind() {
    let mut pair = all();
    pair.rekey_child(A);
    let request = pair.take_from(A);
    assert_eq!(request.exchange(), Exchange::CreateChildSa);
    let mut payloads = pair.open(&request);
    for payload in &mut payloads {
        if let Payload::TsI(selectors) | Payload::TsR(selectors) = payload {
            // of GRE to VXLAN
            selectors[0].protocol = 17;
        }
    }
    let forged = pair.substitute(&request, &payloads);
    pair.deliver(forged);
    let answer = pair.take_from(B);
    assert!(notifies(&pair.open(&answer), notify::TS_UNACCEPTABLE));
    pair.deliver(answer);
    assert_eq!(up(&pair, A), ALL);
}

/// Who grants other ports than were asked for grants nothing.
#[test]
fn an_answer_that_says_more_is_not_taken() {
    let mut pair = Pair::new();
    pair.configure(B, PeerConfig { initiate: false, ..protecting(B, &VXLAN) });
    pair.configure(A, protecting(A, &VXLAN));
    for _ in 0..3 {
        pair.step();
    }
    let answer = pair.take_from(B);
    let mut payloads = pair.open(&answer);
    for payload in &mut payloads {
        if let Payload::TsR(selectors) = payload {
            (selectors[0].start_port, selectors[0].end_port) = (0, u16::MAX);
        }
    }
    let forged = pair.substitute(&answer, &payloads);
    pair.deliver(forged);
    assert!(!pair.hosts[A].up.contains(&VXLAN[0]));
    let why = pair.hosts[A].complaints().remove(0);
    assert_eq!(
        why,
        "10.9.0.2 protects 10.9.0.1[udp] to 10.9.0.2[udp], and not UDP to its port 4789 between 10.9.0.1 and 10.9.0.2"
    );
}
