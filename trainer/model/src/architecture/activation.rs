//! Activations by name, as model files and PyTorch write them.

use contract::spec;

/// A function of single numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Activation {
    /// x · sigmoid(x).
    #[default]
    Silu,
    /// Negative numbers become 0.
    Relu,
    /// Also at most 6.
    Relu6,
    /// Negative numbers are multiplied by the slope.
    LeakyRelu(f64),
    /// x · min(max(x + 3, 0), 6) / 6.
    Hardswish,
    /// x · tanh(softplus(x)).
    Mish,
    /// x times the normal distribution's share below x.
    Gelu,
    /// Negative numbers become `alpha` · (exp(x) - 1).
    Elu(f64),
    /// Everything stays.
    Identity,
}

/// The names, as they are listed to people.
pub const NAMES: &str = "SiLU, ReLU, ReLU6, LeakyReLU(slope), Hardswish, Mish, GELU, ELU, Identity";

impl Activation {
    /// The activation of a text like `nn.LeakyReLU(0.1)`, `LeakyReLU(negative_slope=0.1, inplace=True)`
    /// or `SiLU`; numbers that are left out are PyTorch's. An error says what is wrong and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (name, arguments) = match text.split_once('(') {
            None => (text, ""),
            Some((name, rest)) => match rest.strip_suffix(')') {
                Some(arguments) => (name.trim_end(), arguments),
                None => return Err(format!("'{text}' lacks its closing parenthesis: add it")),
            },
        };
        let mut number = None;
        for argument in arguments
            .split(',')
            .map(str::trim)
            .filter(|a| !a.is_empty())
        {
            let (key, value) = match argument.split_once('=') {
                Some((key, value)) => (Some(key.trim()), value.trim()),
                None => (None, argument),
            };
            match (key, value.parse::<f64>()) {
                // It only says where PyTorch may put the result.
                (Some("inplace"), _) if ["True", "False"].contains(&value) => {}
                (None | Some("negative_slope" | "alpha"), Ok(value)) if number.is_none() => {
                    number = Some(value);
                }
                _ => {
                    return Err(format!(
                        "'{argument}' in '{text}' has no meaning: write the name with at most one number, for example LeakyReLU(0.1)"
                    ));
                }
            }
        }
        Self::named(name, number)
    }

    /// The activation called `name`, with or without `nn.`, and its number.
    pub fn named(name: &str, number: Option<f64>) -> Result<Self, String> {
        let plain = |activation| match number {
            None => Ok(activation),
            Some(number) => Err(format!(
                "{name} takes no number, but {number} is given: remove it"
            )),
        };
        let with = |default: f64, make: fn(f64) -> Self| match number.unwrap_or(default) {
            value if value.is_finite() && value.abs() <= 1000.0 => Ok(make(value)),
            value => Err(format!(
                "{name}({value}) is out of range: choose -1000 to 1000"
            )),
        };
        match name.strip_prefix("nn.").unwrap_or(name) {
            "SiLU" => plain(Self::Silu),
            "ReLU" => plain(Self::Relu),
            "ReLU6" => plain(Self::Relu6),
            "LeakyReLU" => with(0.01, Self::LeakyRelu),
            "Hardswish" => plain(Self::Hardswish),
            "Mish" => plain(Self::Mish),
            "GELU" => plain(Self::Gelu),
            "ELU" => with(1.0, Self::Elu),
            "Identity" => plain(Self::Identity),
            _ => Err(format!(
                "'{name}' is not an activation this program has: choose one of {NAMES}"
            )),
        }
    }

    /// Whether [`Activation::named`] knows `name`.
    pub fn is_name(name: &str) -> bool {
        Self::named(name, None).is_ok()
    }
}

impl From<spec::Activation> for Activation {
    fn from(activation: spec::Activation) -> Self {
        match activation {
            spec::Activation::SiLU => Self::Silu,
            spec::Activation::ReLU => Self::Relu,
            spec::Activation::ReLU6 => Self::Relu6,
            spec::Activation::LeakyReLU => Self::LeakyRelu(0.1),
            spec::Activation::Hardswish => Self::Hardswish,
            spec::Activation::Mish => Self::Mish,
            spec::Activation::GELU => Self::Gelu,
            spec::Activation::ELU => Self::Elu(1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_people_and_model_files_write_them() {
        let same = [
            ("nn.SiLU()", Activation::Silu),
            ("SiLU", Activation::Silu),
            (" nn.ReLU(inplace=True) ", Activation::Relu),
            ("nn.ReLU6()", Activation::Relu6),
            ("nn.LeakyReLU(0.1)", Activation::LeakyRelu(0.1)),
            (
                "LeakyReLU(negative_slope=0.2, inplace=False)",
                Activation::LeakyRelu(0.2),
            ),
            ("LeakyReLU", Activation::LeakyRelu(0.01)),
            ("nn.Hardswish()", Activation::Hardswish),
            ("nn.Mish()", Activation::Mish),
            ("nn.GELU()", Activation::Gelu),
            ("nn.ELU(0.5)", Activation::Elu(0.5)),
            ("nn.Identity()", Activation::Identity),
        ];
        for (text, activation) in same {
            assert_eq!(Ok(activation), Activation::parse(text), "{text}");
        }
    }

    #[test]
    fn mistakes_are_told_with_what_to_write() {
        let told = [
            (
                "nn.Swish()",
                "'nn.Swish' is not an activation this program has: choose one of SiLU",
            ),
            ("nn.LeakyReLU(0.1", "lacks its closing parenthesis"),
            (
                "nn.ReLU(0.1)",
                "nn.ReLU takes no number, but 0.1 is given: remove it",
            ),
            (
                "nn.LeakyReLU(0.1, 0.2)",
                "'0.2' in 'nn.LeakyReLU(0.1, 0.2)' has no meaning",
            ),
            ("nn.ELU(inf)", "nn.ELU(inf) is out of range"),
            ("", "'' is not an activation"),
        ];
        for (text, problem) in told {
            let error = Activation::parse(text).expect_err(text);
            assert!(error.contains(problem), "{error}");
        }
    }
}
