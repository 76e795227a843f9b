//! What a run gave: as JSON with every sample, and as a Markdown table of medians.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use serde::Serialize;

use crate::chart::{Axis, Chart};
use crate::measure::Sample;
use crate::peers::{PLAIN, REFERENCE};
use crate::stats::Summary;
use crate::syscalls::Syscalls;
use crate::{goals, process, udp};

/// One column of the table.
#[derive(Debug)]
pub struct Metric {
    /// Its name in the JSON.
    pub key: &'static str,
    /// Its name in the table and the plot.
    pub title: &'static str,
    /// Whether less is better.
    pub less: bool,
    /// Digits after the point.
    pub digits: usize,
    /// Its value in a sample.
    pub value: fn(&Sample) -> Option<f64>,
}

/// Every column, in order.
pub const METRICS: [Metric; 10] = [
    Metric {
        key: "tcp_one_gbps",
        title: "TCP, 1 stream, Gb/s",
        less: false,
        digits: 2,
        value: |s| s.one.as_ref().map(|t| t.gbps),
    },
    Metric {
        key: "tcp_four_gbps",
        title: "TCP, 4 streams, Gb/s",
        less: false,
        digits: 2,
        value: |s| s.four.as_ref().map(|t| t.gbps),
    },
    Metric {
        key: "tcp_both_gbps",
        title: "TCP, both ways at once, Gb/s",
        less: false,
        digits: 2,
        value: |s| s.both.as_ref().map(|t| t.gbps),
    },
    Metric {
        key: "udp64_kpps",
        title: "UDP 64 B, <1 % lost, kpps",
        less: false,
        digits: 0,
        value: |s| s.packets_per_second.map(|p| p / 1e3),
    },
    Metric {
        key: "rtt_median_us",
        title: "idle RTT, median, µs",
        less: true,
        digits: 0,
        value: |s| s.round_trip.as_ref().map(|r| r.median_us),
    },
    Metric {
        key: "rtt_p99_us",
        title: "idle RTT, p99, µs",
        less: true,
        digits: 0,
        value: |s| s.round_trip.as_ref().map(|r| r.p99_us),
    },
    Metric {
        key: "switch_cpu_s_per_gb",
        title: "switch CPU, s/GB",
        less: true,
        digits: 2,
        value: |s| s.one.as_ref().and_then(|t| t.switch_cpu_per_gb()),
    },
    Metric {
        key: "machine_cpu_s_per_gb",
        title: "machine CPU, s/GB",
        less: true,
        digits: 2,
        value: |s| s.one.as_ref().map(|t| t.machine_cpu_per_gb()),
    },
    Metric {
        key: "idle_core_percent",
        title: "idle switch, % of a core",
        less: true,
        digits: 2,
        value: |s| s.idle.map(|i| i.cores * 100.0),
    },
    Metric {
        key: "resident_mb",
        title: "switch memory, MB",
        less: true,
        digits: 1,
        value: |s| s.idle.map(|i| i.resident_mb),
    },
];

/// Where the run took place.
#[derive(Debug, Serialize)]
pub struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
    commit: String,
    date: String,
}

/// How much else went on; see [`crate::noise`].
#[derive(Debug, Serialize)]
pub struct Noise {
    /// Cores that other processes used while TCP was measured.
    others_cores: Option<Summary>,
    /// Cores that the hypervisor took away meanwhile.
    steal_cores: Option<Summary>,
    /// Milliseconds for the fixed load.
    calibration_ms: Option<Summary>,
}

/// One row.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The peer's name.
    pub name: String,
    about: String,
    container_mtu: u16,
    /// By [`Metric::key`].
    pub metrics: BTreeMap<&'static str, Summary>,
}

/// The whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    machine: Machine,
    rounds: u32,
    seconds: u32,
    noise: Noise,
    /// In the order of the table.
    pub rows: Vec<Row>,
    /// By peer, of Underpass alone.
    pub syscalls: BTreeMap<String, Syscalls>,
    skipped: BTreeMap<String, String>,
    samples: Vec<Sample>,
}

impl Machine {
    fn here() -> Machine {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpuinfo.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": "));
        let said = |program: &str, args: &[&str]| {
            process::output(program, args).map(|s| s.trim().to_owned()).unwrap_or_else(|_| "unknown".into())
        };
        Machine {
            cpu: cpu.map_or("unknown", |c| c.1).into(),
            cores: std::thread::available_parallelism().map_or(0, |n| n.get()),
            kernel: said("uname", &["-r"]),
            commit: said("git", &["describe", "--always", "--dirty"]),
            date: said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        }
    }
}

