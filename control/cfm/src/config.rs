//! What the row of an interface asks for.

/// A point's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `cfm_mpid`: what the others know the point by.
    pub mpid: u64,
    pub(crate) interval: Interval,
    /// `cfm_extended`: another address to send to, any interval, MPIDs of 64 bits.
    pub extended: bool,
    /// `cfm_demand`: whatever comes in shows that the link works, even while no message does.
    pub demand: bool,
    /// `cfm_opstate=down`: tells the others to send nothing here.
    pub down: bool,
    /// `cfm_ccm_vlan`.
    pub vlan: Vlan,
    /// `cfm_ccm_pcp`: the priority in the tag.
    pub pcp: u8,
}

/// The VLAN of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vlan {
    /// 0: none.
    Of(u16),
    /// Another one each time.
    Random,
}

/// Between two messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interval {
    /// In IEEE 802.1ag table 21-16. 0: it has none.
    pub(crate) number: u8,
    pub(crate) millis: u32,
}

/// The standard's, in milliseconds, from number 1 on. The first is really a third of 10 ms.
const INTERVALS: [u32; 7] = [3, 10, 100, 1000, 10_000, 60_000, 600_000];
/// When nothing else is asked for, in milliseconds.
const DEFAULT: i32 = 1000;
/// The highest MPID of the standard.
const HIGHEST: u64 = 8191;

impl Config {
    /// Reads columns `cfm_mpid` and `other_config`. None: there shall be no point. What a value should have been goes to `warn`.
    pub fn read<'a>(
        mpid: Option<i64>,
        other_config: impl Fn(&str) -> Option<&'a str>,
        mut warn: impl FnMut(String),
    ) -> Option<Config> {
        // in extended mode it has 64 bits, as the column has; there the highest of them is a sign
        let mpid = mpid?.cast_unsigned();
        let flag = |key| other_config(key).is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let mut number = |key, otherwise: i32| match other_config(key).map(str::parse) {
            Some(Ok(number)) => number,
            Some(Err(_)) => {
                warn(format!("other_config:{key} is no number"));
                otherwise
            }
            None => otherwise,
        };
        let extended = flag("cfm_extended");
        let millis = number("cfm_interval", DEFAULT);
        let vlan = match other_config("cfm_ccm_vlan") {
            Some("random") => Vlan::Random,
            _ => Vlan::Of(number("cfm_ccm_vlan", 0).max(0) as u16 & 0xfff),
        };
        let config = Config {
            mpid,
            interval: Interval::near(if millis > 0 { millis } else { DEFAULT }.unsigned_abs(), extended),
            extended,
            demand: extended && flag("cfm_demand"),
            down: other_config("cfm_opstate").is_some_and(|state| !state.eq_ignore_ascii_case("up")),
            vlan,
            pcp: number("cfm_ccm_pcp", 0) as u8 & 7,
        };
        if mpid == 0 || mpid > HIGHEST && !extended {
            let highest = if extended { u64::MAX } else { HIGHEST };
            warn(format!("CFM configuration failed: cfm_mpid must be from 1 to {highest}"));
            return None;
        }
        Some(config)
    }

    /// Where frames go to, and which ones are for the point.
    pub fn destination(&self) -> [u8; 6] {
        if self.extended {
            [0x01, 0x23, 0x20, 0x00, 0x00, 0x30]
        } else {
            [0x01, 0x80, 0xc2, 0x00, 0x00, 0x30]
        }
    }
}

impl Interval {
    /// The next shorter one of the standard's; in extended mode the very one.
    fn near(millis: u32, extended: bool) -> Interval {
        let shorter = (1..).zip(INTERVALS).take_while(|(_, standard)| *standard <= millis).last();
        let (number, standard) = shorter.unwrap_or((1, 3));
        if extended && standard != millis {
            return Interval { number: 0, millis: millis.min(u16::MAX.into()) };
        }
        Interval { number, millis: standard }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mpid: i64, pairs: &[(&str, &'static str)]) -> (Option<Config>, Vec<String>) {
        let mut warnings = Vec::new();
        let get = |key: &str| pairs.iter().find(|(k, _)| *k == key).map(|(_, value)| *value);
        (Config::read(Some(mpid), get, |why| warnings.push(why)), warnings)
    }

    #[test]
    fn intervals() {
        for (asked, standard, extended) in [
            ("0", 1000, 1000),
            ("-5", 1000, 1000),
            ("1", 3, 1),
            ("3", 3, 3),
            ("99", 10, 99),
            ("60000", 60_000, 60_000),
            ("65536", 60_000, 65_535),
            ("600000", 600_000, 600_000),
            ("9999999", 600_000, 65_535),
            ("abc", 1000, 1000),
        ] {
            let millis = |extended| {
                let (config, warnings) = read(5, &[("cfm_interval", asked), ("cfm_extended", extended)]);
                assert_eq!(!warnings.is_empty(), asked == "abc");
                config.unwrap().interval.millis
            };
            assert_eq!((millis("no"), millis("TRUE")), (standard, extended), "{asked}");
        }
    }

    #[test]
    fn points() {
        for (mpid, standard, extended) in
            [(0, false, false), (1, true, true), (8191, true, true), (8192, false, true), (-1, false, true)]
        {
            let valid = |extended| {
                let (config, warnings) = read(mpid, &[("cfm_extended", extended)]);
                assert_eq!(config.is_some(), warnings.is_empty());
                config.is_some()
            };
            assert_eq!((valid("false"), valid("true")), (standard, extended), "{mpid}");
        }
    }

    #[test]
    fn tags() {
        for (vlan, want) in [
            ("7", Vlan::Of(7)),
            ("4097", Vlan::Of(1)),
            ("-1", Vlan::Of(0)),
            ("random", Vlan::Random),
            ("x", Vlan::Of(0)),
        ] {
            assert_eq!(read(5, &[("cfm_ccm_vlan", vlan)]).0.unwrap().vlan, want, "{vlan}");
        }
        for (pcp, want) in [("3", 3), ("8", 0), ("11", 3), ("-1", 7)] {
            assert_eq!(read(5, &[("cfm_ccm_pcp", pcp)]).0.unwrap().pcp, want, "{pcp}");
        }
    }
}
