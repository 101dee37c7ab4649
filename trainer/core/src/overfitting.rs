//! How training and validation losses move apart.

use std::fmt;

/// Evaluated epochs that a trend is taken over, at most and at least.
const WINDOW: usize = 10;
const LEAST: usize = 3;
/// Changes of a loss below this share of itself per epoch count as none.
const STILL: f64 = 0.001;

/// Where the losses stand at the end, and how they move.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossTrend {
    /// The last training loss.
    pub training: f64,
    /// The last validation loss.
    pub validation: f64,
    /// Change of the training loss per epoch, as a share of its mean: the slope of the least squares line.
    pub training_slope: f64,
    /// Change of the validation loss per epoch, likewise.
    pub validation_slope: f64,
    /// Epochs from the first to the last that the slopes are taken over.
    pub epochs: u32,
}

/// What a trend means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The training loss falls while the validation loss rises.
    OverFitting,
    /// The validation loss falls.
    Improving,
    /// Neither.
    Level,
}

impl LossTrend {
    /// The trend of the last evaluated `epochs`: number, training loss, validation loss. None of fewer than three.
    pub fn of(epochs: &[(f64, f64, f64)]) -> Option<Self> {
        let window = &epochs[epochs.len().saturating_sub(WINDOW)..];
        let (first, last) = (window.first()?, window.last()?);
        let is_whole = window.iter().all(|(a, b, c)| (a + b + c).is_finite());
        if window.len() < LEAST || !is_whole {
            return None;
        }
        let numbers: Vec<f64> = window.iter().map(|epoch| epoch.0).collect();
        let slope = |of: fn(&(f64, f64, f64)) -> f64| {
            relative_slope(&numbers, &window.iter().map(of).collect::<Vec<_>>())
        };
        Some(Self {
            training: last.1,
            validation: last.2,
            training_slope: slope(|epoch| epoch.1),
            validation_slope: slope(|epoch| epoch.2),
            epochs: (last.0 - first.0) as u32 + 1,
        })
    }

    /// Whether the model begins to learn the training images by heart.
    pub fn verdict(&self) -> Verdict {
        if self.validation_slope < -STILL {
            Verdict::Improving
        } else if self.validation_slope > STILL && self.training_slope < -STILL {
            Verdict::OverFitting
        } else {
            Verdict::Level
        }
    }
}

impl fmt::Display for LossTrend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict() {
            Verdict::OverFitting => {
                "it begins to over-fit: end earlier, augment more or add images"
            }
            Verdict::Improving => "no sign of over-fitting, more epochs may still help",
            Verdict::Level => "no sign of over-fitting",
        };
        write!(
            f,
            "losses: training {:.4}, validation {:.4} (gap {:+.4}); per epoch over the last {} {:+.1} % and {:+.1} %: {verdict}",
            self.training,
            self.validation,
            self.validation - self.training,
            self.epochs,
            100.0 * self.training_slope,
            100.0 * self.validation_slope
        )
    }
}

/// The slope of the least squares line through (`x`, `y`), as a share of the mean of `y`; 0 where it has none.
fn relative_slope(x: &[f64], y: &[f64]) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (middle, level) = (mean(x), mean(y));
    let covariance: f64 = x
        .iter()
        .zip(y)
        .map(|(x, y)| (x - middle) * (y - level))
        .sum();
    let variance: f64 = x.iter().map(|x| (x - middle).powi(2)).sum();
    if variance == 0.0 || level == 0.0 {
        return 0.0;
    }
    covariance / variance / level
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trend(of: impl Fn(f64) -> (f64, f64)) -> LossTrend {
        let epochs: Vec<_> = (0..20)
            .map(|epoch| {
                let (training, validation) = of(f64::from(epoch));
                (f64::from(epoch), training, validation)
            })
            .collect();
        LossTrend::of(&epochs).unwrap()
    }

    #[test]
    fn verdicts_follow_the_slopes() {
        let falls = |epoch: f64| 1.0 - 0.02 * epoch;
        let rises = |epoch: f64| 1.0 + 0.02 * epoch;
        assert_eq!(
            Verdict::OverFitting,
            trend(|e| (falls(e), rises(e))).verdict()
        );
        assert_eq!(
            Verdict::Improving,
            trend(|e| (falls(e), falls(e))).verdict()
        );
        assert_eq!(Verdict::Level, trend(|_| (1.0, 1.0)).verdict());
        assert_eq!(Verdict::Level, trend(|e| (rises(e), rises(e))).verdict());
    }

    #[test]
    fn a_line_has_its_own_slope_and_says_so() {
        // Over epochs 10 to 19 the mean of 1 - 0.02 e is 0.71.
        let trend = trend(|epoch| (1.0 - 0.02 * epoch, 2.0));
        assert!((trend.training_slope + 0.02 / 0.71).abs() < 1e-12);
        assert_eq!((10, 0.0), (trend.epochs, trend.validation_slope));
        let text = trend.to_string();
        assert!(
            text.contains("gap +1.3800") && text.contains("last 10 -2.8 %"),
            "{text}"
        );
    }

    #[test]
    fn too_little_is_no_trend() {
        assert_eq!(None, LossTrend::of(&[]));
        assert_eq!(None, LossTrend::of(&[(0.0, 1.0, 1.0), (1.0, 1.0, 1.0)]));
        assert_eq!(None, LossTrend::of(&[(0.0, f64::NAN, 1.0); 5]));
        let same = LossTrend::of(&[(0.0, 0.0, 0.0); 5]).unwrap();
        assert_eq!((0.0, 0.0), (same.training_slope, same.validation_slope));
    }
}
