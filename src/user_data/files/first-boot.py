#!/usr/bin/python3 -I
"""Makes a Moorage server out of a stock Debian. It is a constant: what differs from server to server
is read from two files that user-data wrote.

  first-boot.py programs [--root DIR]   fetch, verify and start what release.json pins
  first-boot.py setup                   packages and settings of machine.json
  first-boot.py outdated                after upgrades: asks for a reboot if something runs what was replaced

Both may be cut off and repeated at any point, and never give up on a network that may come back.
Exit status 78: no repetition can help.
"""
import argparse, fcntl, hashlib, http.client, json, os, pathlib, platform, random, re, shutil, struct, subprocess, sys, time
import urllib.error, urllib.request

PROGRAMS = (
    ("agent", "moorage-agent", ("moorage-agent.socket", "moorage-worker.socket",
                                "moorage-installer.socket", "moorage-installer.service",
                                "moorage-agent.service")),
    ("cloudflared", "cloudflared", ("cloudflared.service",)),
)
# e_machine of an ELF header.
MACHINES = {"x86_64": 62, "aarch64": 183}
# In /proc/PID/maps: code of Debian that is mapped and is no longer on the disk.
REPLACED = re.compile(r"^\S+ ..x\S* .* (/(?:usr|lib|lib64|bin|sbin)/.*) \(deleted\)$", re.M)
# Options of apt for the mirror, once the one of the image has failed, and how often that was.
MIRROR, FAILED = [], []
STALLED = 30  # seconds without a byte
LONGEST_PAUSE = 60.0  # seconds
HOPELESS = 78


class Hopeless(Exception):
    """Repeating it changes nothing."""


class Wrong(Exception):
    """What came is not what was pinned."""


def say(*words):
    print(*words, flush=True)


def for_ever(what, attempt):
    """Repeats `attempt` until it returns. Progress, which its exception tells, resets the pauses."""
    pause = 1.0
    while True:
        try:
            return attempt()
        except Hopeless:
            raise
        except (OSError, Wrong, http.client.HTTPException, subprocess.SubprocessError) as error:
            if getattr(error, "progress", False):
                pause = 1.0
            wait = pause * random.uniform(0.5, 1.0)
            say(f"{what}: {error or type(error).__name__}; again in {wait:.1f} s")
            time.sleep(wait)
            pause = min(pause * 2, LONGEST_PAUSE)


def fetch(url, size, part):
    """Appends to `part` what is missing of `size` bytes."""
    have = part.stat().st_size if part.exists() else 0
    if have > size:
        part.unlink()
        have = 0
    if have == size:
        return
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity", "User-Agent": "moorage-first-boot"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    if request.type not in ("http", "https"):
        raise Hopeless(f"{url!r} is no http or https address")
    got = 0
    try:
        with urllib.request.urlopen(request, timeout=STALLED) as answer:
            resumed = answer.status == 206 and (answer.headers.get("Content-Range") or "").startswith(f"bytes {have}-")
            if not resumed:
                if answer.status != 200:
                    part.unlink(missing_ok=True)
                    raise Wrong(f"status {answer.status}")
                have = 0
            with open(part, "ab" if resumed else "wb") as file:
                while block := answer.read1(1 << 16):
                    got += len(block)
                    if have + got > size:
                        file.truncate(0)
                        raise Wrong(f"more than the pinned {size} bytes")
                    file.write(block)
        if have + got < size:
            raise OSError(f"cut off at {have + got} of {size} bytes")
    except urllib.error.HTTPError as error:
        if error.code == 416:
            part.unlink(missing_ok=True)
        raise
    except (OSError, http.client.HTTPException) as error:
        error.progress = got > 0
        raise


