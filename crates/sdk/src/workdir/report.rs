//! What `init` reports: the gate's table, where kernel and tools come from, and the refusal.

use super::Step;
use schedswap_sched::identity::{Gate, Why};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Functions that a refusal lists before it only counts them.
const LISTED: usize = 20;

/// What the kernel was built from and with, and what is used here. Kept as `origins.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origins {
    /// The compiler found here (`.comment` of what it makes).
    pub compiler_found: String,
    /// The compiler that built the kernel (`.comment` of vmlinux).
    pub compiler_of_kernel: String,
    /// They are the same, to the package's revision.
    pub same_compiler: bool,
    /// Version of the source given, e.g. `6.1.192`; with the distribution's revision where that is known.
    pub source_version: String,
    /// The kernel's banner.
    pub kernel_banner: String,
    /// The source is of the kernel's version.
    pub same_version: bool,
}

impl Origins {
    /// The likely cause of code that is not identical.
    pub fn likely_cause(&self) -> String {
        let mut causes = Vec::new();
        if !self.same_compiler {
            causes.push(format!(
                "the compiler is another one: found {}, but the kernel was built by {}; install that revision of \
                 the compiler's package, or get it with `schedswap toolchain`, and run init again",
                self.compiler_found, self.compiler_of_kernel
            ));
        }
        if !self.same_version {
            causes.push(format!(
                "the source is another version: found {}, but the kernel is {}; take the source package of the kernel's \
                 version",
                self.source_version, self.kernel_banner
            ));
        }
        if causes.is_empty() {
            causes.push(format!(
                "compiler ({}) and version ({}) agree, so the source was changed, or it is another revision of the \
                 distribution's package, or the headers are another kernel's; the kernel is {}",
                self.compiler_found, self.source_version, self.kernel_banner
            ));
        }
        causes.join("; and ")
    }
}

/// Functions that would be replaced and do not compile to vmlinux's code.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Unit, name and why.
    pub functions: Vec<(String, String, Why)>,
    /// What the kernel was built from and with, and what is used here.
    pub origins: Origins,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} functions that would be replaced were not compiled to vmlinux's code:",
            self.functions.len()
        )?;
        for (unit, name, why) in self.functions.iter().take(LISTED) {
            writeln!(f, "  {name} ({unit}): {why}")?;
        }
        if self.functions.len() > LISTED {
            writeln!(f, "  and {} more", self.functions.len() - LISTED)?;
        }
        write!(f, "Likely cause: {}.\nUse --allow-different to continue anyway.", self.origins.likely_cause())
    }
}

/// One row of the gate's table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnitRow {
    /// Unit.
    pub unit: String,
    /// Functions in vmlinux.
    pub in_vmlinux: usize,
    /// Functions compiled.
    pub compiled: usize,
    /// Functions identical.
    pub identical: usize,
    /// Weak functions of which vmlinux runs another definition.
    pub overridden: Vec<String>,
    /// Functions that differ, with why.
    pub different: Vec<(String, String)>,
}

/// What `init` did and found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// `uname -r`.
    pub release: String,
    /// Build-id, hex.
    pub build_id: String,
    /// The gate.
    pub units: Vec<UnitRow>,
    /// What the kernel was built from and with, and what is used here.
    pub origins: Origins,
    /// Functions that are replaced.
    pub replaced: usize,
    /// Functions that stay in vmlinux.
    pub stay: usize,
    /// Symbols placed by relocations, and by the symbol table.
    pub placed: (usize, usize),
    /// Symbols whose place is not known: unit and name.
    pub unplaced: Vec<(String, String)>,
    /// Functions that are replaced though they differ (`--allow-different`).
    pub allowed_different: usize,
    /// The configuration that was used.
    pub configuration: Option<String>,
    /// What the author of the configuration should know.
    pub notes: Vec<String>,
    /// Steps that were done this time; the others were complete.
    #[serde(skip)]
    pub done: Vec<(Step, Duration)>,
}

pub(super) fn unit_rows(gate: &Gate) -> Vec<UnitRow> {
    let row = |unit: &schedswap_sched::identity::UnitGate| UnitRow {
        unit: unit.unit.clone(),
        in_vmlinux: unit.in_vmlinux(),
        compiled: unit.compiled(),
        identical: unit.identical(),
        overridden: unit.overridden().into_iter().map(str::to_owned).collect(),
        different: unit.different().map(|(name, why)| (name.to_owned(), why.to_string())).collect(),
    };
    gate.units.iter().map(row).collect()
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "kernel {} (build-id {})", self.release, self.build_id)?;
        let width = self.units.iter().map(|row| row.unit.len()).max().unwrap_or(0).max(4);
        writeln!(f, "{:width$}  in vmlinux  compiled  identical", "unit")?;
        for row in &self.units {
            let counts = (row.in_vmlinux, row.compiled, row.identical);
            write!(f, "{:width$}  {:>10}  {:>8}  {:>9}", row.unit, counts.0, counts.1, counts.2)?;
            if !row.overridden.is_empty() {
                write!(f, "  (weak, overridden: {})", row.overridden.join(", "))?;
            }
            writeln!(f)?;
            for (name, why) in row.different.iter().take(LISTED) {
                writeln!(f, "  {name}: {why}")?;
            }
            if row.different.len() > LISTED {
                writeln!(f, "  and {} more", row.different.len() - LISTED)?;
            }
        }
        write!(
            f,
            "{} functions replaced, {} stay in vmlinux; {} symbols placed by relocations, {} by the symbol table",
            self.replaced, self.stay, self.placed.0, self.placed.1
        )?;
        if let Some(file) = &self.configuration {
            write!(f, "\nconfigured by {file}; boundary.yaml in the work dir is what that amounts to")?;
        }
        for note in &self.notes {
            write!(f, "\nnote: {note}")?;
        }
        if !self.unplaced.is_empty() {
            let names: Vec<&str> = self.unplaced.iter().map(|(_, name)| name.as_str()).collect();
            write!(f, "\nnot placed: {}", names.join(", "))?;
        }
        if self.allowed_different > 0 {
            write!(
                f,
                "\nwarning: {} functions are replaced although they differ; likely cause: {}",
                self.allowed_different,
                self.origins.likely_cause()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_named_is_what_differs() {
        let mut origins = Origins {
            compiler_found: "GCC: (Debian 12.2.0-14) 12.2.0".into(),
            compiler_of_kernel: "GCC: (Debian 12.2.0-14+deb12u1) 12.2.0".into(),
            same_compiler: false,
            source_version: "6.1.190".into(),
            kernel_banner: "Linux version 6.1.0-56 Debian 6.1.192-2".into(),
            same_version: true,
        };
        let cause = origins.likely_cause();
        assert!(cause.contains("12.2.0-14+deb12u1") && !cause.contains("6.1.190"), "{cause}");
        origins.same_compiler = true;
        origins.same_version = false;
        let cause = origins.likely_cause();
        assert!(cause.contains("6.1.190") && !cause.contains("install"), "{cause}");
    }
}
