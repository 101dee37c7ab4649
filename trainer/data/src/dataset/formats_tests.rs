use super::*;
use crate::testing::{TestSet, chain, noise};

fn message(set: &TestSet) -> String {
    chain(&Dataset::open(set.root(), "data.yaml", Split::Train).unwrap_err())
}

#[track_caller]
fn fails_with(set: &TestSet, parts: &[&str]) {
    let message = message(set);
    for part in parts {
        assert!(message.contains(part), "'{part}' is not in: {message}");
    }
}

fn boxes(image: &ImageRecord) -> Vec<(u16, [f32; 4])> {
    let labels = image.labelled_boxes().into_iter();
    labels
        .map(|label| {
            let b = label.xyxy;
            (label.class, [b.x1, b.y1, b.x2, b.y2].map(f32::round))
        })
        .collect()
}

/// A COCO set of two images, with this as the annotations of the first.
fn coco(annotations: &str) -> TestSet {
    let set = TestSet::new();
    set.image("pictures/b/1.png", &noise(1, (40, 20)));
    set.image("pictures/2.png", &noise(2, (20, 40)));
    set.image("pictures/not-listed.png", &noise(3, (20, 40)));
    set.write(
        "annotations/train.json",
        format!(
            r#"{{"info": {{"year": 2026}}, "images": [
                {{"id": 7, "file_name": "b/1.png", "width": 40, "height": 20}},
                {{"id": 9, "file_name": "2.png"}}],
              "categories": [{{"id": 18, "name": "dog"}}, {{"id": 3, "name": "cat"}}, {{"id": 4, "name": "cow"}}],
              "annotations": [{annotations}]}}"#
        ),
    );
    set.write(
        "data.yaml",
        "train: {annotations: annotations/train.json, images: pictures}\nval: images\nnames: [cat, dog]\n",
    );
    set
}

#[test]
fn coco_annotations_are_found_by_names() {
    let set = coco(
        r#"{"id": 1, "image_id": 7, "category_id": 18, "bbox": [10, 5, 20, 10], "segmentation": [[1, 2, 3]]},
           {"id": 2, "image_id": 7, "category_id": 18, "bbox": [10, 5, 20, 10]},
           {"id": 3, "image_id": 7, "category_id": 3, "bbox": [0, 0, 40.5, 20]},
           {"id": 4, "image_id": 7, "category_id": 3, "bbox": [0, 0, 9, 9], "iscrowd": 1},
           {"id": 5, "image_id": 7, "category_id": 3, "bbox": [5, 5, 0, 9]}"#,
    );
    let data = set.open(Split::Train);
    let names: Vec<_> = data.images().iter().map(|i| i.name.as_str()).collect();
    assert_eq!(names, ["pictures/2.png", "pictures/b/1.png"]);
    assert_eq!(
        boxes(&data.images()[1]),
        [(1, [10., 5., 30., 15.]), (0, [0., 0., 40., 20.])]
    );
    assert_eq!(
        data.summary().to_string(),
        "2 images (1 without labels), 2 objects, 0 images skipped, 1 repeated labels ignored, \
         2 difficult, crowd or empty annotations ignored"
    );
}