def verify(file, size, sha256):
    """Raises unless `file` is what was pinned and runs on this machine."""
    with open(file, "rb") as content:
        header = content.read(20)
        content.seek(0)
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if file.stat().st_size != size or digest != sha256:
        raise Wrong(f"has SHA-256 {digest}, not the pinned {sha256}")
    here = os.uname().machine
    if header[:6] != b"\x7fELF\x02\x01" or struct.unpack("<H", header[18:20])[0] != MACHINES.get(here):
        raise Hopeless(f"the pinned program is none for {here}")


def sync(path):
    """Has the disk hold a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def mark(root, path):
    """Leaves a mark that outlives a power cut, as does all that anybody wrote before it."""
    subprocess.run(["/usr/bin/sync", "--file-system", root, path.parent], check=True, stdin=subprocess.DEVNULL)
    path.touch()
    sync(path)
    sync(path.parent)


def install(kind, program, pinned, home):
    """Leaves home/<sha256>/<program>, and home/current pointing there unless it points somewhere."""
    size, sha256 = int(pinned["size"]), pinned["sha256"]
    if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
        raise Hopeless(f"{kind}: the pinned SHA-256 is none")
    current, final, stage = home / "current", home / sha256, home / f".{sha256}"
    if (current / program).exists():
        # Perhaps a later version, put there by the installer.
        return
    home.mkdir(parents=True, exist_ok=True)
    if final.exists():
        try:
            verify(final / program, size, sha256)
        except (OSError, Wrong) as error:
            say(f"{kind}: {error}; fetching it again")
            shutil.rmtree(final)
    if not final.exists():
        stage.mkdir(mode=0o755, exist_ok=True)
        part = stage / program

        def attempt():
            fetch(pinned["url"], size, part)
            try:
                verify(part, size, sha256)
            except Wrong:
                part.unlink()
                raise

        for_ever(kind, attempt)
        os.chmod(part, 0o755)
        os.chmod(stage, 0o755)
        # Here, for a run that was killed may have left the whole of it in memory alone.
        sync(part)
        sync(stage)
        os.rename(stage, final)
        sync(home)
    link = home / ".current"
    link.unlink(missing_ok=True)
    link.symlink_to(sha256)
    os.replace(link, current)
    sync(home)
    say(f"{kind}: installed {pinned.get('version')} ({sha256[:12]})")


def systemctl(*arguments):
    subprocess.run(["/usr/bin/systemctl", *arguments], check=True, stdin=subprocess.DEVNULL)


def each(verb, units):
    """Does `verb` to every unit that there is; one that is not there, or fails, holds up no other."""
    for unit in units:
        subprocess.run(["/usr/bin/systemctl", verb, unit], stdin=subprocess.DEVNULL)


def programs(root):
    release = json.loads((root / "etc/moorage/release.json").read_text())
    state = root / "var/lib/moorage-first-boot"
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(state / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # From here on cloud-init does not begin again: all its files are there, and on the disk.
        mark(root, state / "begun")
        for kind, program, units in PROGRAMS:
            install(kind, program, release[kind], root / "opt/moorage" / kind)
            if root == pathlib.Path("/"):
                for_ever(kind, lambda: systemctl("enable", "--now", "--no-block", *units))
        mark(root, state / "done")


def states(packages):
    """What dpkg calls the state of each package that it knows."""
    answer = subprocess.run(["/usr/bin/dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *packages],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return dict(line.split() for line in answer.stdout.splitlines())


def debian_alone():
    """The options with which apt asks Debian's own mirror and no other: a provider's may be stale for days."""
    codename = platform.freedesktop_os_release()["VERSION_CODENAME"]
    sources = pathlib.Path("/var/lib/moorage-setup/debian.list")
    signed = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    sources.write_text("".join(f"deb {signed} http://deb.debian.org/{place} main\n" for place in (
        f"debian {codename}", f"debian {codename}-updates", f"debian-security {codename}-security")))
    return ["-o", f"Dir::Etc::sourcelist={sources}", "-o", "Dir::Etc::sourceparts=-"]


def apt(*arguments):
    options = ["DPkg::Lock::Timeout=600", "Dpkg::Options::=--force-confdef", "Dpkg::Options::=--force-confold",
               "Acquire::Retries=3", "Acquire::http::Timeout=60", "APT::Update::Error-Mode=any",
               "APT::Install-Recommends=false"]
    words = [word for option in options for word in ("-o", option)]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive",
                   "SUDO_FORCE_REMOVE": "yes"}  # though root has no password
    subprocess.run(["/usr/bin/apt-get", "-qy", *words, *MIRROR, *arguments], check=True, stdin=subprocess.DEVNULL,
                   env=environment)


def update():
    """Reads the lists of packages. The second time that fails, Debian's own mirror is asked alone from then on."""
    try:
        apt("update")
    except subprocess.CalledProcessError:
        FAILED.append("update")
        if len(FAILED) >= 2 and not MIRROR:
            MIRROR.extend(debian_alone())
            say("packages: the lists cannot be read; from now on deb.debian.org is asked alone")
        raise


