//! The little language of `testdata/training_job/*.txt`: one command a line, `#` for comments.
//!
//! ```text
//! job WORKERS [MAX_RESTARTS]      create the job `digits`
//! reconcile                       reconcile until nothing is left to do now
//! stale-reconcile                 reconcile once, from caches as they were at the last `remember`
//! stale-job-reconcile             the same, but only the job is as it was
//! remember                        what `stale-reconcile` sees and `restore-status` brings back
//! run POD…                        their containers run
//! exit POD CODE [REASON [TEXT]]   its container ends; with a reason it leaves a termination message
//! sidecar POD                     a container that others added to it outlives its worker
//! exit-because POD WORKER REASON TEXT    its container ends, since another worker was lost or never came
//! on-node POD NODE                where it runs
//! oom POD                         its container is killed for its memory
//! wait POD image|node|volume TEXT what the pod waits for
//! evict POD TEXT                  the node takes it away
//! taint-evict POD TEXT            its node is gone: the cluster gives it up, and nobody says that it has ended
//! delete-pod POD                  somebody deletes it; it gets time to stop
//! gone POD…                       they leave the API server
//! progress STEP EPOCH LOSS [MAP]  what worker 0's agent says
//! lost POD TEXT                   the agents lost touch with it, and wait for another in its place; of worker 0
//!                                 tells one on another node
//! silent                          none of them has answered for long
//! slow-check TEXT                 worker 0 waits for this before it starts ranks
//! absent [WORKER…]                agents tell that these have not joined, or that all have
//! in-place WORKER REASON TEXT     the agents restart their ranks, because of this failure of a rank
//! advance SECONDS                 the clock goes on
//! refuse POD                      the API server will refuse to create it, once
//! die-after WRITES                the operator's process dies after so many status writes
//! restart-operator                a new process, without memory
//! restore-status                  the status from `remember` is put back
//! foreign-service                 somebody else's Service has the job's name
//! remove-service                  the Service goes
//! foreign-claim NAME              somebody else's claim has this name
//! remove-claim NAME               a claim goes
//! data-file NAME KEY              a ConfigMap of a user with a data file
//! spec POINTER JSON               a value of the spec
//! invalidate                      the spec gets a value that cannot be obeyed
//! suspend, resume                 spec.suspend becomes true, false
//! deadline SECONDS                spec.activeDeadlineSeconds
//! ttl SECONDS                     spec.ttlSecondsAfterFinished
//! clean None|Running|All          spec.cleanPodPolicy
//! policy JSON                     spec.failurePolicy
//! program IMAGE COMMAND…          spec.workers.container
//! queue NAME [LEAST]              the job waits in this queue, and LEAST workers are enough
//! unqueue                         the job loses the label that names its queue
//! no-kueue                        Kueue is not installed
//! queue-rights none|all           what the operator may do with Kueue's objects
//! queue-says TEXT                 why Kueue does not admit the job
//! admit [WORKERS]                 Kueue admits it, for fewer workers if it says so, on nodes of `kind: gpu`
//! evict-from-queue REASON TEXT    Kueue wants its quota back
//! deactivate                      nothing admits it any more until somebody says so
//! scheduling JSON                 spec.scheduling
//! serve GROUP VERSION             the API server knows this kind of PodGroup
//! unserve                         it knows none any more
//! show-pod POD                    where it may run
//! delete-job                      somebody deletes the job
//! terminate                       the same, but somebody's finalizer keeps it
//! show                            conditions and workers
//! ```

mod agents;

use std::fmt::Write as _;

use contract::attempt::Attempt;
use contract::exit::FailureReason;
use contract::progress::{
    AgentProgress, CheckpointRef, EpochMetrics, Losses, PROGRESS_VERSION, Phase, Progress,
    RankFailure, RunReport,
};
use contract::result::{RESULT_VERSION, WorkerResult};
use crds::v1alpha1::{WorkerContainer, YoloTrainingJobSpec};
use futures::FutureExt as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Value, json};

use super::cluster::{SimCluster, World};
use super::fixture;
use crate::lean::without_past;
use crate::training_job::check::broken_invariants;
use crate::training_job::pace::Pace;
use crate::training_job::plan::plan;
use crate::training_job::pods::PodView;
use crate::training_job::status::{Applied, status};
use crate::training_job::{JobMemory, Outcome, Policy, ReconcileError, advance, valid};

