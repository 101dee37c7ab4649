//! Anchors fitted to a data set (as YOLOv5 v7.0's `AutoAnchor` does).
//!
//! K-means over the boxes gives anchors, and evolution improves them. Everything follows from the boxes and
//! the seed.

use crate::anchors::{fit, worst_ratio};
use crate::rng::{Purpose, below, chance, normal, stream, uniform};
use rand_chacha::ChaCha8Rng;

/// Anchors are enough where more of the boxes than this can be matched.
const ENOUGH_RECALL: f32 = 0.98;
/// By which factors labels vary before anchors are measured.
const JITTER: (f64, f64) = (0.9, 1.1);
/// Boxes from which anchors are made at most, taken evenly from all: more take time and change nothing.
const MOST_BOXES: usize = 100_000;
/// Smaller boxes, in pixels, have no say.
const MIN_SIDE: f32 = 2.0;
/// From how many random starts k-means looks for the best clusters.
const STARTS: u64 = 30;
/// A start ends when the mean distance improves by no more than this, or after so many rounds.
const IMPROVEMENT: f64 = 1e-5;
const ROUNDS: usize = 300;
/// Generations of the evolution.
const GENERATIONS: u64 = 1000;
/// How probably, and by which factor at most and least, a side mutates; its deviation.
const MUTATION: f64 = 0.9;
const DEVIATION: f64 = 0.1;
const FACTORS: (f64, f64) = (0.3, 3.0);

/// Whether a network's anchors fit a data set, and better ones if they do not.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Best possible recall with the network's anchors.
    pub recall: f32,
    /// The same with other anchors, if they were looked for and found.
    pub other_recall: Option<f32>,
    /// Those, in hundredths of a pixel, smallest area first, if they are better.
    pub anchors: Option<Vec<[f32; 2]>>,
}

/// Anchors made from a data set.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// In hundredths of a pixel, smallest area first.
    pub anchors: Vec<[f32; 2]>,
    /// Best possible recall with them.
    pub recall: f32,
}

/// Tests `anchors` against `boxes` whose sides vary by 0.9 to 1.1, and looks for others where 98 % of them or
/// fewer can be matched (YOLOv5 v7.0).
pub fn choose(boxes: &[[f32; 2]], anchors: &[[f32; 2]], threshold: f32, seed: u64) -> Choice {
    let recall = fit(&varied(boxes, seed), anchors, threshold).best_possible_recall;
    let mut choice = Choice {
        recall,
        other_recall: None,
        anchors: None,
    };
    if recall <= ENOUGH_RECALL
        && let Some(found) = make(boxes, anchors.len(), threshold, seed)
    {
        choice.other_recall = Some(found.recall);
        choice.anchors = (found.recall > recall).then_some(found.anchors);
    }
    choice
}

/// `count` anchors for a network that has none of its own; none where fewer than that many different boxes have
/// sides of at least 2 pixels.
pub fn make(boxes: &[[f32; 2]], count: usize, threshold: f32, seed: u64) -> Option<Found> {
    let step = boxes.len().div_ceil(MOST_BOXES).max(1);
    let some: Vec<[f32; 2]> = boxes.iter().step_by(step).copied().collect();
    let anchors = evolve(&some, count, threshold, seed)?;
    let rounded = |side: f32| (side * 100.0).round() / 100.0;
    let anchors: Vec<[f32; 2]> = anchors.iter().map(|sides| sides.map(rounded)).collect();
    let recall = fit(&varied(boxes, seed), &anchors, threshold).best_possible_recall;
    Some(Found { anchors, recall })
}

/// The boxes with sides that vary by 0.9 to 1.1, the same for every call.
fn varied(boxes: &[[f32; 2]], seed: u64) -> Vec<[f32; 2]> {
    let mut rng = stream(seed, Purpose::Anchors, 0, 3);
    let vary = |sides: &[f32; 2]| {
        let factor = uniform(&mut rng, JITTER.0, JITTER.1) as f32;
        sides.map(|side| side * factor)
    };
    boxes.iter().map(vary).collect()
}

/// The `count` anchors that fit `boxes` best, smallest area first; none if fewer than that many different
/// boxes have sides of at least 2 pixels.
pub fn evolve(
    boxes: &[[f32; 2]],
    count: usize,
    threshold: f32,
    seed: u64,
) -> Option<Vec<[f32; 2]>> {
    let boxes: Vec<[f32; 2]> = boxes
        .iter()
        .copied()
        .filter(|[w, h]| w.max(*h) >= MIN_SIDE)
        .collect();
    let mut anchors = cluster(&boxes, count, seed)?;
    let mut best = fitness(&boxes, &anchors, threshold);
    for generation in 1..=GENERATIONS {
        let mut rng = stream(seed, Purpose::Anchors, generation, 1);
        let mutated: Vec<[f32; 2]> = anchors
            .iter()
            .map(|sides| sides.map(|side| mutate(&mut rng, side)))
            .collect();
        let fitness = fitness(&boxes, &mutated, threshold);
        if fitness > best {
            (best, anchors) = (fitness, mutated);
        }
    }
    anchors.sort_by(|a, b| area(*a).total_cmp(&area(*b)));
    Some(anchors)
}

