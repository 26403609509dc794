//! The sleepers: a process of its own with an exact number of threads that sleep, in four manners.

use super::board::{Board, Fault, Kind};
use super::calls::spawn_small;
use anyhow::{Context, Result};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::Timespec;
use rustix::thread::futex;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A sleeper only makes system calls; glibc keeps its thread control block and a guard page in here too.
const STACK_BYTES: usize = 32 << 10;
/// How long released sleepers may take to come back, at most. An emulated CPU wakes some 10,000 a second.
const RELEASE_LIMIT: Duration = Duration::from_secs(60);

struct Bed {
    board: &'static Board,
    /// One word a sleeper: 0 sleep, 1 wake up and sleep again.
    words: Vec<AtomicU32>,
    pipe_read: OwnedFd,
    doorbell: OwnedFd,
    back: AtomicU64,
    /// Stays 0.
    never: AtomicU32,
}

/// Runs `count` sleepers beside the calling thread until the load stops, then releases all and counts who
/// comes back. Returns the process's exit code.
pub fn run(board: &'static Board, count: u64) -> i32 {
    match sleep_and_wake(board, count) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("guest-load: sleepers: {error:#}");
            board.fault(Fault::FailedCall, 1);
            1
        }
    }
}

fn sleep_and_wake(board: &'static Board, count: u64) -> Result<()> {
    let (pipe_read, pipe_write) = rustix::pipe::pipe()?;
    let bed = Arc::new(Bed {
        board,
        words: (0..count).map(|_| AtomicU32::new(0)).collect(),
        pipe_read,
        doorbell: eventfd(0, EventfdFlags::empty())?,
        back: AtomicU64::new(0),
        never: AtomicU32::new(0),
    });
    for index in 0..count {
        let bed = bed.clone();
        spawn_small(
            STACK_BYTES,
            Box::new(move || {
                bed.sleep(index);
                bed.back.fetch_add(1, Ordering::AcqRel);
                // The end of the process ends all at once. One by one, each would unmap its stack, which
                // interrupts every CPU: half a minute for 10,000 on emulated ones.
                loop {
                    let _ = futex::wait(&bed.never, futex::Flags::PRIVATE, 0, None);
                }
            }),
        )
        .with_context(|| {
            format!("sleeper {index} of {count} (see kernel.threads-max, kernel.pid_max, vm.max_map_count)")
        })?;
        board.sleepers_up.fetch_add(1, Ordering::AcqRel);
    }

    // One sleeper is woken now and then: those that slept through a swap must wake up as well.
    let mut next = 0;
    while !board.stopping() {
        thread::sleep(Duration::from_millis(10));
        if let Some(word) = bed.words.get(next * 4) {
            word.store(1, Ordering::Release);
            futex::wake(word, futex::Flags::PRIVATE, 1)?;
        }
        if next % 4 == 0 {
            rustix::io::write(&pipe_write, b"x")?;
        }
        next = if (next + 1) * 4 < count as usize { next + 1 } else { 0 };
    }

    drop(pipe_write);
    rustix::io::write(&bed.doorbell, &1u64.to_ne_bytes())?;
    for word in &bed.words {
        word.store(1, Ordering::Release);
        futex::wake(word, futex::Flags::PRIVATE, 1)?;
    }
    let begun = Instant::now();
    while bed.back.load(Ordering::Acquire) < count && begun.elapsed() < RELEASE_LIMIT {
        thread::sleep(Duration::from_millis(5));
    }
    board.fault(Fault::LostSleeper, count - bed.back.load(Ordering::Acquire));
    Ok(())
}

impl Bed {
    fn sleep(&self, index: u64) {
        let word = &self.words[index as usize];
        while !self.board.stopping() {
            let slept = match index % 4 {
                // Woken one by one; the word is taken back first, for the wake-up may come before the sleep.
                0 if word.swap(0, Ordering::AcqRel) == 1 => Ok(true),
                0 => futex::wait(word, futex::Flags::PRIVATE, 0, None).map(|()| false),
                // Wakes up by itself; the spread keeps the timers apart.
                1 => {
                    let limit = Timespec { tv_sec: 10 + (index % 20) as i64, tv_nsec: 0 };
                    match futex::wait(word, futex::Flags::PRIVATE, 0, Some(&limit)) {
                        Err(rustix::io::Errno::TIMEDOUT) => Ok(true),
                        other => other.map(|()| false),
                    }
                }
                // End of file once the load stops.
                2 => rustix::io::read(&self.pipe_read, &mut [0; 1]).map(|read| read == 1),
                // Readable, for all of them, once the load stops.
                _ => poll(&mut [PollFd::new(&self.doorbell.as_fd(), PollFlags::IN)], None).map(|_| false),
            };
            match slept {
                Ok(true) => self.board.count(Kind::Sleeper),
                Ok(false) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(_) => return self.board.fault(Fault::FailedCall, 1),
            }
        }
    }
}
