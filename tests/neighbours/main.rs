//! Other programs drive our jobs, or ours drives with theirs. `make test-neighbours` installs them and runs this.

#![expect(
    clippy::print_stdout,
    reason = "what a failed or measuring test prints is its result"
)]

#[path = "../e2e/seen.rs"]
#[expect(dead_code, reason = "the other tests need the rest")]
mod seen;

#[path = "../e2e/gangs.rs"]
mod gangs;

mod coscheduling;
mod dra;
mod katib;
mod kueue;
mod prometheus_operator;
mod pytorch;
mod volcano;
