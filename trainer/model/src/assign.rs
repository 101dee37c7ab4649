//! Which cells and anchors answer for which boxes.
//!
//! Pure arithmetic on the CPU, in `f32` as YOLOv5 does it: the number of matches is known before the
//! forward pass, without asking a GPU, so ranks can add theirs up early.

use std::collections::HashMap;

use trainer_core::boxes::Xywh;

use crate::architecture::Level;
use crate::error::Error;
use crate::loss::Denominators;

/// One object of a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// Index of its image in the batch.
    pub image: u32,
    /// Its class.
    pub class: u16,
    /// Its box as fractions of the image.
    pub xywh: Xywh,
}

/// What a batch consists of, as far as targets are concerned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchShape {
    pub images: usize,
    pub height: usize,
    pub width: usize,
}

/// For each level, the predictions that answer for objects.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    pub(crate) levels: Vec<LevelMatches>,
}

/// The matches of one level. A match is an object together with a cell and an anchor; several may
/// share cell and anchor, which together are called a site.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LevelMatches {
    /// Images, height and width of the grid.
    pub grid: [i64; 3],
    /// Anchors of each cell.
    pub anchors_per_cell: usize,
    /// Image, anchor, row and column of each site, every site once.
    pub sites: Vec<[i64; 4]>,
    /// For each site its last match: whose overlap the objectness learns.
    pub last_match: Vec<i64>,
    /// For each match its site.
    pub site: Vec<i64>,
    /// For each match the box in cells, its centre from the corner of the cell.
    pub boxes: Vec<[f32; 4]>,
    /// For each match its anchor in cells.
    pub anchors: Vec<[f32; 2]>,
    /// For each match its class.
    pub classes: Vec<i64>,
}

impl Assignment {
    /// How much there is to average over.
    pub fn denominators(&self) -> Denominators {
        let mut denominators = Denominators::default();
        for (at, level) in self.levels.iter().enumerate() {
            let cells = level.grid.iter().product::<i64>() as u64;
            denominators.matches[at] = level.site.len() as u64;
            denominators.cells[at] = cells * level.anchors_per_cell as u64;
        }
        denominators
    }
}

/// Half a cell, how far a neighbour reaches.
const REACH: f32 = 0.5;

/// YOLOv5 v7.0 behaviour: an anchor answers for an object when neither side differs by
/// `anchor_threshold` times or more; the cell that holds the centre answers, and so do up to two
/// neighbours, those across the nearer edges. Matches are ordered by neighbour, anchor, object,
/// which decides whose overlap a shared site learns.
pub(crate) fn assign(
    targets: &[Target],
    shape: BatchShape,
    levels: &[Level],
    anchor_threshold: f32,
) -> Result<Assignment, Error> {
    if let Some(target) = targets
        .iter()
        .find(|target| target.image as usize >= shape.images)
    {
        return Err(Error::TargetImage {
            image: target.image,
            batch: shape.images,
        });
    }
    let levels = levels
        .iter()
        .map(|level| {
            let stride = level.stride;
            let grid = [
                shape.images,
                shape.height / stride as usize,
                shape.width / stride as usize,
            ]
            .map(|side| side as i64);
            let in_cells = |anchor: &[f32; 2]| anchor.map(|side| side / stride as f32);
            let anchors: Vec<[f32; 2]> = level.anchors.iter().map(in_cells).collect();
            assign_level(targets, grid, &anchors, anchor_threshold)
        })
        .collect();
    Ok(Assignment { levels })
}

