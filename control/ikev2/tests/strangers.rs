//! Floods: whatever strangers send, and in whose name, what stands goes on to stand and a real peer connects (RFC 8019).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests too

mod puppet;

use std::net::{IpAddr, SocketAddr};

use ikev2::proposal::Group;
use ikev2::wire::{Exchange, KeyExchange, Notify, Payload, encode_clear, kind, notify, parse};
use ikev2::{Event, Limits, Path};
use puppet::{Host, Puppet, path};

/// IKE_SA_INIT of nobody in somebody's name.
fn spoofed(source: IpAddr) -> (Path, Vec<u8>) {
    let puppet = Puppet::new(true);
    let request = encode_clear(&puppet.header(Exchange::SaInit, false, 0), &puppet.init_request());
    (Path { remote: SocketAddr::new(source, 500), ..path(500) }, request)
}

fn cookie(answer: &[u8]) -> Option<Payload> {
    match &parse(answer).unwrap().payloads[..] {
        [Payload::Notify(n)] if n.kind == notify::COOKIE => Some(Payload::Notify(n.clone())),
        _ => None,
    }
}

/// A puppet that does as it is told: it shows the cookie and goes on, between floods.
fn connect(host: &mut Host, flood: impl Fn(&mut Host)) {
    let mut puppet = Puppet::new(true);
    let mut payloads = puppet.init_request();
    let header = puppet.header(Exchange::SaInit, false, 0);
    let request = puppet.clear(header, &payloads);
    let mut answer = host.receive(path(500), &request);
    flood(host);
    if let Some(cookie) = cookie(&answer[0]) {
        payloads.insert(0, cookie);
        let request = puppet.clear(header, &payloads);
        answer = host.receive(path(500), &request);
        flood(host);
    }
    puppet.init_answered(&answer[0]);
    let payloads = puppet.auth_request();
    let request = puppet.request(Exchange::Auth, &payloads);
    let answer = host.receive(path(4500), &request);
    assert!(puppet.open(&answer[0]).1.iter().any(|p| p.kind() == kind::SA));
}

/// The peer's own address on the flood: after a handful it takes a cookie, which only the peer itself receives.
#[test]
fn in_the_peers_name() {
    let mut host = Host::new(false);
    let flood = |host: &mut Host| {
        for _ in 0..100 {
            let (path, request) = spoofed(path(500).remote.ip());
            let answer = host.receive(path, &request);
            assert_eq!(answer.len(), 1);
        }
    };
    flood(&mut host);
    let whole = host.sent.iter().filter(|(_, answer)| cookie(answer).is_none()).count();
    assert_eq!(whole, Limits::default().half_open_per_source);
    for standing in 1..=3 {
        connect(&mut host, flood);
        assert_eq!(host.installed().len(), standing);
    }
    // when they are forgotten, no cookies are asked for any more
    let expired = host.now + Limits::default().half_open_time;
    while host.now < expired {
        host.wait();
    }
    let puppet = Puppet::connect(&mut host);
    assert_ne!(puppet.child[1], 0);
}

/// Public values that nobody has, in the peer's name: nothing is spent on them, and they take nobody's place.
#[test]
fn of_impossible_public_values() {
    let mut host = Host::new(false);
    for value in [vec![0; 32], vec![9; 31], Vec::new()] {
        for group in [Group::Curve25519, Group::Ecp256] {
            let puppet = Puppet::new(true);
            let ke = KeyExchange { group: group.id(), data: value.clone() };
            let mut payloads = puppet.init_request();
            let place = payloads.iter().position(|p| p.kind() == kind::KE).unwrap();
            payloads[place] = Payload::Ke(ke);
            let request = encode_clear(&puppet.header(Exchange::SaInit, false, 0), &payloads);
            for answer in host.receive(path(500), &request) {
                let refused = matches!(&parse(&answer).unwrap().payloads[..], [Payload::Notify(_)]);
                assert!(refused, "{group} {value:?}");
            }
        }
    }
    assert!(host.installed().is_empty());
    connect(&mut host, |_| {});
}

/// Addresses of no peer: a few errors a second, whatever comes, and what stands is not touched.
#[test]
fn in_the_name_of_nobody() {
    let mut host = Host::new(false);
    let mut standing = Puppet::connect(&mut host);
    let before = host.sent.len();
    for i in 0..2000_u32 {
        let (path, request) = spoofed(IpAddr::from((0xc000_0200 + i).to_be_bytes()));
        host.receive(path, &request);
        let mut unknown = request.clone();
        unknown[18] = 35;
        unknown[8..16].fill(7);
        host.receive(path, &unknown);
    }
    assert_eq!(host.sent.len() - before, Limits::default().errors_per_second as usize);
    let request = standing.request(Exchange::Informational, &[]);
    let answer = host.receive(path(4500), &request);
    assert_eq!(standing.open(&answer[0]).1, []);
    connect(&mut host, |_| ());
}

