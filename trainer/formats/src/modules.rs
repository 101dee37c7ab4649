//! A pickled network as names and tensors.

use crate::error::FormatError;
use crate::pickle::{Id, Pickle, Value};
use crate::views::TensorView;

/// Levels of modules that are followed.
const MAX_DEPTH: usize = 32;
/// Attributes of all modules together, and sixteenths of the bytes of tensors' names. A pickle can use one module in
/// many places, so what the file holds is no limit.
const MAX_PARTS: usize = 1_000_000;
/// What YOLOv5's modules call their activation.
const ACTIVATION: &str = "act";
/// What PyTorch's activations call their number.
const NUMBERS: [&str; 2] = ["negative_slope", "alpha"];

/// The activation that a module has.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundActivation {
    /// The module, named as PyTorch's state dict names it.
    pub module: String,
    /// The name of its class.
    pub class: String,
    /// The slope or the like, where it has one.
    pub number: Option<f64>,
}

/// The tensors of the module `root`, named as PyTorch's state dict names them.
pub fn state_dict(pickle: &Pickle, root: Id) -> Result<Vec<TensorView>, FormatError> {
    walk(pickle, root).map(|(tensors, _)| tensors)
}

/// The tensors of the module `root`, and the activations of YOLOv5's modules in it.
pub fn walk(
    pickle: &Pickle,
    root: Id,
) -> Result<(Vec<TensorView>, Vec<FoundActivation>), FormatError> {
    let mut walk = Walk {
        pickle,
        found: Vec::new(),
        activations: Vec::new(),
        parts: 0,
    };
    walk.module(root, &mut Vec::new())?;
    Ok((walk.found, walk.activations))
}

/// The tensors of a plain dictionary of names and tensors; other values are left out.
pub fn plain_dict(pickle: &Pickle, root: Id) -> Result<Vec<TensorView>, FormatError> {
    let pairs = pickle.pairs(root).unwrap_or_default();
    if pairs.len() > MAX_PARTS {
        return Err(FormatError::Modules(String::new()));
    }
    let views = pairs.iter().filter_map(|(name, value)| {
        let name = pickle.text(*name)?;
        TensorView::of(pickle, *value, name)
    });
    views.collect()
}

struct Walk<'a> {
    pickle: &'a Pickle,
    found: Vec<TensorView>,
    activations: Vec<FoundActivation>,
    parts: usize,
}

impl<'a> Walk<'a> {
    fn module(&mut self, module: Id, path: &mut Vec<&'a str>) -> Result<(), FormatError> {
        self.parts += 1 + self.pickle.pairs(module).map_or(0, <[_]>::len);
        if path.len() > MAX_DEPTH || self.parts > MAX_PARTS {
            return Err(FormatError::Modules(path.join(".")));
        }
        let pickle = self.pickle;
        let parts = ["_parameters", "_buffers", "_modules"].map(|part| pickle.get(module, part));
        if parts.iter().all(Option::is_none) {
            // TorchScript keeps parts and tensors beside the other attributes.
            return self.parts_of(module, path);
        }
        let fleeting = pickle.get(module, "_non_persistent_buffers_set");
        let fleeting = fleeting
            .and_then(|set| pickle.sequence(set))
            .unwrap_or_default();
        let fleeting: Vec<&str> = fleeting
            .iter()
            .filter_map(|name| pickle.text(*name))
            .collect();
        for part in parts.into_iter().flatten() {
            for (name, value) in pickle.pairs(part).unwrap_or_default() {
                if pickle
                    .text(*name)
                    .is_some_and(|name| !fleeting.contains(&name))
                {
                    self.part(*name, *value, path)?;
                }
            }
        }
        Ok(())
    }

    fn parts_of(&mut self, module: Id, path: &mut Vec<&'a str>) -> Result<(), FormatError> {
        for (name, value) in self.pickle.pairs(module).unwrap_or_default() {
            self.part(*name, *value, path)?;
        }
        Ok(())
    }

    fn part(&mut self, name: Id, value: Id, path: &mut Vec<&'a str>) -> Result<(), FormatError> {
        let Some(name) = self.pickle.text(name) else {
            return Ok(());
        };
        if name == ACTIVATION {
            self.activation(value, path)?;
        }
        path.push(name);
        let is_module = self.pickle.arguments(value).is_some();
        if is_module && let Some(view) = TensorView::of(self.pickle, value, &path.join(".")) {
            let view = view?;
            self.parts += 1 + view.name.len() / 16;
            self.found.push(view);
        } else if is_module && self.pickle.pairs(value).is_some() {
            self.module(value, path)?;
        }
        path.pop();
        Ok(())
    }

    /// Takes down what follows the module at `path`.
    fn activation(&mut self, value: Id, path: &[&'a str]) -> Result<(), FormatError> {
        let pickle = self.pickle;
        let Some((_, class)) = pickle.class(value) else {
            return Ok(());
        };
        let number = NUMBERS.iter().find_map(|name| pickle.get(value, name));
        let number = number.and_then(|number| match pickle.value(number) {
            Value::Float(number) => Some(*number),
            Value::Int(number) => Some(*number as f64),
            _ => None,
        });
        let module = path.join(".");
        self.parts += 1 + (module.len() + class.len()) / 16;
        if self.parts > MAX_PARTS {
            return Err(FormatError::Modules(module));
        }
        self.activations.push(FoundActivation {
            module,
            class: class.to_owned(),
            number,
        });
        Ok(())
    }
}
