//! The arguments of `yolo-trainer`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use contract::spec::{Device, Precision};
use serde::Deserialize as _;
use serde::de::IntoDeserializer as _;
use serde::de::value::{Error as NameError, StrDeserializer};
use trainer_core::nms::NmsOptions;
use trainer_data::Split;

use crate::commands;
use crate::finder::{Ensemble, Views};

/// Trains, evaluates and runs YOLOv5.
#[derive(Debug, Parser)]
#[command(name = "yolo-trainer", version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train the job of this pod, or a manifest on this machine.
    Train(TrainArgs),
    /// Measure precision, recall and mAP of trained weights.
    Eval(EvalArgs),
    /// Find objects on pictures and draw them.
    Predict(PredictArgs),
    /// Show the layers, parameters and work of a model.
    Info(InfoArgs),
    /// Measure how fast this machine trains.
    Bench(BenchArgs),
    /// Write trained weights as a file for other programs.
    Export(ExportArgs),
    /// Make a job of YOLOv5's files of options.
    Convert(ConvertArgs),
    /// Read a data set as training would, and tell what it holds and what is wrong with it.
    CheckData(CheckDataArgs),
    /// Find the anchors that fit a data set best.
    Anchors(AnchorsArgs),
    /// Make an example data set.
    #[command(subcommand)]
    MakeDataset(DatasetKind),
}

/// Arguments of `train`.
#[derive(Clone, Debug, Args)]
pub struct TrainArgs {
    /// A `YoloTrainingJob` manifest to run without Kubernetes. Default: the configuration that
    /// `YOLO_CONFIG` names.
    #[arg(short = 'f', long = "file", value_name = "JOB.YAML")]
    pub manifest: Option<PathBuf>,
    /// Folder that stands for the volume of the data set.
    #[arg(long, value_name = "DIR")]
    pub dataset: Option<PathBuf>,
    /// A data file outside the data set, in place of dataset.config; stands for dataset.configMap.
    #[arg(long, value_name = "DATA.YAML")]
    pub data_file: Option<PathBuf>,
    /// Folder that stands for the output volume. The run writes to `<name>-local` in it; the same
    /// command goes on with the same run.
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Folder for decoded images when training.cache is disk, if no agent made a file for them. Nothing stays
    /// in it. Default: the system's temporary folder.
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
    /// Compare the whole state of all processes after every step of the optimiser (slow; to look for
    /// faults).
    #[arg(long)]
    pub verify_ranks: bool,
    /// Make the loss of a step NaN, to see how the run goes on; given again, also after going back.
    #[arg(long, hide = true, value_name = "STEP")]
    pub make_non_finite: Vec<u64>,
    /// Let memory run out at a step, to see how the next start goes on; given again, also then.
    #[arg(long, hide = true, value_name = "STEP")]
    pub make_out_of_memory: Vec<u64>,
}

/// Which networks `eval` and `predict` use, and how.
#[derive(Clone, Debug, Args)]
pub struct NetworkArgs {
    /// A `.safetensors` file of this program, a `.pt` file of YOLOv5, a checkpoint folder, or a run's folder; several of
    /// the same classes are used together.
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    pub weights: Vec<PathBuf>,
    /// How several weights are used together.
    #[arg(long, value_enum, default_value_t = Ensemble::Nms)]
    pub ensemble: Ensemble,
    /// See each image also smaller and mirrored (test-time augmentation): slower, mostly better.
    #[arg(long)]
    pub augment: bool,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t = DeviceArg::Auto)]
    pub device: DeviceArg,
    /// Side of the image in pixels, a multiple of 32. Default: that of the training.
    #[arg(long, value_parser = image_size)]
    pub image_size: Option<u32>,
}

impl NetworkArgs {
    /// Each image as it is, or several times.
    pub fn views(&self) -> Views {
        if self.augment {
            Views::Several
        } else {
            Views::One
        }
    }
}

