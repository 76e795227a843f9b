//! Two endpoints in memory: a fake clock, a wire whose every message is in the test's hands, and a mock of the datapath
//! that checks after each step that whatever one host sends the other can receive.
#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers fail as tests do")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ikev2::auth::{Credential, Psk, Trust};
use ikev2::crypto::{Protector, Rng};
use ikev2::proposal::{EspOffer, IkeOffer};
use ikev2::wire::{self, Exchange, Payload};
use ikev2::{
    Child, ChildId, ChildUse, Encapsulation, Endpoint, Event, IkeState, Lifetimes, Limits, Output, Path,
    PeerConfig, PeerId, PeerStatus, Selector,
};

/// 2026-06-01, within the year for which the certificates of `data/pki` are valid.
pub const UNIX_NOW: u64 = 1_780_272_000;
pub const PEER: PeerId = PeerId(1);

/// Seeded, and with nonces whose first octet a test may choose: they decide collisions.
#[derive(Debug, Clone)]
pub struct TestRng(Arc<Mutex<(u64, VecDeque<u8>)>>);

impl TestRng {
    pub fn new(seed: u64) -> TestRng {
        TestRng(Arc::new(Mutex::new((seed, VecDeque::new()))))
    }

    /// The next nonces begin with these octets.
    pub fn nonces(&self, first: &[u8]) {
        self.0.lock().unwrap().1.extend(first);
    }
}

impl Rng for TestRng {
    fn fill(&mut self, out: &mut [u8]) {
        let mut state = self.0.lock().unwrap();
        for byte in out.iter_mut() {
            // splitmix64
            state.0 = state.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            *byte = (z ^ (z >> 31)) as u8;
        }
        // Only nonces have this length
        if out.len() == 32
            && let Some(first) = state.1.pop_front()
        {
            out[0] = first;
        }
    }
}

/// A message under way.
#[derive(Debug, Clone)]
pub struct Message {
    pub from: usize,
    pub path: Path,
    pub datagram: Vec<u8>,
}

impl Message {
    pub fn exchange(&self) -> Exchange {
        wire::Header::peek(&self.datagram).unwrap().exchange
    }

    pub fn is_response(&self) -> bool {
        wire::Header::peek(&self.datagram).unwrap().response
    }
}

/// One end.
pub struct Host {
    pub endpoint: Endpoint,
    pub rng: TestRng,
    pub address: IpAddr,
    /// What the datapath would hold.
    pub installed: BTreeMap<ChildId, Child>,
    pub outbound: BTreeMap<Selector, ChildId>,
    /// Child SAs in the order in which they were sent by.
    pub used: Vec<ChildId>,
    pub up: BTreeSet<Selector>,
    pub events: Vec<Event>,
    pub keepalives: Vec<Path>,
}

impl Host {
    fn new(seed: u64, address: &str) -> Host {
        let rng = TestRng::new(seed);
        let endpoint = Endpoint::new(Box::new(rng.clone()), Limits::default());
        let address = address.parse().unwrap();
        Host {
            endpoint,
            rng,
            address,
            installed: BTreeMap::new(),
            outbound: BTreeMap::new(),
            used: Vec::new(),
            up: BTreeSet::new(),
            events: Vec::new(),
            keepalives: Vec::new(),
        }
    }

    pub fn status(&self, now: Instant) -> PeerStatus {
        self.endpoint
            .status(now)
            .into_iter()
            .find(|status| status.peer == PEER)
            .expect("the peer is configured")
    }

    /// Whether there is something to send by.
    pub fn is_up(&self) -> bool {
        !self.up.is_empty()
    }

    /// What GRE is sent by.
    pub fn sending(&self) -> Option<&Child> {
        self.outbound.get(&Selector::Gre).map(|id| &self.installed[id])
    }

    /// Troubles and reasons for being down, in order.
    pub fn complaints(&self) -> Vec<String> {
        let text = |event: &Event| match event {
            Event::Trouble(text) | Event::Down(_, text) => Some(text.clone()),
            _ => None,
        };
        self.events.iter().filter_map(text).collect()
    }
}