/// Plays a script; returns its transcript.
pub fn play(script: &str) -> String {
    let mut player = Player::new();
    let mut transcript = String::new();
    for line in script.lines() {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        if line.starts_with('#') {
            let _ = write!(transcript, "\n{line}\n");
            continue;
        }
        let _ = writeln!(transcript, "> {line}");
        player.command(line);
        for line in player.cluster.said() {
            let _ = writeln!(transcript, "  {line}");
        }
    }
    transcript.trim_start().to_owned()
}

/// A simulated cluster, the operator's memory, and a clock.
pub(super) struct Player {
    pub(super) cluster: SimCluster,
    memory: JobMemory,
    pub(super) progress: Option<AgentProgress>,
    /// The attempt that the agents restarted their ranks for, in place.
    agents: Attempt,
    /// Because of this failure.
    restarted_after: Option<RankFailure>,
    remembered: World,
    policy: Policy,
    now: Timestamp,
}

impl Player {
    pub(super) fn new() -> Self {
        Self {
            cluster: SimCluster::default(),
            memory: JobMemory::default(),
            progress: None,
            agents: Attempt::default(),
            restarted_after: None,
            remembered: World::default(),
            policy: Policy {
                images: fixture::images(),
                pace: Pace {
                    progress: SignedDuration::from_secs(10),
                    workers: SignedDuration::from_secs(1),
                },
            },
            now: Timestamp::from_second(1_800_000_000).expect("in range"),
        }
    }

    pub(super) fn command(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let rest = |from: usize| words.get(from..).unwrap_or_default().join(" ");
        match words[0] {
            "job" => self.create_job(&words[1..]),
            "reconcile" => self.reconcile(),
            "stale-reconcile" => self.reconcile_once(&self.remembered.clone()),
            "stale-job-reconcile" => {
                let mut seen = self.cluster.look();
                seen.job.clone_from(&self.remembered.job);
                self.reconcile_once(&seen);
            }
            "remember" => self.remembered = self.cluster.look(),
            "run" => words[1..].iter().for_each(|pod| self.run(pod)),
            "exit" => self.exit(&words[1..]),
            "exit-because" => self.exit_because(words[1], number(words[2]), words[3], &rest(4)),
            "on-node" => self.cluster.change(|world| {
                let pod = world.pods.get_mut(words[1]).expect("a pod");
                pod.spec.get_or_insert_default().node_name = Some(words[2].to_owned());
            }),
            "oom" => self.end(words[1], 137, &json!({"reason": "OOMKilled"})),
            "wait" => self.wait(words[1], words[2], &rest(3)),
            "evict" => self.set(
                words[1],
                &json!({"phase": "Failed", "reason": "Evicted", "message": rest(2)}),
            ),
            "delete-pod" => self.delete_pod(words[1]),
            "gone" => self.cluster.change(|world| {
                for pod in &words[1..] {
                    world
                        .pods
                        .remove(*pod)
                        .unwrap_or_else(|| panic!("no pod {pod}"));
                }
            }),
            "progress" => self.report(&words[1..]),
            "lost" => self.lose(words[1], &rest(2)),
            "slow-check" => self.slow_check(&rest(1)),
            "absent" => self.absent(&words[1..]),
            "in-place" => self.restart_in_place(words[1], words[2], &rest(3)),
            "advance" => {
                let seconds: i64 = number(words[1]);
                self.now += SignedDuration::from_secs(seconds);
            }
            "refuse" => self
                .cluster
                .change(|world| world.refuse.push(words[1].to_owned())),
            "die-after" => {
                *self.cluster.die_after_writes.lock().unwrap() = Some(number(words[1]));
            }
            "restart-operator" => {
                self.memory = JobMemory::default();
                self.progress = None;
                self.cluster.change(|world| world.silent = None);
                *self.cluster.die_after_writes.lock().unwrap() = None;
            }
            "restore-status" => {
                let status = self
                    .remembered
                    .job
                    .as_ref()
                    .and_then(|job| job.status.clone());
                self.cluster.change(|world| {
                    world.job.as_mut().expect("a job").status = status;
                });
            }
            "foreign-service" => self.cluster.change(|world| {
                world.service = Some(k8s_openapi::api::core::v1::Service::default());
            }),
            "remove-service" => self.cluster.change(|world| world.service = None),
            "invalidate" => self.edit(|spec| spec.training.batch_size = 7),
            "suspend" => self.edit(|spec| spec.suspend = true),
            "resume" => self.edit(|spec| spec.suspend = false),
            "deadline" => {
                self.edit(|spec| spec.active_deadline_seconds = Some(number(words[1])));
            }
            "ttl" => self.edit(|spec| spec.ttl_seconds_after_finished = Some(number(words[1]))),
            "clean" => self.edit(|spec| {
                spec.clean_pod_policy = serde_json::from_value(json!(words[1])).expect("a policy");
            }),
            "program" => self.edit(|spec| {
                spec.workers.container = Some(WorkerContainer {
                    image: words[1].to_owned(),
                    command: words[2..].iter().map(|&word| word.to_owned()).collect(),
                    env: Vec::new(),
                });
            }),
            "policy" => self.edit(|spec| {
                spec.failure_policy = serde_json::from_str(&rest(1)).expect("a policy");
            }),
            "sidecar" => self.sidecar(words[1]),
            "terminate" => self.terminate(),
            "delete-job" => {
                // The garbage collector takes what the job owns; a new job has another uid.
                self.cluster.change(|world| *world = World::default());
                self.memory = JobMemory::default();
                self.progress = None;
            }
            "show" => self.show(),
            _ => self.arrange(&words, &rest(2)),
        }
    }

