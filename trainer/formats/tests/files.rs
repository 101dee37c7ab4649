//! Files as the Python program writes them, and damaged or hostile ones.

use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};

use proptest::prelude::*;
use trainer_formats::pickle::{Py, write};
use trainer_formats::{
    ArchiveEntry, Container, Dtype, FormatError, NamedTensor, WeightsFile, add_to_archive,
    write_archive,
};

/// Made by `tests/parity/formats_testdata.py` with the Python YOLOv5 7.0.14.
const CHECKPOINT: &[u8] = include_bytes!("../testdata/yolov5.pt");

fn open(bytes: Vec<u8>) -> Result<WeightsFile, FormatError> {
    WeightsFile::of_bytes(bytes)
}

fn tensors(bytes: Vec<u8>) -> BTreeMap<String, NamedTensor> {
    let tensors = open(bytes).expect("known").load(|_| true).expect("whole");
    tensors
        .into_iter()
        .map(|tensor| (tensor.name.clone(), tensor))
        .collect()
}

/// The error with its cause.
fn told(error: &FormatError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn refused(bytes: Vec<u8>) -> String {
    match open(bytes).and_then(|mut file| file.load(|_| true)) {
        Ok(_) => panic!("it was read"),
        Err(error) => told(&error),
    }
}

/// The parts of a container.
fn parts(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).expect("a container");
    (0..zip.len())
        .map(|index| {
            let mut part = zip.by_index(index).expect("a part");
            let name = part
                .name()
                .expect("a name")
                .split_once('/')
                .expect("in a folder")
                .1
                .to_owned();
            let mut bytes = Vec::new();
            part.read_to_end(&mut bytes).expect("readable");
            (name, bytes)
        })
        .collect()
}

fn container(parts: &[(String, Vec<u8>)]) -> Vec<u8> {
    let entries: Vec<ArchiveEntry<'_>> = parts
        .iter()
        .map(|(name, bytes)| ArchiveEntry {
            name: name.clone(),
            bytes,
        })
        .collect();
    write_archive("archive", &entries).expect("written")
}

/// A container of one pickle and one storage of eight bytes.
fn small(pickle: &Py) -> Vec<u8> {
    container(&[
        ("data.pkl".to_owned(), write(pickle)),
        ("data/0".to_owned(), (0..8).collect()),
    ])
}

fn tensor(shape: &[i64], dtype: Dtype) -> Py {
    Py::Tensor {
        key: "0".to_owned(),
        dtype,
        shape: shape.to_vec(),
        parameter: true,
    }
}

/// Other text of the same place in the pickle.
fn renamed(from: &str, to: &str) -> Vec<u8> {
    let mut parts = parts(CHECKPOINT);
    let pickle = &mut parts
        .iter_mut()
        .find(|(name, _)| name == "data.pkl")
        .expect("pickle")
        .1;
    let mut changed = Vec::new();
    let mut rest = pickle.as_slice();
    let mut count = 0;
    while let Some(at) = rest
        .windows(from.len())
        .position(|window| window == from.as_bytes())
    {
        changed.extend_from_slice(&rest[..at]);
        changed.extend_from_slice(to.as_bytes());
        rest = &rest[at + from.len()..];
        count += 1;
    }
    assert!(count > 0, "{from} is there");
    changed.extend_from_slice(rest);
    *pickle = changed;
    container(&parts)
}

