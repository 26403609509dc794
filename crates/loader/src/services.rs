//! What the loader installs on the machine besides the registration: its own copy, its command, and the units that
//! load the scheduler at boot. No package owns these files, because two packages would own the same file.

use crate::error::LoaderError;
use crate::host::Machine;
use crate::paths::COMMAND;
use crate::payload_dir::Payload;
use crate::registry::cannot;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A unit: its name, its text, and the target that wants it.
struct Unit {
    name: &'static str,
    text: &'static str,
    wanted_by: &'static str,
}

const UNITS: [Unit; 2] = [
    Unit {
        name: "schedswap.service",
        text: include_str!("../units/schedswap.service"),
        wanted_by: "sysinit.target",
    },
    Unit {
        name: "schedswap-healthy.service",
        text: include_str!("../units/schedswap-healthy.service"),
        wanted_by: "multi-user.target",
    },
];

/// Name of the loader in a payload.
pub const LOADER: &str = "schedswap-loader";

/// Other versions of this program read it in this program's file, without running it.
#[used]
static VERSION_MARK: &str = concat!("<schedswap-loader version ", env!("CARGO_PKG_VERSION"), ">");

/// Installs everything. A file that is already there and the same is left alone; so is what an administrator has put
/// in its place.
pub fn install(machine: &Machine, payload: &Payload, notes: &mut Vec<String>) -> Result<(), LoaderError> {
    copy_loader(machine, payload, notes)?;
    if let Err(error) = link_command(machine) {
        notes.push(format!(
            "/{COMMAND} was not made ({error}): call {} instead",
            machine.paths.loader().display()
        ));
    }
    if !has_systemd(machine) {
        let loader = machine.paths.loader();
        notes.push(format!(
            "this machine does not run systemd: have your init system run `{} start` at boot, and `healthy` \
             at the end of the boot",
            loader.display()
        ));
        return Ok(());
    }
    let mut is_changed = false;
    for unit in &UNITS {
        is_changed |= install_unit(machine, unit, notes)?;
    }
    if is_changed {
        reload(machine, notes);
    }
    Ok(())
}

/// If the loader was not called by systemd, this makes systemd's state of the main unit, active or not, match what
/// runs. systemd calls the loader again, which finds that there is nothing to do.
pub fn tell_systemd(machine: &Machine, command: &str, notes: &mut Vec<String>) {
    if !systemd_runs(machine) || !machine.paths.units().join(UNITS[0].name).is_file() {
        return;
    }
    // Without waiting: if the package is installed during the boot, it may not be the unit's turn yet.
    let arguments: &[&str] = if command == "start" { &["start", "--no-block"] } else { &[command] };
    if let Err(error) = machine.host.systemctl(&[arguments, &[UNITS[0].name]].concat()) {
        notes.push(format!("systemctl {command} {}: {error}", UNITS[0].name));
    }
}

/// Removes everything.
pub fn remove(machine: &Machine, notes: &mut Vec<String>) -> Result<(), LoaderError> {
    let units = machine.paths.units();
    let mut is_changed = false;
    for unit in &UNITS {
        let place = units.join(unit.name);
        // The unit before its link: a unit without its link would count as disabled by the administrator.
        if place.symlink_metadata().is_ok_and(|found| found.is_file()) {
            machine.disk.remove(&place).map_err(cannot("remove", &place))?;
            is_changed = true;
        }
        let wants = wants_dir(machine, unit);
        let link = wants.join(unit.name);
        machine.disk.remove(&link).map_err(cannot("remove", &link))?;
        if wants.is_dir() {
            machine.disk.remove_dir_if_empty(&wants).map_err(cannot("remove", &wants))?;
        }
    }
    if is_changed {
        reload(machine, notes);
    }
    let command = machine.paths.of(COMMAND);
    if fs::read_link(&command).is_ok_and(|target| target == command_target()) {
        machine.disk.remove(&command).map_err(cannot("remove", &command))?;
    }
    let loader = machine.paths.loader();
    machine.disk.remove(&loader).map_err(cannot("remove", &loader))
}

fn copy_loader(machine: &Machine, payload: &Payload, notes: &mut Vec<String>) -> Result<(), LoaderError> {
    // The payload's loader, for which its digest vouches; if the payload has none, the program that runs.
    let listed = payload.manifest.digests.contains_key(LOADER).then(|| payload.dir.join(LOADER));
    let source = listed.or_else(|| std::env::current_exe().ok()).unwrap_or_default();
    let bytes = fs::read(&source).map_err(|error| LoaderError::Unreadable { path: source, source: error })?;
    let place = machine.paths.loader();
    let there = fs::read(&place).unwrap_or_default();
    if there == bytes {
        return Ok(());
    }
    if version_in(&there) > version_in(&bytes) {
        notes.push("the installed loader is newer than the payload's, and stays".to_owned());
        return Ok(());
    }
    machine.disk.write(&place, &bytes, 0o755).map_err(cannot("write", &place))
}

