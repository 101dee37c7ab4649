//! Gzip: all members of a file, one after the other, each with its checksum.

use std::io::{self, BufRead, Chain, Read};

use flate2::bufread::GzDecoder;

/// What a member begins with.
const MAGIC: &[u8] = &[0x1f, 0x8b];

/// Reads the content of a file of members. As for gzip itself, what follows a whole member and is none is no content:
/// tapes and some programs pad a file with zeros.
pub struct Members<R> {
    /// The present one, with its first bytes where those were looked at; none behind the last.
    member: Option<GzDecoder<Chain<&'static [u8], R>>>,
}

impl<R: BufRead> Members<R> {
    /// Before the first member.
    pub fn new(file: R) -> Self {
        let nothing: &[u8] = &[];
        Self {
            member: Some(GzDecoder::new(nothing.chain(file))),
        }
    }

    /// Begins the next member, if there is one.
    fn next(&mut self) -> io::Result<()> {
        let Some(last) = self.member.take() else {
            return Ok(());
        };
        let (_, mut file) = last.into_inner().into_inner();
        let mut first = Vec::new();
        file.by_ref()
            .take(MAGIC.len() as u64)
            .read_to_end(&mut first)?;
        if first == MAGIC {
            self.member = Some(GzDecoder::new(MAGIC.chain(file)));
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let count = member.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            self.next()?;
        }
        Ok(0)
    }
}
