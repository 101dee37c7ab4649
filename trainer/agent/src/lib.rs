//! PID 1 of the container `worker` in a worker pod: starts its ranks, listens to them, tells the rest
//! of the world how they are, and says at the end why they ended.
//!
//! ```text
//!                       ┌───────────────────────── yolo-agent ─────────────────────────┐
//!  kubelet ── SIGTERM ──┤ signals ─┐                                                    │
//!                       │          ├─ events ─> supervise ─ actions ─> ranks ───────────┼─> processes
//!  ranks ── JSON lines ─┤ socket ──┘  (pure)       │                   (spawn, signal,  │
//!                       │    │                     │                    reap)           │
//!                       │    └─> board, metrics    └─ verdict ─> outcome ───────────────┼─> termination
//!  Prometheus, operator ┤ http <──────┘                                                 │   message
//!                       └───────────────────────────────────────────────────────────────┘
//! ```
//!
//! The decisions are in [`supervise`]: it knows no clock, no process and no socket, and is told of all
//! three. [`place`], [`board`] and [`outcome`] are pure too. The effects are in [`ranks`], [`output`],
//! [`socket`], [`http`], [`signals`] and [`run`], which wires them.
//!
//! The agent never talks to the API server, and a rank never needs to talk to the agent: for a program
//! that does not speak the protocol the exit code decides.

pub mod board;
pub mod group;
pub mod hang;
pub mod http;
pub mod install;
pub mod katib;
pub mod keeper;
pub mod lines;
pub mod metrics;
pub mod outcome;
pub mod output;
pub mod place;
pub mod preflight;
pub mod ranks;
pub mod run;
pub mod settings;
pub mod shared;
pub mod signals;
pub mod socket;
pub mod supervise;
pub mod telemetry;
pub mod worker;

use std::error::Error;

/// An error and its causes, joined by colons: what is shown at the edge, once.
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
