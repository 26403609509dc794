//! Edits to a scheduler's source that do not depend on what the lines around look like, so that a test states
//! its change once for every kernel.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A scheduler source tree: a work dir.
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// The tree below a work dir.
    pub fn at(work_dir: &Path) -> Tree {
        Tree { root: work_dir.to_path_buf() }
    }

    fn edit(&self, file: &str, change: impl FnOnce(&str) -> Result<String>) -> Result<()> {
        let path = self.root.join("kernel/sched").join(file);
        let old = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        fs::write(&path, change(&old)?).with_context(|| format!("writing {}", path.display()))
    }

    /// Puts `code` at the top of a function's body.
    pub fn at_entry(&self, file: &str, function: &str, code: &str) -> Result<()> {
        self.edit(file, |text| {
            let (start, _) =
                definition(text, function).with_context(|| format!("no {function}() in {file}"))?;
            let brace = start + text[start..].find('{').context("a definition has a body")?;
            Ok(format!("{}\n\t{code}\n{}", &text[..=brace], &text[brace + 1..]))
        })
    }

    /// Puts `code` before a function's definition.
    pub fn before(&self, file: &str, function: &str, code: &str) -> Result<()> {
        self.edit(file, |text| {
            let (start, _) =
                definition(text, function).with_context(|| format!("no {function}() in {file}"))?;
            Ok(format!("{}{code}\n\n{}", &text[..start], &text[start..]))
        })
    }

    /// Replaces the only occurrence of `old`.
    pub fn replace(&self, file: &str, old: &str, new: &str) -> Result<()> {
        self.edit(file, |text| {
            ensure!(
                text.matches(old).count() == 1,
                "{old:?} occurs {} times in {file}",
                text.matches(old).count()
            );
            Ok(text.replacen(old, new, 1))
        })
    }

    /// Replaces every occurrence of `old`.
    pub fn replace_all(&self, file: &str, old: &str, new: &str) -> Result<()> {
        self.edit(file, |text| {
            ensure!(text.contains(old), "{old:?} does not occur in {file}");
            Ok(text.replace(old, new))
        })
    }

    /// Applies a patch of this repository, as `patch -p1` does.
    pub fn patch(&self, path: &str) -> Result<()> {
        let patch = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
        let output = Command::new("patch")
            .args(["--strip=1", "--batch", "--directory"])
            .arg(&self.root)
            .arg("--input")
            .arg(patch.canonicalize().with_context(|| format!("{path} is not there"))?)
            .output()
            .context("running patch")?;
        ensure!(
            output.status.success(),
            "{path} does not apply:\n{}",
            String::from_utf8_lossy(&output.stdout)
        );
        Ok(())
    }

    /// Puts text at the end of a file.
    pub fn append(&self, file: &str, code: &str) -> Result<()> {
        self.edit(file, |text| Ok(format!("{text}\n{code}\n")))
    }
}

/// Where a function's definition begins (its first line, return type included) and ends.
fn definition(text: &str, function: &str) -> Option<(usize, usize)> {
    let call = format!("{function}(");
    let mut from = 0;
    while let Some(found) = text[from..].find(&call) {
        let at = from + found;
        from = at + call.len();
        if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let line_start = text[..at].rfind('\n').map_or(0, |n| n + 1);
        // Kernel style: a definition starts in the first column and its brace stands alone in it.
        if text[line_start..].starts_with(['\t', ' ', '*', '#', '/']) {
            continue;
        }
        let Some(body) = text[at..].find("\n{\n") else { continue };
        let semicolon = text[at..].find(';');
        if semicolon.is_some_and(|s| s < body) {
            continue;
        }
        // The return type may stand on lines of its own above.
        let mut start = line_start;
        while start > 1 {
            let previous = text[..start - 1].rfind('\n').map_or(0, |n| n + 1);
            let line = &text[previous..start - 1];
            if line.is_empty()
                || line.ends_with([';', '}', '/', '>', '"'])
                || line.starts_with(['#', ' ', '\t', '/'])
            {
                break;
            }
            start = previous;
        }
        let end = text[at + body..].find("\n}\n").map_or(text.len(), |n| at + body + n + 3);
        return Some((start, end));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::definition;

    #[test]
    fn finds_definitions_not_calls_or_declarations() {
        let text =
            "int f(int);\n\n/* f(x) */\nstatic int\nf(int a)\n{\n\treturn f(a);\n}\n\nint g(void)\n{\n}\n";
        let (start, end) = definition(text, "f").expect("defined");
        assert_eq!(&text[start..end], "static int\nf(int a)\n{\n\treturn f(a);\n}\n");
        assert!(definition(text, "h").is_none());
    }
}