fn assign_level(
    targets: &[Target],
    grid: [i64; 3],
    anchors: &[[f32; 2]],
    anchor_threshold: f32,
) -> LevelMatches {
    let (height, width) = (grid[1] as f32, grid[2] as f32);
    let kept: Vec<Kept> = anchors
        .iter()
        .enumerate()
        .flat_map(|(anchor, sides)| {
            targets.iter().filter_map(move |target| {
                let Xywh { x, y, w, h } = target.xywh;
                let xywh = [x * width, y * height, w * width, h * height];
                let fits = worst_ratio([xywh[2], xywh[3]], *sides) < anchor_threshold;
                fits.then_some(Kept {
                    target,
                    anchor,
                    sides: *sides,
                    xywh,
                })
            })
        })
        .collect();

    let mut matches = LevelMatches {
        grid,
        anchors_per_cell: anchors.len(),
        ..LevelMatches::default()
    };
    let mut site_of = HashMap::new();
    for neighbour in Neighbour::ALL {
        for kept in kept
            .iter()
            .filter(|kept| neighbour.answers(kept.xywh, width, height))
        {
            matches.push(kept, neighbour.offset(), &mut site_of);
        }
    }
    matches
}

/// An object and an anchor that fits it.
struct Kept<'a> {
    target: &'a Target,
    anchor: usize,
    sides: [f32; 2],
    /// The object's box in cells.
    xywh: [f32; 4],
}

impl LevelMatches {
    fn push(&mut self, kept: &Kept, offset: [f32; 2], site_of: &mut HashMap<[i64; 4], usize>) {
        let [x, y, w, h] = kept.xywh;
        let cell =
            |centre: f32, offset: f32, side: i64| ((centre - offset) as i64).clamp(0, side - 1);
        let column = cell(x, offset[0], self.grid[2]);
        let row = cell(y, offset[1], self.grid[1]);
        let key = [
            i64::from(kept.target.image),
            kept.anchor as i64,
            row,
            column,
        ];
        let this_match = self.site.len() as i64;
        let site = *site_of.entry(key).or_insert_with(|| {
            self.sites.push(key);
            self.last_match.push(this_match);
            self.sites.len() - 1
        });
        self.last_match[site] = this_match;
        self.site.push(site as i64);
        self.boxes.push([x - column as f32, y - row as f32, w, h]);
        self.anchors.push(kept.sides);
        self.classes.push(i64::from(kept.target.class));
    }
}

/// How many times the worse fitting side differs; infinite or NaN for an empty box.
fn worst_ratio(sides: [f32; 2], anchor: [f32; 2]) -> f32 {
    let ratio = |side: f32, of_anchor: f32| {
        let ratio = side / of_anchor;
        ratio.max(1.0 / ratio)
    };
    ratio(sides[0], anchor[0]).max(ratio(sides[1], anchor[1]))
}

/// A cell seen from the one that holds an object's centre.
#[derive(Clone, Copy)]
enum Neighbour {
    Itself,
    Left,
    Top,
    Right,
    Bottom,
}

impl Neighbour {
    /// In the order of YOLOv5's rows.
    const ALL: [Self; 5] = [
        Self::Itself,
        Self::Left,
        Self::Top,
        Self::Right,
        Self::Bottom,
    ];

    /// Whether this cell also answers for a box in a grid of `width` by `height`.
    fn answers(self, [x, y, ..]: [f32; 4], width: f32, height: f32) -> bool {
        // Nearer to this edge of the cell than to its middle, and not at the border of the grid.
        let near = |distance: f32| distance % 1.0 < REACH && distance > 1.0;
        match self {
            Self::Itself => true,
            Self::Left => near(x),
            Self::Top => near(y),
            Self::Right => near(width - x),
            Self::Bottom => near(height - y),
        }
    }

