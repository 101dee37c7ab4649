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
    /// Where the photograph lies in the image if it was decoded at a part of its size, which libjpeg rounds up.
    pub lies: Option<Place>,
}

/// Left, top, width and height of a rectangle in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place {
    pub left: f64,
    pub top: f64,
    pub width: f64,
    pub height: f64,
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

/// Of [`decode`]: only the image's own size.
pub(super) const OWN_SIZE: u32 = u32::MAX;

/// Decodes the first rows of a colour or grey JPEG, at least as many as `rows` says for its height: at an eighth,
/// a quarter or half of its size where the long side then still has `least` pixels. None for all other files, and
/// for those that libjpeg cannot read: the crate `image` knows what to say of them.
///
/// # Errors
///
/// [`DecodeError::Torn`].
pub(super) fn decode(
    bytes: &[u8],
    least: u32,
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
    let decoded = catch_unwind(AssertUnwindSafe(|| decode_from(reader, least, rows)));
    match end.get() {
        End::Missed => Err(DecodeError::Torn),
        End::Ahead | End::Reached => Ok(decoded.ok().flatten()),
    }
}

fn decode_from(reader: Source, least: u32, rows: impl FnOnce(u32) -> u32) -> Option<Photograph> {
    let markers = [EXIF];
    let mut header = Decompress::with_markers(&markers)
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
    let eighths = eighths(width.max(height), least);
    let lies = (eighths < WHOLE).then(|| {
        header.scale(eighths);
        let scale = |side: u32| f64::from(side) * f64::from(eighths) / f64::from(WHOLE);
        Place {
            left: 0.0,
            top: 0.0,
            width: scale(width),
            height: scale(height),
        }
    });
    let scale = |side: u32| (side * u32::from(eighths)).div_ceil(u32::from(WHOLE));
    let (width, height) = (scale(width), scale(height));
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
        return Some(Photograph {
            image,
            height,
            lies,
        });
    }
    let lies = lies.map(|lies| turn(lies, (width, height), orientation));
    let mut image = DynamicImage::ImageRgb8(image);
    image.apply_orientation(orientation);
    let image = image.into_rgb8();
    let height = image.height();
    Some(Photograph {
        image,
        height,
        lies,
    })
}

/// How many eighths of an image's size its own size is.
const WHOLE: u8 = 8;

/// The fewest eighths of `long` pixels, among those that libjpeg is fast at, that are `least` pixels.
fn eighths(long: u32, least: u32) -> u8 {
    let enough =
        |eighths: &u8| u64::from(long) * u64::from(*eighths) >= u64::from(least) * u64::from(WHOLE);
    [1, 2, 4].into_iter().find(enough).unwrap_or(WHOLE)
}

/// Where a photograph at the upper left of an image of this size lies when the image has been turned.
fn turn(lies: Place, size: (u32, u32), orientation: Orientation) -> Place {
    use Orientation::{
        FlipHorizontal, FlipVertical, Rotate90, Rotate90FlipH, Rotate180, Rotate270, Rotate270FlipH,
    };
    let spare = (
        f64::from(size.0) - lies.width,
        f64::from(size.1) - lies.height,
    );
    let lying = matches!(
        orientation,
        Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH
    );
    let (width, height, spare) = if lying {
        (lies.height, lies.width, (spare.1, spare.0))
    } else {
        (lies.width, lies.height, spare)
    };
    let to_right = matches!(
        orientation,
        FlipHorizontal | Rotate180 | Rotate90 | Rotate270FlipH
    );
    let to_bottom = matches!(
        orientation,
        FlipVertical | Rotate180 | Rotate270 | Rotate270FlipH
    );
    Place {
        left: if to_right { spare.0 } else { 0.0 },
        top: if to_bottom { spare.1 } else { 0.0 },
        width,
        height,
    }
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
