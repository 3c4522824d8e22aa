//! Figures from samples: order statistics only, none that the number of samples does not bear. Knows no trials.

use serde::Serialize;

/// A 99th percentile of fewer samples would be their maximum under another name.
const FOR_P99: usize = 100;

/// What a set of durations in milliseconds comes to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    pub count: usize,
    pub min: f64,
    pub p50: f64,
    pub max: f64,
    /// Only from 100 samples on.
    pub p99: Option<f64>,
}

impl Summary {
    /// `None` when there is no sample.
    pub fn of(samples: &[f64]) -> Option<Summary> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let p99 = (sorted.len() >= FOR_P99).then(|| nearest_rank(&sorted, 99));
        Some(Summary { count: sorted.len(), min, p50: median(&sorted), max, p99 })
    }
}

/// Of sorted samples, at least one; the mean of the two in the middle when their number is even.
fn median(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 }
}

/// The smallest sample that at least `percent` of all do not exceed.
fn nearest_rank(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted[rank - 1]
}

/// Index of the sample nearest to the median; the first of several.
pub fn nearest_to_median(samples: &[f64]) -> Option<usize> {
    let p50 = Summary::of(samples)?.p50;
    let distance = |index: &usize| (samples[*index] - p50).abs();
    (0..samples.len()).min_by(|a, b| distance(a).total_cmp(&distance(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_statistics_do_not_depend_on_the_order_given() {
        let found = Summary::of(&[30.0, 10.0, 20.0, 1000.0]).unwrap();
        assert_eq!((found.count, found.min, found.p50, found.max), (4, 10.0, 25.0, 1000.0));
        assert_eq!(Summary::of(&[7.0, 9.0, 8.0]).unwrap().p50, 8.0);
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn a_99th_percentile_needs_100_samples() {
        let samples = |count: u32| (1..=count).map(f64::from).collect::<Vec<_>>();
        assert_eq!(Summary::of(&samples(99)).unwrap().p99, None);
        assert_eq!(Summary::of(&samples(100)).unwrap().p99, Some(99.0));
        assert_eq!(Summary::of(&samples(250)).unwrap().p99, Some(248.0));
    }

    #[test]
    fn the_median_trial_is_a_real_one() {
        assert_eq!(nearest_to_median(&[100.0, 5.0, 1.0, 6.0]), Some(1));
        assert_eq!(nearest_to_median(&[]), None);
    }
}
