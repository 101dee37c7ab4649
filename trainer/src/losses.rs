//! The loss's sums and counts as plain numbers, which ranks can add up.

use tch::{Kind, Tensor};
use trainer_core::anchors::STRIDES;
use trainer_model::loss::{Denominators, Loss, LossTerms};
use trainer_model::network::NetworkOptions;

use crate::error::Error;

/// Numbers in [`Sums::to_vec`].
pub const NUMBERS: usize = 15;

/// What the loss of some images is computed from.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// What the sums are divided by.
    pub counts: Denominators,
    /// Box, objectness and class sum of each level.
    pub levels: [[f64; 3]; 3],
}

impl Sums {
    /// Reads the sums of a batch; waits for the device.
    pub fn of(terms: &LossTerms) -> Result<Self, Error> {
        let mut levels = [[0.0; 3]; 3];
        for (to, from) in levels.iter_mut().zip(&terms.levels) {
            for (to, from) in to.iter_mut().zip([&from.boxes, &from.objects, &from.classes]) {
                *to = from.f_double_value(&[]).map_err(|source| Error::Tensor {
                    operation: "reading the loss",
                    source,
                })?;
            }
        }
        Ok(Self {
            counts: terms.own,
            levels,
        })
    }

    /// Adds those of other images.
    pub fn add(&mut self, other: &Self) {
        self.counts += other.counts;
        for (to, from) in self.levels.iter_mut().zip(other.levels) {
            for (to, from) in to.iter_mut().zip(from) {
                *to += from;
            }
        }
    }

    /// All numbers in a row; counts stay exact below 2^53.
    pub fn to_vec(self) -> Vec<f64> {
        let counts = self.counts.to_array().map(|count| count as f64);
        counts.into_iter().chain(self.levels.into_iter().flatten()).collect()
    }

    /// The inverse of [`Sums::to_vec`]; numbers that are missing count as 0.
    pub fn from_slice(numbers: &[f64]) -> Self {
        let at = |index: usize| numbers.get(index).copied().unwrap_or(0.0);
        Self {
            counts: Denominators::from_array(std::array::from_fn(|i| at(i) as i64)),
            levels: std::array::from_fn(|level| std::array::from_fn(|part| at(6 + 3 * level + part))),
        }
    }

    /// Whether no sum is NaN or infinite.
    pub fn are_finite(&self) -> bool {
        self.levels.as_flattened().iter().all(|sum| sum.is_finite())
    }
}

/// Turns sums of any number of images into the loss's parts.
pub struct Parts {
    terms: LossTerms,
}

impl Parts {
    /// The parts of `loss`, which belongs to the network of `options`.
    pub fn new(loss: &Loss, options: &NetworkOptions) -> Result<Self, Error> {
        const SIDE: i64 = 32;
        let outputs = options.classes as i64 + 5;
        let raw = STRIDES.map(|stride| {
            let cells = SIDE / i64::from(stride);
            Tensor::f_zeros([1, 3, cells, cells, outputs], (Kind::Double, tch::Device::Cpu))
        });
        let raw = raw
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| Error::Tensor {
                operation: "preparing the loss",
                source,
            })?;
        let assignment = loss.assign(&[], 1, SIDE as usize, SIDE as usize)?;
        Ok(Self {
            terms: loss.terms(&raw, &assignment)?,
        })
    }

    /// Box, objectness and class part, with their gains, averaged over all that was summed.
    pub fn of(&mut self, sums: &Sums) -> Result<[f64; 3], Error> {
        for (to, [boxes, objects, classes]) in self.terms.levels.iter_mut().zip(sums.levels) {
            to.boxes = Tensor::from(boxes);
            to.objects = Tensor::from(objects);
            to.classes = Tensor::from(classes);
        }
        let parts = self.terms.total(&sums.counts, 1.0)?.parts;
        let mut values = [0.0; 3];
        parts.f_copy_data(&mut values, 3).map_err(|source| Error::Tensor {
            operation: "reading the loss",
            source,
        })?;
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_the_row_and_add_up() {
        let sums = Sums {
            counts: Denominators {
                matches: [1, 2, 3],
                cells: [4, 5, 6],
            },
            levels: [[0.5, 1.5, 2.5], [3.5, 4.5, 5.5], [6.5, 7.5, 8.5]],
        };
        let row = sums.to_vec();
        assert_eq!(NUMBERS, row.len());
        assert_eq!(sums, Sums::from_slice(&row));
        let mut twice = sums;
        twice.add(&sums);
        let doubled: Vec<f64> = row.iter().map(|number| 2.0 * number).collect();
        assert_eq!(doubled, twice.to_vec());
    }

    #[test]
    fn parts_of_sums_are_those_of_the_batch() {
        use trainer_core::boxes::Xywh;
        use trainer_model::loss::{LossSettings, Target};
        let options = NetworkOptions::new(contract::spec::ModelSize::N, 3);
        let settings = LossSettings::unscaled(&contract::spec::Hyperparameters::default());
        let loss = Loss::new(&options, settings);
        let target = Target {
            image: 0,
            class: 1,
            xywh: Xywh::new(0.5, 0.5, 0.4, 0.3),
        };
        let assignment = loss.assign(&[target], 2, 64, 64).expect("assigned");
        let raw: Vec<Tensor> = STRIDES
            .map(|stride| {
                let cells = 64 / i64::from(stride);
                Tensor::arange(2 * 3 * cells * cells * 8, (Kind::Float, tch::Device::Cpu))
                    .sin()
                    .view([2, 3, cells, cells, 8])
            })
            .into();
        let terms = loss.terms(&raw, &assignment).expect("computed");
        let want: Vec<f64> = (0..3)
            .map(|i| terms.total(&terms.own, 1.0).expect("total").parts.double_value(&[i]))
            .collect();
        let sums = Sums::of(&terms).expect("read");
        let got = Parts::new(&loss, &options).expect("prepared").of(&sums).expect("computed");
        for (want, got) in want.into_iter().zip(got) {
            assert!(want > 0.0 && (want - got).abs() < 1e-6 * want, "{want} {got}");
        }
    }
}
