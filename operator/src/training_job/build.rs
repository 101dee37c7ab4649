//! The objects that a plan asks for. Pods are built from the frozen configuration alone, so that an
//! upgraded operator never changes a running job.

mod claim;
mod config_map;
mod fetch;
mod placement;
mod pod;
mod secret;
mod service;
mod volumes;

pub use pod::GRACE_SECONDS;

use contract::config::{FORMAT_VERSION, Images, JobConfig};
use contract::spec::ClaimTemplate;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service};

use super::observe::{ConfigView, Observed};
use super::plan::{ClaimFor, NewPod, Plan, Retired};
use super::validate::ValidJob;

/// What is to be written, in the order in which it is written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prepared {
    /// The frozen configuration: pods mount it.
    pub config_map: Option<ConfigMap>,
    /// Claims: pods mount them.
    pub claims: Vec<PersistentVolumeClaim>,
    /// What the agents of several workers know each other by, without its token: pods mount it.
    pub secret: Option<Secret>,
    /// The Service: pods resolve each other through it.
    pub service: Option<Service>,
    /// Pods to release from the Service and delete, before others take their DNS names.
    pub retire: Vec<Retired>,
    /// Pods to delete.
    pub stop: Vec<String>,
    /// The pod that fetches the data set.
    pub fetch: Option<Pod>,
    /// Pods to create.
    pub pods: Vec<(u32, Pod)>,
    /// Whether to delete the job itself.
    pub delete_job: bool,
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
    let nothing = plan.claims.is_empty() && plan.fetch.is_none() && plan.create.is_empty();
    if !plan.freeze && nothing {
        return Ok(prepared);
    }
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
    prepared.fetch = plan
        .fetch
        .map(|number| fetch::pod(&config, &valid.workers, number));
    if !plan.create.is_empty() && is_group(&config) {
        prepared.secret = Some(secret::group(&config.job));
    }
    let place = |new: &NewPod| pod::Place {
        index: new.index,
        number: new.number,
        attempt: plan.attempt,
        avoid: plan.restarts.last.as_ref().map_or(&[], |last| &last.avoid),
        restarts_left: (config.failure_policy.as_ref())
            .map_or(0, |policy| policy.max_restarts)
            .saturating_sub(plan.restarts.counted),
    };
    prepared.pods = plan
        .create
        .iter()
        .map(|new| {
            let pod = pod::pod(&config, &valid.workers, &place(new));
            (new.index, pod)
        })
        .collect();
    Ok(prepared)
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

/// What a job whose spec cannot be obeyed still needs: that nothing of it runs, or that it goes.
pub fn only_stop(plan: &Plan) -> Prepared {
    Prepared {
        stop: plan.stop.clone(),
        delete_job: plan.delete_job,
        ..Prepared::default()
    }
}
