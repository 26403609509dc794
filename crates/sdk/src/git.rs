//! The work dir's git repository: its first commit is the pristine state, so `git diff` is the change and
//! upstream's patches apply with `git am`.

use schedswap_package::Commit;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Why git did not do what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not installed.
    #[error("`git` was not found; install the package that has it (Debian: `apt install git`)")]
    Missing,
    /// It could not be run.
    #[error("cannot run git in {root}")]
    Run {
        /// Where.
        root: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It failed.
    #[error("`git {command}` failed in {root}: {said}")]
    Failed {
        /// Its arguments.
        command: String,
        /// Where.
        root: PathBuf,
        /// Its message.
        said: String,
    },
}

/// Result of a git command.
pub type Result<T> = std::result::Result<T, Error>;

/// Commits all of `root` as the first commit, unless there is one already.
pub(crate) fn commit_pristine(root: &Path, message: &str) -> Result<()> {
    if has_commit(root)? {
        return Ok(());
    }
    run(root, &["init", "-q", "."])?;
    run(root, &["add", "-A", "."])?;
    run(root, &["commit", "-q", "--no-verify", "-m", message])
}

/// Commits files that came into the tree after its first commit, and nothing else that may be changed there.
pub(crate) fn commit_added(root: &Path, files: &[PathBuf], message: &str) -> Result<()> {
    let names: Vec<&str> = files.iter().filter_map(|file| file.to_str()).collect();
    if names.is_empty() {
        return Ok(());
    }
    run(root, &[&["add", "--"], names.as_slice()].concat())?;
    // A first commit that has just been made has them already.
    let staged = [&["diff", "--cached", "--quiet", "--"], names.as_slice()].concat();
    if git(root, &staged)?.status.success() {
        return Ok(());
    }
    run(root, &[&["commit", "-q", "--no-verify", "-m", message, "--"], names.as_slice()].concat())
}

/// The commit that the tree is at; `None` if files differ from it, or git does not answer.
pub(crate) fn clean_commit(root: &Path) -> Option<String> {
    let changes = git(root, &["status", "--porcelain", "--untracked-files=no"]).ok()?;
    if !changes.status.success() || !changes.stdout.is_empty() {
        return None;
    }
    let head = git(root, &["rev-parse", "HEAD"]).ok().filter(|o| o.status.success())?;
    Some(String::from_utf8_lossy(&head.stdout).trim().to_owned())
}

/// The commits that led to the state that `root` is at, the newest first; none if `root` is not the top of a repository.
///
/// # Errors
/// git is not installed, or fails.
pub fn history(root: &Path) -> Result<Vec<Commit>> {
    if !has_commit(root)? {
        return Ok(Vec::new());
    }
    let arguments = ["log", "-z", "--first-parent", "--format=%H%x1f%an%x1f%ae%x1f%ct%x1f%s"];
    let output = git(root, &arguments)?;
    if !output.status.success() {
        return Err(failed(root, &arguments, &output));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let commit = |record: &str| {
        let mut fields = record.splitn(5, '\x1f').map(str::to_owned);
        Some(Commit {
            id: fields.next()?,
            author: fields.next()?,
            address: fields.next()?,
            seconds: fields.next()?.parse().ok()?,
            subject: fields.next()?,
        })
    };
    Ok(text.split('\0').filter_map(commit).collect())
}

fn has_commit(root: &Path) -> Result<bool> {
    // A repository above the work dir is not the work dir's.
    if !root.join(".git").exists() {
        return Ok(false);
    }
    Ok(git(root, &["rev-parse", "-q", "--verify", "HEAD"])?.status.success())
}

fn run(root: &Path, arguments: &[&str]) -> Result<()> {
    let output = git(root, arguments)?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(root, arguments, &output))
}

fn failed(root: &Path, arguments: &[&str], output: &Output) -> Error {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Error::Failed { command: arguments.join(" "), root: root.to_owned(), said }
}

fn git(root: &Path, arguments: &[&str]) -> Result<Output> {
    let mut git = Command::new("git");
    git.arg("-C").arg(root);
    // The commits made here are schedswap's, whatever the name and the git configuration of the user are.
    for setting in [
        "user.name=schedswap",
        "user.email=schedswap@localhost",
        "commit.gpgSign=false",
        "core.hooksPath=/dev/null",
        "core.autocrlf=false",
        "init.defaultBranch=main",
        "init.templateDir=",
    ] {
        git.args(["-c", setting]);
    }
    // Set when this runs in a hook or an alias of another repository.
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX"] {
        git.env_remove(variable);
    }
    for name in ["AUTHOR", "COMMITTER"] {
        git.env_remove(format!("GIT_{name}_NAME")).env_remove(format!("GIT_{name}_EMAIL"));
    }
    git.args(arguments).output().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::Missing,
        _ => Error::Run { root: root.to_owned(), source: e },
    })
}
