use super::*;
use crate::testing::{difference, images, small};
use contract::spec::ModelSize;
use std::collections::BTreeMap;
use tch::{Device, Kind};

fn double(size: ModelSize, layout: Layout) -> NetworkOptions {
    NetworkOptions {
        kind: Kind::Double,
        layout,
        ..NetworkOptions::new(size, 80)
    }
}

/// The values for which YOLOv5 v7.0's results are known: with k the place of a name among the sorted
/// ones and j the flat index, all tensors are functions of sin(0.1 j + k).
fn golden_state(network: &Network) -> BTreeMap<String, Tensor> {
    let mut state: BTreeMap<String, Tensor> = network
        .state()
        .export()
        .expect("readable")
        .into_iter()
        .collect();
    let filled = state
        .iter_mut()
        .filter(|(name, _)| !name.ends_with("num_batches_tracked") && !name.ends_with("anchors"));
    for (rank, (name, tensor)) in filled.enumerate() {
        let index = Tensor::arange(tensor.numel() as i64, (Kind::Double, Device::Cpu));
        let wave = (index * 0.1 + rank as f64).sin().view(&*tensor.size());
        *tensor = match &tensor.size()[..] {
            _ if name.ends_with("running_var") => wave * 0.5 + 1.0,
            _ if name.ends_with("bn.weight") => wave * 0.2 + 1.0,
            [_, input, height, width] => wave * (2.0 / (input * height * width) as f64).sqrt(),
            _ => wave * 0.1,
        };
    }
    state
}

fn golden_network(layout: Layout) -> Network {
    let mut network = Network::blank(&double(ModelSize::N, layout)).expect("memory for n");
    let state = golden_state(&network);
    network
        .state_mut()
        .import(&state)
        .expect("same names and shapes");
    network
}

fn golden_images() -> Tensor {
    waves(64)
}

fn waves(side: i64) -> Tensor {
    let wave = Tensor::arange(3 * side * side, (Kind::Double, Device::Cpu)) * 0.01;
    (wave.sin() * 0.5 + 0.5).view([1, 3, side, side])
}

#[track_caller]
fn check_golden(evaluated: &Evaluated) {
    let close = |want: f64, got: f64| {
        assert!(
            (got - want).abs() < 1e-6 * want.abs().max(1.0),
            "{got} is not {want}"
        );
    };
    let Evaluated { decoded, raw } = evaluated;
    assert_eq!([1, 252, 85], decoded.size()[..]);
    close(48_193.687_717, decoded.sum(Kind::Double).double_value(&[]));
    let first = [
        2.603_949_4,
        2.851_802_7,
        7.912_484_49,
        11.102_561_15,
        0.479_904_03,
        0.497_970_76,
    ];
    let last = [
        57.768_240_46,
        56.592_779_04,
        515.942_590_14,
        356.135_828_21,
        0.453_388_66,
        0.397_695_38,
    ];
    for (row, want) in [(0, first), (251, last)] {
        for (column, want) in want.into_iter().enumerate() {
            close(want, decoded.double_value(&[0, row, column as i64]));
        }
    }
    for (raw, want) in raw.iter().zip([69.408_466, 49.831_275, 1.788_557]) {
        close(want, raw.sum(Kind::Double).double_value(&[]));
    }
}

#[test]
fn golden_forward_of_n() {
    for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
        check_golden(
            &golden_network(layout)
                .evaluate(&golden_images())
                .expect("64 pixels"),
        );
    }
}

#[test]
fn a_fused_network_gives_the_golden_forward_too() {
    let fused = golden_network(Layout::ChannelsLast)
        .fuse()
        .expect("same architecture");
    assert_eq!(1_867_405, fused.state().parameter_count());
    check_golden(&fused.evaluate(&golden_images()).expect("64 pixels"));
}

