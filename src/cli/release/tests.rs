//! Building a release out of files that are there: what is written, named, printed and refused. The
//! bundle is put into the cache beforehand, so that neither npm nor a network is needed.

use std::{fs, path::Path};

use clap::Parser as _;
use moorage_wire::Sha256;

use crate::{
    api::{
        OpenClawRelease,
        release::{Architecture, IntegrationKind},
    },
    cli::{Cli, Command},
    release::{
        ReleaseError,
        bundle::{Bundle, INDEX, NODE, OPENCLAW, Packed, Recipe, SBOM},
        digest::Digest,
        folder::ReleaseFolder,
        host_architecture,
        npm::Npm,
        plugin::Packing,
    },
};

const NODE_ARCHIVE: &str = "as it came";

/// A cache with a bundle of the repository's own pins, and programs that are programs.
struct Bench {
    root: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { root: tempfile::tempdir().unwrap() };
        fs::write(bench.path("node.tgz"), NODE_ARCHIVE).unwrap();
        fs::copy(std::env::current_exe().unwrap(), bench.path("program")).unwrap();
        let folder =
            ReleaseFolder::read(Path::new(&releases()).join("2026.9.6").as_path()).unwrap();
        let npm = Npm { cli: "/unused".into(), cache: "/unused".into(), registry: None };
        let recipe = Recipe {
            folder: &folder,
            architecture: host(),
            node: ("/unused".into(), digest(NODE_ARCHIVE)),
            node_version: "24.21.0",
            build_node: None,
            npm: &npm,
            prune: true,
        };
        let made = bench.root.path().join("cache/bundles").join(recipe.key());
        fs::create_dir_all(&made).unwrap();
        let packed = |file: &str, version: &str| {
            fs::write(made.join(file), file).unwrap();
            Packed { file: file.to_owned(), version: version.to_owned(), digest: digest(file) }
        };
        let bundle =
            Bundle { openclaw: packed(OPENCLAW, "2026.9.6"), node: packed(NODE, "24.21.0") };
        let empty = r#"{"components": [], "dependencies": [{"dependsOn": []}]}"#;
        fs::write(made.join(SBOM), empty).unwrap();
        let finished = bench.root.path().join("cache/integrations");
        fs::create_dir_all(&finished).unwrap();
        for plugin in &folder.plugins {
            let packing = Packing {
                architecture: host(),
                openclaw: "2026.9.6",
                time: folder.time(),
                registry: None,
                downloads: Path::new("/unused"),
                finished: &finished,
            };
            fs::write(plugin.finished(&packing), &plugin.name).unwrap();
        }
        fs::write(made.join(INDEX), serde_json::to_vec(&bundle).unwrap()).unwrap();
        bench
    }

    fn path(&self, name: &str) -> String {
        self.root.path().join(name).display().to_string()
    }

    async fn build(&self, more: &[&str]) -> Result<String, ReleaseError> {
        let architecture = format!("--architecture={}", host().as_str());
        let options = [
            ("--releases", releases()),
            ("--node", self.path("node.tgz")),
            ("--npm", "/unused".to_owned()),
            ("--cache", self.path("cache")),
            ("--agent", self.path("program")),
            ("--output", self.path("out")),
        ];
        let options = options.iter().flat_map(|(name, value)| [*name, value.as_str()]);
        let fixed = ["moorage", "release", "build", "--openclaw", "2026.9.6"];
        let versions = ["--node-version", "24.21.0", "--agent-version", "0.1.0", &architecture];
        let line = fixed.into_iter().chain(versions).chain(options).chain(more.iter().copied());
        let Command::Release(args) = Cli::try_parse_from(line).unwrap().command else {
            panic!("another command")
        };
        super::run(*args, &|_| ()).await
    }
}

fn host() -> Architecture {
    host_architecture().expect("tests run where servers could")
}

fn releases() -> String {
    format!("{}/releases", env!("CARGO_MANIFEST_DIR"))
}

fn digest(text: &str) -> Digest {
    Digest { sha256: Sha256::of(text.as_bytes()), size: text.len() as u64 }
}

const BASE: [&str; 2] = ["--base-url", "https://releases.example.com/moorage"];

