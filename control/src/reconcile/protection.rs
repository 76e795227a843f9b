//! What a tunnel's row asks of IPsec. Pure: options in, wishes out; files are named here and read elsewhere.
//!
//! A row that asks for IPsec in any word, new or old, known or not, is a protected tunnel's: what is wrong with it keeps
//! the tunnel down, and never makes it a plain one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use datapath::handle::KeepAwake;
use ovsdb::{Database, Row};

use super::awake;
use super::device::UnderlayIo;
use crate::secret::SecretText;

/// Options other than `ipsec_*` that ask for IPsec, in the words of every OVS version and our own.
const ASKING: [&str; 8] = [
    "psk",
    "psk_file",
    "remote_cert",
    "remote_name",
    "peer_cert",
    "certificate",
    "private_key",
    "use_ssl_cert",
];

/// Words that strongSwan and libreswan have for things that are settled here: once by what every peer needs, once by
/// negotiation.
const SETTLED: [&str; 27] = [
    "auto",
    "authby",
    "closeaction",
    "compress",
    "dpdaction",
    "dpdtimeout",
    "esp",
    "fragmentation",
    "ike",
    "ikev2",
    "inactivity",
    "keyexchange",
    "keyingtries",
    "lifebytes",
    "lifepackets",
    "marginbytes",
    "marginpackets",
    "margintime",
    "mobike",
    "pfs",
    "phase2alg",
    "reauth",
    "rekey",
    "rekeyfuzz",
    "rekeymargin",
    "replay_window",
    "type",
];

/// What a protected tunnel needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protection {
    /// Who is who.
    pub auth: Auth,
    /// Whether ESP goes in UDP.
    pub encapsulation: Encapsulation,
    /// `options:plaintext=allow`: GRE in the clear is accepted, and sent while there is no SA.
    pub plaintext: bool,
    /// `options:ipsec_ikelifetime`: how long an IKE SA lives.
    pub ike_lifetime: Option<Duration>,
    /// `options:ipsec_lifetime`: how long a child SA lives.
    pub esp_lifetime: Option<Duration>,
    /// `options:ipsec_dpddelay`: after how long a silence the peer is asked whether it lives.
    pub liveness: Option<Duration>,
    /// `options:ipsec_leftid`: the name that we go by.
    pub local_id: Option<String>,
    /// `options:ipsec_rightid`: the name that the peer goes by.
    pub remote_id: Option<String>,
}

#[cfg(test)]
impl Protection {
    /// By a row that says nothing else.
    pub fn by(auth: Auth) -> Protection {
        Protection {
            auth,
            encapsulation: Encapsulation::Auto,
            plaintext: false,
            ike_lifetime: None,
            esp_lifetime: None,
            liveness: None,
            local_id: None,
            remote_id: None,
        }
    }
}

/// How each end shows the other who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// `options:psk`.
    Psk(SecretText),
    /// `options:psk_file`.
    PskFile(PathBuf),
    /// By this certificate and no other.
    Pinned {
        /// The peer's.
        peer: Pem,
        /// Ours.
        own: Own,
    },
    /// By any certificate of an authority for this name.
    Authority {
        /// `other_config:ca_cert`.
        authority: PathBuf,
        /// `other_config:crl`: what the authority has revoked.
        revoked: Option<PathBuf>,
        /// `options:remote_name`.
        name: String,
        /// Ours.
        own: Own,
    },
}

/// Where a certificate stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pem {
    /// In a file.
    File(PathBuf),
    /// In the row (`options:peer_cert`).
    Inline(String),
}

/// This host's own certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// Its file, which may hold a chain.
    pub certificate: PathBuf,
    /// The file of its key.
    pub private_key: PathBuf,
}

/// `options:encapsulation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encapsulation {
    /// What both ends do best.
    #[default]
    Auto,
    /// IP protocol 50.
    Esp,
    /// UDP port 4500, NAT or not.
    Udp,
}

