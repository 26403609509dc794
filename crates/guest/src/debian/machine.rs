//! A machine that outlives its boots.

use super::hatch::{Hatch, quoted};
use super::{RootImage, early, modules};
use crate::{Config, Disk, Error, Guest, Initramfs, Output, Result, Tools, Usage};
use schedswap_host::progress::{Progress, Silent};
use schedswap_source::{Bootable, Cache};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// For systemd to come up, under emulation on a busy host.
const BOOT_LIMIT: Duration = Duration::from_secs(600);
/// For it to stop every unit and unmount.
const END_LIMIT: Duration = Duration::from_secs(300);
/// For a package with its scripts.
const PACKAGE_LIMIT: Duration = Duration::from_secs(600);
/// What kernel_restart() and kernel_power_off() say last; no other way to end says it.
const RESTARTED: &str = "reboot: Restarting system";
const POWERED_OFF: &str = "reboot: Power down";
/// Failed units with the ends of their logs, and what systemd still waits for.
const UNITS: &str = "systemctl list-jobs --no-legend; systemctl --failed --plain --no-legend; \
     for unit in $(systemctl --failed --plain --no-legend | cut -d' ' -f1); do \
     systemctl status --no-pager --full \"$unit\"; done";

/// How far a boot is awaited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    /// Until the agent answers, which waits for no unit: for boots that are to go wrong.
    Agent,
    /// Until multi-user.target is reached and all else has been tried; units may have failed.
    MultiUser,
    /// The same, and no unit has failed.
    Running,
}

/// A machine with a disk. It is off until [`Machine::boot`]; dropping it ends it and deletes its disk.
pub struct Machine {
    /// What the next boot starts.
    pub kernel: Bootable,
    /// What else it is made of: CPUs, memory, kernel parameters ([`Config::append`]), limits. Kernel, initramfs and
    /// disks are set by the boot. A console to keep gets the boot's number appended to its name.
    pub config: Config,
    /// How far it is awaited.
    pub until: Until,
    /// Lines of the console that contain one of these are no complaint.
    pub expected: Vec<String>,
    // Before the directory: QEMU must have ended before its files go.
    guest: Option<Guest>,
    disk: Disk,
    hatch: Hatch,
    boots: u32,
    console: PathBuf,
    boot_time: Duration,
    tools: Tools,
    cache: Cache,
    dir: TempDir,
}

impl Machine {
    /// One with a fresh disk. 2 CPUs and 1 GiB, for what counts is that it boots often.
    pub fn new(image: &RootImage, kernel: Bootable, tools: &Tools, cache: &Cache) -> Result<Machine> {
        let dir = tempfile::Builder::new().prefix("schedswap-machine-").tempdir();
        let dir = dir.map_err(Error::io("cannot create a temporary directory"))?;
        let mut config = Config::new(&kernel.bzimage, Initramfs::default());
        config.cpus = 2;
        config.memory_mib = 1024;
        config.time_limit = Duration::from_secs(3600);
        Ok(Machine {
            disk: Disk::overlay(&image.file, &dir.path().join("disk.qcow2"), "root")?,
            hatch: Hatch::new(dir.path())?,
            kernel,
            config,
            until: Until::Running,
            expected: Vec::new(),
            guest: None,
            boots: 0,
            console: PathBuf::new(),
            boot_time: Duration::ZERO,
            tools: tools.clone(),
            cache: cache.clone(),
            dir,
        })
    }

    /// Switches it on and waits as [`Machine::until`] says. After [`Error::Boot`] the machine is on, to be looked into.
    pub fn boot(&mut self) -> Result<()> {
        self.boot_telling(&Silent)
    }

    /// The same; the first boot of a kernel makes a disk of its modules.
    pub fn boot_telling(&mut self, progress: &dyn Progress) -> Result<()> {
        if self.guest.is_some() {
            return Err(Error::On);
        }
        let modules = modules::disk_image(&self.cache, &self.kernel, progress)?;
        self.boots += 1;
        self.console = match &self.config.console {
            None => self.dir.path().join(format!("console-{}", self.boots)),
            Some(path) => PathBuf::from(format!("{}-{}", path.display(), self.boots)),
        };
        let mut config = self.config.clone();
        config.kernel = self.kernel.bzimage.clone();
        config.initramfs = early::initramfs(&self.kernel, &self.tools)?;
        config.disks = vec![self.disk.clone(), Disk::shared(&modules, "modules"), self.hatch.disk()];
        config.console = Some(self.console.clone());
        // Before the user's, which win.
        config.append = early::PARAMETERS.iter().map(|(parameter, _)| parameter.to_string()).collect();
        config.append.extend(self.config.append.iter().cloned());

        let begun = Instant::now();
        let mut guest = Guest::launch(config)?;
        for text in &self.expected {
            guest.expect_on_console(text);
        }
        // Also when systemd does not get there, so that it can be asked why.
        self.guest = Some(guest);
        self.await_systemd()?;
        self.boot_time = begun.elapsed();
        Ok(())
    }

