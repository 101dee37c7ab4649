//! The generated files are those that the types give; `UPDATE=1 cargo test -p crds` writes them anew.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("crds is a folder of the repository")
        .to_owned()
}

#[track_caller]
fn up_to_date(path: &str, expected: &str) {
    let file = root().join(path);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(file.parent().expect("a file is in a folder")).expect("folder");
        std::fs::write(&file, expected).expect("writable checkout");
        return;
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        found == expected,
        "{path} is stale: run `UPDATE=1 cargo test -p crds` and commit the result"
    );
}

#[test]
fn yaml_of_every_definition() {
    for crd in crds::all() {
        let name = &crd.spec.names.plural;
        let yaml = format!(
            "# Generated from crds/src; `UPDATE=1 cargo test -p crds` refreshes it.\n{}",
            serde_saphyr::to_string(&crd).expect("a definition is plain data")
        );
        up_to_date(&format!("crds/yaml/{name}.yaml"), &yaml);
        up_to_date(
            &format!("charts/yolo-operator/files/crds/{name}.yaml"),
            &yaml,
        );
        let again: k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition =
            serde_saphyr::from_str(&yaml).expect("the YAML reads back");
        assert_eq!(crd, again);
    }
}

#[test]
fn field_reference() {
    up_to_date("docs/api.md", &crds::reference::markdown(&crds::all()));
}

#[test]
fn every_reason_is_explained() {
    let text = std::fs::read_to_string(root().join("docs/jobs.md")).expect("readable");
    let of_conditions = crds::conditions::Reason::ALL.iter().map(|r| r.as_str());
    let of_workers = contract::exit::FailureReason::ALL.map(contract::exit::FailureReason::as_str);
    let reasons: Vec<&str> = of_conditions.chain(of_workers).collect();
    for reason in &reasons {
        assert!(
            text.contains(&format!("\n| {reason} |")),
            "docs/jobs.md does not explain {reason}"
        );
    }
    let rows = text.lines().skip_while(|line| *line != "## Reasons");
    let rows = rows.filter(|line| line.starts_with("| ")).count() - 2;
    assert_eq!(
        reasons.len(),
        rows,
        "docs/jobs.md explains what does not exist"
    );
}