/// Two or three draws.
fn mutate(rng: &mut ChaCha8Rng, side: f32) -> f32 {
    if !chance(rng, MUTATION) {
        return side;
    }
    let factor = (1.0 + DEVIATION * normal(rng)).clamp(FACTORS.0, FACTORS.1);
    (side * factor as f32).max(MIN_SIDE)
}

/// The mean of each box's best ratio, where that is good enough to be matched.
fn fitness(boxes: &[[f32; 2]], anchors: &[[f32; 2]], threshold: f32) -> f64 {
    let least = 1.0 / threshold;
    let sum: f64 = boxes
        .iter()
        .map(|size| {
            let best = anchors
                .iter()
                .map(|anchor| worst_ratio(*size, *anchor))
                .fold(0.0, f32::max);
            if best > least { f64::from(best) } else { 0.0 }
        })
        .sum();
    sum / boxes.len().max(1) as f64
}

/// K-means over the boxes divided by the deviation of widths and of heights, the best of several starts.
fn cluster(boxes: &[[f32; 2]], count: usize, seed: u64) -> Option<Vec<[f32; 2]>> {
    let mut different: Vec<[u32; 2]> = boxes.iter().map(|size| size.map(f32::to_bits)).collect();
    different.sort_unstable();
    different.dedup();
    if count == 0 || different.len() < count {
        return None;
    }
    let deviation = [0, 1].map(|axis| deviation(boxes, axis));
    let points: Vec<[f64; 2]> = boxes
        .iter()
        .map(|size| [0, 1].map(|axis| f64::from(size[axis]) / deviation[axis]))
        .collect();
    let best = (0..STARTS)
        .map(|start| {
            let mut rng = stream(seed, Purpose::Anchors, start, 2);
            // Different boxes, so that no two centres begin at the same place.
            let mut from = different.clone();
            let centres = (0..count)
                .map(|_| {
                    let chosen = from.swap_remove(below(&mut rng, from.len() as u64) as usize);
                    [0, 1].map(|axis| f64::from(f32::from_bits(chosen[axis])) / deviation[axis])
                })
                .collect();
            settle(&points, centres)
        })
        .min_by(|(a, _), (b, _)| a.total_cmp(b))?;
    let centres = best.1.into_iter();
    Some(
        centres
            .map(|centre| [0, 1].map(|axis| (centre[axis] * deviation[axis]) as f32))
            .collect(),
    )
}

/// Standard deviation of widths or heights; 1 if all are equal.
fn deviation(boxes: &[[f32; 2]], axis: usize) -> f64 {
    let count = boxes.len() as f64;
    let sides = || boxes.iter().map(|size| f64::from(size[axis]));
    let mean = sides().sum::<f64>() / count;
    let variance = sides().map(|side| (side - mean).powi(2)).sum::<f64>() / count;
    if variance > 0.0 { variance.sqrt() } else { 1.0 }
}

/// Moves the centres to the means of the points nearest to them until that helps no more. Returns the
/// mean distance with them.
fn settle(points: &[[f64; 2]], mut centres: Vec<[f64; 2]>) -> (f64, Vec<[f64; 2]>) {
    let mut last = f64::INFINITY;
    for _ in 0..ROUNDS {
        let mut sums = vec![([0.0; 2], 0.0); centres.len()];
        let mut distance = 0.0;
        for point in points {
            let (nearest, squared) = nearest(point, &centres);
            distance += squared.sqrt();
            let (sum, count) = &mut sums[nearest];
            *sum = [sum[0] + point[0], sum[1] + point[1]];
            *count += 1.0;
        }
        let mean = distance / points.len() as f64;
        if last - mean <= IMPROVEMENT {
            return (mean.min(last), centres);
        }
        last = mean;
        for (centre, (sum, count)) in centres.iter_mut().zip(sums) {
            // A centre that lost all its points stays.
            if count > 0.0 {
                *centre = sum.map(|axis| axis / count);
            }
        }
    }
    (last, centres)
}

fn nearest(point: &[f64; 2], centres: &[[f64; 2]]) -> (usize, f64) {
    let mut best = (0, f64::INFINITY);
    for (index, centre) in centres.iter().enumerate() {
        let squared = (point[0] - centre[0]).powi(2) + (point[1] - centre[1]).powi(2);
        if squared < best.1 {
            best = (index, squared);
        }
    }
    best
}

