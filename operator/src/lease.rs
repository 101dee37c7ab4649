//! Leader election by a Lease: of several replicas, one works.
//!
//! [`evaluate`] is pure and follows client-go's algorithm: a foreign lease counts as expired when it was
//! not seen to change for its whole duration, by this process's clock alone, so that the clocks of other
//! machines do not matter.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a lease is good for after its last renewal.
pub const DURATION: Duration = Duration::from_secs(12);
/// How often the leader renews it. A leader that has not renewed it for [`RENEW_DEADLINE`] stops, well
/// before another may begin.
pub const RENEW_EVERY: Duration = Duration::from_secs(3);
/// After this long without a renewal the leader gives up.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(8);
/// How often others look whether it is free. With [`DURATION`] this bounds the time without a leader to 14 s.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long reading and writing it may take together.
pub const TURN_LIMIT: Duration = Duration::from_millis(2500);

/// What a replica knows of the lease.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its spec as last read.
    pub spec: LeaseSpec,
    /// When this spec was first read, by this process's clock.
    pub since: Instant,
}

/// What a replica does about the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is ours: renew it.
    Renew,
    /// It is free: take it.
    Acquire,
    /// It is somebody else's: look again later.
    Wait,
}

/// Decides what to do about a lease. `None` is a lease that does not exist.
pub fn evaluate(seen: Option<&Seen>, me: &str, now: Instant) -> Decision {
    let Some(seen) = seen else {
        return Decision::Acquire;
    };
    match seen.spec.holder_identity.as_deref() {
        Some(holder) if holder == me => Decision::Renew,
        None | Some("") => Decision::Acquire,
        Some(_) => {
            let seconds = seen.spec.lease_duration_seconds.unwrap_or_default();
            let duration = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
            if now.duration_since(seen.since) > duration {
                Decision::Acquire
            } else {
                Decision::Wait
            }
        }
    }
}

/// The spec after a decision to hold the lease.
pub fn held(before: Option<&LeaseSpec>, me: &str, now: Timestamp) -> LeaseSpec {
    let ours = before.is_some_and(|spec| spec.holder_identity.as_deref() == Some(me));
    let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
    LeaseSpec {
        holder_identity: Some(me.to_owned()),
        lease_duration_seconds: Some(DURATION.as_secs() as i32),
        acquire_time: match before {
            Some(spec) if ours => spec.acquire_time.clone(),
            _ => Some(MicroTime(now)),
        },
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(if ours { transitions } else { transitions + 1 }),
        ..LeaseSpec::default()
    }
}

/// The lease was lost or cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Somebody else holds it now.
    #[error("the lease {name} was taken over by {holder}")]
    Lost {
        /// Its name.
        name: String,
        /// Who holds it.
        holder: String,
    },
    /// It could not be renewed in time.
    #[error("the lease {name} could not be renewed for {} seconds", RENEW_DEADLINE.as_secs())]
    Deadline {
        /// Its name.
        name: String,
        /// What went wrong last.
        #[source]
        source: Option<Box<kube::Error>>,
    },
    /// The API server was put back to an earlier state, a backup of etcd mostly. Watches that were open go on
    /// without a word until the new state is as old as the lost one: nothing that was read before holds.
    #[error(
        "the lease {name} is older than it was (resource version {found} after {latest}): the API server was put back to an earlier state, and everything is read anew"
    )]
    Past {
        /// Its name.
        name: String,
        /// Its resource version now.
        found: u64,
        /// The latest that was seen.
        latest: u64,
    },
}

/// Whether an object that had a resource version has an earlier one now, which time alone brings about nowhere. Returns
/// both.
fn went_back(latest: Option<u64>, lease: Option<&Lease>) -> Option<(u64, u64)> {
    let (latest, found) = (latest?, version(lease?)?);
    (found < latest).then_some((found, latest))
}

/// The number is that of etcd's revision: larger is later.
fn version(lease: &Lease) -> Option<u64> {
    lease.metadata.resource_version.as_ref()?.parse().ok()
}

/// How a look at the lease ended.
enum Turn {
    /// It is held by this replica now.
    Held,
    /// It is held by another.
    Foreign,
    /// Another wrote it at the same moment; the next look tells who holds it.
    Raced,
    /// It is older than it was.
    Past {
        /// Its resource version.
        found: u64,
        /// The latest that was seen.
        latest: u64,
    },
}

