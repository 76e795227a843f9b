//! Proofs of identity, with certificates that OpenSSL, strongSwan and ovs-pki made (`data/pki/make`) and exchanges
//! that strongSwan's charon had (`data/charon`: its own log of what it signed, and the payloads of the captured packets).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests too

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use ikev2::auth::{
    AuthError, Authenticated, Authority, Certificate, Credential, Identity, OwnCertificate, PeerCertificate,
    Psk, SignedOctets, Source, Trust, certificate_requests, hash_algorithms, parse_hash_algorithms, prove,
    verify,
};
use ikev2::crypto::KeyKind;
use ikev2::proposal::Prf;
use ikev2::wire;

/// 2026-06-01: within the year for which most certificates are valid.
const NOW: u64 = 1_780_272_000;
/// 2027-06-01: when those of ovs-pki, which lets nobody choose dates, are valid.
const LATER: u64 = 1_811_808_000;
/// What our SIGNATURE_HASH_ALGORITHMS says.
const ALL_HASHES: [u16; 4] = [2, 3, 4, 5];

fn data(path: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn with<T>(file: &str, f: impl FnOnce(Source<'_>) -> T) -> T {
    f(Source { name: file, bytes: &data(&format!("pki/{file}")) })
}

fn try_own(certificate: &str, key: &str) -> Result<Arc<OwnCertificate>, AuthError> {
    with(certificate, |c| with(key, |k| OwnCertificate::load(c, k))).map(Arc::new)
}

/// The certificate with key of `key`; or that of p256, which most have.
fn own(certificate: &str) -> Credential {
    let same = certificate.replace(".pem", ".key");
    let exists = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/pki").join(&same).exists();
    Credential::Certificate(try_own(certificate, if exists { &same } else { "p256.key" }).unwrap())
}

fn try_authority(cas: &[&str], lists: &[&str]) -> Result<Arc<Authority>, AuthError> {
    let read = |files: &[&str]| files.iter().map(|f| data(&format!("pki/{f}"))).collect::<Vec<_>>();
    let (ca_bytes, list_bytes) = (read(cas), read(lists));
    let sources = |files: &[&'static str], bytes: &'static [Vec<u8>]| -> Vec<Source<'static>> {
        files.iter().zip(bytes).map(|(name, bytes)| Source { name, bytes }).collect()
    };
    let leak = |files: &[&str]| -> Vec<&'static str> {
        files.iter().map(|f| &*Box::leak(f.to_string().into_boxed_str())).collect()
    };
    let cas = sources(&leak(cas), Vec::leak(ca_bytes));
    let lists = sources(&leak(lists), Vec::leak(list_bytes));
    Authority::load(&cas, &lists).map(Arc::new)
}

fn authority(cas: &[&str], lists: &[&str]) -> Trust {
    Trust::Authority { authority: try_authority(cas, lists).unwrap(), name: None }
}

fn wanting(ca: &str, name: &str) -> Trust {
    Trust::Authority { authority: try_authority(&[ca], &[]).unwrap(), name: Some(id(name)) }
}

fn pinned(file: &str) -> Trust {
    Trust::Pinned(Arc::new(with(file, PeerCertificate::load).unwrap()))
}

fn id(text: &str) -> Identity {
    text.parse().unwrap()
}

fn octets() -> SignedOctets {
    SignedOctets::new(Prf::HmacSha256, b"message", b"nonce", b"sk_p", &id("a.test").to_wire())
}

fn requests() -> Vec<wire::CertRequest> {
    vec![wire::CertRequest { encoding: 4, data: vec![] }]
}

/// What comes of it if `who` proves itself as `name` with that credential, sending `extra` certificates, too.
fn check(
    who: &Credential,
    extra: &[&str],
    trust: &Trust,
    name: &str,
    now: u64,
) -> Result<Authenticated, AuthError> {
    let auth = prove(who, &octets(), &ALL_HASHES).unwrap();
    let mut certs = who.certificates(&requests());
    for file in extra {
        let der = with(file, |s| pem_to_der(s.bytes));
        certs.push(wire::Certificate { encoding: 4, data: der });
    }
    verify(trust, &octets(), &auth, &certs, &id(name), now)
}

fn pem_to_der(pem: &[u8]) -> Vec<u8> {
    use rustls_pki_types::pem::PemObject;
    rustls_pki_types::CertificateDer::from_pem_slice(pem).unwrap().to_vec()
}

fn pem_to_pkcs1(pem: &[u8]) -> Vec<u8> {
    use rustls_pki_types::pem::PemObject;
    rustls_pki_types::PrivatePkcs1KeyDer::from_pem_slice(pem).unwrap().secret_pkcs1_der().to_vec()
}

fn error(result: Result<Authenticated, AuthError>) -> String {
    result.map(|a| a.identity().to_string()).expect_err("accepted").to_string()
}

// ---- what charon did

struct Proof {
    message: Vec<u8>,
    nonce: Vec<u8>,
    sk_p: Vec<u8>,
    id: wire::Identification,
    auth: wire::AuthData,
    certs: Vec<wire::Certificate>,
}

/// Both proofs of an exchange, the initiator's first.
fn charon(file: &str) -> [Proof; 2] {
    let text = String::from_utf8(data(&format!("charon/{file}"))).unwrap();
    let proofs = text.split("side ").skip(1).map(|part| {
        let fields: HashMap<&str, Vec<u8>> =
            part.lines().skip(1).filter_map(|line| line.split_once(' ')).map(|(k, v)| (k, hex(v))).collect();
        let field = |name: &str| fields.get(name).cloned().unwrap();
        Proof {
            message: field("message"),
            nonce: field("nonce"),
            sk_p: field("sk_p"),
            id: wire::Identification { kind: field("id")[0], data: field("id")[4..].to_vec() },
            auth: wire::AuthData { method: field("auth")[0], data: field("auth")[4..].to_vec() },
            certs: fields
                .get("cert")
                .map(|c| wire::Certificate { encoding: c[0], data: c[1..].to_vec() })
                .into_iter()
                .collect(),
        }
    });
    proofs.collect::<Vec<_>>().try_into().unwrap_or_else(|_| panic!("{file}"))
}

fn hex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2));
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

