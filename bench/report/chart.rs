//! One chart as SVG: a frame with two axes, lines, points and notes. It knows nothing of runs.
//!
//! Colours are classes (`s0` … `s5`, `floor`), so that one style sheet serves light and dark. A file of its own gets the
//! style inside; in the page the page's style applies.

use std::fmt::Write as _;

use maud::{Markup, PreEscaped, html};

use super::axis::{Axis, Quantity};

/// Width of the drawing.
const WIDTH: f64 = 760.0;
/// A note that has less than this at its right stands at the left of its line.
const NOTE_ROOM: f64 = 60.0;
/// Height of the drawing.
const HEIGHT: f64 = 410.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 42.0;
const BOTTOM: f64 = 92.0;
/// Entries of the legend in one row.
const LEGEND_COLUMNS: usize = 3;
/// Characters of one entry of the legend.
const LEGEND_CHARACTERS: usize = 34;

/// The style of charts, also part of the page.
pub const STYLE: &str = include_str!("chart.css");

/// Points that belong together.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Text in the legend.
    pub label: String,
    /// Colour and stroke, as classes of the style sheet.
    pub class: String,
    /// In the order in which they are joined.
    pub points: Vec<(f64, f64)>,
    /// Points that get a hollow mark: steps that failed.
    pub hollow: Vec<(f64, f64)>,
    /// Points that get a filled mark.
    pub filled: Vec<(f64, f64)>,
}

/// A vertical line with a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// Where on the x axis.
    pub x: f64,
    /// What happened.
    pub text: String,
}

/// A chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// File name without extension, also the id in the page.
    pub name: String,
    /// First line; names the durability class.
    pub title: String,
    /// Text below the x axis.
    pub x_label: String,
    /// Text above the y axis.
    pub y_label: String,
    /// Horizontal axis.
    pub x_axis: Axis,
    /// Values of the x axis.
    pub x_quantity: Quantity,
    /// Vertical axis.
    pub y_axis: Axis,
    /// Values of the y axis.
    pub y_quantity: Quantity,
    /// Lines, in the order of the legend.
    pub lines: Vec<Line>,
    /// Notes.
    pub notes: Vec<Note>,
}

impl Chart {
    fn x(&self, value: f64) -> f64 {
        LEFT + self.x_axis.position(value) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.y_axis.position(value) * (HEIGHT - TOP - BOTTOM)
    }

    fn path(&self, points: &[(f64, f64)]) -> String {
        let mut path = String::new();
        for (index, (x, y)) in points.iter().enumerate() {
            let command = if index == 0 { 'M' } else { 'L' };
            // Writing to a string cannot fail.
            let _ = write!(path, "{command}{:.1} {:.1}", self.x(*x), self.y(*y));
        }
        path
    }