/// The numbers are those of `yolov5` 7.0.14 with `augment=True`.
#[test]
fn golden_test_time_augmentation() {
    let network = golden_network(Layout::ChannelsLast);
    #[rustfmt::skip]
    let golden = [
        (64, 552, 120_788.187_895_005_58,
            [19.513_034_225_311_856, 44.509_115_688_640_684, 15.069_093_033_944_034, 0.557_074_387_739_396_3],
            [86.221_256_690_970_63, 84.466_835_379_482_19, 770.063_551_590_447_9, 0.453_388_626_207_131_67]),
        (160, 3315, 1_008_301.103_381_924_2,
            [-9.876_348_045_202_462, 73.497_643_715_086_72, 15.227_747_722_691_669, 0.558_215_545_923_260_8],
            [181.747_881_040_406_16, 179.991_074_570_989_18, 770.034_076_645_648_7, 0.453_326_461_923_508_5]),
    ];
    for (side, rows, sum, middle, last) in golden {
        let evaluated = network
            .evaluate_augmented(&waves(side))
            .expect("a multiple");
        let decoded = evaluated.decoded;
        assert_eq!([1, rows, 85], decoded.size()[..]);
        let close = |want: f64, got: f64| {
            assert!(
                (got - want).abs() < 1e-8 * want.abs(),
                "{got} is not {want}"
            );
        };
        close(sum, decoded.sum(Kind::Double).double_value(&[]));
        for (row, values) in [(rows / 2, middle), (rows - 1, last)] {
            for (column, want) in [0, 1, 2, 4].into_iter().zip(values) {
                close(want, decoded.double_value(&[0, row, column]));
            }
        }
        assert_eq!(side / 8, evaluated.raw[0].size()[2]);
    }
}

/// Evaluates one image of 64 pixels; `sides` are those of the grids.
#[track_caller]
fn check_shapes(size: ModelSize, sides: &[i64]) {
    let options = NetworkOptions::new(size, 2);
    let network = Network::initialised(&options, 1).expect("memory");
    let evaluated = network.evaluate(&images(1, 64)).expect("64 pixels");
    let rows = sides.iter().map(|side| 3 * side * side).sum::<i64>();
    assert_eq!([1, rows, 7], evaluated.decoded.size()[..], "{size:?}");
    let shapes: Vec<_> = evaluated.raw.iter().map(Tensor::size).collect();
    let want: Vec<_> = sides
        .iter()
        .map(|side| vec![1, 3, *side, *side, 7])
        .collect();
    assert_eq!(want, shapes, "{size:?}");
    assert!(
        evaluated.decoded.isfinite().all().int64_value(&[]) == 1,
        "{size:?}"
    );
}

#[test]
fn every_size_of_three_levels_predicts_in_the_right_shapes() {
    for size in ModelSize::ALL.into_iter().filter(|size| size.levels() == 3) {
        check_shapes(size, &[8, 4, 2]);
    }
}

#[test]
fn a_fourth_level_predicts_in_the_right_shapes() {
    check_shapes(ModelSize::N6, &[8, 4, 2, 1]);
}

#[test]
fn images_need_not_be_square() {
    let network = Network::initialised(&small(), 1).expect("memory");
    let wide = Tensor::zeros([2, 3, 32, 96], (Kind::Float, Device::Cpu));
    let evaluated = network.evaluate(&wide).expect("multiples of 32");
    assert_eq!(
        [2, 3 * (4 * 12 + 2 * 6 + 3), 8],
        evaluated.decoded.size()[..]
    );
}

#[test]
fn other_images_are_refused() {
    let network = Network::blank(&small()).expect("memory");
    for shape in [
        &[1, 3, 65, 64][..],
        &[1, 1, 64, 64],
        &[3, 64, 64],
        &[1, 3, 0, 64],
    ] {
        let images = Tensor::zeros(shape, (Kind::Float, Device::Cpu));
        assert!(
            matches!(network.evaluate(&images), Err(Error::ImageShape { shape: s, multiple: 32 }) if s == shape)
        );
    }
}

/// Evaluation treats images alone; also says that a batch's size does not choose another algorithm
/// with visibly different rounding.
#[test]
fn a_batch_is_its_images() {
    let network = Network::initialised(&small(), 1).expect("memory");
    let images = images(3, 64);
    let batch = network.evaluate(&images).expect("64 pixels").decoded;
    for image in 0..3 {
        let single = network
            .evaluate(&images.narrow(0, image, 1))
            .expect("64 pixels")
            .decoded;
        assert!(difference(&single, &batch.narrow(0, image, 1)) < 1e-3);
    }
}

