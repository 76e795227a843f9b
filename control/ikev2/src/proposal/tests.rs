use std::iter;

use super::*;
use crate::wire::{Attribute, Payload, parse};
use ChildExchange::{Auth, CreateChildSa};
use transform::{ENCR, ESN, GROUP, INTEG, PRF};

const SPI: u32 = 0x0102_0304;
const PEER_SPI: u32 = 0x0a0b_0c0d;

fn ike(transforms: impl IntoIterator<Item = Transform>) -> Proposal {
    Proposal { number: 1, protocol: protocol::IKE, spi: vec![], transforms: transforms.into_iter().collect() }
}

fn esp(transforms: impl IntoIterator<Item = Transform>) -> Proposal {
    let spi = PEER_SPI.to_be_bytes().to_vec();
    Proposal { protocol: protocol::ESP, spi, ..ike(transforms) }
}

fn t(kind: u8, id: u16) -> Transform {
    Transform::new(kind, id, None)
}

fn aes(id: u16, bits: u16) -> Transform {
    Transform::new(ENCR, id, Some(bits))
}

/// With an attribute that nobody knows.
fn odd(transform: Transform) -> Transform {
    Transform { other: vec![Attribute::Short { kind: 99, value: 1 }], ..transform }
}

/// What was chosen for an IKE SA, and with which transforms it is answered.
fn chosen_ike(p: Proposal) -> Option<(String, String)> {
    let choice = choose_ike(&[p], &IkeOffer::default(), None).ok()?;
    Some((choice.suite.to_string(), choice.answer.to_string()))
}

fn chosen_esp(p: Proposal, exchange: ChildExchange) -> Option<(String, String)> {
    let choice = choose_esp(&[p], &EspOffer::default(), exchange, SPI).ok()?;
    assert_eq!(choice.answer.spi, SPI.to_be_bytes());
    Some((choice.suite.to_string(), choice.answer.to_string()))
}

fn some(suite: &str, answer: &str) -> Option<(String, String)> {
    Some((suite.into(), answer.into()))
}

/// Both sides' defaults, in every exchange.
#[test]
fn own_peers_agree_on_the_best() {
    let ours = IkeOffer::default();
    for (mine, theirs) in [(None, None), (Some([7; 8]), Some([9; 8]))] {
        let offered = ike_proposals(&ours, mine);
        let choice = choose_ike(&offered, &ours, theirs).unwrap();
        assert_eq!(choice.suite.to_string(), "AES_GCM_16-256/PRF_HMAC_SHA2_256/CURVE_25519");
        assert_eq!(choice.peer_spi, mine);
        assert_eq!(accept_ike(&[choice.answer], &ours, mine), Ok((choice.suite, theirs)));
    }
    let ours = EspOffer::default();
    for (exchange, suite) in [(Auth, "AES_GCM_16-256/ESN"), (CreateChildSa, "AES_GCM_16-256/CURVE_25519/ESN")]
    {
        let offered = esp_proposals(&ours, exchange, PEER_SPI);
        let choice = choose_esp(&offered, &ours, exchange, SPI).unwrap();
        assert_eq!((choice.suite.to_string(), choice.peer_spi), (suite.to_string(), PEER_SPI));
        assert_eq!(accept_esp(&[choice.answer], &ours, exchange), Ok((choice.suite, SPI)));
    }
}