#[test]
fn coco_numbers_are_kept_for_results() {
    let mut data = coco(r#"{"id": 1, "image_id": 7, "category_id": 18, "bbox": [10, 5, 20, 10]}"#)
        .open(Split::Train)
        .as_ref()
        .clone();
    let ids: Vec<_> = data.images().iter().map(|image| image.coco_id).collect();
    assert_eq!(ids, [Some(9), Some(7)]);
    assert_eq!(data.category_ids(), [3, 18]);
    data.merge_classes();
    assert!(data.category_ids().is_empty());

    let set = coco("");
    set.write(
        "data.yaml",
        "train: images\nval: {annotations: annotations/train.json, images: pictures}\nnames: [cat, bird, dog]\n",
    );
    // No category is called bird; 20 is the number of none.
    assert_eq!(set.open(Split::Val).category_ids(), [3, 20, 18]);
    let other = voc(&object("dog", 0, ["11", "6", "31", "16"])).open(Split::Train);
    assert!(other.category_ids().is_empty() && other.images()[0].coco_id.is_none());
}

#[test]
fn bad_coco_annotations_are_named() {
    fails_with(
        &coco(
            r#"{"id": 1, "image_id": 7, "category_id": 4, "bbox": [1, 1, 5, 5]},
               {"id": 2, "image_id": 7, "category_id": 5, "bbox": [1, 1, 5, 5]},
               {"id": 3, "image_id": 7, "category_id": 3, "bbox": [30, 1, 15, 5]}"#,
        ),
        &[
            "annotations/train.json: annotation 1 of pictures/b/1.png: the category 'cow' is not among the names",
            "annotation 2 of pictures/b/1.png: its category 5",
            "annotation 3 of pictures/b/1.png: the box from (30, 1) to (45, 6) leaves the image of 40 x 20 pixels",
        ],
    );
    fails_with(
        &coco(r#"{"id": 1, "image_id": 8, "category_id": 3, "bbox": [1, 1, 5, 5]}"#),
        &["contradicts itself: annotation 1 is of image 8"],
    );
    fails_with(
        &coco(r#"{"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 1, 5]}"#),
        &["train.json is not valid", "line 5 column"],
    );
    let set = coco("");
    fails_with(
        &set,
        &["an annotation in annotations/train.json is expected"],
    );
    set.image("pictures/b/1.png", &noise(1, (30, 20)));
    fails_with(
        &set,
        &["says that pictures/b/1.png has 40 x 20 pixels, it has 30 x 20"],
    );
    set.write("annotations/train.json", r#"{"images": [{"id": 1, "file_name": "../../x.png"}], "annotations": [], "categories": []}"#);
    fails_with(
        &set,
        &[
            "the file_name of image 1 in annotations/train.json",
            "outside the data source",
        ],
    );
}

fn voc(objects: &str) -> TestSet {
    let set = TestSet::new();
    set.image("JPEGImages/a.jpg", &noise(1, (40, 20)));
    set.image("JPEGImages/b.jpg", &noise(1, (40, 20)));
    set.write("ImageSets/Main/train.txt", "a\nb  1\n");
    set.write(
        "Annotations/a.xml",
        format!("<annotation>\n<size><width>40</width><height>20</height></size>\n{objects}</annotation>"),
    );
    set.write(
        "data.yaml",
        "train: ImageSets/Main/train.txt\nval: JPEGImages\nnames: [cat, dog]\nlabel_format: voc\n",
    );
    set
}

fn object(name: &str, difficult: u8, sides: [&str; 4]) -> String {
    let [x1, y1, x2, y2] = sides;
    format!(
        "<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>\
         <xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>\n"
    )
}

#[test]
fn voc_annotations_are_counted_from_one() {
    let objects = [
        object("dog", 0, ["11", "6", "31", "16"]),
        object("cat", 1, ["1", "1", "9", "9"]),
        object("cat", 0, ["0", "1", "41", "20"]),
    ];
    let data = voc(&objects.concat()).open(Split::Train);
    assert_eq!(
        boxes(&data.images()[0]),
        [(1, [10., 5., 30., 15.]), (0, [0., 0., 40., 19.])]
    );
    let summary = data.summary();
    assert_eq!(
        (summary.images, summary.background, summary.ignored),
        (2, 1, 1)
    );
}

#[test]
fn voc_lists_find_images_of_every_ending_and_with_blanks() {
    let set = voc(&object("dog", 0, ["11", "6", "31", "16"]));
    for name in ["c.png", "d.JPG", "e.jpg", "f.png", "g.jpg", "g 1.jpg"] {
        set.image(&format!("JPEGImages/{name}"), &noise(1, (40, 20)));
    }
    for name in ["my image.tif", "number 1.bmp"] {
        set.image(&format!("JPEGImages/{name}"), &noise(1, (40, 20)));
    }
    set.write(
        "ImageSets/Main/train.txt",
        "a\nb 1\nc -1\nd\ne  1  1\nf 0 1 0\ng 1\nmy image\nmy image  1  0\nnumber 1\nno such 0 1\nnone\n",
    );
    let data = set.open(Split::Train);
    let names: Vec<_> = data.images().iter().map(|i| i.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "JPEGImages/a.jpg",
            "JPEGImages/b.jpg",
            "JPEGImages/c.png",
            "JPEGImages/d.JPG",
            "JPEGImages/e.jpg",
            "JPEGImages/f.png",
            "JPEGImages/g 1.jpg",
            "JPEGImages/my image.tif",
            "JPEGImages/number 1.bmp"
        ]
    );
    let skipped: Vec<_> = data.skipped().iter().map(|s| s.name.as_str()).collect();
    assert_eq!(skipped, ["JPEGImages/no such.jpg", "JPEGImages/none.jpg"]);
}

#[test]
fn bad_voc_annotations_are_named_with_their_line() {
    let objects = [
        object("cow", 0, ["1", "1", "9", "9"]),
        object("cat", 0, ["1", "one", "9", "9"]),
        object("cat", 0, ["9", "1", "9", "9"]),
        "<object><name>cat</name></object>\n".to_owned(),
    ];
    fails_with(
        &voc(&objects.concat()),
        &[
            "Annotations/a.xml:3: the class 'cow' is not among the names",
            "Annotations/a.xml:4: ymin is 'one', not a number",
            "Annotations/a.xml:5: the box from (8, 0) to (8, 8) has no area",
            "Annotations/a.xml:6: the object has no bndbox",
        ],
    );
    let set = voc("");
    fails_with(&set, &["an annotation file Annotations/a.xml is expected"]);
    set.write("Annotations/a.xml", "<annotation>\n<object>\n</annotation>");
    fails_with(&set, &["Annotations/a.xml:3: is not XML"]);
    set.write(
        "Annotations/a.xml",
        "<a><size><width>30</width><height>20</height></size></a>",
    );
    fails_with(
        &set,
        &["a.xml:1: says that the image has 30 x 20 pixels, it has 40 x 20"],
    );
    // Entities that double with every level are not expanded.
    let doubled = (1..40)
        .map(|k| format!("<!ENTITY e{k} \"&e{};&e{};\">", k - 1, k - 1))
        .collect::<Vec<_>>()
        .concat();
    set.write(
        "Annotations/a.xml",
        format!("<!DOCTYPE a [<!ENTITY e0 \"xxxxxxxxxx\">{doubled}]><a><b>&e39;</b></a>"),
    );
    fails_with(&set, &["is not XML"]);
}

#[test]
fn images_that_claim_to_be_huge_and_huge_label_files_are_refused() {
    let set = TestSet::with_images(1);
    // A BMP header of 54 bytes that claims 60000 x 60000 pixels.
    let mut bomb = vec![0_u8; 54];
    bomb[..2].copy_from_slice(b"BM");
    bomb[10] = 54;
    bomb[14] = 40;
    bomb[18..22].copy_from_slice(&60_000_u32.to_le_bytes());
    bomb[22..26].copy_from_slice(&60_000_u32.to_le_bytes());
    bomb[26] = 1;
    bomb[28] = 24;
    let path = set.write("images/train/bomb.bmp", &bomb);
    let data = set.open(Split::Train);
    let skipped = data.skipped()[0].to_string();
    assert!(skipped.contains("claims 60000 x 60000 pixels"), "{skipped}");
    let error = crate::decode::decode_whole(&path).unwrap_err().to_string();
    assert!(error.contains("claims 60000 x 60000 pixels"), "{error}");
    // Ten gigabytes that take no space.
    let labels = std::fs::File::create(set.root().join("labels/train/000.txt")).unwrap();
    labels.set_len(10 << 30).unwrap();
    fails_with(
        &set,
        &["labels/train/000.txt: cannot be read: it has more than"],
    );
}
