//! The image of each base, made in a chroot by the Containerfile's own steps, and used.
//!
//! It is made from a clone, like a clean checkout, so only from what is committed.

use super::{BASES, repository, stages};
use anyhow::{Context as _, Result, ensure};
use schedswap_source::Cache;
use schedswap_tests::container::{Chroot, Context, dir, make};
use schedswap_tests::{Packages, package, schedswap};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{command:?} ended with {}:\n{said}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

fn suite_of(base: &str) -> Result<&'static str> {
    let found = BASES.iter().find(|(known, _)| *known == base);
    Ok(found.with_context(|| format!("{base} is none of the bases"))?.1)
}

/// The checkout, and the first stage's packages. They are made once for each commit.
fn first_stage() -> Result<Context> {
    let lock = File::create(dir()?.join("lock"))?;
    lock.lock()?;
    let head = run(Command::new("git").current_dir(repository()).args(["rev-parse", "HEAD"]))?;
    let made = dir()?.join("made");
    let of_commit = made.join("commit");
    let context = Context {
        checkout: made.join("checkout"),
        stages: BTreeMap::from([("build".to_owned(), made.join("build"))]),
    };
    if fs::read_to_string(&of_commit).is_ok_and(|commit| commit == head) {
        return Ok(context);
    }
    if made.exists() {
        fs::remove_dir_all(&made)?;
    }
    fs::create_dir_all(&made)?;
    run(Command::new("git").args(["clone", "--quiet"]).arg(repository()).arg(&context.checkout))?;
    let mut vendor = Command::new("make");
    vendor.args(["--silent", "vendor"]).env_remove("MAKEFLAGS").env_remove("MAKELEVEL").env_remove("MFLAGS");
    run(vendor.current_dir(&context.checkout))?;

    let stage = stages("debian:12")?.into_iter().next().context("a stage")?;
    let chroot = Chroot::of_suite(suite_of(&stage.base)?, "build")?;
    // With the crates in the checkout, only the distribution's archive is needed.
    make(&stage, &chroot, &context, |script| script == "container/packages.sh")?;
    let out = made.join("build/src/out");
    fs::create_dir_all(&out)?;
    for entry in fs::read_dir(chroot.path("/src/out"))? {
        let file = entry?.path();
        fs::copy(&file, out.join(file.file_name().context("a name")?))?;
    }
    fs::write(of_commit, head)?;
    Ok(context)
}

/// A base's image, and the directory in which it starts.
fn image(base: &str) -> Result<(Chroot, String)> {
    let context = first_stage()?;
    let stage = stages(base)?.into_iter().next_back().context("a stage")?;
    assert_eq!(stage.base, base);
    let suite = suite_of(base)?;
    let chroot = Chroot::of_suite(suite, suite)?;
    let dir = make(&stage, &chroot, &context, |_| false)?;
    Ok((chroot, dir))
}

/// The SDK is complete, and finds the suite's newest kernel through the base's own sources.
fn sdk_is_installed(chroot: &Chroot, suite: &str) -> Result<()> {
    let version = chroot.sh("/", "schedswap --version")?;
    assert_eq!(version.trim(), concat!("schedswap ", env!("CARGO_PKG_VERSION")));
    assert_eq!(chroot.sh("/", "dpkg --verify schedswap")?, "");
    let status = chroot.sh("/", "dpkg-query --show --showformat '${Status}' schedswap")?;
    assert_eq!(status, "install ok installed");
    let plan = chroot
        .sh("/", &format!("schedswap fetch --dry-run --json --cache /tmp/cache {suite}/cloud-amd64"))?;
    let plan: serde_json::Value = serde_json::from_str(&plan).with_context(|| plan.clone())?;
    let release = plan["release"].as_str().context("no release")?;
    ensure!(release.ends_with("-cloud-amd64"), "{release}");
    let packages = plan["packages"].as_array().context("no packages")?;
    let has = |part: &str| {
        packages.iter().any(|package| package["name"].as_str().is_some_and(|name| name.contains(part)))
    };
    ensure!(has("-dbg") && has("linux-headers-") && has("linux-source-"), "{packages:?}");
    eprintln!("{suite}: the newest kernel is {release}");
    Ok(())
}

fn put(chroot: &Chroot, file: &Path) -> Result<String> {
    let inside = format!("/tmp/{}", file.file_name().context("a name")?.display());
    fs::copy(file, chroot.path(&inside))?;
    Ok(inside)
}

/// A scheduler's deb, with its scripts. The kernel is not the container's, so the scheduler is registered and not
/// loaded.
fn dpkg_takes(chroot: &Chroot, packages: &Packages) -> Result<()> {
    let (deb, name) = (put(chroot, &packages.deb)?, packages.deb_name());
    let active = format!("/var/lib/schedswap/{}/active", packages.manifest.kernel_release);
    let said = chroot.sh("/", &format!("dpkg --install {deb}"))?;
    assert_eq!(chroot.sh("/", &format!("dpkg --verify {name}"))?, "", "{said}");
    assert_eq!(registered(chroot, &active)?, packages.version(), "{said}");
    chroot.sh("/", &format!("dpkg --purge {name}"))?;
    ensure!(
        !chroot.path(&packages.payload()).exists() && !chroot.path(&active).exists(),
        "it is still there"
    );
    Ok(())
}

