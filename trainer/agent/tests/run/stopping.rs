//! Signals, and PID 1's duties.

use std::fs;
use std::time::{Duration, Instant};

use contract::exit::FailureReason;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{agent, comes_true};

pub fn a_rank_that_listens_stops_after_its_step() {
    let steps = [
        "hello",
        "await-stop",
        r#"say={"type":"result","reason":"Stopped","message":"checkpoint at step 9"}"#,
        "exit=143",
    ];
    let agent = agent(2).speaking(&steps);
    agent.wait_for_stdout("connected", 2);
    agent.signal(Signal::TERM);
    let ended = agent.finish();
    assert_eq!(143, ended.code, "{}", ended.stderr);
    assert_eq!(
        2,
        ended.stdout.matches("asked to stop").count(),
        "{}",
        ended.stdout
    );
    assert_eq!(
        (Some(FailureReason::Stopped), "checkpoint at step 9"),
        (ended.result.reason, ended.result.message.as_str())
    );
}

pub fn a_rank_that_does_not_listen_gets_the_signal() {
    let script = "trap 'echo saving; exit 1' TERM; echo ready; while :; do sleep 0.05; done";
    let agent = agent(1).shell(script);
    agent.wait_for_stdout("ready", 1);
    agent.signal(Signal::TERM);
    let ended = agent.finish();
    assert_eq!(143, ended.code, "{}", ended.stderr);
    assert_eq!("ready\nsaving\n", ended.stdout);
    assert_eq!(
        "rank 1 exited with code 1 after SIGTERM, with which it was stopped",
        ended.result.message
    );
}

const STUBBORN: &str = "trap '' TERM; echo ready; while :; do sleep 0.05; done";

pub fn a_rank_that_ignores_sigterm_is_killed_after_the_grace() {
    let agent = agent(1).flag("--stop-grace-seconds=1").shell(STUBBORN);
    agent.wait_for_stdout("ready", 1);
    let start = Instant::now();
    agent.signal(Signal::TERM);
    let ended = agent.finish();
    let took = start.elapsed();
    assert_eq!(143, ended.code, "{}", ended.stderr);
    assert!(
        ended.result.message.contains("stopped with SIGKILL"),
        "{}",
        ended.result.message
    );
    assert!(
        took > Duration::from_secs(4) && took < Duration::from_secs(7),
        "{took:?}"
    );
}

pub fn a_second_sigterm_ends_everything_at_once() {
    let agent = agent(2).shell(STUBBORN);
    agent.wait_for_stdout("ready", 2);
    agent.signal(Signal::TERM);
    // Two signals that come together are one to the kernel.
    agent.wait_for_stderr("asked to stop");
    let start = Instant::now();
    agent.signal(Signal::INT);
    let ended = agent.finish();
    assert_eq!(143, ended.code, "{}", ended.stderr);
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
}

pub fn user_signals_reach_the_ranks() {
    for (signal, name) in [
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        (Signal::HUP, "HUP"),
    ] {
        let script = format!(
            "trap 'echo got {name}; exit 0' {name}; echo ready; while :; do sleep 0.05; done"
        );
        let agent = agent(1).shell(&script);
        agent.wait_for_stdout("ready", 1);
        agent.signal(signal);
        let ended = agent.finish();
        // The shell's own child dies of the signal too; only the shell's exit counts.
        assert_eq!(0, ended.code, "{}", ended.stderr);
        assert!(
            ended.stdout.contains(&format!("got {name}")),
            "{}",
            ended.stdout
        );
    }
}

pub fn orphans_are_reaped_and_leftovers_killed() {
    // A subshell that ends at once leaves two orphans: one that soon ends, and one that stays, even
    // after SIGTERM, and holds no pipe open.
    let script = "(sh -c 'echo short $$; exec sleep 0.3' & \
                  sh -c 'trap \"\" TERM; echo long $$; exec sleep 600 >/dev/null 2>&1' &); sleep 600";
    let agent = agent(1).shell(script);
    agent.wait_for_stdout("short", 1);
    agent.wait_for_stdout("long", 1);
    let pids = agent.stdout_text();
    let pid = |name: &str| -> u32 {
        let line = pids.lines().find_map(|line| line.strip_prefix(name));
        line.expect("printed").trim().parse().expect("a pid")
    };
    let (short, long) = (pid("short "), pid("long "));
    let parent = || status_field(long, "PPid:");
    let own = agent.pid().to_string();
    agent.wait_until("the orphan's adoption", || {
        parent().as_deref() == Some(own.as_str())
    });
    // A zombie would still have a folder in /proc.
    agent.wait_until("the short orphan's end", || {
        status_field(short, "State:").is_none()
    });
    assert!(
        status_field(long, "State:").is_some(),
        "the long orphan still runs"
    );
    agent.signal(Signal::TERM);
    let ended = agent.finish();
    assert_eq!(143, ended.code, "{}", ended.stderr);
    // Killed with its group, and then collected by whoever adopted it.
    let gone = || status_field(long, "State:").is_none_or(|state| state.starts_with('Z'));
    assert!(comes_true(gone), "the long orphan outlived the agent");
}

/// A launcher gives what it starts a session of its own, and is killed before it can end it.
pub fn what_a_launcher_started_ends_before_the_next_attempt() {
    let script = "if [ $YOLO_ATTEMPT = 2.0 ]; then \
                  setsid sh -c 'trap \"\" TERM; echo started $$; exec sleep 600 >/dev/null 2>&1' & \
                  sleep 600; fi; echo again; sleep 600";
    let agent = agent(1)
        .flag("--restarts-left=1")
        .env("NNODES", "1")
        .env("NODE_RANK", "0")
        .shell(script);
    agent.wait_for_stdout("started", 1);
    let text = agent.stdout_text();
    let line = text.lines().find_map(|line| line.strip_prefix("started "));
    let started: u32 = line.expect("printed").parse().expect("a pid");
    let launcher = status_field(started, "PPid:").expect("it runs");
    let launcher = launcher.parse().ok().and_then(Pid::from_raw);
    kill_process(launcher.expect("a pid"), Signal::KILL).expect("the launcher runs");
    agent.wait_for_stdout("again", 1);
    assert_eq!(None, status_field(started, "State:"), "it is still there");
    agent.signal(Signal::TERM);
    let ended = agent.finish();
    assert_eq!(143, ended.code, "{}", ended.stderr);
}

/// A field of `/proc/PID/status`; `None` when there is no such process.
fn status_field(pid: u32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.trim().to_owned())
}
