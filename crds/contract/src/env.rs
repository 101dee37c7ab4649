//! The environment through which a process learns its place in the group.
//!
//! The names are those that every c10d program understands (`torch.distributed`'s `env://`), so that
//! any image can be the trainer. The operator sets the pod-level ones, the agent the per-process ones.

use std::time::Duration;

use crate::attempt::Attempt;

/// How much memory cuBLAS may use, and a value with which it gives the same bits each time.
pub const CUBLAS_WORKSPACE: (&str, &str) = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8");
/// Host name of worker 0.
pub const MASTER_ADDR: &str = "MASTER_ADDR";
/// Rendezvous port on worker 0.
pub const MASTER_PORT: &str = "MASTER_PORT";
/// Number of workers (pods).
pub const NNODES: &str = "NNODES";
/// Index of this worker, 0-based.
pub const NODE_RANK: &str = "NODE_RANK";
/// Processes in each worker.
pub const NPROC_PER_NODE: &str = "NPROC_PER_NODE";
/// Global rank of this process, 0-based.
pub const RANK: &str = "RANK";
/// Rank of this process inside its worker.
pub const LOCAL_RANK: &str = "LOCAL_RANK";
/// Number of processes of the job.
pub const WORLD_SIZE: &str = "WORLD_SIZE";
/// Number of processes of this worker.
pub const LOCAL_WORLD_SIZE: &str = "LOCAL_WORLD_SIZE";
/// Path of the agent's Unix socket; unset when a rank runs without an agent.
pub const AGENT_SOCKET: &str = "YOLO_AGENT_SOCKET";
/// The present attempt as `INCARNATION.RESTART`.
pub const ATTEMPT: &str = "YOLO_ATTEMPT";
/// The node that the worker's pod runs on, for messages.
pub const NODE_NAME: &str = "YOLO_NODE_NAME";
/// Which pod of its worker a pod is, from 0: the last number of its name.
pub const POD_NUMBER: &str = "YOLO_POD_NUMBER";
/// Path of the frozen job configuration.
pub const CONFIG: &str = "YOLO_CONFIG";

/// How often the agents may restart the ranks in place; unset is never.
pub const RESTARTS_LEFT: &str = "YOLO_RESTARTS_LEFT";
/// Path of the secret that the agents of a job share; unset when a worker is on its own.
pub const GROUP_TOKEN_FILE: &str = "YOLO_GROUP_TOKEN_FILE";

/// Path of a file that lists the workers for `mpirun`; set for programs other than the trainer.
pub const HOSTFILE: &str = "YOLO_HOSTFILE";
/// Open MPI's own name for it.
pub const OMPI_HOSTFILE: &str = "OMPI_MCA_orte_default_hostfile";

/// Folder in memory where the first rank of a worker keeps a copy of the state, for restarts; unset is none.
pub const SNAPSHOTS: &str = "YOLO_SNAPSHOTS";

/// Number of the open file in which the ranks of a worker keep decoded images; unset when each has its own place.
pub const CACHE_FD: &str = "YOLO_CACHE_FD";

/// The folder through which the agent and the keeper of a run in an object store speak; unset where the run is on a
/// volume.
pub const KEEP: &str = "YOLO_KEEP";
/// What Katib calls the trial that a worker belongs to; unset where it is none.
pub const KATIB_TRIAL_NAME: &str = "KATIB_TRIAL_NAME";
/// The folder that a data set is fetched to.
pub const FETCH_FOLDER: &str = "YOLO_FETCH_FOLDER";
/// Value of the header Authorization for an archive; unset is none.
pub const FETCH_AUTHORIZATION: &str = "YOLO_FETCH_AUTHORIZATION";

/// torchrun's names for the pod-level values, for programs that are started by `torchrun` itself.
pub const TORCHRUN_NAMES: [(&str, &str); 5] = [
    ("PET_MASTER_ADDR", MASTER_ADDR),
    ("PET_MASTER_PORT", MASTER_PORT),
    ("PET_NNODES", NNODES),
    ("PET_NODE_RANK", NODE_RANK),
    ("PET_NPROC_PER_NODE", NPROC_PER_NODE),
];

/// How long ranks look for each other before they give up.
pub const RENDEZVOUS_TIMEOUT: Duration = Duration::from_mins(5);

/// The place of one process in the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RankEnv {
    /// Global rank, below `world_size`.
    pub rank: u32,
    /// Rank inside the worker, below `local_world_size`.
    pub local_rank: u32,
    /// Processes of the job.
    pub world_size: u32,
    /// Processes of this worker.
    pub local_world_size: u32,
    /// Host name of rank 0.
    pub master_addr: String,
    /// Rendezvous port on that host.
    pub master_port: u16,
    /// The present attempt.
    pub attempt: Attempt,
}

