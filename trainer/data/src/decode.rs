//! From an image file to pixels of a given size.
//!
//! A file of a few bytes can claim to be billions of pixels: what it claims is compared with
//! [`MAX_PIXELS`] before any memory is asked for.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::{
    DynamicImage, ImageBuffer, ImageDecoder, ImageError, ImageFormat, ImageReader, Pixel, Rgb,
    RgbImage,
};
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::bounded;

mod area;
mod jpeg;

/// The most pixels an image may have: a square of 11585.
pub const MAX_PIXELS: u64 = 1 << 27;
/// The most bytes an image's pixels may take while it is decoded; with 16 bits for each of four
/// channels they are the largest.
const MAX_DECODED: u64 = 8 * MAX_PIXELS;
/// The largest image file in bytes.
const MAX_FILE: u64 = 1 << 30;

/// How an image is made smaller. Larger, it is always interpolated bilinearly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shrink {
    /// From the four nearest pixels: fast, with some aliasing, as YOLOv5 does for training.
    Bilinear,
    /// As bilinear, of a JPEG decoded at a half, a quarter or an eighth of its size where that is large enough: faster,
    /// with less aliasing, and not to YOLOv5's pixels.
    Scaled,
    /// The mean of all pixels that a new one covers, as YOLOv5 does for evaluation.
    Area,
}