impl Proof {
    fn octets(&self, prf: Prf) -> SignedOctets {
        SignedOctets::new(prf, &self.message, &self.nonce, &self.sk_p, &self.id)
    }
}

#[test]
fn charons_psk_is_ours() {
    for (file, prf, secret) in [
        ("ike-psk-aes128.txt", Prf::HmacSha256, "test only, not a secret"),
        ("ike-psk-aes256.txt", Prf::HmacSha384, "test only, not a secret"),
        ("ovs-ipsec-psk.txt", Prf::HmacSha256, "test-only"),
    ] {
        let psk = Psk::new(secret.as_bytes()).unwrap();
        let wrong = Psk::new(&b"test-0nly"[..]).unwrap();
        for proof in charon(file) {
            let octets = proof.octets(prf);
            assert_eq!(prove(&Credential::Psk(psk.clone()), &octets, &[]).unwrap(), proof.auth, "{file}");
            let id = Identity::try_from(&proof.id).unwrap();
            let ok = verify(&Trust::Psk(psk.clone()), &octets, &proof.auth, &[], &id, 0).unwrap();
            assert_eq!((ok.identity(), ok.to_string().as_str()), (&id, "pre-shared key"));
            assert_eq!(
                error(verify(&Trust::Psk(wrong.clone()), &octets, &proof.auth, &[], &id, 0)),
                "PSK does not match: check options:psk on both hosts"
            );
        }
    }
    let [initiator, responder] = charon("ovs-ipsec-psk.txt");
    let name = |proof: &Proof| Identity::try_from(&proof.id).unwrap().to_string();
    assert_eq!((name(&initiator).as_str(), name(&responder).as_str()), ("10.9.0.1", "10.9.0.2"));
}

/// charon's RSA signatures, by certificates as they came in its CERT payloads. The CA is not in the capture, so each
/// is trusted by itself.
#[test]
fn charons_signatures_verify() {
    const ISSUED: u64 = 1_795_500_000; // 2026-11-24
    for proof in charon("ike-cert-aes256.txt") {
        let octets = proof.octets(Prf::HmacSha256);
        let der = proof.certs[0].data.clone();
        let trust =
            Trust::Pinned(Arc::new(PeerCertificate::load(Source { name: "peer", bytes: &der }).unwrap()));
        let id = Identity::try_from(&proof.id).unwrap();
        let ok = verify(&trust, &octets, &proof.auth, &proof.certs, &id, ISSUED).unwrap();
        assert_eq!(ok.to_string(), format!("RSA PKCS#1 with SHA2-256 by C=CH, O=test, CN={id}"));

        // by other octets, by another prf, with a bit turned
        let mut other = proof.message.clone();
        other[27] ^= 1;
        let other = SignedOctets::new(Prf::HmacSha256, &other, &proof.nonce, &proof.sk_p, &proof.id);
        assert!(verify(&trust, &other, &proof.auth, &proof.certs, &id, ISSUED).is_err());
        let other = proof.octets(Prf::HmacSha512);
        assert!(verify(&trust, &other, &proof.auth, &proof.certs, &id, ISSUED).is_err());
        for at in 0..proof.auth.data.len() {
            let mut auth = proof.auth.clone();
            auth.data[at] ^= 0x10;
            assert!(verify(&trust, &octets, &auth, &proof.certs, &id, ISSUED).is_err(), "octet {at}");
        }
    }
}

// ---- keys

