//! Log lines, and errors with all their causes.

use std::error::Error;
use std::fmt::{self, Display};
use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::settings::LogFormat;

/// The log filter cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("--log-level '{filter}' is not a log filter: write for example info or info,kube=debug")]
pub struct LogFilterError {
    /// What was given.
    pub filter: String,
    /// What is wrong with it.
    #[source]
    pub source: ParseError,
}

/// Starts logging to standard error.
pub fn start(format: LogFormat, filter: &str) -> Result<(), LogFilterError> {
    let parsed = EnvFilter::try_new(filter).map_err(|source| LogFilterError {
        filter: filter.to_owned(),
        source,
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // A second start in one process (in tests) keeps the first.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .with_current_span(false)
            .try_init(),
    };
    Ok(())
}

/// Displays an error with all its causes, each once: `what failed: why: why that`.
pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Display + 'a {
    struct Chain<'a>(&'a (dyn Error + 'static));
    impl Display for Chain<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let mut last = self.0.to_string();
            f.write_str(&last)?;
            let mut next = self.0.source();
            while let Some(cause) = next {
                let text = cause.to_string();
                // Some libraries repeat a cause inside the message that has it.
                if !last.contains(&text) {
                    write!(f, ": {text}")?;
                    last = text;
                }
                next = cause.source();
            }
            Ok(())
        }
    }
    Chain(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        #[source]
        cause: Option<Box<Layer>>,
    }

    #[test]
    fn every_cause_is_told_once() {
        let layer = |text, cause| Layer {
            text,
            cause: Option::map(cause, Box::new),
        };
        let io = layer("connection refused", None);
        let service = layer("ServiceError: connection refused", Some(io));
        let top = layer("listing pods failed", Some(service));
        assert_eq!(
            "listing pods failed: ServiceError: connection refused",
            chain(&top).to_string()
        );
    }
}
