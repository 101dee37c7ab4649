//! Pascal VOC annotations: an XML file for each image.
//!
//! Corners are counted from 1. Like YOLOv5's conversion of the VOC data set, one is taken off each, and
//! objects marked as difficult are left out.

use super::config::inside;
use super::error::DatasetError;
use super::labelling::{Collector, Found, class_of, from_pixels, replace_folder};
use super::listing::EXTENSIONS;
use super::reading;
use roxmltree::{Document, Node};
use std::iter::successors;
use std::path::{Path, PathBuf};

/// Columns of a list that are looked at; VOC's have four at most.
const MOST_COLUMNS: usize = 16;

/// Where the annotations of an image are: the last folder `JPEGImages` or `images` in its path is
/// `Annotations` instead, and the ending is `xml`. Without such a folder they are beside the image.
pub(super) fn label_path(image: &Path) -> PathBuf {
    replace_folder(image, &["JPEGImages", "images"], "Annotations").with_extension("xml")
}

/// The image in `root` that a line of a list `ImageSets/Main/train.txt` names without folder and ending; none if
/// that lies outside of `root`.
///
/// Further columns may say whether the image shows the class of the list, or which of its objects do. Names may hold
/// blanks, too: what there is a file of decides, and of two files of one ending the longer name.
pub(super) fn listed_image(
    root: &Path,
    list: &Path,
    line: &str,
) -> Result<Option<PathBuf>, DatasetError> {
    let sets = list.parent().and_then(Path::parent);
    let base = sets.and_then(Path::parent).unwrap_or(Path::new(""));
    let folder = base.join("JPEGImages");
    let names = || {
        let all = successors(Some(line), |name| Some(without_column(name)?.0));
        all.take(MOST_COLUMNS)
    };
    // VOC's own ending comes first: each name that is tried before the right one costs a look at the volume.
    for ending in ["jpg"].into_iter().chain(EXTENSIONS) {
        for ending in [ending.to_owned(), ending.to_uppercase()] {
            for name in names() {
                let Some(image) = inside(&folder, &format!("{name}.{ending}")) else {
                    return Ok(None);
                };
                let path = root.join(&image);
                let found = reading::look(&path).map_err(DatasetError::read_failed(&path))?;
                if found.is_some_and(|found| found.is_file()) {
                    return Ok(Some(image));
                }
            }
        }
    }
    // There is none; it is missed under its usual name.
    let mut name = line;
    while let Some((shorter, last)) = without_column(name)
        && last.parse::<i64>().is_ok()
    {
        name = shorter;
    }
    Ok(inside(&folder, &format!("{name}.jpg")))
}

/// A line without its last column, and that column.
fn without_column(line: &str) -> Option<(&str, &str)> {
    let (rest, last) = line.rsplit_once(char::is_whitespace)?;
    Some((rest.trim_end(), last))
}

/// Reads the annotations `text` of the file called `file`, of an image of `size` pixels.
pub(super) fn parse(
    file: &str,
    text: &str,
    size: (u32, u32),
    names: &[String],
) -> Result<Found, Vec<String>> {
    let document = Document::parse(text).map_err(|error| {
        let line = error.pos().row;
        vec![format!("{file}:{line}: is not XML: {error}")]
    })?;
    let at = |node: Node, reason: &str| {
        let line = document.text_pos_at(node.range().start).row;
        format!("{file}:{line}: {reason}")
    };
    let root = document.root_element();
    let mut collector = Collector::default();
    let mut problems: Vec<String> = declared_size(root)
        .filter(|(_, declared)| *declared != size)
        .map(|(node, (width, height))| {
            let text = format!(
                "says that the image has {width} x {height} pixels, it has {} x {}",
                size.0, size.1
            );
            at(node, &text)
        })
        .into_iter()
        .collect();
    for object in root.children().filter(|node| node.has_tag_name("object")) {
        if text_of(object, "difficult") == Some("1") {
            collector.found.ignored += 1;
            continue;
        }
        let label = class(object, names).and_then(|class| from_pixels(class, sides(object)?, size));
        match label {
            Ok(label) => collector.add(label),
            Err(reason) => problems.push(at(object, &reason)),
        }
    }
    if problems.is_empty() {
        Ok(collector.found)
    } else {
        Err(problems)
    }
}

fn child<'a>(node: Node<'a, 'a>, name: &str) -> Option<Node<'a, 'a>> {
    node.children().find(|child| child.has_tag_name(name))
}

fn text_of<'a>(node: Node<'a, 'a>, name: &str) -> Option<&'a str> {
    child(node, name)?.text().map(str::trim)
}

/// The size that the file declares; some tools write zeros.
fn declared_size<'a>(root: Node<'a, 'a>) -> Option<(Node<'a, 'a>, (u32, u32))> {
    let size = child(root, "size")?;
    let side = |name| text_of(size, name)?.parse().ok().filter(|side| *side > 0);
    Some((size, (side("width")?, side("height")?)))
}

fn class(object: Node, names: &[String]) -> Result<u16, String> {
    let name = text_of(object, "name").ok_or("the object has no name")?;
    class_of(names, name)
        .ok_or_else(|| format!("the class '{name}' is not among the names of the data file"))
}

fn sides(object: Node) -> Result<[f64; 4], String> {
    let corners = child(object, "bndbox").ok_or("the object has no bndbox")?;
    let mut sides = [0.0; 4];
    for (side, name) in sides.iter_mut().zip(["xmin", "ymin", "xmax", "ymax"]) {
        let text = text_of(corners, name).ok_or_else(|| format!("the bndbox has no {name}"))?;
        let value: f64 = text
            .parse()
            .map_err(|_| format!("{name} is '{text}', not a number"))?;
        *side = value - 1.0;
    }
    Ok(sides)
}
