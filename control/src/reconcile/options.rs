//! Options of a GRE tunnel: what an interface row says, checked and understood.

use std::net::IpAddr;

use datapath::tunnel::{Tos, Ttl, TunnelConfig};

use super::protection;

/// Hop limit when the row says none.
const DEFAULT_TTL: u8 = 64;

/// Reads the options of tunnel `name` that are GRE's ([`protection`] reads IPsec's). The texts of errors and `warnings` begin with the tunnel's name, as OVS's do.
pub fn tunnel<'a>(
    name: &str,
    kind: &str,
    options: impl Iterator<Item = (&'a str, &'a str)>,
    warnings: &mut Vec<String>,
) -> Result<TunnelConfig, String> {
    let bad = |key: &str, value: &str, why: &str| format!("{name}: bad {kind} '{key}': '{value}' {why}");
    let (mut remote, mut local) = (None, None);
    let (mut key, mut in_key, mut out_key) = (None, None, None);
    let (mut csum, mut seq, mut df, mut in_udp) = (false, false, true, false);
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
                let number = gre_key(value).map_err(|why| bad(option, value, why))?;
                let place = match option {
                    "key" => &mut key,
                    "in_key" => &mut in_key,
                    _ => &mut out_key,
                };
                *place = Some(number);
            }
            "csum" => csum = flag(false),
            "seq" => seq = flag(false),
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
            "encapsulation" => in_udp = value == "udp",
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

fn gre_key(value: &str) -> Result<u32, &'static str> {
    if value == "flow" {
        return Err("needs OpenFlow, which there is none of; give a number");
    }
    let key = number(value).and_then(|n| u32::try_from(n).ok());
    key.ok_or("is not a number from 0 to 4294967295 (0xffffffff)")
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
            in_udp: false,
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
            (&[("encapsulation", "udp")], TunnelConfig { in_udp: true, ..plain() }),
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
