//! Conversations of strongSwan with itself, message by message: every key that charon logged is derived here too, and
//! every message opens under it. Real SK payloads, real nonces, PRFs of all three hashes.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests too

use std::collections::HashMap;

use ikev2::crypto::{Exchanged, IkeKeys, Protector, Secret, child_keymat};
use ikev2::proposal::{Encr, Group, IkeSuite, Integ, Prf};
use ikev2::wire::{self, Exchange, Header, Payload, Reassembly, Spi, transform};

#[test]
fn psk_aes128_gcm_sha256_ecp256() {
    let told = listen(include_str!("data/charon/psk-aes128.txt"));
    assert_eq!(told, Told { ike_sas: 1, children: 1, opened: 4 });
}

#[test]
fn psk_aes256_gcm_sha384_modp2048_both_rekeyed_with_pfs() {
    let told = listen(include_str!("data/charon/psk-aes256.txt"));
    assert_eq!(told, Told { ike_sas: 2, children: 2, opened: 12 });
}

#[test]
fn certificates_aes256_gcm_sha256_curve25519_in_fragments() {
    let told = listen(include_str!("data/charon/cert-aes256.txt"));
    assert_eq!(told, Told { ike_sas: 1, children: 1, opened: 6 });
}

#[test]
fn psk_aes128_cbc_sha512_ecp384_rekeyed() {
    let told = listen(include_str!("data/charon/cbc-aes128.txt"));
    assert_eq!(told, Told { ike_sas: 2, children: 0, opened: 6 });
}

#[test]
fn psk_aes256_cbc_sha256_curve25519_rekeyed() {
    let told = listen(include_str!("data/charon/cbc-aes256.txt"));
    assert_eq!(told, Told { ike_sas: 2, children: 0, opened: 6 });
}

/// What a conversation had, so that none is passed over in silence.
#[derive(Debug, PartialEq)]
struct Told {
    ike_sas: usize,
    children: usize,
    opened: usize,
}

struct Sa {
    suite: IkeSuite,
    keys: IkeKeys,
    /// Of the original initiator's messages, and of the responder's
    protectors: (Protector, Protector),
}

/// One message, opened.
struct Message {
    header: Header,
    payloads: Vec<Payload>,
}

