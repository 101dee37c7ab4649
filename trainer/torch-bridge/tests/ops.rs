//! Operations of one process: fused optimizer, list operations, autocast, settings, layout.

use std::error::Error as _;

use tch::{Device, Kind, Tensor};
use torch_bridge::optim::{self, FusedSgd, GradScale};
use torch_bridge::{
    Autocast, Error, contiguous_channels_last, cuda, elu, is_channels_last, leaky_relu, runtime,
};

type Result = std::result::Result<(), Error>;

fn values(tensor: &Tensor) -> Vec<f32> {
    Vec::<f32>::try_from(tensor.contiguous().view(-1)).expect("an f32 tensor")
}

fn assert_close(actual: &[f32], expected: &[f32]) {
    assert_eq!(actual.len(), expected.len());
    for (actual, expected) in actual.iter().zip(expected) {
        assert!(
            (actual - expected).abs() <= 1e-6 * expected.abs().max(1.0),
            "{actual} is not {expected}"
        );
    }
}

#[test]
fn fused_sgd_is_nesterov_sgd_with_weight_decay() -> Result {
    let (lr, momentum, weight_decay) = (0.1f32, 0.9f32, 0.01f32);
    let start: [&[f32]; 2] = [&[1.0, -2.0, 3.0], &[0.5]];
    let mut params: Vec<Tensor> = start
        .iter()
        .map(|values| Tensor::from_slice(values).set_requires_grad(true))
        .collect();
    let mut buffers: Vec<Tensor> = params
        .iter()
        .map(|param| param.detach().zeros_like())
        .collect();
    let mut by_hand: Vec<(f32, f32)> = start.concat().iter().map(|&value| (value, 0.0)).collect();

    for step in 0..3 {
        let gradients: Vec<f32> = (0..4)
            .map(|index| (step * 4 + index) as f32 * 0.25 - 1.0)
            .collect();
        let mut grads = vec![
            Tensor::from_slice(&gradients[..3]),
            Tensor::from_slice(&gradients[3..]),
        ];
        let settings = FusedSgd {
            lr: lr.into(),
            momentum: momentum.into(),
            weight_decay: weight_decay.into(),
            nesterov: true,
            first_step: step == 0,
        };
        optim::fused_sgd(&mut params, &mut grads, &mut buffers, settings, None)?;

        for ((value, buffer), gradient) in by_hand.iter_mut().zip(gradients) {
            let gradient = gradient + weight_decay * *value;
            *buffer = if step == 0 {
                gradient
            } else {
                momentum * *buffer + gradient
            };
            *value -= lr * (gradient + momentum * *buffer);
        }
    }
    let (expected, expected_buffers): (Vec<f32>, Vec<f32>) = by_hand.into_iter().unzip();
    assert_close(
        &params.iter().flat_map(values).collect::<Vec<_>>(),
        &expected,
    );
    assert_close(
        &buffers.iter().flat_map(values).collect::<Vec<_>>(),
        &expected_buffers,
    );
    Ok(())
}

/// By the formulas of the papers (Kingma and Ba 2015; Loshchilov and Hutter 2019).
#[test]
fn fused_adam_and_adamw_equal_their_formulas() -> Result {
    let (lr, beta1, beta2, eps, weight_decay) = (0.1f64, 0.9f64, 0.99f64, 1e-8f64, 0.1f64);
    for decoupled in [false, true] {
        let mut params = [Tensor::from_slice(&[1.0f64, -2.0])];
        let mut means = [params[0].zeros_like()];
        let mut squares = [params[0].zeros_like()];
        let mut by_hand = [(1.0f64, 0.0f64, 0.0f64), (-2.0, 0.0, 0.0)];
        for step in 1..=4 {
            let gradients = [0.5 * f64::from(step), -0.25 * f64::from(step) + 0.6];
            let settings = optim::FusedAdam {
                lr,
                beta1,
                beta2,
                eps,
                weight_decay,
                decoupled,
            };
            let moments = optim::AdamMoments {
                means: &mut means,
                squares: &mut squares,
                step: &Tensor::from(step as f32),
            };
            let mut grads = [Tensor::from_slice(&gradients)];
            optim::fused_adam(&mut params, &mut grads, moments, settings, None)?;
            for ((value, mean, square), gradient) in by_hand.iter_mut().zip(gradients) {
                let gradient = if decoupled {
                    *value -= lr * weight_decay * *value;
                    gradient
                } else {
                    gradient + weight_decay * *value
                };
                *mean = beta1 * *mean + (1.0 - beta1) * gradient;
                *square = beta2 * *square + (1.0 - beta2) * gradient * gradient;
                let unbiased = *mean / (1.0 - beta1.powi(step));
                let root = (*square / (1.0 - beta2.powi(step))).sqrt();
                *value -= lr * unbiased / (root + eps);
            }
        }
        let got: Vec<f64> = Vec::try_from(&params[0]).expect("numbers");
        for (got, (want, ..)) in got.iter().zip(by_hand) {
            assert!((got - want).abs() < 1e-12, "{decoupled}: {got} and {want}");
        }
    }
    Ok(())
}

