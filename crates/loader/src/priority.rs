//! The loader's own priority while it loads a module and asks for a switch.
//!
//! The stack check walks all threads outside the stop, and logs those that run meanwhile. On an overloaded machine, a
//! loader of normal priority takes so long that the log overflows and half of the threads are checked again inside
//! the stop, while the whole machine waits.
#![allow(unsafe_code)]

/// While it exists, the calling thread runs before all threads of normal priority.
pub struct RaisedPriority {
    /// The policy and parameter to restore; `None` if nothing was changed.
    before: Option<(i32, Parameter)>,
}

/// The kernel's `struct sched_param`. C libraries define others; musl's functions for them only return an error,
/// because POSIX gives them another meaning than Linux does.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Parameter {
    priority: libc::c_int,
}

/// The lowest real-time priority: before normal threads, after every real-time thread of the machine.
const PRIORITY: i32 = 1;

impl RaisedPriority {
    /// Raises the priority. If the kernel does not allow it (a container, a cgroup without real-time budget), or the
    /// loader was started with a real-time policy, nothing changes.
    pub fn raise() -> RaisedPriority {
        let before = current().filter(|(policy, _)| is_normal(*policy));
        let raised = before.filter(|_| set(libc::SCHED_FIFO, Parameter { priority: PRIORITY }));
        RaisedPriority { before: raised }
    }
}

impl Drop for RaisedPriority {
    fn drop(&mut self) {
        if let Some((policy, parameter)) = &self.before {
            // A thread may always lower its own priority. The nice value has not changed.
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
        let raised = RaisedPriority::raise();
        // If this user may not use real-time policies, the policy stays as it was, and there is nothing more to
        // check.
        let expected = if raised.before.is_some() { libc::SCHED_FIFO } else { libc::SCHED_BATCH };
        assert_eq!(policy(), expected);
        drop(raised);
        assert_eq!(policy(), libc::SCHED_BATCH);
    }

    #[test]
    fn a_real_time_loader_is_left_alone() {
        let round_robin = Parameter { priority: 5 };
        if !set(libc::SCHED_RR, round_robin) {
            return;
        }
        assert!(RaisedPriority::raise().before.is_none());
        assert_eq!(current().map(|(policy, p)| (policy, p.priority)), Some((libc::SCHED_RR, 5)));
        set(libc::SCHED_OTHER, Parameter::default());
    }
}
