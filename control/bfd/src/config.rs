//! What column `bfd` of an interface asks for.

use std::net::Ipv4Addr;

/// A session's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `min_rx`: the least interval at which packets can be taken, in milliseconds.
    pub min_rx: u32,
    /// `min_tx`: the least interval at which packets are sent while the session is up, in milliseconds.
    pub min_tx: u32,
    /// `mult`: how many packets may be lost before the session goes down.
    pub mult: u8,
    /// `cpath_down`: tells the other end that the path goes no further.
    pub cpath_down: bool,
    /// `forwarding_if_rx`: whatever comes in shows that the path works, even while no packet of the session does.
    pub forwarding_if_rx: bool,
    /// `check_tnl_key`: takes packets from a tunnel with key 0 alone.
    pub check_tnl_key: bool,
    /// `bfd_local_src_mac`: where frames come from; None: the port's own address.
    pub local_src_mac: Option<[u8; 6]>,
    /// `bfd_local_dst_mac`: the address that received frames must be to; None: any.
    pub local_dst_mac: Option<[u8; 6]>,
    /// `bfd_remote_dst_mac`: where frames go to.
    pub remote_dst_mac: [u8; 6],
    /// `bfd_src_ip`.
    pub src_ip: Ipv4Addr,
    /// `bfd_dst_ip`.
    pub dst_ip: Ipv4Addr,
}

/// Where frames go when nothing else is said: Nicira's address for BFD.
const REMOTE: [u8; 6] = [0x00, 0x23, 0x20, 0x00, 0x00, 0x01];

impl Default for Config {
    fn default() -> Config {
        Config {
            min_rx: 1000,
            min_tx: 100,
            mult: 3,
            cpath_down: false,
            forwarding_if_rx: false,
            check_tnl_key: false,
            local_src_mac: None,
            local_dst_mac: None,
            remote_dst_mac: REMOTE,
            src_ip: Ipv4Addr::new(169, 254, 1, 1),
            dst_ip: Ipv4Addr::new(169, 254, 1, 0),
        }
    }
}

/// Keys that mean something, and are not options of a session.
const OTHERS: [&str; 3] = ["enable", "decay_min_rx", "oam"];

impl Config {
    /// Reads the column. None: there shall be no session. What a value should have been goes to `warn`; like Open vSwitch one
    /// goes on with the default then.
    pub fn read<'a>(
        column: impl Iterator<Item = (&'a str, &'a str)>,
        mut warn: impl FnMut(String),
    ) -> Option<Config> {
        let (mut config, mut enabled) = (Config::default(), false);
        for (key, value) in column {
            let flag = value.eq_ignore_ascii_case("true");
            let understood = match key {
                "enable" => {
                    enabled = flag;
                    true
                }
                "min_rx" => set(&mut config.min_rx, interval(value)),
                "min_tx" => set(&mut config.min_tx, interval(value)),
                "mult" => set(&mut config.mult, value.parse().ok().filter(|n| *n > 0)),
                "cpath_down" => set(&mut config.cpath_down, Some(flag)),
                "forwarding_if_rx" => set(&mut config.forwarding_if_rx, Some(flag)),
                "check_tnl_key" => set(&mut config.check_tnl_key, Some(flag)),
                "bfd_local_src_mac" => set(&mut config.local_src_mac, mac(value).map(given)),
                "bfd_local_dst_mac" => set(&mut config.local_dst_mac, mac(value).map(given)),
                "bfd_remote_dst_mac" => set(&mut config.remote_dst_mac, mac(value)),
                "bfd_src_ip" => set(&mut config.src_ip, value.parse().ok()),
                "bfd_dst_ip" => set(&mut config.dst_ip, value.parse().ok()),
                _ => OTHERS.contains(&key),
            };
            if !understood {
                warn(format!("bfd:{key}={value} is not understood"));
            }
        }
        enabled.then_some(config)
    }
}

fn set<T>(place: &mut T, value: Option<T>) -> bool {
    let understood = value.is_some();
    if let Some(value) = value {
        *place = value;
    }
    understood
}

fn interval(value: &str) -> Option<u32> {
    // in microseconds it must fit 32 bits
    value.parse::<u32>().ok().map(|n| n.clamp(1, u32::MAX / 1000))
}

fn mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next().filter(|p| (1..=2).contains(&p.len()))?, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

/// An address of zeros is none.
fn given(mac: [u8; 6]) -> Option<[u8; 6]> {
    (mac != [0; 6]).then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(column: &[(&str, &str)]) -> (Option<Config>, Vec<String>) {
        let mut warnings = Vec::new();
        let config = Config::read(column.iter().copied(), |w| warnings.push(w));
        (config, warnings)
    }

    #[test]
    fn what_is_understood() {
        assert_eq!(read(&[]), (None, vec![]));
        assert_eq!(read(&[("enable", "false"), ("min_rx", "5")]), (None, vec![]));
        assert_eq!(read(&[("enable", "true")]), (Some(Config::default()), vec![]));
        let (config, warnings) = read(&[
            ("bfd_dst_ip", "10.0.0.1"),
            ("bfd_local_src_mac", "02:00:00:00:00:01"),
            ("bfd_local_dst_mac", "00:00:00:00:00:00"),
            ("bfd_remote_dst_mac", "2:0:0:0:0:ff"),
            ("cpath_down", "true"),
            ("decay_min_rx", "10"),
            ("enable", "true"),
            ("min_rx", "0"),
            ("min_tx", "4000000000"),
            ("mult", "5"),
        ]);
        let want = Config {
            dst_ip: Ipv4Addr::new(10, 0, 0, 1),
            local_src_mac: Some([2, 0, 0, 0, 0, 1]),
            remote_dst_mac: [2, 0, 0, 0, 0, 255],
            cpath_down: true,
            min_rx: 1,
            min_tx: 4_294_967,
            mult: 5,
            ..Config::default()
        };
        assert_eq!((config, warnings), (Some(want), vec![]));
    }

    #[test]
    fn what_is_not_is_named_and_the_rest_goes_on() {
        let (config, warnings) = read(&[
            ("bfd_local_src_mac", "nonsense"),
            ("colour", "blue"),
            ("enable", "true"),
            ("mult", "0"),
            ("min_rx", "-1"),
        ]);
        assert_eq!(config, Some(Config::default()));
        assert_eq!(
            warnings,
            [
                "bfd:bfd_local_src_mac=nonsense is not understood",
                "bfd:colour=blue is not understood",
                "bfd:mult=0 is not understood",
                "bfd:min_rx=-1 is not understood",
            ]
        );
    }
}