/// What the rows say of this host, for all tunnels: `Open_vSwitch`'s `other_config`, and the SSL table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostSettings {
    /// `other_config:certificate`.
    pub certificate: Option<String>,
    /// `other_config:private_key`.
    pub private_key: Option<String>,
    /// `other_config:ca_cert`.
    pub ca_cert: Option<String>,
    /// `other_config:crl`.
    pub crl: Option<String>,
    /// `other_config:ipsec_skb_mark`.
    pub skb_mark: Option<String>,
    /// Certificate and private key of the SSL table.
    pub ssl: Option<(String, String)>,
    /// `other_config:underlay-io`.
    pub underlay_io: UnderlayIo,
    /// What is wrong with it.
    pub underlay_warning: Option<String>,
    /// `other_config:keep-awake`.
    pub keep_awake: KeepAwake,
    /// What is wrong with it.
    pub awake_warning: Option<String>,
}

impl HostSettings {
    /// Reads the database.
    pub fn read(db: &Database) -> HostSettings {
        let Some((_, root)) = db.rows("Open_vSwitch").next() else { return HostSettings::default() };
        let config = |key| root.map_get("other_config", key).filter(|v| !v.is_empty()).map(str::to_owned);
        let underlay = UnderlayIo::read(root.map_get("other_config", "underlay-io"));
        let awake = awake::read(root.map_get("other_config", "keep-awake"));
        let ssl = root.refs("ssl").first().and_then(|uuid| db.row("SSL", *uuid));
        HostSettings {
            certificate: config("certificate"),
            private_key: config("private_key"),
            ca_cert: config("ca_cert"),
            crl: config("crl"),
            skb_mark: config("ipsec_skb_mark"),
            underlay_io: *underlay.as_ref().unwrap_or(&UnderlayIo::Auto),
            underlay_warning: underlay.err(),
            keep_awake: *awake.as_ref().unwrap_or(&KeepAwake::Auto),
            awake_warning: awake.err(),
            ssl: ssl.map(|row: &Row| (row.str("certificate").to_owned(), row.str("private_key").to_owned())),
        }
    }

    /// What is asked of the host that it does not need or have.
    pub fn warnings(&self) -> Vec<String> {
        let mark = self.skb_mark.as_ref().map(|_| {
            "other_config:ipsec_skb_mark has no effect: a tunnel that asks for IPsec never sends in the clear".to_owned()
        });
        let half = (self.certificate.is_some() != self.private_key.is_some())
            .then(|| "other_config: certificate and private_key go together; set both or neither".to_owned());
        mark.into_iter()
            .chain(half)
            .chain(self.underlay_warning.clone())
            .chain(self.awake_warning.clone())
            .collect()
    }
}

/// Whether an option asks for IPsec. `encapsulation=udp` alone does not: GRE goes in UDP then.
pub fn asks(option: &str, value: &str) -> bool {
    ASKING.contains(&option)
        || option.starts_with("ipsec_")
        || (option == "encapsulation" && value != "udp")
        || (option == "plaintext" && !value.eq_ignore_ascii_case("allow"))
}

/// Whether a tunnel of type `kind` asks for IPsec.
pub fn is_asked(kind: &str, options: &BTreeMap<&str, &str>) -> bool {
    kind == "ipsec_gre" || options.iter().any(|(option, value)| asks(option, value))
}

/// What tunnel `name` of type `kind` asks of IPsec. None: nothing. Err: what is wrong, `: …`, as it follows the tunnel's
/// name. Warnings begin with the tunnel's name.
pub fn read(
    name: &str,
    kind: &str,
    options: &BTreeMap<&str, &str>,
    host: &HostSettings,
    warnings: &mut Vec<String>,
) -> Option<Result<Protection, String>> {
    is_asked(kind, options).then(|| {
        let mut settings = Settings::default();
        for (option, value) in options {
            settings.take(name, option, value, warnings)?;
        }
        let allowed = options.get("plaintext").is_some_and(|v| v.eq_ignore_ascii_case("allow"));
        if allowed {
            warnings.push(format!(
                "{name}: plaintext=allow: this tunnel accepts GRE in the clear, and sends it so while there is no SA"
            ));
        }
        Ok(Protection {
            auth: auth(kind, options, host)?,
            encapsulation: settings.encapsulation.or(settings.forced).unwrap_or_default(),
            plaintext: allowed,
            ike_lifetime: settings.ike_lifetime,
            esp_lifetime: settings.esp_lifetime,
            liveness: settings.liveness,
            local_id: settings.local_id,
            remote_id: settings.remote_id,
        })
    })
}

