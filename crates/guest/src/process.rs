//! The emulator's process. It is ended by its own id, and never left running.

use super::{Error, Result};
use rustix::process::{Signal, set_parent_process_death_signal};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often to look at the child.
const LOOK: Duration = Duration::from_millis(10);

/// A running (or ended) QEMU. Killed when dropped.
pub(super) struct Process {
    pid: u32,
    kill: Sender<()>,
    status: Arc<OnceLock<ExitStatus>>,
    watcher: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts `program` with `agent` as its standard input, `monitor` as its standard output, and the file `stderr`
    /// for its errors.
    pub(super) fn start(
        program: &Path,
        arguments: &[OsString],
        agent: UnixStream,
        monitor: UnixStream,
        stderr: &Path,
    ) -> Result<Process> {
        let errors = File::create(stderr).map_err(Error::io(format!("cannot write {}", stderr.display())))?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(OwnedFd::from(agent)).stdout(OwnedFd::from(monitor)).stderr(errors);
        die_with_parent(&mut command);

        let (started, start) = channel();
        let (kill, killed) = channel();
        let status = Arc::new(OnceLock::new());
        let exit = status.clone();
        // The thread that spawns the child also waits for it: PR_SET_PDEATHSIG means the death of the parent's
        // thread, so the thread has to live as long as the child.
        let watcher = thread::spawn(move || match command.spawn() {
            Ok(child) => {
                drop(command);
                let _ = started.send(Ok(child.id()));
                watch(child, &killed, &exit);
            }
            Err(error) => {
                let _ = started.send(Err(error));
            }
        });
        match start.recv() {
            Ok(Ok(pid)) => Ok(Process { pid, kill, status, watcher: Some(watcher) }),
            Ok(Err(error)) if error.kind() == ErrorKind::NotFound => {
                Err(Error::QemuMissing { program: program.display().to_string() })
            }
            Ok(Err(error)) => Err(Error::io(format!("cannot start {}", program.display()))(error)),
            Err(_) => Err(Error::io("cannot start QEMU")(ErrorKind::Other.into())),
        }
    }

    /// The exit status, once the process has ended.
    pub(super) fn exited(&self) -> Option<ExitStatus> {
        self.status.get().copied()
    }

    /// Waits for the end; `None` if it does not come in time.
    pub(super) fn wait(&self, limit: Duration) -> Option<ExitStatus> {
        let begun = Instant::now();
        while self.exited().is_none() && begun.elapsed() < limit {
            thread::sleep(LOOK);
        }
        self.exited()
    }

    /// Kills the process, and returns once it is gone.
    pub(super) fn kill(&self) {
        let _ = self.kill.send(());
        while self.exited().is_none() && self.watcher.as_ref().is_some_and(|watcher| !watcher.is_finished()) {
            thread::sleep(LOOK);
        }
    }

    /// Processor time used so far (user and system), and peak memory in bytes.
    pub(super) fn usage(&self) -> Option<(Duration, u64)> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        // The name in parentheses may contain blanks; utime and stime are fields 14 and 15 of the line.
        let ticks: u64 = stat
            .rsplit_once(')')?
            .1
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|t| t.parse::<u64>().ok())
            .sum();
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let peak_kib: u64 = peak.split_whitespace().next()?.parse().ok()?;
        let per_second = rustix::param::clock_ticks_per_second().max(1);
        Some((Duration::from_millis(ticks * 1000 / per_second), peak_kib * 1024))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill.send(());
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
    }
}

fn watch(mut child: Child, killed: &Receiver<()>, exit: &OnceLock<ExitStatus>) {
    let mut look = LOOK;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => {
                let _ = exit.set(status);
                return;
            }
            Ok(None) => {}
            Err(_) => return,
        }
        match killed.recv_timeout(look) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                let _ = child.kill();
                // The signal was sent; from here on, only its effect is awaited.
                look = LOOK;
                thread::sleep(look);
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// However the parent ends, the emulator must not go on running.
#[allow(unsafe_code)]
fn die_with_parent(command: &mut Command) {
    // SAFETY: prctl(PR_SET_PDEATHSIG) is a plain system call: it allocates nothing and takes no lock, so it
    // may run between fork and exec.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
}