/// Every suite can be had alone, and is what both sides then have.
#[test]
fn every_suite() {
    let mut count = 0;
    for encr in [Encr::AesGcm16_128, Encr::AesGcm16_256, Encr::AesCbc128, Encr::AesCbc256] {
        for prf in [Prf::HmacSha256, Prf::HmacSha384, Prf::HmacSha512] {
            for group in Group::ALL {
                let only = IkeOffer { encr: vec![encr], prf: vec![prf], groups: vec![group] };
                let integ = (!encr.is_aead()).then_some(Integ::HmacSha256_128);
                let suite = IkeSuite { encr, integ, prf, group };
                let everything = IkeOffer::default();
                for (initiator, responder) in [(&only, &everything), (&everything, &only)] {
                    let choice = choose_ike(&ike_proposals(initiator, None), responder, None).unwrap();
                    assert_eq!(choice.suite, suite);
                    assert_eq!(accept_ike(&[choice.answer], initiator, None), Ok((suite, None)));
                }
                count += 1;
            }
        }
    }
    assert_eq!(count, 72);
    let groups = Group::ALL.into_iter().map(Some).chain([None]);
    for group in groups {
        for (encr, esn) in
            [(Encr::AesGcm16_128, true), (Encr::AesGcm16_128, false), (Encr::AesGcm16_256, true)]
        {
            let only = EspOffer { encr: vec![encr], groups: vec![group], esn: vec![esn] };
            let everything = EspOffer::default();
            for (exchange, group) in [(Auth, None), (CreateChildSa, group)] {
                for (initiator, responder) in [(&only, &everything), (&everything, &only)] {
                    let offered = esp_proposals(initiator, exchange, PEER_SPI);
                    let choice = choose_esp(&offered, responder, exchange, SPI).unwrap();
                    assert_eq!(choice.suite, EspSuite { encr, esn, group });
                    assert_eq!(accept_esp(&[choice.answer], initiator, exchange), Ok((choice.suite, SPI)));
                }
            }
        }
    }
}

/// What the first request and the later ones hold.
#[test]
fn offers() {
    let offered = list(&ike_proposals(&IkeOffer::default(), None));
    let prf_and_groups = "PRF_HMAC_SHA2_256/PRF_HMAC_SHA2_384/PRF_HMAC_SHA2_512/\
                          CURVE_25519/ECP_256/ECP_384/MODP_3072/MODP_4096/MODP_2048";
    assert_eq!(
        offered,
        format!(
            "IKE:AES_GCM_16-256/AES_GCM_16-128/{prf_and_groups}, \
             IKE:AES_CBC-256/AES_CBC-128/HMAC_SHA2_256_128/{prf_and_groups}"
        )
    );
    let ours = EspOffer::default();
    let plain = "ESP:AES_GCM_16-256/AES_GCM_16-128/EXT_SEQ/NO_EXT_SEQ";
    assert_eq!(list(&esp_proposals(&ours, Auth, SPI)), plain);
    assert_eq!(
        list(&esp_proposals(&ours, CreateChildSa, SPI)),
        format!(
            "ESP:AES_GCM_16-256/AES_GCM_16-128/CURVE_25519/ECP_256/ECP_384/MODP_3072/MODP_4096/MODP_2048/\
             EXT_SEQ/NO_EXT_SEQ, {plain}"
        )
    );
    // numbered from 1, SPI where one belongs, and readable
    for (proposals, spi) in [
        (ike_proposals(&IkeOffer::default(), None), vec![]),
        (ike_proposals(&IkeOffer::default(), Some([1; 8])), vec![1; 8]),
        (esp_proposals(&ours, CreateChildSa, SPI), SPI.to_be_bytes().to_vec()),
    ] {
        assert!((1..).zip(&proposals).all(|(n, p)| p.number == n && p.spi == spi));
    }
}

/// RFC 7296 3.3.3 for IKE: each type absent, doubled, unknown, with an unknown attribute, alone and beside a good one.
/// (The bug class of libreswan's CVE-2016-5391: a proposal without a group.)
#[test]
fn ike_matrix() {
    let good = [aes(20, 256), t(PRF, 5), t(GROUP, 14)];
    let suite = "AES_GCM_16-256/PRF_HMAC_SHA2_256/MODP_2048";
    let answer = format!("IKE:{suite}");
    assert_eq!(chosen_ike(ike(good.clone())), some(suite, &answer));
    for (i, this) in good.iter().enumerate() {
        let with = |new: &[Transform]| {
            let mut transforms = good.to_vec();
            transforms.splice(i..=i, new.iter().cloned());
            chosen_ike(ike(transforms))
        };
        let unknown = t(this.kind, 999);
        assert_eq!(with(&[]), None, "no {this}");
        assert_eq!(with(&[this.clone(), this.clone()]), some(suite, &answer), "{this} twice");
        assert_eq!(with(std::slice::from_ref(&unknown)), None, "{this} unknown");
        assert_eq!(
            with(&[unknown.clone(), this.clone()]),
            some(suite, &answer),
            "an unknown one before {this}"
        );
        assert_eq!(with(&[this.clone(), unknown]), some(suite, &answer), "an unknown one behind {this}");
        assert_eq!(with(&[odd(this.clone())]), None, "{this} with an unknown attribute");
        assert_eq!(with(&[odd(this.clone()), this.clone()]), some(suite, &answer));
        assert_eq!(with(&[t(this.kind, 0)]), None, "NONE for {this}");
        let other_length =
            Transform { key_bits: Some(this.key_bits.map_or(256, |bits| bits / 2 * 3)), ..this.clone() };
        assert_eq!(with(&[other_length]), None, "{this} with another key length");
    }
    // types that do not belong here, understood or not
    for extra in [t(ESN, 0), t(6, 0), t(6, 35), t(0, 0), t(255, 1)] {
        assert_eq!(chosen_ike(ike(good.iter().cloned().chain([extra]))), None);
    }
    assert_eq!(chosen_ike(ike([])), None);
    assert_eq!(choose_ike(&[], &IkeOffer::default(), None).ok(), None);
}

