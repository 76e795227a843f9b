//! Keys and certificates for the tests, made by strongSwan's `pki`: another's than the ones under test.

use std::cell::Cell;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cli;

/// A kind of key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// RSA of 2048 bits.
    Rsa,
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
    /// Ed25519.
    Ed25519,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::Rsa, Kind::P256, Kind::P384, Kind::Ed25519];

    fn options(self) -> &'static [&'static str] {
        match self {
            Kind::Rsa => &["--type", "rsa", "--size", "2048"],
            Kind::P256 => &["--type", "ecdsa", "--size", "256"],
            Kind::P384 => &["--type", "ecdsa", "--size", "384"],
            Kind::Ed25519 => &["--type", "ed25519"],
        }
    }
}

/// Made for one directory, which goes with it. Host `x` is named `x.test`; an authority is whoever signs.
#[derive(Debug)]
pub struct Pki {
    dir: tempfile::TempDir,
    made: Cell<u32>,
}

/// A key and its certificate, both in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Common name and, of hosts, the subject's alternative name.
    pub name: String,
    /// Its certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Pair {
    /// The certificate's text.
    #[track_caller]
    pub fn cert_pem(&self) -> String {
        std::fs::read_to_string(&self.cert).expect("the certificate")
    }

    /// The key's text.
    #[track_caller]
    pub fn key_pem(&self) -> String {
        std::fs::read_to_string(&self.key).expect("the key")
    }
}

/// Bounds of validity of a certificate that is past its time.
const EXPIRED: [&str; 4] = ["--not-before", "01.01.20 00:00:00", "--not-after", "02.01.21 00:00:00"];

impl Default for Pki {
    fn default() -> Pki {
        Pki::new()
    }
}

impl Pki {
    /// An empty one.
    #[track_caller]
    pub fn new() -> Pki {
        let dir = tempfile::Builder::new().prefix("up-pki-").tempdir().expect("a temporary directory");
        let conf = "pki { load = random openssl pem pkcs1 pkcs8 x509 pubkey sha1 sha2 curve25519 }\n";
        std::fs::write(dir.path().join("strongswan.conf"), conf).expect("a file in it");
        Pki { dir, made: Cell::new(0) }
    }

    /// Where it keeps its files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A self-signed authority.
    #[track_caller]
    pub fn authority(&self, name: &str) -> Pair {
        let pair = self.pair(name, name, Kind::Rsa);
        let dn = format!("C=CH, O=test, CN={name}");
        self.pki(&["--self", "--ca", "--in", text(&pair.key), "--dn", &dn], &pair.cert);
        pair
    }

    /// A host's key and certificate, signed by `authority`.
    #[track_caller]
    pub fn issue(&self, authority: &Pair, host: &str, kind: Kind) -> Pair {
        self.issued(authority, host, kind, &[])
    }

    /// The same, past its time.
    #[track_caller]
    pub fn issue_expired(&self, authority: &Pair, host: &str, kind: Kind) -> Pair {
        self.issued(authority, host, kind, &EXPIRED)
    }

    /// A host's key and a certificate that it signed itself.
    #[track_caller]
    pub fn self_signed(&self, host: &str, kind: Kind) -> Pair {
        self.signed_itself(host, kind, &[])
    }

    /// The same, past its time.
    #[track_caller]
    pub fn self_signed_expired(&self, host: &str, kind: Kind) -> Pair {
        self.signed_itself(host, kind, &EXPIRED)
    }

    /// A list of `authority` that revokes a certificate.
    #[track_caller]
    pub fn revoke(&self, authority: &Pair, revoked: &Pair) -> PathBuf {
        let crl = self.dir.path().join(format!("{}.crl", authority.name));
        self.pki(
            &[
                "--signcrl",
                "--cacert",
                text(&authority.cert),
                "--cakey",
                text(&authority.key),
                "--cert",
                text(&revoked.cert),
            ],
            &crl,
        );
        crl
    }

    fn pair(&self, file: &str, name: &str, kind: Kind) -> Pair {
        self.made.set(self.made.get() + 1);
        let path = |end| self.dir.path().join(format!("{}-{file}.{end}", self.made.get()));
        let pair = Pair { name: name.to_owned(), cert: path("pem"), key: path("key") };
        let mut args = vec!["--gen"];
        args.extend(kind.options());
        self.pki(&args, &pair.key);
        std::fs::set_permissions(&pair.key, Permissions::from_mode(0o600)).expect("the key's mode");
        pair
    }

    fn issued(&self, authority: &Pair, host: &str, kind: Kind, more: &[&str]) -> Pair {
        let name = format!("{host}.test");
        let pair = self.pair(&format!("{host}-of-{}", authority.name), &name, kind);
        let dn = format!("C=CH, O=test, CN={name}");
        let mut args =
            vec!["--issue", "--type", "priv", "--in", text(&pair.key), "--dn", &dn, "--san", &name];
        args.extend(["--cacert", text(&authority.cert), "--cakey", text(&authority.key)]);
        args.extend(more);
        self.pki(&args, &pair.cert);
        pair
    }

    fn signed_itself(&self, host: &str, kind: Kind, more: &[&str]) -> Pair {
        let name = format!("{host}.test");
        let pair = self.pair(host, &name, kind);
        let dn = format!("C=CH, O=test, CN={name}");
        let mut args = vec!["--self", "--in", text(&pair.key), "--dn", &dn, "--san", &name];
        args.extend(more);
        self.pki(&args, &pair.cert);
        pair
    }

    fn pki(&self, args: &[&str], into: &Path) {
        let mut c = Command::new("pki");
        c.args(args)
            .args(["--outform", "pem"])
            .env("STRONGSWAN_CONF", self.dir.path().join("strongswan.conf"));
        let pem = cli::run(&mut c);
        assert!(pem.starts_with("-----BEGIN "), "{}: {pem}", cli::line(&c));
        std::fs::write(into, pem + "\n").expect("a file of the test's own");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openssl_agrees() {
        let pki = Pki::new();
        let ca = pki.authority("ca");
        for kind in Kind::ALL {
            let pair = pki.issue(&ca, "a", kind);
            cli::run(Command::new("openssl").args(["verify", "-CAfile"]).args([&ca.cert, &pair.cert]));
            cli::run(Command::new("openssl").args(["pkey", "-noout", "-in"]).arg(&pair.key));
            let own = pki.self_signed("b", kind);
            cli::run(Command::new("openssl").args(["verify", "-CAfile"]).args([&own.cert, &own.cert]));
        }
        let old = pki.issue_expired(&ca, "old", Kind::P256);
        let out =
            cli::output(Command::new("openssl").args(["verify", "-CAfile"]).args([&ca.cert, &old.cert]));
        assert!(out.stderr.contains("certificate has expired"), "{out:?}");
        let crl = pki.revoke(&ca, &pki.issue(&ca, "r", Kind::P256));
        cli::run(
            Command::new("openssl").args(["crl", "-noout", "-CAfile"]).arg(&ca.cert).arg("-in").arg(crl),
        );
    }
}
