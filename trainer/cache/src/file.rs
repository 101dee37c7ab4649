//! Where images lie in the file, and how they get in and out.
//!
//! ```text
//! 0   magic, format version        8 bytes
//! 8   key                         32 bytes
//! 40  one byte for each image: 0, or 1 once its pixels are whole
//! …   the pixels of image 0, of image 1, …, each in its place whether there or not
//! ```
//!
//! Every process knows how many bytes each image takes, so all agree on the places without a word. Who finds an
//! image missing makes it and writes it down, its byte last. Two that do so at the same time write the same bytes,
//! so there is no lock.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

use rustix::buffer::spare_capacity;
use rustix::io::{Errno, pread};

const MAGIC: [u8; 8] = *b"yoloimg1";
const STATES: u64 = 40;
const WHOLE: u8 = 1;
/// How many bytes are cleared at a time.
const CHUNK: usize = 1 << 16;

/// What a file must have been begun with to be used again: data set, sizes, all that pixels depend on.
pub type Key = [u8; 32];

/// Images in a file that other processes may use at the same time.
#[derive(Debug)]
pub struct CacheFile {
    file: File,
    /// Where each image begins, and where the last one ends.
    starts: Vec<u64>,
    /// How many images, from the first, fit into the file.
    kept: u32,
    /// The first failure to write.
    failure: Mutex<Option<io::Error>>,
}

impl CacheFile {
    /// Uses `file`, whose length is the most it may take, for images of so many bytes each. Images that come first
    /// are kept. What it holds under another key is forgotten.
    pub fn open(file: File, key: &Key, sizes: impl IntoIterator<Item = u64>) -> io::Result<Self> {
        let sizes: Vec<u64> = sizes.into_iter().collect();
        let count = sizes.len();
        let mut starts = Vec::with_capacity(count + 1);
        let mut end = STATES + count as u64;
        starts.push(end);
        for size in sizes {
            end = end.saturating_add(size);
            starts.push(end);
        }
        let limit = file.metadata()?.len();
        let fitting = starts.partition_point(|place| *place <= limit);
        let kept = fitting.saturating_sub(1) as u32;
        if kept > 0 {
            begin(&file, key, count)?;
        }
        Ok(Self {
            file,
            starts,
            kept,
            failure: Mutex::new(None),
        })
    }

    /// How many images, from the first, have a place.
    pub fn kept(&self) -> u32 {
        self.kept
    }

