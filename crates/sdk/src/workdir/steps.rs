//! Numbered steps with completion stamps. A step is done again when its inputs changed, when the step before
//! it was done again, or when it never got to its end.

use super::store::{read_text, write_atomically};
use super::{Error, Result};
use schedswap_host::progress::Progress;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The steps of `init`, in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Step {
    /// Reading vmlinux.
    Kernel = 1,
    /// Copying the kernel's source.
    Source,
    /// Making the headers usable for `make -C`.
    Headers,
    /// Asking Kbuild for its commands.
    Commands,
    /// Compiling the pristine source with the kernel's exact flags.
    GateBuild,
    /// Comparing with vmlinux.
    Identity,
    /// Computing the boundary.
    Boundary,
    /// Deriving the springboard.
    Springboard,
    /// Finding every symbol's address.
    Addresses,
    /// Compiling the pristine source as it goes into a module.
    ModuleBuild,
    /// Binding that build to vmlinux, and proving that the result is vmlinux again.
    Binding,
    /// The tree to edit, under git.
    Tree,
}

impl Step {
    /// All of them.
    pub const ALL: [Step; 12] = [
        Step::Kernel,
        Step::Source,
        Step::Headers,
        Step::Commands,
        Step::GateBuild,
        Step::Identity,
        Step::Boundary,
        Step::Springboard,
        Step::Addresses,
        Step::ModuleBuild,
        Step::Binding,
        Step::Tree,
    ];

    /// Name of its stamp, without the number.
    pub fn name(self) -> &'static str {
        match self {
            Step::Kernel => "kernel",
            Step::Source => "source",
            Step::Headers => "headers",
            Step::Commands => "commands",
            Step::GateBuild => "gate-build",
            Step::Identity => "identity",
            Step::Boundary => "boundary",
            Step::Springboard => "springboard",
            Step::Addresses => "addresses",
            Step::ModuleBuild => "module-build",
            Step::Binding => "binding",
            Step::Tree => "tree",
        }
    }

    fn what(self) -> &'static str {
        match self {
            Step::Kernel => "reading the kernel",
            Step::Source => "copying its source",
            Step::Headers => "preparing its headers",
            Step::Commands => "asking Kbuild for its commands",
            Step::GateBuild => "compiling as the distribution did",
            Step::Identity => "comparing with vmlinux",
            Step::Boundary => "computing the boundary",
            Step::Springboard => "deriving the springboard",
            Step::Addresses => "finding addresses",
            Step::ModuleBuild => "compiling for a module",
            Step::Binding => "proving the binding",
            Step::Tree => "setting up the tree to edit",
        }
    }
}

/// The stamps of one work dir.
pub(super) struct Steps<'a> {
    dir: PathBuf,
    progress: &'a dyn Progress,
    /// Stamp of the step before; part of the next one's inputs.
    before: u64,
    /// Steps done in this run, and how long each took.
    pub done: Vec<(Step, Duration)>,
}

/// What the step runner shows is its own line; a phase inside only moves it.
struct Inside<'a>(&'a dyn Progress);

impl Progress for Inside<'_> {
    fn begin(&self, _what: &str, _total: Option<u64>) {}
    fn at(&self, position: u64) {
        self.0.at(position);
    }
    fn end(&self, _result: &str) {}
}

/// Tells one build of this program from another: the next one may compute something else, and steps are cheap.
fn program_stamp() -> u64 {
    let mut hasher = DefaultHasher::new();
    let program = std::env::current_exe().and_then(fs::metadata);
    program.and_then(|meta| Ok((meta.len(), meta.modified()?))).ok().hash(&mut hasher);
    hasher.finish()
}

