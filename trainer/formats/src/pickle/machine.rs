//! The stack machine that turns a pickle into values.

use std::collections::HashMap;

use super::opcode as op;
use super::{Id, MAX_VALUES, Object, Pickle, PickleError, Value, is_known};

type Result<T> = std::result::Result<T, PickleError>;

/// Reads the first pickle in `bytes`; returns also how many bytes it has.
pub fn parse(bytes: &[u8]) -> Result<(Pickle, usize)> {
    let mut machine = Machine {
        bytes,
        next: 0,
        at: 0,
        values: Vec::new(),
        references: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    loop {
        machine.at = machine.next;
        let code = machine.byte()?;
        if code == op::STOP {
            let root = machine.pop()?;
            let Machine { values, next, .. } = machine;
            return Ok((Pickle { values, root }, next));
        }
        machine.step(code)?;
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    next: usize,
    /// Where the present instruction began.
    at: usize,
    values: Vec<Value>,
    /// References that sequences and dictionaries hold, and entries of the memo.
    references: usize,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl Machine<'_> {
    fn step(&mut self, code: u8) -> Result<()> {
        match code {
            op::PROTO => drop(self.byte()?),
            op::FRAME => drop(self.take(8)?),
            op::MARK => self.mark()?,
            op::POP => drop(self.pop()?),
            op::POP_MARK => drop(self.pop_mark()?),
            op::DUP => {
                let top = self.pop()?;
                self.push_id(top)?;
                self.push_id(top)?;
            }
            op::NONE => self.push(Value::None)?,
            op::NEWTRUE => self.push(Value::Bool(true))?,
            op::NEWFALSE => self.push(Value::Bool(false))?,
            op::INT
            | op::LONG
            | op::FLOAT
            | op::BININT
            | op::BININT1
            | op::BININT2
            | op::LONG1
            | op::BINFLOAT => {
                let number = self.number(code)?;
                self.push(number)?;
            }
            op::UNICODE
            | op::BINUNICODE
            | op::SHORT_BINUNICODE
            | op::BINUNICODE8
            | op::BINSTRING
            | op::SHORT_BINSTRING => {
                let text = self.text(code)?;
                self.push(Value::Text(text))?;
            }
            op::BINBYTES | op::SHORT_BINBYTES | op::BINBYTES8 => {
                let bytes = self.counted(code)?.to_vec();
                self.push(Value::Bytes(bytes))?;
            }
            op::PUT | op::BINPUT | op::LONG_BINPUT | op::MEMOIZE => self.put(code)?,
            op::GET | op::BINGET | op::LONG_BINGET => self.recall(code)?,
            op::GLOBAL | op::STACK_GLOBAL => self.global(code)?,
            op::BINPERSID => {
                let what = self.pop()?;
                self.push(Value::Persistent(what))?;
            }
            op::REDUCE | op::NEWOBJ => self.call()?,
            op::BUILD => self.build()?,
            _ => self.container(code)?,
        }
        Ok(())
    }

    fn container(&mut self, code: u8) -> Result<()> {
        match code {
            op::EMPTY_LIST | op::EMPTY_TUPLE | op::EMPTY_SET => {
                self.push(Value::Sequence(Vec::new()))?;
            }
            op::EMPTY_DICT => self.push(Value::Dict(Vec::new()))?,
            op::TUPLE | op::LIST | op::FROZENSET => {
                let elements = self.pop_mark()?;
                self.sequence(elements)?;
            }
            op::TUPLE1 | op::TUPLE2 | op::TUPLE3 => {
                let count = usize::from(code - op::TUPLE1) + 1;
                let mut elements = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>>>()?;
                elements.reverse();
                self.sequence(elements)?;
            }
            op::DICT => {
                let flat = self.pop_mark()?;
                self.push(Value::Dict(Vec::new()))?;
                self.set_items(&flat)?;
            }
            op::APPEND => {
                let element = self.pop()?;
                self.append(&[element])?;
            }
            op::APPENDS | op::ADDITEMS => {
                let elements = self.pop_mark()?;
                self.append(&elements)?;
            }
            op::SETITEM => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(&[key, value])?;
            }
            op::SETITEMS => {
                let flat = self.pop_mark()?;
                self.set_items(&flat)?;
            }
            _ => return Err(PickleError::Opcode { at: self.at, code }),
        }
        Ok(())
    }

    fn invalid(&self, problem: &'static str) -> PickleError {
        PickleError::Invalid {
            at: self.at,
            problem,
        }
    }

    fn take(&mut self, count: usize) -> Result<&[u8]> {
        let rest = &self.bytes[self.next..];
        let taken = rest
            .get(..count)
            .ok_or(PickleError::Truncated { at: self.at })?;
        self.next += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let at = self.at;
        self.take(N)?
            .try_into()
            .map_err(|_| PickleError::Truncated { at })
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn line(&mut self) -> Result<&str> {
        let rest = &self.bytes[self.next..];
        let end = rest.iter().position(|byte| *byte == b'\n');
        let end = end.ok_or(PickleError::Truncated { at: self.at })?;
        let start = self.next;
        self.next += end + 1;
        std::str::from_utf8(&self.bytes[start..start + end])
            .map_err(|_| self.invalid("has a text that is not UTF-8"))
    }

    /// The bytes of an instruction that begins with their number.
    fn counted(&mut self, code: u8) -> Result<&[u8]> {
        let count = match code {
            op::SHORT_BINUNICODE | op::SHORT_BINSTRING | op::SHORT_BINBYTES => {
                u64::from(self.byte()?)
            }
            op::BINUNICODE8 | op::BINBYTES8 => u64::from_le_bytes(self.array()?),
            _ => u64::from(u32::from_le_bytes(self.array()?)),
        };
        let count = usize::try_from(count).map_err(|_| PickleError::Truncated { at: self.at })?;
        self.take(count)
    }

    fn text(&mut self, code: u8) -> Result<String> {
        if code == op::UNICODE {
            return Ok(self.line()?.to_owned());
        }
        let at = self.at;
        let bytes = self.counted(code)?.to_vec();
        String::from_utf8(bytes).map_err(|_| PickleError::Invalid {
            at,
            problem: "has a text that is not UTF-8",
        })
    }

    fn number(&mut self, code: u8) -> Result<Value> {
        let wrong = self.invalid("has a number that cannot be read");
        Ok(match code {
            op::BININT => Value::Int(i32::from_le_bytes(self.array()?).into()),
            op::BININT1 => Value::Int(self.byte()?.into()),
            op::BININT2 => Value::Int(u16::from_le_bytes(self.array()?).into()),
            op::BINFLOAT => Value::Float(f64::from_be_bytes(self.array()?)),
            op::LONG1 => {
                let count = self.byte()?.into();
                Value::Int(little_endian(self.take(count)?).ok_or(wrong)?)
            }
            op::FLOAT => Value::Float(self.line()?.parse().map_err(|_| wrong)?),
            // Protocol 0 writes booleans as two digits.
            _ => match self.line()? {
                "00" => Value::Bool(false),
                "01" => Value::Bool(true),
                digits => Value::Int(digits.trim_end_matches('L').parse().map_err(|_| wrong)?),
            },
        })
    }

    fn push(&mut self, value: Value) -> Result<()> {
        if self.values.len() >= MAX_VALUES {
            return Err(PickleError::TooLarge);
        }
        let id = Id(self.values.len() as u32);
        self.values.push(value);
        self.push_id(id)
    }

    fn push_id(&mut self, id: Id) -> Result<()> {
        if self.stack.len() >= MAX_VALUES {
            return Err(PickleError::TooLarge);
        }
        self.stack.push(id);
        Ok(())
    }

    /// Counts references that are about to be kept.
    fn keep(&mut self, references: usize) -> Result<()> {
        self.references += references;
        if self.references > MAX_VALUES {
            return Err(PickleError::TooLarge);
        }
        Ok(())
    }

    fn mark(&mut self) -> Result<()> {
        if self.marks.len() >= MAX_VALUES {
            return Err(PickleError::TooLarge);
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    fn pop(&mut self) -> Result<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(self.invalid("needs a value, but there is none"));
        }
        self.stack
            .pop()
            .ok_or_else(|| self.invalid("needs a value, but there is none"))
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop();
        let mark = mark.ok_or_else(|| self.invalid("needs a mark, but there is none"))?;
        Ok(self.stack.split_off(mark))
    }

    fn top(&self) -> Result<Id> {
        let top = self.stack.last().copied();
        top.ok_or_else(|| self.invalid("needs a value, but there is none"))
    }

    fn value_mut(&mut self, id: Id) -> &mut Value {
        &mut self.values[id.0 as usize]
    }

    fn value(&self, id: Id) -> &Value {
        &self.values[id.0 as usize]
    }

    fn sequence(&mut self, elements: Vec<Id>) -> Result<()> {
        self.keep(elements.len())?;
        self.push(Value::Sequence(elements))
    }

    fn append(&mut self, elements: &[Id]) -> Result<()> {
        self.keep(elements.len())?;
        let top = self.top()?;
        match self.value_mut(top) {
            Value::Sequence(list) => list.extend(elements),
            _ => return Err(self.invalid("appends to what is not a list")),
        }
        Ok(())
    }

    fn set_items(&mut self, flat: &[Id]) -> Result<()> {
        let (pairs, rest) = flat.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(self.invalid("has a key without a value"));
        }
        self.keep(flat.len())?;
        let top = self.top()?;
        match self.value_mut(top) {
            Value::Dict(dict) => dict.extend(pairs.iter().map(|[key, value]| (*key, *value))),
            _ => return Err(self.invalid("sets items of what is not a dictionary")),
        }
        Ok(())
    }

    fn put(&mut self, code: u8) -> Result<()> {
        let key = match code {
            op::MEMOIZE => self.memo.len() as u32,
            _ => self.memo_key(code)?,
        };
        let top = self.top()?;
        self.keep(1)?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, code: u8) -> Result<()> {
        let key = self.memo_key(code)?;
        let found = self.memo.get(&key).copied();
        let id = found.ok_or_else(|| self.invalid("refers to a value that is not there"))?;
        self.push_id(id)
    }

    fn memo_key(&mut self, code: u8) -> Result<u32> {
        Ok(match code {
            op::BINPUT | op::BINGET => self.byte()?.into(),
            op::LONG_BINPUT | op::LONG_BINGET => u32::from_le_bytes(self.array()?),
            _ => {
                let wrong = self.invalid("has a number that cannot be read");
                self.line()?.parse().map_err(|_| wrong)?
            }
        })
    }

    fn global(&mut self, code: u8) -> Result<()> {
        let (module, name) = if code == op::GLOBAL {
            (self.line()?.to_owned(), self.line()?.to_owned())
        } else {
            let (name, module) = (self.pop()?, self.pop()?);
            match (self.value(module), self.value(name)) {
                (Value::Text(module), Value::Text(name)) => (module.clone(), name.clone()),
                _ => return Err(self.invalid("names a class by something other than texts")),
            }
        };
        if !is_known(&module, &name) {
            return Err(PickleError::Forbidden { module, name });
        }
        // The text may be recalled any number of times.
        self.keep((module.len() + name.len()) / 64)?;
        self.push(Value::Global { module, name })
    }

    /// What a class or function would make of its arguments: Python's own containers, else an inert object.
    fn call(&mut self) -> Result<()> {
        let (arguments, class) = (self.pop()?, self.pop()?);
        let Value::Sequence(given) = self.value(arguments) else {
            return Err(self.invalid("gives arguments that are not a tuple"));
        };
        let first = given.first().copied();
        let Value::Global { module, name } = self.value(class) else {
            return Err(self.invalid("calls what is not a class or function"));
        };
        match (module.as_str(), name.as_str()) {
            ("collections", "OrderedDict") | ("builtins" | "__builtin__", "dict") => {
                let pairs = first.map_or(Ok(Vec::new()), |first| self.pairs(first))?;
                self.push(Value::Dict(Vec::new()))?;
                self.set_items(&pairs)
            }
            ("collections", "defaultdict") => self.push(Value::Dict(Vec::new())),
            ("builtins" | "__builtin__", "set" | "frozenset" | "list" | "tuple") => {
                let elements = match first.map(|first| self.value(first)) {
                    None => Vec::new(),
                    Some(Value::Sequence(elements)) => {
                        let elements = elements.clone();
                        self.keep(elements.len())?;
                        elements
                    }
                    Some(_) => return Err(self.invalid("makes a list of what is none")),
                };
                self.push(Value::Sequence(elements))
            }
            _ => {
                let state = None;
                self.push(Value::Object(Object {
                    class,
                    arguments,
                    state,
                }))
            }
        }
    }

    /// Keys and values in turn, from a sequence of pairs.
    fn pairs(&self, id: Id) -> Result<Vec<Id>> {
        let wrong = || self.invalid("makes a dictionary of what is none");
        let Value::Sequence(elements) = self.value(id) else {
            return Err(wrong());
        };
        let mut flat = Vec::new();
        for element in elements {
            match self.value(*element) {
                Value::Sequence(pair) if pair.len() == 2 => flat.extend(pair),
                _ => return Err(wrong()),
            }
        }
        Ok(flat)
    }

    fn build(&mut self) -> Result<()> {
        let state = self.pop()?;
        let top = self.top()?;
        match self.value_mut(top) {
            Value::Object(object) => object.state = Some(state),
            // Attributes of an ordered dictionary, such as a state dict's `_metadata`.
            Value::Dict(_) => {}
            _ => return Err(self.invalid("sets attributes of what has none")),
        }
        Ok(())
    }
}

/// A signed number of at most eight bytes.
fn little_endian(bytes: &[u8]) -> Option<i64> {
    if bytes.len() > 8 {
        return None;
    }
    let negative = bytes.last().is_some_and(|byte| *byte >= 0x80);
    let mut whole = [if negative { 0xff } else { 0 }; 8];
    whole[..bytes.len()].copy_from_slice(bytes);
    Some(i64::from_le_bytes(whole))
}
