//! A batch as the network and its loss take it.

use tch::{Device, Kind, TchError, Tensor};
use trainer_core::quad::{self, Quad};
use trainer_data::Batch;
use trainer_data::store::FILL;
use trainer_model::loss::{Assignment, Target};

/// The images of a batch: `[images, 3, height, width]` of 0..=255.
pub fn pixels(batch: &Batch) -> Result<Tensor, TchError> {
    let (height, width) = (i64::from(batch.height), i64::from(batch.width));
    let shape = [batch.indices.len() as i64, 3, height, width];
    Tensor::f_from_data_size(&batch.images, &shape, Kind::Uint8)
}

/// The objects of a batch in the loss's words.
pub fn targets(batch: &Batch) -> Vec<Target> {
    let target = |target: &trainer_data::Target| Target {
        image: target.image,
        class: target.class,
        xywh: target.xywh,
    };
    batch.targets.iter().map(target).collect()
}

/// One black image: work for a rank without images, so that it takes part in everything.
pub fn black(image_size: u32) -> Result<Tensor, TchError> {
    let side = i64::from(image_size);
    Tensor::f_zeros([1, 3, side, side], (Kind::Uint8, Device::Cpu))
}

/// Images of a batch that are computed together.
pub struct Portion {
    /// The first of them.
    pub first: usize,
    /// How many.
    pub images: usize,
    /// Which predictions answer for their objects.
    pub assignment: Assignment,
}

impl Portion {
    /// Its images, of all; the first one where it has none, to take part in everything.
    pub fn of(&self, pixels: &Tensor) -> Result<Tensor, TchError> {
        match self.images {
            0 => pixels.f_narrow(0, 0, 1),
            images if images as i64 == pixels.size()[0] => Ok(pixels.shallow_clone()),
            images => pixels.f_narrow(0, self.first as i64, images as i64),
        }
    }
}

/// The objects of the images from `first` to before `end`, which count from 0 then.
pub fn objects_of(objects: &[Target], first: usize, end: usize) -> Vec<Target> {
    objects
        .iter()
        .filter(|target| (first..end).contains(&(target.image as usize)))
        .map(|target| Target {
            image: target.image - first as u32,
            ..*target
        })
        .collect()
}

/// Four images each of a batch in one: see [`trainer_core::quad`].
pub struct Quads(Vec<Quad>);

impl Quads {
    /// What each quad of the batch shows.
    pub fn of(batch: &Batch, seed: u64) -> Self {
        let groups = batch.indices.chunks(quad::IMAGES);
        Self(
            groups
                .map(|images| quad::draw(seed, batch.epoch, images[0]))
                .collect(),
        )
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The quads: `[quads, 3, 2 height, 2 width]` of the batch's [`pixels`].
    pub fn join(&self, pixels: &Tensor) -> Result<Tensor, TchError> {
        let (images, _, height, width) = pixels.size4()?;
        let shape = [self.len() as i64, 3, 2 * height, 2 * width];
        let joined = Tensor::f_full(shape, i64::from(FILL), (Kind::Uint8, pixels.device()))?;
        let size = quad::IMAGES as i64;
        for ((number, quad), first) in (0..).zip(&self.0).zip((0..images).step_by(quad::IMAGES)) {
            let mut whole = joined.f_select(0, number)?;
            match quad {
                Quad::Enlarged => whole.f_copy_(&enlarged(&pixels.f_narrow(0, first, 1)?)?)?,
                Quad::Joined => {
                    for (k, image) in (first..images.min(first + size)).enumerate() {
                        let (column, row) = quad::corner(k);
                        let across = whole.f_narrow(2, i64::from(column) * width, width)?;
                        let mut part = across.f_narrow(1, i64::from(row) * height, height)?;
                        part.f_copy_(&pixels.f_select(0, image)?)?;
                    }
                }
            }
        }
        Ok(joined)
    }

    /// The objects of the quads, of the batch's [`targets`].
    pub fn join_targets(&self, targets: Vec<Target>) -> Vec<Target> {
        let moved = |target: Target| {
            let (quad, k) = (
                target.image as usize / quad::IMAGES,
                target.image as usize % quad::IMAGES,
            );
            let xywh = match self.0[quad] {
                Quad::Enlarged if k == 0 => target.xywh,
                Quad::Enlarged => return None,
                Quad::Joined => quad::joined(k, target.xywh),
            };
            Some(Target {
                image: quad as u32,
                xywh,
                ..target
            })
        };
        targets.into_iter().filter_map(moved).collect()
    }
}

/// Twice as wide and high, between the pixels linear, cut to whole numbers as v5 does.
fn enlarged(image: &Tensor) -> Result<Tensor, TchError> {
    let (_, _, height, width) = image.size4()?;
    image
        .f_to_kind(Kind::Float)?
        .f_upsample_bilinear2d([2 * height, 2 * width], false, None, None)?
        .f_to_kind(Kind::Uint8)?
        .f_squeeze_dim(0)
}

#[cfg(test)]
mod tests {
    use trainer_core::boxes::Xywh;

    use super::*;

    fn of(k: i64) -> Tensor {
        Tensor::arange(12, (Kind::Uint8, Device::Cpu)).view([3, 2, 2]) + 20 * k
    }

    #[test]
    fn images_and_boxes_come_together() {
        let pixels = Tensor::stack(&[of(0), of(1), of(2), of(3), of(4), of(5)], 0);
        let quads = Quads(vec![Quad::Joined, Quad::Enlarged]);
        let joined = quads.join(&pixels).expect("joined");
        assert_eq!([2, 3, 4, 4], joined.size()[..]);
        let columns = [[0, 1], [2, 3]].map(|rows| Tensor::cat(&rows.map(of), 1));
        let expected = Tensor::cat(&columns, 2);
        assert_eq!(expected, joined.select(0, 0));
        // Of 80 and 81 side by side: 80, 80.25, 80.75, 81.
        let row: Vec<u8> = joined
            .select(0, 1)
            .select(0, 0)
            .select(0, 0)
            .try_into()
            .expect("row");
        assert_eq!([80, 80, 80, 81], row[..]);

        let target = |image| Target {
            image,
            class: 1,
            xywh: Xywh::new(0.5, 0.5, 1.0, 0.5),
        };
        let moved = quads.join_targets([0, 1, 3, 4, 5].map(target).to_vec());
        let moved: Vec<_> = moved
            .iter()
            .map(|t| (t.image, t.xywh.x, t.xywh.y, t.xywh.w))
            .collect();
        let expected = [
            (0, 0.25, 0.25, 0.5),
            (0, 0.25, 0.75, 0.5),
            (0, 0.75, 0.75, 0.5),
            (1, 0.5, 0.5, 1.0),
        ];
        assert_eq!(expected, moved[..]);
    }

    #[test]
    fn what_is_missing_is_grey() {
        let quads = Quads(vec![Quad::Joined]);
        let joined = quads.join(&of(0).unsqueeze(0)).expect("joined");
        assert_eq!(of(0), joined.select(0, 0).narrow(1, 0, 2).narrow(2, 0, 2));
        let rest = joined.select(0, 0).narrow(2, 2, 2);
        assert!(bool::try_from(rest.eq(i64::from(FILL)).all()).expect("a truth"));
    }
}