/// An AEAD goes without integrity, AES-CBC with; both may share a proposal with NONE among the integrity transforms.
#[test]
fn integrity() {
    let rest = [t(PRF, 5), t(GROUP, 31)];
    let with = |first: &[Transform]| chosen_ike(ike(first.iter().chain(&rest).cloned()));
    let (gcm, cbc, hmac, none) = (aes(20, 128), aes(12, 128), t(INTEG, 12), t(INTEG, 0));
    let of_gcm = "AES_GCM_16-128/PRF_HMAC_SHA2_256/CURVE_25519";
    let gcm_alone = some(of_gcm, &format!("IKE:{of_gcm}"));
    let gcm_none = some(of_gcm, "IKE:AES_GCM_16-128/NONE/PRF_HMAC_SHA2_256/CURVE_25519");
    let of_cbc = "AES_CBC-128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/CURVE_25519";
    let cbc_hmac = some(of_cbc, &format!("IKE:{of_cbc}"));
    for (first, expected) in [
        (vec![gcm.clone()], &gcm_alone),
        (vec![gcm.clone(), none.clone()], &gcm_none),
        (vec![gcm.clone(), none.clone(), none.clone()], &gcm_none),
        (vec![gcm.clone(), none.clone(), hmac.clone()], &gcm_none),
        (vec![gcm.clone(), hmac.clone()], &None),
        (vec![gcm.clone(), odd(none.clone())], &None),
        (vec![cbc.clone(), hmac.clone()], &cbc_hmac),
        (vec![cbc.clone(), hmac.clone(), hmac.clone()], &cbc_hmac),
        (vec![cbc.clone(), t(INTEG, 2), hmac.clone()], &cbc_hmac),
        (vec![cbc.clone()], &None),
        (vec![cbc.clone(), none.clone()], &None),
        (vec![cbc.clone(), t(INTEG, 2)], &None),
        (vec![cbc.clone(), odd(hmac.clone())], &None),
        (vec![cbc.clone(), Transform { key_bits: Some(256), ..hmac.clone() }], &None),
        (vec![gcm.clone(), cbc.clone(), hmac.clone()], &cbc_hmac),
        (vec![cbc.clone(), gcm.clone(), hmac.clone(), none.clone()], &gcm_none),
        (vec![cbc.clone(), gcm.clone()], &gcm_alone),
    ] {
        assert_eq!(with(&first), *expected, "{}", ike(first));
    }
    let esp_with =
        |first: &[Transform], exchange| chosen_esp(esp(first.iter().chain(&[t(ESN, 0)]).cloned()), exchange);
    for exchange in [Auth, CreateChildSa] {
        let of_gcm = some("AES_GCM_16-128", "ESP:AES_GCM_16-128/NO_EXT_SEQ");
        assert_eq!(esp_with(std::slice::from_ref(&gcm), exchange), of_gcm);
        let with_none = some("AES_GCM_16-128", "ESP:AES_GCM_16-128/NONE/NO_EXT_SEQ");
        assert_eq!(esp_with(&[gcm.clone(), none.clone(), hmac.clone()], exchange), with_none);
        assert_eq!(esp_with(&[gcm.clone(), hmac.clone()], exchange), None);
        assert_eq!(esp_with(&[cbc.clone(), hmac.clone()], exchange), None);
    }
}

