//! A machine that is booted more than once.

use super::transfer_disk::{TransferDisk, quoted};
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
/// For systemd to stop every unit and unmount.
const END_LIMIT: Duration = Duration::from_secs(300);
/// For a package and its scripts.
const PACKAGE_LIMIT: Duration = Duration::from_secs(600);
/// The last message of kernel_restart() and kernel_power_off(), which no other kind of end writes.
const RESTARTED: &str = "reboot: Restarting system";
const POWERED_OFF: &str = "reboot: Power down";
/// Failed units with the ends of their logs, and the jobs for which systemd still waits.
const UNITS: &str = "systemctl list-jobs --no-legend; systemctl --failed --plain --no-legend; \
     for unit in $(systemctl --failed --plain --no-legend | cut -d' ' -f1); do \
     systemctl status --no-pager --full \"$unit\"; done";

/// How far a boot must get.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    /// Until the agent answers, which waits for no unit: for boots that are meant to go wrong.
    Agent,
    /// Until multi-user.target is reached and every unit has been tried; units may have failed.
    MultiUser,
    /// The same, with no failed unit.
    Running,
}

/// A machine with a disk. It is off until [`Machine::boot`]; dropping it ends it and deletes its disk.
pub struct Machine {
    /// The kernel that the next boot starts.
    pub kernel: Bootable,
    /// The rest of its configuration: CPUs, memory, kernel parameters ([`Config::append`]), limits. Each boot sets
    /// kernel, initramfs and disks. If the console is to be kept, the number of the boot is appended to the file's
    /// name.
    pub config: Config,
    /// How far each boot must get.
    pub until: Until,
    /// Lines of the console that contain one of these do not count as complaints.
    pub expected: Vec<String>,
    // Declared before the directory, so dropped first: QEMU must have ended before its files are deleted.
    guest: Option<Guest>,
    disk: Disk,
    transfer: TransferDisk,
    boots: u32,
    console: PathBuf,
    boot_time: Duration,
    tools: Tools,
    cache: Cache,
    dir: TempDir,
}