    /// Claims and other settings.
    fn arrange(&self, words: &[&str], rest: &str) {
        match words[0] {
            "silent" => self.cluster.change(|world| {
                let pods = world.pods.values().filter_map(PodView::of);
                world.silent = pods.map(|pod| pod.incarnation).max();
            }),
            "foreign-claim" => self.cluster.change(|world| {
                let claim = k8s_openapi::api::core::v1::PersistentVolumeClaim::default();
                world.claims.insert(words[1].to_owned(), claim);
            }),
            "data-file" => self.cluster.change(|world| {
                let data = [(words[2].to_owned(), "train: images".to_owned())].into();
                let map = k8s_openapi::api::core::v1::ConfigMap {
                    data: Some(data),
                    ..Default::default()
                };
                world.data_files.insert(words[1].to_owned(), map);
            }),
            "remove-claim" => self.cluster.change(|world| {
                world.claims.remove(words[1]).expect("a claim");
            }),
            "spec" => self.edit(|spec| {
                let mut value = json!(spec);
                let (parent, key) = words[1].rsplit_once('/').expect("a pointer");
                let parent = value.pointer_mut(parent).expect("a part of the spec");
                parent[key] = serde_json::from_str(rest).expect("JSON");
                *spec = serde_json::from_value(value).expect("a spec");
            }),
            other => assert!(self.scheduling_command(words), "unknown command {other}"),
        }
    }

    pub(super) fn edit(&self, change: impl FnOnce(&mut YoloTrainingJobSpec)) {
        self.cluster.change(|world| {
            let job = world.job.as_mut().expect("a job");
            change(&mut job.spec);
            *job.metadata.generation.get_or_insert(0) += 1;
        });
    }

