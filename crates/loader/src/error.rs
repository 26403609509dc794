//! Why an install or uninstall failed.

use crate::payload_dir::PayloadError;
use crate::text;
use schedswap_payload::manifest::ManifestError;
use schedswap_payload::report::{Conflict, Outcome, RetiredScheduler};
use schedswap_payload::sysfs::{Blocker, State};
use schedswap_payload::{BuildId, sysfs};
use std::path::PathBuf;
use std::time::Duration;

/// What stopped a command. [`LoaderError::outcome`] says whether it was a safety check.
#[derive(Debug, thiserror::Error)]
pub enum LoaderError {
    #[error("only root can load modules (this is user {uid}): run {command} as root")]
    NotRoot { command: &'static str, uid: u32 },

    #[error(
        "{} is locked: another loader is at work, and has been for {:.1} s; try again when it has ended, or wait \
         longer with --lock-wait",
        path.display(), waited.as_secs_f64()
    )]
    Locked { path: PathBuf, waited: Duration },

    #[error("cannot {doing} {}; nothing half-written is left", path.display())]
    State {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },

    #[error(transparent)]
    Payload(#[from] PayloadError),

    #[error(
        "no scheduler is named and none is registered for kernel {kernel}: name a directory below {}, or a .ko file",
        state.display()
    )]
    NothingNamed { kernel: String, state: PathBuf },

    #[error("functions to be replaced are already patched or probed: {}. Nothing was changed; remove that \
        and try again", text::conflicts(.conflicts))]
    Conflicts { conflicts: Vec<Conflict> },

    #[error("module {module} is no longer in /sys/kernel: another program unloaded it; see `status`")]
    Vanished { module: String },

    #[error(
        "{version} runs now, but could not be registered, so after the next boot the kernel's own scheduler runs. \
         Fix the cause below and run `install` again"
    )]
    Unregistered {
        version: String,
        #[source]
        source: std::io::Error,
    },

    #[error(
        "this command needs the machine's own kernel and cannot be used with --root: run it on that machine"
    )]
    NoKernel,

    #[error("cannot read {}: give a .ko file, or a directory with manifest.json and the module", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },

    #[error("{} cannot be used", path.display())]
    Manifest {
        path: PathBuf,
        #[source]
        source: ManifestError,
    },

    #[error("{} is not a kernel module: expected {expected}; build it again", path.display())]
    NotAModule { path: PathBuf, expected: &'static str },

    #[error(
        "{} is not a schedswap scheduler module: its .modinfo says {key}={found}, expected {expected}; \
         build it with `schedswap build`",
        path.display()
    )]
    NotAScheduler { path: PathBuf, key: &'static str, found: String, expected: &'static str },

    #[error(
        "{} and {} do not belong together: the first is for kernel build-id {manifest}, the second for {module}; \
         build or unpack both again",
        manifest_path.display(), module_path.display()
    )]
    ManifestOfAnotherModule {
        manifest_path: PathBuf,
        module_path: PathBuf,
        manifest: BuildId,
        module: BuildId,
    },

    #[error(
        "the module is for kernel {expected}, but {running} runs: install the scheduler that was built \
        for {running}"
    )]
    WrongRelease { running: String, expected: String },

    #[error(
        "this kernel {release} has build-id {running}, the module was built for {expected}: \
         same release, other build; build the scheduler with this kernel's debug symbols"
    )]
    WrongBuildId { release: String, running: BuildId, expected: BuildId },

    #[error(
        "the running kernel's build-id cannot be determined ({detail}), so the module's addresses cannot be \
         checked against it; mount sysfs on /sys if it is missing"
    )]
    NoBuildId { detail: String },

    #[error(
        "the scheduler {version} is loaded already ({state}): run `uninstall` first, or `switch` to take over from it"
    )]
    AlreadyLoaded { version: String, state: State },

    #[error("another module named {name} is loaded: unload it first (rmmod {name})")]
    NameTaken { name: String },

    #[error("the module refused to load; the kernel log says why. Nothing was changed")]
    ModuleRefused {
        #[source]
        source: std::io::Error,
    },

    #[error("the kernel did not load the module: {hint}")]
    NotLoaded {
        #[source]
        source: std::io::Error,
        hint: &'static str,
    },

    #[error("{}", busy_text(.what, *.attempts, .blockers))]
    Busy { what: &'static str, attempts: u32, blockers: Vec<Blocker> },

    #[error(
        "another patcher (kprobe, livepatch, ftrace, sched_ext) holds a function to be replaced; the kernel log \
         names both{}. Remove it and try again. Nothing was changed", seen_text(.by)
    )]
    Held { by: Vec<Conflict> },

    #[error(
        "the running scheduler was built by another version of schedswap, which hands over differently, so this \
         one cannot take over from it. Nothing was changed and it goes on running. Run `uninstall`, then \
         install this one; in between, the kernel's own scheduler runs"
    )]
    OtherHandover,

    #[error("writing {value} to {path} failed; the kernel log may say why", path = .path.display())]
    Switch {
        path: PathBuf,
        value: char,
        #[source]
        source: std::io::Error,
    },

    #[error(transparent)]
    Contract(#[from] sysfs::SysfsError),

    #[error("cannot read {}: check that sysfs is mounted, and that module and loader are from the same \
        package", path.display())]
    Sysfs {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },

    #[error(
        "vmlinux's own scheduler runs, but after {} s the module is still in use: \
         end the programs that read its files and run `uninstall` again",
        waited.as_secs()
    )]
    StillInUse { waited: Duration },

    #[error(
        "schedulers that have retired keep their memory until the next boot{}. With this one it would be {needed_mib} \
         MiB, each counted as at least 1 MiB, and {mib} MiB are the limit (--retired-max). Nothing was changed. Run \
         `uninstall --free`, which frees what can be freed, or reboot, or allow more", retired_text(.retired)
    )]
    NoRoom { retired: Vec<RetiredScheduler>, needed_mib: u64, mib: u64 },

    #[error(
        "it is not shown that nothing in the kernel has an address of the memory of {version}, so it must not be \
         freed: {}. Nothing was changed. Run `uninstall` without --free: the memory stays until the next boot",
        .reasons.join("; ")
    )]
    Unproved { version: String, reasons: Vec<String> },

    #[error(
        "{version} is out of use, but threads are still in its code after {} s: {}. Stop them and run \
         `uninstall --free` again; until then its memory stays",
        waited.as_secs(), threads_text(.blockers)
    )]
    ThreadsInside { version: String, waited: Duration, blockers: Vec<Blocker> },

    #[error("the module does not run any more, but could not retire: writing 1 to {} failed; it stays loaded, and the \
        next command tries again", path.display())]
    NotRetired {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },

    #[error("the module does not let itself be removed: writing 1 to {} failed", path.display())]
    NotReleased {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },

    #[error("the module could not be unloaded")]
    NotUnloaded {
        #[source]
        source: std::io::Error,
    },

    #[error("the module stays loaded, because unloading it failed too: {cleanup}")]
    LeftLoaded {
        #[source]
        first: Box<LoaderError>,
        cleanup: Box<LoaderError>,
    },
}

