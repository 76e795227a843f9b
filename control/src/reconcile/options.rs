//! Options of a tunnel: what an interface row says, checked and understood.

use std::net::IpAddr;

use datapath::port::{GENEVE_PORT, InUdp, VXLAN_PORT};
use datapath::tunnel::{Tos, Ttl, TunnelConfig};

use super::protection;

/// Hop limit when the row says none.
const DEFAULT_TTL: u8 = 64;

/// The types of interfaces that are tunnels.
pub const TUNNELS: [&str; 5] = ["geneve", "gre", "ip6gre", "ipsec_gre", "vxlan"];

/// The highest VNI: it has 24 bits.
const MAX_VNI: u32 = 0xff_ffff;

/// Reads the options of tunnel `name` that are the tunnel's own ([`protection`] reads IPsec's). The texts of errors and `warnings` begin with the tunnel's name, as OVS's do.
pub fn tunnel<'a>(
    name: &str,
    kind: &str,
    options: impl Iterator<Item = (&'a str, &'a str)>,
    warnings: &mut Vec<String>,
) -> Result<TunnelConfig, String> {
    let bad = |key: &str, value: &str, why: &str| format!("{name}: bad {kind} '{key}': '{value}' {why}");
    let (mut remote, mut local) = (None, None);
    let (mut key, mut in_key, mut out_key) = (None, None, None);
    let (mut csum, mut seq, mut df) = (false, false, true);
    let mut in_udp = match kind {
        "vxlan" => Some(InUdp::Vxlan(VXLAN_PORT)),
        "geneve" => Some(InUdp::Geneve(GENEVE_PORT)),
        _ => None,
    };
    let gre = in_udp.is_none();
    let max_key = if gre { u32::MAX } else { MAX_VNI };
    let (mut tos, mut ttl) = (Tos::Fixed(0), Ttl::Fixed(DEFAULT_TTL));
    for (option, value) in options {
        let mut flag = |default: bool| {
            let known = value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false");
            if !known {
                warnings.push(bad(option, value, &format!("is neither true nor false; {default} it is")));
            }
            if default { !value.eq_ignore_ascii_case("false") } else { value.eq_ignore_ascii_case("true") }
        };
        match option {
            "remote_ip" | "local_ip" => {
                let ip = unicast(value).map_err(|why| bad(option, value, why))?;
                *(if option == "remote_ip" { &mut remote } else { &mut local }) = Some(ip);
            }
            "key" | "in_key" | "out_key" => {
                let number = tunnel_key(value, max_key).map_err(|why| bad(option, value, &why))?;
                let place = match option {
                    "key" => &mut key,
                    "in_key" => &mut in_key,
                    _ => &mut out_key,
                };
                *place = Some(number);
            }
            "csum" => csum = flag(false),
            "seq" if gre => seq = flag(false),
            "df_default" => df = flag(true),
            "tos" if value == "inherit" => tos = Tos::Inherit,
            "tos" => match number(value) {
                Some(n @ 0..=255) if n & 3 == 0 => tos = Tos::Fixed(n as u8),
                _ => {
                    let why = "is neither 'inherit' nor a number from 0 to 252 with the two ECN bits zero";
                    return Err(bad(option, value, why));
                }
            },
            "ttl" if value == "inherit" => ttl = Ttl::Inherit,
            "ttl" => match number(value) {
                Some(n @ 1..=255) => ttl = Ttl::Fixed(n as u8),
                _ => return Err(bad(option, value, "is neither 'inherit' nor a number from 1 to 255")),
            },
            "packet_type" if value == "legacy_l2" => {}
            "packet_type" => return Err(bad(option, value, "is not supported; only 'legacy_l2' is")),
            // with IPsec it is how ESP travels: `Wanted` knows
            "encapsulation" if gre => in_udp = (value == "udp").then_some(InUdp::Gre),
            "dst_port" if !gre => {
                let port = number(value).and_then(|n| u16::try_from(n).ok()).filter(|port| *port != 0);
                let port = port.ok_or_else(|| bad(option, value, "is not a number from 1 to 65535"))?;
                in_udp = in_udp.map(|kind| on_port(kind, port));
            }
            "exts" if kind == "vxlan" => {
                return Err(bad(
                    option,
                    value,
                    "is not supported; there are frames in VXLAN and nothing else",
                ));
            }
            "plaintext" => {}
            _ if protection::asks(option, value) => {}
            _ => warnings.push(format!("{name}: unknown {kind} argument '{option}'")),
        }
    }
    let Some(remote) = remote else {
        return Err(format!("{name}: {kind} type requires valid 'remote_ip' argument"));
    };
    if kind == "ip6gre" && remote.is_ipv4() {
        return Err(bad("remote_ip", &remote.to_string(), "is not an IPv6 address"));
    }
    if let Some(local) = local.filter(|l| l.is_ipv4() != remote.is_ipv4()) {
        return Err(bad("local_ip", &local.to_string(), "is not of the same IP version as remote_ip"));
    }
    let (in_key, out_key) = (in_key.or(key), out_key.or(key));
    Ok(TunnelConfig { remote, local, in_key, out_key, csum, seq, tos, ttl, df, in_udp })
}