#[test]
fn fused_sgd_without_momentum_needs_no_buffers() -> Result {
    let mut params = [Tensor::from_slice(&[1.0f32])];
    let mut grads = [Tensor::from_slice(&[0.5f32])];
    let settings = FusedSgd {
        lr: 0.1,
        momentum: 0.0,
        weight_decay: 0.0,
        nesterov: false,
        first_step: true,
    };
    optim::fused_sgd(&mut params, &mut grads, &mut [], settings, None)?;
    assert_close(&values(&params[0]), &[0.95]);
    Ok(())
}

#[test]
fn fused_sgd_divides_by_the_scale_and_skips_after_overflow() -> Result {
    let settings = FusedSgd {
        lr: 1.0,
        momentum: 0.5,
        weight_decay: 0.0,
        nesterov: false,
        first_step: true,
    };
    let scale = Tensor::from_slice(&[4.0f32]);
    for (found_inf, expected) in [(0.0f32, -2.0f32), (1.0, 0.0)] {
        let mut params = [Tensor::from_slice(&[0.0f32])];
        let mut grads = [Tensor::from_slice(&[8.0f32])];
        let mut buffers = [Tensor::from_slice(&[0.0f32])];
        let found_inf = Tensor::from_slice(&[found_inf]);
        let scaling = GradScale {
            scale: Some(&scale),
            found_inf: &found_inf,
        };
        optim::fused_sgd(
            &mut params,
            &mut grads,
            &mut buffers,
            settings,
            Some(scaling),
        )?;
        assert_close(&values(&params[0]), &[expected]);
    }
    Ok(())
}

#[test]
fn lists_that_go_together_must_have_one_length() {
    let settings = FusedSgd {
        lr: 0.1,
        momentum: 0.9,
        weight_decay: 0.0,
        nesterov: true,
        first_step: true,
    };
    let one = || [Tensor::from_slice(&[1.0f32])];
    let error =
        optim::fused_sgd(&mut one(), &mut one(), &mut [], settings, None).expect_err("no buffers");
    assert!(
        matches!(
            error,
            Error::ListLengths {
                expected: 1,
                actual: 0,
                ..
            }
        ),
        "{error}"
    );
    let error = optim::foreach_lerp(&mut one(), &[], 0.5).expect_err("no sources");
    assert_eq!(error.to_string(), "lerp got 1 tensors and 0 sources");
}

#[test]
fn a_failure_carries_libtorchs_text_without_its_backtrace() {
    let mut targets = [Tensor::from_slice(&[1.0f32, 2.0])];
    let sources = [Tensor::from_slice(&[1.0f32, 2.0, 3.0])];
    let error = optim::foreach_lerp(&mut targets, &sources, 0.5).expect_err("shapes differ");
    assert_eq!(error.to_string(), "lerp over 1 tensors failed");
    let cause = error.source().expect("a cause").to_string();
    assert!(cause.contains("must match the size"), "{cause}");
    assert!(!cause.contains("frame #"), "{cause}");
}

#[test]
fn lerp_copy_and_zero_change_all_tensors() -> Result {
    let mut targets = [
        Tensor::from_slice(&[0.0f32, 4.0]),
        Tensor::from_slice(&[8.0f32]),
    ];
    let sources = [
        Tensor::from_slice(&[4.0f32, 0.0]),
        Tensor::from_slice(&[0.0f32]),
    ];
    optim::foreach_lerp(&mut targets, &sources, 0.25)?;
    assert_eq!(
        targets.iter().flat_map(values).collect::<Vec<_>>(),
        [1.0, 3.0, 6.0]
    );
    optim::foreach_copy(&mut targets, &sources)?;
    assert_eq!(
        targets.iter().flat_map(values).collect::<Vec<_>>(),
        [4.0, 0.0, 0.0]
    );
    optim::foreach_zero(&mut targets)?;
    assert_eq!(
        targets.iter().flat_map(values).collect::<Vec<_>>(),
        [0.0; 3]
    );
    Ok(())
}