/// Options that say how, collected one by one.
#[derive(Default)]
struct Settings {
    encapsulation: Option<Encapsulation>,
    forced: Option<Encapsulation>,
    ike_lifetime: Option<Duration>,
    esp_lifetime: Option<Duration>,
    liveness: Option<Duration>,
    local_id: Option<String>,
    remote_id: Option<String>,
}

impl Settings {
    fn take(
        &mut self,
        name: &str,
        option: &str,
        value: &str,
        warnings: &mut Vec<String>,
    ) -> Result<(), String> {
        let mut time = || {
            let read = seconds(value);
            if read.is_none() {
                warnings.push(format!(
                    "{name}: options:{option} '{value}' is not a time such as 3600, 60m or 1h; the default stands"
                ));
            }
            read
        };
        match option {
            "encapsulation" => {
                self.encapsulation = Some(match value {
                    "auto" => Encapsulation::Auto,
                    "esp" => Encapsulation::Esp,
                    "udp" => Encapsulation::Udp,
                    _ => {
                        return Err(format!(
                            ": 'encapsulation' '{value}' is none of 'esp', 'udp' and 'auto'"
                        ));
                    }
                });
            }
            "plaintext" if !["allow", "deny"].iter().any(|v| value.eq_ignore_ascii_case(v)) => {
                return Err(format!(": 'plaintext' '{value}' is neither 'allow' nor 'deny'"));
            }
            "ipsec_encapsulation" | "ipsec_forceencaps" => match value {
                "yes" => self.forced = Some(Encapsulation::Udp),
                "no" | "auto" => {}
                _ => return Err(format!(": '{option}' '{value}' is none of 'yes', 'no' and 'auto'")),
            },
            "ipsec_ikelifetime" => self.ike_lifetime = time(),
            "ipsec_lifetime" | "ipsec_keylife" | "ipsec_salifetime" => self.esp_lifetime = time(),
            "ipsec_dpddelay" => self.liveness = time(),
            "ipsec_leftid" => self.local_id = some(value),
            "ipsec_rightid" => self.remote_id = some(value),
            _ => match option.strip_prefix("ipsec_") {
                Some(word) if SETTLED.contains(&word) => {
                    warnings.push(format!("{name}: options:{option} has no effect in this version"));
                }
                Some(_) => warnings.push(format!("{name}: unknown IPsec option '{option}'")),
                None => {}
            },
        }
        Ok(())
    }
}

