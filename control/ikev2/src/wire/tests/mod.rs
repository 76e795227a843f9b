//! Codecs against messages of other implementations, malformed ones, and their own inverse.

mod captured;
mod fragments;
mod malformed;
mod properties;

use super::*;

/// Messages of strongSwan and libreswan: name and bytes.
fn messages() -> Vec<(&'static str, Vec<u8>)> {
    lines(include_str!("../../../tests/data/messages.txt"))
        .map(|line| line.split_once(' ').expect("a name and a message"))
        .map(|(name, hex)| (name, unhex(hex)))
        .collect()
}

/// What was encrypted in them, in their order.
struct Inner {
    name: &'static str,
    fragment: Option<(u16, u16)>,
    first: u8,
    plain: Vec<u8>,
}

fn inner() -> Vec<Inner> {
    lines(include_str!("../../../tests/data/inner.txt")).map(inner_line).collect()
}

fn inner_line(line: &'static str) -> Inner {
    let mut words = line.split(' ');
    let mut word = || words.next().unwrap_or_default();
    let name = word();
    let fragment = word().split_once('/').map(|(n, total)| (n.parse().unwrap(), total.parse().unwrap()));
    Inner { name, fragment, first: word().parse().unwrap(), plain: unhex(word()) }
}

fn lines(file: &'static str) -> impl Iterator<Item = &'static str> {
    file.lines().filter(|line| !line.starts_with('#'))
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hex")).collect()
}

fn header() -> Header {
    Header {
        initiator_spi: *b"initiatr",
        responder_spi: *b"respondr",
        exchange: Exchange::Auth,
        initiator: true,
        response: false,
        message_id: 0x0102_0304,
    }
}

/// A stand-in for encryption: 8 bytes of IV, a byte of padding length, 16 bytes of ICV that hold the length of the AAD.
fn body_len(plain: usize) -> usize {
    8 + plain + 1 + 16
}

fn seal(aad: &[u8], plain: &[u8]) -> Vec<u8> {
    [&[0xaa; 8], plain, &[0], &(aad.len() as u128).to_be_bytes()].concat()
}

fn open(sealed: &Sealed<'_>) -> Vec<u8> {
    let (rest, icv) = sealed.body.split_last_chunk().expect("an ICV");
    assert_eq!(u128::from_be_bytes(*icv), sealed.aad.len() as u128);
    rest[8..rest.len() - 1].to_vec()
}