#[test]
fn a_checkpoint_of_the_python_program_is_read() {
    let file = open(CHECKPOINT.to_vec()).expect("known");
    assert_eq!(Container::Yolov5, file.container);
    let description = &file.description;
    assert_eq!(Some(3), description.classes);
    assert_eq!(
        Some(vec!["ant".to_owned(), "bee".to_owned(), "cat".to_owned()]),
        description.names
    );
    assert_eq!(
        (Some(7), Some(96)),
        (description.epochs, description.image_size)
    );
    let first = &description.activations[0];
    assert_eq!(
        ("model.0", "SiLU", None),
        (first.module.as_str(), first.class.as_str(), first.number)
    );
    let yaml = description.yaml.as_ref().expect("its model file");
    assert_eq!(0.125, yaml["width_multiple"]);
    assert_eq!(
        serde_json::json!([-1, 1, "Conv", [64, 6, 2, 2]]),
        yaml["backbone"][0]
    );

    let tensors = tensors(CHECKPOINT.to_vec());
    let stem = &tensors["model.0.conv.weight"];
    assert_eq!(
        (Dtype::F16, vec![8, 3, 6, 6]),
        (stem.dtype, stem.shape.clone())
    );
    // The network beside the average is all zeros.
    assert!(stem.to_f32().iter().any(|number| *number != 0.0));
    assert_eq!(Dtype::I64, tensors["model.0.bn.num_batches_tracked"].dtype);
    let anchors = tensors["model.9.anchors"].to_f32();
    assert_eq!(
        [10.0 * 1.5 / 8.0, 13.0 * 1.5 / 8.0],
        anchors[..2],
        "in cells of 8 pixels"
    );
}

#[test]
fn class_names_of_the_repository_and_of_old_versions_are_known_too() {
    let expected = tensors(CHECKPOINT.to_vec());
    // `models.yolo` as in a clone of the repository; names in the pickle end with a line, so lengths are free.
    let cloned = renamed("cyolov5.models.", "cmodels.");
    assert_eq!(expected, tensors(cloned));
    let old = renamed("DetectionModel\n", "Model\n");
    assert_eq!(expected, tensors(old));
}

#[test]
fn networks_that_do_other_things_are_refused_by_name() {
    for class in ["SegmentationModel", "ClassificationModel"] {
        let text = refused(renamed("DetectionModel\n", &format!("{class}\n")));
        assert!(text.contains(class), "{text}");
    }
    let text = refused(renamed(
        "cyolov5.models.yolo\nDetectionModel\n",
        "cos\nsystem\n",
    ));
    assert!(
        text.contains("os.system") && text.contains("nothing of it was run"),
        "{text}"
    );
}

#[test]
fn plain_state_dicts_torchscript_and_safetensors_are_read() {
    let dict = Py::Dict(vec![
        ("a.weight".into(), tensor(&[2, 1], Dtype::F32)),
        ("note".into(), Py::Int(3)),
    ]);
    let plain = tensors(small(&dict));
    assert_eq!(
        ["a.weight"],
        plain.keys().map(String::as_str).collect::<Vec<_>>()[..]
    );
    assert_eq!(
        plain,
        tensors(small(&Py::Dict(vec![("state_dict".into(), dict)])))
    );

    let object = |class: &str, attributes: Vec<(&str, Py)>| Py::Object {
        module: "__torch__.models.common".to_owned(),
        class: class.to_owned(),
        attributes: attributes
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    };
    let conv = object(
        "Conv2d",
        vec![
            ("training", Py::Bool(false)),
            ("weight", tensor(&[2, 1], Dtype::F32)),
        ],
    );
    let script = small(&object("DetectionModel", vec![("a", conv)]));
    let code = ArchiveEntry {
        name: "code/__torch__.py".to_owned(),
        bytes: b"class M(Module):\n",
    };
    let script = add_to_archive(script, &code).expect("one part more");
    assert_eq!(
        Container::TorchScript,
        open(script.clone()).expect("known").container
    );
    assert_eq!(plain, tensors(script));

    let view = safetensors::tensor::TensorView::new(
        safetensors::Dtype::F32,
        vec![2, 1],
        &[0, 1, 2, 3, 4, 5, 6, 7],
    );
    let bytes = safetensors::serialize([("a.weight", view.expect("fits"))], None).expect("written");
    assert_eq!(plain, tensors(bytes));
}