fn seen_text(by: &[Conflict]) -> String {
    if by.is_empty() { String::new() } else { format!(" (seen by the loader: {})", text::conflicts(by)) }
}

fn busy_text(what: &str, attempts: u32, blockers: &[Blocker]) -> String {
    let times = if attempts == 1 { "1 attempt".to_owned() } else { format!("{attempts} attempts") };
    let who = threads_text(blockers);
    format!(
        "{what} was given up after {times}, because threads are inside functions to be replaced: {who}. \
         Nothing was changed; stop these threads or try again with more --retries or a longer --wait"
    )
}

fn threads_text(blockers: &[Blocker]) -> String {
    match blockers {
        [] => "the module named none".to_owned(),
        some => some.iter().map(Blocker::to_string).collect::<Vec<_>>().join("; "),
    }
}

fn retired_text(retired: &[RetiredScheduler]) -> String {
    let one = |one: &RetiredScheduler| format!("{} {}", one.version, crate::retired::kib(one.bytes));
    match retired {
        [] => " (none so far)".to_owned(),
        some => format!(" ({})", some.iter().map(one).collect::<Vec<_>>().join(", ")),
    }
}

impl LoaderError {
    /// 1 failed, 3 refused, and three codes that scripts may want to distinguish.
    pub fn exit_code(&self) -> u8 {
        match (self, self.outcome()) {
            (LoaderError::NotRoot { .. }, _) => 4,
            (LoaderError::Locked { .. }, _) => 5,
            (LoaderError::Unproved { .. }, _) => 6,
            (_, Outcome::Refused) => 3,
            (_, Outcome::Failed) => 1,
            (_, Outcome::Ok) => 0,
        }
    }

    /// Whether a safety check refused, or something failed.
    pub fn outcome(&self) -> Outcome {
        use LoaderError::*;
        match self {
            Locked { .. }
            | ManifestOfAnotherModule { .. }
            | WrongRelease { .. }
            | WrongBuildId { .. }
            | NoBuildId { .. }
            | AlreadyLoaded { .. }
            | NameTaken { .. }
            | ModuleRefused { .. }
            | Busy { .. }
            | Held { .. }
            | OtherHandover
            | Payload(_)
            | Conflicts { .. }
            | NothingNamed { .. }
            | NoRoom { .. }
            | Unproved { .. }
            | ThreadsInside { .. }
            | StillInUse { .. } => Outcome::Refused,
            NotRoot { .. }
            | Unreadable { .. }
            | State { .. }
            | Vanished { .. }
            | Unregistered { .. }
            | NoKernel
            | Manifest { .. }
            | NotAModule { .. }
            | NotAScheduler { .. }
            | NotLoaded { .. }
            | Switch { .. }
            | Contract(_)
            | Sysfs { .. }
            | NotUnloaded { .. }
            | NotRetired { .. }
            | NotReleased { .. }
            | LeftLoaded { .. } => Outcome::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_kernel_is_a_refusal_that_names_the_threads() {
        let blockers = vec![Blocker { comm: "a b".into(), pid: 7, function: "do_wait".into() }];
        let error = LoaderError::Busy { what: "installing", attempts: 6, blockers };
        assert_eq!(error.outcome(), Outcome::Refused);
        let text = error.to_string();
        assert!(text.contains("6 attempts") && text.contains("a b (thread 7) in do_wait"), "{text}");
    }

    #[test]
    fn a_module_that_stays_loaded_is_no_mere_refusal() {
        let busy = LoaderError::Busy { what: "installing", attempts: 1, blockers: vec![] };
        let cleanup = LoaderError::NotUnloaded { source: std::io::Error::from_raw_os_error(16) };
        let error = LoaderError::LeftLoaded { first: Box::new(busy), cleanup: Box::new(cleanup) };
        assert_eq!(error.outcome(), Outcome::Failed);
    }
}
