//! The spec as a value that builders can trust, or every reason why it cannot be obeyed.
//!
//! The API server's CEL rules refuse the same objects with the same sentences; an object that an older
//! definition let in is refused here.

use contract::config::WorkerLayout;
use contract::spec::{Backend, Device, Precision, TrainerSpec, Training, out_of_range};
use crds::names::GPU_RESOURCE;
use crds::v1alpha1::{
    Backoff, COSCHEDULING_UNNAMED, FailurePolicy, Gang, NO_GPU_RESOURCE, OTHER_SCHEDULER,
    RunPolicy, Scheduling, VOLCANO_QUEUE_ALONE, Workers, YoloTrainingJob, is_reserved,
    is_reserved_variable, name_problem,
};
use kube::ResourceExt as _;
use serde_json::json;

use super::gang::{DEFAULT_SCHEDULER, VOLCANO_SCHEDULER};
use super::queue::QueueRequest;
use crate::kueue::{PRIORITY_LABEL, QUEUE_LABEL};

/// A job whose settings can all be obeyed.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidJob {
    /// What the trainer needs to know.
    pub trainer: TrainerSpec,
    /// What the pods need to know.
    pub workers: Workers,
    /// How many processes there are.
    pub layout: WorkerLayout,
    /// What happens when a worker fails.
    pub failure_policy: FailurePolicy,
    /// When it runs, and what is left of it.
    pub run: RunPolicy,
    /// How the workers get their nodes.
    pub scheduling: Scheduling,
    /// The queue that it waits in.
    pub queue: Option<QueueRequest>,
}

impl ValidJob {
    /// A job that was found valid when its configuration was frozen.
    pub fn accepted(job: &YoloTrainingJob) -> Self {
        Self {
            layout: job.spec.workers.layout(),
            trainer: job.spec.trainer(),
            workers: job.spec.workers.clone(),
            failure_policy: job.spec.failure_policy.clone(),
            run: job.spec.run_policy(),
            scheduling: job.spec.scheduling.clone(),
            queue: queue_request(job),
        }
    }

    /// Whether the operator makes the claim for the results.
    pub fn claims_output(&self) -> bool {
        self.trainer.output.volume_claim_template.is_some()
    }

    /// Whether the operator makes the claim that the data set is fetched to.
    pub fn claims_dataset(&self) -> bool {
        let to = self.trainer.dataset.fetch_to.as_ref();
        to.is_some_and(|to| to.volume_claim_template.is_some())
    }

    /// Whether the data set is fetched before the workers begin.
    pub fn fetches(&self) -> bool {
        self.trainer.dataset.fetched().is_some()
    }
}

/// Settings that cannot be obeyed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.join("; "))]
pub struct InvalidSpec {
    /// One sentence for each, naming field, value and remedy.
    pub problems: Vec<String>,
}

