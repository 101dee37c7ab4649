//! The parts of a JPEG file's header that its decoder does not tell.

/// Start of image, which has no length.
const SOI: [u8; 2] = [0xff, 0xd8];
/// Start of a frame whose blocks come in order, each whole: baseline and extended.
const SEQUENTIAL: [u8; 2] = [0xc0, 0xc1];
/// Start of a scan.
const SOS: u8 = 0xda;

/// A frame whose one scan has all colours of a row of blocks before the next row: only then the decoder
/// can stop early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Where in the file the height stands, in two bytes.
    pub at: usize,
    /// The rows of pixels that are decoded together: 8, or more if some colours have fewer rows.
    pub block: u64,
}

/// The file's frame, if it is such a one.
pub(super) fn frame(bytes: &[u8]) -> Option<Frame> {
    let mut at = bytes.starts_with(&SOI).then_some(SOI.len())?;
    let mut found = None;
    loop {
        let [0xff, marker] = *bytes.get(at..at + 2)? else {
            return None;
        };
        let length = usize::from(u16::from_be_bytes(*bytes.get(at + 2..)?.first_chunk()?));
        let body = bytes.get(at + 4..at + 2 + length)?;
        match (marker, found) {
            (0xc0..=0xcf, None) if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                // Precision, height, width, number of components, and three bytes for each of those.
                let usable = SEQUENTIAL.contains(&marker);
                let count = *body.get(5).filter(|_| usable)?;
                let components = body.get(6..6 + 3 * usize::from(count))?.as_chunks::<3>().0;
                let samples = components
                    .iter()
                    .map(|[_, samples, _]| samples & 15)
                    .max()?;
                let block = 8 * u64::from(samples.max(1));
                found = Some((Frame { at: at + 5, block }, count));
            }
            (SOS, Some((frame, components))) => {
                return (body.first() == Some(&components)).then_some(frame);
            }
            (SOS, None) => return None,
            _ => {}
        }
        at += 2 + length;
    }
}
