//! The bar plot, written by hand as SVG: one panel a metric, one bar a peer, a whisker from minimum to maximum.

use std::fmt::Write;

use crate::report::{METRICS, Metric, Report, Row};

const PANEL: (usize, usize) = (440, 22); // width; height of one bar's line
const LABEL: usize = 120;
const VALUE: usize = 60;
const COLUMNS: usize = 2;
/// One for each peer, again from the first when there are more.
pub const COLOURS: [&str; 10] = [
    "#9aa5b1", "#4c78a8", "#b279a2", "#e45756", "#72b7b2", "#eeca3b", "#f58518", "#54a24b", "#9d755d",
    "#ff9da6",
];

/// The panels of all metrics.
pub fn svg(report: &Report) -> String {
    let height = PANEL.1 * (report.rows.len() + 2);
    let lines = METRICS.len().div_ceil(COLUMNS);
    let mut s = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{}" height="{}" font-family="sans-serif" font-size="12">"#,
        PANEL.0 * COLUMNS,
        height * lines
    );
    s += "\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n";
    for (i, metric) in METRICS.iter().enumerate() {
        let (x, y) = (i % COLUMNS * PANEL.0, i / COLUMNS * height);
        _ = writeln!(s, r#"<g transform="translate({x},{y})">"#);
        panel(&mut s, metric, &report.rows);
        s += "</g>\n";
    }
    s + "</svg>\n"
}

fn panel(s: &mut String, metric: &Metric, rows: &[Row]) {
    let better = if metric.less { "less is better" } else { "more is better" };
    let title = metric.title.replace('<', "&lt;");
    _ = writeln!(
        s,
        r##"<text x="{LABEL}" y="18" font-weight="bold">{title} <tspan font-weight="normal" fill="#777">{better}</tspan></text>"##
    );
    let most = rows.iter().filter_map(|r| r.metrics.get(metric.key)).map(|m| m.max).fold(0.0, f64::max);
    let scale = (PANEL.0 - LABEL - VALUE) as f64 / most.max(f64::MIN_POSITIVE);
    for (i, row) in rows.iter().enumerate() {
        let (y, middle) = (PANEL.1 * (i + 1) + 4, PANEL.1 * (i + 1) + 12);
        let text = middle + 4;
        _ = writeln!(s, r#"<text x="{}" y="{text}" text-anchor="end">{}</text>"#, LABEL - 8, row.name);
        let Some(m) = row.metrics.get(metric.key) else {
            _ = writeln!(s, r##"<text x="{LABEL}" y="{text}" fill="#777">-</text>"##);
            continue;
        };
        let colour = COLOURS[i % COLOURS.len()];
        let at = |v: f64| LABEL as f64 + v * scale;
        _ = writeln!(
            s,
            r#"<rect x="{LABEL}" y="{y}" width="{:.1}" height="16" fill="{colour}"/>"#,
            m.median * scale
        );
        _ = writeln!(s, r##"<path d="M{:.1} {middle}H{:.1}" stroke="#333"/>"##, at(m.min), at(m.max));
        let digits = metric.digits;
        _ = writeln!(s, r#"<text x="{:.1}" y="{text}">{:.digits$}</text>"#, at(m.max) + 6.0, m.median);
    }
}
