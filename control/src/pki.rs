//! `underpass pki`: a CA, and keys and certificates for hosts, for people who have none. The job of ovs-pki.
//!
//! Keys are ECDSA P-256, unless `--key` brings another: strongSwan as Open vSwitch's ovs-monitor-ipsec configures it reads
//! no private keys but RSA. A certificate names its host as common name and as alternative DNS name; its subject has an
//! organization in front, because ovs-monitor-ipsec finds a common name only if it is not all there is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use ikev2::auth::{Certificate, Identity, OwnCertificate, PeerCertificate, Source};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType,
};
use zeroize::Zeroizing;

use crate::rundir;

const ORGANIZATION: &str = "Underpass";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// As ovs-pki gives them.
const DEFAULT_DAYS: u16 = 3650;
/// What X.509 grants a common name.
const MAX_NAME: usize = 64;

/// What `pki` does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a CA, which then signs the certificates of hosts
    Init(Init),
    /// Make a host's key, and its certificate signed by the CA
    Host(Host),
    /// Make a host's key and a certificate that nobody signed: other hosts need a copy (options:remote_cert)
    SelfSigned(Host),
    /// Print what certificates say
    Show(Show),
}

/// Where files are made.
#[derive(Debug, Args)]
pub struct Place {
    /// Where the files are [default: pki next to the database, /etc/openvswitch/pki]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// How long a certificate is valid
    #[arg(long, value_name = "N", default_value_t = DEFAULT_DAYS, value_parser = clap::value_parser!(u16).range(1..))]
    pub days: u16,
}

/// Options of `pki init`.
#[derive(Debug, Args)]
pub struct Init {
    /// What to call the CA [default: "Underpass CA" and some digits, so that no two are called the same]
    #[arg(long)]
    pub name: Option<String>,
    /// Where
    #[command(flatten)]
    pub place: Place,
}

/// Options of `pki host` and `pki self-signed`.
#[derive(Debug, Args)]
pub struct Host {
    /// The host's name, by which others know it (options:remote_name)
    pub name: String,
    /// An address that the certificate is to name, too
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Vec<IpAddr>,
    /// Take this private key (PKCS#8 in PEM) instead of making one. A host that runs Open vSwitch with strongSwan needs
    /// an RSA key: `openssl genrsa -out FILE 2048`
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Where
    #[command(flatten)]
    pub place: Place,
}

/// Options of `pki show`.
#[derive(Debug, Args)]
pub struct Show {
    /// Certificates, in PEM or DER
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
}

/// Does it, and returns what there is to say.
pub fn run(command: &Command) -> anyhow::Result<String> {
    let now = SystemTime::now();
    match command {
        Command::Init(init) => init.run(now),
        Command::Host(host) => host.sign(now),
        Command::SelfSigned(host) => host.self_sign(now),
        Command::Show(show) => show.run(now),
    }
}

impl Init {
    fn run(&self, now: SystemTime) -> anyhow::Result<String> {
        let dir = self.place.dir()?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = self.place.params(now)?;
        let name = match &self.name {
            Some(name) => name.clone(),
            None => {
                let digits: String =
                    params.key_identifier(&key).iter().take(4).map(|b| format!("{b:02x}")).collect();
                format!("Underpass CA {digits}")
            }
        };
        ensure!(
            (1..=MAX_NAME).contains(&name.chars().count()),
            "the CA's name must have 1 to {MAX_NAME} characters"
        );
        params.distinguished_name = subject(&name);
        // below it stand hosts, no other CAs
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        let files = Files::of(&dir, "ca");
        files.write(&key, &certificate.pem())?;
        Ok(format!(
            "Made {name} (valid until {}):\n  \
               {}  its certificate: copy it to every host\n  \
               {}  its key: whoever has it can be any host. Keep it here alone\n\
             Next, for each host: underpass pki host NAME{}\n",
            files.not_after()?,
            files.certificate.display(),
            files.key.display(),
            self.place.as_option(),
        ))
    }
}

