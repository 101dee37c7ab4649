//! The signals PID 1 takes care of.

use std::io;

use rustix::process::Signal;
use tokio::select;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// What a caught signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caught {
    /// SIGTERM or SIGINT: the worker is to end.
    Stop,
    /// A signal for the ranks.
    Forward(Signal),
    /// SIGCHLD: children may have ended.
    Child,
}

/// The caught signals. The kernel drops what PID 1 does not catch.
pub struct Signals {
    terminate: Stream,
    interrupt: Stream,
    hangup: Stream,
    user1: Stream,
    user2: Stream,
    child: Stream,
}

impl Signals {
    /// Starts to catch them.
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
            child: signal(SignalKind::child())?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> Caught {
        select! {
            _ = self.terminate.recv() => Caught::Stop,
            _ = self.interrupt.recv() => Caught::Stop,
            _ = self.hangup.recv() => Caught::Forward(Signal::HUP),
            _ = self.user1.recv() => Caught::Forward(Signal::USR1),
            _ = self.user2.recv() => Caught::Forward(Signal::USR2),
            _ = self.child.recv() => Caught::Child,
        }
    }
}