impl Report {
    /// From all samples. `peers` are (name, about, container MTU) in the table's order, `skipped` (name, why).
    pub fn new(
        rounds: u32,
        seconds: u32,
        peers: Vec<(String, String, u16)>,
        skipped: BTreeMap<String, String>,
        samples: Vec<Sample>,
    ) -> Report {
        let usages = || samples.iter().flat_map(Sample::usages);
        let noise = Noise {
            others_cores: Summary::of(usages().map(|u| u.others / u.seconds)),
            steal_cores: Summary::of(usages().map(|u| u.steal / u.seconds)),
            calibration_ms: Summary::of(samples.iter().map(|s| s.calibration_ms)),
        };
        let row = |(name, about, container_mtu): (String, String, u16)| {
            let of_peer =
                |m: &Metric| Summary::of(samples.iter().filter(|s| s.peer == name).filter_map(m.value));
            let metrics = METRICS.iter().filter_map(|m| Some((m.key, of_peer(m)?))).collect();
            Row { name, about, container_mtu, metrics }
        };
        let rows = peers.into_iter().map(row).collect();
        let (machine, syscalls) = (Machine::here(), BTreeMap::new());
        Report { machine, rounds, seconds, noise, rows, syscalls, skipped, samples }
    }

    /// The median of a metric of a peer.
    pub fn median(&self, peer: &str, metric: &str) -> Option<f64> {
        self.rows.iter().find(|r| r.name == peer)?.metrics.get(metric).map(|m| m.median)
    }

    /// The distribution of round-trip times of each peer: medians over rounds, at each of [`udp::PERCENTILES`].
    pub fn latency(&self) -> Chart {
        let line = |row: &Row| {
            let trips =
                || self.samples.iter().filter(|s| s.peer == row.name).filter_map(|s| s.round_trip.as_ref());
            let point = |(i, percentile): (usize, &f64)| {
                let times = trips().filter_map(|t| t.percentiles_us.get(i).copied());
                Some((Summary::of(times)?.median, *percentile))
            };
            (row.name.clone(), udp::PERCENTILES.iter().enumerate().filter_map(point).collect::<Vec<_>>())
        };
        Chart {
            title: "Round trip on the idle link: how many of a hundred took no longer".into(),
            x: Axis { title: "µs", logarithmic: true },
            y: Axis { title: "%", logarithmic: false },
            lines: self.rows.iter().map(line).filter(|(_, points)| !points.is_empty()).collect(),
        }
    }

    /// Whether any measurement failed.
    pub fn has_errors(&self) -> bool {
        self.samples.iter().any(|s| !s.errors.is_empty())
    }

    /// The table, with what must be known to read it.
    pub fn markdown(&self) -> String {
        let mut t = String::from("| | container MTU |");
        METRICS.iter().for_each(|m| _ = write!(t, " {} |", m.title));
        t += "\n|---|---|";
        t += &"---|".repeat(METRICS.len());
        let reference = self.rows.iter().find(|r| r.name == REFERENCE);
        for row in &self.rows {
            _ = write!(t, "\n| {} | {} |", row.name, row.container_mtu);
            for m in &METRICS {
                _ = write!(t, " {} |", cell(m, row, reference));
            }
        }
        t += "\n\n";
        self.notes(&mut t);
        let goals = goals::markdown(self, &METRICS);
        if !goals.is_empty() {
            t += "\n";
            t += &goals;
        }
        t
    }