/// The same matrix for a child SA, in both exchanges.
#[test]
fn esp_matrix() {
    for exchange in [Auth, CreateChildSa] {
        let good = [aes(20, 256), t(ESN, 1)];
        let (suite, answer) = ("AES_GCM_16-256/ESN", "ESP:AES_GCM_16-256/EXT_SEQ");
        let all = |transforms: &[Transform]| chosen_esp(esp(transforms.to_vec()), exchange);
        assert_eq!(all(&good), some(suite, answer));
        for (i, this) in good.iter().enumerate() {
            let with = |new: &[Transform]| {
                let mut transforms = good.to_vec();
                transforms.splice(i..=i, new.iter().cloned());
                all(&transforms)
            };
            let unknown = t(this.kind, 999);
            assert_eq!(with(&[this.clone(), this.clone()]), some(suite, answer));
            assert_eq!(with(std::slice::from_ref(&unknown)), None);
            assert_eq!(with(&[unknown.clone(), this.clone()]), some(suite, answer));
            assert_eq!(with(&[this.clone(), unknown]), some(suite, answer));
            assert_eq!(with(&[odd(this.clone())]), None);
            assert_eq!(with(&[this.clone(), odd(this.clone())]), some(suite, answer));
        }
        assert_eq!(all(&[t(ESN, 1)]), None, "no cipher");
        assert_eq!(all(&[aes(20, 256)]), some("AES_GCM_16-256", "ESP:AES_GCM_16-256"), "no ESN");
        assert_eq!(all(&[t(ENCR, 20), t(ESN, 1)]), None, "no key length");
        assert_eq!(all(&[aes(20, 192), t(ESN, 1)]), None);
        let neither = all(&[aes(20, 256), t(ESN, 0), t(ESN, 1)]);
        assert_eq!(neither, some(suite, answer), "with ESN is preferred");
        for extra in [t(PRF, 5), t(6, 0), t(0, 0), t(255, 1)] {
            assert_eq!(all(&[aes(20, 256), t(ESN, 1), extra]), None);
        }
    }
}

/// A group absent, NONE, doubled, unknown, of several: its own key exchange in CREATE_CHILD_SA, nothing in IKE_AUTH.
#[test]
fn groups_of_child_sas() {
    let with = |groups: &[Transform], exchange| {
        chosen_esp(esp([aes(20, 128)].iter().chain(groups).chain(&[t(ESN, 0)]).cloned()), exchange)
    };
    let plain = || some("AES_GCM_16-128", "ESP:AES_GCM_16-128/NO_EXT_SEQ");
    let none = || some("AES_GCM_16-128", "ESP:AES_GCM_16-128/NONE/NO_EXT_SEQ");
    let pfs = |name: &str| {
        some(&format!("AES_GCM_16-128/{name}"), &format!("ESP:AES_GCM_16-128/{name}/NO_EXT_SEQ"))
    };
    let (modp, x25519, unknown) = (t(GROUP, 14), t(GROUP, 31), t(GROUP, 999));
    for (groups, in_auth, in_create) in [
        (vec![], plain(), plain()),
        (vec![t(GROUP, 0)], none(), none()),
        (vec![modp.clone()], plain(), pfs("MODP_2048")),
        (vec![modp.clone(), modp.clone()], plain(), pfs("MODP_2048")),
        (vec![modp.clone(), x25519.clone()], plain(), pfs("CURVE_25519")),
        (vec![t(GROUP, 0), modp.clone()], none(), pfs("MODP_2048")),
        (vec![unknown.clone()], plain(), None),
        (vec![unknown.clone(), modp.clone()], plain(), pfs("MODP_2048")),
        (vec![unknown.clone(), t(GROUP, 0)], none(), none()),
        (vec![odd(modp.clone())], plain(), None),
        (vec![odd(modp.clone()), t(GROUP, 0)], none(), none()),
    ] {
        assert_eq!(with(&groups, Auth), in_auth, "{}", esp(groups));
        assert_eq!(with(&groups, CreateChildSa), in_create, "{}", esp(groups));
    }
    // PFS demanded, and PFS never
    for (ours, offered, fits) in [
        (Some(Group::Modp2048), vec![], false),
        (Some(Group::Modp2048), vec![t(GROUP, 0)], false),
        (Some(Group::Modp2048), vec![x25519], false),
        (Some(Group::Modp2048), vec![modp.clone()], true),
        (None, vec![modp.clone()], false),
        (None, vec![modp, t(GROUP, 0)], true),
        (None, vec![], true),
    ] {
        let ours = EspOffer { groups: vec![ours], ..EspOffer::default() };
        let offered = esp([aes(20, 128)].into_iter().chain(offered));
        assert_eq!(choose_esp(&[offered], &ours, CreateChildSa, SPI).is_ok(), fits);
    }
    let demanded = EspOffer { esn: vec![true], ..EspOffer::default() };
    assert!(
        choose_esp(&[esp([aes(20, 128)])], &demanded, Auth, SPI).is_err(),
        "ESN demanded, absent in the offer"
    );
}