def packages(machine):
    """Has the wanted packages installed and the unwanted ones gone."""
    wanted, unwanted = machine["packages"], machine["unwantedPackages"]

    def attempt():
        have = states([*wanted, *unwanted])
        missing = sorted(package for package in wanted if have.get(package) != "installed")
        surplus = sorted(package for package in unwanted
                         if have.get(package, "not-installed") not in ("not-installed", "config-files"))
        if not missing and not surplus:
            return
        # A cut may have left packages half configured, and some without what they need: those apt
        # completes, if it is asked for nothing else at once.
        broken = subprocess.run(["/usr/bin/dpkg", "--configure", "-a", "--force-confdef", "--force-confold"],
                                stdin=subprocess.DEVNULL).returncode
        if missing or broken:
            update()
        if broken:
            apt("install", "--fix-broken")
        if missing:
            apt("install", "--", *missing)
        if surplus:
            apt("purge", "--", *surplus)

    for_ever("packages", attempt)


def firewall():
    if not os.path.exists("/usr/sbin/nft"):
        return False
    for_ever("firewall", lambda: systemctl("enable", "nftables.service"))
    for_ever("firewall", lambda: systemctl("restart", "nftables.service"))
    return True


def setup():
    machine = json.loads(pathlib.Path("/etc/moorage/machine.json").read_text())
    state = pathlib.Path("/var/lib/moorage-setup")
    # Open to the agent, which reports whether this is done.
    state.mkdir(mode=0o755, exist_ok=True)
    protected = firewall()
    # Settings that need no package, before the slow part.
    subprocess.run(["/usr/sbin/usermod", "--lock", "root"], check=True, stdin=subprocess.DEVNULL)
    each("stop", machine["stop"])
    each("try-restart", machine["restart"])
    packages(machine)
    if not protected and not firewall():
        raise Hopeless("the package nftables has no /usr/sbin/nft")
    each("try-restart", machine["restart"])
    for_ever("units", lambda: systemctl("enable", "--now", "--no-block", *machine["enable"]))
    mark("/", state / "done")
    say("setup: done")


def outdated():
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            replaced = REPLACED.search((process / "maps").read_text(errors="replace"))
        except OSError:
            continue  # It has ended.
        if replaced:
            say(f"{process.name} runs {replaced[1]}, which was replaced")
            pathlib.Path("/run/reboot-required").touch()


def main():
    parser = argparse.ArgumentParser(description="First boot of a Moorage server.")
    parser.add_argument("job", choices=("programs", "setup", "outdated"))
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path("/"), help="for tests: starts nothing")
    arguments = parser.parse_args()
    # Every user of the machine may see the programs; the unit's own mask is stricter.
    os.umask(0o022)
    try:
        programs(arguments.root) if arguments.job == "programs" else globals()[arguments.job]()
    except Hopeless as error:
        say(f"giving up: {error}")
        sys.exit(HOPELESS)


if __name__ == "__main__":
    main()
