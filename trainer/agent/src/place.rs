//! The place of this worker in its job, and the environment its ranks get from it.

use std::ops::Range;
use std::path::Path;

use contract::attempt::Attempt;
use contract::env;

/// Where this worker is in the group, as the operator wrote it into the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of this worker, below `nodes`.
    pub node_rank: u32,
    /// Workers of the job.
    pub nodes: u32,
    /// Ranks of each worker, at least 1.
    pub ranks_per_node: u32,
    /// Host name of worker 0.
    pub master_addr: String,
    /// Rendezvous port on worker 0.
    pub master_port: u16,
    /// The present attempt.
    pub attempt: Attempt,
}

/// The pod's environment does not describe a place.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlaceError {
    /// A variable is absent.
    #[error("the environment variable {name} is not set; the operator sets it in every worker pod")]
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
    /// The index is beyond the number of workers.
    #[error("{}={node_rank} is not below {}={nodes}", env::NODE_RANK, env::NNODES)]
    OutOfRange {
        /// Index of this worker.
        node_rank: u32,
        /// Workers of the job.
        nodes: u32,
    },
}

impl Place {
    /// Reads the place from variables, looked up by `get`.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, PlaceError> {
        let text = |name| get(name).ok_or(PlaceError::Missing { name });
        let count = |name, expected: &'static str, least: u32| {
            let value = text(name)?;
            // 65536 workers of 65536 ranks still fit a u32.
            match value.parse::<u16>() {
                Ok(number) if u32::from(number) >= least => Ok(u32::from(number)),
                _ => Err(PlaceError::Invalid {
                    name,
                    value,
                    expected,
                }),
            }
        };
        let nodes = count(env::NNODES, "a number from 1 to 65535", 1)?;
        let ranks_per_node = count(env::NPROC_PER_NODE, "a number from 1 to 65535", 1)?;
        let node_rank = count(env::NODE_RANK, "a number from 0 to 65535", 0)?;
        if node_rank >= nodes {
            return Err(PlaceError::OutOfRange { node_rank, nodes });
        }
        let port = text(env::MASTER_PORT)?;
        let attempt = text(env::ATTEMPT)?;
        Ok(Self {
            node_rank,
            nodes,
            ranks_per_node,
            master_addr: text(env::MASTER_ADDR)?,
            master_port: port.parse().map_err(|_| PlaceError::Invalid {
                name: env::MASTER_PORT,
                value: port,
                expected: "a port number",
            })?,
            attempt: attempt.parse().map_err(|_| PlaceError::Invalid {
                name: env::ATTEMPT,
                value: attempt,
                expected: "INCARNATION.RESTART, for example 0.0",
            })?,
        })
    }

    /// The global ranks of this worker.
    pub fn ranks(&self) -> Range<u32> {
        self.first_rank()..self.first_rank() + self.ranks_per_node
    }

    /// The global rank of this worker's first process.
    pub fn first_rank(&self) -> u32 {
        self.node_rank * self.ranks_per_node
    }

    /// Processes of the whole job.
    pub fn world_size(&self) -> u32 {
        self.nodes * self.ranks_per_node
    }

    /// What the process of global rank `rank` finds in its environment besides the pod's own.
    pub fn rank_env(&self, rank: u32, socket: &Path, config: &Path) -> Vec<(&'static str, String)> {
        vec![
            (env::RANK, rank.to_string()),
            (env::LOCAL_RANK, (rank - self.first_rank()).to_string()),
            (env::WORLD_SIZE, self.world_size().to_string()),
            (env::LOCAL_WORLD_SIZE, self.ranks_per_node.to_string()),
            (env::MASTER_ADDR, self.master_addr.clone()),
            (env::MASTER_PORT, self.master_port.to_string()),
            (env::AGENT_SOCKET, socket.display().to_string()),
            (env::ATTEMPT, self.attempt.to_string()),
            (env::CONFIG, config.display().to_string()),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const WHOLE: [(&str, &str); 6] = [
        (env::NNODES, "3"),
        (env::NODE_RANK, "2"),
        (env::NPROC_PER_NODE, "2"),
        (env::MASTER_ADDR, "digits-worker-0.digits"),
        (env::MASTER_PORT, "29500"),
        (env::ATTEMPT, "1.0"),
    ];

    /// The last of three workers with two ranks each, in attempt 1.0.
    pub(crate) fn last_of_three() -> Place {
        with(|_, value| Some(value.to_owned())).expect("whole")
    }

    fn with(change: impl Fn(&str, &str) -> Option<String>) -> Result<Place, PlaceError> {
        Place::read(|name| {
            let (name, value) = WHOLE.iter().find(|(key, _)| *key == name)?;
            change(name, value)
        })
    }

    #[test]
    fn ranks_get_the_place_the_contract_reads() {
        let place = last_of_three();
        assert_eq!(4..6, place.ranks());
        let vars = place.rank_env(5, Path::new("/yolo/agent.sock"), Path::new("/job.json"));
        let rank = env::RankEnv::read(|name| {
            vars.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.clone())
        });
        let expected = env::RankEnv {
            rank: 5,
            local_rank: 1,
            world_size: 6,
            local_world_size: 2,
            master_addr: "digits-worker-0.digits".to_owned(),
            master_port: 29500,
            attempt: place.attempt,
        };
        assert_eq!(Ok(expected), rank);
        assert!(vars.contains(&(env::AGENT_SOCKET, "/yolo/agent.sock".to_owned())));
        assert!(vars.contains(&(env::CONFIG, "/job.json".to_owned())));
    }

    #[test]
    fn each_missing_variable_is_named() {
        for (missing, _) in WHOLE {
            let place = with(|name, value| (name != missing).then(|| value.to_owned()));
            assert_eq!(Err(PlaceError::Missing { name: missing }), place);
        }
    }

    #[test]
    fn bad_values_are_named() {
        let bad = [
            (
                env::NNODES,
                "0",
                "NNODES='0' is not a number from 1 to 65535",
            ),
            (env::NPROC_PER_NODE, "0", "NPROC_PER_NODE='0' is not"),
            (
                env::NODE_RANK,
                "-1",
                "NODE_RANK='-1' is not a number from 0",
            ),
            (env::NODE_RANK, "3", "NODE_RANK=3 is not below NNODES=3"),
            (
                env::MASTER_PORT,
                "70000",
                "MASTER_PORT='70000' is not a port number",
            ),
            (
                env::ATTEMPT,
                "1",
                "YOLO_ATTEMPT='1' is not INCARNATION.RESTART",
            ),
        ];
        for (variable, value, expected) in bad {
            let place =
                with(|name, good| Some(if name == variable { value } else { good }.to_owned()));
            let text = place.expect_err(variable).to_string();
            assert!(text.contains(expected), "{text}");
        }
    }
}