#[test]
fn every_kind_of_key() {
    let trust = authority(&["ca.pem"], &[]);
    for (certificate, key, method, how) in [
        ("rsa2048.pem", "rsa2048.key", 1, "RSA PKCS#1 with SHA2-256"),
        ("rsa2048.pem", "rsa2048.pkcs1.key", 1, "RSA PKCS#1 with SHA2-256"),
        ("rsa3072.pem", "rsa3072.key", 1, "RSA PKCS#1 with SHA2-256"),
        ("p256.pem", "p256.key", 9, "ECDSA P-256 with SHA2-256"),
        ("p256.pem", "p256.sec1.key", 9, "ECDSA P-256 with SHA2-256"),
        ("p256.der", "p256.key", 9, "ECDSA P-256 with SHA2-256"),
        ("p384.pem", "p384.key", 10, "ECDSA P-384 with SHA2-384"),
        ("p384.pem", "p384.sec1.key", 10, "ECDSA P-384 with SHA2-384"),
        ("ed25519.pem", "ed25519.key", 0, "Ed25519"),
    ] {
        let own = Credential::Certificate(try_own(certificate, key).unwrap());
        assert_eq!(own.identity(), Some(&id("a.test")));
        let modern = prove(&own, &octets(), &ALL_HASHES).unwrap();
        assert_eq!(modern.method, 14);
        let certs = own.certificates(&requests());
        let ok = verify(&trust, &octets(), &modern, &certs, &id("a.test"), NOW).unwrap();
        assert_eq!(ok.to_string(), format!("{how} by C=CH, O=test, CN=a.test"));
        // without SIGNATURE_HASH_ALGORITHMS
        let old = prove(&own, &octets(), &[]);
        if method == 0 {
            assert!(matches!(old, Err(AuthError::NoCommonHash { .. })), "{old:?}");
            continue;
        }
        let old = old.unwrap();
        assert_eq!(old.method, method);
        let ok = verify(&trust, &octets(), &old, &certs, &id("a.test"), NOW).unwrap();
        assert!(ok.to_string().starts_with(how), "{ok}");
        // a signature under another label is none
        for wrong in [1, 9, 10, 14].into_iter().filter(|m| *m != method) {
            let auth = wire::AuthData { method: wrong, data: old.data.clone() };
            assert!(verify(&trust, &octets(), &auth, &certs, &id("a.test"), NOW).is_err());
        }
    }
}

#[test]
fn hash_as_the_peer_takes_it() {
    let method = |file: &str, hashes: &[u16]| {
        let trust = authority(&["ca.pem"], &[]);
        let own = own(file);
        let auth = prove(&own, &octets(), hashes).map_err(|e| e.to_string())?;
        let certs = own.certificates(&requests());
        let ok = verify(&trust, &octets(), &auth, &certs, &id("a.test"), NOW).unwrap();
        Ok::<_, String>(ok.to_string().split(" by ").next().unwrap().to_owned())
    };
    assert_eq!(method("rsa2048.pem", &[1, 4, 3]).unwrap(), "RSA PKCS#1 with SHA2-384");
    assert_eq!(method("rsa2048.pem", &[4]).unwrap(), "RSA PKCS#1 with SHA2-512");
    assert_eq!(
        method("rsa2048.pem", &[1]).unwrap_err(),
        "the peer accepts no signature by our RSA key (its hash algorithms: [1])"
    );
    assert!(method("p384.pem", &[2, 4]).unwrap_err().contains("by our ECDSA P-384 key"));
    assert!(method("ed25519.pem", &[2, 3, 4]).unwrap_err().contains("by our Ed25519 key"));
    assert_eq!(
        parse_hash_algorithms(&hash_algorithms()),
        [2, 3, 5],
        "ECDSA with SHA2-512 is more than ring verifies"
    );
    assert_eq!(parse_hash_algorithms(&[0, 2, 9]), [2]);
    assert!(parse_hash_algorithms(&[]).is_empty());
}

#[test]
fn files_that_are_of_no_use() {
    let own = |certificate, key| try_own(certificate, key).unwrap_err().to_string();
    for (certificate, key, text) in [
        (
            "p256.pem",
            "p384.key",
            "p384.key: its private key is malformed, or none of the kind that C=CH, O=test, CN=a.test has (ECDSA P-256)",
        ),
        ("p256.pem", "sub.key", "the private key in sub.key does not belong to the certificate in p256.pem"),
        ("p256.pem", "rsa2048.key", "rsa2048.key: its private key is malformed, or none of the kind"),
        (
            "rsa2048.pem",
            "rsa3072.key",
            "the private key in rsa3072.key does not belong to the certificate in rsa2048.pem",
        ),
        ("rsa2048.pem", "p256.key", "p256.key: its private key is malformed, or none of the kind"),
        ("ed25519.pem", "swan.key", "swan.key: its private key is malformed, or none of the kind"),
        (
            "p256.pem",
            "encrypted.key",
            "the private key in encrypted.key is encrypted; write it in the clear with `openssl pkey -in encrypted.key`",
        ),
        ("rsa2048.pem", "encrypted.pkcs1.key", "the private key in encrypted.pkcs1.key is encrypted"),
        ("p256.pem", "p256.pem", "p256.pem holds no private key in PEM form"),
        ("p256.key", "p256.key", "p256.key holds no certificate in PEM form"),
        ("make", "p256.key", "make holds no certificate in PEM form"),
        ("rsa1024.pem", "rsa1024.key", "rsa1024.pem: the RSA key is too weak: less than 2048 bits"),
        ("rsa-e3.pem", "rsa-e3.key", "rsa-e3.pem: the RSA key is too weak: an exponent below 65537"),
        (
            "p521.pem",
            "p521.key",
            "p521.pem: the public key is none that is supported (RSA, ECDSA P-256 or P-384, Ed25519)",
        ),
    ] {
        let error = own(certificate, key);
        assert!(error.starts_with(text), "{certificate} {key}: {error}");
    }
    // damaged where only signing shows it
    let mut damaged = pem_to_pkcs1(&data("pki/rsa2048.pkcs1.key"));
    *damaged.last_mut().unwrap() ^= 1;
    let damaged =
        x509_cert::der::pem::encode_string("RSA PRIVATE KEY", Default::default(), &damaged).unwrap();
    let damaged = Source { name: "damaged.key", bytes: damaged.as_bytes() };
    let error = with("rsa2048.pem", |c| OwnCertificate::load(c, damaged)).unwrap_err().to_string();
    assert!(error.starts_with("damaged.key: its private key is malformed"), "{error}");
    // cut short anywhere: an error or, past the end mark, the certificate
    let whole = data("pki/p256.pem");
    for len in 0..whole.len() - 30 {
        let cut = Source { name: "cut", bytes: &whole[..len] };
        assert!(PeerCertificate::load(cut).is_err(), "{len}");
    }
    let whole = data("pki/p256.der");
    for len in 0..whole.len() {
        assert!(PeerCertificate::load(Source { name: "cut", bytes: &whole[..len] }).is_err(), "{len}");
    }
    let authority = |ca: &str| try_authority(&[ca], &[]).unwrap_err().to_string();
    assert!(authority("p256.pem").starts_with("C=CH, O=test, CN=a.test in p256.pem is not a CA certificate"));
    assert!(authority("sub-no-sign.pem").contains("is not a CA certificate"));
    assert!(authority("p256.key").contains("holds no certificate"));
    let list = try_authority(&["ca.pem"], &["ca.pem"]).unwrap_err().to_string();
    assert_eq!(list, "ca.pem holds no certificate revocation list in PEM form");
}

