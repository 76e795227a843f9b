//! Valid exchanges in which one message has payloads dropped, doubled, moved, renumbered or changed: the endpoint answers or
//! ignores it, what it says can be read, and it goes on to work.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests too

mod puppet;

use ikev2::PeerState;
use ikev2::wire::{
    Attribute, Exchange, HEADER_LEN, Header, Notify, Payload, Proposal, encode_clear, kind, notify, parse,
};
use puppet::{Host, PEER, Puppet, path};

/// What is done to the payloads of a message, and a name for it.
struct Change {
    name: String,
    apply: Apply,
}

type Apply = Box<dyn Fn(&mut Vec<Payload>)>;

#[derive(Default)]
struct Changes(Vec<Change>);

impl Changes {
    fn add(&mut self, name: impl Into<String>, apply: impl Fn(&mut Vec<Payload>) + 'static) {
        self.0.push(Change { name: name.into(), apply: Box::new(apply) });
    }
}

/// A payload's bytes as one of any type.
fn raw(payload: &mut Payload, kind: u8, critical: bool, change: impl FnOnce(&mut Vec<u8>)) {
    let header = Puppet::new(true).header(Exchange::SaInit, false, 0);
    let mut data = encode_clear(&header, std::slice::from_ref(payload)).split_off(HEADER_LEN + 4);
    change(&mut data);
    *payload = Payload::Unknown { kind, critical, data };
}

/// All that is done to a message of payloads like these.
fn changes(payloads: &[Payload]) -> Vec<Change> {
    let mut all = Changes::default();
    all.add("as it is", |_| ());
    all.add("no payloads", Vec::clear);
    all.add("reversed", |p| p.reverse());
    all.add("doubled", |p| p.extend_from_within(..));
    let unknown = || Payload::Unknown { kind: 200, critical: true, data: vec![1, 2, 3] };
    all.add("an unknown and critical one at the end", move |p| p.push(unknown()));
    for (i, payload) in payloads.iter().enumerate() {
        let k = payload.kind();
        let mut add = |what: &str, apply: Apply| all.add(format!("{i} ({k}) {what}"), apply);
        add("dropped", Box::new(move |p| _ = p.remove(i)));
        add("alone", Box::new(move |p| *p = vec![p[i].clone()]));
        add("twice", Box::new(move |p| p.insert(i, p[i].clone())));
        add("again at the end", Box::new(move |p| p.push(p[i].clone())));
        add("first", Box::new(move |p| p.swap(0, i)));
        add("last", Box::new(move |p| p[i..].rotate_left(1)));
        add("and all behind it dropped", Box::new(move |p| p.truncate(i)));
        for new in (kind::SA..=kind::EAP).chain([1, kind::SKF, 255]).filter(|new| *new != k) {
            add(&format!("as {new}"), Box::new(move |p| raw(&mut p[i], new, false, |_| ())));
        }
        add("empty", Box::new(move |p| raw(&mut p[i], k, false, Vec::clear)));
        add("cut", Box::new(move |p| raw(&mut p[i], k, false, |data| _ = data.pop())));
        add("longer", Box::new(move |p| raw(&mut p[i], k, false, |data| data.push(0))));
        add("zero", Box::new(move |p| raw(&mut p[i], k, false, |data| data.fill(0))));
        add("ones", Box::new(move |p| raw(&mut p[i], k, false, |data| data.fill(0xff))));
        add("critical", Box::new(move |p| raw(&mut p[i], k, true, |_| ())));
        add("behind an unknown and critical one", Box::new(move |p| p.insert(i, unknown())));
        match payload {
            Payload::Sa(proposals) => of_proposals(&mut all, i, proposals),
            Payload::Ke(_) => {
                for group in [0, 1, 14, 19, 999] {
                    all.add(format!("{i} (KE) of group {group}"), move |p| {
                        if let Payload::Ke(ke) = &mut p[i] {
                            ke.group = group;
                        }
                    });
                }
            }
            Payload::Notify(_) => {
                for kind in (0..48).chain(16384..16435) {
                    all.add(format!("{i} (N) of kind {kind}"), move |p| {
                        if let Payload::Notify(n) = &mut p[i] {
                            n.kind = kind;
                        }
                    });
                }
                all.add(format!("{i} (N) with an SPI"), move |p| {
                    if let Payload::Notify(n) = &mut p[i] {
                        n.spi = vec![7; 255];
                    }
                });
            }
            _ => {}
        }
    }
    all.0
}

