use std::io::{Cursor, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, Header};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::*;
use crate::folder::Opened;

/// An archive's bytes, unpacked into a new folder under an address of this ending.
fn unpacked(ending: &str, bytes: &[u8]) -> (tempfile::TempDir, Result<Complete, FetchError>) {
    let root = tempfile::tempdir().expect("a folder");
    let url = format!("https://host/data.{ending}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let opened = runtime.block_on(Folder::open(root.path(), &url, &url));
    let Ok(Opened::Begun(folder)) = opened else {
        panic!("{opened:?}");
    };
    let file = folder.part("archive");
    fs::write(&file, bytes).expect("written");
    let result = unpack(&file, &url, &folder);
    (root, result)
}

fn tar(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, kind, content) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        // The builder refuses such names, so they are written past it.
        let field = &mut header.as_old_mut().name;
        field[..name.len()].copy_from_slice(name.as_bytes());
        if *kind == EntryType::Symlink {
            header.set_link_name("/etc").expect("a link");
        }
        header.set_cksum();
        builder.append(&header, content.as_bytes()).expect("added");
    }
    builder.into_inner().expect("whole")
}

fn zip(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in entries {
        writer
            .start_file(*name, SimpleFileOptions::default())
            .expect("begun");
        writer.write_all(content.as_bytes()).expect("written");
    }
    writer.finish().expect("whole").into_inner()
}

const FILES: [(&str, EntryType, &str); 3] = [
    ("./", EntryType::Directory, ""),
    ("./data.yaml", EntryType::Regular, "names: [a]"),
    ("./labels/1.txt", EntryType::Regular, "0 0.5 0.5 1 1\n"),
];

#[test]
fn every_format_gives_its_files() {
    let plain = tar(&FILES);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&plain).expect("written");
    let gzip = gzip.finish().expect("whole");
    let zstd = ruzstd::encoding::compress_to_vec(
        plain.as_slice(),
        ruzstd::encoding::CompressionLevel::Fastest,
    );
    let zip = zip(&[
        ("data.yaml", "names: [a]"),
        ("labels/1.txt", "0 0.5 0.5 1 1\n"),
    ]);
    for (ending, bytes) in [
        ("tar", plain),
        ("tar.gz", gzip.clone()),
        ("tgz", gzip),
        ("tar.zst", zstd),
        ("zip", zip),
    ] {
        let (root, result) = unpacked(ending, &bytes);
        let complete = result.unwrap_or_else(|error| panic!("{ending}: {error}"));
        assert_eq!((2, 24), (complete.files, complete.bytes), "{ending}");
        let labels = fs::read_to_string(root.path().join("labels/1.txt")).expect("there");
        assert_eq!("0 0.5 0.5 1 1\n", labels);
    }
}

#[test]
fn nothing_leaves_the_folder() {
    let outside = |name: &str| {
        for (ending, bytes) in [
            ("tar", tar(&[FILES[1], (name, EntryType::Regular, "x")])),
            ("zip", zip(&[("data.yaml", ""), (name, "x")])),
        ] {
            let (root, result) = unpacked(ending, &bytes);
            let error = result.expect_err(name);
            assert!(
                matches!(&error, FetchError::UnsafeName { .. }),
                "{ending} {name}: {error}"
            );
            let parent = root.path().parent().expect("a parent");
            assert!(!parent.join("evil").exists() && !Path::new("/evil").exists());
        }
    };
    outside("../evil");
    outside("images/../../evil");
    outside("/evil");
    outside(".yolo-fetch/complete.json");
}

#[test]
fn links_and_devices_are_refused_by_name() {
    for (kind, words) in [
        (EntryType::Symlink, "'x', which is a link"),
        (EntryType::Link, "'x', which is a link"),
        (EntryType::Char, "'x', which is a device"),
    ] {
        let (_, result) = unpacked("tar", &tar(&[FILES[1], ("x", kind, "")]));
        let text = result.expect_err(words).to_string();
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn what_is_no_archive_or_ends_early_is_said_to_be_damaged() {
    let whole = zip(&[("data.yaml", "names: [a]")]);
    let long = "x".repeat(3000);
    let cut = tar(&[("data.yaml", EntryType::Regular, long.as_str())]);
    for (ending, bytes) in [
        ("zip", b"<html>not found</html>".as_slice()),
        ("zip", &whole[..whole.len() / 2]),
        ("tar", &cut[..1500]),
        ("tar.gz", b"plain"),
        ("tar.zst", b"plain"),
        ("tar", &[0; 1024]),
    ] {
        let (_, result) = unpacked(ending, bytes);
        let error = result.expect_err(ending);
        assert!(matches!(error, FetchError::BadArchive { .. }), "{error}");
    }
    // A byte of the content is wrong.
    let mut wrong = zip(&[("data.yaml", "names: [a, b, c, d, e, f]")]);
    let at = wrong.iter().position(|byte| *byte == b'y').expect("a name") + 12;
    wrong[at] ^= 0x55;
    assert!(unpacked("zip", &wrong).1.is_err());
}
