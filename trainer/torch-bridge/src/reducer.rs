//! Averages gradients over the ranks while the backward pass still runs.

use std::cell::Cell;
use std::rc::Rc;

use cxx::UniquePtr;
use tch::Tensor;

use crate::error::{Collective, Error, Fault};
use crate::ffi;
use crate::group::{ProcessGroup, check_usable};
use crate::tensors::list;

/// What gradients are sent as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// As 16-bit floats: half the bytes, 11 bits of precision, overflow above 65504.
    Fp16,
}

/// How gradients are put together and sent.
#[derive(Debug, Clone, Copy)]
pub struct ReducerOptions {
    /// Bytes of gradients sent as one message, from the second message of a backward pass on.
    pub bucket_cap_bytes: usize,
    /// Bytes of the first message, smaller so that sending begins early.
    pub first_bucket_bytes: usize,
    /// Makes each gradient a view into its message: saves a copy and one gradient's worth of memory. Gradients
    /// must then be zeroed in place ([`foreach_zero`](crate::optim::foreach_zero)), never detached or replaced.
    pub gradient_as_bucket_view: bool,
    /// Searches the graph for parameters without a gradient before each backward pass; without it, such a
    /// parameter makes the next [`Reducer::prepare_for_backward`] fail. Buckets are then never rebuilt.
    pub find_unused_parameters: bool,
    /// What gradients are sent as.
    pub compression: Compression,
}

impl Default for ReducerOptions {
    /// PyTorch's: 25 MiB, first 1 MiB, copies, no search, no compression.
    fn default() -> Self {
        Self {
            bucket_cap_bytes: 25 << 20,
            first_bucket_bytes: 1 << 20,
            gradient_as_bucket_view: false,
            find_unused_parameters: false,
            compression: Compression::None,
        }
    }
}

/// Asks all ranks whether they hold parameters of the same number, shapes and kinds. Values are not compared.
///
/// A difference fails on every rank that differs from rank 0.
pub fn verify_params(group: &mut ProcessGroup, params: &[Tensor]) -> Result<(), Error> {
    group.verify_params(params)
}

/// libtorch's gradient reducer, the core of PyTorch's `DistributedDataParallel`.
///
/// Per step: [`prepare_for_forward`](Self::prepare_for_forward), [`rebuild_buckets`](Self::rebuild_buckets), the
/// forward pass and loss, [`prepare_for_backward`](Self::prepare_for_backward), [`backward`](Self::backward).
/// Afterwards every parameter's gradient is the mean over the ranks, the same bytes on each. To accumulate
/// locally, leave out `prepare_for_backward`: gradients then add up, and the next backward pass that is prepared
/// averages the sum.
///
/// The first pass sends all gradients as one message; [`rebuild_buckets`](Self::rebuild_buckets) before the second
/// one cuts it into messages in the order in which gradients became ready. Summation order, and so the last bit,
/// can change there: for repeatable runs, do one pass and throw its gradients away first.
///
/// All ranks must do the same in the same order, other collectives of the group included. Every rank takes part
/// in each prepared backward pass and each parameter must get a gradient (see
/// [`ReducerOptions::find_unused_parameters`]).
///
/// A reducer holds handles to the parameters and to the group's connections, so the three may be dropped in any
/// order; what was hooked into the parameters goes with the reducer.
pub struct Reducer {
    inner: UniquePtr<ffi::Reducer>,
    /// Shared with the group: a failure here leaves it unusable.
    broken: Rc<Cell<Option<Collective>>>,
}

impl Reducer {
    /// Hooks into the gradients of `params`, pairs of a name for messages and a leaf tensor that requires a gradient.
    ///
    /// The order must be the same on all ranks ([`verify_params`] helps). Frozen parameters must be left out.
    pub fn new(
        group: &ProcessGroup,
        params: &[(String, Tensor)],
        options: ReducerOptions,
    ) -> Result<Self, Error> {
        let broken = group.broken();
        check_usable(&broken)?;
        let ReducerOptions {
            bucket_cap_bytes,
            first_bucket_bytes,
            gradient_as_bucket_view,
            find_unused_parameters,
            compression,
        } = options;
        let settings = ffi::ReducerSettings {
            // When buckets will be rebuilt in order of arrival anyway, all parameters begin in one.
            initial_limits: if find_unused_parameters {
                vec![first_bucket_bytes, bucket_cap_bytes]
            } else {
                vec![i64::MAX as usize]
            },
            bucket_cap_bytes: bucket_cap_bytes as i64,
            first_bucket_bytes: first_bucket_bytes as i64,
            find_unused_parameters,
            gradient_as_bucket_view,
            compress_fp16: compression == Compression::Fp16,
        };
        let failed = |source| Error::CreateReducer {
            params: params.len(),
            source,
        };
        if params.is_empty() {
            return Err(failed(Fault::Other("there are no parameters".to_owned())));
        }
        if let Some((name, _)) = params.iter().find(|(_, tensor)| !tensor.requires_grad()) {
            return Err(failed(Fault::Other(format!(
                "{name} does not require a gradient"
            ))));
        }
        let names: Vec<String> = params.iter().map(|(name, _)| name.clone()).collect();
        let tensors: Vec<&Tensor> = params.iter().map(|(_, tensor)| tensor).collect();
        let inner = ffi::new_reducer(&group.inner, &list(&tensors), &names, &settings)
            .map_err(|exception| failed(exception.into()))?;
        Ok(Self { inner, broken })
    }

    /// Begins a step. Call it before every forward pass whose gradients will be averaged.
    pub fn prepare_for_forward(&mut self) -> Result<(), Error> {
        check_usable(&self.broken)?;
        self.inner
            .prepare_for_forward()
            .map_err(|exception| Error::PrepareForward(exception.into()))
    }

    /// Rebuilds the buckets in order of arrival, once, after the first averaged backward pass; returns whether it
    /// did. Takes a broadcast from rank 0, so that all ranks agree.
    pub fn rebuild_buckets(&mut self) -> Result<bool, Error> {
        check_usable(&self.broken)?;
        self.inner.rebuild_buckets().map_err(|exception| {
            self.broken.set(Some(Collective::Broadcast));
            Error::RebuildBuckets(exception.into())
        })
    }

    /// Makes the next backward pass average gradients over the ranks.
    ///
    /// `outputs` is what the backward pass will start from; it is looked at only under
    /// [`ReducerOptions::find_unused_parameters`] and is `&[]` otherwise.
    pub fn prepare_for_backward(&mut self, outputs: &[Tensor]) -> Result<(), Error> {
        check_usable(&self.broken)?;
        self.inner
            .prepare_for_backward(&list(outputs))
            .map_err(|exception| Error::PrepareBackward(exception.into()))
    }

    /// Computes the gradients of `loss`, a scalar, and averages them if the pass was prepared.
    ///
    /// The same as tch's `backward`, with errors that tell a lost peer from a bad graph. A failure leaves the group
    /// and this reducer unusable.
    pub fn backward(&mut self, loss: &Tensor) -> Result<(), Error> {
        check_usable(&self.broken)?;
        loss.f_backward().map_err(|error| {
            self.broken.set(Some(Collective::AllReduce));
            Error::Backward(Fault::from(&error))
        })
    }

    /// How many messages a backward pass sends now.
    pub fn bucket_count(&self) -> Result<usize, Error> {
        self.inner
            .bucket_count()
            .map_err(|exception| Error::RebuildBuckets(exception.into()))
    }
}

impl std::fmt::Debug for Reducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reducer").finish_non_exhaustive()
    }
}
