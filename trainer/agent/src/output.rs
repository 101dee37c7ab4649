//! Passes on what ranks write, and remembers the end of it.
//!
//! One thread for each pipe: the container's own stdout may block, and then only the rank that wrote
//! waits for it.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::mpsc::UnboundedSender;

use crate::supervise::Event;

/// A longer line is passed on in pieces.
const MAX_LINE: usize = 64 * 1024;
/// How many lines are remembered.
const TAIL_LINES: usize = 10;
/// How many bytes of them; the whole termination message has 4096.
const TAIL_BYTES: usize = 1500;

/// Where a pipe's content goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The agent's stdout.
    Stdout,
    /// The agent's stderr.
    Stderr,
}

/// In which form it goes there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// Byte by byte, as soon as it comes: there is only one rank.
    Verbatim,
    /// In whole lines, each after this prefix.
    Prefixed(String),
}

/// The last lines a rank wrote to one of its pipes.
#[derive(Clone, Debug, Default)]
pub struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    fn push(&self, line: &[u8]) {
        // Of a progress bar only its latest state is a line.
        let line = line
            .rsplit(|byte| *byte == b'\r')
            .find(|part| !part.is_empty());
        let text = String::from_utf8_lossy(line.unwrap_or_default());
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == TAIL_LINES {
            lines.pop_front();
        }
        lines.push_back(text.chars().take(TAIL_BYTES).collect());
    }

    /// The last ten lines, or the last of them that have 1500 bytes.
    pub fn lines(&self) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut room = TAIL_BYTES;
        let mut kept: Vec<String> = Vec::new();
        for line in lines.iter().rev() {
            if line.len() > room && !kept.is_empty() {
                break;
            }
            room = room.saturating_sub(line.len());
            kept.push(line.clone());
        }
        kept.reverse();
        kept
    }
}

/// Says that a rank's output is closed when its last clone goes.
pub struct ClosingNote {
    /// Whose output.
    pub rank: u32,
    /// Whom to tell.
    pub events: UnboundedSender<Event>,
}

impl Drop for ClosingNote {
    fn drop(&mut self) {
        // Without a receiver the agent is at its end.
        let _ = self.events.send(Event::OutputClosed { rank: self.rank });
    }
}

/// Passes on everything that comes out of `pipe`, on a thread that ends with it and then lets go of
/// `note`.
pub fn forward(
    mut pipe: impl Read + Send + 'static,
    target: Target,
    form: Form,
    tail: Option<Tail>,
    note: Arc<ClosingNote>,
) -> io::Result<()> {
    let name = format!("rank-{}-output", note.rank);
    thread::Builder::new().name(name).spawn(move || {
        let mut cutter = LineCutter::default();
        let mut buffer = vec![0; MAX_LINE];
        loop {
            let length = match pipe.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            let bytes = &buffer[..length];
            if form == Form::Verbatim {
                write(target, bytes);
            }
            cutter.push(bytes, |line| pass_line(line, target, &form, tail.as_ref()));
        }
        cutter.finish(|line| pass_line(line, target, &form, tail.as_ref()));
        drop(note);
    })?;
    Ok(())
}

fn pass_line(line: &[u8], target: Target, form: &Form, tail: Option<&Tail>) {
    if let Some(tail) = tail {
        tail.push(line);
    }
    if let Form::Prefixed(prefix) = form {
        write(target, &[prefix.as_bytes(), line, b"\n"].concat());
    }
}

/// Writes in one go under the stream's lock, so that lines stay whole.
fn write(target: Target, bytes: &[u8]) {
    // When nobody reads any more, the rank is drained all the same: it must not block on its log.
    let _ = match target {
        Target::Stdout => {
            let mut stdout = io::stdout().lock();
            stdout.write_all(bytes).and_then(|()| stdout.flush())
        }
        Target::Stderr => io::stderr().lock().write_all(bytes),
    };
}

/// Cuts a stream into lines.
#[derive(Debug, Default)]
struct LineCutter {
    partial: Vec<u8>,
}

impl LineCutter {
    /// Takes bytes in and hands out each line that is complete, without its newline.
    fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if self.partial.last() == Some(&b'\n') {
                self.partial.pop();
            } else if self.partial.len() < MAX_LINE {
                continue;
            }
            each(&self.partial);
            self.partial.clear();
        }
    }

    /// Hands out what came after the last newline.
    fn finish(&mut self, mut each: impl FnMut(&[u8])) {
        if !self.partial.is_empty() {
            each(&self.partial);
            self.partial.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(chunks: &[&str]) -> Vec<String> {
        let mut cutter = LineCutter::default();
        let mut lines = Vec::new();
        let mut keep = |line: &[u8]| lines.push(String::from_utf8_lossy(line).into_owned());
        for chunk in chunks {
            cutter.push(chunk.as_bytes(), &mut keep);
        }
        cutter.finish(&mut keep);
        lines
    }

    #[test]
    fn lines_do_not_depend_on_how_the_bytes_come() {
        let expected = vec!["one", "", "two", "three"];
        assert_eq!(expected, cut(&["one\n\ntwo\nthree"]));
        assert_eq!(expected, cut(&["o", "ne\n", "\ntw", "o\nthr", "ee"]));
        assert_eq!(expected, cut(&["one\n\ntwo\nthree\n"]));
    }

    #[test]
    fn an_endless_line_is_cut() {
        let chunk = "x".repeat(MAX_LINE / 2);
        let lengths: Vec<_> = cut(&[&chunk, &chunk, &chunk])
            .iter()
            .map(String::len)
            .collect();
        assert_eq!(vec![MAX_LINE, MAX_LINE / 2], lengths);
    }

    #[test]
    fn the_tail_holds_the_last_ten_lines() {
        let tail = Tail::default();
        for number in 0..25 {
            tail.push(format!("line {number}").as_bytes());
        }
        let lines = tail.lines();
        assert_eq!(10, lines.len());
        assert_eq!(
            ("line 15", "line 24"),
            (lines[0].as_str(), lines[9].as_str())
        );
    }

    #[test]
    fn of_long_lines_the_tail_holds_the_last_that_fit() {
        let tail = Tail::default();
        for digit in ["1", "2", "3"] {
            tail.push(digit.repeat(700).as_bytes());
        }
        assert_eq!(vec!["2".repeat(700), "3".repeat(700)], tail.lines());
        tail.push("4".repeat(5000).as_bytes());
        assert_eq!(vec!["4".repeat(TAIL_BYTES)], tail.lines());
    }

    #[test]
    fn of_a_progress_bar_the_tail_holds_the_latest_state() {
        let tail = Tail::default();
        tail.push(b"10%\r20%\r30%\r");
        assert_eq!(vec!["30%"], tail.lines());
    }
}
