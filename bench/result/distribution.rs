//! A histogram in short: the figures and the percentile spectrum that go into `result.json`. The counts themselves are in
//! the `.hlog` file; merging is done there, never by averaging these.

use hdrhistogram::{Counter, Histogram};
use serde::{Deserialize, Serialize};

/// Quantiles of a spectrum: even steps on a log-nines axis. The spectrum of a distribution stops at the first one above
/// `1 - 1/count` and ends with the maximum at quantile 1.
pub const SPECTRUM_QUANTILES: &[f64] = &[
    0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.9925,
    0.995, 0.996, 0.997, 0.998, 0.9985, 0.999, 0.99925, 0.9995, 0.9997, 0.9998, 0.9999, 0.99995, 0.99998, 0.99999,
    0.999995, 0.999998, 0.999999, 0.9999999,
];

/// One point of a percentile spectrum; in JSON the pair `[quantile, value_ns]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "(f64, u64)", into = "(f64, u64)")]
pub struct SpectrumPoint {
    /// 0 to 1.
    pub quantile: f64,
    /// The smallest value that this share of samples does not exceed.
    pub value_ns: u64,
}

impl From<(f64, u64)> for SpectrumPoint {
    fn from((quantile, value_ns): (f64, u64)) -> SpectrumPoint {
        SpectrumPoint { quantile, value_ns }
    }
}

impl From<SpectrumPoint> for (f64, u64) {
    fn from(point: SpectrumPoint) -> (f64, u64) {
        (point.quantile, point.value_ns)
    }
}

/// Figures of one histogram. All zero if it is empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distribution {
    /// Samples.
    pub count: u64,
    /// Smallest sample.
    pub min_ns: u64,
    /// Arithmetic mean.
    pub mean_ns: f64,
    /// Median.
    pub p50_ns: u64,
    /// 90 % of samples do not exceed it.
    pub p90_ns: u64,
    /// 99 %.
    pub p99_ns: u64,
    /// 99.9 %.
    pub p999_ns: u64,
    /// 99.99 %.
    pub p9999_ns: u64,
    /// Largest sample.
    pub max_ns: u64,
    /// The percentile spectrum, rising; empty if there are no samples.
    pub spectrum: Vec<SpectrumPoint>,
}

impl Distribution {
    /// The figures of a histogram of nanoseconds.
    pub fn of<C: Counter>(histogram: &Histogram<C>) -> Distribution {
        let count = histogram.len();
        if count == 0 {
            return Distribution::default();
        }
        let at = |quantile: f64| histogram.value_at_quantile(quantile).min(histogram.max());
        let mut spectrum = Vec::with_capacity(SPECTRUM_QUANTILES.len() + 1);
        for &quantile in SPECTRUM_QUANTILES {
            spectrum.push(SpectrumPoint { quantile, value_ns: at(quantile) });
            #[expect(clippy::cast_precision_loss, reason = "a count of samples is far below 2^53")]
            let is_last = (1.0 - quantile) * (count as f64) < 1.0;
            if is_last {
                break;
            }
        }
        spectrum.push(SpectrumPoint { quantile: 1.0, value_ns: histogram.max() });
        Distribution {
            count,
            min_ns: histogram.min(),
            mean_ns: histogram.mean(),
            p50_ns: at(0.5),
            p90_ns: at(0.9),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            p9999_ns: at(0.9999),
            max_ns: histogram.max(),
            spectrum,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: figures are those of the histogram, and the spectrum rises and stops where samples end. Method: 1,000 known
    /// values, and none.
    #[test]
    fn figures_of_known_values() {
        let mut histogram = Histogram::<u32>::new_with_bounds(100, 3_600_000_000_000, 3).unwrap();
        for value in 1..=1000_u64 {
            histogram.record(value * 1000).unwrap();
        }
        let figures = Distribution::of(&histogram);
        assert_eq!(figures.count, 1000);
        assert!(figures.p50_ns.abs_diff(500_000) < 1000, "{}", figures.p50_ns);
        assert!(figures.p99_ns.abs_diff(990_000) < 1000);
        assert_eq!(figures.spectrum.last().map(|point| point.value_ns), Some(figures.max_ns));
        assert!(figures.spectrum.is_sorted_by_key(|point| point.value_ns));
        assert!(figures.spectrum.len() < 30);
        histogram.reset();
        assert_eq!(Distribution::of(&histogram), Distribution::default());
    }
}
