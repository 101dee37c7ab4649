//! Several agents of one job, on one machine.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use contract::exit::FailureReason;
use contract::progress::AgentProgress;
use rustix::process::{Signal, kill_process};

use crate::support::{Agent, Setup, agent};

/// Agents of a job with one rank each, which may restart them so often.
fn setups<const N: usize>(restarts: u32) -> [Setup; N] {
    // A port that was free a moment ago.
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    drop(listener);
    std::array::from_fn(|worker| {
        let setup = agent(1);
        let token = setup.dir().join("token");
        fs::write(&token, "secret").expect("written");
        setup
            .flag(&format!("--group-token-file={}", token.display()))
            .flag(&format!("--group-port={port}"))
            .flag(&format!("--restarts-left={restarts}"))
            .env("MASTER_ADDR", "127.0.0.1")
            .env("NNODES", &N.to_string())
            .env("NODE_RANK", &worker.to_string())
    })
}

/// Ranks that say who they are and then wait, until there is a file `done` in the agent's folder.
fn patient(setup: Setup) -> Agent {
    let done = setup.dir().join("done");
    let script = format!(
        "echo rank $RANK of $WORLD_SIZE in $YOLO_ATTEMPT is $$; while [ ! -e {} ]; do sleep 0.05; done",
        done.display()
    );
    setup.shell(&script)
}

fn release(folder: &Path) {
    fs::write(folder.join("done"), "").expect("written");
}

/// The process of the rank that said so in this attempt.
fn pid_of(agent: &Agent, attempt: &str) -> rustix::process::Pid {
    let mark = format!("in {attempt} is ");
    agent.wait_for_stdout(&mark, 1);
    let text = agent.stdout_text();
    let pid = text
        .split(&mark)
        .nth(1)
        .and_then(|rest| rest.lines().next());
    let pid = pid.expect("just seen").parse().expect("a number");
    rustix::process::Pid::from_raw(pid).expect("a process")
}

pub fn ranks_start_together_and_a_killed_one_restarts_all_in_place() {
    let [first, second, third] = setups::<3>(3);
    let folders = [first.dir(), second.dir(), third.dir()].map(Path::to_owned);
    let first = patient(first);
    let second = patient(second);
    first.wait_for_stderr("serving");
    second.wait_for_stderr("in touch with worker 0");
    assert_eq!("", first.stdout_text(), "it did not wait for the third");
    let third = patient(third);
    let agents = [first, second, third];
    for (rank, agent) in agents.iter().enumerate() {
        agent.wait_for_stdout(&format!("rank {rank} of 3 in 2.0"), 1);
    }
    let killed = Instant::now();
    kill_process(pid_of(&agents[1], "2.0"), Signal::KILL).expect("it runs");
    for (rank, agent) in agents.iter().enumerate() {
        agent.wait_for_stdout(&format!("rank {rank} of 3 in 2.1"), 1);
    }
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(2), "the restart took {took:?}");
    let progress: AgentProgress =
        serde_json::from_str(&agents[0].get("/progress").1).expect("a document");
    assert_eq!("2.1", progress.attempt.to_string());
    let cause = progress.restarted_after.expect("a cause");
    assert_eq!(
        (1, Some(1), FailureReason::Killed),
        (cause.worker, cause.rank, cause.reason)
    );
    assert!(agents[0].get("/metrics").0 == 200);
    for folder in &folders {
        release(folder);
    }
    for agent in agents {
        let ended = agent.finish();
        assert_eq!(0, ended.code, "{}", ended.stderr);
        assert_eq!("2.1", ended.result.attempt.to_string());
        let told = ended.result.restarted_after.expect("a cause");
        assert_eq!((1, Some(1)), (told.worker, told.rank));
        assert!(ended.stderr.contains("attempt=2.1"), "{}", ended.stderr);
    }
}

pub fn when_no_restart_is_left_every_worker_says_why() {
    let [first, second] = setups::<2>(1);
    let agents = [patient(first), patient(second)];
    for attempt in ["2.0", "2.1"] {
        kill_process(pid_of(&agents[1], attempt), Signal::KILL).expect("it runs");
    }
    let [first, second] = agents.map(Agent::finish);
    assert_eq!(137, second.code, "{}", second.stderr);
    assert_eq!(
        (Some(FailureReason::Killed), Some(1)),
        (second.result.reason, second.result.rank)
    );
    assert_eq!(76, first.code, "{}", first.stderr);
    assert_eq!(Some(FailureReason::PeerLost), first.result.reason);
    let message = &first.result.message;
    assert!(
        message.starts_with(
            "its ranks were stopped, since worker 1 (rank 1): rank 1 was ended by SIGKILL"
        ),
        "{message}"
    );
    assert_eq!("2.1", first.result.attempt.to_string());
}