fn unicast(value: &str) -> Result<IpAddr, &'static str> {
    if value == "flow" {
        return Err("needs OpenFlow, which there is none of; give an address");
    }
    let ip: IpAddr = value.parse().map_err(|_| "is not an IPv4 or IPv6 address")?;
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    if ip.is_unspecified() || ip.is_multicast() || broadcast {
        return Err("is not a unicast address");
    }
    Ok(ip)
}

fn on_port(kind: InUdp, port: u16) -> InUdp {
    match kind {
        InUdp::Gre => InUdp::Gre,
        InUdp::Vxlan(_) => InUdp::Vxlan(port),
        InUdp::Geneve(_) => InUdp::Geneve(port),
    }
}

fn tunnel_key(value: &str, max: u32) -> Result<u32, String> {
    if value == "flow" {
        return Err("needs OpenFlow, which there is none of; give a number".into());
    }
    let key = number(value).and_then(|n| u32::try_from(n).ok()).filter(|key| *key <= max);
    key.ok_or_else(|| format!("is not a number from 0 to {max} ({max:#x})"))
}

/// Decimal, or hexadecimal after `0x`.
fn number(value: &str) -> Option<u64> {
    let (digits, radix) = match value.strip_prefix("0x").or(value.strip_prefix("0X")) {
        Some(hex) => (hex, 16),
        None => (value, 10),
    };
    let plain = digits.chars().all(|c| c.is_ascii_hexdigit());
    if plain { u64::from_str_radix(digits, radix).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Options = [(&'static str, &'static str)];

    fn parse(kind: &str, options: &[(&str, &str)]) -> (Result<TunnelConfig, String>, Vec<String>) {
        let mut warnings = Vec::new();
        let read = tunnel("gre0", kind, options.iter().copied(), &mut warnings);
        (read, warnings)
    }

    fn plain() -> TunnelConfig {
        TunnelConfig {
            remote: "192.0.2.1".parse().unwrap(),
            local: None,
            in_key: None,
            out_key: None,
            csum: false,
            seq: false,
            tos: Tos::Fixed(0),
            ttl: Ttl::Fixed(64),
            df: true,
            in_udp: None,
        }
    }

    #[test]
    fn what_is_understood() {
        let local = Some("192.0.2.9".parse().unwrap());
        let table: [(&Options, TunnelConfig); 17] = [
            (&[], plain()),
            (&[("psk", "x"), ("ipsec_x", "y"), ("plaintext", "allow")], plain()),
            (&[("local_ip", "192.0.2.9")], TunnelConfig { local, ..plain() }),
            (&[("key", "7")], TunnelConfig { in_key: Some(7), out_key: Some(7), ..plain() }),
            (&[("key", "0")], TunnelConfig { in_key: Some(0), out_key: Some(0), ..plain() }),
            (&[("in_key", "0xFFFFFFFF")], TunnelConfig { in_key: Some(u32::MAX), ..plain() }),
            (&[("in_key", "1"), ("key", "2")], TunnelConfig { in_key: Some(1), out_key: Some(2), ..plain() }),
            (
                &[("out_key", "1"), ("key", "2")],
                TunnelConfig { in_key: Some(2), out_key: Some(1), ..plain() },
            ),
            (&[("csum", "true"), ("seq", "TRUE")], TunnelConfig { csum: true, seq: true, ..plain() }),
            (&[("df_default", "false")], TunnelConfig { df: false, ..plain() }),
            (
                &[("tos", "inherit"), ("ttl", "inherit")],
                TunnelConfig { tos: Tos::Inherit, ttl: Ttl::Inherit, ..plain() },
            ),
            (&[("tos", "0xfc")], TunnelConfig { tos: Tos::Fixed(252), ..plain() }),
            (
                &[("tos", "184"), ("ttl", "255")],
                TunnelConfig { tos: Tos::Fixed(184), ttl: Ttl::Fixed(255), ..plain() },
            ),
            (&[("ttl", "1")], TunnelConfig { ttl: Ttl::Fixed(1), ..plain() }),
            (&[("packet_type", "legacy_l2")], plain()),
            (&[("encapsulation", "udp")], TunnelConfig { in_udp: Some(InUdp::Gre), ..plain() }),
            (&[("encapsulation", "esp")], plain()),
        ];
        for (options, want) in table {
            let all: Vec<_> = options.iter().copied().chain([("remote_ip", "192.0.2.1")]).collect();
            assert_eq!(parse("gre", &all), (Ok(want), vec![]), "{options:?}");
        }
    }

    #[test]
    fn what_is_refused() {
        let table: [(&str, &Options, String); 19] = [
            ("gre", &[], "gre0: gre type requires valid 'remote_ip' argument".into()),
            ("gre", &[("remote_ip", "host.example")], "gre0: bad gre 'remote_ip': 'host.example' is not an IPv4 or IPv6 address".into()),
            ("gre", &[("remote_ip", "")], "gre0: bad gre 'remote_ip': '' is not an IPv4 or IPv6 address".into()),
            ("gre", &[("remote_ip", "flow")], "gre0: bad gre 'remote_ip': 'flow' needs OpenFlow, which there is none of; give an address".into()),
            ("gre", &[("remote_ip", "224.0.0.1")], "gre0: bad gre 'remote_ip': '224.0.0.1' is not a unicast address".into()),
            ("gre", &[("remote_ip", "255.255.255.255")], "gre0: bad gre 'remote_ip': '255.255.255.255' is not a unicast address".into()),
            ("gre", &[("remote_ip", "::")], "gre0: bad gre 'remote_ip': '::' is not a unicast address".into()),
            ("gre", &[("remote_ip", "192.0.2.1"), ("local_ip", "fe80::1")], "gre0: bad gre 'local_ip': 'fe80::1' is not of the same IP version as remote_ip".into()),
            ("ip6gre", &[("remote_ip", "192.0.2.1")], "gre0: bad ip6gre 'remote_ip': '192.0.2.1' is not an IPv6 address".into()),
            ("gre", &[("key", "flow")], "gre0: bad gre 'key': 'flow' needs OpenFlow, which there is none of; give a number".into()),
            ("gre", &[("in_key", "4294967296")], "gre0: bad gre 'in_key': '4294967296' is not a number from 0 to 4294967295 (0xffffffff)".into()),
            ("gre", &[("out_key", "-1")], "gre0: bad gre 'out_key': '-1' is not a number from 0 to 4294967295 (0xffffffff)".into()),
            ("gre", &[("key", "")], "gre0: bad gre 'key': '' is not a number from 0 to 4294967295 (0xffffffff)".into()),
            ("gre", &[("key", "0x")], "gre0: bad gre 'key': '0x' is not a number from 0 to 4294967295 (0xffffffff)".into()),
            ("gre", &[("tos", "1")], "gre0: bad gre 'tos': '1' is neither 'inherit' nor a number from 0 to 252 with the two ECN bits zero".into()),
            ("gre", &[("tos", "256")], "gre0: bad gre 'tos': '256' is neither 'inherit' nor a number from 0 to 252 with the two ECN bits zero".into()),
            ("gre", &[("ttl", "0")], "gre0: bad gre 'ttl': '0' is neither 'inherit' nor a number from 1 to 255".into()),
            ("gre", &[("ttl", "256")], "gre0: bad gre 'ttl': '256' is neither 'inherit' nor a number from 1 to 255".into()),
            ("gre", &[("packet_type", "ptap")], "gre0: bad gre 'packet_type': 'ptap' is not supported; only 'legacy_l2' is".into()),
        ];
        for (kind, options, want) in table {
            assert_eq!(parse(kind, options).0, Err(want), "{options:?}");
        }
    }

    #[test]
    fn vxlan_and_geneve_have_options_of_their_own() {
        let remote = ("remote_ip", "192.0.2.1");
        let of = |in_udp| TunnelConfig { in_udp: Some(in_udp), ..plain() };
        let keyed = |in_udp, key| TunnelConfig { in_key: Some(key), out_key: Some(key), ..of(in_udp) };
        let table: [(&str, &Options, Result<TunnelConfig, &str>); 10] = [
            ("vxlan", &[], Ok(of(InUdp::Vxlan(4789)))),
            ("geneve", &[], Ok(of(InUdp::Geneve(6081)))),
            ("vxlan", &[("dst_port", "8472")], Ok(of(InUdp::Vxlan(8472)))),
            ("geneve", &[("dst_port", "1")], Ok(of(InUdp::Geneve(1)))),
            ("vxlan", &[("key", "0xffffff")], Ok(keyed(InUdp::Vxlan(4789), 0xffffff))),
            ("vxlan", &[("csum", "true")], Ok(TunnelConfig { csum: true, ..of(InUdp::Vxlan(4789)) })),
            (
                "geneve",
                &[("key", "16777216")],
                Err("gre0: bad geneve 'key': '16777216' is not a number from 0 to 16777215 (0xffffff)"),
            ),
            (
                "vxlan",
                &[("key", "flow")],
                Err("gre0: bad vxlan 'key': 'flow' needs OpenFlow, which there is none of; give a number"),
            ),
            (
                "vxlan",
                &[("dst_port", "0")],
                Err("gre0: bad vxlan 'dst_port': '0' is not a number from 1 to 65535"),
            ),
            (
                "vxlan",
                &[("exts", "gbp")],
                Err(
                    "gre0: bad vxlan 'exts': 'gbp' is not supported; there are frames in VXLAN and nothing else",
                ),
            ),
        ];
        for (kind, options, want) in table {
            let all: Vec<_> = options.iter().copied().chain([remote]).collect();
            let want = want.map_err(str::to_owned);
            assert_eq!(parse(kind, &all), (want, vec![]), "{kind} {options:?}");
        }
        for (option, value) in [("seq", "true"), ("encapsulation", "udp")] {
            let (read, warnings) = parse("vxlan", &[remote, (option, value)]);
            assert_eq!(read, Ok(of(InUdp::Vxlan(4789))));
            assert_eq!(warnings, [format!("gre0: unknown vxlan argument '{option}'")]);
        }
        assert_eq!(parse("vxlan", &[]).0, Err("gre0: vxlan type requires valid 'remote_ip' argument".into()));
    }

    #[test]
    fn what_is_warned_about() {
        let remote = ("remote_ip", "192.0.2.1");
        for (option, value, want) in [
            ("dst_port", "47", "gre0: unknown gre argument 'dst_port'"),
            ("Key", "1", "gre0: unknown gre argument 'Key'"),
            ("csum", "1", "gre0: bad gre 'csum': '1' is neither true nor false; false it is"),
            ("df_default", "no", "gre0: bad gre 'df_default': 'no' is neither true nor false; true it is"),
        ] {
            assert_eq!(parse("gre", &[remote, (option, value)]), (Ok(plain()), vec![want.to_owned()]));
        }
    }

    #[test]
    fn ipv6_underlay() {
        let (read, _) = parse("ip6gre", &[("remote_ip", "2001:db8::1"), ("local_ip", "2001:db8::2")]);
        assert_eq!(read.map(|c| c.remote), Ok("2001:db8::1".parse().unwrap()));
        let (read, _) = parse("gre", &[("remote_ip", "2001:db8::1")]);
        assert!(read.is_ok());
    }
}