/// Checks the spec.
pub fn validate(job: &YoloTrainingJob) -> Result<ValidJob, InvalidSpec> {
    let trainer = job.spec.trainer();
    let workers = job.spec.workers.clone();
    let mut problems: Vec<String> = name_problem(&job.name_any()).into_iter().collect();
    problems.extend(worker_problems(&workers));
    let policy = &job.spec.failure_policy;
    let run = job.spec.run_policy();
    let mut around = json!({"workers": workers, "failurePolicy": policy});
    if let Some(seconds) = run.active_deadline_seconds {
        around["activeDeadlineSeconds"] = seconds.into();
    }
    problems.extend(out_of_range(&around).into_iter().map(|problem| problem.0));
    let unknown = |worker: &u32| *worker >= workers.replicas;
    if policy
        .rules
        .iter()
        .flat_map(|rule| &rule.workers)
        .any(unknown)
    {
        problems.push(format!(
            "failurePolicy.rules name a worker that does not exist: workers.replicas is {}, so the last one is {}",
            workers.replicas,
            workers.replicas.saturating_sub(1)
        ));
    }
    let Backoff {
        initial_seconds: initial,
        max_seconds: max,
    } = policy.backoff;
    if initial > max {
        problems.push(format!(
            "failurePolicy.backoff.initialSeconds is {initial}, but maxSeconds is {max}: choose at most {max}"
        ));
    }
    let scheduling = &job.spec.scheduling;
    let by_volcano = scheduling.gang == Gang::Volcano
        || scheduling.gang == Gang::Auto
            && workers.template.scheduler_name.as_deref() == Some(VOLCANO_SCHEDULER);
    let named = workers.template.scheduler_name.as_deref();
    let other = match (scheduling.gang, named) {
        (Gang::Kubernetes, Some(name)) => name != DEFAULT_SCHEDULER,
        (Gang::Volcano, Some(name)) => name != VOLCANO_SCHEDULER,
        _ => false,
    };
    let unasked = workers.gpus_per_worker > 0
        && workers.gpu_resource.is_empty()
        && workers.resources.claims.is_empty();
    let unnamed = scheduling.gang == Gang::Coscheduling && named.is_none();
    for (wrong, problem) in [
        (
            scheduling.volcano_queue.is_some() && !by_volcano,
            VOLCANO_QUEUE_ALONE,
        ),
        (unnamed, COSCHEDULING_UNNAMED),
        (other, OTHER_SCHEDULER),
        (unasked, NO_GPU_RESOURCE),
    ] {
        if wrong {
            problems.push(problem.to_owned());
        }
    }
    problems.extend(partial_problems(&workers, &trainer.training));
    // Those that share `training.batchSize`.
    let ranks = match &workers.container {
        None => workers.replicas.saturating_mul(workers.processes()),
        Some(_) => 0,
    };
    problems.extend(device_problems(&trainer, workers.gpus_per_worker));
    let known: Vec<String> = contract::spec::check(&trainer, ranks)
        .into_iter()
        .map(|problem| problem.to_string())
        // Said above with the number of GPUs, which the trainer's own check does not know.
        .filter(|problem| {
            !problem.starts_with("distributed.backend is nccl")
                && !problem.starts_with("training.precision is float16")
        })
        .collect();
    problems.extend(known);
    if problems.is_empty() {
        Ok(ValidJob::accepted(job))
    } else {
        Err(InvalidSpec { problems })
    }
}

/// What the job's labels say of queues.
fn queue_request(job: &YoloTrainingJob) -> Option<QueueRequest> {
    let label = |name| job.labels().get(name).filter(|value| !value.is_empty());
    Some(QueueRequest {
        queue: label(QUEUE_LABEL)?.clone(),
        priority_class: label(PRIORITY_LABEL).cloned(),
    })
}

fn partial_problems(workers: &Workers, training: &Training) -> Option<String> {
    let least = workers.min_replicas?;
    let fits = (1..=workers.replicas).contains(&least) && workers.can_share(training, least);
    (!fits).then(|| {
        format!(
            "workers.minReplicas is {least}: choose a number from 1 to {} (workers.replicas) whose processes can share training.batchSize, {}, equally{}",
            workers.replicas,
            training.batch_size,
            if training.quad { ", in fours (training.quad)" } else { "" }
        )
    })
}