pub fn a_failure_that_would_repeat_itself_ends_all() {
    let [first, second] = setups::<2>(5);
    let first = patient(first);
    let second = second.shell("exit 65");
    let (first, second) = (first.finish(), second.finish());
    assert_eq!((76, 65), (first.code, second.code), "{}", first.stderr);
    assert_eq!("2.0", second.result.attempt.to_string());
}

pub fn a_worker_whose_ranks_noticed_that_another_is_gone_says_why_it_is() {
    let [first, second] = setups::<2>(5);
    let (first, second) = (first.shell("exit 76"), second.shell("sleep 0.3; exit 65"));
    let (first, second) = (first.finish(), second.finish());
    assert_eq!((76, 65), (first.code, second.code), "{}", first.stderr);
    let because = first.result.because.expect("a cause");
    assert_eq!(
        (1, Some(1), FailureReason::InvalidDataset),
        (because.worker, because.rank, because.reason)
    );
}

pub fn a_worker_does_not_name_itself_as_the_cause() {
    let [first, second] = setups::<2>(0);
    let [first, second] = [first.shell("exit 76"), patient(second)].map(Agent::finish);
    assert_eq!((76, 76), (first.code, second.code), "{}", first.stderr);
    assert_eq!(None, first.result.because);
    let because = second.result.because.expect("a cause");
    assert_eq!((0, Some(0)), (because.worker, because.rank));
}

/// Two workers, and another pod of the second one.
fn with_successor() -> [Setup; 3] {
    let [first, second, successor] = setups::<3>(5).map(|setup| setup.env("NNODES", "2"));
    let successor = successor
        .env("NODE_RANK", "1")
        .env("YOLO_ATTEMPT", "2.1")
        .flag("--pod-number=1");
    [first, second, successor]
}

pub fn a_worker_that_is_gone_is_awaited_and_another_pod_takes_its_place() {
    let [first, second, successor] = with_successor();
    let folders = [first.dir(), successor.dir()].map(Path::to_owned);
    let agents = [patient(first), patient(second)];
    pid_of(&agents[0], "2.0");
    let rank = pid_of(&agents[1], "2.0");
    agents[1].signal(Signal::KILL);
    kill_process(rank, Signal::KILL).expect("it runs");
    let [first, _gone] = agents;
    first.wait_for_stderr("worker 1: the others lost touch with it: its connection ended");
    first.wait_for_stderr("waiting for another pod of this worker");
    let progress = || -> AgentProgress {
        serde_json::from_str(&first.get("/progress").1).expect("a document")
    };
    let told = progress();
    assert_eq!("2.0", told.attempt.to_string());
    let [lost] = &told.lost[..] else {
        panic!("{told:?}");
    };
    assert_eq!((1, 0), (lost.worker, lost.number));

    let successor = patient(successor);
    for (rank, agent) in [&first, &successor].into_iter().enumerate() {
        agent.wait_for_stdout(&format!("rank {rank} of 2 in 2.1"), 1);
    }
    let told = progress();
    assert_eq!("2.1", told.attempt.to_string());
    assert!(told.lost.is_empty(), "{told:?}");
    for folder in &folders {
        release(folder);
    }
    for agent in [first, successor] {
        let ended = agent.finish();
        assert_eq!(0, ended.code, "{}", ended.stderr);
        assert_eq!("2.1", ended.result.attempt.to_string());
    }
}

pub fn a_worker_that_is_asked_to_stop_alone_is_awaited_too() {
    let [first, second, successor] = with_successor();
    let folder = first.dir().to_owned();
    // Its rank hears from the other one that all stop.
    let script = format!(
        "echo begun $YOLO_ATTEMPT; if [ $YOLO_ATTEMPT = 2.1 ]; then exit 0; fi; \
         while [ ! -e {} ]; do sleep 0.05; done; exit 143",
        folder.join("done").display()
    );
    let first = first.shell(&script);
    let second = second.speaking(&["hello", "await-stop", "exit=143"]);
    first.wait_for_stdout("begun 2.0", 1);
    second.wait_for_stdout("connected", 1);
    second.signal(Signal::TERM);
    // It may be there before the other has ended.
    let successor = successor.shell("echo begun $YOLO_ATTEMPT");
    let ended = second.finish();
    assert_eq!(143, ended.code, "{}", ended.stderr);
    assert!(
        !first.stdout_text().contains("2.1"),
        "it was not given the time to stop"
    );
    release(&folder);
    let [first, successor] = [first, successor].map(Agent::finish);
    for ended in [&first, &successor] {
        assert_eq!(0, ended.code, "{}", ended.stderr);
        assert!(ended.stdout.contains("begun 2.1"), "{}", ended.stdout);
    }
    assert!(
        !successor.stdout.contains("begun 2.0"),
        "two of a rank ran: {}",
        successor.stdout
    );
}

