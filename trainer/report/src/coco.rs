//! COCO's definition of average precision and recall, and its file of results.

use std::path::Path;

use hotcoco::params::IouType;
use hotcoco::types::{Annotation, Category, Dataset, Image};
use hotcoco::{COCO, COCOeval};
use serde::Serialize;
use serde_json::{Value, json};
use trainer_core::boxes::Xyxy;
use trainer_core::detection::Detection;

use crate::ImageResult;

/// Why COCO's numbers differ from `YOLOv5`'s on the same detections.
pub const WHY_THEY_DIFFER: &str = "COCO matches in the order of confidence, lets a detection fall back on another label of its class, \
takes at most 100 detections of an image, and averages precision over 101 recalls without interpolating between them; \
YOLOv5 matches each detection with the label it overlaps most, takes up to 300, and integrates the interpolated curve.";

/// COCO's summary. A number is absent where no label counts for it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CocoSummary {
    /// Average precision over `IoU` 0.50 to 0.95.
    #[serde(rename = "AP")]
    pub ap: Option<f64>,
    /// At `IoU` 0.50.
    #[serde(rename = "AP50")]
    pub ap50: Option<f64>,
    /// At `IoU` 0.75.
    #[serde(rename = "AP75")]
    pub ap75: Option<f64>,
    /// Of labels below 32² pixels.
    #[serde(rename = "APsmall")]
    pub ap_small: Option<f64>,
    /// Of labels from 32² to 96² pixels.
    #[serde(rename = "APmedium")]
    pub ap_medium: Option<f64>,
    /// Of labels above 96² pixels.
    #[serde(rename = "APlarge")]
    pub ap_large: Option<f64>,
    /// Average recall over `IoU` 0.50 to 0.95 with one detection an image.
    #[serde(rename = "AR1")]
    pub ar1: Option<f64>,
    /// With ten.
    #[serde(rename = "AR10")]
    pub ar10: Option<f64>,
    /// With a hundred.
    #[serde(rename = "AR100")]
    pub ar100: Option<f64>,
    /// Of labels below 32² pixels.
    #[serde(rename = "ARsmall")]
    pub ar_small: Option<f64>,
    /// Of labels from 32² to 96² pixels.
    #[serde(rename = "ARmedium")]
    pub ar_medium: Option<f64>,
    /// Of labels above 96² pixels.
    #[serde(rename = "ARlarge")]
    pub ar_large: Option<f64>,
}

/// COCO's numbers could not be computed.
#[derive(Debug, thiserror::Error)]
#[error("COCO's numbers cannot be computed")]
pub struct CocoError(#[source] hotcoco::error::Error);

/// COCO's summary of `images`, whose classes are called `names`. Sizes are those of the labels' boxes, since YOLO
/// labels have no masks.
pub fn summarise(images: &[ImageResult], names: &[String]) -> Result<CocoSummary, CocoError> {
    let categories = names.iter().zip(0..).map(|(name, id)| Category {
        id,
        name: name.clone(),
        ..Category::default()
    });
    // COCO's own program takes the label 0 for none, so everything is counted from 1.
    let mut truth = Dataset {
        categories: categories.collect(),
        ..Dataset::default()
    };
    let mut found = Vec::new();
    for (image, id) in images.iter().zip(1..) {
        truth.images.push(Image {
            id,
            file_name: image.name.clone(),
            width: image.size.0,
            height: image.size.1,
            ..Image::default()
        });
        for label in &image.labels {
            let area = label.xyxy.area();
            truth.annotations.push(Annotation {
                id: truth.annotations.len() as u64 + 1,
                area: Some(area.into()),
                ..annotation(id, label.class, label.xyxy)
            });
        }
        found.extend(image.detections.iter().map(|detection| Annotation {
            score: Some(detection.conf.into()),
            ..annotation(id, detection.class, detection.xyxy)
        }));
    }
    let truth = COCO::from_dataset(truth);
    let found = truth.load_res_anns(found).map_err(CocoError)?;
    let mut evaluation = COCOeval::new(truth, found, IouType::Bbox);
    evaluation.evaluate().map_err(CocoError)?;
    evaluation.accumulate();
    evaluation.summarize_lines();
    let stats = evaluation.stats().unwrap_or_default();
    let at = |k: usize| stats.get(k).copied().filter(|value| *value >= 0.0);
    Ok(CocoSummary {
        ap: at(0),
        ap50: at(1),
        ap75: at(2),
        ap_small: at(3),
        ap_medium: at(4),
        ap_large: at(5),
        ar1: at(6),
        ar10: at(7),
        ar100: at(8),
        ar_small: at(9),
        ar_medium: at(10),
        ar_large: at(11),
    })
}

fn annotation(image_id: u64, class: u16, xyxy: Xyxy) -> Annotation {
    Annotation {
        image_id,
        category_id: class.into(),
        bbox: Some(corner_and_size(xyxy)),
        ..Annotation::default()
    }
}

fn corner_and_size(xyxy: Xyxy) -> [f64; 4] {
    let [x1, y1, x2, y2] = [xyxy.x1, xyxy.y1, xyxy.x2, xyxy.y2].map(f64::from);
    [x1, y1, x2 - x1, y2 - y1]
}

/// The detections of an image in the form of COCO's results file, with boxes to a thousandth of a pixel. The image is
/// `id`, and a class the one of `categories`, where an annotation file gives them such numbers. Else as `YOLOv5` writes
/// it: the image by the number that its file `name` is called, or by the file's name without its ending; classes from 0.
pub fn results<'a>(
    name: &str,
    id: Option<u64>,
    categories: &'a [u64],
    detections: &'a [Detection],
) -> impl Iterator<Item = Value> + 'a {
    let stem = Path::new(name).file_stem().unwrap_or_default();
    let stem = stem.to_string_lossy();
    let image_id = match id.or_else(|| stem.parse().ok()) {
        Some(number) => json!(number),
        None => json!(stem),
    };
    detections.iter().map(move |detection| {
        let category = categories.get(usize::from(detection.class)).copied();
        json!({
            "image_id": image_id,
            "category_id": category.unwrap_or_else(|| detection.class.into()),
            "bbox": corner_and_size(detection.xyxy).map(|value| rounded(value, 1e3)),
            "score": rounded(detection.conf.into(), 1e5),
        })
    })
}