/// The environment does not describe a place in a group.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EnvError {
    /// A variable is absent although others of its set are there.
    #[error("the environment variable {name} is not set, but RANK is: set both or neither")]
    Missing {
        /// Its name.
        name: &'static str,
    },
    /// A variable does not hold what it should.
    #[error("the environment variable {name}='{value}' is not {expected}")]
    Invalid {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// The ranks contradict the sizes.
    #[error("{rank_name}={rank} is not below {size_name}={size}")]
    OutOfRange {
        /// Name of the rank variable.
        rank_name: &'static str,
        /// Its value.
        rank: u32,
        /// Name of the size variable.
        size_name: &'static str,
        /// Its value.
        size: u32,
    },
}

impl RankEnv {
    /// A process on its own: world of one.
    pub fn single() -> Self {
        Self {
            rank: 0,
            local_rank: 0,
            world_size: 1,
            local_world_size: 1,
            master_addr: "127.0.0.1".to_owned(),
            master_port: crate::paths::MASTER_PORT,
            attempt: Attempt::default(),
        }
    }

    /// Reads the place from variables, looked up by `get`. Without `RANK` the process is on its own.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, EnvError> {
        let attempt = match get(ATTEMPT) {
            None => Attempt::default(),
            Some(value) => value.parse().map_err(|_| EnvError::Invalid {
                name: ATTEMPT,
                value,
                expected: "INCARNATION.RESTART",
            })?,
        };
        if get(RANK).is_none() {
            return Ok(Self {
                attempt,
                ..Self::single()
            });
        }
        let number = |name: &'static str| -> Result<u32, EnvError> {
            let value = get(name).ok_or(EnvError::Missing { name })?;
            value.parse().map_err(|_| EnvError::Invalid {
                name,
                value,
                expected: "a number",
            })
        };
        let port = get(MASTER_PORT).ok_or(EnvError::Missing { name: MASTER_PORT })?;
        let env = Self {
            rank: number(RANK)?,
            local_rank: number(LOCAL_RANK)?,
            world_size: number(WORLD_SIZE)?,
            local_world_size: number(LOCAL_WORLD_SIZE)?,
            master_addr: get(MASTER_ADDR).ok_or(EnvError::Missing { name: MASTER_ADDR })?,
            master_port: port.parse().map_err(|_| EnvError::Invalid {
                name: MASTER_PORT,
                value: port,
                expected: "a port number",
            })?,
            attempt,
        };
        let pairs = [
            (RANK, env.rank, WORLD_SIZE, env.world_size),
            (
                LOCAL_RANK,
                env.local_rank,
                LOCAL_WORLD_SIZE,
                env.local_world_size,
            ),
        ];
        for (rank_name, rank, size_name, size) in pairs {
            if rank >= size {
                return Err(EnvError::OutOfRange {
                    rank_name,
                    rank,
                    size_name,
                    size,
                });
            }
        }
        Ok(env)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<RankEnv, EnvError> {
        RankEnv::read(|name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    const WHOLE: [(&str, &str); 7] = [
        (RANK, "3"),
        (LOCAL_RANK, "1"),
        (WORLD_SIZE, "4"),
        (LOCAL_WORLD_SIZE, "2"),
        (MASTER_ADDR, "job-worker-0.job"),
        (MASTER_PORT, "29500"),
        (ATTEMPT, "2.1"),
    ];

    #[test]
    fn a_whole_environment_is_read() {
        let env = read(&WHOLE).expect("whole");
        assert_eq!(
            (3, 1, 4, 2),
            (
                env.rank,
                env.local_rank,
                env.world_size,
                env.local_world_size
            )
        );
        assert_eq!(
            Attempt {
                incarnation: 2,
                restart: 1
            },
            env.attempt
        );
    }

    #[test]
    fn without_rank_the_process_is_alone() {
        assert_eq!(Ok(RankEnv::single()), read(&[]));
    }

    #[test]
    fn half_an_environment_is_refused_by_name() {
        for missing in &WHOLE[1..6] {
            let rest: Vec<_> = WHOLE.into_iter().filter(|pair| pair != missing).collect();
            let text = read(&rest).expect_err(missing.0).to_string();
            assert!(text.contains(missing.0), "{text}");
        }
    }

    #[test]
    fn a_rank_beyond_the_world_is_refused() {
        let mut pairs = WHOLE;
        pairs[0].1 = "4";
        assert_eq!(
            "RANK=4 is not below WORLD_SIZE=4",
            read(&pairs).unwrap_err().to_string()
        );
    }
}
