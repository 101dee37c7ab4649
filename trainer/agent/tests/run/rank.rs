//! A rank that speaks the protocol. Its arguments are steps, done one after the other:
//!
//! - `hello`, or `hello=ATTEMPT`: connects, says hello, waits for the welcome and prints `connected`
//!   (or prints `turned away`);
//! - `say=JSON`: sends a line;
//! - `await-stop`: waits for `stopAtStep` and prints it;
//! - `sleep=MILLISECONDS`, `exit=CODE`;
//! - `rank=N`: what follows, up to the next `rank=`, is only for rank N.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use contract::env::{AGENT_SOCKET, RankEnv};
use contract::protocol::{AgentMessage, PROTOCOL_VERSION, RankMessage, encode};

/// Does the steps and returns the rank's exit code.
pub fn play(steps: &[String]) -> ExitCode {
    let place = RankEnv::read(|name| std::env::var(name).ok()).expect("a place in the group");
    let mut agent: Option<BufReader<UnixStream>> = None;
    let mut for_me = true;
    for step in steps {
        let (verb, value) = step.split_once('=').unwrap_or((step, ""));
        if verb == "rank" {
            for_me = value == place.rank.to_string();
            continue;
        }
        if !for_me {
            continue;
        }
        match verb {
            "hello" => agent = hello(&place, value),
            "say" => {
                let agent = agent.as_mut().expect("hello comes first").get_mut();
                writeln!(agent, "{value}").expect("the agent listens");
            }
            "await-stop" => {
                let message = receive(agent.as_mut().expect("hello comes first"));
                assert_eq!(Some(AgentMessage::StopAtStep { step: None }), message);
                print("asked to stop");
            }
            "sleep" => work(Duration::from_millis(value.parse().expect("milliseconds"))),
            "exit" => return ExitCode::from(value.parse::<u8>().expect("a code")),
            _ => panic!("unknown step {step}"),
        }
    }
    ExitCode::SUCCESS
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is a program whose ranks take their time, not a test that waits"
)]
fn work(time: Duration) {
    std::thread::sleep(time);
}

fn hello(place: &RankEnv, attempt: &str) -> Option<BufReader<UnixStream>> {
    let path = std::env::var(AGENT_SOCKET).expect("the agent sets it");
    let mut stream = UnixStream::connect(path).expect("the agent listens before ranks start");
    let hello = RankMessage::Hello {
        version: PROTOCOL_VERSION,
        attempt: match attempt {
            "" => place.attempt,
            other => other.parse().expect("an attempt"),
        },
        rank: place.rank,
        pid: std::process::id(),
    };
    let line = encode(&hello).expect("serialisable");
    stream.write_all(line.as_bytes()).expect("sent");
    let mut agent = BufReader::new(stream);
    let Some(message) = receive(&mut agent) else {
        print("turned away");
        return None;
    };
    let version = PROTOCOL_VERSION;
    assert_eq!(AgentMessage::Welcome { version }, message);
    print("connected");
    Some(agent)
}

fn receive(agent: &mut BufReader<UnixStream>) -> Option<AgentMessage> {
    let mut line = String::new();
    let length = agent.read_line(&mut line).expect("readable");
    (length > 0).then(|| serde_json::from_str(&line).expect("a message"))
}

fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{text}").expect("stdout is open");
}