/// The first proposal that fits is taken, with its number; others are passed over, whatever is wrong with them.
#[test]
fn among_proposals() {
    let good = ike([aes(20, 128), t(PRF, 5), t(GROUP, 14)]);
    let better = ike([aes(20, 256), t(PRF, 5), t(GROUP, 31)]);
    let wrong = [
        Proposal { protocol: protocol::ESP, ..good.clone() },
        Proposal { protocol: protocol::AH, ..good.clone() },
        Proposal { protocol: 9, ..good.clone() },
        Proposal { spi: vec![1; 8], ..good.clone() },
        ike([]),
        ike([t(77, 1)]),
    ];
    let offered: Vec<_> = wrong.into_iter().chain([good, better]).collect();
    let offered: Vec<_> = (1..).zip(offered).map(|(number, p)| Proposal { number, ..p }).collect();
    let choice = choose_ike(&offered, &IkeOffer::default(), None).unwrap();
    assert_eq!((choice.answer.number, choice.suite.encr), (7, Encr::AesGcm16_128));
}

#[test]
fn spis() {
    let transforms = [aes(20, 128), t(PRF, 5), t(GROUP, 14)];
    for len in 0..12 {
        let p = Proposal { spi: vec![5; len], ..ike(transforms.clone()) };
        let initial = choose_ike(std::slice::from_ref(&p), &IkeOffer::default(), None);
        assert_eq!(initial.map(|c| (c.peer_spi, c.answer.spi)).ok(), (len == 0).then_some((None, vec![])));
        let rekey = choose_ike(&[p], &IkeOffer::default(), Some([9; 8]));
        let wanted = (len == 8).then_some((Some([5; 8]), vec![9; 8]));
        assert_eq!(rekey.map(|c| (c.peer_spi, c.answer.spi)).ok(), wanted);
    }
    for (spi, fits) in [
        (vec![], false),
        (vec![9; 3], false),
        (vec![9; 5], false),
        (vec![9; 8], false),
        (vec![0; 4], false),
        (vec![0, 0, 0, 255], false),
        (vec![0, 0, 1, 0], true),
        (vec![255; 4], true),
    ] {
        let p = Proposal { spi, ..esp([aes(20, 128)]) };
        assert_eq!(choose_esp(&[p], &EspOffer::default(), Auth, SPI).is_ok(), fits);
    }
}

