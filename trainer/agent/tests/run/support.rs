//! Starts an agent in a folder of its own and looks at what it does.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use contract::result::WorkerResult;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Nothing here takes longer unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// The worker that agents are started as: the second of two, in attempt 2.0.
const WORKER: [(&str, &str); 5] = [
    ("MASTER_ADDR", "digits-worker-0.digits"),
    ("MASTER_PORT", "29500"),
    ("NNODES", "2"),
    ("NODE_RANK", "1"),
    ("YOLO_ATTEMPT", "2.0"),
];

/// An agent before its start.
pub struct Setup {
    dir: TempDir,
    command: Command,
}

/// A running agent.
pub struct Agent {
    dir: TempDir,
    child: Child,
    stdout: Collected,
    stderr: Collected,
}

/// What an agent left behind.
pub struct Ended {
    /// Its exit code.
    pub code: i32,
    /// Everything it and its ranks wrote to stdout.
    pub stdout: String,
    /// Everything it and its ranks wrote to stderr.
    pub stderr: String,
    /// Its termination message.
    pub result: WorkerResult,
}

/// An agent with `ranks` ranks.
pub fn agent(ranks: u32) -> Setup {
    agent_with(ranks, &serde_json::json!({}))
}

/// An agent with `ranks` ranks of a job with these settings of `training`.
pub fn agent_with(ranks: u32, training: &serde_json::Value) -> Setup {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("job.json"), job(ranks, training)).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_yolo-agent"));
    command
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .envs(WORKER)
        .env("NPROC_PER_NODE", ranks.to_string())
        .env("YOLO_CONFIG", dir.path().join("job.json"))
        .args(["run", "--port=0"])
        .arg(format!(
            "--socket={}",
            dir.path().join("agent.sock").display()
        ))
        .arg(format!(
            "--termination-message-file={}",
            dir.path().join("termination-log").display()
        ));
    Setup { dir, command }
}

fn job(ranks: u32, training: &serde_json::Value) -> String {
    serde_json::json!({
        "formatVersion": 1,
        "job": {"namespace": "team", "name": "digits", "uid": "0123456789"},
        "workers": {"replicas": 2, "processesPerWorker": ranks, "gpusPerWorker": 0},
        "images": {"trainer": "t:1", "agent": "o:1", "pullPolicy": "IfNotPresent"},
        "spec": {
            "training": training,
            "dataset": {"persistentVolumeClaim": {"claimName": "digits"}},
            "output": {"persistentVolumeClaim": {"claimName": "runs"}},
        },
    })
    .to_string()
}

/// Lets a moment pass before a condition is looked at again.
#[expect(
    clippy::disallowed_methods,
    reason = "another process makes the condition true, and cannot be waited for otherwise"
)]
fn pause() {
    thread::sleep(Duration::from_millis(5));
}

/// Whether a condition comes true before patience ends.
pub fn comes_true(condition: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > PATIENCE {
            return false;
        }
        pause();
    }
    true
}

impl Setup {
    /// The agent's folder, with the files `job.json`, `agent.sock` and `termination-log`.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Adds a flag.
    pub fn flag(mut self, flag: &str) -> Self {
        self.command.arg(flag);
        self
    }

    /// Sets a variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Removes a variable.
    pub fn env_remove(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Starts ranks that run a shell script.
    pub fn shell(self, script: &str) -> Agent {
        self.start(&["sh", "-c", script])
    }

    /// Starts ranks that speak the protocol; see [`crate::rank`].
    pub fn speaking(self, steps: &[&str]) -> Agent {
        let own = std::env::current_exe().expect("this test's executable");
        let own = own.to_str().expect("a readable path").to_owned();
        self.start(&[&[own.as_str(), "rank"], steps].concat())
    }

    /// Starts ranks that run any program.
    pub fn start(mut self, program: &[&str]) -> Agent {
        self.command.arg("--").args(program);
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().expect("the agent starts");
        let stdout = Collected::from(child.stdout.take().expect("piped"));
        let stderr = Collected::from(child.stderr.take().expect("piped"));
        Agent {
            dir: self.dir,
            child,
            stdout,
            stderr,
        }
    }
}

impl Agent {
    /// The agent's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file of the termination message.
    pub fn termination_message_file(&self) -> PathBuf {
        self.dir.path().join("termination-log")
    }

    /// Sends the agent a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the agent runs");
    }

    /// What the agent and its ranks wrote to stdout so far.
    pub fn stdout_text(&self) -> String {
        self.stdout.text()
    }

    /// Waits until `count` lines of stdout contain `text`.
    #[track_caller]
    pub fn wait_for_stdout(&self, text: &str, count: usize) {
        let found = || {
            self.stdout
                .text()
                .lines()
                .filter(|line| line.contains(text))
                .count()
        };
        self.wait_until(text, || found() >= count);
    }

    /// Waits until stderr contains `text`.
    #[track_caller]
    pub fn wait_for_stderr(&self, text: &str) {
        self.wait_until(text, || self.stderr.text().contains(text));
    }

    /// Waits until a condition holds.
    #[track_caller]
    pub fn wait_until(&self, what: &str, condition: impl Fn() -> bool) {
        assert!(
            comes_true(condition),
            "waited in vain for '{what}'; stdout:\n{}\nstderr:\n{}",
            self.stdout.text(),
            self.stderr.text()
        );
    }

    /// Status code and body of a page.
    #[track_caller]
    pub fn get(&self, path: &str) -> (u16, String) {
        const MARK: &str = "healthz port=";
        self.wait_for_stderr(MARK);
        let log = self.stderr.text();
        let after = log.split(MARK).nth(1).expect("just seen");
        let digits = after
            .find(|c: char| !c.is_ascii_digit())
            .expect("the line goes on");
        let port: u16 = after[..digits].parse().expect("a port");
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the agent listens");
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n"
        )
        .expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a header and a body");
        let status = head.split(' ').nth(1).expect("a status line");
        (status.parse().expect("a number"), body.to_owned())
    }

    /// Waits for the agent's end.
    #[track_caller]
    pub fn finish(mut self) -> Ended {
        let start = Instant::now();
        let status: ExitStatus = loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                break status;
            }
            if start.elapsed() > PATIENCE {
                self.child.kill().expect("it runs");
                panic!("the agent did not end; its log:\n{}", self.stderr.text());
            }
            pause();
        };
        let stdout = self.stdout.whole();
        let stderr = self.stderr.whole();
        let message = fs::read_to_string(self.dir.path().join("termination-log"));
        let message = message.unwrap_or_else(|error| panic!("{error}; log:\n{stderr}"));
        assert!(
            !self.dir.path().join("agent.sock").exists(),
            "the socket stayed"
        );
        Ended {
            code: status
                .code()
                .unwrap_or_else(|| panic!("{status}; log:\n{stderr}")),
            stdout,
            stderr,
            result: WorkerResult::parse(&message).expect("a worker's result"),
        }
    }
}

/// A pipe's content, read by a thread of its own.
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: thread::JoinHandle<()>,
}

impl Collected {
    fn from(mut pipe: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&bytes);
        let reader = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                let mut bytes = shared.lock().expect("not poisoned");
                bytes.extend_from_slice(&buffer[..length]);
            }
        });
        Self { bytes, reader }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().expect("not poisoned")).into_owned()
    }

    /// Everything, once the other end is closed.
    fn whole(self) -> String {
        self.reader.join().expect("the reader ends with its pipe");
        let bytes = self.bytes.lock().expect("not poisoned");
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
