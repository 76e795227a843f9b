//! A peer on strings: it speaks IKE correctly, and lets a test put any payloads and headers into its messages.
#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests too

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ikev2::auth::{Credential, Psk, SignedOctets, Trust, prove};
use ikev2::crypto::{Exchanged, IkeKeys, KeyPair, Protector, Rng, SystemRng};
use ikev2::proposal::{
    ChildExchange, Encr, EspOffer, Group, IkeOffer, IkeSuite, Prf, accept_esp, accept_ike, choose_esp,
    choose_ike, esp_proposals, ike_proposals,
};
use ikev2::wire::{
    self, Delete, Exchange, Header, Identification, KeyExchange, Notify, Payload, Proposal, Spi,
    TrafficSelector, id, notify, protocol,
};
use ikev2::{Child, Encapsulation, Endpoint, Event, Lifetimes, Limits, Output, Path, PeerConfig, PeerId};

pub const PEER: PeerId = PeerId(1);
/// Seconds since 1970.
const NOW: u64 = 1_800_000_000;

/// Few algorithms, to keep messages short: how they are chosen is tested elsewhere.
fn ike_offer() -> IkeOffer {
    IkeOffer {
        encr: vec![Encr::AesGcm16_256, Encr::AesCbc256],
        prf: vec![Prf::HmacSha256],
        groups: vec![Group::Curve25519, Group::Ecp256],
    }
}

fn esp_offer() -> EspOffer {
    EspOffer {
        encr: vec![Encr::AesGcm16_256],
        groups: vec![Some(Group::Curve25519), None],
        esn: vec![true, false],
    }
}

/// An endpoint and what it has said so far.
pub struct Host {
    pub endpoint: Endpoint,
    pub now: Instant,
    pub sent: Vec<(Path, Vec<u8>)>,
    pub events: Vec<Event>,
}

/// As the host sees the puppet.
pub fn path(port: u16) -> Path {
    let at = |last| SocketAddr::new([10, 9, 0, last].into(), port);
    Path { local: at(1), remote: at(2) }
}

impl Host {
    /// That knows the puppet.
    pub fn new(initiate: bool) -> Host {
        Host::with(Limits::default(), |config| config.initiate = initiate)
    }

    /// With other limits, or knowing the puppet otherwise.
    pub fn with(limits: Limits, change: impl FnOnce(&mut PeerConfig)) -> Host {
        let psk = Psk::new(ikev2::crypto::Secret::new(b"test-only".to_vec())).unwrap();
        let mut config = PeerConfig {
            name: "gre0".into(),
            local: Some(path(500).local.ip()),
            remote: path(500).remote.ip(),
            local_id: None,
            remote_id: None,
            credential: Credential::Psk(psk.clone()),
            trust: Trust::Psk(psk),
            ike: ike_offer(),
            esp: esp_offer(),
            protects: vec![ikev2::Selector::Gre],
            encapsulation: Encapsulation::Auto,
            lifetimes: Lifetimes::default(),
            liveness: Duration::ZERO,
            initiate: false,
        };
        change(&mut config);
        let endpoint = Endpoint::new(Box::new(SystemRng::new()), limits);
        let mut host = Host { endpoint, now: Instant::now(), sent: Vec::new(), events: Vec::new() };
        host.endpoint.configure(host.now, PEER, config);
        host.drain();
        host
    }

    /// What it sends when it gets this.
    pub fn receive(&mut self, path: Path, datagram: &[u8]) -> Vec<Vec<u8>> {
        let before = self.sent.len();
        self.endpoint.receive(self.now, NOW, path, datagram);
        self.drain();
        self.sent[before..].iter().map(|(_, datagram)| datagram.clone()).collect()
    }

    /// Its next deadline comes.
    pub fn wait(&mut self) {
        let Some(at) = self.endpoint.timeout() else { return };
        self.now = self.now.max(at);
        self.endpoint.handle_timeout(self.now);
        self.drain();
    }

