//! Modules made of others.

use trainer_formats::pickle::Py;
use trainer_model::architecture::{
    Activation, Branch, Convolution, Csp, Ghost, GhostBottleneck, HEADS, Inner, Pair, Pyramid,
    Window,
};

use super::{Maker, Parts, Result, activate, common, max_pool, numbered, object, sequential};

impl Maker<'_> {
    /// A module with `cv1` and `cv2`.
    pub(super) fn pair(
        &mut self,
        class: &'static str,
        place: &str,
        [first, second]: [Convolution; 2],
        activation: Activation,
    ) -> Result<Parts> {
        let first = self.conv(&format!("{place}.cv1"), first, activation)?;
        let second = self.conv(&format!("{place}.cv2"), second, activation)?;
        Ok(common(class).part("cv1", first).part("cv2", second))
    }

    /// One around which the input may be added.
    pub(super) fn adding(
        &mut self,
        class: &'static str,
        place: &str,
        pair: &Pair,
    ) -> Result<Parts> {
        let parts = self.pair(class, place, pair.convolutions, pair.activation)?;
        Ok(parts.with([("add", Py::Bool(pair.adds_input))]))
    }

    pub(super) fn c3(&mut self, place: &str, csp: &Csp) -> Result<Parts> {
        let class = match csp.inner {
            Inner::Bottlenecks { .. } => "C3",
            Inner::Crosses { .. } => "C3x",
            Inner::Ghosts { .. } => "C3Ghost",
            Inner::Transformer { .. } => "C3TR",
            Inner::Pyramid { .. } => "C3SPP",
        };
        let entries = [csp.entry(), csp.entry()];
        let last = self.conv(&format!("{place}.cv3"), csp.exit(), csp.activation)?;
        let branch = self.branch(&format!("{place}.m"), csp)?;
        Ok(self
            .pair(class, place, entries, csp.activation)?
            .part("cv3", last)
            .part("m", branch))
    }

    pub(super) fn bottleneck_csp(&mut self, place: &str, csp: &Csp) -> Result<Parts> {
        let between = Convolution::new(csp.hidden, csp.hidden, 1, 1);
        let first = self.conv(&format!("{place}.cv1"), csp.entry(), csp.activation)?;
        let second = self.conv2d(&format!("{place}.cv2"), csp.entry(), false)?;
        let third = self.conv2d(&format!("{place}.cv3"), between, false)?;
        let last = self.conv(&format!("{place}.cv4"), csp.exit(), csp.activation)?;
        let norm = self.batch_norm(&format!("{place}.bn"), 2 * csp.hidden)?;
        let branch = self.branch(&format!("{place}.m"), csp)?;
        Ok(common("BottleneckCSP")
            .part("cv1", first)
            .part("cv2", second)
            .part("cv3", third)
            .part("cv4", last)
            .part("bn", norm)
            .part("act", activate(Activation::Silu))
            .part("m", branch))
    }

    fn branch(&mut self, place: &str, csp: &Csp) -> Result<Parts> {
        match csp.branch() {
            Branch::Row { repeats, module } => {
                let row = (0..repeats).map(|repeat| {
                    let (made, _) = self.module(&format!("{place}.{repeat}"), &module)?;
                    Ok(made.finish())
                });
                Ok(sequential(numbered(row.collect::<Result<_>>()?)))
            }
            Branch::Pyramid(pyramid) => self.spp(place, &pyramid),
            Branch::Transformer { channels, layers } => self.transformer(place, channels, layers),
        }
    }

    pub(super) fn spp(&mut self, place: &str, pyramid: &Pyramid) -> Result<Parts> {
        let pools = pyramid
            .kernels
            .iter()
            .map(|side| max_pool(Window::keeping(*side)).finish());
        let pools = numbered(pools.collect());
        let list = object("torch.nn.modules.container", "ModuleList").parts(pools);
        let convolutions = pyramid.convolutions(pyramid.kernels.len());
        let pair = self.pair("SPP", place, convolutions, pyramid.activation)?;
        Ok(pair.part("m", list))
    }

    pub(super) fn ghost(&mut self, place: &str, ghost: &Ghost) -> Result<Parts> {
        self.pair("GhostConv", place, ghost.convolutions(), ghost.activation)
    }

    pub(super) fn ghost_bottleneck(
        &mut self,
        place: &str,
        ghost: &GhostBottleneck,
    ) -> Result<Parts> {
        let [first, second] = ghost.ghosts();
        let none = Activation::Identity;
        let first = self.ghost(&format!("{place}.conv.0"), &first)?;
        let second = self.ghost(&format!("{place}.conv.2"), &second)?;
        let (between, shortcut) = match ghost.strided() {
            Some(strided) => {
                let between = self.conv(&format!("{place}.conv.1"), strided.between, none)?;
                let mut shortcut = Vec::new();
                for (number, convolution) in strided.shortcut.into_iter().enumerate() {
                    let place = format!("{place}.shortcut.{number}");
                    shortcut.push(self.conv(&place, convolution, none)?.finish());
                }
                (between, sequential(numbered(shortcut)))
            }
            None => (activate(none), activate(none)),
        };
        let row = [first, between, second].map(Parts::finish);
        Ok(common("GhostBottleneck")
            .part("conv", sequential(numbered(row.into())))
            .part("shortcut", shortcut))
    }

    fn transformer(&mut self, place: &str, channels: i64, layers: usize) -> Result<Parts> {
        let linear = self.linear("Linear", &format!("{place}.linear"), channels, true)?;
        let row = (0..layers).map(|layer| {
            let place = format!("{place}.tr.{layer}");
            let mut made = common("TransformerLayer");
            for name in ["q", "k", "v", "fc1", "fc2"] {
                let linear = self.linear("Linear", &format!("{place}.{name}"), channels, false)?;
                made = made.part(name, linear);
            }
            let attention = self.attention(&format!("{place}.ma"), channels)?;
            Ok(made.part("ma", attention).finish())
        });
        let row = sequential(numbered(row.collect::<Result<_>>()?));
        Ok(common("TransformerBlock")
            .with([("conv", Py::None), ("c2", Py::Int(channels))])
            .part("linear", linear)
            .part("tr", row))
    }

    fn attention(&mut self, place: &str, channels: i64) -> Result<Parts> {
        let mut made = object("torch.nn.modules.activation", "MultiheadAttention").with([
            ("embed_dim", Py::Int(channels)),
            ("kdim", Py::Int(channels)),
            ("vdim", Py::Int(channels)),
            ("_qkv_same_embed_dim", Py::Bool(true)),
            ("num_heads", Py::Int(HEADS)),
            ("dropout", Py::Float(0.0)),
            ("batch_first", Py::Bool(false)),
            ("head_dim", Py::Int(channels / HEADS)),
            ("bias_k", Py::None),
            ("bias_v", Py::None),
            ("add_zero_attn", Py::Bool(false)),
        ]);
        for name in ["in_proj_weight", "in_proj_bias"] {
            let tensor = self.tensors.of_state(&format!("{place}.{name}"), true)?;
            made.parameters.push((name.to_owned(), tensor));
        }
        let absent = ["q_proj_weight", "k_proj_weight", "v_proj_weight"];
        made.parameters
            .extend(absent.map(|name| (name.to_owned(), Py::None)));
        let class = "NonDynamicallyQuantizableLinear";
        let out = self.linear(class, &format!("{place}.out_proj"), channels, true)?;
        Ok(made.part("out_proj", out))
    }

    fn linear(
        &mut self,
        class: &'static str,
        place: &str,
        channels: i64,
        with_bias: bool,
    ) -> Result<Parts> {
        let mut made = object("torch.nn.modules.linear", class).with([
            ("in_features", Py::Int(channels)),
            ("out_features", Py::Int(channels)),
        ]);
        let weight = self.tensors.of_state(&format!("{place}.weight"), true)?;
        let bias = if with_bias {
            self.tensors.of_state(&format!("{place}.bias"), true)?
        } else {
            Py::None
        };
        made.parameters = vec![("weight".to_owned(), weight), ("bias".to_owned(), bias)];
        Ok(made)
    }
}
