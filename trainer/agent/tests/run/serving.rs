//! What the agent serves over HTTP, and what it makes of what ranks say.

use contract::progress::{AgentProgress, Phase};
use rustix::process::Signal;

use crate::support::agent;

const METRICS: &str = concat!(
    r#"say={"type":"metrics","samples":["#,
    r#"{"metric":"yolo_train_loss","labels":{"part":"box","split":"train"},"value":0.25},"#,
    r#"{"metric":"yolo_train_images_total","value":640},"#,
    r#"{"metric":"yolo_train_step_seconds","value":0.2}]}"#
);
const HEARTBEAT: &str = r#"say={"type":"heartbeat","step":41,"phase":"Evaluating"}"#;
const REPORT: &str = concat!(
    r#"say={"type":"report","phase":"Training","progress":"#,
    r#"{"epoch":2,"epochs":3,"step":40,"steps":60,"percent":66.7,"trainingSeconds":9.5}}"#
);

pub fn metrics_progress_and_health_are_served() {
    let steps = [
        "hello",
        "rank=2",
        REPORT,
        METRICS,
        HEARTBEAT,
        "sleep=60000",
        "rank=3",
        METRICS,
        "await-stop",
    ];
    let agent = agent(2).flag("--stop-grace-seconds=1").speaking(&steps);
    agent.wait_for_stdout("connected", 2);
    let series = |name: &str, rank: &str, value: &str| {
        let labels = r#"attempt="2.0",namespace="team""#;
        format!(r#"{name}{{{labels}{rank},training_job="digits"}} {value}"#)
    };
    let expected = [
        series("yolo_train_loss", r#",part="box",split="train""#, "0.25"),
        series("yolo_train_images_total", "", "640"),
        series("yolo_train_step_seconds_count", r#",rank="2""#, "1"),
        series("yolo_train_step_seconds_count", r#",rank="3""#, "1"),
    ];
    for line in expected {
        let there = || agent.get("/metrics").1.lines().any(|found| found == line);
        agent.wait_until(&line, there);
    }
    let progress = || serde_json::from_str::<AgentProgress>(&agent.get("/progress").1).ok();
    let heard = || progress().is_some_and(|progress| progress.ranks[0].step == 41);
    agent.wait_until("the heartbeat", heard);
    let progress = progress().expect("a progress document");
    assert_eq!(
        (1, "2.0", 1, 40),
        (
            progress.version,
            progress.attempt.to_string().as_str(),
            progress.node_rank,
            progress.report.progress.step,
        )
    );
    let ranks: Vec<_> = progress
        .ranks
        .iter()
        .map(|rank| (rank.rank, rank.phase))
        .collect();
    assert_eq!(vec![(2, Phase::Evaluating), (3, Phase::Starting)], ranks);
    assert!(
        progress.ranks.iter().all(|rank| rank.silent_seconds < 10.0),
        "{progress:?}"
    );
    assert_eq!(
        (200, "2 of 2 ranks alive\n".to_owned()),
        agent.get("/healthz")
    );
    assert_eq!(404, agent.get("/").0);
    agent.signal(Signal::TERM);
    agent.wait_until("one rank alive", || {
        agent.get("/healthz").1 == "1 of 2 ranks alive\n"
    });
    let ended = agent.finish();
    assert_eq!(143, ended.code, "{}", ended.stderr);
}

pub fn nonsense_from_a_rank_is_logged_and_dropped() {
    let unknown = r#"say={"type":"metrics","samples":[{"metric":"yolo_secrets","value":1}]}"#;
    let result = r#"say={"type":"result","message":"well"}"#;
    let long = format!("say={}", "x".repeat(100_000));
    let steps = ["hello", "say=what?", &long, unknown, unknown, result];
    let ended = agent(1).speaking(&steps).finish();
    assert_eq!((0, "well"), (ended.code, ended.result.message.as_str()));
    let count = |text: &str| ended.stderr.matches(text).count();
    assert_eq!(
        2,
        count("a line that is no message is dropped"),
        "{}",
        ended.stderr
    );
    assert_eq!(
        1,
        count("there is no training metric 'yolo_secrets'"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("rank=1"), "{}", ended.stderr);
}

pub fn a_rank_of_another_attempt_is_turned_away() {
    let ended = agent(1).speaking(&["hello=1.0", "exit=0"]).finish();
    assert_eq!((0, "turned away\n"), (ended.code, ended.stdout.as_str()));
    let expected = "it belongs to attempt 1.0, this agent to 2.0";
    assert!(ended.stderr.contains(expected), "{}", ended.stderr);
}

pub fn the_last_values_can_be_scraped_while_lingering() {
    let agent = agent(1)
        .flag("--linger-seconds=60")
        .speaking(&["hello", METRICS]);
    let message_file = agent.termination_message_file();
    agent.wait_until("the termination message", || message_file.exists());
    assert_eq!(
        (503, "0 of 1 ranks alive\n".to_owned()),
        agent.get("/healthz")
    );
    assert!(agent.get("/metrics").1.contains("yolo_train_images_total"));
    agent.signal(Signal::TERM);
    assert_eq!(0, agent.finish().code);
}