    pub fn drain(&mut self) {
        while let Some(output) = self.endpoint.poll() {
            match output {
                Output::Transmit { path, datagram } => {
                    wire::parse(&datagram)
                        .unwrap_or_else(|e| panic!("the endpoint sent {datagram:02x?}: {e}"));
                    self.sent.push((path, datagram));
                }
                Output::Event(peer, event) => {
                    assert_eq!(peer, PEER);
                    self.events.push(event);
                }
                Output::Keepalive(_) => {}
            }
        }
    }

    /// Child SAs that it has installed so far.
    pub fn installed(&self) -> Vec<&Child> {
        self.events
            .iter()
            .filter_map(|event| if let Event::Install(child) = event { Some(child) } else { None })
            .collect()
    }
}

/// The other side of an IKE SA, in the making or made.
pub struct Puppet {
    /// Whether it is the original initiator.
    pub initiator: bool,
    pub spi_i: Spi,
    pub spi_r: Spi,
    key: Option<KeyPair>,
    nonce_i: Vec<u8>,
    nonce_r: Vec<u8>,
    /// Its own first message, which it signs.
    message: Vec<u8>,
    keys: Option<Keys>,
    /// Of its next request, and of the host's.
    pub next: [u32; 2],
    /// SPI of its own child SA, and that of the host's.
    pub child: [u32; 2],
}

struct Keys {
    suite: IkeSuite,
    keys: IkeKeys,
    seal: Protector,
    open: Protector,
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRng::new().fill(&mut bytes);
    bytes
}

impl Puppet {
    pub fn new(initiator: bool) -> Puppet {
        let key = KeyPair::generate(Group::Curve25519, &mut SystemRng::new()).unwrap();
        Puppet {
            initiator,
            spi_i: if initiator { random() } else { [0; 8] },
            spi_r: if initiator { [0; 8] } else { random() },
            key: Some(key),
            nonce_i: random::<32>().to_vec(),
            nonce_r: random::<32>().to_vec(),
            message: Vec::new(),
            keys: None,
            next: if initiator { [1, 0] } else { [0, 1] },
            child: [0x1000_0001, 0],
        }
    }

    pub fn header(&self, exchange: Exchange, response: bool, message_id: u32) -> Header {
        let (initiator_spi, responder_spi) = (self.spi_i, self.spi_r);
        Header { initiator_spi, responder_spi, exchange, initiator: self.initiator, response, message_id }
    }

    // ---- what it says

    /// IKE_SA_INIT as initiator.
    pub fn init_request(&self) -> Vec<Payload> {
        let mut payloads = vec![Payload::Sa(ike_proposals(&ike_offer(), None))];
        payloads.extend(self.init_rest(&self.nonce_i));
        payloads
    }

    /// IKE_SA_INIT as responder, to the host's request.
    pub fn init_answer(&mut self, request: &[u8]) -> Vec<Payload> {
        let datagram = wire::parse(request).unwrap();
        self.spi_i = datagram.header.initiator_spi;
        let (offered, ke, nonce) =
            (sa(&datagram.payloads), ke(&datagram.payloads), nonce(&datagram.payloads));
        let choice = choose_ike(&offered, &ike_offer(), None).unwrap();
        self.nonce_i = nonce;
        let mut payloads = vec![Payload::Sa(vec![choice.answer])];
        payloads.extend(self.init_rest(&self.nonce_r));
        self.agree(choice.suite, &ke);
        payloads
    }

    fn init_rest(&self, nonce: &[u8]) -> Vec<Payload> {
        let key = self.key.as_ref().unwrap();
        let mut payloads = vec![
            Payload::Ke(KeyExchange { group: key.group().id(), data: key.public().to_vec() }),
            Payload::Nonce(nonce.to_vec()),
        ];
        let notifies = [
            (notify::NAT_DETECTION_SOURCE_IP, vec![1; 20]),
            (notify::NAT_DETECTION_DESTINATION_IP, vec![2; 20]),
            (notify::SIGNATURE_HASH_ALGORITHMS, vec![0, 2]),
        ];
        payloads.extend(notifies.map(|(kind, data)| Payload::Notify(Notify::new(kind, data))));
        payloads.push(Payload::VendorId(b"puppet".to_vec()));
        payloads
    }

