//! The meaning of a data set description (v5's `data.yaml`); reading it is the caller's task.

use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A data set description. Keys that are not listed (`download`, notes) have no meaning here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataYaml {
    /// The folder that the other paths are relative to; none means the description's own folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Training images.
    pub train: PathList,
    /// Validation images.
    pub val: PathList,
    /// Test images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<PathList>,
    /// Class names.
    pub names: Names,
    /// What the label files of folders and lists of images are. Not a key of v5.
    #[serde(default)]
    pub label_format: LabelFormat,
    /// Number of classes; follows from `names` and must agree with it if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nc: Option<u64>,
}

/// Folders, text files that list images, or a COCO annotation file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PathList {
    /// One path.
    One(String),
    /// Several paths.
    Many(Vec<String>),
    /// A COCO annotation file. Not a form of v5.
    Coco(CocoPaths),
}

/// A COCO annotation file and its images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CocoPaths {
    /// The JSON file.
    pub annotations: String,
    /// The folder that its `file_name`s are relative to.
    pub images: String,
}

/// The kind of label file that belongs to one image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LabelFormat {
    /// Text with a row for each object.
    #[default]
    Yolo,
    /// Pascal VOC's XML.
    Voc,
}

/// Class names as written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Names {
    /// The names of the classes 0, 1, ...
    List(Vec<String>),
    /// The name of each class.
    Map(BTreeMap<i64, String>),
}

/// A description that contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum DataYamlError {
    #[error("names is empty: name at least one class, for example names: {{0: car}}")]
    NoNames,
    #[error("names has no class {missing} but has {present}: number the classes 0 to {last} without gaps", last = count.saturating_sub(1))]
    Gap {
        missing: i64,
        present: i64,
        count: usize,
    },
    #[error("names calls both class {first} and class {second} '{name}': give each its own name")]
    SameName {
        first: usize,
        second: usize,
        name: String,
    },
    #[error("nc is {nc} but names has {names} classes: correct one, or leave nc out")]
    Count { nc: u64, names: usize },
    #[error("names has {names} classes, at most {max} are possible", max = u16::MAX)]
    TooMany { names: usize },
    #[error("{field} is empty: give a folder of images or a text file that lists them")]
    NoPaths { field: &'static str },
}

impl DataYaml {
    /// The class names in class order, if the description is consistent.
    pub fn names(&self) -> Result<Vec<String>, DataYamlError> {
        for (field, paths) in [("train", &self.train), ("val", &self.val)] {
            if paths.paths().iter().all(|path| path.trim().is_empty()) {
                return Err(DataYamlError::NoPaths { field });
            }
        }
        let names = self.names.in_order()?;
        if names.is_empty() {
            return Err(DataYamlError::NoNames);
        }
        if names.len() > usize::from(u16::MAX) {
            return Err(DataYamlError::TooMany { names: names.len() });
        }
        if let Some(nc) = self.nc.filter(|nc| *nc != names.len() as u64) {
            return Err(DataYamlError::Count {
                nc,
                names: names.len(),
            });
        }
        let mut seen = BTreeMap::new();
        for (second, name) in names.iter().enumerate() {
            if let Some(first) = seen.insert(name, second) {
                return Err(DataYamlError::SameName {
                    first,
                    second,
                    name: name.clone(),
                });
            }
        }
        Ok(names)
    }
}

impl PathList {
    /// The paths as a list.
    pub fn paths(&self) -> &[String] {
        match self {
            Self::One(path) => std::slice::from_ref(path),
            Self::Many(paths) => paths,
            Self::Coco(paths) => std::slice::from_ref(&paths.images),
        }
    }
}

impl Names {
    fn in_order(&self) -> Result<Vec<String>, DataYamlError> {
        match self {
            Self::List(names) => Ok(names.clone()),
            Self::Map(names) => {
                let count = names.len();
                for (expected, present) in (0..).zip(names.keys().copied()) {
                    if expected != present {
                        return Err(DataYamlError::Gap {
                            missing: expected,
                            present,
                            count,
                        });
                    }
                }
                Ok(names.values().cloned().collect())
            }
        }
    }
}

/// A scalar of YAML or JSON as text: class names may look like numbers, JSON's keys are text.
struct Scalar(String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScalarVisitor;
        impl Visitor<'_> for ScalarVisitor {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a class name or number")
            }
            fn visit_str<E: Error>(self, value: &str) -> Result<Scalar, E> {
                Ok(Scalar(value.to_owned()))
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }
            fn visit_f64<E: Error>(self, value: f64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }
            fn visit_bool<E: Error>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }
        }
        deserializer.deserialize_any(ScalarVisitor)
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NamesVisitor;
        impl<'de> Visitor<'de> for NamesVisitor {
            type Value = Names;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of class names, or a map from class number to name")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some(Scalar(name)) = seq.next_element()? {
                    names.push(name);
                }
                Ok(Names::List(names))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
                let mut names = BTreeMap::new();
                while let Some((Scalar(key), Scalar(name))) = map.next_entry()? {
                    let class: i64 = key.parse().map_err(|_| {
                        A::Error::custom(format!("names: '{key}' is not a class number"))
                    })?;
                    if names.insert(class, name).is_some() {
                        return Err(A::Error::custom(format!(
                            "names: class {class} is named twice"
                        )));
                    }
                }
                Ok(Names::Map(names))
            }
        }
        deserializer.deserialize_any(NamesVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(names: &str, rest: &str) -> DataYaml {
        serde_saphyr::from_str(&format!(
            "train: images/a\nval: [b, c]\nnames: {names}\n{rest}"
        ))
        .unwrap()
    }

    #[test]
    fn lists_and_maps_name_the_classes() {
        let list = parse("[car, 7, yes]", "nc: 3");
        assert_eq!(list.names().unwrap()[..2], ["car", "7"]);
        let map = parse("{1: cat, 0: dog}", "path: /data\ntest: t\ndownload: x");
        assert_eq!(map.names().unwrap(), ["dog", "cat"]);
        assert_eq!(
            (map.train.paths(), map.val.paths().len()),
            (&["images/a".to_owned()][..], 2)
        );
        let json = serde_json::to_string(&map).unwrap();
        assert_eq!(serde_json::from_str::<DataYaml>(&json).unwrap(), map);
    }

    #[test]
    fn contradictions_are_explained() {
        let message = |names, rest| parse(names, rest).names().unwrap_err().to_string();
        assert!(message("[]", "").contains("at least one class"));
        assert!(
            message("{0: a, 2: b}", "").contains("no class 1 but has 2: number the classes 0 to 1")
        );
        assert!(message("{1: a, 2: b}", "").contains("no class 0 but has 1"));
        assert!(message("{-1: a, 0: b}", "").contains("no class 0 but has -1"));
        assert!(message("[a, b]", "nc: 80").contains("nc is 80 but names has 2"));
        assert!(message("[a, b, a]", "").contains("both class 0 and class 2 'a'"));
        let mut empty = parse("[a]", "");
        empty.val = PathList::Many(vec![]);
        assert_eq!(empty.names(), Err(DataYamlError::NoPaths { field: "val" }));
    }

    #[test]
    fn wrong_keys_are_explained() {
        let error = |text: &str| serde_json::from_str::<Names>(text).unwrap_err().to_string();
        assert!(error(r#"{"x": "a"}"#).contains("'x' is not a class number"));
        assert!(error(r#"{"0": "a", "00": "b"}"#).contains("class 0 is named twice"));
    }
}
