//! Finds loops of one bridge that has no spanning tree. No I/O: it is told of time, of addresses that move and of probes that
//! came, and says which probes to send and which ports to open the loops at.
//!
//! 1. Where addresses move between ports as they do when frames go round, the ports are suspected, for a while. 2. Suspected
//!    ports send probes. 3. Several that come back in the VLAN they were sent in, by another port that frames may pass to, are
//!    taken for the proof of a loop; nothing else is. 4. A moment later, unless a switch that comes before us says that it has found a
//!    loop, too, and opens it, one of the two ports is closed: the one with the higher number, which was added later.
//!    5. A closed port goes on sending probes, and is opened when none has come back for a while.
//!
//! Everybody hears probes, so each has a seal that nobody can make who has not the guard's key: a station cannot feign one that says
//! it left by another port. But stations at both ports who work together can carry probes from one to the other, and be taken for a loop. They carry none any
//! more once that has cut them off, and the port is opened again; where they are to be feared, the operator exempts ports.
//!
//! A probe that comes back by the very port that it left by tells of a loop behind that port, where closing it would cut a
//! segment off, and anybody on the segment can feign it. It is told of, and nothing more.

use std::collections::{BTreeMap, BTreeSet};

use datapath::snapshot::PortId;
use datapath::wire::loopback::{Finding, Probe, Seal};
use ring::hmac;

/// Milliseconds of a steady clock.
pub type Millis = u64;

/// How often it wants to be asked for probes while there is something to look into.
pub const PERIOD: Millis = 250;
/// So many moves from one look to the next are suspicious. Stations that roam and machines that migrate move once each.
pub const RESTLESS: u64 = 10;
/// For how long a suspicion stands.
const SUSPICION: Millis = 3_000;
/// The longest that a probe may have been under way.
const FRESH: Millis = 1_000;
/// So many must have come back.
const PROOF: u32 = 3;
/// From the first proof of a loop to its opening: others have found it, too, and one is enough to open it.
const MOMENT: Millis = 3 * PERIOD;
/// A proof holds for so long; who waits for another must not act on what that other has ended.
const RECENT: Millis = 4 * PERIOD;
/// For how long one who comes before us has the say, and for how long at most. Longer than a proof holds.
const PRECEDENCE: (Millis, Millis) = (2_000, 10_000);
/// A loop from which no probe has come back for so long is no more.
const GONE: Millis = 3_000;

/// A port in a VLAN.
pub type Place = (PortId, u16);

/// A port as the guard needs to know it.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    /// Its number; None: it must not be closed.
    pub rank: Option<u16>,
}

/// What is done about a loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loop {
    /// Frames that leave by the port come back by this one.
    pub back: PortId,
    /// The VLAN in which they do.
    pub vlan: u16,
    /// The port is closed.
    pub closed: bool,
    /// When that was last seen.
    seen: Millis,
}

/// The guard of one bridge.
#[derive(Debug)]
pub struct Guard {
    /// What its probes go by.
    pub switch: u64,
    key: hmac::Key,
    /// Until when places are suspected.
    suspects: BTreeMap<Place, Millis>,
    /// Loops that are found but not opened: the ports, and where they are to be opened.
    found: BTreeMap<(PortId, PortId), Found>,
    /// By the port that is closed, or told of.
    loops: BTreeMap<PortId, Loop>,
    /// Until when another has the say.
    deferred: Millis,
}

#[derive(Debug, Clone, Copy)]
struct Found {
    vlan: u16,
    first: Millis,
    last: Millis,
    /// When the newest probe that came back was sent, and how many there were, those sent at one time counted once.
    sent: Millis,
    probes: u32,
}

impl Guard {
    /// Nothing is suspected yet.
    pub fn new(switch: u64, secret: [u8; 32]) -> Guard {
        Guard {
            switch,
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            suspects: BTreeMap::new(),
            found: BTreeMap::new(),
            loops: BTreeMap::new(),
            deferred: 0,
        }
    }

    /// So many addresses have moved since the last look, from and to these places.
    pub fn moved(&mut self, moves: u64, places: impl IntoIterator<Item = Place>, now: Millis) {
        if moves >= RESTLESS {
            self.suspects.extend(places.into_iter().map(|place| (place, now + SUSPICION)));
        }
    }

    /// Whether there is anything to look into.
    pub fn is_busy(&self) -> bool {
        !self.suspects.is_empty() || !self.loops.is_empty()
    }

