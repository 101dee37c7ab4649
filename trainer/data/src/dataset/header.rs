use image::metadata::Orientation;
use image::{ImageDecoder, ImageReader, ImageResult};
use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::Path;

/// How much of a JPEG is read at first. Its decoder would read the whole file for the header, and
/// data sets often lie on network storage.
const JPEG_PREFIX: u64 = 128 << 10;

/// Width and height of the image in `path` as people see it, that is after its EXIF orientation.
pub(super) fn read_size(path: &Path) -> ImageResult<(u32, u32)> {
    let mut start = Vec::new();
    File::open(path)?
        .take(JPEG_PREFIX)
        .read_to_end(&mut start)?;
    if start.starts_with(&[0xff, 0xd8]) {
        let reader = ImageReader::new(Cursor::new(start)).with_guessed_format()?;
        // A header longer than the prefix is read again, whole.
        if let Ok(size) = reader.into_decoder().and_then(oriented_size) {
            return Ok(size);
        }
    }
    ImageReader::new(BufReader::new(File::open(path)?))
        .with_guessed_format()?
        .into_decoder()
        .and_then(oriented_size)
}

fn oriented_size(mut decoder: impl ImageDecoder) -> ImageResult<(u32, u32)> {
    let (width, height) = decoder.dimensions();
    let sideways = matches!(
        decoder.orientation()?,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    );
    Ok(if sideways {
        (height, width)
    } else {
        (width, height)
    })
}
