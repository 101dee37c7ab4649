//! Tensors as bytes.

/// What the numbers of a tensor are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE half precision.
    F16,
    /// The upper half of a single-precision number.
    Bf16,
    /// Single precision.
    F32,
    /// Double precision.
    F64,
    /// 64-bit integers.
    I64,
}

/// Kinds of numbers with PyTorch's and safetensors' words for them.
const WORDS: [(Dtype, &str, safetensors::Dtype); 5] = [
    (Dtype::F16, "HalfStorage", safetensors::Dtype::F16),
    (Dtype::Bf16, "BFloat16Storage", safetensors::Dtype::BF16),
    (Dtype::F32, "FloatStorage", safetensors::Dtype::F32),
    (Dtype::F64, "DoubleStorage", safetensors::Dtype::F64),
    (Dtype::I64, "LongStorage", safetensors::Dtype::I64),
];

impl Dtype {
    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }

    /// PyTorch's name of the storage that holds such numbers.
    pub fn storage_class(self) -> &'static str {
        let found = WORDS.iter().find(|(dtype, ..)| *dtype == self);
        found.map_or("", |(_, class, _)| class)
    }

    pub(crate) fn of_storage_class(class: &str) -> Option<Self> {
        let found = WORDS.iter().find(|(_, word, _)| *word == class);
        found.map(|(dtype, ..)| *dtype)
    }

    pub(crate) fn of_safetensors(word: safetensors::Dtype) -> Option<Self> {
        let found = WORDS.iter().find(|(.., other)| *other == word);
        found.map(|(dtype, ..)| *dtype)
    }
}

/// A tensor under its state-dict name.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// Its name.
    pub name: String,
    /// What its numbers are.
    pub dtype: Dtype,
    /// Its sides; none for a single number.
    pub shape: Vec<usize>,
    /// Its numbers in little-endian order, row by row.
    pub bytes: Vec<u8>,
}

impl NamedTensor {
    /// Its numbers in single precision.
    pub fn to_f32(&self) -> Vec<f32> {
        let each = self.bytes.chunks_exact(self.dtype.size());
        match self.dtype {
            Dtype::F16 => each
                .map(|b| half_to_f32(u16::from_le_bytes([b[0], b[1]])))
                .collect(),
            Dtype::Bf16 => each
                .map(|b| f32::from_le_bytes([0, 0, b[0], b[1]]))
                .collect(),
            Dtype::F32 => each
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
            Dtype::F64 => eights(&self.bytes)
                .map(|b| f64::from_le_bytes(b) as f32)
                .collect(),
            Dtype::I64 => eights(&self.bytes)
                .map(|b| i64::from_le_bytes(b) as f32)
                .collect(),
        }
    }
}

fn eights(bytes: &[u8]) -> impl Iterator<Item = [u8; 8]> {
    bytes.as_chunks::<8>().0.iter().copied()
}

/// IEEE half precision: 1 sign, 5 exponent and 10 fraction bits.
fn half_to_f32(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
    sign * match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_read_as_they_are_defined() {
        let golden = [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 5.960_464_5e-8),
            (0x3555, 0.333_251_95),
            (0x7c00, f32::INFINITY),
        ];
        for (bits, value) in golden {
            assert_eq!(value, half_to_f32(bits), "{bits:04x}");
        }
        assert!(half_to_f32(0x7e00).is_nan());
    }
}