/// A replica in the election.
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    namespace: String,
    me: String,
    /// The latest resource version that the lease was seen to have.
    latest: Option<u64>,
}

impl Candidate {
    /// A replica called `me` that wants the lease.
    pub fn new(client: Client, namespace: &str, name: &str, me: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            me: me.to_owned(),
            latest: None,
        }
    }

    /// Takes part until `stop`, then gives the lease back. Says on `leading` whether it holds the lease.
    /// Ends with an error when it held it and lost it, and when the API server was put back to an earlier state.
    pub async fn run(
        mut self,
        leading: watch::Sender<bool>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), LeaseError> {
        let mut seen: Option<Seen> = None;
        let mut renewed = Instant::now();
        let mut last_error = None;
        loop {
            let lead = *leading.borrow();
            match self.turn(&mut seen).await {
                Ok(Turn::Held) => {
                    renewed = Instant::now();
                    leading.send_if_modified(|value| !std::mem::replace(value, true));
                }
                Ok(Turn::Foreign) if lead => {
                    let holder = seen.and_then(|seen| seen.spec.holder_identity);
                    return Err(LeaseError::Lost {
                        name: self.name,
                        holder: holder.unwrap_or_default(),
                    });
                }
                Ok(Turn::Foreign | Turn::Raced) => {}
                Ok(Turn::Past { found, latest }) => {
                    let name = self.name;
                    return Err(LeaseError::Past {
                        name,
                        found,
                        latest,
                    });
                }
                Err(error) => {
                    tracing::warn!(
                        lease = self.name,
                        error = %crate::telemetry::chain(&error),
                        "the lease could not be read or written"
                    );
                    last_error = Some(Box::new(error));
                }
            }
            let lead = *leading.borrow();
            if lead && renewed.elapsed() > RENEW_DEADLINE {
                return Err(LeaseError::Deadline {
                    name: self.name,
                    source: last_error,
                });
            }
            let pause = if lead && renewed.elapsed() < RENEW_EVERY {
                RENEW_EVERY
            } else {
                LOOK_EVERY
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        if *leading.borrow() {
            self.give_back(seen).await;
        }
        Ok(())
    }

    /// Reads the lease and takes or renews it where that is right.
    async fn turn(&mut self, seen: &mut Option<Seen>) -> Result<Turn, kube::Error> {
        // Nobody must believe to hold a lease while a request hangs.
        match tokio::time::timeout(TURN_LIMIT, self.try_turn(seen)).await {
            Ok(result) => result,
            Err(elapsed) => Err(kube::Error::Service(Box::new(elapsed))),
        }
    }

    async fn try_turn(&mut self, seen: &mut Option<Seen>) -> Result<Turn, kube::Error> {
        let lease = self.api.get_opt(&self.name).await?;
        if let Some((found, latest)) = went_back(self.latest, lease.as_ref()) {
            return Ok(Turn::Past { found, latest });
        }
        self.latest = lease.as_ref().and_then(version).or(self.latest);
        let now = Instant::now();
        let spec = lease.as_ref().and_then(|lease| lease.spec.clone());
        *seen = match (spec, seen.take()) {
            (None, _) => None,
            (Some(spec), Some(before)) if before.spec == spec => Some(before),
            (Some(spec), _) => Some(Seen { spec, since: now }),
        };
        if evaluate(seen.as_ref(), &self.me, now) == Decision::Wait {
            return Ok(Turn::Foreign);
        }
        let spec = held(
            seen.as_ref().map(|seen| &seen.spec),
            &self.me,
            Timestamp::now(),
        );
        let written = self.write(lease, spec.clone()).await;
        match written {
            // Somebody else was faster: the next turn sees who.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
                Ok(Turn::Raced)
            }
            Err(error) => Err(error),
            Ok(lease) => {
                self.latest = version(&lease).or(self.latest);
                *seen = Some(Seen { spec, since: now });
                Ok(Turn::Held)
            }
        }
    }

    /// Writes the spec; the resource version that was read makes a concurrent write fail.
    async fn write(&self, lease: Option<Lease>, spec: LeaseSpec) -> Result<Lease, kube::Error> {
        let params = PostParams::default();
        if let Some(mut lease) = lease {
            lease.spec = Some(spec);
            return self.api.replace(&self.name, &params, &lease).await;
        }
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(spec),
        };
        self.api.create(&params, &lease).await
    }

    /// Makes the lease free at once, so that a successor need not wait for it to expire.
    async fn give_back(&self, seen: Option<Seen>) {
        let given = async {
            let Some(lease) = self.api.get_opt(&self.name).await? else {
                return Ok(());
            };
            let spec = lease.spec.clone().unwrap_or_default();
            if spec.holder_identity.as_deref() != Some(&self.me) {
                return Ok(());
            }
            let free = LeaseSpec {
                holder_identity: Some(String::new()),
                lease_duration_seconds: Some(1),
                renew_time: Some(MicroTime(Timestamp::now())),
                ..seen.map(|seen| seen.spec).unwrap_or(spec)
            };
            self.write(Some(lease), free).await.map(drop)
        };
        match tokio::time::timeout(Duration::from_secs(2), given).await {
            Ok(Ok(())) => tracing::info!(lease = self.name, "the lease was given back"),
            Ok(Err(error)) => tracing::warn!(
                lease = self.name,
                error = %crate::telemetry::chain(&error),
                "the lease could not be given back and will expire"
            ),
            Err(_) => tracing::warn!(lease = self.name, "giving the lease back took too long"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(holder: Option<&str>, since: Instant) -> Seen {
        Seen {
            spec: LeaseSpec {
                holder_identity: holder.map(str::to_owned),
                lease_duration_seconds: Some(DURATION.as_secs() as i32),
                ..LeaseSpec::default()
            },
            since,
        }
    }

    #[test]
    fn a_foreign_lease_is_left_alone_until_it_stands_still_for_its_duration() {
        let start = Instant::now();
        let other = seen(Some("b"), start);
        let after = |seconds| start + Duration::from_secs(seconds);
        let seconds = DURATION.as_secs();
        assert_eq!(Decision::Wait, evaluate(Some(&other), "a", after(seconds)));
        assert_eq!(
            Decision::Acquire,
            evaluate(Some(&other), "a", after(seconds + 1))
        );
        assert_eq!(
            Decision::Renew,
            evaluate(Some(&seen(Some("a"), start)), "a", after(99))
        );
        for free in [Some(&seen(None, start)), Some(&seen(Some(""), start)), None] {
            assert_eq!(Decision::Acquire, evaluate(free, "a", start));
        }
    }

    #[test]
    fn only_an_api_server_that_was_put_back_shows_an_older_lease() {
        let lease = |version: &str| Lease {
            metadata: ObjectMeta {
                resource_version: Some(version.to_owned()),
                ..ObjectMeta::default()
            },
            spec: None,
        };
        assert_eq!(None, went_back(None, Some(&lease("5"))));
        assert_eq!(None, went_back(Some(5), None));
        assert_eq!(None, went_back(Some(5), Some(&lease("5"))));
        assert_eq!(None, went_back(Some(9), Some(&lease("10"))));
        assert_eq!(Some((9, 10)), went_back(Some(10), Some(&lease("9"))));
    }

    #[test]
    fn a_renewal_keeps_its_history_and_a_takeover_counts() {
        let at = |second| Timestamp::from_second(second).expect("in range");
        let first = held(None, "a", at(1));
        let renewed = held(Some(&first), "a", at(2));
        assert_eq!(first.acquire_time, renewed.acquire_time);
        assert_eq!(first.lease_transitions, renewed.lease_transitions);
        assert_eq!(Some(MicroTime(at(2))), renewed.renew_time);
        let taken = held(Some(&renewed), "b", at(3));
        assert_eq!(Some(2), taken.lease_transitions);
        assert_eq!(Some(MicroTime(at(3))), taken.acquire_time);
    }

    #[test]
    fn a_leader_gives_up_before_another_may_begin() {
        // The last look that still finds it good, a pause, and a look that hangs.
        assert!(RENEW_DEADLINE + LOOK_EVERY + TURN_LIMIT < DURATION);
    }
}
