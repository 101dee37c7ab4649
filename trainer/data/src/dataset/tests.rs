use super::*;
use crate::testing::{TestSet, chain, noise};
use contract::exit::FailureReason;
use std::fs;
use std::io::Cursor;
use std::os::unix::fs::{PermissionsExt, symlink};

fn error(set: &TestSet) -> String {
    chain(&Dataset::open(set.root(), "data.yaml", Split::Train).unwrap_err())
}

#[track_caller]
fn fails_with(set: &TestSet, parts: &[&str]) {
    let message = error(set);
    for part in parts {
        assert!(message.contains(part), "'{part}' is not in: {message}");
    }
}

#[test]
fn test_images_are_optional_and_classes_can_become_one() {
    let set = TestSet::new();
    set.image("images/train/a.jpg", &noise(2, (40, 20)));
    set.write("labels/train/a.txt", "1 0.5 0.5 0.25 0.5\n");
    let error = Dataset::open(set.root(), "data.yaml", Split::Test).unwrap_err();
    assert!(
        error.to_string().contains("names no test images"),
        "{error}"
    );
    let yaml = fs::read_to_string(set.root().join("data.yaml")).unwrap();
    set.write("data.yaml", yaml + "\ntest: images/train\n");
    let mut single = set.open(Split::Test).as_ref().clone();
    single.merge_classes();
    assert_eq!(single.names(), ["item"]);
    assert_eq!(single.image(0).unwrap().labels[0].class, 0);
}

#[test]
fn images_and_labels_are_found_and_sorted() {
    let set = TestSet::new();
    set.image("images/train/b/2.PNG", &noise(1, (20, 10)));
    set.image("images/train/a.jpg", &noise(2, (40, 20)));
    set.image("images/train/c.webp", &noise(3, (10, 10)));
    set.write("images/train/notes.md", "no image");
    set.write("images/train/._a.jpg", "hidden");
    set.write(
        "labels/train/a.txt",
        "1 0.5 0.5 0.25 0.5\n1 0.5 0.5 0.25 0.5\n",
    );
    set.write("labels/train/b/2.txt", "0 0.1 0.1 0.5 0.1 0.5 0.9\n");
    set.write("labels/train/c.txt", "\n");

    let data = set.open(Split::Train);
    let names: Vec<_> = data.images().iter().map(|i| i.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "images/train/a.jpg",
            "images/train/b/2.PNG",
            "images/train/c.webp"
        ]
    );
    assert_eq!(data.names(), ["cat", "dog"]);
    let a = data.image(0).unwrap();
    assert_eq!(a.size, (40, 20));
    assert_eq!(
        a.labelled_boxes()[0].xyxy,
        trainer_core::boxes::Xyxy::new(15., 5., 25., 15.)
    );
    assert_eq!(
        data.image(1).unwrap().segments[0],
        [[0.1, 0.1], [0.5, 0.1], [0.5, 0.9]]
    );
    assert_eq!(data.image(3), None);
    assert_eq!(
        data.summary().to_string(),
        "3 images (1 without labels), 2 objects, 0 images skipped, 1 repeated labels ignored"
    );
    let sizes = data.box_sizes(80);
    assert_eq!(sizes[0], [20., 20.]);
    assert!(
        (sizes[1][0] - 32.).abs() < 1e-4 && (sizes[1][1] - 32.).abs() < 1e-4,
        "{sizes:?}"
    );
    assert_eq!(data.decoded_bytes(80), (80 * 40 + 80 * 40 + 80 * 80) * 3);
}

