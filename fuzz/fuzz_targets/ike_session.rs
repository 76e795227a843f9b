//! Two IKE endpoints, and between them somebody who can do anything: lose, double, change and forge messages, also such as
//! are correctly sealed, at any time. Whatever is said, both come through, and once they are left in peace they agree
//! again.
//!
//! Input: a series of acts, see `Wire::act`. Lengths are one byte.
#![no_main]

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use ikev2::auth::{Credential, Psk, Trust};
use ikev2::crypto::{Protector, Rng};
use ikev2::proposal::{Encr, EspOffer, Group, IkeOffer, Prf};
use ikev2::wire::{self, Exchange, HEADER_LEN, Header, kind};
use ikev2::{
    Child, ChildId, ChildUse, Encapsulation, Endpoint, Event, IkeSecrets, Lifetimes, Limits, Output, Path,
    PeerConfig, PeerId, Selector,
};
use libfuzzer_sys::fuzz_target;

const PEER: PeerId = PeerId(1);
const SELECTORS: [Selector; 3] = [Selector::Gre, Selector::UdpOut(4789), Selector::UdpIn(4789)];
const UNIX_NOW: u64 = 1_800_000_000;
const ADDRESSES: [&str; 2] = ["10.9.0.1:500", "10.9.0.2:500"];

fuzz_target!(|data: &[u8]| {
    let mut wire = Wire::new();
    let mut input = data;
    for _ in 0..64 {
        if wire.act(&mut input).is_none() {
            break;
        }
    }
    wire.leave_in_peace();
});

struct Wire {
    now: Instant,
    hosts: [Host; 2],
    messages: VecDeque<Message>,
    packets: u64,
}

struct Host {
    endpoint: Endpoint,
    installed: BTreeMap<ChildId, Child>,
    outbound: BTreeMap<Selector, ChildId>,
}

#[derive(Clone)]
struct Message {
    to: usize,
    path: Path,
    bytes: Vec<u8>,
}

/// splitmix64
struct TestRng(u64);

impl Rng for TestRng {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            *byte = ((z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 56) as u8;
        }
    }
}

impl Wire {
    /// Both begin at once.
    fn new() -> Wire {
        let host = |seed| Host {
            endpoint: Endpoint::new(Box::new(TestRng(seed)), Limits::default()),
            installed: BTreeMap::new(),
            outbound: BTreeMap::new(),
        };
        let hosts = [host(1), host(2)];
        let mut wire = Wire { now: Instant::now(), hosts, messages: VecDeque::new(), packets: 0 };
        for host in [0, 1] {
            wire.with(host, |endpoint, now| endpoint.configure(now, PEER, config(host)));
        }
        wire
    }

    /// One thing that may happen; None at the end of the input.
    fn act(&mut self, input: &mut &[u8]) -> Option<()> {
        let act = byte(input)?;
        let host = usize::from(act >> 7);
        match act & 0x0f {
            // messages on their way: the oldest to a host arrives, stays and arrives, or is lost
            0 | 1 => self.take(host).into_iter().for_each(|message| self.deliver(&message)),
            2 => self.messages.front().cloned().into_iter().for_each(|message| self.deliver(&message)),
            3 => drop(self.take(host)),
            4 => self.run(),
            // it arrives with a byte changed, or with another content, correctly sealed
            5 => {
                let (at, mask) = (usize::from(byte(input)?), byte(input)?);
                let mut message = self.take(host)?;
                if let Some(byte) = message.bytes.get_mut(at) {
                    *byte ^= mask;
                }
                self.deliver(&message);
            }
            6 => {
                let (first, plain) = (byte(input)?, bytes(input)?);
                let message = self.take(host)?;
                let header = Header::peek(&message.bytes)?;
                let bytes = self.seal(&header, first, plain)?;
                self.deliver(&Message { bytes, ..message });
            }
            // a message from nowhere: any bytes, any payloads in the clear, any payloads sealed
            7 => {
                let bytes = bytes(input)?.to_vec();
                self.deliver(&Message { to: host, path: path(1 - host), bytes });
            }
            8 => {
                let header = self.header(host, input)?;
                let bytes = clear(&header, byte(input)?, bytes(input)?);
                self.deliver(&Message { to: host, path: path(1 - host), bytes });
            }
            9 | 10 => {
                let header = self.header(host, input)?;
                let bytes = self.seal(&header, byte(input)?, bytes(input)?)?;
                self.deliver(&Message { to: host, path: path(1 - host), bytes });
            }
            // time passes, or the operator or the datapath wants something
            11 => {
                let tenths = u64::from(byte(input)?);
                self.pass(Duration::from_millis(100 * tenths * tenths));
            }
            12 => self.traffic(),
            13 => self.with(host, |endpoint, now| endpoint.rekey_child(now, PEER)),
            14 => self.with(host, |endpoint, now| endpoint.rekey_ike(now, PEER)),
            _ => match byte(input)? {
                0 => self.with(host, |endpoint, now| endpoint.remove(now, PEER)),
                1 => self.with(host, |endpoint, now| endpoint.configure(now, PEER, config(host))),
                2 => self.with(host, |endpoint, now| endpoint.initiate(now, PEER)),
                3 => self.with(host, |endpoint, now| endpoint.unknown_spi(now, path(1 - host).local.ip(), 7)),
                // one bit for each kind of traffic: it is, or is not, to be protected any more
                bits @ 0xf8.. => {
                    let kinds = SELECTORS.iter().enumerate().filter(|(i, _)| bits >> i & 1 != 0);
                    let protects = kinds.map(|(_, selector)| *selector).collect();
                    let config = PeerConfig { protects, ..config(host) };
                    self.with(host, |endpoint, now| endpoint.configure(now, PEER, config));
                }
                _ => self.with(host, |endpoint, now| endpoint.reauthenticate(now, PEER)),
            },
        }
        Some(())
    }

