//! That the operator uses every right it has, and wants none that it lacks. Its name makes it the last test: it looks at
//! what the operator asked for in all the others.

use std::time::Duration;

use tests::rights::{Right, asked, granted, latest_agent};
use tests::until;

/// Rights that no request of these tests can use, and why.
fn excused(right: &Right) -> Option<&'static str> {
    match (right.resource.as_str(), right.verb.as_str()) {
        ("yolotrainingjobs/finalizers", "update") => {
            Some("asked for by an admission plugin that only some clusters use, not by a request")
        }
        ("priorityclasses", "get") => {
            Some("for jobs in queues of Kueue: make test-neighbours looks at it")
        }
        _ => None,
    }
}

#[test]
fn every_right_is_used_and_none_is_missing() {
    let roles = granted();
    assert!(roles.len() > 20, "only {} rights were found", roles.len());
    let unused = || {
        let (allowed, _) = asked();
        let unused = roles.difference(&allowed);
        let unused: Vec<_> = unused.filter(|right| excused(right).is_none()).collect();
        let words: Vec<_> = unused.iter().map(ToString::to_string).collect();
        words.join(", ")
    };
    // The log lags behind by a second.
    until(
        "every right to be used (by all tests before this one)",
        Duration::from_secs(5),
        || match unused() {
            words if words.is_empty() => Ok(()),
            words => Err(format!("granted and never used: {words}")),
        },
    );
    // An API server that has just begun knows no roles yet, and refuses what it allows a second later.
    let (allowed, forbidden) = asked();
    let missing = forbidden.difference(&allowed);
    let words: Vec<_> = missing.map(ToString::to_string).collect();
    assert!(words.is_empty(), "refused by RBAC: {}", words.join(", "));
}

#[test]
fn no_secret_is_ever_read() {
    let (allowed, forbidden) = asked();
    let secrets = allowed.union(&forbidden);
    let secrets: Vec<_> = secrets
        .filter(|right| right.resource == "secrets")
        .collect();
    assert!(!secrets.is_empty(), "no job of several workers has run");
    for right in secrets {
        assert_eq!("create", right.verb);
    }
}

#[test]
fn requests_say_whose_they_are() {
    let agent = latest_agent();
    assert!(agent.starts_with("yolo-operator/"), "{agent}");
}