#[test]
fn seeds_decide_initial_values() {
    let network = |seed| Network::initialised(&small(), seed).expect("memory");
    assert!(network(1).state().same_as(network(1).state()));
    assert!(!network(1).state().same_as(network(2).state()));
    let first = NetworkOptions {
        layout: Layout::ChannelsFirst,
        ..small()
    };
    let first = Network::initialised(&first, 1).expect("memory");
    assert!(
        first.state().same_as(network(1).state()),
        "the layout changed initial values"
    );
}

#[test]
fn training_moves_running_statistics_by_the_batch() {
    let network = Network::initialised(&small(), 1).expect("memory");
    let images = images(2, 64);
    network.train(&images).expect("64 pixels");
    network.train(&images).expect("64 pixels");

    let value = |name: &str| {
        network
            .state()
            .get(name)
            .expect("a name of n")
            .tensor
            .shallow_clone()
    };
    // The first normalisation sees the convolution of the images, whatever it is itself.
    let convolved = images
        .conv2d(
            &value("model.0.conv.weight"),
            None::<Tensor>,
            [2],
            [2],
            [1],
            1,
        )
        .detach();
    let (variance, mean) = convolved.var_mean_dim([0, 2, 3].as_slice(), true, false);
    let kept = 0.97 * 0.97;
    let want_mean = mean * (1.0 - kept);
    let want_variance = variance * (1.0 - kept) + kept;
    assert!(difference(&value("model.0.bn.running_mean"), &want_mean) < 1e-5);
    assert!(difference(&value("model.0.bn.running_var"), &want_variance) < 1e-5);
    for entry in network
        .state()
        .entries()
        .iter()
        .filter(|entry| entry.role == Role::Counter)
    {
        assert_eq!(2, entry.tensor.int64_value(&[]), "{}", entry.name);
    }
    assert_eq!(57, network.state().counters().numel());

    let before = network.state().export().expect("readable");
    network.evaluate(&images).expect("64 pixels");
    for ((name, before), entry) in before.iter().zip(network.state().entries()) {
        assert!(before.equal(&entry.tensor), "evaluation changed {name}");
    }
}

#[test]
fn pixels_become_input_in_the_networks_layout() {
    let pixels = Tensor::arange(3 * 64 * 32, (Kind::Int64, Device::Cpu)).to_kind(Kind::Uint8);
    let interleaved = pixels.view([1, 64, 32, 3]).permute([0, 3, 1, 2]);
    for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
        let network = Network::blank(&NetworkOptions { layout, ..small() }).expect("memory");
        for pixels in [interleaved.shallow_clone(), interleaved.contiguous()] {
            let input = network.input(&pixels).expect("64 by 32");
            assert_eq!(Kind::Float, input.kind());
            assert_eq!(
                layout == Layout::ChannelsLast,
                torch_bridge::is_channels_last(&input),
                "{layout:?}"
            );
            let want = pixels.to_kind(Kind::Float) / 255.0;
            assert_eq!(0.0, difference(&input, &want));
        }
    }
}

/// Both layouts compute the same sums in another order.
#[test]
fn gradients_do_not_depend_on_layout() {
    let gradient = |layout| {
        let options = NetworkOptions {
            kind: Kind::Double,
            layout,
            ..small()
        };
        let network = Network::initialised(&options, 1).expect("memory");
        let images = images(2, 64).to_kind(Kind::Double);
        let raw = network.train(&images).expect("64 pixels");
        let sum = raw
            .iter()
            .map(|raw| raw.square().sum(Kind::Double))
            .sum::<Tensor>();
        sum.backward();
        let parameters = network.state().parameter_tensors();
        parameters.iter().map(Tensor::grad).collect::<Vec<_>>()
    };
    let last = gradient(Layout::ChannelsLast);
    for (a, b) in gradient(Layout::ChannelsFirst).iter().zip(&last) {
        let scale = a.abs().max().double_value(&[]).max(1e-3);
        assert!(difference(a, b) < 1e-9 * scale);
    }
    assert!(
        torch_bridge::is_channels_last(&last[3]),
        "gradients lie as their parameters do"
    );
}

/// A trainer may hand these to another thread; none may be used by two at once.
#[test]
fn networks_and_what_belongs_to_them_can_move_to_other_threads() {
    fn check<T: Send>() {}
    check::<Network>();
    check::<FusedNetwork>();
    check::<crate::ema::Ema>();
    check::<crate::optim::Optimizer>();
    check::<crate::loss::LossTerms>();
    check::<Error>();
}
