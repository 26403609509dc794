//! The loader's own place in the queue while it loads a module and asks for a switch.
//!
//! The stack check walks all threads outside the stop, and logs those that run meanwhile. On a machine whose
//! CPUs have more to do than they can, a loader of normal priority takes so long over it that the log overflows
//! and half of the threads are checked again inside the stop, where everybody waits for them.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

/// While it lives, the calling thread runs before all threads of normal priority.
pub struct Urgent {
    /// Policy and parameter to go back to; `None` if nothing was changed.
    before: Option<(i32, libc::sched_param)>,
}

/// The lowest real-time priority: before normal threads, behind every real-time thread of the machine's own.
const PRIORITY: i32 = 1;

impl Urgent {
    /// From now on. Where the kernel does not allow it (a container, a cgroup without real-time budget), or the
    /// loader was started with a real-time policy already, nothing changes.
    pub fn now() -> Urgent {
        let before = current().filter(|(policy, _)| is_normal(*policy));
        let raised =
            before.filter(|_| set(libc::SCHED_FIFO, &libc::sched_param { sched_priority: PRIORITY }));
        Urgent { before: raised }
    }
}

impl Drop for Urgent {
    fn drop(&mut self) {
        if let Some((policy, parameter)) = &self.before {
            // Lowering one's own priority is always allowed. The nice value was kept all along.
            set(*policy, parameter);
        }
    }
}

fn is_normal(policy: i32) -> bool {
    matches!(policy & !libc::SCHED_RESET_ON_FORK, libc::SCHED_OTHER | libc::SCHED_BATCH | libc::SCHED_IDLE)
}

fn current() -> Option<(i32, libc::sched_param)> {
    let mut parameter = MaybeUninit::uninit();
    // SAFETY: 0 is the calling thread; the second call writes a whole sched_param where it returns 0, and only
    // then is it read.
    unsafe {
        let policy = libc::sched_getscheduler(0);
        let known = policy >= 0 && libc::sched_getparam(0, parameter.as_mut_ptr()) == 0;
        known.then(|| (policy, parameter.assume_init()))
    }
}

fn set(policy: i32, parameter: &libc::sched_param) -> bool {
    // SAFETY: 0 is the calling thread; the kernel only reads `parameter`.
    unsafe { libc::sched_setscheduler(0, policy, parameter) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_is_as_before_afterwards() {
        let policy = || current().unwrap().0;
        assert!(set(libc::SCHED_BATCH, &libc::sched_param { sched_priority: 0 }));
        let urgent = Urgent::now();
        // Who may not use real-time policies stays what he was; then there is nothing more to see here.
        let expected = if urgent.before.is_some() { libc::SCHED_FIFO } else { libc::SCHED_BATCH };
        assert_eq!(policy(), expected);
        drop(urgent);
        assert_eq!(policy(), libc::SCHED_BATCH);
    }

    #[test]
    fn a_real_time_loader_is_left_alone() {
        let round_robin = libc::sched_param { sched_priority: 5 };
        if !set(libc::SCHED_RR, &round_robin) {
            return;
        }
        assert!(Urgent::now().before.is_none());
        assert_eq!(current().map(|(policy, p)| (policy, p.sched_priority)), Some((libc::SCHED_RR, 5)));
        set(libc::SCHED_OTHER, &libc::sched_param { sched_priority: 0 });
    }
}
