//! What there is of the workers: quota, nodes, containers.

use crds::conditions::{ConditionType, Reason};

use super::super::plan::Phase;
use super::super::waiting::{WaitingOn, summary};
use super::{Outlook, all_run, not_now};
use crate::conditions::{Stated, find, holds};

pub(super) fn admitted(outlook: &Outlook) -> Stated {
    let kind = ConditionType::Admitted;
    if let Some(ended) = not_now(kind, &outlook.plan.phase) {
        return ended;
    }
    match outlook.admission {
        Some(given) => Stated::new(
            kind,
            true,
            Reason::QuotaReserved.as_str(),
            match outlook.total {
                1 => format!("the queue {} lets the worker run", given.queue),
                n => format!("the queue {} lets {n} workers run", given.queue),
            } + &format!(", with quota of {}", given.cluster_queue),
        ),
        None => Stated::new(
            kind,
            true,
            Reason::NotQueued.as_str(),
            "the job waits in no queue",
        ),
    }
}

/// That the API server does not take a pod.
fn refused_pod<'a>(outlook: &'a Outlook) -> Option<&'a WaitingOn> {
    let mut waiting = outlook.waiting.iter().map(|(_, waiting_on)| waiting_on);
    waiting.find(|waiting_on| matches!(waiting_on, WaitingOn::CreateRefused { .. }))
}

/// What all workers wait for, when they do.
fn all_wait(outlook: &Outlook) -> Option<WaitingOn> {
    match &outlook.plan.phase {
        Phase::Fetching(waiting_on) => Some(refused_pod(outlook).unwrap_or(waiting_on).clone()),
        Phase::FetchFailed(waiting_on) => Some(waiting_on.clone()),
        Phase::Blocked(waiting_on) | Phase::BackingOff(waiting_on) | Phase::Queued(waiting_on) => {
            Some(waiting_on.clone())
        }
        Phase::Settling => Some(WaitingOn::OtherResults),
        _ => None,
    }
}

/// What the job waits for, in words.
pub fn waiting_on(outlook: &Outlook) -> Option<String> {
    if let Some(waiting_on) = all_wait(outlook) {
        return Some(waiting_on.message());
    }
    match &outlook.plan.phase {
        Phase::Gang | Phase::Restarting(_) | Phase::Replacing { .. } => {
            let waiting = summary(&outlook.waiting, outlook.total);
            let waiting = waiting.map(|(_, message)| message);
            let waiting = waiting.or(unreachable(outlook)).or(apart(outlook));
            let slow = outlook.slow_check.clone();
            waiting.or(slow.filter(|_| all_run(outlook) && !outlook.ranks_started))
        }
        _ => None,
    }
}

/// That the operator does not see what the workers do, when all run.
fn unreachable(outlook: &Outlook) -> Option<String> {
    let port = outlook.silent.filter(|_| all_run(outlook))?;
    Some(format!(
        "all workers run, but none has answered the operator for half a minute: what they do is not seen here; look at network policies, firewalls and proxies between the operator and port {port} of the pods"
    ))
}

/// Who runs and has not found worker 0, when all run.
fn apart(outlook: &Outlook) -> Option<String> {
    if !all_run(outlook) || outlook.ranks_started {
        return None;
    }
    let Some(absent) = &outlook.absent else {
        // Who does not answer for a moment takes nothing back.
        let known = find(&outlook.old.conditions, ConditionType::PreflightPassed)?;
        let same = outlook.old.attempt == Some(outlook.plan.attempt);
        let named = same && known.reason == Reason::NotJoined.as_str();
        return named.then(|| known.message.clone());
    };
    let first = absent.first()?;
    let node = first.node.as_ref();
    let place = node.map_or_else(String::new, |node| format!(" on the node {node}"));
    let (first, total) = (first.index, outlook.total);
    let (who, whose) = match absent.len() {
        1 => (format!("worker {first}{place} runs, but"), "its log"),
        n => (
            format!("{n} of {total} workers (the first is worker {first}{place}) run, but"),
            "their logs",
        ),
    };
    Some(format!(
        "{who} did not find worker 0 yet: {whose} may say why; look at DNS, at network policies and at the volumes there"
    ))
}

