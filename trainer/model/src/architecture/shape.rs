//! Sizes of what flows between layers, and the work that makes it.

/// Channels, height and width of one image's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Channels.
    pub channels: i64,
    /// Rows.
    pub height: i64,
    /// Columns.
    pub width: i64,
}

impl Shape {
    /// The shape of an image.
    pub fn image(height: i64, width: i64) -> Self {
        Self {
            channels: 3,
            height,
            width,
        }
    }

    /// The same cells with other channels.
    #[must_use]
    pub fn with_channels(self, channels: i64) -> Self {
        Self { channels, ..self }
    }

    /// Number of cells.
    pub fn cells(self) -> i64 {
        self.height * self.width
    }

    /// Height and width as people write them.
    pub fn sides(self) -> String {
        format!("{}x{}", self.height, self.width)
    }

    /// The cells that a window of `kernel` gives, moved by `stride` over the input with `padding` at each
    /// edge (rows, columns).
    pub fn windows(
        self,
        kernel: [i64; 2],
        stride: [i64; 2],
        padding: [i64; 2],
    ) -> Result<Self, String> {
        let side = |length: i64, axis: usize| {
            let room = length + 2 * padding[axis] - kernel[axis];
            (room >= 0).then(|| room / stride[axis] + 1)
        };
        match (side(self.height, 0), side(self.width, 1)) {
            (Some(height), Some(width)) => Ok(Self {
                height,
                width,
                ..self
            }),
            _ => Err(format!(
                "its input of {} cells is smaller than its kernel of {}x{}: use a smaller kernel or fewer strides before it",
                self.sides(),
                kernel[0],
                kernel[1]
            )),
        }
    }
}

/// Multiplications of convolutions and matrix products for one image. Normalisations, activations,
/// poolings and additions are not counted: together they are about one in a hundred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work(pub u128);

impl Work {
    /// Adds a product of `factors`.
    pub fn add(&mut self, factors: &[i64]) {
        let product = factors
            .iter()
            .map(|factor| *factor as u128)
            .product::<u128>();
        self.0 = self.0.saturating_add(product);
    }

    /// Billions of floating-point operations, a multiplication with its addition being two.
    pub fn gflops(self) -> f64 {
        2.0 * self.0 as f64 / 1e9
    }
}
