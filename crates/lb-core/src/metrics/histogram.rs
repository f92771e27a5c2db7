//! A log-linear histogram of durations: eight buckets per power of two, from 1 µs to 134 s.
//!
//! A bucket is at most an eighth as wide as its lower bound, so a value read back from its middle is within 6.25 %.
//! Histograms of one layout can be added up, hence quantiles of a pool are computed from the sum of its backends'
//! and never averaged. Powers of two are bucket bounds, which makes the Prometheus buckets exact.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const SUB_BITS: u32 = 3;
const SUB: u64 = 1 << SUB_BITS;
/// The largest value told apart: 2^27 µs, 134 s. Longer ones are counted in the last bucket.
const MAX_US: u64 = (1 << 27) - 1;
const BUCKETS: usize = ((27 - SUB_BITS as usize) + 1) << SUB_BITS;

/// Upper bounds of the buckets shown to Prometheus are 2^k µs for k in this range: 64 µs to 67 s.
const SHOWN: std::ops::RangeInclusive<u32> = 6..=26;

fn index(us: u64) -> usize {
    let us = us.min(MAX_US);
    if us < SUB {
        return us as usize;
    }
    let exponent = us.ilog2();
    let sub = (us >> (exponent - SUB_BITS)) & (SUB - 1);
    (((exponent - SUB_BITS + 1) << SUB_BITS) as usize) + sub as usize
}

/// Lower bound in µs of bucket `index`; that of the next one is its upper bound.
fn lower_us(index: usize) -> u64 {
    let (octave, sub) = ((index >> SUB_BITS) as u32, index as u64 & (SUB - 1));
    if octave == 0 { sub } else { (SUB + sub) << (octave - 1) }
}

/// Which of `count` sorted values is the `q` quantile, from 1. The product of two exact numbers may come out a little
/// above a whole number (0.29 × 100), and must not be rounded up to the next.
fn rank(q: f64, count: u64) -> u64 {
    let exact = q * count as f64;
    ((exact * (1.0 - 1e-12)).ceil() as u64).clamp(1, count.max(1))
}

/// A histogram with one writer. 1.6 KiB.
///
/// The sum comes first: whoever has one behind other counters of his has it on the same line of the cache.
#[derive(Debug)]
#[repr(C)]
pub struct Histogram {
    sum_us: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: array::from_fn(|_| AtomicU64::new(0)), sum_us: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Counts one duration. Only the histogram's one writer may call this.
    // Not inlined, so that its cost can be counted (`cargo xtask test --only gates`): five instructions per request.
    #[inline(never)]
    pub fn record(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        bump(&self.buckets[index(us)], 1);
        bump(&self.sum_us, us);
    }
}

/// Adds without a locked instruction; sound only for a single writer.
pub(super) fn bump(cell: &AtomicU64, by: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

/// A histogram read out: plain numbers that can be added and subtracted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    buckets: Box<[u64; BUCKETS]>,
    sum_us: u64,
}

impl Default for Counts {
    fn default() -> Self {
        Self { buckets: Box::new([0; BUCKETS]), sum_us: 0 }
    }
}

impl Counts {
    /// Adds what `histogram` holds now.
    pub fn add(&mut self, histogram: &Histogram) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *sum += bucket.load(Ordering::Relaxed);
        }
        self.sum_us += histogram.sum_us.load(Ordering::Relaxed);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.buckets.fill(0);
        self.sum_us = 0;
    }

    /// Adds what was counted between two readings of the same histograms.
    pub fn add_between(&mut self, earlier: &Self, later: &Self) {
        for ((sum, earlier), later) in self.buckets.iter_mut().zip(earlier.buckets.iter()).zip(later.buckets.iter()) {
            *sum += later.saturating_sub(*earlier);
        }
        self.sum_us += later.sum_us.saturating_sub(earlier.sum_us);
    }

    /// Adds another one.
    pub fn merge(&mut self, other: &Self) {
        for (sum, bucket) in self.buckets.iter_mut().zip(other.buckets.iter()) {
            *sum += bucket;
        }
        self.sum_us += other.sum_us;
    }

    /// What was counted since `earlier`, a former reading of the same histograms.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut counts = Self::default();
        counts.add_between(earlier, self);
        counts
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Their sum in seconds.
    pub fn sum_seconds(&self) -> f64 {
        self.sum_us as f64 / 1e6
    }

    /// The `q` quantile (0 to 1) in milliseconds, within 6.25 %; `None` when nothing was counted.
    pub fn quantile_ms(&self, q: f64) -> Option<f64> {
        let count = self.count();
        let rank = rank(q, count);
        let mut seen = 0;
        let at = self.buckets.iter().position(|bucket| {
            seen += bucket;
            seen >= rank && count > 0
        })?;
        let (low, high) = (lower_us(at), lower_us(at + 1));
        Some((low + high) as f64 / 2.0 / 1000.0)
    }

    /// `(upper bound in seconds, how many were below it)`, for Prometheus; the rest is above the last bound.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        SHOWN.map(|power| {
            let bound = index(1 << power);
            ((1_u64 << power) as f64 / 1e6, self.buckets[..bound].iter().sum())
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_tile_the_range_without_gaps() {
        for i in 0..BUCKETS - 1 {
            assert_eq!(index(lower_us(i)), i);
            assert_eq!(index(lower_us(i + 1) - 1), i);
        }
        assert_eq!(index(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn ranks_are_those_of_whole_numbers() {
        for count in 1..=500_u64 {
            for percent in 1..=100_u64 {
                let exact = (count * percent).div_ceil(100).max(1);
                assert_eq!(rank(percent as f64 / 100.0, count), exact, "{percent} % of {count}");
            }
        }
    }

    #[test]
    fn nothing_counted_has_no_quantile() {
        assert_eq!(Counts::default().quantile_ms(0.5), None);
    }

    #[test]
    fn shown_bounds_are_exact() {
        let histogram = Histogram::default();
        for us in [63, 64, 1023, 1024, 200_000_000] {
            histogram.record(Duration::from_micros(us));
        }
        let mut counts = Counts::default();
        counts.add(&histogram);
        let below = |bound: f64| counts.cumulative().find(|(upper, _)| *upper == bound).unwrap().1;
        assert_eq!((below(0.000_064), below(0.001_024), below(67.108_864)), (1, 3, 4));
        assert_eq!(counts.count(), 5);
    }

    proptest! {
        #[test]
        fn quantiles_are_within_the_promised_error(
            mut values in prop::collection::vec(8..100_000_000_u64, 1..200),
            percent in 1..=100_usize,
        ) {
            let histogram = Histogram::default();
            for us in &values {
                histogram.record(Duration::from_micros(*us));
            }
            let mut counts = Counts::default();
            counts.add(&histogram);
            values.sort_unstable();
            let rank = (values.len() * percent).div_ceil(100).clamp(1, values.len());
            let exact_ms = values[rank - 1] as f64 / 1000.0;
            let read_ms = counts.quantile_ms(percent as f64 / 100.0).unwrap();
            prop_assert!((read_ms - exact_ms).abs() <= exact_ms * 0.0626, "{read_ms} for {exact_ms}");
        }
    }
}
