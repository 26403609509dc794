//! The configuration as a value.

use schedswap_kernel::vmlinux::Sidecars;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What overrides the computed boundary. The default overrides nothing.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Config {
    /// The file it was read from, as messages name it; `None` for the default.
    pub file: Option<String>,
    /// Which variables are the module's own where nothing else is said.
    pub data: DataRule,
    /// The scheduler's files that make up the module; `None`: all of them.
    pub mod_files: Option<Vec<ListedName>>,
    /// Functions whose names begin so are interfaces.
    pub interface_prefix: Vec<ListedName>,
    /// Functions that are interfaces, whatever was computed.
    pub interface: Vec<ListedName>,
    /// Functions that stay in vmlinux.
    pub stay_in_vmlinux: Vec<ListedName>,
    /// Variables that are shared with vmlinux.
    pub extra_public: Vec<ListedName>,
    /// Variables of which the module has its own copy.
    pub force_private: Vec<Private>,
    /// Functions outside the scheduler that are replaced with it.
    pub sidecar: Vec<Sidecar>,
    /// Which functions a module replaces.
    #[serde(default)]
    pub divert: Divert,
    /// When the queues are rebuilt.
    #[serde(default)]
    pub rebuild: Rebuilding,
}

/// When every queue is emptied by the old code and filled again by the new one.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rebuilding {
    /// If something that is replaced runs when threads are queued or taken off a queue.
    #[default]
    Needed,
    /// In each swap.
    Always,
}

/// Which functions a module replaces.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Divert {
    /// Those that the edit changes, and those that cannot do without them.
    #[default]
    Changed,
    /// All that can be.
    All,
}

/// Which variables of the kernel's scheduler the module has a copy of its own of, unless they are named.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataRule {
    /// None: what vmlinux has is shared. (But for statics inside functions, and the feature switches.)
    #[default]
    Shared,
    /// plugsched's rule: static ones are the module's own, global ones are shared.
    Plugsched,
}

/// A name, and where it stands.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct ListedName {
    /// A function, a variable, a prefix or a file.
    pub name: String,
    /// Where.
    pub at: At,
}

/// A variable that is to be the module's own.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Private {
    /// Which.
    pub variable: ListedName,
    /// Its value comes from vmlinux at load and goes back at unload; else it begins as the source says.
    pub carry: bool,
}

/// A function outside the scheduler that is replaced with it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Sidecar {
    /// The function.
    pub function: ListedName,
    /// The source file that defines it, relative to the kernel's source.
    pub file: ListedName,
}

/// A place in the configuration's file; lines and columns count from 1.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct At {
    /// Line.
    pub line: u64,
    /// Column, in characters.
    pub column: u64,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl ListedName {
    /// Whether this names that variable. `name` alone means every variable of the name; `unit:name` the one of
    /// a unit, `unit:function:name` the one that is static in a function.
    pub fn means_variable(&self, unit: &str, function: Option<&str>, name: &str) -> bool {
        let parts: Vec<&str> = self.name.split(':').collect();
        match parts.as_slice() {
            [only] => *only == name,
            [in_unit, only] => *in_unit == unit && *only == name && function.is_none(),
            [in_unit, in_function, only] => {
                *in_unit == unit && *only == name && Some(*in_function) == function
            }
            _ => false,
        }
    }

    /// Whether this names that function of a unit, of any or, as `unit:name`, of one. `has`: the unit's functions. The
    /// suffix that the compiler gave a function may be left out, unless there is one without.
    pub fn means_function(&self, unit: &str, symbol: &str, has: impl Fn(&str) -> bool) -> bool {
        let (in_unit, name) = match self.name.split_once(':') {
            Some((in_unit, name)) => (Some(in_unit), name),
            None => (None, self.name.as_str()),
        };
        let is_clone = || symbol.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')) && !has(name);
        in_unit.is_none_or(|wanted| wanted == unit) && (symbol == name || is_clone())
    }
}

impl Config {
    /// Whether it overrides nothing.
    pub fn is_empty(&self) -> bool {
        *self == Config { file: self.file.clone(), ..Config::default() }
    }

    /// Functions outside the scheduler, by their unit.
    pub fn sidecars(&self) -> Sidecars {
        let mut sidecars = Sidecars::new();
        for Sidecar { function, file } in &self.sidecar {
            sidecars.entry(file.name.clone()).or_default().insert(function.name.clone());
        }
        sidecars
    }

    /// The file and line of an entry, for what is said about it.
    pub fn place(&self, at: At) -> String {
        format!("{}:{}", self.file.as_deref().unwrap_or("configuration"), at.line)
    }

    /// Why a function is an interface, if the configuration makes it one.
    pub fn makes_interface(&self, unit: &str, symbol: &str, has: impl Fn(&str) -> bool) -> Option<String> {
        let named = self.interface.iter().find(|entry| entry.means_function(unit, symbol, &has));
        let prefixed = || self.interface_prefix.iter().find(|entry| symbol.starts_with(&entry.name));
        match named {
            Some(entry) => Some(format!("function.interface, {}", self.place(entry.at))),
            None => prefixed().map(|entry| format!("interface_prefix, {}", self.place(entry.at))),
        }
    }

    /// Why a function stays in vmlinux, if the configuration keeps it there.
    pub fn keeps(&self, unit: &str, symbol: &str, file: &str, has: impl Fn(&str) -> bool) -> Option<String> {
        let mut named = self.stay_in_vmlinux.iter();
        if let Some(entry) = named.find(|entry| entry.means_function(unit, symbol, &has)) {
            return Some(format!("stay_in_vmlinux, {}", self.place(entry.at)));
        }
        let files = self.mod_files.as_ref()?;
        let is_sidecar = || self.sidecar.iter().any(|s| s.file.name == file && s.function.name == symbol);
        let is_left_out = file.starts_with(super::SCHEDULER) && !files.iter().any(|entry| entry.name == file);
        (is_left_out && !is_sidecar()).then(|| {
            format!(
                "{file} is not among the mod_files of {}",
                self.file.as_deref().unwrap_or("the configuration")
            )
        })
    }
}