#[test]
fn lists_folders_and_paths_are_understood() {
    let set = TestSet::new();
    for name in ["x/images/0.png", "x/images/1.png", "y/2.png"] {
        set.image(name, &noise(1, (12, 12)));
    }
    set.write("x/labels/1.txt", "0 0.5 0.5 1 1");
    set.write("y/2.txt", "1 0.5 0.5 1 1");
    set.write(
        "x/list.txt",
        "./images/1.png\n\nimages/1.png\nimages/9.png\n",
    );
    set.write(
        "conf/data.yaml",
        "path: ../x\ntrain: [list.txt, ../y]\nval: images\nnames: {0: a, 1: b}\nnc: 2\n",
    );
    let data = Dataset::open(set.root(), "conf/data.yaml", Split::Train).unwrap();
    let names: Vec<_> = data.images().iter().map(|i| i.name.as_str()).collect();
    assert_eq!(names, ["x/images/1.png", "y/2.png"]);
    assert_eq!(data.image(1).unwrap().labels.len(), 1);
    assert_eq!(data.skipped()[0].name, "x/images/9.png");
    let summary = data.summary().to_string();
    assert!(
        summary.ends_with(", 1 repeated images ignored"),
        "{summary}"
    );
    let val = Dataset::open(set.root(), "conf/data.yaml", Split::Val).unwrap();
    assert_eq!(val.len(), 2);
}

#[test]
fn lines_of_lists_that_name_no_image_are_skipped_and_named() {
    let set = TestSet::with_images(1);
    set.write(
        "data.yaml",
        "train: lists/train.txt\nval: lists/none.txt\nnames: [a, b]\n",
    );
    set.write(
        "lists/train.txt",
        "../images/train/000.png\n\n../images/train/001.gif\n",
    );
    let data = set.open(Split::Train);
    assert_eq!((1, 1), (data.summary().images, data.summary().skipped));
    let skipped = data.skipped()[0].to_string();
    assert!(
        skipped.starts_with("../images/train/001.gif: line 3 of lists/train.txt names it")
            && skipped.contains(".webp"),
        "{skipped}"
    );
    set.write("lists/none.txt", "000\n");
    let error = Dataset::open(set.root(), "data.yaml", Split::Val).unwrap_err();
    let text = chain(&error);
    assert!(
        text.contains("none of the 1 images") && text.contains("000: line 1"),
        "{text}"
    );
}

#[test]
fn a_data_file_may_lie_elsewhere_and_describes_what_is_in_the_source() {
    let set = TestSet::new();
    set.image("images/train/a.jpg", &noise(2, (40, 20)));
    set.write("labels/train/a.txt", "1 0.5 0.5 0.25 0.5\n");
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("two.yaml");
    let text = fs::read_to_string(set.root().join("data.yaml")).unwrap();
    fs::write(&file, &text).unwrap();
    fs::remove_file(set.root().join("data.yaml")).unwrap();
    let data = Dataset::open_with(set.root(), &file, Split::Train).unwrap();
    assert!(!data.is_empty());
    assert!(
        data.images()
            .iter()
            .all(|image| image.path.starts_with(set.root()))
    );

    fs::write(&file, "train: ../x\nval: images\nnames: [a]\n").unwrap();
    let outside = Dataset::open_with(set.root(), &file, Split::Train).unwrap_err();
    assert!(chain(&outside).contains("'../x'"), "{}", chain(&outside));
    let missing = Dataset::open_with(set.root(), &elsewhere.path().join("no"), Split::Train);
    let told = chain(&missing.unwrap_err());
    assert!(told.contains("found there: two.yaml"), "{told}");
}

#[test]
fn a_path_beside_the_file_may_be_written_with_dots() {
    let set = TestSet::with_images(1);
    set.write(
        "data.yaml",
        "train: ../images/train\nval: ../valid/images\nnames: [a, b]\n",
    );
    assert_eq!(set.open(Split::Train).len(), 1);
    let error = Dataset::open(set.root(), "data.yaml", Split::Val).unwrap_err();
    assert!(matches!(error, DatasetError::PathOutside { .. }), "{error}");
}

#[test]
fn folders_that_contain_themselves_end() {
    let set = TestSet::with_images(2);
    symlink(
        set.root().join("images"),
        set.root().join("images/train/up"),
    )
    .unwrap();
    assert_eq!(set.open(Split::Train).len(), 2);
}

