//! Lines of limited length, from ranks and from other agents.

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// A longer line is dropped.
pub const MAX_LINE: usize = 1024 * 1024;

/// A line as it came, without its newline.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// All of it.
    Whole(Vec<u8>),
    /// It was longer than allowed, and is lost.
    TooLong,
}

/// The lines of a connection.
pub struct Lines<R> {
    reader: R,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    /// Reads from here.
    pub fn new(reader: R) -> Self {
        Self { reader }
    }

    /// The next line; `None` at the end, in an unfinished line, or when the connection broke.
    pub async fn next(&mut self) -> Option<Line> {
        let mut line = Vec::new();
        let mut too_long = false;
        loop {
            let mut limited = (&mut self.reader).take(MAX_LINE as u64 + 1);
            let length = limited.read_until(b'\n', &mut line).await.ok()?;
            if length == 0 {
                return None;
            }
            if line.last() == Some(&b'\n') {
                line.pop();
                return Some(if too_long {
                    Line::TooLong
                } else {
                    Line::Whole(line)
                });
            }
            // Either the limit was reached, or the next read finds the end.
            too_long = true;
            line.clear();
        }
    }
}