/// Both ends and the wire between.
pub struct Pair {
    pub hosts: [Host; 2],
    pub now: Instant,
    pub wire: VecDeque<Message>,
    /// A NAT before host 0: its address and port as the other sees them.
    pub nat: Option<SocketAddr>,
    /// Nothing that this host sends arrives.
    pub mute: [bool; 2],
    /// Prints what happens; set by PAIR_TRACE in the environment.
    pub trace: bool,
    /// Errors in the clear do not arrive.
    pub silent: bool,
    /// So many of all messages are lost.
    pub loss: f64,
    chance: TestRng,
    /// How often one host sent by an SA that the other did not have.
    pub lost: u32,
}

pub const A: usize = 0;
pub const B: usize = 1;
const NAMES: [&str; 2] = ["A", "B"];

pub fn psk(text: &str) -> Psk {
    Psk::new(text.as_bytes().to_vec()).unwrap()
}

pub fn config(local: &str, remote: &str) -> PeerConfig {
    PeerConfig {
        name: "gre0".to_owned(),
        local: Some(local.parse().unwrap()),
        remote: remote.parse().unwrap(),
        local_id: None,
        remote_id: None,
        credential: Credential::Psk(psk("thisisnotagoodpsk")),
        trust: Trust::Psk(psk("thisisnotagoodpsk")),
        ike: IkeOffer::default(),
        esp: EspOffer::default(),
        protects: vec![Selector::Gre],
        encapsulation: Encapsulation::Auto,
        lifetimes: Lifetimes::default(),
        liveness: Duration::from_secs(30),
        initiate: true,
    }
}

/// The same traffic as the other host sees it.
pub fn from_behind(traffic: Selector) -> Selector {
    match traffic {
        Selector::Gre => Selector::Gre,
        Selector::UdpOut(port) => Selector::UdpIn(port),
        Selector::UdpIn(port) => Selector::UdpOut(port),
    }
}

pub const ADDRESSES: [&str; 2] = ["10.9.0.1", "10.9.0.2"];

/// Deletes child SAs.
pub fn delete(spis: &[u32]) -> Payload {
    let spis = spis.iter().map(|spi| spi.to_be_bytes().to_vec()).collect();
    Payload::Delete(wire::Delete { protocol: wire::protocol::ESP, spis })
}

/// A notification without data.
pub fn notification(kind: u16) -> Payload {
    Payload::Notify(wire::Notify::new(kind, []))
}

/// Whether there is a notification of that kind.
pub fn notifies(payloads: &[Payload], kind: u16) -> bool {
    payloads.iter().any(|payload| matches!(payload, Payload::Notify(n) if n.kind == kind))
}

impl Pair {
    pub fn new() -> Pair {
        Pair::seeded(1)
    }

    pub fn seeded(seed: u64) -> Pair {
        let hosts = [Host::new(seed, ADDRESSES[A]), Host::new(!seed, ADDRESSES[B])];
        Pair {
            hosts,
            now: Instant::now(),
            wire: VecDeque::new(),
            nat: None,
            mute: [false; 2],
            silent: false,
            trace: std::env::var_os("PAIR_TRACE").is_some(),
            loss: 0.0,
            chance: TestRng::new(seed.wrapping_mul(77)),
            lost: 0,
        }
    }

    /// Both up, A having initiated.
    pub fn up() -> Pair {
        Pair::up_with(|_| {})
    }

    pub fn seeded_up(seed: u64) -> Pair {
        Pair::seeded(seed).brought_up(|_| {})
    }

    pub fn up_with(change: impl Fn(&mut PeerConfig)) -> Pair {
        Pair::new().brought_up(change)
    }

    /// Both up so configured, A having initiated.
    pub fn brought_up(self, change: impl Fn(&mut PeerConfig)) -> Pair {
        let mut pair = self;
        for (host, initiate) in [(B, false), (A, true)] {
            let mut config = config(ADDRESSES[host], ADDRESSES[1 - host]);
            change(&mut config);
            config.initiate = initiate;
            pair.configure(host, config);
        }
        pair.run();
        // From here on either may
        for host in [A, B] {
            let mut config = config(ADDRESSES[host], ADDRESSES[1 - host]);
            change(&mut config);
            pair.configure(host, config);
        }
        pair.assert_converged();
        pair
    }

    pub fn configure(&mut self, host: usize, config: PeerConfig) {
        self.hosts[host].endpoint.configure(self.now, PEER, config);
        self.drain(host);
    }

