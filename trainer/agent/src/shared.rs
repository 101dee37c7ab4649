//! What the socket writes and the HTTP server reads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use contract::attempt::Attempt;
use contract::config::JobIdentity;
use contract::progress::RankFailure;

use crate::board::Board;
use crate::group::{Phase, Standing};
use crate::metrics::{RegisterError, TrainingMetrics};
use crate::place::Place;

/// This machine's clock, in milliseconds since 1970.
pub fn clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}

/// The news of the ranks, and the clock they are dated with.
pub struct Shared {
    started: Instant,
    board: Mutex<Board>,
    job: JobIdentity,
    metrics: Mutex<Arc<TrainingMetrics>>,
}

impl Shared {
    /// No news yet; the clock starts now.
    pub fn new(job: &JobIdentity, place: &Place) -> Result<Self, RegisterError> {
        Ok(Self {
            started: Instant::now(),
            board: Mutex::new(Board::new(place.clone())),
            job: job.clone(),
            metrics: Mutex::new(Arc::new(TrainingMetrics::new(job, place.attempt)?)),
        })
    }

    /// The next attempt begins, after this failure: nothing of the one before is taken for it.
    pub fn begin(
        &self,
        attempt: Attempt,
        restarted_after: Option<RankFailure>,
    ) -> Result<(), RegisterError> {
        self.board().begin(attempt, restarted_after);
        let fresh = Arc::new(TrainingMetrics::new(&self.job, attempt)?);
        *self.metrics.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// The training series of the present attempt.
    pub fn metrics(&self) -> Arc<TrainingMetrics> {
        let metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&metrics)
    }

    /// What is told of this worker, with what its ranks have said meanwhile.
    pub fn standing(&self, standing: &Standing) -> Standing {
        Standing {
            trained: standing.phase != Phase::Waiting && self.board().trained(),
            pace: self
                .board()
                .pace()
                .filter(|_| standing.phase == Phase::Running),
            clock_ms: clock_ms(),
            ..standing.clone()
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