// ---- whom a CA vouches for

#[test]
fn certificates_of_a_ca() {
    const SUBJECT: &str = "the certificate of C=CH, O=test, CN=a.test";
    let trust = authority(&["ca.pem"], &[]);
    let accepted = ["p256", "critical-usage", "eku-ipsec", "eku-any", "cn-only", "cn-last", "no-subject"];
    for file in accepted {
        let ok = check(&own(&format!("{file}.pem")), &[], &trust, "a.test", NOW);
        assert!(ok.is_ok(), "{file}: {}", ok.unwrap_err());
    }
    for (file, text) in [
        ("expired", "{} expired on 2026-01-02; renew it"),
        ("future", "{} is not valid before 2026-07-01; check the clocks of both hosts"),
        (
            "critical",
            "{} is refused: it or a certificate above it has a critical extension that is not understood here",
        ),
        ("no-usage", "{} is refused: its keyUsage allows no digitalSignature"),
        (
            "eku-code",
            "{} is refused: its extendedKeyUsage has none of serverAuth, clientAuth, ipsecIKE and anyExtendedKeyUsage",
        ),
        ("is-ca", "{} is refused: it is a CA certificate; make one for the host and sign it"),
        (
            "other",
            "{} is not signed by the key of C=CH, O=test, CN=test CA in ca.pem: another CA has that name, too",
        ),
        ("stranger", "{} is signed by another CA (C=CH, O=test, CN=stranger) than the ones in ca.pem"),
        (
            "self-signed",
            "{} is self-signed, not signed by a CA in ca.pem; to trust it alone, use options:remote_cert",
        ),
        (
            "sha1",
            "{} is refused: it is signed with an algorithm that is not accepted (such as SHA-1 or a short key)",
        ),
        (
            "other-dns",
            "the peer calls itself a.test, but its certificate names b.test, C=CH, O=test, CN=a.test",
        ),
    ] {
        let result = check(&own(&format!("{file}.pem")), &[], &trust, "a.test", NOW);
        assert_eq!(error(result), text.replace("{}", SUBJECT), "{file}");
    }
    // the second of its last day, and the next
    let expired = own("expired.pem");
    let last = 1_767_323_045; // 2026-01-02 03:04:05
    assert!(check(&expired, &[], &trust, "a.test", last).is_ok());
    assert!(check(&expired, &[], &trust, "a.test", last + 1).is_err());
    assert!(check(&expired, &[], &trust, "a.test", u64::MAX).is_err());
    assert!(check(&expired, &[], &trust, "a.test", 0).is_err());
    // any of several CAs
    let both = authority(&["stranger-ca.pem", "ca.pem", "other-ca.pem"], &[]);
    for file in ["p256.pem", "stranger.pem", "other.pem"] {
        assert!(check(&own(file), &[], &both, "a.test", NOW).is_ok(), "{file}");
    }
}

#[test]
fn a_ca_that_expires() {
    let old = own("by-old-ca.pem");
    let trust = authority(&["old-ca.pem"], &[]);
    assert!(check(&old, &[], &trust, "a.test", NOW - 150 * 86400).is_ok());
    assert_eq!(
        error(check(&old, &[], &trust, "a.test", NOW)),
        "the certificate of C=CH, O=test, CN=a.test is refused: a CA certificate above it expired on 2026-02-01"
    );
    // renewed with the same key: either certificate will do
    for files in [["old-ca.pem", "old-ca-renewed.pem"], ["old-ca-renewed.pem", "old-ca.pem"]] {
        assert!(check(&old, &[], &authority(&files, &[]), "a.test", NOW).is_ok());
    }
    let both = try_authority(&["ca.pem", "old-ca.pem"], &["stale.crl", "empty.crl"]).unwrap();
    assert_eq!(
        both.warnings(NOW),
        [
            "the certificate of C=CH, O=test, CN=old CA expired on 2026-02-01; renew it",
            "the revocation list stale.crl should have been replaced by 2026-02-01: get a new one",
        ]
    );
}

