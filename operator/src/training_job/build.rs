//! The objects that a plan asks for. Pods are built from the frozen configuration alone, so that an
//! upgraded operator never changes a running job.

mod budget;
mod claim;
mod config_map;
mod fetch;
mod keeper;
mod placement;
mod pod;
mod resources;
mod secret;
mod service;
mod volumes;
mod workload;

pub use pod::GRACE_SECONDS;

use contract::config::{FORMAT_VERSION, Images, JobConfig, JobIdentity};
use contract::spec::ClaimTemplate;
use crds::names;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::{ApiResource, DynamicObject};

use super::gang;
use super::observe::{ConfigView, Observed};
use super::plan::{ClaimFor, NewPod, Plan, Retired};
use super::queue::{QueueStep, QueueView};
use super::validate::ValidJob;
use crate::kueue::Workload;

/// What is to be written, in the order in which it is written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prepared {
    /// The frozen configuration: pods mount it.
    pub config_map: Option<ConfigMap>,
    /// Claims: pods mount them.
    pub claims: Vec<PersistentVolumeClaim>,
    /// What the agents of several workers know each other by, without its token: pods mount it.
    pub secret: Option<Secret>,
    /// Whether it is there already: pods were made after it.
    pub has_secret: bool,
    /// The Service: pods resolve each other through it.
    pub service: Option<Service>,
    /// Pods to release from the Service and delete, before others take their DNS names.
    pub retire: Vec<Retired>,
    /// Pods to delete.
    pub stop: Vec<String>,
    /// What keeps evictions off the workers.
    pub budget: Option<PodDisruptionBudget>,
    /// Its name, when there is nothing to keep any more.
    pub drop_budget: Option<String>,
    /// The group that the pods are scheduled as: pods name it.
    pub pod_group: Option<PodGroup>,
    /// The pod that fetches the data set.
    pub fetch: Option<Pod>,
    /// Pods to create.
    pub pods: Vec<(u32, Pod)>,
    /// What Kueue is told.
    pub queue: Option<PreparedStep>,
    /// Whether to delete the job itself.
    pub delete_job: bool,
}

/// A group of pods that get nodes together.
#[derive(Clone, Debug, PartialEq)]
pub struct PodGroup {
    /// Its kind, which depends on the scheduler.
    pub resource: ApiResource,
    /// The group.
    pub object: DynamicObject,
    /// The group of the workers before, which is deleted.
    pub before: Option<String>,
}

/// What is written of a job's place in a queue.
#[derive(Clone, Debug, PartialEq)]
pub enum PreparedStep {
    /// A new `Workload`.
    Create(Box<Workload>),
    /// The name of the `Workload`, and what becomes of it.
    Change(String, QueueStep),
}

/// The configuration cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A number in it is not finite.
    #[error("writing the job's configuration failed")]
    Config(#[source] serde_json::Error),
    /// A plan from the cache was carried out.
    #[error("the job's configuration was not read")]
    ConfigNotRead,
}

