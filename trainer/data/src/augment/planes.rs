//! One row of a sample.

/// A row of pixels as three planes, which is how samples are stored and what compilers vectorise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanarRow {
    /// Red.
    pub r: Vec<u8>,
    /// Green.
    pub g: Vec<u8>,
    /// Blue.
    pub b: Vec<u8>,
}

impl PlanarRow {
    /// A black row of `width` pixels.
    pub fn new(width: u32) -> Self {
        let plane = vec![0; width as usize];
        Self {
            r: plane.clone(),
            g: plane.clone(),
            b: plane,
        }
    }

    /// The planes in the order in which a sample stores them.
    pub fn planes(&self) -> [&[u8]; 3] {
        [&self.r, &self.g, &self.b]
    }
}