    /// The most bytes that the file may take.
    pub fn limit(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// The first `length` bytes of an image, if it is there.
    pub fn get(&self, image: u32, length: u64) -> Option<Vec<u8>> {
        let place = self.place(image)?;
        let mut state = [0];
        let at = STATES + u64::from(image);
        self.file.read_exact_at(&mut state, at).ok()?;
        if state != [WHOLE] || length > place.end - place.start {
            return None;
        }
        // What cannot be read is made again.
        read(&self.file, place.start, length as usize).ok()
    }

    /// Keeps an image, if it has a place. Of a failure [`Self::take_failure`] tells.
    pub fn put(&self, image: u32, bytes: &[u8]) {
        let Some(place) = self.place(image) else {
            return;
        };
        debug_assert_eq!(place.end - place.start, bytes.len() as u64);
        let written = self
            .file
            .write_all_at(bytes, place.start)
            .and_then(|()| self.file.write_all_at(&[WHOLE], STATES + u64::from(image)));
        if let Err(error) = written {
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            failure.get_or_insert(error);
        }
    }

    /// The first failure to write since the last call. The cache is slower then, not wrong.
    pub fn take_failure(&self) -> Option<io::Error> {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.take()
    }

    /// Whether an image has a place.
    pub fn keeps(&self, image: u32) -> bool {
        image < self.kept
    }

    fn place(&self, image: u32) -> Option<Range<u64>> {
        let at = image as usize;
        self.keeps(image)
            .then(|| self.starts[at]..self.starts[at + 1])
    }
}

/// Makes sure that the file was begun with this key, or empties it. Processes that do so at the same time do the
/// same; at worst, an image that one of them has just kept is made again.
fn begin(file: &File, key: &Key, images: usize) -> io::Result<()> {
    let header = [&MAGIC[..], key].concat();
    let mut found = vec![0; header.len()];
    file.read_exact_at(&mut found, 0)?;
    if found == header {
        return Ok(());
    }
    let zeros = vec![0; CHUNK.min(images)];
    for start in (0..images).step_by(CHUNK) {
        let length = CHUNK.min(images - start);
        file.write_all_at(&zeros[..length], STATES + start as u64)?;
    }
    // Last, so that whoever finds the key finds the images gone.
    file.write_all_at(&header, 0)
}

fn read(file: &File, mut at: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        match pread(file, spare_capacity(&mut bytes), at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => at += read as u64,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = [7; 32];
    const SIZES: [u64; 3] = [10, 20, 30];

    fn file(length: u64) -> File {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(length).expect("sized");
        file
    }

    /// As another process opens it.
    fn again(file: &CacheFile, key: &Key, sizes: [u64; 3]) -> CacheFile {
        let file = file.file.try_clone().expect("opened");
        CacheFile::open(file, key, sizes).expect("usable")
    }

    #[test]
    fn what_one_process_keeps_another_finds_whole_or_in_part() {
        let one = CacheFile::open(file(1000), &KEY, SIZES).expect("usable");
        let two = again(&one, &KEY, SIZES);
        assert_eq!((3, None), (two.kept(), two.get(1, 20)));
        let image: Vec<u8> = (0..20).collect();
        one.put(1, &image);
        assert_eq!(Some(image.clone()), two.get(1, 20));
        assert_eq!(Some(image[..7].to_vec()), two.get(1, 7));
        assert_eq!(None, two.get(1, 21), "more than there is");
        assert_eq!((None, None), (two.get(0, 10), two.get(2, 30)));
        let later = again(&one, &KEY, SIZES);
        assert_eq!(Some(image), later.get(1, 20));
    }

    #[test]
    fn images_that_come_first_are_kept_within_the_length() {
        // 43 bytes before the first image.
        for (length, kept) in [(0, 0), (52, 0), (53, 1), (72, 1), (73, 2), (103, 3)] {
            let cache = CacheFile::open(file(length), &KEY, SIZES).expect("usable");
            assert_eq!(kept, cache.kept(), "{length}");
            for (image, size) in (0..).zip(SIZES) {
                cache.put(image, &vec![1; size as usize]);
                assert_eq!(image < kept, cache.get(image, size).is_some());
            }
            assert_eq!(length, cache.limit().expect("a length"));
        }
    }

    #[test]
    fn another_key_or_foreign_bytes_begin_empty() {
        let one = CacheFile::open(file(1000), &KEY, SIZES).expect("usable");
        one.put(0, &[1; 10]);
        let other = again(&one, &[8; 32], [30, 20, 10]);
        assert_eq!(None, other.get(0, 30));
        other.put(1, &[2; 20]);
        assert_eq!(None, again(&other, &KEY, SIZES).get(1, 20));
        let foreign = file(0);
        foreign.write_all_at(&[WHOLE; 200], 0).expect("written");
        let opened = CacheFile::open(foreign, &KEY, SIZES).expect("usable");
        assert_eq!(None, opened.get(0, 10));
    }

    #[test]
    fn a_failed_write_is_told_once_and_nothing_is_taken_for_whole() {
        let path = tempfile::NamedTempFile::new().expect("a file");
        path.as_file().set_len(1000).expect("sized");
        drop(CacheFile::open(path.reopen().expect("opened"), &KEY, SIZES).expect("usable"));
        let read_only = File::open(path.path()).expect("opened");
        let cache = CacheFile::open(read_only, &KEY, SIZES).expect("begun already");
        cache.put(0, &[1; 10]);
        assert!(cache.take_failure().is_some());
        assert!(cache.take_failure().is_none());
        assert_eq!(None, cache.get(0, 10));
    }
}
