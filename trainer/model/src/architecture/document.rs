//! A model file as rows, before any of them has a meaning.

use serde::Deserialize;
use serde_json::Value;

use super::activation::Activation;
use super::error::{ArchitectureError, Place};

/// Layers a file may have; YOLOv5's largest has 33.
const MAX_LAYERS: usize = 500;
/// Levels of predictions a file may have.
pub(crate) const MAX_LEVELS: usize = 5;
/// Classes a network may have, as many as a data set.
const MAX_CLASSES: u64 = u16::MAX as u64;
/// Anchors a level may have.
const MAX_ANCHORS: usize = 16;

/// What a model file says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Document {
    /// Number of classes it was written for.
    pub classes: Option<usize>,
    pub depth: f64,
    pub width: f64,
    pub anchors: Option<Anchors>,
    pub activation: Option<Activation>,
    pub rows: Vec<Row>,
}

/// The anchors of all levels.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Anchors {
    /// Widths and heights in pixels, for each level.
    Sizes(Vec<Vec<[f32; 2]>>),
    /// So many for each level, which the data set gives their sizes.
    Made(usize),
}

impl Anchors {
    /// How many each level has.
    pub fn per_level(&self) -> usize {
        match self {
            Self::Sizes(levels) => levels[0].len(),
            Self::Made(number) => *number,
        }
    }
}

/// One layer as written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub place: Place,
    pub from: Vec<i64>,
    /// Whether `from` was written as a list.
    pub from_list: bool,
    pub number: u64,
    pub arguments: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    nc: Option<Value>,
    depth_multiple: Option<Value>,
    width_multiple: Option<Value>,
    anchors: Option<Value>,
    activation: Option<Value>,
    ch: Option<Value>,
    /// Where PyTorch may put results; means nothing here.
    #[serde(rename = "inplace")]
    _inplace: Option<bool>,
    backbone: Option<Value>,
    head: Option<Value>,
}

impl Document {
    /// Reads the text of a model file.
    pub fn parse(text: &str) -> Result<Self, ArchitectureError> {
        let file: File = serde_saphyr::from_str(text)
            .map_err(|error| ArchitectureError::Yaml(Box::new(error)))?;
        if let Some(channels) = file.ch
            && channels != 3
        {
            return Err(ArchitectureError::key(
                "ch",
                format!("is {channels}, but images have 3 channels: write 3 or leave ch out"),
            ));
        }
        let classes = file.nc.as_ref().map(classes).transpose()?;
        let rows = [("backbone", file.backbone), ("head", file.head)];
        Ok(Self {
            classes,
            depth: multiple("depth_multiple", file.depth_multiple.as_ref())?,
            width: multiple("width_multiple", file.width_multiple.as_ref())?,
            anchors: file
                .anchors
                .as_ref()
                .map(|a| anchors("anchors", a))
                .transpose()?,
            activation: file.activation.as_ref().map(activation).transpose()?,
            rows: read_rows(rows)?,
        })
    }
}

fn classes(nc: &Value) -> Result<usize, ArchitectureError> {
    let number = nc.as_u64().filter(|nc| (1..=MAX_CLASSES).contains(nc));
    number.map(|nc| nc as usize).ok_or_else(|| {
        ArchitectureError::key(
            "nc",
            format!("is {nc}: write a number of classes from 1 to {MAX_CLASSES}, or leave nc out"),
        )
    })
}

fn multiple(key: &'static str, value: Option<&Value>) -> Result<f64, ArchitectureError> {
    let Some(value) = value else { return Ok(1.0) };
    match value.as_f64() {
        Some(number) if number > 0.0 && number <= 100.0 => Ok(number),
        _ => Err(ArchitectureError::key(
            key,
            format!("is {value}: write a number above 0 and at most 100"),
        )),
    }
}

fn activation(value: &Value) -> Result<Activation, ArchitectureError> {
    let problem =
        |problem| ArchitectureError::key("activation", format!("is not usable: {problem}"));
    match value {
        Value::String(text) => Activation::parse(text).map_err(problem),
        other => Err(problem(format!(
            "{other} is not a name: write for example nn.ReLU()"
        ))),
    }
}

/// Anchors as a number for each level, or as a list of widths and heights for each; `key` is where they are written.
pub(crate) fn anchors(key: &'static str, value: &Value) -> Result<Anchors, ArchitectureError> {
    if !value.is_number() {
        return sizes(key, value).map(Anchors::Sizes);
    }
    let number = value
        .as_u64()
        .and_then(|number| usize::try_from(number).ok());
    let number = number.filter(|number| (1..=MAX_ANCHORS).contains(number));
    number.map(Anchors::Made).ok_or_else(|| {
        let problem = format!(
            "is {value}: write how many anchors of each level are to be made from the data set, 1 to {MAX_ANCHORS}, or their widths and heights in pixels, for example [[10, 13, 16, 30, 33, 23], [30, 61, 62, 45, 59, 119], [116, 90, 156, 198, 373, 326]]"
        );
        ArchitectureError::key(key, problem)
    })
}