    /// Has a host do something, and carries out what it wants.
    pub fn with<T>(&mut self, host: usize, what: impl FnOnce(&mut Endpoint, Instant) -> T) -> T {
        let result = what(&mut self.hosts[host].endpoint, self.now);
        self.drain(host);
        result
    }

    /// Carries out what a host wants, as a driver does.
    fn drain(&mut self, from: usize) {
        while let Some(output) = self.hosts[from].endpoint.poll() {
            let host = &mut self.hosts[from];
            match output {
                Output::Transmit { path, datagram } => self.wire.push_back(Message { from, path, datagram }),
                Output::Keepalive(path) => host.keepalives.push(path),
                Output::Event(peer, event) => {
                    assert_eq!(peer, PEER);
                    if self.trace {
                        let event = format!("{event:?}").chars().take(100).collect::<String>();
                        println!("{} {event}", NAMES[from]);
                    }
                    host.take(event);
                }
            }
            self.flow();
        }
        for host in &self.hosts {
            host.assert_consistent(self.now);
        }
    }

    /// A packet each way: lost if the other end does not have the SA.
    fn flow(&mut self) {
        let flows: Vec<_> = [A, B]
            .into_iter()
            .flat_map(|from| self.hosts[from].outbound.iter().map(move |(traffic, id)| (from, *traffic, *id)))
            .filter(|(from, traffic, _)| self.hosts[1 - from].up.contains(&from_behind(*traffic)))
            .collect();
        for (from, _, id) in flows {
            let sa = &self.hosts[from].installed[&id];
            let received = self.hosts[1 - from].installed.values().any(|other| {
                other.inbound.spi == sa.outbound.spi && other.inbound.keymat == sa.outbound.keymat
            });
            self.lost += u32::from(!received);
            if self.trace && !received {
                println!(
                    "{} sends by {:04x} in vain\n{}",
                    NAMES[from],
                    sa.outbound.spi >> 16,
                    self.picture()
                );
            }
        }
    }

    /// Tells both what has passed by the SAs that they send by now: as many packets each way in all.
    pub fn traffic(&mut self, packets: u64) {
        let mut uses: [BTreeMap<ChildId, ChildUse>; 2] = Default::default();
        for from in [A, B] {
            for id in self.hosts[from].outbound.values() {
                let spi = self.hosts[from].installed[id].outbound.spi;
                let sent = uses[from].entry(*id).or_default();
                (sent.outbound_packets, sent.outbound_bytes) = (packets, 100 * packets);
                let to = self.hosts[1 - from].installed.values().find(|other| other.inbound.spi == spi);
                if let Some(to) = to {
                    let got = uses[1 - from].entry(to.id).or_default();
                    (got.inbound_packets, got.inbound_bytes) = (packets, 100 * packets);
                }
            }
        }
        for (host, uses) in uses.into_iter().enumerate() {
            for (id, traffic) in uses {
                self.with(host, |endpoint, now| endpoint.traffic(now, id, traffic));
            }
        }
    }

    /// Delivers one message.
    pub fn deliver(&mut self, message: Message) {
        let clear = wire::parse(&message.datagram).is_ok_and(|d| d.sealed.is_none());
        if self.silent && clear && message.exchange() != Exchange::SaInit {
            return;
        }
        if self.mute[message.from] || self.chance() < self.loss {
            return;
        }
        let to = 1 - message.from;
        let mut path = Path { local: message.path.remote, remote: message.path.local };
        if let Some(nat) = self.nat {
            match message.from {
                A => {
                    path.remote =
                        SocketAddr::new(nat.ip(), nat.port() + u16::from(path.remote.port() == 4500))
                }
                _ => {
                    let port = if message.path.remote.port() == nat.port() { 500 } else { 4500 };
                    path.local = SocketAddr::new(self.hosts[A].address, port);
                }
            }
        }
        if self.trace {
            println!("{} gets {}", NAMES[to], self.describe(&message));
        }
        self.with(to, |endpoint, now| endpoint.receive(now, UNIX_NOW, path, &message.datagram));
    }

