//! A stand-in for OpenClaw, for scenarios that are about something else and start the server often, or
//! on a processor that is emulated: the real one takes a core for a quarter of a minute each time.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use serde_json::{Value, json};

use crate::{OPENCLAW, PROGRAMS, server::blocking, tenant::Tenant};

/// Node.js and OpenClaw as a release has them.
static PROGRAMS_OF_STAND_IN: LazyLock<[(&str, Value); 2]> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    // It becomes the program that it is told, as Node.js does in a way.
    let node = archive(folder.path(), "node", Path::new("/usr/bin/env"));
    let stripped = folder.path().join("stripped");
    let simulator = Path::new(env!("CARGO_BIN_EXE_moorage")).with_file_name("moorage-sim");
    let strip = Command::new("strip").arg("-o").args([&stripped, &simulator]).status().unwrap();
    assert!(strip.success());
    let openclaw = archive(folder.path(), "openclaw", &stripped);
    let programs = PROGRAMS.get().unwrap();
    let show = |kind, version, file: &Path| (kind, programs.show(kind, version, file).unwrap());
    [show("node", "24.0.0", &node), show("openclaw", OPENCLAW.0, &openclaw)]
});

impl Tenant {
    /// Has all further releases of this tenant install the stand-in, and its pool prefer one of them.
    pub(crate) async fn use_stand_in_for_openclaw(&mut self) {
        eprintln!("{}: a stand-in takes OpenClaw's place", self.name);
        for (kind, artifact) in blocking(|| PROGRAMS_OF_STAND_IN.clone()).await {
            self.artifacts[kind] = artifact;
        }
        let name = self.apply_release("stand-in", |_| {}).await;
        self.patch_pool(json!({"spec": {"defaultRelease": name}})).await;
        self.until_pool_is_looked_at().await;
    }
}

/// An archive with `bin/<kind>`.
fn archive(folder: &Path, kind: &str, program: &Path) -> PathBuf {
    let path = folder.join(format!("{kind}.tar.gz"));
    let out = std::fs::File::create(&path).unwrap();
    let packed = flate2::write::GzEncoder::new(out, flate2::Compression::fast());
    let mut archive = tar::Builder::new(packed);
    archive.follow_symlinks(true);
    archive.append_path_with_name(program, format!("bin/{kind}")).unwrap();
    archive.into_inner().unwrap().finish().unwrap();
    path
}
