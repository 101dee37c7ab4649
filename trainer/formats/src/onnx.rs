//! ONNX models, put together node by node.
//!
//! The messages are those fields of ONNX's published definition (Apache-2.0) that a model needs; readers take the
//! absent ones as empty.

use prost::{Message, Oneof};

/// The version of the file format that goes with operator set 12.
const IR_VERSION: i64 = 7;
/// The version of the operators' definitions, which YOLOv5's export uses too.
const OPERATORS: i64 = 12;
/// ONNX's code for whole numbers of 64 bits.
const INT64: i32 = 7;

/// Kinds of numbers that weights, inputs and outputs may be of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// Single precision.
    Float,
    /// Half precision.
    Half,
}

impl Number {
    /// ONNX's code for it.
    pub fn code(self) -> i64 {
        match self {
            Self::Float => 1,
            Self::Half => 10,
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(string, tag = "2")]
    producer_name: String,
    #[prost(string, tag = "3")]
    producer_version: String,
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OperatorSetId>,
    #[prost(message, repeated, tag = "14")]
    metadata_props: Vec<StringEntry>,
}

#[derive(Clone, PartialEq, Message)]
struct OperatorSetId {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Clone, PartialEq, Message)]
struct StringEntry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<AttributeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct AttributeProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(float, optional, tag = "2")]
    f: Option<f32>,
    #[prost(int64, optional, tag = "3")]
    i: Option<i64>,
    #[prost(bytes = "vec", optional, tag = "4")]
    s: Option<Vec<u8>>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    kind: i32,
}

#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct ValueInfo {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    kind: Option<TypeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TypeProto {
    #[prost(message, optional, tag = "1")]
    tensor_type: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    elem_type: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<TensorShape>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorShape {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(oneof = "Side", tags = "1, 2")]
    value: Option<Side>,
}

/// A side of an input or output.
#[derive(Clone, PartialEq, Eq, Oneof)]
pub enum Side {
    /// Always so many.
    #[prost(int64, tag = "1")]
    Fixed(i64),
    /// Any number, by the name of what it counts.
    #[prost(string, tag = "2")]
    Free(String),
}

/// A setting of a node.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// A whole number.
    Int(i64),
    /// Whole numbers.
    Ints(Vec<i64>),
    /// A number.
    Float(f32),
    /// A word.
    Word(&'static str),
}

/// A model in the making. Values are known by their names.
#[derive(Debug, Default)]
pub struct OnnxBuilder {
    graph: GraphProto,
}

impl OnnxBuilder {
    /// Declares an input.
    pub fn input(&mut self, name: &str, number: Number, sides: Vec<Side>) {
        self.graph.input.push(value_info(name, number, sides));
    }

    /// Declares that the value `name` is an output.
    pub fn output(&mut self, name: &str, number: Number, sides: Vec<Side>) {
        self.graph.output.push(value_info(name, number, sides));
    }

    /// A constant of numbers in little-endian bytes; returns its name.
    pub fn tensor(
        &mut self,
        name: &str,
        number: Number,
        dims: Vec<i64>,
        raw_data: Vec<u8>,
    ) -> String {
        self.constant(name, dims, number.code() as i32, raw_data)
    }

    /// A constant of single-precision numbers; returns its name.
    pub fn floats(&mut self, dims: &[i64], numbers: &[f32]) -> String {
        let bytes = numbers
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        let name = self.next_name("constant");
        self.constant(&name, dims.to_vec(), Number::Float.code() as i32, bytes)
    }

    /// A constant list of whole numbers; returns its name.
    pub fn ints(&mut self, numbers: &[i64]) -> String {
        let bytes = numbers
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        let name = self.next_name("constant");
        self.constant(&name, vec![numbers.len() as i64], INT64, bytes)
    }

    /// A constant whole number; returns its name.
    pub fn int(&mut self, number: i64) -> String {
        let name = self.next_name("constant");
        self.constant(&name, Vec::new(), INT64, number.to_le_bytes().to_vec())
    }

    fn constant(
        &mut self,
        name: &str,
        dims: Vec<i64>,
        data_type: i32,
        raw_data: Vec<u8>,
    ) -> String {
        self.graph.initializer.push(TensorProto {
            dims,
            data_type,
            name: name.to_owned(),
            raw_data,
        });
        name.to_owned()
    }

    fn next_name(&self, what: &str) -> String {
        format!(
            "{what}_{}",
            self.graph.initializer.len() + self.graph.node.len()
        )
    }

    /// A node with one output; returns the output's name.
    pub fn node(
        &mut self,
        operator: &str,
        inputs: &[&str],
        attributes: Vec<(&str, Attribute)>,
    ) -> String {
        let name = self.next_name(operator);
        self.add(operator, inputs, vec![name.clone()], attributes);
        name
    }

    /// A node whose output is called `output`.
    pub fn named(
        &mut self,
        operator: &str,
        inputs: &[&str],
        output: &str,
        attributes: Vec<(&str, Attribute)>,
    ) {
        self.add(operator, inputs, vec![output.to_owned()], attributes);
    }

    /// A node with `count` outputs; returns their names.
    pub fn nodes(
        &mut self,
        operator: &str,
        inputs: &[&str],
        count: usize,
        attributes: Vec<(&str, Attribute)>,
    ) -> Vec<String> {
        let name = self.next_name(operator);
        let outputs: Vec<String> = (0..count)
            .map(|number| format!("{name}_{number}"))
            .collect();
        self.add(operator, inputs, outputs.clone(), attributes);
        outputs
    }

    fn add(
        &mut self,
        operator: &str,
        inputs: &[&str],
        output: Vec<String>,
        attributes: Vec<(&str, Attribute)>,
    ) {
        self.graph.node.push(NodeProto {
            name: self.next_name(&format!("node_{operator}")),
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output,
            op_type: operator.to_owned(),
            attribute: attributes.into_iter().map(attribute).collect(),
        });
    }

    /// The bytes of the model, with texts for programs that use it.
    pub fn finish(mut self, name: &str, metadata: &[(&str, String)]) -> Vec<u8> {
        name.clone_into(&mut self.graph.name);
        let entry = |(key, value): &(&str, String)| StringEntry {
            key: (*key).to_owned(),
            value: value.clone(),
        };
        let model = ModelProto {
            ir_version: IR_VERSION,
            producer_name: "yolo-operator".to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            graph: Some(self.graph),
            opset_import: vec![OperatorSetId {
                domain: String::new(),
                version: OPERATORS,
            }],
            metadata_props: metadata.iter().map(entry).collect(),
        };
        model.encode_to_vec()
    }
}

fn value_info(name: &str, number: Number, sides: Vec<Side>) -> ValueInfo {
    let dim = sides
        .into_iter()
        .map(|side| Dimension { value: Some(side) });
    ValueInfo {
        name: name.to_owned(),
        kind: Some(TypeProto {
            tensor_type: Some(TensorType {
                elem_type: number.code() as i32,
                shape: Some(TensorShape { dim: dim.collect() }),
            }),
        }),
    }
}

/// With ONNX's number for the kind of its value.
fn attribute((name, value): (&str, Attribute)) -> AttributeProto {
    let mut made = AttributeProto {
        name: name.to_owned(),
        ..AttributeProto::default()
    };
    match value {
        Attribute::Float(number) => (made.f, made.kind) = (Some(number), 1),
        Attribute::Int(number) => (made.i, made.kind) = (Some(number), 2),
        Attribute::Word(word) => (made.s, made.kind) = (Some(word.into()), 3),
        Attribute::Ints(numbers) => (made.ints, made.kind) = (numbers, 7),
    }
    made
}
