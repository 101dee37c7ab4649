//! The tensors of a network under YOLOv5's state-dict names.

use std::collections::{BTreeMap, HashMap};

use tch::{Device, Kind, TchError, Tensor};

use crate::architecture::NORM_EPS;
use crate::architecture::Slot;
use crate::error::Error;
use crate::init;
use crate::options::{Layout, NetworkOptions};

pub use crate::architecture::Role;

/// Whether parameters collect gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gradients {
    Collected,
    Refused,
}

/// One tensor with its name.
#[derive(Debug)]
pub struct Entry {
    /// State-dict name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Its values. The network reads this very memory.
    pub tensor: Tensor,
}

/// All tensors of a network, in YOLOv5's order.
///
/// Running means and variances of all layers are views of one flat tensor, and so are the counters,
/// so that ranks can share either with one broadcast.
#[derive(Debug)]
pub struct State {
    entries: Vec<Entry>,
    by_name: HashMap<String, usize>,
    statistics: Tensor,
    counters: Tensor,
}

impl State {
    /// Tensors for `slots`: 0, but for the anchors.
    pub(crate) fn blank(
        slots: &[Slot],
        options: &NetworkOptions,
        gradients: Gradients,
    ) -> Result<Self, Error> {
        let mut allocator = Allocator::new(slots, options, gradients)?;
        let entries = slots
            .iter()
            .map(|slot| {
                let (name, role) = (slot.name.clone(), slot.role);
                Ok(Entry {
                    tensor: allocator.tensor(slot)?,
                    name,
                    role,
                })
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let by_name = entries
            .iter()
            .enumerate()
            .map(|(at, entry)| (entry.name.clone(), at))
            .collect();
        let Allocator {
            statistics,
            counters,
            ..
        } = allocator;
        let mut state = Self {
            entries,
            by_name,
            statistics,
            counters,
        };
        let anchors = Tensor::from_slice(&options.architecture.anchors_in_cells());
        for entry in state
            .entries
            .iter_mut()
            .filter(|entry| entry.role == Role::Anchors)
        {
            copy_into(entry, &anchors)?;
        }
        Ok(state)
    }

    /// Gives the tensors of a blank state, made for the same `slots`, their initial values.
    pub(crate) fn initialise(&mut self, slots: &[Slot], seed: u64) -> Result<(), Error> {
        for (entry, slot) in self.entries.iter_mut().zip(slots) {
            if let Some(values) = init::values(slot, seed) {
                copy_into(entry, &Tensor::from_slice(&values))?;
            }
        }
        Ok(())
    }

    /// All entries, in YOLOv5's order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry called `name`.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.by_name.get(name).map(|at| &self.entries[*at])
    }

    /// The entries that gradients change, in order.
    pub fn parameters(&self) -> impl Iterator<Item = &Entry> {
        self.entries
            .iter()
            .filter(|entry| entry.role.is_parameter())
    }

    /// The parameters that are not frozen, in order.
    pub fn trained(&self) -> impl Iterator<Item = &Entry> {
        self.parameters()
            .filter(|entry| entry.tensor.requires_grad())
    }

    /// Keeps the parameters of some layers as they are: they collect no gradients any more. Running
    /// statistics go on, as in YOLOv5.
    pub fn freeze(&mut self, layers: &[u32]) -> Result<(), Error> {
        let in_layers = |name: &str| {
            let mut parts = name.split('.').skip(1);
            parts
                .next()
                .and_then(|layer| layer.parse().ok())
                .is_some_and(|layer| layers.contains(&layer))
        };
        for entry in &mut self.entries {
            if entry.role.is_parameter() && in_layers(&entry.name) {
                let frozen = entry.tensor.f_set_requires_grad(false);
                entry.tensor = frozen.map_err(|source| Error::Copy {
                    name: entry.name.clone(),
                    source,
                })?;
            }
        }
        Ok(())
    }

    /// Number of trained numbers.
    pub fn parameter_count(&self) -> u64 {
        self.parameters()
            .map(|entry| entry.tensor.numel() as u64)
            .sum()
    }

    /// Handles of the parameters, in order; they share memory and gradients with the network.
    pub fn parameter_tensors(&self) -> Vec<Tensor> {
        self.parameters()
            .map(|entry| entry.tensor.shallow_clone())
            .collect()
    }

    /// The names of the parameters, in order.
    pub fn parameter_names(&self) -> Vec<String> {
        self.parameters().map(|entry| entry.name.clone()).collect()
    }

    /// The running means and variances of all layers as one flat tensor, which the entries view:
    /// changing it in place changes them. Empty in a fused network.
    pub fn statistics(&self) -> &Tensor {
        &self.statistics
    }

    /// The counters of all layers as one flat tensor of 64-bit integers, which the entries view.
    pub fn counters(&self) -> &Tensor {
        &self.counters
    }

    /// Copies of all tensors by name, in CPU memory, row by row whatever the layout here. They share
    /// nothing with the network, so they may be written while training goes on.
    pub fn export(&self) -> Result<Vec<(String, Tensor)>, Error> {
        self.entries
            .iter()
            .map(|entry| Ok((entry.name.clone(), cpu_copy(&entry.name, &entry.tensor)?)))
            .collect()
    }

    /// Takes over the values of `tensors`, converting number format, device and layout.
    ///
    /// There must be exactly this network's names with its shapes, and its anchors. On an error
    /// about names, shapes or anchors nothing has changed.
    pub fn import(&mut self, tensors: &BTreeMap<String, Tensor>) -> Result<(), Error> {
        for name in tensors.keys() {
            if !self.by_name.contains_key(name) {
                return Err(Error::StateUnexpected { name: name.clone() });
            }
        }
        for entry in &self.entries {
            check_entry(entry, tensors.get(&entry.name))?;
        }
        for entry in &mut self.entries {
            copy_into(entry, &tensors[&entry.name])?;
        }
        Ok(())
    }

    /// Takes over those of `tensors` that have the name and the shape of a tensor of this network; the others stay
    /// as they are. Anchors belong to the architecture and never change.
    pub fn transfer(&mut self, tensors: &BTreeMap<String, Tensor>) -> Result<Transfer, Error> {
        let mut transfer = Transfer {
            items: self.entries.len(),
            ..Transfer::default()
        };
        for entry in &mut self.entries {
            let name = entry.name.clone();
            match tensors.get(&name) {
                None => transfer.missing.push(name),
                Some(given) if given.size() != entry.tensor.size() => {
                    let (expected, found) = (entry.tensor.size(), given.size());
                    transfer.other_shape.push((name, expected, found));
                }
                Some(given) if entry.role == Role::Anchors => {
                    if are_anchors(entry, given)? {
                        transfer.taken += 1;
                    } else {
                        transfer.other_anchors = Some(name);
                    }
                }
                Some(given) => {
                    copy_into(entry, given)?;
                    transfer.taken += 1;
                }
            }
        }
        Ok(transfer)
    }

    /// Takes over the values of a network of the same architecture.
    pub(crate) fn copy_from(&mut self, other: &Self) -> Result<(), Error> {
        for (entry, source) in self.entries.iter_mut().zip(&other.entries) {
            copy_into(entry, &source.tensor)?;
        }
        Ok(())
    }

    /// Whether both have the same names and exactly the same values.
    pub fn same_as(&self, other: &Self) -> bool {
        self.entries.len() == other.entries.len()
            && self.entries.iter().zip(&other.entries).all(|(a, b)| {
                a.name == b.name && a.tensor.f_equal(&b.tensor).is_ok_and(|equal| equal)
            })
    }
}

/// What [`State::transfer`] took and what it did not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// Tensors of the network.
    pub items: usize,
    /// Those that were taken over, or had the same anchors already.
    pub taken: usize,
    /// Name, shape in the network and shape that was given.
    pub other_shape: Vec<(String, Vec<i64>, Vec<i64>)>,
    /// Names that were not given.
    pub missing: Vec<String>,
    /// The anchors' name, if the network keeps its own.
    pub other_anchors: Option<String>,
}

