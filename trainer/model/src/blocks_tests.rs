use super::activation::{activate, activate_own};
use super::*;
use crate::architecture::{Architecture, Form, HEADS, NORM_EPS, Slot};
use crate::blocks::scope::{Finder, Recorder};
use crate::network::{Network, NetworkOptions};
use crate::state::{Gradients, State};
use crate::testing::{ZOO, custom, difference, images};
use tch::{Device, Kind};

/// Numbers between -1 and 1, all different.
fn wave(shape: &[i64]) -> Tensor {
    let count = shape.iter().product::<i64>();
    let flat = Tensor::arange(count, (Kind::Double, Device::Cpu)) * 0.37;
    flat.sin().view(shape)
}

/// What the only layer of module `row` does with `x`, with weights between -0.3 and 0.3 that are all different;
/// and its tensors.
fn apply(row: &str, x: &Tensor, phase: Phase) -> (Tensor, State) {
    apply_with(row, x, phase, Gradients::Refused)
}

fn apply_with(row: &str, x: &Tensor, phase: Phase, gradients: Gradients) -> (Tensor, State) {
    let (architecture, slots, mut options) = single(row, x.size()[1]);
    options.kind = x.kind();
    let state = State::blank(&slots, &options, gradients).expect("memory");
    for (index, entry) in state.entries().iter().enumerate() {
        let values = wave(&entry.tensor.size()) * (0.3 + 0.01 * index as f64);
        let mut tensor = entry.tensor.shallow_clone();
        match entry.role {
            crate::state::Role::Counter => {}
            crate::state::Role::Statistic => tensor.copy_(&(values.abs() + 0.1)),
            _ => tch::no_grad(|| tensor.copy_(&values)),
        }
    }
    let mut finder = Finder {
        form: Form::Trainable,
        state: &state,
    };
    let layer = &architecture.layers()[LAYER];
    let blocks = Block::of_layer(&mut finder, LAYER, &layer.module, layer.repeats);
    let mut x = x.shallow_clone();
    for block in blocks.expect("all tensors") {
        x = block.forward(&[&x], phase).expect("it fits").remove(0);
    }
    (x, state)
}

/// Where [`single`] has the layer in question.
const LAYER: usize = 1;

/// A network around one row of module and arguments, whose input has `channels` channels.
fn single(row: &str, channels: i64) -> (std::sync::Arc<Architecture>, Vec<Slot>, NetworkOptions) {
    let architecture = custom(&format!(
        "anchors: [[10, 13]]\nbackbone: [[-1, 1, nn.Conv2d, [{channels}, 2, 2]], [-1, {row}]]\n\
         head: [[-1, 1, Detect, [nc, anchors]]]\n"
    ));
    let slots = architecture.slots_of(LAYER, Form::Trainable);
    let options = NetworkOptions {
        kind: Kind::Double,
        ..NetworkOptions::of(std::sync::Arc::clone(&architecture))
    };
    (architecture, slots, options)
}

#[test]
fn activations_are_libtorchs_and_their_formulas() {
    let x = Tensor::linspace(-8.0, 8.0, 1001, (Kind::Double, Device::Cpu));
    let softplus = (x.exp() + 1.0).log();
    let positive = x.clamp_min(0.0);
    let table: [(Activation, Tensor, Tensor); 9] = [
        (Activation::Silu, x.silu(), &x * x.sigmoid()),
        (Activation::Relu, x.relu(), positive.shallow_clone()),
        (Activation::Relu6, x.relu6(), x.clamp(0.0, 6.0)),
        (
            Activation::LeakyRelu(0.01),
            x.leaky_relu(),
            &positive + x.clamp_max(0.0) * 0.01,
        ),
        (
            Activation::Hardswish,
            x.hardswish(),
            &x * (&x + 3.0).clamp(0.0, 6.0) / 6.0,
        ),
        (Activation::Mish, x.mish(), &x * softplus.tanh()),
        (
            Activation::Gelu,
            x.gelu("none"),
            &x * ((&x / 2.0_f64.sqrt()).erf() + 1.0) * 0.5,
        ),
        (
            Activation::Elu(1.0),
            x.elu(),
            &positive + (x.clamp_max(0.0).exp() - 1.0),
        ),
        (Activation::Identity, x.copy(), x.copy()),
    ];
    for (activation, library, formula) in table {
        let got = activate(activation, &x).expect("numbers");
        assert!(got.equal(&library), "{activation:?}");
        assert!(difference(&got, &formula) < 1e-12, "{activation:?}");
        let own = activate_own(activation, x.copy()).expect("numbers");
        assert!(difference(&own, &got) < 1e-15, "{activation:?} in place");
    }
    let steep = activate(Activation::LeakyRelu(0.25), &x).expect("numbers");
    assert!(difference(&steep, &(&positive + x.clamp_max(0.0) * 0.25)) < 1e-15);
}

