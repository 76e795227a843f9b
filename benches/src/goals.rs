//! What Underpass is meant to reach, each a ratio to another peer in the same run or a bound, and whether it did.

use std::fmt::Write;

use crate::report::{Metric, Report};

/// Whom a figure is held against.
#[derive(Debug, Clone, Copy)]
enum Against {
    /// That peer.
    Peer(&'static str),
    /// The best of the encrypted overlays in user space.
    BestOverlay,
    /// Nobody: the figure itself.
    Nothing,
}

#[derive(Debug, Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// One line of the table.
#[derive(Debug)]
struct Goal {
    /// Names of peers.
    who: &'static [&'static str],
    /// [`Metric::key`]s.
    what: &'static [&'static str],
    against: Against,
    bound: Bound,
}

use Against::{BestOverlay, Nothing, Peer};
use Bound::{AtLeast, AtMost};

const OVERLAYS: [&str; 5] = ["fastd", "openvpn", "tinc", "wireguard-go", "strongswan"];
const ROADS: [&str; 4] = ["underpass", "underpass-gre-udp", "underpass-esp", "underpass-udp"];
const BULK: [&str; 3] = ["tcp_one_gbps", "tcp_four_gbps", "tcp_both_gbps"];
const VXLAN: Against = Peer("vxlan");

const fn goal(
    who: &'static [&'static str],
    what: &'static [&'static str],
    against: Against,
    bound: Bound,
) -> Goal {
    Goal { who, what, against, bound }
}

const GOALS: [Goal; 14] = [
    goal(&["underpass-udp"], &BULK, VXLAN, AtLeast(1.0)),
    goal(&["underpass-udp"], &["tcp_one_gbps"], BestOverlay, AtLeast(9.0)),
    goal(&["underpass-esp"], &BULK, VXLAN, AtLeast(0.8)),
    goal(&["underpass"], &BULK, VXLAN, AtLeast(1.0)),
    goal(&["underpass"], &["tcp_one_gbps"], Peer("ovs-gre"), AtLeast(8.0)),
    goal(&["underpass"], &["tcp_one_gbps"], Peer("ovs-afxdp"), AtLeast(3.0)),
    goal(&["underpass-gre-udp"], &BULK, VXLAN, AtLeast(1.15)),
    goal(&["underpass-raw", "underpass-esp-raw"], &["tcp_one_gbps"], VXLAN, AtLeast(0.45)),
    goal(&ROADS, &["udp64_kpps"], VXLAN, AtLeast(1.5)),
    goal(&ROADS, &["rtt_median_us", "rtt_p99_us"], VXLAN, AtMost(1.2)),
    goal(&["underpass"], &["switch_cpu_s_per_gb"], Nothing, AtMost(2.0)),
    goal(&["underpass-udp"], &["switch_cpu_s_per_gb"], Nothing, AtMost(1.8)),
    goal(&["underpass-esp"], &["switch_cpu_s_per_gb"], Nothing, AtMost(2.4)),
    goal(&ROADS, &["idle_core_percent"], Nothing, AtMost(0.2)),
];

/// The table of goals; empty when nothing of it was measured.
pub fn markdown(report: &Report, metrics: &[Metric]) -> String {
    let mut t = String::new();
    for goal in &GOALS {
        for who in goal.who {
            for what in goal.what {
                let title = metrics.iter().find(|m| m.key == *what).map_or(*what, |m| m.title);
                let Some(reached) = goal.reached(report, who, what) else { continue };
                let verdict = if goal.bound.holds(reached) { "yes" } else { "no" };
                let (against, bound) = (goal.against.text(), goal.bound.text());
                _ = writeln!(t, "| {who} | {title}{against} | {bound} | {reached:.2} | {verdict} |");
            }
        }
    }
    if t.is_empty() {
        t
    } else {
        format!("| | what | goal | this run | reached |\n|---|---|---|---|---|\n{t}")
    }
}

impl Goal {
    /// The figure, if all that it needs was measured.
    fn reached(&self, report: &Report, who: &str, what: &str) -> Option<f64> {
        let own = report.median(who, what)?;
        Some(match self.against {
            Nothing => own,
            Peer(other) => own / report.median(other, what)?,
            BestOverlay => {
                own / OVERLAYS.iter().filter_map(|o| report.median(o, what)).max_by(f64::total_cmp)?
            }
        })
    }
}

impl Against {
    fn text(self) -> String {
        match self {
            Peer(other) => format!(" ÷ {other}"),
            BestOverlay => " ÷ best encrypted overlay".into(),
            Nothing => String::new(),
        }
    }
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            AtLeast(least) => value >= least,
            AtMost(most) => value <= most,
        }
    }

    fn text(self) -> String {
        match self {
            AtLeast(least) => format!("≥ {least}"),
            AtMost(most) => format!("≤ {most}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::METRICS;

    #[test]
    fn goals_name_what_there_is() {
        let peers = crate::peers::all("underpass".as_ref(), None);
        let known = |name: &str| peers.iter().any(|p| p.name() == name);
        for goal in &GOALS {
            assert!(goal.who.iter().all(|who| known(who)), "{goal:?}");
            assert!(goal.what.iter().all(|what| METRICS.iter().any(|m| m.key == *what)), "{goal:?}");
            assert!(!matches!(goal.against, Peer(other) if !known(other)), "{goal:?}");
        }
        assert!(OVERLAYS.iter().all(|o| known(o)));
    }
}
