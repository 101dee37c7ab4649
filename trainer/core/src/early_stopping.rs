//! When to stop because the model no longer improves.

use serde::{Deserialize, Serialize};

/// The state of early stopping; part of a checkpoint, unlike in v5.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EarlyStopping {
    /// Epochs without improvement that end the run; 0 never ends it.
    pub patience: u32,
    /// The best fitness so far; none before the first evaluation.
    pub best_fitness: Option<f64>,
    /// The epoch of the best fitness.
    pub best_epoch: u32,
    /// Whether the run should have ended; stays so when it is resumed with the same patience.
    #[serde(default)]
    pub stopped: bool,
}

/// What an evaluation means for the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// This is the best model so far (as good as the best counts too).
    pub improved: bool,
    /// The run should end now.
    pub stop: bool,
}

impl EarlyStopping {
    /// The state before the first evaluation.
    pub fn new(patience: u32) -> Self {
        Self {
            patience,
            best_fitness: None,
            best_epoch: 0,
            stopped: false,
        }
    }

    /// Takes in the fitness of `epoch` (from 0). YOLOv5 v7.0 behaviour: an equal fitness renews the
    /// best, and the run stops when `epoch - best_epoch >= patience`. A NaN never improves.
    pub fn update(&mut self, epoch: u32, fitness: f64) -> Verdict {
        let improved = !fitness.is_nan() && self.best_fitness.is_none_or(|best| fitness >= best);
        if improved {
            self.best_fitness = Some(fitness);
            self.best_epoch = epoch;
        }
        let waited = epoch.saturating_sub(self.best_epoch);
        self.stopped = self.patience > 0 && waited >= self.patience;
        Verdict {
            improved,
            stop: self.stopped,
        }
    }

    /// The state of a run that goes on with this patience.
    #[must_use]
    pub fn with_patience(self, patience: u32) -> Self {
        Self {
            patience,
            stopped: self.stopped && patience == self.patience,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_after_patience_without_improvement() {
        let mut state = EarlyStopping::new(3);
        let verdicts: Vec<_> = [0.1, 0.2, 0.2, 0.1, f64::NAN, 0.1]
            .into_iter()
            .zip(0..)
            .map(|(fitness, epoch)| {
                let v = state.update(epoch, fitness);
                (v.improved, v.stop)
            })
            .collect();
        let (t, f) = (true, false);
        let want = [(t, f), (t, f), (t, f), (f, f), (f, f), (f, t)];
        assert_eq!(verdicts, want);
        assert_eq!((state.best_epoch, state.best_fitness), (2, Some(0.2)));
        assert!(state.with_patience(3).stopped && !state.with_patience(4).stopped);
    }

    #[test]
    fn zero_patience_never_stops() {
        let mut state = EarlyStopping::new(0);
        state.update(0, 1.0);
        assert!(!state.update(10_000, 0.0).stop);
    }
}
