//! How long things take: a histogram that many threads note into without waiting for each other, and what `status` shows of it.
//!
//! Counts what it is told and decides nothing. Noted into by [`crate::epoch`], where requests can be kept waiting.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Each doubling is cut into four, so that a percentile is at most a quarter too high.
const STEPS: u64 = 4;
/// Enough for 2⁴¹ µs, which is 25 days; what takes longer counts as that.
const BUCKETS: usize = 160;

/// A histogram of durations in microseconds. Its size is fixed, and nobody waits for anybody.
pub struct Durations {
    buckets: [AtomicU64; BUCKETS],
    max_us: AtomicU64,
}

/// What a histogram has come to. The JSON field names are a contract with scripts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Spread {
    /// How many were noted.
    pub count: u64,
    /// Half of them took at most this many microseconds (at most a quarter too high); 0 if there were none.
    pub p50_us: u64,
    /// The same of 99 in 100.
    pub p99_us: u64,
    /// The longest, microseconds.
    pub max_us: u64,
}

impl Default for Durations {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            max_us: AtomicU64::new(0),
        }
    }
}

impl Durations {
    /// Notes one.
    pub fn note(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(micros)].fetch_add(1, Ordering::Relaxed);
        self.max_us.fetch_max(micros, Ordering::Relaxed);
    }

    /// What has been noted so far. What is noted meanwhile may be missing.
    pub fn spread(&self) -> Spread {
        let counts: Vec<u64> = self
            .buckets
            .iter()
            .map(|bucket| bucket.load(Ordering::Relaxed))
            .collect();
        let count = counts.iter().sum();
        let max_us = self.max_us.load(Ordering::Relaxed);
        let most_of = |percent: u64| {
            // The smallest number of them that is `percent` of all.
            let enough = u64::div_ceil(count * percent, 100);
            let mut so_far = 0;
            let reached = counts.iter().position(|&here| {
                so_far += here;
                so_far >= enough
            });
            reached.map_or(0, |bucket| longest_in(bucket).min(max_us))
        };
        Spread {
            count,
            p50_us: most_of(50),
            p99_us: most_of(99),
            max_us,
        }
    }
}

/// Where a duration is counted: 0 to 3 µs each by themselves, from there on four to each doubling.
fn bucket(micros: u64) -> usize {
    if micros < STEPS {
        return micros as usize;
    }
    let doublings = u64::from(micros.ilog2()) - u64::from(STEPS.ilog2());
    let step = (micros >> doublings) - STEPS;
    let bucket = STEPS + doublings * STEPS + step;
    (bucket as usize).min(BUCKETS - 1)
}

/// The longest duration that is counted in a bucket, microseconds.
fn longest_in(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let (doublings, step) = ((bucket - STEPS) / STEPS, bucket % STEPS);
    ((STEPS + step + 1) << doublings) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    #[test]
    fn every_duration_is_counted_where_it_belongs_and_at_most_a_quarter_too_high() {
        let mut last = 0;
        for exponent in 0..40 {
            for offset in [0, 1, 2, 3] {
                let duration = (1_u64 << exponent) + offset;
                let bucket = bucket(duration);
                let longest = longest_in(bucket);
                assert!(longest >= duration, "{duration} in {bucket}");
                assert!(longest <= duration + duration / 4, "{duration} in {bucket}");
                if bucket > 0 {
                    assert!(longest_in(bucket - 1) < duration, "{duration} in {bucket}");
                }
                last = last.max(bucket);
            }
        }
        assert!(last < BUCKETS);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn nothing_noted_is_nothing() {
        assert_eq!(Durations::default().spread(), Spread::default());
    }

    #[test]
    fn one_in_a_hundred_is_beyond_the_99th_percentile_and_two_are_not() {
        let durations = Durations::default();
        for _ in 0..99 {
            durations.note(micros(2));
        }
        durations.note(micros(70_000));
        let expected = Spread {
            count: 100,
            p50_us: 2,
            p99_us: 2,
            max_us: 70_000,
        };
        assert_eq!(durations.spread(), expected);
        durations.note(micros(60_000));
        let spread = durations.spread();
        assert!((60_000..=70_000).contains(&spread.p99_us), "{spread:?}");
        assert_eq!((spread.p50_us, spread.max_us), (2, 70_000));
    }

    #[test]
    fn what_takes_for_ever_is_counted_too() {
        let durations = Durations::default();
        durations.note(Duration::MAX);
        let spread = durations.spread();
        assert_eq!((spread.count, spread.max_us), (1, u64::MAX));
    }
}