impl Host {
    fn sign(&self, now: SystemTime) -> anyhow::Result<String> {
        let dir = self.place.dir()?;
        let ca = Files::of(&dir, "ca");
        let (issuer, ca_certificate) = ca.issuer().with_context(|| {
            format!(
                "there is no CA to sign with: make one with `underpass pki init{}`",
                self.place.as_option()
            )
        })?;
        let key = self.key()?;
        let mut params = self.params(now)?;
        // it ends with the CA
        let ca_ends = UNIX_EPOCH.checked_add(Duration::from_secs(ca_certificate.not_after()));
        params.not_after = ca_ends.map_or(params.not_after, |ends| params.not_after.min(ends.into()));
        let certificate = params.signed_by(&key, &issuer)?;
        let made = Certificate::from_der(certificate.der(), "the new certificate")?;
        ensure!(
            made.issuer() == ca_certificate.subject() && ca_certificate.is_ca(),
            "{} was not made by `underpass pki init`: sign with the program that made it",
            ca.certificate.display()
        );
        let files = self.files(&dir, &key, &certificate)?;
        let (certificate, key, ca) =
            (files.certificate.display(), files.key.display(), ca.certificate.display());
        let name = &self.name;
        Ok(format!(
            "Made {certificate} (valid until {}) and {key}, signed by {}.\n\
             Next, on {name}, with these two files and {ca} there:\n  \
               ovs-vsctl set Open_vSwitch . other_config:certificate={certificate} other_config:private_key={key} \
                 other_config:ca_cert={ca}\n\
             and on each other host, for its tunnel to {name}:\n  \
               ovs-vsctl set interface TUNNEL options:remote_name={name}\n",
            files.not_after()?,
            ca_certificate.subject(),
        ))
    }

    fn self_sign(&self, now: SystemTime) -> anyhow::Result<String> {
        let dir = self.place.dir()?;
        let key = self.key()?;
        let certificate = self.params(now)?.self_signed(&key)?;
        let files = self.files(&dir, &key, &certificate)?;
        let (certificate, key) = (files.certificate.display(), files.key.display());
        let name = &self.name;
        Ok(format!(
            "Made {certificate} (valid until {}) and {key}.\n\
             Next, on {name}, with these two files there:\n  \
               ovs-vsctl set Open_vSwitch . other_config:certificate={certificate} other_config:private_key={key}\n\
             and on each other host, with a copy of {certificate}, for its tunnel to {name}:\n  \
               ovs-vsctl set interface TUNNEL options:remote_cert={certificate}\n",
            files.not_after()?,
        ))
    }

    fn key(&self) -> anyhow::Result<KeyPair> {
        match &self.key {
            None => Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?),
            Some(path) => private_key(path, &Zeroizing::new(read(path)?)),
        }
    }

    /// Writes the certificate, and the key if it is new.
    fn files(&self, dir: &Path, key: &KeyPair, certificate: &rcgen::Certificate) -> anyhow::Result<Files> {
        let mut files = Files::of(dir, &self.name);
        match &self.key {
            None => files.write(key, &certificate.pem())?,
            Some(path) => {
                files.key = std::path::absolute(path)?;
                make_dir(dir)?;
                write_new(&files.certificate, &certificate.pem(), 0o644)?;
            }
        }
        Ok(files)
    }

    fn params(&self, now: SystemTime) -> anyhow::Result<CertificateParams> {
        check_name(&self.name)?;
        let mut params = self.place.params(now)?;
        params.distinguished_name = subject(&self.name);
        params.subject_alt_names = vec![SanType::DnsName(self.name.as_str().try_into()?)];
        params.subject_alt_names.extend(self.ip.iter().map(|ip| SanType::IpAddress(*ip)));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        Ok(params)
    }
}

impl Place {
    fn dir(&self) -> io::Result<PathBuf> {
        let default = || rundir::default_db().with_file_name("pki");
        std::path::absolute(self.dir.clone().unwrap_or_else(default))
    }

    fn as_option(&self) -> String {
        self.dir.as_ref().map_or_else(String::new, |dir| format!(" --dir {}", dir.display()))
    }

