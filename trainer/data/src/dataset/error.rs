use super::reading::may_pass;
use contract::exit::FailureReason;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use trainer_core::data_yaml::DataYamlError;

/// Why a data set cannot be used. The message says what to do; the cause, where there is one, is the
/// error's source.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The folder that should hold the data set does not exist.
    #[error(
        "the data set's folder {} does not exist: check the dataset's claim and subPath, or the path given", root.display()
    )]
    RootMissing {
        /// The folder.
        root: PathBuf,
    },
    /// The data file does not exist.
    #[error(
        "the data file {} does not exist: set dataset.config to the path of the YOLO data file inside the source{found}", path.display()
    )]
    ConfigMissing {
        /// The file.
        path: PathBuf,
        /// The YAML files that are there, as the end of the sentence; may be empty.
        found: String,
    },
    /// The data file cannot be read.
    #[error("cannot read the data file {}", path.display())]
    ConfigUnreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The data file is not YAML, or not a data file.
    #[error("the data file {}:{line} is not valid: it needs train, val and names", path.display())]
    ConfigInvalid {
        /// The file.
        path: PathBuf,
        /// The line of the fault, from 1.
        line: u64,
        /// Why.
        #[source]
        source: Box<serde_saphyr::Error>,
    },
    /// The data file contradicts itself, for example in its number of classes.
    #[error("the data file {} contradicts itself", path.display())]
    ConfigContradicts {
        /// The file.
        path: PathBuf,
        /// How.
        #[source]
        source: DataYamlError,
    },
    /// A path leads out of the data source.
    #[error(
        "{field} is '{value}', which lies outside the data source: write a path relative to {relative_to}, or leave `path` out of the data file"
    )]
    PathOutside {
        /// The key, or the list file and line.
        field: String,
        /// What it says.
        value: String,
        /// What such a path is relative to.
        relative_to: &'static str,
    },
    /// The data file does not name these images at all.
    #[error(
        "the data file names no {split} images: add `{split}:` with a folder or a list of images"
    )]
    NoSplit {
        /// test.
        split: &'static str,
    },
    /// A folder or list that the data file names does not exist.
    #[error(
        "{split} in the data file names '{value}', but {} does not exist: correct {split} or path, relative to the data file's folder", path.display()
    )]
    SplitMissing {
        /// train or val.
        split: &'static str,
        /// What the data file says.
        value: String,
        /// Where that is.
        path: PathBuf,
    },
    /// A folder or list cannot be read.
    #[error("cannot read {} that {split} in the data file names", path.display())]
    SplitUnreadable {
        /// train or val.
        split: &'static str,
        /// The folder or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A COCO annotation file is not JSON, or not one of annotations.
    #[error("the annotation file {} is not valid: it needs images, annotations and categories", path.display())]
    CocoInvalid {
        /// The file.
        path: PathBuf,
        /// Why, with line and column.
        #[source]
        source: serde_json::Error,
    },
    /// A COCO annotation file contradicts itself.
    #[error("the annotation file {file} contradicts itself: {reason}")]
    CocoContradicts {
        /// The file's path inside the data source.
        file: String,
        /// How.
        reason: String,
    },
    /// There are no image files.
    #[error(
        "{split} in the data file leads to no images: {} has no file ending in {extensions}", path.display()
    )]
    NoImages {
        /// train or val.
        split: &'static str,
        /// The first folder or list.
        path: PathBuf,
        /// The endings of image files.
        extensions: String,
    },
    /// There are image files, but none is usable.
    #[error("none of the {skipped} images of {split} can be used; the first is {first}")]
    AllSkipped {
        /// train or val.
        split: &'static str,
        /// How many there are.
        skipped: usize,
        /// The first one and its reason.
        first: String,
    },
    /// No training image has a label.
    #[error(
        "none of the {images} training images has a label: for {image}, {expected} is expected"
    )]
    NoLabels {
        /// How many images there are.
        images: usize,
        /// The first of them.
        image: String,
        /// Where its labels would be.
        expected: String,
    },
    /// Label files have bad rows.
    #[error(transparent)]
    Labels(#[from] LabelProblems),
    /// The volume does not give a file or folder now, which may pass.
    #[error(
        "cannot read {}: look at the volume's server, and at the node's mounts", path.display()
    )]
    ReadFailed {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl DatasetError {
    /// The reason, which says whether trying again can help: it can where the volume failed.
    pub fn reason(&self) -> FailureReason {
        match self {
            Self::ReadFailed { source, .. }
            | Self::ConfigUnreadable { source, .. }
            | Self::SplitUnreadable { source, .. }
                if may_pass(source) =>
            {
                FailureReason::IoFailed
            }
            _ => FailureReason::InvalidDataset,
        }
    }

    /// For `map_err` of a look at `path`.
    pub(super) fn read_failed(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::ReadFailed {
            path: path.to_owned(),
            source,
        }
    }
}

/// How many problems a message spells out.
const SHOWN: usize = 20;

/// All bad rows of all label files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelProblems {
    /// One line of text per problem, `file:line: reason`, in the order of the images.
    pub problems: Vec<String>,
    /// How many files they are in.
    pub files: usize,
}

impl std::error::Error for LabelProblems {}

impl fmt::Display for LabelProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.problems.len();
        write!(
            f,
            "{total} problem{} in {} label file{}, correct or remove these rows:",
            plural(total),
            self.files,
            plural(self.files)
        )?;
        for problem in self.problems.iter().take(SHOWN) {
            write!(f, "\n  {problem}")?;
        }
        if total > SHOWN {
            write!(f, "\n  and {} more", total - SHOWN)?;
        }
        Ok(())
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
