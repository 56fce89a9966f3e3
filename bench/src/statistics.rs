//! Order statistics of measured values.

/// The smallest value that at least `percent` of all values do not exceed (nearest rank). Zero for no values.
pub(crate) fn percentile(values: &[f64], percent: u32) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    let rank = (count * usize::try_from(percent).unwrap_or(100)).div_ceil(100);
    sorted.get(rank.max(1) - 1).copied().unwrap_or_default()
}

/// The middle value.
pub(crate) fn median(values: &[f64]) -> f64 {
    percentile(values, 50)
}

/// The largest value.
pub(crate) fn largest(values: &[f64]) -> f64 {
    percentile(values, 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert!((percentile(&values, 99) - 198.0).abs() < f64::EPSILON);
        assert!((median(&values) - 100.0).abs() < f64::EPSILON);
        assert!((largest(&values) - 200.0).abs() < f64::EPSILON);
        assert!(percentile(&[], 99).abs() < f64::EPSILON);
        assert!((percentile(&[7.0], 1) - 7.0).abs() < f64::EPSILON);
    }
}
