//! `yolo-fetch keep`: a run in moto's S3.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use contract::exit::FailureReason;
use contract::keep::{FINISH_FILE, KEPT_FILE, Kept};
use serde_json::json;
use tempfile::TempDir;
use tests::{Moto, until};

use crate::{SECRET, bytes};

const RUN: &str = "digits-01234567";
const LIMIT: Duration = Duration::from_secs(60);

/// A pod of worker 0, as far as its keeper sees it.
struct Pod {
    home: TempDir,
    keeper: Child,
}

impl Pod {
    fn start(name: &str, endpoint: &str, url: &str) -> Self {
        Self::running(&[], name, endpoint, url)
    }

    /// A pod whose ranks run this program; nothing is the trainer.
    fn running(program: &[&str], name: &str, endpoint: &str, url: &str) -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let config = json!({
            "formatVersion": 1,
            "job": {"namespace": "team", "name": "digits", "uid": "0123456789"},
            "workers": {"replicas": 1, "processesPerWorker": 1, "gpusPerWorker": 0},
            "images": {"trainer": "t:1", "agent": "o:1", "pullPolicy": "IfNotPresent"},
            "command": program,
            "spec": {
                "dataset": {"persistentVolumeClaim": {"claimName": "data"}},
                "output": {"objectStorage": {"url": url, "endpoint": endpoint, "allowHttp": true}},
            },
        });
        for folder in ["output", "desk"] {
            fs::create_dir(home.path().join(folder)).expect("made");
        }
        fs::write(home.path().join("job.json"), config.to_string()).expect("written");
        let log = fs::File::create(home.path().join("log")).expect("made");
        let keeper = Command::new(env!("CARGO_BIN_EXE_yolo-fetch"))
            .arg("keep")
            .env_clear()
            .env("AWS_ACCESS_KEY_ID", "testing")
            .env("AWS_SECRET_ACCESS_KEY", SECRET)
            .env("POD_NAME", name)
            .env("YOLO_CONFIG", home.path().join("job.json"))
            .env("YOLO_OUTPUT", home.path().join("output"))
            .env("YOLO_KEEP", home.path().join("desk"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("it starts");
        Self { home, keeper }
    }

    fn folder(&self) -> PathBuf {
        self.home.path().join("output").join(RUN)
    }

    fn write(&self, name: &str, content: &[u8]) {
        let path = self.folder().join(name);
        fs::create_dir_all(path.parent().expect("below")).expect("made");
        fs::write(path, content).expect("written");
    }

    /// A checkpoint appears whole, as the trainer has it.
    fn checkpoint(&self, step: u64, model: &[u8]) {
        let hidden = format!("checkpoints/.tmp-step-{step:09}");
        self.write(&format!("{hidden}/model.safetensors"), model);
        self.write(&format!("{hidden}/manifest.json"), b"{}");
        let whole = format!("checkpoints/step-{step:09}");
        fs::rename(self.folder().join(hidden), self.folder().join(whole)).expect("renamed");
    }

    fn kept(&self) -> Kept {
        let text = fs::read_to_string(self.home.path().join("desk").join(KEPT_FILE));
        serde_json::from_str(&text.unwrap_or_default()).unwrap_or_default()
    }

    fn until(&self, what: &str, holds: impl Fn(&Kept) -> bool) {
        until(what, LIMIT, || {
            let kept = self.kept();
            if holds(&kept) {
                return Ok(());
            }
            Err(format!("{kept:?}\n{}", self.log()))
        });
    }

    fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    fn finish(&self) {
        fs::write(self.home.path().join("desk").join(FINISH_FILE), "").expect("written");
        self.until("everything to be in the store", |kept| kept.complete);
    }

    fn signal(&self, name: &str) {
        let pid = self.keeper.id().to_string();
        let signalled = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(signalled.expect("kill runs").success());
    }

    /// Asks it to stop, as the kubelet does.
    fn stop(mut self) -> i32 {
        self.signal("TERM");
        let status = self.keeper.wait().expect("it ends");
        assert!(!self.log().contains(SECRET), "a credential was told");
        crate::code(status)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

fn step(kept: &Kept) -> Option<u64> {
    kept.checkpoint.as_ref().map(|checkpoint| checkpoint.step)
}

fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let all = tests::data::fingerprint(folder).into_iter();
    let files = all.filter(|(path, ..)| path.is_file());
    let mut files: Vec<_> = files
        .map(|(path, _, content)| {
            let name = path.strip_prefix(folder).expect("below").to_owned();
            (name, content)
        })
        .collect();
    files.sort();
    files
}

#[test]
fn a_run_is_brought_to_its_store_and_to_the_next_pod() {
    let moto = Moto::start("127.0.0.1");
    moto.bucket("runs");
    moto.put("runs", "team/digits-0123456/other", b"another run's");
    let first = Pod::start("digits-worker-0-0", &moto.url(), "s3://runs/team/");
    first.until("it to be ready", |kept| kept.ready);
    assert_eq!(None, step(&first.kept()));
    first.write("results.csv", b"epoch 1");
    first.checkpoint(10, &bytes(1, 1000));
    first.until("a checkpoint to be kept", |kept| step(kept) == Some(10));
    // In several pieces.
    let large = bytes(2, (20 << 20) + 7);
    first.checkpoint(20, &large);
    first.until("the next one to be kept", |kept| step(kept) == Some(20));
    let kept = first.kept().checkpoint.expect("seen above");
    assert_eq!(format!("{RUN}/checkpoints/step-000000020"), kept.path);
    fs::remove_dir_all(first.folder().join("checkpoints/step-000000010")).expect("removed");
    first.write("checkpoints/last", b"step-000000020\n");
    first.write("results.csv", b"epoch 2");
    first.write("weights/é last.safetensors", b"weights");
    first.write(".tmp-half", b"of a file");
    first.finish();
    let mut keys = moto.keys("runs");
    keys.retain(|key| key.starts_with("team/digits-01234567/"));
    let expected = [
        ".owner",
        "checkpoints/last",
        "checkpoints/step-000000020/manifest.json",
        "checkpoints/step-000000020/model.safetensors",
        "results.csv",
        "weights/é last.safetensors",
    ];
    assert_eq!(
        expected.map(|name| format!("team/{RUN}/{name}")).to_vec(),
        keys
    );
    assert!(moto.get("runs", &format!("team/{RUN}/{}", expected[3])) == large);
    assert_eq!(
        b"epoch 2".to_vec(),
        moto.get("runs", &format!("team/{RUN}/results.csv"))
    );
    fs::remove_file(first.folder().join(".tmp-half")).expect("removed");
    let left = files(&first.folder());
    assert_eq!(0, first.stop());

    // What a pod leaves that goes while it sends a checkpoint.
    let half = format!("team/{RUN}/checkpoints/step-000000099/model.safetensors");
    moto.put("runs", &half, b"half");
    let begun = Instant::now();
    let second = Pod::start("digits-worker-0-1", &moto.url(), "s3://runs/team");
    second.until("it to be ready", |kept| kept.ready);
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "the first let go of it"
    );
    assert_eq!(Some(20), step(&second.kept()));
    until("the half of a checkpoint to go", LIMIT, || {
        let keys = moto.keys("runs");
        (!keys.contains(&half)).then_some(()).ok_or(keys.join(" "))
    });
    assert!(files(&second.folder()) == left, "the folders differ");
    // Without a word of the agent, what is there is brought when the pod ends.
    second.checkpoint(30, b"last");
    assert_eq!(0, second.stop());
    let keys = moto.keys("runs");
    let last = format!("team/{RUN}/checkpoints/step-000000030/manifest.json");
    assert!(keys.contains(&last), "{keys:?}");
    assert_eq!(
        b"another run's".to_vec(),
        moto.get("runs", "team/digits-0123456/other")
    );
}

#[test]
fn checkpoints_of_a_program_of_ones_own_need_no_manifest() {
    let moto = Moto::start("127.0.0.1");
    moto.bucket("runs");
    let start = |name| Pod::running(&["python", "train.py"], name, &moto.url(), "s3://runs");
    let first = start("digits-worker-0-0");
    first.until("it to be ready", |kept| kept.ready);
    first.write("checkpoints/step-1000/model.pt", b"weights");
    first.write("checkpoints/step-2000/manifest.json", b"{}");
    first.finish();
    let left = files(&first.folder());
    assert_eq!(0, first.stop());
    let second = start("digits-worker-0-1");
    second.until("it to be ready", |kept| kept.ready);
    assert!(files(&second.folder()) == left, "the folders differ");
    second.finish();
    let keys = moto.keys("runs");
    let model = format!("{RUN}/checkpoints/step-1000/model.pt");
    assert!(keys.contains(&model), "{keys:?}");
    // What the program removes goes from the store as well.
    fs::remove_dir_all(second.folder().join("checkpoints/step-1000")).expect("removed");
    assert_eq!(0, second.stop());
    assert!(!moto.keys("runs").contains(&model));
}

#[test]
fn an_earlier_start_that_comes_back_writes_nothing_any_more() {
    let moto = Moto::start("127.0.0.1");
    moto.bucket("runs");
    let first = Pod::start("digits-worker-0-0", &moto.url(), "s3://runs");
    first.until("it to be ready", |kept| kept.ready);
    first.signal("STOP");
    let begun = Instant::now();
    let second = Pod::start("digits-worker-0-1", &moto.url(), "s3://runs");
    second.until("it to wait", |kept| {
        let problem = kept.problem.as_deref().unwrap_or_default();
        problem.contains("waiting for an earlier start of the run (digits-worker-0-0 ")
    });
    second.until("it to be ready", |kept| kept.ready);
    assert!(
        begun.elapsed() > Duration::from_secs(14),
        "{:?}",
        begun.elapsed()
    );
    second.checkpoint(11, b"new");
    second.until("a checkpoint to be kept", |kept| step(kept) == Some(11));
    first.checkpoint(10, b"late");
    first.signal("CONT");
    first.until("it to be told", |kept| kept.failure.is_some());
    let failure = first.kept().failure.expect("seen above");
    assert_eq!(FailureReason::IoFailed, failure.reason);
    assert!(
        failure
            .message
            .contains("another start of this run (digits-worker-0-1 "),
        "{}",
        failure.message
    );
    let late = moto
        .keys("runs")
        .iter()
        .any(|key| key.contains("step-000000010"));
    assert!(!late, "{:?}", moto.keys("runs"));
    second.checkpoint(12, b"newer");
    second.until("a checkpoint to be kept", |kept| step(kept) == Some(12));
    assert_eq!(i32::from(FailureReason::IoFailed.exit_code()), first.stop());
}

#[test]
fn a_store_that_cannot_be_used_is_a_sentence_and_one_that_is_away_is_waited_for() {
    let moto = Moto::start("127.0.0.1");
    let pod = Pod::start("digits-worker-0-0", &moto.url(), "s3://none-such/team");
    pod.until("it to give up", |kept| kept.failure.is_some());
    let failure = pod.kept().failure.expect("seen above");
    assert_eq!(FailureReason::OutputUnwritable, failure.reason);
    let words = "does not exist: see whether the address in output.objectStorage.url is right";
    assert!(failure.message.contains(words), "{}", failure.message);
    assert!(!pod.kept().ready);

    let pod = Pod::start("digits-worker-0-0", &moto.url(), "s3://runs/..");
    pod.until("it to give up", |kept| kept.failure.is_some());
    let failure = pod.kept().failure.expect("seen above");
    assert_eq!(FailureReason::InvalidConfig, failure.reason, "{failure:?}");

    moto.bucket("runs");
    let pod = Pod::start("digits-worker-0-0", &moto.url(), "s3://runs");
    pod.until("it to be ready", |kept| kept.ready);
    drop(moto);
    pod.checkpoint(10, b"x");
    pod.until("it to be told", |kept| kept.problem.is_some());
    let kept = pod.kept();
    assert!(
        kept.failure.is_none() && kept.checkpoint.is_none(),
        "{kept:?}"
    );
}
