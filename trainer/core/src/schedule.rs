//! Learning rates, momentum and gradient accumulation as a pure function of the iteration.
//!
//! YOLOv5 v7.0 behaviour. An **iteration** is one global batch (`batch` images over all ranks); the
//! optimizer steps once in `accumulate` iterations. The learning rate does not grow with the batch:
//! the loss is multiplied by it instead.

use serde::{Deserialize, Serialize};

/// The batch size that v5's hyper-parameters are written for (its `nbs`).
pub const NOMINAL_BATCH: u32 = 64;

/// Warm-up lasts at least this many iterations, however small the data set.
pub const MIN_WARMUP_ITERATIONS: u64 = 100;

/// Share of the iterations in which a one-cycle schedule rises (PyTorch's `pct_start`).
const ONE_CYCLE_RISE: f64 = 0.3;
/// By how much its rate is smaller at the beginning than at the peak (PyTorch's `div_factor`).
const ONE_CYCLE_DIVISOR: f64 = 25.0;

/// How the learning rate falls from `lr0` to `lr0 * lrf`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ScheduleKind {
    /// `(1 - e/E) (1 - lrf) + lrf`.
    Linear,
    /// `(1 - cos(pi e/E)) / 2 (lrf - 1) + 1`.
    Cosine,
    /// `1`.
    Constant,
    /// `factor^floor(e / every)`, at least `lrf`.
    Step {
        /// Epochs between two falls.
        every: u32,
        /// What is left after each.
        factor: f64,
    },
    /// From `1/25` to 1 in the first 30 % of the iterations and then to `lrf`, both along half a cosine: as
    /// PyTorch's `OneCycleLR` with a peak of `lr0`.
    OneCycle,
}

/// Everything the plan of an iteration depends on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The shape of the decay.
    pub kind: ScheduleKind,
    /// Number of epochs E of the whole run.
    pub epochs: u32,
    /// Iterations after which the run ends, if that is before the end of the last epoch.
    pub max_iterations: Option<u64>,
    /// Initial learning rate.
    pub lr0: f64,
    /// Final learning rate as a fraction of `lr0`.
    pub lrf: f64,
    /// Momentum after warm-up.
    pub momentum: f64,
    /// Length of the warm-up in epochs; 0 turns it off.
    pub warmup_epochs: f64,
    /// Momentum at the first iteration.
    pub warmup_momentum: f64,
    /// Learning rate of the biases at the first iteration.
    pub warmup_bias_lr: f64,
    /// Images per iteration over all ranks.
    pub batch: u32,
    /// Images per optimizer step that accumulation aims at ([`NOMINAL_BATCH`] in v5).
    pub nominal_batch: u32,
}

/// What one iteration uses.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepPlan {
    /// Learning rate of the group of biases.
    pub lr_bias: f64,
    /// Learning rate of the other groups (decayed weights, normalisation weights).
    pub lr_other: f64,
    /// Momentum of SGD. Adam and `AdamW` keep their betas: v5 warms up momentum for SGD only.
    pub momentum: f64,
    /// Iterations per optimizer step: step when `ni - last_step >= accumulate`.
    pub accumulate: u32,
}

impl Schedule {
    /// Number of warm-up iterations for `nb` iterations per epoch:
    /// `max(round(warmup_epochs * nb), 100)`, or 0 if `warmup_epochs` is 0 (v5 still warms up for
    /// 100 iterations then).
    pub fn warmup_iterations(&self, nb: u64) -> u64 {
        if self.warmup_epochs <= 0.0 {
            return 0;
        }
        let rounded = (self.warmup_epochs * nb as f64).round_ties_even() as u64;
        rounded.max(MIN_WARMUP_ITERATIONS)
    }

    /// Epochs (whole and begun ones) of `nb` iterations that the run has.
    pub fn epochs_to_do(&self, nb: u64) -> u32 {
        self.max_iterations.map_or(self.epochs, |iterations| {
            let begun = iterations.div_ceil(nb.max(1));
            self.epochs
                .min(u32::try_from(begun).unwrap_or(u32::MAX).max(1))
        })
    }

    /// The learning rate of iteration `ni` as a fraction of `lr0`, after warm-up. Arguments as for
    /// [`Schedule::at`].
    pub fn lr_factor(&self, ni: u64, nb: u64, epoch: u32, spent: f64) -> f64 {
        let epochs = self.epochs_to_do(nb);
        // The last step may end later than the time that was given.
        let spent = spent.min(1.0);
        let x = (f64::from(epoch) / f64::from(epochs.max(1))).max(spent);
        match self.kind {
            ScheduleKind::Constant => 1.0,
            ScheduleKind::Step { every, factor } => {
                let falls = epoch / every.max(1);
                factor.powi(falls as i32).max(self.lrf)
            }
            ScheduleKind::OneCycle => {
                let all = nb * u64::from(epochs);
                let last = self.max_iterations.map_or(all, |most| most.min(all)) as f64 - 1.0;
                self.one_cycle((ni as f64).max(spent * last), last)
            }
            ScheduleKind::Linear => (1.0 - x) * (1.0 - self.lrf) + self.lrf,
            ScheduleKind::Cosine => {
                (1.0 - (std::f64::consts::PI * x).cos()) / 2.0 * (self.lrf - 1.0) + 1.0
            }
        }
    }

