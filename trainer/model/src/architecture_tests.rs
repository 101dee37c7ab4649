use super::*;

fn parameters(slots: &[Slot]) -> u64 {
    slots
        .iter()
        .filter(|slot| slot.role.is_parameter())
        .map(Slot::len)
        .sum()
}

#[test]
fn sizes_have_the_parameters_of_yolov5() {
    let golden = [
        (ModelSize::N, 1_872_157, 1_867_405, 349),
        (ModelSize::S, 7_235_389, 7_225_885, 349),
        (ModelSize::M, 21_190_557, 21_172_173, 481),
        (ModelSize::L, 46_563_709, 46_533_693, 613),
        (ModelSize::X, 86_749_405, 86_705_005, 745),
    ];
    for (size, unfused, fused, entries) in golden {
        let layers = layers(size, 80);
        let trainable = slots(&layers, Form::Trainable);
        let got = (
            parameters(&trainable),
            parameters(&slots(&layers, Form::Fused)),
            trainable.len(),
        );
        assert_eq!((unfused, fused, entries), got, "{size:?}");
    }
}

/// Rows are layers, columns the sizes n, s, m, l, x; YOLOv5 v7.0 with 80 classes.
const PER_LAYER: [(usize, [u64; 5]); 19] = [
    (0, [1760, 3520, 5280, 7040, 8800]),
    (1, [4672, 18560, 41664, 73984, 115_520]),
    (2, [4800, 18816, 65280, 156_928, 309_120]),
    (3, [18560, 73984, 166_272, 295_424, 461_440]),
    (4, [29184, 115_712, 444_672, 1_118_208, 2_259_200]),
    (5, [73984, 295_424, 664_320, 1_180_672, 1_844_480]),
    (6, [156_928, 625_152, 2_512_896, 6_433_792, 13_125_120]),
    (7, [295_424, 1_180_672, 2_655_744, 4_720_640, 7_375_360]),
    (8, [296_448, 1_182_720, 4_134_912, 9_971_712, 19_676_160]),
    (9, [164_608, 656_896, 1_476_864, 2_624_512, 4_099_840]),
    (10, [33024, 131_584, 295_680, 525_312, 820_480]),
    (13, [90880, 361_984, 1_182_720, 2_757_632, 5_332_480]),
    (14, [8320, 33024, 74112, 131_584, 205_440]),
    (17, [22912, 90880, 296_448, 690_688, 1_335_040]),
    (18, [36992, 147_712, 332_160, 590_336, 922_240]),
    (20, [74496, 296_448, 1_035_264, 2_495_488, 4_922_880]),
    (21, [147_712, 590_336, 1_327_872, 2_360_320, 3_687_680]),
    (23, [296_448, 1_182_720, 4_134_912, 9_971_712, 19_676_160]),
    (24, [115_005, 229_245, 343_485, 457_725, 571_965]),
];

#[test]
fn layers_have_the_parameters_of_yolov5() {
    for (column, size) in ModelSize::ALL.into_iter().enumerate() {
        let all = slots(&layers(size, 80), Form::Trainable);
        for index in 0..25 {
            let prefix = format!("model.{index}.");
            let of_layer: Vec<Slot> = all
                .iter()
                .filter(|slot| slot.name.starts_with(&prefix))
                .cloned()
                .collect();
            let golden = PER_LAYER
                .iter()
                .find(|row| row.0 == index)
                .map_or(0, |row| row.1[column]);
            assert_eq!(golden, parameters(&of_layer), "{size:?} layer {index}");
        }
    }
}

#[test]
fn roles_split_as_in_yolov5s() {
    let all = slots(&layers(ModelSize::S, 80), Form::Trainable);
    let count = |role| all.iter().filter(|slot| slot.role == role).count();
    assert_eq!(60, count(Role::Bias));
    assert_eq!(60, count(Role::Weight));
    assert_eq!(57, count(Role::Norm));
    assert_eq!(
        177,
        all.iter().filter(|slot| slot.role.is_parameter()).count()
    );
    assert_eq!(
        172,
        all.iter().filter(|slot| !slot.role.is_parameter()).count()
    );
    assert_eq!(57, count(Role::Counter));
}

#[test]
fn names_are_yolov5s_and_unique() {
    let all = slots(&layers(ModelSize::N, 80), Form::Trainable);
    let mut names: Vec<&str> = all.iter().map(|slot| slot.name.as_str()).collect();
    for name in [
        "model.0.conv.weight",
        "model.0.bn.running_var",
        "model.4.m.1.cv2.bn.num_batches_tracked",
        "model.9.cv2.conv.weight",
        "model.23.cv3.bn.bias",
        "model.24.anchors",
        "model.24.m.2.bias",
    ] {
        assert!(names.contains(&name), "{name}");
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(349, names.len());
}

#[test]
fn every_layer_takes_earlier_outputs_of_the_right_width() {
    for size in ModelSize::ALL {
        let layers = layers(size, 3);
        let mut widths: Vec<i64> = Vec::new();
        for (index, layer) in layers.iter().enumerate() {
            let inputs: Vec<i64> = layer
                .from
                .iter()
                .map(|from| from.map_or(3, |from| widths[from]))
                .collect();
            let (wanted, output) = match &layer.module {
                Module::Conv(conv) => (vec![conv.input], conv.output),
                Module::C3 { input, output, .. } | Module::Sppf { input, output } => {
                    (vec![*input], *output)
                }
                Module::Upsample | Module::Concat => (inputs.clone(), inputs.iter().sum()),
                Module::Detect { inputs, .. } => (inputs.to_vec(), 0),
            };
            assert_eq!(wanted, inputs, "{size:?} layer {index}");
            widths.push(output);
        }
    }
}
