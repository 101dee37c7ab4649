//! The decay of the exponential moving average of the weights.

/// The final decay of YOLOv5 v7.0.
pub const FINAL_DECAY: f64 = 0.9999;

/// How many updates the decay takes to reach 63 % of [`FINAL_DECAY`].
pub const RAMP_UPDATES: f64 = 2000.0;

/// The decay to use for update number `updates` (the first is 1): `average = decay * average +
/// (1 - decay) * weights`.
///
/// `0.9999 * (1 - exp(-updates / 2000))`, YOLOv5 v7.0 behaviour: young averages follow the weights
/// closely, later ones over ten thousand updates.
pub fn decay(updates: u64) -> f64 {
    // `exp_m1` keeps the digits that `1 - exp(x)` loses for the first updates.
    -FINAL_DECAY * (-(updates as f64) / RAMP_UPDATES).exp_m1()
}

#[cfg(test)]
mod tests {
    use super::decay;

    #[test]
    fn golden_decay() {
        let golden = [
            (1, 0.000_499_825),
            (2, 0.000_999_4),
            (10, 0.004_987_022),
            (100, 0.048_765_698),
            (1000, 0.393_429_993),
            (2000, 0.632_057_347),
            (10_000, 0.993_162_727),
            // 0.9999 * (1 - e^-500) rounds to the limit itself.
            (1_000_000, 0.9999),
        ];
        for (updates, want) in golden {
            assert!(
                (decay(updates) - want).abs() < 1e-9,
                "{updates}: {}",
                decay(updates)
            );
        }
        assert_eq!(decay(0), 0.0);
    }
}
