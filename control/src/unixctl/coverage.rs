//! `coverage/show`: how often something happened, and at what rate of late.

use std::fmt::Write;
use std::time::Duration;

/// How often [`Coverage::sample`] is to be called.
pub const PERIOD: Duration = Duration::from_secs(5);

const A_MINUTE: usize = 12;
const AN_HOUR: usize = 60;

/// Rates of a fixed list of counters over the last 5 seconds, minute and hour.
#[derive(Debug, Default)]
pub struct Coverage {
    counters: Vec<Counter>,
    samples: usize,
}

#[derive(Debug)]
struct Counter {
    total: u64,
    /// Increments of 5 seconds each, a ring.
    minute: [u64; A_MINUTE],
    /// Increments of a minute each, a ring.
    hour: [u64; AN_HOUR],
}

impl Coverage {
    /// Takes the counters as they stand now, in the order that [`Coverage::show`] gets them in.
    pub fn sample(&mut self, now: impl IntoIterator<Item = u64>) {
        let in_minute = self.samples % A_MINUTE;
        let in_hour = self.samples / A_MINUTE % AN_HOUR;
        for (i, total) in now.into_iter().enumerate() {
            if self.counters.len() == i {
                self.counters.push(Counter { total: 0, minute: [0; A_MINUTE], hour: [0; AN_HOUR] });
            }
            let Some(counter) = self.counters.get_mut(i) else { continue };
            let more = total.saturating_sub(counter.total);
            counter.total = total;
            if let Some(slot) = counter.minute.get_mut(in_minute) {
                *slot = more;
            }
            if let Some(slot) = counter.hour.get_mut(in_hour) {
                *slot = if in_minute == 0 { more } else { *slot + more };
            }
        }
        self.samples = self.samples.wrapping_add(1);
    }

    /// The layout of Open vSwitch; `now` are the counters as they stand.
    pub fn show(&self, now: impl IntoIterator<Item = (&'static str, u64)>) -> String {
        let latest = self.samples.wrapping_sub(1) % A_MINUTE;
        let (mut rows, mut never, mut hash) = (String::new(), 0, 0x811c_9dc5_u32);
        for (i, (name, total)) in now.into_iter().enumerate() {
            if total == 0 {
                never += 1;
                continue;
            }
            hash = name.bytes().fold(hash, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
            let counter = self.counters.get(i);
            let five = counter.and_then(|c| c.minute.get(latest)).copied().unwrap_or(0) as f64 / 5.0;
            let minute = counter.map_or(0, |c| c.minute.iter().sum()) as f64 / 60.0;
            let hour = counter.map_or(0, |c| c.hour.iter().sum()) as f64 / 3600.0;
            let _ =
                writeln!(rows, "{name:<24} {five:5.1}/sec {minute:9.3}/sec {hour:13.4}/sec   total: {total}");
        }
        format!(
            "Event coverage, avg rate over last: 5 seconds, last minute, last hour,  hash={hash:08x}:\n{rows}\
             {never} events never hit\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_layout() {
        let mut coverage = Coverage::default();
        for i in 1..=24 {
            coverage.sample([i * 10, 0]);
        }
        let text = coverage.show([("gre_no_tunnel", 241), ("drop_too_big", 0)]);
        let mut lines = text.lines();
        assert!(
            lines
                .next()
                .unwrap()
                .starts_with("Event coverage, avg rate over last: 5 seconds, last minute, last hour,  hash=")
        );
        assert_eq!(
            lines.next(),
            Some("gre_no_tunnel              2.0/sec     2.000/sec        0.0667/sec   total: 241")
        );
        assert_eq!(lines.next(), Some("1 events never hit"));
        assert_eq!(lines.next(), None);
    }

    #[test]
    fn an_hour_is_forgotten() {
        let mut coverage = Coverage::default();
        coverage.sample([1000]);
        for _ in 0..A_MINUTE * AN_HOUR {
            coverage.sample([1000]);
        }
        let text = coverage.show([("x", 1000)]);
        assert!(text.contains("  0.0/sec     0.000/sec        0.0000/sec   total: 1000\n"), "{text}");
    }

    #[test]
    fn before_the_first_sample() {
        assert!(Coverage::default().show([("x", 1)]).contains("total: 1\n"));
    }
}
