use super::*;
use crate::release::testing::{integrity, lockfile_with, package};
use serde_json::json;

fn parse(document: &Value) -> Result<Lockfile, ReleaseError> {
    Lockfile::parse(Path::new("package-lock.json"), &document.to_string())
}

fn refusal(at: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut added = package("leftpad", "1.0.0");
    change(&mut added);
    parse(&lockfile_with(&[(at, added)])).unwrap_err().to_string()
}

#[test]
fn a_package_without_integrity_is_refused_by_name() {
    let why = refusal("node_modules/leftpad", |package| {
        package.as_object_mut().unwrap().remove("integrity");
    });
    assert!(why.contains("node_modules/leftpad: it has no integrity"), "{why}");
    let why = refusal("node_modules/leftpad", |package| package["integrity"] = json!("sha1-AAAA"));
    assert!(why.contains("node_modules/leftpad: its integrity is not one SHA-512"), "{why}");
}

#[test]
fn a_package_from_outside_the_registry_is_refused() {
    for url in [
        "git+ssh://git@github.com/a/leftpad.git#abc",
        "https://registry.npmjs.org.evil.example/leftpad-1.0.0.tgz",
        "http://registry.npmjs.org/leftpad/-/leftpad-1.0.0.tgz",
        "file:../leftpad",
    ] {
        let why = refusal("node_modules/leftpad", |package| package["resolved"] = json!(url));
        assert!(why.contains("node_modules/leftpad") && why.contains(url), "{why}");
    }
}

#[test]
fn a_link_and_a_path_that_climbs_are_refused() {
    let why = refusal("node_modules/leftpad", |package| package["link"] = json!(true));
    assert!(why.contains("node_modules/leftpad: it is a link"), "{why}");
    let why = refusal("node_modules/../../leftpad", |_| ());
    assert!(why.contains("dotted"), "{why}");
    let why = refusal("packages/leftpad", |_| ());
    assert!(why.contains("outside"), "{why}");
}

#[test]
fn a_bundled_package_is_pinned_by_the_package_that_holds_it() {
    let bundled = json!({"version": "1.0.0", "inBundle": true});
    let within = "node_modules/openclaw/node_modules/leftpad";
    parse(&lockfile_with(&[(within, bundled.clone())])).unwrap();
    let why = parse(&lockfile_with(&[("node_modules/leftpad", bundled)])).unwrap_err();
    assert!(why.to_string().contains("lies in none"), "{why}");
}

#[test]
fn a_range_instead_of_a_version_is_refused() {
    let mut document = lockfile_with(&[]);
    document["packages"][""]["dependencies"]["openclaw"] = json!("^2026.9.6");
    assert!(parse(&document).unwrap_err().to_string().contains("exact version"));
}

#[test]
fn servers_get_no_packages_of_other_platforms() {
    let only = |os: &str, cpu: &str, libc: &str| {
        let mut package = package("native", "1.0.0");
        package["optional"] = json!(true);
        package["os"] = json!([os]);
        package["cpu"] = json!([cpu]);
        package["libc"] = json!([libc]);
        package
    };
    let mut dev = package("dev", "1.0.0");
    dev["dev"] = json!(true);
    let lockfile = parse(&lockfile_with(&[
        ("node_modules/x64", only("linux", "x64", "glibc")),
        ("node_modules/arm64", only("linux", "arm64", "glibc")),
        ("node_modules/musl", only("linux", "x64", "musl")),
        ("node_modules/mac", only("darwin", "x64", "glibc")),
        ("node_modules/not-windows", only("!win32", "x64", "glibc")),
        ("node_modules/dev", dev),
    ]))
    .unwrap();
    let on = |architecture| lockfile.on_servers(architecture).map(|(at, _)| at).collect::<Vec<_>>();
    assert_eq!(
        on(Architecture::X86),
        [
            "node_modules/not-windows",
            "node_modules/npm",
            "node_modules/openclaw",
            "node_modules/x64"
        ]
    );
    assert_eq!(
        on(Architecture::Arm),
        ["node_modules/arm64", "node_modules/npm", "node_modules/openclaw"]
    );
}

#[test]
fn what_npm_left_out_or_exchanged_is_told_by_name() {
    let mut native = package("native", "1.0.0");
    native["optional"] = json!(true);
    let document = lockfile_with(&[("node_modules/native", native)]);
    let lockfile = parse(&document).unwrap();
    let compare = |change: &dyn Fn(&mut Value)| {
        let mut record = document.clone();
        record["packages"].as_object_mut().unwrap().remove("");
        change(&mut record["packages"]);
        let record = record.to_string();
        let checked = lockfile.check_installed(Path::new("r"), &record, Architecture::X86);
        checked.map_err(|error| error.to_string())
    };
    compare(&|_| ()).unwrap();
    let why = compare(&|packages| {
        packages.as_object_mut().unwrap().remove("node_modules/native");
    });
    assert!(why.unwrap_err().contains("node_modules/native is missing"));
    let why = compare(&|packages| {
        packages["node_modules/native"]["integrity"] = json!(integrity("x"));
    });
    assert!(why.unwrap_err().contains("node_modules/native is another"));
    let why = compare(&|packages| packages["node_modules/more"] = package("more", "1.0.0"));
    assert!(why.unwrap_err().contains("node_modules/more should not"));
}

#[test]
fn licences_are_read_in_every_form_that_packages_use() {
    let forms = [
        (json!("MIT"), Some("MIT")),
        (json!({"type": "ISC", "url": "…"}), Some("ISC")),
        (json!([{"type": "MIT"}, "Apache-2.0"]), Some("MIT OR Apache-2.0")),
        (json!(null), None),
    ];
    for (written, read) in forms {
        assert_eq!(licence(&written).as_deref(), read);
    }
}