/// Proposals and transforms dropped, doubled, moved and changed.
fn of_proposals(all: &mut Changes, at: usize, proposals: &[Proposal]) {
    type Apply = Box<dyn Fn(&mut Vec<Proposal>)>;
    let mut add = |what: String, apply: Apply| {
        all.add(format!("{at} (SA) {what}"), move |p| {
            if let Payload::Sa(proposals) = &mut p[at] {
                apply(proposals);
            }
        });
    };
    add("without proposals".into(), Box::new(Vec::clear));
    add("reversed".into(), Box::new(|p| p.reverse()));
    add("all twice".into(), Box::new(|p| p.extend_from_within(..)));
    for (i, proposal) in proposals.iter().enumerate() {
        add(format!("without proposal {i}"), Box::new(move |p| _ = p.remove(i)));
        add(format!("without transforms in {i}"), Box::new(move |p| p[i].transforms.clear()));
        for len in [0, 3, 4, 8, 255] {
            add(format!("SPI of {len} zeros in {i}"), Box::new(move |p| p[i].spi = vec![0; len]));
            add(format!("SPI of {len} ones in {i}"), Box::new(move |p| p[i].spi = vec![0xff; len]));
        }
        for value in [0, 1, 2, 3, 255] {
            add(format!("number {value} in {i}"), Box::new(move |p| p[i].number = value));
            add(format!("protocol {value} in {i}"), Box::new(move |p| p[i].protocol = value));
        }
        for kind in 1..=5 {
            add(
                format!("no transform {kind} in {i}"),
                Box::new(move |p| p[i].transforms.retain(|t| t.kind != kind)),
            );
        }
        for t in 0..proposal.transforms.len() {
            add(
                format!("transform {t} of {i} twice"),
                Box::new(move |p| {
                    let again = p[i].transforms[t].clone();
                    p[i].transforms.push(again);
                }),
            );
            add(
                format!("transform {t} of {i} of an unknown type"),
                Box::new(move |p| p[i].transforms[t].kind = 99),
            );
            add(format!("transform {t} of {i} unknown"), Box::new(move |p| p[i].transforms[t].id = 999));
            add(format!("transform {t} of {i} NONE"), Box::new(move |p| p[i].transforms[t].id = 0));
            add(
                format!("transform {t} of {i} with a key length"),
                Box::new(move |p| p[i].transforms[t].key_bits = Some(192)),
            );
            add(
                format!("transform {t} of {i} with an attribute"),
                Box::new(move |p| {
                    p[i].transforms[t].other.push(Attribute::Short { kind: 77, value: 1 });
                }),
            );
        }
    }
}

/// A message of the puppet to a host in a certain state.
struct Scene {
    host: Host,
    puppet: Puppet,
    payloads: Vec<Payload>,
    exchange: Exchange,
    /// The host's request that it answers.
    answers: Option<Header>,
}

impl Scene {
    fn send(&mut self, payloads: &[Payload]) -> (Vec<u8>, Vec<Vec<u8>>) {
        let puppet = &mut self.puppet;
        let datagram = match (self.exchange, &self.answers) {
            (Exchange::SaInit, answers) => {
                let header = puppet.header(Exchange::SaInit, answers.is_some(), 0);
                puppet.clear(header, payloads)
            }
            (exchange, None) => puppet.request(exchange, payloads),
            (_, Some(request)) => puppet.answer(request, payloads),
        };
        let port = if self.exchange == Exchange::SaInit { 500 } else { 4500 };
        let replies = self.host.receive(path(port), &datagram);
        (datagram, replies)
    }
}