    /// A message in the clear; kept if it is the one that is signed.
    pub fn clear(&mut self, header: Header, payloads: &[Payload]) -> Vec<u8> {
        self.message = wire::encode_clear(&header, payloads);
        self.message.clone()
    }

    /// The host has answered IKE_SA_INIT.
    pub fn init_answered(&mut self, answer: &[u8]) {
        let datagram = wire::parse(answer).unwrap();
        self.spi_r = datagram.header.responder_spi;
        let (suite, _) = accept_ike(&sa(&datagram.payloads), &ike_offer(), None).unwrap();
        self.nonce_r = nonce(&datagram.payloads);
        self.agree(suite, &ke(&datagram.payloads));
    }

    fn agree(&mut self, suite: IkeSuite, peer: &[u8]) {
        let shared = self.key.take().unwrap().agree(peer).unwrap();
        let exchanged = Exchanged {
            nonce_i: &self.nonce_i,
            nonce_r: &self.nonce_r,
            spi_i: self.spi_i,
            spi_r: self.spi_r,
        };
        let keys = IkeKeys::derive(&suite, exchanged, &shared);
        let (of_i, of_r) = keys.protectors(&suite).unwrap();
        let (seal, open) = if self.initiator { (of_i, of_r) } else { (of_r, of_i) };
        self.keys = Some(Keys { suite, keys, seal, open });
    }

    /// IKE_AUTH of either side.
    pub fn auth(&self, sa: Vec<Proposal>) -> Vec<Payload> {
        let keys = self.keys.as_ref().unwrap();
        let id = Identification { kind: id::IPV4_ADDR, data: vec![10, 9, 0, 2] };
        let (sk_p, nonce) = match self.initiator {
            true => (&keys.keys.sk_pi, &self.nonce_r),
            false => (&keys.keys.sk_pr, &self.nonce_i),
        };
        let octets = SignedOctets::new(keys.suite.prf, &self.message, nonce, sk_p.as_bytes(), &id);
        let psk = Psk::new(ikev2::crypto::Secret::new(b"test-only".to_vec())).unwrap();
        let auth = Payload::Auth(prove(&Credential::Psk(psk), &octets, &[]).unwrap());
        let (id, other) = match self.initiator {
            true => {
                (Payload::IdI(id), Some(Payload::IdR(Identification { kind: 1, data: vec![10, 9, 0, 1] })))
            }
            false => (Payload::IdR(id), None),
        };
        let mut payloads = vec![id];
        payloads.extend(other);
        payloads.push(auth);
        payloads.extend(self.child_payloads(sa, self.initiator));
        payloads
    }

    /// The payloads of IKE_AUTH's request.
    pub fn auth_request(&self) -> Vec<Payload> {
        self.auth(esp_proposals(&esp_offer(), ChildExchange::Auth, self.child[0]))
    }

    /// And of its answer.
    pub fn auth_answer(&mut self, request: &[Payload]) -> Vec<Payload> {
        let choice = choose_esp(&sa(request), &esp_offer(), ChildExchange::Auth, self.child[0]).unwrap();
        self.child[1] = choice.peer_spi;
        self.auth(vec![choice.answer])
    }

    /// The host has answered IKE_AUTH.
    pub fn auth_answered(&mut self, answer: &[Payload]) {
        let (_, spi) = accept_esp(&sa(answer), &esp_offer(), ChildExchange::Auth).unwrap();
        self.child[1] = spi;
    }