/// Any address is served: beyond the first ones all must show a cookie, and then there is an end, too.
#[test]
fn in_everybodys_name() {
    let limits = Limits { half_open: 50, ..Limits::default() };
    let mut host = Host::with(limits, |config| config.remote = IpAddr::from([0; 4]));
    let flood = |host: &mut Host| {
        for i in 0..200_u32 {
            let (path, request) = spoofed(IpAddr::from((0xc633_6400 + i).to_be_bytes()));
            host.receive(path, &request);
        }
    };
    flood(&mut host);
    let whole = host.sent.iter().filter(|(_, answer)| cookie(answer).is_none()).count();
    assert_eq!(whole, limits.cookies_from);
    connect(&mut host, flood);
    assert_eq!(host.installed().len(), 1);
    // who owns many addresses and shows all the cookies fills the rest
    let mut granted = 0;
    for i in 0..100_u32 {
        let puppet = Puppet::new(true);
        let header = puppet.header(Exchange::SaInit, false, 0);
        let source = SocketAddr::new(IpAddr::from((0x0a0a_0000 + i).to_be_bytes()), 500);
        let path = Path { remote: source, ..path(500) };
        let mut payloads = puppet.init_request();
        let answer = host.receive(path, &encode_clear(&header, &payloads));
        payloads.insert(0, cookie(&answer[0]).unwrap());
        granted += host.receive(path, &encode_clear(&header, &payloads)).len();
    }
    assert_eq!(granted, limits.half_open - limits.cookies_from);
}

/// A cookie is good for one request of one address, as it was.
#[test]
fn cookies_of_others() {
    let mut host = Host::with(Limits { cookies_from: 0, ..Limits::default() }, |_| ());
    let puppet = Puppet::new(true);
    let header = puppet.header(Exchange::SaInit, false, 0);
    let payloads = puppet.init_request();
    let answer = host.receive(path(500), &encode_clear(&header, &payloads));
    let own = cookie(&answer[0]).unwrap();
    let (_, other) = spoofed(path(500).remote.ip());
    let answer = host.receive(path(500), &other);
    let others = cookie(&answer[0]).unwrap();
    let empty = Payload::Notify(Notify::new(notify::COOKIE, []));
    for (first, accepted) in [(&others, false), (&empty, false), (&own, true)] {
        let payloads = [std::slice::from_ref(first), &payloads[..]].concat();
        let answer = host.receive(path(500), &encode_clear(&header, &payloads));
        assert_eq!(cookie(&answer[0]).is_none(), accepted);
    }
}

/// Who needs another group hears of it in a flood, too, for an own peer's first guess may not be the other's.
#[test]
fn another_group_in_a_flood() {
    let mut host = Host::new(false);
    for i in 0..100_u32 {
        let (path, request) = spoofed(IpAddr::from((0xc000_0200 + i).to_be_bytes()));
        host.receive(path, &request);
    }
    let puppet = Puppet::new(true);
    let mut payloads = puppet.init_request();
    for payload in &mut payloads {
        if let Payload::Ke(ke) = payload {
            ke.group = 19;
        }
    }
    let request = encode_clear(&puppet.header(Exchange::SaInit, false, 0), &payloads);
    let answer = host.receive(path(500), &request);
    let wanted = Notify::new(notify::INVALID_KE_PAYLOAD, 31_u16.to_be_bytes());
    assert_eq!(parse(&answer[0]).unwrap().payloads, [Payload::Notify(wanted)]);
}

/// The same request again gets the same answer, and makes nothing new.
#[test]
fn repeated() {
    let mut host = Host::new(false);
    let (path, request) = spoofed(path(500).remote.ip());
    let answer = host.receive(path, &request);
    for _ in 0..100 {
        assert_eq!(host.receive(path, &request), answer);
    }
    // another one with the same SPI, which somebody may have sent to be first, stands for itself
    let mut other = request;
    let last = other.len() - 1;
    other[last] ^= 1;
    let [another] = &host.receive(path, &other)[..] else { panic!("one answer") };
    assert_ne!(*another, answer[0]);
}

/// The operator is told what a peer asks for in vain, but not by whoever has much to say in its name.
#[test]
fn troubles_of_others() {
    let told = |host: &Host| host.events.iter().filter(|event| matches!(event, Event::Trouble(_))).count();
    let mut host = Host::new(false);
    let flood = |host: &mut Host| {
        for id in 0..1000 {
            let puppet = Puppet::new(true);
            let mut payloads = puppet.init_request();
            for payload in &mut payloads {
                if let Payload::Sa(proposals) = payload {
                    proposals.truncate(1);
                    proposals[0].transforms[0].id = 100 + id;
                }
            }
            host.receive(path(500), &encode_clear(&puppet.header(Exchange::SaInit, false, 0), &payloads));
        }
    };
    flood(&mut host);
    assert_eq!(told(&host), Limits::default().errors_per_second as usize);
    let mut host = Host::new(false);
    Puppet::connect(&mut host);
    flood(&mut host);
    assert_eq!(told(&host), 0);
}
