//! Messages that strongSwan and libreswan sent.

use super::*;

fn message(name: &str) -> Vec<u8> {
    messages().into_iter().find(|(n, _)| *n == name).expect("a message of that name").1
}

fn plain(name: &str) -> Vec<Payload> {
    let inner =
        inner().into_iter().find(|i| i.name == name && i.fragment.is_none()).expect("a message of that name");
    parse_inner(inner.first, &inner.plain).unwrap()
}

/// In the clear or not, each is read, and what is not encrypted is written again as it was.
#[test]
fn are_read_and_written_again() {
    for (name, bytes) in messages() {
        let message = parse(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(Header::peek(&bytes), Some(message.header));
        match message.sealed {
            None => assert_eq!(encode_clear(&message.header, &message.payloads), bytes, "{name}"),
            Some(sealed) => {
                assert_eq!(message.payloads, []);
                assert_eq!([sealed.aad, sealed.body].concat(), bytes, "{name}");
                let header = if sealed.fragment.is_some() { 36 } else { 32 };
                assert_eq!(sealed.aad.len(), header, "{name}");
            }
        }
    }
    for inner in inner().iter().filter(|i| i.fragment.is_none()) {
        let payloads = parse_inner(inner.first, &inner.plain).unwrap();
        let again = encode_sealed(&header(), &payloads, usize::MAX, body_len, seal);
        let sealed = parse(&again[0]).unwrap().sealed.unwrap();
        assert_eq!((sealed.first, open(&sealed)), (inner.first, inner.plain.clone()), "{}", inner.name);
    }
}

#[test]
fn request_of_ike_sa_init() {
    let bytes = message("ike-psk-aes128/init-0-request");
    let message = parse(&bytes).unwrap();
    let header = Header {
        initiator_spi: 0xa921_df9d_1b8e_ac74_u64.to_be_bytes(),
        responder_spi: [0; 8],
        exchange: Exchange::SaInit,
        initiator: true,
        response: false,
        message_id: 0,
    };
    assert_eq!(message.header, header);
    let [Payload::Sa(proposals), Payload::Ke(ke), Payload::Nonce(nonce), notifies @ ..] =
        &message.payloads[..]
    else {
        panic!("{:?}", message.payloads)
    };
    let transforms = vec![
        Transform::new(transform::ENCR, 20, Some(128)),
        Transform::new(transform::PRF, 5, None),
        Transform::new(transform::GROUP, 19, None),
    ];
    assert_eq!(*proposals, [Proposal { number: 1, protocol: protocol::IKE, spi: vec![], transforms }]);
    assert_eq!((ke.group, ke.data.len(), nonce.len()), (19, 64, 32));
    let kinds: Vec<_> =
        notifies.iter().map(|p| if let Payload::Notify(n) = p { n.kind } else { 0 }).collect();
    use notify::*;
    let wanted = [
        NAT_DETECTION_SOURCE_IP,
        NAT_DETECTION_DESTINATION_IP,
        IKEV2_FRAGMENTATION_SUPPORTED,
        SIGNATURE_HASH_ALGORITHMS,
        REDIRECT_SUPPORTED,
    ];
    assert_eq!(kinds, wanted);
}

/// By a trap policy the selectors are doubled: the packet's and the policy's.
#[test]
fn request_of_ike_auth() {
    let payloads = plain("ovs-ipsec-psk/auth-1-request");
    let address = |last| Identification { kind: id::IPV4_ADDR, data: vec![10, 9, 0, last] };
    assert!(payloads.contains(&Payload::IdI(address(1))) && payloads.contains(&Payload::IdR(address(2))));
    assert!(payloads.contains(&Payload::Notify(Notify::new(notify::USE_TRANSPORT_MODE, []))));
    assert!(
        payloads.iter().any(|p| matches!(p, Payload::Auth(AuthData { method: 2, data }) if data.len() == 32))
    );
    let selector = |last| {
        let address = [10, 9, 0, last].into();
        TrafficSelector { protocol: 47, start_port: 0, end_port: 65535, start: address, end: address }
    };
    assert!(payloads.contains(&Payload::TsI(vec![selector(1); 2])));
    assert!(payloads.contains(&Payload::TsR(vec![selector(2); 2])));
}

#[test]
fn rekeying_and_deletion() {
    let payloads = plain("ike-psk-aes256/child-2-request");
    let rekeyed = 0xc452_ac23_u32.to_be_bytes().to_vec();
    let rekey_sa =
        Notify { protocol: protocol::ESP, spi: rekeyed.clone(), kind: notify::REKEY_SA, data: vec![] };
    assert_eq!(payloads[0], Payload::Notify(rekey_sa));
    let delete = Delete { protocol: protocol::ESP, spis: vec![rekeyed] };
    assert_eq!(plain("ike-psk-aes256/info-3-request"), [Payload::Delete(delete)]);
    let delete = Delete { protocol: protocol::IKE, spis: vec![] };
    assert_eq!(plain("ike-psk-aes256/info-5-request"), [Payload::Delete(delete)]);
    assert_eq!(plain("ike-psk-aes256/info-5-response"), []);
}

/// IKE_AUTH with certificates, in fragments: content as encrypted, places as in the messages.
#[test]
fn fragments() {
    let messages = messages();
    let datagrams: Vec<_> = messages.iter().map(|(name, bytes)| (name, parse(bytes).unwrap())).collect();
    let fragments: Vec<_> =
        datagrams.iter().filter_map(|(name, d)| Some((**name, d.sealed?, d.sealed?.fragment?))).collect();
    let mut reassembly = Reassembly::default();
    let mut whole = Vec::new();
    for (inner, (name, sealed, fragment)) in
        inner().into_iter().filter(|i| i.fragment.is_some()).zip(fragments)
    {
        let place = (fragment.number, fragment.total);
        assert_eq!((inner.name, inner.fragment, inner.first), (name, Some(place), sealed.first));
        if let Some((first, plain)) = reassembly.push(place.0, place.1, sealed.first, inner.plain) {
            whole.push(parse_inner(first, &plain).unwrap());
        }
    }
    assert_eq!(whole.len(), 4);
    for payloads in whole {
        let kinds: Vec<_> = payloads.iter().map(Payload::kind).collect();
        assert!(matches!(kinds[..], [kind::ID_I | kind::ID_R, kind::CERT, ..]), "{kinds:?}");
        assert!(payloads.iter().any(|p| matches!(p, Payload::Auth(AuthData { method: 14, .. }))));
    }
}
