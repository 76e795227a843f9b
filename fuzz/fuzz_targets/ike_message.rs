//! An IKE message before and after decryption, and what its proposals lead to.
//!
//! Input: a datagram. It is read as it is and with its length made right; what stands behind the header is read as the
//! content of an encrypted payload, too. The body of a fragment (SKF) is a series of decrypted fragments: number, total,
//! length, bytes.
#![no_main]

use ikev2::proposal::{ChildExchange, EspOffer, IkeOffer, accept_esp, accept_ike, choose_esp, choose_ike};
use ikev2::wire::{
    HEADER_LEN, Header, MAX_FRAGMENTS, MAX_REASSEMBLED, Payload, Proposal, Reassembly, encode_clear,
    encode_sealed, parse, parse_inner,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    message(data);
    let mut mended = data.to_vec();
    if let Some(length) = mended.get_mut(HEADER_LEN - 4..HEADER_LEN) {
        length.copy_from_slice(&(data.len() as u32).to_be_bytes());
        message(&mended);
        if let Some(header) = Header::peek(data) {
            content(&header, data[16], &data[HEADER_LEN..]);
        }
    }
});

fn message(bytes: &[u8]) {
    let Ok(datagram) = parse(bytes) else { return };
    assert_eq!(Header::peek(bytes), Some(datagram.header));
    match datagram.sealed {
        None => {
            let again = encode_clear(&datagram.header, &datagram.payloads);
            let again = parse(&again).expect("what was written");
            assert_eq!((again.header, &again.payloads), (datagram.header, &datagram.payloads));
        }
        Some(sealed) => {
            assert_eq!([sealed.aad, sealed.body].concat(), bytes);
            if sealed.fragment.is_some() {
                reassemble(sealed.body);
            }
        }
    }
    for payload in &datagram.payloads {
        if let Payload::Sa(proposals) = payload {
            negotiate(proposals);
        }
    }
}

/// Written in fragments of any size, content is read back.
fn content(header: &Header, first: u8, plain: &[u8]) {
    let Ok(payloads) = parse_inner(first, plain) else { return };
    let limit = 100 + header.message_id as usize % 2000;
    let messages = encode_sealed(header, &payloads, limit, |len| len + 1, |_, plain| [plain, &[0]].concat());
    if messages.len() > MAX_FRAGMENTS.into() {
        return;
    }
    let mut reassembly = Reassembly::default();
    let mut whole = None;
    for message in &messages {
        assert!(message.len() <= limit && whole.is_none());
        let sealed = parse(message).expect("what was written").sealed.expect("an encrypted payload");
        let plain = sealed.body[..sealed.body.len() - 1].to_vec();
        whole = match sealed.fragment {
            None => Some((sealed.first, plain)),
            Some(f) => reassembly.push(f.number, f.total, sealed.first, plain),
        };
    }
    let (first, plain) = whole.expect("all fragments");
    assert_eq!(parse_inner(first, &plain).expect("what was written"), payloads);
}

fn reassemble(mut body: &[u8]) {
    let mut reassembly = Reassembly::default();
    while let [number, total, len, rest @ ..] = body {
        let (plain, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        body = rest;
        if let Some((_, whole)) = reassembly.push((*number).into(), (*total).into(), 35, plain.to_vec()) {
            assert!(whole.len() <= MAX_REASSEMBLED);
        }
    }
}

/// Whatever is offered, an answer takes one transform of each type out of one proposal; a refusal is short enough to log.
fn negotiate(offered: &[Proposal]) {
    let spi = [9; 8];
    for (ours, spi) in [(IkeOffer::default(), None), (IkeOffer::default(), Some(spi))] {
        match choose_ike(offered, &ours, spi) {
            Ok(choice) => is_one_of(&choice.answer, offered),
            Err(refusal) => assert!(refusal.to_string().len() < 16_384),
        }
        let _ = accept_ike(offered, &ours, spi);
    }
    for exchange in [ChildExchange::Auth, ChildExchange::CreateChildSa] {
        let ours = EspOffer::default();
        match choose_esp(offered, &ours, exchange, 0x0102_0304) {
            Ok(choice) => is_one_of(&choice.answer, offered),
            Err(refusal) => assert!(refusal.to_string().len() < 16_384),
        }
        let _ = accept_esp(offered, &ours, exchange);
    }
}

fn is_one_of(answer: &Proposal, offered: &[Proposal]) {
    let transforms = &answer.transforms;
    let fits = |p: &Proposal| {
        (p.number, p.protocol) == (answer.number, answer.protocol)
            && transforms.iter().all(|t| p.transforms.contains(t))
    };
    assert!(offered.iter().any(fits), "{answer} of {offered:?}");
    let mut kinds: Vec<_> = transforms.iter().map(|t| t.kind).collect();
    kinds.dedup();
    assert_eq!(kinds.len(), transforms.len(), "{answer}");
}
