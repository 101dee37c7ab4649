//! The processes: started, signalled, reaped.
//!
//! The agent is the parent of all that is orphaned in the container, so it waits for whichever child
//! ended rather than for those it knows. Nothing else in this program may wait for a child.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use contract::env;
use contract::exit::FailureReason;
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_process, kill_process_group, set_child_subreaper, wait,
};
use tokio::sync::mpsc::UnboundedSender;
use tracing::debug;

use crate::output::{ClosingNote, Form, Tail, Target, forward};
use crate::place::Place;
use crate::supervise::{Event, ProcessEnd};

/// What every rank of this worker runs.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// The program and its arguments; at least the program.
    pub command: &'a [OsString],
    /// Where this worker is in the group.
    pub place: &'a Place,
    /// The agent's socket.
    pub socket: &'a Path,
    /// The frozen job configuration.
    pub config: &'a Path,
    /// The number under which ranks have the file of decoded images open, if there is one.
    pub cache: Option<i32>,
}

/// A rank could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A pipe or the thread that reads it could not be made.
    #[error("rank {rank} cannot be started: its output cannot be read")]
    Output {
        /// Which rank.
        rank: u32,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The program could not be executed.
    #[error("rank {rank} cannot be started: the program {} cannot be executed", program.display())]
    Execute {
        /// Which rank.
        rank: u32,
        /// The program.
        program: OsString,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl StartError {
    /// A program that is not there will not be there next time; a lack of processes may pass.
    pub fn reason(&self) -> FailureReason {
        match self {
            Self::Execute { source, .. } => match source.kind() {
                io::ErrorKind::NotFound
                | io::ErrorKind::PermissionDenied
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::IsADirectory => FailureReason::InvalidConfig,
                _ if source.raw_os_error() == Some(Errno::NOEXEC.raw_os_error()) => {
                    FailureReason::InvalidConfig
                }
                _ => FailureReason::IoFailed,
            },
            Self::Output { .. } => FailureReason::IoFailed,
        }
    }
}

/// The started ranks.
#[derive(Debug, Default)]
pub struct Ranks {
    /// Each rank is the first process of its own group; process and group have the same number.
    running: BTreeMap<u32, Pid>,
    /// The groups of ranks that are gone, for what they left behind.
    gone: Vec<Pid>,
    tails: BTreeMap<u32, Tail>,
}

impl Ranks {
    /// Makes this process the parent of its orphaned descendants, as PID 1 is anyway: with
    /// `shareProcessNamespace` the agent is not PID 1.
    pub fn adopt_orphans() -> io::Result<()> {
        Ok(set_child_subreaper(Some(getpid()))?)
    }

    /// Starts one rank. When its output is closed, `events` hears of it.
    pub fn start(
        &mut self,
        rank: u32,
        launch: Launch<'_>,
        events: &UnboundedSender<Event>,
    ) -> Result<(), StartError> {
        let (program, args) = match launch.command {
            [program, args @ ..] => (program.as_os_str(), args),
            [] => (OsStr::new(""), &[][..]),
        };
        let mut command = Command::new(program);
        command
            .args(args)
            .envs(launch.place.rank_env(rank, launch.socket, launch.config))
            .envs(
                launch
                    .cache
                    .map(|number| (env::CACHE_FD, number.to_string())),
            )
            .stdin(Stdio::null())
            .process_group(0);
        let tail = Tail::default();
        self.tails.insert(rank, tail.clone());
        let note = Arc::new(ClosingNote {
            rank,
            events: events.clone(),
        });
        connect_output(&mut command, launch.place, tail, note)
            .map_err(|source| StartError::Output { rank, source })?;
        let child = command.spawn().map_err(|source| StartError::Execute {
            rank,
            program: program.to_owned(),
            source,
        })?;
        // The child itself is let go: whoever waits for it would steal its end from `reap`.
        self.running.insert(rank, Pid::from_child(&child));
        Ok(())
    }

    /// Sends a signal to a rank's process group; nothing happens when the rank is gone.
    pub fn signal(&self, rank: u32, signal: Signal) {
        if let Some(&group) = self.running.get(&rank) {
            send(group, signal);
        }
    }

    /// Collects every child that has ended, and names those that were ranks.
    pub fn reap(&mut self) -> Vec<(u32, ProcessEnd)> {
        let mut ended = Vec::new();
        loop {
            let (pid, status) = match wait(WaitOptions::NOHANG) {
                Ok(Some(found)) => found,
                Err(Errno::INTR) => continue,
                // No child has ended, or there is none at all.
                Ok(None) | Err(_) => return ended,
            };
            let end = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => ProcessEnd::Code(code),
                (None, Some(signal)) => ProcessEnd::Signal(signal),
                (None, None) => continue,
            };
            let rank = self.running.iter().find(|(_, running)| **running == pid);
            if let Some((&rank, &group)) = rank {
                self.running.remove(&rank);
                self.gone.push(group);
                ended.push((rank, end));
            } else {
                debug!(pid = pid.as_raw_nonzero(), "an orphan has ended");
            }
        }
    }

    /// Kills what is left of all ranks and of the processes they started; whether there was something. Launchers give the
    /// processes that they start groups of their own (torchrun does), so all that descend from this process are meant.
    pub fn kill_leftovers(&self) -> bool {
        for &group in self.gone.iter().chain(self.running.values()) {
            send(group, Signal::KILL);
        }
        let left = descendants(getpid(), &parents());
        for &pid in &left {
            if let Err(error) = kill_process(pid, Signal::KILL) {
                debug!(pid = pid.as_raw_nonzero(), "cannot signal: {error}");
            }
        }
        !left.is_empty()
    }

    /// The last lines the rank wrote to stderr.
    pub fn log_end(&self, rank: u32) -> Vec<String> {
        self.tails.get(&rank).map(Tail::lines).unwrap_or_default()
    }
}

/// All processes that have not ended, each with its parent. Of those that end meanwhile nothing is known.
fn parents() -> Vec<(Pid, Pid)> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    let processes = entries.filter_map(|entry| {
        let pid = Pid::from_raw(entry.ok()?.file_name().to_str()?.parse().ok()?)?;
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
        Some((pid, parent(&stat)?))
    });
    processes.collect()
}