/// The same as an rpm; rpm does not know what dpkg has installed. Debian 13's has a plugin that runs scripts in their
/// own namespaces, which the engines' containers may not create.
fn rpm_takes(chroot: &Chroot, packages: &Packages) -> Result<()> {
    let (rpm, name) = (put(chroot, &packages.rpm)?, packages.rpm_name());
    let active = format!("/var/lib/schedswap/{}/active", packages.manifest.kernel_release);
    chroot.sh("/", &format!("rpm --checksig --nosignature {rpm}"))?;
    assert_eq!(chroot.sh("/", &format!("rpm --query --package --queryformat '%{{NAME}}' {rpm}"))?, name);
    let said = chroot.sh("/", &format!("rpm --install --nodeps --noplugins {rpm}"))?;
    assert_eq!(chroot.sh("/", &format!("rpm --verify --nodeps {name}"))?, "", "{said}");
    assert_eq!(registered(chroot, &active)?, packages.version(), "{said}");
    chroot.sh("/", &format!("rpm --erase --nodeps --noplugins {name}"))?;
    ensure!(
        !chroot.path(&packages.payload()).exists() && !chroot.path(&active).exists(),
        "it is still there"
    );
    // The SDK's own package, too.
    let own = chroot.sh("/opt/schedswap", "rpm --query --list --package out/*.rpm")?;
    ensure!(own.lines().any(|path| path == "/usr/bin/schedswap"), "{own}");
    Ok(())
}

/// What is registered for a kernel.
fn registered(chroot: &Chroot, active: &str) -> Result<String> {
    let target = fs::read_link(chroot.path(active)).with_context(|| active.to_owned())?;
    Ok(target.display().to_string())
}

/// Installed on this base; the base's tools accept the packages of a scheduler that was built elsewhere.
fn serves(base: &str) -> Result<Chroot> {
    let (chroot, dir) = image(base)?;
    assert_eq!(dir, "/schedulers");
    sdk_is_installed(&chroot, suite_of(base)?)?;
    let packages = package("container", "1", |_| Ok(()))?;
    dpkg_takes(&chroot, &packages).with_context(|| format!("dpkg of {base}"))?;
    rpm_takes(&chroot, &packages).with_context(|| format!("rpm of {base}"))?;
    Ok(chroot)
}

#[test]
#[ignore = "slow: `make soak` runs it"]
fn on_debian_11() -> Result<()> {
    serves("debian:11").map(drop)
}

#[test]
#[ignore = "slow: `make soak` runs it"]
fn on_debian_13() -> Result<()> {
    serves("debian:13").map(drop)
}

/// The complete work on that suite's newest kernel, with the image's compiler.
#[test]
#[ignore = "slow: `make soak` runs it"]
fn on_debian_12_and_its_kernel() -> Result<()> {
    let mut chroot = serves("debian:12")?;
    let fetched = schedswap(&["fetch", "--json", "bookworm/cloud-amd64"])?;
    ensure!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    let fetched: serde_json::Value = serde_json::from_slice(&fetched.stdout)?;
    let release = fetched["release"].as_str().context("no release")?;
    let cache = "/root/.cache/schedswap";
    chroot.show(Cache::from_environment()?.root(), cache);

    // The gate passes, otherwise it would be refused.
    let gate =
        chroot.sh("/schedulers", &format!("schedswap init {release} {cache}/kernels/{release}/src demo"))?;
    eprintln!("{gate}");
    let patch = put(&chroot, &repository().join("examples/demo/schedswap_test.patch"))?;
    chroot.sh("/schedulers/demo", &format!("patch --strip=1 <{patch}"))?;
    let built = chroot.sh("/schedulers", "schedswap build demo --name demo --release 1 --json")?;
    let built: serde_json::Value = serde_json::from_str(&built)?;
    let packages: Vec<PathBuf> = built["packages"]
        .as_array()
        .context("no packages")?
        .iter()
        .filter_map(|path| path.as_str().map(PathBuf::from))
        .collect();
    assert_eq!(packages.len(), 2, "{packages:?}");
    for package in &packages {
        ensure!(
            chroot.path(&Path::new("/schedulers").join(package).display().to_string()).is_file(),
            "{package:?}"
        );
    }
    chroot.sh(
        "/schedulers",
        "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=test -keyout key.pem -out cert.pem",
    )?;
    chroot.sh("/schedulers", "schedswap build demo --sign-key key.pem --sign-cert cert.pem")?;
    let tried = chroot.sh("/schedulers", "schedswap try demo --cycles 1 --threads 50")?;
    ensure!(tried.contains("identical"), "{tried}");
    eprintln!("{tried}");
    Ok(())
}