#[test]
fn clipping_scales_to_the_maximum_and_leaves_smaller_gradients_alone() -> Result {
    // The 2-norm of 3, 4 and 12 is 13.
    let gradients = || {
        [
            Tensor::from_slice(&[3.0f32, 4.0]),
            Tensor::from_slice(&[12.0f32]).view([1, 1]),
        ]
    };
    let mut grads = gradients();
    let total = optim::clip_grad_norm(&mut grads, 6.5)?;
    assert_close(&values(&total), &[13.0]);
    let factor = 6.5 / (13.0 + 1e-6);
    assert_close(
        &grads.iter().flat_map(values).collect::<Vec<_>>(),
        &[3.0 * factor, 4.0 * factor, 12.0 * factor],
    );

    let mut grads = gradients();
    assert_close(&values(&optim::clip_grad_norm(&mut grads, 14.0)?), &[13.0]);
    assert_eq!(
        grads.iter().flat_map(values).collect::<Vec<_>>(),
        [3.0, 4.0, 12.0]
    );
    assert_eq!(values(&optim::clip_grad_norm(&mut [], 1.0)?), [0.0]);
    Ok(())
}

#[test]
fn grads_are_those_of_the_parameters_and_share_their_memory() -> Result {
    let params = [
        Tensor::from_slice(&[1.0f32, 2.0]).set_requires_grad(true),
        Tensor::from_slice(&[1.0f32]).set_requires_grad(true),
    ];
    (&params[0] * 3.0).sum(None).backward();
    let mut grads = optim::grads(&params);
    assert_eq!(grads.len(), 1);
    optim::foreach_zero(&mut grads)?;
    assert_eq!(values(&params[0].grad()), [0.0, 0.0]);
    Ok(())
}

#[test]
fn finiteness_sees_nan_infinity_and_nothing_else() -> Result {
    for (value, expected) in [
        (1.0, true),
        (f32::MAX, true),
        (f32::NAN, false),
        (f32::NEG_INFINITY, false),
    ] {
        let tensors = [
            Tensor::from_slice(&[f32::MAX, 0.0]),
            Tensor::from_slice(&[0.0, value, 1.0]),
        ];
        assert_eq!(
            bool::try_from(optim::all_finite(&tensors)?).expect("a bool"),
            expected,
            "{value}"
        );
    }
    assert!(bool::try_from(optim::all_finite(&[])?).expect("a bool"));
    Ok(())
}

#[test]
fn unscaling_divides_and_notes_overflow() -> Result {
    let inverse = Tensor::from_slice(&[0.5f32]);
    for (value, expected) in [(4.0f32, 0.0f32), (f32::INFINITY, 1.0)] {
        let mut grads = [Tensor::from_slice(&[2.0f32]), Tensor::from_slice(&[value])];
        let mut found_inf = Tensor::from_slice(&[0.0f32]);
        optim::unscale(&mut grads, &inverse, &mut found_inf)?;
        assert_eq!(values(&grads[0]), [1.0]);
        assert_eq!(values(&found_inf), [expected]);
    }
    Ok(())
}

#[test]
fn autocast_lasts_as_long_as_its_guard() -> Result {
    let (a, b) = (
        Tensor::ones([2, 2], (Kind::Float, Device::Cpu)),
        Tensor::ones([2, 2], (Kind::Float, Device::Cpu)),
    );
    let kind = || a.matmul(&b).kind();
    assert_eq!(kind(), Kind::Float);
    {
        let _outer = Autocast::new(Device::Cpu, Kind::BFloat16)?;
        assert_eq!(kind(), Kind::BFloat16);
        {
            let _inner = Autocast::new(Device::Cpu, Kind::Half)?;
            assert_eq!(kind(), Kind::Half);
        }
        assert_eq!(kind(), Kind::BFloat16);
    }
    assert_eq!(kind(), Kind::Float);
    assert!(matches!(
        Autocast::new(Device::Cpu, Kind::Float),
        Err(Error::AutocastKind(Kind::Float))
    ));
    assert!(matches!(
        Autocast::new(Device::Mps, Kind::Half),
        Err(Error::AutocastDevice(Device::Mps))
    ));
    Ok(())
}

