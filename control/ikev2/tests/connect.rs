//! IKE_SA_INIT and IKE_AUTH between two endpoints.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests too

mod pair;

use std::sync::Arc;
use std::time::Duration;

use ikev2::auth::{Authority, Credential, Identity, OwnCertificate, PeerCertificate, Source, Trust};
use ikev2::proposal::Group;
use ikev2::wire::{self, Exchange, Notify, Payload, notify};
use ikev2::{Endpoint, Event, IkeState, Limits, Output, PeerConfig, PeerId, PeerState};
use pair::*;

#[test]
fn regular() {
    let mut pair = Pair::up();
    assert_eq!(pair.lost, 0);
    assert_eq!(pair.hosts[A].complaints(), [""; 0]);
    assert_eq!(pair.hosts[B].complaints(), [""; 0]);
    pair.traffic(1);
    assert_eq!(pair.hosts[A].status(pair.now).state, ikev2::PeerState::Up);
}

/// Both begin at once: of the two IKE SAs one remains, the one without the lowest of the four nonces.
#[test]
fn simultaneous_initiation() {
    for (nonces_a, nonces_b, winner) in [([0x00, 0x80], [0x40, 0x80], B), ([0x40, 0x80], [0x00, 0x80], A)] {
        let mut pair = Pair::new();
        pair.hosts[A].rng.nonces(&nonces_a);
        pair.hosts[B].rng.nonces(&nonces_b);
        for host in [A, B] {
            pair.configure(host, config(ADDRESSES[host], ADDRESSES[1 - host]));
        }
        pair.run();
        pair.pass(Duration::from_secs(60));
        pair.assert_converged();
        assert!(pair.hosts[winner].status(pair.now).ike[0].initiator);
    }
}

#[test]
fn wrong_psk_is_told_on_both_sides() {
    let mut pair = Pair::new();
    pair.configure(B, config(ADDRESSES[B], ADDRESSES[A]));
    pair.wire.clear();
    let wrong = psk("thisisabetterpsk");
    let wrong = ikev2::PeerConfig {
        credential: ikev2::auth::Credential::Psk(wrong.clone()),
        trust: ikev2::auth::Trust::Psk(wrong),
        ..config(ADDRESSES[A], ADDRESSES[B])
    };
    pair.configure(A, wrong);
    pair.run();
    assert_eq!(
        pair.hosts[B].complaints(),
        ["10.9.0.1 (10.9.0.1): PSK does not match: check options:psk on both hosts"]
    );
    let [told] = &pair.hosts[A].complaints()[..] else { panic!("{:?}", pair.hosts[A].complaints()) };
    assert!(told.contains("10.9.0.2 refuses our proof of identity (AUTHENTICATION_FAILED)"), "{told}");
    assert!(pair.hosts.iter().all(|host| host.installed.is_empty()));
}

/// Somebody on the path, without the key, sends A's messages back to it from B's address.
#[test]
fn nobody_meets_himself() {
    let mut pair = Pair::new();
    pair.configure(A, config(ADDRESSES[A], ADDRESSES[B]));
    let mut sent = 0;
    while let Some(message) = pair.wire.pop_front() {
        sent += 1;
        assert!(sent < 100, "A talks to itself");
        // B's address, and the port that the message went to
        let turned = |ip: std::net::SocketAddr, port: u16| std::net::SocketAddr::new(ip.ip(), port);
        let path = ikev2::Path {
            local: turned(message.path.local, message.path.remote.port()),
            remote: turned(message.path.remote, message.path.local.port()),
        };
        pair.with(A, |endpoint, now| endpoint.receive(now, UNIX_NOW, path, &message.datagram));
    }
    assert!(pair.hosts[A].installed.is_empty());
    assert_eq!(pair.hosts[A].status(pair.now).state, ikev2::PeerState::Connecting);
}

