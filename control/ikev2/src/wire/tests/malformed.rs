//! What is refused, and why; and what only looks malformed.

use super::*;

/// A message with one payload, whose bytes begin with its generic header.
fn message(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = encode_clear(&header(), &[]);
    bytes[16] = first;
    bytes.extend_from_slice(payload);
    let len = bytes.len() as u32;
    bytes[24..28].copy_from_slice(&len.to_be_bytes());
    bytes
}

/// A payload's body parsed, as the only payload.
fn body(kind: u8, body: &[u8]) -> Result<Payload, ParseError> {
    let mut payload = vec![0, 0];
    payload.extend((body.len() as u16 + 4).to_be_bytes());
    payload.extend(body);
    parse_inner(kind, &payload).map(|mut payloads| payloads.remove(0))
}

#[test]
fn headers() {
    let good = message(0, &[]);
    assert_eq!(parse(&good).unwrap().header, header());
    for len in 0..good.len() {
        assert_eq!(parse(&good[..len]), Err(ParseError::Truncated("header")));
        assert_eq!(Header::peek(&good[..len]), None);
    }
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    assert_eq!(parse(&with(17, 0x30)), Err(ParseError::MajorVersion(3)));
    assert_eq!(parse(&with(17, 0x10)), Err(ParseError::MajorVersion(1)));
    assert_eq!(Header::peek(&with(17, 0x30)), Some(header()), "to answer it");
    assert_eq!(parse(&with(17, 0x2f)).unwrap().header, header(), "minor versions are ignored");
    assert_eq!(parse(&with(19, 0x08 | 0xd7)).unwrap().header, header(), "reserved flags are ignored");
    assert_eq!(parse(&with(18, 99)).unwrap().header.exchange, Exchange::Other(99));
    for (at, value) in [(27, 27), (27, 29), (24, 0xff)] {
        assert_eq!(parse(&with(at, value)), Err(ParseError::Length("message")));
    }
    assert_eq!(parse(&with(16, kind::SA)), Err(ParseError::Truncated("message")));
    let behind = [&good[..], &[0]].concat();
    assert_eq!(parse(&behind), Err(ParseError::Length("message")));
}

/// Cut anywhere, with the header's length made right: refused, or a message of fewer payloads where the cut is between two
/// and the last of them says so.
#[test]
fn cut_short() {
    for (name, bytes) in messages().into_iter().filter(|(name, _)| name.contains("/init")) {
        for len in HEADER_LEN..bytes.len() {
            let mut cut = bytes[..len].to_vec();
            cut[24..28].copy_from_slice(&(len as u32).to_be_bytes());
            assert!(parse(&cut).is_err(), "{name} cut to {len}");
        }
    }
    for inner in inner().iter().filter(|i| i.fragment.is_none()) {
        for len in 0..inner.plain.len() {
            assert!(parse_inner(inner.first, &inner.plain[..len]).is_err(), "{} cut to {len}", inner.name);
        }
        let behind = [&inner.plain[..], &[0]].concat();
        assert!(parse_inner(inner.first, &behind).is_err());
    }
}

/// RFC 7296 2.5
#[test]
fn the_critical_bit_matters_on_unknown_payloads_alone() {
    let vendor = Payload::VendorId(b"x".to_vec());
    for kind in (1..=255).filter(|k| !(kind::SA..=kind::EAP).contains(k) && *k != kind::SKF) {
        let data = b"data".to_vec();
        let unknown = |critical| Payload::Unknown { kind, critical, data: data.clone() };
        let bytes = encode_clear(&header(), &[vendor.clone(), unknown(false), vendor.clone()]);
        assert_eq!(parse(&bytes).unwrap().payloads, [vendor.clone(), unknown(false), vendor.clone()]);
        let bytes = encode_clear(&header(), &[vendor.clone(), unknown(true), vendor.clone()]);
        assert_eq!(parse(&bytes), Err(ParseError::UnsupportedCritical(kind)));
    }
    let known = message(kind::VENDOR_ID, &[0, 0x80, 0, 5, b'x']);
    assert_eq!(parse(&known).unwrap().payloads, std::slice::from_ref(&vendor));
    let reserved = message(kind::VENDOR_ID, &[0, 0x7f, 0, 5, b'x']);
    assert_eq!(parse(&reserved).unwrap().payloads, [vendor]);
    let unknown = message(200, &[0, 0x7f, 0, 4]);
    assert!(matches!(parse(&unknown).unwrap().payloads[..], [Payload::Unknown { kind: 200, .. }]));
}