/// Every module of the zoo, alone: what the planner says of shapes is what comes out.
#[test]
fn shapes_are_as_planned() {
    let architecture = custom(ZOO);
    let options = NetworkOptions::of(std::sync::Arc::clone(&architecture));
    for (height, width) in [(64, 64), (96, 160)] {
        let traced = architecture.trace(height, width).expect("multiples of 16");
        for (index, layer) in architecture.layers().iter().enumerate() {
            let slots = architecture.slots_of(index, Form::Trainable);
            let state = State::blank(&slots, &options, Gradients::Refused).expect("memory");
            let mut finder = Finder {
                form: Form::Trainable,
                state: &state,
            };
            let blocks = Block::of_layer(&mut finder, index, &layer.module, layer.repeats);
            let image = [Shape::image(height, width)];
            let inputs: Vec<Tensor> = layer
                .from
                .iter()
                .map(|from| from.map_or(image[0], |from| traced[from].outputs[0]))
                .map(|shape| wave(&[1, shape.channels, shape.height, shape.width]))
                .map(|input| input.to_kind(Kind::Float))
                .collect();
            let mut outputs = inputs;
            for block in blocks.expect("all tensors") {
                let inputs: Vec<&Tensor> = outputs.iter().collect();
                outputs = block.forward(&inputs, Phase::Evaluation).expect("it fits");
            }
            let anchors = architecture.anchors_per_level() as i64;
            for (output, shape) in outputs.iter().zip(&traced[index].outputs) {
                let want = if layer.name == "Detect" {
                    let outputs = architecture.outputs_per_anchor();
                    vec![1, anchors, shape.height, shape.width, outputs]
                } else {
                    vec![1, shape.channels, shape.height, shape.width]
                };
                assert_eq!(want, output.size(), "layer {index} ({})", layer.name);
            }
        }
    }
}

/// Row, channels of its input, number of tensors, some of their names.
const NAMES: &str = "\
1, Focus, [8, 3] | 8 | 6 | conv.conv.weight conv.bn.running_mean
1, DWConv, [8, 3] | 8 | 6 | conv.weight bn.num_batches_tracked
1, CrossConv, [8] | 8 | 12 | cv1.conv.weight cv2.bn.bias
2, Bottleneck, [8] | 8 | 24 | 0.cv1.conv.weight 1.cv2.bn.bias
2, C3, [16] | 8 | 42 | cv1.conv.weight cv2.bn.bias cv3.bn.weight m.0.cv1.conv.weight m.1.cv2.bn.running_var
2, BottleneckCSP, [16] | 8 | 43 | cv1.conv.weight cv2.weight cv3.weight cv4.bn.bias bn.weight m.1.cv2.conv.weight
1, GhostConv, [16] | 8 | 12 | cv1.conv.weight cv2.conv.weight
1, GhostBottleneck, [16] | 16 | 24 | conv.0.cv1.conv.weight conv.2.cv2.bn.weight
1, GhostBottleneck, [16, 3, 2] | 8 | 42 | conv.1.conv.weight conv.2.cv1.bn.bias shortcut.0.conv.weight shortcut.1.bn.weight
2, C3Ghost, [16] | 8 | 66 | cv3.conv.weight m.0.conv.0.cv1.conv.weight m.1.conv.2.cv2.bn.bias
1, C3x, [16] | 8 | 30 | m.0.cv1.conv.weight m.0.cv2.bn.bias
1, C3TR, [16] | 8 | 29 | m.linear.weight m.linear.bias m.tr.0.q.weight m.tr.0.k.weight m.tr.0.v.weight
2, C3TR, [16] | 8 | 38 | m.tr.0.ma.in_proj_weight m.tr.0.ma.in_proj_bias m.tr.1.ma.out_proj.weight m.tr.1.ma.out_proj.bias m.tr.1.fc1.weight m.tr.1.fc2.weight
1, C3SPP, [16] | 8 | 30 | cv1.conv.weight m.cv1.conv.weight m.cv2.bn.weight
1, SPP, [16] | 8 | 12 | cv1.conv.weight cv2.conv.weight
1, nn.Conv2d, [16, 1] | 8 | 2 | weight bias
1, nn.BatchNorm2d, [] | 8 | 5 | weight bias running_mean running_var num_batches_tracked
";

