//! The agent's own log: lines on stderr that name the agent, so that they stand out between the
//! ranks' lines.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use contract::attempt::Attempt;
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::place::Place;

/// The restart that lines belong to; the incarnation is the pod's.
static RESTART: AtomicU32 = AtomicU32::new(0);

/// From now on lines belong to this attempt.
pub fn begin(attempt: Attempt) {
    RESTART.store(attempt.restart, Ordering::Relaxed);
}

/// Starts logging to stderr, at `info` unless `RUST_LOG` says otherwise.
///
/// With a place, every line carries the attempt and the worker. A second call changes nothing.
pub fn init(place: Option<&Place>) {
    if let Some(place) = place {
        begin(place.attempt);
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let line = Line {
        place: place.map(|place| (place.attempt.incarnation, place.node_rank)),
    };
    // Only a second call fails, and then there is a log already.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .event_format(line)
        .try_init();
}

/// `TIME LEVEL yolo-agent attempt=0.0 worker=1: message field=value`.
struct Line {
    place: Option<(u32, u32)>,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        SystemTime.format_time(&mut writer)?;
        write!(writer, " {:5} yolo-agent", event.metadata().level())?;
        if let Some((incarnation, worker)) = self.place {
            let restart = RESTART.load(Ordering::Relaxed);
            let attempt = Attempt {
                incarnation,
                restart,
            };
            write!(writer, " attempt={attempt} worker={worker}")?;
        }
        writer.write_str(": ")?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}