#[test]
fn cas_below_the_ca() {
    let trust = authority(&["ca.pem"], &[]);
    let refused = |file: &str, extra: &[&str], name: &str| error(check(&own(file), extra, &trust, name, NOW));
    assert!(check(&own("by-sub.pem"), &["sub.pem"], &trust, "a.test", NOW).is_ok());
    assert!(check(&own("by-sub.pem"), &["stranger-ca.pem", "sub.pem"], &trust, "a.test", NOW).is_ok());
    assert!(refused("by-sub.pem", &[], "a.test").contains("is signed by another CA (C=CH, O=test, CN=sub)"));
    assert!(refused("by-sub-no-sign.pem", &["sub-no-sign.pem"], "a.test").ends_with("is not one of a CA"));
    assert!(refused("by-host.pem", &["p256.pem"], "a.test").ends_with("is not one of a CA"));
    let many = ["sub.pem"; 6];
    assert_eq!(
        refused("by-sub.pem", &many, "a.test"),
        "the peer sent 7 certificates, which is more than a chain needs"
    );
    let shallow = authority(&["shallow.pem"], &[]);
    let deep = error(check(&own("by-deep.pem"), &["deep.pem"], &shallow, "a.test", NOW));
    assert!(deep.ends_with("a CA above it may not have so many CAs below it"), "{deep}");
}

#[test]
fn own_chain_is_sent_without_its_root() {
    let chain = ["by-sub.pem", "sub.pem", "ca.pem"].map(|f| data(&format!("pki/{f}"))).concat();
    let chain = Source { name: "chain", bytes: &chain };
    let own = with("p256.key", |key| OwnCertificate::load(chain, key)).unwrap();
    let own = Credential::Certificate(Arc::new(own));
    assert_eq!(own.certificates(&requests()).len(), 2);
    assert!(check(&own, &[], &authority(&["ca.pem"], &[]), "a.test", NOW).is_ok());
    // sent to those that ask for what we have, only
    assert!(own.certificates(&[]).is_empty());
    assert!(own.certificates(&[wire::CertRequest { encoding: 12, data: vec![] }]).is_empty());
    assert!(Credential::Psk(Psk::new(&b"x"[..]).unwrap()).certificates(&requests()).is_empty());
}

#[test]
fn cas_that_limit_names() {
    let trust = authority(&["ca.pem"], &[]);
    let limited = |file: &str, name: &str| check(&own(file), &["limited.pem"], &trust, name, NOW);
    assert!(limited("by-limited.pem", "a.ok.test").is_ok());
    assert!(limited("by-limited.pem", "10.9.0.1").is_ok());
    for (file, name) in [
        ("by-limited-dns.pem", "a.test"),
        ("by-limited-excluded.pem", "x.bad.ok.test"),
        ("by-limited-ip.pem", "a.ok.test"),
    ] {
        let error = error(limited(file, name));
        assert!(error.ends_with("a CA above it may not sign for the names in it"), "{file}: {error}");
    }
    let dn = check(&own("by-limited-dn.pem"), &["limited-dn.pem"], &trust, "a.test", NOW);
    assert!(error(dn).ends_with("a CA above it may not sign for the names in it"));
    // a common name is held to no limit, so it names nobody here
    assert_eq!(
        error(limited("by-limited-cn.pem", "a.test")),
        "the peer calls itself a.test, but its certificate names C=CH, O=test, CN=a.test"
    );
    let wanted =
        Trust::Authority { authority: try_authority(&["ca.pem"], &[]).unwrap(), name: Some(id("a.test")) };
    let by_subject =
        check(&own("by-limited-cn.pem"), &["limited.pem"], &wanted, "C=CH, O=test, CN=a.test", NOW);
    assert!(matches!(by_subject, Err(AuthError::WrongName { .. })), "{by_subject:?}");
    // nor below an anchor that limits
    let anchor = check(&own("by-limited-cn.pem"), &[], &authority(&["limited.pem"], &[]), "a.test", NOW);
    assert!(matches!(anchor, Err(AuthError::NotNamed { .. })), "{anchor:?}");
    assert!(check(&own("by-limited.pem"), &[], &authority(&["limited.pem"], &[]), "a.ok.test", NOW).is_ok());
}

