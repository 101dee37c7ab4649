//! The arguments of one layer, read one by one; every mistake becomes a sentence.

use std::ops::RangeInclusive;

use serde_json::Value;

use super::activation::Activation;
use super::module::Convolution;

/// Channels a layer may have.
pub(crate) const MAX_CHANNELS: i64 = 65_536;
/// Sides a kernel may have.
const KERNELS: RangeInclusive<i64> = 1..=99;
/// Cells from one output to the next.
const STRIDES: RangeInclusive<i64> = 1..=16;

/// What is wrong with a layer and what to write instead.
pub(crate) type Problem = String;

/// The arguments as written.
pub(crate) struct Arguments<'a>(pub &'a [Value]);

impl Arguments<'_> {
    /// Refuses arguments after the first `most`; `form` shows what there may be.
    pub(crate) fn at_most(&self, most: usize, form: &str) -> Result<(), Problem> {
        let given = self.0.len();
        if given > most {
            return Err(format!(
                "it has {given} arguments, but takes at most {most}: write [{form}]"
            ));
        }
        Ok(())
    }

    /// The argument at `at`, unless it is left to its default.
    pub(crate) fn get(&self, at: usize) -> Option<&Value> {
        self.0
            .get(at)
            .filter(|value| !value.is_null() && *value != "None")
    }

    /// A whole number.
    pub(crate) fn whole(
        &self,
        at: usize,
        name: &str,
        default: Option<i64>,
        range: RangeInclusive<i64>,
    ) -> Result<i64, Problem> {
        let remedy = || {
            format!(
                "write a whole number from {} to {}",
                range.start(),
                range.end()
            )
        };
        match (self.get(at), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(format!(
                "argument {} ({name}) is missing: {}",
                at + 1,
                remedy()
            )),
            (Some(value), _) => value
                .as_i64()
                .filter(|number| range.contains(number))
                .ok_or_else(|| self.wrong(at, name, &remedy())),
        }
    }

    /// One whole number for rows and columns, or a list of two.
    pub(crate) fn pair(
        &self,
        at: usize,
        name: &str,
        default: Option<[i64; 2]>,
        range: RangeInclusive<i64>,
    ) -> Result<[i64; 2], Problem> {
        let Some(Value::Array(list)) = self.get(at) else {
            let both = default.map(|[rows, _]| rows);
            return match (self.get(at), default) {
                (None, Some(default)) => Ok(default),
                _ => Ok([self.whole(at, name, both, range)?; 2]),
            };
        };
        let sides: Vec<i64> = list
            .iter()
            .filter_map(Value::as_i64)
            .filter(|side| range.contains(side))
            .collect();
        match sides[..] {
            [rows, columns] if list.len() == 2 => Ok([rows, columns]),
            _ => Err(self.wrong(
                at,
                name,
                &format!(
                    "write one or two whole numbers from {} to {}",
                    range.start(),
                    range.end()
                ),
            )),
        }
    }

    /// A number above 0.
    pub(crate) fn factor(&self, at: usize, name: &str, default: f64) -> Result<f64, Problem> {
        match self.get(at) {
            None => Ok(default),
            Some(value) => value
                .as_f64()
                .filter(|number| *number > 0.0 && *number <= 16.0)
                .ok_or_else(|| self.wrong(at, name, "write a number above 0 and at most 16")),
        }
    }

    /// True or False.
    pub(crate) fn flag(&self, at: usize, name: &str, default: bool) -> Result<bool, Problem> {
        match self.get(at) {
            None => Ok(default),
            Some(value) => {
                as_flag(value).ok_or_else(|| self.wrong(at, name, "write True or False"))
            }
        }
    }

    /// True for the network's activation, False for none, or the name of another.
    pub(crate) fn activation(&self, at: usize, usual: Activation) -> Result<Activation, Problem> {
        const NAME: &str = "activation";
        let Some(value) = self.get(at) else {
            return Ok(usual);
        };
        match (as_flag(value), value) {
            (Some(true), _) => Ok(usual),
            (Some(false), _) => Ok(Activation::Identity),
            (None, Value::String(text)) => Activation::parse(text)
                .map_err(|problem| format!("argument {} ({NAME}): {problem}", at + 1)),
            _ => Err(self.wrong(at, NAME, "write True, False or a name like nn.ReLU()")),
        }
    }

    /// Odd windows of poolings: a number, or a list of them.
    pub(crate) fn windows(&self, at: usize, default: &[i64]) -> Result<Vec<i64>, Problem> {
        let Some(value) = self.get(at) else {
            return Ok(default.to_vec());
        };
        let one = std::slice::from_ref(value);
        let list = value.as_array().map_or(one, Vec::as_slice);
        let windows: Vec<i64> = list
            .iter()
            .filter_map(Value::as_i64)
            .filter(|window| KERNELS.contains(window) && window % 2 == 1)
            .collect();
        if windows.len() == list.len() && (1..=8).contains(&windows.len()) {
            Ok(windows)
        } else {
            Err(self.wrong(
                at,
                "windows",
                "write 1 to 8 odd numbers up to 99, for example [5, 9, 13]",
            ))
        }
    }

    pub(crate) fn kernel(&self, at: usize, default: i64) -> Result<i64, Problem> {
        self.whole(at, "kernel", Some(default), KERNELS)
    }

    pub(crate) fn kernels(&self, at: usize, default: Option<i64>) -> Result<[i64; 2], Problem> {
        self.pair(at, "kernel", default.map(|side| [side; 2]), KERNELS)
    }

    pub(crate) fn stride(&self, at: usize) -> Result<i64, Problem> {
        self.whole(at, "stride", Some(1), STRIDES)
    }

    pub(crate) fn strides(&self, at: usize, default: [i64; 2]) -> Result<[i64; 2], Problem> {
        self.pair(at, "stride", Some(default), 1..=99)
    }

    pub(crate) fn padding(&self, at: usize, default: [i64; 2]) -> Result<[i64; 2], Problem> {
        self.pair(at, "padding", Some(default), 0..=99)
    }

    /// A number of groups that divides both numbers of channels of `convolution`.
    pub(crate) fn groups(&self, at: usize, input: i64, output: i64) -> Result<i64, Problem> {
        let groups = self.whole(at, "groups", Some(1), 1..=MAX_CHANNELS)?;
        if input % groups == 0 && output % groups == 0 {
            return Ok(groups);
        }
        Err(format!(
            "argument {} (groups) is {groups}, which does not divide the {input} channels in and {output} out: write a common divisor, or 1",
            at + 1
        ))
    }

    /// The convolution of arguments in the order kernel, stride, padding, groups, dilation from `at` on; padding
    /// keeps the size unless it is written.
    pub(crate) fn convolution(
        &self,
        at: usize,
        input: i64,
        output: i64,
    ) -> Result<Convolution, Problem> {
        let kernel = self.kernels(at, Some(1))?;
        let dilation = self.pair(at + 4, "dilation", Some([1; 2]), 1..=16)?;
        let mut made = Convolution {
            dilation,
            ..Convolution::rectangular(input, output, kernel, self.strides(at + 1, [1; 2])?)
        };
        made.padding = self.padding(at + 2, made.extent().map(|side| side / 2))?;
        made.groups = self.groups(at + 3, input, output)?;
        Ok(made)
    }

    /// The sentence about an argument that cannot be used.
    pub(crate) fn wrong(&self, at: usize, name: &str, remedy: &str) -> Problem {
        let value = self.0.get(at).map_or_else(String::new, python);
        format!("argument {} ({name}) is {value}: {remedy}", at + 1)
    }
}

fn as_flag(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        Value::String(text) if text == "True" => Some(true),
        Value::String(text) if text == "False" => Some(false),
        _ => None,
    }
}

/// A value as YOLOv5's own tables show it.
pub(crate) fn python(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::String(text) if ["None", "True", "False"].contains(&text.as_str()) => text.clone(),
        Value::String(text) => format!("'{text}'"),
        Value::Array(list) => {
            let parts: Vec<String> = list.iter().map(python).collect();
            format!("[{}]", parts.join(", "))
        }
        other => other.to_string(),
    }
}
