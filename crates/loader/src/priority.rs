//! The loader's own place in the queue while it loads a module and asks for a switch.
//!
//! The stack check walks all threads outside the stop, and logs those that run meanwhile. On a machine whose
//! CPUs have more to do than they can, a loader of normal priority takes so long over it that the log overflows
//! and half of the threads are checked again inside the stop, where everybody waits for them.
#![allow(unsafe_code)]

/// While it lives, the calling thread runs before all threads of normal priority.
pub struct Urgent {
    /// Policy and parameter to go back to; `None` if nothing was changed.
    before: Option<(i32, Parameter)>,
}

/// The kernel's `struct sched_param`. C libraries have others; musl's functions for them only say that POSIX means
/// something else by them than Linux does.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Parameter {
    priority: libc::c_int,
}

/// The lowest real-time priority: before normal threads, behind every real-time thread of the machine's own.
const PRIORITY: i32 = 1;

impl Urgent {
    /// From now on. Where the kernel does not allow it (a container, a cgroup without real-time budget), or the
    /// loader was started with a real-time policy already, nothing changes.
    pub fn now() -> Urgent {
        let before = current().filter(|(policy, _)| is_normal(*policy));
        let raised = before.filter(|_| set(libc::SCHED_FIFO, Parameter { priority: PRIORITY }));
        Urgent { before: raised }
    }
}

impl Drop for Urgent {
    fn drop(&mut self) {
        if let Some((policy, parameter)) = &self.before {
            // Lowering one's own priority is always allowed. The nice value was kept all along.
            set(*policy, *parameter);
        }
    }
}

fn is_normal(policy: i32) -> bool {
    matches!(policy & !libc::SCHED_RESET_ON_FORK, libc::SCHED_OTHER | libc::SCHED_BATCH | libc::SCHED_IDLE)
}

fn current() -> Option<(i32, Parameter)> {
    const THIS_THREAD: libc::pid_t = 0;
    let mut parameter = Parameter::default();
    // SAFETY: the kernel writes a whole `struct sched_param` to `parameter`, or nothing.
    let (policy, outcome) = unsafe {
        (
            libc::syscall(libc::SYS_sched_getscheduler, THIS_THREAD),
            libc::syscall(libc::SYS_sched_getparam, THIS_THREAD, &raw mut parameter),
        )
    };
    (policy >= 0 && outcome == 0).then_some((policy as i32, parameter))
}

fn set(policy: i32, parameter: Parameter) -> bool {
    const THIS_THREAD: libc::pid_t = 0;
    // SAFETY: the kernel only reads `parameter`.
    unsafe { libc::syscall(libc::SYS_sched_setscheduler, THIS_THREAD, policy, &raw const parameter) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_is_as_before_afterwards() {
        let policy = || current().unwrap().0;
        assert!(set(libc::SCHED_BATCH, Parameter { priority: 0 }));
        let urgent = Urgent::now();
        // Who may not use real-time policies stays what he was; then there is nothing more to see here.
        let expected = if urgent.before.is_some() { libc::SCHED_FIFO } else { libc::SCHED_BATCH };
        assert_eq!(policy(), expected);
        drop(urgent);
        assert_eq!(policy(), libc::SCHED_BATCH);
    }

    #[test]
    fn a_real_time_loader_is_left_alone() {
        let round_robin = Parameter { priority: 5 };
        if !set(libc::SCHED_RR, round_robin) {
            return;
        }
        assert!(Urgent::now().before.is_none());
        assert_eq!(current().map(|(policy, p)| (policy, p.priority)), Some((libc::SCHED_RR, 5)));
        set(libc::SCHED_OTHER, Parameter::default());
    }
}