impl Machine {
    /// A machine with a fresh disk. It has 2 CPUs and 1 GiB, because what counts is that it boots often.
    ///
    /// # Errors
    /// If the disk or its directory cannot be made.
    pub fn new(image: &RootImage, kernel: Bootable, tools: &Tools, cache: &Cache) -> Result<Machine> {
        let dir = tempfile::Builder::new().prefix("schedswap-machine-").tempdir();
        let dir = dir.map_err(Error::io("cannot create a temporary directory"))?;
        let mut config = Config::new(&kernel.bzimage, Initramfs::default());
        config.cpus = 2;
        config.memory_mib = 1024;
        config.time_limit = Duration::from_secs(3600);
        Ok(Machine {
            disk: Disk::overlay(&image.file, &dir.path().join("disk.qcow2"), "root")?,
            transfer: TransferDisk::new(dir.path())?,
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

    /// Switches the machine on and waits as [`Machine::until`] says. After [`Error::Boot`] the machine stays on, so
    /// that it can be examined.
    ///
    /// # Errors
    /// [`Error::On`] if the machine is on, [`Error::Boot`] if systemd did not get as far as [`Machine::until`] says,
    /// and the errors of [`Guest::launch`].
    pub fn boot(&mut self) -> Result<()> {
        self.boot_telling(&Silent)
    }

    /// The same, with progress messages: the first boot of a kernel makes a disk of its modules.
    ///
    /// # Errors
    /// Those of [`Machine::boot`], and [`Error::HostProgramMissing`] or [`Error::HostProgramFailed`] if the disk of
    /// the modules cannot be made.
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
        config.disks = vec![self.disk.clone(), Disk::shared(&modules, "modules"), self.transfer.disk()];
        config.console = Some(self.console.clone());
        // Before the user's own parameters, which take precedence.
        config.append = early::PARAMETERS.iter().map(|(parameter, _)| parameter.to_string()).collect();
        config.append.extend(self.config.append.iter().cloned());

        let begun = Instant::now();
        let mut guest = Guest::launch(config)?;
        for text in &self.expected {
            guest.expect_on_console(text);
        }
        // This holds even if systemd does not get there, so that it can be asked why.
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

    /// Restarts the machine in an orderly way, by systemd, and boots it again with the kernel and parameters that are
    /// set now. Fails if the kernel complained at any time, is tainted, or did not reach the end of its restart.
    ///
    /// # Errors
    /// [`Error::Off`] if the machine is off, else those of [`Guest::end_by`] and [`Machine::boot`].
    pub fn reboot(&mut self) -> Result<()> {
        self.take()?.end_by("systemctl reboot", RESTARTED, END_LIMIT)?;
        self.boot()
    }

    /// Switches the machine off in an orderly way, by systemd; fails like [`Machine::reboot`].
    ///
    /// # Errors
    /// [`Error::Off`] if the machine is off, else those of [`Guest::end_by`].
    pub fn power_off(&mut self) -> Result<Usage> {
        self.take()?.end_by("systemctl poweroff", POWERED_OFF, END_LIMIT)
    }

    /// Cuts the power: what the machine has not flushed to its disk may be lost. Fails if the kernel had complained.
    ///
    /// # Errors
    /// [`Error::Off`] if the machine is off, else those of [`Guest::cut`].
    pub fn power_cut(&mut self) -> Result<Usage> {
        self.take()?.cut()
    }

    /// Checks the disk's file system; the machine must be off.
    ///
    /// # Errors
    /// [`Error::On`] if the machine is on, else those of [`Disk::check_ext4`].
    pub fn check_disk(&self) -> Result<()> {
        if self.guest.is_some() {
            return Err(Error::On);
        }
        self.disk.check_ext4()
    }

    fn take(&mut self) -> Result<Guest> {
        self.guest.take().ok_or(Error::Off)
    }

    /// The running guest.
    ///
    /// # Errors
    /// [`Error::Off`] if the machine is off.
    pub fn guest(&self) -> Result<&Guest> {
        self.guest.as_ref().ok_or(Error::Off)
    }

    /// Like [`Guest::sh`].
    ///
    /// # Errors
    /// [`Error::Off`] if the machine is off, else those of [`Guest::sh`].
    pub fn sh(&self, command: &str) -> Result<String> {
        self.guest()?.sh(command)
    }

    /// Like [`Guest::run`].
    ///
    /// # Errors
    /// [`Error::Off`] if the machine is off, else those of [`Guest::run`].
    pub fn run(&self, command: &str) -> Result<Output> {
        self.guest()?.run(command)
    }

    /// Copies a file of this machine into the guest, into a directory or under a new name.
    ///
    /// # Errors
    /// [`Error::Off`] if the machine is off, [`Error::Io`] if the file cannot be read, and [`Error::Scenario`] if it
    /// is too large.
    pub fn hand_over(&self, from: &Path, to: &str) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let metadata = fs::metadata(from).map_err(Error::io(format!("cannot read {}", from.display())))?;
        let name = from.file_name().unwrap_or_default().to_string_lossy();
        let to = if to.ends_with('/') { format!("{to}{name}") } else { to.to_string() };
        self.transfer.hand_over(self.guest()?, from, &to, metadata.permissions().mode() & 0o7777)
    }

    /// Hands a package over and runs `command` with the package's path in the guest appended. Returns its output,
    /// whether or not it succeeded.
    ///
    /// # Errors
    /// Those of [`Machine::hand_over`] and [`Guest::run`]. A failure of the command is not an error.
    pub fn with_package(&self, command: &str, package: &Path) -> Result<Output> {
        self.hand_over(package, "/var/tmp/")?;
        let name = package.file_name().unwrap_or_default().to_string_lossy();
        self.guest()?.run_within(&format!("{command} {}", quoted(&format!("/var/tmp/{name}"))), PACKAGE_LIMIT)
    }

    /// Runs `dpkg -i`, which must succeed; returns its output.
    ///
    /// # Errors
    /// [`Error::CommandFailed`] with dpkg's output, and those of [`Machine::with_package`].
    pub fn dpkg_install(&self, deb: &Path) -> Result<String> {
        succeeded("dpkg -i", self.with_package("dpkg -i", deb)?)
    }

    /// Runs `dpkg -r` for a package, which must succeed; returns its output.
    ///
    /// # Errors
    /// [`Error::CommandFailed`] with dpkg's output, and those of [`Machine::run`].
    pub fn dpkg_remove(&self, package: &str) -> Result<String> {
        let command = format!("dpkg -r {}", quoted(package));
        succeeded(&command, self.guest()?.run_within(&command, PACKAGE_LIMIT)?)
    }

    /// Runs `rpm -i`, which must succeed; returns its output. In this Debian, rpm knows only its own packages and a
    /// shell.
    ///
    /// # Errors
    /// [`Error::CommandFailed`] with rpm's output, and those of [`Machine::with_package`].
    pub fn rpm_install(&self, rpm: &Path) -> Result<String> {
        succeeded("rpm -i", self.with_package("rpm -i", rpm)?)
    }

    /// Runs `rpm -e` for a package, which must succeed; returns its output.
    ///
    /// # Errors
    /// [`Error::CommandFailed`] with rpm's output, and those of [`Machine::run`].
    pub fn rpm_erase(&self, package: &str) -> Result<String> {
        let command = format!("rpm -e {}", quoted(package));
        succeeded(&command, self.guest()?.run_within(&command, PACKAGE_LIMIT)?)
    }

    /// The console of the last boot, even if the machine is off.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, as before the first boot.
    pub fn console(&self) -> Result<String> {
        let bytes = fs::read(&self.console)
            .map_err(Error::io(format!("cannot read the console in {}", self.console.display())))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The time from the last launch until the awaited state.
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
