//! The program against real servers: moto's S3, and an HTTP server that knows ranges.

mod keep;
mod servers;
mod tls;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use contract::exit::FailureReason;
use serde_json::{Value, json};
use servers::Files;
use tempfile::TempDir;
use tests::Moto;

/// A job that fetches, with its volume.
struct Job {
    home: TempDir,
    env: Vec<(String, String)>,
}

impl Job {
    fn new(dataset: &Value) -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let config = json!({
            "formatVersion": 1,
            "job": {"namespace": "team", "name": "digits", "uid": "0123456789"},
            "workers": {"replicas": 1, "processesPerWorker": 1, "gpusPerWorker": 0},
            "images": {"trainer": "t:1", "agent": "o:1", "pullPolicy": "IfNotPresent"},
            "spec": {
                "dataset": dataset,
                "output": {"persistentVolumeClaim": {"claimName": "runs"}},
            },
        });
        fs::write(home.path().join("job.json"), config.to_string()).expect("written");
        Self {
            home,
            env: Vec::new(),
        }
    }

    fn s3(moto: &Moto, url: &str) -> Self {
        Self::new(&json!({
            "objectStorage": {"url": url, "endpoint": moto.url(), "allowHttp": true},
            "fetchTo": {"persistentVolumeClaim": {"claimName": "cache"}},
        }))
        .env("AWS_ACCESS_KEY_ID", "testing")
        .env("AWS_SECRET_ACCESS_KEY", SECRET)
    }

    fn archive(url: &str, sha256: Option<&str>) -> Self {
        let mut archive = json!({"url": url});
        if let Some(sha256) = sha256 {
            archive["sha256"] = sha256.into();
        }
        Self::new(&json!({
            "archive": archive,
            "fetchTo": {"persistentVolumeClaim": {"claimName": "cache"}},
        }))
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    fn folder(&self) -> PathBuf {
        self.home.path().join("volume/digits")
    }

    fn last_words(&self) -> String {
        fs::read_to_string(self.home.path().join("words")).unwrap_or_default()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_yolo-fetch"));
        command
            .env_clear()
            .envs(self.env.clone())
            .env("YOLO_CONFIG", self.home.path().join("job.json"))
            .env("YOLO_FETCH_FOLDER", self.folder())
            .env(
                "YOLO_TERMINATION_MESSAGE_FILE",
                self.home.path().join("words"),
            )
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    /// Runs it to its end; returns its exit code and its log.
    fn run(&self) -> (i32, String) {
        let Output { status, stderr, .. } = self.command().output().expect("it starts");
        let log = String::from_utf8_lossy(&stderr).into_owned();
        for text in [&log, &self.last_words()] {
            assert!(!text.contains(SECRET), "a credential was told:\n{text}");
        }
        (code(status), log)
    }

    #[track_caller]
    fn succeeds(&self) -> String {
        let (code, log) = self.run();
        assert_eq!(0, code, "{log}");
        log
    }

    #[track_caller]
    fn fails(&self, reason: FailureReason, words: &str) {
        let (code, log) = self.run();
        assert_eq!(i32::from(reason.exit_code()), code, "{log}");
        let told = self.last_words();
        assert!(told.contains(words), "no '{words}' in: {told}\n{log}");
        assert_eq!(1, told.lines().count(), "no sentence: {told}");
    }

    /// Starts it and kills it when `enough` is true.
    fn killed_when(&self, enough: impl Fn() -> bool) {
        let mut child: Child = self
            .command()
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let begun = Instant::now();
        while !enough() {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "it does not begin"
            );
            assert!(child.try_wait().expect("known").is_none(), "it ended");
            servers::pause();
        }
        child.kill().expect("killed");
        child.wait().expect("ended");
    }

    fn complete(&self) -> bool {
        self.folder().join(".yolo-fetch/complete.json").exists()
    }
}

const SECRET: &str = "d41d8cd98f00b204e9800998ecf8427e-secret";

fn code(status: ExitStatus) -> i32 {
    status.code().expect("it ended by itself")
}

