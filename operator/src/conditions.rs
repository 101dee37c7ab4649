//! Merges conditions: transition times and observed generations.

use crds::conditions::ConditionType;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// A condition as a pure step states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stated {
    /// Its type.
    pub kind: ConditionType,
    /// Whether it holds.
    pub holds: bool,
    /// The reason in one word.
    pub reason: String,
    /// The reason in a sentence.
    pub message: String,
}

impl Stated {
    /// A condition with the given words.
    pub fn new(
        kind: ConditionType,
        holds: bool,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            holds,
            reason: reason.into(),
            message: message.into(),
        }
    }
}

/// The conditions of the new status. A transition time changes only with the status it belongs to;
/// conditions of types that are not stated are kept.
pub fn merge(
    old: &[Condition],
    stated: &[Stated],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let mut merged: Vec<Condition> = stated
        .iter()
        .map(|new| {
            let status = if new.holds { "True" } else { "False" };
            let since = find(old, new.kind)
                .filter(|before| before.status == status)
                .map_or(Time(now), |before| before.last_transition_time.clone());
            Condition {
                type_: new.kind.as_str().to_owned(),
                status: status.to_owned(),
                reason: new.reason.clone(),
                message: new.message.clone(),
                observed_generation: generation,
                last_transition_time: since,
            }
        })
        .collect();
    let others = old
        .iter()
        .filter(|before| stated.iter().all(|new| new.kind.as_str() != before.type_));
    merged.extend(others.cloned());
    merged
}

/// The condition of a type.
pub fn find(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions
        .iter()
        .find(|condition| condition.type_ == kind.as_str())
}

/// Whether the condition of a type is True.
pub fn holds(conditions: &[Condition], kind: ConditionType) -> bool {
    find(conditions, kind).is_some_and(|condition| condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    #[test]
    fn the_transition_time_stays_until_the_status_changes() {
        let say = |holds, reason: &str| Stated::new(ConditionType::Running, holds, reason, "");
        let first = merge(&[], &[say(false, "A")], Some(1), at(1));
        let second = merge(&first, &[say(false, "B")], Some(2), at(2));
        assert_eq!(at(1), second[0].last_transition_time.0);
        assert_eq!(
            ("B", Some(2)),
            (second[0].reason.as_str(), second[0].observed_generation)
        );
        let third = merge(&second, &[say(true, "B")], Some(2), at(3));
        assert_eq!(at(3), third[0].last_transition_time.0);
        assert!(holds(&third, ConditionType::Running));
    }

    #[test]
    fn conditions_of_others_are_kept() {
        let foreign = Condition {
            type_: "Audited".to_owned(),
            status: "True".to_owned(),
            reason: "Ok".to_owned(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: Time(at(0)),
        };
        let stated = [Stated::new(ConditionType::Failed, false, "NotFinished", "")];
        let merged = merge(std::slice::from_ref(&foreign), &stated, None, at(1));
        assert_eq!(
            vec!["Failed", "Audited"],
            merged.iter().map(|c| c.type_.as_str()).collect::<Vec<_>>()
        );
        assert_eq!(foreign, merged[1]);
    }
}