#[test]
fn payload_lengths() {
    for len in [0, 1, 2, 3] {
        assert_eq!(parse(&message(kind::NONCE, &[0, 0, 0, len])), Err(ParseError::Length("payload")));
    }
    assert_eq!(parse(&message(kind::NONCE, &[0, 0, 0, 5])), Err(ParseError::Truncated("message")));
    assert_eq!(parse(&message(kind::NONCE, &[0, 0, 0])), Err(ParseError::Truncated("message")));
    assert_eq!(parse(&message(kind::VENDOR_ID, &[0, 0, 0, 4, 0])), Err(ParseError::Length("message")));
    // a payload named that is not there
    assert_eq!(
        parse(&message(kind::VENDOR_ID, &[kind::NONCE, 0, 0, 4])),
        Err(ParseError::Truncated("message"))
    );
}

#[test]
fn encrypted_payloads() {
    let sk = |kind, data: &[u8]| parse(&message(kind, data)).map(|d| d.sealed.map(|s| s.body.len()));
    assert_eq!(sk(kind::SK, &[33, 0, 0, 6, 1, 2]), Ok(Some(2)));
    assert_eq!(sk(kind::SK, &[33, 0, 0, 4]), Ok(Some(0)), "too short for a cipher, which says so");
    assert_eq!(sk(kind::SK, &[33, 0, 0, 4, 0]), Err(ParseError::Length("encrypted payload")));
    assert_eq!(sk(kind::SK, &[33, 0, 0, 7, 1, 2]), Err(ParseError::Truncated("message")));
    let out_of_place = Err(ParseError::Value("a fragment's number is not within the total"));
    assert_eq!(sk(kind::SKF, &[33, 0, 0, 8, 0, 1, 0, 1]), Ok(Some(0)));
    assert_eq!(sk(kind::SKF, &[0, 0, 0, 9, 0xff, 0xff, 0xff, 0xff, 1]), Ok(Some(1)));
    assert_eq!(sk(kind::SKF, &[33, 0, 0, 8, 0, 0, 0, 1]), out_of_place);
    assert_eq!(sk(kind::SKF, &[33, 0, 0, 8, 0, 0, 0, 0]), out_of_place);
    assert_eq!(sk(kind::SKF, &[33, 0, 0, 8, 0, 2, 0, 1]), out_of_place);
    assert_eq!(sk(kind::SKF, &[33, 0, 0, 7, 0, 1, 0]), Err(ParseError::Truncated("encrypted payload")));

    // payloads in front of it are in the clear, and authenticated
    let bytes = message(kind::VENDOR_ID, &[kind::SK, 0, 0, 5, b'x', 33, 0, 0, 6, 1, 2]);
    let datagram = parse(&bytes).unwrap();
    let sealed = datagram.sealed.unwrap();
    assert_eq!(datagram.payloads, [Payload::VendorId(b"x".to_vec())]);
    assert_eq!((sealed.first, sealed.aad, sealed.body), (33, &bytes[..37], &[1, 2][..]));
    for kind in [kind::SK, kind::SKF] {
        let nested = parse_inner(kind, &[0, 0, 0, 8, 0, 1, 0, 1]);
        assert_eq!(nested, Err(ParseError::Value("an encrypted payload is inside another")));
    }
}

#[test]
fn bodies() {
    use ParseError::{Length, Truncated};
    for len in [15, 257] {
        assert_eq!(body(kind::NONCE, &vec![0; len]), Err(Length("nonce")));
    }
    for len in [16, 256] {
        assert_eq!(body(kind::NONCE, &vec![1; len]), Ok(Payload::Nonce(vec![1; len])));
    }
    for (kind, shortest) in [
        (kind::KE, 4),
        (kind::ID_I, 4),
        (kind::ID_R, 4),
        (kind::CERT, 1),
        (kind::CERTREQ, 1),
        (kind::AUTH, 4),
        (kind::NOTIFY, 4),
        (kind::DELETE, 4),
        (kind::TS_I, 4),
        (kind::TS_R, 4),
    ] {
        assert!(body(kind, &vec![0; shortest]).is_ok(), "{kind}");
        assert!(matches!(body(kind, &vec![0; shortest - 1]), Err(Truncated(_))), "{kind}");
    }
    for kind in [kind::SA, kind::VENDOR_ID, kind::CP, kind::EAP] {
        assert!(body(kind, &[]).is_ok(), "{kind}");
    }
    assert_eq!(body(kind::NOTIFY, &[3, 4, 0, 11, 1, 2, 3]), Err(Truncated("notify payload")));

    let delete = |bytes: &[u8]| body(kind::DELETE, bytes);
    let spis = vec![vec![0, 0, 0, 1], vec![0, 0, 0, 2]];
    assert_eq!(
        delete(&[3, 4, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2]),
        Ok(Payload::Delete(Delete { protocol: 3, spis }))
    );
    let none = Ok(Payload::Delete(Delete { protocol: 1, spis: vec![] }));
    assert_eq!(delete(&[1, 0, 0, 0]), none);
    assert_eq!(delete(&[1, 0, 4, 0]), none, "SPIs of no length are none");
    let deleted =
        |count: u16| delete(&[&[3, 4][..], &count.to_be_bytes(), &vec![1; usize::from(count) * 4]].concat());
    assert!(deleted(MAX_SPIS).is_ok());
    assert_eq!(deleted(MAX_SPIS + 1), Err(ParseError::TooMany("SPIs")));
    for wrong in [
        &[3, 4, 0, 1][..],
        &[3, 4, 0, 1, 0, 0, 0],
        &[3, 4, 0, 1, 0, 0, 0, 0, 0],
        &[3, 0, 0, 1, 0],
        &[3, 4, 0, 0, 0],
    ] {
        assert_eq!(delete(wrong), Err(Length("delete payload")));
    }
}