fn bytes(seed: usize, length: usize) -> Vec<u8> {
    let value = |at: usize| (at.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 7) as u8;
    (0..length).map(value).collect()
}

/// Bytes of all parts of files in a folder.
fn parts(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder.join(".yolo-fetch/parts"));
    let entries = entries.into_iter().flatten().flatten();
    entries
        .filter_map(|entry| Some(entry.metadata().ok()?.len()))
        .sum()
}

#[test]
fn objects_become_files_once() {
    let moto = Moto::start("127.0.0.1");
    moto.bucket("data");
    let files: Vec<(String, Vec<u8>)> = (0..40)
        .map(|n| (format!("images/train/{n} é+.jpg"), bytes(n, 1000 * n)))
        .chain([("data.yaml".to_owned(), b"names: [a]".to_vec())])
        .collect();
    for (name, content) in &files {
        moto.put("data", &format!("digits/v1/{name}"), content);
    }
    moto.put("data", "digits/v1/images/", b"");
    moto.put("data", "digits/v2/other", b"another folder's");
    moto.put("data", "digits/v10", b"nor this");
    let job = Job::s3(&moto, "s3://data/digits/v1/");
    job.succeeds();
    assert!(job.complete());
    for (name, content) in &files {
        let found =
            fs::read(job.folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(found == *content, "{name} differs");
    }
    assert!(!job.folder().join("other").exists() && !job.folder().join("v10").exists());
    // A later job does not even need the store.
    drop(moto);
    let log = job.succeeds();
    assert!(log.contains("is here already"), "{log}");
}

#[test]
fn a_fetch_that_was_killed_goes_on_where_it_ended() {
    let moto = Moto::start("127.0.0.1");
    moto.bucket("data");
    // moto sends as fast as it can, so a relay in front of it keeps the large one from being there at once.
    let large = bytes(7, 24 << 20);
    for n in 0..20 {
        moto.put("data", &format!("small/{n}"), &bytes(n, 10_000));
    }
    moto.put("data", "large", &large);
    let relay = Files::relay(&moto.url(), 4 << 20);
    let job = Job::new(&json!({
        "objectStorage": {"url": "s3://data", "endpoint": relay.url(), "allowHttp": true},
        "fetchTo": {"persistentVolumeClaim": {"claimName": "cache"}},
    }))
    .env("AWS_ACCESS_KEY_ID", "testing")
    .env("AWS_SECRET_ACCESS_KEY", SECRET);
    let small = || (0..20).all(|n| job.folder().join(format!("small/{n}")).exists());
    job.killed_when(|| small() && parts(&job.folder()) > 6 << 20);
    assert!(!job.complete() && !job.folder().join("large").exists());
    let there = parts(&job.folder());
    let sent = relay.sent.swap(0, Ordering::SeqCst);
    assert!(sent < large.len() as u64, "it was not killed in time");
    relay.unlimited();
    job.succeeds();
    assert!(fs::read(job.folder().join("large")).expect("there") == large);
    // Listing and headers come on top of what was missing.
    let again = relay.sent.load(Ordering::SeqCst);
    let missing = large.len() as u64 - there;
    assert!(
        again < missing + (1 << 20),
        "{again} bytes again, {missing} were missing"
    );
}

#[test]
fn connections_that_break_again_and_again_cost_no_failure() {
    // Of an object: more often than the store's client goes on by itself.
    let moto = Moto::start("127.0.0.1");
    moto.bucket("data");
    let large = bytes(9, 3 << 20);
    moto.put("data", "large", &large);
    let relay = Files::relay(&moto.url(), 0);
    relay.breaks.store(256 << 10, Ordering::SeqCst);
    let job = Job::new(&json!({
        "objectStorage": {"url": "s3://data", "endpoint": relay.url(), "allowHttp": true},
        "fetchTo": {"persistentVolumeClaim": {"claimName": "cache"}},
    }))
    .env("AWS_ACCESS_KEY_ID", "testing")
    .env("AWS_SECRET_ACCESS_KEY", SECRET);
    let log = job.succeeds();
    assert!(log.contains("s3://data/large cannot be reached"), "{log}");
    assert!(fs::read(job.folder().join("large")).expect("there") == large);
    // Of an archive: it never does where the server names no version.
    let content = bytes(3, 2 << 20);
    let archive = zipped(&[("images/1.jpg", &content)]);
    let length = archive.len() as u64;
    let files = Files::serve([("/dated/digits.zip", archive)], 0);
    files.breaks.store(1 << 20, Ordering::SeqCst);
    let job = Job::archive(&format!("{}/dated/digits.zip", files.url()), None);
    job.succeeds();
    assert!(fs::read(job.folder().join("images/1.jpg")).expect("there") == content);
    let sent = files.sent.load(Ordering::SeqCst);
    assert!(sent < length + 65536, "{sent} bytes for {length}");
}

#[test]
fn what_arrives_damaged_is_fetched_again() {
    let moto = Moto::start("127.0.0.1");
    moto.bucket("data");
    let content = bytes(5, 400_000);
    moto.put("data", "digits/large", &content);
    let relay = Files::relay(&moto.url(), 0);
    let job = || {
        Job::new(&json!({
            "objectStorage": {"url": "s3://data/digits", "endpoint": relay.url(), "allowHttp": true},
            "fetchTo": {"persistentVolumeClaim": {"claimName": "cache"}},
        }))
        .env("AWS_ACCESS_KEY_ID", "testing")
        .env("AWS_SECRET_ACCESS_KEY", SECRET)
    };
    // A network that damages everything, each time in another way, gives nothing.
    relay.damages.store(1_000_000, Ordering::SeqCst);
    let damaged = job();
    damaged.fails(
        FailureReason::FetchFailed,
        "s3://data/digits/large arrived damaged: its MD5 should be ",
    );
    assert!(relay.damages.load(Ordering::SeqCst) < 1_000_000);
    assert!(!damaged.complete() && !damaged.folder().join("large").exists());
    // One that does so once costs time only.
    for job in [job(), damaged] {
        relay.damages.store(1, Ordering::SeqCst);
        job.succeeds();
        assert_eq!(0, relay.damages.load(Ordering::SeqCst));
        assert!(fs::read(job.folder().join("large")).expect("there") == content);
    }
}

#[test]
fn what_goes_wrong_with_a_store_is_a_sentence_and_a_code() {
    let moto = Moto::start("127.0.0.1");
    moto.bucket("data");
    moto.put("data", "../outside", b"x");
    Job::s3(&moto, "s3://none-such/digits").fails(
        FailureReason::InvalidDataset,
        "s3://none-such/digits does not exist: see whether the address in dataset.objectStorage.url is right",
    );
    Job::s3(&moto, "s3://data/nothing").fails(
        FailureReason::InvalidDataset,
        "s3://data/nothing/ does not exist",
    );
    let unsafe_name = Job::s3(&moto, "s3://data");
    unsafe_name.fails(FailureReason::InvalidDataset, "s3://data holds the name");
    assert!(!unsafe_name.home.path().join("volume/outside").exists());
    // A folder with something in it.
    moto.put("data", "fine/1", b"x");
    let taken = Job::s3(&moto, "s3://data/fine");
    fs::create_dir_all(taken.folder()).expect("made");
    fs::write(taken.folder().join("mine.txt"), "").expect("written");
    taken.fails(
        FailureReason::InvalidDataset,
        "holds other files ('mine.txt'",
    );
    let url = moto.url();
    drop(moto);
    let away = Job::new(&json!({
        "objectStorage": {"url": "s3://data/fine", "endpoint": url, "allowHttp": true},
        "fetchTo": {"persistentVolumeClaim": {"claimName": "cache"}},
    }))
    .env("AWS_ACCESS_KEY_ID", "testing")
    .env("AWS_SECRET_ACCESS_KEY", SECRET);
    away.fails(
        FailureReason::FetchFailed,
        "s3://data/fine cannot be reached: Connection refused",
    );
}

fn zipped(files: &[(&str, &[u8])]) -> Vec<u8> {
    use std::io::Write as _;
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, content) in files {
        writer.start_file(*name, stored).expect("begun");
        writer.write_all(content).expect("written");
    }
    writer.finish().expect("whole").into_inner()
}

