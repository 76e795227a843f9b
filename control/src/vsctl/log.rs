//! What goes to standard error besides the final word: warnings in OVS's form.

use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// How many messages there were, whether or not they were shown.
static MESSAGES: AtomicU32 = AtomicU32::new(0);

/// Counts a message that the stock tool would send to syslog alone, so that the numbers agree.
pub fn count() {
    MESSAGES.fetch_add(1, Ordering::Relaxed);
}

/// Prints `time|number|module|WARN|message`.
pub fn warn(module: &str, message: &str) {
    let number = MESSAGES.fetch_add(1, Ordering::Relaxed) + 1;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = utc(since.as_secs());
    let _ = writeln!(std::io::stderr(), "{time}|{number:05}|{module}|WARN|{message}");
}

/// Prints `program: message`.
pub fn complain(program: &str, message: &str) {
    let _ = writeln!(std::io::stderr(), "{program}: {message}");
}

/// Seconds since 1970 as `YYYY-MM-DDTHH:MM:SSZ`.
fn utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86400, seconds % 86400);
    // Years begin in March here, so that leap days come last; an era is 400 years.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z", second % 60)
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(super::utc(seconds), expected);
        }
    }
}