fn worker_problems(workers: &Workers) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(processes) = workers.processes_per_worker
        && workers.gpus_per_worker > 0
        && processes != workers.gpus_per_worker
        // A launcher has all of them.
        && (processes != 1 || workers.container.is_none())
    {
        problems.push(format!(
            "workers.processesPerWorker is {processes}, but workers.gpusPerWorker is {} and each process has one GPU: make them equal or leave processesPerWorker out",
            workers.gpus_per_worker
        ));
    }
    let template = &workers.template;
    for (kind, entries) in [
        ("labels", &template.labels),
        ("annotations", &template.annotations),
    ] {
        let reserved = entries.keys().find(|key| is_reserved(key));
        problems.extend(reserved.map(|key| {
            format!("workers.template.{kind} has {key}, which the operator sets itself: remove it")
        }));
    }
    let of_container = workers.container.as_ref().map_or(&[][..], |own| &own.env);
    for (field, env) in [
        ("workers.env", &workers.env[..]),
        ("workers.container.env", of_container),
    ] {
        let mut names = env.iter().map(|variable| &variable.name);
        let reserved = names.find(|name| is_reserved_variable(name));
        problems.extend(reserved.map(|name| {
            format!("{field} has {name}, which the operator or the agent sets itself: remove it")
        }));
    }
    if let Some(container) = &workers.container
        && (container.image.is_empty() || container.command.is_empty())
    {
        problems.push("workers.container needs an image and a command".to_owned());
    }
    let resources = [
        ("limits", &workers.resources.limits),
        ("requests", &workers.resources.requests),
    ];
    for (kind, resources) in resources {
        let mut gpus = vec![GPU_RESOURCE];
        if workers.gpu_resource != GPU_RESOURCE {
            gpus.push(&workers.gpu_resource);
        }
        for name in gpus
            .into_iter()
            .filter(|name| resources.contains_key(*name))
        {
            problems.push(format!(
                "workers.resources.{kind} has {name}: remove it and set workers.gpusPerWorker"
            ));
        }
    }
    problems
}

fn device_problems(trainer: &TrainerSpec, gpus: u32) -> Vec<String> {
    let mut problems = Vec::new();
    match trainer.training.device {
        Device::Cuda if gpus == 0 => problems.push(
            "training.device is cuda, but workers.gpusPerWorker is 0: set workers.gpusPerWorker or choose cpu or auto"
                .to_owned(),
        ),
        Device::Cpu if gpus > 0 => problems.push(format!(
            "training.device is cpu, but workers.gpusPerWorker is {gpus}: set it to 0 or choose cuda or auto"
        )),
        _ => {}
    }
    match trainer.distributed.backend {
        Backend::Nccl if gpus == 0 => problems.push(
            "distributed.backend is nccl, which needs GPUs, but workers.gpusPerWorker is 0: choose gloo or auto, or set workers.gpusPerWorker"
                .to_owned(),
        ),
        Backend::Gloo if gpus > 0 => problems.push(format!(
            "distributed.backend is gloo, which works on CPUs, but workers.gpusPerWorker is {gpus}: choose nccl or auto"
        )),
        _ => {}
    }
    if trainer.training.precision == Precision::Float16 && gpus == 0 {
        problems.push(
            "training.precision is float16, which needs GPUs, but workers.gpusPerWorker is 0: choose bfloat16 or float32, or set workers.gpusPerWorker"
                .to_owned(),
        );
    }
    problems
}

#[cfg(test)]
mod tests {
    use crds::v1alpha1::{FailureAction, FailureRule, WorkerContainer};

    use super::*;
    use crate::sim::fixture;

    /// A valid job with one change has exactly the one expected problem.
    #[track_caller]
    fn refused(change: impl FnOnce(&mut YoloTrainingJob), expected: &str) {
        let mut job = fixture::job("digits", 2);
        change(&mut job);
        let refusal = validate(&job).expect_err(expected);
        assert_eq!(vec![expected.to_owned()], refusal.problems);
    }

    #[test]
    fn the_fixture_is_valid() {
        let valid = validate(&fixture::job("digits", 2)).expect("valid");
        assert_eq!(
            (2, 3),
            (valid.layout.world_size(), valid.failure_policy.max_restarts)
        );
    }

    #[test]
    fn a_launcher_may_have_all_gpus_of_its_worker() {
        let mut job = fixture::job("digits", 2);
        job.spec.workers.gpus_per_worker = 8;
        job.spec.workers.processes_per_worker = Some(1);
        job.spec.workers.container = Some(WorkerContainer {
            image: "team/train:7".to_owned(),
            command: vec!["torchrun".to_owned(), "train.py".to_owned()],
            env: Vec::new(),
        });
        let layout = validate(&job).expect("valid").layout;
        assert_eq!((2, 8), (layout.world_size(), layout.slots()));
        job.spec.workers.processes_per_worker = Some(2);
        validate(&job).expect_err("neither one nor all");
    }