    /// The probes that are due, each with the place to send it by.
    pub fn probes(&self, now: Millis) -> Vec<(PortId, Probe)> {
        let probe = |(port, vlan): Place, finding| {
            let seal = Seal::default();
            let probe = Probe { switch: self.switch, port: port.0, vlan, sent: now, finding, seal };
            (port, Probe { seal: self.seal(&probe), ..probe })
        };
        let (closed, told): (Vec<_>, Vec<_>) = self.loops.iter().partition(|(_, known)| known.closed);
        let told = told.into_iter().map(|(port, known)| (*port, known.vlan));
        let open: BTreeSet<Place> = self.suspects.keys().copied().chain(told).collect();
        let open = open.into_iter().filter(|(port, _)| !self.loops.get(port).is_some_and(|l| l.closed));
        let open = open.map(|place| {
            let about_to = |(a, b): &(PortId, PortId), f: &Found| {
                a != b && f.vlan == place.1 && [*a, *b].contains(&place.0)
            };
            let found = self.found.iter().any(|(pair, found)| about_to(pair, found));
            probe(place, if found { Finding::Found } else { Finding::Suspects })
        });
        let closed = closed.into_iter().map(|(port, known)| probe((*port, known.vlan), Finding::Holds));
        open.chain(closed).collect()
    }

    fn seal(&self, probe: &Probe) -> Seal {
        let tag = hmac::sign(&self.key, &probe.statement());
        tag.as_ref().first_chunk().copied().unwrap_or_default()
    }

    /// A probe came in by `port`, in a VLAN. `joined`: frames may pass from the one port to the other.
    pub fn receive(
        &mut self,
        port: PortId,
        vlan: u16,
        probe: &Probe,
        joined: impl Fn(PortId, PortId) -> bool,
        now: Millis,
    ) {
        if probe.switch != self.switch {
            if probe.finding == Finding::Found && probe.switch < self.switch {
                self.deferred = now + PRECEDENCE.0;
            }
            return;
        }
        let sent_by = PortId(probe.port);
        let fresh = probe.sent <= now && now - probe.sent <= FRESH;
        if !fresh || probe.vlan != vlan || probe.seal != self.seal(probe) {
            return;
        }
        if let Some(known) = [sent_by, port].iter().find(|end| self.closes(**end, sent_by, port)).copied() {
            if let Some(known) = self.loops.get_mut(&known) {
                known.seen = now;
            }
        } else if sent_by == port || joined(sent_by, port) {
            let pair = (sent_by.min(port), sent_by.max(port));
            let new = Found { vlan, first: now, last: now, sent: probe.sent, probes: 1 };
            let found = self.found.entry(pair).or_insert(new);
            found.last = now;
            found.probes += u32::from(probe.sent > found.sent);
            found.sent = found.sent.max(probe.sent);
        }
    }

    /// Whether the loop from one port to another is known by what was done at `end`.
    fn closes(&self, end: PortId, from: PortId, to: PortId) -> bool {
        self.loops.get(&end).is_some_and(|known| (from == to) == (known.back == end))
    }

    /// Opens loops that are proved, and forgets what is over. True: something has changed. `candidate` tells of ports; None:
    /// there is no such port any more.
    pub fn decide(&mut self, candidate: impl Fn(PortId) -> Option<Candidate>, now: Millis) -> bool {
        let before = self.loops.clone();
        self.suspects.retain(|(port, _), until| *until > now && candidate(*port).is_some());
        // one that must not be closed any more is open
        let stands = |port, closed: bool| candidate(port).is_some_and(|c| !closed || c.rank.is_some());
        self.loops.retain(|port, known| now.saturating_sub(known.seen) < GONE && stands(*port, known.closed));
        self.found.retain(|_, found| now.saturating_sub(found.last) < RECENT);
        let mut open = Vec::new();
        for (pair, found) in &self.found {
            let waited = now.saturating_sub(found.first);
            if waited >= MOMENT && found.probes >= PROOF && (now >= self.deferred || waited >= PRECEDENCE.1) {
                open.push((*pair, *found));
            }
        }
        for ((a, b), found) in open {
            self.found.remove(&(a, b));
            // one that was closed meanwhile has opened this loop as well
            let closed = |port| self.loops.get(&port).is_some_and(|l: &Loop| l.closed);
            if closed(a) || closed(b) {
                continue;
            }
            if a == b {
                // behind two ports of ours that are in a loop themselves that is no wonder
                if !self.found.keys().any(|(c, d)| [c, d].contains(&&a)) {
                    let told = Loop { back: a, vlan: found.vlan, closed: false, seen: now };
                    self.loops.entry(a).or_insert(told);
                }
                continue;
            }
            let rank = |port| candidate(port).and_then(|c| c.rank);
            let (port, back) = if rank(a) > rank(b) { (a, b) } else { (b, a) };
            let known = Loop { back, vlan: found.vlan, closed: rank(port).is_some(), seen: now };
            self.loops.insert(port, known);
        }
        let shape = |loops: &BTreeMap<PortId, Loop>| -> Vec<_> {
            loops.iter().map(|(port, l)| (*port, l.back, l.closed)).collect()
        };
        shape(&before) != shape(&self.loops)
    }

