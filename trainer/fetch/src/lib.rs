//! Fills a folder of a volume with a data set: what the pod `<job>-fetch-<n>` runs before the workers of a job
//! begin. It holds no GPU.
//!
//! ```text
//!  job.json ──> settings ──> source ──> objects ─┐            ┌── .yolo-fetch/   what is known of the folder
//!                            (store)             ├─> folder ──┤
//!                                    archive ────┘            └── images/, …     the files, whole or not there
//!                                    (unpack)
//! ```
//!
//! A fetch may be killed at any moment and begun again, in another pod: files that are there are not fetched
//! again, a file that is there in part goes on where it ends. A file gets its name when it is whole, and the
//! folder gets its mark when all are. Two fetches of one folder wait for each other.
//!
//! The same program, as `yolo-fetch keep`, holds the folder of a run in an object store: see [`keep`].
//!
//! What goes wrong is a sentence with an address without credentials ([`error::FetchError`]), and an exit code
//! that says whether trying again can help.

pub mod archive;
pub mod digest;
pub mod download;
pub mod error;
pub mod folder;
pub mod keep;
pub mod names;
pub mod objects;
pub mod progress;
pub mod run;
pub mod settings;
pub mod source;
pub mod unpack;