#[test]
fn missing_things_are_named_with_a_remedy() {
    let set = TestSet::new();
    let nowhere = Dataset::open(&set.root().join("no"), "data.yaml", Split::Train).unwrap_err();
    assert!(
        nowhere
            .to_string()
            .contains("/no does not exist: check the dataset's claim")
    );
    let other = Dataset::open(set.root(), "coco.yaml", Split::Train)
        .unwrap_err()
        .to_string();
    assert!(
        other.contains("set dataset.config") && other.contains("(found there: data.yaml)"),
        "{other}"
    );
    fails_with(
        &set,
        &[
            "train in the data file leads to no images",
            "images/train has no file ending in .bmp, .jpeg",
        ],
    );
    fs::remove_dir(set.root().join("images/train")).unwrap();
    fails_with(
        &set,
        &[
            "train in the data file names 'images/train', but",
            "does not exist: correct train or path",
        ],
    );
}

#[test]
fn bad_data_files_are_explained() {
    let set = TestSet::with_images(1);
    set.write("data.yaml", "train: images/train\nval: [\nnames: [a]\n");
    fails_with(&set, &["data.yaml:", "is not valid"]);
    set.write("data.yaml", "train: images/train\nnames: [a]\n");
    fails_with(&set, &["it needs train, val and names", "val"]);
    set.write(
        "data.yaml",
        "train: images/train\nval: images/val\nnames: [a, b]\nnc: 80\n",
    );
    fails_with(&set, &["contradicts itself: nc is 80 but names has 2"]);
    set.write(
        "data.yaml",
        "path: /data/coco\ntrain: images\nval: images\nnames: [a]\n",
    );
    fails_with(
        &set,
        &[
            "path in the data file is '/data/coco', which lies outside",
            "leave `path` out",
        ],
    );
    set.write(
        "data.yaml",
        "train: ../../images\nval: images\nnames: [a]\n",
    );
    fails_with(
        &set,
        &["train in the data file is '../../images', which lies outside"],
    );
    set.write("data.yaml", "train: l.txt\nval: images\nnames: [a]\n");
    set.write("l.txt", "images/train/000.png\n/etc/x.png\n");
    fails_with(&set, &["line 2 of l.txt is '/etc/x.png'"]);
    let above = Dataset::open(set.root(), "../data.yaml", Split::Train).unwrap_err();
    assert!(
        above
            .to_string()
            .starts_with("dataset.config is '../data.yaml'"),
        "{above}"
    );
}

#[test]
fn the_line_of_a_yaml_fault_is_named() {
    let set = TestSet::with_images(1);
    set.write(
        "data.yaml",
        "train: images/train\nval: images/val\nnames:\n  x: a\n",
    );
    let error = Dataset::open(set.root(), "data.yaml", Split::Train).unwrap_err();
    assert!(
        matches!(error, DatasetError::ConfigInvalid { line: 3..=4, .. }),
        "{error:?}"
    );
}

#[test]
fn all_label_problems_are_listed() {
    let set = TestSet::with_images(3);
    let rows: Vec<String> = (0..30)
        .map(|k| format!("0 0.5 0.5 0.1 1.{k:02}1\n"))
        .collect();
    set.write(
        "labels/train/000.txt",
        "0 0.5 0.5 0.1 0.1\n7 0.5 0.5 0.1 0.1\nx\n",
    );
    set.write("labels/train/001.txt", rows.concat());
    set.write("labels/train/002.txt", b"0 0.5 0.5 0.1 0.1\n\xff\n");
    let Err(DatasetError::Labels(problems)) = Dataset::open(set.root(), "data.yaml", Split::Train)
    else {
        panic!("bad labels were accepted");
    };
    assert_eq!((problems.problems.len(), problems.files), (33, 3));
    let message = problems.to_string();
    let lines: Vec<_> = message.lines().collect();
    assert_eq!(
        lines[0],
        "33 problems in 3 label files, correct or remove these rows:"
    );
    assert!(
        lines[1].starts_with("  labels/train/000.txt:2: class 7 does not exist"),
        "{message}"
    );
    assert!(
        lines[2].starts_with("  labels/train/000.txt:3: "),
        "{message}"
    );
    assert!(
        lines[3].starts_with("  labels/train/001.txt:1: column 5 is 1.001, above 1"),
        "{message}"
    );
    assert_eq!((lines.len(), lines[21]), (22, "  and 13 more"));
    assert_eq!(
        problems.problems[32],
        "labels/train/002.txt:2: is not text (UTF-8)"
    );
}