#[tokio::test]
async fn a_build_names_files_as_its_manifest_pins_them() {
    let bench = Bench::new();
    let integrations = bench.path("integrations.yaml");
    fs::write(&integrations, "- {name: '@a/b', kind: Plugin, version: 1.2.3, allowUnpinned: true}")
        .unwrap();
    let skill = bench.path("weather");
    fs::create_dir(&skill).unwrap();
    fs::write(format!("{skill}/SKILL.md"), "sun").unwrap();
    let skill = format!("@acme/weather@1.0.0={skill}");
    let program = bench.path("program");
    let more = ["--cloudflared", &program, "--cloudflared-version", "2026.8.2"];
    let more = [&more[..], &BASE, &["--integrations", &integrations, "--skill", &skill]].concat();
    let text = bench.build(&more).await.unwrap();
    assert_eq!(text, fs::read_to_string(bench.path("out/2026.9.6-1.yaml")).unwrap());
    assert!(Path::new(&bench.path("out/2026.9.6-1.cdx.json")).exists());
    let release: OpenClawRelease = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(release.metadata.name.as_deref(), Some("2026.9.6-1"));
    assert_eq!(release.spec.version, "2026.9.6");
    let [unpinned, .., skill] = &release.spec.integrations[..] else { panic!("{text}") };
    assert_eq!((unpinned.name.as_str(), &unpinned.artifact), ("@a/b", &None));
    assert_eq!((skill.name.as_str(), skill.kind), ("@acme/weather", IntegrationKind::Skill));
    let packed = skill.artifact.as_ref().unwrap();
    let name = packed.url.strip_prefix("https://releases.example.com/moorage/").unwrap();
    assert!(name.starts_with("integration-acme-weather-1.0.0-"), "{name}");
    let found = Digest::of_file(&Path::new(&bench.path("out")).join(name)).unwrap();
    assert_eq!((found.sha256.to_string(), found.size), (packed.sha256.to_string(), packed.size));
    let plugin = release.spec.integrations.iter().find(|one| one.name == "@openclaw/msteams");
    let packed = plugin.unwrap().artifact.as_ref().unwrap();
    assert_eq!(packed.sha256, Sha256::of(b"@openclaw/msteams").to_string());
    let bill = fs::read_to_string(bench.path("out/2026.9.6-1.cdx.json")).unwrap();
    for component in ["pkg:npm/%40azure/identity@", "integration-openclaw-msteams@", &packed.sha256]
    {
        assert!(bill.contains(component), "{component}");
    }
    let artifacts = release.spec.artifacts;
    let versions = [
        (&artifacts.openclaw, "2026.9.6"),
        (&artifacts.node, "24.21.0"),
        (&artifacts.cloudflared, "2026.8.2"),
        (&artifacts.agent, "0.1.0"),
    ];
    for (pinned, version) in versions {
        let name = pinned.url.strip_prefix("https://releases.example.com/moorage/").unwrap();
        let file = Path::new(&bench.path("out")).join(name);
        let found = Digest::of_file(&file).unwrap();
        assert_eq!(
            (found.sha256.to_string(), found.size),
            (pinned.sha256.to_string(), pinned.size)
        );
        assert_eq!((pinned.version.as_str(), pinned.architecture), (version, host()));
    }
}

#[tokio::test]
async fn a_program_with_a_wrong_checksum_is_refused() {
    let bench = Bench::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().route("/c", axum::routing::get(|| async { "tampered" }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let source = format!("http://{address}/c#sha256={}", Sha256::of(b"as released"));
    let refused = bench.build(&[&["--cloudflared", &source][..], &BASE].concat()).await;
    assert!(matches!(refused, Err(ReleaseError::WrongDigest { .. })), "{refused:?}");
    assert!(!Path::new(&bench.path("out")).exists());
}

#[tokio::test]
async fn a_damaged_cache_is_not_published() {
    let bench = Bench::new();
    let bundles = bench.root.path().join("cache/bundles");
    let made = fs::read_dir(bundles).unwrap().next().unwrap().unwrap().path();
    fs::write(made.join(OPENCLAW), "damaged").unwrap();
    let program = bench.path("program");
    let more = ["--cloudflared", &program, "--cloudflared-version", "2026.8.2"];
    let refused = bench.build(&[&more[..], &BASE].concat()).await;
    assert!(matches!(refused, Err(ReleaseError::WrongDigest { .. })), "{refused:?}");
    let left = fs::read_dir(bench.path("out")).unwrap().count();
    assert_eq!(left, 0, "something was left to be served");
}

#[tokio::test]
async fn what_is_missing_or_wrong_is_told_with_the_option_that_helps() {
    let bench = Bench::new();
    let program = bench.path("program");
    let script = bench.path("script");
    fs::write(&script, "#!/bin/sh\necho not a program of a server\n").unwrap();
    let resolved = bench.path("resolved.yaml");
    fs::write(&resolved, "- {name: '@a/b', kind: Plugin, version: 1.2.3}").unwrap();
    let cloudflared = |path| ["--cloudflared", path, "--cloudflared-version", "1.0.0"];
    let cases = [
        (BASE.to_vec(), "give --cloudflared"),
        ([&cloudflared(&script)[..], &BASE].concat(), "not a 64-bit Linux program"),
        ([&cloudflared(&program)[..], &["--base-url", "ftp://a/"]].concat(), "--base-url"),
        ([&cloudflared(&program)[..], &BASE, &["--name", "Not_A_Name"]].concat(), "--name"),
        (
            [&cloudflared(&program)[..], &BASE, &["--integrations", &resolved]].concat(),
            "lock-plugin",
        ),
    ];
    for (more, says) in cases {
        let refused = bench.build(&more).await.unwrap_err().to_string();
        assert!(refused.contains(says), "{refused}");
    }
}