#[test]
fn selectors() {
    use ParseError::{Length, Truncated};
    let v4 = [7, 47, 0, 16, 0, 0, 0xff, 0xff, 10, 0, 0, 1, 10, 0, 0, 2];
    let unknown = [9, 0, 0, 6, 1, 2]; // RFC 9478 calls it a security label
    let parsed = TrafficSelector {
        protocol: 47,
        start_port: 0,
        end_port: 65535,
        start: [10, 0, 0, 1].into(),
        end: [10, 0, 0, 2].into(),
    };
    let ts =
        |count: u8, parts: &[&[u8]]| body(kind::TS_I, &[&[count, 0, 0, 0], &parts.concat()[..]].concat());
    assert_eq!(ts(2, &[&v4, &v4]), Ok(Payload::TsI(vec![parsed, parsed])));
    assert_eq!(ts(3, &[&unknown, &v4, &unknown]), Ok(Payload::TsI(vec![parsed])));
    assert_eq!(ts(1, &[&unknown]), Ok(Payload::TsI(vec![])));
    assert_eq!(ts(1, &[&v4, &v4]), Err(Length("traffic selector payload")));
    assert_eq!(ts(3, &[&v4, &v4]), Err(Truncated("traffic selector payload")));
    let with_length = |len| {
        let mut v4 = v4;
        v4[3] = len;
        v4
    };
    assert_eq!(ts(1, &[&with_length(3)]), Err(Length("traffic selector")));
    assert_eq!(ts(1, &[&with_length(15)]), Err(Truncated("traffic selector")));
    assert_eq!(ts(1, &[&with_length(17)]), Err(Truncated("traffic selector payload")));
    assert_eq!(ts(1, &[&with_length(17), &[0]]), Err(Length("traffic selector")));
    let v6 = [&[8, 0, 0, 40, 0, 0, 0xff, 0xff][..], &[0xfd; 16], &[0xfe; 16]].concat();
    let Ok(Payload::TsI(selectors)) = ts(1, &[&v6]) else { panic!() };
    assert_eq!((selectors[0].start, selectors[0].end), ([0xfd; 16].into(), [0xfe; 16].into()));
    let v4_as_v6 = [&[8, 0, 0, 16][..], &v4[4..]].concat();
    assert_eq!(ts(1, &[&v4_as_v6]), Err(Truncated("traffic selector")));
    // addresses of two families make one selector of IPv6
    let mixed = TrafficSelector { end: [0xfe; 16].into(), ..parsed };
    let bytes = encode_clear(&header(), &[Payload::TsR(vec![mixed])]);
    let mapped = TrafficSelector { start: [0, 0, 0, 0, 0, 0xffff, 0x0a00, 1].into(), ..mixed };
    assert_eq!(parse(&bytes).unwrap().payloads, [Payload::TsR(vec![mapped])]);
}

