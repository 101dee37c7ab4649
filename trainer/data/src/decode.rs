//! From an image file to pixels of a given size.
//!
//! A file of a few bytes can claim to be billions of pixels: what it claims is compared with
//! [`MAX_PIXELS`] before any memory is asked for.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::metadata::Orientation;
use image::{
    DynamicImage, ImageBuffer, ImageDecoder, ImageError, ImageFormat, ImageReader, Pixel, Rgb,
    RgbImage,
};
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

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
    decode_rows(path, size, shrink, u32::MAX)
}

/// As [`decode`], but only the first `rows` rows of the result are sure to be right, and it may end below
/// them. Of the usual kind of JPEG the rest is not decoded, which saves time.
pub fn decode_rows(
    path: &Path,
    size: (u32, u32),
    shrink: Shrink,
    rows: u32,
) -> Result<RgbImage, DecodeError> {
    let mut bytes = bounded::read(path, MAX_FILE).map_err(DecodeError::Read)?;
    let top = if rows >= size.1 || shrink == Shrink::Area {
        None
    } else {
        guarded(|| decode_top(&mut bytes, rows, size.1))?
    };
    let image = match top {
        Some(top) if (top.image.width(), top.height) == size => return Ok(top.image),
        Some(top) => top.extended(),
        None => guarded(|| decode_bytes(&bytes))??,
    };
    resize(image, size, shrink).map_err(|source| DecodeError::Resize {
        width: size.0,
        height: size.1,
        source,
    })
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
    if let Some((image, orientation)) = decode_photograph(bytes) {
        let mut image = DynamicImage::ImageRgb8(image);
        image.apply_orientation(orientation);
        return Ok(image.into_rgb8());
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

/// The upper part of an image.
struct Top {
    image: RgbImage,
    /// The height of the whole image.
    height: u32,
}

impl Top {
    /// With black below, up to the whole height.
    fn extended(self) -> RgbImage {
        let mut whole = RgbImage::new(self.image.width(), self.height);
        let (bytes, all) = (self.image.as_raw(), &mut *whole);
        all[..bytes.len()].copy_from_slice(bytes);
        whole
    }
}

/// Decodes the rows of a JPEG that the first n of it, resized to m rows, are interpolated from. None if it must
/// be decoded whole.
///
/// The decoder cannot be told to stop, but the header can: with a smaller height there, it decodes the
/// same rows and ends. `bytes` are as before afterwards.
fn decode_top(bytes: &mut [u8], n: u32, m: u32) -> Option<Top> {
    let jpeg::Frame { at, block } = jpeg::frame(bytes)?;
    let height = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    // The row below is mixed in.
    let last = u64::from(n + 1) * u64::from(height) / u64::from(m.max(1)) + 2;
    // Where colours have fewer rows, those of the next blocks are, too.
    let more = if block > 8 { block } else { 0 };
    let rows = u16::try_from(last.next_multiple_of(block) + more).ok()?;
    if rows >= height {
        return None;
    }
    bytes[at..at + 2].copy_from_slice(&rows.to_be_bytes());
    let decoded = decode_photograph(bytes);
    bytes[at..at + 2].copy_from_slice(&height.to_be_bytes());
    let (image, _) = decoded.filter(|(_, turned)| *turned == Orientation::NoTransforms)?;
    let height = u32::from(height);
    let bounded = u64::from(image.width()) * u64::from(height) <= MAX_PIXELS;
    bounded.then_some(Top { image, height })
}

fn resize(
    image: RgbImage,
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
    Resizer::new().resize(&from, &mut to, &ResizeOptions::new().resize_alg(algorithm))?;
    drop(to);
    Ok(resized)
}

#[cfg(test)]
mod tests;
