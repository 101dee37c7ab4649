//! How many training samples one core makes per second, with mosaic, from files and from memory.
//!
//! ```text
//! cargo run --release -p trainer-data --example loader_speed
//! cargo run --release -p trainer-data --example loader_speed -- FOLDER SIDE SAMPLES
//! ```
//!
//! With a data set's folder, only that is measured, and the result is JSON.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement for developers, not part of the program"
)]

use contract::spec::Augmentation;
use image::{Rgb, RgbImage};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use trainer_cache::{CacheFile, in_memory};
use trainer_data::{
    Dataset, ImageStore, Loader, LoaderConfig, SampleSource, Sizing, Split, StepRequest,
    TrainSource,
};

const IMAGES: u32 = 64;

/// A photograph's stand-in: smooth, with some texture.
fn picture(seed: u32, width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let texture = (x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503) ^ seed) >> 24 & 15;
        let wave = ((x + seed * 31) as f32 * 0.02).sin() * ((y + seed * 17) as f32 * 0.03).cos();
        let light = (wave * 90.0 + 110.0) as u32 + texture;
        Rgb([light as u8, (light + 20) as u8, (235 - light / 2) as u8])
    })
}

fn make(root: &Path, size: (u32, u32), ending: &str) {
    for folder in ["images", "labels"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    for k in 0..IMAGES {
        let image = picture(k, size.0, size.1);
        image
            .save(root.join(format!("images/{k:03}.{ending}")))
            .unwrap();
        let label = "0 0.3 0.3 0.2 0.2\n1 0.7 0.6 0.3 0.4\n";
        std::fs::write(root.join(format!("labels/{k:03}.txt")), label).unwrap();
    }
    std::fs::write(
        root.join("data.yaml"),
        "train: images\nval: images\nnames: [a, b]\n",
    )
    .unwrap();
}

/// Seconds that this thread has been computing. What else the machine does costs nothing here.
fn seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds: f64 = text.split(' ').next().unwrap().parse().unwrap();
    nanoseconds / 1e9
}

/// Samples per second.
fn measure(source: &dyn SampleSource, samples: u32) -> f64 {
    let side = source.size(0).0 as usize;
    let mut pixels = vec![0; 3 * side * side];
    let mut run = |epoch, count| {
        for k in 0..count {
            source.sample(epoch, k % IMAGES, None, &mut pixels);
        }
    };
    run(0, IMAGES);
    let start = seconds();
    run(1, samples);
    f64::from(samples) / (seconds() - start)
}

/// A store that keeps images in a file in memory, as several ranks share one.
fn shared(data: &Arc<Dataset>, side: u32) -> ImageStore {
    let file = in_memory(1 << 30).unwrap();
    let file = CacheFile::open(file, &[0; 32], data.decoded_sizes(side)).unwrap();
    ImageStore::shared(Arc::clone(data), side, Sizing::Train, Arc::new(file), 0)
}

/// Samples per second of the loader with one thread, batches of 16.
fn measure_loader(source: Arc<dyn SampleSource>, samples: u32) -> f64 {
    let steps = (0..u64::from(samples / 16)).map(|step| StepRequest {
        epoch: step,
        step,
        indices: (0..16).map(|k| (step as u32 * 16 + k) % IMAGES).collect(),
        drawn: None,
    });
    let config = LoaderConfig {
        threads: 1,
        prefetch_steps: 2,
    };
    let start = Instant::now();
    let images: usize = Loader::start(config, source, steps)
        .unwrap()
        .map(|batch| batch.unwrap().indices.len())
        .sum();
    images as f64 / start.elapsed().as_secs_f64()
}

type Change = fn(&mut Augmentation);