/// By OVS's rules (`ovs-monitor-ipsec`), and in its words; those of type `ipsec_gre` are of OVS 2.6 and older.
fn auth(kind: &str, options: &BTreeMap<&str, &str>, host: &HostSettings) -> Result<Auth, String> {
    let option = |key| options.get(key).copied().and_then(some);
    let ssl = host.ssl.as_ref().filter(|_| options.get("use_ssl_cert") == Some(&"true"));
    let old_words = kind == "ipsec_gre";
    let certificate = option("certificate").or_else(|| ssl.map(|(c, _)| c.clone()));
    // "If certificate contains the private key, this option may be omitted"
    let private_key =
        option("private_key").or_else(|| ssl.map(|(_, k)| k.clone())).or_else(|| certificate.clone());
    let of_tunnel = certificate.is_some();
    let certificate = certificate.or_else(|| host.certificate.clone());
    let private_key =
        if of_tunnel { private_key } else { option("private_key").or(host.private_key.clone()) };
    let peer = match (option("remote_cert"), option("peer_cert")) {
        (Some(_), Some(_)) => return Err(": cannot define both 'remote_cert' and 'peer_cert'".into()),
        (Some(file), None) => Some(Pem::File(file.into())),
        (None, inline) => inline.map(Pem::Inline),
    };
    let remote_name = option("remote_name");
    let psk = match (option("psk"), option("psk_file")) {
        (Some(_), Some(_)) => return Err(": cannot define both 'psk' and 'psk_file'".into()),
        (Some(psk), None) => Some(Auth::Psk(SecretText::new(&psk))),
        (None, file) => file.map(|f| Auth::PskFile(f.into())),
    };
    if let Some(psk) = psk {
        if option("peer_cert").is_some() {
            return Err(": cannot define both 'peer_cert' and 'psk'".into());
        }
        // Type ipsec_gre is older than the settings for all tunnels
        let of_host = !old_words
            && (host.certificate.is_some() || host.private_key.is_some() || host.ca_cert.is_some());
        if of_host || of_tunnel || peer.is_some() || remote_name.is_some() {
            return Err(
                ": 'certificate', 'private_key', 'ca_cert', 'remote_cert', and 'remote_name' must be unset \
                        with PSK"
                    .into(),
            );
        }
        return Ok(psk);
    }
    if peer.is_none() && remote_name.is_none() {
        return Err(match old_words {
            true => ": IPsec requires a 'peer_cert' or 'psk' argument".into(),
            false => ": must choose a authentication method".into(),
        });
    }
    let own = own(certificate, private_key, option("peer_cert").is_some())?;
    match (peer, remote_name, &host.ca_cert) {
        (Some(peer), _, _) => Ok(Auth::Pinned { peer, own }),
        (None, Some(name), Some(authority)) => {
            let revoked = host.crl.as_ref().map(PathBuf::from);
            Ok(Auth::Authority { authority: authority.into(), revoked, name, own })
        }
        _ => Err(": must set 'remote_cert' when using self-signed certificate authentication or 'ca_cert' when using \
                  CA-signed certificate authentication"
            .into()),
    }
}

fn own(certificate: Option<String>, private_key: Option<String>, old_words: bool) -> Result<Own, String> {
    let missing = |what: &str, role: &str| {
        format!(
            ": must set '{what}' as local {role} when using CA-signed certificate or self-signed certificate to \
             authenticate peers"
        )
    };
    let certificate = certificate.ok_or_else(|| match old_words {
        true => ": 'peer_cert' requires 'certificate' argument".to_owned(),
        false => missing("certificate", "certificate"),
    })?;
    let private_key = private_key.ok_or_else(|| missing("private_key", "private key"))?;
    Ok(Own { certificate: certificate.into(), private_key: private_key.into() })
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|t| !t.is_empty())
}