    fn child_payloads(&self, sa: Vec<Proposal>, requests: bool) -> Vec<Payload> {
        let selector = |last| {
            let address = [10, 9, 0, last].into();
            TrafficSelector { protocol: 47, start_port: 0, end_port: 65535, start: address, end: address }
        };
        let (i, r) = if requests { (2, 1) } else { (1, 2) };
        vec![
            Payload::Notify(Notify::new(notify::USE_TRANSPORT_MODE, [])),
            Payload::Sa(sa),
            Payload::TsI(vec![selector(i)]),
            Payload::TsR(vec![selector(r)]),
        ]
    }

    /// CREATE_CHILD_SA for a child SA with that SPI, a new one or in place of the first.
    pub fn child_request(&self, spi: u32, rekey: bool) -> Vec<Payload> {
        let mut payloads = Vec::new();
        if rekey {
            let spi = self.child[0].to_be_bytes().to_vec();
            payloads.push(Payload::Notify(Notify {
                protocol: protocol::ESP,
                spi,
                kind: notify::REKEY_SA,
                data: vec![],
            }));
        }
        payloads.extend(
            self.child_payloads(esp_proposals(&esp_offer(), ChildExchange::CreateChildSa, spi), true),
        );
        payloads.extend(fresh());
        payloads
    }

    /// The answer to such a request of the host.
    pub fn child_answer(&self, request: &[Payload], spi: u32) -> Vec<Payload> {
        let choice = choose_esp(&sa(request), &esp_offer(), ChildExchange::CreateChildSa, spi).unwrap();
        let mut payloads = self.child_payloads(vec![choice.answer], false);
        payloads.extend(fresh());
        payloads
    }

    /// CREATE_CHILD_SA in place of the IKE SA.
    pub fn ike_request(&self) -> Vec<Payload> {
        let mut payloads = vec![Payload::Sa(ike_proposals(&ike_offer(), Some(random())))];
        payloads.extend(fresh());
        payloads
    }

    /// The answer to such a request of the host.
    pub fn ike_answer(&self, request: &[Payload]) -> Vec<Payload> {
        let choice = choose_ike(&sa(request), &ike_offer(), Some(random())).unwrap();
        let mut payloads = vec![Payload::Sa(vec![choice.answer])];
        payloads.extend(fresh());
        payloads
    }

    /// INFORMATIONAL: signs of life, deletion of the child SA or of the IKE SA, a status.
    pub fn information(&self, what: usize) -> Vec<Payload> {
        let of_child = self.child[0].to_be_bytes().to_vec();
        match what {
            0 => vec![],
            1 => vec![Payload::Delete(Delete { protocol: protocol::ESP, spis: vec![of_child] })],
            2 => vec![Payload::Delete(Delete { protocol: protocol::IKE, spis: vec![] })],
            _ => vec![Payload::Notify(Notify {
                protocol: protocol::ESP,
                spi: of_child,
                kind: 99,
                data: vec![1; 4],
            })],
        }
    }

    /// The puppet's next request.
    pub fn request(&mut self, exchange: Exchange, payloads: &[Payload]) -> Vec<u8> {
        let header = self.header(exchange, false, self.next[0]);
        self.next[0] += 1;
        self.sealed(&header, payloads)
    }

    /// The answer to the host's request.
    pub fn answer(&mut self, request: &Header, payloads: &[Payload]) -> Vec<u8> {
        let header = self.header(request.exchange, true, request.message_id);
        self.next[1] += 1;
        self.sealed(&header, payloads)
    }

    pub fn sealed(&mut self, header: &Header, payloads: &[Payload]) -> Vec<u8> {
        self.split(header, payloads, usize::MAX).remove(0)
    }

    /// In fragments of at most `limit` bytes.
    pub fn split(&mut self, header: &Header, payloads: &[Payload], limit: usize) -> Vec<Vec<u8>> {
        let keys = self.keys.as_mut().unwrap();
        let encr = keys.suite.encr;
        let seal = |aad: &[u8], plain: &[u8]| keys.seal.seal(aad, plain, &mut SystemRng::new());
        wire::encode_sealed(header, payloads, limit, |len| encr.body_len(len), seal)
    }

