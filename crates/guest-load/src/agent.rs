//! The guest's end of the command channel.
//!
//! Frames go in both directions: a byte for the kind, the command's number (u32, little endian), the payload's length
//! (u32, little endian), the payload.
//!
//! | from the host | payload |
//! |---|---|
//! | `R` run | time limit in ms (u32), then the shell command |
//! | `P` put | mode (u32), 1 to append (u8), path length (u16), path, bytes |
//! | `Q` quit | the end marker to write to the console |
//!
//! | to the host | payload |
//! |---|---|
//! | `H` hello | the protocol's version (u32); number 0 |
//! | `O`, `E` | what the command wrote to its standard output, error |
//! | `X` exit | status (i32): the exit code, 128 + signal |
//! | `L` limit | nothing: the command was killed because its time limit had passed |
//!
//! `schedswap_guest::channel` is the other end.

use anyhow::{Context, Result, bail};
use clap::Args;
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::system::{RebootCommand, reboot};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// The host checks it, so that an agent of another version is reported as such and does not misbehave.
const PROTOCOL: u32 = 1;
/// The host sends no longer frame; a longer one means that the channel is out of sync.
const FRAME_MAX: usize = 1 << 20;
/// How long the output of an ended command may be silent before it counts as complete: a child that the command left
/// behind keeps the pipe open.
const DRAIN: Duration = Duration::from_millis(300);
/// How long the output of such a child may delay the answer.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Arguments of `agent`.
#[derive(Args)]
pub struct AgentArgs {
    /// The serial port whose other end the host holds
    port: PathBuf,
}

type Port = Arc<Mutex<File>>;

/// Serves until the host sends quit; then writes the end marker and restarts the machine, which ends the emulator.
pub fn run(args: &AgentArgs) -> Result<ExitCode> {
    let mut port = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY)
        .open(&args.port)
        .with_context(|| format!("cannot open {}", args.port.display()))?;
    let mut mode = tcgetattr(&port).context("the port is not a terminal device")?;
    mode.make_raw();
    tcsetattr(&port, OptionalActions::Flush, &mode)?;
    // The agent must survive when the guest runs out of memory, because it reports that.
    let _ = fs::write("/proc/self/oom_score_adj", "-1000");

    let answers: Port = Arc::new(Mutex::new(port.try_clone()?));
    send(&answers, b'H', 0, &PROTOCOL.to_le_bytes())?;
    loop {
        let (kind, id, payload) = receive(&mut port)?;
        match kind {
            b'R' => {
                let answers = answers.clone();
                thread::spawn(move || {
                    if let Err(error) = execute(&answers, id, &payload) {
                        let _ = send(&answers, b'E', id, format!("agent: {error:#}\n").as_bytes());
                        let _ = send(&answers, b'X', id, &126i32.to_le_bytes());
                    }
                });
            }
            b'P' => {
                let status: i32 = match put(&payload) {
                    Ok(()) => 0,
                    Err(error) => {
                        send(&answers, b'E', id, format!("{error:#}").as_bytes())?;
                        1
                    }
                };
                send(&answers, b'X', id, &status.to_le_bytes())?;
            }
            b'Q' => return end(&payload),
            other => bail!("frame of unknown kind {other:#04x}: the channel is out of sync"),
        }
    }
}

fn send(port: &Port, kind: u8, id: u32, payload: &[u8]) -> Result<()> {
    let mut frame = Vec::with_capacity(9 + payload.len());
    frame.push(kind);
    frame.extend(id.to_le_bytes());
    frame.extend((payload.len() as u32).to_le_bytes());
    frame.extend(payload);
    port.lock().expect("no thread panics while it writes").write_all(&frame)?;
    Ok(())
}

fn receive(port: &mut File) -> Result<(u8, u32, Vec<u8>)> {
    let mut header = [0; 9];
    port.read_exact(&mut header)?;
    let id = u32::from_le_bytes(header[1..5].try_into()?);
    let len = u32::from_le_bytes(header[5..9].try_into()?) as usize;
    if len > FRAME_MAX {
        bail!("frame of {len} bytes: the channel is out of sync");
    }
    let mut payload = vec![0; len];
    port.read_exact(&mut payload)?;
    Ok((header[0], id, payload))
}