fn sha256(bytes: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), bytes).expect("written");
    fetch::digest::sha256(file.path()).expect("readable")
}

#[test]
fn an_archive_is_fetched_from_where_it_ends_verified_and_unpacked() {
    let content = bytes(3, 6 << 20);
    let archive = zipped(&[("data.yaml", b"names: [a]"), ("images/1.jpg", &content)]);
    let files = Files::serve([("/d/digits.zip", archive.clone())], 2 << 20);
    let job = Job::archive(
        &format!("{}/d/digits.zip", files.url()),
        Some(&sha256(&archive)),
    );
    job.killed_when(|| parts(&job.folder()) > 2 << 20);
    let there = fs::metadata(job.folder().join(".yolo-fetch/parts/archive"))
        .expect("begun")
        .len();
    files.unlimited();
    files.sent.store(0, Ordering::SeqCst);
    job.succeeds();
    assert!(fs::read(job.folder().join("images/1.jpg")).expect("there") == content);
    assert!(!job.folder().join(".yolo-fetch/parts").exists());
    let again = files.sent.load(Ordering::SeqCst);
    let missing = archive.len() as u64 - there;
    assert!(
        again < missing + 65536,
        "{again} bytes again, {missing} were missing"
    );
    assert!(job.succeeds().contains("is here already"));
}

