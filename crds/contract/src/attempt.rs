//! Which try of a job something belongs to.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A try of a job, compared first by `incarnation`, then by `restart`.
///
/// The operator counts incarnations (all pods replaced as a gang); the agents count restarts of the
/// ranks inside living pods. The attempt is in every checkpoint, log line, status and rendezvous key,
/// so that nothing of an earlier try can be taken for the present one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Attempt {
    /// How often the pods of this job were replaced as a gang. Starts at 0.
    pub incarnation: u32,
    /// How often the processes were restarted since, inside the present pods or beside one that was replaced
    /// alone. Starts at 0.
    pub restart: u32,
}

impl Attempt {
    /// The attempt after this one in which all pods are replaced.
    #[must_use]
    pub fn next_incarnation(self) -> Self {
        Self {
            incarnation: self.incarnation + 1,
            restart: 0,
        }
    }

    /// The attempt after this one in the same pods.
    #[must_use]
    pub fn next_restart(self) -> Self {
        Self {
            restart: self.restart + 1,
            ..self
        }
    }

    /// How many restarts, of either kind, lie between `earlier` and this attempt, as far as the two tell.
    pub fn since(self, earlier: Self) -> u32 {
        if self.incarnation <= earlier.incarnation {
            return self.restart.saturating_sub(earlier.restart);
        }
        self.incarnation - earlier.incarnation + self.restart
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.incarnation, self.restart)
    }
}

/// The text is not `INCARNATION.RESTART`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{text}' is not an attempt: write INCARNATION.RESTART, for example 0.0")]
pub struct ParseAttemptError {
    /// What was given.
    pub text: String,
}

impl FromStr for Attempt {
    type Err = ParseAttemptError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once('.').and_then(|(incarnation, restart)| {
            Some(Self {
                incarnation: incarnation.parse().ok()?,
                restart: restart.parse().ok()?,
            })
        });
        parsed.ok_or_else(|| ParseAttemptError {
            text: text.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_incarnation_is_later_than_any_restart_of_the_one_before() {
        let old = Attempt {
            incarnation: 1,
            restart: 7,
        };
        assert!(old.next_incarnation() > old);
        assert_eq!(
            old.next_incarnation(),
            Attempt {
                incarnation: 2,
                restart: 0
            }
        );
    }

    #[test]
    fn restarts_in_place_and_in_new_pods_are_both_counted() {
        let attempt = |incarnation, restart| Attempt {
            incarnation,
            restart,
        };
        assert_eq!(0, attempt(1, 2).since(attempt(1, 2)));
        assert_eq!(2, attempt(1, 2).since(attempt(1, 0)));
        assert_eq!(1, attempt(2, 0).since(attempt(1, 5)));
        assert_eq!(4, attempt(3, 2).since(attempt(1, 5)));
        assert_eq!(0, attempt(0, 0).since(attempt(1, 5)));
        assert_eq!(attempt(1, 6), attempt(1, 5).next_restart());
    }

    #[test]
    fn display_and_parse_are_inverse() {
        let attempt = Attempt {
            incarnation: 3,
            restart: 12,
        };
        assert_eq!("3.12", attempt.to_string());
        assert_eq!(Ok(attempt), attempt.to_string().parse());
        assert!("3".parse::<Attempt>().is_err());
    }
}
