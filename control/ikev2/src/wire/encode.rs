//! From payloads to bytes.
//!
//! Length fields have 16 bits. What does not fit is cut off; its maker saw to it that it fits.

use super::{HEADER_LEN, Header, Payload, kind, sa, selector};

/// The longest message that a UDP datagram over IPv4 carries, with a non-ESP marker in front.
const MAX_MESSAGE: usize = 65_535 - 20 - 8 - 4;
/// Length of the generic header of a payload, and of that of a fragment.
const SK_LEN: usize = 4;
const SKF_LEN: usize = 8;
const CRITICAL: u8 = 0x80;

/// A message with nothing encrypted.
pub fn encode_clear(header: &Header, payloads: &[Payload]) -> Vec<u8> {
    let mut out = Vec::new();
    header.encode(first_kind(payloads), &mut out);
    encode_chain(payloads, &mut out);
    let len = out.len();
    set_length(&mut out, len);
    out
}

/// A message with all payloads encrypted: one SK message if it has at most `limit` bytes, else fragments (SKF, RFC 7383)
/// of at most `limit` bytes each. Pass `usize::MAX` where the peer knows no fragments.
///
/// `body_len` gives the bytes of IV, ciphertext, padding and ICV for so many of plaintext, never fewer for more;
/// `seal` is given what is only authenticated and the plaintext, in the order of the fragments.
///
/// A `limit` below what a byte of plaintext needs is taken to be that.
pub fn encode_sealed(
    header: &Header,
    payloads: &[Payload],
    limit: usize,
    body_len: impl Fn(usize) -> usize,
    mut seal: impl FnMut(&[u8], &[u8]) -> Vec<u8>,
) -> Vec<Vec<u8>> {
    let first = first_kind(payloads);
    let mut plain = Vec::new();
    encode_chain(payloads, &mut plain);

    let limit = limit.min(MAX_MESSAGE);
    if plain.is_empty() || HEADER_LEN + SK_LEN + body_len(plain.len()) <= limit {
        let body_len = body_len(plain.len());
        let message = sealed_header(header, kind::SK, first, &[], body_len);
        return vec![with_body(message, &plain, body_len, &mut seal)];
    }

    let fits = |len: &usize| HEADER_LEN + SKF_LEN + body_len(*len) <= limit;
    let step = longest(limit, fits).max(1).max(plain.len().div_ceil(u16::MAX.into()));
    let total = plain.len().div_ceil(step) as u16;
    let fragment = |(i, piece): (usize, &[u8])| {
        let number = i as u16 + 1;
        let next = if number == 1 { first } else { kind::NONE };
        let [[a, b], [c, d]] = [number.to_be_bytes(), total.to_be_bytes()];
        let body_len = body_len(piece.len());
        let message = sealed_header(header, kind::SKF, next, &[a, b, c, d], body_len);
        with_body(message, piece, body_len, &mut seal)
    };
    plain.chunks(step).enumerate().map(fragment).collect()
}

/// Everything in front of the body, the message's length included: all that is only authenticated.
fn sealed_header(header: &Header, kind: u8, next: u8, fragment: &[u8], body_len: usize) -> Vec<u8> {
    let payload_len = SK_LEN + fragment.len() + body_len;
    let mut out = Vec::with_capacity(HEADER_LEN + payload_len);
    header.encode(kind, &mut out);
    out.extend_from_slice(&[next, 0]);
    put(&mut out, payload_len as u16);
    out.extend_from_slice(fragment);
    set_length(&mut out, HEADER_LEN + payload_len);
    out
}

fn with_body(
    mut message: Vec<u8>,
    plain: &[u8],
    len: usize,
    seal: &mut impl FnMut(&[u8], &[u8]) -> Vec<u8>,
) -> Vec<u8> {
    let body = seal(&message, plain);
    debug_assert_eq!(body.len(), len, "body_len and seal disagree");
    message.extend_from_slice(&body);
    message
}

/// The longest length up to `max` that fits, or 0.
fn longest(max: usize, fits: impl Fn(&usize) -> bool) -> usize {
    let (mut good, mut bad) = (0, max + 1);
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        if fits(&middle) { good = middle } else { bad = middle }
    }
    good
}

fn set_length(message: &mut [u8], len: usize) {
    if let Some(field) = message.get_mut(HEADER_LEN - 4..HEADER_LEN) {
        field.copy_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
    }
}

fn first_kind(payloads: &[Payload]) -> u8 {
    payloads.first().map_or(kind::NONE, Payload::kind)
}

fn encode_chain(payloads: &[Payload], out: &mut Vec<u8>) {
    for (i, payload) in payloads.iter().enumerate() {
        let next = first_kind(payloads.get(i + 1..).unwrap_or_default());
        let critical = matches!(payload, Payload::Unknown { critical: true, .. });
        sized(out, &[next, if critical { CRITICAL } else { 0 }], |out| encode_body(payload, out));
    }
}

fn encode_body(payload: &Payload, out: &mut Vec<u8>) {
    match payload {
        Payload::Sa(proposals) => sa::encode(proposals, out),
        Payload::Ke(ke) => {
            put(out, ke.group);
            put(out, 0);
            out.extend_from_slice(&ke.data);
        }
        Payload::IdI(id) | Payload::IdR(id) => {
            out.extend_from_slice(&[id.kind, 0, 0, 0]);
            out.extend_from_slice(&id.data);
        }
        Payload::Cert(cert) => {
            out.push(cert.encoding);
            out.extend_from_slice(&cert.data);
        }
        Payload::CertReq(request) => {
            out.push(request.encoding);
            out.extend_from_slice(&request.data);
        }
        Payload::Auth(auth) => {
            out.extend_from_slice(&[auth.method, 0, 0, 0]);
            out.extend_from_slice(&auth.data);
        }
        Payload::Notify(notify) => {
            let spi = notify.spi.get(..255).unwrap_or(&notify.spi);
            out.extend_from_slice(&[notify.protocol, spi.len() as u8]);
            put(out, notify.kind);
            out.extend_from_slice(spi);
            out.extend_from_slice(&notify.data);
        }
        Payload::Delete(delete) => {
            let len = delete.spis.first().map_or(0, Vec::len);
            out.extend_from_slice(&[delete.protocol, len as u8]);
            put(out, delete.spis.len() as u16);
            delete.spis.iter().for_each(|spi| out.extend_from_slice(spi));
        }
        Payload::TsI(selectors) | Payload::TsR(selectors) => selector::encode(selectors, out),
        Payload::Nonce(data)
        | Payload::VendorId(data)
        | Payload::Configuration(data)
        | Payload::Eap(data)
        | Payload::Unknown { data, .. } => out.extend_from_slice(data),
    }
}

pub(super) fn put(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends two bytes, the length of the whole in two more, and what `body` appends.
pub(super) fn sized(out: &mut Vec<u8>, head: &[u8; 2], body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(head);
    put(out, 0);
    body(out);
    out.truncate(start + usize::from(u16::MAX));
    let len = (out.len() - start) as u16;
    if let Some(field) = out.get_mut(start + 2..start + 4) {
        field.copy_from_slice(&len.to_be_bytes());
    }
}
