//! The root filesystem of the operator's image as a container, by bubblewrap: read-only, without rights,
//! with nothing of this machine but its network, and with what a kubelet mounts into a Pod.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Ending, Process};

const ROOTS: &str = "etc/ssl/certs/ca-certificates.crt";
const ACCOUNT: &str = "var/run/secrets/kubernetes.io/serviceaccount";
/// As the image's account.
const USER: &str = "65532";
/// The API server's certificate is for this name.
const API_SERVER: &str = "kubernetes.default.svc";

/// An image and the `ServiceAccount` that it runs as.
#[derive(Debug, Clone)]
pub struct Container {
    /// The image's root filesystem, as `hack/image.sh --rootfs` makes it.
    pub image: PathBuf,
    /// An empty folder for the container.
    pub folder: PathBuf,
    /// The port of the API server on loopback.
    pub api_port: u16,
    /// PEM file of the authority that signed the API server's certificate.
    pub api_authority: PathBuf,
    /// The account's namespace.
    pub namespace: String,
    /// The account's token.
    pub token: String,
    /// Names that this machine's loopback address has in the container.
    pub names: Vec<String>,
}

impl Container {
    /// Starts the image's program. `roots` joins the image's own certificate roots, as somebody with a private
    /// authority would have it: nothing tells the program of it.
    pub(crate) fn start(
        &self,
        name: &str,
        arguments: &[String],
        roots: &Path,
        log: &Path,
    ) -> io::Result<Process> {
        if let Err(error) = Command::new("bwrap").arg("--version").output() {
            return Err(io::Error::new(error.kind(), "bwrap is missing: install bubblewrap"));
        }
        let root = self.folder.join("root");
        self.prepare(&root, roots)?;
        let root = root.display().to_string();
        let port = self.api_port.to_string();
        let bubblewrap = [
            &["--ro-bind", &root, "/"][..],
            &["--proc", "/proc", "--dev", "/dev"],
            &["--unshare-user", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"],
            &["--uid", USER, "--gid", USER, "--cap-drop", "ALL", "--chdir", "/"],
            &["--die-with-parent", "--clearenv"],
            &["--setenv", "KUBERNETES_SERVICE_HOST", API_SERVER],
            &["--setenv", "KUBERNETES_SERVICE_PORT", &port],
            &["/usr/bin/moorage"],
        ]
        .concat();
        let all = bubblewrap.into_iter().chain(arguments.iter().map(String::as_str));
        let environment: &[(&str, &str)] = &[];
        let program = Path::new("bwrap");
        Process::start(name, program, all, environment, log, Ending::Kill)
    }

    /// The image's files, and those that a kubelet mounts.
    fn prepare(&self, root: &Path, roots: &Path) -> io::Result<()> {
        copy(&self.image, root)?;
        for empty in ["proc", "dev"] {
            fs::create_dir_all(root.join(empty))?;
        }
        let account = root.join(ACCOUNT);
        fs::create_dir_all(&account)?;
        fs::write(account.join("token"), &self.token)?;
        fs::write(account.join("namespace"), &self.namespace)?;
        fs::copy(&self.api_authority, account.join("ca.crt"))?;
        let hosts = format!("127.0.0.1 localhost {API_SERVER} {}\n", self.names.join(" "));
        fs::write(root.join("etc/hosts"), hosts)?;
        let mut known = fs::read(root.join(ROOTS))?;
        known.extend(fs::read(roots)?);
        fs::write(root.join(ROOTS), known)
    }
}

/// Copies a folder. An image holds files and folders only.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let beside = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &beside)?;
        } else {
            fs::copy(entry.path(), beside)?;
        }
    }
    Ok(())
}
