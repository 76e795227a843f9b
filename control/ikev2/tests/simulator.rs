//! Two endpoints on a bad wire, doing all that they can at any time: whatever gets lost, comes twice or late, they end up
//! with one IKE SA and a child SA for each kind of traffic, and nothing is left behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests too

mod pair;

use std::time::Duration;

use ikev2::{PeerState, Selector};
use pair::*;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Act {
    RekeyChild(usize),
    RekeyIke(usize),
    Reauthenticate(usize),
    /// Of the messages under way this one arrives, modulo how many there are.
    Deliver(u8),
    /// It arrives, and stays under way to arrive again.
    Duplicate(u8),
    Drop(u8),
    /// Milliseconds.
    Pass(u64),
    /// A packet each way, as the datapaths count them.
    Traffic,
}

fn act() -> impl Strategy<Value = Act> {
    let host = 0..2usize;
    prop_oneof![
        2 => host.clone().prop_map(Act::RekeyChild),
        2 => host.clone().prop_map(Act::RekeyIke),
        1 => host.prop_map(Act::Reauthenticate),
        12 => any::<u8>().prop_map(Act::Deliver),
        2 => any::<u8>().prop_map(Act::Duplicate),
        2 => any::<u8>().prop_map(Act::Drop),
        2 => (0..800u64).prop_map(Act::Pass),
        1 => Just(Act::Traffic),
    ]
}

fn acts(most: usize) -> impl Strategy<Value = Vec<Act>> {
    prop::collection::vec(act(), 0..most)
}

struct Simulation {
    pair: Pair,
    packets: u64,
    /// Time that may pass while the wire is bad, in milliseconds.
    patience: u64,
}

impl Simulation {
    fn run(&mut self, acts: &[Act]) {
        for act in acts {
            self.act(act);
            for host in &self.pair.hosts {
                assert!(host.installed.len() <= 32, "child SAs pile up");
                assert!(host.status(self.pair.now).ike.len() <= 10, "IKE SAs pile up");
            }
        }
    }

    fn act(&mut self, act: &Act) {
        let pair = &mut self.pair;
        match act {
            Act::RekeyChild(host) => pair.rekey_child(*host),
            Act::RekeyIke(host) => pair.rekey_ike(*host),
            Act::Reauthenticate(host) => pair.with(*host, |endpoint, now| endpoint.reauthenticate(now, PEER)),
            Act::Deliver(_) | Act::Duplicate(_) | Act::Drop(_) if pair.wire.is_empty() => {}
            Act::Deliver(index) => {
                let message = pair.wire.remove(usize::from(*index) % pair.wire.len()).unwrap();
                pair.deliver(message);
            }
            Act::Duplicate(index) => {
                let message = pair.wire[usize::from(*index) % pair.wire.len()].clone();
                pair.deliver(message);
            }
            Act::Drop(index) => {
                pair.wire.remove(usize::from(*index) % pair.wire.len());
            }
            Act::Pass(time) => {
                let time = self.patience.min(*time);
                self.patience -= time;
                pair.timers(Duration::from_millis(time));
            }
            Act::Traffic => {
                self.packets += 1;
                pair.traffic(self.packets);
            }
        }
    }

    /// The wire is good from now on.
    fn heal(&mut self) {
        self.pair.run();
        for _ in 0..300 {
            self.pair.pass(Duration::from_secs(1));
            self.packets += 1;
            self.pair.traffic(self.packets);
        }
        self.pair.assert_converged();
        let complete = |host: &Host| host.status(self.pair.now).state == PeerState::Up;
        assert!(self.pair.hosts.iter().all(complete), "all of it has a child SA");
        for host in [A, B] {
            self.pair.rekey_child(host);
            self.pair.run();
            self.pair.rekey_ike(host);
            self.pair.run();
        }
        self.pair.pass(Duration::from_secs(120));
        self.pair.assert_converged();
    }
}

/// With PROPTEST_CASES in the environment so many; tens of thousands find what hundreds do not.
fn configuration() -> ProptestConfig {
    let default = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { default.cases } else { 400 };
    ProptestConfig { cases, max_shrink_iters: 20_000, failure_persistence: None, ..default }
}

/// GRE or not, and VXLAN.
fn protects(gre: bool) -> Vec<Selector> {
    let vxlan = [Selector::UdpOut(4789), Selector::UdpIn(4789)];
    gre.then_some(Selector::Gre).into_iter().chain(vxlan).collect()
}

proptest! {
    #![proptest_config(configuration())]

    #[test]
    fn established_peers_converge_and_lose_nothing(acts in acts(120), seed: u64) {
        // Of IKE SAs that both have made at once, one is deleted after five seconds: by then both know of all
        let mut simulation = Simulation { pair: Pair::seeded_up(seed), packets: 0, patience: 4_500 };
        simulation.run(&acts);
        simulation.heal();
        prop_assert_eq!(simulation.pair.lost, 0);
    }

    #[test]
    fn several_kinds_of_traffic_lose_nothing(acts in acts(120), seed: u64, gre: bool) {
        let pair = Pair::seeded(seed).brought_up(|config| config.protects = protects(gre));
        let mut simulation = Simulation { pair, packets: 0, patience: 4_500 };
        simulation.run(&acts);
        simulation.heal();
        prop_assert_eq!(simulation.pair.lost, 0);
    }

    /// For a while, with lives of seconds: what is under way comes late and in any order, but within a second.
    #[test]
    fn short_lives_lose_nothing(acts in prop::collection::vec(acts(24), 1..16), seed: u64, several: Option<bool>) {
        let pair = Pair::seeded(seed).brought_up(|config| {
            config.protects = several.map_or_else(|| vec![Selector::Gre], protects);
            config.lifetimes.child = Duration::from_secs(5);
            config.lifetimes.ike = Duration::from_secs(15);
        });
        let mut simulation = Simulation { pair, packets: 0, patience: 0 };
        for acts in &acts {
            simulation.patience = 900;
            for act in acts.iter().filter(|act| !matches!(act, Act::Drop(_))) {
                simulation.act(act);
            }
            simulation.pair.timers(Duration::from_millis(simulation.patience));
            simulation.pair.run();
        }
        prop_assert_eq!(simulation.pair.lost, 0);
    }

    #[test]
    fn beginning_peers_converge(
        acts in acts(120), seed: u64, initiators in 1..4usize, several: Option<bool>,
    ) {
        let mut pair = Pair::seeded(seed);
        for host in [A, B] {
            let initiate = initiators & (1 << host) != 0;
            let protects = several.map_or_else(|| vec![Selector::Gre], protects);
            let config = config(ADDRESSES[host], ADDRESSES[1 - host]);
            pair.configure(host, ikev2::PeerConfig { initiate, protects, ..config });
        }
        let mut simulation = Simulation { pair, packets: 0, patience: u64::MAX };
        simulation.run(&acts);
        simulation.heal();
    }
}
