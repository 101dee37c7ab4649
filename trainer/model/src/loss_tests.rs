use super::*;
use crate::network::Network;
use crate::optim::{Optimizer, OptimizerStep, Rule};
use crate::testing::{GOLDEN_BATCH, ZOO, custom, difference, golden_targets, images, small};
use contract::spec::ModelSize;
use tch::{Device, Kind};
use torch_bridge::optim::clip_grad_norm;

const PLAIN: LossSettings = LossSettings {
    box_gain: 0.05,
    class_gain: 0.5,
    object_gain: 1.0,
    class_positive_weight: 1.0,
    object_positive_weight: 1.0,
    anchor_threshold: 4.0,
    label_smoothing: 0.0,
    focal_gamma: 0.0,
};

fn loss(settings: LossSettings) -> Loss {
    Loss::new(&small(), settings)
}

fn assignment(loss: &Loss, targets: &[Target], images: usize) -> Assignment {
    let BatchShape { height, width, .. } = GOLDEN_BATCH;
    loss.assign(targets, images, height, width)
        .expect("targets of this batch")
}

/// Predictions sin(.37b + .91a + .13y + .07x + .53c + level) for images `from..to`.
fn golden_raw(from: i64, to: i64) -> Vec<Tensor> {
    let axis = |from: i64, to: i64, factor: f64, shape: [i64; 5]| {
        (Tensor::arange_start(from, to, (Kind::Double, Device::Cpu)) * factor).view(shape)
    };
    let level = |level: i64, side: i64| {
        let sum = axis(from, to, 0.37, [-1, 1, 1, 1, 1])
            + axis(0, 3, 0.91, [1, -1, 1, 1, 1])
            + axis(0, side, 0.13, [1, 1, -1, 1, 1])
            + axis(0, side, 0.07, [1, 1, 1, -1, 1])
            + axis(0, 8, 0.53, [1, 1, 1, 1, -1]);
        (sum + level as f64).sin().set_requires_grad(true)
    };
    vec![level(0, 8), level(1, 4), level(2, 2)]
}

/// Box, objectness, class part and total of the golden batch, and the predictions it came from.
fn golden_total(settings: LossSettings, targets: &[Target]) -> (TotalLoss, Vec<Tensor>) {
    let loss = loss(settings);
    let raw = golden_raw(0, 2);
    let terms = loss
        .terms(&raw, &assignment(&loss, targets, 2))
        .expect("golden shapes");
    (terms.total(&terms.own, 2.0).expect("three scalars"), raw)
}

#[track_caller]
fn check(settings: LossSettings, targets: &[Target], [boxes, objects, classes, total]: [f64; 4]) {
    let (got, _) = golden_total(settings, targets);
    let parts: Vec<f64> = Vec::try_from(&got.parts).expect("three numbers");
    let got = [parts[0], parts[1], parts[2], got.loss.double_value(&[])];
    for (got, want) in got.into_iter().zip([boxes, objects, classes, total]) {
        // YOLOv5 adds the levels up in f32 even if predictions are f64.
        assert!(
            (got - want).abs() < 1.5e-7 * want.max(1.0),
            "{got} is not {want}"
        );
    }
}

#[test]
fn golden_loss() {
    check(
        PLAIN,
        &golden_targets(),
        [0.122_002_16, 2.694_706_44, 1.095_430_73, 7.824_278_83],
    );
}

#[test]
fn golden_loss_with_label_smoothing() {
    let settings = LossSettings {
        label_smoothing: 0.1,
        ..PLAIN
    };
    check(
        settings,
        &golden_targets(),
        [0.122_002_16, 2.694_706_44, 1.099_220_04, 7.831_857_2],
    );
}

#[test]
fn golden_loss_with_positive_weights() {
    let settings = LossSettings {
        object_positive_weight: 0.7,
        class_positive_weight: 0.5,
        ..PLAIN
    };
    check(
        settings,
        &golden_targets(),
        [0.122_002_16, 2.666_152_95, 0.799_397_47, 7.175_105_09],
    );
}

