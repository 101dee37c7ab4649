//! Runs `yolo-trainer` on a tiny data set, with any number of ranks.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use trainer_data::decode::decode_whole;
use trainer_data::{DigitsConfig, RgbImage, make_dataset_digits, write_png};

pub const NAME: &str = "tiny";
/// Batches of 12, 12 and 2: with three ranks, the last one has no image in the third.
pub const IMAGES: u32 = 26;
pub const STEPS_PER_EPOCH: u64 = 3;

/// A folder with a data set, a manifest and one output folder.
pub struct Fixture {
    pub folder: tempfile::TempDir,
}

/// What one rank did.
pub struct Ended {
    pub code: Option<i32>,
    pub text: String,
}

/// How to run.
#[derive(Clone)]
pub struct Start<'a> {
    pub output: &'a str,
    pub world: u32,
    pub restart: u32,
    pub agent: Option<PathBuf>,
    /// The open file in which ranks keep decoded images.
    pub cache_fd: Option<i32>,
    /// The folder in memory for copies of the state.
    pub snapshots: Option<PathBuf>,
    /// Whether each rank is a worker of its own, with a folder in memory named after its rank in that one.
    pub apart: bool,
    pub flags: &'a [&'a str],
}

impl<'a> Start<'a> {
    pub fn new(output: &'a str, world: u32) -> Self {
        Self {
            output,
            world,
            restart: 0,
            agent: None,
            cache_fd: None,
            snapshots: None,
            apart: false,
            flags: &[],
        }
    }
}

