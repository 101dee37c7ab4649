//! Every picture can be drawn, also of little. With `SHOW=DIR` they are left there, for people.

use trainer_core::average_precision::with_curves;
use trainer_core::boxes::{Xywh, Xyxy};
use trainer_core::confusion::ConfusionMatrix;
use trainer_core::detection::{Detection, LabelledBox};
use trainer_core::image_stats::ImageStats;
use trainer_report::RgbImage;
use trainer_report::confusion::confusion_matrix;
use trainer_report::curves::curves;
use trainer_report::labels::label_distribution;
use trainer_report::results::Results;

fn names(count: usize) -> Vec<String> {
    (0..count).map(|k| format!("class {k}")).collect()
}

/// Made-up numbers in 0..1 that look random.
fn made_up(k: u32) -> f32 {
    (k.wrapping_mul(2_654_435_761) >> 8) as f32 / 16_777_216.0
}

/// Three labels of each class, of which two are found, one of those badly.
fn images(classes: u16) -> Vec<(Vec<Detection>, Vec<LabelledBox>)> {
    let image = |k: u16| {
        let place = |n: u32| {
            let (x, y) = (
                made_up(u32::from(k) * 7 + n) * 400.0,
                made_up(u32::from(k) * 13 + n) * 400.0,
            );
            Xyxy::new(x, y, x + 60.0, y + 40.0)
        };
        let labels: Vec<_> = (0..3)
            .map(|n| LabelledBox {
                xyxy: place(n),
                class: k,
            })
            .collect();
        let found = |n: u32, shift: f32, class: u16| Detection {
            xyxy: place(n).translate(shift, 0.0),
            conf: 0.3 + 0.7 * made_up(u32::from(k) + n),
            class,
        };
        let detections = vec![
            found(0, 2.0, k),
            found(1, 12.0, (k + k % 2) % classes),
            found(2, 300.0, k),
        ];
        (detections, labels)
    };
    (0..classes).map(image).collect()
}

#[track_caller]
fn check(name: &str, picture: &RgbImage) {
    let inked = picture.pixels().filter(|pixel| pixel.0 != [255; 3]).count();
    assert!(inked > 2000, "{name} is empty");
    if let Some(folder) = std::env::var_os("SHOW") {
        picture
            .save(std::path::Path::new(&folder).join(name))
            .expect("saved");
    }
}

#[test]
fn evaluations_of_few_and_many_classes_are_drawn() {
    for classes in [1, 10, 80] {
        let names = names(usize::from(classes));
        let mut matrix = ConfusionMatrix::new(classes);
        let mut stats = Vec::new();
        for (index, (detections, labels)) in (0..).zip(images(classes)) {
            matrix.add(&detections, &labels);
            stats.push(ImageStats::new(index, &detections, &labels));
        }
        let (evaluation, all) = with_curves(&stats);
        let drawn = curves(&evaluation, &all, &names).expect("drawn");
        assert_eq!(
            ["PR_curve.png", "F1_curve.png", "P_curve.png", "R_curve.png"],
            [drawn[0].0, drawn[1].0, drawn[2].0, drawn[3].0]
        );
        for (name, picture) in drawn {
            check(&format!("{classes}-{name}"), &picture);
        }
        check(
            &format!("{classes}-confusion_matrix.png"),
            &confusion_matrix(&matrix, &names).expect("drawn"),
        );
        let labels: Vec<_> = (0..900)
            .map(|k| {
                let (w, h) = (0.05 + 0.3 * made_up(k), 0.05 + 0.5 * made_up(k + 1).powi(2));
                let class = (made_up(k + 2).powi(2) * f32::from(classes)) as u16;
                (
                    class,
                    Xywh::new(0.2 + 0.6 * made_up(k + 3), 0.3 + 0.4 * made_up(k + 4), w, h),
                )
            })
            .collect();
        check(
            &format!("{classes}-labels.png"),
            &label_distribution(&labels, &names).expect("drawn"),
        );
    }
}

#[test]
fn nothing_at_all_is_drawn_too() {
    let (evaluation, all) = with_curves(&[]);
    assert_eq!(4, curves(&evaluation, &all, &[]).expect("drawn").len());
    confusion_matrix(&ConfusionMatrix::new(0), &[]).expect("drawn");
    label_distribution(&[], &[]).expect("drawn");
    Results::default().picture().expect("drawn");
}

#[test]
fn results_are_drawn() {
    let header = "epoch,train/box_loss,train/obj_loss,train/cls_loss,metrics/precision,metrics/recall,\
        metrics/mAP_0.5,metrics/mAP_0.5:0.95,val/box_loss,val/obj_loss,val/cls_loss,x/lr0,x/lr1,x/lr2";
    let row = |epoch: u32| {
        let fall = 0.1 / f64::from(epoch + 1);
        let rise = 1.0 - 1.0 / f64::from(epoch + 1);
        format!(
            "{epoch},{fall},{fall},{fall},{rise},{rise},{rise},{rise},{fall},{fall},{fall},0.1,0.1,0.1"
        )
    };
    let rows: Vec<String> = (0..30).map(row).collect();
    let results = Results::parse(&format!("{header}\n{}\n", rows.join("\n")));
    assert_eq!(30, results.rows().len());
    check("results.png", &results.picture().expect("drawn"));
}