#[test]
fn settings_are_taken_and_told() -> Result {
    runtime::set_num_threads(2)?;
    assert_eq!(runtime::num_threads(), 2);
    assert_eq!(runtime::torch_version(), "2.11.0");
    assert!(["DEFAULT", "AVX2", "AVX512", "NO AVX"].contains(&runtime::cpu_capability().as_str()));
    runtime::set_deterministic(true)?;
    runtime::set_deterministic(false)?;
    runtime::set_flush_denormal(false)?;
    runtime::set_allow_tf32(false)?;
    runtime::keep_freed_memory(256 << 20)?;
    runtime::trim_memory();
    Ok(())
}

#[test]
fn channels_last_changes_strides_not_values() -> Result {
    let image = Tensor::arange(24, (Kind::Float, Device::Cpu)).view([1, 2, 3, 4]);
    assert!(!is_channels_last(&image));
    let other = contiguous_channels_last(&image)?;
    assert!(is_channels_last(&other));
    assert_eq!(
        (other.size(), other.stride()),
        (vec![1, 2, 3, 4], vec![24, 1, 8, 2])
    );
    assert_eq!(other, image);
    assert!(!is_channels_last(&image.view([2, 12])));
    let error = contiguous_channels_last(&image.view([2, 12])).expect_err("two dimensions");
    assert!(matches!(error, Error::ChannelsLast { .. }), "{error}");
    Ok(())
}

#[test]
fn activations_with_a_number_and_their_gradients() -> Result {
    let x = Tensor::from_slice(&[-2.0_f32, -0.5, 0.0, 3.0]).set_requires_grad(true);
    let leaky = leaky_relu(&x, 0.1)?;
    assert_eq!(values(&leaky), [-0.2, -0.05, 0.0, 3.0]);
    leaky.sum(Kind::Float).backward();
    assert_eq!(values(&x.grad()), [0.1, 0.1, 0.1, 1.0]);

    let x = x.detach().set_requires_grad(true);
    let exponential = elu(&x, 0.5)?;
    let want = [
        0.5 * ((-2.0_f32).exp() - 1.0),
        0.5 * ((-0.5_f32).exp() - 1.0),
        0.0,
        3.0,
    ];
    for (got, want) in values(&exponential).into_iter().zip(want) {
        assert!((got - want).abs() < 1e-6, "{got} is not {want}");
    }
    exponential.sum(Kind::Float).backward();
    let slope = values(&x.grad());
    assert!(
        (slope[0] - 0.5 * (-2.0_f32).exp()).abs() < 1e-6 && slope[3] == 1.0,
        "{slope:?}"
    );

    let whole = Tensor::from_slice(&[true]);
    let error = elu(&whole, 1.0).expect_err("not a number");
    assert!(
        matches!(
            error,
            Error::Function {
                operation: "ELU",
                ..
            }
        ),
        "{error}"
    );
    Ok(())
}

/// What can be asked depends on the machine: no CUDA, CUDA without a GPU, a GPU.
#[test]
fn cuda_says_what_there_is_or_what_it_looked_for() -> Result {
    let cuda = match cuda::load() {
        Ok(cuda) => cuda,
        Err(error) => {
            let text = error.to_string();
            assert!(text.starts_with("there is no CUDA here: "), "{text}");
            assert!(text.contains("libtorch_cuda.so"), "{text}");
            // Beside libtorch_cpu.so, and wherever the loader looks.
            assert!(error.looked_for.len() >= 2, "{text}");
            return Ok(());
        }
    };
    let count = cuda.device_count()?;
    cuda.empty_cache()?;
    let error = cuda
        .device_name(count)
        .expect_err("one more than there are");
    let cause = error.fault().expect("a cause").to_string();
    assert!(
        cause.starts_with(&format!("there is no GPU {count}, only {count}")),
        "{cause}"
    );
    for device in 0..count {
        assert!(!cuda.device_name(device)?.is_empty());
        let memory = cuda.memory(device)?;
        assert!(memory.free > 0 && memory.free <= memory.total);
        cuda.set_device(device)?;
        cuda.synchronize(device)?;
        let held = cuda.allocator_memory(device)?;
        assert!(held.allocated <= held.reserved && held.reserved <= held.reserved_peak);
        cuda.reset_peak_memory(device)?;
    }
    Ok(())
}
