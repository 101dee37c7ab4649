//! Which checkpoints to keep and which to delete.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// One checkpoint that exists.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredCheckpoint {
    /// The optimizer step it was taken at; its identity.
    pub step: u64,
    /// Whether its manifest is there and its checksums hold.
    pub valid: bool,
    /// The fitness of its model, if it was evaluated.
    pub fitness: Option<f64>,
    /// Whether something else refers to it (`last`, `best`, a resume in progress).
    pub pinned: bool,
}

/// What the user asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionPolicy {
    /// Keep this many of the newest valid checkpoints; 0 counts as 1.
    pub keep_last: usize,
    /// Keep the valid checkpoint with the highest fitness (the newest of equals).
    pub keep_best: bool,
}

/// The decision: every given step is in exactly one list, each in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionPlan {
    /// Steps to keep.
    pub keep: Vec<u64>,
    /// Steps to delete, oldest first.
    pub delete: Vec<u64>,
}

/// Decides over `checkpoints`, in any order.
///
/// The newest valid checkpoint is never deleted, nor is a pinned one. Invalid ones do not count
/// towards `keep_last`, and are deleted only when a newer valid one exists: until then they may be
/// all that is left to look into.
pub fn plan(checkpoints: &[StoredCheckpoint], policy: &RetentionPolicy) -> RetentionPlan {
    let steps: BTreeSet<u64> = checkpoints.iter().map(|c| c.step).collect();
    let mut valid: Vec<&StoredCheckpoint> = checkpoints.iter().filter(|c| c.valid).collect();
    valid.sort_by_key(|c| std::cmp::Reverse(c.step));

    let mut keep: BTreeSet<u64> = checkpoints
        .iter()
        .filter(|c| c.pinned)
        .map(|c| c.step)
        .collect();
    keep.extend(valid.iter().take(policy.keep_last.max(1)).map(|c| c.step));
    if policy.keep_best {
        keep.extend(best(&valid));
    }
    let newest_valid = valid.first().map(|c| c.step);
    let unsure = checkpoints
        .iter()
        .filter(|c| !c.valid && newest_valid.is_none_or(|n| c.step > n));
    keep.extend(unsure.map(|c| c.step));

    let delete = steps.difference(&keep).copied().collect();
    RetentionPlan {
        keep: keep.into_iter().collect(),
        delete,
    }
}

fn best(valid: &[&StoredCheckpoint]) -> Option<u64> {
    valid
        .iter()
        .filter_map(|c| {
            c.fitness
                .filter(|f| !f.is_nan())
                .map(|fitness| (fitness, c.step))
        })
        .max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))
        .map(|(_, step)| step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn checkpoint(step: u64, fitness: impl Into<Option<f64>>) -> StoredCheckpoint {
        StoredCheckpoint {
            step,
            valid: true,
            fitness: fitness.into(),
            pinned: false,
        }
    }

    const TWO_AND_BEST: RetentionPolicy = RetentionPolicy {
        keep_last: 2,
        keep_best: true,
    };

    #[test]
    fn keeps_last_and_best() {
        let all = [
            checkpoint(400, 0.3),
            checkpoint(100, 0.2),
            checkpoint(200, 0.5),
            checkpoint(300, f64::NAN),
            checkpoint(500, None),
        ];
        let plan = plan(&all, &TWO_AND_BEST);
        assert_eq!(
            (plan.keep, plan.delete),
            (vec![200, 400, 500], vec![100, 300])
        );
    }

    #[test]
    fn broken_checkpoints_do_not_push_out_good_ones() {
        let broken = |step| StoredCheckpoint {
            valid: false,
            ..checkpoint(step, 0.9)
        };
        let all = [checkpoint(100, 0.1), broken(50), broken(200), broken(300)];
        let one = RetentionPolicy {
            keep_last: 1,
            keep_best: true,
        };
        let plan = plan(&all, &one);
        assert_eq!((plan.keep, plan.delete), (vec![100, 200, 300], vec![50]));
    }

    #[test]
    fn pinned_and_equal_ones() {
        let pinned = StoredCheckpoint {
            pinned: true,
            ..checkpoint(1, None)
        };
        let all = [
            pinned,
            checkpoint(2, 0.5),
            checkpoint(3, 0.5),
            checkpoint(4, 0.1),
        ];
        let policy = RetentionPolicy {
            keep_last: 0,
            keep_best: true,
        };
        let plan = plan(&all, &policy);
        assert_eq!((plan.keep, plan.delete), (vec![1, 3, 4], vec![2]));
    }

    proptest! {
        #[test]
        fn the_newest_good_one_survives_and_planning_again_changes_nothing(
            all in prop::collection::vec((0_u64..50, any::<bool>(), prop::option::of(0f64..1.)), 0..20),
            keep_last in 0_usize..5, keep_best: bool,
        ) {
            let all: Vec<_> = all
                .into_iter()
                .map(|(step, valid, fitness)| {
                    StoredCheckpoint { step, valid, fitness, pinned: false }
                })
                .collect();
            let policy = RetentionPolicy { keep_last, keep_best };
            let first = plan(&all, &policy);
            if let Some(newest) = all.iter().filter(|c| c.valid).map(|c| c.step).max() {
                prop_assert!(first.keep.contains(&newest));
            }
            let left: Vec<_> =
                all.iter().filter(|c| first.keep.contains(&c.step)).copied().collect();
            let again = plan(&left, &policy);
            prop_assert!(again.delete.is_empty());
            prop_assert_eq!(again.keep, first.keep);
        }
    }
}