    #[test]
    fn each_problem_is_told_once_in_the_words_of_the_api_server() {
        refused(
            |job| job.metadata.name = Some("a".repeat(41)),
            &name_problem(&"a".repeat(41)).expect("too long"),
        );
        refused(
            |job| job.spec.training.batch_size = 15,
            "training.batchSize is 15, which 2 processes cannot share equally: choose a multiple of 2",
        );
        refused(
            |job| {
                job.spec.training.batch_size = 24;
                job.spec.training.quad = true;
                job.spec.workers.replicas = 3;
                job.spec.workers.min_replicas = Some(4);
            },
            "workers.minReplicas is 4: choose a number from 1 to 3 (workers.replicas) whose processes can share training.batchSize, 24, equally, in fours (training.quad)",
        );
        refused(
            |job| {
                job.spec.training.batch_size = 12;
                job.spec.training.quad = true;
                job.spec.workers.replicas = 3;
                job.spec.workers.min_replicas = Some(2);
            },
            "workers.minReplicas is 2: choose a number from 1 to 3 (workers.replicas) whose processes can share training.batchSize, 12, equally, in fours (training.quad)",
        );
        refused(
            |job| job.spec.failure_policy.max_restarts = 1001,
            "failurePolicy.maxRestarts is 1001: choose 0 to 1000",
        );
        refused(
            |job| job.spec.failure_policy.backoff.initial_seconds = 301,
            "failurePolicy.backoff.initialSeconds is 301, but maxSeconds is 300: choose at most 300",
        );
        refused(
            |job| {
                job.spec.failure_policy.rules = vec![FailureRule {
                    action: FailureAction::FailJob,
                    reasons: Vec::new(),
                    exit_codes: Vec::new(),
                    signals: Vec::new(),
                    workers: vec![0, 2],
                }];
            },
            "failurePolicy.rules name a worker that does not exist: workers.replicas is 2, so the last one is 1",
        );
        refused(
            |job| job.spec.active_deadline_seconds = Some(0),
            "activeDeadlineSeconds is 0: choose 1 or more",
        );
        refused(
            |job| {
                let labels = &mut job.spec.workers.template.labels;
                labels.insert("yolo-operator.dev/active".to_owned(), String::new());
            },
            "workers.template.labels has yolo-operator.dev/active, which the operator sets itself: remove it",
        );
        refused(
            |job| job.spec.distributed.backend = Backend::Nccl,
            "distributed.backend is nccl, which needs GPUs, but workers.gpusPerWorker is 0: choose gloo or auto, or set workers.gpusPerWorker",
        );
        refused(
            |job| job.spec.training.precision = Precision::Float16,
            "training.precision is float16, which needs GPUs, but workers.gpusPerWorker is 0: choose bfloat16 or float32, or set workers.gpusPerWorker",
        );
        refused(
            |job| job.spec.training.device = Device::Cuda,
            "training.device is cuda, but workers.gpusPerWorker is 0: set workers.gpusPerWorker or choose cpu or auto",
        );
        refused(
            |job| {
                job.spec.workers.gpus_per_worker = 2;
                job.spec.workers.processes_per_worker = Some(1);
            },
            "workers.processesPerWorker is 1, but workers.gpusPerWorker is 2 and each process has one GPU: make them equal or leave processesPerWorker out",
        );
        refused(
            |job| {
                let gpu = crds::v1alpha1::Quantity("1".to_owned());
                let limits = &mut job.spec.workers.resources.limits;
                limits.insert(GPU_RESOURCE.to_owned(), gpu);
            },
            "workers.resources.limits has nvidia.com/gpu: remove it and set workers.gpusPerWorker",
        );
    }
}
