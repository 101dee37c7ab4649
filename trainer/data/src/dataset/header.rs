use super::reading::may_pass;
use image::metadata::Orientation;
use image::{ImageDecoder, ImageReader, ImageResult};
use std::fs::File;
use std::io::{self, BufReader, Cursor, ErrorKind, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// How much of a JPEG is read at first. Its decoder would read the whole file for the header, and
/// data sets often lie on network storage.
const JPEG_PREFIX: u64 = 128 << 10;

/// Why an image's size is not known.
#[derive(Debug)]
pub(super) enum HeaderError {
    /// The file is of no use, and why.
    Unusable(String),
    /// The file could not be read this time.
    Read(io::Error),
}

/// Width and height of the image in `path` as people see it, that is after its EXIF orientation.
pub(super) fn read_size(path: &Path) -> Result<(u32, u32), HeaderError> {
    size_from(|| File::open(path))
}

/// Decoders meet files that nobody has seen before; one that makes a decoder panic is a bad file like any other.
fn size_from<F: Read + Seek>(open: impl Fn() -> io::Result<F>) -> Result<(u32, u32), HeaderError> {
    let mut failed = None;
    let size = catch_unwind(AssertUnwindSafe(|| decode_size(open, &mut failed)));
    if let Some(error) = failed {
        return Err(HeaderError::Read(error));
    }
    match size {
        Ok(size) => size.map_err(|error| HeaderError::Unusable(error.to_string())),
        Err(_) => Err(HeaderError::Unusable(
            "its header makes the decoder panic".to_owned(),
        )),
    }
}

fn decode_size<F: Read + Seek>(
    open: impl Fn() -> io::Result<F>,
    failed: &mut Option<io::Error>,
) -> ImageResult<(u32, u32)> {
    let mut start = Vec::new();
    Watched::open(&open, failed)?
        .take(JPEG_PREFIX)
        .read_to_end(&mut start)?;
    if start.starts_with(&[0xff, 0xd8]) {
        let reader = ImageReader::new(Cursor::new(start)).with_guessed_format()?;
        // A header longer than the prefix is read again, whole.
        if let Ok(size) = reader.into_decoder().and_then(oriented_size) {
            return Ok(size);
        }
    }
    ImageReader::new(BufReader::new(Watched::open(&open, failed)?))
        .with_guessed_format()?
        .into_decoder()
        .and_then(oriented_size)
}

/// A file whose errors that may pass are kept: decoders make errors of their own of them, or go on without what
/// they could not read.
struct Watched<'a, F> {
    file: F,
    failed: &'a mut Option<io::Error>,
}

impl<'a, F> Watched<'a, F> {
    fn open(
        open: impl Fn() -> io::Result<F>,
        failed: &'a mut Option<io::Error>,
    ) -> io::Result<Self> {
        match open() {
            Ok(file) => Ok(Self { file, failed }),
            Err(error) => Err(keep(error, failed)),
        }
    }
}

impl<F: Read> Read for Watched<'_, F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.file
            .read(into)
            .map_err(|error| keep(error, self.failed))
    }
}

impl<F: Seek> Seek for Watched<'_, F> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to).map_err(|error| keep(error, self.failed))
    }
}

/// The error for the decoder. After a signal (`Interrupted`) readers try again by themselves.
fn keep(error: io::Error, failed: &mut Option<io::Error>) -> io::Error {
    let kind = error.kind();
    if kind == ErrorKind::Interrupted || !may_pass(&error) {
        return error;
    }
    failed.get_or_insert(error);
    kind.into()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;
    use image::ImageFormat;
    use std::cell::Cell;

    /// A file whose reads fail after `good` bytes.
    struct Breaks {
        bytes: Cursor<Vec<u8>>,
        good: u64,
        error: fn() -> io::Error,
    }

    impl Read for Breaks {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let left = self.good.saturating_sub(self.bytes.position()) as usize;
            if left == 0 {
                return Err((self.error)());
            }
            let most = left.min(into.len());
            self.bytes.read(&mut into[..most])
        }
    }

    impl Seek for Breaks {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.bytes.seek(to)
        }
    }

    fn encoded(format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        noise(1, (40, 20)).write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    /// The size of an image that gives all when it is opened, but `good` bytes at this opening.
    fn size_if(
        format: ImageFormat,
        breaks_at: u32,
        good: u64,
        error: fn() -> io::Error,
    ) -> Result<(u32, u32), HeaderError> {
        let opened = Cell::new(0);
        size_from(|| {
            opened.set(opened.get() + 1);
            let breaks = opened.get() == breaks_at;
            Ok(Breaks {
                bytes: Cursor::new(encoded(format)),
                good: if breaks { good } else { u64::MAX },
                error,
            })
        })
    }

    #[test]
    fn reads_that_fail_are_no_bad_images_in_any_format() {
        let errors = [
            || io::Error::from_raw_os_error(5),
            || io::Error::other("gone"),
        ];
        for (format, openings) in [
            (ImageFormat::Jpeg, 1),
            (ImageFormat::Png, 2),
            (ImageFormat::Bmp, 2),
            (ImageFormat::WebP, 2),
            (ImageFormat::Tiff, 2),
        ] {
            for (opening, good) in (1..=openings).flat_map(|k| [0, 3, 8, 24].map(|good| (k, good)))
            {
                for error in errors {
                    let size = size_if(format, opening, good, error);
                    let Err(HeaderError::Read(kept)) = size else {
                        panic!("{format:?}, opening {opening}, {good} bytes: {size:?}");
                    };
                    assert_eq!(kept.to_string(), error().to_string());
                }
            }
            let whole = size_if(format, 0, 0, || unreachable!());
            assert_eq!(whole.unwrap(), (40, 20), "{format:?}");
        }
        let unopened = size_from(|| Err::<File, _>(ErrorKind::TimedOut.into()));
        assert!(matches!(unopened, Err(HeaderError::Read(_))));
    }

    #[test]
    fn files_that_are_to_blame_are_unusable() {
        let torn = size_from(|| Ok(Cursor::new(&b"\x89PNG\r\n\x1a\n\0\0"[..])));
        assert!(matches!(torn, Err(HeaderError::Unusable(_))), "{torn:?}");
        for kind in [ErrorKind::UnexpectedEof, ErrorKind::PermissionDenied] {
            let size = size_from(|| Err::<File, _>(kind.into()));
            assert!(matches!(size, Err(HeaderError::Unusable(_))), "{size:?}");
        }
        let mut failed = None;
        keep(ErrorKind::Interrupted.into(), &mut failed);
        assert!(failed.is_none());
    }
}
