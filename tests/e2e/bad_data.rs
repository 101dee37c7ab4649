//! Data sets that cannot be trained on, and ones that can in spite of a bad file.

use std::path::PathBuf;

use tests::{Job, Namespace, data};

use crate::seen;

/// A namespace with digit scenes, and the folder they are in on this machine.
fn scenes(test: &str) -> (Namespace, PathBuf) {
    let namespace = Namespace::new(test);
    data::digits(&namespace, 16, 8, 64);
    let folder = data::folder(&namespace, data::DATA_CLAIM).join("digits");
    (namespace, folder)
}

/// The job fails, for the reason, with all the texts in its condition and in `describe`, without a
/// backtrace, and nothing in the data set is written.
fn fails(namespace: &Namespace, folder: &std::path::Path, reason: &str, texts: &[&str]) {
    let before = data::fingerprint(folder);
    namespace
        .apply(&Job::new("bad").manifest())
        .expect("applying the job");
    let (found, message) = seen::wait_failed(namespace, "bad");
    assert_eq!(reason, found, "{message}");
    let described = namespace
        .kubectl(&["describe", "ytj", "bad"])
        .expect("kubectl describe");
    for text in texts {
        assert!(message.contains(text), "no '{text}' in: {message}");
    }
    for text in [&described, &message] {
        assert!(
            !text.contains("backtrace") && !text.contains("panicked"),
            "{text}"
        );
    }
    assert_eq!(
        before,
        data::fingerprint(folder),
        "something in the data set was written"
    );
}

#[test]
fn bad_labels_fail_the_job_with_file_line_and_reason() {
    let (namespace, folder) = scenes("labels");
    let label = folder.join("labels/train/000003.txt");
    std::fs::write(
        &label,
        "1 0.5 0.5 0.2 0.2\n12 0.5 0.5 0.2 0.2\n3 0.5 1.5 0.2 0.2\n",
    )
    .expect("the volume is writable here");
    fails(
        &namespace,
        &folder,
        "InvalidDataset",
        &["labels/train/000003.txt", "2", "3", "12"],
    );
}

#[test]
fn a_missing_data_set_fails_the_job_with_the_path_it_looked_for() {
    let (namespace, folder) = scenes("missing");
    std::fs::remove_file(folder.join("data.yaml")).expect("the volume is writable here");
    fails(&namespace, &folder, "InvalidDataset", &["data.yaml"]);
}

#[test]
fn an_empty_data_set_fails_the_job() {
    let (namespace, folder) = scenes("empty");
    let images = folder.join("images/train");
    std::fs::remove_dir_all(&images).expect("the volume is writable here");
    std::fs::create_dir(&images).expect("the volume is writable here");
    fails(&namespace, &folder, "InvalidDataset", &["images/train"]);
}

#[test]
fn images_that_cannot_be_decoded_are_skipped_counted_and_named() {
    let (namespace, folder) = scenes("corrupt");
    let image = folder.join("images/train/000005.png");
    std::fs::write(&image, b"not a picture").expect("the volume is writable here");
    let torn = folder.join("images/train/000006.png");
    let half = std::fs::read(&torn).expect("readable");
    std::fs::write(&torn, &half[..half.len() / 2]).expect("the volume is writable here");
    let before = data::fingerprint(&folder);

    namespace
        .apply(&Job::new("skips").set("/training/epochs", 1).manifest())
        .expect("applying");
    let job = seen::wait_complete(&namespace, "skips");
    assert_eq!(2, job["status"]["skippedImages"], "{}", job["status"]);
    let warnings = job["status"]["warnings"].to_string();
    for name in ["000005.png", "000006.png"] {
        assert!(warnings.contains(name), "no {name} in {warnings}");
    }
    assert_eq!(
        before,
        data::fingerprint(&folder),
        "something in the data set was written"
    );
}
