//! System calls of the load that std and rustix have no safe form for.
#![allow(unsafe_code)]

use super::board::Board;
use anyhow::{Context, Result};
use std::ffi::c_void;
use std::io::Error;
use std::mem;
use std::ptr;
use std::time::Duration;

/// A scheduling policy with its parameter.
#[derive(Clone, Copy, Debug)]
pub enum Policy {
    /// SCHED_NORMAL, nice value.
    Normal(i32),
    /// SCHED_BATCH
    Batch,
    /// SCHED_IDLE
    Idle,
    /// SCHED_FIFO, priority 1–99.
    Fifo(u32),
    /// SCHED_RR, priority 1–99.
    RoundRobin(u32),
    /// SCHED_DEADLINE: runtime, deadline and period in ns.
    Deadline(u64, u64, u64),
}

/// Gives the calling thread another policy. `man 2 sched_setattr`.
pub fn set_policy(policy: Policy) -> Result<()> {
    // SAFETY: sched_attr is plain integers; all zero is a valid value.
    let mut attr: libc::sched_attr = unsafe { mem::zeroed() };
    attr.size = mem::size_of::<libc::sched_attr>() as u32;
    match policy {
        Policy::Normal(nice) => {
            attr.sched_policy = libc::SCHED_OTHER as u32;
            attr.sched_nice = nice;
        }
        Policy::Batch => attr.sched_policy = libc::SCHED_BATCH as u32,
        Policy::Idle => attr.sched_policy = libc::SCHED_IDLE as u32,
        Policy::Fifo(priority) => {
            attr.sched_policy = libc::SCHED_FIFO as u32;
            attr.sched_priority = priority;
        }
        Policy::RoundRobin(priority) => {
            attr.sched_policy = libc::SCHED_RR as u32;
            attr.sched_priority = priority;
        }
        Policy::Deadline(runtime, deadline, period) => {
            attr.sched_policy = libc::SCHED_DEADLINE as u32;
            attr.sched_runtime = runtime;
            attr.sched_deadline = deadline;
            attr.sched_period = period;
        }
    }
    // SAFETY: attr is initialised, its size is in it, and the kernel only reads it.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &attr, 0) };
    if result != 0 {
        Err(Error::last_os_error()).with_context(|| format!("sched_setattr {policy:?}"))
    } else {
        Ok(())
    }
}

/// Memory for a [`Board`] that forked children share with their parent; never unmapped.
pub fn shared_board() -> Result<&'static Board> {
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches no existing memory.
    let address = unsafe {
        libc::mmap(
            ptr::null_mut(),
            mem::size_of::<Board>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(Error::last_os_error()).context("mmap of the shared counters");
    }
    let board = address.cast::<Board>();
    // SAFETY: the mapping is page-aligned, large enough, writable, and lives until the process ends; Board
    // holds only atomics, which may be shared between processes.
    unsafe {
        board.write(Board::new());
        Ok(&*board)
    }
}

/// Forks a child that runs `body` and exits with its result; returns the child's process id.
///
/// Must be called while the process has one thread: the child may allocate, and a lock that another thread
/// held at the fork would never be released in it.
pub fn fork(body: impl FnOnce() -> i32) -> Result<i32> {
    // SAFETY: the caller promises that there is one thread, so the child's copy of memory is consistent.
    match unsafe { libc::fork() } {
        -1 => Err(Error::last_os_error()).context("fork"),
        0 => {
            // SAFETY: prctl with PR_SET_PDEATHSIG takes one integer. A load whose leader is gone must not
            // run on.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            let code = body();
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(code) }
        }
        pid => Ok(pid),
    }
}

/// Waits for a child and returns its exit code, or 128 + the signal that killed it.
pub fn reap(pid: i32) -> Result<i32> {
    let mut status = 0;
    loop {
        // SAFETY: status is valid for writing.
        if unsafe { libc::waitpid(pid, &mut status, 0) } == pid {
            break;
        }
        let error = Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINTR) {
            return Err(error).context("waitpid");
        }
    }
    Ok(if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) })
}

/// Whether a child has already ended (it stays to be reaped).
pub fn has_ended(pid: i32) -> bool {
    // SAFETY: siginfo_t is plain data, and the kernel fills it in or leaves it zero.
    unsafe {
        let mut info: libc::siginfo_t = mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        libc::waitid(libc::P_PID, pid as libc::id_t, &mut info, flags) == 0 && info.si_pid() == pid
    }
}

/// Starts a detached thread with a stack of `stack_bytes`. std would add a signal stack to each, which is
/// most of the cost of a thread that only sleeps.
pub fn spawn_small(stack_bytes: usize, body: Box<dyn FnOnce() + Send>) -> Result<()> {
    extern "C" fn enter(argument: *mut c_void) -> *mut c_void {
        // SAFETY: argument is the Box<Box<…>> leaked below, handed to exactly this thread.
        let body = unsafe { Box::from_raw(argument.cast::<Box<dyn FnOnce() + Send>>()) };
        body();
        ptr::null_mut()
    }
    let argument = Box::into_raw(Box::new(body));
    // SAFETY: attr is initialised before use and destroyed after; `enter` has the signature that
    // pthread_create wants; on failure the thread does not exist and the argument is taken back.
    let error = unsafe {
        let mut attr: libc::pthread_attr_t = mem::zeroed();
        libc::pthread_attr_init(&mut attr);
        libc::pthread_attr_setstacksize(&mut attr, stack_bytes);
        libc::pthread_attr_setdetachstate(&mut attr, libc::PTHREAD_CREATE_DETACHED);
        let mut thread: libc::pthread_t = mem::zeroed();
        let error = libc::pthread_create(&mut thread, &attr, enter, argument.cast());
        libc::pthread_attr_destroy(&mut attr);
        if error != 0 {
            drop(Box::from_raw(argument));
        }
        error
    };
    if error != 0 { Err(Error::from_raw_os_error(error)).context("pthread_create") } else { Ok(()) }
}

/// A mutex with priority inheritance: its owner runs with the priority of its highest waiter.
pub struct PiMutex(std::cell::UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: a pthread mutex is made to be used by several threads; it is never moved after creation, because
// `new` leaks it.
unsafe impl Sync for PiMutex {}

impl PiMutex {
    /// A mutex that lives as long as the process.
    pub fn new() -> &'static PiMutex {
        // SAFETY: PTHREAD_MUTEX_INITIALIZER is a valid value to initialise over; the attributes are
        // initialised before and destroyed after use.
        unsafe {
            let mutex = Box::leak(Box::new(PiMutex(libc::PTHREAD_MUTEX_INITIALIZER.into())));
            let mut attr: libc::pthread_mutexattr_t = mem::zeroed();
            libc::pthread_mutexattr_init(&mut attr);
            libc::pthread_mutexattr_setprotocol(&mut attr, libc::PTHREAD_PRIO_INHERIT);
            libc::pthread_mutex_init(mutex.0.get(), &attr);
            libc::pthread_mutexattr_destroy(&mut attr);
            mutex
        }
    }

    /// Runs `section` with the mutex held.
    pub fn with(&self, section: impl FnOnce()) {
        // SAFETY: the mutex is initialised and lives for ever; the same thread unlocks that locked.
        unsafe {
            libc::pthread_mutex_lock(self.0.get());
            section();
            libc::pthread_mutex_unlock(self.0.get());
        }
    }
}

/// Sleeps until `interval` has passed; returns how much longer it took.
pub fn sleep_and_measure(interval: Duration) -> Duration {
    let begun = std::time::Instant::now();
    std::thread::sleep(interval);
    begun.elapsed().saturating_sub(interval)
}