    /// What was found of a port holds no more.
    pub fn forget(&mut self, port: PortId) {
        self.suspects.retain(|(at, _), _| *at != port);
        self.found.retain(|(a, b), _| *a != port && *b != port);
        self.loops.retain(|at, known| *at != port && known.back != port);
    }

    /// What is known of loops, by the port that is closed or told of.
    pub fn loops(&self) -> &BTreeMap<PortId, Loop> {
        &self.loops
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Guard {
        fn signed(&self, probe: &Probe) -> Probe {
            Probe { seal: self.seal(probe), ..*probe }
        }
    }

    /// (bridge, port); port numbers are ranks.
    type End = (usize, u16);

    /// Bridges joined by wires.
    struct Net {
        guards: Vec<Guard>,
        wires: Vec<(End, End)>,
        ports: u16,
        now: Millis,
    }

    impl Net {
        fn new(switches: &[u64], wires: &[(End, End)]) -> Net {
            let guards = switches.iter().map(|switch| Guard::new(*switch, [*switch as u8; 32])).collect();
            Net { guards, wires: wires.to_vec(), ports: 4, now: 1000 }
        }

        fn closed(&self, bridge: usize, port: u16) -> bool {
            self.guards[bridge].loops().get(&PortId(port)).is_some_and(|l| l.closed)
        }

        fn all_closed(&self) -> Vec<(usize, u16)> {
            let at = |(i, guard): (usize, &Guard)| {
                guard
                    .loops()
                    .iter()
                    .filter(|(_, l)| l.closed)
                    .map(move |(port, _)| (i, port.0))
                    .collect::<Vec<_>>()
            };
            self.guards.iter().enumerate().flat_map(at).collect()
        }

        /// Where a frame that leaves a bridge by a port is heard: it goes on by every port that is not closed, once.
        fn heard(&self, from: (usize, u16)) -> Vec<(usize, u16)> {
            let (mut heard, mut leaving) = (Vec::new(), vec![from]);
            while let Some(end) = leaving.pop() {
                for (a, b) in &self.wires {
                    let other = if *a == end {
                        b
                    } else if *b == end {
                        a
                    } else {
                        continue;
                    };
                    if heard.contains(other) {
                        continue;
                    }
                    heard.push(*other);
                    // its sender does not send its own probe on
                    if other.0 != from.0 && !self.closed(other.0, other.1) {
                        let on = (0..self.ports).filter(|p| *p != other.1 && !self.closed(other.0, *p));
                        leaving.extend(on.map(|port| (other.0, port)));
                    }
                }
            }
            heard
        }

        /// One round: addresses move where there is a loop.
        fn step(&mut self, restless: bool) {
            self.now += PERIOD;
            let now = self.now;
            for i in 0..self.guards.len() {
                if restless {
                    let places: Vec<Place> = (0..self.ports).map(|p| (PortId(p), 0)).collect();
                    self.guards[i].moved(RESTLESS, places, now);
                }
                for (port, probe) in self.guards[i].probes(now) {
                    for (bridge, by) in self.heard((i, port.0)) {
                        self.guards[bridge].receive(PortId(by), 0, &probe, |_, _| true, now);
                    }
                }
            }
            for guard in &mut self.guards {
                guard.decide(|port| Some(Candidate { rank: Some(port.0) }), now);
            }
        }
    }

    #[test]
    fn two_links_between_two_one_is_closed_by_one_of_them() {
        let mut net = Net::new(&[7, 5], &[((0, 1), (1, 2)), ((0, 2), (1, 1))]);
        (0..40).for_each(|_| net.step(true));
        // the one that comes first opened it, at the port added last
        assert_eq!(net.all_closed(), [(1, 2)]);
        // and it stays so for as long as the loop is there, with nothing else to see
        (0..100).for_each(|_| net.step(false));
        assert_eq!(net.all_closed(), [(1, 2)]);
        net.wires.pop();
        (0..30).for_each(|_| net.step(false));
        assert!(net.all_closed().is_empty() && !net.guards[1].is_busy());
    }

    #[test]
    fn rings_and_meshes_are_opened_and_nobody_is_cut_off() {
        let ring = [((0, 1), (1, 0)), ((1, 1), (2, 0)), ((2, 1), (0, 0))];
        let chord = [((0, 2), (1, 2)), ((1, 3), (2, 3)), ((0, 3), (2, 2))];
        for switches in [[1, 2, 3], [3, 1, 2], [2, 3, 1]] {
            for wires in [ring.to_vec(), [ring, chord].concat()] {
                let mut net = Net::new(&switches, &wires);
                (0..200).for_each(|_| net.step(true));
                for from in 0..3 {
                    let everywhere: Vec<usize> = (0..net.ports)
                        .filter(|port| !net.closed(from, *port))
                        .flat_map(|port| net.heard((from, port)))
                        .filter(|(bridge, port)| !net.closed(*bridge, *port))
                        .map(|(bridge, _)| bridge)
                        .collect();
                    assert!(
                        !everywhere.contains(&from),
                        "{switches:?}: back at {from}: {:?}",
                        net.all_closed()
                    );
                    assert!((0..3).all(|b| b == from || everywhere.contains(&b)), "{:?}", net.all_closed());
                }
            }
        }
    }

    #[test]
    fn nothing_but_a_probe_that_came_back_closes_a_port() {
        let mut net = Net::new(&[1, 2], &[((0, 1), (1, 1))]);
        (0..100).for_each(|_| net.step(true));
        assert!(net.all_closed().is_empty() && net.guards[0].loops().is_empty());
        let guard = &mut net.guards[0];
        let probe = guard.probes(net.now)[0].1;
        let cases = [
            Probe { vlan: 9, ..probe },
            Probe { sent: net.now + 1, ..probe },
            Probe { sent: net.now - FRESH - 1, ..probe },
            Probe { switch: 9, ..probe },
            Probe { port: 2, ..probe },
            Guard::new(1, [9; 32]).signed(&probe),
        ];
        for probe in cases {
            guard.receive(PortId(3), 0, &probe, |_, _| true, net.now);
        }
        // and between ports that are kept apart it goes no further
        guard.receive(PortId(3), 0, &probe, |_, _| false, net.now);
        assert!(guard.found.is_empty());
        // few moves are none
        let mut calm = Guard::new(1, [0; 32]);
        calm.moved(RESTLESS - 1, [(PortId(1), 0)], 0);
        assert!(!calm.is_busy() && calm.probes(0).is_empty());
    }

    #[test]
    fn what_comes_back_by_its_own_port_is_told_of() {
        let mut guard = Guard::new(1, [0; 32]);
        guard.moved(RESTLESS, [(PortId(1), 0)], 0);
        let (_, probe) = guard.probes(0)[0];
        guard.receive(PortId(1), 0, &probe, |_, _| false, 1);
        let candidate = |_| Some(Candidate { rank: Some(1) });
        assert!(!guard.decide(candidate, MOMENT + 1), "one may be a moment of other switches");
        for sent in [250, 500] {
            let probe = guard.signed(&Probe { sent, ..probe });
            guard.receive(PortId(1), 0, &probe, |_, _| false, sent + 1);
        }
        assert!(!guard.decide(candidate, MOMENT) && guard.decide(candidate, MOMENT + 1));
        let told = Loop { back: PortId(1), vlan: 0, closed: false, seen: MOMENT + 1 };
        assert_eq!(guard.loops()[&PortId(1)], told);
        assert_eq!(guard.probes(1000)[0].1.finding, Finding::Suspects);
        let probe = guard.signed(&Probe { sent: 1000, ..probe });
        guard.receive(PortId(1), 0, &probe, |_, _| false, 1000);
        assert!(!guard.decide(candidate, 999 + GONE));
        assert!(guard.decide(candidate, 1000 + GONE) && guard.loops().is_empty());
        // the bridge's own port is never closed
        guard.moved(RESTLESS, [(PortId(1), 0)], 10_000);
        for now in [10_000, 10_250, 10_500] {
            let (_, probe) = guard.probes(now)[0];
            // twice: a copy proves nothing
            (0..2).for_each(|_| guard.receive(PortId(2), 0, &probe, |_, _| true, now));
        }
        let local = |port: PortId| Some(Candidate { rank: (port.0 == 1).then_some(1) });
        guard.decide(local, 10_000 + MOMENT);
        assert!(guard.loops()[&PortId(1)].closed && guard.loops().len() == 1);
        // the operator exempts it
        let mut exempt = Guard { loops: guard.loops.clone(), ..Guard::new(1, [0; 32]) };
        assert!(
            exempt.decide(|_| Some(Candidate { rank: None }), 10_000 + MOMENT) && exempt.loops().is_empty()
        );
        // and a port that goes takes its loop with it
        assert!(guard.decide(|_| None, 10_000 + MOMENT) && guard.loops().is_empty());
    }
}