    /// Valid from a day ago, as clocks differ.
    fn params(&self, now: SystemTime) -> anyhow::Result<CertificateParams> {
        let mut params = CertificateParams::default();
        let end = now.checked_add(DAY * u32::from(self.days)).context("the clock of this host is wrong")?;
        params.not_before = now.checked_sub(DAY).context("the clock of this host is wrong")?.into();
        params.not_after = end.into();
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

impl Show {
    fn run(&self, now: SystemTime) -> anyhow::Result<String> {
        let mut text = String::new();
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        for file in &self.files {
            let name = file.display().to_string();
            let peer = PeerCertificate::load(Source { name: &name, bytes: &read(file)? })?;
            let certificate = peer.certificate();
            text += &format!("{name}\n");
            let mut line = |what: &str, value: String| text += &format!("  {what:<10}{value}\n");
            line("subject:", certificate.subject().to_string());
            let by = if certificate.is_self_issued() { " (itself)" } else { "" };
            line("issuer:", format!("{}{by}", certificate.issuer()));
            if certificate.is_ca() {
                line("use:", "CA: signs other certificates".into());
            }
            if !certificate.alternative_names().is_empty() {
                let names = certificate.alternative_names().iter().map(Identity::to_string);
                line("names:", names.collect::<Vec<_>>().join(", "));
            }
            line("identity:", peer.identity().to_string());
            line("key:", certificate.key().to_string());
            let validity =
                certificate.check_dates(now).map_or_else(|e| e.to_string(), |()| "in force".into());
            line(
                "validity:",
                format!("{} to {}: {validity}", certificate.first_day(), certificate.last_day()),
            );
        }
        Ok(text)
    }
}

/// `O=Underpass, CN=name`
fn subject(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, ORGANIZATION);
    subject.push(DnType::CommonName, name);
    subject
}

/// It becomes the names of files, a DNS name and a word in commands.
fn check_name(name: &str) -> anyhow::Result<()> {
    let letters = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let starts = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if !starts || name.len() > MAX_NAME || !name.bytes().all(letters) {
        bail!(
            "{name:?} cannot name a host: take up to {MAX_NAME} letters, digits, dots, dashes and underscores"
        );
    }
    if name.parse::<IpAddr>().is_ok() {
        bail!("{name} is an address: give the host a name, and the address with --ip");
    }
    Ok(())
}

/// A key and its certificate.
struct Files {
    key: PathBuf,
    certificate: PathBuf,
}

impl Files {
    fn of(dir: &Path, name: &str) -> Files {
        Files { key: dir.join(format!("{name}.key")), certificate: dir.join(format!("{name}.pem")) }
    }

    /// Both are new, or nothing is written.
    fn write(&self, key: &KeyPair, certificate: &str) -> anyhow::Result<()> {
        if let Some(dir) = self.key.parent() {
            make_dir(dir)?;
        }
        let key_pem = Zeroizing::new(key.serialize_pem());
        write_new(&self.certificate, certificate, 0o644)?;
        write_new(&self.key, &key_pem, 0o600).inspect_err(|_| {
            let _ = fs::remove_file(&self.certificate);
        })
    }

    /// What signs certificates.
    fn issuer(&self) -> anyhow::Result<(Issuer<'static, KeyPair>, Certificate)> {
        let (certificate, key) = (read(&self.certificate)?, Zeroizing::new(read(&self.key)?));
        let names = [&self.certificate, &self.key].map(|path| path.display().to_string());
        let [certificate, key_source] =
            [(&names[0], &certificate), (&names[1], &key)].map(|(name, bytes)| Source { name, bytes });
        let certificate = OwnCertificate::load(certificate, key_source)?.certificate().clone();
        let key = private_key(&self.key, &key)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(certificate.common_name().unwrap_or_default());
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Ok((Issuer::new(params, key), certificate))
    }

    fn not_after(&self) -> anyhow::Result<String> {
        let name = self.certificate.display().to_string();
        let bytes = fs::read(&self.certificate)?;
        Ok(PeerCertificate::load(Source { name: &name, bytes: &bytes })?.certificate().last_day())
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn private_key(path: &Path, pem: &[u8]) -> anyhow::Result<KeyPair> {
    let key = std::str::from_utf8(pem).ok().and_then(|pem| KeyPair::from_pem(pem).ok());
    key.with_context(|| {
        format!(
            "{0} is no private key in PKCS#8 of a supported kind; perhaps `openssl pkey -in {0}` makes it one",
            path.display()
        )
    })
}

fn make_dir(dir: &Path) -> anyhow::Result<()> {
    rundir::create_dir(dir).with_context(|| format!("cannot make {}", dir.display()))
}

/// Writes a file that was not there.
fn write_new(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file: File = match file {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            bail!(
                "{} is there already, and is not overwritten: remove it first if it is of no use",
                path.display()
            )
        }
        file => file.with_context(|| format!("cannot make {}", path.display()))?,
    };
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.with_context(|| format!("cannot write {}", path.display())).inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}

#[cfg(test)]
mod tests;
