use super::scans::{Scan, Scans, Stroke};
use image::{Rgb, RgbImage};
use rand_chacha::ChaCha8Rng;
use trainer_core::mosaic::PixelRect;
use trainer_core::rng::{below, chance, uniform};

/// What scenes look like.
#[derive(Clone, Copy, Debug)]
pub(super) struct SceneConfig {
    /// Width and height in pixels.
    pub size: u32,
    /// Fewest and most digits.
    pub digits: (u32, u32),
    /// Smallest and largest long side of a digit as fractions of the scene's side.
    pub sides: (f64, f64),
}

/// A painted scene.
pub(super) struct Scene {
    pub image: RgbImage,
    pub digits: Vec<Digit>,
}

/// A digit in a scene.
pub(super) struct Digit {
    pub class: u8,
    /// The extent of its ink.
    pub area: PixelRect,
    stroke: Stroke,
}

/// Pixels between two digits, and between a digit and the scene's edge.
const GAP: u32 = 2;
/// Places tried for a digit before it is made smaller.
const PLACES: u32 = 40;
/// Least difference in brightness (0 to 255) between ink and background.
const CONTRAST: i32 = 80;

/// How many digits of the smallest side surely find room in a scene: they and their gaps may fill a
/// third of it, far below the half at which placing at random gets stuck.
pub(super) fn room(size: u32, min_side: f64) -> u32 {
    let side = (min_side * f64::from(size)).ceil() + f64::from(2 * GAP + 1);
    ((f64::from(size) / side).powi(2) / 3.0) as u32
}

impl Scene {
    /// Paints a scene with digits from `scans`.
    pub(super) fn paint(rng: &mut ChaCha8Rng, config: &SceneConfig, scans: &Scans) -> Self {
        let background = Background::draw(rng);
        let mut image = background.paint(rng, config.size);
        let span = config.digits.1 - config.digits.0 + 1;
        let count = config.digits.0 + below(rng, span.into()) as u32;
        let digits = place(rng, config, scans, count);
        for digit in &digits {
            let ink = background.draw_ink(rng);
            digit.paint(&mut image, ink);
        }
        Self { image, digits }
    }
}

/// Chooses digits and finds a place for each.
fn place(rng: &mut ChaCha8Rng, config: &SceneConfig, scans: &Scans, count: u32) -> Vec<Digit> {
    let size = f64::from(config.size);
    let (smallest, largest) = (config.sides.0 * size, config.sides.1 * size);
    let mut digits: Vec<Digit> = Vec::new();
    while (digits.len() as u32) < count {
        let scan = &scans.0[below(rng, scans.0.len() as u64) as usize];
        let mut side = uniform(rng, smallest, largest);
        // A digit that finds no place is made smaller; one of the smallest side finds one, unless
        // larger ones fill the scene: then all are chosen anew.
        let placed = loop {
            if let Some(digit) = place_one(rng, config, &digits, scan, side) {
                break Some(digit);
            }
            if side <= smallest {
                break None;
            }
            side = (side * 0.8).max(smallest);
        };
        match placed {
            Some(digit) => digits.push(digit),
            None => digits.clear(),
        }
    }
    digits
}

fn place_one(
    rng: &mut ChaCha8Rng,
    config: &SceneConfig,
    others: &[Digit],
    scan: &Scan,
    side: f64,
) -> Option<Digit> {
    let stroke = Stroke::new(scan, side)?;
    // Rounding may have moved the side out of its range by a pixel.
    let long = f64::from(stroke.width.max(stroke.height)) / f64::from(config.size);
    let (smallest, largest) = config.sides;
    let tolerance = 1.0 / f64::from(config.size);
    if long < smallest - tolerance || long > largest + tolerance {
        return None;
    }
    let free_x = config.size.checked_sub(stroke.width + 2 * GAP)?;
    let free_y = config.size.checked_sub(stroke.height + 2 * GAP)?;
    for _ in 0..PLACES {
        let x1 = GAP + below(rng, u64::from(free_x) + 1) as u32;
        let y1 = GAP + below(rng, u64::from(free_y) + 1) as u32;
        let area = PixelRect {
            x1,
            y1,
            x2: x1 + stroke.width,
            y2: y1 + stroke.height,
        };
        if others.iter().all(|other| apart(area, other.area)) {
            return Some(Digit {
                class: scan.class,
                area,
                stroke,
            });
        }
    }
    None
}

/// Whether two areas have a gap between them.
fn apart(a: PixelRect, b: PixelRect) -> bool {
    a.x2 + GAP <= b.x1 || b.x2 + GAP <= a.x1 || a.y2 + GAP <= b.y1 || b.y2 + GAP <= a.y1
}

