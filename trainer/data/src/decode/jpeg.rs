//! JPEGs through libjpeg, with which OpenCV, and so YOLOv5, reads them: the same pixels to the bit.

use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};
use mozjpeg::{ColorSpace, Decompress, Marker};
use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{DecodeError, MAX_PIXELS};

/// Start of image.
const SOI: [u8; 2] = [0xff, 0xd8];
/// The marker of EXIF data, and how these begin in it.
const EXIF: Marker = Marker::APP(1);
const EXIF_BEGIN: &[u8] = b"Exif\0\0";

/// A JPEG's image, turned as its EXIF orientation says, or the upper rows of it.
#[derive(Debug, PartialEq)]
pub(super) struct Photograph {
    pub image: RgbImage,
    /// The height of the whole image.
    pub height: u32,
}

impl Photograph {
    /// With black below, up to the whole height.
    pub fn extended(self) -> RgbImage {
        let mut whole = RgbImage::new(self.image.width(), self.height);
        let top = self.image.as_raw();
        whole.as_mut()[..top.len()].copy_from_slice(top);
        whole
    }
}

/// Decodes the first rows of a colour or grey JPEG, at least as many as `rows` says for its height. None
/// for all other files, and for those that libjpeg cannot read: the crate `image` knows what to say of
/// them.
///
/// # Errors
///
/// [`DecodeError::Torn`].
pub(super) fn decode(
    bytes: &[u8],
    rows: impl FnOnce(u32) -> u32,
) -> Result<Option<Photograph>, DecodeError> {
    if !bytes.starts_with(&SOI) {
        return Ok(None);
    }
    let end = Cell::new(End::Ahead);
    let reader = Source {
        rest: bytes,
        end: &end,
    };
    // libjpeg's errors come as panics.
    let decoded = catch_unwind(AssertUnwindSafe(|| decode_from(reader, rows)));
    match end.get() {
        End::Missed => Err(DecodeError::Torn),
        End::Ahead | End::Reached => Ok(decoded.ok().flatten()),
    }
}

fn decode_from(reader: Source, rows: impl FnOnce(u32) -> u32) -> Option<Photograph> {
    let markers = [EXIF];
    let header = Decompress::with_markers(&markers)
        .from_reader(reader)
        .ok()?;
    let (width, height) = header.size();
    let readable = [
        ColorSpace::JCS_YCbCr,
        ColorSpace::JCS_GRAYSCALE,
        ColorSpace::JCS_RGB,
    ];
    if !readable.contains(&header.color_space()) || width as u64 * height as u64 > MAX_PIXELS {
        return None;
    }
    let exif = header
        .markers()
        .find_map(|marker| marker.data.strip_prefix(EXIF_BEGIN));
    let orientation = exif
        .and_then(Orientation::from_exif_chunk)
        .unwrap_or(Orientation::NoTransforms);
    let (width, height) = (width as u32, height as u32);
    let turned = orientation != Orientation::NoTransforms;
    let rows = if turned {
        height
    } else {
        rows(height).min(height)
    };
    let mut image = RgbImage::new(width, rows);
    header
        .rgb()
        .ok()?
        .read_scanlines_into::<u8>(image.as_mut())
        .ok()?;
    if !turned {
        return Some(Photograph { image, height });
    }
    let mut image = DynamicImage::ImageRgb8(image);
    image.apply_orientation(orientation);
    let image = image.into_rgb8();
    let height = image.height();
    Some(Photograph { image, height })
}

/// How far a file has been read.
#[derive(Clone, Copy)]
enum End {
    Ahead,
    /// All of it, and some bytes in reserve.
    Reached,
    /// More was asked for than there is.
    Missed,
}

/// libjpeg reads so many bytes before it needs them. A file without its last marker is whole.
const READ_AHEAD: [u8; 8] = [0; 8];

/// A file's bytes. libjpeg fills up with grey what a file lacks, and does not say so: this does.
struct Source<'a> {
    rest: &'a [u8],
    end: &'a Cell<End>,
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for Source<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.rest.is_empty() {
            match self.end.get() {
                End::Ahead => {
                    self.rest = &READ_AHEAD;
                    self.end.set(End::Reached);
                }
                End::Reached | End::Missed => self.end.set(End::Missed),
            }
        }
        Ok(self.rest)
    }

    fn consume(&mut self, amount: usize) {
        self.rest.consume(amount);
    }
}
