//! Small pictures drawn here, without a script: the interval of a verdict, the spread of a row, and the percentile
//! curves that stand in for the interactive charts.

use super::{html::Page, levels::Pair, model::Cell, units};
use crate::record::{Measured, QuantileValue};

/// A picture: lines, dots and words on a canvas of its own coordinates. It writes itself as SVG.
pub(crate) struct Picture {
    class: &'static str,
    label: String,
    width: f64,
    height: f64,
    shapes: Vec<Shape>,
}

enum Shape {
    Line {
        class: &'static str,
        /// Index into the palette; `None` keeps the class's own colour.
        colour: Option<usize>,
        points: Vec<(f64, f64)>,
    },
    Dot {
        class: &'static str,
        at: (f64, f64),
        radius: f64,
    },
    Word {
        class: &'static str,
        colour: Option<usize>,
        at: (f64, f64),
        text: String,
    },
}

impl Picture {
    fn new(class: &'static str, label: String, width: f64, height: f64) -> Picture {
        Picture {
            class,
            label,
            width,
            height,
            shapes: Vec::new(),
        }
    }

    fn line(&mut self, class: &'static str, points: Vec<(f64, f64)>) {
        self.shapes.push(Shape::Line {
            class,
            colour: None,
            points,
        });
    }

    fn dot(&mut self, class: &'static str, at: (f64, f64), radius: f64) {
        self.shapes.push(Shape::Dot { class, at, radius });
    }

    fn word(&mut self, class: &'static str, at: (f64, f64), text: String) {
        self.shapes.push(Shape::Word {
            class,
            colour: None,
            at,
            text,
        });
    }

    /// Writes the picture into a page.
    pub fn write(&self, page: &mut Page) {
        page.element("<svg role=\"img\" class=\"", self.class, "\"");
        page.element(" width=\"", self.width, "\"")
            .element(" height=\"", self.height, "\"");
        page.element(" viewBox=\"0 0 ", self.width, " ")
            .text(self.height)
            .raw("\"");
        page.element(" aria-label=\"", &self.label, "\">");
        for shape in &self.shapes {
            match shape {
                Shape::Line { class, colour, points } => {
                    page.element("<polyline class=\"", class, "")
                        .raw(colour_class(*colour))
                        .raw("\" points=\"");
                    for (x, y) in points {
                        page.text(format!("{x:.1},{y:.1} "));
                    }
                    page.raw("\"/>");
                }
                Shape::Dot { class, at, radius } => {
                    page.element("<circle class=\"", class, "\"");
                    page.element(" cx=\"", format_args!("{:.1}", at.0), "\"");
                    page.element(" cy=\"", format_args!("{:.1}", at.1), "\"");
                    page.element(" r=\"", radius, "\"/>");
                }
                Shape::Word {
                    class,
                    colour,
                    at,
                    text,
                } => {
                    page.element("<text class=\"", class, "")
                        .raw(colour_class(*colour))
                        .raw("\"");
                    page.element(" x=\"", format_args!("{:.1}", at.0), "\"");
                    page.element(" y=\"", format_args!("{:.1}", at.1), "\">");
                    page.text(text).raw("</text>");
                }
            }
        }
        page.raw("</svg>");
    }
}

/// Classes of the palette in `report.css`; the script counts the same way.
fn colour_class(colour: Option<usize>) -> &'static str {
    const CLASSES: [&str; 7] = [" c0", " c1", " c2", " c3", " c4", " c5", " c6"];
    colour.map_or("", |index| CLASSES[index % CLASSES.len()])
}

/// The number of a limit like "≤ 5 ms", in the unit of the figure; `None` for a limit in words.
fn limit_of(measured: &Measured) -> Option<f64> {
    let text = measured.limit.trim_start_matches(['≤', '≥', '<', '>', ' ']);
    if text.len() == measured.limit.len() {
        return None;
    }
    let end = text.find(|c: char| !"0123456789.-".contains(c)).unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    let factor = match (measured.unit.as_str(), text[end..].trim()) {
        ("ns", "µs") => 1e3,
        ("ns", "ms") => 1e6,
        ("ns", "s") => 1e9,
        (_, "") => 1.0,
        (unit, same) if unit == same => 1.0,
        _ => return None,
    };
    Some(number * factor)
}

