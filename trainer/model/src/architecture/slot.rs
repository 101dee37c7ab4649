//! The tensors of a network before they exist.

/// What a tensor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A trained offset. Never decayed.
    Bias,
    /// A trained kernel or matrix; the only role with weight decay.
    Weight,
    /// A trained scale of a normalisation. Never decayed.
    Norm,
    /// A running mean or variance.
    Statistic,
    /// How many batches a normalisation has seen (64-bit integer).
    Counter,
    /// The anchors in grid cells.
    Anchors,
}

impl Role {
    /// Whether gradients change it.
    pub fn is_parameter(self) -> bool {
        matches!(self, Self::Bias | Self::Weight | Self::Norm)
    }
}

/// How a tensor begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initial {
    /// As a blank network has it: 0, or the network's anchors.
    Blank,
    /// The same value everywhere.
    Constant(f64),
    /// Evenly between ± `bound`.
    Uniform {
        /// The largest magnitude.
        bound: f64,
    },
    /// Evenly between ± `bound`, plus what makes objects and classes rare at first.
    DetectBias {
        /// The largest magnitude of the random part.
        bound: f64,
        /// Pixels per cell of the level.
        stride: u32,
        /// Anchors of the level.
        anchors: usize,
    },
}

impl Initial {
    /// `PyTorch`'s default for convolutions and linear layers, for the weight and for the bias:
    /// Kaiming-uniform with a = √5, which is ± 1/√fan-in.
    pub fn of_fan_in(fan_in: i64) -> Self {
        Self::Uniform {
            bound: 1.0 / (fan_in as f64).sqrt(),
        }
    }
}

/// A tensor of the network before it exists.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// State-dict name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Its shape.
    pub shape: Vec<i64>,
    /// How it begins.
    pub initial: Initial,
}

impl Slot {
    /// Number of elements.
    pub fn len(&self) -> u64 {
        self.shape.iter().product::<i64>() as u64
    }

    /// Whether it has no elements; no network has such a tensor.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Whether normalisations are layers of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As trained: every convolution is followed by batch normalisation.
    Trainable,
    /// As used: normalisations are folded into kernels and biases.
    Fused,
}