#[test]
fn names_are_those_of_yolov5s_checkpoints() {
    for line in NAMES.lines() {
        let [row, channels, count, wanted] = line.split(" | ").collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let (_, slots, _) = single(row, channels.parse().expect(line));
        let has = |name: &str| {
            slots
                .iter()
                .any(|slot| slot.name == format!("model.1.{name}"))
        };
        for name in wanted.split(' ') {
            assert!(has(name), "{row} has no {name}: {slots:?}");
        }
        assert_eq!(count, slots.len().to_string(), "{row}");
    }
}

#[test]
fn a_slow_and_a_fast_pyramid_are_the_same() {
    let x = wave(&[2, 8, 16, 16]);
    let (slow, _) = apply("1, SPP, [8, [5, 9, 13]]", &x, Phase::Evaluation);
    let (fast, _) = apply("1, SPPF, [8, 5]", &x, Phase::Evaluation);
    assert!(slow.equal(&fast));
}

#[test]
fn contracting_and_expanding_undo_each_other() {
    let x = wave(&[2, 8, 4, 6]);
    let (small, _) = apply("1, Contract, [2]", &x, Phase::Evaluation);
    assert_eq!([2, 32, 2, 3], small.size()[..]);
    // Channel 8 of the result is channel 0 of every second column, from the second on.
    assert_eq!(
        x.double_value(&[1, 0, 2, 3]),
        small.double_value(&[1, 8, 1, 1])
    );
    let (back, _) = apply("1, Expand, [2]", &small, Phase::Evaluation);
    assert!(back.equal(&x));
}

/// The first convolution of early YOLOv5 networks sees four images of half the size.
#[test]
fn focus_is_a_convolution_of_every_second_cell() {
    let x = wave(&[1, 8, 4, 4]);
    let (got, state) = apply("1, Focus, [8, 1, 1, None, 1, False]", &x, Phase::Training);
    let every = |row: i64, column: i64| x.slice(2, row, None, 2).slice(3, column, None, 2);
    let parts = Tensor::cat(&[every(0, 0), every(1, 0), every(0, 1), every(1, 1)], 1);
    let value = |name: &str| {
        &state
            .get(&format!("model.1.conv.{name}"))
            .expect("named")
            .tensor
    };
    let convolved = parts.conv2d(value("conv.weight"), None::<Tensor>, [1], [0], [1], 1);
    let want = convolved.batch_norm(
        Some(value("bn.weight")),
        Some(value("bn.bias")),
        None::<&Tensor>,
        None,
        true,
        0.0,
        NORM_EPS,
        false,
    );
    assert!(difference(&got, &want) < 1e-12);
}

