//! The modules a model file may name, and what their arguments mean.

mod branches;
mod convolutions;
mod detect;
mod plain;

use super::activation::{self, Activation};
use super::arguments::{Arguments, MAX_CHANNELS, Problem, python};
use super::document::Anchors;
use super::module::Module;
use super::shape::Shape;
use branches::{bottleneck_csp, c3, c3_cross, c3_ghost, c3_pyramid, c3_transformer, spp, sppf};
use convolutions::{bottleneck, conv, conv2d, cross, depthwise, focus, ghost, ghost_bottleneck};
use detect::detect;
use plain::{activation_layer, avg_pool, batch_norm, concat, contract, expand, max_pool, upsample};

/// What holds for all layers of a file.
pub(crate) struct Context {
    pub width: f64,
    /// YOLOv5 v7.0 does not scale channels that equal the outputs of a level of Detect.
    pub unscaled: Option<i64>,
    pub activation: Activation,
    pub classes: usize,
    /// By the job or by the file's key.
    pub anchors: Option<Anchors>,
    /// Whether they are the job's, which go before those that Detect itself has in the file.
    pub own_anchors: bool,
}

/// A layer about to be understood.
pub(crate) struct Reading<'a> {
    pub context: &'a Context,
    pub arguments: Arguments<'a>,
    /// What it gets, at least one.
    pub inputs: &'a [Shape],
    /// Pixels per cell of each input.
    pub strides: &'a [Option<u32>],
    /// How often, after the depth multiple.
    pub number: usize,
}

/// An understood layer.
pub(crate) struct Made {
    pub module: Module,
    /// How often in a row.
    pub repeats: usize,
    /// The arguments as YOLOv5's own table shows them.
    pub printed: String,
    /// For Detect: the anchors of each input.
    pub anchors: Vec<Vec<[f32; 2]>>,
    /// Whether those only stand for others, which the data set gives.
    pub wants_anchors: bool,
}

/// Reads the arguments of one kind of module.
type Reader = fn(&Reading<'_>) -> Result<Made, Problem>;

/// A module by its name.
struct Known {
    name: &'static str,
    /// Whether it takes several inputs.
    takes_many: bool,
    /// How many arguments it has, and which, for people.
    most: usize,
    form: &'static str,
    read: Reader,
}

const CSP: &str = "channels, shortcut = True, groups = 1, expansion = 0.5";
const PYRAMID: &str = "channels, windows = [5, 9, 13]";
const POOL: &str = "kernel, stride = kernel, padding = 0";

/// All modules but activations.
const KNOWN: [Known; 24] = [
    one(
        "Conv",
        7,
        "channels, kernel = 1, stride = 1, padding = None, groups = 1, dilation = 1, activation = True",
        conv,
    ),
    one(
        "DWConv",
        5,
        "channels, kernel = 1, stride = 1, dilation = 1, activation = True",
        depthwise,
    ),
    one(
        "Focus",
        6,
        "channels, kernel = 1, stride = 1, padding = None, groups = 1, activation = True",
        focus,
    ),
    one(
        "CrossConv",
        6,
        "channels, kernel = 3, stride = 1, groups = 1, expansion = 1.0, shortcut = False",
        cross,
    ),
    one("Bottleneck", 4, CSP, bottleneck),
    one("BottleneckCSP", 4, CSP, bottleneck_csp),
    one("C3", 4, CSP, c3),
    one("C3x", 4, CSP, c3_cross),
    one("C3TR", 4, CSP, c3_transformer),
    one("C3Ghost", 4, CSP, c3_ghost),
    one("C3SPP", 2, PYRAMID, c3_pyramid),
    one("SPP", 2, PYRAMID, spp),
    one("SPPF", 2, "channels, window = 5", sppf),
    one(
        "GhostConv",
        5,
        "channels, kernel = 1, stride = 1, groups = 1, activation = True",
        ghost,
    ),
    one(
        "GhostBottleneck",
        3,
        "channels, kernel = 3, stride = 1",
        ghost_bottleneck,
    ),
    one("Contract", 1, "gain = 2", contract),
    one("Expand", 1, "gain = 2", expand),
    one("nn.Upsample", 3, "None, factor, 'nearest'", upsample),
    one("nn.MaxPool2d", 3, POOL, max_pool),
    one("nn.AvgPool2d", 3, POOL, avg_pool),
    one(
        "nn.Conv2d",
        7,
        "channels, kernel, stride = 1, padding = 0, dilation = 1, groups = 1, bias = True",
        conv2d,
    ),
    // YOLOv5 replaces what is written by the channels of the input.
    one("nn.BatchNorm2d", 1, "", batch_norm),
    many("Concat", 1, "1", concat),
    many("Detect", 2, "nc, anchors", detect),
];

const fn one(name: &'static str, most: usize, form: &'static str, read: Reader) -> Known {
    Known {
        name,
        takes_many: false,
        most,
        form,
        read,
    }
}

const fn many(name: &'static str, most: usize, form: &'static str, read: Reader) -> Known {
    Known {
        takes_many: true,
        ..one(name, most, form, read)
    }
}

/// The names of all modules but activations.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().map(|known| known.name)
}

