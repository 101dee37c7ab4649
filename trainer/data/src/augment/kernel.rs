//! The sizes of both blurs.

/// An odd number of pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel(u32);

impl Kernel {
    /// The sizes to choose from (Albumentations' default).
    pub const ALL: [Self; 3] = [Self(3), Self(5), Self(7)];

    /// One of them, all equally likely for a `unit` in 0..1.
    pub fn choose(unit: f64) -> Self {
        let k = (unit * Self::ALL.len() as f64) as usize;
        Self::ALL[k.min(Self::ALL.len() - 1)]
    }

    /// Pixels on each side of the middle one.
    pub fn radius(self) -> u32 {
        self.0 / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_equally_likely() {
        let radii = [0.0, 0.33, 0.34, 0.66, 0.67, 0.999].map(|unit| Kernel::choose(unit).radius());
        assert_eq!(radii, [1, 1, 2, 2, 3, 3]);
    }
}