pub fn a_worker_that_is_asked_to_stop_has_its_time_although_its_successor_is_there() {
    let [first, second, third, successor] = setups::<4>(5).map(|setup| setup.env("NNODES", "3"));
    let successor = successor
        .env("NODE_RANK", "1")
        .env("YOLO_ATTEMPT", "2.1")
        .flag("--pod-number=1");
    let folder = first.dir().to_owned();
    // All ranks hear that they are to stop. The last is at its end soon, and rank 0 writes the checkpoint then.
    let until = |mark: &str, last_words: &str| {
        let mark = folder.join(mark);
        format!(
            "echo begun $YOLO_ATTEMPT; if [ $YOLO_ATTEMPT = 2.1 ]; then exit 0; fi; \
             while [ ! -e {} ]; do sleep 0.05; done; {last_words}; exit 143",
            mark.display()
        )
    };
    let first = first.shell(&until("done", "echo written"));
    let third = third.shell(&until("asked", "true"));
    let second = second.speaking(&["hello", "await-stop", "sleep=4000", "exit=143"]);
    for agent in [&first, &third] {
        agent.wait_for_stdout("begun 2.0", 1);
    }
    second.wait_for_stdout("connected", 1);
    second.signal(Signal::TERM);
    let successor = successor.shell("echo begun $YOLO_ATTEMPT");
    successor.wait_for_stderr("in touch with worker 0");
    fs::write(folder.join("asked"), "").expect("written");
    let ended = second.finish();
    assert_eq!(143, ended.code, "{}", ended.stderr);
    release(&folder);
    let [first, third, successor] = [first, third, successor].map(Agent::finish);
    for ended in [&first, &third, &successor] {
        assert_eq!(0, ended.code, "{}", ended.stderr);
        assert!(ended.stdout.contains("begun 2.1"), "{}", ended.stdout);
    }
    assert!(
        first.stdout.contains("written"),
        "rank 0 was not given the time to write a checkpoint: {}",
        first.stderr
    );
}

pub fn who_waits_for_another_can_be_asked_to_stop() {
    let [first, second] = setups::<2>(5);
    let agents = [patient(first), patient(second)];
    let rank = pid_of(&agents[1], "2.0");
    agents[1].signal(Signal::KILL);
    kill_process(rank, Signal::KILL).expect("it runs");
    let [first, _gone] = agents;
    first.wait_for_stderr("waiting for another pod of this worker");
    first.signal(Signal::TERM);
    let ended = first.finish();
    assert_eq!(143, ended.code, "{}", ended.stderr);
}

/// Two workers, and another pod of the first one.
fn with_successor_of_worker_0() -> [Setup; 3] {
    let [successor, second, first] = setups::<3>(5).map(|setup| setup.env("NNODES", "2"));
    let successor = successor.env("YOLO_ATTEMPT", "2.1").flag("--pod-number=1");
    [first.env("NODE_RANK", "0"), second, successor]
}

pub fn without_worker_0_the_others_wait_for_its_successor() {
    let [first, second, successor] = with_successor_of_worker_0();
    let folders = [successor.dir(), second.dir()].map(Path::to_owned);
    let agents = [patient(first), patient(second)];
    let rank = pid_of(&agents[0], "2.0");
    pid_of(&agents[1], "2.0");
    agents[0].signal(Signal::KILL);
    kill_process(rank, Signal::KILL).expect("it runs");
    let [_gone, second] = agents;
    second.wait_for_stderr("worker 0 is lost");
    second.wait_for_stderr("waiting for another pod of worker 0");
    let told = || -> AgentProgress {
        serde_json::from_str(&second.get("/progress").1).expect("a document")
    };
    let progress = told();
    let [lost] = &progress.lost[..] else {
        panic!("{progress:?}");
    };
    assert_eq!((0, 0), (lost.worker, lost.number));
    assert_eq!("2.0", progress.attempt.to_string());

    let successor = patient(successor);
    for (rank, agent) in [&successor, &second].into_iter().enumerate() {
        agent.wait_for_stdout(&format!("rank {rank} of 2 in 2.1"), 1);
    }
    assert!(told().lost.is_empty(), "{:?}", told());
    for folder in &folders {
        release(folder);
    }
    for agent in [successor, second] {
        let ended = agent.finish();
        assert_eq!(0, ended.code, "{}", ended.stderr);
        assert_eq!("2.1", ended.result.attempt.to_string());
    }
}

pub fn worker_0_that_is_asked_to_stop_alone_is_awaited_too() {
    worker_0_is_asked_to_stop("exit=143");
    // Its rank ends well, but not that of the other: it has not succeeded.
    worker_0_is_asked_to_stop("exit=0");
}

