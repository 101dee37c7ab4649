//! Plays every script of `testdata/training_job` and compares its transcript.

use std::path::PathBuf;

use crate::sim::play;

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "testdata", "training_job"]
        .iter()
        .collect()
}

#[test]
fn scripts_give_their_transcripts() {
    let mut scripts: Vec<PathBuf> = std::fs::read_dir(folder())
        .expect("testdata")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    scripts.sort();
    assert!(
        scripts.len() >= 10,
        "only {} scripts were found",
        scripts.len()
    );
    let mut stale = Vec::new();
    for path in scripts {
        let script = std::fs::read_to_string(&path).expect("readable");
        let Ok(transcript) = std::panic::catch_unwind(|| play(&script)) else {
            stale.push(format!("{} fails; see above", path.display()));
            continue;
        };
        let expected = path.with_extension("out");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&expected, &transcript).expect("writable checkout");
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != transcript {
            stale.push(format!("{}:\n{transcript}", path.display()));
        }
    }
    assert!(
        stale.is_empty(),
        "transcripts differ; look at what changed, then run `UPDATE=1 cargo test -p operator` if it is right\n{}",
        stale.join("\n")
    );
}