/// Builds what the plan asks for.
pub fn build(
    valid: &ValidJob,
    observed: &Observed,
    plan: &Plan,
    images: &Images,
) -> Result<Prepared, BuildError> {
    let mut prepared = Prepared {
        retire: plan.retire.clone(),
        stop: plan.stop.clone(),
        delete_job: plan.delete_job,
        ..Prepared::default()
    };
    if plan.expose {
        prepared.service = Some(service::service(&observed.id));
    }
    if plan.unguard {
        prepared.drop_budget = only_unguard(observed).drop_budget;
    }
    let enters = plan.queue == Some(QueueStep::Enter);
    if let Some(step) = plan.queue.clone().filter(|_| !enters) {
        prepared.queue = Some(queue_step(&observed.id, step));
    }
    let nothing = plan.claims.is_empty() && plan.fetch.is_none() && plan.create.is_empty();
    if !plan.freeze && nothing && !enters {
        return Ok(prepared);
    }
    let frozen = observed.config != ConfigView::Absent;
    let config = match &observed.config {
        ConfigView::Frozen(config) => config.as_ref().clone(),
        ConfigView::Absent => freeze(valid, observed, images),
        ConfigView::Present | ConfigView::Foreign => return Err(BuildError::ConfigNotRead),
    };
    if plan.freeze {
        prepared.config_map = Some(config_map::config_map(&config).map_err(BuildError::Config)?);
    }
    let claims = plan.claims.iter().filter_map(|claim| {
        let template = template(&config, *claim)?;
        let name = claim.name(&config.job.name);
        Some(claim::claim(&config.job, name, template))
    });
    prepared.claims.extend(claims);
    if !plan.create.is_empty() && is_group(&config) {
        prepared.secret = Some(secret::group(&config.job));
        prepared.has_secret = !observed.pods.is_empty();
    }
    let mut workers = valid.workers.clone();
    if let QueueView::Entered(entry) = &observed.queue {
        placement::placed(&mut workers.template, &entry.placement);
    }
    prepared.fetch = plan
        .fetch
        .map(|number| fetch::pod(&config, &workers, number));
    let place = |new: &NewPod| pod::Place {
        index: new.index,
        number: new.number,
        attempt: plan.attempt,
        same_topology: valid.scheduling.same_topology.as_deref(),
        avoid: plan.restarts.last.as_ref().map_or(&[], |last| &last.avoid),
        restarts_left: (config.failure_policy.as_ref())
            .map_or(0, |policy| policy.max_restarts)
            .saturating_sub(plan.restarts.counted),
    };
    prepared.pods = plan
        .create
        .iter()
        .map(|new| (new.index, pod::pod(&config, &workers, &place(new))))
        .collect();
    if !plan.create.is_empty() {
        prepared.budget = valid
            .scheduling
            .pod_disruption_budget
            .then(|| budget::budget(&config));
        schedule_together(&mut prepared, valid, observed, plan);
    }
    if let (true, Some(request)) = (enters, &valid.queue) {
        let first = NewPod {
            index: 0,
            number: 0,
        };
        let template = pod::pod(&config, &workers, &place(&first));
        let workload = workload::workload(&config, valid, request, frozen, template);
        prepared.queue = Some(PreparedStep::Create(Box::new(workload)));
    }
    Ok(prepared)
}

/// Makes the new pods a group, where somebody schedules groups.
fn schedule_together(prepared: &mut Prepared, valid: &ValidJob, observed: &Observed, plan: &Plan) {
    // A plan does not create pods whose scheduler is not there.
    let served = observed.served.clone().unwrap_or_default();
    let Ok(Some(scheduler)) = gang::choose(valid, &served) else {
        return;
    };
    let group = gang::name(&observed.id, plan.attempt.incarnation);
    for (_, pod) in &mut prepared.pods {
        gang::join(pod, &scheduler, &group);
    }
    let before = plan.attempt.incarnation.checked_sub(1);
    prepared.pod_group = Some(PodGroup {
        resource: gang::resource(&scheduler),
        object: gang::pod_group(&observed.id, valid, &scheduler, plan.attempt),
        before: before.map(|incarnation| gang::name(&observed.id, incarnation)),
    });
}

/// What a claim is made from.
fn template(config: &JobConfig, claim: ClaimFor) -> Option<&ClaimTemplate> {
    match claim {
        ClaimFor::Output => config.spec.output.volume_claim_template.as_ref(),
        ClaimFor::Dataset => {
            let to = config.spec.dataset.fetch_to.as_ref()?;
            to.volume_claim_template.as_ref()
        }
    }
}

/// Whether there is more than one agent.
fn is_group(config: &JobConfig) -> bool {
    config.workers.replicas > 1
}

/// The configuration of a job that begins now.
fn freeze(valid: &ValidJob, observed: &Observed, images: &Images) -> JobConfig {
    let own = valid.workers.container.as_ref();
    JobConfig {
        format_version: FORMAT_VERSION,
        job: observed.id.clone(),
        workers: valid.layout,
        images: Images {
            trainer: own.map_or_else(|| images.trainer.clone(), |own| own.image.clone()),
            ..images.clone()
        },
        command: own.map_or_else(Vec::new, |own| own.command.clone()),
        failure_policy: Some(valid.failure_policy.clone()),
        spec: valid.trainer.clone(),
    }
}

fn queue_step(id: &JobIdentity, step: QueueStep) -> PreparedStep {
    PreparedStep::Change(names::workload(&id.name, &id.uid), step)
}

/// That evictions are kept off the workers no longer.
pub fn only_unguard(observed: &Observed) -> Prepared {
    let id = &observed.id;
    Prepared {
        drop_budget: Some(names::disruption_budget(&id.name, &id.uid)),
        ..Prepared::default()
    }
}

/// What a job whose spec cannot be obeyed still needs: that nothing of it runs, or that it goes.
pub fn only_stop(observed: &Observed, plan: &Plan) -> Prepared {
    let queue = plan.queue.clone();
    Prepared {
        queue: queue.map(|step| queue_step(&observed.id, step)),
        stop: plan.stop.clone(),
        delete_job: plan.delete_job,
        ..Prepared::default()
    }
}
