use super::*;
use crate::place::tests::last_of_three;
use contract::config::JobIdentity;
use contract::progress::Phase;

fn hub() -> (Hub, UnboundedReceiver<Event>) {
    let place = last_of_three();
    let job = JobIdentity {
        namespace: "team".to_owned(),
        name: "digits".to_owned(),
        uid: "0123456789".to_owned(),
    };
    let shared = Arc::new(Shared::new(&job, &place).expect("sound"));
    let (sender, receiver) = unbounded_channel();
    (Hub::new(&place, shared, sender), receiver)
}

fn line(text: &str) -> Line {
    Line::Whole(text.as_bytes().to_vec())
}

fn hello(version: u32, attempt: &str, rank: u32) -> Line {
    let message = RankMessage::Hello {
        version,
        attempt: attempt.parse().expect("an attempt"),
        rank,
        pid: 1,
    };
    line(encode(&message).expect("serialisable").trim_end())
}

#[test]
fn only_a_hello_of_this_workers_ranks_is_welcome() {
    let (hub, _) = hub();
    assert_eq!(Ok(5), hub.check_hello(&hello(1, "1.0", 5)));
    let refused = [
        (line("GET / HTTP/1.1"), "not hello"),
        (Line::TooLong, "not hello"),
        (
            line(r#"{"type":"heartbeat","step":1,"phase":"Training"}"#),
            "not hello",
        ),
        (
            hello(2, "1.0", 5),
            "version 2 of the protocol, this agent 1",
        ),
        (hello(1, "0.0", 5), "attempt 0.0, this agent to 1.0"),
        (
            hello(1, "1.0", 3),
            "rank 3 is not one of this worker's, 4 to 5",
        ),
    ];
    for (first, expected) in refused {
        let text = hub.check_hello(&first).expect_err(expected).to_string();
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn the_end_of_a_replaced_connection_is_not_the_ranks_end() {
    let (hub, mut events) = hub();
    let (first, _) = unbounded_channel();
    let (second, mut received) = unbounded_channel();
    let first = hub.join(5, first);
    let second = hub.join(5, second);
    hub.leave(5, first);
    hub.send(5, AgentMessage::StopAtStep { step: None });
    assert_eq!(
        Ok(AgentMessage::StopAtStep { step: None }),
        received.try_recv()
    );
    hub.leave(5, second);
    let told: Vec<Event> = std::iter::from_fn(|| events.try_recv().ok()).collect();
    let connected = Event::Connected { rank: 5 };
    assert_eq!(
        vec![
            connected.clone(),
            connected,
            Event::Disconnected { rank: 5 }
        ],
        told
    );
}

#[test]
fn a_bad_line_changes_nothing_and_the_next_one_counts() {
    let (hub, _events) = hub();
    for bad in ["", "{", r#"{"type":"greeting"}"#, r#"{"type":"heartbeat"}"#] {
        hub.take_line(4, &line(bad));
    }
    hub.take_line(4, &Line::TooLong);
    hub.take_line(
        4,
        &line(r#"{"type":"heartbeat","step":7,"phase":"Evaluating"}"#),
    );
    let progress = hub.shared.board().progress(hub.shared.now());
    assert_eq!(
        (7, Phase::Evaluating),
        (progress.ranks[0].step, progress.ranks[0].phase)
    );
}

#[test]
fn a_complaint_is_made_once_and_their_number_is_limited() {
    let (hub, _events) = hub();
    for number in 0..1000 {
        let sample = format!(
            r#"{{"type":"metrics","samples":[{{"metric":"unknown_{number}","value":1}}]}}"#
        );
        hub.take_line(4, &line(&sample));
        hub.take_line(4, &line(&sample));
    }
    let complaints = hub.complaints.lock().expect("not poisoned");
    assert_eq!(MAX_COMPLAINTS, complaints.len());
}

#[tokio::test]
async fn lines_end_at_newlines_and_long_ones_are_skipped() {
    let at_limit = "x".repeat(MAX_LINE);
    let too_long = "y".repeat(3 * MAX_LINE);
    let text = format!("one\n\n{at_limit}\n{at_limit}!\n{too_long}\ntwo\nunfinished");
    let mut lines = Lines::new(text.as_bytes());
    let mut found = Vec::new();
    while let Some(line) = lines.next().await {
        found.push(line);
    }
    let expected = [
        line("one"),
        line(""),
        line(&at_limit),
        Line::TooLong,
        Line::TooLong,
        line("two"),
    ];
    assert!(found == expected, "{} lines", found.len());
}

#[test]
fn a_stale_socket_is_replaced_and_another_file_is_not() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build();
    let _guard = runtime.as_ref().expect("a runtime").enter();
    let path = dir.path().join("agent.sock");
    drop(bind(&path).expect("a fresh socket"));
    assert!(path.exists(), "a closed listener leaves its file behind");
    bind(&path).expect("the stale socket is replaced");
    let file = dir.path().join("file");
    fs::write(&file, "precious").expect("written");
    assert_eq!(
        io::ErrorKind::AddrInUse,
        bind(&file).expect_err("not a socket").kind()
    );
    assert_eq!("precious", fs::read_to_string(&file).expect("still there"));
}