/// The parent in a `/proc/PID/stat`; `None` when there is none, or the process has ended.
fn parent(stat: &str) -> Option<Pid> {
    // The program's name in front of it may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    Pid::from_raw(parent).filter(|_| !matches!(state, "Z" | "X"))
}

/// The processes below `root`, by their parents.
fn descendants(root: Pid, parents: &[(Pid, Pid)]) -> Vec<Pid> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&above) = found.get(next) {
        let below = parents.iter().filter(|(_, parent)| *parent == above);
        found.extend(below.map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

fn send(group: Pid, signal: Signal) {
    if let Err(error) = kill_process_group(group, signal) {
        // A group that has just ended, mostly.
        debug!(group = group.as_raw_nonzero(), "cannot signal: {error}");
    }
}

/// Lets a single rank write to the agent's own stdout, and reads the pipes of several; stderr is
/// always read, for its tail.
fn connect_output(
    command: &mut Command,
    place: &Place,
    tail: Tail,
    note: Arc<ClosingNote>,
) -> io::Result<()> {
    let (stderr, stderr_end) = io::pipe()?;
    command.stderr(stderr_end);
    if place.ranks_per_node == 1 {
        command.stdout(Stdio::inherit());
        return forward(stderr, Target::Stderr, Form::Verbatim, Some(tail), note);
    }
    let form = Form::Prefixed(format!("[rank {}] ", note.rank));
    let (stdout, stdout_end) = io::pipe()?;
    command.stdout(stdout_end);
    forward(
        stdout,
        Target::Stdout,
        form.clone(),
        None,
        Arc::clone(&note),
    )?;
    forward(stderr, Target::Stderr, form, Some(tail), note)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid(number: i32) -> Pid {
        Pid::from_raw(number).expect("a pid")
    }

    #[test]
    fn a_parent_is_read_behind_any_name() {
        assert_eq!(Some(pid(7)), parent("9 (sh) S 7 9 9 0 -1"));
        assert_eq!(Some(pid(7)), parent("9 (a) b) (c)) R 7 9 9 0 -1"));
        for nothing in ["9 (sh) Z 7 9", "1 (init) S 0 1", "9 (sh)", ""] {
            assert_eq!(None, parent(nothing), "{nothing}");
        }
    }

    #[test]
    fn descendants_are_all_below_and_nobody_else() {
        let pairs = [(5, 4), (4, 1), (3, 2), (2, 7), (6, 4), (8, 5)];
        let parents = pairs.map(|(child, parent)| (pid(child), pid(parent)));
        let mut below = descendants(pid(1), &parents);
        below.sort_by_key(|pid| pid.as_raw_nonzero());
        assert_eq!([4, 5, 6, 8].map(pid).to_vec(), below);
        assert!(descendants(pid(8), &parents).is_empty());
    }
}
