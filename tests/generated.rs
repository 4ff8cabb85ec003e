//! What is generated from the code and checked in: `crds/`, the policies, and the table of reasons. And what
//! pages and comments say of the code.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use moorage::{
    api::conditions::Reason,
    cli::{
        crds::{CrdFile, CrdsArgs, files, run},
        policies, reasons,
    },
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
fn crds_print_as_one_stream_that_reads_back() {
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

#[test]
fn the_table_of_reasons_is_up_to_date() {
    let operations = include_str!("../docs/operations.md");
    let (_, rest) = operations.split_once("<!-- reasons: begin").unwrap();
    let (_, rest) = rest.split_once("-->\n").unwrap();
    let (found, _) = rest.split_once("<!-- reasons: end").unwrap();
    assert!(found == reasons::table(), "docs/operations.md is out of date: run make generate");
}

#[test]
fn the_page_on_the_architecture_names_only_what_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/architecture.md")).unwrap();
    let quoted = page.split('`').skip(1).step_by(2);
    let folders = ["src/", "crates/", "tests/", "docs/"];
    let paths: Vec<_> =
        quoted.filter(|name| folders.iter().any(|folder| name.starts_with(folder))).collect();
    assert!(paths.len() > 20, "{paths:?}");
    for path in paths {
        assert!(root.join(path).exists(), "docs/architecture.md names {path}, which is not there");
    }
}

#[test]
fn every_reason_is_used_and_ends_in_a_remedy() {
    let is_test = |path: &Path| path.ends_with("tests.rs") || path.iter().any(|dir| dir == "tests");
    let sources = sources("src").into_iter().filter(|(path, _)| !is_test(path));
    let used: String = sources
        .map(|(_, source)| {
            source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned()
        })
        .collect();
    for reason in Reason::ALL {
        // Its own definition does not name it like this.
        let name = format!("Reason::{reason}");
        let is_used = used.match_indices(&name).any(|(at, _)| {
            !used[at + name.len()..].starts_with(|next: char| next.is_ascii_alphanumeric())
        });
        assert!(is_used, "{reason} is never said: remove it from src/api/reason.rs");
        assert!(reason.remedy().ends_with('.'), "{reason}: {}", reason.remedy());
        assert!(reason.meaning().ends_with('.'), "{reason}: {}", reason.meaning());
        assert!(!reason.meaning().contains('|') && !reason.remedy().contains('|'), "{reason}");
    }
}

/// Every Rust source below a folder of the repository.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    fn collect(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(folder).expect("the folder can be read") {
            let path = entry.expect("the folder can be read").path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source is text");
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut found);
    found
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_claim_of_the_security_model_names_its_tests() {
    let text = include_str!("../docs/security.md");
    let sources = ["src", "tests", "crates"].map(sources).concat();
    let exists =
        |name: &str| sources.iter().any(|(_, source)| source.contains(&format!("fn {name}(")));
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

/// The words that say something: of a comment, or of a name in any case.
fn words(text: &str) -> BTreeSet<String> {
    const FILLERS: &str = " a an the of its it is this that which what who why not how where when one some all any \
        in for to and was be by see wrong ";
    let mut spaced = String::new();
    for letter in text.replace("'s ", " ").chars() {
        if letter.is_uppercase() && !spaced.ends_with(char::is_uppercase) {
            spaced.push(' ');
        }
        spaced.push(letter);
    }
    let words = spaced.split(|c: char| !c.is_ascii_alphanumeric()).map(str::to_lowercase);
    let words = words.filter(|word| !FILLERS.contains(&format!(" {word} ")));
    words.map(|word| word.trim_end_matches('s').to_owned()).collect()
}

/// The name in the first line of an item, a field or a variant.
fn name_of(item: &str) -> &str {
    const BEFORE: [&str; 11] =
        ["pub", "crate", "super", "async", "const", "fn", "struct", "enum", "trait", "type", "r"];
    let mut names = item.split(|c: char| !c.is_alphanumeric() && c != '_');
    names.find(|name| !name.is_empty() && !BEFORE.contains(name)).unwrap_or_default()
}

#[test]
fn no_comment_repeats_the_name_of_its_item() {
    let sources = ["src", "crates"].map(sources).concat();
    // Comments of reasons are what the documentation says of them.
    let judged = sources.iter().filter(|(path, _)| !path.ends_with("src/api/reason.rs"));
    let (mut found, mut repeated) = (0, Vec::new());
    for (path, source) in judged {
        let lines: Vec<_> = source.lines().map(str::trim).collect();
        let is_comment = |at: usize| lines.get(at).is_some_and(|line| line.starts_with("///"));
        for at in (0..lines.len()).filter(|at| is_comment(*at)) {
            let is_alone = !is_comment(at + 1) && (at == 0 || !is_comment(at - 1));
            let is_attribute = |line: &&&str| line.starts_with('#');
            let Some(item) = lines[at + 1..].iter().find(|line| !is_attribute(line)) else {
                continue;
            };
            found += 1;
            if is_alone && words(lines[at]).is_subset(&words(name_of(item))) {
                repeated.push(format!("{}:{}: {} {item}", path.display(), at + 1, lines[at]));
            }
        }
    }
    assert!(found > 3000, "comments are not found any more: {found}");
    assert!(repeated.is_empty(), "say more, or nothing: {repeated:#?}");
}

#[test]
fn every_public_type_has_a_comment() {
    let (mut types, mut bare) = (0, Vec::new());
    for (path, source) in ["src", "crates"].map(sources).concat() {
        let lines: Vec<_> = source.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let kinds = ["pub struct ", "pub enum ", "pub trait ", "pub type "];
            if !kinds.iter().any(|kind| line.starts_with(kind)) {
                continue;
            }
            types += 1;
            let above = lines[..at].iter().rev().take_while(|line| !line.is_empty());
            if !above.into_iter().any(|line| line.starts_with("///")) {
                bare.push(format!("{}:{}: {line}", path.display(), at + 1));
            }
        }
    }
    assert!(types > 500, "types are not found any more: {types}");
    assert!(bare.is_empty(), "{bare:#?}");
}