/// What each further augmentation costs a sample of 640 pixels when it is on for every one.
fn measure_costs(data: &Arc<Dataset>) {
    let changes: [(&str, Change); 14] = [
        ("none of them", |_| {}),
        ("mosaic9", |a| a.mosaic9 = 1.0),
        ("mixup", |a| a.mixup = 1.0),
        ("cutmix", |a| a.cutmix = 1.0),
        ("copyPaste", |a| a.copy_paste = 1.0),
        ("randomCrop", |a| a.random_crop = 1.0),
        ("cutout", |a| a.cutout = 1.0),
        ("blur", |a| a.blur = 1.0),
        ("medianBlur", |a| a.median_blur = 1.0),
        ("gray", |a| a.gray = 1.0),
        ("clahe", |a| a.clahe = 1.0),
        ("brightness", |a| a.brightness_contrast = 1.0),
        ("gamma", |a| a.gamma = 1.0),
        ("jpeg", |a| a.jpeg = 1.0),
    ];
    println!("640 px, default and one more for every sample, from memory");
    for (name, change) in changes {
        let mut settings = Augmentation::default();
        change(&mut settings);
        let store = ImageStore::new(Arc::clone(data), 640, Sizing::Train, u64::MAX);
        let source = TrainSource::new(store, 0, &settings, 100);
        println!(
            "  {name:12} {:6.1} ms",
            1000.0 / measure(&source, 2 * IMAGES)
        );
    }
}

/// Samples per second of the data set in a folder, for `tests/parity/loader.py`.
fn measure_folder(folder: &Path, side: u32, samples: u32) {
    let data = Arc::new(Dataset::open(folder, "data.yaml", Split::Train).unwrap());
    let rate = |sizing, cache| {
        let store = ImageStore::new(Arc::clone(&data), side, sizing, cache);
        measure(
            &TrainSource::new(store, 0, &Augmentation::default(), 100),
            samples,
        )
    };
    println!(
        r#"{{"files": {}, "scaled": {}, "memory": {}}}"#,
        rate(Sizing::Train, 0),
        rate(Sizing::TrainScaled, 0),
        rate(Sizing::Train, u64::MAX),
    );
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [folder, side, samples] = &arguments[..] {
        return measure_folder(
            Path::new(folder),
            side.parse().unwrap(),
            samples.parse().unwrap(),
        );
    }
    let folder = std::env::temp_dir().join(format!("loader-speed-{}", std::process::id()));
    let default = Augmentation::default();
    let variants = [
        ("default", default.clone()),
        (
            "no colour",
            Augmentation {
                hsv_h: 0.0,
                hsv_s: 0.0,
                hsv_v: 0.0,
                ..default.clone()
            },
        ),
        (
            "no mosaic",
            Augmentation {
                mosaic: 0.0,
                ..default.clone()
            },
        ),
        (
            "rotation",
            Augmentation {
                degrees: 10.0,
                shear: 2.0,
                ..default
            },
        ),
    ];
    for (side, size, ending) in [
        (160, (160, 160), "png"),
        (640, (640, 480), "jpg"),
        (640, (1080, 810), "jpg"),
    ] {
        let root = folder.join(format!("{side}-{}", size.0));
        make(&root, size, ending);
        let data = Arc::new(Dataset::open(&root, "data.yaml", Split::Train).unwrap());
        let samples = if side == 160 { 4000 } else { 320 };
        println!(
            "{side} px, {IMAGES} files of {} x {} {ending}",
            size.0, size.1
        );
        for (name, augmentation) in &variants {
            let source = |cache| {
                let store = ImageStore::new(Arc::clone(&data), side, Sizing::Train, cache);
                TrainSource::new(store, 0, augmentation, 100)
            };
            let memory = measure(&source(u64::MAX), samples);
            let shared = TrainSource::new(shared(&data, side), 0, augmentation, 100);
            let shared = measure(&shared, samples);
            let files = measure(&source(0), samples / 4);
            println!(
                "  {name:10} {memory:7.0} samples/s from memory, {shared:7.0} from shared memory, {files:7.0} from files"
            );
        }
        let store = ImageStore::new(Arc::clone(&data), side, Sizing::Train, u64::MAX);
        let source = Arc::new(TrainSource::new(store, 0, &variants[0].1, 100));
        measure(&*source, IMAGES);
        println!(
            "  loader     {:7.0} samples/s from memory, 1 thread",
            measure_loader(source, samples)
        );
    }
    let root = folder.join("outlined");
    make(&root, (640, 480), "jpg");
    for k in 0..IMAGES {
        let label = "0 0.2 0.2 0.4 0.2 0.4 0.4 0.2 0.4\n1 0.55 0.4 0.85 0.4 0.85 0.8 0.55 0.8\n";
        std::fs::write(root.join(format!("labels/{k:03}.txt")), label).unwrap();
    }
    measure_costs(&Arc::new(
        Dataset::open(&root, "data.yaml", Split::Train).unwrap(),
    ));
    std::fs::remove_dir_all(folder).unwrap();
}
