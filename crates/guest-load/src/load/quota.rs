//! Processes under CPU quotas, in two levels of control groups.

use super::board::{Board, Fault};
use super::calls::fork;
use super::work::burn;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const ROOT: &str = "/sys/fs/cgroup";

/// The control groups of the load; removed when dropped.
pub struct Groups {
    dirs: Vec<PathBuf>,
}

/// Leaf group, its `cpu.max`, its `cpu.weight`, how many processes. A group with children has no processes
/// (the rule of cgroup2), only limits.
const LEAVES: [(&str, &str, &str, usize); 3] = [
    ("tight", "10000 50000", "100", 2),
    ("wide/small", "10000 100000", "50", 1),
    ("wide/large", "max", "200", 1),
];

/// Makes the groups and starts a process in each; returns the children's process ids.
pub fn start(board: &'static Board) -> Result<(Groups, Vec<i32>)> {
    let root = Path::new(ROOT);
    if !root.join("cgroup.controllers").exists() {
        anyhow::bail!("no cgroup2 at {ROOT}");
    }
    let mut groups = Groups { dirs: Vec::new() };
    let top = root.join(format!("guest-load-{}", std::process::id()));
    write(&root.join("cgroup.subtree_control"), "+cpu")?;
    for dir in [top.clone(), top.join("wide")] {
        fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        write(&dir.join("cgroup.subtree_control"), "+cpu")?;
        groups.dirs.push(dir);
    }
    write(&top.join("wide/cpu.max"), "30000 100000")?;
    let mut children = Vec::new();
    for (name, max, weight, processes) in LEAVES {
        let dir = top.join(name);
        fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        groups.dirs.push(dir.clone());
        write(&dir.join("cpu.max"), max)?;
        write(&dir.join("cpu.weight"), weight)?;
        for _ in 0..processes {
            let dir = dir.clone();
            children.push(fork(move || {
                if write(&dir.join("cgroup.procs"), "0").is_err() {
                    board.fault(Fault::FailedCall, 1);
                    return 1;
                }
                burn(board)
            })?);
        }
    }
    Ok((groups, children))
}

impl Groups {
    /// How often the groups ran out of quota: `nr_throttled` of their `cpu.stat`, summed.
    pub fn throttled(&self) -> u64 {
        let throttled = |dir: &PathBuf| -> Option<u64> {
            let stat = fs::read_to_string(dir.join("cpu.stat")).ok()?;
            stat.lines().find_map(|line| line.strip_prefix("nr_throttled "))?.trim().parse().ok()
        };
        self.dirs.iter().filter_map(throttled).sum()
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        // A group stays busy for a moment after its last process was reaped.
        for dir in self.dirs.iter().rev() {
            let begun = Instant::now();
            while fs::remove_dir(dir).is_err() && begun.elapsed() < Duration::from_secs(1) {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {text:?} to {}", path.display()))
}
