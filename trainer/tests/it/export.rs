//! Trained weights as files for other programs.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use flate2::read::DeflateDecoder;
use tch::{CModule, Device, Kind, Tensor};
use trainer::checkpoint;
use trainer::weights::{self, WeightsInfo};
use trainer_model::network::{Network, NetworkOptions};

use crate::harness::{Ended, ended, program};

/// Made by `tests/parity/formats_testdata.py`.
const CHECKPOINT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/formats/testdata/yolov5.pt");

fn run(weights: &Path, format: &str, output: &Path, more: &[&str]) -> Ended {
    let mut command = program();
    command
        .args(["export", "--format", format, "--weights"])
        .arg(weights);
    command.arg("--output").arg(output).args(more);
    ended(command.output().expect("ran"))
}

#[track_caller]
fn exported(folder: &tempfile::TempDir, format: &str, more: &[&str]) -> PathBuf {
    let path = folder.path().join(format!("w{}.{format}", more.len()));
    let done = run(Path::new(CHECKPOINT), format, &path, more);
    assert_eq!(Some(0), done.code, "{}", done.text);
    path
}

fn image() -> Tensor {
    let numbers = Tensor::arange(3 * 96 * 96, (Kind::Float, Device::Cpu));
    ((numbers * 0.01).sin() * 0.5 + 0.5).view([1, 3, 96, 96])
}

fn predicted(path: &Path) -> (Tensor, WeightsInfo) {
    let (network, info) = weights::load(path, Device::Cpu).expect("loaded");
    (network.evaluate(&image()).expect("evaluated").decoded, info)
}

#[test]
fn pt_and_safetensors_hold_the_same_network() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (expected, info) = predicted(Path::new(CHECKPOINT));
    for format in ["pt", "safetensors"] {
        let (found, told) = predicted(&exported(&folder, format, &[]));
        assert!(found.equal(&expected), "{format}");
        assert_eq!((&info.names, info.nc), (&told.names, told.nc), "{format}");
        let pixels = |info: &WeightsInfo| {
            let model = trainer_model::architecture::Architecture::of(&info.model, Some(info.nc));
            model.expect("valid").anchors()
        };
        assert_eq!(pixels(&info), pixels(&told), "{format}");
    }
}

/// The program in a file of `TorchScript`, whose texts are compressed.
fn program_text(bytes: &[u8]) -> String {
    let mut text = String::new();
    let starts = bytes
        .windows(4)
        .enumerate()
        .filter(|(_, window)| *window == b"PK\x03\x04");
    for (at, _) in starts {
        let number = |from: usize| {
            let bytes = [bytes[at + from], bytes[at + from + 1]];
            usize::from(u16::from_le_bytes(bytes))
        };
        let name = at + 30;
        let content = name + number(26) + number(28);
        let is_deflated = number(8) == 8;
        if is_deflated && bytes[name..name + number(26)].ends_with(b".py") {
            let mut content = DeflateDecoder::new(&bytes[content..]);
            content.read_to_string(&mut text).expect("text");
        }
    }
    text
}

/// A file that makes tensors on a CPU cannot be loaded onto a GPU.
#[test]
fn torchscript_names_no_device() {
    let folder = tempfile::tempdir().expect("temporary folder");
    for more in [&[][..], &["--no-fuse"]] {
        let bytes = std::fs::read(exported(&folder, "torchscript", more)).expect("readable");
        let text = program_text(&bytes);
        assert!(text.contains("sigmoid"), "{text}");
        assert!(!text.contains("device"), "{text}");
    }
}

#[test]
fn torchscript_predicts_the_same_and_says_what_it_is() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (expected, _) = predicted(Path::new(CHECKPOINT));
    let compared = |more: &[&str]| {
        let path = exported(&folder, "torchscript", more);
        let module = CModule::load(&path).expect("loaded");
        let found = module.forward_ts(&[image()]).expect("ran");
        let difference = (found - &expected).abs().max() / expected.abs().max();
        assert!(difference.double_value(&[]) < 1e-6, "{more:?}");
        path
    };
    compared(&["--no-fuse"]);
    let path = compared(&[]);
    let bytes = std::fs::read(&path).expect("readable");
    let config = br#"{"names":{"0":"ant","1":"bee","2":"cat"},"shape":[1,3,96,96],"stride":16}"#;
    assert!(bytes.windows(config.len()).any(|window| window == config));
}

