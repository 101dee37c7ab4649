//! Decides what a job needs next. Everything that happens to a job is decided here or in
//! [`super::restart`]; what follows only carries it out.

mod what;

pub use self::what::{ClaimFor, JobFailure, NewPod, Phase, Plan, Retired};

use contract::attempt::Attempt;
use crds::conditions::ConditionType;
use crds::names;
use crds::v1alpha1::{CleanPodPolicy, Restart, RunPolicy};
use jiff::{SignedDuration, Timestamp};

use super::back_off::{self, Restarts};
use super::build::GRACE_SECONDS;
use super::gang;
use super::members::{joined_by, least_number, members, present_attempt};
use super::observe::{ClaimView, Claims, ConfigView, Observed, ServiceView};
use super::pods::{PodState, PodView};
use super::prefetch::{self, FetchView, Step};
use super::queue::{self, Gate, QueueView};
use super::restart::{self, Member, Verdict, judge};
use super::validate::{InvalidSpec, ValidJob};
use super::waiting::WaitingOn;
use crate::conditions::{find, holds};

/// How soon to look again at a name that somebody else holds, or nobody: nothing else tells when that changes.
const NAME_TAKEN_RETRY: SignedDuration = SignedDuration::from_secs(2);

/// How soon to look again for a scheduler that is not installed, or for rights: nobody tells of them.
const UNTOLD_RETRY: SignedDuration = SignedDuration::from_secs(15);

/// A worker that fails twice within this time, without a step of training between, has failed again.
const GONE_AGAIN: SignedDuration = SignedDuration::from_secs(120);

/// How long a job that is resumed waits for its earlier workers to stop: their grace and some more. A
/// node that is lost never says that they have.
const STOP_LIMIT: SignedDuration = SignedDuration::from_secs(GRACE_SECONDS + 15);

/// How long the other containers of a pod may take to end after its worker: one that collects metrics needs it still.
const TO_FOLLOW: SignedDuration = SignedDuration::from_secs(60);

/// Plans a job whose spec is valid.
pub fn plan(valid: &ValidJob, observed: &Observed, now: Timestamp) -> Plan {
    let attempt = present_attempt(observed);
    let mut restarts = Restarts::until(observed, attempt);
    if let Some(plan) = ended(observed, attempt, &restarts, valid.run, now) {
        return plan;
    }
    if let Some(last) = &mut restarts.last
        && last.avoid_until.as_ref().is_none_or(|until| until.0 <= now)
    {
        last.avoid.clear();
        last.avoid_until = None;
    }
    let mut plan = Plan::idle(Phase::Gang, attempt, restarts);
    plan.freeze = observed.config == ConfigView::Absent;
    plan.expose = observed.service == ServiceView::Absent;
    plan.claims = claims(valid, observed, ClaimView::Absent);
    plan.retire = retired(observed, attempt.incarnation);
    plan.failures.extend(restart::told(observed, attempt, now));
    let members = members(valid, observed, attempt);
    if members.iter().all(succeeded) {
        plan.phase = Phase::Complete;
        plan.unguard = true;
        plan.make_nothing();
        if valid.run.clean_pods == CleanPodPolicy::All {
            plan.stop = unwanted(observed, valid.run.clean_pods);
        }
        return plan;
    }
    // Before the deadline: the time of a suspended job does not run, also if nobody noted that yet.
    if valid.run.suspend {
        // How many workers there are may be for a queue to say, once it has the job.
        plan.freeze &= valid.workers.min_replicas.is_none();
        stand_still(&mut plan, observed, Phase::Suspended);
        plan.queue = queue::while_suspended(observed);
        return plan;
    }
    let deadline = deadline(valid.run, observed);
    if let Some((seconds, _)) = deadline.filter(|(_, at)| *at <= now) {
        fail(&mut plan, observed, valid.run, JobFailure::Overdue(seconds));
        return plan;
    }
    if let Some(waiting_on) = name_taken(valid, observed) {
        plan = Plan::idle(Phase::Blocked(waiting_on), attempt, plan.restarts);
        plan.wake_at = now.checked_add(NAME_TAKEN_RETRY).ok();
        return plan;
    }
    let begun = !members.iter().all(is_missing);
    if let Some(file) = valid.trainer.dataset.config_map.as_ref()
        && !observed.has_data_file
        && !begun
    {
        let waiting_on = WaitingOn::Volume {
            message: format!(
                "there is no ConfigMap {} with the key {}, which dataset.configMap names: create it",
                file.name, file.key
            ),
        };
        let freeze = plan.freeze && valid.workers.min_replicas.is_none();
        plan = Plan::idle(Phase::Blocked(waiting_on), attempt, plan.restarts);
        plan.freeze = freeze;
        plan.wake_at = now.checked_add(NAME_TAKEN_RETRY).ok();
        return plan;
    }
    if let Gate::Closed { waiting_on, step } = queue::gate(valid, observed, begun) {
        // How many workers there are is known when they may run.
        plan.freeze &= valid.workers.min_replicas.is_none();
        stand_still(&mut plan, observed, Phase::Queued(waiting_on));
        plan.queue = step;
        if observed.queue == QueueView::Hidden {
            plan.wake_by(later(now, UNTOLD_RETRY));
        }
        return plan;
    }
    plan.wake_at = deadline.map(|(_, at)| at);
    if let Some(until) = stopping(observed, attempt).filter(|until| *until > now) {
        plan.phase = Phase::Suspended;
        plan.wake_at = Some(until);
        return plan;
    }
    // Workers of a later incarnation had others before them, which began with the data set.
    let first = attempt.incarnation == 0;
    if first && valid.fetches() && !begun && !fetched(&mut plan, valid, observed, now) {
        return plan;
    }
    go_on(&mut plan, valid, observed, &members, now);
    plan
}