    /// What to subtract from the centre to land in this cell. A centre on a left edge "lands" in its
    /// own cell when it reaches right; such matches count twice, as in YOLOv5.
    fn offset(self) -> [f32; 2] {
        match self {
            Self::Itself => [0.0, 0.0],
            Self::Left => [REACH, 0.0],
            Self::Top => [0.0, REACH],
            Self::Right => [-REACH, 0.0],
            Self::Bottom => [0.0, -REACH],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::MAX_LEVELS;
    use crate::testing::{GOLDEN_BATCH, golden_targets, small};

    /// Assigns to the levels of a usual network.
    fn usual(
        targets: &[Target],
        shape: BatchShape,
        anchor_threshold: f32,
    ) -> Result<Assignment, Error> {
        let architecture = small().architecture;
        assign(targets, shape, architecture.levels(), anchor_threshold)
    }

    fn golden(anchor_threshold: f32) -> Assignment {
        usual(&golden_targets(), GOLDEN_BATCH, anchor_threshold).expect("images are in the batch")
    }

    /// Image, anchor, row, column and class of all matches, sorted.
    fn rows(level: &LevelMatches) -> Vec<[i64; 5]> {
        let matches = level.site.iter().zip(&level.classes);
        let mut rows: Vec<[i64; 5]> = matches
            .map(|(site, class)| {
                let [image, anchor, row, column] = level.sites[*site as usize];
                [image, anchor, row, column, *class]
            })
            .collect();
        rows.sort_unstable();
        rows
    }

    #[test]
    fn golden_numbers_of_matches() {
        assert_eq!([33, 19, 3], golden(4.0).denominators().matches[..3]);
        assert_eq!([21, 6, 0], golden(2.0).denominators().matches[..3]);
        assert_eq!(
            [2 * 3 * 64, 2 * 3 * 16, 2 * 3 * 4],
            golden(4.0).denominators().cells[..3]
        );
    }

    #[test]
    fn golden_matches_of_the_coarsest_level() {
        let want = [[1, 0, 0, 0, 0], [1, 0, 1, 0, 0], [1, 0, 1, 1, 0]];
        assert_eq!(want[..], rows(&golden(4.0).levels[2]));
    }

    /// The centre of target 0 is the corner of four cells.
    #[test]
    fn golden_duplicates_of_a_centre_on_an_edge() {
        let level = &golden(4.0).levels[0];
        let of_target_0: Vec<[i64; 5]> = rows(level)
            .into_iter()
            .filter(|row| row[..2] == [0, 0] && row[4] == 0)
            .collect();
        let want = [
            [0, 0, 3, 4, 0],
            [0, 0, 4, 3, 0],
            [0, 0, 4, 4, 0],
            [0, 0, 4, 4, 0],
            [0, 0, 4, 4, 0],
        ];
        assert_eq!(want[..], of_target_0);
    }

    #[test]
    fn a_site_is_listed_once_and_knows_its_last_match() {
        for level in &golden(4.0).levels {
            let mut unique = level.sites.clone();
            unique.sort_unstable();
            unique.dedup();
            assert_eq!(level.sites.len(), unique.len());
            for (site, last) in level.last_match.iter().enumerate() {
                let rposition = level
                    .site
                    .iter()
                    .rposition(|of_match| *of_match == site as i64);
                assert_eq!(Some(*last as usize), rposition);
            }
        }
    }

    #[test]
    fn boxes_at_the_border_stay_in_the_grid() {
        let corner = |x, y| Target {
            image: 0,
            class: 0,
            xywh: Xywh::new(x, y, 0.2, 0.2),
        };
        let shape = BatchShape {
            images: 1,
            height: 64,
            width: 96,
        };
        let targets = [corner(0.0, 0.0), corner(1.0, 1.0), corner(0.0, 1.0)];
        let assignment = usual(&targets, shape, 4.0).expect("one image");
        for level in &assignment.levels {
            let [_, height, width] = level.grid;
            for [_, _, row, column] in &level.sites {
                assert!((0..height).contains(row) && (0..width).contains(column));
            }
        }
        assert!(assignment.denominators().matches[0] >= 3);
    }

    #[test]
    fn an_empty_box_matches_nothing() {
        let target = Target {
            image: 0,
            class: 0,
            xywh: Xywh::new(0.5, 0.5, 0.0, 0.1),
        };
        let assignment = usual(&[target], GOLDEN_BATCH, 4.0).expect("in the batch");
        assert_eq!([0; MAX_LEVELS], assignment.denominators().matches);
    }

    #[test]
    fn an_image_outside_the_batch_is_refused() {
        let target = Target {
            image: 2,
            class: 0,
            xywh: Xywh::new(0.5, 0.5, 0.1, 0.1),
        };
        assert!(matches!(
            usual(&[target], GOLDEN_BATCH, 4.0),
            Err(Error::TargetImage { image: 2, batch: 2 })
        ));
    }
}
