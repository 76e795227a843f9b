//! How a message is laid out: vlog's conversion patterns, of which `%D{%Y-%m-%dT%H:%M:%S.###Z}|%05N|%c%T|%p|%m` is
//! the file's. Times are UTC.

use std::fmt::Write;
use std::iter::Peekable;
use std::str::Chars;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::level::Level;

/// What a pattern draws on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    pub at: SystemTime,
    pub number: u64,
    pub module: &'a str,
    /// Empty for the main thread.
    pub thread: &'a str,
    pub level: Level,
    /// Of syslog (RFC 5424 table 1).
    pub facility: u8,
    pub text: &'a str,
}

/// Program name in `%A`.
const PROGRAM: &str = "ovs-vswitchd";
/// Nobody pads by more than this.
const MAX_WIDTH: usize = 512;

/// Expands `pattern`. What it does not know it copies.
pub(super) fn expand(pattern: &str, m: &Message<'_>, out: &mut String) {
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let left = chars.next_if_eq(&'-').is_some();
        let zero = chars.next_if_eq(&'0').is_some();
        let mut width = 0;
        while let Some(d) = chars.peek().and_then(|c| c.to_digit(10)) {
            width = (width * 10 + d as usize).min(MAX_WIDTH);
            chars.next();
        }
        let Some(conversion) = chars.next() else { break };
        let field = convert(conversion, &mut chars, m);
        let pad = width.saturating_sub(field.chars().count());
        if left {
            let _ = write!(out, "{field}{:pad$}", "");
        } else if zero {
            let _ = write!(out, "{:0>pad$}{field}", "");
        } else {
            let _ = write!(out, "{:pad$}{field}", "");
        }
    }
}

fn convert(conversion: char, chars: &mut Peekable<Chars<'_>>, m: &Message<'_>) -> String {
    match conversion {
        'A' => PROGRAM.into(),
        'B' => (m.facility * 8 + m.level.syslog()).to_string(),
        'c' => m.module.into(),
        'd' | 'D' => strftime(argument(chars).as_deref().unwrap_or("%Y-%m-%d %H:%M:%S.###"), m.at),
        'E' => read_trimmed("/proc/sys/kernel/hostname"),
        'm' => m.text.into(),
        'N' => m.number.to_string(),
        'n' => "\n".into(),
        'p' => m.level.name().into(),
        'P' => std::process::id().to_string(),
        't' if m.thread.is_empty() => argument(chars).unwrap_or_else(|| "main".into()),
        't' => m.thread.into(),
        'T' if m.thread.is_empty() => argument(chars).unwrap_or_default(),
        'T' => format!("({})", m.thread),
        '%' => "%".into(),
        other => format!("%{other}"),
    }
}

fn read_trimmed(path: &str) -> String {
    std::fs::read_to_string(path).map(|s| s.trim().to_owned()).unwrap_or_default()
}

/// `{…}` after a conversion.
fn argument(chars: &mut Peekable<Chars<'_>>) -> Option<String> {
    chars.next_if_eq(&'{')?;
    Some(chars.take_while(|c| *c != '}').collect())
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The part of strftime(3) that log patterns use, and `###` for milliseconds.
pub fn strftime(format: &str, at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (year, month, day) = date(since.as_secs() / 86_400);
    let (hour, minute, second) =
        (since.as_secs() / 3600 % 24, since.as_secs() / 60 % 60, since.as_secs() % 60);
    let format = format.replace("###", &format!("{:03}", since.subsec_millis()));
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        let _ = match (c, if c == '%' { chars.next() } else { None }) {
            ('%', Some('Y')) => write!(out, "{year:04}"),
            ('%', Some('m')) => write!(out, "{month:02}"),
            ('%', Some('d')) => write!(out, "{day:02}"),
            ('%', Some('e')) => write!(out, "{day:2}"),
            ('%', Some('b' | 'h')) => write!(out, "{}", MONTHS.get(month as usize - 1).unwrap_or(&"")),
            ('%', Some('H')) => write!(out, "{hour:02}"),
            ('%', Some('M')) => write!(out, "{minute:02}"),
            ('%', Some('S')) => write!(out, "{second:02}"),
            ('%', Some('T')) => write!(out, "{hour:02}:{minute:02}:{second:02}"),
            ('%', Some('F')) => write!(out, "{year:04}-{month:02}-{day:02}"),
            ('%', Some('s')) => write!(out, "{}", since.as_secs()),
            ('%', Some(other)) => write!(out, "{other}"),
            (c, _) => write!(out, "{c}"),
        };
    }
    out
}

/// Days since 1970-01-01 as year, month 1–12, day 1–31 of the Gregorian calendar. Counted in eras of 400 years that
/// begin on 1 March, so that the leap day is the last of its year.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // from 0000-03-01
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(11_016), (2000, 2, 29));
        assert_eq!(date(11_017), (2000, 3, 1));
        assert_eq!(date(20_453), (2025, 12, 31));
        assert_eq!(date(20_454), (2026, 1, 1));
        assert_eq!(date(47_540), (2100, 2, 28));
        assert_eq!(date(47_541), (2100, 3, 1), "2100 is no leap year");
    }

    #[test]
    fn layouts() {
        let m = Message {
            at: UNIX_EPOCH + Duration::from_millis(1_795_365_253_007),
            number: 1,
            module: "vlog",
            thread: "",
            facility: 3,
            level: Level::Info,
            text: "opened log file x",
        };
        let expand = |pattern: &str, m: &Message<'_>| {
            let mut out = String::new();
            super::expand(pattern, m, &mut out);
            out
        };
        assert_eq!(
            expand("%D{%Y-%m-%dT%H:%M:%S.###Z}|%05N|%c%T|%p|%m", &m),
            "2026-11-22T16:34:13.007Z|00001|vlog|INFO|opened log file x"
        );
        let m = Message { thread: "worker0", ..m };
        assert_eq!(expand("%c%T|%-6p|%6p|%%|%q|%t", &m), "vlog(worker0)|INFO  |  INFO|%|%q|worker0");
        assert_eq!(expand("<%B> %D{%h %e %T} %A:", &m), "<30> Nov 22 16:34:13 ovs-vswitchd:");
        assert_eq!(expand("%", &m), "");
        assert_eq!(expand("%D{%Y", &m), "2026");
    }
}