/// Arguments of `eval`.
#[derive(Clone, Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct EvalArgs {
    /// With which networks.
    #[command(flatten)]
    pub networks: NetworkArgs,
    /// The YOLO data file.
    #[arg(long, value_name = "DATA.YAML")]
    pub data: PathBuf,
    /// Which of its images to use.
    #[arg(long, value_enum, default_value_t = TaskArg::Val)]
    pub task: TaskArg,
    /// Images computed at a time.
    #[arg(long, default_value_t = crate::evaluate::MAX_BATCH as u32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub batch_size: u32,
    /// Lay images into squares without a border, as an exported network of fixed size sees them, instead of into
    /// rectangles with half a stride of border or more, as the training and YOLOv5 do.
    #[arg(long)]
    pub square: bool,
    /// Least confidence of a detection.
    #[arg(long, visible_alias = "conf-thres", default_value_t = NmsOptions::VALIDATION.confidence, value_parser = fraction)]
    pub conf: f32,
    /// Largest overlap of two detections of one class.
    #[arg(long, visible_alias = "iou-thres", default_value_t = NmsOptions::VALIDATION.iou, value_parser = fraction)]
    pub iou: f32,
    /// Most detections of an image.
    #[arg(long, default_value_t = NmsOptions::VALIDATION.max_detections as u32, value_parser = clap::value_parser!(u32).range(1..=30_000))]
    pub max_det: u32,
    /// Take all classes for one: how well objects are found, whatever they are.
    #[arg(long, visible_alias = "single-cls")]
    pub single_class: bool,
    /// Show COCO's definition of average precision and recall beside `YOLOv5`'s.
    #[arg(long)]
    pub coco: bool,
    /// Show every class, also of 50 or more, and which are taken for which.
    #[arg(long)]
    pub verbose: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Also draw curves, confusion matrix, labels and the first batches into this folder: new, empty, or of an
    /// earlier `eval`.
    #[arg(long, value_name = "DIR")]
    pub plots: Option<PathBuf>,
    /// Also write the detections as a results file of COCO: a new file.
    #[arg(long, value_name = "FILE.JSON")]
    pub save_json: Option<PathBuf>,
    /// Also write each image's detections as text (class, centre, size, confidence) to this folder: new, empty,
    /// or of an earlier `eval` of the same images.
    #[arg(long, value_name = "DIR")]
    pub save_txt: Option<PathBuf>,
}

/// Arguments of `predict`.
#[derive(Clone, Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct PredictArgs {
    /// With which networks.
    #[command(flatten)]
    pub networks: NetworkArgs,
    /// Pictures, folders of pictures, patterns such as 'in/*.jpg', or text files with one of these in a line.
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    pub source: Vec<PathBuf>,
    /// Folder for the results: new, empty, or of an earlier `predict`.
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// Lay pictures into squares, as an exported network of fixed size sees them, instead of into rectangles with as
    /// little border as the network's stride allows, as YOLOv5's detect does.
    #[arg(long)]
    pub square: bool,
    /// Take only the first so many pictures.
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Least confidence of a detection.
    #[arg(long, visible_alias = "conf-thres", default_value_t = 0.25, value_parser = fraction)]
    pub conf: f32,
    /// Largest overlap of two detections of one class.
    #[arg(long, visible_alias = "iou-thres", default_value_t = 0.45, value_parser = fraction)]
    pub iou: f32,
    /// Most detections of a picture.
    #[arg(long, default_value_t = NmsOptions::DETECTION.max_detections as u32, value_parser = clap::value_parser!(u32).range(1..=30_000))]
    pub max_det: u32,
    /// Show only these classes, by number.
    #[arg(long, num_args = 1.., value_name = "CLASS")]
    pub classes: Vec<u16>,
    /// Let detections of all classes compete for a place, not only those of one class.
    #[arg(long)]
    pub agnostic_nms: bool,
    /// Also write the pictures onto one sheet: a new file, or one in the output folder.
    #[arg(long, value_name = "FILE.PNG")]
    pub contact_sheet: Option<PathBuf>,
    /// Also draw the labels of the data set, dashed: the last folder `images` of a picture's path is `labels` instead.
    #[arg(long)]
    pub labels: bool,
    /// Also write each picture's boxes as text: class, centre, size, confidence.
    #[arg(long)]
    pub save_txt: bool,
    /// Also cut the objects out: `crops/CLASS/PICTURE.png`.
    #[arg(long)]
    pub save_crop: bool,
    /// Also write all detections as a results file of COCO: `coco.json`.
    #[arg(long)]
    pub save_json: bool,
}

