use super::*;
use contract::spec::ModelSize;

fn of_size(size: ModelSize, classes: usize) -> Arc<Architecture> {
    let model = Model {
        size: Some(size),
        ..Model::default()
    };
    Architecture::of(&model, Some(classes)).expect("valid")
}

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
        let architecture = of_size(size, 80);
        let trainable = architecture.slots(Form::Trainable);
        let got = (
            parameters(&trainable),
            parameters(&architecture.slots(Form::Fused)),
            trainable.len(),
        );
        assert_eq!((unfused, fused, entries), got, "{size:?}");
    }
}

/// The published counts of the sizes with four levels are those after folding.
#[test]
fn sizes_with_four_levels_have_the_parameters_of_yolov5() {
    let golden = [
        (ModelSize::N6, 3_246_940, 3_239_884),
        (ModelSize::S6, 12_626_620, 12_612_508),
        (ModelSize::M6, 35_731_932, 35_704_908),
        (ModelSize::L6, 76_770_172, 76_726_332),
        (ModelSize::X6, 140_794_780, 140_730_220),
    ];
    for (size, unfused, fused) in golden {
        let architecture = of_size(size, 80);
        assert_eq!(34, architecture.layers().len());
        let count = |form| parameters(&architecture.slots(form));
        let got = (count(Form::Trainable), count(Form::Fused));
        assert_eq!((unfused, fused), got, "{size:?}");
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
    for (column, size) in ModelSize::ALL[..5].iter().enumerate() {
        let architecture = of_size(*size, 80);
        assert_eq!(25, architecture.layers().len());
        for index in 0..25 {
            let of_layer = architecture.slots_of(index, Form::Trainable);
            let prefix = format!("model.{index}.");
            assert!(of_layer.iter().all(|slot| slot.name.starts_with(&prefix)));
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
    let all = of_size(ModelSize::S, 80).slots(Form::Trainable);
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
    let all = of_size(ModelSize::N, 80).slots(Form::Trainable);
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

/// Billions of operations of the convolutions, after folding, for an image of 640 pixels (YOLOv5 v7.0).
#[test]
fn golden_work_of_the_sizes() {
    let golden = [
        (ModelSize::N, 4.468),
        (ModelSize::S, 16.434),
        (ModelSize::M, 48.872),
        (ModelSize::L, 108.994),
        (ModelSize::X, 205.448),
    ];
    for (size, want) in golden {
        let traced = of_size(size, 80).trace(640, 640).expect("a multiple of 32");
        let all = traced.iter().map(|traced| traced.work.0).sum();
        assert!(
            (Work(all).gflops() - want).abs() < 5e-4,
            "{size:?}: {}",
            Work(all).gflops()
        );
    }
}

#[test]
fn golden_work_of_the_layers() {
    let golden = [
        (
            ModelSize::S,
            [
                0.708, 0.944, 0.944, 0.944, 1.468, 0.944, 1.992, 0.944, 0.944, 0.524, 0.105, 0.0,
                0.0, 1.153, 0.105, 0.0, 0.0, 1.153, 0.472, 0.0, 0.944, 0.472, 0.0, 0.944, 0.731,
            ],
        ),
        (
            ModelSize::N,
            [
                0.354, 0.236, 0.236, 0.236, 0.367, 0.236, 0.498, 0.236, 0.236, 0.131, 0.026, 0.0,
                0.0, 0.288, 0.026, 0.0, 0.0, 0.288, 0.118, 0.0, 0.236, 0.118, 0.0, 0.236, 0.366,
            ],
        ),
    ];
    for (size, want) in golden {
        let traced = of_size(size, 80).trace(640, 640).expect("a multiple of 32");
        for (index, (want, traced)) in want.into_iter().zip(traced).enumerate() {
            let got = traced.work.gflops();
            assert!((got - want).abs() < 6e-4, "{size:?} layer {index}: {got}");
        }
    }
}

#[test]
fn the_family_has_yolov5s_strides_and_anchors() {
    use trainer_core::anchors::DEFAULT_ANCHORS;
    let small = of_size(ModelSize::S, 3);
    let strides = |architecture: &Architecture| {
        let levels = architecture.levels().iter();
        levels.map(|level| level.stride).collect::<Vec<_>>()
    };
    assert_eq!([8, 16, 32], strides(&small)[..]);
    assert_eq!(DEFAULT_ANCHORS.as_flattened(), small.anchors());
    let cells = small.anchors_in_cells();
    assert_eq!([1.25, 1.625, 2.0, 3.75], cells[..4]);
    assert_eq!([373.0 / 32.0, 326.0 / 32.0], cells[16..]);
    let large = of_size(ModelSize::S6, 3);
    assert_eq!([8, 16, 32, 64], strides(&large)[..]);
    assert_eq!([925.0 / 64.0, 792.0 / 64.0], large.anchors_in_cells()[22..]);
    for size in ModelSize::ALL {
        let architecture = of_size(size, 1);
        assert_eq!(size.largest_stride(), architecture.multiple(), "{size:?}");
        assert_eq!(size.levels(), architecture.levels().len(), "{size:?}");
    }
}

#[test]
fn members_of_the_family_are_known_by_their_text() {
    for size in ModelSize::ALL {
        let text = builtin::document(size);
        assert_eq!(Some(size), Architecture::family_of(&text));
        let other_classes = format!("nc: 7\n{text}");
        assert_eq!(Some(size), Architecture::family_of(&other_classes));
        let wider = text.replacen("[1024, 3, 2]", "[1000, 3, 2]", 1);
        assert_eq!(None, Architecture::family_of(&wider));
    }
    assert_eq!(None, Architecture::family_of("nothing"));
}
