//! Axes as pure functions: a value becomes a position between 0 and 1, and an axis knows its marks.
//!
//! All systems of a plot share one axis, so the axis is made from all of their values before any of them is drawn.

use crate::units;

/// How values are spread along an axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Axis {
    /// Evenly.
    Linear {
        /// Value at the start.
        low: f64,
        /// Value at the end.
        high: f64,
    },
    /// By powers of ten; both ends are such powers times 1, 2 or 5.
    Logarithmic {
        /// Value at the start, above 0.
        low: f64,
        /// Value at the end.
        high: f64,
    },
    /// Quantiles by their nines: 0.9, 0.99, 0.999 are equally far apart.
    Nines {
        /// Nines at the end.
        nines: f64,
    },
}

/// A mark of an axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    /// Position, 0 to 1.
    pub at: f64,
    /// Text beside it.
    pub label: String,
}

/// What the values of an axis are, for its labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// Nanoseconds.
    Duration,
    /// Operations per second.
    Rate,
    /// Seconds of a run.
    Second,
    /// Share of samples.
    Share,
}

impl Quantity {
    fn label(self, value: f64) -> String {
        match self {
            Quantity::Duration => short_duration(value),
            Quantity::Rate => units::short_count(value),
            // Short runs have marks between seconds.
            Quantity::Second => {
                if (value - value.round()).abs() < 0.01 {
                    format!("{value:.0}")
                } else {
                    format!("{value:.1}")
                }
            }
            Quantity::Share => format!("{:.0} %", value * 100.0),
        }
    }
}

fn short_duration(nanoseconds: f64) -> String {
    let (value, unit) = match nanoseconds {
        value if value < 999.5 => (value, "ns"),
        value if value < 999.5e3 => (value / 1e3, "µs"),
        value if value < 999.5e6 => (value / 1e6, "ms"),
        value => (value / 1e9, "s"),
    };
    format!("{value:.0} {unit}")
}

/// The next step of 1, 2, 5, 10 … at or below (`is_up` false) or above a positive value.
fn round_to_step(value: f64, is_up: bool) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    // Rounding of the logarithm must not move a value that is a step already.
    let fraction = value / power;
    let step = if is_up {
        steps.into_iter().find(|step| *step >= fraction * (1.0 - 1e-9)).unwrap_or(10.0)
    } else {
        steps.into_iter().rfind(|step| *step <= fraction * (1.0 + 1e-9)).unwrap_or(1.0)
    };
    step * power
}

impl Axis {
    /// A logarithmic axis around all positive values; a decade around 1 if there are none.
    pub fn logarithmic(values: impl IntoIterator<Item = f64>) -> Axis {
        let (low, high) = range(values.into_iter().filter(|value| *value > 0.0)).unwrap_or((1.0, 10.0));
        let low = round_to_step(low, false);
        let high = round_to_step(high, true);
        Axis::Logarithmic { low, high: if high > low { high } else { low * 10.0 } }
    }

    /// An even axis from 0 past the largest value.
    pub fn from_zero(values: impl IntoIterator<Item = f64>) -> Axis {
        let (_, high) = range(values).unwrap_or((0.0, 1.0));
        Axis::Linear { low: 0.0, high: if high > 0.0 { high * 1.03 } else { 1.0 } }
    }

    /// An axis of nines that ends behind the last quantile below 1.
    pub fn nines(quantiles: impl IntoIterator<Item = f64>) -> Axis {
        let (_, high) = range(quantiles.into_iter().filter(|quantile| *quantile < 1.0)).unwrap_or((0.0, 0.9));
        Axis::Nines { nines: (-(1.0 - high).log10()).max(2.0) * 1.02 }
    }

    /// Where a value lies, 0 to 1; values outside are moved to the border.
    pub fn position(self, value: f64) -> f64 {
        let at = match self {
            Axis::Linear { low, high } => (value - low) / (high - low),
            Axis::Logarithmic { low, high } => (value.max(low) / low).log10() / (high / low).log10(),
            Axis::Nines { .. } if value >= 1.0 => 1.0,
            Axis::Nines { nines } => -(1.0 - value).log10() / nines,
        };
        at.clamp(0.0, 1.0)
    }

    /// The marks, at most about ten.
    pub fn marks(self, quantity: Quantity) -> Vec<Mark> {
        let mark = |value: f64, label: String| Mark { at: self.position(value), label };
        match self {
            Axis::Linear { low, high } => {
                let step = round_to_step((high - low) / 7.0, true);
                let mut marks = Vec::new();
                let mut value = low;
                while value <= high {
                    marks.push(mark(value, quantity.label(value)));
                    value += step;
                }
                marks
            }
            Axis::Logarithmic { low, high } => {
                let decades = (high / low).log10();
                let steps: &[f64] = if decades <= 3.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
                let mut marks = Vec::new();
                let mut power = 10_f64.powf(low.log10().floor());
                while power <= high {
                    for value in steps.iter().map(|step| step * power) {
                        if value >= low * (1.0 - 1e-9) && value <= high * (1.0 + 1e-9) {
                            marks.push(mark(value, quantity.label(value)));
                        }
                    }
                    power *= 10.0;
                }
                marks
            }
            Axis::Nines { nines } => {
                let mut marks = vec![mark(0.0, "0".to_owned()), mark(0.5, "50 %".to_owned())];
                for count in 1..=8_usize {
                    if count as f64 <= nines {
                        let quantile = 1.0 - 10_f64.powi(-(count as i32));
                        let decimals = count.saturating_sub(2);
                        marks.push(mark(quantile, format!("{:.decimals$} %", quantile * 100.0)));
                    }
                }
                marks
            }
        }
    }
}

fn range(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    values.into_iter().fold(None, |range, value| {
        Some(range.map_or((value, value), |(low, high): (f64, f64)| (low.min(value), high.max(value))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: ends enclose all values, marks lie on the axis in rising order, and nines are evenly spread. Method: a few
    /// axes of each kind, the empty one too.
    #[test]
    fn axes() {
        let latency = Axis::logarithmic([34_000.0, 7_200_000.0]);
        assert_eq!(latency, Axis::Logarithmic { low: 20_000.0, high: 10_000_000.0 });
        assert_eq!(latency.position(20_000.0), 0.0);
        assert_eq!(latency.position(1e12), 1.0);
        let labels: Vec<String> = latency.marks(Quantity::Duration).into_iter().map(|mark| mark.label).collect();
        assert_eq!(labels.first().map(String::as_str), Some("20 µs"));
        assert_eq!(labels.last().map(String::as_str), Some("10 ms"));
        assert_eq!(Axis::logarithmic([1000.0, 1000.0]), Axis::Logarithmic { low: 1000.0, high: 10_000.0 });
        assert_eq!(Axis::logarithmic([]), Axis::Logarithmic { low: 1.0, high: 10.0 });
        let nines = Axis::nines([0.5, 0.999, 1.0]);
        assert!((nines.position(0.99) - 2.0 * nines.position(0.9)).abs() < 1e-9);
        for axis in [latency, nines, Axis::from_zero([3.0, 80_000.0]), Axis::from_zero([])] {
            let marks = axis.marks(Quantity::Rate);
            assert!((2..=12).contains(&marks.len()), "{axis:?} {marks:?}");
            assert!(marks.is_sorted_by(|a, b| a.at < b.at), "{axis:?} {marks:?}");
        }
    }
}
