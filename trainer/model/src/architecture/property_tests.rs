use proptest::prelude::*;

use super::plan::tests::model;
use crate::architecture::Architecture;
use crate::network::{Network, NetworkOptions};
use crate::testing::{custom, images};

/// Arguments that mostly make sense.
fn argument() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => (1..40_u32).prop_map(|number| number.to_string()),
        3 => Just("1".to_owned()),
        3 => Just("2".to_owned()),
        1 => Just("None".to_owned()),
        1 => Just("True".to_owned()),
        1 => Just("False".to_owned()),
        1 => Just("0.5".to_owned()),
        1 => Just("[3, 5]".to_owned()),
        1 => Just("nearest".to_owned()),
        1 => Just("nn.Hardswish()".to_owned()),
        1 => Just("-7".to_owned()),
    ]
}

fn row() -> impl Strategy<Value = String> {
    let module = prop::sample::select(vec![
        "Conv",
        "DWConv",
        "Focus",
        "CrossConv",
        "Bottleneck",
        "BottleneckCSP",
        "C3",
        "C3x",
        "C3TR",
        "C3Ghost",
        "C3SPP",
        "SPP",
        "SPPF",
        "GhostConv",
        "GhostBottleneck",
        "Contract",
        "Expand",
        "nn.Upsample",
        "nn.MaxPool2d",
        "nn.AvgPool2d",
        "nn.Conv2d",
        "nn.BatchNorm2d",
        "Concat",
        "nn.ReLU",
        "nn.ELU",
        "Identity",
    ]);
    let arguments = prop::collection::vec(argument(), 0..4);
    (-2..3_i32, 1..4_u32, module, arguments).prop_map(|(from, number, module, arguments)| {
        let from = if from < 0 { from } else { -1 };
        format!("[{from}, {number}, {module}, [{}]]", arguments.join(", "))
    })
}

/// Rows that all fit: each keeps the channels, or says which it wants.
fn sound_row() -> impl Strategy<Value = String> {
    let one = |module: &'static str| Just(module.to_owned());
    let made = |form: &'static str| {
        (1..4_u32, 1..4_u32).prop_map(move |(channels, number)| {
            form.replace("C,", &format!("{},", 8 * channels))
                .replace("C]", &format!("{}]", 8 * channels))
                .replace('N', &number.to_string())
        })
    };
    prop_oneof![
        made("[-1, 1, Conv, [C, 3]]"),
        made("[-1, 1, Conv, [C, 3, 2]]"),
        made("[-1, 1, DWConv, [C, 5]]"),
        made("[-1, 1, CrossConv, [C, 3]]"),
        made("[-1, 1, Bottleneck, [C]]"),
        made("[-1, N, BottleneckCSP, [C]]"),
        made("[-1, N, C3, [C, False]]"),
        made("[-1, N, C3x, [C]]"),
        made("[-1, N, C3TR, [C]]"),
        made("[-1, N, C3Ghost, [C]]"),
        made("[-1, 1, C3SPP, [C]]"),
        made("[-1, 1, SPP, [C]]"),
        made("[-1, 1, SPPF, [C]]"),
        made("[-1, 1, GhostConv, [C, 3]]"),
        made("[-1, 1, nn.Conv2d, [C, 3, 1, 1]]"),
        one("[-1, 1, nn.BatchNorm2d, []]"),
        one("[-1, 2, nn.LeakyReLU, [0.1]]"),
        one("[[-1], 1, Concat, [1]]"),
        one("[-1, 1, nn.MaxPool2d, [3, 1, 1]]"),
    ]
}

fn file(rows: &[String]) -> String {
    let mut all = rows.to_vec();
    all.push("[-1, 1, Detect, [nc, anchors]]".to_owned());
    format!(
        "anchors: [[10, 13, 33, 23]]\nbackbone: [[-1, 1, Conv, [16, 3, 2]]]\nhead: [{}]\n",
        all.join(", ")
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 240, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_planner_panic(text in "[-a-zA-Z0-9:,\\[\\]\\n .#'\"{}&*!|>%@]{0,200}") {
        let _ = Architecture::of(&model(&text), Some(3));
    }

    #[test]
    fn no_rows_make_the_planner_panic(rows in prop::collection::vec(row(), 0..8)) {
        let planned = Architecture::of(&model(&file(&rows)), Some(3));
        if let Err(error) = planned {
            // Every refusal names the layer or the key and what to write instead.
            prop_assert!(error.to_string().contains(':') || error.to_string().contains("head"), "{error}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sound_rows_make_networks_that_compute(rows in prop::collection::vec(sound_row(), 0..5)) {
        let planned = custom(&file(&rows));
        let side = i64::from(planned.multiple()) * 2;
        let network = Network::initialised(&NetworkOptions::of(planned), 1).expect("memory");
        let raw = network.train(&images(2, side)).expect("planned");
        prop_assert!(raw[0].isfinite().all().int64_value(&[]) == 1);
        network.evaluate(&images(1, side)).expect("planned");
    }
}
