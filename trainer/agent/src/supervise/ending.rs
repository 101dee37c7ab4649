//! How one process ended, in the words of the contract.

use std::fmt;

use contract::exit::FailureReason;
use contract::protocol::RankResult;
use rustix::process::Signal;

/// What the kernel says of an ended process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessEnd {
    /// It exited with this code, 0 to 255.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl fmt::Display for ProcessEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(number) => write!(f, "was ended by {}", signal_name(*number)),
        }
    }
}

/// Why a rank did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its global rank.
    pub rank: u32,
    /// The reason for conditions and restart rules.
    pub reason: FailureReason,
    /// What a user should read.
    pub message: String,
    /// The exit code that the worker takes over from it.
    pub exit_code: u8,
    /// Whether the rank left it to its log to explain the failure, so that the log's end belongs
    /// beside the message.
    pub see_log: bool,
}

impl Failure {
    /// A failure with its own explanation and the exit code of its reason.
    pub fn explained(rank: u32, reason: FailureReason, message: impl Into<String>) -> Self {
        Self {
            rank,
            reason,
            message: message.into(),
            exit_code: reason.exit_code(),
            see_log: false,
        }
    }

    /// What a user should read: the message, with the end of the rank's log where that explains it.
    pub fn explanation(&self, log_end: &[String]) -> String {
        if !self.see_log || log_end.is_empty() {
            return self.message.clone();
        }
        let log = log_end.join("\n");
        format!("{}; its last lines on stderr were:\n{log}", self.message)
    }
}

/// Judges an ended rank; `None` is success.
///
/// A reason the rank gave itself says most. Next comes a signal that the agent sent (`signalled`):
/// whatever the rank did about it, it ended because it was told to, which must not pass for a failure
/// of its own. Only then does the exit code speak.
pub fn judge(
    rank: u32,
    end: ProcessEnd,
    said: Option<&RankResult>,
    signalled: Option<Signal>,
) -> Option<Failure> {
    if let Some(failure) = said.and_then(|result| judge_result(rank, result)) {
        return Some(failure);
    }
    if end == ProcessEnd::Code(0) {
        return None;
    }
    if let Some(signal) = signalled {
        let name = signal_name(signal.as_raw());
        let message = match end {
            ProcessEnd::Code(code) => {
                format!(
                    "rank {rank} exited with code {code} after {name}, with which it was stopped"
                )
            }
            ProcessEnd::Signal(_) if signal == Signal::KILL => format!(
                "rank {rank} did not end in time and was stopped with {name}: what it did since its \
                 last checkpoint is lost"
            ),
            ProcessEnd::Signal(_) => format!("rank {rank} was stopped with {name}"),
        };
        return Some(Failure::explained(rank, FailureReason::Stopped, message));
    }
    let after_success = if said.is_some() {
        "after it had reported success"
    } else {
        "without saying why"
    };
    Some(match end {
        ProcessEnd::Code(code) => {
            let reason = FailureReason::from_exit_code(code).unwrap_or(FailureReason::Internal);
            let hint = match code {
                126 => " (a shell's code for a file that cannot be executed)".to_owned(),
                127 => " (a shell's code for a command that was not found)".to_owned(),
                129..=192 => format!(" (a shell's code for {})", signal_name(code - 128)),
                _ => String::new(),
            };
            Failure {
                rank,
                reason,
                message: format!(
                    "rank {rank} exited with code {code}{hint} {after_success}; its log is above"
                ),
                // A reason stands for many codes: the one that was there is what rules match.
                exit_code: u8::try_from(code).unwrap_or(u8::MAX),
                see_log: true,
            }
        }
        ProcessEnd::Signal(number) => Failure {
            rank,
            reason: FailureReason::Killed,
            message: killed_message(rank, number),
            exit_code: u8::try_from(128 + number).unwrap_or(u8::MAX),
            see_log: number != Signal::KILL.as_raw(),
        },
    })
}

/// Judges what a rank said of its own end; `None` is success.
pub fn judge_result(rank: u32, result: &RankResult) -> Option<Failure> {
    let reason = result.reason?;
    let message = if result.message.is_empty() {
        format!("rank {rank} ended with the reason {}", reason.as_str())
    } else {
        result.message.clone()
    };
    Some(Failure::explained(rank, reason, message))
}

