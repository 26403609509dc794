//! The configuration held against a kernel: its files and its symbols.

use super::error::Faults;
use super::nearest::hint;
use super::{Config, Error, ListedName, SCHEDULER};
use schedswap_kernel::vmlinux::Image;
use std::collections::BTreeSet;
use std::path::Path;

impl Config {
    /// Every file that it names is in the kernel's source, of which `root` is the top directory.
    ///
    /// # Errors
    /// Each that is not, by line and column.
    pub fn check_files(&self, root: &Path) -> Result<(), Error> {
        let file = self.file.as_deref().unwrap_or_default();
        let mut faults = Faults::default();
        let named = self.mod_files.iter().flatten().chain(self.sidecar.iter().map(|sidecar| &sidecar.file));
        for entry in named {
            let path = root.join(&entry.name);
            // A link may lead anywhere.
            let is_below = path.canonicalize().ok().zip(root.canonicalize().ok());
            if !path.is_file() {
                let dir = Path::new(&entry.name).parent().unwrap_or(Path::new(""));
                let siblings = files_in(root, dir);
                let what = format!(
                    "the kernel's source has no file {}{}",
                    entry.name,
                    hint(&entry.name, siblings.iter().map(String::as_str))
                );
                faults.add(file, entry.at, what);
            } else if is_below.is_none_or(|(path, root)| !path.starts_with(root)) {
                faults.add(
                    file,
                    entry.at,
                    format!(
                        "{} is a link that leads out of the kernel's source; name the file itself",
                        entry.name
                    ),
                );
            }
        }
        faults.result()
    }

    /// Every symbol of the scheduler that it names is in the kernel, and is what it is taken for. Whether a sidecar's
    /// function can be replaced, the boundary says.
    ///
    /// # Errors
    /// Each that is not, by line and column.
    pub fn check_symbols(&self, image: &Image) -> Result<(), Error> {
        let file = self.file.as_deref().unwrap_or_default();
        let mut faults = Faults::default();
        let lists = [("function.interface", &self.interface), ("stay_in_vmlinux", &self.stay_in_vmlinux)];
        for (list, entry) in lists.iter().flat_map(|(list, entries)| entries.iter().map(move |e| (list, e))) {
            if let Err(what) = self.scheduler_function(image, entry) {
                faults.add(file, entry.at, format!("{what} ({list})"));
            }
        }
        for entry in self.extra_public.iter().chain(self.force_private.iter().map(|p| &p.variable)) {
            if let Err(what) = scheduler_variable(image, entry) {
                faults.add(file, entry.at, what);
            }
        }
        faults.result()
    }

    fn scheduler_function(&self, image: &Image, entry: &ListedName) -> Result<(), String> {
        let functions = || image.units.iter().flat_map(|u| u.functions.iter().map(move |f| (u, f)));
        if functions()
            .any(|(unit, f)| entry.means_function(&unit.name, &f.name, |name| unit.has_function(name)))
        {
            return Ok(());
        }
        let name = &entry.name;
        if let Some(copy) = image.units.iter().flat_map(|u| &u.inlined).find(|copy| copy.name == *name) {
            return Err(format!(
                "{name} has no code of its own in {}: it was inlined, into {} among others; name that one",
                image.release, copy.into
            ));
        }
        let is_elsewhere = !image.symbols_named(name).is_empty();
        let near = hint(name, functions().map(|(_, f)| f.name.as_str()));
        Err(if is_elsewhere {
            format!(
                "{name} is not defined below {SCHEDULER}; what is outside is replaced by naming it in sidecar"
            )
        } else {
            format!("the scheduler of {} has no function {name}{near}", image.release)
        })
    }
}

fn scheduler_variable(image: &Image, entry: &ListedName) -> Result<(), String> {
    let variables = || image.units.iter().flat_map(|u| u.variables.iter().map(move |v| (u, v)));
    if variables().any(|(unit, v)| entry.means_variable(&unit.name, v.in_function.as_deref(), &v.name)) {
        return Ok(());
    }
    let name = &entry.name;
    let bare = name.rsplit(':').next().unwrap_or(name);
    let places: BTreeSet<String> = variables()
        .filter(|(_, v)| v.name == bare)
        .map(|(unit, v)| match &v.in_function {
            Some(function) => format!("{}:{function}:{bare}", unit.name),
            None => format!("{}:{bare}", unit.name),
        })
        .collect();
    if !places.is_empty() {
        return Err(format!(
            "{name} is not there; there is {}",
            places.into_iter().collect::<Vec<_>>().join(", ")
        ));
    }
    let near = hint(bare, variables().map(|(_, v)| v.name.as_str()));
    Err(format!("the scheduler of {} has no variable {name}{near}", image.release))
}

/// Files of a directory of the kernel's source, as a configuration names them.
fn files_in(root: &Path, dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root.join(dir)).into_iter().flatten().flatten();
    entries.map(|entry| dir.join(entry.file_name()).display().to_string()).collect()
}