/// The version that a loader's file contains.
fn version_in(program: &[u8]) -> Option<Vec<u64>> {
    let start = VERSION_MARK.trim_end_matches(|c: char| c != ' ').as_bytes();
    program.windows(start.len()).enumerate().filter(|(_, window)| *window == start).find_map(|(at, _)| {
        let rest = &program[at + start.len()..];
        let version = &rest[..rest.iter().take(40).position(|byte| *byte == b'>')?];
        std::str::from_utf8(version).ok()?.split('.').map(|part| part.parse().ok()).collect()
    })
}

fn command_target() -> PathBuf {
    // The path as the machine sees it, whichever root its files are below now.
    PathBuf::from("/var/lib/schedswap/loader")
}

fn link_command(machine: &Machine) -> io::Result<()> {
    let place = machine.paths.of(COMMAND);
    match place.symlink_metadata() {
        Ok(found) if !found.is_symlink() => Err(io::Error::other("another file has its name")),
        Ok(_) if fs::read_link(&place)? == command_target() => Ok(()),
        Ok(_) => Err(io::Error::other("a link to another file has its name")),
        Err(_) => machine.disk.link(&place, &command_target()),
    }
}

fn has_systemd(machine: &Machine) -> bool {
    let programs = ["usr/lib/systemd/systemd", "lib/systemd/systemd"];
    machine.paths.systemd_runs().is_dir() || programs.iter().any(|path| machine.paths.of(path).exists())
}

fn systemd_runs(machine: &Machine) -> bool {
    machine.is_live && machine.paths.systemd_runs().is_dir()
}

fn reload(machine: &Machine, notes: &mut Vec<String>) {
    if systemd_runs(machine)
        && let Err(error) = machine.host.systemctl(&["daemon-reload"])
    {
        notes.push(format!("systemctl daemon-reload: {error}; run it again"));
    }
}

fn wants_dir(machine: &Machine, unit: &Unit) -> PathBuf {
    machine.paths.units().join(format!("{}.wants", unit.wanted_by))
}

