//! What Katib is told of a trial.
//!
//! Katib's collector of metrics runs beside the first worker. It waits for the worker's process to end, asks for a file
//! `PID.pid` that says so, and takes the metrics from a file of JSON lines whose values are texts
//! (<https://www.kubeflow.org/docs/components/katib/user-guides/metrics-collector/>). Katib itself would have a shell
//! write that first file, and starts the worker's program through one; an image without a shell cannot have that.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use contract::env;
use serde_json::{Map, Value};

/// The file that the collector reads.
const METRICS: &str = "metrics.log";
/// What the collector wants to read in the file that is named after the process.
const COMPLETED: &str = "completed";

/// A worker that Katib waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    folder: PathBuf,
}

/// The trial's metrics cannot be handed over.
#[derive(Debug, thiserror::Error)]
#[error("Katib's collector cannot be told of this trial's metrics: {} is not to be {verb}", path.display())]
pub struct TrialError {
    verb: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Trial {
    /// The trial that this worker is, if it is one whose metrics are collected in `folder`.
    pub fn find(folder: &Path, get: impl Fn(&str) -> Option<String>) -> Option<Self> {
        get(env::KATIB_TRIAL_NAME)?;
        // A trial whose program speaks to Katib by itself has none, as have workers that are not the first.
        folder.is_dir().then(|| Self {
            folder: folder.to_owned(),
        })
    }

    /// Makes an empty file of metrics: as long as there is none, the collector looks for it without a pause.
    pub fn begin(&self) -> Result<(), TrialError> {
        let path = self.folder.join(METRICS);
        let opened = OpenOptions::new().create(true).append(true).open(&path);
        opened.map(drop).map_err(|source| TrialError {
            verb: "made",
            path,
            source,
        })
    }

    /// Hands over the run's table of epochs and says that the process `pid` has done all it was to do, which it has
    /// also where the table cannot be handed over. A program of one's own has no such table: it writes the file of
    /// metrics itself.
    pub fn complete(&self, results: &Path, pid: u32) -> Result<(), TrialError> {
        let handed = self.hand_over(results);
        // Without it the collector would fail, and Katib wait for it for ever.
        self.write(&format!("{pid}.pid"), COMPLETED)?;
        handed
    }

    fn hand_over(&self, results: &Path) -> Result<(), TrialError> {
        match fs::read_to_string(results) {
            Ok(table) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH);
                self.write(METRICS, &lines(&table, now.unwrap_or_default().as_secs()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(TrialError {
                verb: "read",
                path: results.to_owned(),
                source,
            }),
        }
    }

    fn write(&self, name: &str, text: &str) -> Result<(), TrialError> {
        let path = self.folder.join(name);
        fs::write(&path, text).map_err(|source| TrialError {
            verb: "written",
            path,
            source,
        })
    }
}

/// The rows of a comma-separated table as JSON objects. Katib takes the value of the latest time for the last one, so
/// each row has a second of its own (it reads the digits of a fraction as nanoseconds), up to `end` since 1970.
fn lines(table: &str, end: u64) -> String {
    let mut rows = table.lines();
    let cells = |line: &str| -> Vec<String> {
        line.split(',').map(|cell| cell.trim().to_owned()).collect()
    };
    let columns = rows.next().map(cells).unwrap_or_default();
    let rows: Vec<&str> = rows.collect();
    let line = |(i, row): (usize, &&str)| {
        let values = cells(row).into_iter().map(Value::String);
        let mut object: Map<String, Value> = columns.iter().cloned().zip(values).collect();
        let later = (rows.len() - 1 - i) as u64;
        object.insert("timestamp".to_owned(), end.saturating_sub(later).into());
        format!("{}\n", Value::Object(object))
    };
    rows.iter().enumerate().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  epoch,   metrics/mAP_0.5,metrics/mAP_0.5:0.95
      0,           0.25,                0.125
      1,            0.5,                 0.25
";

    fn trial() -> (tempfile::TempDir, Trial) {
        let folder = tempfile::tempdir().expect("a folder");
        let found = Trial::find(folder.path(), |name| {
            (name == "KATIB_TRIAL_NAME").then(|| "t".to_owned())
        });
        (folder, found.expect("a trial"))
    }

    #[test]
    fn only_a_worker_that_is_asked_is_a_trial() {
        let (folder, _) = trial();
        assert_eq!(None, Trial::find(folder.path(), |_| None));
        let absent = folder.path().join("absent");
        assert_eq!(None, Trial::find(&absent, |_| Some("t".to_owned())));
    }

    #[test]
    fn epochs_are_told_as_texts_in_the_order_of_time() {
        let told: Vec<Value> = lines(TABLE, 100)
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(2, told.len());
        assert_eq!("0.25", told[0]["metrics/mAP_0.5"]);
        assert_eq!(99, told[0]["timestamp"]);
        assert_eq!("0.25", told[1]["metrics/mAP_0.5:0.95"]);
        assert_eq!(100, told[1]["timestamp"]);
        assert_eq!("", lines("epoch,metrics/mAP_0.5\n", 100));
    }

    #[test]
    fn the_collector_finds_its_file_from_the_start_and_the_mark_at_the_end() {
        let (folder, trial) = trial();
        trial.begin().expect("begun");
        let log = folder.path().join("metrics.log");
        assert_eq!("", fs::read_to_string(&log).expect("there"));
        let table = folder.path().join("results.csv");
        fs::write(&table, TABLE).expect("written");
        trial.complete(&table, 7).expect("told");
        assert_eq!(2, fs::read_to_string(&log).expect("there").lines().count());
        let mark = fs::read_to_string(folder.path().join("7.pid"));
        assert_eq!("completed", mark.expect("there"));
    }

    #[test]
    fn what_a_program_of_ones_own_has_written_stays() {
        let (folder, trial) = trial();
        let log = folder.path().join("metrics.log");
        fs::write(&log, "{\"loss\": \"1\"}\n").expect("written");
        trial.begin().expect("begun");
        trial
            .complete(&folder.path().join("absent"), 7)
            .expect("told");
        assert!(fs::read_to_string(&log).expect("there").contains("loss"));
    }

    #[test]
    fn the_end_is_marked_also_where_the_table_cannot_be_read() {
        let (folder, trial) = trial();
        let error = trial.complete(folder.path(), 7).expect_err("a folder");
        assert!(error.to_string().contains("read"), "{error}");
        assert!(folder.path().join("7.pid").exists());
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let (folder, trial) = trial();
        folder.close().expect("removed");
        let error = trial.begin().expect_err("no folder");
        assert!(error.to_string().contains("metrics.log"), "{error}");
    }
}
