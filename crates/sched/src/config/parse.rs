//! Reading the YAML. What can be said without knowing the kernel is said here.

use super::error::Faults;
use super::{
    At, Config, DataRule, Divert, Error, Fault, ListedName, Private, Rebuilding, SCHEDULER, Sidecar,
};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_saphyr::Spanned;
use std::collections::BTreeMap;
use std::fmt;

/// Reads a configuration; `file` is what messages call it. An empty one overrides nothing.
///
/// # Errors
/// Everything that is wrong with it on every kernel, by line and column.
pub fn parse(file: &str, text: &str) -> Result<Config, Error> {
    let options = serde_saphyr::options! { with_snippet: false };
    let document: Option<Document> = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let location = error.location();
        let at = location.map_or(At { line: 1, column: 1 }, |l| At { line: l.line(), column: l.column() });
        Error::Faults(vec![Fault { file: file.to_owned(), at, what: in_short(&error.to_string(), at) }])
    })?;
    let config = document.unwrap_or_default().into_config(file);
    config.check_itself()?;
    Ok(config)
}

/// What is wrong, without its place, which is said first, and without what the program should set to accept it.
fn in_short(message: &str, at: At) -> String {
    let message = message.replace(&format!(" at line {}, column {}", at.line, at.column), "");
    message.split(", set DuplicateKeyPolicy").next().unwrap_or(&message).trim().to_owned()
}

/// plugsched's words, and three of ours. Each may be there without a value.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    data: Option<DataRule>,
    #[serde(default)]
    mod_files: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    interface_prefix: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    function: Option<Functions>,
    #[serde(default)]
    global_var: Option<Variables>,
    #[serde(default)]
    sidecar: Option<Vec<Spanned<BTreeMap<String, String>>>>,
    #[serde(default)]
    stay_in_vmlinux: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    divert: Option<Divert>,
    #[serde(default)]
    rebuild: Option<Rebuilding>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Functions {
    #[serde(default)]
    interface: Option<Vec<Spanned<String>>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Variables {
    #[serde(default)]
    extra_public: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    force_private: Option<Vec<Spanned<Named>>>,
}

/// A name, alone or with what is to be done: `x`, or `{name: x, carry: true}`.
struct Named {
    name: String,
    carry: bool,
}

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Named, D::Error> {
        struct NameOrMapping;
        impl<'de> Visitor<'de> for NameOrMapping {
            type Value = Named;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a variable's name, or a mapping with `name` and `carry`")
            }
            fn visit_str<E>(self, name: &str) -> Result<Named, E> {
                Ok(Named { name: name.to_owned(), carry: false })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Named, A::Error> {
                #[derive(Deserialize)]
                #[serde(deny_unknown_fields)]
                struct Mapping {
                    name: String,
                    #[serde(default)]
                    carry: bool,
                }
                let mapping = Mapping::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                Ok(Named { name: mapping.name, carry: mapping.carry })
            }
        }
        deserializer.deserialize_any(NameOrMapping)
    }
}

fn at<T>(spanned: &Spanned<T>) -> At {
    At { line: spanned.referenced.line(), column: spanned.referenced.column() }
}

fn entries(list: Option<Vec<Spanned<String>>>) -> Vec<ListedName> {
    list.into_iter().flatten().map(|s| ListedName { at: at(&s), name: s.value }).collect()
}

impl Document {
    fn into_config(self, file: &str) -> Config {
        let variables = self.global_var.unwrap_or_default();
        let private = |s: Spanned<Named>| Private {
            carry: s.value.carry,
            variable: ListedName { at: at(&s), name: s.value.name },
        };
        let sidecar = |s: Spanned<BTreeMap<String, String>>| {
            let at = at(&s);
            s.value.into_iter().map(move |(function, file)| Sidecar {
                function: ListedName { name: function, at },
                file: ListedName { name: file, at },
            })
        };
        Config {
            file: Some(file.to_owned()),
            data: self.data.unwrap_or_default(),
            mod_files: self.mod_files.map(|files| entries(Some(files))),
            interface_prefix: entries(self.interface_prefix),
            interface: entries(self.function.unwrap_or_default().interface),
            stay_in_vmlinux: entries(self.stay_in_vmlinux),
            extra_public: entries(variables.extra_public),
            force_private: variables.force_private.into_iter().flatten().map(private).collect(),
            sidecar: self.sidecar.into_iter().flatten().flat_map(sidecar).collect(),
            divert: self.divert.unwrap_or_default(),
            rebuild: self.rebuild.unwrap_or_default(),
        }
    }
}

impl Config {
    /// What is wrong with it on every kernel.
    fn check_itself(&self) -> Result<(), Error> {
        let file = self.file.as_deref().unwrap_or_default();
        let mut faults = Faults::default();
        let functions = [
            ("function.interface", self.interface.iter().collect()),
            ("stay_in_vmlinux", self.stay_in_vmlinux.iter().collect()),
            ("sidecar", self.sidecar.iter().map(|s| &s.function).collect::<Vec<_>>()),
        ];
        let variables = [
            ("global_var.extra_public", self.extra_public.iter().collect()),
            ("global_var.force_private", self.force_private.iter().map(|p| &p.variable).collect::<Vec<_>>()),
        ];
        let files = [("mod_files", self.mod_files.iter().flatten().collect::<Vec<_>>())];
        let prefixes = [("interface_prefix", self.interface_prefix.iter().collect::<Vec<_>>())];
        for lists in [&functions[..], &variables, &files, &prefixes] {
            let mut seen: BTreeMap<&str, (&str, At)> = BTreeMap::new();
            for (list, entries) in lists {
                for entry in entries {
                    if entry.name.trim().is_empty() {
                        faults.add(file, entry.at, format!("an empty name in {list}; leave the line out"));
                    } else if let Some((other, first)) = seen.insert(&entry.name, (list, entry.at)) {
                        let (name, line) = (&entry.name, first.line);
                        let what = if other == *list {
                            format!("{name} is in {list} twice, first in line {line}; name it once")
                        } else {
                            format!(
                                "{name} is in {list}, and in {other} in line {line}; it can only be in one"
                            )
                        };
                        faults.add(file, entry.at, what);
                    }
                }
            }
        }
        for entry in self.mod_files.iter().flatten() {
            if let Err(what) = is_inside(&entry.name) {
                faults.add(file, entry.at, what);
            } else if !entry.name.starts_with(SCHEDULER) {
                let what = format!(
                    "{} is not below {SCHEDULER}; mod_files are the scheduler's own files, functions of others are \
                     replaced by naming them in sidecar",
                    entry.name
                );
                faults.add(file, entry.at, what);
            }
        }
        for entry in self.sidecar.iter().map(|sidecar| &sidecar.file) {
            if let Err(what) = is_inside(&entry.name) {
                faults.add(file, entry.at, what);
            } else if !entry.name.ends_with(".c") {
                let what =
                    format!("{} is not a C source; name the .c file that defines the function", entry.name);
                faults.add(file, entry.at, what);
            }
        }
        faults.result()
    }
}

/// Whether a path can only lead to a file of the kernel's source.
fn is_inside(path: &str) -> Result<(), String> {
    let parts = || path.split('/');
    if path.starts_with('/') || parts().any(|part| part == "..") {
        return Err(format!(
            "{path} leads out of the kernel's source; name files relative to its top directory, such as {SCHEDULER}core.c"
        ));
    }
    if parts().any(|part| part.is_empty() || part == ".") || path.contains(['\\', '\0', '\n']) {
        return Err(format!("{path:?} is not a plain path, such as {SCHEDULER}core.c"));
    }
    Ok(())
}
