//! Line charts, written by hand as SVG.

use std::fmt::Write;

use crate::plot::COLOURS;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 170.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;

/// One axis.
#[derive(Debug, Clone, Copy)]
pub struct Axis {
    /// What it shows, with its unit.
    pub title: &'static str,
    /// Each step is a multiple. Otherwise the axis begins at 0.
    pub logarithmic: bool,
}

/// A chart of lines.
#[derive(Debug)]
pub struct Chart {
    /// Above it.
    pub title: String,
    /// Across.
    pub x: Axis,
    /// Up.
    pub y: Axis,
    /// Name and points of each line.
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
}

/// Where an axis begins and ends, and how values become places from 0 to 1.
struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
}

impl Scale {
    fn of(axis: Axis, values: impl Iterator<Item = f64> + Clone) -> Scale {
        let high = values.clone().fold(f64::MIN_POSITIVE, f64::max);
        let low = if axis.logarithmic { values.fold(high, f64::min).max(high / 1e9) } else { 0.0 };
        let high = if axis.logarithmic { high.max(low * 1.01) } else { high * 1.05 };
        Scale { low, high, logarithmic: axis.logarithmic }
    }

    fn place(&self, value: f64) -> f64 {
        let place = if self.logarithmic {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            value / self.high
        };
        place.clamp(0.0, 1.0)
    }

    /// Round values to write beside the axis.
    fn ticks(&self) -> Vec<f64> {
        if self.logarithmic {
            let decades = (-3..10).flat_map(|e| [1.0, 2.0, 5.0].map(|m| m * 10f64.powi(e)));
            let all: Vec<f64> = decades.filter(|t| (self.low..=self.high * 1.001).contains(t)).collect();
            let tens = all.iter().copied().filter(|t| (t.log10() - t.log10().round()).abs() < 1e-9);
            return if all.len() > 8 { tens.collect() } else { all };
        }
        let rough = self.high / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|m| m * power >= rough).unwrap_or(10.0) * power;
        (0..=5).map(|i| f64::from(i) * step).filter(|t| *t <= self.high).collect()
    }
}

/// A number as briefly as may be.
fn brief(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{}M", v / 1e6),
        v if v >= 1e4 => format!("{}k", v / 1e3),
        v => format!("{}", (v * 1000.0).round() / 1000.0),
    }
}

impl Chart {
    /// The whole picture.
    pub fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|(_, points)| points);
        let (xs, ys) = (Scale::of(self.x, points().map(|p| p.0)), Scale::of(self.y, points().map(|p| p.1)));
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let x = |v: f64| LEFT + xs.place(v) * (right - LEFT);
        let y = |v: f64| bottom - ys.place(v) * (bottom - TOP);
        let mut s = format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12">"#
        );
        s += "\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n";
        let title = self.title.replace('&', "&amp;").replace('<', "&lt;");
        _ = writeln!(s, r#"<text x="{LEFT}" y="22" font-weight="bold">{title}</text>"#);
        for tick in xs.ticks() {
            let (at, text) = (x(tick), brief(tick));
            _ = writeln!(s, r##"<path d="M{at:.1} {TOP}V{bottom}" stroke="#ddd"/>"##);
            _ = writeln!(s, r#"<text x="{at:.1}" y="{}" text-anchor="middle">{text}</text>"#, bottom + 16.0);
        }
        for tick in ys.ticks() {
            let (at, text) = (y(tick), brief(tick));
            _ = writeln!(s, r##"<path d="M{LEFT} {at:.1}H{right}" stroke="#ddd"/>"##);
            _ = writeln!(
                s,
                r#"<text x="{}" y="{:.1}" text-anchor="end">{text}</text>"#,
                LEFT - 6.0,
                at + 4.0
            );
        }
        let middle = f64::midpoint(LEFT, right);
        _ = writeln!(
            s,
            r#"<text x="{middle}" y="{}" text-anchor="middle">{}</text>"#,
            HEIGHT - 12.0,
            self.x.title
        );
        let up = f64::midpoint(TOP, bottom);
        _ = writeln!(
            s,
            r#"<text transform="translate(16,{up}) rotate(-90)" text-anchor="middle">{}</text>"#,
            self.y.title
        );
        for (i, (name, points)) in self.lines.iter().enumerate() {
            let colour = COLOURS[i % COLOURS.len()];
            let path: Vec<String> = points.iter().map(|p| format!("{:.1} {:.1}", x(p.0), y(p.1))).collect();
            let dashes = if i >= COLOURS.len() { r#" stroke-dasharray="5 3""# } else { "" };
            _ = writeln!(
                s,
                r#"<path d="M{}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>"#,
                path.join("L")
            );
            let (at, key) = (TOP + 18.0 * i as f64, right + 12.0);
            _ = writeln!(
                s,
                r#"<path d="M{key} {at}h18" stroke="{colour}" stroke-width="3"{dashes}/><text x="{}" y="{}">{name}</text>"#,
                key + 24.0,
                at + 4.0
            );
        }
        s + "</svg>\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_ticks() {
        let linear = Axis { title: "", logarithmic: false };
        let s = Scale::of(linear, [10.0, 95.0].into_iter());
        assert_eq!(s.ticks(), [0.0, 20.0, 40.0, 60.0, 80.0]);
        assert_eq!((s.place(0.0), s.place(1e9)), (0.0, 1.0));
        let s = Scale::of(Axis { logarithmic: true, ..linear }, [1.0, 100.0].into_iter());
        assert_eq!(s.ticks(), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        assert!((s.place(10.0) - 0.5).abs() < 1e-9);
        assert_eq!([1e6, 25_000.0, 1000.0, 0.25].map(brief), ["1M", "25k", "1000", "0.25"]);
    }

    #[test]
    fn nothing_to_show_is_no_harm() {
        let axis = Axis { title: "", logarithmic: true };
        let chart = Chart { title: "a < b".into(), x: axis, y: axis, lines: vec![("x".into(), vec![])] };
        assert!(chart.svg().contains("a &lt; b"));
    }
}