impl Fixture {
    /// A data set of tiny scenes and a manifest with `changes` over the usual settings.
    pub fn new(changes: &Value) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let config = DigitsConfig {
            image_size: 64,
            train: IMAGES,
            val: 10,
            ..DigitsConfig::default()
        };
        make_dataset_digits(&folder.path().join("data"), &config, &mut |_| ()).expect("made");
        let fixture = Self { folder };
        fixture.write_manifest(changes);
        fixture
    }

    pub fn write_manifest(&self, changes: &Value) {
        let mut manifest = serde_json::json!({
            "apiVersion": "yolo-operator.dev/v1alpha1",
            "kind": "YoloTrainingJob",
            "metadata": {"name": NAME},
            "spec": {
                "model": {"size": "n"},
                "dataset": {"persistentVolumeClaim": {"claimName": "d"}},
                "training": {
                    "epochs": 3, "batchSize": 12, "imageSize": 64, "device": "cpu",
                    "computeThreads": 1, "loaderThreads": 1, "evaluateEvery": 3,
                },
                // Two steps are accumulated, so that an epoch of three ends in the middle of one.
                "hyperparameters": {"nominalBatchSize": 24, "warmupEpochs": 0.0},
                "distributed": {"timeoutSeconds": 60},
                "output": {
                    "persistentVolumeClaim": {"claimName": "o"}, "plots": false, "tensorboard": false,
                },
            },
        });
        merge(&mut manifest["spec"], changes);
        // JSON is YAML.
        std::fs::write(self.path("job.yaml"), manifest.to_string()).expect("written");
    }

    /// Cuts training image number `k` down to its left upper part, of this width and height.
    pub fn crop(&self, k: u32, (width, height): (u32, u32)) {
        let mut files: Vec<_> = std::fs::read_dir(self.path("data/images/train"))
            .expect("images")
            .map(|entry| entry.expect("entry").path())
            .collect();
        files.sort();
        let image = decode_whole(&files[k as usize]).expect("an image");
        let cut = RgbImage::from_fn(width, height, |x, y| *image.get_pixel(x, y));
        // As PNG, whatever the name says.
        write_png(&cut, &files[k as usize]).expect("written");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn run_folder(&self, output: &str) -> PathBuf {
        self.path(output).join(format!("{NAME}-local"))
    }

    /// The command of one rank.
    pub fn command(&self, start: &Start<'_>, rank: u32, port: u16) -> Command {
        let mut command = program();
        command
            .args(["train", "-f"])
            .arg(self.path("job.yaml"))
            .arg("--dataset")
            .arg(self.path("data"))
            .arg("--output")
            .arg(self.path(start.output))
            .args(start.flags)
            .env("YOLO_ATTEMPT", format!("0.{}", start.restart));
        if start.world > 1 {
            let (local_rank, local_world) = if start.apart {
                (0, 1)
            } else {
                (rank, start.world)
            };
            let variables = [
                ("RANK", rank.to_string()),
                ("LOCAL_RANK", local_rank.to_string()),
                ("WORLD_SIZE", start.world.to_string()),
                ("LOCAL_WORLD_SIZE", local_world.to_string()),
                ("MASTER_ADDR", "127.0.0.1".to_owned()),
                ("MASTER_PORT", port.to_string()),
            ];
            command.envs(variables);
        }
        if let Some(number) = start.cache_fd {
            command.env("YOLO_CACHE_FD", number.to_string());
        }
        if let Some(folder) = &start.snapshots {
            let folder = if start.apart {
                folder.join(rank.to_string())
            } else {
                folder.clone()
            };
            command.env("YOLO_SNAPSHOTS", folder);
        }
        if let Some(socket) = &start.agent {
            command.env("YOLO_AGENT_SOCKET", socket);
        }
        command
    }

    /// Starts all ranks.
    pub fn spawn(&self, start: &Start<'_>) -> Vec<Child> {
        let port = free_port();
        (0..start.world)
            .map(|rank| {
                let mut command = self.command(start, rank, port);
                command.stdout(Stdio::piped()).stderr(Stdio::piped());
                command.spawn().expect("started")
            })
            .collect()
    }

    /// Runs all ranks to their ends.
    pub fn run(&self, start: &Start<'_>) -> Vec<Ended> {
        wait(self.spawn(start))
    }

    /// Runs all ranks, which must succeed.
    #[track_caller]
    pub fn succeed(&self, start: &Start<'_>) -> Vec<Ended> {
        let all = self.run(start);
        for (rank, ended) in all.iter().enumerate() {
            assert_eq!(Some(0), ended.code, "rank {rank}: {}", ended.text);
        }
        all
    }

    /// The steps that have a checkpoint.
    pub fn checkpoints(&self, output: &str) -> Vec<u64> {
        steps_in(&self.run_folder(output).join("checkpoints"))
    }

    pub fn checkpoint(&self, output: &str, step: u64) -> PathBuf {
        self.run_folder(output)
            .join(format!("checkpoints/step-{step:09}"))
    }

    /// The tensors of a checkpoint, as bytes by file.
    pub fn tensors(&self, output: &str, step: u64) -> BTreeMap<&'static str, Vec<u8>> {
        [
            "model.safetensors",
            "ema.safetensors",
            "optimizer.safetensors",
        ]
        .into_iter()
        .map(|file| {
            let path = self.checkpoint(output, step).join(file);
            (file, std::fs::read(&path).expect("a file of a checkpoint"))
        })
        .collect()
    }

    pub fn state(&self, output: &str, step: u64) -> Value {
        let path = self.checkpoint(output, step).join("state.json");
        let text = std::fs::read_to_string(path).expect("a state");
        serde_json::from_str(&text).expect("JSON")
    }

    /// Names, sizes and times of all files of the data set.
    pub fn data_listing(&self) -> BTreeMap<PathBuf, (u64, std::time::SystemTime)> {
        let mut listing = BTreeMap::new();
        list(&self.path("data"), &mut listing);
        listing
    }
}

/// The steps that have a checkpoint in this folder, in ascending order; none without the folder.
pub fn steps_in(folder: &Path) -> Vec<u64> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut steps: Vec<u64> = entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            name.to_str()?.strip_prefix("step-")?.parse().ok()
        })
        .collect();
    steps.sort_unstable();
    steps
}

