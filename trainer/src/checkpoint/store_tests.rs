//! A store with tiny checkpoints: what a crash or a bad disk leaves, and what is found afterwards.

use super::super::state::Machine;
use super::super::tensors::encode;
use super::*;

struct Fixture {
    folder: tempfile::TempDir,
    store: CheckpointStore,
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().expect("temporary folder");
    let attempt = Attempt::default();
    let store = CheckpointStore::new(folder.path().to_owned(), attempt);
    Fixture { folder, store }
}

fn state(step: u64, fitness: Option<f64>) -> RunState {
    let spec = serde_json::from_value(serde_json::json!({
        "dataset": {"persistentVolumeClaim": {"claimName": "a"}},
        "output": {"persistentVolumeClaim": {"claimName": "b"}},
    }))
    .expect("valid");
    let machine = Machine {
        portions: 1,
        world_size: 1,
        compute_threads: 1,
        device: "AVX2".to_owned(),
        libtorch: "2.11.0".to_owned(),
    };
    RunState {
        step,
        fitness,
        ..RunState::new(spec, vec!["zero".to_owned()], String::new(), machine)
    }
}

impl Fixture {
    fn write(&self, step: u64, fitness: Option<f64>) -> Written {
        let tensors = vec![("w".to_owned(), tch::Tensor::from(step as f32))];
        let bytes = encode(&tensors, None).expect("encoded");
        let state = serde_json::to_vec(&state(step, fitness)).expect("JSON");
        let files = [
            (MODEL, bytes.clone()),
            (EMA, bytes.clone()),
            (OPTIMIZER, bytes),
            (STATE, state),
        ];
        self.store.write(step, &files).expect("written")
    }

    fn newest(&self) -> (Option<u64>, Vec<String>) {
        let found = self
            .store
            .newest_whole()
            .expect("some whole or none at all");
        (
            found.newest.map(|loaded| loaded.state.step),
            found.passed_over,
        )
    }

    fn entries(&self) -> usize {
        fs::read_dir(self.folder.path()).expect("listable").count()
    }
}

#[test]
fn the_newest_is_found_and_reads_back() {
    let f = fixture();
    assert_eq!((None, vec![]), f.newest());
    let written = f.write(5, None);
    f.write(20, Some(0.25));
    assert_eq!((Some(20), vec![]), f.newest());
    assert!(written.path.ends_with("step-000000005"));
    let newest = f.store.newest_whole().expect("whole").newest.expect("one");
    assert_eq!(20.0, newest.model["w"].double_value(&[]));
    assert_eq!(Some(0.25), newest.state.fitness);
}

#[test]
fn the_same_step_is_replaced() {
    let f = fixture();
    f.write(5, None);
    let again = f.write(5, Some(0.5));
    assert_eq!(1, f.entries());
    let bytes = fs::read(again.path.join(MANIFEST)).expect("readable");
    assert_eq!(again.checksum, blake3::hash(&bytes).to_hex().to_string());
    assert_eq!(Some(0.5), read_state(&again.path).expect("state").fitness);
}

/// Each kind of damage to the newest checkpoint, and a word of the warning about it.
#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_it_used() {
    type Damage = fn(&Path);
    let damages: [(Damage, &str); 6] = [
        (
            |p| fs::remove_file(p.join(MANIFEST)).expect("removed"),
            "manifest.json",
        ),
        (
            |p| fs::remove_file(p.join(EMA)).expect("removed"),
            "ema.safetensors cannot be read",
        ),
        (
            |p| fs::write(p.join(MANIFEST), "{").expect("written"),
            "manifest.json is not valid",
        ),
        (
            |p| fs::write(p.join(OPTIMIZER), "short").expect("written"),
            "5 bytes instead of",
        ),
        (
            |p| {
                let mut bytes = fs::read(p.join(MODEL)).expect("readable");
                *bytes.last_mut().expect("not empty") ^= 1;
                fs::write(p.join(MODEL), bytes).expect("written");
            },
            "model.safetensors does not match its checksum",
        ),
        (
            |p| {
                let text = fs::read_to_string(p.join(MANIFEST)).expect("readable");
                let later = text.replace("\"formatVersion\": 1", "\"formatVersion\": 2");
                fs::write(p.join(MANIFEST), later).expect("written");
            },
            "format version 2",
        ),
    ];
    for (damage, word) in damages {
        let f = fixture();
        f.write(5, None);
        damage(&f.write(6, None).path);
        let (step, warnings) = f.newest();
        assert_eq!(Some(5), step, "{word}");
        assert!(
            warnings.len() == 1
                && warnings[0].contains("step-000000006")
                && warnings[0].contains(word),
            "{word}: {warnings:?}"
        );
    }
}