fn execute(port: &Port, id: u32, payload: &[u8]) -> Result<()> {
    let (limit, command) = payload.split_first_chunk().context("short frame")?;
    let limit = Duration::from_millis(u32::from_le_bytes(*limit).into());
    let mut child = Command::new("/bin/sh")
        .arg("-c")
        .arg(String::from_utf8_lossy(command).as_ref())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env("HOME", "/root")
        .process_group(0)
        .spawn()
        .context("cannot start /bin/sh")?;
    let done = [
        forward(port, b'O', id, child.stdout.take().context("stdout was piped")?),
        forward(port, b'E', id, child.stderr.take().context("stderr was piped")?),
    ];
    let status = wait(&mut child, limit)?;
    // A child left in the background may hold the pipes open for ever; it does not delay the answer. The command's
    // own output does, however slow the port is.
    let ended = Instant::now();
    let mut last = (0, ended);
    while last.1.elapsed() < DRAIN
        && ended.elapsed() < DRAIN_MAX
        && !done.iter().all(|stream| stream.ended.load(Ordering::Acquire))
    {
        thread::sleep(Duration::from_millis(1));
        let steps = done.iter().map(|stream| stream.steps.load(Ordering::Acquire)).sum();
        let sending = done.iter().any(|stream| stream.steps.load(Ordering::Acquire) % 2 == 1);
        if sending || steps != last.0 {
            last = (steps, Instant::now());
        }
    }
    match status {
        None => send(port, b'L', id, &[]),
        Some(status) => {
            let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
            send(port, b'X', id, &code.to_le_bytes())
        }
    }
}

/// Waits for the end; `None` if the limit passed and the whole process group was killed.
fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let begun = Instant::now();
    let mut pause = Duration::from_micros(500);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begun.elapsed() > limit {
            if let Some(group) = Pid::from_raw(child.id() as i32) {
                let _ = kill_process_group(group, Signal::KILL);
            }
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// How far a stream of output has been forwarded.
#[derive(Default)]
struct Forwarded {
    /// Counts one when a piece has been read and one when it has been sent, so it is odd while a piece is under way.
    steps: AtomicU64,
    ended: AtomicBool,
}

/// Sends what `from` yields as frames of `kind`.
fn forward(port: &Port, kind: u8, id: u32, mut from: impl Read + Send + 'static) -> Arc<Forwarded> {
    let stream = Arc::new(Forwarded::default());
    let (port, progress) = (port.clone(), stream.clone());
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => {
                    progress.steps.fetch_add(1, Ordering::AcqRel);
                    let sent = send(&port, kind, id, &buffer[..read]);
                    progress.steps.fetch_add(1, Ordering::AcqRel);
                    if sent.is_err() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        progress.ended.store(true, Ordering::Release);
    });
    stream
}

fn put(payload: &[u8]) -> Result<()> {
    let (mode, rest) = payload.split_first_chunk::<4>().context("short frame")?;
    let (append, rest) = rest.split_first().context("short frame")?;
    let (len, rest) = rest.split_first_chunk::<2>().context("short frame")?;
    let len = u16::from_le_bytes(*len) as usize;
    if rest.len() < len {
        bail!("short frame");
    }
    let (path, bytes) = rest.split_at(len);
    let path = Path::new(std::str::from_utf8(path)?);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let append = *append == 1;
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .append(append)
        .truncate(!append)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(bytes)?;
    file.set_permissions(fs::Permissions::from_mode(u32::from_le_bytes(*mode)))?;
    Ok(())
}

fn end(marker: &[u8]) -> Result<ExitCode> {
    rustix::fs::sync();
    fs::write("/dev/kmsg", marker).context("cannot write the end marker")?;
    reboot(RebootCommand::Restart).context("cannot restart")?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn put_creates_directories_and_appends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let frame = |append: u8, bytes: &[u8]| {
            let name = path.to_str().unwrap().as_bytes();
            let mut frame = 0o600u32.to_le_bytes().to_vec();
            frame.push(append);
            frame.extend((name.len() as u16).to_le_bytes());
            frame.extend(name);
            frame.extend(bytes);
            frame
        };
        put(&frame(0, b"old")).unwrap();
        put(&frame(0, b"one ")).unwrap();
        put(&frame(1, b"two")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn short_put_frames_are_refused() {
        assert!(put(&[]).is_err());
        assert!(put(&[0, 0, 0, 0, 0, 255, 0, b'x']).is_err());
    }
}