    /// The epoch by which the rate has fallen in `epoch`.
    ///
    /// YOLOv5 v7.0, measured: its scheduler is set one epoch back at the start, and warm-up writes over what
    /// it says. So epochs that begin after the warm-up train with the rate of the epoch before.
    fn decay_epoch(&self, nb: u64, epoch: u32, warmup: u64) -> u32 {
        let follows = matches!(self.kind, ScheduleKind::Linear | ScheduleKind::Cosine);
        let warms_up = warmup > 0 && u64::from(epoch) * nb <= warmup;
        if follows && !warms_up {
            epoch.saturating_sub(1)
        } else {
            epoch
        }
    }

    /// The factor at iteration `ni` where `last` is the last one.
    fn one_cycle(&self, ni: f64, last: f64) -> f64 {
        let peak = ONE_CYCLE_RISE * (last + 1.0) - 1.0;
        let along = |from: f64, to: f64, share: f64| {
            to + (from - to) / 2.0 * (1.0 + (std::f64::consts::PI * share.clamp(0.0, 1.0)).cos())
        };
        if ni <= peak {
            along(1.0 / ONE_CYCLE_DIVISOR, 1.0, ni / peak)
        } else {
            along(1.0, self.lrf, (ni - peak) / (last - peak).max(1.0))
        }
    }

    /// The plan of iteration `ni` (from 0, over the whole run) in `epoch` (from 0), where an epoch
    /// has `nb` iterations. `spent` is the share of the time that was used, 0 in a run without a limit of
    /// time: it moves the decay on where that is ahead of the epochs.
    pub fn at(&self, ni: u64, nb: u64, epoch: u32, spent: f64) -> StepPlan {
        let warmup = self.warmup_iterations(nb);
        let lr = self.lr0 * self.lr_factor(ni, nb, self.decay_epoch(nb, epoch, warmup), spent);
        if warmup == 0 || ni > warmup {
            return StepPlan {
                lr_bias: lr,
                lr_other: lr,
                momentum: self.momentum,
                accumulate: accumulate(self.batch, self.nominal_batch),
            };
        }
        let ramp = |from: f64, to: f64| {
            if ni == warmup {
                to
            } else {
                from + (to - from) / warmup as f64 * ni as f64
            }
        };
        let target = f64::from(self.nominal_batch) / f64::from(self.batch.max(1));
        StepPlan {
            lr_bias: ramp(self.warmup_bias_lr, lr),
            lr_other: ramp(0.0, lr),
            momentum: ramp(self.warmup_momentum, self.momentum),
            // Python rounds halves to even: 2.5 accumulations are 2.
            accumulate: (ramp(1.0, target).round_ties_even() as u32).max(1),
        }
    }
}

/// Iterations per optimizer step after warm-up: `max(round(nominal_batch / batch), 1)`.
pub fn accumulate(batch: u32, nominal_batch: u32) -> u32 {
    let ratio = f64::from(nominal_batch) / f64::from(batch.max(1));
    (ratio.round_ties_even() as u32).max(1)
}