fn rounded(value: f64, steps: f64) -> f64 {
    (value * steps).round() / steps
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use trainer_core::detection::LabelledBox;

    use super::*;

    #[derive(Deserialize)]
    struct Fixture {
        images: Vec<Scene>,
        stats: Vec<f64>,
    }

    #[derive(Deserialize)]
    struct Scene {
        size: (u32, u32),
        labels: Vec<[f32; 5]>,
        detections: Vec<[f32; 6]>,
    }

    fn names() -> Vec<String> {
        ["a", "b", "c", "d"].map(str::to_owned).to_vec()
    }

    fn read(scene: &Scene) -> ImageResult {
        let labels = scene.labels.iter().map(|l| LabelledBox {
            xyxy: Xyxy::new(l[1], l[2], l[3], l[4]),
            class: l[0] as u16,
        });
        let detections = scene.detections.iter().map(|d| Detection {
            xyxy: Xyxy::new(d[0], d[1], d[2], d[3]),
            conf: d[4],
            class: d[5] as u16,
        });
        ImageResult {
            name: String::new(),
            id: None,
            size: scene.size,
            labels: labels.collect(),
            detections: detections.collect(),
        }
    }

    #[test]
    fn the_numbers_are_those_of_pycocotools() {
        let text = include_str!("../testdata/coco.json");
        let fixture: Fixture = serde_json::from_str(text).unwrap();
        let images: Vec<_> = fixture.images.iter().map(read).collect();
        let summary = summarise(&images, &names()).unwrap();
        let got = serde_json::to_value(summary).unwrap();
        let keys = [
            "AP", "AP50", "AP75", "APsmall", "APmedium", "APlarge", "AR1", "AR10", "AR100",
            "ARsmall", "ARmedium", "ARlarge",
        ];
        assert_eq!(keys.len(), fixture.stats.len());
        for (key, want) in keys.iter().zip(&fixture.stats) {
            let got = got[key].as_f64().unwrap();
            assert!((got - want).abs() < 1e-9, "{key}: {got} is not {want}");
        }
    }

    #[test]
    fn without_labels_or_detections_nothing_is_known_or_found() {
        let mut image = ImageResult {
            name: "a.jpg".to_owned(),
            id: None,
            size: (100, 100),
            detections: Vec::new(),
            labels: Vec::new(),
        };
        assert_eq!(
            None,
            summarise(std::slice::from_ref(&image), &names())
                .unwrap()
                .ap
        );
        image.labels.push(LabelledBox {
            xyxy: Xyxy::new(0., 0., 50., 50.),
            class: 1,
        });
        let summary = summarise(&[image], &names()).unwrap();
        assert_eq!((Some(0.0), None), (summary.ap, summary.ap_small));
    }

    #[test]
    fn results_name_images_as_yolov5_does() {
        let detections = [Detection {
            xyxy: Xyxy::new(1.0, 2.0, 11.000_6, 4.0),
            conf: 0.123_456_7,
            class: 3,
        }];
        let one = |name| results(name, None, &[], &detections).next().unwrap();
        assert_eq!(
            json!({"image_id": 42, "category_id": 3, "bbox": [1.0, 2.0, 10.001, 2.0], "score": 0.12346}),
            one("images/000042.jpg")
        );
        assert_eq!(json!("street"), one("street.png")["image_id"]);
    }

    #[test]
    fn results_have_the_numbers_of_the_annotation_file() {
        let detections = [Detection {
            xyxy: Xyxy::new(1.0, 2.0, 11.0, 4.0),
            conf: 0.5,
            class: 1,
        }];
        let row = results("images/000042.jpg", Some(7), &[3, 18], &detections).next();
        let row = row.unwrap();
        assert_eq!(
            (&json!(7), &json!(18)),
            (&row["image_id"], &row["category_id"])
        );
    }
}
