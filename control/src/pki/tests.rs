use std::os::unix::fs::PermissionsExt;
use std::process::Command as Process;
use std::sync::Arc;

use clap::Parser;
use ikev2::auth::{Authority, Credential, SignedOctets, Trust, prove, verify};
use ikev2::proposal::Prf;
use ikev2::wire::CertRequest;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

/// `underpass pki` with these words, in `dir`.
fn pki(dir: &Path, words: &str) -> anyhow::Result<String> {
    let words = words.split(' ').map(|word| word.replace("DIR", &dir.display().to_string()));
    let mut words: Vec<String> = std::iter::once("pki".to_owned()).chain(words).collect();
    if words[1] != "show" {
        words.extend(["--dir".into(), dir.display().to_string()]);
    }
    run(&Line::try_parse_from(words)?.command)
}

fn load<T>(dir: &Path, file: &str, f: impl FnOnce(Source<'_>) -> T) -> T {
    f(Source { name: file, bytes: &fs::read(dir.join(file)).unwrap() })
}

fn own(dir: &Path, name: &str) -> Credential {
    let own = load(dir, &format!("{name}.pem"), |certificate| {
        load(dir, &format!("{name}.key"), |key| OwnCertificate::load(certificate, key))
    });
    Credential::Certificate(Arc::new(own.unwrap()))
}

/// Whether `trust` takes `who` for `id`.
fn accepts(trust: &Trust, who: &Credential, id: &str) -> Result<(), String> {
    let id: Identity = id.parse().unwrap();
    let octets = SignedOctets::new(Prf::HmacSha256, b"message", b"nonce", b"key", &id.to_wire());
    let auth = prove(who, &octets, &[2]).map_err(|e| e.to_string())?;
    let certs = who.certificates(&[CertRequest { encoding: 4, data: vec![] }]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    verify(trust, &octets, &auth, &certs, &id, now).map(drop).map_err(|e| e.to_string())
}

#[test]
fn a_ca_and_two_hosts() {
    let dir = tempfile::tempdir().unwrap();
    let dir = &dir.path().join("made/anew");
    let said = pki(dir, "init").unwrap();
    assert!(said.contains("Next, for each host: underpass pki host NAME --dir "), "{said}");
    let said = pki(dir, "host a.test --ip 10.9.0.1 --ip fd00::1").unwrap();
    let command = format!(
        "  ovs-vsctl set Open_vSwitch . other_config:certificate={0}/a.test.pem other_config:private_key={0}/a.test.key \
         other_config:ca_cert={0}/ca.pem\n",
        dir.display()
    );
    assert!(said.contains(&command) && said.ends_with("options:remote_name=a.test\n"), "{said}");
    pki(dir, "host b.test --days 1").unwrap();
    // no longer than the CA
    pki(dir, "host d.test --days 65535").unwrap();
    let last_day = |file: &str| load(dir, file, PeerCertificate::load).unwrap().certificate().last_day();
    assert_eq!(last_day("d.test.pem"), last_day("ca.pem"));
    assert!(last_day("b.test.pem") < last_day("ca.pem"));

    let authority = Arc::new(load(dir, "ca.pem", |ca| Authority::load(&[ca], &[])).unwrap());
    let wanting =
        |name: &str| Trust::Authority { authority: authority.clone(), name: Some(name.parse().unwrap()) };
    for name in ["a.test", "10.9.0.1", "fd00::1"] {
        assert_eq!(accepts(&wanting(name), &own(dir, "a.test"), name), Ok(()));
    }
    assert_eq!(accepts(&wanting("b.test"), &own(dir, "b.test"), "b.test"), Ok(()));
    assert!(accepts(&wanting("a.test"), &own(dir, "b.test"), "b.test").is_err());
    assert!(accepts(&wanting("a.test"), &own(dir, "b.test"), "a.test").is_err());
    for (file, mode) in [("ca.key", 0o600), ("a.test.key", 0o600), ("ca.pem", 0o644), ("a.test.pem", 0o644)] {
        assert_eq!(fs::metadata(dir.join(file)).unwrap().permissions().mode() & 0o777, mode, "{file}");
    }
}

#[test]
fn nobody_signed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let said = pki(dir, "self-signed c.test").unwrap();
    assert!(said.contains("options:remote_cert=") && !said.contains("ca_cert"), "{said}");
    let trust = Trust::Pinned(Arc::new(load(dir, "c.test.pem", PeerCertificate::load).unwrap()));
    assert_eq!(accepts(&trust, &own(dir, "c.test"), "c.test"), Ok(()));
}

#[test]
fn nothing_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let error = |words: &str| format!("{:#}", pki(dir, words).unwrap_err());
    assert!(
        error("host a.test")
            .starts_with("there is no CA to sign with: make one with `underpass pki init --dir ")
    );
    pki(dir, "init --name Mine").unwrap();
    pki(dir, "host a.test").unwrap();
    let contents = |file: &str| fs::read(dir.join(file)).unwrap();
    let (key, certificate) = (contents("a.test.key"), contents("a.test.pem"));
    for words in ["host a.test", "self-signed a.test", "init", "host ca"] {
        assert!(error(words).contains("is there already, and is not overwritten"), "{words}");
    }
    assert!(contents("a.test.key") == key && contents("a.test.pem") == certificate);
    // no certificate without its key
    fs::remove_file(dir.join("a.test.pem")).unwrap();
    assert!(error("host a.test").contains("a.test.key is there already"));
    assert!(!dir.join("a.test.pem").exists() && contents("a.test.key") == key);
    // a key that is not the CA's
    fs::write(dir.join("ca.key"), &key).unwrap();
    assert!(error("host b.test").contains("does not belong to the certificate"));
    for name in ["", "..", "a/b", "a b", "-x", "10.0.0.1", "ä", &"x".repeat(65)] {
        assert!(pki(dir, &format!("self-signed {name}")).is_err(), "{name}");
    }
}

