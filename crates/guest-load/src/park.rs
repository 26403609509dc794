//! Holds a thread inside a function of the scheduler for as long as a test wants: it makes a system call whose
//! argument lies in memory that is filled by this program (userfaultfd), and this program takes its time.
#![allow(unsafe_code)]

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use rustix::mm::{UserfaultfdFlags, userfaultfd};
use std::fs;
use std::io::Error;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::ptr;
use std::thread;
use std::time::Duration;

/// Arguments of `park`.
#[derive(Args)]
pub struct ParkArgs {
    /// Written once the thread is parked: its thread id
    #[arg(long, value_name = "FILE")]
    ready: PathBuf,
    /// The thread is released when this file appears
    #[arg(long, value_name = "FILE")]
    until_file: PathBuf,
}

/// A whole number of pages, whatever their size.
const LEN: usize = 64 << 10;
/// How long the thread may take to get to where it is parked.
const ARRIVAL: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

// linux/userfaultfd.h; `man 2 ioctl_userfaultfd`
const GROUP: u8 = 0xaa;
const API_VERSION: u64 = 0xaa;
const FEATURE_THREAD_ID: u64 = 1 << 8;
const MODE_MISSING: u64 = 1;
const EVENT_PAGEFAULT: u8 = 0x12;

/// struct uffdio_api
#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// struct uffdio_register; struct uffdio_zeropage, which ends with the bytes that were filled
#[repr(C)]
struct Area {
    start: u64,
    len: u64,
    mode: u64,
    result: u64,
}

const API: Opcode = opcode::read_write::<Api>(GROUP, 0x3f);
const REGISTER: Opcode = opcode::read_write::<Area>(GROUP, 0x00);
const ZEROPAGE: Opcode = opcode::read_write::<Area>(GROUP, 0x04);

/// Parks a thread, says so, and lets it go when told to.
pub fn run(args: &ParkArgs) -> Result<ExitCode> {
    let area = unfilled_area()?;
    let faults = watch(area)?;
    // All zero, once it is there: a valid sched_attr, which asks for the policy that the thread has.
    let parked = thread::spawn(move || {
        // SAFETY: the kernel reads at most LEN bytes of the mapping, which is never unmapped.
        let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, area, 0) };
        if result == 0 { Ok(()) } else { Err(Error::last_os_error()) }
    });
    let thread_id = wait_for_fault(&faults)?;
    fs::write(&args.ready, format!("{thread_id}\n"))
        .with_context(|| format!("cannot write {}", args.ready.display()))?;
    while !args.until_file.exists() {
        thread::sleep(Duration::from_millis(20));
    }
    fill(&faults, area)?;
    parked.join().expect("it does not panic").context("sched_setattr")?;
    Ok(ExitCode::SUCCESS)
}

/// Memory that is not there before a thread touches it.
fn unfilled_area() -> Result<u64> {
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches no existing memory.
    let address = unsafe {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        libc::mmap(ptr::null_mut(), LEN, protection, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    };
    ensure!(address != libc::MAP_FAILED, "mmap: {}", Error::last_os_error());
    Ok(address as u64)
}

/// From now on who touches the area sleeps until it is filled.
fn watch(area: u64) -> Result<OwnedFd> {
    // SAFETY: the file descriptor is used on our own mapping only.
    let faults = unsafe { userfaultfd(UserfaultfdFlags::CLOEXEC) }.context("userfaultfd")?;
    let mut api = Api { api: API_VERSION, features: FEATURE_THREAD_ID, ioctls: 0 };
    let mut register = Area { start: area, len: LEN as u64, mode: MODE_MISSING, result: 0 };
    // SAFETY: the structures are those that the kernel reads and writes under these numbers, of these sizes.
    unsafe {
        ioctl(&faults, Updater::<API, Api>::new(&mut api)).context("UFFDIO_API")?;
        ioctl(&faults, Updater::<REGISTER, Area>::new(&mut register)).context("UFFDIO_REGISTER")?;
    }
    Ok(faults)
}

/// Waits until a thread sleeps in the area; returns its id.
fn wait_for_fault(faults: &OwnedFd) -> Result<u32> {
    let mut ready = [PollFd::new(faults, PollFlags::IN)];
    ensure!(poll(&mut ready, Some(&ARRIVAL))? == 1, "the system call never read its argument");
    // struct uffd_msg: the event at 0; of a page fault, flags at 8, address at 16, thread at 24.
    let mut message = [0; 32];
    let len = rustix::io::read(faults, &mut message)?;
    if len != message.len() || message[0] != EVENT_PAGEFAULT {
        bail!("not a page fault: {:?}", &message[..len]);
    }
    Ok(u32::from_ne_bytes(message[24..28].try_into().expect("4 bytes")))
}

/// Fills the area with zeros and wakes who sleeps there.
fn fill(faults: &OwnedFd, area: u64) -> Result<()> {
    let mut zeros = Area { start: area, len: LEN as u64, mode: 0, result: 0 };
    // SAFETY: the structure is the one that the kernel reads and writes under this number; the area is our own
    // mapping, of which nobody holds a reference.
    unsafe { ioctl(faults, Updater::<ZEROPAGE, Area>::new(&mut zeros)) }.context("UFFDIO_ZEROPAGE")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_is_parked_until_told_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let args = ParkArgs { ready: dir.path().join("ready"), until_file: dir.path().join("go") };
        // In a container, faults of the kernel may be out of bounds.
        match watch(unfilled_area().unwrap()) {
            Ok(_) => {}
            Err(error) => return eprintln!("skipped: {error:#}"),
        }
        let (ready, go) = (args.ready.clone(), args.until_file.clone());
        let program = thread::spawn(move || run(&args).map(|_| ()));
        let thread_id = loop {
            match fs::read_to_string(&ready) {
                Ok(text) if text.ends_with('\n') => break text.trim().to_owned(),
                _ => thread::sleep(Duration::from_millis(5)),
            }
        };
        let call = fs::read_to_string(format!("/proc/self/task/{thread_id}/syscall"));
        if let Ok(call) = call {
            assert!(call.starts_with(&format!("{} ", libc::SYS_sched_setattr)), "{call}");
        }
        assert!(!program.is_finished());
        fs::write(go, "").unwrap();
        program.join().unwrap().unwrap();
    }
}