/// Writes a unit and enables it; returns whether anything changed. A unit that exists without being enabled is the
/// administrator's decision, and so is a masked one.
fn install_unit(machine: &Machine, unit: &Unit, notes: &mut Vec<String>) -> Result<bool, LoaderError> {
    let place = machine.paths.units().join(unit.name);
    let found = place.symlink_metadata();
    if found.as_ref().is_ok_and(|found| found.is_symlink()) {
        notes.push(format!(
            "{0} is masked and stays masked, so nothing is loaded at boot; to change that, run \
             `systemctl unmask {0}` and install again",
            unit.name
        ));
        return Ok(false);
    }
    if fs::read(&place).is_ok_and(|text| text == unit.text.as_bytes()) {
        return Ok(false);
    }
    if found.is_err() {
        // Before the unit: a link to nothing does no harm, but a unit without its link would stay without it.
        let link = wants_dir(machine, unit).join(unit.name);
        let target = Path::new("/etc/systemd/system").join(unit.name);
        machine.disk.link(&link, &target).map_err(cannot("write", &link))?;
    }
    machine.disk.write(&place, unit.text.as_bytes(), 0o644).map_err(cannot("write", &place))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;
    use crate::payload_dir;
    use std::os::unix::fs::symlink;

    fn installed(fake: &Fake) -> (Vec<String>, Payload) {
        let machine = fake.machine();
        let payload = payload_dir::open(&machine, &fake.payload("demo-1")).unwrap();
        let mut notes = Vec::new();
        install(&machine, &payload, &mut notes).unwrap();
        (notes, payload)
    }

    #[test]
    fn what_is_installed_is_taken_away_again() {
        let fake = Fake::with_systemd();
        let before = fake.files();
        let (notes, payload) = installed(&fake);
        assert_eq!(notes, [""; 0]);
        let root = fake.root();
        for place in ["etc/systemd/system/schedswap.service", "etc/systemd/system/schedswap-healthy.service"]
        {
            assert!(root.join(place).is_file(), "{place}");
        }
        let link = root.join("etc/systemd/system/sysinit.target.wants/schedswap.service");
        assert_eq!(fs::read_link(link).unwrap(), Path::new("/etc/systemd/system/schedswap.service"));
        let link = root.join("usr/sbin/schedswap-loader");
        assert_eq!(fs::read_link(link).unwrap(), Path::new("/var/lib/schedswap/loader"));
        assert_eq!(fake.systemctl(), ["daemon-reload"]);

        let mut notes = Vec::new();
        install(&fake.machine(), &payload, &mut notes).unwrap();
        assert_eq!(fake.systemctl(), ["daemon-reload"], "nothing changed, so nothing is told");

        remove(&fake.machine(), &mut notes).unwrap();
        assert_eq!(fake.systemctl(), ["daemon-reload", "daemon-reload"]);
        fs::remove_dir_all(&payload.dir).unwrap();
        let left: Vec<_> = fake.files().into_iter().filter(|file| !before.contains(file)).collect();
        assert_eq!(left, [""; 0]);
    }

    #[test]
    fn an_administrator_s_will_is_kept() {
        let fake = Fake::with_systemd();
        let units = fake.root().join("etc/systemd/system");
        fs::create_dir_all(&units).unwrap();
        symlink("/dev/null", units.join("schedswap.service")).unwrap();
        fs::write(units.join("schedswap-healthy.service"), "of an older version").unwrap();
        fs::create_dir_all(fake.root().join("usr/sbin")).unwrap();
        fs::write(fake.root().join(COMMAND), "somebody's").unwrap();
        let (notes, _) = installed(&fake);
        assert!(notes.iter().any(|note| note.contains("masked")), "{notes:?}");
        assert!(notes.iter().any(|note| note.contains("another file has its name")), "{notes:?}");
        assert_eq!(fs::read_link(units.join("schedswap.service")).unwrap(), Path::new("/dev/null"));
        // Brought up to date, but not enabled: the administrator had disabled it.
        assert_eq!(fs::read_to_string(units.join("schedswap-healthy.service")).unwrap(), UNITS[1].text);
        assert!(!units.join("multi-user.target.wants").exists());
        remove(&fake.machine(), &mut Vec::new()).unwrap();
        assert!(fake.root().join(COMMAND).is_file());
    }

    #[test]
    fn without_systemd_there_are_no_units() {
        let fake = Fake::new();
        let (notes, _) = installed(&fake);
        assert!(notes[0].contains("does not run systemd"), "{notes:?}");
        assert!(!fake.root().join("etc").exists());
        assert!(fake.machine().paths.loader().is_file());
    }

    #[test]
    fn the_newest_loader_stays() {
        let mark = |version: &str| format!("\x7fELF<schedswap-loader version {version}>\0").into_bytes();
        assert_eq!(version_in(&mark("0.10.2")), Some(vec![0, 10, 2]));
        assert!(version_in(&mark("0.10.0")) > version_in(&mark("0.9.9")));
        assert!(version_in(&mark("0.0.1")) > version_in(b"no loader"));
        let this = fs::read(std::env::current_exe().unwrap()).unwrap();
        let own: Vec<u64> = env!("CARGO_PKG_VERSION").split('.').map(|part| part.parse().unwrap()).collect();
        assert_eq!(version_in(&this), Some(own));

        let fake = Fake::new();
        let place = fake.machine().paths.loader();
        fs::write(&place, mark("999.0.0")).unwrap();
        let (notes, _) = installed(&fake);
        assert!(notes.iter().any(|note| note.contains("newer")), "{notes:?}");
        assert_eq!(fs::read(&place).unwrap(), mark("999.0.0"));
        fs::write(&place, mark("0.0.1")).unwrap();
        installed(&fake);
        assert_ne!(fs::read(&place).unwrap(), mark("0.0.1"));
    }

    /// Only if systemd is installed; nothing is started.
    #[test]
    fn systemd_takes_the_units() {
        let Ok(version) = std::process::Command::new("systemd-analyze").arg("--version").output() else {
            return;
        };
        assert!(version.status.success());
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("loader");
        fs::copy("/bin/true", &program).unwrap();
        let mut command = std::process::Command::new("systemd-analyze");
        command.args(["verify", "--man=no"]);
        for unit in &UNITS {
            let place = dir.path().join(unit.name);
            let text = unit.text.replace("/var/lib/schedswap/loader", program.to_str().unwrap());
            fs::write(&place, text).unwrap();
            command.arg(place);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        // It also complains about other units of this machine.
        let about_ours: Vec<_> = said.lines().filter(|line| line.contains("schedswap")).collect();
        assert_eq!(about_ours, [""; 0]);
    }
}
