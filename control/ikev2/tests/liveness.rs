//! Peers that fall silent, restart or come back; keys that grow old.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests too

mod pair;

use std::time::Duration;

use ikev2::wire::{Exchange, Notify, Payload, notify};
use ikev2::{ChildUse, Event, Lifetimes, PeerConfig, PeerState};
use pair::*;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn a_silent_peer_is_asked_and_given_up() {
    let mut pair = Pair::up();
    pair.mute[B] = true;
    pair.pass(secs(29));
    assert_eq!(pair.hosts[A].status(pair.now).state, PeerState::Up);
    pair.pass(secs(32));
    assert_eq!(pair.hosts[A].status(pair.now).state, PeerState::Connecting, "it begins anew at once");
    assert!(pair.hosts[A].installed.is_empty());
    let complaints = pair.hosts[A].complaints();
    assert!(complaints[0].contains("no answer from 10.9.0.2"), "{complaints:?}");
    assert_eq!(complaints[1..], ["10.9.0.2 does not answer any more", "10.9.0.2 does not answer any more"]);
    // And never gives up; the peer is back within seconds of its own return
    pair.pass(secs(3600));
    assert!(!pair.hosts[A].is_up());
    pair.mute[B] = false;
    pair.pass(secs(6));
    assert!(pair.hosts[A].is_up() && pair.hosts[B].is_up());
    pair.pass(secs(120));
    pair.assert_converged();
}

#[test]
fn traffic_is_a_sign_of_life() {
    let mut pair = Pair::up();
    for packets in 1..20 {
        pair.pass(secs(20));
        pair.traffic(packets);
    }
    assert!(pair.wire.is_empty());
    pair.pass(secs(1));
    let heard = pair.hosts[A].status(pair.now).ike[0].heard.unwrap();
    assert_eq!(heard, secs(1));
}

/// Packets go out and none comes in: one does not wait for the time of the next question.
#[test]
fn silence_while_we_send_is_looked_into() {
    let mut pair = Pair::up();
    pair.restart(B);
    pair.configure(B, PeerConfig { initiate: false, ..config(ADDRESSES[B], ADDRESSES[A]) });
    let old = pair.hosts[A].sending().unwrap().id;
    // As stock peers do, B says nothing to what it does not know
    pair.silent = true;
    for packets in 1..=9 {
        pair.pass(secs(1));
        let sent = ChildUse { outbound_packets: packets, ..ChildUse::default() };
        pair.with(A, |endpoint, now| endpoint.traffic(now, old, sent));
    }
    assert!(pair.hosts[B].is_up(), "back before nine seconds are over");
    assert_ne!(pair.hosts[A].sending().unwrap().id, old);
    assert_eq!(pair.hosts[A].complaints(), [""; 0], "make before break");
    pair.pass(secs(120));
    pair.assert_converged();
}

#[test]
fn an_idle_peer_answers() {
    let mut pair = Pair::up();
    pair.pass(secs(600));
    pair.assert_converged();
    assert_eq!(pair.hosts[A].complaints(), [""; 0]);
}

#[test]
fn liveness_can_be_off() {
    let mut pair = Pair::up_with(|config| config.liveness = Duration::ZERO);
    pair.mute = [true; 2];
    pair.pass(secs(600));
    assert!(pair.hosts[A].is_up());
}

/// The peer loses all and begins anew: INITIAL_CONTACT makes the old SAs go, and it goes on without waiting.
#[test]
fn peer_restarts() {
    let mut pair = Pair::up();
    pair.tick();
    let old = pair.spis(A);
    pair.restart(B);
    pair.configure(B, config(ADDRESSES[B], ADDRESSES[A]));
    pair.run();
    assert!(pair.hosts[B].is_up());
    assert_ne!(pair.spis(A), old);
    pair.pass(secs(60));
    pair.assert_converged();
}

