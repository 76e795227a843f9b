//! What is written is read back; what is read is sound, whatever it was.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..=max)
}

fn attribute() -> impl Strategy<Value = Attribute> {
    prop_oneof![
        (15_u16..0x8000, any::<u16>()).prop_map(|(kind, value)| Attribute::Short { kind, value }),
        (0_u16..0x8000, bytes(9)).prop_map(|(kind, data)| Attribute::Long { kind, data }),
    ]
}

fn proposal() -> impl Strategy<Value = Proposal> {
    let transform = (any::<u8>(), any::<u16>(), any::<Option<u16>>(), vec(attribute(), 0..3))
        .prop_map(|(kind, id, key_bits, other)| Transform { kind, id, key_bits, other });
    (any::<u8>(), any::<u8>(), bytes(255), vec(transform, 0..20))
        .prop_map(|(number, protocol, spi, transforms)| Proposal { number, protocol, spi, transforms })
}

fn selector() -> impl Strategy<Value = TrafficSelector> {
    let addresses = prop_oneof![
        any::<[[u8; 4]; 2]>().prop_map(|[a, b]| [a.into(), b.into()]),
        any::<[[u8; 16]; 2]>().prop_map(|[a, b]| [a.into(), b.into()]),
    ];
    (any::<u8>(), any::<u16>(), any::<u16>(), addresses).prop_map(
        |(protocol, start_port, end_port, [start, end])| TrafficSelector {
            protocol,
            start_port,
            end_port,
            start,
            end,
        },
    )
}

fn payload() -> impl Strategy<Value = Payload> {
    let tagged = || (any::<u8>(), bytes(300));
    let delete = (0..9_usize)
        .prop_flat_map(|len| (any::<u8>(), vec(vec(any::<u8>(), len), 0..if len > 0 { 9 } else { 1 })));
    prop_oneof![
        vec(proposal(), 0..6).prop_map(Payload::Sa),
        (any::<u16>(), bytes(600)).prop_map(|(group, data)| Payload::Ke(KeyExchange { group, data })),
        tagged().prop_map(|(kind, data)| Payload::IdI(Identification { kind, data })),
        tagged().prop_map(|(kind, data)| Payload::IdR(Identification { kind, data })),
        tagged().prop_map(|(encoding, data)| Payload::Cert(Certificate { encoding, data })),
        tagged().prop_map(|(encoding, data)| Payload::CertReq(CertRequest { encoding, data })),
        tagged().prop_map(|(method, data)| Payload::Auth(AuthData { method, data })),
        vec(any::<u8>(), 16..=256).prop_map(Payload::Nonce),
        (any::<u8>(), bytes(255), any::<u16>(), bytes(300))
            .prop_map(|(protocol, spi, kind, data)| Payload::Notify(Notify { protocol, spi, kind, data })),
        delete.prop_map(|(protocol, spis)| Payload::Delete(Delete { protocol, spis })),
        bytes(40).prop_map(Payload::VendorId),
        vec(selector(), 0..5).prop_map(Payload::TsI),
        vec(selector(), 0..5).prop_map(Payload::TsR),
        bytes(40).prop_map(Payload::Configuration),
        bytes(40).prop_map(Payload::Eap),
        (select(vec![1_u8, 32, 49, 52, 54, 128, 255]), bytes(40)).prop_map(|(kind, data)| Payload::Unknown {
            kind,
            critical: false,
            data
        }),
    ]
}

fn any_header() -> impl Strategy<Value = Header> {
    (any::<[Spi; 2]>(), any::<u8>(), any::<[bool; 2]>(), any::<u32>()).prop_map(
        |(spis, exchange, flags, message_id)| Header {
            initiator_spi: spis[0],
            responder_spi: spis[1],
            exchange: Exchange::from_id(exchange),
            initiator: flags[0],
            response: flags[1],
            message_id,
        },
    )
}

/// What was done to the bytes of a message.
#[derive(Debug, Clone)]
enum Harm {
    Set(Index, u8),
    Flip(Index, u8),
    Cut(Index),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Copy(Index, Index, usize),
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, value)| Harm::Set(at, value)),
        (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Harm::Flip(at, bit)),
        any::<Index>().prop_map(Harm::Cut),
        (any::<Index>(), bytes(20)).prop_map(|(at, bytes)| Harm::Insert(at, bytes)),
        (any::<Index>(), 1..20_usize).prop_map(|(at, len)| Harm::Remove(at, len)),
        (any::<Index>(), any::<Index>(), 1..40_usize).prop_map(|(from, to, len)| Harm::Copy(from, to, len)),
    ]
}