    fn terminate(&self) {
        let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.now);
        self.cluster.change(|world| {
            let meta = &mut world.job.as_mut().expect("a job").metadata;
            meta.deletion_timestamp = Some(now);
            *meta.generation.get_or_insert(0) += 1;
        });
    }

    fn create_job(&mut self, words: &[&str]) {
        let mut job = fixture::job("digits", number(words[0]));
        if let Some(restarts) = words.get(1) {
            job.spec.failure_policy.max_restarts = number(restarts);
        }
        self.cluster.change(|world| world.job = Some(job));
    }

    /// Reconciles as the controller would: again after every change, until there is none.
    fn reconcile(&mut self) {
        for _ in 0..10 {
            let before = self.cluster.look();
            self.reconcile_once(&before);
            let after = self.cluster.look();
            if same(&before, &after) || self.dead() {
                return;
            }
        }
        panic!("reconciling does not come to rest");
    }

    fn dead(&self) -> bool {
        *self.cluster.die_after_writes.lock().unwrap() == Some(0)
    }

    fn reconcile_once(&mut self, seen: &World) {
        let Ok((job, mut cached)) = seen.observe(self.progress.clone()) else {
            return self.cluster.say("there is no job".to_owned());
        };
        cached.status = without_past(cached.status);
        self.check_invariants();
        // What was decided from less than there is need not be the last word.
        let knows_all = same(seen, &self.cluster.look());
        let outcome = advance(
            &self.cluster,
            &job,
            cached,
            &self.policy,
            &mut self.memory,
            self.now,
        )
        .now_or_never()
        .expect("the simulated cluster never waits");
        match outcome {
            Ok(Outcome { wake_at, .. }) => {
                if let Some(at) = wake_at.filter(|at| *at > self.now) {
                    let seconds = at.duration_since(self.now).as_secs_f64();
                    self.cluster.say(format!("look again in {seconds} s"));
                }
            }
            Err(error @ ReconcileError::Refused { .. }) => {
                self.cluster.say(format!("error: {error}"));
                return;
            }
            Err(error) => {
                assert!(self.dead(), "{error:?}");
                return self.cluster.say("the process died".to_owned());
            }
        }
        // What Kueue was told changes what comes next.
        let told = seen.workload != self.cluster.look().workload;
        if knows_all && !told && !self.dead() {
            self.check_rest();
        }
    }

    /// What holds for every plan holds for the plan of what is there now.
    fn check_invariants(&self) {
        let Ok((job, observed)) = self.cluster.look().observe(self.progress.clone()) else {
            return;
        };
        if let Ok(valid) = valid(&job, &observed) {
            let plan = plan(&valid, &observed, self.now);
            let broken = broken_invariants(&valid, &observed, &plan);
            assert!(
                broken.is_empty(),
                "{broken:#?}\nplan: {plan:#?}\n{observed:#?}"
            );
        }
    }

    /// Planning again without a change changes nothing.
    fn check_rest(&self) {
        let Ok((job, observed)) = self.cluster.look().observe(self.progress.clone()) else {
            return;
        };
        if let Ok(valid) = valid(&job, &observed) {
            let again = plan(&valid, &observed, self.now);
            // What Kueue is told follows what was done; `reconcile` sees it come to rest.
            if again.queue.is_none() {
                assert!(!again.acts(), "a second plan acts: {again:#?}");
            }
            let once = status(&valid, &observed, &again, &Applied::default(), self.now);
            let mut written = observed.clone();
            written.status = once.clone();
            let twice = status(&valid, &written, &again, &Applied::default(), self.now);
            assert_eq!(once, twice, "a second status differs");
        }
        self.check_invariants();
    }

    fn set(&self, pod: &str, status: &Value) {
        let status: PodStatus = serde_json::from_value(status.clone()).expect("a pod status");
        self.cluster.change(|world| {
            let pod = world
                .pods
                .get_mut(pod)
                .unwrap_or_else(|| panic!("no pod {pod}"));
            pod.status = Some(status);
        });
    }

    fn container(&self, pod: &str, phase: &str, state: &Value) {
        self.set(
            pod,
            &json!({"phase": phase, "podIP": "10.0.0.1", "containerStatuses": [{
                "name": if is_fetch(pod) { "fetch" } else { "worker" }, "image": "trainer:1", "imageID": "", "ready": false,
                "restartCount": 0, "state": state,
            }]}),
        );
    }

    fn run(&self, pod: &str) {
        self.cluster.change(|world| {
            let spec = world
                .pods
                .get_mut(pod)
                .unwrap_or_else(|| panic!("no pod {pod}"))
                .spec
                .get_or_insert_default();
            spec.node_name.get_or_insert("node-0".to_owned());
        });
        self.container(pod, "Running", &json!({"running": {}}));
    }

    fn end(&self, pod: &str, code: i32, extra: &Value) {
        let mut state = json!({"exitCode": code});
        for (key, value) in extra.as_object().into_iter().flatten() {
            state[key] = value.clone();
        }
        let phase = if code == 0 { "Succeeded" } else { "Failed" };
        self.container(pod, phase, &json!({"terminated": state}));
    }

    fn sidecar(&self, pod: &str) {
        self.cluster.change(|world| {
            let pod = world.pods.get_mut(pod).expect("a pod");
            pod.status.as_mut().expect("an end").phase = Some("Running".to_owned());
        });
    }

    fn exit(&self, words: &[&str]) {
        let code: i32 = number(words[1]);
        if is_fetch(words[0]) {
            let message = words.get(2..).unwrap_or_default().join(" ");
            return self.end(words[0], code, &json!({"message": message}));
        }
        let view = PodView::of(&self.cluster.look().pods[words[0]]).expect("a worker");
        let reason = words.get(2).map(|word| -> FailureReason {
            serde_json::from_value(json!(word)).expect("a reason")
        });
        let report = (view.index == 0)
            .then(|| {
                self.progress
                    .as_ref()
                    .map(|progress| progress.report.clone())
            })
            .flatten();
        let message = match (reason, code) {
            (None, 0) | (Some(_), _) => WorkerResult {
                version: RESULT_VERSION,
                attempt: self.attempt_of(view.incarnation),
                node_rank: view.index,
                reason,
                rank: reason.map(|_| view.index),
                because: None,
                restarted_after: self.restarted_after.clone(),
                message: words.get(3..).unwrap_or_default().join(" "),
                report,
            }
            .to_termination_message(),
            // Without a reason the agent left no message.
            (None, _) => String::new(),
        };
        self.end(words[0], code, &json!({"message": message}));
    }

    fn wait(&self, pod: &str, on: &str, text: &str) {
        let scheduled = |reason| {
            json!({"phase": "Pending", "conditions": [{
                "type": "PodScheduled", "status": "False", "reason": reason, "message": text}]})
        };
        match on {
            "node" | "volume" => self.set(pod, &scheduled("Unschedulable")),
            "image" => self.container(
                pod,
                "Pending",
                &json!({"waiting": {"reason": "ImagePullBackOff", "message": text}}),
            ),
            other => panic!("unknown wait {other}"),
        }
    }

    fn delete_pod(&self, name: &str) {
        self.cluster.change(|world| {
            let pod = world
                .pods
                .get_mut(name)
                .unwrap_or_else(|| panic!("no pod {name}"));
            pod.metadata.deletion_timestamp = Some(
                k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.now),
            );
        });
    }

    fn report(&mut self, words: &[&str]) {
        self.cluster.change(|world| world.silent = None);
        let step: u64 = number(words[0]);
        let incarnation = self
            .cluster
            .look()
            .pods
            .values()
            .filter_map(PodView::of)
            .map(|pod| pod.incarnation)
            .max()
            .unwrap_or_default();
        let epoch: u32 = number(words[1]);
        let measured = EpochMetrics {
            epoch,
            train_loss: words.get(2).map(|loss| Losses {
                total: number(loss),
                ..Losses::default()
            }),
            map50: words.get(3).map(|map| number(map)),
            map50_95: words.get(3).map(|map| number::<f64>(map) / 2.0),
            ..EpochMetrics::default()
        };
        self.progress = Some(AgentProgress {
            version: PROGRESS_VERSION,
            attempt: self.attempt_of(incarnation),
            node_rank: 0,
            report: RunReport {
                phase: if step > 0 {
                    Phase::Training
                } else {
                    Phase::Starting
                },
                progress: Progress {
                    epoch,
                    epochs: 3,
                    step,
                    steps: if step > 0 { 30 } else { 0 },
                    percent: step as f64 / 0.3,
                    eta_seconds: Some(30 - step),
                    training_seconds: step as f64,
                    first_step_time: (step > 0).then(|| "2027-01-15T08:00:05Z".to_owned()),
                    ..Progress::default()
                },
                latest: Some(measured.clone()),
                best: words.get(3).map(|_| measured),
                checkpoint: (step > 0).then(|| CheckpointRef {
                    step,
                    path: format!("digits-uid-digi/checkpoints/step-{step:09}"),
                }),
                best_weights: words.get(3).map(|_| "digits-uid-digi/best".to_owned()),
                ..RunReport::default()
            },
            ranks: Vec::new(),
            started: true,
            straggler: None,
            warnings: Vec::new(),
            lost: Vec::new(),
            absent: Vec::new(),
            slow_check: None,
            restarted_after: self.restarted_after.clone(),
        });
    }
}

/// Whether the same objects are there.
fn same(before: &World, after: &World) -> bool {
    before.pods == after.pods
        && before.job == after.job
        && before.service == after.service
        && before.workload == after.workload
        && before.claims == after.claims
}

/// Whether the pod of this name fetches the data set.
fn is_fetch(pod: &str) -> bool {
    pod.starts_with("digits-fetch-")
}

pub(super) fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse()
        .unwrap_or_else(|_| panic!("{text} is no number"))
}
