//! What is generated from the code and checked in: `crds/` and the chart's copy of it.

use std::{fs, path::Path};

use moorage::cli::{
    crds::{CrdFile, CrdsArgs, files, run},
    policies,
};
use rstest::rstest;

#[rstest]
#[case::for_people_and_kustomize("crds", files().unwrap())]
#[case::for_the_chart("charts/moorage/files/crds", files().unwrap())]
#[case::policies_for_kustomize("config/admission", policies::files().unwrap())]
#[case::policies_for_the_chart("charts/moorage/files/policies", policies::files().unwrap())]
fn generated_files_are_up_to_date(#[case] folder: &str, #[case] wanted: Vec<CrdFile>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    for file in &wanted {
        let found = fs::read_to_string(folder.join(&file.name)).unwrap_or_default();
        let same = found == file.text;
        assert!(same, "{}/{} is out of date: run make generate", folder.display(), file.name);
    }
    for entry in fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let known = name == "kustomization.yaml" || wanted.iter().any(|file| file.name == name);
        assert!(known, "{}/{name} belongs to no resource any more: remove it", folder.display());
    }
}

#[test]
fn crds_print_as_one_stream_that_reads_back_as_the_same_documents() {
    let mut stream = Vec::new();
    run(&CrdsArgs::default(), &mut stream).unwrap();
    let stream = String::from_utf8(stream).unwrap();
    let read: Vec<serde_json::Value> = serde_saphyr::from_multiple(&stream).unwrap();
    let wanted = moorage::api::custom_resource_definitions()
        .map(|definition| serde_json::to_value(definition).unwrap());
    assert_eq!(read, wanted);
}

#[test]
fn policies_read_back_as_they_were_meant() {
    let wanted = moorage::admission_policy::policies();
    for (file, (policy, binding)) in policies::files().unwrap().iter().zip(&wanted) {
        let read: Vec<serde_json::Value> = serde_saphyr::from_multiple(&file.text).unwrap();
        let wanted = [serde_json::to_value(policy), serde_json::to_value(binding)];
        assert_eq!(read, wanted.map(Result::unwrap), "{}", file.name);
    }
}

#[test]
fn crds_are_written_into_a_folder_that_is_made_on_the_way() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().join("new/folder");
    run(&CrdsArgs { dir: vec![dir.clone()] }, &mut std::io::sink()).unwrap();
    for file in files().unwrap() {
        assert_eq!(fs::read_to_string(dir.join(&file.name)).unwrap(), file.text);
    }
}

/// Every reason that a condition or an Event can have.
fn reasons() -> Vec<&'static str> {
    let constants = include_str!("../src/api/conditions.rs")
        .lines()
        .filter(|line| line.trim_start().starts_with("pub const") && line.contains(": &str = \""));
    let refusals = include_str!("../src/credentials/refusal.rs");
    let refusals =
        refusals.lines().filter(|line| line.contains("Self::") && line.contains("=> \""));
    constants.chain(refusals).filter_map(|line| line.split('"').nth(1)).collect()
}

#[test]
fn every_reason_is_explained_with_its_remedy() {
    let operations = include_str!("../docs/operations.md");
    assert!(reasons().len() > 50, "the reasons are not found any more: {:?}", reasons());
    let explained = |reason: &&str| operations.contains(&format!("| `{reason}` |"));
    let missing: Vec<_> = reasons().into_iter().filter(|reason| !explained(reason)).collect();
    assert!(missing.is_empty(), "docs/operations.md says nothing about {missing:?}");
}

/// Every Rust source of the repository.
fn sources() -> Vec<String> {
    fn collect(folder: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).expect("the folder can be read") {
            let path = entry.expect("the folder can be read").path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(fs::read_to_string(path).expect("a source is text"));
            }
        }
    }
    let mut found = Vec::new();
    for folder in ["src", "tests", "crates"] {
        collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut found);
    }
    found
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_claim_of_the_security_model_names_its_tests() {
    let text = include_str!("../docs/security.md");
    let sources = sources();
    let exists = |name: &str| sources.iter().any(|source| source.contains(&format!("fn {name}(")));
    let is_test = |name: &str| name.split('_').count() > 3 && name.bytes().all(|b| b != b'/');
    let (mut rows, mut wrong) = (0, Vec::new());
    let tables = text.lines().filter(|line| line.starts_with('|') && !line.starts_with("|---"));
    for row in tables {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let last = cells.last().unwrap();
        if *last == "shown by" {
            continue;
        }
        rows += 1;
        if !quoted(last).any(is_test) {
            wrong.push(format!("{}: names no test", cells[0]));
        }
    }
    let named: Vec<_> = quoted(text).filter(|name| is_test(name)).collect();
    let missing = named.iter().filter(|name| !exists(name));
    wrong.extend(missing.map(|name| format!("there is no test {name}")));
    let is_source = |name: &&str| Path::new(name).extension().is_some_and(|kind| kind == "rs");
    let files = quoted(text).filter(|name| is_source(name) && name.contains('/'));
    let missing = files.filter(|file| !Path::new(env!("CARGO_MANIFEST_DIR")).join(file).exists());
    wrong.extend(missing.map(|file| format!("there is no file {file}")));
    assert!(wrong.is_empty(), "docs/security.md: {wrong:#?}");
    assert!(rows > 15 && named.len() > 30, "the rows are not found any more: {rows} {named:?}");
}