    fn await_systemd(&self) -> Result<()> {
        let guest = self.guest()?;
        let expected = match self.until {
            Until::Agent => return Ok(()),
            Until::MultiUser => "running or degraded",
            Until::Running => "running",
        };
        let failed = |state: String| -> Error {
            let units = guest.run(UNITS).map_or_else(|error| error.to_string(), |output| output.stdout);
            Error::Boot { state, expected, units }
        };
        let output = match guest.run_within("systemctl is-system-running --wait", BOOT_LIMIT) {
            Err(Error::TimedOut { state: "alive", .. }) => {
                return Err(failed(format!("starting after {} s", BOOT_LIMIT.as_secs())));
            }
            other => other?,
        };
        let state = output.stdout.trim();
        let reached = guest.run("systemctl is-active --quiet multi-user.target")?.status == 0;
        match (state, self.until, reached) {
            ("running", _, true) | ("degraded", Until::MultiUser, true) => Ok(()),
            _ => Err(failed(format!("{state}{}", output.stderr))),
        }
    }

    /// Restarts it in good order, by systemd, and boots it again with what kernel and parameters are set now. Fails
    /// when the kernel complained at any time, is tainted, or did not come to the end of its restart.
    pub fn reboot(&mut self) -> Result<()> {
        self.take()?.end_by("systemctl reboot", RESTARTED, END_LIMIT)?;
        self.boot()
    }

    /// Switches it off in good order, by systemd; fails as [`Machine::reboot`] does.
    pub fn power_off(&mut self) -> Result<Usage> {
        self.take()?.end_by("systemctl poweroff", POWERED_OFF, END_LIMIT)
    }

    /// Cuts it off at once: what it has not flushed to its disk may be lost. Fails when the kernel had complained.
    pub fn power_cut(&mut self) -> Result<Usage> {
        self.take()?.cut()
    }

    /// Checks the disk's file system; the machine must be off.
    pub fn check_disk(&self) -> Result<()> {
        if self.guest.is_some() {
            return Err(Error::On);
        }
        self.disk.check_ext4()
    }

    fn take(&mut self) -> Result<Guest> {
        self.guest.take().ok_or(Error::Off)
    }

    /// The guest that runs.
    pub fn guest(&self) -> Result<&Guest> {
        self.guest.as_ref().ok_or(Error::Off)
    }

    /// As [`Guest::sh`].
    pub fn sh(&self, command: &str) -> Result<String> {
        self.guest()?.sh(command)
    }

    /// As [`Guest::run`].
    pub fn run(&self, command: &str) -> Result<Output> {
        self.guest()?.run(command)
    }

    /// Copies a file of this machine into the guest, into a directory or to a new name.
    pub fn hand_over(&self, from: &Path, to: &str) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let metadata = fs::metadata(from).map_err(Error::io(format!("cannot read {}", from.display())))?;
        let name = from.file_name().unwrap_or_default().to_string_lossy();
        let to = if to.ends_with('/') { format!("{to}{name}") } else { to.to_string() };
        self.hatch.hand_over(self.guest()?, from, &to, metadata.permissions().mode() & 0o7777)
    }

    /// Hands a package over and runs `command` with its name in the guest appended, whatever comes of it.
    pub fn with_package(&self, command: &str, package: &Path) -> Result<Output> {
        self.hand_over(package, "/var/tmp/")?;
        let name = package.file_name().unwrap_or_default().to_string_lossy();
        self.guest()?.run_within(&format!("{command} {}", quoted(&format!("/var/tmp/{name}"))), PACKAGE_LIMIT)
    }

    /// `dpkg -i`, which must succeed; returns what it said.
    pub fn dpkg_install(&self, deb: &Path) -> Result<String> {
        succeeded("dpkg -i", self.with_package("dpkg -i", deb)?)
    }

    /// `dpkg -r` of a package, which must succeed; returns what it said.
    pub fn dpkg_remove(&self, package: &str) -> Result<String> {
        let command = format!("dpkg -r {}", quoted(package));
        succeeded(&command, self.guest()?.run_within(&command, PACKAGE_LIMIT)?)
    }

    /// `rpm -i`, which must succeed; returns what it said. What is not rpm's in this Debian, a shell excepted, rpm does
    /// not know of.
    pub fn rpm_install(&self, rpm: &Path) -> Result<String> {
        succeeded("rpm -i", self.with_package("rpm -i", rpm)?)
    }

    /// `rpm -e` of a package, which must succeed; returns what it said.
    pub fn rpm_erase(&self, package: &str) -> Result<String> {
        let command = format!("rpm -e {}", quoted(package));
        succeeded(&command, self.guest()?.run_within(&command, PACKAGE_LIMIT)?)
    }

    /// The console of the last boot, also when the machine is off.
    pub fn console(&self) -> Result<String> {
        let bytes = fs::read(&self.console)
            .map_err(Error::io(format!("cannot read the console in {}", self.console.display())))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// From the last launch until what was awaited.
    pub fn boot_time(&self) -> Duration {
        self.boot_time
    }
}

fn succeeded(command: &str, output: Output) -> Result<String> {
    let said = format!("{}{}", output.stdout, output.stderr);
    match output.status {
        0 => Ok(said),
        status => Err(Error::CommandFailed { command: command.to_string(), status, output: said }),
    }
}
