//! The one small message of a step.

use trainer_model::loss::Denominators;

use super::StepOutput;
use crate::checkpoint::EpochSums;

/// What ranks tell each other besides numbers of images and losses.
#[derive(Clone, Copy, Debug)]
pub struct Wishes {
    /// Whether this rank was asked to stop.
    pub stop: bool,
    /// Whether rank 0 wants a checkpoint.
    pub save: bool,
    /// The share of the time that was used, as rank 0 sees it; 0 from the others.
    pub spent: f64,
}

/// What this rank sends. All are whole numbers far below 2^53 or sums of losses, so `f64` holds them.
pub fn message(own: Denominators, images: usize, wishes: Wishes, before: EpochSums) -> Vec<f64> {
    let counts = own.to_array().map(|count| count as f64);
    let rest = [
        images as f64,
        f64::from(u8::from(wishes.stop)),
        f64::from(u8::from(wishes.save)),
        wishes.spent,
        before.images,
        before.box_loss,
        before.obj,
        before.cls,
    ];
    [&counts[..], &rest[..]].concat()
}

/// What the sum of all messages says.
pub fn read_message(values: &[f64]) -> (Denominators, StepOutput) {
    let mut counts = [0; Denominators::COUNT];
    for (count, value) in counts.iter_mut().zip(values) {
        *count = *value as i64;
    }
    let rest = &values[Denominators::COUNT..];
    let output = StepOutput {
        images: rest[0] as u64,
        stop: rest[1] > 0.0,
        save: rest[2] > 0.0,
        spent: rest[3],
        before: epoch_sums(&rest[4..]),
    };
    (Denominators::from_array(counts), output)
}

/// Images, then box, objectness and class losses.
pub fn epoch_sums(values: &[f64]) -> EpochSums {
    EpochSums {
        images: values[0],
        box_loss: values[1],
        obj: values[2],
        cls: values[3],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_back() {
        let own = Denominators {
            matches: [1, 2, 3, 4, 5],
            cells: [400, 100, 25, 9, 0],
        };
        let before = EpochSums {
            images: 8.0,
            box_loss: 0.5,
            obj: 0.25,
            cls: f64::NAN,
        };
        let wishes = Wishes {
            stop: true,
            save: false,
            spent: 0.5,
        };
        let (all, output) = read_message(&message(own, 8, wishes, before));
        assert_eq!(own, all);
        assert_eq!(
            (8, true, false, 0.5, 8.0),
            (
                output.images,
                output.stop,
                output.save,
                output.spent,
                output.before.images
            )
        );
        assert!(!output.before.is_finite());
    }
}