#[test]
fn shows_what_they_say() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    pki(dir, "init --name Mine").unwrap();
    pki(dir, "host a.test --ip 10.9.0.1").unwrap();
    let said = pki(dir, "show DIR/ca.pem DIR/a.test.pem").unwrap();
    for part in [
        "  subject:  O=Underpass, CN=Mine\n  issuer:   O=Underpass, CN=Mine (itself)\n  use:      CA",
        "  subject:  O=Underpass, CN=a.test\n  issuer:   O=Underpass, CN=Mine\n  names:    a.test, 10.9.0.1\n",
        "  identity: a.test\n  key:      ECDSA P-256\n  validity: ",
        ": in force\n",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    assert!(pki(dir, "show DIR/a.test.key").is_err());
}

/// OpenSSL's view of them, and an RSA key of OpenSSL's.
#[test]
fn openssl_agrees() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let openssl = |args: &str| {
        let out = Process::new("openssl").args(args.split(' ')).current_dir(dir).output().unwrap();
        assert!(out.status.success(), "{args}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    pki(dir, "init").unwrap();
    pki(dir, "host a.test --ip 10.9.0.1").unwrap();
    pki(dir, "self-signed c.test").unwrap();
    openssl("genrsa -out r.key 2048");
    let said = pki(dir, "host r.test --key DIR/r.key").unwrap();
    assert!(said.contains(&format!("other_config:private_key={}/r.key ", dir.display())), "{said}");
    assert!(!dir.join("r.test.key").exists());
    for (with, file) in [
        ("-x509_strict -CAfile ca.pem -verify_hostname a.test", "a.test.pem"),
        ("-x509_strict -CAfile ca.pem -verify_ip 10.9.0.1", "a.test.pem"),
        ("-x509_strict -CAfile ca.pem", "r.test.pem"),
        ("-CAfile c.test.pem", "c.test.pem"),
    ] {
        assert_eq!(openssl(&format!("verify {with} {file}")), format!("{file}: OK\n"));
    }
    // where ovs-monitor-ipsec finds the name: CN=(.+?),
    let subject = openssl("x509 -noout -subject -nameopt RFC2253 -in a.test.pem");
    assert_eq!(subject, "subject=CN=a.test,O=Underpass\n");
    openssl("genrsa -out weak.key 1024");
    let weak = pki(dir, "host w.test --key DIR/weak.key").unwrap_err().to_string();
    assert!(weak.contains("weak.key is no private key in PKCS#8 of a supported kind"), "{weak}");
}