pub(super) fn scheduled(outlook: &Outlook) -> Stated {
    let kind = ConditionType::Scheduled;
    if let Some(ended) = not_now(kind, &outlook.plan.phase) {
        return ended;
    }
    let total = outlook.total;
    if outlook.placed == total && outlook.plan.create.is_empty() {
        return Stated::new(
            kind,
            true,
            Reason::NodesFound.as_str(),
            match total {
                1 => "the worker has a node".to_owned(),
                n => format!("all {n} workers have nodes"),
            },
        );
    }
    if let Some(waiting_on) =
        all_wait(outlook).filter(|waiting_on| *waiting_on != WaitingOn::OtherResults)
    {
        return Stated::new(
            kind,
            false,
            waiting_on.reason().as_str(),
            waiting_on.message(),
        );
    }
    let nodes = |(_, waiting_on): &&(u32, WaitingOn)| {
        matches!(
            waiting_on,
            WaitingOn::Unschedulable { .. }
                | WaitingOn::Devices { .. }
                | WaitingOn::Scheduler { .. }
                | WaitingOn::Volume { .. }
                | WaitingOn::CreateRefused { .. }
        )
    };
    let homeless: Vec<_> = outlook.waiting.iter().filter(nodes).cloned().collect();
    let (reason, message) = summary(&homeless, total).unwrap_or_else(|| {
        (
            Reason::CreatingPods,
            format!("{} of {total} workers have nodes", outlook.placed),
        )
    });
    Stated::new(kind, false, reason.as_str(), message)
}

pub(super) fn workers_ready(outlook: &Outlook) -> Stated {
    let kind = ConditionType::WorkersReady;
    if let Some(ended) = not_now(kind, &outlook.plan.phase) {
        return ended;
    }
    if let Some(waiting_on) = all_wait(outlook) {
        return Stated::new(
            kind,
            false,
            waiting_on.reason().as_str(),
            waiting_on.message(),
        );
    }
    match summary(&outlook.waiting, outlook.total) {
        Some((reason, message)) => Stated::new(kind, false, reason.as_str(), message),
        None if outlook.ready == outlook.total => Stated::new(
            kind,
            true,
            Reason::AllRunning.as_str(),
            match outlook.total {
                1 => "the worker runs".to_owned(),
                n => format!("all {n} workers run"),
            },
        ),
        None => Stated::new(
            kind,
            false,
            Reason::Restarting.as_str(),
            "workers are being replaced",
        ),
    }
}

pub(super) fn preflight(outlook: &Outlook) -> Stated {
    let kind = ConditionType::PreflightPassed;
    if let Some(ended) = not_now(kind, &outlook.plan.phase) {
        return ended;
    }
    if !all_run(outlook) {
        return Stated::new(
            kind,
            false,
            Reason::WorkersNotReady.as_str(),
            "not all workers run; see the condition WorkersReady",
        );
    }
    // Agents that do not answer for a moment take nothing back.
    let passed =
        outlook.old.attempt == Some(outlook.plan.attempt) && holds(&outlook.old.conditions, kind);
    if !outlook.ranks_started
        && !passed
        && let Some(message) = unreachable(outlook)
    {
        return Stated::new(kind, false, Reason::NotReachable.as_str(), message);
    }
    if !outlook.ranks_started
        && !passed
        && let Some(message) = apart(outlook)
    {
        return Stated::new(kind, false, Reason::NotJoined.as_str(), message);
    }
    if !outlook.ranks_started && !passed {
        return Stated::new(
            kind,
            false,
            Reason::Checking.as_str(),
            match &outlook.slow_check {
                Some(slow) => slow.clone(),
                None => "the workers look for what they need, and for each other".to_owned(),
            },
        );
    }
    let rate = outlook
        .report
        .and_then(|report| report.all_reduce_bytes_per_second)
        .map(|rate| format!("; the ranks exchange {:.0} MB/s", rate / 1e6));
    let before = find(&outlook.old.conditions, kind).filter(|_| passed);
    let message = match (rate, before) {
        (None, Some(before)) => before.message.clone(),
        (rate, _) => format!(
            "the workers found what they need, and each other{}",
            rate.unwrap_or_default()
        ),
    };
    Stated::new(kind, true, Reason::RanksStarted.as_str(), message)
}