/// Plans workers that may run: what failed is replaced, what is missing is created.
fn go_on(
    plan: &mut Plan,
    valid: &ValidJob,
    observed: &Observed,
    members: &[Member],
    now: Timestamp,
) {
    let attempt = plan.attempt;
    let retry = |failure: &restart::Failure| back_off::restart(observed, members, failure, now);
    let at_work = |member: &Member| match member {
        Member::Pod(pod) => {
            !pod.deleting && matches!(pod.state, PodState::Running | PodState::Succeeded(_))
        }
        _ => false,
    };
    plan.queue = queue::while_running(valid, observed, members.iter().all(at_work));
    let verdict = judge(members, plan.restarts.counted, &valid.failure_policy, now);
    // A second worker may be lost while the first one's successor is on its way: that is one wait.
    let meanwhile = |workers: &[u32]| awaits_others(observed, attempt, workers, now);
    let again = |failure, workers: &[u32]| {
        !meanwhile(workers) && !back_off::wait(valid, observed, retry(failure).fruitless).is_zero()
    };
    match verdict {
        Verdict::Healthy => {
            if let Some(at) = joined_by(observed).filter(|at| *at > now) {
                plan.wake_by(at);
            }
            let waits = back_off::until(valid, observed).filter(|(until, _)| *until > now);
            if let Some((until, waiting_on)) = waits
                && members.iter().all(is_missing)
            {
                plan.phase = Phase::BackingOff(waiting_on);
                plan.wake_by(until);
                return;
            }
            let missing = (0..valid.layout.replicas)
                .zip(members)
                .filter(|(_, member)| is_missing(member));
            plan.create = missing
                .map(|(index, _)| new_pod(observed, index, attempt))
                .collect();
        }
        Verdict::Settle(until) => {
            plan.phase = Phase::Settling;
            plan.wake_by(until);
        }
        Verdict::Replace {
            failure,
            workers,
            counted,
        } if !again(&failure, &workers) => {
            let restart = as_one(retry(&failure), observed, meanwhile(&workers));
            plan.failures.push(failure.record(attempt, now));
            plan.attempt = attempt.next_restart();
            // Others may have none for another reason: a status from a backup, for example.
            let wanted = (0..valid.layout.replicas).zip(members);
            let wanted = wanted
                .filter(|(index, member)| workers.contains(index) || is_missing(member))
                .map(|(index, _)| new_pod(observed, index, plan.attempt));
            plan.create = wanted.collect();
            let given_up = observed.pods.iter().filter(|pod| {
                pod.incarnation == attempt.incarnation && workers.contains(&pod.index)
            });
            // Some may have been given up before.
            plan.retire
                .retain(|pod| !given_up.clone().any(|given_up| given_up.name == pod.name));
            plan.retire.extend(given_up.filter_map(give_up));
            plan.phase = Phase::Replacing { failure, workers };
            plan.restarts.begin(restart, counted);
        }
        // Where that brought the run no further, all begin anew, after a wait.
        Verdict::Restart { failure, counted }
        | Verdict::Replace {
            failure, counted, ..
        } => {
            let restart = as_one(retry(&failure), observed, meanwhile(&[failure.worker]));
            plan.failures.push(failure.record(attempt, now));
            plan.phase = Phase::Restarting(failure);
            plan.attempt = attempt.next_incarnation();
            plan.retire = retired(observed, plan.attempt.incarnation);
            if back_off::wait(valid, observed, restart.fruitless).is_zero() {
                plan.create = (0..valid.layout.replicas)
                    .map(|index| new_pod(observed, index, plan.attempt))
                    .collect();
            }
            plan.restarts.begin(restart, counted);
        }
        Verdict::Permanent(failure) => {
            plan.failures.push(failure.record(attempt, now));
            let failure = JobFailure::Permanent(failure);
            fail(plan, observed, valid.run, failure);
        }
        Verdict::Exhausted(failure) => {
            plan.failures.push(failure.record(attempt, now));
            let failure = JobFailure::Exhausted(failure);
            fail(plan, observed, valid.run, failure);
        }
    }
    if !plan.create.is_empty()
        && let Some(waiting_on) = held_up(valid, observed)
    {
        plan.create.clear();
        plan.wake_at = Some(later(now, UNTOLD_RETRY));
        if plan.phase == Phase::Gang {
            plan.phase = Phase::Blocked(waiting_on);
        }
    }
    let_go_of_fetches(plan, observed, now);
}