fn listen(conversation: &str) -> Told {
    let mut sas: HashMap<Spi, Sa> = HashMap::new();
    let mut fragments: HashMap<bool, Reassembly> = HashMap::new();
    let (mut request, mut response): (Option<Message>, Option<Message>) = (None, None);
    let mut first_nonces = None;
    let mut newest = Spi::default();
    let mut child_shared = None;
    let mut told = Told { ike_sas: 0, children: 0, opened: 0 };

    for line in conversation.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.split_once(' ').unwrap();
        let value = hex(value);
        match name {
            "i" | "r" => {
                let datagram = wire::parse(&value).unwrap();
                let header = datagram.header;
                let mut payloads = datagram.payloads;
                if let Some(sealed) = datagram.sealed {
                    let sa = &sas[&header.initiator_spi];
                    let protector = if header.initiator { &sa.protectors.0 } else { &sa.protectors.1 };
                    let plain = protector.open(sealed.aad, sealed.body).unwrap();
                    told.opened += 1;
                    let whole = match sealed.fragment {
                        None => Some((sealed.first, plain)),
                        Some(at) => fragments.entry(header.response).or_default().push(
                            at.number,
                            at.total,
                            sealed.first,
                            plain,
                        ),
                    };
                    let Some((first, plain)) = whole else { continue };
                    payloads = wire::parse_inner(first, &plain).unwrap();
                }
                let message = Message { header, payloads };
                if header.response {
                    response = Some(message);
                } else {
                    request = Some(message);
                }
            }
            "shared" => {
                let (request, response) = (request.as_ref().unwrap(), response.as_ref().unwrap());
                let (nonce_i, nonce_r) = (request.nonce(), response.nonce());
                let suite = response.ike_suite();
                let shared = Secret::new(value);
                let (spi_i, keys) = if request.header.exchange == Exchange::SaInit {
                    let Header { initiator_spi: spi_i, responder_spi: spi_r, .. } = response.header;
                    first_nonces = Some((nonce_i.to_vec(), nonce_r.to_vec()));
                    let exchanged = Exchanged { nonce_i, nonce_r, spi_i, spi_r };
                    (spi_i, IkeKeys::derive(&suite, exchanged, &shared))
                } else {
                    let old = &sas[&request.header.initiator_spi];
                    let (spi_i, spi_r) = (request.proposed_spi(), response.proposed_spi());
                    let exchanged = Exchanged { nonce_i, nonce_r, spi_i, spi_r };
                    let keys =
                        IkeKeys::derive_rekey(&suite, exchanged, &shared, old.suite.prf, &old.keys.sk_d);
                    (spi_i, keys)
                };
                let protectors = keys.protectors(&suite).unwrap();
                sas.insert(spi_i, Sa { suite, keys, protectors });
                newest = spi_i;
                told.ike_sas += 1;
            }
            "child_shared" => child_shared = Some(Secret::new(value)),
            "KEYMAT_i" | "KEYMAT_r" => {
                let (request, response) = (request.as_ref().unwrap(), response.as_ref().unwrap());
                // The child of IKE_AUTH lives on the nonces of IKE_SA_INIT
                let (nonce_i, nonce_r) = match request.header.exchange {
                    Exchange::Auth => first_nonces.as_ref().map(|(i, r)| (&i[..], &r[..])).unwrap(),
                    _ => (request.nonce(), response.nonce()),
                };
                let Sa { suite, keys, .. } = &sas[&request.header.initiator_spi];
                let len = response.child_encr().keymat_len();
                let all =
                    child_keymat(suite.prf, &keys.sk_d, child_shared.as_ref(), nonce_i, nonce_r, 2 * len);
                let (initiator, responder) = all.as_bytes().split_at(len);
                if name == "KEYMAT_i" {
                    assert_eq!(initiator, value);
                    told.children += 1;
                } else {
                    assert_eq!(responder, value);
                    child_shared = None;
                }
            }
            _ => assert_eq!(named(&sas[&newest].keys, name).as_bytes(), value, "{name}"),
        }
    }
    told
}

impl Message {
    fn nonce(&self) -> &[u8] {
        self.payloads
            .iter()
            .find_map(|p| if let Payload::Nonce(nonce) = p { Some(&nonce[..]) } else { None })
            .unwrap()
    }

    /// The proposal of a response, which is the one chosen, or the first of a request.
    fn proposal(&self) -> &wire::Proposal {
        let sa = self.payloads.iter().find_map(|p| if let Payload::Sa(sa) = p { Some(sa) } else { None });
        &sa.unwrap()[0]
    }

    fn proposed_spi(&self) -> Spi {
        self.proposal().spi[..].try_into().unwrap()
    }

    fn transform(&self, kind: u8) -> Option<&wire::Transform> {
        self.proposal().transforms.iter().find(|transform| transform.kind == kind)
    }

    fn child_encr(&self) -> Encr {
        let encr = self.transform(transform::ENCR).unwrap();
        Encr::from_id(encr.id, encr.key_bits).unwrap()
    }

    fn ike_suite(&self) -> IkeSuite {
        IkeSuite {
            encr: self.child_encr(),
            integ: self.transform(transform::INTEG).map(|integ| Integ::from_id(integ.id).unwrap()),
            prf: Prf::from_id(self.transform(transform::PRF).unwrap().id).unwrap(),
            group: Group::from_id(self.transform(transform::GROUP).unwrap().id).unwrap(),
        }
    }
}

fn named<'a>(keys: &'a IkeKeys, name: &str) -> &'a Secret {
    match name {
        "SK_d" => &keys.sk_d,
        "SK_ai" => &keys.sk_ai,
        "SK_ar" => &keys.sk_ar,
        "SK_ei" => &keys.sk_ei,
        "SK_er" => &keys.sk_er,
        "SK_pi" => &keys.sk_pi,
        "SK_pr" => &keys.sk_pr,
        _ => panic!("{name}"),
    }
}

fn hex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2) && !text.is_empty());
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}