/// The puppet's request in each way it can be wrong: to a stranger, or within an IKE SA. `check` sees what was sent and what
/// was answered.
fn requests(scene: impl Fn() -> Scene, check: impl Fn(&str, &Scene, &[Payload], &[Payload])) {
    for Change { name, apply } in changes(&scene().payloads) {
        let mut scene = scene();
        let mut payloads = scene.payloads.clone();
        apply(&mut payloads);
        let id = scene.puppet.next[0];
        let critical =
            payloads.iter().any(|p| matches!(p, Payload::Unknown { kind: 200, critical: true, .. }));
        let check = |scene: &Scene, answer: &[Payload]| {
            check(&name, scene, &payloads, answer);
            // RFC 7296 2.5
            let refusal = Payload::Notify(Notify::new(notify::UNSUPPORTED_CRITICAL_PAYLOAD, [200]));
            assert_eq!(critical, *answer == [refusal], "{name}: {answer:?}");
        };
        let (request, replies) = scene.send(&payloads);
        if scene.exchange == Exchange::SaInit {
            assert!(replies.len() <= 1 && (replies.len() == 1 || !critical), "{name}");
            for reply in &replies {
                let reply = parse(reply).unwrap();
                let header = reply.header;
                assert!(header.response && !header.initiator && header.message_id == 0, "{name}");
                assert_eq!(
                    (header.exchange, header.initiator_spi),
                    (Exchange::SaInit, scene.puppet.spi_i),
                    "{name}"
                );
                assert!(reply.sealed.is_none(), "{name}");
                check(&scene, &reply.payloads);
            }
        } else {
            // whoever has the keys gets an answer, and the same one when he asks again (RFC 7296 2.1)
            let answers: Vec<_> =
                replies.iter().filter(|reply| parse(reply).unwrap().header.response).collect();
            assert_eq!(answers.len(), 1, "{name}");
            let (header, answer) = scene.puppet.open(answers[0]);
            assert_eq!((header.exchange, header.message_id), (scene.exchange, id), "{name}");
            check(&scene, &answer);
            assert_eq!(scene.host.receive(path(4500), &request), [answers[0].clone()], "{name}");
        }
        for _ in 0..3 {
            scene.host.wait();
        }
        still_answers(&name, &mut scene.host);
    }
}

/// The puppet's answer in each way it can be wrong.
fn answers(scene: impl Fn() -> Scene, check: impl Fn(&str, &Scene, &[Payload])) {
    for Change { name, apply } in changes(&scene().payloads) {
        let mut scene = scene();
        let mut payloads = scene.payloads.clone();
        apply(&mut payloads);
        scene.send(&payloads);
        check(&name, &scene, &payloads);
        goes_on(&name, &mut scene.host);
        still_answers(&name, &mut scene.host);
    }
}

/// An initiator that has no child SA asks again, sooner or later.
fn goes_on(name: &str, host: &mut Host) {
    let before = host.sent.len();
    for _ in 0..20 {
        if host.endpoint.status(host.now)[0].state == PeerState::Up || host.sent.len() > before {
            return;
        }
        host.wait();
    }
    panic!("{name}: {:?}", host.endpoint.status(host.now));
}

/// A puppet that knows how to behave can still connect.
fn still_answers(name: &str, host: &mut Host) {
    let before = host.installed().len();
    let puppet = Puppet::connect(host);
    let installed = host.installed();
    assert_eq!(installed.len(), before + 1, "{name}");
    let child = installed.last().unwrap();
    assert_eq!([child.outbound.spi, child.inbound.spi], puppet.child, "{name}");
}

fn errors(payloads: &[Payload]) -> usize {
    payloads.iter().filter(|p| matches!(p, Payload::Notify(n) if n.is_error())).count()
}

fn has(payloads: &[Payload], kind: u8) -> bool {
    payloads.iter().any(|p| p.kind() == kind)
}

/// Whether the first of each of these types is as it was in the valid message, as the receiver sees it.
fn keeps(scene: &Scene, sent: &[Payload], kinds: &[u8]) -> bool {
    let message = encode_clear(&Puppet::new(true).header(scene.exchange, false, 0), sent);
    let Ok(seen) = parse(&message) else { return false };
    let first = |payloads: &[Payload], kind| payloads.iter().find(|p| p.kind() == kind).cloned();
    kinds.iter().all(|&kind| first(&seen.payloads, kind) == first(&scene.payloads, kind))
}