    /// From 0 up to 1.
    pub fn chance(&mut self) -> f64 {
        let mut bytes = [0; 4];
        self.chance.fill(&mut bytes);
        f64::from(u32::from_be_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
    }

    /// The oldest message under way.
    pub fn take(&mut self) -> Message {
        self.wire.pop_front().expect("a message is under way")
    }

    /// The oldest message of one host under way.
    pub fn take_from(&mut self, from: usize) -> Message {
        let at = self.wire.iter().position(|m| m.from == from).expect("a message of that host is under way");
        self.wire.remove(at).unwrap()
    }

    /// Delivers the oldest message under way.
    pub fn step(&mut self) {
        let message = self.take();
        self.deliver(message);
    }

    /// Delivers the oldest message of one host under way.
    pub fn step_from(&mut self, from: usize) {
        let message = self.take_from(from);
        self.deliver(message);
    }

    /// Delivers until nothing is under way.
    pub fn run(&mut self) {
        for _ in 0..1000 {
            match self.wire.pop_front() {
                Some(message) => self.deliver(message),
                None => return,
            }
        }
        panic!("the two never stop talking");
    }

    /// Lets time pass and timers fire, while no message arrives.
    pub fn timers(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..10_000 {
            let next = self.hosts.iter().filter_map(|host| host.endpoint.timeout()).min();
            let Some(at) = next.filter(|at| *at <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(at);
            for host in [A, B] {
                self.with(host, |endpoint, now| endpoint.handle_timeout(now));
            }
            self.flow();
        }
        panic!("the timers never stop firing");
    }

    /// Lets time pass, timers fire and messages arrive.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..100_000 {
            self.run();
            let next = self.hosts.iter().filter_map(|host| host.endpoint.timeout()).min();
            match next.filter(|at| *at <= end) {
                Some(at) => {
                    self.now = self.now.max(at);
                    for host in [A, B] {
                        self.with(host, |endpoint, now| endpoint.handle_timeout(now));
                    }
                    self.flow();
                }
                None => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("the timers never stop firing");
    }

    /// Lets a second pass, so that times differ.
    pub fn tick(&mut self) {
        self.now += Duration::from_secs(1);
    }

    /// Drops the oldest message under way of a host.
    pub fn drop_from(&mut self, from: usize) {
        self.take_from(from);
    }

    /// Makes a host rekey its child SA.
    pub fn rekey_child(&mut self, host: usize) {
        self.with(host, |endpoint, now| endpoint.rekey_child(now, PEER));
    }

    /// Makes a host rekey its IKE SA.
    pub fn rekey_ike(&mut self, host: usize) {
        self.with(host, |endpoint, now| endpoint.rekey_ike(now, PEER));
    }

    /// A message in a line.
    fn describe(&self, message: &Message) -> String {
        let datagram = wire::parse(&message.datagram).unwrap();
        let header = datagram.header;
        let spi = u64::from_be_bytes(header.initiator_spi) >> 48;
        let kind = if header.response { "answer" } else { "request" };
        let secrets = self.hosts.iter().flat_map(|host| host.endpoint.secrets());
        let known =
            secrets.map(|s| (s.spi_i, s.spi_r)).any(|s| s == (header.initiator_spi, header.responder_spi));
        let payloads =
            if datagram.sealed.is_some() && known { self.open(message) } else { datagram.payloads };
        let name = |payload: &Payload| match payload {
            Payload::Notify(n) => format!("N{}", n.kind),
            Payload::Delete(d) => format!("D{:x?}", d.spis),
            Payload::Nonce(n) => format!("Nonce {:02x}", n[0]),
            other => format!("{other:?}").split('(').next().unwrap_or_default().to_owned(),
        };
        let payloads = payloads.iter().map(name).collect::<Vec<_>>().join(" ");
        format!("{spi:04x} {:?} {kind} {}: {payloads}", header.exchange, header.message_id)
    }

    /// What is in a sealed message.
    pub fn open(&self, message: &Message) -> Vec<Payload> {
        let datagram = wire::parse(&message.datagram).unwrap();
        let sealed = datagram.sealed.unwrap();
        let plain = self.protector(message).open(sealed.aad, sealed.body).unwrap();
        wire::parse_inner(sealed.first, &plain).unwrap()
    }

    /// The same message with another content, as if its sender meant that.
    pub fn substitute(&mut self, message: &Message, payloads: &[Payload]) -> Message {
        let header = wire::Header::peek(&message.datagram).unwrap();
        self.forge(message, header, payloads)
    }

    /// A message on the IKE SA and the path of another one.
    pub fn forge(&mut self, message: &Message, header: wire::Header, payloads: &[Payload]) -> Message {
        let (measure, mut protector) = (self.protector(message), self.protector(message));
        let rng = &mut self.hosts[message.from].rng;
        let len = |len| measure.body_len(len);
        let sealed = wire::encode_sealed(&header, payloads, usize::MAX, len, |aad, plain| {
            protector.seal(aad, plain, rng)
        });
        let [datagram] = sealed.try_into().expect("it is not split");
        Message { datagram, ..message.clone() }
    }

    fn protector(&self, message: &Message) -> Protector {
        let header = wire::Header::peek(&message.datagram).unwrap();
        let spis = (header.initiator_spi, header.responder_spi);
        let mut secrets = self.hosts.iter().flat_map(|host| host.endpoint.secrets());
        let secrets = secrets.find(|s| (s.spi_i, s.spi_r) == spis).expect("the IKE SA is known");
        let (e, a) = match header.initiator {
            true => (&secrets.sk_ei, &secrets.sk_ai),
            false => (&secrets.sk_er, &secrets.sk_ar),
        };
        Protector::new(&secrets.suite, e, a).unwrap()
    }

    /// An empty request of a host, to be substituted.
    pub fn ask(&mut self, from: usize) -> Message {
        let remote = self.hosts[1 - from].address;
        self.with(from, |endpoint, now| endpoint.unknown_spi(now, remote, 0x1234_5678));
        let at = self.wire.iter().rposition(|m| m.from == from && m.exchange() == Exchange::Informational);
        self.wire.remove(at.expect("it asks for a sign of life")).unwrap()
    }

    /// Has a host lose its child SA, as if the other had deleted it.
    pub fn lose_child(&mut self, host: usize) {
        let spi = self.spis(host).1;
        let request = self.ask(1 - host);
        let request = self.substitute(&request, &[delete(&[spi])]);
        self.deliver(request);
    }

    /// How many child SAs a host has installed in all.
    pub fn installs(&self, host: usize) -> usize {
        self.hosts[host].events.iter().filter(|event| matches!(event, Event::Install(_))).count()
    }

    /// SPIs of the child SA that a host sends by: its own and the peer's.
    pub fn spis(&self, host: usize) -> (u32, u32) {
        let child = self.hosts[host].sending().expect("it is up");
        (child.inbound.spi, child.outbound.spi)
    }

    /// SPIs of the IKE SA of a host that stands.
    pub fn ike(&self, host: usize) -> ([u8; 8], [u8; 8]) {
        let status = self.hosts[host].status(self.now);
        let open: Vec<_> = status
            .ike
            .iter()
            .filter(|ike| matches!(ike.state, IkeState::Established | IkeState::Rekeying))
            .collect();
        assert_eq!(open.len(), 1, "{:#?}", status.ike);
        (open[0].spi_i, open[0].spi_r)
    }

    /// All that is superfluous has gone, and in all this time no packet was lost.
    pub fn assert_settled(&mut self) {
        self.pass(Duration::from_secs(120));
        self.assert_unharmed();
    }

    /// Both have converged, and have never been down nor lost a packet.
    pub fn assert_unharmed(&self) {
        self.assert_converged();
        assert_eq!(self.lost, 0, "packets were lost");
        for host in &self.hosts {
            let downs: Vec<_> = host.events.iter().filter(|event| matches!(event, Event::Down(..))).collect();
            assert!(downs.is_empty(), "{downs:?}");
        }
    }

    /// Both are up with one IKE SA and one child SA, the same ones, and can talk both ways.
    pub fn assert_converged(&self) {
        let [a, b] = [&self.hosts[A], &self.hosts[B]];
        let [sa, sb] = [a.status(self.now), b.status(self.now)];
        let picture = self.picture();
        assert_eq!((sa.ike.len(), sb.ike.len()), (1, 1), "one IKE SA\n{picture}");
        assert_eq!((sa.ike[0].spi_i, sa.ike[0].spi_r), (sb.ike[0].spi_i, sb.ike[0].spi_r), "{picture}");
        let (up, there) = (&a.up, b.up.iter().map(|traffic| from_behind(*traffic)).collect::<BTreeSet<_>>());
        assert_eq!(*up, there, "{picture}");
        assert!(!up.is_empty());
        let counts = [a.installed.len(), b.installed.len(), sa.children.len(), sb.children.len()];
        assert_eq!(counts, [up.len(); 4], "one child SA for each kind of traffic\n{picture}");
        up.iter().for_each(|traffic| self.assert_same(*traffic));
    }

    /// Both send that by the same child SA.
    fn assert_same(&self, traffic: Selector) {
        let [a, b] = [&self.hosts[A], &self.hosts[B]];
        let picture = self.picture();
        let ca = &a.installed[&a.outbound[&traffic]];
        let cb = &b.installed[&b.outbound[&from_behind(traffic)]];
        assert_eq!((ca.selector, cb.selector), (traffic, from_behind(traffic)));
        assert_eq!((ca.outbound.spi, ca.inbound.spi), (cb.inbound.spi, cb.outbound.spi), "{picture}");
        assert_eq!((&ca.outbound.keymat, &ca.inbound.keymat), (&cb.inbound.keymat, &cb.outbound.keymat));
        assert_eq!((ca.suite, ca.local, ca.remote), (cb.suite, cb.remote, cb.local));
    }

    /// All SAs, a line each.
    pub fn picture(&self) -> String {
        let mut lines = Vec::new();
        for (host, name) in self.hosts.iter().zip(NAMES) {
            let status = host.status(self.now);
            for ike in status.ike {
                let (i, r) = (u64::from_be_bytes(ike.spi_i) >> 48, u64::from_be_bytes(ike.spi_r) >> 48);
                let began = if ike.initiator { "ours" } else { "theirs" };
                lines.push(format!("{name} IKE {i:04x} {r:04x} {began} {:?} {:?} old", ike.state, ike.age));
            }
            for child in status.children {
                let (i, o) = (child.spi_in >> 16, child.spi_out >> 16);
                let used = if child.outbound { "used" } else { "" };
                let (state, age, traffic) = (child.state, child.age, child.selector);
                lines.push(format!("{name} ESP {i:04x} {o:04x} {traffic} {state:?} {age:?} old {used}"));
            }
        }
        lines.join("\n")
    }
}

impl Host {
    fn take(&mut self, event: Event) {
        match &event {
            Event::Install(child) => {
                if child.use_outbound {
                    self.outbound.insert(child.selector, child.id);
                    self.used.push(child.id);
                }
                let spi = child.inbound.spi;
                assert!(
                    self.installed.values().all(|other| other.inbound.spi != spi),
                    "an SPI is used twice"
                );
                assert!(self.installed.insert(child.id, child.clone()).is_none());
            }
            Event::UseOutbound(id) => {
                let child = self.installed.get(id).expect("it is installed");
                self.outbound.insert(child.selector, *id);
                self.used.push(*id);
            }
            Event::Moved(id, ports) => {
                self.installed.get_mut(id).expect("it is installed").udp = Some(*ports);
            }
            Event::Remove(id) => {
                assert!(self.installed.remove(id).is_some(), "{id} is removed twice");
                self.outbound.retain(|_, sending| sending != id);
            }
            Event::Up(traffic) => {
                assert!(self.up.insert(*traffic) && self.outbound.contains_key(traffic));
            }
            Event::Down(traffic, _) => {
                let sends = self.outbound.contains_key(traffic);
                assert!(self.up.remove(traffic) && !sends, "down with an SA to send by");
            }
            Event::Trouble(_) => {}
        }
        self.events.push(event);
    }

    fn assert_consistent(&self, now: Instant) {
        assert!(self.up.iter().eq(self.outbound.keys()), "up and able to send are the same");
        for status in self.endpoint.status(now) {
            let known: Vec<_> = status.children.iter().map(|child| child.id).collect();
            let installed: Vec<_> = self.installed.keys().copied().collect();
            assert_eq!(known, installed, "what the endpoint knows is what is installed");
            let sending = status.children.iter().filter(|child| child.outbound);
            let sending: BTreeMap<_, _> = sending.map(|child| (child.selector, child.id)).collect();
            assert_eq!(sending, self.outbound);
        }
    }
}
