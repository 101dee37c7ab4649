use contract::config::WorkerLayout;
use contract::spec::{
    Augmentation, Dataset, Distributed, Hyperparameters, Model, ModelSize, Output, TrainerSpec,
    Training,
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::run_policy::{CONTROLLER_NAME, MUTABLE};
use super::{CleanPodPolicy, FailurePolicy, RunPolicy, Scheduling, Workers, YoloTrainingJobStatus};

/// A name of this length still leaves room for `-worker-1023-999` in a pod's host name, and for
/// `-config`.
pub const MAX_NAME_LENGTH: usize = 40;

/// What is wrong with a queue of Volcano for workers that Volcano does not schedule.
pub const VOLCANO_QUEUE_ALONE: &str = "scheduling.volcanoQueue is set, but Volcano does not schedule the workers: set scheduling.gang to Volcano, or remove volcanoQueue";

/// What is wrong with the coscheduling plugin of no scheduler in particular.
pub const COSCHEDULING_UNNAMED: &str = "scheduling.gang is Coscheduling, which is a plugin of another scheduler: name that in workers.template.schedulerName";

/// What is wrong with a gang of one scheduler whose pods go to another.
pub const OTHER_SCHEDULER: &str = "scheduling.gang and workers.template.schedulerName name different schedulers: remove schedulerName, or set gang to auto or None";

/// What is wrong with GPUs that nothing asks for.
pub const NO_GPU_RESOURCE: &str = "workers.gpuResource is empty, but no workers.resources.claims bring GPUs: name a resource, or add a claim";

/// What to train, on what, and with how many workers. A job is fixed once it exists, but for `suspend`,
/// `activeDeadlineSeconds`, `ttlSecondsAfterFinished` and `cleanPodPolicy`: to change anything else, delete
/// it and create it anew.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "yolo-operator.dev",
    version = "v1alpha1",
    kind = "YoloTrainingJob",
    plural = "yolotrainingjobs",
    shortname = "ytj",
    namespaced,
    status = "YoloTrainingJobStatus",
    derive = "PartialEq",
    doc = "Trains a YOLOv5 object detector over one or many pods and reports loss, mAP and progress in its status.",
    printcolumn = r#"{"name": "State", "type": "string", "jsonPath": ".status.state", "description": "What the job is doing, in a word."}"#,
    printcolumn = r#"{"name": "Workers", "type": "string", "jsonPath": ".status.display.workers", "description": "Workers that run, of those wanted."}"#,
    printcolumn = r#"{"name": "Epoch", "type": "string", "jsonPath": ".status.display.epoch", "description": "The present epoch, of all."}"#,
    printcolumn = r#"{"name": "Loss", "type": "string", "jsonPath": ".status.display.loss", "description": "Training loss of the present epoch."}"#,
    printcolumn = r#"{"name": "mAP50-95", "type": "string", "jsonPath": ".status.display.mAP50_95", "description": "mAP50-95 of the latest evaluation."}"#,
    printcolumn = r#"{"name": "Progress", "type": "string", "jsonPath": ".status.display.progress", "description": "Part of the run that is done."}"#,
    printcolumn = r#"{"name": "ETA", "type": "string", "jsonPath": ".status.display.eta", "description": "Estimated time until the end."}"#,
    printcolumn = r#"{"name": "Restarts", "type": "integer", "jsonPath": ".status.restarts", "description": "How often the job was restarted after a failure.", "priority": 1}"#,
    printcolumn = r#"{"name": "Waiting on", "type": "string", "jsonPath": ".status.waitingOn", "description": "What the job waits for.", "priority": 1}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp", "description": "Time since the job was created."}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = spec_rules()))]
pub struct YoloTrainingJobSpec {
    /// Stops the workers while it is true. They write a checkpoint first, and when it is false again, the
    /// run goes on from there. Volumes and results stay.
    #[serde(default)]
    pub suspend: bool,
    /// The controller that runs the job: this one if left out. Jobs of another one are left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub managed_by: Option<String>,
    /// Seconds that the job may take from its beginning, or since it was last resumed, with restarts and
    /// waiting for nodes; a job that takes longer fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_deadline_seconds: Option<u32>,
    /// Seconds after its end at which the job is deleted, with its pods and their logs. Checkpoints,
    /// weights and results stay. A job that names none is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds_after_finished: Option<u32>,
    /// Which pods are deleted when the job has ended.
    #[serde(default)]
    pub clean_pod_policy: CleanPodPolicy,
    /// The network.
    #[serde(default)]
    pub model: Model,
    /// The images and labels to train on. Name exactly one source.
    pub dataset: Dataset,
    /// How long to train, in which portions, and what to keep.
    #[serde(default)]
    pub training: Training,
    /// The optimiser's and the loss's numbers. Defaults are YOLOv5's `hyp.scratch-low`.
    #[serde(default)]
    pub hyperparameters: Hyperparameters,
    /// Random changes to training images, with YOLOv5's names and defaults.
    #[serde(default)]
    pub augmentation: Augmentation,
    /// How the processes of the job talk to each other.
    #[serde(default)]
    pub distributed: Distributed,
    /// The pods that train together. All of them train, or none does: while one that was lost is replaced, the others
    /// wait in their pods, and the run goes on from a copy of its state in memory or from its last checkpoint.
    #[serde(default)]
    pub workers: Workers,
    /// How the workers get their nodes.
    #[serde(default)]
    pub scheduling: Scheduling,
    /// What happens when a worker fails.
    #[serde(default)]
    pub failure_policy: FailurePolicy,
    /// Where checkpoints, weights and results go. A run writes only into its own folder
    /// `<job>-<first 8 characters of the job's uid>` there.
    pub output: Output,
}

impl YoloTrainingJobSpec {
    /// The part that the trainer obeys.
    pub fn trainer(&self) -> TrainerSpec {
        TrainerSpec {
            model: self.model.clone(),
            dataset: self.dataset.clone(),
            training: self.training.clone(),
            hyperparameters: self.hyperparameters.clone(),
            augmentation: self.augmentation.clone(),
            distributed: self.distributed.clone(),
            output: self.output.clone(),
        }
    }

    /// When the job runs, for how long, and what is left of it.
    pub fn run_policy(&self) -> RunPolicy {
        RunPolicy {
            suspend: self.suspend,
            active_deadline_seconds: self.active_deadline_seconds,
            ttl_seconds_after_finished: self.ttl_seconds_after_finished,
            clean_pods: self.clean_pod_policy,
        }
    }

    /// Whether another controller runs the job.
    pub fn is_foreign(&self) -> bool {
        self.managed_by
            .as_deref()
            .is_some_and(|name| name != CONTROLLER_NAME)
    }

    /// How many processes there are, and where.
    pub fn layout(&self) -> WorkerLayout {
        self.workers.layout()
    }
}

/// The sizes of models with a stride of 64, as a list of CEL has them.
fn large_sizes() -> String {
    ModelSize::ALL
        .iter()
        .filter(|size| size.largest_stride() == 64)
        .map(|size| format!("'{}'", size.name()))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Combinations of fields. The sentences are also in `contract::spec::check` and in the operator's
/// validation, for objects that no such rule has seen.
fn spec_rules() -> Value {
    let processes = "(has(self.workers.processesPerWorker) ? self.workers.processesPerWorker : \
         (self.workers.gpusPerWorker > 0 ? self.workers.gpusPerWorker : 1))";
    let ranks = format!("(self.workers.replicas * {processes})");
    // A program of the user's own divides its batches as it likes.
    let program = "has(self.workers.container)";
    let large = large_sizes();
    json!([
        {
            "rule": format!("{program} || {ranks} <= 0 || self.training.batchSize % {ranks} == 0"),
            "messageExpression": format!(
                "'training.batchSize is %s, which %s processes cannot share equally: choose a multiple of %s'\
                 .format([self.training.batchSize, {ranks}, {ranks}])"
            ),
        },
        {
            "rule": format!("!has(self.workers.minReplicas) || (self.workers.minReplicas > 0 && self.workers.minReplicas <= self.workers.replicas && ({program} || self.training.batchSize % (self.workers.minReplicas * {processes} * (self.training.quad ? 4 : 1)) == 0))"),
            "messageExpression": format!(
                "'workers.minReplicas is %s: choose a number from 1 to %s (workers.replicas) whose processes can share training.batchSize, %s, equally%s'\
                 .format([self.workers.minReplicas, self.workers.replicas, self.training.batchSize, self.training.quad ? ', in fours (training.quad)' : ''])"
            ),
        },
        {
            "rule": "!has(self.failurePolicy.rules) || self.failurePolicy.rules.all(rule, !has(rule.workers) || rule.workers.all(worker, worker < self.workers.replicas))",
            "messageExpression": "'failurePolicy.rules name a worker that does not exist: workers.replicas is %s, so the last one is %s'.format([self.workers.replicas, self.workers.replicas - 1])",
        },
        {
            "rule": format!("!has(self.model.size) || !(self.model.size in [{large}]) || (self.training.imageSize >= 128 && self.training.imageSize % 64 == 0)"),
            "messageExpression": "'training.imageSize is %s: choose a multiple of 64 from 128 to 8192 (model.size is %s)'.format([self.training.imageSize, self.model.size])",
        },
        {
            "rule": "self.scheduling.gang != 'Coscheduling' || has(self.workers.template.schedulerName)",
            "message": COSCHEDULING_UNNAMED,
        },
        {
            "rule": "!has(self.workers.template.schedulerName) || !(self.scheduling.gang in ['Kubernetes', 'Volcano']) || self.workers.template.schedulerName == (self.scheduling.gang == 'Volcano' ? 'volcano' : 'default-scheduler')",
            "message": OTHER_SCHEDULER,
        },
        {
            "rule": "self.workers.gpusPerWorker == 0 || self.workers.gpuResource != '' || (has(self.workers.resources.claims) && self.workers.resources.claims.size() > 0)",
            "message": NO_GPU_RESOURCE,
        },
        {
            "rule": "!has(self.scheduling.volcanoQueue) || self.scheduling.gang == 'Volcano' || (self.scheduling.gang == 'auto' && has(self.workers.template.schedulerName) && self.workers.template.schedulerName == 'volcano')",
            "message": VOLCANO_QUEUE_ALONE,
        },
        {
            "rule": "self.workers.gpusPerWorker == 0 || !has(self.workers.processesPerWorker) || self.workers.processesPerWorker == self.workers.gpusPerWorker || (has(self.workers.container) && self.workers.processesPerWorker == 1)",
            "messageExpression": "'workers.processesPerWorker is %s, but workers.gpusPerWorker is %s and each process has one GPU: make them equal or leave processesPerWorker out'.format([self.workers.processesPerWorker, self.workers.gpusPerWorker])",
        },
        {
            "rule": "self.training.device != 'cuda' || self.workers.gpusPerWorker > 0",
            "message": "training.device is cuda, but workers.gpusPerWorker is 0: set workers.gpusPerWorker or choose cpu or auto",
        },
        {
            "rule": "self.training.device != 'cpu' || self.workers.gpusPerWorker == 0",
            "messageExpression": "'training.device is cpu, but workers.gpusPerWorker is %s: set it to 0 or choose cuda or auto'.format([self.workers.gpusPerWorker])",
        },
        {
            "rule": "self.distributed.backend != 'nccl' || self.workers.gpusPerWorker > 0",
            "message": "distributed.backend is nccl, which needs GPUs, but workers.gpusPerWorker is 0: choose gloo or auto, or set workers.gpusPerWorker",
        },
        {
            "rule": "self.distributed.backend != 'gloo' || self.workers.gpusPerWorker == 0",
            "messageExpression": "'distributed.backend is gloo, which works on CPUs, but workers.gpusPerWorker is %s: choose nccl or auto'.format([self.workers.gpusPerWorker])",
        },
        {
            "rule": "self.training.precision != 'float16' || self.workers.gpusPerWorker > 0",
            "message": "training.precision is float16, which needs GPUs, but workers.gpusPerWorker is 0: choose bfloat16 or float32, or set workers.gpusPerWorker",
        },
        {
            "rule": format!("!self.training.quad || {program} || {ranks} <= 0 || self.training.batchSize % (4 * {ranks}) == 0"),
            "messageExpression": format!(
                "'training.quad is true, but training.batchSize is %s: choose a multiple of %s, four for each process'\
                 .format([self.training.batchSize, 4 * {ranks}])"
            ),
        },
        {
            "rule": "!self.training.rect || self.augmentation.mosaic == 0.0",
            "messageExpression": "'training.rect is true, which shows each image alone, but augmentation.mosaic is %s: set augmentation.mosaic to 0'.format([self.augmentation.mosaic])",
        },
        {
            "rule": "!self.training.rect || self.augmentation.cutmix == 0.0",
            "messageExpression": "'training.rect is true, which shows each image alone, but augmentation.cutmix is %s: set augmentation.cutmix to 0'.format([self.augmentation.cutmix])",
        },
        {
            "rule": "!self.training.rect || !self.training.imageWeights",
            "message": "training.rect is true, whose order of images is fixed, but training.imageWeights is true: set one of them to false",
        },
        {
            "rule": "self.augmentation.closeMosaic <= self.training.epochs",
            "messageExpression": "'augmentation.closeMosaic is %s, but training.epochs is %s: choose at most %s'.format([self.augmentation.closeMosaic, self.training.epochs, self.training.epochs])",
        },
        {
            "rule": "self.augmentation.closeMosaic == 0 || !has(self.training.hours)",
            "messageExpression": "'augmentation.closeMosaic is %s, but training.hours is %s and nobody knows which epochs will be the last: set augmentation.closeMosaic to 0 or remove training.hours'.format([self.augmentation.closeMosaic, self.training.hours])",
        },
    ])
}

/// True of an update that changes no field of the spec but those of [`MUTABLE`].
///
/// The API server evaluates rules also when a status is written, and comparing specs was half of what all rules
/// cost it then. But a write of the status cannot change the spec, nor one of the spec the status, and each of the
/// operator's writes changes the time in the status: where that is new, the specs are the same.
fn immutable() -> String {
    let fields = [
        "model",
        "dataset",
        "training",
        "hyperparameters",
        "augmentation",
        "distributed",
        "workers",
        "scheduling",
        "failurePolicy",
        "output",
    ];
    let same = |field: &&str| format!("self.spec.{field} == oldSelf.spec.{field}");
    let mut same: Vec<String> = fields.iter().map(same).collect();
    // Has no default, so it may be absent.
    same.push(
        "(has(self.spec.managedBy) ? has(oldSelf.spec.managedBy) && self.spec.managedBy == oldSelf.spec.managedBy : !has(oldSelf.spec.managedBy))"
            .to_owned(),
    );
    // With optional values the API server's estimate of the cost is beyond its limit.
    let dated =
        |object: &str| format!("has({object}.status) && has({object}.status.lastUpdateTime)");
    let (new, old) = (dated("self"), dated("oldSelf"));
    let same_time = format!("{old} && self.status.lastUpdateTime == oldSelf.status.lastUpdateTime");
    format!("({new} && !({same_time})) || ({})", same.join(" && "))
}

/// CEL rules on the whole object, for the root of the schema: on the job's name, and on what may change.
pub fn root_rules() -> Value {
    json!([
        {
            "rule": immutable(),
            "fieldPath": ".spec",
            "message": format!("only {} can be changed after the job was created: for the rest, delete the job and create it anew with the new spec", MUTABLE.join(", ")),
        },
        {
            "rule": "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "messageExpression": "\"metadata.name is '\" + self.metadata.name + \"': choose a name of lower-case letters, digits and '-' that starts with a letter and ends with a letter or digit\"",
        },
        {
            "rule": format!("self.metadata.name.size() <= {MAX_NAME_LENGTH}"),
            "messageExpression": format!("\"metadata.name is '%s', which has %s characters: choose a name of at most {MAX_NAME_LENGTH}\".format([self.metadata.name, self.metadata.name.size()])"),
        },
    ])
}

/// What is wrong with a job's name, in the words of [`root_rules`].
pub fn name_problem(name: &str) -> Option<String> {
    let letters = name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if !letters {
        return Some(format!(
            "metadata.name is '{name}': choose a name of lower-case letters, digits and '-' that starts with a letter and ends with a letter or digit"
        ));
    }
    (name.len() > MAX_NAME_LENGTH).then(|| {
        format!(
            "metadata.name is '{name}', which has {} characters: choose a name of at most {MAX_NAME_LENGTH}",
            name.len()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_must_leave_room_for_the_pods() {
        assert_eq!(None, name_problem("a"));
        assert_eq!(None, name_problem(&"a".repeat(MAX_NAME_LENGTH)));
        for bad in ["", "1a", "a-", "a.b", "A"] {
            assert!(
                name_problem(bad)
                    .expect(bad)
                    .contains("starts with a letter")
            );
        }
        let long = name_problem(&"a".repeat(41)).expect("too long");
        assert!(long.contains("has 41 characters"), "{long}");
        // A host name is a DNS label: at most 63 characters.
        let host = crate::names::worker_pod(&"a".repeat(MAX_NAME_LENGTH), 1023, 1000);
        assert!(host.len() <= 63, "{host}");
    }

    #[test]
    fn processes_follow_gpus_unless_told() {
        let mut workers = Workers::default();
        assert_eq!(1, workers.processes());
        workers.gpus_per_worker = 8;
        assert_eq!(8, workers.processes());
        workers.gpus_per_worker = 0;
        workers.processes_per_worker = Some(2);
        workers.replicas = 3;
        assert_eq!(6, workers.layout().world_size());
    }
}
