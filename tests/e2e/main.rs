//! The whole on a real cluster. `make test-cluster` prepares it and runs these one after the other:
//! they share two cores.

#![expect(
    clippy::print_stdout,
    reason = "what a failed or measuring test prints is its result"
)]

mod admission;
mod bad_data;
mod chart;
mod dataset;
mod faults;
mod gangs;
mod identity;
mod kept;
mod lifecycle;
mod metrics;
mod network_policies;
mod placement;
mod preflight;
mod program;
mod recovery;
mod refused;
mod run_policy;
mod scale;
mod scheduling;
mod seen;
mod volumes;
mod what_is_granted;