    /// What the host has sealed.
    pub fn open(&self, datagram: &[u8]) -> (Header, Vec<Payload>) {
        let datagram = wire::parse(datagram).unwrap();
        let header = datagram.header;
        assert_eq!((header.initiator_spi, header.responder_spi), (self.spi_i, self.spi_r));
        assert_eq!(header.initiator, !self.initiator);
        assert_eq!(datagram.payloads, [], "nothing in the clear beside it");
        let sealed = datagram.sealed.expect("an encrypted message");
        let plain = self.keys.as_ref().unwrap().open.open(sealed.aad, sealed.body).unwrap();
        (header, wire::parse_inner(sealed.first, &plain).unwrap())
    }

    // ---- whole exchanges

    /// Initiates up to IKE_SA_INIT's answer.
    pub fn init(host: &mut Host) -> Puppet {
        let mut puppet = Puppet::new(true);
        let payloads = puppet.init_request();
        let header = puppet.header(Exchange::SaInit, false, 0);
        let request = puppet.clear(header, &payloads);
        let answer = host.receive(path(500), &request);
        assert_eq!(answer.len(), 1);
        puppet.init_answered(&answer[0]);
        puppet
    }

    /// Initiates, and has a child SA.
    pub fn connect(host: &mut Host) -> Puppet {
        let mut puppet = Puppet::init(host);
        let payloads = puppet.auth_request();
        let request = puppet.request(Exchange::Auth, &payloads);
        let answer = host.receive(path(4500), &request);
        assert_eq!(answer.len(), 1);
        puppet.auth_answered(&puppet.open(&answer[0]).1);
        puppet
    }

    /// Answers the host's IKE_SA_INIT. Gives its IKE_AUTH.
    pub fn init_asked(host: &mut Host) -> (Puppet, Vec<u8>) {
        let mut puppet = Puppet::new(false);
        let (path, request) = host.sent.last().unwrap().clone();
        let payloads = puppet.init_answer(&request);
        let header = puppet.header(Exchange::SaInit, true, 0);
        let answer = puppet.clear(header, &payloads);
        let request = host.receive(path, &answer);
        assert_eq!(request.len(), 1);
        (puppet, request[0].clone())
    }

    /// Answers what the host initiates, and has a child SA.
    pub fn connected(host: &mut Host) -> Puppet {
        let (mut puppet, request) = Puppet::init_asked(host);
        let (header, payloads) = puppet.open(&request);
        let payloads = puppet.auth_answer(&payloads);
        let answer = puppet.answer(&header, &payloads);
        let sent = host.receive(path(4500), &answer);
        assert_eq!(sent, Vec::<Vec<u8>>::new());
        puppet
    }
}

/// What makes new keys.
fn fresh() -> [Payload; 2] {
    let key = KeyPair::generate(Group::Curve25519, &mut SystemRng::new()).unwrap();
    [
        Payload::Nonce(random::<32>().to_vec()),
        Payload::Ke(KeyExchange { group: key.group().id(), data: key.public().to_vec() }),
    ]
}

fn sa(payloads: &[Payload]) -> Vec<Proposal> {
    payloads.iter().find_map(|p| if let Payload::Sa(sa) = p { Some(sa.clone()) } else { None }).expect("SA")
}

fn ke(payloads: &[Payload]) -> Vec<u8> {
    payloads
        .iter()
        .find_map(|p| if let Payload::Ke(ke) = p { Some(ke.data.clone()) } else { None })
        .expect("KE")
}

fn nonce(payloads: &[Payload]) -> Vec<u8> {
    payloads
        .iter()
        .find_map(|p| if let Payload::Nonce(n) = p { Some(n.clone()) } else { None })
        .expect("nonce")
}
