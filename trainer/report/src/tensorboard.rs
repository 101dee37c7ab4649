//! Event files of TensorBoard: records of protocol buffers, each with its length and checksums.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use prost::Message;

/// What the checksums of records are turned by and added to, so that a checksum of checksums is not trivial.
const MASK: u32 = 0xa282_ead8;

/// `tensorflow.Event`, as far as scalars need it.
#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// An open event file.
#[derive(Debug)]
pub struct Events {
    file: File,
    path: PathBuf,
}

impl Events {
    /// Begins a new file in `folder`; its name holds the time (seconds since 1970), the machine and the process, so
    /// that each start of a run writes its own and TensorBoard reads them in order.
    pub fn create(folder: &Path, seconds: f64, host: &str, process: u32) -> io::Result<Self> {
        let name = format!("events.out.tfevents.{}.{host}.{process}.0", seconds as u64);
        let path = folder.join(name);
        let file = File::options().create_new(true).write(true).open(&path)?;
        let mut events = Self { file, path };
        events.write(&Event {
            wall_time: seconds,
            file_version: Some("brain.Event:2".to_owned()),
            ..Event::default()
        })?;
        Ok(events)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds the values of a step.
    pub fn scalars<'a>(
        &mut self,
        seconds: f64,
        step: i64,
        values: impl Iterator<Item = (&'a str, f64)>,
    ) -> io::Result<()> {
        let value = values.map(|(tag, value)| Value {
            tag: tag.to_owned(),
            simple_value: Some(value as f32),
        });
        self.write(&Event {
            wall_time: seconds,
            step,
            summary: Some(Summary {
                value: value.collect(),
            }),
            ..Event::default()
        })
    }

    fn write(&mut self, event: &Event) -> io::Result<()> {
        self.file.write_all(&record(&event.encode_to_vec()))
    }
}

/// Length, its checksum, the bytes, their checksum.
fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let mut record = length.to_vec();
    record.extend(masked(&length).to_le_bytes());
    record.extend(bytes);
    record.extend(masked(bytes).to_le_bytes());
    record
}

fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(MASK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_what_tensorboard_itself_writes() {
        // The first record of a file by tensorboard 2.21's EventFileWriter, at 1700000000 seconds.
        let event = Event {
            wall_time: 1_700_000_000.0,
            file_version: Some("brain.Event:2".to_owned()),
            ..Event::default()
        };
        let got: String = record(&event.encode_to_vec())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<Vec<_>>()
            .concat();
        assert_eq!(FIRST_RECORD, got);
    }

    const FIRST_RECORD: &str =
        "1800000000000000a37f4b220900000040fc54d9411a0d627261696e2e4576656e743a32eced8f9d";

    #[test]
    fn no_file_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let create = || Events::create(folder.path(), 5.9, "host", 7);
        let mut events = create().unwrap();
        assert!(events.path().ends_with("events.out.tfevents.5.host.7.0"));
        create().unwrap_err();
        let before = events.path().metadata().unwrap().len();
        events.scalars(6.0, 1, [("a", 0.5)].into_iter()).unwrap();
        assert!(events.path().metadata().unwrap().len() > before + 16);
    }
}