#[test]
fn unusable_images_are_skipped_with_their_reasons() {
    let set = TestSet::with_images(2);
    set.image("images/train/small.png", &noise(1, (9, 20)));
    set.write("images/train/text.jpg", "this is no image");
    set.write("images/train/empty.png", "");
    let data = set.open(Split::Train);
    let skipped: Vec<_> = data.skipped().iter().map(ToString::to_string).collect();
    assert_eq!((data.len(), skipped.len()), (2, 3));
    assert!(
        skipped[0].starts_with("images/train/empty.png: "),
        "{skipped:?}"
    );
    assert_eq!(
        skipped[1],
        "images/train/small.png: it has 9 x 20 pixels, each side needs at least 10"
    );
    assert!(
        skipped[2].starts_with("images/train/text.jpg: ") && skipped[2].len() > 30,
        "{skipped:?}"
    );
    for k in 0..2 {
        fs::remove_file(set.root().join(format!("images/train/00{k}.png"))).unwrap();
    }
    fails_with(
        &set,
        &["none of the 3 images of train can be used; the first is images/train/empty.png"],
    );
}

/// A file whose every read fails with EIO, as on a volume whose server is away: address 0 of this process.
const FAILS: &str = "/proc/self/mem";

#[test]
fn a_volume_that_fails_may_answer_another_time() {
    assert_eq!(Some(5), fs::read(FAILS).unwrap_err().raw_os_error());
    let voc = "train: images/train\nval: images/val\nnames: [a, b]\nlabel_format: voc\n";
    let list = "train: list.txt\nval: images/val\nnames: [a, b]\n";
    let coco = "train: {annotations: a.json, images: images}\nval: images/val\nnames: [a, b]\n";
    for (yaml, file) in [
        ("", "images/train/001.png"),
        ("", "images/train/x.jpg"),
        ("", "labels/train/001.txt"),
        ("", "data.yaml"),
        (voc, "Annotations/train/001.xml"),
        (list, "list.txt"),
        (coco, "a.json"),
    ] {
        let set = TestSet::with_images(3);
        // What is wrong for good beside it is said by a start that can read everything.
        set.write("labels/train/000.txt", "7 0.5 0.5 0.1 0.1\n");
        if !yaml.is_empty() {
            set.write("data.yaml", yaml);
        }
        let path = set.write(file, "");
        fs::remove_file(&path).unwrap();
        symlink(FAILS, &path).unwrap();
        let error = Dataset::open(set.root(), "data.yaml", Split::Train).unwrap_err();
        assert_eq!(FailureReason::IoFailed, error.reason(), "{file}: {error:?}");
        let text = chain(&error);
        let named = text.contains(&path.display().to_string());
        assert!(named && text.contains("os error 5"), "{text}");
    }
}

