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

    /// Reads the row from the bytes of as many pixels, red, green, blue.
    pub fn read(&mut self, bytes: &[u8]) {
        let planes = self.r.iter_mut().zip(&mut self.g).zip(&mut self.b);
        for (((r, g), b), pixel) in planes.zip(bytes.as_chunks::<3>().0) {
            [*r, *g, *b] = *pixel;
        }
    }

    /// Appends the row to such bytes.
    pub fn append_to(&self, bytes: &mut Vec<u8>) {
        let planes = self.r.iter().zip(&self.g).zip(&self.b);
        bytes.extend(planes.flat_map(|((r, g), b)| [*r, *g, *b]));
    }
}