#[test]
fn revocation() {
    let (good, bad) = (own("p256.pem"), own("revoked.pem"));
    let with = |lists: &[&str]| authority(&["ca.pem"], lists);
    assert!(check(&bad, &[], &with(&[]), "a.test", NOW).is_ok());
    assert!(check(&bad, &[], &with(&["empty.crl"]), "a.test", NOW).is_ok());
    // of several lists the latest counts; one that is out of date still revokes
    for lists in [
        &["revoked.crl"][..],
        &["revoked.crl.der"],
        &["empty.crl", "revoked.crl"],
        &["revoked.crl", "empty.crl"],
        &["stale.crl"],
    ] {
        let trust = with(lists);
        assert!(check(&good, &[], &trust, "a.test", NOW).is_ok(), "{lists:?}");
        assert_eq!(
            error(check(&bad, &[], &trust, "a.test", NOW)),
            "the certificate of C=CH, O=test, CN=a.test, or of a CA above it, has been revoked",
            "{lists:?}"
        );
    }
    // a list that somebody else signed in the CA's name decides nothing, and is not passed over either
    let forged = error(check(&good, &[], &with(&["forged.crl"]), "a.test", NOW));
    assert!(
        forged.ends_with("the revocation list of its CA is not signed by that CA; get a right one"),
        "{forged}"
    );
    // of another CA: none of its business
    assert!(check(&good, &[], &with(&["swan.crl"]), "a.test", NOW).is_ok());
}

// ---- names

#[test]
fn who_the_peer_may_be() {
    let trust = authority(&["ca.pem"], &[]);
    let ok = |file: &str, name: &str| check(&own(file), &[], &trust, name, NOW).is_ok();
    for name in [
        "a.test",
        "A.Test",
        "10.9.0.1",
        "fd00::1",
        "root@a.test",
        "C=CH, O=test, CN=a.test",
        "C=CH,O=test,CN=A.test",
    ] {
        assert!(ok("p256.pem", name), "{name}");
    }
    for name in [
        "b.test",
        "10.9.0.2",
        "fd00::2",
        "other@a.test",
        "CN=a.test",
        "O=test, C=CH, CN=a.test",
        "CN=test CA",
    ] {
        assert!(!ok("p256.pem", name), "{name}");
    }
    let own = own("p256.pem");
    let auth = prove(&own, &octets(), &ALL_HASHES).unwrap();
    let key_id = Identity::KeyId(b"a.test".to_vec());
    assert!(verify(&trust, &octets(), &auth, &own.certificates(&requests()), &key_id, NOW).is_err());
    // the common name counts where no alternative DNS name stands
    assert!(ok("cn-only.pem", "a.test") && ok("cn-last.pem", "a.test") && ok("ip-only.pem", "a.test"));
    assert!(!ok("cn-only.pem", "b.test") && !ok("other-dns.pem", "a.test"));
    assert!(ok("ip-only.pem", "10.9.0.1") && !ok("cn-only.pem", "10.9.0.1"));
    // no wildcards, on either side
    assert!(!ok("wildcard.pem", "a.test") && !ok("wildcard.pem", "*.test") && ok("wildcard.pem", "wild"));
}

#[test]
fn remote_name() {
    let check =
        |file: &str, wanted: &str, name: &str| check(&own(file), &[], &wanting("ca.pem", wanted), name, NOW);
    assert!(check("p256.pem", "a.test", "a.test").is_ok());
    assert!(check("p256.pem", "10.9.0.1", "10.9.0.1").is_ok());
    assert_eq!(
        error(check("other-dns.pem", "a.test", "b.test")),
        "the peer names b.test, but options:remote_name is a.test"
    );
    // its certificate names a.test, but it does not say that it is a.test
    assert!(check("p256.pem", "a.test", "10.9.0.1").is_err());
    // its subject as a whole: the names in the certificate decide
    const SUBJECT: &str = "C=CH, O=test, CN=a.test";
    assert!(check("p256.pem", "a.test", SUBJECT).is_ok());
    assert!(check("cn-only.pem", "a.test", SUBJECT).is_ok());
    assert!(check("p256.pem", "b.test", SUBJECT).is_err());
    assert!(check("other-dns.pem", "a.test", SUBJECT).is_err());
}

#[test]
fn our_identity() {
    for (file, name) in [
        ("p256.pem", "a.test"),
        ("cn-only.pem", "a.test"),
        ("other-dns.pem", "b.test"),
        ("ip-only.pem", "10.9.0.1"),
        ("no-subject.pem", "a.test"),
        ("wildcard.pem", "wild"),
        ("ovs.pem", "ovs.test"),
        ("ovs-self.pem", "self.test"),
        ("swan.pem", "swan.test"),
    ] {
        assert_eq!(own(file).identity().unwrap().to_string(), name, "{file}");
    }
}

// ---- one certificate