/// From YOLOv5 v7.0 on the same tensors.
#[test]
fn golden_focal_loss() {
    let settings = LossSettings {
        focal_gamma: 1.5,
        ..PLAIN
    };
    check(
        settings,
        &golden_targets(),
        [0.122_002_16, 0.570_015_79, 0.192_905_72, 1.769_847_39],
    );
    let (total, raw) = golden_total(settings, &golden_targets());
    total.loss.backward();
    for (raw, want) in raw.iter().zip([1.506_417_76, 0.435_259_29, 0.357_419_45]) {
        let got = raw.grad().abs().sum(Kind::Double).double_value(&[]);
        assert!((got - want).abs() < 2e-7, "{got} is not {want}");
    }
    let settings = LossSettings {
        focal_gamma: 2.0,
        class_positive_weight: 0.5,
        object_positive_weight: 0.7,
        label_smoothing: 0.1,
        ..PLAIN
    };
    check(
        settings,
        &golden_targets(),
        [0.122_002_16, 0.388_615_1, 0.107_314_91, 1.235_864_4],
    );
}

#[test]
fn golden_loss_with_a_narrow_anchor_threshold() {
    let settings = LossSettings {
        anchor_threshold: 2.0,
        ..PLAIN
    };
    check(
        settings,
        &golden_targets(),
        [0.072_627_37, 2.669_537_31, 0.704_738_14, 6.893_805_5],
    );
}

#[test]
fn golden_loss_without_targets() {
    check(
        PLAIN,
        &[],
        [0.0, 2.643_820_047_378_54, 0.0, 5.287_640_094_757_08],
    );
}

#[test]
fn golden_gradients() {
    let (total, raw) = golden_total(PLAIN, &golden_targets());
    total.loss.backward();
    for (raw, want) in raw.iter().zip([3.507_840_03, 1.149_179_5, 0.846_104_63]) {
        let got = raw.grad().abs().sum(Kind::Double).double_value(&[]);
        assert!((got - want).abs() < 2e-7, "{got} is not {want}");
    }
}

#[test]
fn one_class_has_no_class_loss() {
    let options = NetworkOptions::new(ModelSize::N, 1);
    let loss = Loss::new(&options, PLAIN);
    let raw: Vec<Tensor> = golden_raw(0, 2)
        .iter()
        .map(|raw| raw.narrow(-1, 0, 6))
        .collect();
    let targets: Vec<Target> = golden_targets()
        .into_iter()
        .map(|target| Target { class: 0, ..target })
        .collect();
    let terms = loss
        .terms(&raw, &assignment(&loss, &targets, 2))
        .expect("golden shapes");
    let parts: Vec<f64> =
        Vec::try_from(terms.total(&terms.own, 2.0).expect("three scalars").parts).expect("three");
    assert!((parts[0] - 0.122_002_16).abs() < 2e-7 && parts[1] > 0.0);
    assert_eq!(0.0, parts[2]);
}

/// Two processes with one image each, and a third without any, are one process with two images.
#[test]
fn shares_of_several_processes_add_up() {
    let loss = loss(PLAIN);
    let (whole, whole_raw) = golden_total(PLAIN, &golden_targets());
    whole.loss.backward();

    let share = |image: i64| {
        let targets: Vec<Target> = golden_targets()
            .into_iter()
            .filter(|target| i64::from(target.image) == image)
            .map(|target| Target { image: 0, ..target })
            .collect();
        let raw = golden_raw(image, image + 1);
        let terms = loss
            .terms(&raw, &assignment(&loss, &targets, 1))
            .expect("golden shapes");
        (raw, terms)
    };
    let shares = [share(0), share(1)];
    let mut denominators = Denominators::default();
    for (_, terms) in &shares {
        denominators += Denominators::from_array(terms.own.to_array());
    }
    let totals = shares
        .each_ref()
        .map(|(_, terms)| terms.total(&denominators, 2.0).expect("scalars"));
    assert!(difference(&whole.parts, &(&totals[0].parts + &totals[1].parts)) < 1e-12);
    assert!(difference(&whole.loss, &(&totals[0].loss + &totals[1].loss)) < 1e-12);
    for (image, (total, (raw, _))) in totals.iter().zip(&shares).enumerate() {
        total.loss.backward();
        for (whole, part) in whole_raw.iter().zip(raw) {
            let whole = whole.grad().narrow(0, image as i64, 1);
            assert!(difference(&whole, &part.grad()) < 1e-12);
        }
    }
    let (_, idle) = share(2);
    assert_eq!([0; MAX_LEVELS], idle.own.matches);
    let nothing = idle.total(&denominators, 0.0).expect("scalars");
    nothing.loss.backward();
    assert_eq!(0.0, nothing.loss.double_value(&[]));
}

