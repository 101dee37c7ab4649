//! What people read: progress bars on a terminal, plain lines everywhere else. What programs read is alone on standard
//! output.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Without a terminal, a bar becomes a line this often.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

static CONSOLE: OnceLock<Console> = OnceLock::new();

struct Console {
    /// Bars, when standard output is a terminal.
    bars: Option<MultiProgress>,
    /// What every plain line begins with: which process is speaking.
    prefix: String,
    /// Only the first rank tells of the run; all ranks may warn.
    speaks: Speaks,
    /// Where warnings and errors go.
    problems: Stream,
}

/// Where a line goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Output,
    Error,
}

/// What a process tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// Everything.
    Everything,
    /// Warnings and errors.
    Problems,
}

/// Chooses the form of all later output. Without this call, and at most once counts, lines are plain and
/// have no prefix.
pub fn init(prefix: String, speaks: Speaks) {
    let on_terminal = std::io::stdout().is_terminal() && prefix.is_empty();
    let bars = (on_terminal && speaks == Speaks::Everything)
        .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stdout()));
    // A second call would be a bug that only changes how lines look.
    let _ = CONSOLE.set(Console {
        bars,
        prefix,
        speaks,
        problems: Stream::Output,
    });
}

/// Keeps standard output for a document that programs read, as `--json` asks for: warnings and errors go to standard
/// error, and there are no bars.
pub fn init_document() {
    let _ = CONSOLE.set(Console {
        bars: None,
        prefix: String::new(),
        speaks: Speaks::Everything,
        problems: Stream::Error,
    });
}

fn console() -> &'static Console {
    CONSOLE.get_or_init(|| Console {
        bars: None,
        prefix: String::new(),
        speaks: Speaks::Everything,
        problems: Stream::Output,
    })
}

/// Says something about the run, on standard output.
pub fn say(text: &str) {
    if console().speaks == Speaks::Everything {
        line(Stream::Output, text);
    }
}

/// Says what a user should know although the run goes on.
pub fn warn(text: &str) {
    line(console().problems, &format!("warning: {text}"));
}

/// Says why the program ends: an error and the chain of its causes, on one line.
pub fn fail(text: &str) {
    line(console().problems, &format!("error: {text}"));
}

/// Output that cannot be written (a closed pipe) must not end a training run.
fn line(stream: Stream, text: &str) {
    let console = console();
    if let Some(bars) = &console.bars {
        let _ = bars.println(text);
        return;
    }
    let text = format!("{}{text}\n", console.prefix);
    let _ = match stream {
        Stream::Output => whole(std::io::stdout().lock(), &text),
        Stream::Error => whole(std::io::stderr().lock(), &text),
    };
}

fn whole(mut out: impl Write, text: &str) -> std::io::Result<()> {
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// An error and everything that caused it, separated by colons.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        // Some libraries repeat their cause in their own text.
        if !text.ends_with(&part) {
            // Writing to a string cannot fail.
            let _ = write!(text, ": {part}");
        }
        cause = error.source();
    }
    text
}

/// Work of known length that is under way.
#[derive(Debug)]
pub struct Bar {
    kind: Kind,
    title: String,
    total: u64,
}

#[derive(Debug)]
enum Kind {
    Terminal(ProgressBar),
    Plain { last: Instant },
    Silent,
}

impl Bar {
    /// Begins work of `total` parts.
    pub fn new(title: impl Into<String>, total: u64) -> Self {
        let title = title.into();
        let console = console();
        let kind = match &console.bars {
            _ if console.speaks == Speaks::Problems || console.problems == Stream::Error => {
                Kind::Silent
            }
            None => Kind::Plain {
                last: Instant::now(),
            },
            Some(bars) => {
                let bar = bars.add(ProgressBar::new(total));
                let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_bar());
                bar.set_style(style);
                bar.set_prefix(title.clone());
                Kind::Terminal(bar)
            }
        };
        Self { kind, title, total }
    }

    /// Says that `done` parts are done; `message` is what else there is to say.
    pub fn set(&mut self, done: u64, message: impl FnOnce() -> String) {
        match &mut self.kind {
            Kind::Terminal(bar) => {
                bar.set_position(done);
                bar.set_message(message());
            }
            Kind::Plain { last } if last.elapsed() >= PLAIN_INTERVAL => {
                *last = Instant::now();
                let text = format!("{} {done}/{} {}", self.title, self.total, message());
                line(Stream::Output, &text);
            }
            Kind::Plain { .. } | Kind::Silent => {}
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Kind::Terminal(bar) = &self.kind {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read labels/7.txt")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("permission denied")]
    struct Inner;

    #[test]
    fn a_chain_is_one_line() {
        assert_eq!(
            "cannot read labels/7.txt: permission denied",
            chain(&Outer(Inner))
        );
    }
}