/// Gives networks whose normalisations were folded into kernels and biases the names of a trainable network: each
/// bias becomes the offset of a normalisation that changes nothing else.
///
/// With the running mean 0 and the variance 1, normalising divides by √(1 + ε), so that is the scale.
pub fn unfold(tensors: &mut BTreeMap<String, Tensor>) -> Result<(), Error> {
    let places: Vec<String> = tensors
        .keys()
        .filter_map(|name| name.strip_suffix("conv.bias"))
        .filter(|place| !tensors.contains_key(&format!("{place}bn.weight")))
        .map(str::to_owned)
        .collect();
    for place in places {
        let Some(bias) = tensors.remove(&format!("{place}conv.bias")) else {
            continue;
        };
        let fail = |source| Error::Copy {
            name: format!("{place}bn"),
            source,
        };
        let full = |value: f64| bias.f_full_like(value).map_err(fail);
        let parts = [
            ("weight", full((1.0 + NORM_EPS).sqrt())?),
            ("running_mean", full(0.0)?),
            ("running_var", full(1.0)?),
            ("num_batches_tracked", Tensor::from(0_i64)),
            ("bias", bias),
        ];
        for (part, tensor) in parts {
            tensors.insert(format!("{place}bn.{part}"), tensor);
        }
    }
    Ok(())
}