/// Arguments of `export`.
#[derive(Clone, Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct ExportArgs {
    /// A `.safetensors` file of this program, a `.pt` file of YOLOv5, a checkpoint folder, or a run's folder.
    #[arg(long, value_name = "PATH")]
    pub weights: PathBuf,
    /// The kind of file.
    #[arg(long, value_enum)]
    pub format: ExportFormat,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Side of the images in pixels, a multiple of 32, for which onnx and torchscript are made. Default: that of the
    /// training.
    #[arg(long, value_parser = image_size)]
    pub image_size: Option<u32>,
    /// Images at a time, for which onnx and torchscript are made. Default: 1.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub batch_size: Option<u16>,
    /// Let the number of images and their sides differ from these (onnx only).
    #[arg(long)]
    pub dynamic: bool,
    /// Weights in half precision (float16): pt and safetensors; onnx, whose images and predictions are then too.
    #[arg(long)]
    pub half: bool,
    /// Keep batch normalisations apart instead of folding them into the convolutions (onnx, torchscript).
    #[arg(long)]
    pub no_fuse: bool,
    /// Let the model itself pick detections (onnx): its output is then `detections`, rows of image number, x1, y1, x2,
    /// y2 in pixels, confidence, class.
    #[arg(long)]
    pub nms: bool,
    /// With --nms: least confidence of a detection. Default: 0.25.
    #[arg(long, visible_alias = "conf-thres", value_parser = fraction, requires = "nms")]
    pub conf: Option<f32>,
    /// With --nms: largest overlap of two detections of one class. Default: 0.45.
    #[arg(long, visible_alias = "iou-thres", value_parser = fraction, requires = "nms")]
    pub iou: Option<f32>,
    /// With --nms: most detections of an image. Default: 1000.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=30_000), requires = "nms")]
    pub max_det: Option<u32>,
    /// With --nms: let detections of all classes compete for a place, not only those of one class.
    #[arg(long, requires = "nms")]
    pub agnostic_nms: bool,
    /// Replace a file that exists.
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `convert`.
#[derive(Clone, Debug, Args)]
#[command(group = clap::ArgGroup::new("options").args(["opt", "hyp"]).required(true).multiple(true))]
pub struct ConvertArgs {
    /// The opt.yaml of a run of YOLOv5.
    #[arg(long, value_name = "OPT.YAML")]
    pub opt: Option<PathBuf>,
    /// A hyp.yaml; it comes before the one inside opt.yaml.
    #[arg(long, value_name = "HYP.YAML")]
    pub hyp: Option<PathBuf>,
    /// The data.yaml; it comes before the one that opt.yaml names.
    #[arg(long, value_name = "DATA.YAML")]
    pub data: Option<PathBuf>,
    /// Name of the job. Default: that of the run.
    #[arg(long)]
    pub name: Option<String>,
    /// The PersistentVolumeClaim of the data set.
    #[arg(long, default_value = "dataset", value_name = "CLAIM")]
    pub dataset_claim: String,
    /// The PersistentVolumeClaim for results.
    #[arg(long, default_value = "runs", value_name = "CLAIM")]
    pub output_claim: String,
    /// The file to write. Default: print the job.
    #[arg(long, value_name = "JOB.YAML")]
    pub output: Option<PathBuf>,
    /// Replace a file that exists.
    #[arg(long, requires = "output")]
    pub force: bool,
}

/// Kinds of files for other programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// A checkpoint of the Python YOLOv5.
    Pt,
    /// Named tensors, with a note for this program.
    Safetensors,
    /// ONNX, operator set 12.
    Onnx,
    /// A traced network for libtorch.
    Torchscript,
}

/// Arguments of `info`.
#[derive(Clone, Debug, Args)]
pub struct InfoArgs {
    /// A size (yolov5n to yolov5x6), a model file (.yaml), or trained weights: a `.safetensors` file of this
    /// program, a `.pt` file of YOLOv5, a checkpoint folder, or a run's folder.
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// Number of classes. Default: that of the weights or of the model file, else 80.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub classes: Option<u16>,
    /// Side of the image in pixels for which work is counted, a multiple of 32. Default: that of the training,
    /// else 640.
    #[arg(long, value_parser = image_size)]
    pub image_size: Option<u32>,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Print the model file itself, to begin one of your own with.
    #[arg(long, conflicts_with = "json")]
    pub yaml: bool,
}

/// Arguments of `bench`.
#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    /// A size (yolov5n to yolov5x6), a model file (.yaml), or trained weights.
    #[arg(value_name = "MODEL", default_value = "yolov5n")]
    pub model: String,
    /// Number of classes. Default: that of the weights or of the model file, else 80.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub classes: Option<u16>,
    /// Side of the image in pixels, a multiple of 32.
    #[arg(long, default_value_t = 640, value_parser = image_size)]
    pub image_size: u32,
    /// Images in a step.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub batch_size: u32,
    /// Steps to measure, after three that are not.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub steps: u32,
    /// Number format of the expensive operations: auto, float32, bfloat16 or float16.
    #[arg(long, default_value = "auto", value_parser = precision)]
    pub precision: Precision,
    /// How images lie in memory.
    #[arg(long, value_enum, default_value_t = LayoutArg::ChannelsLast)]
    pub layout: LayoutArg,
    /// Threads on the CPU. Default: all.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t = DeviceArg::Auto)]
    pub device: DeviceArg,
    /// Print JSON instead of a line.
    #[arg(long)]
    pub json: bool,
}

