//! What the processes and threads of the load share: a page of counters and the flag that ends them all.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$item_doc:meta])* $item:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $name { $($(#[$item_doc])* $item,)* }
        impl $name {
            /// All of them, in the order of their counters.
            pub const ALL: &'static [$name] = &[$($name::$item,)*];
            /// The name in the status file.
            pub fn name(self) -> &'static str {
                match self { $($name::$item => $text,)* }
            }
        }
    };
}

names! {
    /// A kind of load. Its counter grows as long as the scheduler treats it fairly.
    Kind {
        /// SCHED_NORMAL threads of several nice values that only compute.
        Cfs = "cfs",
        /// A SCHED_BATCH thread.
        Batch = "batch",
        /// A SCHED_IDLE thread.
        Idle = "idle",
        /// SCHED_FIFO threads that compute and sleep.
        Fifo = "fifo",
        /// SCHED_RR threads of one priority.
        RoundRobin = "rr",
        /// SCHED_DEADLINE threads, one job a period.
        Deadline = "deadline",
        /// Processes in cgroups with a CPU quota.
        Quota = "quota",
        /// Processes created and reaped.
        Fork = "fork",
        /// Threads created and joined.
        Thread = "thread",
        /// Round trips over pipes.
        Pipe = "pipe",
        /// Moves from CPU to CPU by affinity, checked on arrival.
        Affinity = "affinity",
        /// Locked sections of a contended futex.
        Futex = "futex",
        /// Locked sections of a priority-inheriting futex shared by NORMAL and FIFO threads.
        PiFutex = "pi_futex",
        /// Expired short timers.
        Timer = "timer",
        /// Changes of policy, priority and nice value.
        Policy = "policy",
        /// Sleepers that were woken and went to sleep again.
        Sleeper = "sleeper",
    }
}

names! {
    /// What must never happen, counted.
    Fault {
        /// A computation of known result gave another: registers were lost.
        WrongResult = "wrong_result",
        /// A thread ran on a CPU outside its affinity.
        WrongCpu = "wrong_cpu",
        /// A contended counter does not add up.
        LostUpdate = "lost_update",
        /// A sleeper did not come back when all were released.
        LostSleeper = "lost_sleeper",
        /// A system call of the load failed.
        FailedCall = "failed_call",
    }
}

/// Counters shared by all processes of the load.
pub struct Board {
    stop: AtomicU32,
    /// Sleepers that have been started.
    pub sleepers_up: AtomicU64,
    /// Latest start of a 1 ms timer's handler after its expiry, in ns.
    pub timer_late_max_ns: AtomicU64,
    counts: [AtomicU64; Kind::ALL.len()],
    faults: [AtomicU64; Fault::ALL.len()],
}

impl Board {
    /// All zero, like fresh anonymous memory.
    pub const fn new() -> Self {
        Board {
            stop: AtomicU32::new(0),
            sleepers_up: AtomicU64::new(0),
            timer_late_max_ns: AtomicU64::new(0),
            counts: [const { AtomicU64::new(0) }; Kind::ALL.len()],
            faults: [const { AtomicU64::new(0) }; Fault::ALL.len()],
        }
    }

    /// One more unit of work done.
    pub fn count(&self, kind: Kind) {
        self.counts[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Units of work done so far.
    pub fn counted(&self, kind: Kind) -> u64 {
        self.counts[kind as usize].load(Ordering::Relaxed)
    }

    /// Something happened that must not.
    pub fn fault(&self, fault: Fault, times: u64) {
        self.faults[fault as usize].fetch_add(times, Ordering::Relaxed);
    }

    /// How often it has happened.
    pub fn faults(&self, fault: Fault) -> u64 {
        self.faults[fault as usize].load(Ordering::Relaxed)
    }

    /// Whether all parts of the load should end.
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire) != 0
    }

    /// Tells all parts of the load to end.
    pub fn stop(&self) {
        self.stop.store(1, Ordering::Release);
    }
}