/// Attention written out cell by cell.
#[test]
fn the_transformer_attends_as_its_formula_says() {
    let (channels, cells, heads) = (8_i64, 6_i64, HEADS);
    let x = wave(&[1, channels, 2, 3]);
    let architecture = custom(
        "anchors: [[10, 13]]\nbackbone: [[-1, 1, nn.Conv2d, [8, 1]], [-1, 1, C3TR, [16]]]\n\
         head: [[-1, 1, Detect, [nc, anchors]]]\n",
    );
    let slots = architecture.slots_of(1, Form::Trainable);
    let options = NetworkOptions {
        kind: Kind::Double,
        ..NetworkOptions::of(std::sync::Arc::clone(&architecture))
    };
    let state = State::blank(&slots, &options, Gradients::Refused).expect("memory");
    for entry in state
        .entries()
        .iter()
        .filter(|entry| entry.role.is_parameter())
    {
        let phase = entry.name.len() as f64;
        let values = (wave(&entry.tensor.size()) * phase).sin() * 0.4;
        entry.tensor.shallow_clone().copy_(&values);
    }
    let mut finder = Finder {
        form: Form::Trainable,
        state: &state,
    };
    let mut scope = Scope::new(&mut finder, "model.1.m".to_owned());
    let transformer = transformer::Transformer::new(&mut scope, channels, 1).expect("all tensors");
    let got = transformer.forward(&x).expect("it fits");

    let value = |name: &str| {
        &state
            .get(&format!("model.1.m.{name}"))
            .expect("named")
            .tensor
    };
    let product = |x: &Tensor, name: &str| x.matmul(&value(name).tr());
    let p = x.view([channels, cells]).tr();
    let p = &p + product(&p, "linear.weight") + value("linear.bias");
    let mut inputs = Vec::new();
    for (part, name) in ["q", "k", "v"].into_iter().enumerate() {
        let rows = |tensor: &Tensor| tensor.narrow(0, part as i64 * channels, channels);
        let own = product(&p, &format!("tr.0.{name}.weight"));
        inputs.push(
            own.matmul(&rows(value("tr.0.ma.in_proj_weight")).tr())
                + rows(value("tr.0.ma.in_proj_bias")),
        );
    }
    let width = channels / heads;
    let mixed: Vec<Tensor> = (0..heads)
        .map(|head| {
            let part = |index: usize| inputs[index].narrow(1, head * width, width);
            let scores = part(0).matmul(&part(1).tr()) / (width as f64).sqrt();
            let weights = scores.exp();
            let weights = &weights / weights.sum_dim_intlist([1].as_slice(), true, Kind::Double);
            weights.matmul(&part(2))
        })
        .collect();
    let attention = product(&Tensor::cat(&mixed, 1), "tr.0.ma.out_proj.weight")
        + value("tr.0.ma.out_proj.bias");
    let y = &p + attention;
    let y = &y + product(&product(&y, "tr.0.fc1.weight"), "tr.0.fc2.weight");
    assert!(difference(&got, &y.tr().reshape([1, channels, 2, 3])) < 1e-12);
}

/// For every module with convolutions: folding normalisations changes nothing but rounding.
#[test]
fn fused_modules_give_what_trained_ones_do() {
    let rows = [
        "1, Conv, [16, 3, 2]",
        "1, Conv, [16, 3, 1, None, 4, 2]",
        "2, Conv, [8, [1, 3], 1]",
        "1, DWConv, [16, 5]",
        "1, Focus, [16, 3]",
        "1, CrossConv, [8, 3, 1, 2, 1.5, True]",
        "2, Bottleneck, [8, True, 2]",
        "2, BottleneckCSP, [16]",
        "2, C3, [16, True, 2]",
        "1, C3x, [16]",
        "2, C3TR, [16]",
        "2, C3Ghost, [16]",
        "1, C3SPP, [16]",
        "1, SPP, [16]",
        "1, SPPF, [16]",
        "1, GhostConv, [16, 3, 2, 2]",
        "2, GhostBottleneck, [8]",
        "1, GhostBottleneck, [16, 5, 2]",
        "1, nn.BatchNorm2d, []",
    ];
    for row in rows {
        let (_, _, options) = single(row, 8);
        check_fused(
            &NetworkOptions {
                kind: Kind::Float,
                ..options
            },
            row,
        );
    }
    check_fused(&NetworkOptions::of(custom(ZOO)), "the zoo");
}

