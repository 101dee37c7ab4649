//! What ranks write, and the copy that `install` writes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::agent;

pub fn several_ranks_write_whole_lines_with_a_prefix() {
    // Each line in two writes, on both streams; the last one unfinished.
    let script = "i=0; while [ $i -lt 200 ]; do printf 'line %s ' $i; printf 'of %s\\n' $RANK; \
                  printf 'error %s\\n' $RANK >&2; i=$((i+1)); done; printf end";
    let ended = agent(3).shell(script).finish();
    assert_eq!(0, ended.code, "{}", ended.stderr);
    for rank in 3..6 {
        let prefix = format!("[rank {rank}] ");
        let lines: Vec<&str> = ended
            .stdout
            .lines()
            .filter_map(|line| line.strip_prefix(prefix.as_str()))
            .collect();
        let mut expected: Vec<String> = (0..200).map(|i| format!("line {i} of {rank}")).collect();
        expected.push("end".to_owned());
        assert_eq!(expected, lines);
        let error = format!("[rank {rank}] error {rank}");
        assert_eq!(
            200,
            ended.stderr.lines().filter(|line| **line == error).count()
        );
    }
    assert_eq!(3 * 201, ended.stdout.lines().count());
}

pub fn a_single_rank_writes_as_it_likes() {
    let ended = agent(1)
        .shell("printf 'half \\377'; printf 'a warning' >&2")
        .finish();
    assert_eq!("half \u{fffd}", ended.stdout);
    assert!(ended.stderr.contains("a warning"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("[rank"), "{}", ended.stderr);
}

fn install(dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_yolo-agent"))
        .arg("install")
        .arg(dir)
        .output()
        .expect("the agent runs")
}

pub fn install_puts_a_program_that_runs_into_the_folder() {
    let dir = tempfile::tempdir().expect("a folder");
    let copy = dir.path().join("yolo-agent");
    // The second time, the first copy is there; an old one must not be in the way.
    fs::write(&copy, "old").expect("written");
    for _ in 0..2 {
        let output = install(dir.path());
        assert!(output.status.success(), "{output:?}");
        let mode = fs::metadata(&copy).expect("there").permissions().mode();
        assert_eq!(0o755, mode & 0o7777);
        let version = Command::new(&copy)
            .arg("--version")
            .output()
            .expect("it runs");
        assert!(version.stdout.starts_with(b"yolo-agent "), "{version:?}");
        let files = fs::read_dir(dir.path()).expect("a folder").count();
        assert_eq!(1, files, "a temporary file stayed");
    }
}

pub fn install_says_where_it_cannot_write() {
    let output = install(Path::new("/no/such/folder"));
    assert_eq!(Some(74), output.status.code());
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(
        log.contains("cannot write /no/such/folder/") && log.contains("os error 2"),
        "{log}"
    );
}