/// Whether the anchors of `entry` are `given`, which may have been rounded to half precision.
fn are_anchors(entry: &Entry, given: &Tensor) -> Result<bool, Error> {
    let compare = || {
        let given = given.f_to_device(entry.tensor.device())?;
        let given = given.f_to_kind(entry.tensor.kind())?;
        given.f_allclose(&entry.tensor, 1e-3, 0.0, false)
    };
    compare().map_err(|source| Error::Copy {
        name: entry.name.clone(),
        source,
    })
}

/// Makes the tensors of a network, one slot after the other.
struct Allocator<'a> {
    options: &'a NetworkOptions,
    gradients: Gradients,
    statistics: Tensor,
    counters: Tensor,
    next_statistic: i64,
    next_counter: i64,
}

impl<'a> Allocator<'a> {
    fn new(
        slots: &[Slot],
        options: &'a NetworkOptions,
        gradients: Gradients,
    ) -> Result<Self, Error> {
        let flat = |name: &str, role, kind| {
            let of_role = slots.iter().filter(|slot| slot.role == role);
            let shape = [of_role.map(|slot| slot.len() as i64).sum()];
            Tensor::f_zeros(shape, (kind, options.device)).map_err(|source| Error::Allocate {
                name: name.to_owned(),
                shape: shape.into(),
                source,
            })
        };
        Ok(Self {
            options,
            gradients,
            statistics: flat("all running statistics", Role::Statistic, options.kind)?,
            counters: flat("all counters", Role::Counter, Kind::Int64)?,
            next_statistic: 0,
            next_counter: 0,
        })
    }

    fn tensor(&mut self, slot: &Slot) -> Result<Tensor, Error> {
        let fail = |source| Error::Allocate {
            name: slot.name.clone(),
            shape: slot.shape.clone(),
            source,
        };
        let tensor = match slot.role {
            Role::Statistic => view(&self.statistics, &mut self.next_statistic, slot),
            Role::Counter => view(&self.counters, &mut self.next_counter, slot),
            _ => Tensor::f_zeros(&*slot.shape, (self.options.kind, self.options.device)),
        };
        let mut tensor = tensor.map_err(fail)?;
        let is_kernel = slot.role == Role::Weight && slot.shape.len() == 4;
        if self.options.layout == Layout::ChannelsLast && is_kernel {
            tensor = torch_bridge::contiguous_channels_last(&tensor).map_err(|source| {
                Error::Layout {
                    name: slot.name.clone(),
                    source,
                }
            })?;
        }
        if self.gradients == Gradients::Collected && slot.role.is_parameter() {
            tensor = tensor.f_set_requires_grad(true).map_err(fail)?;
        }
        Ok(tensor)
    }
}

/// The next part of `flat`, in the shape of `slot`.
fn view(flat: &Tensor, next: &mut i64, slot: &Slot) -> Result<Tensor, TchError> {
    let start = *next;
    *next += slot.len() as i64;
    flat.f_narrow(0, start, slot.len() as i64)?
        .f_view(&*slot.shape)
}

/// Whether `given` may become the value of `entry`.
fn check_entry(entry: &Entry, given: Option<&Tensor>) -> Result<(), Error> {
    let Entry { name, role, tensor } = entry;
    let Some(given) = given else {
        return Err(Error::StateMissing { name: name.clone() });
    };
    if given.size() != tensor.size() {
        return Err(Error::StateShape {
            name: name.clone(),
            expected: tensor.size(),
            found: given.size(),
        });
    }
    if *role == Role::Anchors {
        let same = given
            .f_to_device(tensor.device())
            .and_then(|given| given.f_to_kind(tensor.kind())?.f_equal(tensor))
            .map_err(|source| Error::Copy {
                name: name.clone(),
                source,
            })?;
        if !same {
            return Err(Error::StateAnchors { name: name.clone() });
        }
    }
    Ok(())
}

/// Copies values into the memory of `entry`; `values` may be flat.
fn copy_into(entry: &mut Entry, values: &Tensor) -> Result<(), Error> {
    let fail = |source| Error::Copy {
        name: entry.name.clone(),
        source,
    };
    let values = values.f_reshape(entry.tensor.size()).map_err(fail)?;
    tch::no_grad(|| entry.tensor.f_copy_(&values)).map_err(|source| Error::Copy {
        name: entry.name.clone(),
        source,
    })
}

/// A copy in CPU memory, row by row.
pub(crate) fn cpu_copy(name: &str, tensor: &Tensor) -> Result<Tensor, Error> {
    tch::no_grad(|| {
        let mut copy = Tensor::f_empty(tensor.size(), (tensor.kind(), Device::Cpu))?;
        copy.f_copy_(tensor)?;
        Ok(copy)
    })
    .map_err(|source| Error::Copy {
        name: name.to_owned(),
        source,
    })
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