    /// The drawing without a style of its own.
    pub fn markup(&self) -> Markup {
        let bottom = HEIGHT - BOTTOM;
        html! {
            svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" aria-label=(self.title)
                viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } {
                title { (self.title) }
                text class="title" x=(LEFT) y="14" { (self.title) }
                text class="axis" x=(LEFT) y=(TOP - 8.0) { (self.y_label) }
                @for mark in self.x_axis.marks(self.x_quantity) {
                    @let x = LEFT + mark.at * (WIDTH - LEFT - RIGHT);
                    line class="grid" x1=(fixed(x)) x2=(fixed(x)) y1=(TOP) y2=(bottom) {}
                    text class="mark" text-anchor="middle" x=(fixed(x)) y=(bottom + 15.0) { (mark.label) }
                }
                @for mark in self.y_axis.marks(self.y_quantity) {
                    @let y = bottom - mark.at * (HEIGHT - TOP - BOTTOM);
                    line class="grid" x1=(LEFT) x2=(WIDTH - RIGHT) y1=(fixed(y)) y2=(fixed(y)) {}
                    text class="mark" text-anchor="end" x=(LEFT - 6.0) y=(fixed(y + 4.0)) { (mark.label) }
                }
                text class="axis" text-anchor="end" x=(WIDTH - RIGHT) y=(bottom + 31.0) { (self.x_label) }
                @for (index, note) in self.notes.iter().enumerate() {
                    @let x = self.x(note.x);
                    line class="note" x1=(fixed(x)) x2=(fixed(x)) y1=(TOP) y2=(bottom) {}
                    // Neighbours are written at different heights so that they stay readable.
                    @let height = fixed(TOP + 11.0 + 12.0 * (index % 4) as f64);
                    @if x > WIDTH - RIGHT - NOTE_ROOM {
                        text class="note" text-anchor="end" x=(fixed(x - 3.0)) y=(height) { (note.text) }
                    } @else {
                        text class="note" x=(fixed(x + 3.0)) y=(height) { (note.text) }
                    }
                }
                @for line in &self.lines {
                    path class={ "line " (line.class) } d=(self.path(&line.points)) {}
                    @for (x, y) in &line.filled {
                        circle class={ "filled " (line.class) } cx=(fixed(self.x(*x))) cy=(fixed(self.y(*y))) r="3.5" {}
                    }
                    @for (x, y) in &line.hollow {
                        circle class={ "hollow " (line.class) } cx=(fixed(self.x(*x))) cy=(fixed(self.y(*y))) r="3.5" {}
                    }
                }
                @for (index, line) in self.lines.iter().enumerate() {
                    @let x = LEFT + (index % LEGEND_COLUMNS) as f64 * (WIDTH - LEFT - RIGHT) / LEGEND_COLUMNS as f64;
                    @let y = bottom + 50.0 + 16.0 * (index / LEGEND_COLUMNS) as f64;
                    line class={ "line " (line.class) } x1=(fixed(x)) x2=(fixed(x + 18.0)) y1=(y - 4.0) y2=(y - 4.0) {}
                    text class="legend" x=(fixed(x + 23.0)) y=(y) { (shortened(&line.label)) }
                }
            }
        }
    }

    /// A file of its own.
    pub fn file(&self) -> String {
        let drawing = self.markup().into_string();
        let style = html! { style { (PreEscaped(STYLE)) } }.into_string();
        match drawing.split_once('>') {
            Some((head, rest)) => format!("{head}>{style}{rest}\n"),
            None => drawing,
        }
    }
}

fn fixed(value: f64) -> String {
    format!("{value:.1}")
}

fn shortened(label: &str) -> String {
    if label.chars().count() <= LEGEND_CHARACTERS {
        return label.to_owned();
    }
    label.chars().take(LEGEND_CHARACTERS - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a chart is drawn inside its frame, text is escaped, and the file carries its style. Method: one line with
    /// values beyond the axes, a note in the middle and one at the end, and a title with special characters.
    #[test]
    fn drawing() {
        let chart = Chart {
            name: "c".to_owned(),
            title: "a < b & c".to_owned(),
            x_label: "rate".to_owned(),
            y_label: "latency".to_owned(),
            x_axis: Axis::from_zero([100.0]),
            x_quantity: Quantity::Rate,
            y_axis: Axis::logarithmic([1e3, 1e6]),
            y_quantity: Quantity::Duration,
            lines: vec![Line {
                label: "x".repeat(80),
                class: "s0".to_owned(),
                points: vec![(-5.0, 1.0), (500.0, 1e12)],
                hollow: vec![(50.0, 1e4)],
                filled: Vec::new(),
            }],
            notes: vec![Note { x: 3.0, text: "roll".to_owned() }, Note { x: 100.0, text: "late".to_owned() }],
        };
        let text = chart.file();
        assert!(text.contains("a &lt; b &amp; c"));
        assert!(text.contains(&format!("M{LEFT:.1} {:.1}L{:.1} {TOP:.1}", HEIGHT - BOTTOM, WIDTH - RIGHT)), "{text}");
        let is_anchored = |note: &str| {
            let (before, _) = text.split_once(&format!(">{note}<")).unwrap();
            before[before.rfind("<text").unwrap()..].contains("text-anchor=\"end\"")
        };
        assert!(is_anchored("late") && !is_anchored("roll"), "notes at the right end stay inside: {text}");
        assert!(text.contains("<style>") && text.contains("…"));
    }
}