/// It loses all and only answers: what it says in the clear is a hint, on which a new IKE SA is tried; the old one is there
/// until that stands.
#[test]
fn peer_restarts_and_waits() {
    let mut pair = Pair::up();
    pair.tick();
    pair.restart(B);
    pair.configure(B, PeerConfig { initiate: false, ..config(ADDRESSES[B], ADDRESSES[A]) });
    let request = pair.ask(A);
    pair.deliver(request);
    pair.run();
    assert!(pair.hosts[A].is_up() && pair.hosts[B].is_up());
    pair.pass(secs(60));
    pair.assert_converged();
    let downs = pair.hosts[A].events.iter().filter(|event| matches!(event, Event::Down(..))).count();
    assert_eq!(downs, 0, "make before break");
}

/// Whoever says in the clear that the IKE SA is not known, and lies, gains nothing.
#[test]
fn forged_hint() {
    let mut pair = Pair::up();
    let (ike, child) = (pair.ike(A), pair.spis(A));
    pair.tick();
    let request = pair.ask(A);
    let header = ikev2::wire::Header::peek(&request.datagram).unwrap();
    let header = ikev2::wire::Header { initiator: false, response: true, ..header };
    let lie = [notification(ikev2::wire::notify::INVALID_IKE_SPI)];
    let lie =
        Message { from: B, path: swapped(request.path), datagram: ikev2::wire::encode_clear(&header, &lie) };
    for _ in 0..100 {
        pair.deliver(lie.clone());
    }
    assert_eq!(pair.wire.len(), 1, "one attempt, whatever is said");
    pair.wire.clear();
    assert_eq!((pair.ike(A), pair.spis(A)), (ike, child));
    pair.deliver(request);
    pair.pass(secs(120));
    pair.assert_converged();
    assert_eq!(pair.lost, 0);
}

fn swapped(path: ikev2::Path) -> ikev2::Path {
    ikev2::Path { local: path.remote, remote: path.local }
}

#[test]
fn unknown_spis_make_for_one_question_at_a_time() {
    let mut pair = Pair::up();
    let remote = pair.hosts[B].address;
    for spi in 0..1000 {
        pair.with(A, |endpoint, now| endpoint.unknown_spi(now, remote, spi));
        pair.with(A, |endpoint, now| endpoint.unknown_spi(now, "192.0.2.9".parse().unwrap(), spi));
    }
    assert_eq!(pair.wire.len(), 1);
    pair.run();
    assert!(pair.wire.is_empty());
}

#[test]
fn reauthentication_makes_before_it_breaks() {
    for host in [A, B] {
        let mut pair = Pair::up();
        pair.tick();
        let (ike, child) = (pair.ike(A), pair.spis(A));
        pair.with(host, |endpoint, now| endpoint.reauthenticate(now, PEER));
        pair.assert_settled();
        assert_ne!(pair.ike(A), ike);
        assert_ne!(pair.spis(A), child);
    }
}

/// strongSwan deletes first and makes then. There is a gap, and we do not make another IKE SA at the same time.
#[test]
fn peer_reauthenticates_break_before_make() {
    let mut pair = Pair::up();
    pair.pass(secs(60));
    pair.restart_politely(B);
    pair.step();
    assert!(!pair.hosts[A].is_up());
    assert!(pair.wire.iter().all(|message| message.from == B || message.is_response()), "A waits for B");
    pair.run();
    pair.pass(secs(120));
    pair.assert_converged();
    assert_eq!(pair.hosts[A].installed.len(), 1);
    let attempts = pair.hosts[A].status(pair.now).ike.iter().filter(|ike| ike.initiator).count();
    assert_eq!(attempts, 0, "it is the peer's");
}

