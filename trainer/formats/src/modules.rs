//! A pickled network as names and tensors.

use crate::error::FormatError;
use crate::pickle::{Id, Pickle};
use crate::views::TensorView;

/// Levels of modules that are followed.
const MAX_DEPTH: usize = 32;
/// Attributes of all modules together, and sixteenths of the bytes of tensors' names. A pickle can use one module in
/// many places, so what the file holds is no limit.
const MAX_PARTS: usize = 1_000_000;

/// The tensors of the module `root`, named as PyTorch's state dict names them.
pub fn state_dict(pickle: &Pickle, root: Id) -> Result<Vec<TensorView>, FormatError> {
    let mut walk = Walk {
        pickle,
        found: Vec::new(),
        parts: 0,
    };
    walk.module(root, &mut Vec::new())?;
    Ok(walk.found)
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
}
