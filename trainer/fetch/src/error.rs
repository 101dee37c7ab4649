//! What can go wrong, in sentences for users, and whether trying again can help.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use contract::config::ConfigError;
use contract::exit::FailureReason;

/// A fetch that did not succeed. Addresses in it hold no credentials and no query.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The job's configuration cannot be read.
    #[error("cannot read {}", path.display())]
    ReadConfig {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The job's configuration cannot be understood.
    #[error("cannot use {}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ConfigError,
    },
    /// The data set needs no fetching.
    #[error("dataset has neither objectStorage nor archive: there is nothing to fetch")]
    NothingToFetch,
    /// The run is on a volume.
    #[error("output has no objectStorage: there is nothing to keep")]
    NothingToKeep,
    /// The client could not be made.
    #[error("cannot prepare to fetch {url}: {problem}")]
    Client {
        /// What was to be fetched.
        url: String,
        /// Why not.
        problem: String,
    },
    /// There is nothing at the address.
    #[error("{url} does not exist: see whether the address in {field} is right")]
    Missing {
        /// The address.
        url: String,
        /// The field that holds it.
        field: &'static str,
    },
    /// The server does not let us read.
    #[error("{url} may not be read ({status}): {remedy}")]
    Forbidden {
        /// The address.
        url: String,
        /// What the server said.
        status: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// There are no credentials.
    #[error(
        "no credentials were found for {url}: name a Secret in {field}.credentialsSecret, or give the namespace's default service account an identity that may use it"
    )]
    NoCredentials {
        /// The address.
        url: String,
        /// The field that names the store.
        field: &'static str,
    },
    /// The server answers with an error.
    #[error("the server of {url} answers with status {status}")]
    Server {
        /// The address.
        url: String,
        /// HTTP's number.
        status: u16,
    },
    /// The server cannot be reached, or the connection broke.
    #[error("{url} cannot be reached: {problem}")]
    Network {
        /// The address.
        url: String,
        /// What is known, without addresses.
        problem: String,
    },
    /// The server's answer lacks what is needed.
    #[error("the server of {url} gives an answer that cannot be used: {problem}")]
    Answer {
        /// The address.
        url: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The object was replaced under our hands.
    #[error("{url} changed while it was fetched")]
    Changed {
        /// The address.
        url: String,
    },
    /// Too few or too many bytes arrived.
    #[error("{url} has {expected} bytes, but {found} arrived")]
    Size {
        /// The address.
        url: String,
        /// As announced.
        expected: u64,
        /// As counted.
        found: u64,
    },
    /// What arrived is not what the store has.
    #[error("{url} arrived damaged: its MD5 should be {expected} and is {found}")]
    Damaged {
        /// The address.
        url: String,
        /// By the store's `ETag`.
        expected: String,
        /// As computed.
        found: String,
    },
    /// The archive is not the one that the spec names.
    #[error(
        "{url} is not the file that dataset.archive.sha256 names: its SHA-256 is {found}, not {expected}; correct one of them"
    )]
    Sha256 {
        /// The address.
        url: String,
        /// By the spec.
        expected: String,
        /// As computed.
        found: String,
    },
    /// A name that would leave the folder, or that no file can have.
    #[error("{url} holds the name '{name}', {problem}: nothing of that name is written")]
    UnsafeName {
        /// Where it is.
        url: String,
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A link, device or the like.
    #[error(
        "{url} holds '{name}', which is {kind}: only files and folders are taken from an archive"
    )]
    Kind {
        /// Where it is.
        url: String,
        /// The name.
        name: String,
        /// What it is.
        kind: &'static str,
    },
    /// The archive cannot be read.
    #[error("{url} is damaged or of another format than its name says: {problem}")]
    BadArchive {
        /// The address.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// The folder belongs to another source.
    #[error(
        "the folder holds the data set of {found}: give dataset.fetchTo another subPath or claim for {url}"
    )]
    OtherSource {
        /// The address.
        url: String,
        /// Whose it is.
        found: String,
    },
    /// The folder holds files that nobody fetched.
    #[error(
        "the folder that {url} is to be fetched to holds other files ('{name}', for example), and nothing is written over: give dataset.fetchTo.persistentVolumeClaim a subPath of its own"
    )]
    NotEmpty {
        /// The address.
        url: String,
        /// One of them.
        name: String,
    },
    /// The volume is too small.
    #[error(
        "{url} needs {needed} bytes, but the volume of dataset.fetchTo has {free} free: give it a larger one"
    )]
    Full {
        /// The address.
        url: String,
        /// Bytes.
        needed: u64,
        /// Bytes.
        free: u64,
    },
    /// The volume cannot be read or written.
    #[error("cannot {doing} {}", path.display())]
    Volume {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another pod keeps the same run.
    #[error(
        "{url} belongs to another start of this run ({owner}) now: nothing more is written there"
    )]
    TakenOver {
        /// The run's place.
        url: String,
        /// Who has it.
        owner: String,
    },
    /// The process was asked to stop.
    #[error("asked to stop; the next fetch goes on from here")]
    Stopped,
}

impl FetchError {
    /// The reason, which gives the exit code and says whether trying again can help.
    pub fn reason(&self) -> FailureReason {
        match self {
            Self::ReadConfig { .. }
            | Self::Config { .. }
            | Self::NothingToFetch
            | Self::NothingToKeep
            | Self::Client { .. } => FailureReason::InvalidConfig,
            Self::TakenOver { .. } => FailureReason::IoFailed,
            Self::Server { status, .. } if !transient(*status) => FailureReason::InvalidDataset,
            Self::Server { .. }
            | Self::NoCredentials { .. }
            | Self::Network { .. }
            | Self::Changed { .. }
            | Self::Size { .. }
            | Self::Damaged { .. } => FailureReason::FetchFailed,
            Self::Missing { .. }
            | Self::Forbidden { .. }
            | Self::Answer { .. }
            | Self::Sha256 { .. }
            | Self::UnsafeName { .. }
            | Self::Kind { .. }
            | Self::BadArchive { .. }
            | Self::OtherSource { .. }
            | Self::NotEmpty { .. } => FailureReason::InvalidDataset,
            Self::Full { .. } => FailureReason::OutputUnwritable,
            Self::Volume { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull
                | io::ErrorKind::QuotaExceeded
                | io::ErrorKind::ReadOnlyFilesystem
                | io::ErrorKind::PermissionDenied => FailureReason::OutputUnwritable,
                _ => FailureReason::IoFailed,
            },
            Self::Stopped => FailureReason::Stopped,
        }
    }

    /// For `map_err` of an operation on the volume.
    pub fn volume(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Volume {
            doing,
            path,
            source,
        }
    }
}

/// An error and its causes.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Whether a server that answers so may answer otherwise later.
fn transient(status: u16) -> bool {
    status >= 500 || [408, 425, 429].contains(&status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_time_may_mend_is_worth_another_try() {
        let server = |status| FetchError::Server {
            url: "u".to_owned(),
            status,
        };
        for status in [408, 429, 500, 503] {
            assert_eq!(FailureReason::FetchFailed, server(status).reason());
        }
        for status in [400, 405, 451] {
            assert_eq!(FailureReason::InvalidDataset, server(status).reason());
        }
        let volume = |kind: io::ErrorKind| FetchError::volume("write", "/x")(kind.into()).reason();
        assert_eq!(
            FailureReason::OutputUnwritable,
            volume(io::ErrorKind::StorageFull)
        );
        assert_eq!(FailureReason::IoFailed, volume(io::ErrorKind::TimedOut));
    }
}
