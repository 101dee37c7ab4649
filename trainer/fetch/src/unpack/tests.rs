use std::io::{Cursor, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
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

fn gzip(content: &[u8], level: Compression) -> Vec<u8> {
    let mut writer = GzEncoder::new(Vec::new(), level);
    writer.write_all(content).expect("written");
    writer.finish().expect("whole")
}

fn zstd(content: &[u8]) -> Vec<u8> {
    compress_to_vec(content, CompressionLevel::Fastest)
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
    let gzip_of = |content: &[u8]| gzip(content, Compression::default());
    let (gzip, zstd_file) = (gzip_of(&plain), zstd(&plain));
    // In pieces, the first of which ends where an entry does; pzstd begins with a frame to be skipped.
    let (first, rest) = plain.split_at(1536);
    let members = [gzip_of(first), gzip_of(rest)].concat();
    let padded = |padding: &[u8]| [&members[..], padding].concat();
    let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0], &b"size"[..]].concat();
    let frames = [&skipped[..], &zstd(first), &skipped, &zstd(rest), &skipped].concat();
    let zip = zip(&[
        ("data.yaml", "names: [a]"),
        ("labels/1.txt", "0 0.5 0.5 1 1\n"),
    ]);
    for (ending, bytes) in [
        ("tar", plain),
        ("tar.gz", gzip.clone()),
        ("tgz", gzip),
        ("tar.gz", padded(&[0; 512])),
        ("tar.gz", padded(&[0x1f])),
        ("tar.gz", padded(b"no member")),
        ("tar.gz", members),
        ("tar.zst", zstd_file),
        ("tar.zst", frames),
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
        ("tar.gz", &[0; 512]),
        ("tar.zst", b"plain"),
        ("tar.zst", &zstd(&cut)[..100]),
        ("tar.zst", &[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1]),
        ("tar", &[0; 1024]),
        // Between two entries, and before the end.
        ("tar", &tar(&FILES)[..1536]),
        ("tar", &tar(&FILES)[..2560]),
        (
            "tar.gz",
            &gzip(&tar(&FILES)[..1536], Compression::default()),
        ),
        ("tar.zst", &zstd(&tar(&FILES)[..1536])),
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

#[test]
fn content_that_does_not_have_its_checksum_is_said_to_be_damaged() {
    // Nothing to compress, so that bytes stand there as they are.
    let noise: String = (0..3000_u32)
        .map(|at| char::from(b' ' + (at.wrapping_mul(2_654_435_761) >> 20) as u8 % 95))
        .collect();
    let plain = tar(&[FILES[1], ("noise", EntryType::Regular, &noise)]);
    for (ending, mut bytes) in [
        ("tar.gz", gzip(&plain, Compression::none())),
        (
            "tar.zst",
            compress_to_vec(plain.as_slice(), CompressionLevel::Uncompressed),
        ),
    ] {
        assert!(unpacked(ending, &bytes).1.is_ok(), "{ending}");
        let mark = &noise.as_bytes()[1000..1020];
        let at = bytes.windows(20).position(|window| window == mark);
        bytes[at.expect("as it is")] ^= 1;
        let error = unpacked(ending, &bytes).1.expect_err(ending);
        assert!(matches!(error, FetchError::BadArchive { .. }), "{error}");
    }
}
