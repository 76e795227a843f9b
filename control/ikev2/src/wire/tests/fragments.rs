//! RFC 7383: splitting and putting together.

use super::*;

fn payloads() -> Vec<Payload> {
    let cert = (0..1000).map(|i| (i % 251) as u8).collect();
    let id = Identification { kind: id::FQDN, data: b"a.test".to_vec() };
    vec![Payload::IdI(id), Payload::Cert(Certificate { encoding: 4, data: cert })]
}

/// With any limit: no message is longer, none is empty, all together give what was sent.
#[test]
fn any_limit() {
    let whole = encode_sealed(&header(), &payloads(), usize::MAX, body_len, seal);
    assert_eq!(whole.len(), 1);
    let shortest = HEADER_LEN + 8 + body_len(1);
    for limit in 0..whole[0].len() + 3 {
        let messages = encode_sealed(&header(), &payloads(), limit, body_len, seal);
        assert!(messages.iter().all(|m| m.len() <= limit.max(shortest)), "{limit}");
        if limit >= whole[0].len() {
            assert_eq!(messages, whole);
            continue;
        }
        assert!(messages.iter().rev().skip(1).all(|m| m.len() == limit.max(shortest)), "filled to {limit}");
        let mut content = Vec::new();
        for (i, message) in messages.iter().enumerate() {
            let datagram = parse(message).unwrap();
            assert_eq!((datagram.header, datagram.payloads.len()), (header(), 0));
            let sealed = datagram.sealed.unwrap();
            let fragment = Fragment { number: i as u16 + 1, total: messages.len() as u16 };
            assert_eq!(sealed.fragment, Some(fragment));
            assert_eq!(sealed.first, if i == 0 { kind::ID_I } else { kind::NONE });
            assert_eq!(sealed.aad, &message[..HEADER_LEN + 8]);
            content.extend(open(&sealed));
        }
        assert_eq!(parse_inner(kind::ID_I, &content), Ok(payloads()));
    }
}

/// A body whose length grows in blocks, as that of AES-CBC does.
#[test]
fn blocks() {
    let body_len = |plain: usize| 16 + (plain + 1).next_multiple_of(16) + 16;
    let seal = |_: &[u8], plain: &[u8]| {
        let mut body = [&[0xaa; 16], plain].concat();
        body.resize(body_len(plain.len()), 0);
        body
    };
    for limit in 100..400 {
        let messages = encode_sealed(&header(), &payloads(), limit, body_len, seal);
        assert!(messages.iter().all(|m| m.len() <= limit && m.len() + 16 > limit.min(m.len() + 1)));
        let rest = (limit - HEADER_LEN - 8 - 32) / 16 * 16 - 1;
        let plain: usize = messages.iter().map(|m| parse(m).unwrap().sealed.unwrap().body.len()).sum();
        assert!(plain > 1000);
        assert_eq!(messages.len(), (4 + 4 + 6 + 4 + 1 + 1000usize).div_ceil(rest), "{limit}");
    }
}

#[test]
fn nothing_to_say() {
    for limit in [0, 100, usize::MAX] {
        let messages = encode_sealed(&header(), &[], limit, body_len, seal);
        let [message] = &messages[..] else { panic!("{limit}: {messages:?}") };
        let sealed = parse(message).unwrap().sealed.unwrap();
        assert_eq!((sealed.first, sealed.fragment, open(&sealed)), (kind::NONE, None, vec![]));
    }
}

/// More than a UDP datagram carries is split even where no fragments are wanted: it has no other way.
#[test]
fn more_than_a_datagram() {
    let certs = vec![Payload::Cert(Certificate { encoding: 4, data: vec![1; 60_000] }); 3];
    let messages = encode_sealed(&header(), &certs, usize::MAX, body_len, seal);
    assert_eq!(messages.len(), 3);
    assert!(messages.iter().all(|m| parse(m).is_ok() && m.len() <= 65_503));
}

/// All fragments of a message with `total`, in an order; nothing may come of them before the last.
fn in_order(total: u16, order: impl IntoIterator<Item = u16>) -> Option<(u8, Vec<u8>)> {
    let mut reassembly = Reassembly::default();
    let mut whole = None;
    for number in order {
        assert_eq!(whole, None);
        let first = if number == 1 { kind::ID_I } else { kind::NONE };
        whole = reassembly.push(number, total, first, number.to_be_bytes().to_vec());
    }
    whole
}

#[test]
fn totals() {
    let content =
        |total: u16| Some((kind::ID_I, (1..=total).flat_map(u16::to_be_bytes).collect::<Vec<u8>>()));
    for total in [1, 2, 3, MAX_FRAGMENTS - 1, MAX_FRAGMENTS] {
        assert_eq!(in_order(total, 1..=total), content(total));
        assert_eq!(in_order(total, (1..=total).rev()), content(total));
        assert_eq!(in_order(total, 1..total), None);
        let doubled = (1..=total).flat_map(|n| if n < total { vec![n, n] } else { vec![n] });
        assert_eq!(in_order(total, doubled), content(total));
    }
    for total in [0, MAX_FRAGMENTS + 1, u16::MAX] {
        assert_eq!(in_order(total, 0..=total), None, "{total}");
    }
    assert_eq!(in_order(3, [0, 4, 1, 2]), None);
    assert_eq!(in_order(3, [0, 4, u16::MAX, 2, 3, 1]), content(3));
}

#[test]
fn duplicates_change_nothing() {
    let mut r = Reassembly::default();
    assert_eq!(r.push(1, 2, 35, vec![1]), None);
    assert_eq!(r.push(1, 2, 36, vec![9, 9]), None);
    assert_eq!(r.push(2, 2, 99, vec![2]), Some((35, vec![1, 2])));
    // and it can be used again
    assert_eq!(r.push(1, 1, 41, vec![]), Some((41, vec![])));
}

/// RFC 7383 2.6.1: who splits again after no answer splits into more; old fragments that are still under way do no harm.
#[test]
fn other_totals() {
    let mut r = Reassembly::default();
    assert_eq!(r.push(1, 2, 35, vec![1, 2, 3]), None);
    assert_eq!(r.push(2, 3, 0, vec![3, 4]), None);
    assert_eq!(r.push(2, 2, 0, vec![4, 5, 6]), None);
    assert_eq!(r.push(3, 3, 0, vec![5, 6]), None);
    assert_eq!(r.push(1, 3, 35, vec![1, 2]), Some((35, vec![1, 2, 3, 4, 5, 6])));
}

/// However much is sent, what is kept is bounded.
#[test]
fn bounded() {
    let mut r = Reassembly::default();
    let piece = vec![7; MAX_REASSEMBLED / 3];
    for number in 1..=3 {
        assert_eq!(r.push(number, MAX_FRAGMENTS, 35, piece.clone()), None);
    }
    // these are too much, the empty ones are not
    for number in 4..=MAX_FRAGMENTS {
        assert_eq!(r.push(number, MAX_FRAGMENTS, 0, vec![7; 10]), None);
    }
    let mut whole = None;
    for number in 4..=MAX_FRAGMENTS {
        assert_eq!(whole, None);
        whole = r.push(number, MAX_FRAGMENTS, 0, vec![]);
    }
    assert_eq!(whole, Some((35, vec![7; MAX_REASSEMBLED])));
    assert_eq!(r.push(1, 1, 35, vec![0; MAX_REASSEMBLED + 1]), None);
}
