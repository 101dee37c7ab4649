//! Pickles that Python's own `torch.load` reads.

use super::opcode as op;
use crate::tensor::Dtype;

/// A value to pickle.
#[derive(Clone, Debug, PartialEq)]
pub enum Py {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Py>),
    /// A tuple.
    Tuple(Vec<Py>),
    /// A dictionary.
    Dict(Vec<(Py, Py)>),
    /// An empty `set`.
    EmptySet,
    /// An empty `collections.OrderedDict`.
    EmptyOrderedDict,
    /// An object whose attributes are set without its constructor.
    Object {
        /// The Python module of its class.
        module: String,
        /// The name of its class.
        class: String,
        /// Names and values of its attributes.
        attributes: Vec<(String, Py)>,
    },
    /// A tensor whose numbers are in the container's part `data/KEY`, row by row.
    Tensor {
        /// The name of the part.
        key: String,
        /// What its numbers are.
        dtype: Dtype,
        /// Its sides.
        shape: Vec<i64>,
        /// Whether it is a parameter, which collects gradients.
        parameter: bool,
    },
}

impl From<&str> for Py {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// The bytes of the pickle of `value`, protocol 2.
pub fn write(value: &Py) -> Vec<u8> {
    let mut bytes = vec![op::PROTO, 2];
    put(value, &mut bytes);
    bytes.push(op::STOP);
    bytes
}

fn put(value: &Py, bytes: &mut Vec<u8>) {
    match value {
        Py::None => bytes.push(op::NONE),
        Py::Bool(true) => bytes.push(op::NEWTRUE),
        Py::Bool(false) => bytes.push(op::NEWFALSE),
        Py::Int(number) => int(*number, bytes),
        Py::Float(number) => {
            bytes.push(op::BINFLOAT);
            bytes.extend(number.to_be_bytes());
        }
        Py::Text(written) => text(written, bytes),
        Py::List(elements) => {
            bytes.push(op::EMPTY_LIST);
            bytes.push(op::MARK);
            put_all(elements, bytes);
            bytes.push(op::APPENDS);
        }
        Py::Tuple(elements) => {
            bytes.push(op::MARK);
            put_all(elements, bytes);
            bytes.push(op::TUPLE);
        }
        Py::Dict(pairs) => {
            bytes.push(op::EMPTY_DICT);
            bytes.push(op::MARK);
            for (key, value) in pairs {
                put(key, bytes);
                put(value, bytes);
            }
            bytes.push(op::SETITEMS);
        }
        Py::EmptySet => {
            global("__builtin__", "set", bytes);
            bytes.extend([op::EMPTY_LIST, op::TUPLE1, op::REDUCE]);
        }
        Py::EmptyOrderedDict => ordered_dict(bytes),
        Py::Object {
            module,
            class,
            attributes,
        } => {
            global(module, class, bytes);
            bytes.extend([op::EMPTY_TUPLE, op::NEWOBJ, op::EMPTY_DICT, op::MARK]);
            for (name, value) in attributes {
                text(name, bytes);
                put(value, bytes);
            }
            bytes.extend([op::SETITEMS, op::BUILD]);
        }
        Py::Tensor {
            key,
            dtype,
            shape,
            parameter,
        } => {
            if *parameter {
                global("torch._utils", "_rebuild_parameter", bytes);
                bytes.push(op::MARK);
            }
            tensor(key, *dtype, shape, bytes);
            if *parameter {
                bytes.push(op::NEWTRUE);
                ordered_dict(bytes);
                bytes.extend([op::TUPLE, op::REDUCE]);
            }
        }
    }
}

fn put_all(values: &[Py], bytes: &mut Vec<u8>) {
    for value in values {
        put(value, bytes);
    }
}

fn int(number: i64, bytes: &mut Vec<u8>) {
    if let Ok(small) = i32::try_from(number) {
        bytes.push(op::BININT);
        bytes.extend(small.to_le_bytes());
    } else {
        bytes.extend([op::LONG1, 8]);
        bytes.extend(number.to_le_bytes());
    }
}

fn text(text: &str, bytes: &mut Vec<u8>) {
    bytes.push(op::BINUNICODE);
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend(text.as_bytes());
}

fn global(module: &str, name: &str, bytes: &mut Vec<u8>) {
    bytes.push(op::GLOBAL);
    bytes.extend(format!("{module}\n{name}\n").as_bytes());
}

fn ordered_dict(bytes: &mut Vec<u8>) {
    global("collections", "OrderedDict", bytes);
    bytes.extend([op::EMPTY_TUPLE, op::REDUCE]);
}

/// As PyTorch writes it: storage, first number, sides, steps, no gradient, no hooks.
fn tensor(key: &str, dtype: Dtype, shape: &[i64], bytes: &mut Vec<u8>) {
    global("torch._utils", "_rebuild_tensor_v2", bytes);
    bytes.push(op::MARK);
    bytes.push(op::MARK);
    text("storage", bytes);
    global("torch", dtype.storage_class(), bytes);
    text(key, bytes);
    text("cpu", bytes);
    int(shape.iter().product(), bytes);
    bytes.extend([op::TUPLE, op::BINPERSID]);
    int(0, bytes);
    let mut step = 1;
    let mut steps: Vec<i64> = Vec::new();
    for side in shape.iter().rev() {
        steps.insert(0, step);
        step *= side;
    }
    for numbers in [shape, &steps] {
        bytes.push(op::MARK);
        for number in numbers {
            int(*number, bytes);
        }
        bytes.push(op::TUPLE);
    }
    bytes.push(op::NEWFALSE);
    ordered_dict(bytes);
    bytes.extend([op::TUPLE, op::REDUCE]);
}