/// Objects that share a site are the case in which an order of additions or writes would show.
#[test]
fn crowded_sites_give_the_same_bits_every_time() {
    let crowd: Vec<Target> = (0..40_u16)
        .map(|index| {
            let mut target = golden_targets()[0];
            target.class = index % 3;
            target.xywh.w += f32::from(index) * 1e-3;
            target
        })
        .collect();
    let run = || {
        let loss = loss(PLAIN);
        let raw: Vec<Tensor> = golden_raw(0, 2)
            .iter()
            .map(|raw| raw.detach().to_kind(Kind::Float).set_requires_grad(true))
            .collect();
        let terms = loss
            .terms(&raw, &assignment(&loss, &crowd, 2))
            .expect("golden shapes");
        let total = terms.total(&terms.own, 2.0).expect("scalars").loss;
        total.backward();
        let gradients: Vec<Tensor> = raw.iter().map(Tensor::grad).collect();
        (total, gradients)
    };
    let (total, gradients) = run();
    assert!(total.double_value(&[]).is_finite());
    for _ in 0..20 {
        let (again, gradients_again) = run();
        assert!(total.equal(&again));
        assert!(
            gradients
                .iter()
                .zip(&gradients_again)
                .all(|(a, b)| a.equal(b))
        );
    }
}

#[test]
fn sixteen_bit_predictions_are_summed_in_32() {
    let loss = loss(PLAIN);
    let raw: Vec<Tensor> = golden_raw(0, 2)
        .iter()
        .map(|raw| raw.detach().to_kind(Kind::BFloat16))
        .collect();
    let assignment = assignment(&loss, &golden_targets(), 2);
    let terms = loss.terms(&raw, &assignment).expect("golden shapes");
    let total = terms.total(&terms.own, 2.0).expect("scalars").loss;
    assert_eq!(Kind::Float, total.kind());
    assert!((total.double_value(&[]) - 7.824_278_83).abs() < 0.02);
}

#[test]
fn gains_scale_as_in_yolov5() {
    let hyperparameters = Hyperparameters::default();
    assert_eq!(PLAIN, LossSettings::unscaled(&hyperparameters));
    let scaled = |size, classes, image_size| {
        let architecture = NetworkOptions::new(size, classes).architecture;
        LossSettings::scaled(&hyperparameters, &architecture, image_size)
    };
    assert_eq!(PLAIN, scaled(ModelSize::N, 80, 640));
    let small = scaled(ModelSize::N, 8, 320);
    assert_eq!(PLAIN.box_gain, small.box_gain);
    assert!((small.class_gain - 0.05).abs() < 1e-15 && (small.object_gain - 0.25).abs() < 1e-15);
    let four_levels = scaled(ModelSize::N6, 80, 640);
    for (three, four) in [
        (PLAIN.box_gain, four_levels.box_gain),
        (PLAIN.class_gain, four_levels.class_gain),
        (PLAIN.object_gain, four_levels.object_gain),
    ] {
        assert!((four - 0.75 * three).abs() < 1e-15);
    }
}

/// With equal sums in all levels the weights of the levels show.
#[test]
fn levels_weigh_by_their_number() {
    let sums = |levels: usize| {
        let one = || Tensor::from(1.0_f64);
        let levels = (0..levels).map(|_| LevelSums {
            boxes: one(),
            objects: one(),
            classes: one(),
        });
        let terms = LossTerms {
            levels: levels.collect(),
            own: Denominators::default(),
            classes: 2,
            settings: LossSettings {
                object_gain: 1.0,
                box_gain: 1.0,
                class_gain: 2.0,
                ..PLAIN
            },
        };
        let total = terms.total(&terms.own, 1.0).expect("scalars");
        Vec::<f64>::try_from(total.parts).expect("three numbers")
    };
    for (levels, objects) in [(2, 5.0), (3, 5.4), (4, 5.31), (5, 5.33)] {
        let parts = sums(levels);
        let close = |got: f64, want: f64| (got - want).abs() < 1e-12;
        assert!(
            close(parts[0], levels as f64) && close(parts[2], levels as f64),
            "{parts:?}"
        );
        assert!(close(parts[1], objects), "{levels}: {parts:?}");
    }
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let loss = loss(PLAIN);
    let foreign = Target {
        class: 3,
        ..golden_targets()[0]
    };
    assert!(matches!(
        loss.assign(&[foreign], 2, 64, 64),
        Err(Error::TargetClass {
            class: 3,
            classes: 3
        })
    ));
    let other_batch = assignment(&loss, &[], 1);
    assert!(matches!(
        loss.terms(&golden_raw(0, 2), &other_batch),
        Err(Error::LevelShape { level: 0, .. })
    ));
    let two_levels = &golden_raw(0, 2)[..2];
    assert!(matches!(
        loss.terms(two_levels, &assignment(&loss, &[], 2)),
        Err(Error::LevelShape { level: 2, .. })
    ));
}