/// An answer must take one transform of each type out of one of our proposals.
#[test]
fn answers() {
    let ours = IkeOffer { encr: vec![Encr::AesGcm16_256, Encr::AesCbc128], ..IkeOffer::default() };
    let first = ike([aes(20, 256), t(PRF, 5), t(GROUP, 14)]);
    let second = Proposal { number: 2, ..ike([aes(12, 128), t(INTEG, 12), t(PRF, 7), t(GROUP, 19)]) };
    let accepted = |answer: &[Proposal]| accept_ike(answer, &ours, None).map(|(suite, _)| suite.to_string());
    assert_eq!(
        accepted(std::slice::from_ref(&first)).as_deref(),
        Ok("AES_GCM_16-256/PRF_HMAC_SHA2_256/MODP_2048")
    );
    let second_suite = "AES_CBC-128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_512/ECP_256";
    assert_eq!(accepted(std::slice::from_ref(&second)).as_deref(), Ok(second_suite));

    let changed = |change: &dyn Fn(&mut Proposal)| {
        let mut answer = first.clone();
        change(&mut answer);
        answer
    };
    let wrong: Vec<Vec<Proposal>> = vec![
        vec![],
        vec![first.clone(), first.clone()],
        vec![first.clone(), second.clone()],
        vec![changed(&|p| p.number = 2)],
        vec![changed(&|p| p.number = 0)],
        vec![changed(&|p| p.number = 3)],
        vec![changed(&|p| p.protocol = protocol::ESP)],
        vec![changed(&|p| p.spi = vec![1; 8])],
        vec![changed(&|p| p.transforms.clear())],
        vec![changed(&|p| drop(p.transforms.remove(0)))],
        vec![changed(&|p| drop(p.transforms.remove(1)))],
        vec![changed(&|p| drop(p.transforms.pop()))],
        vec![changed(&|p| p.transforms.push(t(PRF, 5)))],
        vec![changed(&|p| p.transforms.push(t(PRF, 6)))],
        vec![changed(&|p| p.transforms.push(t(INTEG, 0)))],
        vec![changed(&|p| p.transforms.push(t(ESN, 0)))],
        vec![changed(&|p| p.transforms.push(t(77, 0)))],
        vec![changed(&|p| p.transforms[0] = aes(20, 128))],
        vec![changed(&|p| p.transforms[0] = aes(12, 128))],
        vec![changed(&|p| p.transforms[0] = t(ENCR, 20))],
        vec![changed(&|p| p.transforms[1] = t(PRF, 2))],
        vec![changed(&|p| p.transforms[2] = t(GROUP, 2))],
        vec![changed(&|p| p.transforms[2] = t(GROUP, 0))],
        vec![changed(&|p| p.transforms[2] = odd(t(GROUP, 14)))],
        vec![ike_proposals(&ours, None).remove(0)],
        ike_proposals(&ours, None),
    ];
    for answer in wrong {
        assert!(accepted(&answer).is_err(), "{}", list(&answer));
    }
    let rekey = changed(&|p| p.spi = vec![3; 8]);
    let accept = |spi| accept_ike(std::slice::from_ref(&rekey), &ours, spi).map(|(_, spi)| spi).ok();
    assert_eq!((accept(Some([1; 8])), accept(None)), (Some(Some([3; 8])), None));

    let ours = EspOffer::default();
    for (exchange, transforms, expected) in [
        (Auth, vec![aes(20, 128), t(ESN, 0)], Some("AES_GCM_16-128")),
        (Auth, vec![aes(20, 128), t(ESN, 1)], Some("AES_GCM_16-128/ESN")),
        (Auth, vec![aes(20, 128)], None),
        (Auth, vec![aes(20, 128), t(ESN, 0), t(ESN, 1)], None),
        (Auth, vec![aes(20, 128), t(GROUP, 14), t(ESN, 0)], None),
        (Auth, vec![aes(20, 128), t(INTEG, 0), t(ESN, 0)], None),
        (CreateChildSa, vec![aes(20, 128), t(GROUP, 14), t(ESN, 0)], Some("AES_GCM_16-128/MODP_2048")),
        (CreateChildSa, vec![aes(20, 128), t(ESN, 0)], None),
        (CreateChildSa, vec![aes(20, 128), t(GROUP, 0), t(ESN, 0)], None),
    ] {
        let accepted = accept_esp(&[esp(transforms.clone())], &ours, exchange);
        assert_eq!(
            accepted.map(|(suite, _)| suite.to_string()).ok().as_deref(),
            expected,
            "{}",
            esp(transforms)
        );
    }
    let without = Proposal { number: 2, ..esp([aes(20, 128), t(ESN, 0)]) };
    let accepted = accept_esp(&[without], &ours, CreateChildSa).unwrap();
    assert_eq!((accepted.0.to_string().as_str(), accepted.1), ("AES_GCM_16-128", PEER_SPI));
}