/// The figure with its interval beside the limit; `None` when there is no number to compare with.
pub(crate) fn interval_scale(measured: &Measured) -> Option<Picture> {
    let limit = limit_of(measured)?;
    let value = measured.value?;
    let (low, high) = (measured.low.unwrap_or(value), measured.high.unwrap_or(value));
    let (min, max) = (low.min(limit).min(value), high.max(limit).max(value));
    if !(min.is_finite() && max.is_finite() && max > min) {
        return None;
    }
    let (width, height, middle) = (220.0, 26.0, 13.0);
    let x = |value: f64| 20.0 + (value - min) / (max - min) * (width - 40.0);
    let label = format!("{} against the limit {}", units::significant(value), measured.limit);
    let mut picture = Picture::new("scale", label, width, height);
    picture.line("rule", vec![(0.0, middle), (width, middle)]);
    picture.line("limit", vec![(x(limit), 2.0), (x(limit), height - 2.0)]);
    picture.line("interval", vec![(x(low), middle), (x(high), middle)]);
    picture.dot("value", (x(value), middle), 4.5);
    Some(picture)
}

/// The smallest p50 and the largest p99.9 of the cells, for [`strip`]s that can be compared with each other.
pub(crate) fn range_ns(cells: &[Cell<'_>]) -> Option<(f64, f64)> {
    let spans = cells.iter().filter_map(span_ns);
    let range = spans.fold((f64::INFINITY, 0.0f64), |range, [p50, _, p999]| {
        (range.0.min(p50), range.1.max(p999))
    });
    (range.1 > range.0).then_some(range)
}

/// The spread of one cell on a logarithmic scale: p50, p99 and p99.9.
pub(crate) fn strip(cell: &Cell<'_>, range: (f64, f64)) -> Option<Picture> {
    let [p50, p99, p999] = span_ns(cell)?;
    let (width, height, middle) = (120.0, 14.0, 7.0);
    let x = |ns: f64| 4.0 + (ns / range.0).ln() / (range.1 / range.0).ln() * (width - 8.0);
    let label = format!(
        "p50 {}, p99 {}, p99.9 {}",
        units::duration(p50),
        units::duration(p99),
        units::duration(p999)
    );
    let mut picture = Picture::new("strip", label, width, height);
    picture.line("thin", vec![(x(p99), middle), (x(p999), middle)]);
    picture.line("thick", vec![(x(p50), middle), (x(p99), middle)]);
    picture.dot("value", (x(p50), middle), 3.5);
    let is_lost = |q| {
        cell.main()
            .and_then(|pooled| pooled.quantile(q))
            .is_some_and(|q| q.value == QuantileValue::Lost)
    };
    if is_lost(0.999) {
        // It goes on beyond any time.
        picture.line("beyond", vec![(x(p999), middle), (width, middle)]);
    }
    Some(picture)
}

/// p50, p99 and p99.9; a higher one that is lost or unsupported is the one below it.
fn span_ns(cell: &Cell<'_>) -> Option<[f64; 3]> {
    let pooled = cell.main()?;
    let at = |q| match pooled.quantile(q).map(|quantile| quantile.value) {
        Some(QuantileValue::Ns(ns)) => Some(ns.max(1) as f64),
        _ => None,
    };
    let p50 = at(0.5)?;
    let p99 = at(0.99).unwrap_or(p50);
    Some([p50, p99, at(0.999).unwrap_or(p99)])
}

/// Percentile curves of all valid cells: nines to the right, time upwards, both logarithmic.
pub(crate) fn percentile_chart(cells: &[Cell<'_>]) -> Option<Picture> {
    let shown: Vec<&Cell<'_>> = cells
        .iter()
        .filter(|cell| cell.valid && cell.main().is_some())
        .collect();
    let curves = || {
        shown
            .iter()
            .filter_map(|cell| cell.main())
            .flat_map(|pooled| &pooled.curve)
    };
    let nines = |q: f64| -(1.0 - q).log10();
    let min_ns = curves().map(|&(_, ns)| ns.max(1)).min()? as f64 * 0.9;
    let max_ns = curves().map(|&(_, ns)| ns).max()? as f64 * 1.1;
    let nines_max = curves().map(|&(q, _)| nines(q)).fold(1.0, f64::max);
    let legend_rows = shown.len().div_ceil(3) as f64;
    let (width, plot_height) = (720.0, 280.0);
    let (left, top, right) = (70.0, 10.0, 20.0);
    let height = top + plot_height + 34.0 + legend_rows * 18.0;
    let x = |nines: f64| left + nines / nines_max * (width - left - right);
    let y = |ns: f64| top + plot_height * (1.0 - (ns / min_ns).ln() / (max_ns / min_ns).ln());
    let mut picture = Picture::new(
        "curves",
        "Latency by percentile, one line per back end".into(),
        width,
        height,
    );
    for (index, name) in ["p0", "p90", "p99", "p99.9", "p99.99", "p99.999", "p99.9999"]
        .iter()
        .enumerate()
    {
        let at = x(index as f64);
        if index as f64 <= nines_max {
            picture.line("rule", vec![(at, top), (at, top + plot_height)]);
            picture.word("x", (at, top + plot_height + 16.0), (*name).into());
        }
    }
    for ns in ticks_ns(min_ns, max_ns) {
        picture.line("rule", vec![(left, y(ns)), (width - right, y(ns))]);
        picture.word("y", (left - 8.0, y(ns) + 4.0), units::duration(ns));
    }
    for (index, cell) in shown.iter().enumerate() {
        let points = cell
            .main()?
            .curve
            .iter()
            .map(|&(q, ns)| (x(nines(q)), y(ns.max(1) as f64)));
        picture.shapes.push(Shape::Line {
            class: "curve",
            colour: Some(index),
            points: points.collect(),
        });
        let column = (index % 3) as f64;
        let row = (index / 3) as f64;
        picture.shapes.push(Shape::Word {
            class: "key",
            colour: Some(index),
            at: (left + column * 215.0, top + plot_height + 40.0 + row * 18.0),
            text: format!("— {}", cell.backend),
        });
    }
    Some(picture)
}

/// An arm's part of [`levels_chart`].
const LEVELS_PANEL: (f64, f64) = (232.0, 150.0);
const LEVELS_COLUMNS: usize = 3;

/// For each arm the kernel's figures with their span, and the simulator's, over what is varied; nothing where nothing is.
pub(crate) fn levels_chart(title: &str, pairs: &[Pair<'_>]) -> Option<Picture> {
    let mut arms: Vec<&str> = pairs.iter().map(|pair| pair.arm).collect();
    arms.dedup();
    let of_arm = |arm: &str| -> Vec<&Pair<'_>> {
        pairs
            .iter()
            .filter(|pair| pair.arm == arm && pair.value.is_some())
            .collect()
    };
    if arms.iter().all(|arm| of_arm(arm).len() < 2) {
        return None;
    }
    let most = pairs
        .iter()
        .map(|pair| pair.kernel.max.max(pair.simulated))
        .fold(0.0, f64::max);
    let (width, height) = LEVELS_PANEL;
    let rows = arms.len().div_ceil(LEVELS_COLUMNS) as f64;
    let label = format!("{title}: kernel and simulator, arm by arm");
    let mut picture = Picture::new("curves", label, width * LEVELS_COLUMNS as f64, height * rows + 24.0);
    for (index, arm) in arms.iter().enumerate() {
        let (left, top) = (
            (index % LEVELS_COLUMNS) as f64 * width + 44.0,
            (index / LEVELS_COLUMNS) as f64 * height + 20.0,
        );
        let (plot_width, plot_height) = (width - 60.0, height - 52.0);
        let of = of_arm(arm);
        let x = |at: usize| left + plot_width * at as f64 / (of.len().max(2) - 1) as f64;
        let y = |value: f64| top + plot_height * (1.0 - value / most.max(f64::MIN_POSITIVE));
        picture.word("key", (left, top - 6.0), (*arm).to_owned());
        for value in [0.0, most / 2.0, most] {
            picture.line("rule", vec![(left, y(value)), (left + plot_width, y(value))]);
            picture.word("y", (left - 6.0, y(value) + 4.0), units::significant(value));
        }
        for (at, pair) in of.iter().enumerate() {
            picture.word(
                "x",
                (x(at), top + plot_height + 16.0),
                pair.value.unwrap_or_default().to_owned(),
            );
            picture.line("rule", vec![(x(at), y(pair.kernel.min)), (x(at), y(pair.kernel.max))]);
        }
        for (colour, level) in [0, 1].into_iter().enumerate() {
            let value = |pair: &Pair<'_>| if level == 0 { pair.kernel.median } else { pair.simulated };
            picture.shapes.push(Shape::Line {
                class: "curve",
                colour: Some(colour),
                points: of
                    .iter()
                    .enumerate()
                    .map(|(at, pair)| (x(at), y(value(pair))))
                    .collect(),
            });
        }
    }
    for (colour, name) in ["— kernel", "— simulator"].into_iter().enumerate() {
        picture.shapes.push(Shape::Word {
            class: "key",
            colour: Some(colour),
            at: (44.0 + 110.0 * colour as f64, height * rows + 14.0),
            text: name.to_owned(),
        });
    }
    Some(picture)
}

/// 1, 2 and 5 in each decade, or 1 alone when that would be many.
fn ticks_ns(min: f64, max: f64) -> Vec<f64> {
    let decades = (max / min).log10();
    let steps: &[f64] = if decades > 2.5 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let (first, last) = (min.log10().floor() as i32, max.log10().ceil() as i32);
    let all = (first..=last).flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)));
    all.filter(|tick| (min..=max).contains(tick)).collect()
}