#[test]
fn files_that_are_to_blame_are_told_as_ever() {
    let set = TestSet::with_images(3);
    let at = |name: &str| set.root().join(name);
    symlink("nothing", at("images/train/dangling.png")).unwrap();
    symlink("itself.png", at("images/train/itself.png")).unwrap();
    fs::create_dir(at("images/train/folder.png")).unwrap();
    fs::remove_file(at("labels/train/000.txt")).unwrap();
    symlink("nothing", at("labels/train/000.txt")).unwrap();
    let data = set.open(Split::Train);
    assert_eq!((3, 1), (data.len(), data.summary().background));
    let skipped: Vec<_> = data.skipped().iter().map(|s| s.name.as_str()).collect();
    assert_eq!(
        skipped,
        ["images/train/dangling.png", "images/train/itself.png"]
    );

    set.write("images/train/list.txt", "folder.png\n000.png\n");
    let yaml = "train: images/train/list.txt\nval: images/none\nnames: [cat, dog]\n";
    set.write("data.yaml", yaml);
    set.write("labels/train/000.txt", "0 0.5 0.5 0.1 0.1\n");
    let listed = set.open(Split::Train);
    assert_eq!(
        (1, "images/train/folder.png"),
        (listed.len(), &*listed.skipped()[0].name)
    );

    let ends_for_good = |split, part: &str| {
        let error = Dataset::open(set.root(), "data.yaml", split).unwrap_err();
        assert_eq!(FailureReason::InvalidDataset, error.reason(), "{error:?}");
        let text = chain(&error);
        assert!(text.contains(part), "'{part}' is not in: {text}");
    };
    ends_for_good(Split::Val, "images/none does not exist");
    fs::remove_file(at("labels/train/000.txt")).unwrap();
    fs::create_dir(at("labels/train/000.txt")).unwrap();
    let told = "labels/train/000.txt: cannot be read: Is a directory";
    ends_for_good(Split::Train, told);
    fs::remove_dir(at("labels/train/000.txt")).unwrap();

    let label = set.write("labels/train/000.txt", "0 0.5 0.5 0.1 0.1\n");
    fs::set_permissions(&label, fs::Permissions::from_mode(0o000)).unwrap();
    // The superuser may read it anyway.
    if fs::read(&label).is_err() {
        ends_for_good(Split::Train, "cannot be read: Permission denied");
    }
    fs::remove_file(at("data.yaml")).unwrap();
    fs::create_dir(at("data.yaml")).unwrap();
    ends_for_good(Split::Train, "cannot read the data file");
}

#[test]
fn training_without_any_label_is_refused() {
    let set = TestSet::with_images(2);
    fs::remove_dir_all(set.root().join("labels")).unwrap();
    fails_with(
        &set,
        &[
            "none of the 2 training images has a label",
            "a label file labels/train/000.txt",
        ],
    );
    set.image("images/val/0.png", &noise(1, (20, 20)));
    assert_eq!(set.open(Split::Val).summary().background, 1);
}

#[test]
fn label_paths_replace_the_last_images_folder() {
    let path = |image: &str| label_path(Path::new(image)).display().to_string();
    assert_eq!(path("images/train/1.jpg"), "labels/train/1.txt");
    assert_eq!(
        path("images/a/images/b/images.png"),
        "images/a/labels/b/images.txt"
    );
    assert_eq!(path("photos/1.tar.png"), "photos/1.tar.txt");
    assert_eq!(path("myimages/1.png"), "myimages/1.txt");
}

/// A JPEG with an EXIF block that says: turn by 90 degrees.
fn sideways_jpeg(padding: usize) -> Vec<u8> {
    let mut jpeg = Vec::new();
    noise(1, (40, 20))
        .write_to(&mut Cursor::new(&mut jpeg), image::ImageFormat::Jpeg)
        .unwrap();
    // Big-endian TIFF with one entry: orientation (0x0112), a short, 6.
    let exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let mut result = jpeg[..2].to_vec();
    result.extend([0xff, 0xe1, 0, exif.len() as u8 + 2]);
    result.extend(exif);
    for _ in 0..padding {
        // Comments of the largest size.
        result.extend([0xff, 0xfe, 0xff, 0xff]);
        result.extend(std::iter::repeat_n(b' ', 0xfffd));
    }
    result.extend(&jpeg[2..]);
    result
}

#[test]
fn exif_orientation_turns_the_size() {
    let set = TestSet::with_images(1);
    set.write("images/train/a.jpg", sideways_jpeg(0));
    set.write("images/train/b.jpg", sideways_jpeg(5));
    let data = set.open(Split::Train);
    assert_eq!(data.image(1).unwrap().size, (20, 40));
    assert_eq!(
        data.image(2).unwrap().size,
        (20, 40),
        "a header beyond the first 128 KiB"
    );
    let path = &data.image(1).unwrap().path;
    let pixels = crate::decode::decode(path, (20, 40), crate::decode::Shrink::Area).unwrap();
    assert_eq!(
        pixels.dimensions(),
        (20, 40),
        "not resized, or it would be distorted"
    );
}
