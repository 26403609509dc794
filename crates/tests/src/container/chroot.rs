//! A Debian in a directory, as bare as the images that containers start from.

use anyhow::{Context, Result, ensure};
use schedswap_source::{Cache, suite_sources};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What Debian's own images hold: what is essential or required, and apt.
const OPTIONS: &[&str] = &["--quiet", "--variant=minbase", "--format=tar"];
/// As the engines' images have it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Of this machine; the engines pass them on as well.
const PROXIES: [&str; 3] = ["http_proxy", "https_proxy", "no_proxy"];
/// Run in mount and process namespaces of its own, so that mounts and processes end with it, however it ends. What is
/// run has the capabilities that podman leaves root by default, and no other: no module can be loaded from in there.
const ENTER: &str = "\
set -eu
root=$1
shift
mount -t proc proc \"$root/proc\"
mount --bind /sys \"$root/sys\"
mount -o remount,bind,ro \"$root/sys\"
while [ \"$1\" != -- ]; do
    mkdir -p \"$root$2\"
    mount --bind \"$1\" \"$root$2\"
    mount -o remount,bind,ro \"$root$2\"
    shift 2
done
shift
exec setpriv --inh-caps -all --bounding-set \
    -all,+chown,+dac_override,+fowner,+fsetid,+kill,+net_bind_service,+setfcap,+setgid,+setpcap,+setuid,+sys_chroot \
    -- chroot \"$root\" \"$@\"";

/// Gone when it is dropped.
pub struct Chroot {
    root: PathBuf,
    seen: Vec<(PathBuf, String)>,
}

impl Chroot {
    /// A fresh one of a suite, from the cache or made now. There is one of each name.
    ///
    /// # Errors
    /// When this is not root, the machine's archives have no such suite, or a program is missing or fails.
    pub fn of_suite(suite: &str, name: &str) -> Result<Chroot> {
        ensure!(fs::metadata("/proc/self")?.uid() == 0, "chroots are made by root; run this test as root");
        let archive = archive(suite)?;
        let root = super::dir()?.join(name);
        // Of a test that was killed; its mounts ended with it.
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        fs::create_dir_all(&root)?;
        let chroot = Chroot { root, seen: Vec::new() };
        let mut tar = Command::new("tar");
        tar.args(["--extract", "--same-permissions", "--numeric-owner", "--directory"]).arg(&chroot.root);
        output(tar.arg("--file").arg(archive))?;
        // As the engines do: names are resolved as on this machine.
        fs::copy("/etc/resolv.conf", chroot.path("/etc/resolv.conf")).context("copying resolv.conf")?;
        // Debian's images have this as well. What is in here does not outlive the test.
        fs::write(chroot.path("/etc/dpkg/dpkg.cfg.d/unsafe-io"), "force-unsafe-io\n")?;
        Ok(chroot)
    }

    /// A path inside, as this machine sees it.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.root.join(inside.trim_start_matches('/'))
    }

    /// Lets a directory of this machine be seen at `inside`, read-only, by what is run from now on.
    pub fn show(&mut self, dir: &Path, inside: &str) {
        self.seen.push((dir.to_owned(), inside.to_owned()));
    }

    /// Runs a script by the shell, in a directory; what it printed.
    pub fn sh(&self, dir: &str, script: &str) -> Result<String> {
        self.run(&[], dir, script)
    }

    /// The same without any network.
    pub fn sh_offline(&self, dir: &str, script: &str) -> Result<String> {
        self.run(&["--net"], dir, script)
    }

    fn run(&self, namespaces: &[&str], dir: &str, script: &str) -> Result<String> {
        let mut command = Command::new("unshare");
        command.env_clear().env("PATH", PATH).env("HOME", "/root");
        for name in PROXIES {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        command.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]);
        command.args(namespaces).args(["sh", "-c", ENTER, "enter"]).arg(&self.root);
        for (from, inside) in &self.seen {
            command.arg(from).arg(inside);
        }
        command.args(["--", "sh", "-c", &format!("cd {dir} && {script}")]);
        output(&mut command).with_context(|| format!("in {}: {script}", self.root.display()))
    }
}

impl Drop for Chroot {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.root) {
            eprintln!("warning: {} stays: {error}", self.root.display());
        }
    }
}

/// The suite's files in one archive, in the cache.
fn archive(suite: &str) -> Result<PathBuf> {
    let dir = Cache::from_environment()?.root().join("chroots");
    fs::create_dir_all(&dir)?;
    // Nobody else makes any while this is held; goes with the process.
    let lock = File::create(dir.join("lock"))?;
    lock.lock()?;
    let sources = suite_sources(suite)?;
    let mut hasher = DefaultHasher::new();
    (OPTIONS, &sources).hash(&mut hasher);
    let archive = dir.join(format!("{suite}-{:016x}.tar", hasher.finish()));
    if !archive.exists() {
        let making = tempfile::tempdir_in(&dir)?;
        let (list, made) = (making.path().join("archive.sources"), making.path().join("root.tar"));
        fs::write(&list, sources)?;
        output(Command::new("mmdebstrap").args(OPTIONS).arg(suite).arg(&made).arg(&list))?;
        fs::rename(made, &archive)?;
    }
    Ok(archive)
}

/// Runs it and returns what it printed; an error has all that it said.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("running {:?}", command.get_program()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(
        output.status.success(),
        "{:?} ended with {}:\n{}{}",
        command.get_program(),
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    Ok(text(&output.stdout))
}
