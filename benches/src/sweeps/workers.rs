//! One worker thread and two: the same visits as beside other peers, by number of workers.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use crate::measure::{Sample, visit};
use crate::peers::underpass::{ROADS, Underpass};
use crate::stats::Summary;
use crate::{interrupted, say};

/// How `--sweeps` names it.
pub const NAME: &str = "workers";

const COUNTS: [u8; 2] = [1, 2];
const ROUNDS: u32 = 3;
const SECONDS: u32 = 2;
const QUIET: Duration = Duration::from_secs(5);

/// Each sample with the number of workers. Interleaved, as visits to peers are.
pub fn measure(binary: &Path) -> Vec<(u8, Sample)> {
    let mut samples = Vec::new();
    for round in 1..=ROUNDS {
        for road in ROADS.iter().filter(|r| super::PLAIN_AND_UDP.contains(&r.name)) {
            for workers in COUNTS {
                if interrupted() {
                    return samples;
                }
                say(&format!("{:>8} {workers:>8} {:<18}", NAME, road.name));
                let peer = Underpass { binary: binary.to_owned(), road, workers: Some(workers) };
                samples.push((workers, visit(&peer, round, SECONDS, QUIET, &[])));
                say("\n");
            }
        }
    }
    samples
}

/// A table of medians; empty without samples.
pub fn markdown(samples: &[(u8, Sample)]) -> String {
    let mut t = String::new();
    for road in super::PLAIN_AND_UDP {
        for workers in COUNTS {
            let median = |value: fn(&Sample) -> Option<f64>| {
                let of = samples.iter().filter(|(n, s)| *n == workers && s.peer == road);
                Summary::of(of.filter_map(|(_, s)| value(s))).map(|s| s.median)
            };
            let gbps = [
                median(|s| s.one.as_ref().map(|t| t.gbps)),
                median(|s| s.four.as_ref().map(|t| t.gbps)),
                median(|s| s.both.as_ref().map(|t| t.gbps)),
            ];
            let kpps = median(|s| s.packets_per_second).map(|p| p / 1e3);
            if let ([Some(one), Some(four), Some(both)], Some(kpps)) = (gbps, kpps) {
                _ = writeln!(t, "| {road} | {workers} | {one:.2} | {four:.2} | {both:.2} | {kpps:.0} |");
            }
        }
    }
    if t.is_empty() {
        return t;
    }
    format!(
        "\n| road | workers | TCP, 1 stream, Gb/s | 4 streams | both ways at once | UDP 64 B, kpps |\n\
         |---|---|---|---|---|---|\n{t}"
    )
}
