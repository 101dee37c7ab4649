//! Where blocks get their tensors: one description of a block serves its list of tensors and its use.

use tch::Tensor;

use crate::architecture::{Form, Initial, Role, Slot};
use crate::error::Error;
use crate::state::State;

/// Makes or finds the tensors that blocks ask for.
pub(crate) trait Maker {
    /// What stands for a tensor.
    type Tensor;

    /// Whether normalisations are folded.
    fn form(&self) -> Form;

    /// The tensor of `slot`.
    fn make(&mut self, slot: Slot) -> Result<Self::Tensor, Error>;
}

/// Writes down which tensors there will be.
pub(crate) struct Recorder {
    pub form: Form,
    pub slots: Vec<Slot>,
}

impl Maker for Recorder {
    type Tensor = ();

    fn form(&self) -> Form {
        self.form
    }

    fn make(&mut self, slot: Slot) -> Result<(), Error> {
        self.slots.push(slot);
        Ok(())
    }
}

/// Finds the tensors of a state, by name.
pub(crate) struct Finder<'a> {
    pub form: Form,
    pub state: &'a State,
}

impl Maker for Finder<'_> {
    type Tensor = Tensor;

    fn form(&self) -> Form {
        self.form
    }

    fn make(&mut self, slot: Slot) -> Result<Tensor, Error> {
        match self.state.get(&slot.name) {
            Some(entry) => Ok(entry.tensor.shallow_clone()),
            None => Err(Error::StateMissing { name: slot.name }),
        }
    }
}

/// A place in the state dict, below which a block's tensors have their names.
pub(crate) struct Scope<'a, M> {
    maker: &'a mut M,
    prefix: String,
}

impl<'a, M: Maker> Scope<'a, M> {
    pub(crate) fn new(maker: &'a mut M, prefix: String) -> Self {
        Self { maker, prefix }
    }

    /// The place `name` below this one.
    pub(crate) fn at(&mut self, name: &str) -> Scope<'_, M> {
        Scope {
            prefix: format!("{}.{name}", self.prefix),
            maker: self.maker,
        }
    }

    pub(crate) fn form(&self) -> Form {
        self.maker.form()
    }

    /// The tensor `name` of this place.
    pub(crate) fn tensor(
        &mut self,
        name: &str,
        role: Role,
        shape: Vec<i64>,
        initial: Initial,
    ) -> Result<M::Tensor, Error> {
        self.maker.make(Slot {
            name: format!("{}.{name}", self.prefix),
            role,
            shape,
            initial,
        })
    }
}
