use serde::{Deserialize, Serialize};

use super::{SpecProblem, Training};

/// Where decoded images are kept, so that later epochs need not decode them again. It changes no result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Cache {
    /// In memory.
    #[default]
    Ram,
    /// In a file on a scratch volume of the worker (an emptyDir), never in the data set.
    Disk,
    /// Nowhere. (`off` would be a truth value in YAML.)
    #[serde(alias = "off")]
    None,
}

impl Cache {
    /// The word in a manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ram => "ram",
            Self::Disk => "disk",
            Self::None => "none",
        }
    }
}

impl Training {
    /// `cacheLimit` in bytes; none if it is not set, or not one that [`super::check`] accepts.
    pub fn cache_limit_bytes(&self) -> Option<u64> {
        let text = self.cache_limit.as_deref()?;
        let units = [("Mi", 20), ("Gi", 30), ("Ti", 40)];
        units.into_iter().find_map(|(unit, shift)| {
            let digits = text.strip_suffix(unit)?;
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            let number: u64 = digits.parse().ok()?;
            (plain && digits.len() <= 6 && !digits.starts_with('0')).then_some(number << shift)
        })
    }
}

/// A limit that is none, or one of nothing.
pub(super) fn problems(training: &Training) -> Vec<SpecProblem> {
    let Some(limit) = &training.cache_limit else {
        return Vec::new();
    };
    let mut problems = Vec::new();
    if training.cache_limit_bytes().is_none() {
        problems.push(format!(
            "training.cacheLimit is '{limit}': write a whole number of Mi, Gi or Ti, for example 20Gi"
        ));
    }
    if training.cache == Cache::None {
        problems.push(
            "training.cacheLimit is set, but training.cache is none: remove cacheLimit or choose ram or disk"
                .to_owned(),
        );
    }
    problems.into_iter().map(SpecProblem).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_whole_numbers_of_binary_units() {
        let bytes = |text: &str| {
            Training {
                cache_limit: Some(text.to_owned()),
                ..Training::default()
            }
            .cache_limit_bytes()
        };
        assert_eq!(Some(500 << 20), bytes("500Mi"));
        assert_eq!(Some(20 << 30), bytes("20Gi"));
        assert_eq!(Some(999_999 << 40), bytes("999999Ti"));
        for bad in [
            "",
            "20",
            "20G",
            "1.5Gi",
            "0Gi",
            "-1Gi",
            "+1Gi",
            "Gi",
            "1000000Ti",
            " 1Gi",
            "1gi",
        ] {
            assert_eq!(None, bytes(bad), "{bad}");
        }
    }
}
