//! The model files of the YOLOv5 family.

use contract::spec::ModelSize;

const P5: &str = include_str!("../models/p5.yaml");
const P6: &str = include_str!("../models/p6.yaml");

/// The model file of a member of the family.
pub fn document(size: ModelSize) -> String {
    let (depth, width) = size.multiples();
    let body = if size.levels() == 4 { P6 } else { P5 };
    format!(
        "# {}\ndepth_multiple: {depth}\nwidth_multiple: {width}\n\n{body}",
        size.name()
    )
}
