//! Median, minimum and maximum of a few samples.

use serde::{Deserialize, Serialize};

/// What is reported of the samples of all rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// How many.
    pub n: usize,
}

impl Summary {
    /// None when there is no sample.
    pub fn of(samples: impl IntoIterator<Item = f64>) -> Option<Summary> {
        let mut s: Vec<f64> = samples.into_iter().collect();
        s.sort_by(f64::total_cmp);
        let (min, max) = (*s.first()?, *s.last()?);
        let median = f64::midpoint(*s.get((s.len() - 1) / 2)?, *s.get(s.len() / 2)?);
        Some(Summary { median, min, max, n: s.len() })
    }
}

/// The smallest sample that at least the fraction `q` of them do not exceed. `sorted` must be.
pub fn quantile(sorted: &[u64], q: f64) -> Option<u64> {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary() {
        assert_eq!(Summary::of([]), None);
        assert_eq!(Summary::of([3.0]), Some(Summary { median: 3.0, min: 3.0, max: 3.0, n: 1 }));
        assert_eq!(Summary::of([3.0, 1.0, 2.0]), Some(Summary { median: 2.0, min: 1.0, max: 3.0, n: 3 }));
        assert_eq!(Summary::of([4.0, 1.0, 2.0, 3.0]).map(|s| s.median), Some(2.5));
    }

    #[test]
    fn quantiles() {
        let v: Vec<u64> = (1..=100).collect();
        assert_eq!(
            (quantile(&v, 0.5), quantile(&v, 0.99), quantile(&v, 1.0)),
            (Some(50), Some(99), Some(100))
        );
        assert_eq!((quantile(&[7], 0.0), quantile(&[], 0.5)), (Some(7), None));
    }
}
