//! YOLOv5's files of options as a training job.
//!
//! [`rules`] holds what becomes of each option, in one table; nothing is left out silently.

mod back;
mod rules;

use std::io;
use std::path::{Path, PathBuf};

use contract::exit::FailureReason;
use contract::spec::{SpecProblem, TrainerSpec, check};
use serde_json::{Map, Value, json};
use trainer_data::bounded;

use crate::cli::ConvertArgs;
use crate::durable;
use rules::{FLAGS, HYPERPARAMETERS, Rule};

pub use back::{MODEL_FILE, Options, options_of};

/// Bytes that a file of options may have; YOLOv5's have about 1,500.
const MAX_OPTIONS: u64 = 1 << 20;

/// Why no job can be made.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file is no list of options.
    #[error("{} is not a YAML file of names and values", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Options that cannot be obeyed.
    #[error("{}", .0.join("; "))]
    Refused(Vec<String>),
    /// The options are known, but the job would be refused.
    #[error("the job would be refused: {}", list(.0))]
    Invalid(Vec<SpecProblem>),
    /// A value is of another type than its setting.
    #[error("the options do not make a job")]
    Types(#[source] serde_json::Error),
    /// The job cannot be written as YAML.
    #[error("the job cannot be written as YAML")]
    Yaml(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There is a file already.
    #[error("{} exists: nothing is overwritten; choose another --output or add --force", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The job cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl ConvertError {
    /// The word that decides the exit code.
    pub fn reason(&self) -> FailureReason {
        match self {
            Self::Read { .. }
            | Self::Parse { .. }
            | Self::Refused(_)
            | Self::Invalid(_)
            | Self::Types(_) => FailureReason::InvalidConfig,
            Self::Exists { .. } | Self::Write { .. } => FailureReason::OutputUnwritable,
            Self::Yaml(_) => FailureReason::Internal,
        }
    }
}

fn list(problems: &[SpecProblem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("; ")
}

/// A job in the making.
#[derive(Debug)]
struct Draft {
    name: String,
    spec: Value,
    /// What a user should know.
    notes: Vec<String>,
    /// Where files that options name may lie.
    folder: PathBuf,
}

impl Draft {
    /// Sets the field at the JSON pointer `field`.
    fn set(&mut self, field: &str, value: Value) {
        let mut place = &mut self.spec;
        for part in field.split('/').skip(1) {
            place = &mut place[part];
        }
        *place = value;
    }
}

/// Does what the arguments say; returns the job, or where it was written. What a user should know stands above the job
/// as comments.
pub fn convert(args: &ConvertArgs) -> Result<String, ConvertError> {
    if let Some(path) = &args.output
        && path.exists()
        && !args.force
    {
        return Err(ConvertError::Exists { path: path.clone() });
    }
    let mut options = args
        .opt
        .as_deref()
        .map(read)
        .transpose()?
        .unwrap_or_default();
    let inner = match options.get("hyp") {
        Some(Value::Object(_)) => options.remove("hyp"),
        _ => None,
    };
    let hyperparameters = match (&args.hyp, inner) {
        (Some(path), _) => read(path)?,
        (None, Some(Value::Object(inner))) => inner,
        (None, _) => Map::new(),
    };
    if let Some(data) = &args.data {
        options.insert("data".to_owned(), data.display().to_string().into());
    }
    let draft = Draft {
        name: "yolov5".to_owned(),
        spec: json!({
            "dataset": {"persistentVolumeClaim": {"claimName": args.dataset_claim}},
            "output": {"persistentVolumeClaim": {"claimName": args.output_claim}},
        }),
        notes: Vec::new(),
        folder: args
            .opt
            .as_deref()
            .and_then(Path::parent)
            .map_or_else(PathBuf::new, Path::to_owned),
    };
    let mut draft = apply(draft, &options, &hyperparameters)?;
    if let Some(name) = &args.name {
        draft.name.clone_from(name);
    }
    let text = manifest(&draft)?;
    let Some(path) = &args.output else {
        return Ok(text);
    };
    durable::write(path, text.as_bytes()).map_err(|source| ConvertError::Write {
        path: path.clone(),
        source,
    })?;
    Ok(format!(
        "{} holds the job; read the comments at its top",
        path.display()
    ))
}

fn read(path: &Path) -> Result<Map<String, Value>, ConvertError> {
    let failed = |source| ConvertError::Read {
        path: path.to_owned(),
        source,
    };
    let text = bounded::read_text(path, MAX_OPTIONS).map_err(failed)?;
    serde_saphyr::from_str(&text).map_err(|error| ConvertError::Parse {
        path: path.to_owned(),
        source: Box::new(error),
    })
}

/// Applies the rule of each option. An error tells of all options that cannot be obeyed.
fn apply(
    mut draft: Draft,
    options: &Map<String, Value>,
    hyperparameters: &Map<String, Value>,
) -> Result<Draft, ConvertError> {
    let mut refused = Vec::new();
    for (what, given, rules) in [
        ("--", options, FLAGS),
        ("", hyperparameters, HYPERPARAMETERS),
    ] {
        for (name, value) in given {
            let rule = rules.iter().find(|(known, _)| known == name);
            let done = match rule {
                None => Err("is not an option of YOLOv5 7.0: remove it".to_owned()),
                Some((_, rule)) => apply_one(rule, value, &mut draft, &format!("{what}{name}")),
            };
            if let Err(problem) = done {
                refused.push(format!("{what}{name} is {value}, which {problem}"));
            }
        }
    }
    if refused.is_empty() {
        rules::settle(&mut draft);
        Ok(draft)
    } else {
        Err(ConvertError::Refused(refused))
    }
}

fn apply_one(rule: &Rule, value: &Value, draft: &mut Draft, name: &str) -> Result<(), String> {
    match rule {
        Rule::Field(field) => draft.set(field, value.clone()),
        Rule::Made(make) => make(value, draft)?,
        Rule::Only(defaults, why) => {
            let is_default = |text: &&str| {
                serde_json::from_str::<Value>(text).is_ok_and(|default| same(&default, value))
            };
            if !defaults.iter().any(is_default) {
                return Err((*why).to_owned());
            }
        }
        Rule::Free(why) => {
            let off = matches!(value, Value::Null | Value::Bool(false)) || value == "";
            if !off {
                draft.notes.push(format!("{name} {why}"));
            }
        }
    }
    Ok(())
}

/// Whether both are the same, 1 and 1.0 too.
fn same(a: &Value, b: &Value) -> bool {
    a == b || a.as_f64().is_some_and(|a| b.as_f64() == Some(a))
}

/// The manifest as YAML, once it is known that it would be accepted.
fn manifest(draft: &Draft) -> Result<String, ConvertError> {
    let mut own = draft.spec.clone();
    let workers = own.as_object_mut().and_then(|own| own.remove("workers"));
    let spec: TrainerSpec = serde_json::from_value(own).map_err(ConvertError::Types)?;
    let ranks = workers
        .as_ref()
        .and_then(|workers| workers["gpusPerWorker"].as_u64());
    let problems = check(&spec, ranks.unwrap_or(1).max(1) as u32);
    if !problems.is_empty() {
        return Err(ConvertError::Invalid(problems));
    }
    let manifest = json!({
        "apiVersion": "yolo-operator.dev/v1alpha1",
        "kind": "YoloTrainingJob",
        "metadata": {"name": draft.name},
        "spec": draft.spec,
    });
    let yaml =
        serde_saphyr::to_string(&manifest).map_err(|error| ConvertError::Yaml(Box::new(error)))?;
    let notes = draft
        .notes
        .iter()
        .map(|note| format!("# {}\n", note.replace('\n', " ")));
    Ok(notes.chain([yaml]).collect())
}

#[cfg(test)]
mod tests;