/// The module called `name` with what is written behind it.
pub(crate) fn read(name: &str, reading: &Reading<'_>) -> Result<Made, Problem> {
    if Activation::is_name(name) {
        return activation_layer(name, reading);
    }
    let Some(known) = KNOWN.iter().find(|known| known.name == name) else {
        let names: Vec<&str> = names().collect();
        return Err(format!(
            "'{name}' is not a module this program has: choose one of {}, or an activation ({})",
            names.join(", "),
            activation::NAMES
        ));
    };
    if !known.takes_many && reading.inputs.len() > 1 {
        return Err(format!(
            "from names {} layers, but {name} takes one: put a Concat before it",
            reading.inputs.len()
        ));
    }
    if known.takes_many && reading.number > 1 {
        return Err(format!(
            "number is {} after depth_multiple: write 1",
            reading.number
        ));
    }
    reading.arguments.at_most(known.most, known.form)?;
    (known.read)(reading)
}

impl Reading<'_> {
    /// Channels of the only input.
    fn input(&self) -> i64 {
        self.inputs[0].channels
    }

    /// Channels out, which the width multiple scales to a multiple of 8.
    fn channels(&self) -> Result<i64, Problem> {
        let nominal = self
            .arguments
            .whole(0, "channels", None, 1..=MAX_CHANNELS)?;
        if self.context.unscaled == Some(nominal) {
            return Ok(nominal);
        }
        let scaled = (nominal as f64 * self.context.width / 8.0).ceil() * 8.0;
        if scaled > MAX_CHANNELS as f64 {
            return Err(format!(
                "argument 1 (channels) is {nominal}, with width_multiple {} that is {scaled}: write fewer, at most {MAX_CHANNELS}",
                self.context.width
            ));
        }
        Ok(scaled as i64)
    }

    /// Even channels out, of which one half is made from the other.
    fn even_channels(&self) -> Result<i64, Problem> {
        let channels = self.channels()?;
        if channels % 2 == 0 {
            Ok(channels)
        } else {
            Err(format!(
                "argument 1 (channels) is {channels}: write an even number"
            ))
        }
    }

    /// The channels inside for an expansion at `at`.
    fn hidden(&self, at: usize, output: i64, default: f64) -> Result<i64, Problem> {
        let expansion = self.arguments.factor(at, "expansion", default)?;
        let hidden = (output as f64 * expansion) as i64;
        if (1..=MAX_CHANNELS).contains(&hidden) {
            Ok(hidden)
        } else {
            Err(format!(
                "argument {} (expansion) is {expansion}, which makes {hidden} channels inside: write a number that makes 1 to {MAX_CHANNELS}",
                at + 1
            ))
        }
    }

    /// A layer of this module, as often as the number says, with channels in and out before its arguments.
    fn repeated(&self, output: i64, module: Module) -> Made {
        self.made(module, self.number, Some(output), &[])
    }

    /// A layer whose number is the number of repeats inside.
    fn containing(&self, output: i64, module: Module) -> Made {
        self.made(module, 1, Some(output), &[self.number.to_string()])
    }

    /// A layer without channels among its arguments.
    fn plain(&self, module: Module) -> Made {
        self.made(module, self.number, None, &[])
    }

    fn made(&self, module: Module, repeats: usize, output: Option<i64>, more: &[String]) -> Made {
        let written = self.arguments.0.iter().map(python);
        let parts: Vec<String> = match output {
            None => written.collect(),
            Some(output) => [self.input().to_string(), output.to_string()]
                .into_iter()
                .chain(more.iter().cloned())
                .chain(written.skip(1))
                .collect(),
        };
        Made {
            module,
            repeats,
            printed: format!("[{}]", parts.join(", ")),
            anchors: Vec::new(),
            wants_anchors: false,
        }
    }

    fn usual(&self) -> Activation {
        self.context.activation
    }
}