#[test]
fn only_damaged_ones_are_an_error_that_names_them() {
    let f = fixture();
    fs::remove_file(f.write(5, None).path.join(STATE)).expect("removed");
    let text = f
        .store
        .newest_whole()
        .expect_err("nothing whole")
        .to_string();
    assert!(
        text.contains("step-000000005") && text.contains("remove the folder"),
        "{text}"
    );
}

#[test]
fn what_a_killed_start_left_is_removed() {
    let f = fixture();
    f.write(5, None);
    fs::create_dir(f.folder.path().join(".tmp-step-000000006-attempt-0.3")).expect("created");
    fs::write(f.folder.path().join(".tmp-last-77"), "").expect("created");
    assert_eq!((Some(5), vec![]), f.newest());
    assert_eq!(2, f.store.remove_unfinished().expect("removed"));
    assert_eq!(1, f.entries());
}

#[test]
fn pruning_keeps_the_newest_and_the_best_and_points_at_it() {
    let f = fixture();
    for (step, fitness) in [
        (1, Some(0.1)),
        (2, Some(0.9)),
        (3, None),
        (4, Some(0.2)),
        (5, None),
    ] {
        f.write(step, fitness);
    }
    f.store.point(Pointer::Last, 5).expect("pointed");
    f.store.prune(2, 5).expect("pruned");
    assert_eq!(vec![2, 4, 5], f.store.steps().expect("listed"));
    assert_eq!(Some(2), f.store.pointed(Pointer::Best));
    assert_eq!(Some(5), f.store.pointed(Pointer::Last));
    assert_eq!(5, f.entries());
}

/// A run that passed over the newest one writes earlier steps, and needs them.
#[test]
fn pruning_keeps_what_was_just_written_beside_a_newer_one_of_the_right_size() {
    let f = fixture();
    let damaged = f.write(9, None).path.join(MODEL);
    let mut bytes = fs::read(&damaged).expect("readable");
    *bytes.last_mut().expect("not empty") ^= 1;
    fs::write(&damaged, bytes).expect("written");
    for step in [3, 6] {
        f.write(step, None);
        f.store.prune(1, step).expect("pruned");
        assert_eq!(vec![step, 9], f.store.steps().expect("listed"));
        assert_eq!(Some(step), f.newest().0);
    }
    f.write(12, None);
    f.store.prune(1, 12).expect("pruned");
    assert_eq!(vec![12], f.store.steps().expect("listed"));
}

#[test]
fn a_file_larger_than_its_manifest_says_is_not_read() {
    let f = fixture();
    f.write(1, None);
    f.write(2, None);
    let grown = fs::File::options()
        .write(true)
        .open(f.store.path_of(2).join(EMA))
        .expect("opened");
    grown.set_len(10 << 30).expect("sparse");
    let (newest, passed_over) = f.newest();
    assert_eq!(Some(1), newest);
    assert!(passed_over[0].contains("10737418240"), "{passed_over:?}");
}

#[test]
fn what_can_only_not_be_read_now_may_be_read_later() {
    // EIO, ESTALE; ENOENT.
    let passes = |code| {
        let source = io::Error::from_raw_os_error(code);
        Unusable::Read { file: EMA, source }.passes()
    };
    assert_eq!([true, true, false], [5, 116, 2].map(passes));
    let f = fixture();
    let model = f.write(1, None).path.join(MODEL);
    fs::remove_file(model).expect("removed");
    let error = f.store.newest_whole().expect_err("none is whole");
    assert!(matches!(
        error,
        CheckpointError::NoneWhole { passes: false, .. }
    ));
}