#[test]
fn ike_sa_init_asked() {
    let scene = || {
        let puppet = Puppet::new(true);
        let payloads = puppet.init_request();
        Scene { host: Host::new(false), puppet, payloads, exchange: Exchange::SaInit, answers: None }
    };
    requests(scene, |name, scene, _, answer| {
        let whole = has(answer, kind::SA) && has(answer, kind::KE) && has(answer, kind::NONCE);
        assert_ne!(whole, errors(answer) == 1, "{name}: {answer:?}");
        assert!(scene.host.installed().is_empty(), "{name}");
    });
}

#[test]
fn ike_auth_asked() {
    let scene = || {
        let mut host = Host::new(false);
        let puppet = Puppet::init(&mut host);
        let payloads = puppet.auth_request();
        Scene { host, puppet, payloads, exchange: Exchange::Auth, answers: None }
    };
    requests(scene, |name, scene, sent, answer| {
        let proven = has(answer, kind::AUTH);
        assert!(!proven || keeps(scene, sent, &[kind::ID_I, kind::AUTH]), "{name}: {answer:?}");
        granted(name, scene, answer);
        assert!(proven || scene.host.installed().is_empty(), "{name}");
    });
}

#[test]
fn create_child_sa_asked() {
    for rekey in [false, true] {
        let scene = || {
            let mut host = Host::new(false);
            let mut puppet = Puppet::connect(&mut host);
            host.events.clear();
            let payloads = puppet.child_request(0x1000_0002, rekey);
            puppet.child[0] = 0x1000_0002;
            Scene { host, puppet, payloads, exchange: Exchange::CreateChildSa, answers: None }
        };
        requests(scene, |name, scene, _, answer| granted(name, scene, answer));
    }
}