    fn notes(&self, t: &mut String) {
        let (m, n) = (&self.machine, &self.noise);
        _ = writeln!(
            t,
            "Median [min..max] of {} rounds, {} s a TCP measurement; ×: to kernel VXLAN in this run. Both hosts, both \
             containers\nand all load share one machine: {}, {} cores, Linux {}; {}, commit {}.\nUnderlay frames of \
             at most 1514 B cross one by one (no segmentation offload; GRO on receive). UDP payload {} B.\n\
             'switch CPU': user and system time of the switch processes of both hosts for each 10^9 B, one stream; \
             'machine CPU':\nall that was busy, less what other processes used.",
            self.rounds,
            self.seconds,
            m.cpu,
            m.cores,
            m.kernel,
            m.date,
            m.commit,
            udp::PAYLOAD
        );
        let show = |s: Option<Summary>, digits| s.map_or("-".into(), |s| range(&s, digits));
        _ = writeln!(
            t,
            "Noise: other processes used {} cores, the hypervisor took {} cores, the fixed load took {} ms.\n",
            show(n.others_cores, 2),
            show(n.steal_cores, 2),
            show(n.calibration_ms, 1)
        );
        for row in &self.rows {
            _ = writeln!(t, "- {}: {}", row.name, row.about);
        }
        self.cost_of_protection(t);
        for (name, calls) in &self.syscalls {
            _ = writeln!(
                t,
                "- {name}: {:.3} system calls a frame in bulk TCP (strace, both hosts)",
                calls.per_frame()
            );
        }
        for (name, why) in &self.skipped {
            _ = writeln!(t, "- {name}: not measured. {why}");
        }
        for s in &self.samples {
            for e in &s.errors {
                _ = writeln!(t, "- {}, round {}: {}", s.peer, s.round, e.lines().next().unwrap_or_default());
            }
        }
    }

    /// What ESP costs: each protected kind of tunnel beside the plain one.
    fn cost_of_protection(&self, t: &mut String) {
        let Some(plain) = self.rows.iter().find(|r| r.name == PLAIN) else { return };
        let protected = self.rows.iter().filter(|r| r.name.starts_with(PLAIN) && r.name != PLAIN);
        for row in protected {
            let ratio = |key| Some(row.metrics.get(key)?.median / plain.metrics.get(key)?.median);
            let Some((tcp, cpu)) = ratio("tcp_one_gbps").zip(ratio("switch_cpu_s_per_gb")) else { continue };
            _ = writeln!(t, "- {} beside plain GRE: {tcp:.2}× TCP, 1 stream; {cpu:.2}× switch CPU", row.name);
        }
    }
}

fn range(s: &Summary, digits: usize) -> String {
    format!("{:.digits$} [{:.digits$}..{:.digits$}]", s.median, s.min, s.max)
}

fn cell(metric: &Metric, row: &Row, reference: Option<&Row>) -> String {
    let Some(s) = row.metrics.get(metric.key) else { return "-".into() };
    let ratio = reference.and_then(|r| r.metrics.get(metric.key)).map(|r| s.median / r.median);
    let ratio = ratio.map_or(String::new(), |r| format!(" {r:.2}×"));
    format!("{}{ratio}", range(s, metric.digits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iperf::Tcp;
    use crate::noise::Usage;

    fn sample(peer: &str, pps: f64) -> Sample {
        Sample { peer: peer.into(), round: 1, packets_per_second: Some(pps), ..Sample::default() }
    }

    #[test]
    fn table_has_medians_ratios_and_what_was_left_out() {
        let peer = |n: &str| (n.to_owned(), format!("about {n}"), 1450);
        let samples = vec![sample("vxlan", 100e3), sample("vxlan", 80e3), sample("x", 180e3)];
        let skipped = BTreeMap::from([("y".to_owned(), "apt-get install y".to_owned())]);
        let report = Report::new(2, 3, vec![peer("vxlan"), peer("x")], skipped, samples);
        let table = report.markdown();
        assert!(table.contains("| vxlan | 1450 | - | - | - | 90 [80..100] 1.00× |"), "{table}");
        assert!(table.contains("| x | 1450 | - | - | - | 180 [180..180] 2.00× |"), "{table}");
        assert!(table.contains("- x: about x\n- y: not measured. apt-get install y\n"), "{table}");
    }

    #[test]
    fn protected_tunnels_are_held_against_plain_ones() {
        let tcp = |peer: &str, gbps, switches| Sample {
            one: Some(Tcp {
                gbps,
                gigabytes: 1.0,
                retransmits: 0,
                usage: Usage { switches, seconds: 1.0, ..Usage::default() },
            }),
            ..sample(peer, 1.0)
        };
        let peer = |n: &str| (n.to_owned(), String::new(), 1500);
        let samples = vec![tcp("underpass", 2.0, 4.0), tcp("underpass-esp", 1.0, 5.0)];
        let report =
            Report::new(1, 3, vec![peer("underpass"), peer("underpass-esp")], BTreeMap::new(), samples);
        let table = report.markdown();
        assert!(
            table.contains("underpass-esp beside plain GRE: 0.50× TCP, 1 stream; 1.25× switch CPU"),
            "{table}"
        );
        assert_eq!(table.matches("beside plain GRE").count(), 1);
    }
}