/// Trains a small network on one batch; its loss before each of `steps` steps.
fn learn(steps: usize) -> (Vec<f64>, Network) {
    let network = Network::initialised(&small(), 1).expect("memory");
    let loss = loss(PLAIN);
    let mut optimizer = Optimizer::new(&network, Rule::Sgd).expect("memory");
    let images = network.input(&(images(2, 64) * 255.0)).expect("64 pixels");
    let assignment = assignment(&loss, &golden_targets(), 2);
    let step = OptimizerStep {
        lr_bias: 0.02,
        lr_other: 0.02,
        momentum: 0.9,
        weight_decay: 0.0005,
    };
    let losses = (0..steps)
        .map(|_| {
            let raw = network.train(&images).expect("64 pixels");
            let terms = loss.terms(&raw, &assignment).expect("this batch");
            let total = terms.total(&terms.own, 2.0).expect("scalars").loss;
            optimizer.zero_grad().expect("in place");
            total.backward();
            let mut gradients = optimizer.gradients().expect("all gradients exist");
            let norm = clip_grad_norm(&mut gradients, 10.0).expect("in place");
            assert!(norm.double_value(&[]).is_finite());
            optimizer.step(&step, None).expect("all gradients exist");
            total.double_value(&[])
        })
        .collect();
    (losses, network)
}

#[test]
fn training_on_one_batch_lowers_the_loss() {
    let (losses, _) = learn(25);
    assert!(losses[24] < 0.7 * losses[0], "{losses:?}");
}

#[test]
fn training_twice_gives_the_same_bits() {
    let ((losses, first), (again, second)) = (learn(3), learn(3));
    assert_eq!(losses, again);
    assert!(first.state().same_as(second.state()));
}

/// One step of a network that has every module, two levels and two anchors: all parameters get finite gradients, and
/// most of them move.
#[test]
fn every_module_learns() {
    let options = NetworkOptions::of(custom(ZOO));
    let network = Network::initialised(&options, 1).expect("memory");
    let loss = Loss::new(&options, PLAIN);
    let mut optimizer = Optimizer::new(&network, Rule::Sgd).expect("memory");
    let images = network.input(&(images(2, 64) * 255.0)).expect("64 pixels");
    let assignment = assignment(&loss, &golden_targets(), 2);
    assert!(
        assignment.denominators().matches[..2]
            .iter()
            .all(|matches| *matches > 0)
    );
    assert_eq!(
        [2 * 2 * 64, 2 * 2 * 16],
        assignment.denominators().cells[..2]
    );
    let before = network.state().export().expect("readable");

    let raw = network.train(&images).expect("64 pixels");
    assert_eq!(2, raw.len());
    let terms = loss.terms(&raw, &assignment).expect("this batch");
    let total = terms.total(&terms.own, 2.0).expect("scalars").loss;
    assert!(total.double_value(&[]).is_finite());
    total.backward();
    let mut gradients = optimizer.gradients().expect("all have gradients");
    let norm = clip_grad_norm(&mut gradients, 10.0).expect("in place");
    assert!(norm.double_value(&[]).is_finite() && norm.double_value(&[]) > 0.0);
    let step = OptimizerStep {
        lr_bias: 0.02,
        lr_other: 0.02,
        momentum: 0.9,
        weight_decay: 0.0005,
    };
    optimizer.step(&step, None).expect("all have gradients");
    for ((name, before), entry) in before.iter().zip(network.state().entries()) {
        let is_finite = entry.tensor.isfinite().all().int64_value(&[]) == 1;
        assert!(is_finite, "{name} is not finite");
        let is_fixed = entry.role == crate::state::Role::Anchors;
        // Batch normalisation takes away what a constant before it adds.
        let cancels = name == "model.14.bias";
        assert!(
            is_fixed || cancels || !before.equal(&entry.tensor),
            "{name} did not change"
        );
    }
    network.evaluate(&images).expect("64 pixels");
}