/// Widths and heights for each level; `key` is where they are written.
pub(crate) fn sizes(
    key: &'static str,
    value: &Value,
) -> Result<Vec<Vec<[f32; 2]>>, ArchitectureError> {
    let problem = |problem: String| ArchitectureError::key(key, problem);
    let levels = value
        .as_array()
        .filter(|levels| (1..=MAX_LEVELS).contains(&levels.len()))
        .ok_or_else(|| {
            problem(format!(
                "is {value}: write a list for each of 1 to {MAX_LEVELS} levels"
            ))
        })?;
    let levels: Vec<Vec<[f32; 2]>> = levels
        .iter()
        .map(|level| {
            pairs(level).ok_or_else(|| {
                problem(format!(
                    "has the level {level}: write 1 to {MAX_ANCHORS} pairs of width and height in a row, above 0 and at most 8192 pixels"
                ))
            })
        })
        .collect::<Result<_, _>>()?;
    if let Some(other) = levels.iter().find(|level| level.len() != levels[0].len()) {
        return Err(problem(format!(
            "has {} anchors in one level and {} in another: give each level equally many",
            levels[0].len(),
            other.len()
        )));
    }
    Ok(levels)
}

fn pairs(level: &Value) -> Option<Vec<[f32; 2]>> {
    let numbers = level
        .as_array()?
        .iter()
        .map(|side| Some(side.as_f64()? as f32).filter(|side| *side > 0.0 && *side <= 8192.0))
        .collect::<Option<Vec<f32>>>()?;
    let (pairs, rest) = numbers.as_chunks::<2>();
    (rest.is_empty() && (1..=MAX_ANCHORS).contains(&pairs.len())).then(|| pairs.to_vec())
}

fn read_rows(sections: [(&'static str, Option<Value>); 2]) -> Result<Vec<Row>, ArchitectureError> {
    let mut rows = Vec::new();
    for (section, value) in sections {
        let wrong = |what: &str| {
            ArchitectureError::key(
                section,
                format!("{what}: write a list of rows [from, number, module, arguments]"),
            )
        };
        let list = match &value {
            None => return Err(wrong("is missing")),
            Some(Value::Array(list)) => list,
            Some(_) => return Err(wrong("is not a list")),
        };
        for (row, value) in (1..).zip(list) {
            if rows.len() == MAX_LAYERS {
                return Err(wrong(&format!(
                    "has more than {MAX_LAYERS} layers with all before it"
                )));
            }
            let place = Place {
                layer: rows.len(),
                section,
                row,
                module: String::new(),
            };
            rows.push(read_row(place, value)?);
        }
    }
    Ok(rows)
}

fn read_row(mut place: Place, value: &Value) -> Result<Row, ArchitectureError> {
    let Some([from, number, module, arguments]) =
        value.as_array().and_then(|row| row.as_array::<4>())
    else {
        let problem = format!(
            "it is {value}: write [from, number, module, arguments], for example [-1, 1, Conv, [64, 3, 2]]"
        );
        return Err(ArchitectureError::Layer { place, problem });
    };
    if let Value::String(name) = module {
        place.module.clone_from(name);
    }
    let fail = |problem: String| ArchitectureError::Layer {
        place: place.clone(),
        problem,
    };
    let sources = match from {
        Value::Array(list) => list.iter().map(Value::as_i64).collect(),
        single => single.as_i64().map(|from| vec![from]),
    };
    let sources = sources.filter(|from| !from.is_empty()).ok_or_else(|| {
        fail(format!(
            "from is {from}: write -1 for the layer before, the number of a layer, or a list of these"
        ))
    })?;
    let times = number.as_u64().filter(|number| (1..=1000).contains(number));
    let times = times.ok_or_else(|| {
        fail(format!(
            "number is {number}: write how often, from 1 to 1000"
        ))
    })?;
    if !module.is_string() {
        return Err(fail(format!(
            "module is {module}: write its name, for example Conv"
        )));
    }
    let Value::Array(arguments) = arguments else {
        return Err(fail(format!(
            "arguments is {arguments}: write a list, [] if there are none"
        )));
    };
    Ok(Row {
        from: sources,
        from_list: from.is_array(),
        number: times,
        arguments: arguments.clone(),
        place,
    })
}
