//! How the cost of a frame grows with its size, with the number of stations, of tunnels and of security associations.

mod scale;
mod scene;
mod traffic;
mod workers;

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::json;

use crate::chart::{Axis, Chart};
use crate::measure::in_temporary_directory;
use crate::peers::underpass::{ROADS, Road};
use crate::{interrupted, noise, say};
use scene::{Cost, Scene};

/// Bytes of frame where the size is not what varies.
const SMALL: usize = 106;

/// What varies.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
enum Over {
    /// Bytes of frame.
    Size,
    /// Addresses that send, all of them in the table.
    Macs,
    /// Tunnels that frames go by in turn; where they are protected, each has SAs of its own.
    Tunnels,
    /// The same, with a full table of the default size.
    TunnelsAndMacs,
}

/// One sweep.
#[derive(Debug)]
struct Sweep {
    /// Its name in files.
    name: &'static str,
    title: &'static str,
    over: Over,
    /// By name, of [`ROADS`].
    roads: &'static [&'static str],
    values: &'static [usize],
}

const PLAIN_AND_UDP: [&str; 2] = ["underpass", "underpass-udp"];

const SWEEPS: [Sweep; 5] = [
    Sweep {
        name: "size",
        title: "bytes of frame",
        over: Over::Size,
        roads: &["underpass", "underpass-gre-udp", "underpass-esp", "underpass-udp"],
        values: &[64, 128, 256, 512, 1024, 1400],
    },
    Sweep {
        name: "macs",
        title: "MAC addresses",
        over: Over::Macs,
        roads: &PLAIN_AND_UDP,
        values: &[10, 100, 1000, 10_000, 100_000, 1_000_000],
    },
    Sweep { name: "tunnels", title: "tunnels", over: Over::Tunnels, roads: &["underpass"], values: &COUNTS },
    Sweep {
        name: "sas",
        title: "tunnels in ESP, each with its SAs",
        over: Over::Tunnels,
        roads: &["underpass-esp", "underpass-udp"],
        values: &COUNTS,
    },
    Sweep {
        name: "memory",
        title: "tunnels, and 8,192 MAC addresses",
        over: Over::TunnelsAndMacs,
        roads: &PLAIN_AND_UDP,
        values: &[100],
    },
];

const COUNTS: [usize; 4] = [1, 10, 100, 1000];

/// One measurement.
#[derive(Debug, Serialize)]
struct Point {
    sweep: &'static str,
    road: &'static str,
    value: usize,
    cost: Option<Cost>,
    calibration_ms: f64,
    error: Option<String>,
}

/// Runs every sweep, or those that are `wanted`, and writes sweeps.json, sweeps.md and an SVG for each into `out`.
pub fn run(binary: &Path, wanted: &[String], out: &Path) -> Result<()> {
    let known: Vec<&str> = SWEEPS.iter().map(|s| s.name).chain([workers::NAME, scale::NAME]).collect();
    if let Some(unknown) = wanted.iter().find(|w| !known.contains(&w.as_str())) {
        bail!("there is no sweep '{unknown}'; there are {}", known.join(", "));
    }
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    let mut points = Vec::new();
    for sweep in SWEEPS.iter().filter(|s| is_wanted(s.name)) {
        for road in ROADS.iter().filter(|r| sweep.roads.contains(&r.name)) {
            for value in sweep.values {
                if interrupted() {
                    bail!("interrupted; nothing was written");
                }
                points.push(point(binary, sweep, road, *value));
            }
        }
    }
    let by_workers = if is_wanted(workers::NAME) { workers::measure(binary) } else { Vec::new() };
    let at_scale = if is_wanted(scale::NAME) { scale::measure(binary)? } else { Vec::new() };
    if interrupted() {
        bail!("interrupted; nothing was written");
    }
    let mut table = if points.is_empty() { String::new() } else { markdown(&points) };
    table += &workers::markdown(&by_workers);
    table += &scale::markdown(&at_scale);
    let write = |name: String, text: &str| {
        let path = out.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    };
    write(
        "sweeps.json".into(),
        &serde_json::to_string_pretty(
            &json!({ "points": points, "workers": by_workers, "scale": at_scale }),
        )?,
    )?;
    write("sweeps.md".into(), &table)?;
    for sweep in &SWEEPS {
        for (what, chart) in charts(sweep, &points).into_iter().filter(|_| sweep.values.len() > 1) {
            write(format!("sweep-{}-{what}.svg", sweep.name), &chart.svg())?;
        }
    }
    println!("{table}");
    if points.iter().any(|p| p.error.is_some()) {
        bail!("some measurements failed; see the end of the table");
    }
    Ok(())
}

