//! `manifest.json`: for which kernel a scheduler module was built, and what it replaces there.

use crate::{BuildId, Sha256};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// File name of the manifest, in the directory that also holds the module.
pub const FILE_NAME: &str = "manifest.json";

/// The version of the format that this crate writes and reads.
pub const FORMAT: u32 = 2;

/// A scheduler module's description.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Name of this scheduler, in the form of a package's name.
    pub name: String,
    /// What the loaded module shows in sysfs: `<name>-<release>`.
    pub version: String,
    /// Its release: counts the builds with that name.
    pub release: String,
    /// One line on its purpose.
    pub summary: String,
    /// Version of the SDK that built it.
    pub sdk_version: String,
    /// Commit of the work dir from which it was built; `None` if there is none or it had uncommitted changes.
    #[serde(default)]
    pub source_commit: Option<String>,
    /// `uname -r` of the kernel for which it was built.
    pub kernel_release: String,
    /// Build-id of that kernel: the addresses in the module are valid only for this build.
    pub build_id: BuildId,
    /// `uname -m` of that kernel.
    pub machine: String,
    /// File name of the module, beside the manifest.
    pub module: String,
    /// Name of the module once it is loaded, as in `/sys/module`.
    pub module_name: String,
    /// Digest of the boundary for which the module was built: which functions are replaced, where and why.
    pub boundary_hash: Sha256,
    /// Functions of vmlinux that it diverts.
    #[serde(default)]
    pub functions: Vec<DivertedFunction>,
    /// Warnings of `check` that its author has allowed, by code and symbol.
    #[serde(default)]
    pub findings_allowed: Vec<String>,
    /// Other warnings of `check`, by code and symbol.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Why the memory of the module must not be freed once it has run: which function or object hands out which
    /// address. Empty if the build has shown that none gets out, so that `uninstall --free` can free it.
    #[serde(default)]
    pub unproved: Vec<String>,
    /// Digest of every file of the payload except the manifest, by file name.
    pub digests: BTreeMap<String, Sha256>,
}

/// One function of vmlinux that is diverted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DivertedFunction {
    /// Symbol name in vmlinux.
    pub name: String,
    /// Which of the symbols with that name it is, in the order of kallsyms and counted from 1, as in livepatch; 0 if
    /// the name is unique.
    pub sympos: u32,
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is not JSON, or a field is missing or has the wrong type.
    #[error(
        "the manifest cannot be read: expected the JSON that `schedswap build` writes; build the module again"
    )]
    Json(#[source] serde_json::Error),
    /// Written by another version of the SDK.
    #[error(
        "the manifest has format {found}, this program reads format {FORMAT}: \
         use the loader that came with the module, or build the module again"
    )]
    Format {
        /// `format` as found.
        found: u64,
    },
    /// The value of a field cannot be right.
    #[error("the manifest's {field} is \"{found}\", expected {expected}: build the module again")]
    Field {
        /// Its name.
        field: &'static str,
        /// Its value.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
}

impl Manifest {
    /// Reads a manifest and checks that every field can be used.
    ///
    /// # Errors
    /// [`ManifestError::Json`] if it is not a manifest, [`ManifestError::Format`] if its format is another one, and
    /// [`ManifestError::Field`] with the first value that cannot be used.
    pub fn parse(json: &[u8]) -> Result<Manifest, ManifestError> {
        /// Read first, so that a newer format is reported as such and not as a missing field.
        #[derive(Deserialize)]
        struct Versioned {
            format: u64,
        }
        let versioned: Versioned = serde_json::from_slice(json).map_err(ManifestError::Json)?;
        if versioned.format != u64::from(FORMAT) {
            return Err(ManifestError::Format { found: versioned.format });
        }
        let manifest: Manifest = serde_json::from_slice(json).map_err(ManifestError::Json)?;
        let field = |field, found: &str, expected| {
            Err(ManifestError::Field { field, found: found.to_owned(), expected })
        };
        // The loader appends the name to a directory and hands that file to the kernel as root.
        if !is_plain_file_name(&manifest.module) {
            return field("module", &manifest.module, "a plain file name");
        }
        if let Some(name) = manifest.digests.keys().find(|name| !is_plain_file_name(name)) {
            return field("digests", name, "plain file names");
        }
        if !manifest.digests.contains_key(&manifest.module) {
            return field("digests", "(no module)", "a digest of the module");
        }
        // The name of a module becomes a directory below /sys.
        if !is_plain_file_name(&manifest.module_name) {
            return field("module_name", &manifest.module_name, "the name of a kernel module");
        }
        if manifest.kernel_release.is_empty() {
            return field("kernel_release", &manifest.kernel_release, "what `uname -r` prints there");
        }
        Ok(manifest)
    }

