//! What the kernel logs about the module during an attempt, read from `/dev/kmsg`.

use crate::module_file::is_a_scheduler_s_name;
use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use std::os::fd::OwnedFd;

/// The kernel log from one moment on.
pub struct KernelLog {
    /// `None` if the log cannot be read; then nothing is shown, and nothing else depends on it.
    device: Option<OwnedFd>,
}

/// Longer than any record (`CONSOLE_EXT_LOG_MAX`, `include/linux/printk.h`): reading into a shorter buffer returns
/// EINVAL.
const RECORD_BYTES: usize = 16 << 10;

impl KernelLog {
    /// From now on.
    pub fn from_here() -> KernelLog {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let device = rustix::fs::open("/dev/kmsg", flags, Mode::empty())
            .ok()
            .filter(|device| rustix::fs::seek(device, SeekFrom::End(0)).is_ok());
        KernelLog { device }
    }

    /// The lines since then that the scheduler module wrote, or that the kernel's module loader wrote about it.
    pub fn lines(&self) -> Vec<String> {
        let Some(device) = &self.device else { return Vec::new() };
        let mut lines = Vec::new();
        let mut record = vec![0; RECORD_BYTES];
        loop {
            // One read returns one record. EPIPE: some were overwritten, the next read continues after them.
            match rustix::io::read(device, &mut record) {
                Ok(length) if length > 0 => {
                    let text = String::from_utf8_lossy(&record[..length]);
                    lines.extend(message(&text).filter(|m| concerns_the_module(m)).map(str::to_owned));
                }
                Err(Errno::PIPE | Errno::INTR) => {}
                _ => return lines,
            }
        }
    }
}

/// The message of a record `priority,sequence,microseconds,flags[,…];message\n KEY=value\n…`
/// (`Documentation/ABI/testing/dev-kmsg`).
fn message(record: &str) -> Option<&str> {
    let (_, message) = record.split_once(';')?;
    message.lines().next()
}

fn concerns_the_module(message: &str) -> bool {
    // Written before the kernel knows the module's name: "Loading of module with unavailable key is rejected"
    // (module_sig_check, kernel/module/signing.c). It tells an unknown key from a module that was altered.
    if message.starts_with("Loading of ") && message.ends_with(" is rejected") {
        return true;
    }
    // The module writes as schedswap; the kernel's module loader writes with the module's name ("scheduler: version
    // magic … should be …", "scheduler_0123abcd: Unknown symbol …").
    let writer = message.split([':', ' ']).next().unwrap_or_default();
    writer.len() < message.len() && (writer == "schedswap" || is_a_scheduler_s_name(writer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_s_message() {
        let record = "4,1234,56789,-;schedswap: text of foo differs; a kprobe?\n SUBSYSTEM=x\n";
        assert_eq!(message(record), Some("schedswap: text of foo differs; a kprobe?"));
        assert_eq!(message("no record"), None);
    }

    #[test]
    fn only_lines_about_the_module() {
        assert!(concerns_the_module("schedswap: enabled"));
        assert!(concerns_the_module("scheduler: Unknown symbol foo (err -2)"));
        assert!(concerns_the_module("scheduler_0123abcd: loading out-of-tree module taints kernel."));
        assert!(concerns_the_module("Loading of unsigned module is rejected"));
        assert!(!concerns_the_module("Loading of firmware takes long"));
        assert!(!concerns_the_module("schedulers are fine"));
        assert!(!concerns_the_module("systemd[1]: schedswap: no"));
    }
}