#[test]
fn hostile_and_damaged_files_are_refused_with_a_reason() {
    let case = |bytes: Vec<u8>, expected: &str| {
        let text = refused(bytes);
        assert!(text.contains(expected), "{text} instead of {expected}");
    };
    case(Vec::new(), "neither a PyTorch file");
    case(
        b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.".to_vec(),
        "before 1.6",
    );
    case(
        CHECKPOINT[..CHECKPOINT.len() / 2].to_vec(),
        "zip container is damaged",
    );
    case(
        container(&[("other".to_owned(), Vec::new())]),
        "lacks data.pkl",
    );
    let big = [
        ("data.pkl".to_owned(), write(&Py::None)),
        ("byteorder".to_owned(), b"big".to_vec()),
    ];
    case(container(&big), "byte order 'big'");
    case(
        small(&Py::Dict(vec![("opt".into(), Py::None)])),
        "a dictionary of opt",
    );

    let claims = |shape: &[i64]| small(&Py::Dict(vec![("w".into(), tensor(shape, Dtype::F16))]));
    case(claims(&[5]), "its storage only 4 numbers");
    case(claims(&[1 << 40]), "more than its file can hold");
    case(claims(&[1 << 31, 1 << 31]), "more than its file can hold");
    case(claims(&[-1]), "that PyTorch does not write");
    let absent = Py::Tensor {
        key: "7".to_owned(),
        dtype: Dtype::F16,
        shape: vec![1],
        parameter: false,
    };
    case(small(&Py::Dict(vec![("w".into(), absent)])), "lacks data/7");
}

#[test]
fn files_larger_than_any_network_are_not_even_begun() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    // It takes no space on the disk.
    file.as_file().set_len(5 << 30).expect("sparse");
    for start in [&b"\x10\0\0\0\0\0\0\0{"[..], b"PK\x03\x04"] {
        std::fs::OpenOptions::new()
            .write(true)
            .open(file.path())
            .and_then(|mut file| file.write_all(start))
            .expect("written");
        let error = WeightsFile::open(file.path()).err().expect("refused");
        assert!(told(&error).contains("at most 4294967296"), "{error}");
    }
    let error = WeightsFile::open(&std::env::temp_dir())
        .err()
        .expect("refused");
    assert!(told(&error).contains("it is not a file"), "{error}");
}

#[test]
fn compressed_parts_are_refused_before_they_are_unpacked() {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("a/data.pkl", options).expect("begun");
    zip.write_all(&write(&Py::None)).expect("written");
    let mut bytes = zip.finish().expect("whole").into_inner();
    // Method 8 is deflate: in the local header at 8, in the directory at 10.
    bytes[8] = 8;
    let directory = bytes
        .windows(4)
        .position(|window| window == b"PK\x01\x02")
        .expect("a directory");
    bytes[directory + 10] = 8;
    let text = refused(bytes);
    assert!(text.contains("data.pkl is compressed"), "{text}");
}

#[test]
fn equal_parts_give_equal_bytes_at_places_that_can_be_mapped() {
    let parts = parts(CHECKPOINT);
    let bytes = container(&parts);
    assert_eq!(bytes, container(&parts));
    let mut zip = zip::ZipArchive::new(Cursor::new(&bytes)).expect("a container");
    for index in 0..zip.len() {
        assert_eq!(
            Some(0),
            zip.by_index(index)
                .expect("a part")
                .data_start()
                .map(|at| at % 64)
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Neither panics nor takes much memory, which the test's process could not survive.
    #[test]
    fn changed_bytes_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), cut in any::<prop::sample::Index>()) {
        let mut bytes = CHECKPOINT.to_vec();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let _ = open(bytes.clone()).and_then(|mut file| file.load(|_| true));
        bytes.truncate(cut.index(bytes.len()));
        let _ = open(bytes).and_then(|mut file| file.load(|_| true));
    }

    /// The pickle alone, since its checksum in the container would hide most changes.
    #[test]
    fn changed_pickles_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut parts = parts(CHECKPOINT);
        let pickle = &mut parts.iter_mut().find(|(name, _)| name == "data.pkl").expect("pickle").1;
        for (place, byte) in changes {
            let place = place.index(pickle.len());
            pickle[place] = byte;
        }
        let _ = open(container(&parts)).and_then(|mut file| file.load(|_| true));
    }

    /// Random instructions of which each is known.
    #[test]
    fn random_instructions_never_panic(codes in prop::collection::vec(prop::sample::select(&b"(.012FIJKMNQRTUVXabcd}eghjl]pqrst)uGBC\x80\x81\x85\x86\x87\x88\x89\x8a\x8c\x8d\x8e\x8f\x90\x91\x93\x94\x95\x00\x01\n"[..]), 0..200)) {
        let _ = trainer_formats::pickle::parse(&codes);
    }
}