/// The weight decay for these batch sizes: `weight_decay * batch * accumulate / nominal_batch`.
pub fn scaled_weight_decay(weight_decay: f64, batch: u32, nominal_batch: u32) -> f64 {
    let images = f64::from(batch) * f64::from(accumulate(batch, nominal_batch));
    weight_decay * images / f64::from(nominal_batch.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(kind: ScheduleKind) -> Schedule {
        Schedule {
            kind,
            epochs: 100,
            max_iterations: None,
            lr0: 0.01,
            lrf: 0.01,
            momentum: 0.937,
            warmup_epochs: 3.0,
            warmup_momentum: 0.8,
            warmup_bias_lr: 0.1,
            batch: 16,
            nominal_batch: NOMINAL_BATCH,
        }
    }

    #[track_caller]
    fn close(got: f64, want: f64) {
        assert!((got - want).abs() < 5e-10, "{got} is not {want}");
    }

    #[test]
    fn golden_decay_of_the_learning_rate() {
        let linear = schedule(ScheduleKind::Linear);
        for (epoch, want) in [(0, 0.01), (1, 0.009_901), (50, 0.005_05), (99, 0.000_199)] {
            close(linear.lr0 * linear.lr_factor(0, 50, epoch, 0.0), want);
        }
        let cosine = schedule(ScheduleKind::Cosine);
        for (epoch, want) in [
            (0, 0.01),
            (1, 0.009_997_557),
            (50, 0.005_05),
            (99, 0.000_102_443),
        ] {
            close(cosine.lr0 * cosine.lr_factor(0, 50, epoch, 0.0), want);
        }
    }

    #[test]
    fn golden_warmup() {
        let s = schedule(ScheduleKind::Linear);
        let nb = 50;
        assert_eq!(s.warmup_iterations(nb), 150);
        let golden = [
            (0, 1, 0.1, 0.0, 0.8),
            (25, 2, 0.085, 0.001_666_667, 0.822_833_333),
            (75, 2, 0.054_950_5, 0.004_950_5, 0.8685),
            (149, 4, 0.010_403_32, 0.009_736_653, 0.936_086_667),
            (150, 4, 0.009_703, 0.009_703, 0.937),
            (151, 4, 0.009_703, 0.009_703, 0.937),
        ];
        for (ni, accumulate, bias, other, momentum) in golden {
            let plan = s.at(ni, nb, (ni / nb) as u32, 0.0);
            assert_eq!(plan.accumulate, accumulate, "ni {ni}");
            assert!((plan.lr_bias - bias).abs() < 5e-9, "ni {ni}: {plan:?}");
            close(plan.lr_other, other);
            close(plan.momentum, momentum);
        }
    }

    #[test]
    fn warmup_has_a_floor_and_can_be_off() {
        let mut s = schedule(ScheduleKind::Linear);
        assert_eq!(s.warmup_iterations(3), 100);
        s.warmup_epochs = 0.0;
        assert_eq!(s.at(0, 3, 0, 0.0).lr_other, s.lr0);
    }

    /// Column x/lr0 of the Python program's results.csv: 60 epochs of 25 iterations, warm-up of 100.
    #[test]
    fn golden_rates_after_the_warmup() {
        let s = Schedule {
            epochs: 60,
            ..schedule(ScheduleKind::Linear)
        };
        let golden = [
            (3, 0.010_410),
            (4, 0.009_340),
            (5, 0.009_340),
            (6, 0.009_175),
            (7, 0.009_010),
            (59, 0.000_430),
        ];
        for (epoch, want) in golden {
            let last = s.at(25 * u64::from(epoch) + 24, 25, epoch, 0.0);
            assert!((last.lr_bias - want).abs() < 5e-7, "{epoch}: {last:?}");
        }
    }

    /// `torch.optim.lr_scheduler.OneCycleLR(max_lr=0.01, total_steps=40, final_div_factor=1/(25*0.01))`.
    #[test]
    fn golden_one_cycle() {
        let s = Schedule {
            epochs: 4,
            lrf: 0.01,
            ..schedule(ScheduleKind::OneCycle)
        };
        let golden = [
            (0, 0.000_4),
            (5, 0.004_516_888_776),
            (11, 0.01),
            (12, 0.009_968_875_439),
            (25, 0.005_05),
            (39, 0.000_1),
        ];
        for (ni, want) in golden {
            close(s.lr0 * s.lr_factor(ni, 10, (ni / 10) as u32, 0.0), want);
        }
    }

    #[test]
    fn constant_and_step_schedules() {
        let s = schedule(ScheduleKind::Constant);
        assert!(
            [0, 50, 99]
                .iter()
                .all(|e| s.lr_factor(0, 50, *e, 0.0) == 1.0)
        );
        let s = schedule(ScheduleKind::Step {
            every: 30,
            factor: 0.1,
        });
        for (epoch, want) in [(0, 1.0), (29, 1.0), (30, 0.1), (60, 0.01), (90, 0.01)] {
            close(s.lr_factor(0, 50, epoch, 0.0), want);
        }
    }

    #[test]
    fn fewer_iterations_and_spent_time_shorten_the_decay() {
        let s = Schedule {
            max_iterations: Some(95),
            ..schedule(ScheduleKind::Linear)
        };
        assert_eq!(2, s.epochs_to_do(50));
        close(s.lr_factor(50, 50, 1, 0.0), 0.505);
        let s = schedule(ScheduleKind::Linear);
        assert_eq!(100, s.epochs_to_do(50));
        close(s.lr_factor(0, 50, 1, 0.5), 0.505);
        close(s.lr_factor(0, 50, 99, 0.5), 0.0199);
        close(s.lr_factor(0, 50, 1, 1.3), 0.01);
    }

    #[test]
    fn another_nominal_batch_changes_how_often_the_optimizer_steps() {
        let s = Schedule {
            nominal_batch: 16,
            ..schedule(ScheduleKind::Linear)
        };
        assert!((0..500).all(|ni| s.at(ni, 50, 0, 0.0).accumulate == 1));
        close(scaled_weight_decay(0.0005, 32, 16), 0.001);
    }

    #[test]
    fn accumulation_and_weight_decay_reach_the_nominal_batch() {
        let pairs = [
            (1, 64),
            (16, 4),
            (26, 2),
            (40, 2),
            (48, 1),
            (64, 1),
            (128, 1),
            (256, 1),
        ];
        for (batch, want) in pairs {
            assert_eq!(accumulate(batch, NOMINAL_BATCH), want, "batch {batch}");
        }
        close(scaled_weight_decay(0.0005, 16, NOMINAL_BATCH), 0.0005);
        close(scaled_weight_decay(0.0005, 128, NOMINAL_BATCH), 0.001);
        close(scaled_weight_decay(0.0005, 40, NOMINAL_BATCH), 0.000_625);
    }
}
