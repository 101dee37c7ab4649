//! A harness that uses the operator as a person does: through `kubectl`, `helm` and HTTP, on a real
//! cluster.
//!
//! `scripts/test-cluster.sh` prepares the cluster (images loaded, chart installed) and sets the
//! environment; nothing here runs without it. Each test has a namespace of its own; when a test fails,
//! the namespace's objects, events and logs are printed before it is removed.

#![expect(
    clippy::print_stdout,
    reason = "what a failed or measuring test prints is its result"
)]

pub mod broken;
pub mod cluster;
pub mod data;
pub mod job;
pub mod measured;
pub mod moto;
pub mod mutated;
pub mod namespace;
pub mod processes;
pub mod rights;
pub mod wait;

pub use cluster::{
    Output, Reinstall, helm, kubectl, kubectl_in, kubectl_json, operator_node, operator_pods,
    script, upgrade_chart,
};
pub use job::Job;
pub use moto::Moto;
pub use namespace::Namespace;
pub use wait::{last, until};

/// The namespace the operator runs in.
pub const OPERATOR_NAMESPACE: &str = "yolo-system";
