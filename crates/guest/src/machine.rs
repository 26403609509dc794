//! The running guest.

use super::channel::{Channel, End, PUT_MAX};
use super::console::{self, Complaint, Kind};
use super::process::Process;
use super::{Config, Error, Result, monitor};
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How many lines of the console to show with an error that is not a complaint of the kernel.
const TAIL_LINES: usize = 25;
/// How often a wait checks that the guest is still there.
const SLICE: Duration = Duration::from_millis(100);
/// How long after a command's limit the agent may take to report that the limit has passed.
const ANSWER_GRACE: Duration = Duration::from_secs(15);
/// The time from the end marker to the end of QEMU.
const END_LIMIT: Duration = Duration::from_secs(60);
/// The time from an NMI to the end of QEMU: a panic that says where each CPU was.
const NMI_LIMIT: Duration = Duration::from_secs(30);

/// The result of a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Output {
    /// Exit code, or 128 + the signal that killed it.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// The stream of a command from which a piece of output comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A command that was started and has not been waited for yet.
#[must_use = "a command that nobody waits for ends unnoticed"]
#[derive(Debug)]
pub struct Running {
    id: u32,
    command: String,
    limit: Duration,
    begun: Instant,
}

/// What a guest has cost.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// From launch until the agent answered.
    pub boot: Duration,
    /// From launch until asked.
    pub wall: Duration,
    /// Processor time used by QEMU.
    pub cpu: Duration,
    /// Peak memory of QEMU.
    pub peak_rss_bytes: u64,
}

/// A running guest. Dropping it ends it without looking at the console; [`Guest::shutdown`] does look.
pub struct Guest {
    // Declared before the directory, so dropped first: QEMU must have ended before its files are deleted.
    process: Process,
    channel: Channel,
    monitor: UnixStream,
    dir: TempDir,
    config: Config,
    console: PathBuf,
    command: String,
    launched: Instant,
    boot: Duration,
    expected: Vec<String>,
}

impl Guest {
    /// Starts QEMU and waits until the agent answers.
    ///
    /// # Errors
    /// [`Error::QemuMissing`] or [`Error::QemuFailed`] if QEMU does not start, [`Error::TimedOut`] if the agent does
    /// not answer within [`Config::boot_limit`], and [`Error::KernelComplaint`] or [`Error::EndedEarly`] if the guest
    /// ends before.
    pub fn launch(config: Config) -> Result<Guest> {
        // Checked here, because QEMU's own message for a missing kernel does not name the file.
        fs::metadata(&config.kernel)
            .map_err(Error::io(format!("cannot read the kernel {}", config.kernel.display())))?;
        let dir = tempfile::Builder::new().prefix("schedswap-guest-").tempdir();
        let dir = dir.map_err(Error::io("cannot create a temporary directory"))?;
        let initramfs = dir.path().join("initramfs");
        config.initramfs.write(&initramfs)?;
        let console = config.console.clone().unwrap_or_else(|| dir.path().join("console"));
        fs::write(&console, "")
            .map_err(Error::io(format!("cannot write the console to {}", console.display())))?;
        let (ours, theirs) = UnixStream::pair().map_err(Error::io("cannot create a socket"))?;
        let (monitor, asked) = UnixStream::pair().map_err(Error::io("cannot create a socket"))?;
        let arguments = config.qemu_arguments(&initramfs, &console);
        let words: Vec<_> = arguments.iter().map(|word| word.to_string_lossy()).collect();
        let command = format!("{} {}", config.qemu.display(), words.join(" "));
        let launched = Instant::now();
        let process = Process::start(&config.qemu, &arguments, theirs, asked, &dir.path().join("stderr"))?;
        let channel = Channel::new(ours)?;
        let mut guest = Guest {
            process,
            channel,
            monitor,
            dir,
            console,
            command,
            launched,
            boot: Duration::ZERO,
            expected: Vec::new(),
            config,
        };
        guest.wait_for_agent()?;
        guest.boot = launched.elapsed();
        Ok(guest)
    }