    /// A header of a message to `to`, mostly one that it must take seriously.
    fn header(&self, to: usize, input: &mut &[u8]) -> Option<Header> {
        let (which, flags, message_id) = (byte(input)?, byte(input)?, byte(input)?);
        let all = self.hosts[1 - to].endpoint.secrets();
        let sa = all.get(usize::from(which) % all.len().max(1));
        let (initiator_spi, responder_spi) = sa.map_or(([7; 8], [0; 8]), |sa| (sa.spi_i, sa.spi_r));
        Some(Header {
            initiator_spi,
            responder_spi: if flags & 4 != 0 { [0; 8] } else { responder_spi },
            exchange: Exchange::from_id(34 + (flags >> 4) % 6),
            initiator: flags & 1 != 0,
            response: flags & 2 != 0,
            message_id: message_id.into(),
        })
    }

    /// As whoever knows the keys would do it.
    fn seal(&mut self, header: &Header, first: u8, plain: &[u8]) -> Option<Vec<u8>> {
        let secrets = self.hosts.iter().flat_map(|host| host.endpoint.secrets());
        let mine = |s: &IkeSecrets| (s.spi_i, s.spi_r) == (header.initiator_spi, header.responder_spi);
        let secrets = secrets.into_iter().find(mine)?;
        let (e, a) = match header.initiator {
            true => (&secrets.sk_ei, &secrets.sk_ai),
            false => (&secrets.sk_er, &secrets.sk_ar),
        };
        let mut protector = Protector::new(&secrets.suite, e, a).expect("keys of the suite");
        let body = protector.body_len(plain.len());
        let mut message = clear(header, kind::SK, &[]);
        message.extend_from_slice(&[first, 0]);
        message.extend_from_slice(&u16::try_from(4 + body).ok()?.to_be_bytes());
        set_length(&mut message, HEADER_LEN + 4 + body);
        let sealed = protector.seal(&message, plain, &mut TestRng(3));
        message.extend_from_slice(&sealed);
        Some(message)
    }

    fn take(&mut self, to: usize) -> Option<Message> {
        let at = self.messages.iter().position(|message| message.to == to)?;
        self.messages.remove(at)
    }

    fn deliver(&mut self, message: &Message) {
        let path = Path { local: message.path.remote, remote: message.path.local };
        self.with(message.to, |endpoint, now| endpoint.receive(now, UNIX_NOW, path, &message.bytes));
    }

    fn with(&mut self, from: usize, what: impl FnOnce(&mut Endpoint, Instant)) {
        what(&mut self.hosts[from].endpoint, self.now);
        while let Some(output) = self.hosts[from].endpoint.poll() {
            match output {
                Output::Transmit { path, datagram } => {
                    wire::parse(&datagram).expect("what is sent is well-formed");
                    self.messages.push_back(Message { to: 1 - from, path, bytes: datagram });
                }
                Output::Keepalive(_) => {}
                Output::Event(_, event) => self.hosts[from].take(event),
            }
        }
        assert!(self.hosts[from].installed.len() <= 64);
        self.messages.truncate(256);
    }