    /// Whether the manifest lists a file with that name and content.
    pub fn knows(&self, file: &str, content: &[u8]) -> bool {
        self.digests.get(file).is_some_and(|digest| *digest == Sha256::of(content))
    }

    /// The manifest in the form of `manifest.json`.
    pub fn to_json(&self) -> String {
        let mut json = serde_json::to_string_pretty(self).expect("strings and numbers always become JSON");
        json.push('\n');
        json
    }
}

fn is_plain_file_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '\0']) && !name.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        Manifest {
            format: FORMAT,
            name: "my-scheduler".into(),
            version: "my-scheduler-3".into(),
            release: "3".into(),
            summary: "wakes the right one".into(),
            sdk_version: "0.1.0".into(),
            source_commit: Some("0123abc".into()),
            kernel_release: "6.1.0-1-amd64".into(),
            build_id: "00ff".parse().unwrap(),
            machine: "x86_64".into(),
            module: "scheduler.ko".into(),
            module_name: "scheduler_0123abcd".into(),
            boundary_hash: Sha256::of(b"boundary"),
            functions: vec![DivertedFunction { name: "set_load_weight".into(), sympos: 2 }],
            findings_allowed: vec!["SS201 update_curr".into()],
            warnings: vec!["SS204 sched_nr_migrate".into()],
            unproved: vec!["update_curr hands out the address of novel_node".into()],
            digests: [("scheduler.ko".to_owned(), Sha256::of(b"module"))].into(),
        }
    }

    fn edited(from: &str, to: &str) -> Result<Manifest, ManifestError> {
        let json = sample().to_json();
        assert!(json.contains(from), "{from} is not in {json}");
        Manifest::parse(json.replace(from, to).as_bytes())
    }

    #[test]
    fn written_and_read_again() {
        assert_eq!(Manifest::parse(sample().to_json().as_bytes()).unwrap(), sample());
    }

    #[test]
    fn a_newer_format_is_named_even_when_its_fields_differ() {
        let error = Manifest::parse(br#"{"format": 3, "kernels": []}"#).unwrap_err();
        assert!(error.to_string().contains("has format 3, this program reads format 2"), "{error}");
    }

    #[test]
    fn unknown_fields_are_left_alone() {
        assert!(edited("\"format\": 2,", "\"format\": 2, \"colour\": {},").is_ok());
    }

    #[test]
    fn a_module_outside_the_directory_is_refused() {
        for name in ["../scheduler.ko", "/tmp/x.ko", "", ".hidden", "a/b.ko"] {
            let error = edited("scheduler.ko", name).unwrap_err();
            assert!(error.to_string().contains("plain file name"), "{name}: {error}");
        }
    }

    #[test]
    fn a_digest_of_the_module_is_required_and_none_of_a_file_elsewhere_taken() {
        let named = |name: &str| edited("\"scheduler.ko\": \"", &format!("\"{name}\": \""));
        for (name, expected) in [("other.ko", "a digest of the module"), ("../x", "plain file names")] {
            let error = named(name).unwrap_err();
            assert!(error.to_string().contains(expected), "{name}: {error}");
        }
    }

    #[test]
    fn a_module_name_that_is_a_path_is_refused() {
        for name in ["", "../kernel", "a/b"] {
            let error = edited("scheduler_0123abcd", name).unwrap_err();
            assert!(error.to_string().contains("module_name"), "{name}: {error}");
        }
    }

    #[test]
    fn an_altered_file_and_one_more_are_not_known() {
        let manifest = sample();
        assert!(manifest.knows("scheduler.ko", b"module"));
        assert!(!manifest.knows("scheduler.ko", b"modulf"));
        assert!(!manifest.knows("other.ko", b"module"));
    }

    #[test]
    fn a_build_id_that_is_no_hex_is_refused() {
        assert!(matches!(edited("00ff", "00fg"), Err(ManifestError::Json(_))));
    }
}
