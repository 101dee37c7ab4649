use font8x8::UnicodeFonts;
use image::{Rgb, RgbImage};

/// Pixels per dot of the font's 8 by 8.
const DOT: u32 = 2;
/// Height of a line and width of a character in pixels.
pub(super) const HEIGHT: u32 = 8 * DOT;

/// Width of `text` in pixels.
pub(super) fn width(text: &str) -> u32 {
    text.chars().count() as u32 * HEIGHT
}

/// The text, cut in front (where paths differ least) if it is wider than `width` pixels.
pub(super) fn fit(text: &str, width: u32) -> String {
    let room = (width / HEIGHT) as usize;
    let count = text.chars().count();
    if count <= room {
        return text.to_owned();
    }
    let tail = text.chars().skip(count - room.saturating_sub(2));
    "..".chars().take(room).chain(tail).collect()
}

/// Writes `text` with its top left corner at `at`; what lies outside of the image is cut off.
pub(super) fn write(image: &mut RgbImage, at: (u32, u32), text: &str, colour: Rgb<u8>) {
    for (character, left) in text.chars().zip((at.0..).step_by(HEIGHT as usize)) {
        for (row, dots) in glyph(character).into_iter().enumerate() {
            for column in (0..8).filter(|column| dots >> column & 1 == 1) {
                let (x, y) = (left + column * DOT, at.1 + row as u32 * DOT);
                for (dx, dy) in (0..DOT).flat_map(|dy| (0..DOT).map(move |dx| (dx, dy))) {
                    if let Some(pixel) = image.get_pixel_mut_checked(x + dx, y + dy) {
                        *pixel = colour;
                    }
                }
            }
        }
    }
}

/// The font's dots by rows, the lowest bit left; a question mark for what the font does not have.
fn glyph(character: char) -> [u8; 8] {
    let fonts: [&dyn Fn(char) -> Option<[u8; 8]>; 4] = [
        &|c| font8x8::BASIC_FONTS.get(c),
        &|c| font8x8::LATIN_FONTS.get(c),
        &|c| font8x8::GREEK_FONTS.get(c),
        &|c| font8x8::HIRAGANA_FONTS.get(c),
    ];
    fonts
        .iter()
        .find_map(|font| font(character))
        .or_else(|| font8x8::BASIC_FONTS.get('?'))
        .unwrap_or_default()
}