/// Why a file gave no pixels.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The file cannot be read.
    #[error("the file cannot be read")]
    Read(#[source] std::io::Error),
    /// The file is not an image, or a damaged one.
    #[error("the image cannot be decoded")]
    Decode(#[source] ImageError),
    /// The file ends before the image does.
    #[error("the file ends before the image does: copy it again")]
    Torn,
    /// The image has too many pixels.
    #[error(
        "the image claims {width} x {height} pixels, more than {MAX_PIXELS}: cut it into tiles"
    )]
    TooLarge {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The decoder did not survive the file.
    #[error("the image cannot be decoded: it makes the decoder panic")]
    Panicked,
    /// The pixels cannot be resized.
    #[error("the image cannot be resized to {width} x {height}")]
    Resize {
        /// New width.
        width: u32,
        /// New height.
        height: u32,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Decodes the image in `path`, turns it as its EXIF orientation says, and resizes it to `size`
/// (width and height).
///
/// One bad file should not end days of training: a decoder that panics is reported like any
/// other damage to the file.
pub fn decode(path: &Path, size: (u32, u32), shrink: Shrink) -> Result<RgbImage, DecodeError> {
    decode_rows(path, size, shrink, u32::MAX)
}

/// As [`decode`], but only the first `rows` rows of the result are sure to be right, and it may end below
/// them. Of a JPEG the rest is not decoded, which saves time.
pub fn decode_rows(
    path: &Path,
    size: (u32, u32),
    shrink: Shrink,
    rows: u32,
) -> Result<RgbImage, DecodeError> {
    let bytes = bounded::read(path, MAX_FILE).map_err(DecodeError::Read)?;
    let rows = rows.min(size.1);
    let (least, part) = match shrink {
        Shrink::Bilinear => (jpeg::OWN_SIZE, rows < size.1),
        Shrink::Scaled => (size.0.max(size.1), true),
        Shrink::Area => (jpeg::OWN_SIZE, false),
    };
    let source_rows = |height| source_rows(rows, size.1, height);
    let top = part.then(|| jpeg::decode(&bytes, least, source_rows));
    let (lies, image) = match top.transpose()?.flatten() {
        Some(top) if (top.image.width(), top.height) == size => return Ok(top.image),
        Some(top) => (top.lies, top.extended()),
        None => (None, guarded(|| decode_bytes(&bytes))??),
    };
    resize(image, lies, size, shrink).map_err(|source| DecodeError::Resize {
        width: size.0,
        height: size.1,
        source,
    })
}

/// How many of an image's `height` rows the first `rows` are interpolated from when it is resized to
/// `resized` rows.
fn source_rows(rows: u32, resized: u32, height: u32) -> u32 {
    // The row below is mixed in.
    let rows = u64::from(rows + 1) * u64::from(height) / u64::from(resized.max(1)) + 2;
    rows.try_into().unwrap_or(u32::MAX)
}

/// As [`decode`], at the image's own size.
pub fn decode_whole(path: &Path) -> Result<RgbImage, DecodeError> {
    let bytes = bounded::read(path, MAX_FILE).map_err(DecodeError::Read)?;
    guarded(|| decode_bytes(&bytes))?
}

fn guarded<T>(decode: impl FnOnce() -> T) -> Result<T, DecodeError> {
    catch_unwind(AssertUnwindSafe(decode)).map_err(|_| DecodeError::Panicked)
}

fn decode_bytes(bytes: &[u8]) -> Result<RgbImage, DecodeError> {
    if let Some(photograph) = jpeg::decode(bytes, jpeg::OWN_SIZE, |height| height)? {
        return Ok(photograph.image);
    }
    let reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(DecodeError::Read)?;
    let format = reader.format();
    let mut decoder = reader.into_decoder().map_err(DecodeError::Decode)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels > MAX_PIXELS || decoder.total_bytes() > MAX_DECODED {
        return Err(DecodeError::TooLarge { width, height });
    }
    let orientation = decoder.orientation().map_err(DecodeError::Decode)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(DecodeError::Decode)?;
    image.apply_orientation(orientation);
    Ok(to_eight_bits(image, format))
}

/// The image with 8 bits and without transparency, as OpenCV makes it, with which YOLOv5 reads images: of
/// 16 bits it takes the upper 8, but in a colour TIFF it rounds.
fn to_eight_bits(image: DynamicImage, format: Option<ImageFormat>) -> RgbImage {
    fn upper(values: &[u16]) -> Rgb<u8> {
        let upper = |k: usize| (values[k] >> 8) as u8;
        match values.len() {
            1 | 2 => Rgb([upper(0); 3]),
            _ => Rgb([upper(0), upper(1), upper(2)]),
        }
    }
    fn convert<P: Pixel<Subpixel = u16>>(image: &ImageBuffer<P, Vec<u16>>) -> RgbImage {
        RgbImage::from_fn(image.width(), image.height(), |x, y| {
            upper(image.get_pixel(x, y).channels())
        })
    }
    let rounds = format == Some(ImageFormat::Tiff);
    match image {
        DynamicImage::ImageLuma16(grey) => convert(&grey),
        DynamicImage::ImageLumaA16(grey) => convert(&grey),
        DynamicImage::ImageRgb16(colour) if !rounds => convert(&colour),
        DynamicImage::ImageRgba16(colour) if !rounds => convert(&colour),
        other => other.into_rgb8(),
    }
}

/// The image, or the part of it where a photograph `lies`, at another size.
fn resize(
    image: RgbImage,
    lies: Option<jpeg::Place>,
    size: (u32, u32),
    shrink: Shrink,
) -> Result<RgbImage, Box<dyn std::error::Error + Send + Sync>> {
    if image.dimensions() == size {
        return Ok(image);
    }
    // What grows in one direction has no pixels to take means of (OpenCV, too).
    let shrinks = size.0 <= image.width() && size.1 <= image.height();
    if shrinks && shrink == Shrink::Area {
        return Ok(area::shrink(&image, size));
    }
    let algorithm = ResizeAlg::Interpolation(FilterType::Bilinear);
    let mut resized = RgbImage::new(size.0, size.1);
    let from = ImageRef::new(
        image.width(),
        image.height(),
        image.as_raw(),
        PixelType::U8x3,
    )?;
    let mut to = Image::from_slice_u8(size.0, size.1, &mut resized, PixelType::U8x3)?;
    let mut options = ResizeOptions::new().resize_alg(algorithm);
    if let Some(place) = lies {
        options = options.crop(place.left, place.top, place.width, place.height);
    }
    Resizer::new().resize(&from, &mut to, &options)?;
    drop(to);
    Ok(resized)
}

#[cfg(test)]
mod tests;