/// What others offered in reality: strongSwan, alone and as Open vSwitch configures it, and libreswan.
#[test]
fn offers_of_others() {
    let file = include_str!("../../tests/data/messages.txt");
    let messages = file.lines().filter(|line| line.contains("/init-0"));
    let mut suites = Vec::new();
    for line in messages {
        let (name, hex) = line.split_once(' ').unwrap();
        let bytes: Vec<_> =
            (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect();
        let mut payloads = parse(&bytes).unwrap().payloads;
        let Payload::Sa(proposals) = payloads.remove(0) else { panic!("{name}") };
        suites.push((name, choose_ike(&proposals, &IkeOffer::default(), None).unwrap().suite.to_string()));
    }
    let names: Vec<_> = suites.iter().map(|(name, suite)| format!("{name} {suite}")).collect();
    let both = |name: &str, suite: &str| {
        [format!("{name}/init-0-request {suite}"), format!("{name}/init-0-response {suite}")]
    };
    let wanted = [
        both("ike-cert-aes256", "AES_GCM_16-256/PRF_HMAC_SHA2_256/CURVE_25519"),
        both("ike-psk-aes128", "AES_GCM_16-128/PRF_HMAC_SHA2_256/ECP_256"),
        both("ike-psk-aes256", "AES_GCM_16-256/PRF_HMAC_SHA2_384/MODP_2048"),
        both("ovs-ipsec-ca", "AES_GCM_16-256/PRF_HMAC_SHA2_256/MODP_2048"),
        both("ovs-ipsec-psk", "AES_GCM_16-256/PRF_HMAC_SHA2_256/MODP_2048"),
        [
            // it offers much, and prefers what we like less
            "libreswan/init-0-request AES_GCM_16-256/PRF_HMAC_SHA2_256/CURVE_25519".into(),
            "libreswan/init-0-response AES_GCM_16-256/PRF_HMAC_SHA2_512/MODP_2048".into(),
        ],
    ];
    assert_eq!(names, wanted.concat());
}

/// The operator reads both sides, and not more than a screen of them.
#[test]
fn refusals_list_both_sides() {
    let old = ike([t(ENCR, 3), t(INTEG, 2), t(PRF, 2), t(GROUP, 2)]);
    let ours = IkeOffer {
        encr: vec![Encr::AesGcm16_256],
        prf: vec![Prf::HmacSha256],
        groups: vec![Group::Curve25519],
    };
    let refused = choose_ike(std::slice::from_ref(&old), &ours, None).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "no proposal chosen: the peer offers IKE:3DES_CBC/HMAC_SHA1_96/PRF_HMAC_SHA1/MODP_1024; \
         accepted here: IKE:AES_GCM_16-256/PRF_HMAC_SHA2_256/CURVE_25519"
    );
    let refused = accept_ike(&[old], &ours, None).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the peer answers with IKE:3DES_CBC/HMAC_SHA1_96/PRF_HMAC_SHA1/MODP_1024, \
         where IKE:AES_GCM_16-256/PRF_HMAC_SHA2_256/CURVE_25519 was offered"
    );
    let strange = Proposal { protocol: 9, ..ike([t(ENCR, 99), odd(aes(20, 128)), t(PRF, 99), t(8, 4)]) };
    assert_eq!(strange.to_string(), "protocol 9:ENCR_99/AES_GCM_16-128(unknown attribute)/PRF_99/TYPE_8_4");
    assert_eq!(list(&[]), "nothing");
    let long = ike(iter::repeat_n(t(200, u16::MAX), 255));
    assert!(list(&vec![long; 64]).len() < 8000);
    assert!(list(&vec![strange; 9]).ends_with("TYPE_8_4 and 1 more"));
}

/// Two lists of names, one of what is spoken and one of what is seen, must not differ.
#[test]
fn names_and_numbers() {
    for encr in [Encr::AesGcm16_128, Encr::AesGcm16_256, Encr::AesCbc128, Encr::AesCbc256] {
        assert_eq!(encr.transform().to_string(), encr.to_string());
        assert_eq!(Encr::from_id(encr.id(), Some(encr.key_bits())), Some(encr));
        assert_eq!(Encr::from_id(encr.id(), None), None);
    }
    for prf in [Prf::HmacSha256, Prf::HmacSha384, Prf::HmacSha512] {
        assert_eq!(prf.transform().to_string(), prf.to_string());
        assert_eq!(Prf::from_id(prf.id()), Some(prf));
    }
    for group in Group::ALL {
        assert_eq!(group.transform().to_string(), group.to_string());
        assert_eq!(Group::from_id(group.id()), Some(group));
    }
    let integ = Integ::HmacSha256_128;
    assert_eq!(integ.transform().to_string(), integ.to_string());
    assert_eq!((Integ::from_id(12), Integ::from_id(2)), (Some(integ), None));
    assert_eq!((Group::from_id(2), Prf::from_id(2), Encr::from_id(20, Some(192))), (None, None, None));
}