fn worker_0_is_asked_to_stop(exit: &str) {
    let [first, second, successor] = with_successor_of_worker_0();
    let folder = second.dir().to_owned();
    let first = first.speaking(&["hello", "await-stop", exit]);
    // As if its rank heard from the other one that all stop.
    let script = format!(
        "echo begun $YOLO_ATTEMPT; if [ $YOLO_ATTEMPT = 2.1 ]; then exit 0; fi; \
         while [ ! -e {} ]; do sleep 0.05; done; exit 143",
        folder.join("done").display()
    );
    let second = second.shell(&script);
    first.wait_for_stdout("connected", 1);
    second.wait_for_stdout("begun 2.0", 1);
    first.signal(Signal::TERM);
    release(&folder);
    let ended = first.finish();
    assert_eq!(143, ended.code, "{}", ended.stderr);
    let ended = [successor.shell("echo begun $YOLO_ATTEMPT"), second].map(Agent::finish);
    for ended in &ended {
        assert_eq!(0, ended.code, "{}", ended.stderr);
        assert!(ended.stdout.contains("begun 2.1"), "{}", ended.stdout);
    }
}

pub fn an_earlier_pod_of_worker_0_is_not_listened_to() {
    let [first, second, successor] = with_successor_of_worker_0();
    let agents = [patient(successor), patient(second)];
    let rank = pid_of(&agents[0], "2.1");
    agents[0].signal(Signal::KILL);
    kill_process(rank, Signal::KILL).expect("it runs");
    let [_gone, second] = agents;
    second.wait_for_stderr("worker 0 is lost");
    let first = patient(first);
    first.wait_for_stderr("belongs to pod 1 of worker 0, which has taken the place of this one");
    assert_eq!("", first.stdout_text(), "it found nobody to begin with");
    second.signal(Signal::TERM);
    first.signal(Signal::TERM);
    for ended in [first, second].map(Agent::finish) {
        assert_eq!(143, ended.code, "{}", ended.stderr);
    }
}

pub fn a_worker_without_the_secret_is_not_let_in() {
    let [first, second] = setups::<2>(5);
    let first = patient(first);
    fs::write(second.dir().join("token"), "guess").expect("written");
    let second = patient(second);
    first.wait_for_stderr("it does not know the secret");
    assert_eq!("", second.stdout_text());
    second.signal(Signal::TERM);
    first.signal(Signal::TERM);
    for ended in [first, second].map(Agent::finish) {
        assert_eq!(143, ended.code, "{}", ended.stderr);
        assert_eq!(
            "asked to stop while none of its ranks ran",
            ended.result.message
        );
    }
}

pub fn a_request_to_stop_is_no_reason_to_restart() {
    let [first, second] = setups::<2>(5);
    let agents = [first, second].map(|setup| setup.speaking(&["hello", "await-stop", "exit=143"]));
    for agent in &agents {
        agent.wait_for_stdout("connected", 1);
        agent.signal(Signal::TERM);
    }
    for ended in agents.map(Agent::finish) {
        assert_eq!(143, ended.code, "{}", ended.stderr);
        assert_eq!(Some(FailureReason::Stopped), ended.result.reason);
        assert_eq!("2.0", ended.result.attempt.to_string());
    }
}

pub fn who_is_asked_to_stop_does_not_begin_again() {
    let [first, second] = setups::<2>(5);
    // One of them cannot write its checkpoint.
    let steps = [
        "hello",
        "await-stop",
        "rank=0",
        "exit=143",
        "rank=1",
        "exit=74",
    ];
    let agents = [first, second].map(|setup| setup.speaking(&steps));
    for agent in &agents {
        agent.wait_for_stdout("connected", 1);
    }
    for agent in &agents {
        agent.signal(Signal::TERM);
    }
    let [first, second] = agents.map(Agent::finish);
    assert_eq!(74, second.code, "{}", second.stderr);
    assert!([143, 76].contains(&first.code), "{}", first.stderr);
    for ended in [first, second] {
        assert_eq!("2.0", ended.result.attempt.to_string(), "{}", ended.stderr);
    }
}

pub fn a_worker_on_its_own_restarts_its_ranks_too() {
    let setup = agent(2)
        .flag("--restarts-left=1")
        .env("NNODES", "1")
        .env("NODE_RANK", "0");
    let script = "echo attempt $YOLO_ATTEMPT; if [ $YOLO_ATTEMPT = 2.0 ] && [ $RANK = 1 ]; then exit 3; fi; \
                  if [ $YOLO_ATTEMPT = 2.0 ]; then sleep 60; fi";
    let ended = setup.shell(script).finish();
    assert_eq!(0, ended.code, "{}", ended.stderr);
    let count = |text: &str| ended.stdout.matches(text).count();
    assert_eq!((2, 2), (count("attempt 2.0"), count("attempt 2.1")));
}
