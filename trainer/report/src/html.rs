//! A run in one page that needs no other file.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use trainer_core::average_precision::Evaluation;

use crate::results::Results;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:1100px;margin:2em auto;padding:0 1em}\
table{border-collapse:collapse;margin:.5em 0}td,th{padding:.15em .8em;border-bottom:1px solid #ddd;text-align:right}\
td:first-child,th:first-child{text-align:left}img{max-width:100%;border:1px solid #ddd}pre{background:#f6f6f6;padding:1em;overflow:auto}\
figure{margin:1.5em 0}figcaption{color:#555}";

/// A picture with what to say about it.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What it shows.
    pub caption: String,
    /// `image/png` or `image/jpeg`.
    pub kind: &'static str,
    /// The file's bytes.
    pub bytes: Vec<u8>,
}

/// What the page tells.
#[derive(Debug)]
pub struct Page<'a> {
    /// The run's name.
    pub title: &'a str,
    /// In a sentence each: how it ended, how losses moved.
    pub summary: Vec<String>,
    /// Model, machine, times: names and values.
    pub facts: Vec<(&'static str, String)>,
    /// All settings, as text.
    pub settings: &'a str,
    /// The epochs.
    pub results: &'a Results,
    /// Of which epoch, from 1, and what an evaluation gave.
    pub evaluation: Option<(u32, &'a Evaluation)>,
    /// Class names.
    pub names: &'a [String],
    /// Pictures, in order.
    pub figures: Vec<Figure>,
}

/// The page as HTML.
pub fn page(page: &Page<'_>) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { (page.title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (page.title) }
                @for sentence in &page.summary { p { (sentence) } }
                table {
                    @for (name, value) in &page.facts { tr { td { (name) } td { (value) } } }
                }
                @if let Some((epoch, evaluation)) = page.evaluation {
                    h2 { "Evaluation of epoch " (epoch) }
                    (classes(evaluation, page.names))
                }
                @for figure in &page.figures {
                    figure {
                        img alt=(figure.caption) src={ "data:" (figure.kind) ";base64," (STANDARD.encode(&figure.bytes)) };
                        figcaption { (figure.caption) }
                    }
                }
                details { summary { "All epochs" } (epochs(page.results)) }
                details { summary { "Settings" } pre { (page.settings) } }
            }
        }
    }
    .into_string()
}

fn classes(evaluation: &Evaluation, names: &[String]) -> Markup {
    let name = |class: u16| names.get(usize::from(class)).map_or("", String::as_str);
    let numbers =
        |values: [f64; 4]| html! { @for value in values { td { (format!("{value:.4}")) } } };
    let labels: u64 = evaluation.classes.iter().map(|class| class.labels).sum();
    html! {
        table {
            tr { th { "class" } th { "images" } th { "labels" } th { "P" } th { "R" } th { "mAP50" } th { "mAP50-95" } }
            tr {
                td { "all" } td {} td { (labels) }
                (numbers([evaluation.precision, evaluation.recall, evaluation.map50, evaluation.map50_95]))
            }
            @for class in &evaluation.classes {
                tr {
                    td { (name(class.class)) } td { (class.images) } td { (class.labels) }
                    (numbers([class.precision, class.recall, class.ap50(), class.ap50_95()]))
                }
            }
        }
    }
}

fn epochs(results: &Results) -> Markup {
    html! {
        table {
            tr { @for column in results.columns() { th { (column) } } }
            @for row in results.rows() { tr { @for value in row { td { (value) } } } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_holds_everything_and_nothing_in_it_is_taken_for_html() {
        let results = Results::parse("epoch,train/box_loss\n0,0.5\n");
        let evaluation = Evaluation {
            map50: 0.25,
            ..Evaluation::default()
        };
        let text = page(&Page {
            title: "<run>",
            summary: vec!["It ended.".to_owned()],
            facts: vec![("machine", "2 x 4".to_owned())],
            settings: "epochs: 3",
            results: &results,
            evaluation: Some((3, &evaluation)),
            names: &[],
            figures: vec![Figure {
                caption: "A \"picture\"".to_owned(),
                kind: "image/png",
                bytes: b"png".to_vec(),
            }],
        });
        for part in [
            "&lt;run&gt;",
            "It ended.",
            "2 x 4",
            "epochs: 3",
            "train/box_loss",
            "epoch 3",
            "0.2500",
            "A &quot;picture&quot;",
            "data:image/png;base64,cG5n",
        ] {
            assert!(text.contains(part), "no {part} in {text}");
        }
        assert!(!text.contains("http"), "nothing is loaded from elsewhere");
    }
}