fn point(binary: &Path, sweep: &Sweep, road: &'static Road, value: usize) -> Point {
    say(&format!("{:>8} {value:>8} {:<18}", sweep.name, road.name));
    let calibration_ms = noise::calibrate();
    let cost = in_temporary_directory(|dir| {
        let (tunnels, sources, len) = match sweep.over {
            Over::Size => (1, 1, value),
            Over::Macs => (1, value, SMALL),
            Over::Tunnels => (value, value, SMALL),
            Over::TunnelsAndMacs => (value, 8192 - value, SMALL),
        };
        Scene::new(binary, road, tunnels, sources, dir)?.measure(len)
    });
    let (cost, error) = match cost {
        Ok(cost) => (Some(cost), None),
        Err(e) => (None, Some(format!("{e:#}"))),
    };
    match (&cost, &error) {
        (Some(c), _) => say(&format!(
            " {:.0} kpps | {:.2} us of CPU a frame | {:.0} MB\n",
            c.kpps, c.us_per_frame, c.resident_mb
        )),
        (None, error) => say(&format!(" failed: {}\n", error.as_deref().unwrap_or_default())),
    }
    Point { sweep: sweep.name, road: road.name, value, cost, calibration_ms, error }
}

/// A chart of the cost, and one of the throughput, if anything of the sweep was measured.
fn charts(sweep: &Sweep, points: &[Point]) -> Vec<(&'static str, Chart)> {
    let chart = |title: &'static str, y: fn(&Cost) -> f64| {
        let line = |road: &&'static str| {
            let own = points.iter().filter(|p| p.sweep == sweep.name && *p.road == **road);
            let points = own.filter_map(|p| Some((p.value as f64, y(p.cost.as_ref()?))));
            ((*road).to_owned(), points.collect::<Vec<_>>())
        };
        let lines: Vec<_> = sweep.roads.iter().map(line).filter(|(_, points)| !points.is_empty()).collect();
        (!lines.is_empty()).then(|| Chart {
            title: format!("{title}, by {}", sweep.title),
            x: Axis { title: sweep.title, logarithmic: true },
            y: Axis { title, logarithmic: false },
            lines,
        })
    };
    let cost = chart("µs of CPU a frame, both switches", |c| c.us_per_frame).map(|c| ("cost", c));
    let rate = chart("thousand frames a second", |c| c.kpps).map(|c| ("rate", c));
    cost.into_iter().chain(rate).collect()
}

fn markdown(points: &[Point]) -> String {
    let mut t = String::from(
        "| sweep | road | value | kpps | µs of CPU a frame | to the first | idle, % of a core | memory, MB |\n|---|---|---|---|---|---|---|---|\n",
    );
    for p in points {
        let Some(cost) = &p.cost else { continue };
        let first =
            points.iter().find(|q| (q.sweep, q.road) == (p.sweep, p.road)).and_then(|q| q.cost.as_ref());
        let growth = first.map_or(1.0, |first| cost.us_per_frame / first.us_per_frame);
        _ = writeln!(
            t,
            "| {} | {} | {} | {:.0} | {:.2} | {growth:.2}× | {:.2} | {:.0} |",
            p.sweep,
            p.road,
            p.value,
            cost.kpps,
            cost.us_per_frame,
            cost.idle_cores * 100.0,
            cost.resident_mb
        );
    }
    t += "\nkpps: frames that arrive when as many as possible are sent, the sender on the same cores. CPU: user and system time \
          of both hosts' switches for each\nframe of a steady 40,000 a second, less what they take when idle. Frames of 106 bytes (UDP with 64) where the size \
          is not what varies.\n";
    for p in points {
        if let Some(error) = &p.error {
            let error = error.lines().next().unwrap_or_default();
            _ = writeln!(t, "- {} {} {}: {error}", p.sweep, p.road, p.value);
        }
    }
    t
}
