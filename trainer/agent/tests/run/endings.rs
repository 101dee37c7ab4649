//! How ranks end, and what the worker makes of it.

use std::fs;
use std::time::{Duration, Instant};

use contract::attempt::Attempt;
use contract::exit::FailureReason;
use contract::progress::Phase;
use contract::result::WorkerResult;

use crate::support::agent;

pub fn all_ranks_succeed_in_their_places() {
    let script = "echo place $RANK $LOCAL_RANK $WORLD_SIZE $LOCAL_WORLD_SIZE $MASTER_ADDR \
                  $MASTER_PORT $YOLO_ATTEMPT $(basename $YOLO_CONFIG) $(basename $YOLO_AGENT_SOCKET)";
    let ended = agent(2).shell(script).finish();
    assert_eq!(0, ended.code, "{}", ended.stderr);
    let mut lines: Vec<&str> = ended.stdout.lines().collect();
    lines.sort_unstable();
    let tail = "4 2 digits-worker-0.digits 29500 2.0 job.json agent.sock";
    let expected = [
        format!("[rank 2] place 2 0 {tail}"),
        format!("[rank 3] place 3 1 {tail}"),
    ];
    assert_eq!(expected, lines.as_slice());
    assert_eq!(
        (None, None, 1, "2.0"),
        (
            ended.result.reason,
            ended.result.rank,
            ended.result.node_rank,
            ended.result.attempt.to_string().as_str(),
        )
    );
    assert_eq!(None, ended.result.report);
}

pub fn a_failing_rank_is_remembered_and_its_peers_are_stopped() {
    // The peer's child holds its pipe open unless the whole group is signalled.
    let script =
        "if [ $RANK = 3 ]; then echo first >&2; echo no such file >&2; exit 3; fi; sleep 60";
    let start = Instant::now();
    let ended = agent(2).shell(script).finish();
    let took = start.elapsed();
    assert_eq!(3, ended.code, "{}", ended.stderr);
    assert_eq!(
        (Some(FailureReason::Internal), Some(3)),
        (ended.result.reason, ended.result.rank)
    );
    assert_eq!(
        "rank 3 exited with code 3 without saying why; its log is above; its last lines on stderr \
         were:\nfirst\nno such file",
        ended.result.message
    );
    assert!(
        ended.stderr.contains("[rank 3] no such file\n"),
        "{}",
        ended.stderr
    );
    assert!(took < Duration::from_secs(4), "{took:?}");
}

pub fn a_killed_rank_is_reported_with_its_signal() {
    for (signal, code, word) in [("KILL", 137, "limits.memory"), ("SEGV", 139, "SIGSEGV")] {
        let ended = agent(1).shell(&format!("kill -{signal} $$")).finish();
        assert_eq!(code, ended.code, "{}", ended.stderr);
        assert_eq!(Some(FailureReason::Killed), ended.result.reason);
        assert!(
            ended.result.message.contains(word),
            "{}",
            ended.result.message
        );
    }
}

const REPORT: &str = concat!(
    r#"say={"type":"report","phase":"Training","progress":"#,
    r#"{"epoch":2,"epochs":3,"step":41,"steps":60,"percent":68.3,"trainingSeconds":9.5},"#,
    r#""skippedImages":1,"warnings":["images/7.png: not an image"]}"#
);

/// What a rank says last and its end race through two channels of the agent: many tries.
pub fn a_reason_and_the_last_report_survive_an_exit_right_after_them() {
    let result =
        r#"say={"type":"result","reason":"InvalidDataset","message":"labels/7.txt line 3"}"#;
    for _ in 0..10 {
        let ended = agent(1)
            .speaking(&["hello", REPORT, result, "exit=65"])
            .finish();
        assert_eq!(65, ended.code, "{}", ended.stderr);
        assert_eq!(
            (
                Some(FailureReason::InvalidDataset),
                Some(1),
                "labels/7.txt line 3"
            ),
            (
                ended.result.reason,
                ended.result.rank,
                ended.result.message.as_str()
            )
        );
        let report = ended.result.report.expect("a report");
        assert_eq!((Phase::Training, 41), (report.phase, report.progress.step));
        assert_eq!(vec!["images/7.png: not an image"], report.warnings);
    }
}

pub fn last_words_of_success_are_kept() {
    let result = r#"say={"type":"result","message":"3 epochs, best mAP50-95 0.41"}"#;
    let ended = agent(1).speaking(&["hello", REPORT, result]).finish();
    assert_eq!(0, ended.code, "{}", ended.stderr);
    assert_eq!("3 epochs, best mAP50-95 0.41", ended.result.message);
    assert_eq!(41, ended.result.report.expect("a report").progress.step);
}