    fn wait_for_agent(&self) -> Result<()> {
        let doing = "boot";
        while !self.channel.is_up()? {
            self.check_alive(doing)?;
            if self.launched.elapsed() > self.config.boot_limit {
                return Err(self.timed_out(doing, self.config.boot_limit, "silent"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Runs a shell command and waits for its end, for at most [`Config::command_limit`].
    ///
    /// # Errors
    /// Those of [`Guest::run_within`]. A command that fails is not an error.
    pub fn run(&self, command: &str) -> Result<Output> {
        self.run_within(command, self.config.command_limit)
    }

    /// The same with an explicit limit.
    ///
    /// # Errors
    /// [`Error::TimedOut`] if the command is killed at its limit or the guest does not answer;
    /// [`Error::KernelComplaint`] or [`Error::EndedEarly`] if the guest ends meanwhile.
    pub fn run_within(&self, command: &str, limit: Duration) -> Result<Output> {
        let running = self.start(command, limit)?;
        self.finish(running)
    }

    /// Runs a shell command that must succeed; returns its standard output without the last newline.
    ///
    /// # Errors
    /// [`Error::CommandFailed`] with the command's output if its status is not 0, and those of [`Guest::run`].
    pub fn sh(&self, command: &str) -> Result<String> {
        let output = self.run(command)?;
        if output.status != 0 {
            return Err(Error::CommandFailed {
                command: command.to_string(),
                status: output.status,
                output: format!("{}{}", output.stdout, output.stderr).trim_end().to_string(),
            });
        }
        Ok(output.stdout.trim_end_matches('\n').to_string())
    }

    /// Starts a shell command that runs beside others; it is killed once the limit has passed.
    ///
    /// # Errors
    /// [`Error::Io`] if the command cannot be sent.
    pub fn start(&self, command: &str, limit: Duration) -> Result<Running> {
        let limit = limit.min(self.config.time_limit.saturating_sub(self.launched.elapsed()));
        let id = self.channel.run(command, limit)?;
        Ok(Running { id, command: command.to_string(), limit, begun: Instant::now() })
    }

    /// Waits for the end of a started command.
    ///
    /// # Errors
    /// Those of [`Guest::run_within`].
    pub fn finish(&self, running: Running) -> Result<Output> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let status = self.finish_streaming(running, |stream, bytes| match stream {
            Stream::Stdout => stdout.extend_from_slice(bytes),
            Stream::Stderr => stderr.extend_from_slice(bytes),
        })?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Output { status, stdout: text(stdout), stderr: text(stderr) })
    }

    /// Waits for the end of a started command and passes its output on as it arrives; returns its status.
    ///
    /// # Errors
    /// Those of [`Guest::run_within`].
    pub fn finish_streaming(&self, running: Running, mut output: impl FnMut(Stream, &[u8])) -> Result<i32> {
        let doing = format!("`{}`", running.command);
        loop {
            let incoming = self.channel.take(running.id, SLICE);
            for (stream, bytes) in [(Stream::Stdout, &incoming.stdout), (Stream::Stderr, &incoming.stderr)] {
                if !bytes.is_empty() {
                    output(stream, bytes);
                }
            }
            match incoming.end {
                Some(End::Exit(status)) => return Ok(status),
                Some(End::Limit) => return Err(self.timed_out(&doing, running.limit, "alive")),
                None => {}
            }
            self.check_alive(&doing)?;
            if running.begun.elapsed() > running.limit + ANSWER_GRACE {
                return Err(self.timed_out(&doing, running.limit, "silent"));
            }
        }
    }

    /// Writes a file in the guest, at about 100 KB/s. Files that are known before the launch belong into the
    /// initramfs.
    ///
    /// # Errors
    /// [`Error::CommandFailed`] if the guest cannot write the file, and those of [`Guest::run_within`].
    pub fn put(&self, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let pieces: Vec<&[u8]> = if bytes.is_empty() { vec![bytes] } else { bytes.chunks(PUT_MAX).collect() };
        for (number, piece) in pieces.into_iter().enumerate() {
            let id = self.channel.put(path, piece, mode, number > 0)?;
            let command = format!("put {path}");
            let running = Running { id, command, limit: self.config.command_limit, begun: Instant::now() };
            let output = self.finish(running)?;
            if output.status != 0 {
                return Err(Error::CommandFailed {
                    command: format!("put {path}"),
                    status: output.status,
                    output: output.stderr,
                });
            }
        }
        Ok(())
    }

    /// Sends an NMI to the first CPU; to all CPUs if the kernel has the parameter `apic_extnmi=all`. With the parameters
    /// that every guest has ([`super::Config::append`] comes after them), a kernel panics if nobody handles the NMI.
    ///
    /// # Errors
    /// [`Error::Io`] if the emulator does not answer.
    pub fn nmi(&self) -> Result<()> {
        monitor::nmi(&self.monitor).map_err(Error::io("cannot ask the emulator for an NMI"))
    }

    /// From now on, a line of the console that contains `text` does not count as a complaint, wherever it is.
    pub fn expect_on_console(&mut self, text: &str) {
        self.expected.push(text.to_string());
    }

    /// The console so far.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read.
    pub fn console(&self) -> Result<String> {
        let bytes = fs::read(&self.console)
            .map_err(Error::io(format!("cannot read the console in {}", self.console.display())))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The kernel's complaints so far.
    ///
    /// # Errors
    /// [`Error::Io`] if the console cannot be read.
    pub fn complaints(&self) -> Result<Vec<Complaint>> {
        Ok(console::complaints(&self.console()?, &self.expected))
    }

    /// What the guest has cost so far.
    pub fn usage(&self) -> Usage {
        let (cpu, peak_rss_bytes) = self.process.usage().unwrap_or_default();
        Usage { boot: self.boot, wall: self.launched.elapsed(), cpu, peak_rss_bytes }
    }

    /// Ends the guest in an orderly way. Fails if the kernel complained at any time, is tainted, or ends without the
    /// end marker.
    ///
    /// # Errors
    /// [`Error::KernelComplaint`], [`Error::Tainted`] or [`Error::EndedEarly`], as said above, and
    /// [`Error::TimedOut`] if the guest does not end.
    pub fn shutdown(self) -> Result<Usage> {
        let (tainted, usage) = self.at_the_end()?;
        let marker =
            format!("schedswap guest ends in good order: {}-{}", std::process::id(), usage.wall.as_nanos());
        self.channel.quit(&marker)?;
        if self.process.wait(END_LIMIT).is_none() {
            return Err(self.timed_out("shutdown", END_LIMIT, "silent"));
        }
        self.check_end("shutdown", &marker, tainted)?;
        Ok(usage)
    }

    /// Ends the guest by a command of its own (`systemctl reboot`), which need not be answered. `marker` is what the
    /// kernel writes to the console at the end of it. Fails like [`Guest::shutdown`].
    ///
    /// # Errors
    /// Those of [`Guest::shutdown`], and [`Error::CommandFailed`] if the command itself fails.
    pub fn end_by(self, command: &str, marker: &str, limit: Duration) -> Result<Usage> {
        let (tainted, usage) = self.at_the_end()?;
        let begun = Instant::now();
        let id = self.channel.run(command, limit)?;
        let mut output = String::new();
        while self.process.exited().is_none() {
            let incoming = self.channel.take(id, SLICE);
            for bytes in [incoming.stdout, incoming.stderr] {
                output.push_str(&String::from_utf8_lossy(&bytes));
            }
            if let Some(End::Exit(status)) = incoming.end
                // 128 + SIGTERM: the command was ended together with the system.
                && !matches!(status, 0 | 143)
            {
                return Err(Error::CommandFailed { command: command.to_string(), status, output });
            }
            if begun.elapsed() > limit {
                return Err(self.timed_out(command, limit, "silent"));
            }
            // Without anything to wait for, `take` returns at once.
            std::thread::sleep(Duration::from_millis(5));
        }
        self.check_end(command, marker, tainted)?;
        Ok(usage)
    }

    /// Ends the guest at once, like a power cut, without asking it anything. Fails if the kernel had complained.
    ///
    /// # Errors
    /// [`Error::KernelComplaint`] if the kernel had complained.
    pub fn cut(self) -> Result<Usage> {
        let usage = self.usage();
        self.process.kill();
        self.check_console("power cut")?;
        Ok(usage)
    }

    /// The kernel's taint and what the guest has cost.
    fn at_the_end(&self) -> Result<(u64, Usage)> {
        let tainted = self.sh("cat /proc/sys/kernel/tainted")?;
        Ok((tainted.trim().parse().unwrap_or(u64::MAX), self.usage()))
    }

    fn check_end(&self, doing: &str, marker: &str, tainted: u64) -> Result<()> {
        self.check_console(doing)?;
        if !self.console()?.contains(marker) {
            return Err(Error::EndedEarly { doing: doing.to_string(), console_tail: self.tail() });
        }
        match console::unexpected_taints(tainted, &self.config.allowed_taints) {
            Some(flags) => Err(Error::Tainted { flags, value: tainted }),
            None => Ok(()),
        }
    }

    fn check_console(&self, doing: &str) -> Result<()> {
        let complaints = self.complaints()?;
        if complaints.is_empty() {
            return Ok(());
        }
        Err(Error::KernelComplaint { doing: doing.to_string(), complaints })
    }

    /// Explains the end of a guest that should still be running. An end within the time limit is found first.
    fn check_alive(&self, doing: &str) -> Result<()> {
        if let Some(status) = self.process.exited() {
            self.check_console(doing)?;
            if self.console()?.trim().is_empty() {
                let stderr = fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default();
                return Err(Error::QemuFailed {
                    status: status.to_string(),
                    stderr: stderr.trim().to_string(),
                    command: self.command.clone(),
                });
            }
            return Err(Error::EndedEarly { doing: doing.to_string(), console_tail: self.tail() });
        }
        if self.channel.is_closed() && self.process.wait(Duration::from_secs(5)).is_none() {
            return Err(self.timed_out(
                &format!("{doing}: the agent's channel broke"),
                Duration::from_secs(5),
                "silent",
            ));
        }
        if self.launched.elapsed() > self.config.time_limit + ANSWER_GRACE {
            return Err(self.timed_out(doing, self.config.time_limit, "silent"));
        }
        Ok(())
    }

    /// A guest is often late because its kernel is in trouble, so that is reported first. A silent guest is made to
    /// say where it hangs, which ends it.
    fn timed_out(&self, doing: &str, after: Duration, state: &'static str) -> Error {
        // A kernel that gets no timer interrupt is late as well; only the emulator knows whether one is pending.
        let controllers = monitor::interrupt_controllers(&self.monitor, self.config.cpus);
        let late = format!("{doing}, which was not done after {} s{controllers}", after.as_secs());
        if let Err(complaint) = self.check_console(&late) {
            return complaint;
        }
        let console_tail = if state == "silent" { self.where_it_hangs(&controllers) } else { self.tail() };
        Error::TimedOut { doing: doing.to_string(), after, state, console_tail }
    }

    /// The end of the console, followed by what the guest writes after an NMI.
    fn where_it_hangs(&self, controllers: &str) -> String {
        let before = self.tail();
        let known = self.console().map_or(0, |console| console.lines().count());
        // With the parameters that guests get, the kernel panics, and each CPU says what it was doing even if it had
        // its interrupts off.
        if (&self.monitor).write_all(b"nmi\n").is_ok() {
            self.process.wait(NMI_LIMIT);
        }
        let console = self.console().unwrap_or_default();
        let answer: Vec<&str> = console.lines().skip(known).collect();
        format!("{before}{controllers}\nAsked by an NMI where it is, the guest said:\n{}", answer.join("\n"))
    }

    fn tail(&self) -> String {
        console::tail(&self.console().unwrap_or_default(), TAIL_LINES)
    }
}

impl Error {
    /// Whether the kernel made a complaint of this kind.
    pub fn complains_of(&self, kind: Kind) -> bool {
        matches!(self, Error::KernelComplaint { complaints, .. } if complaints.iter().any(|c| c.kind == kind))
    }
}