#[test]
fn keys_are_renewed_by_age_without_a_gap() {
    let lifetimes = Lifetimes { ike: secs(600), child: secs(60), ..Lifetimes::default() };
    let mut pair = Pair::up_with(|config| config.lifetimes = lifetimes);
    for packets in 1..3600 {
        pair.pass(secs(1));
        pair.traffic(packets);
        assert!(pair.hosts.iter().all(|host| host.installed.len() <= 3), "SAs pile up");
    }
    pair.pass(secs(12));
    assert_eq!(pair.lost, 0);
    assert!(pair.installs(A) >= 60, "{}", pair.installs(A));
    assert_eq!(pair.hosts[A].complaints(), [""; 0]);
    assert_eq!(pair.hosts[B].complaints(), [""; 0]);
}

/// As fast as it can be configured, both at once, for ten minutes.
#[test]
fn keys_are_renewed_every_five_seconds() {
    let lifetimes = Lifetimes { ike: secs(5), child: secs(5), ..Lifetimes::default() };
    let mut pair = Pair::up_with(|config| config.lifetimes = lifetimes);
    for packets in 1..600 {
        pair.pass(secs(1));
        pair.traffic(packets);
        assert!(pair.hosts.iter().all(|host| host.installed.len() <= 5), "SAs pile up");
        let open = pair.hosts.iter().all(|host| host.status(pair.now).ike.len() <= 8);
        assert!(open, "IKE SAs pile up");
    }
    assert_eq!(pair.lost, 0);
    assert_eq!(pair.hosts[A].complaints(), [""; 0]);
}

#[test]
fn keys_are_renewed_by_packets_and_bytes() {
    for (packets, bytes) in [(1_000, u64::MAX), (u64::MAX, 1_000)] {
        let lifetimes = Lifetimes { packets, bytes, ..Lifetimes::default() };
        let mut pair = Pair::up_with(|config| config.lifetimes = lifetimes);
        let child = pair.hosts[A].sending().unwrap().clone();
        assert_eq!(child.hard_packets, packets.saturating_add(packets / 4));
        assert_eq!(child.hard_bytes, bytes.saturating_add(bytes / 4));
        let traffic = |n| ChildUse { outbound_packets: n, outbound_bytes: n, ..ChildUse::default() };
        pair.with(A, |endpoint, now| endpoint.traffic(now, child.id, traffic(899)));
        pair.with(A, |endpoint, now| endpoint.handle_timeout(now));
        assert!(pair.wire.is_empty());
        pair.with(A, |endpoint, now| endpoint.traffic(now, child.id, traffic(1_000)));
        pair.assert_settled();
        assert_ne!(pair.hosts[A].sending().unwrap().id, child.id);
    }
}

#[test]
fn without_esn_no_sequence_number_comes_twice() {
    let pair = Pair::up_with(|config| config.esp.esn = vec![false]);
    let child = pair.hosts[A].sending().unwrap();
    assert!(!child.suite.esn);
    assert_eq!(child.hard_packets, u64::from(u32::MAX));
}

/// A peer that always says that it cannot just now: at its hard limit the child SA ends, and nothing takes its place.
#[test]
fn hard_limit_of_a_child_sa() {
    let lifetimes = Lifetimes { child: secs(100), ..Lifetimes::default() };
    let mut pair = Pair::new();
    pair.configure(B, PeerConfig { initiate: false, ..config(ADDRESSES[B], ADDRESSES[A]) });
    pair.configure(A, PeerConfig { lifetimes, ..config(ADDRESSES[A], ADDRESSES[B]) });
    pair.run();
    pair.busy(secs(155));
    assert!(pair.hosts[A].is_up());
    pair.busy(secs(10));
    assert!(!pair.hosts[A].is_up() && pair.hosts[A].installed.is_empty());
    assert!(!pair.hosts[B].is_up() && pair.hosts[B].installed.is_empty(), "it was told");
    let complaints = pair.hosts[A].complaints();
    assert_eq!(complaints, ["the child SA has expired: the peer did not let it be rekeyed"]);
    // As soon as it can, there is another
    pair.pass(secs(60));
    pair.assert_converged();
}