pub fn a_cause_is_preferred_to_its_echo() {
    let steps = [
        "hello",
        "rank=2",
        r#"say={"type":"result","reason":"PeerLost","message":"rank 3 is lost"}"#,
        "exit=76",
        "rank=3",
        "sleep=300",
        r#"say={"type":"result","reason":"NonFiniteLoss","message":"NaN at step 7"}"#,
        "exit=80",
    ];
    let ended = agent(2).speaking(&steps).finish();
    assert_eq!(80, ended.code, "{}", ended.stderr);
    assert_eq!(
        (Some(3), "NaN at step 7"),
        (ended.result.rank, ended.result.message.as_str())
    );
}

pub fn a_missing_program_is_a_configuration_error() {
    let ended = agent(2).start(&["/no/such/program"]).finish();
    assert_eq!(64, ended.code, "{}", ended.stderr);
    assert_eq!(Some(2), ended.result.rank);
    assert_eq!(
        "rank 2 cannot be started: the program /no/such/program cannot be executed: No such file or \
         directory (os error 2)",
        ended.result.message
    );
}

pub fn a_bad_environment_or_configuration_is_refused() {
    let refused = |setup: crate::support::Setup, expected: &[&str]| {
        let ended = setup.shell("echo started").finish();
        assert_eq!(64, ended.code, "{}", ended.stderr);
        assert_eq!(Some(FailureReason::InvalidConfig), ended.result.reason);
        assert_eq!("", ended.stdout, "a rank was started");
        for text in expected {
            assert!(
                ended.result.message.contains(text),
                "{}",
                ended.result.message
            );
            assert!(ended.stderr.contains(text), "{}", ended.stderr);
        }
    };
    refused(agent(1).env_remove("NNODES"), &["NNODES is not set"]);
    refused(agent(1).env("YOLO_ATTEMPT", "two"), &["YOLO_ATTEMPT='two'"]);
    refused(
        agent(1).env_remove("YOLO_CONFIG"),
        &["YOLO_CONFIG is not set"],
    );
    refused(
        agent(1).env("YOLO_CONFIG", "/no/job.json"),
        &["/no/job.json", "os error 2"],
    );
    refused(
        agent(1).env("NPROC_PER_NODE", "4"),
        &[
            "NPROC_PER_NODE=4",
            "workers.processesPerWorker of the job configuration is 1",
        ],
    );
    let setup = agent(1);
    let text = fs::read_to_string(setup.dir().join("job.json")).expect("written before");
    let later = text.replacen("\"formatVersion\":1", "\"formatVersion\":9", 1);
    fs::write(setup.dir().join("job.json"), later).expect("written");
    refused(
        setup,
        &["job.json is not a job configuration", "format version 9"],
    );
}

pub fn a_bad_command_line_is_refused() {
    let program = env!("CARGO_BIN_EXE_yolo-agent");
    let run = |args: &[&str]| {
        let output = std::process::Command::new(program).args(args).output();
        output.expect("the agent runs").status.code()
    };
    assert_eq!(Some(64), run(&["run"]));
    assert_eq!(Some(64), run(&["run", "--port=70000", "--", "true"]));
    assert_eq!(Some(0), run(&["--version"]));
    // Without a place the result's numbers are zero.
    let ended = agent(1).env_remove("NODE_RANK").shell("true").finish();
    let WorkerResult {
        attempt, node_rank, ..
    } = ended.result;
    assert_eq!((Attempt::default(), 0), (attempt, node_rank));
}

/// Katib's collector waits for the process, and asks for a file with its number.
pub fn a_trial_of_katib_is_marked_when_its_ranks_succeeded_and_not_else() {
    for (script, code) in [("exit 0", 0), ("exit 3", 3)] {
        let folder = tempfile::tempdir().expect("a folder");
        let flag = format!("--katib={}", folder.path().display());
        let running = agent(1)
            .flag(&flag)
            .env("KATIB_TRIAL_NAME", "t")
            .shell(script);
        let mark = folder.path().join(format!("{}.pid", running.pid()));
        let ended = running.finish();
        assert_eq!(code, ended.code, "{}", ended.stderr);
        assert!(folder.path().join("metrics.log").exists());
        let found = fs::read_to_string(mark).unwrap_or_default();
        assert_eq!(if code == 0 { "completed" } else { "" }, found);
    }
}
