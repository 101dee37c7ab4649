//! What the socket writes and the HTTP server reads.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::board::Board;
use crate::metrics::TrainingMetrics;

/// The news of the ranks, and the clock they are dated with.
pub struct Shared {
    started: Instant,
    board: Mutex<Board>,
    /// The training series.
    pub metrics: TrainingMetrics,
}

impl Shared {
    /// No news yet; the clock starts now.
    pub fn new(board: Board, metrics: TrainingMetrics) -> Self {
        Self {
            started: Instant::now(),
            board: Mutex::new(board),
            metrics,
        }
    }

    /// Time since the agent's start.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The moment that lies `since_start` after the agent's start.
    pub fn instant(&self, since_start: Duration) -> Instant {
        self.started + since_start
    }

    /// The board, locked. Its values are plain news: a panic elsewhere leaves them usable.
    pub fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
