//! Being asked to stop: by a signal, or by the agent.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

/// No step to stop at was named.
const NEVER: u64 = u64::MAX;

/// Whether this process should stop. Clones share the request.
///
/// The request of one rank only becomes a stop when the ranks have agreed on it: each training step
/// carries [`StopRequest::is_due`] of every rank in its small all-reduce, so all end after the same one.
#[derive(Clone, Debug)]
pub struct StopRequest {
    signalled: Arc<AtomicBool>,
    at_step: Arc<AtomicU64>,
}

impl Default for StopRequest {
    fn default() -> Self {
        Self {
            signalled: Arc::default(),
            at_step: Arc::new(AtomicU64::new(NEVER)),
        }
    }
}

impl StopRequest {
    /// A request that SIGTERM and the first Ctrl-C make. A second Ctrl-C ends the process at once.
    pub fn from_signals() -> io::Result<Self> {
        let request = Self::default();
        let flag = || Arc::clone(&request.signalled);
        // Registered first, so that it sees the flag as it was before this signal.
        signal_hook::flag::register_conditional_default(SIGINT, flag())?;
        signal_hook::flag::register(SIGINT, flag())?;
        signal_hook::flag::register(SIGTERM, flag())?;
        Ok(request)
    }

    /// Asks to stop once `step` training steps are done; without a step, as soon as possible. The
    /// earliest of several requests counts.
    pub fn request(&self, step: Option<u64>) {
        self.at_step.fetch_min(step.unwrap_or(0), Ordering::Relaxed);
    }

    /// Whether to stop, now that `steps_done` training steps of the run are done.
    pub fn is_due(&self, steps_done: u64) -> bool {
        self.signalled.load(Ordering::Relaxed) || self.at_step.load(Ordering::Relaxed) <= steps_done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_waits_for_its_step_and_the_earliest_counts() {
        let request = StopRequest::default();
        assert!(!request.is_due(u64::MAX - 1));
        request.request(Some(7));
        request.request(Some(9));
        assert!(!request.is_due(6));
        assert!(request.clone().is_due(7));
        request.request(None);
        assert!(request.is_due(0));
    }
}