/// A child SA is installed when the answer says so and never otherwise, with the SPIs of either side.
fn granted(name: &str, scene: &Scene, answer: &[Payload]) {
    let installed = scene.host.installed();
    let offered = answer.iter().find_map(|p| if let Payload::Sa(sa) = p { Some(&sa[0]) } else { None });
    match (offered.filter(|p| p.protocol == 3), &installed[..]) {
        (None, []) => {}
        (Some(sa), [child]) => {
            assert_eq!(sa.spi, child.inbound.spi.to_be_bytes(), "{name}");
            assert!([scene.puppet.child[0], u32::MAX].contains(&child.outbound.spi), "{name}");
            assert!(has(answer, kind::TS_I) && has(answer, kind::TS_R), "{name}");
        }
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn ike_rekey_asked() {
    let scene = || {
        let mut host = Host::new(false);
        let puppet = Puppet::connect(&mut host);
        let payloads = puppet.ike_request();
        Scene { host, puppet, payloads, exchange: Exchange::CreateChildSa, answers: None }
    };
    requests(scene, |name, scene, _, answer| {
        assert_ne!(has(answer, kind::SA), errors(answer) == 1, "{name}: {answer:?}");
        assert_eq!(scene.host.installed().len(), 1, "{name}");
    });
}

#[test]
fn informational_asked() {
    for what in 0..4 {
        let scene = || {
            let mut host = Host::new(false);
            let puppet = Puppet::connect(&mut host);
            let payloads = puppet.information(what);
            Scene { host, puppet, payloads, exchange: Exchange::Informational, answers: None }
        };
        requests(scene, |name, scene, _, _| assert_eq!(scene.host.installed().len(), 1, "{name}"));
    }
}

#[test]
fn ike_sa_init_answered() {
    let scene = || {
        let host = Host::new(true);
        let mut puppet = Puppet::new(false);
        let request = host.sent[0].1.clone();
        let payloads = puppet.init_answer(&request);
        let answers = Some(parse(&request).unwrap().header);
        Scene { host, puppet, payloads, exchange: Exchange::SaInit, answers }
    };
    answers(scene, |name, scene, _| assert!(scene.host.installed().is_empty(), "{name}"));
}

#[test]
fn ike_auth_answered() {
    let scene = || {
        let mut host = Host::new(true);
        let (mut puppet, request) = Puppet::init_asked(&mut host);
        let (header, payloads) = puppet.open(&request);
        let payloads = puppet.auth_answer(&payloads);
        Scene { host, puppet, payloads, exchange: Exchange::Auth, answers: Some(header) }
    };
    answers(scene, |name, scene, sent| {
        if !scene.host.installed().is_empty() {
            assert!(keeps(scene, sent, &[kind::ID_R, kind::AUTH, kind::TS_I, kind::TS_R]), "{name}");
        }
    });
}

#[test]
fn create_child_sa_answered() {
    let scene = || {
        let mut host = Host::new(true);
        let puppet = Puppet::connected(&mut host);
        host.events.clear();
        let before = host.sent.len();
        host.endpoint.rekey_child(host.now, PEER);
        host.drain();
        let (header, request) = puppet.open(&host.sent[before].1);
        let payloads = puppet.child_answer(&request, 0x1000_0002);
        Scene { host, puppet, payloads, exchange: Exchange::CreateChildSa, answers: Some(header) }
    };
    answers(scene, |name, scene, sent| {
        if !scene.host.installed().is_empty() {
            assert!(keeps(scene, sent, &[kind::TS_I, kind::TS_R]) && has(sent, kind::NONCE), "{name}");
        }
    });
}

#[test]
fn ike_rekey_answered() {
    let scene = || {
        let mut host = Host::new(true);
        let puppet = Puppet::connected(&mut host);
        let before = host.sent.len();
        host.endpoint.rekey_ike(host.now, PEER);
        host.drain();
        let (header, request) = puppet.open(&host.sent[before].1);
        let payloads = puppet.ike_answer(&request);
        Scene { host, puppet, payloads, exchange: Exchange::CreateChildSa, answers: Some(header) }
    };
    answers(scene, |name, scene, _| assert_eq!(scene.host.installed().len(), 1, "{name}"));
}

/// Authentic, but of another exchange, direction, number or IKE SA: nothing comes of it but, perhaps, an answer.
#[test]
fn headers() {
    type Wrong = Box<dyn Fn(&mut Header)>;
    let mut wrong: Vec<(bool, Wrong)> = Vec::new();
    // a request of the right number, if not for IKE_AUTH, is used up
    for id in [0, 33, 34, 36, 37, 38, 43, 255] {
        wrong.push((true, Box::new(move |header| header.exchange = Exchange::from_id(id))));
    }
    for message_id in [0, 2, 3, u32::MAX] {
        wrong.push((false, Box::new(move |header| header.message_id = message_id)));
    }
    for spi in [[0; 8], [9; 8]] {
        wrong.push((false, Box::new(move |header| header.initiator_spi = spi)));
        wrong.push((false, Box::new(move |header| header.responder_spi = spi)));
    }
    wrong.push((
        false,
        Box::new(|header| std::mem::swap(&mut header.initiator_spi, &mut header.responder_spi)),
    ));
    wrong.push((false, Box::new(|header| header.response = true)));
    wrong.push((false, Box::new(|header| header.initiator = false)));
    for (used_up, wrong) in wrong {
        let mut host = Host::new(false);
        let mut puppet = Puppet::init(&mut host);
        let payloads = puppet.auth_request();
        let mut header = puppet.header(Exchange::Auth, false, 1);
        wrong(&mut header);
        let datagram = puppet.sealed(&header, &payloads);
        host.receive(path(4500), &datagram);
        assert!(host.installed().is_empty(), "{header:?}");
        let request = puppet.request(Exchange::Auth, &payloads);
        host.receive(path(4500), &request);
        assert!(used_up || host.installed().len() == 1, "{header:?}");
        still_answers(&format!("{header:?}"), &mut host);
    }
}

/// One bit changed on the way: nothing protected comes of it, and the request as it was sent is answered then.
#[test]
fn one_bit() {
    let mut host = Host::new(false);
    let mut puppet = Puppet::init(&mut host);
    let payloads = puppet.auth_request();
    let request = puppet.request(Exchange::Auth, &payloads);
    for bit in 0..request.len() * 8 {
        let mut changed = request.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        for reply in host.receive(path(4500), &changed) {
            assert!(parse(&reply).unwrap().sealed.is_none(), "bit {bit}");
        }
        assert!(host.installed().is_empty(), "bit {bit}");
    }
    let answers = host.receive(path(4500), &request);
    assert_eq!((answers.len(), host.installed().len()), (1, 1));
}
