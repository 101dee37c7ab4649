use super::*;
use crate::augment::TrainSource;
use crate::dataset::Split;
use crate::letterbox::{EvaluateSource, Shape};
use crate::source::Drawn;
use crate::store::{FILL, ImageStore, Sizing};
use crate::testing::TestSet;
use contract::spec::Augmentation;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Samples of 2 x 2 pixels that show their epoch and index, made in different times.
#[derive(Default)]
struct Fake {
    made: AtomicUsize,
}

impl SampleSource for Fake {
    fn len(&self) -> usize {
        100
    }

    fn size(&self, index: u32) -> (u32, u32) {
        if index == 14 { (2, 3) } else { (2, 2) }
    }

    fn sample(
        &self,
        epoch: u64,
        index: u32,
        drawn: Option<Drawn<'_>>,
        pixels: &mut [u8],
    ) -> Sample {
        assert!(index != 13, "the unlucky one");
        assert!(drawn.is_none_or(|drawn| drawn.images.contains(&index)));
        for _ in 0..index * 7919 % 90 {
            std::thread::yield_now();
        }
        self.made.fetch_add(1, Ordering::SeqCst);
        pixels.fill((epoch * 100) as u8 + index as u8);
        Sample::default()
    }
}

fn config(threads: usize, prefetch_steps: usize) -> LoaderConfig {
    LoaderConfig {
        threads,
        prefetch_steps,
    }
}

fn requests(steps: u64, batch: u32) -> impl Iterator<Item = StepRequest> {
    (0..steps).map(move |step| StepRequest {
        epoch: step % 2,
        step,
        indices: (0..batch)
            .map(|k| 20 + (step as u32 * batch + k) % 80)
            .collect(),
        drawn: None,
    })
}

fn training(set: &TestSet) -> Arc<dyn SampleSource> {
    let store = ImageStore::new(set.open(Split::Train), 64, Sizing::Train, 1 << 20);
    Arc::new(TrainSource::new(store, 3, &Augmentation::default(), 100))
}

#[test]
fn images_of_one_batch_have_one_size() {
    let source: Arc<dyn SampleSource> = Arc::new(Fake::default());
    let of = |indices: &[u32]| StepRequest {
        indices: indices.to_vec(),
        ..StepRequest::default()
    };
    let steps = [of(&[14, 14]), of(&[]), of(&[15, 14])];
    let mut loader = Loader::start(config(1, 1), source, steps.into_iter()).unwrap();
    let batch = loader.next().unwrap().unwrap();
    assert_eq!((batch.width, batch.height, batch.images.len()), (2, 3, 36));
    assert_eq!(0, loader.next().unwrap().unwrap().images.len());
    let error = loader.next().unwrap().unwrap_err();
    assert!(matches!(error, LoaderError::Sizes { .. }), "{error}");
}

#[test]
fn batches_come_in_order_whatever_the_threads_do() {
    for (threads, prefetch) in [(0, 0), (1, 1), (4, 3), (3, 50)] {
        let source: Arc<dyn SampleSource> = Arc::new(Fake::default());
        let loader = Loader::start(config(threads, prefetch), source, requests(20, 5)).unwrap();
        let batches: Vec<Batch> = loader.map(Result::unwrap).collect();
        assert_eq!(batches.len(), 20);
        for (batch, request) in batches.iter().zip(requests(20, 5)) {
            assert_eq!((batch.epoch, batch.step), (request.epoch, request.step));
            assert_eq!(batch.indices, request.indices);
            assert_eq!(
                (batch.width, batch.height, batch.images.len()),
                (2, 2, 5 * 12)
            );
            for (pixels, index) in batch.images.chunks(12).zip(&request.indices) {
                assert_eq!(pixels, [(request.epoch * 100) as u8 + *index as u8; 12]);
            }
        }
    }
}

#[test]
fn steps_without_images_are_batches_without_images() {
    let source: Arc<dyn SampleSource> = Arc::new(Fake::default());
    let mut steps: Vec<StepRequest> = requests(3, 2).collect();
    steps[1].indices.clear();
    let loader = Loader::start(config(2, 2), source, steps.into_iter()).unwrap();
    let lengths: Vec<usize> = loader.map(|batch| batch.unwrap().images.len()).collect();
    assert_eq!(lengths, [24, 0, 24]);
}