fn list(folder: &Path, listing: &mut BTreeMap<PathBuf, (u64, std::time::SystemTime)>) {
    for entry in std::fs::read_dir(folder).expect("readable") {
        let path = entry.expect("entry").path();
        let metadata = path.metadata().expect("metadata");
        let modified = metadata.modified().expect("time");
        if metadata.is_dir() {
            list(&path, listing);
        }
        listing.insert(path, (metadata.len(), modified));
    }
}

fn merge(into: &mut Value, changes: &Value) {
    match (into, changes) {
        (Value::Object(into), Value::Object(changes)) => {
            for (key, value) in changes {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, changes) => *into = changes.clone(),
    }
}

/// The program under test, in an environment without a place in any group.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_yolo-trainer"));
    for name in [
        "RANK",
        "YOLO_CONFIG",
        "YOLO_AGENT_SOCKET",
        "YOLO_ATTEMPT",
        "YOLO_CACHE_FD",
        "YOLO_SNAPSHOTS",
    ] {
        command.env_remove(name);
    }
    command
}

pub fn ended(output: Output) -> Ended {
    let text = [output.stdout, output.stderr].concat();
    Ended {
        code: output.status.code(),
        text: String::from_utf8_lossy(&text).into_owned(),
    }
}

pub fn wait(children: Vec<Child>) -> Vec<Ended> {
    // Each in its own thread: a full pipe must not hold the others up.
    let threads: Vec<_> = children
        .into_iter()
        .map(|child| std::thread::spawn(|| ended(child.wait_with_output().expect("waited"))))
        .collect();
    threads
        .into_iter()
        .map(|thread| thread.join().expect("no panic"))
        .collect()
}

pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}

/// An agent that welcomes every rank and writes down what it says.
pub struct FakeAgent {
    pub socket: PathBuf,
    lines: Arc<Mutex<Vec<Value>>>,
    incoming: Receiver<()>,
}

impl FakeAgent {
    /// Sends `after_welcome` to every rank that says hello.
    pub fn start(folder: &Path, after_welcome: Option<Value>) -> Self {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let socket = folder.join(format!("agent-{number}.sock"));
        let listener = UnixListener::bind(&socket).expect("bound");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (signal, incoming) = channel();
        let for_thread = Arc::clone(&lines);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.expect("a rank");
                let (lines, signal) = (Arc::clone(&for_thread), signal.clone());
                let answer = after_welcome.clone();
                std::thread::spawn(move || talk(stream, answer.as_ref(), &lines, &signal));
            }
        });
        Self {
            socket,
            lines,
            incoming,
        }
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<Value> {
        self.lines.lock().expect("not poisoned").clone()
    }

    /// All lines so far of one type.
    pub fn of_type(&self, kind: &str) -> Vec<Value> {
        let mut lines = self.lines();
        lines.retain(|line| line["type"] == kind);
        lines
    }

    /// Waits until a line fulfils `condition`.
    #[track_caller]
    pub fn wait_for(&self, what: &str, condition: impl Fn(&Value) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.lines().iter().any(&condition) {
            assert!(
                Instant::now() < deadline,
                "no {what} in {:#?}",
                self.lines()
            );
            let _ = self.incoming.recv_timeout(Duration::from_millis(200));
        }
    }
}

fn talk(
    mut stream: std::os::unix::net::UnixStream,
    after_welcome: Option<&Value>,
    lines: &Mutex<Vec<Value>>,
    signal: &Sender<()>,
) {
    let welcome = serde_json::json!({"type": "welcome", "version": 1});
    for message in std::iter::once(&welcome).chain(after_welcome) {
        writeln!(stream, "{message}").expect("sent");
    }
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        let value = serde_json::from_str(&line).expect("a JSON line");
        lines.lock().expect("not poisoned").push(value);
        let _ = signal.send(());
    }
}