fn killed_message(rank: u32, number: i32) -> String {
    let name = signal_name(number);
    if number == Signal::KILL.as_raw() {
        return format!(
            "rank {rank} was ended by {name}: most often the container's memory limit was reached; \
             raise workers.resources.limits.memory, or let the ranks use less (a smaller \
             training.batchSize or image cache)"
        );
    }
    format!("rank {rank} was ended by {name}; its log is above")
}

/// `SIGTERM` for 15, and so on; `signal 40` for one without a name.
pub fn signal_name(number: i32) -> String {
    const NAMES: [(Signal, &str); 19] = [
        (Signal::ABORT, "SIGABRT"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::HUP, "SIGHUP"),
        (Signal::ILL, "SIGILL"),
        (Signal::INT, "SIGINT"),
        (Signal::KILL, "SIGKILL"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::STKFLT, "SIGSTKFLT"),
        (Signal::SYS, "SIGSYS"),
        (Signal::TERM, "SIGTERM"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::USR1, "SIGUSR1"),
        (Signal::USR2, "SIGUSR2"),
        (Signal::XCPU, "SIGXCPU"),
        (Signal::XFSZ, "SIGXFSZ"),
    ];
    NAMES
        .iter()
        .find(|(signal, _)| signal.as_raw() == number)
        .map_or_else(
            || format!("signal {number}"),
            |(_, name)| (*name).to_owned(),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(reason: Option<FailureReason>, message: &str) -> RankResult {
        RankResult {
            reason,
            message: message.to_owned(),
        }
    }

    /// (end, what the rank said, signal the agent sent) and the reason and exit code it makes.
    #[test]
    fn ends_have_their_reasons() {
        use FailureReason::{Internal, InvalidDataset, IoFailed, Killed, PeerLost, Stopped};
        use ProcessEnd::{Code, Signal as By};
        let success = said(None, "");
        let bad_labels = said(Some(InvalidDataset), "labels/7.txt line 3");
        let stopped = said(Some(Stopped), "checkpoint at step 9");
        let table = [
            (Code(0), None, None, None),
            (Code(0), Some(&success), None, None),
            (Code(0), None, Some(Signal::TERM), None),
            (Code(3), None, None, Some((Internal, 3))),
            (Code(3), Some(&success), None, Some((Internal, 3))),
            (Code(74), None, None, Some((IoFailed, 74))),
            (Code(76), None, None, Some((PeerLost, 76))),
            (Code(139), None, None, Some((Killed, 139))),
            (Code(143), None, None, Some((Stopped, 143))),
            (Code(0), Some(&bad_labels), None, Some((InvalidDataset, 65))),
            (
                By(9),
                Some(&bad_labels),
                Some(Signal::KILL),
                Some((InvalidDataset, 65)),
            ),
            (Code(143), Some(&stopped), None, Some((Stopped, 143))),
            (By(9), None, None, Some((Killed, 137))),
            (By(11), None, None, Some((Killed, 139))),
            (By(15), None, None, Some((Killed, 143))),
            (By(15), None, Some(Signal::TERM), Some((Stopped, 143))),
            (By(9), None, Some(Signal::KILL), Some((Stopped, 143))),
            (Code(1), None, Some(Signal::TERM), Some((Stopped, 143))),
        ];
        for (end, result, signalled, expected) in table {
            let failure = judge(1, end, result, signalled);
            assert_eq!(
                expected,
                failure
                    .as_ref()
                    .map(|failure| (failure.reason, failure.exit_code)),
                "{end:?}, {result:?}, {signalled:?}: {failure:?}"
            );
        }
    }

    #[test]
    fn messages_say_what_a_user_can_do() {
        let message = |end, result: Option<&RankResult>| {
            judge(1, end, result, None).map(|failure| failure.message)
        };
        assert_eq!(
            Some("rank 1 exited with code 3 without saying why; its log is above".to_owned()),
            message(ProcessEnd::Code(3), None)
        );
        assert_eq!(
            Some("rank 1 was ended by SIGSEGV; its log is above".to_owned()),
            message(ProcessEnd::Signal(11), None)
        );
        let killed = message(ProcessEnd::Signal(9), None).expect("a failure");
        assert!(
            killed.contains("SIGKILL") && killed.contains("limits.memory"),
            "{killed}"
        );
        let own = said(Some(FailureReason::InvalidDataset), "labels/7.txt line 3");
        assert_eq!(
            Some("labels/7.txt line 3".to_owned()),
            message(ProcessEnd::Code(65), Some(&own))
        );
        assert_eq!("signal 40", signal_name(40));
    }
}