#[test]
fn proposals() {
    use ParseError::{Length, TooMany, Truncated, Value};
    let marks = Value("the last proposal or transform is not marked so, or another is");
    // AES_CBC-128 and a group, in one proposal for ESP
    let good = [
        0, 0, 0, 32, 1, 3, 4, 2, 1, 2, 3, 4, 3, 0, 0, 12, 1, 0, 0, 12, 0x80, 14, 0, 128, 0, 0, 0, 8, 4, 0, 0,
        14,
    ];
    let transforms =
        vec![Transform::new(transform::ENCR, 12, Some(128)), Transform::new(transform::GROUP, 14, None)];
    let proposal = Proposal { number: 1, protocol: protocol::ESP, spi: vec![1, 2, 3, 4], transforms };
    assert_eq!(body(kind::SA, &good), Ok(Payload::Sa(vec![proposal.clone()])));
    let with = |at: usize, value: u8| {
        let mut bytes = good;
        bytes[at] = value;
        body(kind::SA, &bytes)
    };
    for (at, value, error) in [
        (0, 2, marks),
        (0, 1, marks),
        (3, 7, marks),
        (3, 3, Length("proposal")),
        (3, 31, marks),
        (3, 33, Truncated("SA payload")),
        (6, 255, Truncated("proposal")),
        (7, 1, Length("proposal")),
        (7, 3, Length("proposal")),
        (7, 0, Length("proposal")),
        (12, 0, marks),
        (12, 2, marks),
        (15, 3, Length("transform")),
        (15, 6, Truncated("transform")),
        (15, 255, Truncated("proposal")),
        (20, 0, Truncated("transform")),
        (24, 3, marks),
        (27, 7, marks),
    ] {
        assert_eq!(with(at, value), Err(error), "{at} {value}");
    }
    assert_eq!(with(1, 0xff), Ok(Payload::Sa(vec![proposal.clone()])), "reserved");
    assert_eq!(with(13, 0xff), Ok(Payload::Sa(vec![proposal.clone()])), "reserved");

    let sa = |count| Payload::Sa(vec![proposal.clone(); count]);
    let parsed =
        |payload: Payload| parse(&encode_clear(&header(), &[payload])).map(|mut d| d.payloads.remove(0));
    for count in [0, 1, MAX_PROPOSALS] {
        assert_eq!(parsed(sa(count)), Ok(sa(count)));
    }
    assert_eq!(parsed(sa(MAX_PROPOSALS + 1)), Err(TooMany("proposals")));
    let empty = Payload::Sa(vec![Proposal { transforms: vec![], ..proposal.clone() }]);
    assert_eq!(parsed(empty.clone()), Ok(empty));
}

#[test]
fn attributes() {
    let parsed = |attributes: &[u8]| {
        let transform = [&[0, 0, 0, attributes.len() as u8 + 8, 1, 0, 0, 12], attributes].concat();
        let proposal = [&[0, 0, 0, transform.len() as u8 + 8, 1, 1, 0, 1], &transform[..]].concat();
        match body(kind::SA, &proposal)? {
            Payload::Sa(mut proposals) => Ok(proposals.remove(0).transforms.remove(0)),
            other => panic!("{other:?}"),
        }
    };
    let transform = |key_bits, other: &[Attribute]| {
        Ok(Transform { other: other.to_vec(), ..Transform::new(1, 12, key_bits) })
    };
    let short = |kind, value| Attribute::Short { kind, value };
    let long = |kind, data: &[u8]| Attribute::Long { kind, data: data.to_vec() };
    assert_eq!(parsed(&[]), transform(None, &[]));
    assert_eq!(parsed(&[0x80, 14, 1, 0]), transform(Some(256), &[]));
    assert_eq!(parsed(&[0x80, 14, 1, 0, 0x80, 14, 0, 128]), transform(Some(256), &[short(14, 128)]));
    assert_eq!(
        parsed(&[0, 14, 0, 2, 1, 0]),
        transform(None, &[long(14, &[1, 0])]),
        "not of the form it must have"
    );
    assert_eq!(parsed(&[0xff, 0xff, 0, 1]), transform(None, &[short(0x7fff, 1)]));
    assert_eq!(parsed(&[0, 99, 0, 0, 0x80, 14, 0, 128]), transform(Some(128), &[long(99, &[])]));
    for wrong in [&[0x80][..], &[0x80, 14], &[0x80, 14, 0], &[0, 99, 0, 1], &[0, 99, 0]] {
        assert_eq!(parsed(wrong), Err(ParseError::Truncated("transform")));
    }
}

#[test]
fn too_many_payloads() {
    let vendor = |count| vec![Payload::VendorId(vec![]); count];
    let bytes = encode_clear(&header(), &vendor(MAX_PAYLOADS));
    assert_eq!(parse(&bytes).unwrap().payloads, vendor(MAX_PAYLOADS));
    let bytes = encode_clear(&header(), &vendor(MAX_PAYLOADS + 1));
    assert_eq!(parse(&bytes), Err(ParseError::TooMany("payloads")));
    assert_eq!(parse_inner(kind::VENDOR_ID, &bytes[HEADER_LEN..]), Err(ParseError::TooMany("payloads")));
}

/// What does not fit into a length field is cut off, so that what is written can be read.
#[test]
fn too_long_to_be_written() {
    let bytes = encode_clear(&header(), &[Payload::VendorId(vec![7; 70_000]), Payload::VendorId(vec![8])]);
    let cut = Payload::VendorId(vec![7; 65_531]);
    assert_eq!(parse(&bytes).unwrap().payloads, [cut, Payload::VendorId(vec![8])]);
    let selector =
        TrafficSelector { protocol: 0, start_port: 0, end_port: 0, start: [0; 4].into(), end: [0; 4].into() };
    let bytes = encode_clear(&header(), &[Payload::TsI(vec![selector; 300])]);
    assert_eq!(parse(&bytes).unwrap().payloads, [Payload::TsI(vec![selector; 255])]);
}