#[track_caller]
fn check_fused(options: &NetworkOptions, what: &str) {
    let network = Network::initialised(options, 1).expect("memory");
    // Statistics and scales like those after some training.
    for entry in network.state().entries() {
        let values = wave(&entry.tensor.size()) * 0.5;
        let mut tensor = entry.tensor.detach();
        match entry.name.rsplit('.').next() {
            Some("running_mean") => tensor.copy_(&values),
            Some("running_var") => tensor.copy_(&(values + 1.0)),
            Some("weight") if entry.role == crate::state::Role::Norm => {
                tensor.copy_(&(values + 1.0));
            }
            _ => {}
        }
    }
    let images = images(2, 64);
    let trained = network.evaluate(&images).expect("64 pixels");
    let fused = network.fuse().expect("the same architecture");
    let folded = fused.evaluate(&images).expect("64 pixels");
    for (trained, folded) in trained.raw.iter().zip(&folded.raw) {
        assert!(
            trained.abs().max().double_value(&[]) > 1e-3,
            "{what} gives nothing"
        );
        let error = difference(trained, folded);
        assert!(error < 1e-4, "{what} differs by {error}");
    }
    assert!(
        !fused
            .state()
            .entries()
            .iter()
            .any(|entry| entry.name.ends_with(".conv.weight")
                && fused
                    .state()
                    .get(&entry.name.replace("conv.weight", "conv.bias"))
                    .is_none()),
        "{what} has a convolution without the bias of its normalisation"
    );
}

/// In float32 with the channels of a pixel next to each other it is computed with fewer walks through memory, in float64
/// part by part.
#[test]
fn a_c3_that_trains_is_the_sum_of_its_parts() {
    let pixels = wave(&[2, 16, 5, 7]);
    for row in [
        "3, C3, [16]",
        "1, C3, [16]",
        "2, C3, [16, False]",
        "2, C3x, [16]",
        "1, C3Ghost, [16]",
    ] {
        let trained = |kind: Kind| {
            let x = torch_bridge::contiguous_channels_last(&pixels.to_kind(kind));
            let x = x.expect("four dimensions").set_requires_grad(true);
            let (out, state) = apply_with(row, &x, Phase::Training, Gradients::Collected);
            let weights = wave(&out.size()).to_kind(kind);
            (&out * weights).sum(kind).backward();
            (out.detach(), x.grad(), state)
        };
        let (out, grad, state) = trained(Kind::Float);
        let (expected, expected_grad, expected_state) = trained(Kind::Double);
        let close = |actual: &Tensor, expected: &Tensor, what: &str| {
            let difference = difference(&actual.to_kind(Kind::Double), expected);
            let most = expected.abs().max().double_value(&[]).max(1.0);
            assert!(difference <= 2e-5 * most, "{row}: {what}: {difference:.1e}");
        };
        close(&out, &expected, "output");
        close(&grad, &expected_grad, "gradient of the input");
        for (ours, theirs) in state.entries().iter().zip(expected_state.entries()) {
            close(&ours.tensor.detach(), &theirs.tensor.detach(), &ours.name);
            if theirs.tensor.requires_grad() {
                close(&ours.tensor.grad(), &theirs.tensor.grad(), &ours.name);
            }
        }
    }
}

#[test]
fn a_block_says_which_tensor_is_missing() {
    let (architecture, slots, options) = single("1, C3, [16]", 8);
    let state = State::blank(&slots[1..], &options, Gradients::Refused).expect("memory");
    let mut finder = Finder {
        form: Form::Trainable,
        state: &state,
    };
    let error = Block::of_layer(&mut finder, LAYER, &architecture.layers()[LAYER].module, 1);
    let Err(Error::StateMissing { name }) = error else {
        panic!("all tensors were found");
    };
    assert_eq!("model.1.cv1.conv.weight", name);
    let mut recorder = Recorder {
        form: Form::Trainable,
        slots: Vec::new(),
    };
    let module = &architecture.layers()[LAYER].module;
    Block::of_layer(&mut recorder, LAYER, module, 1).expect("a recorder refuses nothing");
    assert_eq!(slots, recorder.slots);
}
