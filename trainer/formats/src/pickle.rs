//! Python's pickles as data.
//!
//! A pickle is a program for a small stack machine that can call any Python function. Ours calls none: names of
//! functions and classes that files of weights are known to use become inert [`Value::Object`]s, any other name
//! ends the reading with an error.
//!
//! Values live in one list and refer to each other by [`Id`], since a pickle may share or even nest a value in
//! itself. The number of values and of their references is limited, so memory is bounded by the file's size.

mod globals;
mod machine;
mod opcode;
mod writer;

pub use globals::is_known;
pub use machine::parse;
pub use writer::{Py, write};

use serde_json::Value as Json;

/// Values and references between values that a pickle may have; YOLOv5's largest file has about 100,000.
pub(crate) const MAX_VALUES: usize = 1_000_000;
/// Levels of nesting that are followed when a value is turned into JSON.
const MAX_DEPTH: usize = 32;
/// Numbers and words that one value may become in JSON.
const MAX_JSON: usize = 100_000;

/// Why a pickle cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PickleError {
    /// It ends too early.
    #[error(
        "it ends in the middle of an instruction (byte {at}): the file was cut off; copy it again"
    )]
    Truncated {
        /// Offset in the pickle.
        at: usize,
    },
    /// An instruction is not one of Python's, or not one that such files use.
    #[error("it has the unknown instruction 0x{code:02x} at byte {at}")]
    Opcode {
        /// Offset in the pickle.
        at: usize,
        /// The instruction.
        code: u8,
    },
    /// An instruction does not fit what came before it.
    #[error("the instruction at byte {at} {problem}")]
    Invalid {
        /// Offset in the pickle.
        at: usize,
        /// What does not fit.
        problem: &'static str,
    },
    /// It names something that files of weights do not need.
    #[error(
        "it names {module}.{name}, which files of weights do not need and which might do harm in Python: nothing of it was run; do not load this file elsewhere unless you trust its source"
    )]
    Forbidden {
        /// The Python module.
        module: String,
        /// What of it.
        name: String,
    },
    /// It makes more values than any file of weights.
    #[error("it makes more than {MAX_VALUES} values")]
    TooLarge,
}

/// A value of a [`Pickle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Id(u32);

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A list, a tuple or a set.
    Sequence(Vec<Id>),
    /// A dictionary, ordered or not.
    Dict(Vec<(Id, Id)>),
    /// The name of a class or function.
    Global {
        /// Its Python module.
        module: String,
        /// Its name there.
        name: String,
    },
    /// What a class or function would have made.
    Object(Object),
    /// Something outside the pickle.
    Persistent(Id),
}

/// What a class or function would have made of its arguments.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// The [`Value::Global`].
    pub class: Id,
    /// The arguments, a [`Value::Sequence`].
    pub arguments: Id,
    /// What its attributes were set to, a [`Value::Dict`] as a rule.
    pub state: Option<Id>,
}

/// All values of a pickle.
#[derive(Clone, Debug, PartialEq)]
pub struct Pickle {
    values: Vec<Value>,
    root: Id,
}

impl Pickle {
    /// The value that was pickled.
    pub fn root(&self) -> Id {
        self.root
    }

    /// What `id` is.
    pub fn value(&self, id: Id) -> &Value {
        &self.values[id.0 as usize]
    }

    /// The value of a dictionary's `key`, or of an object's attribute.
    pub fn get(&self, id: Id, key: &str) -> Option<Id> {
        let pairs = self.pairs(id)?;
        let found = pairs
            .iter()
            .rev()
            .find(|(name, _)| self.text(*name) == Some(key));
        found.map(|(_, value)| *value)
    }

    /// Keys and values of a dictionary, or names and values of an object's attributes.
    pub fn pairs(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.value(id) {
            Value::Dict(pairs) => Some(pairs),
            Value::Object(object) => match self.value(object.state?) {
                Value::Dict(pairs) => Some(pairs),
                _ => None,
            },
            _ => None,
        }
    }

    /// The text, if it is one.
    pub fn text(&self, id: Id) -> Option<&str> {
        match self.value(id) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The whole number, if it is one.
    pub fn int(&self, id: Id) -> Option<i64> {
        match self.value(id) {
            Value::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// The elements of a list, tuple or set.
    pub fn sequence(&self, id: Id) -> Option<&[Id]> {
        match self.value(id) {
            Value::Sequence(elements) => Some(elements),
            _ => None,
        }
    }

    /// Whether it is `None`.
    pub fn is_none(&self, id: Id) -> bool {
        *self.value(id) == Value::None
    }

    /// Module and name of a global, or of an object's class or function.
    pub fn class(&self, id: Id) -> Option<(&str, &str)> {
        match self.value(id) {
            Value::Global { module, name } => Some((module, name)),
            Value::Object(Object { class, .. }) => match self.value(*class) {
                Value::Global { module, name } => Some((module, name)),
                _ => None,
            },
            _ => None,
        }
    }

    /// The arguments that an object was made of.
    pub fn arguments(&self, id: Id) -> Option<&[Id]> {
        match self.value(id) {
            Value::Object(object) => self.sequence(object.arguments),
            _ => None,
        }
    }

    /// A value of plain dictionaries, lists, texts and numbers as JSON; `None` if it is anything else, nested
    /// too deeply or too large.
    pub fn to_json(&self, id: Id) -> Option<Json> {
        let mut left = MAX_JSON;
        self.json(id, MAX_DEPTH, &mut left)
    }

    fn json(&self, id: Id, depth: usize, left: &mut usize) -> Option<Json> {
        *left = left.checked_sub(1)?;
        let depth = depth.checked_sub(1)?;
        Some(match self.value(id) {
            Value::None => Json::Null,
            Value::Bool(value) => Json::from(*value),
            Value::Int(number) => Json::from(*number),
            Value::Float(number) => Json::from(*number),
            Value::Text(text) => {
                *left = left.checked_sub(text.len() / 16)?;
                Json::from(text.as_str())
            }
            Value::Sequence(elements) => {
                let elements = elements
                    .iter()
                    .map(|element| self.json(*element, depth, left));
                Json::Array(elements.collect::<Option<_>>()?)
            }
            Value::Dict(pairs) => {
                let mut object = serde_json::Map::new();
                for (key, value) in pairs {
                    let key = match self.value(*key) {
                        Value::Text(text) => {
                            *left = left.checked_sub(text.len() / 16)?;
                            text.clone()
                        }
                        Value::Int(number) => number.to_string(),
                        _ => return None,
                    };
                    object.insert(key, self.json(*value, depth, left)?);
                }
                Json::Object(object)
            }
            Value::Bytes(_) | Value::Global { .. } | Value::Object(_) | Value::Persistent(_) => {
                return None;
            }
        })
    }
}

#[cfg(test)]
mod tests;
