//! What certificate, key and revocation list files, and identity, certificate and authentication payloads may hold.
//!
//! Input: a byte that says what the rest is, as listed in `fuzz_target`. Of payloads each has its length in front: two
//! bytes, big end first.
#![no_main]

use std::sync::{Arc, LazyLock};

use ikev2::auth::{
    Authority, Certificate, Credential, Identity, OwnCertificate, PeerCertificate, SignedOctets, Source,
    Trust, prove, verify,
};
use ikev2::proposal::Prf;
use ikev2::wire::{AuthData, CertRequest, Certificate as CertPayload, Identification};
use libfuzzer_sys::fuzz_target;

const CA: &[u8] = include_bytes!("../../control/ikev2/tests/data/pki/ca.pem");
const HOST: &[u8] = include_bytes!("../../control/ikev2/tests/data/pki/p256.pem");
const HOST_KEY: &[u8] = include_bytes!("../../control/ikev2/tests/data/pki/p256.key");
const RSA: &[u8] = include_bytes!("../../control/ikev2/tests/data/pki/rsa2048.pem");
const LIST: &[u8] = include_bytes!("../../control/ikev2/tests/data/pki/revoked.crl");
/// Within the year for which these are valid.
const NOW: u64 = 1_780_272_000;

static TRUST: LazyLock<[Trust; 3]> = LazyLock::new(|| {
    let authority = |lists: &[Source<'_>]| {
        let authority = Arc::new(Authority::load(&[source(CA)], lists).expect("a CA"));
        Trust::Authority { authority, name: None }
    };
    let pinned = PeerCertificate::load(source(HOST)).expect("a certificate");
    [authority(&[]), authority(&[source(LIST)]), Trust::Pinned(Arc::new(pinned))]
});
static OCTETS: LazyLock<SignedOctets> = LazyLock::new(|| {
    SignedOctets::new(Prf::HmacSha256, b"message", b"nonce", b"key", &fqdn("a.test").to_wire())
});

fuzz_target!(|data: &[u8]| {
    let Some((what, rest)) = data.split_first() else { return };
    match what {
        0 => certificate(rest),
        1 => {
            // a list, of that CA or another
            let _ = Authority::load(&[source(CA)], &[source(rest)]).map(check_with);
        }
        2 => key(rest),
        3 => identity(rest),
        4 => payloads(rest),
        _ => text(rest),
    }
});

fn source(bytes: &[u8]) -> Source<'_> {
    Source { name: "file", bytes }
}

fn fqdn(name: &str) -> Identity {
    Identity::Fqdn(name.into())
}

/// A file of certificates, in PEM or DER.
fn certificate(bytes: &[u8]) {
    if let Ok(peer) = PeerCertificate::load(source(bytes)) {
        describe(peer.certificate());
        let id = peer.identity();
        // the identity that is drawn from it must hold on the wire
        let again = Identity::try_from(&id.to_wire()).expect("an identity");
        assert!(again.matches(&id), "{again} {id}");
        let auth = AuthData { method: 1, data: vec![0; 256] };
        let der = CertPayload { encoding: 4, data: bytes.to_vec() };
        assert!(verify(&Trust::Pinned(Arc::new(peer)), &OCTETS, &auth, &[der], &id, NOW).is_err());
    }
    let _ = Authority::load(&[source(bytes)], &[]).map(check_with);
    let _ = OwnCertificate::load(source(bytes), source(HOST_KEY));
}

fn describe(certificate: &Certificate) {
    let text = format!(
        "{certificate} {certificate:?} {} {:?} {:?} {} {} {} {}",
        certificate.issuer(),
        certificate.common_name(),
        certificate.alternative_names(),
        certificate.key(),
        certificate.first_day(),
        certificate.last_day(),
        certificate.is_ca(),
    );
    assert!(!text.chars().any(char::is_control), "{text:?}");
    for now in [0, NOW, u64::MAX] {
        let _ = certificate.check_dates(now).map_err(|e| e.to_string());
    }
}

/// Whatever it trusts, a certificate of our CA is told right from wrong.
fn check_with(authority: Authority) {
    let _ = (authority.warnings(NOW), format!("{authority:?}"));
    let trust = Trust::Authority { authority: Arc::new(authority), name: None };
    let own = OwnCertificate::load(source(HOST), source(HOST_KEY)).expect("our own");
    let own = Credential::Certificate(Arc::new(own));
    let auth = prove(&own, &OCTETS, &[2]).expect("a signature");
    let certs = own.certificates(&[CertRequest { encoding: 4, data: Vec::new() }]);
    let _ = verify(&trust, &OCTETS, &auth, &certs, &fqdn("a.test"), NOW).map_err(|e| e.to_string());
}

fn key(bytes: &[u8]) {
    for certificate in [HOST, RSA] {
        // whatever key it is, it can sign if it belongs to the certificate
        if let Ok(own) = OwnCertificate::load(source(certificate), source(bytes)) {
            let own = Credential::Certificate(Arc::new(own));
            let auth = prove(&own, &OCTETS, &[2]).expect("a signature");
            let certs = own.certificates(&[CertRequest { encoding: 4, data: Vec::new() }]);
            verify(&TRUST[0], &OCTETS, &auth, &certs, &fqdn("a.test"), NOW).expect("right");
        }
    }
}

fn identity(bytes: &[u8]) {
    let Some((kind, data)) = bytes.split_first() else { return };
    let wire = Identification { kind: *kind, data: data.to_vec() };
    if let Ok(id) = Identity::try_from(&wire) {
        assert_eq!(id.to_wire(), wire);
        assert!(id.matches(&id.clone()), "{id}");
        let text = id.to_string();
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
}

fn text(bytes: &[u8]) {
    if let Ok(id) = String::from_utf8_lossy(bytes).parse::<Identity>() {
        let again = Identity::try_from(&id.to_wire()).expect("an identity");
        assert_eq!(again, id);
    }
}

/// Identity, method and data of AUTH, certificates: nobody is let in but those whom the certificates name.
fn payloads(bytes: &[u8]) {
    let mut parts = Parts(bytes);
    let (Some(id), Some(auth)) = (parts.next(), parts.next()) else { return };
    let (Some((kind, data)), Some((method, signature))) = (id.split_first(), auth.split_first()) else {
        return;
    };
    let Ok(id) = Identity::try_from(&Identification { kind: *kind, data: data.to_vec() }) else { return };
    let auth = AuthData { method: *method, data: signature.to_vec() };
    let certs: Vec<CertPayload> = parts.map(|der| CertPayload { encoding: 4, data: der.to_vec() }).collect();
    for trust in &*TRUST {
        match verify(trust, &OCTETS, &auth, &certs, &id, NOW) {
            Ok(ok) => {
                assert!(ok.identity().matches(&id) && !ok.to_string().is_empty());
                let named =
                    ["a.test", "10.9.0.1", "fd00::1", "root@a.test", "a.ok.test", "C=CH, O=test, CN=a.test"];
                assert!(
                    named.iter().any(|name| name.parse::<Identity>().is_ok_and(|n| n.matches(&id))),
                    "{id}"
                );
            }
            Err(e) => assert!(!e.to_string().chars().any(char::is_control), "{e:?}"),
        }
    }
}

/// What is left of the input, each part behind its length.
struct Parts<'a>(&'a [u8]);

impl<'a> Iterator for Parts<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (len, rest) = self.0.split_first_chunk()?;
        let (part, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        self.0 = rest;
        Some(part)
    }
}
