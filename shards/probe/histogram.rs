//! Histograms of fixed log-linear buckets: eight per power of two, so a value is known to 12.5 %.
//!
//! Written by one thread with plain loads and stores of relaxed atomics, read by any.

use std::sync::atomic::{AtomicU64, Ordering};

/// Buckets per power of two, as a power of two.
const PRECISION_BITS: u32 = 3;
const STEPS: usize = 1 << PRECISION_BITS;
/// Values of this many bits and more share the last bucket: 2^41 ns are 36 minutes.
const RANGE_BITS: u32 = 41;
const BUCKETS: usize = (RANGE_BITS - PRECISION_BITS + 1) as usize * STEPS;

/// One histogram of one thread: 2.5 KiB.
pub(crate) struct Buckets {
    counts: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

/// Adds to a cell that only this thread writes: no locked instruction.
pub(crate) fn add_own(cell: &AtomicU64, amount: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}

/// The bucket of a value.
fn bucket_of(value: u64) -> usize {
    if value < STEPS as u64 {
        return value as usize;
    }
    let magnitude = value.ilog2();
    if magnitude >= RANGE_BITS {
        return BUCKETS - 1;
    }
    let shift = magnitude - PRECISION_BITS;
    // `value >> shift` lies in [STEPS, 2 * STEPS).
    (shift as usize + 1) * STEPS + (value >> shift) as usize - STEPS
}

/// One past the largest value of a bucket.
fn bucket_end(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64 + 1;
    }
    let shift = bucket / STEPS - 1;
    ((bucket % STEPS + STEPS + 1) as u64) << shift
}

impl Buckets {
    pub(crate) fn new() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; BUCKETS], sum: AtomicU64::new(0) }
    }

    /// Owner only: `count` values of the same size.
    pub(crate) fn record(&self, value: u64, count: u64) {
        add_own(&self.counts[bucket_of(value)], count);
        add_own(&self.sum, value.wrapping_mul(count));
    }

    pub(crate) fn add_to(&self, snapshot: &mut HistogramSnapshot) {
        for (total, count) in snapshot.counts.iter_mut().zip(&self.counts) {
            *total += count.load(Ordering::Relaxed);
        }
        snapshot.sum = snapshot.sum.wrapping_add(self.sum.load(Ordering::Relaxed));
    }
}

/// The values of a histogram at one time, over all threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistogramSnapshot {
    counts: Vec<u64>,
    sum: u64,
}

impl Default for HistogramSnapshot {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], sum: 0 }
    }
}

impl HistogramSnapshot {
    /// Values recorded.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Sum of all values.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// Values below `2^bits`.
    pub fn count_below_power(&self, bits: u32) -> u64 {
        let buckets = if bits >= RANGE_BITS { BUCKETS } else { bucket_of(1 << bits) };
        self.counts[..buckets].iter().sum()
    }

    /// Values below `value`, as far as the buckets tell: those of its own bucket do not count.
    pub fn count_below(&self, value: u64) -> u64 {
        self.counts[..bucket_of(value)].iter().sum()
    }

    /// The value that `per_mille` thousandths of all values do not exceed, rounded up to the end of its bucket; 0 without
    /// values.
    pub fn quantile(&self, per_mille: u64) -> u64 {
        let count = self.count();
        let rank = (u128::from(count) * u128::from(per_mille.min(1000))).div_ceil(1000).max(1);
        let mut seen = 0u128;
        for (bucket, &in_bucket) in self.counts.iter().enumerate() {
            seen += u128::from(in_bucket);
            if seen >= rank {
                return bucket_end(bucket) - 1;
            }
        }
        0
    }

    /// What was recorded since an earlier snapshot.
    pub fn since(&self, earlier: &Self) -> Self {
        let counts = self.counts.iter().zip(&earlier.counts).map(|(now, then)| now.saturating_sub(*then)).collect();
        Self { counts, sum: self.sum.wrapping_sub(earlier.sum) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_cover_all_values() {
        // Goal: each value lies in its bucket, whose width is an eighth of it. Method: borders of all powers of two.
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        for bits in 0..RANGE_BITS {
            for value in [(1u64 << bits) - 1, 1 << bits, (1 << bits) + 1, (1 << bits) + (1 << bits) / 3] {
                let bucket = bucket_of(value);
                let begin = if bucket == 0 { 0 } else { bucket_end(bucket - 1) };
                assert!(begin <= value && value < bucket_end(bucket), "{value} in {bucket}");
                assert!(bucket_end(bucket) - begin <= (value / 8).max(1), "{value}");
            }
        }
    }

    #[test]
    fn quantiles_and_differences() {
        // Goal: quantiles, sums and cumulative counts. Method: the values 1..=1000, then one large value more.
        let buckets = Buckets::new();
        (1..=1000).for_each(|value| buckets.record(value, 1));
        let mut first = HistogramSnapshot::default();
        buckets.add_to(&mut first);
        assert_eq!((first.count(), first.sum()), (1000, 500_500));
        assert_eq!(first.count_below_power(9), 511);
        assert!((500..=575).contains(&first.quantile(500)));
        assert!((990..=1023).contains(&first.quantile(990)));
        assert_eq!(HistogramSnapshot::default().quantile(990), 0);
        buckets.record(u64::MAX, 1);
        let mut second = HistogramSnapshot::default();
        buckets.add_to(&mut second);
        assert_eq!(second.since(&first).count(), 1);
    }
}
