//! Switches between vmlinux's scheduler and the module's, with retries.

use crate::error::LoaderError;
use crate::host::Machine;
use crate::running;
use rustix::io::Errno;
use schedswap_payload::report::Attempt;
use schedswap_payload::sysfs;
use std::time::Duration;

/// How often and how patiently to ask a busy kernel again.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Attempts after the first.
    pub retries: u32,
    /// The longest pause between two attempts.
    pub wait: Duration,
}

/// The direction of a switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From vmlinux's own scheduler to the module's.
    Module,
    /// From another module's scheduler to this one's.
    ModuleFromModule,
    /// Back to vmlinux's own scheduler.
    Vmlinux,
}

impl Patience {
    /// The pauses between attempts. The first is an eighth of `wait`, because most threads that are in the way are
    /// gone soon; each next one is twice as long, up to `wait`.
    fn pauses(self) -> impl Iterator<Item = Duration> {
        (0..self.retries).map(move |n| (self.wait / 8).saturating_mul(1 << n.min(3)).min(self.wait))
    }
}

/// Writes to `enable` of a loaded module until the switch succeeds or the retries are used up. Every attempt is added
/// to `attempts`.
pub fn switch(
    machine: &Machine,
    module: &str,
    direction: Direction,
    patience: Patience,
    attempts: &mut Vec<Attempt>,
) -> Result<(), LoaderError> {
    let (what, value) = match direction {
        Direction::Module => ("installing", '1'),
        Direction::ModuleFromModule => ("switching", '1'),
        Direction::Vmlinux => ("uninstalling", '0'),
    };
    let paths = &machine.paths;
    // Determined again each time: with the switch, the directory changes its name.
    let dir = || match running::of_module(paths, module)? {
        Some(loaded) => Ok(loaded.dir),
        None => Err(LoaderError::Vanished { module: module.to_owned() }),
    };
    let attempt = || {
        let path = dir()?.join("enable");
        let Err(source) = machine.host.write(&path, value) else {
            // A report that cannot be read does not undo the switch.
            let timing = dir().and_then(|dir| running::read(&dir, "timing")).ok();
            return Ok(Attempt::Switched { timing: timing.and_then(|text| text.parse().ok()) });
        };
        match Errno::from_io_error(&source) {
            // AGAIN: some threads were in the way.
            Some(Errno::BUSY | Errno::AGAIN) => {
                let blockers = running::read(&dir()?, "blocker").unwrap_or_default();
                Ok(Attempt::Busy { blockers: sysfs::parse_blockers(&blockers)? })
            }
            Some(Errno::ADDRINUSE) => Err(LoaderError::Held { by: Vec::new() }),
            Some(Errno::PROTO) => Err(LoaderError::OtherHandover),
            _ => Err(LoaderError::Switch { path, value, source }),
        }
    };
    retry(attempt, patience, attempts, what, |length| machine.host.pause(length))
}

fn retry(
    mut attempt: impl FnMut() -> Result<Attempt, LoaderError>,
    patience: Patience,
    attempts: &mut Vec<Attempt>,
    what: &'static str,
    mut pause: impl FnMut(Duration),
) -> Result<(), LoaderError> {
    let mut pauses = patience.pauses();
    for made in 1.. {
        let result = attempt()?;
        attempts.push(result.clone());
        let Attempt::Busy { blockers } = result else { break };
        match pauses.next() {
            Some(length) => pause(length),
            None => return Err(LoaderError::Busy { what, attempts: made, blockers }),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use schedswap_payload::sysfs::Blocker;

    fn busy(pid: u32) -> Attempt {
        Attempt::Busy { blockers: vec![Blocker { comm: "t".into(), pid, function: "f".into() }] }
    }

    /// Runs [`retry`] with 3 retries over the given results; returns its result, the attempts and the pauses.
    fn run(results: &[Attempt]) -> (Result<(), LoaderError>, Vec<Attempt>, Vec<u64>) {
        let patience = Patience { retries: 3, wait: Duration::from_secs(2) };
        let (mut attempts, mut pauses, mut results) = (Vec::new(), Vec::new(), results.iter().cloned());
        let outcome = retry(
            || Ok(results.next().expect("no more attempts than results")),
            patience,
            &mut attempts,
            "installing",
            |pause| pauses.push(pause.as_millis() as u64),
        );
        (outcome, attempts, pauses)
    }

    #[test]
    fn the_first_success_ends_it() {
        let switched = Attempt::Switched { timing: None };
        let (outcome, attempts, pauses) = run(&[busy(1), busy(2), switched]);
        assert!(outcome.is_ok());
        assert_eq!(attempts.len(), 3);
        assert_eq!(pauses, [250, 500]);
    }

    #[test]
    fn the_last_blocker_is_named_when_patience_ends() {
        let (outcome, attempts, pauses) = run(&[busy(1), busy(2), busy(3), busy(4)]);
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains("4 attempts") && error.contains("thread 4"), "{error}");
        assert_eq!(attempts.len(), 4);
        assert_eq!(pauses, [250, 500, 1000]);
    }

    #[test]
    fn pauses_never_pass_the_limit() {
        let patience = Patience { retries: 70, wait: Duration::from_secs(2) };
        assert_eq!(patience.pauses().count(), 70);
        assert!(patience.pauses().skip(3).all(|pause| pause == Duration::from_secs(2)));
        assert_eq!(Patience { retries: 0, ..patience }.pauses().count(), 0);
    }
}