fn pem(file: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/data/pki/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn certificate(name: &str) -> Credential {
    let (certificate, key) = (pem(&format!("{name}.pem")), pem(&format!("{name}.key")));
    let source = |bytes| Source { name, bytes };
    Credential::Certificate(Arc::new(OwnCertificate::load(source(&certificate), source(&key)).unwrap()))
}

fn by_ca(ca: &str) -> Trust {
    let bytes = pem(ca);
    let authority = Authority::load(&[Source { name: ca, bytes: &bytes }], &[]).unwrap();
    Trust::Authority { authority: Arc::new(authority), name: None }
}

fn pinned(name: &str) -> Trust {
    let bytes = pem(&format!("{name}.pem"));
    Trust::Pinned(Arc::new(PeerCertificate::load(Source { name, bytes: &bytes }).unwrap()))
}

/// Both begin from `change`d configurations, A first.
fn connect(change: impl Fn(usize, &mut PeerConfig)) -> Pair {
    let mut pair = Pair::new();
    for host in [B, A] {
        let mut config = config(ADDRESSES[host], ADDRESSES[1 - host]);
        config.initiate = host == A;
        change(host, &mut config);
        pair.configure(host, config);
    }
    pair.run();
    pair
}

#[test]
fn certificates_by_authority_and_pinned() {
    let names = ["rsa2048", "p384"];
    for trust in [|_: usize| by_ca("ca.pem"), |host: usize| pinned(["rsa2048", "p384"][1 - host])] {
        let pair = connect(|host, config| {
            config.credential = certificate(names[host]);
            config.trust = trust(host);
        });
        pair.assert_converged();
        let status = pair.hosts[A].status(pair.now);
        let Credential::Certificate(own) = certificate("p384") else { panic!("a certificate") };
        assert_eq!(status.ike[0].remote_id.as_ref(), Some(own.identity()));
    }
}

#[test]
fn certificates_are_sent_in_fragments_that_any_path_takes() {
    let mut pair = Pair::new();
    for host in [B, A] {
        let mut config = config(ADDRESSES[host], ADDRESSES[1 - host]);
        config.initiate = host == A;
        config.credential = certificate("rsa3072");
        config.trust = by_ca("ca.pem");
        pair.configure(host, config);
    }
    let mut fragments = 0;
    while let Some(message) = pair.wire.pop_front() {
        // IPv4 and UDP headers, and the non-ESP marker
        assert!(message.datagram.len() + 20 + 8 + 4 <= 1280, "{}", message.datagram.len());
        let datagram = wire::parse(&message.datagram).unwrap();
        fragments += usize::from(datagram.sealed.is_some_and(|sealed| sealed.fragment.is_some()));
        pair.deliver(message);
    }
    pair.assert_converged();
    assert!(fragments >= 4, "{fragments}");
}

#[test]
fn another_authority_is_told_on_both_sides() {
    let pair = connect(|host, config| {
        config.credential = certificate("p256");
        config.trust = by_ca(if host == A { "ca.pem" } else { "other-ca.pem" });
    });
    let [a, b] = [A, B].map(|host| pair.hosts[host].complaints().join("; "));
    assert!(a.contains("AUTHENTICATION_FAILED"), "{a}");
    assert!(b.starts_with("10.9.0.1 (") && b.contains("CA"), "{b}");
    assert!(pair.hosts.iter().all(|host| host.installed.is_empty()));

    // The other way round the responder has installed the child SA already. It learns that it is of no use
    let pair = connect(|host, config| {
        config.credential = certificate("p256");
        config.trust = by_ca(if host == B { "ca.pem" } else { "other-ca.pem" });
    });
    let [a, b] = [A, B].map(|host| pair.hosts[host].complaints().join("; "));
    assert!(a.starts_with("10.9.0.2: ") && a.contains("CA"), "{a}");
    assert!(b.contains("AUTHENTICATION_FAILED"), "{b}");
    assert!(pair.hosts.iter().all(|host| host.installed.is_empty() && !host.is_up()));
}

/// RFC 7296 1.2: the responder wants another group; all are offered again.
#[test]
fn ke_invalid() {
    let pair = connect(|host, config| {
        if host == B {
            config.ike.groups = vec![Group::Modp2048];
        }
    });
    pair.assert_converged();
    assert_eq!(pair.hosts[A].status(pair.now).ike[0].suite.unwrap().group, Group::Modp2048);
    assert_eq!(pair.hosts[A].complaints(), [""; 0]);
}

/// Nothing that comes in the clear before the real answer keeps that from being taken.
#[test]
fn forged_answers_to_ike_sa_init() {
    let forgeries = [
        Notify::new(notify::NO_PROPOSAL_CHOSEN, []),
        Notify::new(notify::INVALID_SYNTAX, []),
        Notify::new(notify::AUTHENTICATION_FAILED, []),
        Notify::new(notify::INVALID_KE_PAYLOAD, 1u16.to_be_bytes()),
        Notify::new(notify::INVALID_KE_PAYLOAD, []),
        Notify::new(notify::COOKIE, []),
        Notify::new(notify::COOKIE, [7; 65]),
        Notify::new(notify::INVALID_MAJOR_VERSION, []),
        Notify::new(40_000, [1, 2, 3]),
    ];
    let mut pair = Pair::new();
    pair.configure(B, PeerConfig { initiate: false, ..config(ADDRESSES[B], ADDRESSES[A]) });
    pair.configure(A, config(ADDRESSES[A], ADDRESSES[B]));
    let request = pair.wire[0].clone();
    for forgery in forgeries {
        let forgery = in_clear(&request, &[Payload::Notify(forgery)]);
        pair.deliver(forgery);
    }
    assert_eq!(pair.wire.len(), 1, "A does nothing about it");
    pair.run();
    pair.assert_converged();
}

/// A is sent back for other groups and cookies a few times, not for ever, and recovers.
#[test]
fn forged_detours_end() {
    let mut pair = Pair::new();
    pair.configure(B, PeerConfig { initiate: false, ..config(ADDRESSES[B], ADDRESSES[A]) });
    pair.configure(A, config(ADDRESSES[A], ADDRESSES[B]));
    for group in [Group::Ecp256, Group::Ecp384, Group::Curve25519].into_iter().cycle().take(30) {
        let request = pair.wire[0].clone();
        let wanted = Notify::new(notify::INVALID_KE_PAYLOAD, group.id().to_be_bytes());
        let forgery = in_clear(&request, &[Payload::Notify(wanted)]);
        pair.deliver(forgery);
        let cookie = Notify::new(notify::COOKIE, [group.id() as u8; 8]);
        let forgery = in_clear(&request, &[Payload::Notify(cookie)]);
        pair.deliver(forgery);
    }
    assert!(pair.wire.len() < 10, "{}", pair.wire.len());
    pair.run();
    pair.pass(Duration::from_secs(120));
    pair.assert_converged();
}

/// From whoever `request` was sent to.
fn in_clear(request: &Message, payloads: &[Payload]) -> Message {
    let header = wire::Header::peek(&request.datagram).unwrap();
    let header = wire::Header { initiator: false, response: true, responder_spi: [9; 8], ..header };
    Message {
        from: 1 - request.from,
        path: ikev2::Path { local: request.path.remote, remote: request.path.local },
        datagram: wire::encode_clear(&header, payloads),
    }
}

/// IKE agrees and ESP does not: both say so, and try again and again without wearing each other out.
#[test]
fn no_proposal_for_esp() {
    let mut pair = connect(|host, config| config.esp.esn = vec![host == A]);
    let [a, b] = [A, B].map(|host| pair.hosts[host].complaints().join("; "));
    assert!(a.contains("NO_PROPOSAL_CHOSEN") && a.contains("/EXT_SEQ"), "{a}");
    assert!(b.contains("/EXT_SEQ") && b.contains("/NO_EXT_SEQ"), "{b}");
    assert_eq!(pair.hosts[A].status(pair.now).ike[0].state, IkeState::Established);
    assert_eq!(pair.hosts[A].status(pair.now).state, PeerState::Connecting);
    let mut inits = 0;
    for _ in 0..600 {
        pair.timers(Duration::from_secs(1));
        let sent = pair.wire.iter().filter(|m| m.from == A && m.exchange() == Exchange::SaInit).count();
        inits += sent;
        pair.run();
    }
    assert!((5..30).contains(&inits), "{inits}");
    assert!(pair.hosts[B].status(pair.now).ike.len() <= 2);
}

/// A configuration may go between any two messages, and come back.
#[test]
fn configuration_vanishes_at_any_time() {
    for host in [A, B] {
        for steps in 0..8 {
            let mut pair = Pair::new();
            for host in [A, B] {
                pair.configure(host, config(ADDRESSES[host], ADDRESSES[1 - host]));
            }
            (0..steps).for_each(|_| {
                if !pair.wire.is_empty() {
                    pair.step()
                }
            });
            pair.with(host, |endpoint, now| endpoint.remove(now, PEER));
            pair.run();
            pair.pass(Duration::from_secs(100));
            assert!(pair.hosts[host].installed.is_empty() && pair.hosts[host].endpoint.secrets().is_empty());
            assert!(!pair.hosts[1 - host].is_up());
            pair.configure(host, config(ADDRESSES[host], ADDRESSES[1 - host]));
            pair.run();
            pair.pass(Duration::from_secs(200));
            pair.assert_converged();
        }
    }
}

/// Peers behind one address, told apart by what they prove to be; and one of which the address is not known.
#[test]
fn several_peers_of_one_address() {
    let (one, two, any) = (PeerId(1), PeerId(2), PeerId(3));
    for (name, key, id, found) in [
        ("one", "first", "one.test", one),
        ("two", "second", "two.test", two),
        ("anybody", "third", "three.test", any),
    ] {
        let mut pair = Pair::new();
        let of = |remote: &str, key: &str, remote_id: Option<&str>| PeerConfig {
            credential: Credential::Psk(psk(key)),
            trust: Trust::Psk(psk(key)),
            remote_id: remote_id.map(|id| id.parse().unwrap()),
            initiate: false,
            ..config(ADDRESSES[B], remote)
        };
        let mut b = Endpoint::new(Box::new(TestRng::new(7)), Limits::default());
        b.configure(pair.now, one, of(ADDRESSES[A], "first", Some("one.test")));
        b.configure(pair.now, two, of(ADDRESSES[A], "second", Some("two.test")));
        b.configure(pair.now, any, of("0.0.0.0", "third", None));
        let identity: Identity = id.parse().unwrap();
        pair.configure(
            A,
            PeerConfig {
                local: Some(pair.hosts[A].address),
                local_id: Some(identity.clone()),
                initiate: true,
                ..of(ADDRESSES[B], key, None)
            },
        );
        let mut up = None;
        while let Some(message) = pair.wire.pop_front() {
            let path = ikev2::Path { local: message.path.remote, remote: message.path.local };
            b.receive(pair.now, UNIX_NOW, path, &message.datagram);
            while let Some(output) = b.poll() {
                match output {
                    Output::Transmit { path, datagram } => {
                        let back = ikev2::Path { local: path.remote, remote: path.local };
                        pair.with(A, |endpoint, now| endpoint.receive(now, UNIX_NOW, back, &datagram));
                    }
                    Output::Event(peer, Event::Up(_)) => up = Some(peer),
                    _ => {}
                }
            }
        }
        assert_eq!(up, Some(found), "{name}");
        let status = b.status(pair.now).into_iter().find(|status| status.peer == found).unwrap();
        assert_eq!(status.ike[0].remote_id, Some(identity));
    }
}

/// Without an address of ours we cannot begin, and say so; we can answer.
#[test]
fn own_address_unknown() {
    let pair = connect(|host, config| {
        if host == B {
            config.local = None;
            config.initiate = true;
        }
    });
    pair.assert_converged();
    assert_eq!(pair.hosts[B].complaints(), ["no way to 10.9.0.1 is known"]);
    assert_eq!(pair.hosts[B].status(pair.now).local, Some(pair.hosts[B].address));
}

#[test]
fn over_ipv6() {
    let mut pair = Pair::new();
    for (host, address) in ["fd00::1", "fd00::2"].into_iter().enumerate() {
        pair.hosts[host].address = address.parse().unwrap();
    }
    pair.configure(B, PeerConfig { initiate: false, ..config("fd00::2", "fd00::1") });
    pair.configure(A, config("fd00::1", "fd00::2"));
    pair.run();
    pair.rekey_child(B);
    pair.rekey_ike(A);
    pair.assert_settled();
    assert_eq!(pair.hosts[A].sending().unwrap().remote, pair.hosts[B].address);
}