#[test]
fn a_server_that_is_away_for_a_while_costs_no_bytes() {
    let content = bytes(3, 6 << 20);
    let archive = zipped(&[("images/1.jpg", &content)]);
    let length = archive.len() as u64;
    let files = Files::serve([("/digits.zip", archive)], 2 << 20);
    let job = Job::archive(&format!("{}/digits.zip", files.url()), None);
    job.killed_when(|| parts(&job.folder()) > 2 << 20);
    files.unlimited();
    files.away.store(1_000_000, Ordering::SeqCst);
    let there = parts(&job.folder());
    job.fails(
        FailureReason::FetchFailed,
        "/digits.zip answers with status 503",
    );
    assert_eq!(there, parts(&job.folder()));
    files.away.store(0, Ordering::SeqCst);
    files.sent.store(0, Ordering::SeqCst);
    job.succeeds();
    assert!(fs::read(job.folder().join("images/1.jpg")).expect("there") == content);
    let (again, missing) = (files.sent.load(Ordering::SeqCst), length - there);
    assert!(
        again < missing + 65536,
        "{again} bytes again, {missing} were missing"
    );
}

#[test]
fn what_goes_wrong_with_an_archive_is_a_sentence_and_a_code() {
    let good = zipped(&[("data.yaml", b"names: [a]")]);
    let evil = zipped(&[("data.yaml", b""), ("../../evil", b"x")]);
    let files = Files::serve(
        [
            ("/good.zip", good.clone()),
            ("/evil.zip", evil),
            ("/guarded/good.zip", good.clone()),
        ],
        0,
    );
    let url = |name: &str| format!("{}/{name}", files.url());
    Job::archive(&url("none.zip"), None).fails(
        FailureReason::InvalidDataset,
        "/none.zip does not exist: see whether the address in dataset.archive.url is right",
    );
    let wrong = "0".repeat(64);
    Job::archive(&url("good.zip"), Some(&wrong)).fails(
        FailureReason::InvalidDataset,
        "is not the file that dataset.archive.sha256 names",
    );
    let evil = Job::archive(&url("evil.zip"), None);
    evil.fails(
        FailureReason::InvalidDataset,
        "holds the name '../../evil', which leads out of the folder",
    );
    assert!(!evil.home.path().join("evil").exists() && !evil.complete());
    Job::archive(&url("good.zip.zip"), None).fails(FailureReason::InvalidDataset, "does not exist");
    // Without the header the server says no; with it, the archive comes.
    let guarded = url("guarded/good.zip");
    Job::archive(&guarded, None).fails(FailureReason::InvalidDataset, "may not be read (401");
    Job::archive(&guarded, None)
        .env("YOLO_FETCH_AUTHORIZATION", &format!("Bearer {SECRET}"))
        .succeeds();
}