    fn run(&mut self) {
        for _ in 0..300 {
            let Some(message) = self.messages.pop_front() else { return };
            self.deliver(&message);
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..5000 {
            let next = self.hosts.iter().filter_map(|host| host.endpoint.timeout()).min();
            let Some(at) = next.filter(|at| *at <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(at);
            for host in [0, 1] {
                self.with(host, |endpoint, now| endpoint.handle_timeout(now));
            }
        }
        panic!("the timers never stop firing");
    }

    /// A packet each way.
    fn traffic(&mut self) {
        self.packets += 1;
        let mut uses = [BTreeMap::<ChildId, ChildUse>::new(), BTreeMap::new()];
        for from in [0, 1] {
            for sa in self.hosts[from].sending() {
                uses[from].entry(sa.id).or_default().outbound_packets = self.packets;
                if let Some(other) = self.hosts[1 - from].receiving(sa) {
                    uses[1 - from].entry(other.id).or_default().inbound_packets = self.packets;
                }
            }
        }
        for (host, uses) in uses.into_iter().enumerate() {
            for (id, traffic) in uses {
                self.with(host, |endpoint, now| endpoint.traffic(now, id, traffic));
            }
        }
    }

    /// Nobody interferes any more: within minutes packets flow both ways.
    fn leave_in_peace(&mut self) {
        for host in [0, 1] {
            self.with(host, |endpoint, now| endpoint.configure(now, PEER, config(host)));
        }
        for _ in 0..200 {
            for _ in 0..5 {
                self.run();
                self.pass(Duration::from_millis(200));
            }
            self.pass(Duration::from_secs(4));
            self.traffic();
            self.run();
            if self.agree() {
                break;
            }
        }
        for host in &self.hosts {
            host.endpoint.status(self.now);
        }
        assert!(self.agree(), "what one sends the other can receive");
    }

    /// Whether packets flow both ways.
    fn agree(&self) -> bool {
        [0, 1].into_iter().all(|host| {
            let there = &self.hosts[1 - host];
            let received = self.hosts[host].sending().filter(|sa| there.receiving(sa).is_some());
            received.count() == SELECTORS.len()
        })
    }
}

impl Host {
    fn take(&mut self, event: Event) {
        match event {
            Event::Install(child) => {
                if child.use_outbound {
                    self.outbound.insert(child.selector, child.id);
                }
                assert!(self.installed.values().all(|other| other.inbound.spi != child.inbound.spi));
                assert!(self.installed.insert(child.id, child).is_none());
            }
            Event::UseOutbound(id) => {
                self.outbound.insert(self.installed[&id].selector, id);
            }
            Event::Remove(id) => {
                assert!(self.installed.remove(&id).is_some());
                self.outbound.retain(|_, sending| *sending != id);
            }
            Event::Up(selector) => assert!(self.outbound.contains_key(&selector)),
            Event::Down(selector, _) => assert!(!self.outbound.contains_key(&selector)),
            Event::Moved(..) | Event::Trouble(_) => {}
        }
    }

    /// What is sent by.
    fn sending(&self) -> impl Iterator<Item = &Child> {
        self.outbound.values().map(|id| &self.installed[id])
    }

    /// What receives that which is sent by `sa`.
    fn receiving(&self, sa: &Child) -> Option<&Child> {
        let same =
            |own: &&Child| own.inbound.spi == sa.outbound.spi && own.inbound.keymat == sa.outbound.keymat;
        self.installed.values().find(same)
    }
}

fn config(host: usize) -> PeerConfig {
    let psk = Psk::new(b"test-only".to_vec()).expect("a key");
    PeerConfig {
        name: "gre0".to_owned(),
        local: Some(path(host).local.ip()),
        remote: path(host).remote.ip(),
        local_id: None,
        remote_id: None,
        credential: Credential::Psk(psk.clone()),
        trust: Trust::Psk(psk),
        ike: IkeOffer {
            encr: vec![Encr::AesGcm16_256],
            prf: vec![Prf::HmacSha256],
            groups: vec![Group::Curve25519],
        },
        esp: EspOffer { groups: vec![Some(Group::Curve25519), None], ..EspOffer::default() },
        protects: SELECTORS.to_vec(),
        encapsulation: Encapsulation::Auto,
        lifetimes: Lifetimes::default(),
        liveness: Duration::from_secs(10),
        initiate: true,
    }
}

/// From a host to the other.
fn path(from: usize) -> Path {
    let [a, b] = ADDRESSES.map(|address| address.parse().expect("an address"));
    if from == 0 { Path { local: a, remote: b } } else { Path { local: b, remote: a } }
}

/// A message with its payloads as they are: `first` is the type of the first one.
fn clear(header: &Header, first: u8, payloads: &[u8]) -> Vec<u8> {
    let mut message = wire::encode_clear(header, &[]);
    message[16] = first;
    message.extend_from_slice(payloads);
    let len = message.len();
    set_length(&mut message, len);
    message
}

fn set_length(message: &mut [u8], len: usize) {
    message[HEADER_LEN - 4..HEADER_LEN].copy_from_slice(&(len as u32).to_be_bytes());
}

fn byte(input: &mut &[u8]) -> Option<u8> {
    let (first, rest) = input.split_first()?;
    *input = rest;
    Some(*first)
}

fn bytes<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::from(byte(input)?);
    let (taken, rest) = input.split_at_checked(len)?;
    *input = rest;
    Some(taken)
}