/// Why pods cannot be made as they have to be.
fn held_up(valid: &ValidJob, observed: &Observed) -> Option<WaitingOn> {
    let no_scheduler = || gang::choose(valid, observed.served.as_ref()?).err();
    queue::unknown(valid, observed).or_else(no_scheduler)
}

/// Stops pods that fetched a while ago: a pod takes a moment to end with its container, and is then kept for its log. One
/// that does not end, because of a container that others added, holds the volume that the workers wait for.
fn let_go_of_fetches(plan: &mut Plan, observed: &Observed, now: Timestamp) {
    for pod in fetched_and_there(observed) {
        match later(pod.end_seen.unwrap_or(now), TO_FOLLOW) {
            at if at > now => plan.wake_by(at),
            _ => plan.stop.push(pod.name.clone()),
        }
    }
}

fn later(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// Plans a job whose spec is not valid: it fails, and nothing of it runs on.
pub fn refuse(observed: &Observed, refusal: InvalidSpec, run: RunPolicy, now: Timestamp) -> Plan {
    let attempt = present_attempt(observed);
    let restarts = Restarts::until(observed, attempt);
    ended(observed, attempt, &restarts, run, now).unwrap_or_else(|| {
        let mut plan = Plan::idle(Phase::Gang, attempt, restarts);
        fail(&mut plan, observed, run, JobFailure::Invalid(refusal));
        plan
    })
}

/// Whether the data set is there. If not, the plan is what is to be done for that.
fn fetched(plan: &mut Plan, valid: &ValidJob, observed: &Observed, now: Timestamp) -> bool {
    let (status, step) = prefetch::next(valid, observed, now);
    plan.fetch_status = Some(status);
    match step {
        Step::Done => return true,
        Step::Create(number) => {
            plan.fetch = Some(number);
            plan.phase = Phase::Fetching(WaitingOn::FetchPod {
                pod: names::fetch_pod(&observed.id.name, number),
                what: Box::new(WaitingOn::ContainersStarting),
            });
        }
        Step::Wait(waiting_on, until) => {
            plan.phase = Phase::Fetching(waiting_on);
            if let Some(until) = until {
                plan.wake_by(until);
            }
        }
        Step::Failed(waiting_on, until) => {
            plan.phase = Phase::FetchFailed(waiting_on);
            plan.wake_by(until);
        }
        Step::Fail(failure) => fail(plan, observed, valid.run, failure),
    }
    false
}

/// A restart that falls in the wait of the one before was no more fruitless than that.
fn as_one(mut restart: Restart, observed: &Observed, meanwhile: bool) -> Restart {
    if let Some(last) = observed.status.last_restart.as_ref().filter(|_| meanwhile) {
        restart.fruitless = last.fruitless;
    }
    restart
}

/// Whether ranks have not begun since the last worker was replaced alone, and none of these was replaced for that.
fn awaits_others(observed: &Observed, attempt: Attempt, workers: &[u32], now: Timestamp) -> bool {
    let decided = observed.status.attempt == Some(attempt) && attempt.restart > 0;
    let told = observed.progress.as_ref();
    let began = told.is_some_and(|told| told.attempt == attempt && told.started);
    let gone_again = |worker: &u32| {
        let mut pods = observed.pods.iter();
        let mut failures = observed.status.failures.iter();
        pods.any(|pod| pod.index == *worker && pod.made_for == attempt)
            || failures.any(|failure| {
                failure.worker == *worker
                    && failure.attempt.incarnation == attempt.incarnation
                    && now.duration_since(failure.time.0) < GONE_AGAIN
            })
    };
    decided && !began && !workers.iter().any(gone_again)
}

fn is_missing(member: &Member) -> bool {
    matches!(member, Member::Missing)
}

fn succeeded(member: &Member) -> bool {
    match member {
        Member::Pod(pod) => matches!(pod.state, PodState::Succeeded(_)),
        Member::Gone { succeeded, .. } => *succeeded,
        Member::Lost { .. } | Member::Missing => false,
    }
}

/// Stops the workers, and lets none begin. Those that come later are of another incarnation: that these were stopped is then no
/// failure.
fn stand_still(plan: &mut Plan, observed: &Observed, phase: Phase) {
    plan.phase = phase;
    let incarnation = plan.attempt.incarnation;
    if observed
        .pods
        .iter()
        .any(|pod| pod.incarnation == incarnation)
        || !observed.status.workers.is_empty()
    {
        plan.attempt = plan.attempt.next_incarnation();
    }
    plan.retire = retired(observed, plan.attempt.incarnation);
    plan.unguard = !plan.retire.is_empty();
    plan.stop = fetching(observed);
}

/// The pods that have fetched and in which a container that others added runs on.
fn fetched_and_there(observed: &Observed) -> impl Iterator<Item = &FetchView> {
    let there = |pod: &&FetchView| pod.ended() && !pod.over && !pod.deleting;
    observed.fetch.iter().filter(there)
}

/// The pods that fetch and are not about to end.
fn fetching(observed: &Observed) -> Vec<String> {
    let runs = observed
        .fetch
        .iter()
        .filter(|pod| !pod.ended() && !pod.deleting);
    runs.map(|pod| pod.name.clone()).collect()
}

/// Until when a job that was suspended waits for workers that are still stopping: they may be writing the
/// checkpoint that the others begin with.
fn stopping(observed: &Observed, attempt: Attempt) -> Option<Timestamp> {
    let suspended = find(&observed.status.conditions, ConditionType::Suspended)
        .filter(|condition| condition.status == "True")?;
    let old = |pod: &PodView| pod.incarnation < attempt.incarnation && !pod.ended();
    if !observed.pods.iter().any(old) {
        return None;
    }
    let since = suspended.last_transition_time.0;
    since.checked_add(STOP_LIMIT).ok()
}

/// How long the job may take, and when that is over.
fn deadline(run: RunPolicy, observed: &Observed) -> Option<(u32, Timestamp)> {
    let seconds = run.active_deadline_seconds?;
    let start = observed.status.start_time.as_ref()?.0;
    let at = start
        .checked_add(SignedDuration::from_secs(seconds.into()))
        .ok()?;
    Some((seconds, at))
}

/// The plan of a job that is being deleted or has ended already.
fn ended(
    observed: &Observed,
    attempt: Attempt,
    restarts: &Restarts,
    run: RunPolicy,
    now: Timestamp,
) -> Option<Plan> {
    let idle = |phase| Plan::idle(phase, attempt, restarts.clone());
    if observed.deleting {
        return Some(idle(Phase::Deleting));
    }
    let conditions = &observed.status.conditions;
    let failed = holds(conditions, ConditionType::Failed);
    if !failed && !holds(conditions, ConditionType::Complete) {
        return None;
    }
    let mut plan = idle(Phase::Ended);
    plan.queue = queue::when_over(observed, !failed, run.clean_pods);
    if failed || run.clean_pods == CleanPodPolicy::All {
        plan.stop = unwanted(observed, run.clean_pods);
    }
    let Some(done) = observed.status.completion_time.as_ref() else {
        return Some(plan);
    };
    let after = |time| later(done.0, time);
    let lingering: Vec<_> = lingering(observed, run.clean_pods).collect();
    let at = after(TO_FOLLOW);
    if at <= now {
        plan.stop.extend(lingering);
    } else if !lingering.is_empty() {
        plan.wake_by(at);
    }
    if let Some(seconds) = run.ttl_seconds_after_finished {
        let at = after(SignedDuration::from_secs(seconds.into()));
        plan.delete_job = at <= now;
        if !plan.delete_job {
            plan.wake_by(at);
        }
    }
    Some(plan)
}

/// Pods of a job that has ended in which a container that others added runs on, a proxy for example: they keep what
/// they asked for, GPUs included.
fn lingering(observed: &Observed, policy: CleanPodPolicy) -> impl Iterator<Item = String> {
    let runs = observed
        .pods
        .iter()
        .filter(move |_| policy == CleanPodPolicy::Running);
    let fetched = fetched_and_there(observed).filter(move |_| policy == CleanPodPolicy::Running);
    runs.filter(|pod| pod.ended() && !pod.over && !pod.deleting)
        .map(|pod| pod.name.clone())
        .chain(fetched.map(|pod| pod.name.clone()))
}

fn fail(plan: &mut Plan, observed: &Observed, run: RunPolicy, failure: JobFailure) {
    plan.unguard = true;
    plan.phase = Phase::Failed(failure);
    plan.make_nothing();
    plan.retire = Vec::new();
    plan.stop = unwanted(observed, run.clean_pods);
    plan.wake_at = None;
}

/// Pods of a job that has ended and do not stay.
fn unwanted(observed: &Observed, policy: CleanPodPolicy) -> Vec<String> {
    let goes = |pod: &&PodView| match policy {
        CleanPodPolicy::None => false,
        // Those that have ended are kept for their logs.
        CleanPodPolicy::Running => !pod.ended(),
        CleanPodPolicy::All => true,
    };
    let workers = observed.pods.iter().filter(goes);
    let workers = workers
        .filter(|pod| !pod.deleting)
        .map(|pod| pod.name.clone());
    // A fetch is of no use to a job that has ended.
    let ended = observed
        .fetch
        .iter()
        .filter(|pod| pod.ended() && !pod.deleting);
    let ended = ended
        .filter(|_| policy == CleanPodPolicy::All)
        .map(|pod| pod.name.clone());
    workers.chain(fetching(observed)).chain(ended).collect()
}

/// What the job cannot begin without, as long as it is somebody else's.
pub fn name_taken(valid: &ValidJob, observed: &Observed) -> Option<WaitingOn> {
    let job = &observed.id.name;
    if observed.config == ConfigView::Foreign {
        return Some(WaitingOn::NameTaken {
            kind: "ConfigMap",
            name: names::config_map(job),
        });
    }
    if observed.service == ServiceView::Foreign {
        return Some(WaitingOn::NameTaken {
            kind: "Service",
            name: names::service(job),
        });
    }
    let taken = claims(valid, observed, ClaimView::Foreign);
    taken.first().map(|claim| WaitingOn::ClaimTaken {
        name: claim.name(job),
        field: claim.field(),
    })
}

/// The claims that the job's templates ask for and that look so.
fn claims(valid: &ValidJob, observed: &Observed, view: ClaimView) -> Vec<ClaimFor> {
    let Claims { output, dataset } = observed.claims;
    let wanted = [
        (ClaimFor::Output, valid.claims_output(), output),
        (ClaimFor::Dataset, valid.claims_dataset(), dataset),
    ];
    let found = wanted
        .into_iter()
        .filter(|(_, wanted, found)| *wanted && *found == view);
    found.map(|(claim, ..)| claim).collect()
}

/// What is left of incarnations before this one, and of pods of this one in whose place there are others.
fn retired(observed: &Observed, incarnation: u32) -> Vec<Retired> {
    let attempt = Attempt {
        incarnation,
        restart: 0,
    };
    let replaced = |pod: &PodView| {
        pod.incarnation == incarnation
            && (pod.number < least_number(observed, attempt, pod.index)
                || observed.pods.iter().any(|other| {
                    other.incarnation == incarnation
                        && other.index == pod.index
                        && other.number > pod.number
                }))
    };
    let old = |pod: &&PodView| pod.incarnation < incarnation || replaced(pod);
    observed
        .pods
        .iter()
        .filter(old)
        .filter_map(give_up)
        .collect()
}

/// What is to be done with a pod that is given up.
fn give_up(pod: &PodView) -> Option<Retired> {
    (pod.active || !pod.deleting).then(|| Retired {
        name: pod.name.clone(),
        release: pod.active,
        delete: !pod.deleting,
    })
}

/// The next pod of a worker: its number is above all that ever held a name of this worker. Those of earlier
/// incarnations may be forgotten, but there was one of each at least.
fn new_pod(observed: &Observed, index: u32, attempt: Attempt) -> NewPod {
    let own = observed
        .pods
        .iter()
        .filter(|pod| pod.index == index)
        .map(|pod| pod.number);
    let strangers = observed
        .strangers
        .iter()
        .filter(|(worker, _)| *worker == index)
        .map(|(_, number)| *number);
    let known = observed
        .status
        .workers
        .iter()
        .filter(|worker| worker.index == index)
        .filter_map(|worker| names::worker_pod_number(&observed.id.name, index, &worker.pod));
    let above = own.chain(strangers).chain(known).max().map_or(0, |n| n + 1);
    NewPod {
        index,
        number: above.max(attempt.incarnation),
    }
}