#[test]
fn pinned_certificate() {
    let trust = pinned("self-signed.pem");
    let own_self = own("self-signed.pem");
    assert!(check(&own_self, &[], &trust, "a.test", NOW).is_ok());
    assert!(check(&own_self, &[], &trust, "C=CH, O=test, CN=a.test", NOW).is_ok());
    // charon sends none if it is not asked, which we do not do then
    assert_eq!(certificate_requests(&trust), None);
    let auth = prove(&own_self, &octets(), &ALL_HASHES).unwrap();
    let ok = verify(&trust, &octets(), &auth, &[], &id("a.test"), NOW).unwrap();
    assert_eq!(ok.certificate().map(Certificate::not_after), Some(1_798_761_600));
    // the same key in a renewed certificate, or signed by a CA
    assert!(check(&own("self-signed-renewed.pem"), &[], &trust, "a.test", NOW).is_ok());
    assert!(check(&own("p256.pem"), &[], &trust, "a.test", NOW).is_ok());
    assert_eq!(
        error(check(&own("p384.pem"), &[], &trust, "a.test", NOW)),
        "the peer presents a certificate (C=CH, O=test, CN=a.test) of another key than the one in options:remote_cert \
         (C=CH, O=test, CN=a.test): copy its present one here"
    );
    // SHA-1, as method 1 has it by default
    let rsa = own("rsa2048.pem");
    let sha1 = wire::AuthData { method: 1, data: vec![7; 256] };
    let old = verify(
        &authority(&["ca.pem"], &[]),
        &octets(),
        &sha1,
        &rsa.certificates(&requests()),
        &id("a.test"),
        NOW,
    );
    assert_eq!(
        error(old),
        "the RSA signature of C=CH, O=test, CN=a.test (method 1) is wrong or made with SHA-1, which is not accepted: let \
         the peer use RFC 7427 signature authentication"
    );
    // the right certificate, another key
    let auth = prove(&own("p384.pem"), &octets(), &ALL_HASHES).unwrap();
    assert!(matches!(
        verify(&trust, &octets(), &auth, &[], &id("a.test"), NOW),
        Err(AuthError::WrongSignature { .. })
    ));
    assert_eq!(
        error(check(&own("self-signed-expired.pem"), &[], &pinned("self-signed-expired.pem"), "a.test", NOW)),
        "the certificate of C=CH, O=test, CN=a.test expired on 2026-01-02; renew it"
    );
    assert!(matches!(check(&own_self, &[], &trust, "b.test", NOW), Err(AuthError::NotNamed { .. })));
    // what `openssl req -x509` makes: a CA without alternative names
    let req = try_own("self-signed-req.pem", "rsa2048.key").unwrap();
    assert!(
        check(&Credential::Certificate(req), &[], &pinned("self-signed-req.pem"), "a.test", LATER).is_ok()
    );
}

// ---- others' certificates

#[test]
fn made_by_strongswan() {
    let own = own("swan.pem");
    let ok = check(&own, &[], &wanting("swan-ca.pem", "swan.test"), "swan.test", NOW).unwrap();
    assert_eq!(ok.certificate().map(Certificate::key), Some(KeyKind::Rsa));
    let revoked = check(&own, &[], &authority(&["swan-ca.pem"], &["swan.crl"]), "swan.test", NOW);
    assert!(matches!(revoked, Err(AuthError::Revoked { .. })), "{revoked:?}");
}

/// RSA PSS, which we do not use ourselves, with parameters as OpenSSL and strongSwan write them into certificates.
#[test]
fn pss() {
    use ring::signature::{RSA_PSS_SHA256, RSA_PSS_SHA384, RsaEncoding, RsaKeyPair};
    let key = RsaKeyPair::from_der(&pem_to_pkcs1(&data("pki/rsa2048.pkcs1.key"))).unwrap();
    let own = own("rsa2048.pem");
    // what `octets()` are
    let mac = Prf::HmacSha256.mac(b"sk_p", &[&[2, 0, 0, 0], b"a.test"]);
    let message = [&b"message"[..], b"nonce", mac.as_bytes()].concat();
    let trust = authority(&["ca.pem"], &[]);
    let verdict = |file: &str, padding: &'static dyn RsaEncoding| {
        let der = with(file, |s| pem_to_der(s.bytes));
        let parsed = <x509_cert::Certificate as x509_cert::der::Decode>::from_der(&der).unwrap();
        let id = x509_cert::der::Encode::to_der(parsed.signature_algorithm()).unwrap();
        let mut signature = vec![0; key.public().modulus_len()];
        key.sign(padding, &ring::rand::SystemRandom::new(), &message, &mut signature).unwrap();
        let auth = wire::AuthData { method: 14, data: [&[id.len() as u8], &id[..], &signature].concat() };
        let certs = own.certificates(&requests());
        verify(&trust, &octets(), &auth, &certs, &Identity::Fqdn("a.test".into()), NOW).map(|a| a.to_string())
    };
    let by = "by C=CH, O=test, CN=a.test";
    assert_eq!(verdict("pss.pem", &RSA_PSS_SHA384).unwrap(), format!("RSA PSS with SHA2-384 {by}"));
    assert_eq!(verdict("swan-pss.pem", &RSA_PSS_SHA256).unwrap(), format!("RSA PSS with SHA2-256 {by}"));
    assert!(verdict("pss.pem", &RSA_PSS_SHA256).is_err());
    assert!(verdict("pss.pem", &ring::signature::RSA_PKCS1_SHA384).is_err());
    // and in chains
    let swan = try_own("swan-pss.pem", "swan.key").unwrap();
    let swan = Credential::Certificate(swan);
    assert!(check(&swan, &[], &wanting("swan-pss-ca.pem", "swan.test"), "swan.test", NOW).is_ok());
}

