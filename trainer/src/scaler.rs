//! The loss scale of float16: gradients too small for 16 bits are made larger, and a step whose gradients
//! became infinite by that is left out (PyTorch's `GradScaler`, with its defaults).

use tch::{Device, Kind, TchError, Tensor};

/// The scale at the beginning, 2^16.
const INITIAL: f64 = 65_536.0;
/// What a scale that has proved itself is multiplied by.
const GROWTH: f64 = 2.0;
/// What a scale that was too large is multiplied by.
const BACKOFF: f64 = 0.5;
/// Steps after which a scale has proved itself.
const INTERVAL: i64 = 2000;

/// A scale that finds its value; everything stays on its device, and nothing waits for it.
#[derive(Debug)]
pub struct LossScaler {
    scale: Tensor,
    /// Steps since the scale last changed.
    proved: Tensor,
    found_inf: Tensor,
}

impl LossScaler {
    /// The initial scale.
    pub fn new(device: Device) -> Result<Self, TchError> {
        Ok(Self {
            scale: Tensor::f_full([], INITIAL, (Kind::Float, device))?,
            proved: Tensor::f_zeros([], (Kind::Int, device))?,
            found_inf: Tensor::f_zeros([], (Kind::Float, device))?,
        })
    }

    /// What to differentiate in place of `loss`.
    pub fn scaled(&self, loss: &Tensor) -> Result<Tensor, TchError> {
        loss.f_mul(&self.scale)
    }

    /// Takes the scale out of `gradients` and notes whether one of them is not finite.
    pub fn unscale(&mut self, gradients: &mut [Tensor]) -> Result<&Tensor, torch_bridge::Error> {
        let _ = self
            .found_inf
            .f_zero_()
            .map_err(|error| tensor_failed(&error))?;
        let inverse = self
            .scale
            .f_reciprocal()
            .map_err(|error| tensor_failed(&error))?;
        torch_bridge::optim::unscale(gradients, &inverse, &mut self.found_inf)?;
        Ok(&self.found_inf)
    }

    /// Changes the scale by what the last [`LossScaler::unscale`] found.
    pub fn update(&mut self) -> Result<(), TchError> {
        let Self {
            scale,
            proved,
            found_inf,
        } = self;
        scale
            .f_internal_amp_update_scale_(proved, found_inf, GROWTH, BACKOFF, INTERVAL)
            .map(drop)
    }

    /// The scale and the steps it has lasted.
    pub fn state(&self) -> Result<(f64, u32), TchError> {
        Ok((
            f64::try_from(&self.scale)?,
            u32::try_from(i64::try_from(&self.proved)?).unwrap_or(0),
        ))
    }

    /// Takes up a state.
    pub fn restore(&mut self, (scale, proved): (f64, u32)) -> Result<(), TchError> {
        let _ = self.scale.f_fill_(scale)?;
        self.proved.f_fill_(i64::from(proved)).map(drop)
    }
}

fn tensor_failed(error: &TchError) -> torch_bridge::Error {
    torch_bridge::Error::TensorList {
        operation: "loss scaling",
        tensors: 1,
        source: torch_bridge::Fault::from(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_too_large_is_halved_and_one_that_lasts_is_doubled() {
        let mut scaler = LossScaler::new(Device::Cpu).expect("memory");
        let loss = scaler.scaled(&Tensor::from(3.0_f32)).expect("a number");
        assert_eq!(3.0 * INITIAL, loss.double_value(&[]));
        let mut gradients = [Tensor::from_slice(&[INITIAL as f32, -INITIAL as f32])];
        let found = scaler.unscale(&mut gradients).expect("finite");
        assert_eq!(0.0, found.double_value(&[]));
        assert_eq!(
            [1.0, -1.0],
            Vec::<f64>::try_from(&gradients[0]).expect("two")[..]
        );
        scaler.update().expect("a step");
        assert_eq!((INITIAL, 1), scaler.state().expect("numbers"));

        let mut gradients = [Tensor::from_slice(&[f32::INFINITY])];
        let found = scaler.unscale(&mut gradients).expect("noted");
        assert_eq!(1.0, found.double_value(&[]));
        scaler.update().expect("a step");
        assert_eq!((INITIAL / 2.0, 0), scaler.state().expect("numbers"));

        scaler.restore((8.0, 1999)).expect("numbers");
        scaler
            .unscale(&mut [Tensor::from_slice(&[1.0_f32])])
            .expect("finite");
        scaler.update().expect("a step");
        assert_eq!((16.0, 0), scaler.state().expect("numbers"));
    }
}
