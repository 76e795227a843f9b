//! IKE_AUTH in fragments (RFC 7383) as a peer may send it: out of order, twice, split anew, broken.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests too

mod puppet;

use ikev2::wire::{Exchange, MAX_FRAGMENTS, Payload, kind, parse};
use puppet::{Host, Puppet, path};

/// A host that waits for IKE_AUTH, which is some 300 bytes long.
fn host() -> (Host, Puppet, Vec<Payload>) {
    let mut host = Host::new(false);
    let puppet = Puppet::init(&mut host);
    let payloads = puppet.auth_request();
    (host, puppet, payloads)
}

#[test]
fn in_any_order() {
    let (mut host, mut puppet, payloads) = host();
    let header = puppet.header(Exchange::Auth, false, 1);
    let fragments = puppet.split(&header, &payloads, 100);
    assert!(fragments.len() > 3);
    let reversed = fragments.iter().skip(1).rev();
    for fragment in reversed.clone().chain(reversed) {
        assert_eq!(host.receive(path(4500), fragment), Vec::<Vec<u8>>::new());
    }
    assert!(host.installed().is_empty());
    let answer = host.receive(path(4500), &fragments[0]);
    assert_eq!((answer.len(), host.installed().len()), (1, 1));
    assert!(puppet.open(&answer[0]).1.iter().any(|p| p.kind() == kind::SA));
    // once more: RFC 7383 2.6.1 has one answer to all of them, on the first
    let again: Vec<_> = fragments.iter().flat_map(|fragment| host.receive(path(4500), fragment)).collect();
    assert_eq!((again, host.installed().len()), (answer, 1));
}

/// Not a single fragment of one attempt mixes with those of another.
#[test]
fn split_anew() {
    let (mut host, mut puppet, payloads) = host();
    let header = puppet.header(Exchange::Auth, false, 1);
    let few = puppet.split(&header, &payloads, 200);
    let many = puppet.split(&header, &payloads, 100);
    assert!(1 < few.len() && few.len() < many.len());
    for fragment in few[1..].iter().chain(&many[1..]).chain(&few) {
        assert_eq!(host.receive(path(4500), fragment), Vec::<Vec<u8>>::new());
    }
    assert_eq!(host.receive(path(4500), &many[0]).len(), 1);
    assert_eq!(host.installed().len(), 1);
}

/// What was changed on the way, or is missing for good, does no harm to the message in one piece.
#[test]
fn broken() {
    let (mut host, mut puppet, payloads) = host();
    let header = puppet.header(Exchange::Auth, false, 1);
    let fragments = puppet.split(&header, &payloads, 150);
    for fragment in &fragments {
        for byte in 0..fragment.len() {
            let mut changed = fragment.clone();
            changed[byte] ^= 1;
            for reply in host.receive(path(4500), &changed) {
                assert!(parse(&reply).unwrap().sealed.is_none());
            }
        }
    }
    for fragment in &fragments[1..] {
        host.receive(path(4500), fragment);
    }
    let request = puppet.sealed(&header, &payloads);
    assert_eq!(host.receive(path(4500), &request).len(), 1);
    assert_eq!(host.installed().len(), 1);
}

/// More fragments than anybody needs are never put together.
#[test]
fn too_many() {
    let (mut host, mut puppet, mut payloads) = host();
    let header = puppet.header(Exchange::Auth, false, 1);
    payloads.insert(0, Payload::VendorId(vec![7; 10_000]));
    let fragments = puppet.split(&header, &payloads, 200);
    assert!(fragments.len() > MAX_FRAGMENTS.into());
    for fragment in &fragments {
        assert_eq!(host.receive(path(4500), fragment), Vec::<Vec<u8>>::new());
    }
    let fragments = puppet.split(&header, &payloads, 1000);
    let answers: Vec<_> = fragments.iter().flat_map(|fragment| host.receive(path(4500), fragment)).collect();
    assert_eq!((answers.len(), host.installed().len()), (1, 1));
}