/// What it predicts is compared in `tests/parity/formats.py`, with ONNX's own runtime.
#[test]
fn onnx_is_made_for_one_size_or_for_any() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let read = |more: &[&str]| {
        let bytes = std::fs::read(exported(&folder, "onnx", more)).expect("readable");
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let (fixed, free) = (read(&[]), read(&["--dynamic"]));
    for text in [&fixed, &free] {
        assert!(text.contains("{0: 'ant', 1: 'bee', 2: 'cat'}"), "its names");
        assert!(
            text.contains("images") && text.contains("output0"),
            "its ends"
        );
    }
    assert!(free.contains("Range") && free.contains("height"));
    assert!(!fixed.contains("Range") && !fixed.contains("height"));
    assert!(read(&["--image-size", "64"]) != fixed);
}

#[test]
fn nothing_is_overwritten_and_flags_without_a_meaning_are_refused() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("w.onnx");
    std::fs::write(&path, "mine").expect("written");
    let refused = |format, more: &[&str], expected: &str| {
        let done = run(Path::new(CHECKPOINT), format, &path, more);
        assert_ne!(Some(0), done.code);
        assert!(done.text.contains(expected), "{}", done.text);
        assert_eq!("mine", std::fs::read_to_string(&path).expect("readable"));
    };
    refused("onnx", &[], "nothing is overwritten");
    refused(
        "pt",
        &["--force", "--image-size", "64"],
        "--image-size means nothing for --format pt",
    );
    refused(
        "torchscript",
        &["--force", "--dynamic"],
        "--dynamic means nothing",
    );
    refused(
        "onnx",
        &["--force", "--image-size", "8224"],
        "choose a multiple of 32",
    );
    let done = run(Path::new(CHECKPOINT), "onnx", &path, &["--force"]);
    assert_eq!(Some(0), done.code, "{}", done.text);
}

#[test]
fn every_module_can_be_written_in_every_format() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let text = "anchors: [[10, 13]]\nbackbone:\n  - [-1, 1, Conv, [8, 3, 2]]\n  - [-1, 1, C3TR, [8]]\n  - [-1, 2, C3Ghost, [8]]\n  - [-1, 1, C3SPP, [8]]\n  - [-1, 2, C3x, [8]]\n  - [-1, 1, GhostConv, [8, 3, 2]]\n  - [-1, 1, GhostBottleneck, [8, 3, 2]]\n  - [-1, 1, CrossConv, [8, 3, 1]]\n  - [-1, 2, BottleneckCSP, [8]]\n  - [-1, 1, DWConv, [8, 3, 1]]\n  - [-1, 1, SPP, [8, [3, 5]]]\n  - [-1, 1, nn.MaxPool2d, [3, 1, 1]]\n  - [-1, 1, nn.AvgPool2d, [3, 1, 1]]\n  - [-1, 1, nn.BatchNorm2d, [8]]\n  - [-1, 1, Contract, [2]]\n  - [-1, 1, Expand, [2]]\nhead:\n  - [[15], 1, Detect, [nc, anchors]]\n";
    let info: WeightsInfo = serde_json::from_value(serde_json::json!({
        "formatVersion": 2, "model": {"architecture": text}, "nc": 1, "names": ["a"], "imageSize": 64, "epoch": 0,
    }))
    .expect("a note");
    let architecture = trainer_model::architecture::Architecture::of(&info.model, Some(1));
    let options = NetworkOptions::of(architecture.expect("valid"));
    let network = Network::initialised(&options, 0).expect("made");
    let state = network.state().export().expect("exported");
    let bytes = checkpoint::encode(&state, Some(info.note())).expect("encoded");
    let weights = folder.path().join("w.safetensors");
    std::fs::write(&weights, bytes).expect("written");
    for format in ["pt", "safetensors", "onnx", "torchscript"] {
        let path = folder.path().join(format);
        let done = run(&weights, format, &path, &[]);
        assert_eq!(Some(0), done.code, "{format}: {}", done.text);
    }
    // That other programs compute the same with them is compared in `tests/parity/formats.py`.
    let expected = network.evaluate(&image()).expect("evaluated").decoded;
    let (found, _) = predicted(&folder.path().join("pt"));
    assert!(found.equal(&expected));
}

#[test]
fn half_precision_halves_the_file_and_hardly_moves_the_boxes() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (expected, _) = predicted(Path::new(CHECKPOINT));
    let size = |path: &Path| std::fs::metadata(path).expect("there").len();
    for format in ["pt", "safetensors", "onnx"] {
        let (whole, half) = (
            exported(&folder, format, &[]),
            exported(&folder, format, &["--half"]),
        );
        assert!(size(&half) < size(&whole), "{format}");
        if format != "onnx" {
            let (found, _) = predicted(&half);
            let difference = (found - &expected).abs().max() / expected.abs().max();
            assert!(difference.double_value(&[]) < 2e-3, "{format}");
        }
    }
    let done = run(
        Path::new(CHECKPOINT),
        "torchscript",
        &folder.path().join("x"),
        &["--half"],
    );
    assert!(
        done.text
            .contains("--half means nothing for --format torchscript"),
        "{}",
        done.text
    );
}
