//! Why a model file cannot be used.

use std::error::Error;
use std::fmt;

/// Where a layer stands in a model file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its number over backbone and head, from 0, as `from` counts.
    pub layer: usize,
    /// `backbone` or `head`.
    pub section: &'static str,
    /// Its row in that section, from 1.
    pub row: usize,
    /// Its module as written; empty if the row cannot be read that far.
    pub module: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            layer,
            section,
            row,
            module,
        } = self;
        write!(f, "layer {layer} (row {row} of {section}")?;
        if !module.is_empty() {
            write!(f, ", {module}")?;
        }
        write!(f, ")")
    }
}

/// Why a model file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchitectureError {
    /// It is not YAML, or a key is missing, unknown or of the wrong type.
    #[error(
        "it is not a YOLOv5 model file (nc, depth_multiple, width_multiple, anchors, backbone, head)"
    )]
    Yaml(#[source] Box<dyn Error + Send + Sync>),
    /// A key's value cannot be obeyed.
    #[error("{key} {problem}")]
    Key {
        /// The key.
        key: &'static str,
        /// What is wrong with it and what to write instead.
        problem: String,
    },
    /// A layer cannot be built.
    #[error("{place}: {problem}")]
    Layer {
        /// Which.
        place: Place,
        /// What is wrong with it and what to write instead.
        problem: String,
    },
}

impl ArchitectureError {
    pub(crate) fn key(key: &'static str, problem: impl Into<String>) -> Self {
        Self::Key {
            key,
            problem: problem.into(),
        }
    }
}
