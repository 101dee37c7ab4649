//! From an image file to pixels of a given size.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::{DynamicImage, ImageDecoder, ImageError, ImageReader, RgbImage};
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// How an image is made smaller. Larger, it is always interpolated bilinearly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shrink {
    /// From the four nearest pixels: fast, with some aliasing, as YOLOv5 does for training.
    Bilinear,
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
    let image = decode_whole(path)?;
    resize(image, size, shrink).map_err(|source| DecodeError::Resize {
        width: size.0,
        height: size.1,
        source,
    })
}

/// As [`decode`], at the image's own size.
pub fn decode_whole(path: &Path) -> Result<RgbImage, DecodeError> {
    let bytes = std::fs::read(path).map_err(DecodeError::Read)?;
    catch_unwind(AssertUnwindSafe(|| decode_bytes(&bytes))).map_err(|_| DecodeError::Panicked)?
}

fn decode_bytes(bytes: &[u8]) -> Result<RgbImage, DecodeError> {
    let mut decoder = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(DecodeError::Read)?
        .into_decoder()
        .map_err(DecodeError::Decode)?;
    let orientation = decoder.orientation().map_err(DecodeError::Decode)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(DecodeError::Decode)?;
    image.apply_orientation(orientation);
    Ok(image.into_rgb8())
}

fn resize(
    image: RgbImage,
    size: (u32, u32),
    shrink: Shrink,
) -> Result<RgbImage, Box<dyn std::error::Error + Send + Sync>> {
    if image.dimensions() == size {
        return Ok(image);
    }
    let shrinks = size.0 < image.width() || size.1 < image.height();
    let algorithm = if shrinks && shrink == Shrink::Area {
        ResizeAlg::Convolution(FilterType::Box)
    } else {
        ResizeAlg::Interpolation(FilterType::Bilinear)
    };
    let mut resized = RgbImage::new(size.0, size.1);
    let from = ImageRef::new(
        image.width(),
        image.height(),
        image.as_raw(),
        PixelType::U8x3,
    )?;
    let mut to = Image::from_slice_u8(size.0, size.1, &mut resized, PixelType::U8x3)?;
    Resizer::new().resize(&from, &mut to, &ResizeOptions::new().resize_alg(algorithm))?;
    drop(to);
    Ok(resized)
}