#[test]
fn hard_limit_of_an_ike_sa() {
    let lifetimes = Lifetimes { ike: secs(100), ..Lifetimes::default() };
    let mut pair = Pair::new();
    pair.configure(B, PeerConfig { initiate: false, ..config(ADDRESSES[B], ADDRESSES[A]) });
    pair.configure(A, PeerConfig { lifetimes, ..config(ADDRESSES[A], ADDRESSES[B]) });
    pair.run();
    let ike = pair.ike(A);
    pair.busy(secs(155));
    assert_eq!(pair.ike(A), ike);
    pair.busy(secs(10));
    assert_ne!(pair.ike(A), ike);
    let complaints = pair.hosts[A].complaints();
    assert_eq!(complaints, ["the IKE SA has expired: the peer did not let it be rekeyed"]);
    pair.pass(secs(60));
    pair.assert_converged();
}

/// RFC 4478: the responder wants new proofs after so many seconds. It gets them before that, and without a gap.
#[test]
fn auth_lifetime() {
    let mut pair = Pair::new();
    pair.configure(B, PeerConfig { initiate: false, ..config(ADDRESSES[B], ADDRESSES[A]) });
    pair.configure(A, config(ADDRESSES[A], ADDRESSES[B]));
    (0..3).for_each(|_| pair.step());
    let answer = pair.take_from(B);
    let mut payloads = pair.open(&answer);
    payloads.push(Payload::Notify(Notify::new(notify::AUTH_LIFETIME, 100u32.to_be_bytes())));
    let answer = pair.substitute(&answer, &payloads);
    pair.deliver(answer);
    let ike = pair.ike(A);
    // Rekeying changes nothing about it
    pair.pass(secs(50));
    pair.rekey_ike(A);
    pair.pass(secs(39));
    let rekeyed = pair.ike(A);
    assert_ne!(rekeyed, ike);
    pair.pass(secs(2));
    assert_ne!(pair.ike(A), rekeyed);
    pair.assert_settled();
}

/// 30 % of messages lost, both beginning: up within half a minute.
#[test]
fn loss_of_a_third() {
    for seed in 0..50 {
        let mut pair = Pair::seeded(seed);
        pair.loss = 0.3;
        for host in [A, B] {
            pair.configure(host, config(ADDRESSES[host], ADDRESSES[1 - host]));
        }
        pair.pass(secs(30));
        assert!(pair.hosts.iter().all(|host| host.is_up()), "seed {seed}");
        pair.loss = 0.0;
        pair.pass(secs(200));
        pair.assert_converged();
    }
}

impl Pair {
    /// Lets time pass while B is too busy for A's CREATE_CHILD_SA.
    fn busy(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            while let Some(message) = self.wire.pop_front() {
                if message.from != A || message.exchange() != Exchange::CreateChildSa || message.is_response()
                {
                    self.deliver(message);
                    continue;
                }
                // B sees a request that it must refuse, and A another reason
                let rekey = Notify { protocol: 3, spi: vec![7; 4], kind: notify::REKEY_SA, data: vec![] };
                let request = self.substitute(&message, &[Payload::Notify(rekey)]);
                self.deliver(request);
                let answer = self.take_from(B);
                let answer = self.substitute(&answer, &[notification(notify::TEMPORARY_FAILURE)]);
                self.deliver(answer);
            }
            self.timers(Duration::from_millis(100));
        }
    }

    /// A host is gone and comes back with nothing; its datapath, too.
    fn restart(&mut self, host: usize) {
        let new = Pair::seeded(77).hosts.into_iter().nth(host).unwrap();
        self.hosts[host] = new;
        self.wire.clear();
    }

    /// A host says farewell first.
    fn restart_politely(&mut self, host: usize) {
        self.with(host, |endpoint, now| endpoint.shutdown(now));
        let farewell = self.wire.clone();
        self.restart(host);
        self.configure(host, config(ADDRESSES[host], ADDRESSES[1 - host]));
        for message in farewell.into_iter().rev() {
            self.wire.push_front(message);
        }
    }
}