#[test]
fn made_by_ovs_pki() {
    let own_ca = own("ovs.pem");
    assert!(check(&own_ca, &[], &wanting("ovs-ca.pem", "ovs.test"), "ovs.test", LATER).is_ok());
    let own_self = own("ovs-self.pem");
    let trust = pinned("ovs-self.pem");
    assert!(check(&own_self, &[], &trust, "self.test", LATER).is_ok());
    // ovs-pki without -u: the common name, which ovs-monitor-ipsec takes for the identity, is no alternative name
    let Trust::Pinned(peer) = &trust else { unreachable!() };
    let common_name = peer.certificate().common_name().unwrap();
    assert!(common_name.starts_with("self.test id:"), "{common_name}");
    assert!(check(&own_self, &[], &trust, common_name, LATER).is_ok());
}

// ---- the rest

#[test]
fn psk_here_and_certificate_there() {
    let psk = Psk::new(&b"secret"[..]).unwrap();
    let by_psk = Credential::Psk(psk.clone());
    for trust in [authority(&["ca.pem"], &[]), pinned("self-signed.pem")] {
        assert_eq!(
            error(check(&by_psk, &[], &trust, "a.test", NOW)),
            "the peer authenticates with a PSK, but a certificate is wanted here: use options:psk on both hosts or on none"
        );
    }
    assert_eq!(
        error(check(&own("p256.pem"), &[], &Trust::Psk(psk), "a.test", NOW)),
        "the peer authenticates with a certificate, but a PSK is configured here: use options:psk on both hosts or on none"
    );
    let null = wire::AuthData { method: 13, data: vec![] };
    let by_null =
        verify(&Trust::Psk(Psk::new(&b"x"[..]).unwrap()), &octets(), &null, &[], &id("a.test"), NOW);
    assert!(error(by_null).contains("authentication method 13"));
    assert_eq!(Psk::new(&b""[..]), Err(AuthError::EmptyPsk));
}

#[test]
fn certificates_that_do_not_come() {
    let trust = authority(&["ca.pem"], &[]);
    let auth = prove(&own("p256.pem"), &octets(), &ALL_HASHES).unwrap();
    let by_url = wire::Certificate { encoding: 12, data: b"http://a.test/".to_vec() };
    for certs in [vec![], vec![by_url]] {
        assert_eq!(
            error(verify(&trust, &octets(), &auth, &certs, &id("a.test"), NOW)),
            "the peer sent no certificate: check other_config:certificate and private_key there"
        );
    }
    let garbage = wire::Certificate { encoding: 4, data: vec![0x30, 3, 1, 2, 3] };
    let malformed = verify(&trust, &octets(), &auth, &[garbage], &id("a.test"), NOW);
    assert!(matches!(malformed, Err(AuthError::Malformed { .. })), "{malformed:?}");
}

#[test]
fn methods_that_are_not_ours() {
    let trust = authority(&["ca.pem"], &[]);
    let own = own("p256.pem");
    let certs = own.certificates(&requests());
    for (method, data, text) in [
        (3, &b""[..], "authentication method 3"),
        (0, b"", "authentication method 0"),
        (11, b"x", "authentication method 11"),
        (14, b"", "a malformed algorithm identifier"),
        (14, b"\xff\x30", "a malformed algorithm identifier"),
        (14, b"\x02\x30\x05x", "a malformed algorithm identifier"),
        // sha1WithRSAEncryption
        (
            14,
            b"\x0f\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05\x05\x00x",
            "algorithm 1.2.840.113549.1.1.5",
        ),
    ] {
        let auth = wire::AuthData { method, data: data.to_vec() };
        let error = error(verify(&trust, &octets(), &auth, &certs, &id("a.test"), NOW));
        assert!(
            error.starts_with(&format!("the peer authenticates by {text}, which is not supported")),
            "{error}"
        );
    }
}

#[test]
fn what_we_ask_for() {
    let hash = hex(String::from_utf8(data("pki/ca.key-hash")).unwrap().trim());
    let request = certificate_requests(&authority(&["swan-ca.pem", "ca.pem"], &[])).unwrap();
    assert_eq!((request.encoding, request.data.len()), (4, 40));
    assert_eq!(request.data[20..], hash);
    assert_eq!(certificate_requests(&Trust::Psk(Psk::new(&b"x"[..]).unwrap())), None);
}

#[test]
fn secrets_stay_secret() {
    let psk = Credential::Psk(Psk::new(&b"topsecret"[..]).unwrap());
    assert_eq!(format!("{psk:?}"), "Psk(Psk(Secret(..)))");
    assert_eq!(format!("{:?}", own("p256.pem")), "Certificate(OwnCertificate(C=CH, O=test, CN=a.test))");
}

#[test]
fn unchanged_configuration_is_equal() {
    assert_eq!(own("p256.pem"), own("p256.pem"));
    assert_ne!(own("p256.pem"), own("self-signed.pem"));
    assert_eq!(authority(&["ca.pem"], &["empty.crl"]), authority(&["ca.pem"], &["empty.crl"]));
    assert_ne!(authority(&["ca.pem"], &["empty.crl"]), authority(&["ca.pem"], &["revoked.crl"]));
    assert_ne!(authority(&["ca.pem"], &[]), authority(&["other-ca.pem"], &[]));
    assert_eq!(pinned("ovs-self.pem"), pinned("ovs-self.pem"));
}
