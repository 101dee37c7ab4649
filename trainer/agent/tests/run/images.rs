//! The file in which ranks keep decoded images.

use contract::exit::FailureReason;
use serde_json::json;

use crate::support::agent_with;

/// Each rank lets a process of its own write its number to its own place, and lets another one, as if it had been
/// started again, wait for both numbers.
const SHARE: &str = r#"
    file=/proc/self/fd/$YOLO_CACHE_FD
    sh -c "printf $RANK | dd of=$file bs=1 seek=$LOCAL_RANK conv=notrunc 2>/dev/null"
    exec sh -c "until [ \"\$(head -c 2 $file)\" = 23 ]; do sleep 0.01; done; stat -L -c 'length %s links %h' $file"
"#;

pub fn ranks_share_a_file_that_outlives_them() {
    for cache in ["ram", "disk"] {
        let setup = agent_with(2, &json!({"cache": cache, "cacheLimit": "5Mi"}));
        let scratch = setup.dir().join("scratch");
        std::fs::create_dir(&scratch).expect("made");
        let flag = format!("--scratch={}", scratch.display());
        let agent = setup.flag(&flag).shell(SHARE);
        agent.wait_for_stdout("length 5242880 links 0", 2);
        let left = std::fs::read_dir(&scratch).expect("readable").count();
        assert_eq!(0, left, "{cache}");
        assert_eq!(0, agent.finish().code);
    }
}

pub fn one_rank_or_no_cache_means_no_file() {
    for (ranks, cache) in [(1, "ram"), (2, "none")] {
        let agent = agent_with(ranks, &json!({"cache": cache}));
        let ended = agent.shell("echo ${YOLO_CACHE_FD:-none}").finish();
        assert_eq!(ranks as usize, ended.stdout.matches("none\n").count());
    }
}

pub fn a_missing_scratch_folder_is_told() {
    let agent = agent_with(1, &json!({"cache": "disk"})).flag("--scratch=/no/where");
    let ended = agent.shell("exit 0").finish();
    assert_eq!(Some(FailureReason::IoFailed), ended.result.reason);
    let message = ended.result.message;
    assert!(message.contains("/no/where"), "{message}");
}
