//! What can go wrong with a guest.

use super::console::Complaint;
use std::fmt::Write;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// Why a guest could not be started, did not do as it was told, or ended badly.
#[derive(Debug, Error)]
pub enum Error {
    /// QEMU is not installed.
    #[error(
        "{program} was not found: install Debian's package qemu-system-x86 (from bookworm-backports where \
         qemu-utils is already the newer one) or your distribution's qemu-system-x86-core"
    )]
    QemuMissing {
        /// What was looked for.
        program: String,
    },
    /// QEMU ended before the kernel wrote anything.
    #[error("QEMU did not start ({status}): {stderr}\nit was started as: {command}")]
    QemuFailed {
        /// Exit status.
        status: String,
        /// What it said.
        stderr: String,
        /// Program and arguments.
        command: String,
    },
    /// A program that the guest needs was not found on this machine.
    #[error("{name} was not found in {looked_in}: {hint}")]
    ToolMissing {
        /// The program.
        name: &'static str,
        /// Where it was looked for.
        looked_in: String,
        /// What to do.
        hint: &'static str,
    },
    /// A program named with `--with` was not found.
    #[error("program {name} was not found as a file or in PATH: name an installed program")]
    ProgramMissing {
        /// As given.
        name: String,
    },
    /// The libraries of a program could not be determined.
    #[error("cannot take {program} into the guest: {reason}")]
    ProgramUnusable {
        /// The program.
        program: PathBuf,
        /// Why.
        reason: String,
    },
    /// The kernel complained on the console.
    #[error("{}", describe_complaints(.complaints, .doing))]
    KernelComplaint {
        /// What was being done when it was noticed.
        doing: String,
        /// What was found, in order.
        complaints: Vec<Complaint>,
    },
    /// The kernel is tainted by more than an unsigned out-of-tree module.
    #[error("the guest's kernel is tainted: {flags} (value {value})")]
    Tainted {
        /// Letters and meanings of the unexpected flags.
        flags: String,
        /// /proc/sys/kernel/tainted
        value: u64,
    },
    /// Something took longer than allowed.
    #[error(
        "{doing}: not done after {} s; the guest was {state}. The console ends with:\n{console_tail}",
        .after.as_secs()
    )]
    TimedOut {
        /// What was being done.
        doing: String,
        /// The limit.
        after: Duration,
        /// `alive`, or `silent` if the agent did not answer either.
        state: &'static str,
        /// Last lines of the console.
        console_tail: String,
    },
    /// The guest ended although it was not told to, without a complaint of the kernel.
    #[error(
        "{doing}: the guest ended by itself, without its end marker. The console ends with:\n{console_tail}"
    )]
    EndedEarly {
        /// What was being done.
        doing: String,
        /// Last lines of the console.
        console_tail: String,
    },
    /// A command in the guest did not succeed, and the caller had asked for success.
    #[error("in the guest, `{command}` ended with {status}: {output}")]
    CommandFailed {
        /// The shell command.
        command: String,
        /// Its exit status.
        status: i32,
        /// Its output and error output.
        output: String,
    },
    /// The loader's safety checks refused in the guest, other than because threads were in the way.
    #[error("in the guest, the loader refused and changed nothing (`{command}`): {output}")]
    LoaderRefused {
        /// What it was run with.
        command: String,
        /// Its reasons.
        output: String,
    },
    /// The agent in the guest speaks another version of the protocol.
    #[error(
        "the guest-load program speaks version {found} of the channel, this library speaks version {expected}: \
         they are from different builds; rebuild both"
    )]
    Protocol {
        /// The agent's.
        found: u32,
        /// Ours.
        expected: u32,
    },
    /// A program of this machine that makes a guest's disks is missing.
    #[error("{program} is not installed: install the package {package}, or run `scripts/setup.sh disk`")]
    HostProgramMissing {
        /// Its name.
        program: String,
        /// The Debian package it is in.
        package: &'static str,
    },
    /// It failed.
    #[error("{doing} failed ({program} ended with {status}); it said:\n{said}")]
    HostProgramFailed {
        /// What it was run for.
        doing: String,
        /// Its name.
        program: String,
        /// Its exit status.
        status: String,
        /// Its output.
        said: String,
    },
    /// The kernel lacks a module that it needs to reach the guest's disk.
    #[error(
        "kernel {release} has no {module}, neither built in nor as a module below {}: it cannot boot from a \
         disk. Use another kernel, or complete its modules",
        looked_in.display()
    )]
    ModuleMissing {
        /// The kernel.
        release: String,
        /// The module.
        module: String,
        /// Where it was looked for.
        looked_in: PathBuf,
    },
    /// A kernel's file is not as it should be.
    #[error("{} is not a readable kernel module: {reason}. Install its package again", file.display())]
    ModuleUnreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// The machine was asked something while it was off.
    #[error("the machine is off: boot it first")]
    Off,
    /// The machine was to be switched on while it was on.
    #[error("the machine is on: use reboot, or shut it down first")]
    On,
    /// systemd did not get as far as it should have.
    #[error("systemd is {state:?} after the boot, expected {expected:?}; its units:\n{units}")]
    Boot {
        /// As `systemctl is-system-running` says.
        state: String,
        /// The same, as the caller wants it.
        expected: &'static str,
        /// Failed units with the ends of their logs, and jobs that still wait.
        units: String,
    },
    /// A part of the guest could not be fetched.
    #[error(transparent)]
    Source(#[from] schedswap_source::SourceError),
    /// Something in the guest differs from what the scenario requires.
    #[error("{0}")]
    Scenario(String),
    /// An operation of this machine failed.
    #[error("{doing}")]
    Io {
        /// What was being done, with the file.
        doing: String,
        /// The cause.
        source: io::Error,
    },
}

impl Error {
    /// Whether a safety check refused, as opposed to something that failed.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Error::LoaderRefused { .. })
    }

    /// For `map_err` on I/O.
    pub(super) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let doing = doing.into();
        move |source| Error::Io { doing, source }
    }
}

/// What a guest operation returns.
pub type Result<T> = std::result::Result<T, Error>;

fn describe_complaints(complaints: &[Complaint], doing: &str) -> String {
    let mut text = format!(
        "the guest's kernel complained {} (noticed during: {doing})",
        if complaints.len() == 1 { "once".to_string() } else { format!("{} times", complaints.len()) }
    );
    for complaint in complaints {
        let _ = write!(
            text,
            "\n{} in line {} of the console:\n{}",
            complaint.kind, complaint.line, complaint.context
        );
    }
    text
}
