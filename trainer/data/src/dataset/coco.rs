//! COCO annotations: one JSON file for all images of a split.
//!
//! Boxes are left, top, width and height in pixels. Crowds and boxes without a size are left out, as in
//! the labels that YOLOv5's COCO comes with; outlines are not read. Categories are found by their names,
//! so that their numbers, which have gaps in COCO, do not matter.

use super::config::{Description, inside, outside};
use super::error::DatasetError;
use super::labelling::{Collector, Found, class_of, from_pixels};
use super::{Split, listing};
use crate::bounded;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use trainer_core::data_yaml::CocoPaths;

/// The largest annotation file in bytes; that of COCO's training images has 448 MB.
const MAX_FILE: u64 = 2 << 30;

/// An annotation file that has been understood.
pub(super) struct CocoFile {
    name: String,
    categories: HashMap<u64, String>,
    images: BTreeMap<PathBuf, Annotated>,
}

/// What is known of one image.
struct Annotated {
    id: u64,
    size: Option<(u32, u32)>,
    objects: Vec<Object>,
}

struct Object {
    id: u64,
    class: Result<u16, String>,
    /// Left, top, width, height in pixels.
    bbox: [f64; 4],
    crowd: bool,
}

#[derive(Deserialize)]
struct Json {
    images: Vec<JsonImage>,
    annotations: Vec<JsonAnnotation>,
    categories: Vec<JsonCategory>,
}

#[derive(Deserialize)]
struct JsonImage {
    id: u64,
    file_name: String,
    width: Option<u32>,
    height: Option<u32>,
}

#[derive(Deserialize)]
struct JsonAnnotation {
    #[serde(default)]
    id: u64,
    image_id: u64,
    category_id: u64,
    bbox: [f64; 4],
    #[serde(default)]
    iscrowd: u8,
}

#[derive(Deserialize)]
struct JsonCategory {
    id: u64,
    name: String,
}

impl CocoFile {
    pub(super) fn open(
        root: &Path,
        description: &Description,
        split: Split,
        paths: &CocoPaths,
    ) -> Result<Self, DatasetError> {
        let file = listing::locate(root, &description.base, &paths.annotations, split)?;
        let folder = listing::locate(root, &description.base, &paths.images, split)?;
        let path = root.join(&file);
        let bytes =
            bounded::read(&path, MAX_FILE).map_err(|source| DatasetError::SplitUnreadable {
                split: split.as_str(),
                path: path.clone(),
                source,
            })?;
        let json: Json = serde_json::from_slice(&bytes)
            .map_err(|source| DatasetError::CocoInvalid { path, source })?;
        Self::new(&file, &folder, json, &description.names)
    }

    fn new(file: &Path, folder: &Path, json: Json, names: &[String]) -> Result<Self, DatasetError> {
        let name = file.display().to_string();
        let contradicts = |reason: String| DatasetError::CocoContradicts {
            file: name.clone(),
            reason,
        };
        let categories: HashMap<u64, String> = json
            .categories
            .into_iter()
            .map(|category| (category.id, category.name))
            .collect();
        let mut paths = HashMap::new();
        let mut images = BTreeMap::new();
        for image in json.images {
            let path = inside(folder, &image.file_name).ok_or_else(|| {
                let field = format!("the file_name of image {} in {name}", image.id);
                outside(field, &image.file_name, "the folder of images")
            })?;
            if paths.insert(image.id, path.clone()).is_some() {
                return Err(contradicts(format!("two images have the id {}", image.id)));
            }
            let annotated = Annotated {
                id: image.id,
                size: image.width.zip(image.height),
                objects: Vec::new(),
            };
            if images.insert(path, annotated).is_some() {
                let file = image.file_name;
                return Err(contradicts(format!(
                    "two images have the file_name '{file}'"
                )));
            }
        }
        for annotation in json.annotations {
            let JsonAnnotation { id, image_id, .. } = annotation;
            let image = paths.get(&image_id).and_then(|path| images.get_mut(path));
            let image = image.ok_or_else(|| {
                contradicts(format!(
                    "annotation {id} is of image {image_id}, which it does not list"
                ))
            })?;
            image.objects.push(Object {
                id,
                class: class(annotation.category_id, &categories, names),
                bbox: annotation.bbox,
                crowd: annotation.iscrowd != 0,
            });
        }
        Ok(Self {
            name,
            categories,
            images,
        })
    }

    /// The file's path inside the data source.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The number that it gives this image, which is relative to the root.
    pub(super) fn image_id(&self, image: &Path) -> Option<u64> {
        self.images.get(image).map(|annotated| annotated.id)
    }

    /// The number of the category of each of these classes.
    pub(super) fn category_ids(&self, names: &[String]) -> Vec<u64> {
        // A class without a category must not get the number of another one.
        let last = self.categories.keys().max();
        let unused = last.map_or(0, |last| last.saturating_add(1));
        let of = |(name, class): (&String, u64)| {
            let same = self.categories.iter().filter(|(_, known)| *known == name);
            let first = same.map(|(id, _)| *id).min();
            first.unwrap_or(unused.saturating_add(class))
        };
        names.iter().zip(0..).map(of).collect()
    }

    /// The images that it lists, relative to the root, sorted.
    pub(super) fn images(&self) -> Vec<PathBuf> {
        self.images.keys().cloned().collect()
    }

    /// The labels of an image of `size` pixels.
    pub(super) fn labels(&self, image: &Path, size: (u32, u32)) -> Result<Found, Vec<String>> {
        let mut collector = Collector::default();
        let Some(annotated) = self.images.get(image) else {
            return Ok(collector.found);
        };
        let mut problems = Vec::new();
        if let Some((width, height)) = annotated.size.filter(|declared| *declared != size) {
            problems.push(format!(
                "{}: says that {} has {width} x {height} pixels, it has {} x {}",
                self.name,
                image.display(),
                size.0,
                size.1
            ));
        }
        for object in &annotated.objects {
            let [left, top, width, height] = object.bbox;
            if object.crowd || width <= 0.0 || height <= 0.0 {
                collector.found.ignored += 1;
                continue;
            }
            let sides = [left, top, left + width, top + height];
            let label = object
                .class
                .clone()
                .and_then(|class| from_pixels(class, sides, size));
            match label {
                Ok(label) => collector.add(label),
                Err(reason) => problems.push(format!(
                    "{}: annotation {} of {}: {reason}",
                    self.name,
                    object.id,
                    image.display()
                )),
            }
        }
        if problems.is_empty() {
            Ok(collector.found)
        } else {
            Err(problems)
        }
    }
}

fn class(id: u64, categories: &HashMap<u64, String>, names: &[String]) -> Result<u16, String> {
    let name = categories
        .get(&id)
        .ok_or_else(|| format!("its category {id} is not among the categories"))?;
    class_of(names, name)
        .ok_or_else(|| format!("the category '{name}' is not among the names of the data file"))
}