#[test]
fn no_more_is_made_than_may_wait() {
    let fake = Arc::new(Fake::default());
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let counted = requests(100, 2).inspect(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let source: Arc<dyn SampleSource> = Arc::clone(&fake) as _;
    let mut loader = Loader::start(config(2, 3), source, counted).unwrap();
    for taken in 0..4 {
        assert_eq!(asked.load(Ordering::SeqCst), 3 + taken);
        let deadline = Instant::now() + Duration::from_secs(20);
        while fake.made.load(Ordering::SeqCst) < 2 * (3 + taken) {
            assert!(Instant::now() < deadline, "nothing is made ahead");
            std::thread::yield_now();
        }
        assert_eq!(fake.made.load(Ordering::SeqCst), 2 * (3 + taken));
        loader.next().unwrap().unwrap();
    }
    drop(loader);
    assert_eq!(Arc::strong_count(&fake), 1, "a thread is left");
}

#[test]
fn faults_end_the_batches_with_an_explanation() {
    let run = |bad: u32| {
        let source: Arc<dyn SampleSource> = Arc::new(Fake::default());
        let mut steps: Vec<StepRequest> = requests(4, 3).collect();
        steps[2].indices[1] = bad;
        let mut loader = Loader::start(config(2, 8), source, steps.into_iter()).unwrap();
        let mut errors = loader.by_ref().filter_map(Result::err);
        let error = errors.next().unwrap().to_string();
        drop(errors);
        assert!(loader.next().is_none());
        error
    };
    assert_eq!(
        run(100),
        "step 2 asks for image 100, but the data set has 100 images, 0 to 99"
    );
    assert!(run(13).starts_with("making a sample of image 13 in epoch 0 failed: the unlucky one"));
}

#[test]
fn batches_do_not_depend_on_threads_or_batch_size() {
    let set = TestSet::with_images(9);
    let all = |threads, batch: usize| {
        let order: Vec<u32> = vec![4, 0, 8, 3, 7, 1, 5, 2, 6];
        let steps: Vec<StepRequest> = order
            .chunks(batch)
            .map(|share| StepRequest {
                epoch: 5,
                step: 0,
                indices: share.to_vec(),
                drawn: None,
            })
            .collect();
        let loader = Loader::start(config(threads, 2), training(&set), steps.into_iter()).unwrap();
        let (mut pixels, mut targets) = (Vec::new(), Vec::new());
        for batch in loader.map(Result::unwrap) {
            pixels.extend_from_slice(&batch.images);
            let indices = batch.indices;
            targets.extend(
                batch
                    .targets
                    .iter()
                    .map(|t| (indices[t.image as usize], t.class, t.xywh)),
            );
        }
        (pixels, targets)
    };
    let expected = all(1, 9);
    assert!(expected.1.len() > 9 && expected.0.iter().any(|v| *v != FILL));
    for (threads, batch) in [(4, 9), (3, 2), (1, 1), (2, 4)] {
        assert!(
            all(threads, batch) == expected,
            "{threads} threads, batches of {batch}"
        );
    }
}

#[test]
fn corrupt_images_are_counted_and_nothing_is_written() {
    let set = TestSet::with_images(6);
    let mut jpeg = Vec::new();
    let image = crate::testing::noise(1, (60, 40));
    image
        .write_to(
            &mut std::io::Cursor::new(&mut jpeg),
            image::ImageFormat::Jpeg,
        )
        .unwrap();
    set.write("images/train/006.jpg", &jpeg);
    set.write("labels/train/006.txt", "0 0.5 0.5 0.5 0.5");
    let source = training(&set);
    let whole = crate::dataset::Dataset::open(set.root(), "data.yaml", Split::Train).unwrap();
    // The header stays in order; of the PNG the pixels are missing, of the JPEG the tables.
    let path = &whole.image(2).unwrap().path;
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..bytes.len() - 1000]).unwrap();
    let tables = jpeg.windows(2).position(|w| w == [0xff, 0xc4]).unwrap();
    jpeg[tables + 4..].fill(0xff);
    set.write("images/train/006.jpg", &jpeg);

    let before = set.snapshot();
    let step = StepRequest {
        epoch: 0,
        step: 0,
        indices: (0..7).collect(),
        drawn: None,
    };
    let mut loader = Loader::start(config(2, 1), source, std::iter::once(step.clone())).unwrap();
    let batch = loader.next().unwrap().unwrap();
    assert!(loader.next().is_none());
    let named = |name: &str| batch.skipped.iter().filter(|s| s.name == name).count();
    assert!(
        named("images/train/002.png") > 0 && named("images/train/006.jpg") > 0,
        "{:?}",
        batch.skipped
    );
    assert_eq!(
        batch.skipped.len(),
        named("images/train/002.png") + named("images/train/006.jpg")
    );
    assert_eq!(batch.images.len(), 7 * 3 * 64 * 64);

    let store = ImageStore::new(set.open(Split::Train), 64, Sizing::Evaluate, 0);
    let source: Arc<dyn SampleSource> = Arc::new(EvaluateSource::new(store, Shape::Square));
    let count = source.len() as u32;
    let mut loader = Loader::start(
        config(2, 1),
        source,
        std::iter::once(StepRequest {
            indices: (0..count).collect(),
            ..step
        }),
    )
    .unwrap();
    let batch = loader.next().unwrap().unwrap();
    assert_eq!(batch.evaluated.len(), count as usize);
    assert_eq!(batch.evaluated[0].letterbox.original, (40, 30));
    assert!(
        batch.targets.iter().all(|t| t.image != 2),
        "grey has no objects"
    );
    assert_eq!(set.snapshot(), before, "the data set was changed");
}

/// Also where samples show several images and are painted as a whole.
#[test]
fn threads_do_not_change_samples_with_everything_on() {
    let set = TestSet::with_images(9);
    let settings = Augmentation {
        mosaic: 0.8,
        mosaic9: 0.5,
        mixup: 0.5,
        cutmix: 0.5,
        copy_paste: 0.5,
        random_crop: 0.5,
        cutout: 0.5,
        blur: 0.5,
        median_blur: 0.5,
        gray: 0.5,
        clahe: 0.5,
        brightness_contrast: 0.5,
        gamma: 0.5,
        jpeg: 0.5,
        ..Augmentation::default()
    };
    let batches = |threads, cache| -> Vec<(Vec<u8>, Vec<Target>)> {
        let store = ImageStore::new(set.open(Split::Train), 64, Sizing::Train, cache);
        let source = Arc::new(TrainSource::new(store, 3, &settings, 100));
        let steps = (0..6).map(|step| StepRequest {
            epoch: step,
            step,
            indices: (0..9).collect(),
            drawn: None,
        });
        Loader::start(config(threads, 3), source, steps)
            .unwrap()
            .map(|batch| batch.unwrap())
            .map(|batch| (batch.images.to_vec(), batch.targets))
            .collect()
    };
    assert!(batches(1, 1 << 20) == batches(4, 0), "the samples differ");
}
