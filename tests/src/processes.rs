//! The processes of worker pods. The nodes of the test cluster are on this machine, so they can be seen and
//! signalled as any other.

use std::fs;
use std::process::Command;

use serde_json::Value;

/// The processes of a pod that run this rank of the job: one, unless it is just ending or beginning.
pub fn of_rank(pod: &Value, rank: u32) -> Vec<u32> {
    let uid = pod["metadata"]["uid"].as_str().expect("pods have a uid");
    let rank = format!("RANK={rank}");
    of_pod(uid)
        .into_iter()
        .filter(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let mut variables = environment.split(|byte| *byte == 0);
            variables.any(|variable| variable == rank.as_bytes())
        })
        .collect()
}

/// The agent of a worker pod.
pub fn agent(pod: &Value) -> Option<u32> {
    of_program(pod, "yolo-agent")
}

/// The process of a pod that runs a program of this name.
fn of_program(pod: &Value, name: &str) -> Option<u32> {
    let uid = pod["metadata"]["uid"].as_str().expect("pods have a uid");
    of_pod(uid).into_iter().find(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
        program.ends_with(name.as_bytes())
    })
}

/// Sends a signal, by its name without SIG.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill")
        .args([format!("-{name}"), pid.to_string()])
        .status();
    assert!(
        sent.is_ok_and(|status| status.success()),
        "sending {name} to {pid}"
    );
}

/// Lets nobody connect to a port of the pod that this process is in, as a network policy or a firewall does. It ends with
/// the pod.
pub fn close_port(pid: u32, port: u16) {
    drop_packets(pid, "INPUT", "--dport", &port.to_string());
}

/// Loses every packet of the connections to the API server that a pod of the operator has now, without a word, as a
/// load balancer does that forgot them; returns how many those are. New ones work. It ends with the pod.
pub fn forget_connections(operator: &Value) -> usize {
    let pid = of_program(operator, "yolo-operator").expect("an operator");
    let connections = ["ss", "-Htn", "state", "established", "dport", "=", ":443"];
    let connections = in_network(pid, &connections);
    let ports = connections.lines().filter_map(|line| {
        let local = line.split_whitespace().nth(2)?;
        Some(local.rsplit_once(':')?.1)
    });
    ports
        .map(|port| {
            drop_packets(pid, "OUTPUT", "--sport", port);
            drop_packets(pid, "INPUT", "--dport", port);
        })
        .count()
}

/// Drops what has this port at this end of it, in the network of a process.
fn drop_packets(pid: u32, chain: &str, end: &str, port: &str) {
    let rule = ["iptables", "--wait", "--append", chain, "--protocol", "tcp"];
    in_network(pid, &[&rule[..], &[end, port, "--jump", "DROP"]].concat());
}

/// What a command prints that runs in the network of a process.
fn in_network(pid: u32, command: &[&str]) -> String {
    let done = Command::new("nsenter")
        .args(["--target", &pid.to_string(), "--net", "--"])
        .args(command)
        .output()
        .expect("nsenter is there");
    assert!(done.status.success(), "{command:?} of {pid}: {done:?}");
    String::from_utf8(done.stdout).expect("text")
}

/// All processes in the control groups of a pod.
fn of_pod(uid: &str) -> Vec<u32> {
    // The systemd driver writes underscores.
    let marks = [uid.to_owned(), uid.replace('-', "_")];
    let processes = fs::read_dir("/proc").expect("/proc is there");
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            let group = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            marks.iter().any(|mark| group.contains(mark))
        })
        .collect()
}