impl<'a> Steps<'a> {
    pub fn new(dir: &Path, progress: &'a dyn Progress) -> Result<Steps<'a>> {
        fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
        Ok(Steps { dir: dir.to_owned(), progress, before: program_stamp(), done: Vec::new() })
    }

    /// Makes this step and all after it be done again.
    pub fn forget_from(&self, step: Step) -> Result<()> {
        for step in Step::ALL.into_iter().filter(|later| *later >= step) {
            let path = self.path(step);
            if path.exists() {
                fs::remove_file(&path).map_err(|e| Error::io("remove", &path, e))?;
            }
        }
        Ok(())
    }

    /// Does the step unless its stamp says that it was done with the same inputs. `work` gets the progress to
    /// hand on, and returns a remark to show. `total` is how many pieces it has, where known.
    pub fn run(
        &mut self,
        step: Step,
        inputs: impl Hash,
        total: Option<u64>,
        work: impl FnOnce(&dyn Progress) -> Result<String>,
    ) -> Result<()> {
        let stamp = self.stamp(&inputs);
        if self.recorded(step) != Some(stamp) {
            // Without this, an interruption now would leave the stamp of other inputs on a half-done step.
            self.forget_from(step)?;
            let started = Instant::now();
            let number = step as usize;
            self.progress.begin(&format!("{number:>2}/{} {}", Step::ALL.len(), step.what()), total);
            match work(&Inside(self.progress)) {
                Ok(remark) => self.progress.end(&remark),
                Err(error) => {
                    self.progress.end("failed");
                    return Err(error);
                }
            }
            write_atomically(&self.path(step), format!("{stamp:016x}\n").as_bytes())?;
            self.done.push((step, started.elapsed()));
        }
        self.before = stamp;
        Ok(())
    }

    fn stamp(&self, inputs: &impl Hash) -> u64 {
        // A later Rust may hash otherwise; then the steps are done again.
        let mut hasher = DefaultHasher::new();
        (self.before, env!("CARGO_PKG_VERSION")).hash(&mut hasher);
        inputs.hash(&mut hasher);
        hasher.finish()
    }

    fn path(&self, step: Step) -> PathBuf {
        stamp_path(&self.dir, step)
    }

    fn recorded(&self, step: Step) -> Option<u64> {
        u64::from_str_radix(read_text(&self.path(step)).ok()?.trim(), 16).ok()
    }
}

fn stamp_path(dir: &Path, step: Step) -> PathBuf {
    dir.join(format!("{:02}-{}", step as usize, step.name()))
}

/// The first step that has no stamp.
pub(super) fn first_unfinished(dir: &Path) -> Option<Step> {
    Step::ALL.into_iter().find(|step| !stamp_path(dir, *step).exists())
}

#[cfg(test)]
mod tests {
    use super::*;
    use schedswap_host::progress::Silent;
    use std::cell::RefCell;

    /// Runs three steps with the given inputs; returns those that were done.
    fn go(dir: &Path, inputs: [u32; 3], fail_at: Option<Step>) -> (Vec<Step>, bool) {
        let done = RefCell::new(Vec::new());
        let mut steps = Steps::new(dir, &Silent).unwrap();
        let mut failed = false;
        for (step, input) in [Step::Kernel, Step::Source, Step::Headers].into_iter().zip(inputs) {
            let result = steps.run(step, input, None, |_| {
                if fail_at == Some(step) {
                    return Err(Error::NotAWorkDir { path: PathBuf::new() });
                }
                done.borrow_mut().push(step);
                Ok(String::new())
            });
            if result.is_err() {
                failed = true;
                break;
            }
        }
        (done.into_inner(), failed)
    }

    #[test]
    fn a_finished_step_is_not_done_again() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(go(dir.path(), [1, 1, 1], None).0.len(), 3);
        assert_eq!(go(dir.path(), [1, 1, 1], None).0, []);
    }

    #[test]
    fn changed_inputs_redo_the_step_and_all_after_it() {
        let dir = tempfile::tempdir().unwrap();
        go(dir.path(), [1, 1, 1], None);
        assert_eq!(go(dir.path(), [1, 2, 1], None).0, [Step::Source, Step::Headers]);
        assert_eq!(go(dir.path(), [1, 2, 1], None).0, []);
    }

    #[test]
    fn an_interrupted_run_goes_on_where_it_stopped() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(go(dir.path(), [1, 1, 1], Some(Step::Source)), (vec![Step::Kernel], true));
        assert_eq!(first_unfinished(dir.path()), Some(Step::Source));
        assert_eq!(go(dir.path(), [1, 1, 1], None).0, [Step::Source, Step::Headers]);
    }

    #[test]
    fn a_step_that_fails_on_changed_inputs_does_not_keep_its_old_stamp() {
        let dir = tempfile::tempdir().unwrap();
        go(dir.path(), [1, 1, 1], None);
        go(dir.path(), [1, 2, 1], Some(Step::Source));
        // Back to the first inputs: what the failed step left behind must not be trusted.
        assert_eq!(go(dir.path(), [1, 1, 1], None).0[0], Step::Source);
    }
}