impl Digit {
    fn paint(&self, image: &mut RgbImage, ink: [i32; 3]) {
        let rows = self.stroke.cover.chunks_exact(self.stroke.width as usize);
        for (y, row) in (self.area.y1..).zip(rows) {
            for (x, cover) in (self.area.x1..).zip(row) {
                let pixel = image.get_pixel_mut(x, y);
                for (channel, ink) in pixel.0.iter_mut().zip(ink) {
                    let paper = f32::from(*channel);
                    *channel = (paper + (ink as f32 - paper) * cover) as u8;
                }
            }
        }
    }
}

/// A gradient between two colours that are both dark or both light, with blotches and noise.
struct Background {
    from: [i32; 3],
    to: [i32; 3],
    /// Direction of the gradient.
    direction: [f64; 2],
    /// Whether it is darker than the ink.
    dark: bool,
}

/// Blotches change the brightness by up to this much either way.
const BLOTCH: i64 = 14;
/// Blotches per side.
const BLOTCHES: usize = 5;
/// Brightness of dark backgrounds at most and of light ones at least.
const DARK: i32 = 100;
const LIGHT: i32 = 150;

impl Background {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        let dark = chance(rng, 0.5);
        let fits = |brightness: i32| {
            if dark {
                brightness <= DARK
            } else {
                brightness >= LIGHT
            }
        };
        Self {
            dark,
            from: pale(draw_colour(rng, fits)),
            to: pale(draw_colour(rng, fits)),
            direction: [uniform(rng, -1.0, 1.0), uniform(rng, -1.0, 1.0)],
        }
    }

    fn paint(&self, rng: &mut ChaCha8Rng, size: u32) -> RgbImage {
        let blotches: Vec<f64> = (0..(BLOTCHES + 1).pow(2))
            .map(|_| (below(rng, 2 * BLOTCH as u64 + 1) as i64 - BLOTCH) as f64)
            .collect();
        let noise = 1 + below(rng, 6) as i32;
        let [dx, dy] = self.direction;
        let length = (dx.abs() + dy.abs()).max(f64::MIN_POSITIVE);
        let part = |x: u32| (f64::from(x) + 0.5) / f64::from(size);
        RgbImage::from_fn(size, size, |x, y| {
            let (x, y) = (part(x), part(y));
            // From 0 to 1 over the scene's diagonal in the gradient's direction.
            let along = 0.5 + ((x - 0.5) * dx + (y - 0.5) * dy) / length;
            let blotch = blotch_at(&blotches, x, y);
            let random = rand_chacha::rand_core::Rng::next_u64(rng).to_le_bytes();
            Rgb(std::array::from_fn(|c| {
                let colour =
                    f64::from(self.from[c]) + f64::from(self.to[c] - self.from[c]) * along + blotch;
                // The sum of two uniform numbers, -256 to 254, as noise.
                let sum = i32::from(random[2 * c]) + i32::from(random[2 * c + 1]) - 256;
                let noise = sum * noise / 64;
                (colour as i32 + noise).clamp(0, 255) as u8
            }))
        })
    }

    /// A colour that stands out from both ends of the gradient.
    fn draw_ink(&self, rng: &mut ChaCha8Rng) -> [i32; 3] {
        let (a, b) = (brightness(self.from), brightness(self.to));
        draw_colour(rng, |ink| {
            if self.dark {
                ink >= a.max(b) + CONTRAST
            } else {
                ink <= a.min(b) - CONTRAST
            }
        })
    }
}

/// The blotches' brightness at (`x`, `y`) in 0..1, bilinear.
fn blotch_at(blotches: &[f64], x: f64, y: f64) -> f64 {
    let (x, y) = (x * BLOTCHES as f64, y * BLOTCHES as f64);
    let (column, row) = (x as usize, y as usize);
    let (right, down) = (x - column as f64, y - row as f64);
    let at = |row: usize, column: usize| blotches[row * (BLOTCHES + 1) + column];
    let above = at(row, column) * (1.0 - right) + at(row, column + 1) * right;
    let below = at(row + 1, column) * (1.0 - right) + at(row + 1, column + 1) * right;
    above * (1.0 - down) + below * down
}

/// A random colour whose brightness `fits`.
fn draw_colour(rng: &mut ChaCha8Rng, fits: impl Fn(i32) -> bool) -> [i32; 3] {
    loop {
        let colour = std::array::from_fn(|_| below(rng, 256) as i32);
        if fits(brightness(colour)) {
            return colour;
        }
    }
}

/// The colour half way to the grey of the same brightness.
fn pale(colour: [i32; 3]) -> [i32; 3] {
    let grey = brightness(colour);
    colour.map(|channel| i32::midpoint(channel, grey))
}

/// Luma by ITU-R BT.601, 0 to 255.
fn brightness([r, g, b]: [i32; 3]) -> i32 {
    (299 * r + 587 * g + 114 * b) / 1000
}