/// A time as strongSwan and libreswan write it: seconds, or with a unit.
fn seconds(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..)? {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return None,
    };
    let number: u32 = digits.parse().ok()?;
    Some(Duration::from_secs(u64::from(number).checked_mul(unit)?)).filter(|d| !d.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Options = [(&'static str, &'static str)];

    fn parse(
        kind: &str,
        options: &Options,
        host: &HostSettings,
    ) -> (Option<Result<Protection, String>>, Vec<String>) {
        let mut warnings = Vec::new();
        let read = read("gre0", kind, &options.iter().copied().collect(), host, &mut warnings);
        (read, warnings)
    }

    fn host() -> HostSettings {
        HostSettings {
            certificate: some("/pki/a.pem"),
            private_key: some("/pki/a.key"),
            ca_cert: some("/pki/ca.pem"),
            ..HostSettings::default()
        }
    }

    fn own(certificate: &str, private_key: &str) -> Own {
        Own { certificate: certificate.into(), private_key: private_key.into() }
    }

    #[test]
    fn whether_a_row_asks() {
        for (kind, options, asks) in [
            ("gre", &[("key", "1")] as &Options, false),
            ("gre", &[("plaintext", "allow")], false),
            ("gre", &[("plaintext", "deny")], true),
            ("gre", &[("psk", "")], true),
            ("gre", &[("ipsec_nonsense", "1")], true),
            ("gre", &[("encapsulation", "auto")], true),
            ("gre", &[("encapsulation", "UDP")], true),
            ("gre", &[("encapsulation", "udp")], false),
            ("gre", &[("encapsulation", "udp"), ("psk_file", "")], true),
            ("ipsec_gre", &[("encapsulation", "udp")], true),
            ("ip6gre", &[("use_ssl_cert", "false")], true),
            ("ipsec_gre", &[], true),
        ] {
            assert_eq!(parse(kind, options, &host()).0.is_some(), asks, "{kind} {options:?}");
        }
    }

    #[test]
    fn who_is_who() {
        let none = HostSettings::default();
        let ssl = HostSettings { ssl: Some(("/ssl/c".into(), "/ssl/k".into())), ..none.clone() };
        let inline = |own| Auth::Pinned { peer: Pem::Inline("PEM".into()), own };
        let file = |own| Auth::Pinned { peer: Pem::File("/pki/b.pem".into()), own };
        let authority = |revoked| Auth::Authority {
            authority: "/pki/ca.pem".into(),
            revoked,
            name: "b.test".into(),
            own: own("/pki/a.pem", "/pki/a.key"),
        };
        let revoking = HostSettings { crl: some("/pki/crl"), ..host() };
        let psk = Auth::Psk(SecretText::new("x"));
        for (kind, options, host, want) in [
            ("gre", &[("psk", "x")] as &Options, &none, psk.clone()),
            ("ipsec_gre", &[("psk", "x")], &host(), psk),
            ("gre", &[("psk_file", "/k")], &none, Auth::PskFile("/k".into())),
            ("gre", &[("remote_cert", "/pki/b.pem")], &host(), file(own("/pki/a.pem", "/pki/a.key"))),
            ("gre", &[("remote_name", "b.test")], &host(), authority(None)),
            ("gre", &[("remote_name", "b.test")], &revoking, authority(Some("/pki/crl".into()))),
            (
                "ipsec_gre",
                &[("peer_cert", "PEM"), ("certificate", "/c"), ("private_key", "/k")],
                &none,
                inline(own("/c", "/k")),
            ),
            ("ipsec_gre", &[("peer_cert", "PEM"), ("certificate", "/c")], &host(), inline(own("/c", "/c"))),
            (
                "ipsec_gre",
                &[("peer_cert", "PEM"), ("use_ssl_cert", "true")],
                &ssl,
                inline(own("/ssl/c", "/ssl/k")),
            ),
        ] {
            let (read, warnings) = parse(kind, options, host);
            assert_eq!(read, Some(Ok(Protection::by(want))), "{kind} {options:?}");
            assert_eq!(warnings, [] as [String; 0]);
        }
    }

    #[test]
    fn what_keeps_a_tunnel_down() {
        let none = HostSettings::default();
        let keyless = HostSettings { certificate: some("/c"), ..none.clone() };
        let excluded = ": 'certificate', 'private_key', 'ca_cert', 'remote_cert', and 'remote_name' must be unset with PSK";
        let local = "when using CA-signed certificate or self-signed certificate to authenticate peers";
        for (kind, options, host, want) in [
            ("gre", &[("psk", "")] as &Options, &none, ": must choose a authentication method".to_owned()),
            ("gre", &[("ipsec_encapsulation", "yes")], &none, ": must choose a authentication method".into()),
            ("gre", &[("encapsulation", "esp")], &none, ": must choose a authentication method".into()),
            ("gre", &[("encapsulation", "auto")], &none, ": must choose a authentication method".into()),
            ("gre", &[("encapsulation", "gue")], &none, ": 'encapsulation' 'gue' is none of 'esp', 'udp' and 'auto'".into()),
            ("ipsec_gre", &[("encapsulation", "udp")], &none, ": IPsec requires a 'peer_cert' or 'psk' argument".into()),
            ("gre", &[("encapsulation", "udp"), ("plaintext", "deny")], &none, ": must choose a authentication method".into()),
            ("ipsec_gre", &[], &none, ": IPsec requires a 'peer_cert' or 'psk' argument".into()),
            ("ipsec_gre", &[("psk", "x"), ("peer_cert", "y")], &none, ": cannot define both 'peer_cert' and 'psk'".into()),
            ("ipsec_gre", &[("peer_cert", "y")], &none, ": 'peer_cert' requires 'certificate' argument".into()),
            ("ipsec_gre", &[("peer_cert", "y"), ("use_ssl_cert", "true")], &none, ": 'peer_cert' requires 'certificate' argument".into()),
            ("gre", &[("psk", "x"), ("psk_file", "y")], &none, ": cannot define both 'psk' and 'psk_file'".into()),
            ("gre", &[("psk", "x"), ("remote_cert", "y")], &none, excluded.into()),
            ("gre", &[("psk", "x"), ("certificate", "y")], &none, excluded.into()),
            ("gre", &[("psk_file", "x")], &host(), excluded.into()),
            ("gre", &[("remote_name", "b")], &none, format!(": must set 'certificate' as local certificate {local}")),
            ("gre", &[("remote_cert", "b")], &keyless, format!(": must set 'private_key' as local private key {local}")),
            (
                "gre",
                &[("remote_name", "b")],
                &HostSettings { ca_cert: None, ..self::host() },
                ": must set 'remote_cert' when using self-signed certificate authentication or 'ca_cert' when using \
                 CA-signed certificate authentication"
                    .into(),
            ),
            ("gre", &[("psk", "x"), ("encapsulation", "ah")], &none, ": 'encapsulation' 'ah' is none of 'esp', 'udp' and 'auto'".into()),
            ("gre", &[("psk", "x"), ("plaintext", "yes")], &none, ": 'plaintext' 'yes' is neither 'allow' nor 'deny'".into()),
        ] {
            assert_eq!(parse(kind, options, host).0, Some(Err(want)), "{kind} {options:?}");
        }
    }

    #[test]
    fn how() {
        let psk = Protection::by(Auth::Psk(SecretText::new("x")));
        let secs = |n| Some(Duration::from_secs(n));
        let none = Vec::new;
        for (option, value, want, warning) in [
            ("encapsulation", "udp", Protection { encapsulation: Encapsulation::Udp, ..psk.clone() }, none()),
            ("encapsulation", "esp", Protection { encapsulation: Encapsulation::Esp, ..psk.clone() }, none()),
            (
                "ipsec_encapsulation",
                "yes",
                Protection { encapsulation: Encapsulation::Udp, ..psk.clone() },
                none(),
            ),
            ("ipsec_forceencaps", "no", psk.clone(), none()),
            ("ipsec_ikelifetime", "3h", Protection { ike_lifetime: secs(10800), ..psk.clone() }, none()),
            ("ipsec_lifetime", "90", Protection { esp_lifetime: secs(90), ..psk.clone() }, none()),
            ("ipsec_salifetime", "2m", Protection { esp_lifetime: secs(120), ..psk.clone() }, none()),
            ("ipsec_dpddelay", "5s", Protection { liveness: secs(5), ..psk.clone() }, none()),
            ("ipsec_leftid", "@a", Protection { local_id: some("@a"), ..psk.clone() }, none()),
            ("ipsec_rightid", "b", Protection { remote_id: some("b"), ..psk.clone() }, none()),
            (
                "ipsec_lifetime",
                "soon",
                psk.clone(),
                vec![
                    "gre0: options:ipsec_lifetime 'soon' is not a time such as 3600, 60m or 1h; the default stands",
                ],
            ),
            (
                "ipsec_mobike",
                "no",
                psk.clone(),
                vec!["gre0: options:ipsec_mobike has no effect in this version"],
            ),
            ("ipsec_fast", "1", psk.clone(), vec!["gre0: unknown IPsec option 'ipsec_fast'"]),
            (
                "plaintext",
                "allow",
                Protection { plaintext: true, ..psk.clone() },
                vec![
                    "gre0: plaintext=allow: this tunnel accepts GRE in the clear, and sends it so while there is no SA",
                ],
            ),
        ] {
            let (read, warnings) = parse("gre", &[("psk", "x"), (option, value)], &HostSettings::default());
            assert_eq!(read, Some(Ok(want)), "{option}={value}");
            assert_eq!(warnings, warning, "{option}={value}");
        }
        for bad in ["", "0", "h", "-1", "1w", "4294967296"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_said_of_the_host() {
        let marked =
            HostSettings { skb_mark: some("0/1"), certificate: some("/c"), ..HostSettings::default() };
        let warnings = marked.warnings();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].contains("ipsec_skb_mark") && warnings[1].contains("private_key"));
        assert_eq!(host().warnings(), [] as [String; 0]);
    }
}
