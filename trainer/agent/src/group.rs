//! The agents of a job as a group: they start, stop and restart their ranks together.
//!
//! ```text
//!  agent 1 ─┐ standing: attempt, phase, failure        ┌─ order: attempt, stop | run | finish
//!  agent 2 ─┼────────────────────────> coordinator ────┼──> every agent
//!  agent 0 ─┘        (in agent 0, pure)                └─ sent when it changes, and to who comes anew
//! ```
//!
//! Both directions carry a whole state, never a change: a line that was lost with its connection is made
//! good by the next one. A rank that fails therefore costs its peers no pod: the coordinator orders all to
//! stop, waits until no rank is left, and orders the next attempt, as long as the failure policy lets it.
//! What it does not let ends every worker, and the operator decides what follows. A worker that is
//! lost is waited for: the operator makes another pod of it.
//!
//! [`coordinator`] decides and knows no clock and no network; [`straggler`] finds who keeps the others waiting.
//! [`host`] gives it both on worker 0, and [`link`] is how the others reach it. When worker 0 is gone they stop their
//! ranks and look for its successor, whose coordinator learns from their standings where the group was. A worker
//! without a token has a group of its own.

pub mod clock;
pub mod coordinator;
pub mod host;
pub mod link;
pub mod message;
pub mod straggler;

pub use coordinator::Coordinator;
pub use message::{Order, OrderKind, Phase, Standing};

use std::sync::Arc;

use tokio::sync::watch;

use crate::settings::Group;
use crate::shared::Shared;

/// This agent's end of the group.
pub struct Membership {
    /// What this agent tells the coordinator.
    pub standing: watch::Sender<Standing>,
    /// What the coordinator wants.
    pub orders: watch::Receiver<Order>,
    /// Why the coordinator is not reached; `None` while it is.
    pub out_of_touch: watch::Receiver<Option<link::Trouble>>,
    host: Option<Arc<host::Host>>,
}

impl Membership {
    /// Joins the group of `settings`, or founds it on worker 0.
    pub async fn join(settings: &Group, shared: &Arc<Shared>) -> Result<Self, host::HostError> {
        let (standing, standings) = watch::channel(Standing::default());
        if settings.worker == 0 || settings.token.is_none() {
            let host = host::Host::found(settings, shared, standings).await?;
            return Ok(Self {
                standing,
                orders: host.orders(),
                out_of_touch: host.out_of_touch(),
                host: Some(host),
            });
        }
        let (orders, out_of_touch) = link::connect(settings, shared, standings);
        Ok(Self {
            standing,
            orders,
            out_of_touch,
            host: None,
        })
    }

    /// Whether the coordinator is here.
    pub fn coordinates(&self) -> bool {
        self.host.is_some()
    }

    /// On worker 0: waits until the others have heard the last order, or for a moment. Where they go on without this
    /// pod, they have.
    pub async fn leave(&self) {
        if let Some(host) = &self.host
            && self.orders.borrow().kind == OrderKind::Finish
        {
            host.see_off().await;
        }
    }
}