fn apply(harm: &Harm, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    let len = bytes.len();
    match harm {
        Harm::Set(at, value) => bytes[at.index(len)] = *value,
        Harm::Flip(at, bit) => bytes[at.index(len)] ^= 1 << bit,
        Harm::Cut(at) => bytes.truncate(at.index(len)),
        Harm::Insert(at, new) => drop(bytes.splice(at.index(len)..at.index(len), new.iter().copied())),
        Harm::Remove(at, count) => drop(bytes.drain(at.index(len)..len.min(at.index(len) + count))),
        Harm::Copy(from, to, count) => {
            let piece = bytes[from.index(len)..len.min(from.index(len) + count)].to_vec();
            bytes.splice(to.index(len)..to.index(len), piece);
        }
    }
}

/// Parsed, a message can be written and gives the same again; a sealed part lies within it.
fn is_sound(bytes: &[u8]) {
    let Ok(datagram) = parse(bytes) else { return };
    match datagram.sealed {
        None => {
            let again = encode_clear(&datagram.header, &datagram.payloads);
            let parsed = parse(&again).expect("what was written");
            assert_eq!((parsed.header, parsed.payloads), (datagram.header, datagram.payloads));
        }
        Some(sealed) => assert_eq!([sealed.aad, sealed.body].concat(), bytes),
    }
}

proptest! {
    #[test]
    fn clear_messages(header in any_header(), payloads in vec(payload(), 0..12)) {
        let bytes = encode_clear(&header, &payloads);
        let datagram = parse(&bytes).unwrap();
        prop_assert_eq!((datagram.header, datagram.sealed), (header, None));
        prop_assert_eq!(datagram.payloads, payloads);
    }

    /// Sealed in any number of fragments that come in any order, some of them twice.
    #[test]
    fn sealed_messages(header in any_header(), payloads in vec(payload(), 0..6), limit in 150..4000_usize,
                       order in vec(any::<Index>(), 0..100)) {
        let messages = encode_sealed(&header, &payloads, limit, body_len, seal);
        prop_assert!(messages.iter().all(|m| m.len() <= limit));
        let mut reassembly = Reassembly::default();
        let order = order.iter().map(|i| i.index(messages.len())).chain(0..messages.len());
        let mut whole = None;
        for i in order.collect::<Vec<_>>() {
            let datagram = parse(&messages[i]).unwrap();
            prop_assert_eq!(datagram.header, header);
            let sealed = datagram.sealed.unwrap();
            whole = whole.or(match sealed.fragment {
                None => Some((sealed.first, open(&sealed))),
                Some(f) => reassembly.push(f.number, f.total, sealed.first, open(&sealed)),
            });
        }
        if messages.len() <= MAX_FRAGMENTS.into() {
            let (first, plain) = whole.unwrap();
            prop_assert_eq!(parse_inner(first, &plain).unwrap(), payloads);
        }
    }

    #[test]
    fn any_bytes(first in any::<u8>(), bytes in bytes(200)) {
        is_sound(&bytes);
        let _ = parse_inner(first, &bytes);
    }

    /// A captured message, harmed, with its length made right again or not.
    #[test]
    fn harmed_messages(which in any::<Index>(), harms in vec(harm(), 1..6), mend in any::<bool>()) {
        let messages = messages();
        let mut bytes = which.get(&messages).1.clone();
        for harm in &harms {
            apply(harm, &mut bytes);
        }
        let len = bytes.len() as u32;
        if let (true, Some(field)) = (mend, bytes.get_mut(24..28)) {
            field.copy_from_slice(&len.to_be_bytes());
        }
        is_sound(&bytes);
    }

    #[test]
    fn harmed_content(which in any::<Index>(), harms in vec(harm(), 1..6)) {
        let inner = inner();
        let inner = which.get(&inner);
        let mut bytes = inner.plain.clone();
        for harm in &harms {
            apply(harm, &mut bytes);
        }
        if let Ok(payloads) = parse_inner(inner.first, &bytes) {
            let clear = encode_clear(&header(), &payloads);
            prop_assert_eq!(parse(&clear).unwrap().payloads, payloads);
        }
    }

    /// Whole payloads doubled, taken away, moved and renumbered, which is for the state machine to judge.
    #[test]
    fn shuffled_payloads(which in any::<Index>(), moves in vec((any::<Index>(), any::<Index>(), 0..4_u8), 1..8), kinds in any::<[u8; 4]>()) {
        let messages: Vec<_> = messages().into_iter().filter(|(name, _)| name.contains("/init")).collect();
        let datagram = parse(&which.get(&messages).1).unwrap();
        let mut payloads = datagram.payloads;
        for (from, to, what) in &moves {
            if payloads.is_empty() {
                break;
            }
            let (from, to) = (from.index(payloads.len()), to.index(payloads.len()));
            match what {
                0 => payloads.swap(from, to),
                1 => drop(payloads.remove(from)),
                2 => payloads.insert(to, payloads[from].clone()),
                _ => payloads[from] = Payload::Unknown { kind: kinds[from % 4], critical: false, data: vec![0; from] },
            }
        }
        let bytes = encode_clear(&datagram.header, &payloads);
        is_sound(&bytes);
    }
}
