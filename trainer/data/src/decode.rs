//! From an image file to pixels of a given size.
//!
//! A file of a few bytes can claim to be billions of pixels: what it claims is compared with
//! [`MAX_PIXELS`] before any memory is asked for.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageReader, RgbImage};
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use crate::bounded;

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
    let image = decode_whole(path)?;
    resize(image, size, shrink).map_err(|source| DecodeError::Resize {
        width: size.0,
        height: size.1,
        source,
    })
}

/// As [`decode`], at the image's own size.
pub fn decode_whole(path: &Path) -> Result<RgbImage, DecodeError> {
    let bytes = bounded::read(path, MAX_FILE).map_err(DecodeError::Read)?;
    catch_unwind(AssertUnwindSafe(|| decode_bytes(&bytes))).map_err(|_| DecodeError::Panicked)?
}

fn decode_bytes(bytes: &[u8]) -> Result<RgbImage, DecodeError> {
    if let Some((image, orientation)) = decode_photograph(bytes) {
        let mut image = DynamicImage::ImageRgb8(image);
        image.apply_orientation(orientation);
        return Ok(image.into_rgb8());
    }
    let mut decoder = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(DecodeError::Read)?
        .into_decoder()
        .map_err(DecodeError::Decode)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels > MAX_PIXELS || decoder.total_bytes() > MAX_DECODED {
        return Err(DecodeError::TooLarge { width, height });
    }
    let orientation = decoder.orientation().map_err(DecodeError::Decode)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(DecodeError::Decode)?;
    image.apply_orientation(orientation);
    Ok(image.into_rgb8())
}

/// Decodes the usual kind of JPEG as `image` does, by the same decoder, but reads the header once and
/// copies nothing, which takes a third less time. None for all other files, damaged ones among them:
/// `image` knows what to say of them.
fn decode_photograph(bytes: &[u8]) -> Option<(RgbImage, Orientation)> {
    if !bytes.starts_with(&[0xff, 0xd8]) {
        return None;
    }
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().ok()?;
    let (width, height) = decoder.dimensions()?;
    if decoder.input_colorspace() != Some(ColorSpace::YCbCr)
        || width as u64 * height as u64 > MAX_PIXELS
    {
        return None;
    }
    let orientation = decoder
        .exif()
        .and_then(|exif| Orientation::from_exif_chunk(exif))
        .unwrap_or(Orientation::NoTransforms);
    let mut pixels = vec![0; 3 * width * height];
    decoder.decode_into(&mut pixels).ok()?;
    let image = RgbImage::from_raw(width as u32, height as u32, pixels)?;
    Some((image, orientation))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;

    /// The short way gives the bytes of the long way, and leaves all but whole colour JPEGs to it.
    #[test]
    fn photographs_are_decoded_as_by_the_image_crate() {
        let picture = noise(1, (37, 21));
        let jpeg = |image: DynamicImage| {
            let mut bytes = Cursor::new(Vec::new());
            image
                .write_to(&mut bytes, image::ImageFormat::Jpeg)
                .unwrap();
            bytes.into_inner()
        };
        let bytes = jpeg(DynamicImage::ImageRgb8(picture.clone()));
        let expected = image::load_from_memory(&bytes).unwrap().into_rgb8();
        let (decoded, orientation) = decode_photograph(&bytes).unwrap();
        assert_eq!(decoded, expected);
        assert_eq!(orientation, Orientation::NoTransforms);
        let grey = jpeg(DynamicImage::ImageRgb8(picture).into_luma8().into());
        assert_eq!(decode_photograph(&grey), None);
        assert_eq!(decode_bytes(&grey).unwrap().dimensions(), (37, 21));
        assert_eq!(decode_photograph(&bytes[..30]), None);
        assert!(matches!(
            decode_bytes(&bytes[..30]),
            Err(DecodeError::Decode(_))
        ));
    }
}
