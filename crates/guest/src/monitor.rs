//! The emulator's monitor, which is asked about a guest that hangs, and sends NMIs.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How the monitor's echo of a command ends: it writes the line again with each character, and clears the rest.
const ECHO_END: &str = "\x1b[K\r\n";
/// What the monitor writes when it is ready for the next command.
const PROMPT: &str = "(qemu) ";
/// No answer takes longer. The monitor shares a lock with the virtual CPUs, and on a busy host it has waited for more than
/// five seconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// The state of each CPU's interrupt controller and timer, as the emulator reports it; empty if it does not.
pub(super) fn interrupt_controllers(monitor: &UnixStream, cpus: u32) -> String {
    let mut told = String::new();
    for cpu in 0..cpus {
        let answer = ask(monitor, &format!("info lapic {cpu}")).unwrap_or_default();
        if cpu == 0 && !answer.is_empty() {
            told.push_str("\nIts CPUs' interrupt controllers:");
        }
        for line in answer.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
            let _ = write!(told, "\n{line}");
        }
    }
    told
}

/// Sends an NMI to each CPU that accepts one from outside, and returns when they are pending.
pub(super) fn nmi(monitor: &UnixStream) -> std::io::Result<()> {
    ask(monitor, "nmi").map(drop)
}

fn ask(mut monitor: &UnixStream, command: &str) -> std::io::Result<String> {
    monitor.set_read_timeout(Some(ANSWER_LIMIT))?;
    writeln!(monitor, "{command}")?;
    let mut heard = String::new();
    let mut bytes = [0; 4096];
    loop {
        let count = monitor.read(&mut bytes)?;
        if count == 0 {
            return Ok(heard);
        }
        heard.push_str(&String::from_utf8_lossy(&bytes[..count]));
        let answer = heard.rsplit_once(ECHO_END).and_then(|(_, answer)| answer.strip_suffix(PROMPT));
        if let Some(answer) = answer {
            return Ok(answer.to_owned());
        }
    }
}
