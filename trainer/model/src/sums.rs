//! The three sums of one level's loss.

use tch::{Device, Kind, Reduction, TchError, Tensor};
use torch_bridge::pick;

use crate::assign::LevelMatches;
use crate::ciou::ciou;
use crate::error::{Error, bridged};
use crate::loss::LossSettings;

/// Weight of positives in the focal loss; negatives have the rest to 1.
const FOCAL_ALPHA: f64 = 0.25;

/// The sums over one level; each is a scalar on the device of the predictions.
#[derive(Debug)]
pub struct LevelSums {
    /// `1 - CIoU`, over matches.
    pub boxes: Tensor,
    /// Binary cross entropy of objectness, over all predictions.
    pub objects: Tensor,
    /// Binary cross entropy of classes, over matches and classes; 0 if there is one class.
    pub classes: Tensor,
}

/// Sums over raw predictions `[images, anchors, height, width, 5 + classes]`.
///
/// Predictions of 16 bits are summed in `f32`. Equal inputs give equal sums and gradients on the
/// CPU: no operation here writes to one place twice.
pub(crate) fn of_level(
    raw: &Tensor,
    matches: &LevelMatches,
    classes: usize,
    settings: &LossSettings,
) -> Result<LevelSums, Error> {
    let part = |part| move |source| Error::Loss { part, source };
    let kind = if raw.kind() == Kind::Double {
        Kind::Double
    } else {
        Kind::Float
    };
    let device = raw.device();
    let zeros = |shape: &[i64]| Tensor::f_zeros(shape, (kind, device));

    let mut overlap_targets = zeros(&raw.size()[..4]).map_err(part("objectness"))?;
    let mut boxes = zeros(&[]).map_err(part("box"))?;
    let mut class = zeros(&[]).map_err(part("class"))?;
    let indices = Indices::new(matches, device).map_err(part("matches"))?;
    let (logits, at_sites) = bridged(pick(raw, 4, &indices.sites)).map_err(part("predictions"))?;
    if !matches.site.is_empty() {
        // Matches in two steps, by their sites: the backward pass of the first then writes to each place once, and
        // that of the second goes through rows in order, so threads cannot change a sum.
        let picked = at_sites
            .f_index_select(0, &indices.site)
            .map_err(part("matches"))?;
        let overlap = overlaps(&picked, matches).map_err(part("box"))?;
        boxes = one_minus(&overlap).map_err(part("box"))?;
        indices
            .write_last(&overlap, &mut overlap_targets)
            .map_err(part("objectness"))?;
        if classes > 1 {
            class = class_sum(&picked, &indices.classes, settings).map_err(part("class"))?;
        }
    }
    let weight = settings.object_positive_weight;
    let objects = cross_entropy(&logits, &overlap_targets, weight, settings.focal_gamma)
        .map_err(part("objectness"))?;
    Ok(LevelSums {
        boxes,
        objects,
        classes: class,
    })
}

/// The matches as index tensors.
struct Indices {
    /// Image, anchor, row and column of each site.
    sites: [Tensor; 4],
    /// Of each match.
    site: Tensor,
    /// Of each match, `[matches, 1]`.
    classes: Tensor,
    /// Of each site.
    last_match: Tensor,
}

impl Indices {
    fn new(matches: &LevelMatches, device: Device) -> Result<Self, TchError> {
        let upload = |values: &[i64]| Tensor::f_from_slice(values)?.f_to_device(device);
        let sites = upload(matches.sites.as_flattened())?.f_view([-1, 4])?;
        Ok(Self {
            sites: [
                sites.f_select(1, 0)?,
                sites.f_select(1, 1)?,
                sites.f_select(1, 2)?,
                sites.f_select(1, 3)?,
            ],
            site: upload(&matches.site)?,
            classes: upload(&matches.classes)?.f_unsqueeze(1)?,
            last_match: upload(&matches.last_match)?,
        })
    }

    /// Writes the overlap of each site's last match to its place, as v5 does on a CPU.
    fn write_last(&self, overlap: &Tensor, targets: &mut Tensor) -> Result<(), TchError> {
        let overlap = overlap.f_detach()?.f_clamp_min(0.0)?;
        let sites = self.sites.each_ref().map(Some);
        let values = overlap.f_index_select(0, &self.last_match)?;
        targets.f_index_put_(&sites, &values, false).map(drop)
    }
}

/// The `CIoU` of each match's prediction with its object, in cells.
fn overlaps(picked: &Tensor, matches: &LevelMatches) -> Result<Tensor, TchError> {
    let upload = |values: &[f32], columns: i64| {
        Tensor::f_from_slice(values)?
            .f_to_kind(picked.kind())?
            .f_to_device(picked.device())?
            .f_view([-1, columns])
    };
    let anchors = upload(matches.anchors.as_flattened(), 2)?;
    let objects = upload(matches.boxes.as_flattened(), 4)?;
    let double = picked.f_narrow(1, 0, 4)?.f_sigmoid()?.f_mul_scalar(2.0)?;
    let centre = double.f_narrow(1, 0, 2)?.f_sub_scalar(0.5)?;
    let size = double.f_narrow(1, 2, 2)?.f_square()?.f_mul(&anchors)?;
    ciou(&Tensor::f_cat(&[centre, size], 1)?, &objects)
}

fn one_minus(overlap: &Tensor) -> Result<Tensor, TchError> {
    overlap.f_neg()?.f_add_scalar(1.0)?.f_sum(overlap.kind())
}

fn class_sum(
    picked: &Tensor,
    classes: &Tensor,
    settings: &LossSettings,
) -> Result<Tensor, TchError> {
    let logits = picked.f_narrow(1, 5, picked.size()[1] - 5)?;
    let absent = 0.5 * settings.label_smoothing;
    let present = 1.0 - absent;
    let targets = logits
        .f_detach()?
        .f_full_like(absent)?
        .f_scatter_value(1, classes, present)?;
    let weight = settings.class_positive_weight;
    cross_entropy(&logits, &targets, weight, settings.focal_gamma)
}

/// The sum of the binary cross entropy. With a `gamma` above 0, each term is multiplied by
/// `a (1 - p)^gamma`, where p is the probability given to the truth, and a 1/4 for positives and 3/4 for
/// negatives (Lin et al. 2017, in the form for soft targets that YOLOv5 v7.0 uses).
fn cross_entropy(
    logits: &Tensor,
    targets: &Tensor,
    positive_weight: f64,
    gamma: f64,
) -> Result<Tensor, TchError> {
    let weight = if positive_weight == 1.0 {
        None
    } else {
        Some(Tensor::f_full(
            [1],
            positive_weight,
            (logits.kind(), logits.device()),
        )?)
    };
    if gamma == 0.0 {
        return logits.f_binary_cross_entropy_with_logits(targets, None, weight, Reduction::Sum);
    }
    let terms =
        logits.f_binary_cross_entropy_with_logits(targets, None, weight, Reduction::None)?;
    // 1 - p is p + t - 2 p t of the logits' probability p and the target t.
    let probability = logits.f_sigmoid()?;
    let wrong = probability
        .f_add(targets)?
        .f_sub(&probability.f_mul(targets)?.f_mul_scalar(2.0)?)?;
    let balance = targets
        .f_mul_scalar(2.0 * FOCAL_ALPHA - 1.0)?
        .f_add_scalar(1.0 - FOCAL_ALPHA)?;
    terms
        .f_mul(&balance)?
        .f_mul(&wrong.f_pow_tensor_scalar(gamma)?)?
        .f_sum(logits.kind())
}