fn area([width, height]: [f32; 2]) -> f32 {
    width * height
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::anchors::DEFAULT_ANCHORS;

    /// Boxes around three shapes.
    fn small() -> Vec<[f32; 2]> {
        let mut rng = stream(3, Purpose::Test, 0, 0);
        (0..300)
            .map(|k| {
                let shape = [[2.5, 2.5], [3.0, 12.0], [14.0, 3.0]][k % 3];
                shape.map(|side: f32| side * uniform(&mut rng, 0.9, 1.1) as f32)
            })
            .collect()
    }

    #[test]
    fn clusters_are_found_whatever_their_shape() {
        let boxes = small();
        let anchors = evolve(&boxes, 3, 4.0, 0).expect("enough boxes");
        for shape in [[2.5, 2.5], [3.0, 12.0], [14.0, 3.0]] {
            let fits = anchors
                .iter()
                .any(|anchor| worst_ratio(shape, *anchor) > 0.9);
            assert!(fits, "{anchors:?}");
        }
        let nine = evolve(&boxes, 9, 4.0, 0).expect("enough boxes");
        assert_eq!(
            (nine.len(), fit(&boxes, &nine, 4.0).best_possible_recall),
            (9, 1.0)
        );
        assert!(nine.is_sorted_by_key(|anchor| area(*anchor)));
        assert_eq!(Some(&nine), evolve(&boxes, 9, 4.0, 0).as_ref());
        assert_ne!(
            Some(&nine),
            evolve(&boxes, 9, 4.0, 1).as_ref(),
            "another seed"
        );
    }

    #[test]
    fn evolution_improves_what_clusters_gave() {
        // From 4 to 400 pixels, all scales alike: k-means cares too little about the small ones.
        let mut rng = stream(4, Purpose::Test, 0, 0);
        let boxes: Vec<[f32; 2]> = (0..100)
            .map(|_| [0; 2].map(|_| 4.0 * 100_f64.powf(uniform(&mut rng, 0.0, 1.0)) as f32))
            .collect();
        let clusters = cluster(&boxes, 3, 0).expect("enough boxes");
        let evolved = evolve(&boxes, 3, 4.0, 0).expect("enough boxes");
        assert!(fitness(&boxes, &evolved, 4.0) > 1.1 * fitness(&boxes, &clusters, 4.0));
    }

    #[test]
    fn anchors_are_changed_only_where_that_helps() {
        let own = DEFAULT_ANCHORS.as_flattened();
        let fitting = choose(&[[100.0, 90.0], [30.0, 60.0]].repeat(50), own, 4.0, 0);
        assert_eq!(
            (1.0, None, None),
            (fitting.recall, fitting.other_recall, fitting.anchors)
        );

        // A third of them is smaller than any anchor could match, whatever the variation.
        let changed = choose(&small(), own, 4.0, 0);
        assert!(changed.recall < 0.7, "{}", changed.recall);
        assert_eq!(Some(1.0), changed.other_recall);
        let anchors = changed.anchors.clone().expect("better ones");
        assert_eq!(own.len(), anchors.len());
        assert!(anchors.is_sorted_by_key(|anchor| area(*anchor)));
        assert_eq!(changed, choose(&small(), own, 4.0, 0));

        // Boxes that differ too much for one anchor.
        let wide = [[4.0, 400.0], [400.0, 4.0]].repeat(50);
        let kept = choose(&wide, &[[4.0, 400.0]], 4.0, 0);
        assert_eq!((0.5, None), (kept.recall, kept.anchors));
        assert!(kept.other_recall.is_some_and(|other| other <= 0.5));
        assert_eq!(
            None,
            choose(&wide, own, 4.0, 0).other_recall,
            "too few to cluster"
        );
        assert_eq!(0.0, choose(&[], own, 4.0, 0).recall);
    }

    #[test]
    fn a_network_without_anchors_gets_some_however_well_others_would_fit() {
        let made = make(&small(), 3, 4.0, 0).expect("enough boxes");
        assert_eq!((3, 1.0), (made.anchors.len(), made.recall));
        assert_eq!(None, make(&small()[..2], 3, 4.0, 0));
    }

    #[test]
    fn the_threshold_is_98_percent_and_labels_vary() {
        // Of boxes just within the threshold, variation puts some beyond it.
        let edge = [[10.0 * 3.95, 10.0]].repeat(400);
        let recall = choose(&edge, &[[10.0, 10.0]], 4.0, 0).recall;
        assert!((0.5..0.8).contains(&recall), "{recall}");
        let mixed = |bad: usize| {
            let mut boxes = vec![[10.0, 10.0]; 1000];
            boxes[..bad].fill([100.0, 100.0]);
            choose(&boxes, &[[10.0, 10.0]], 4.0, 0)
                .other_recall
                .is_some()
        };
        assert_eq!([false, true], [mixed(19), mixed(20)]);
    }

    #[test]
    fn too_few_boxes_give_no_anchors() {
        assert_eq!(evolve(&[[5.0, 5.0]; 20], 9, 4.0, 0), None);
        assert_eq!(evolve(&[[1.0, 1.0]; 20], 1, 4.0, 0), None);
        assert_eq!(evolve(&[], 9, 4.0, 0), None);
        // All alike: nothing deviates.
        let found = evolve(&[[5.0, 7.0]; 20], 1, 4.0, 0).expect("one box is enough for one anchor");
        assert!(worst_ratio(found[0], [5.0, 7.0]) > 0.99);
    }
}