/// How images lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LayoutArg {
    /// The channels of a pixel next to each other (NHWC), as in training.
    ChannelsLast,
    /// Plane after plane (NCHW).
    ChannelsFirst,
}

/// Kinds of example data sets.
#[derive(Debug, Subcommand)]
pub enum DatasetKind {
    /// Scenes of handwritten digits.
    Digits(DigitsArgs),
}

/// Arguments of `make-dataset digits`.
#[derive(Clone, Debug, Args)]
pub struct DigitsArgs {
    /// Folder for the data set: new or empty.
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// Number of training scenes.
    #[arg(long, default_value_t = 400)]
    pub train: u32,
    /// Number of validation scenes.
    #[arg(long, default_value_t = 100)]
    pub val: u32,
    /// Width and height of the scenes in pixels.
    #[arg(long, default_value_t = 160)]
    pub image_size: u32,
    /// From which everything follows.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// Arguments of `check-data`.
#[derive(Clone, Debug, Args)]
pub struct CheckDataArgs {
    /// The data file.
    #[arg(long, value_name = "DATA.YAML")]
    pub data: PathBuf,
    /// Side of the training image at which objects are measured.
    #[arg(long, default_value_t = 640, value_parser = image_size)]
    pub image_size: u32,
    /// Also decode every image, which finds files that are cut off.
    #[arg(long)]
    pub decode: bool,
}

/// Arguments of `anchors`.
#[derive(Clone, Debug, Args)]
pub struct AnchorsArgs {
    /// The data file; the labels of its `train` images are used.
    #[arg(long, value_name = "DATA.YAML")]
    pub data: PathBuf,
    /// Side of the training image.
    #[arg(long, default_value_t = 640, value_parser = image_size)]
    pub image_size: u32,
    /// Levels of the model: 3, or 4 for yolov5n6 to yolov5x6. Each gets 3 anchors.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub levels: u8,
    /// `hyperparameters.anchorThreshold`: how many times larger or smaller than an anchor a box may be.
    #[arg(long, default_value_t = 4.0, value_parser = threshold)]
    pub threshold: f32,
    /// From which the random parts of the search follow.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// Images of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TaskArg {
    /// Those that training learns from.
    Train,
    /// Those that training measures on.
    Val,
    /// Those that no choice of training depended on.
    Test,
}

impl From<TaskArg> for Split {
    fn from(task: TaskArg) -> Self {
        match task {
            TaskArg::Train => Self::Train,
            TaskArg::Val => Self::Val,
            TaskArg::Test => Self::Test,
        }
    }
}

/// Where to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DeviceArg {
    /// A GPU if there is one.
    Auto,
    /// The CPU.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

impl From<DeviceArg> for Device {
    fn from(device: DeviceArg) -> Self {
        match device {
            DeviceArg::Auto => Self::Auto,
            DeviceArg::Cpu => Self::Cpu,
            DeviceArg::Cuda => Self::Cuda,
        }
    }
}

fn image_size(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(size) if (64..=8192).contains(&size) && size % 32 == 0 => Ok(size),
        _ => Err("choose a multiple of 32 from 64 to 8192".to_owned()),
    }
}

fn precision(text: &str) -> Result<Precision, String> {
    let name: StrDeserializer<'_, NameError> = text.into_deserializer();
    Precision::deserialize(name).map_err(|_| "choose auto, float32, bfloat16 or float16".to_owned())
}

fn threshold(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if value > 1.0 && value <= 100.0 => Ok(value),
        _ => Err("choose a number above 1, at most 100".to_owned()),
    }
}

fn fraction(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("choose 0 to 1".to_owned()),
    }
}

/// Does what the arguments say; returns the exit code of the process.
pub fn run(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Train(args) => commands::train(&args),
        Command::Eval(args) => commands::eval(&args),
        Command::Predict(args) => commands::predict(&args),
        Command::Info(args) => commands::info(&args),
        Command::Bench(args) => commands::bench(&args),
        Command::Export(args) => commands::export(&args),
        Command::Convert(args) => commands::convert(&args),
        Command::CheckData(args) => commands::check_data(&args),
        Command::Anchors(args) => commands::anchors(&args),
        Command::MakeDataset(DatasetKind::Digits(args)) => commands::make_digits(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        let parse = |args: &str| Cli::try_parse_from(args.split(' '));
        let predict = "yolo-trainer predict --weights w --source a b --output o";
        assert!(parse(predict).is_ok());
        assert!(parse(&format!("{predict} --conf 2")).is_err());
        assert!(parse("yolo-trainer eval --weights w --data d --image-size 100").is_err());
    }
}
