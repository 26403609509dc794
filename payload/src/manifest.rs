//! `manifest.json`: which kernel a scheduler module is for, and what it replaces there.

use crate::BuildId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// File name of the manifest, in the directory that also holds the module.
pub const FILE_NAME: &str = "manifest.json";

/// The version of the format that this crate writes. Older ones are read too: what they lack is empty.
pub const FORMAT: u32 = 2;

/// A scheduler module's description.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Name of this scheduler, as a package would be named.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its release: counts builds of one version.
    pub release: String,
    /// Version of the SDK that built it.
    pub sdk_version: String,
    /// Commit of the work dir it was built from; `None` when there is none or it had uncommitted changes.
    #[serde(default)]
    pub source_commit: Option<String>,
    /// `uname -r` of the kernel it is for.
    pub kernel_release: String,
    /// Build-id of the kernel it is for: the addresses in the module hold for this one only.
    pub build_id: BuildId,
    /// `uname -m` of the kernel it is for.
    pub machine: String,
    /// File name of the module, beside the manifest.
    pub module: String,
    /// What this scheduler is for, in one line.
    #[serde(default)]
    pub summary: String,
    /// Name of the kernel module, in `/sys/module`: two versions have two names, so that both can be loaded
    /// while one takes over from the other.
    #[serde(default)]
    pub module_name: String,
    /// SHA-256 of the boundary that it was built with, in hex.
    #[serde(default)]
    pub boundary_hash: String,
    /// SHA-256, in hex, of every file beside the manifest, by file name.
    #[serde(default)]
    pub digests: BTreeMap<String, String>,
    /// Functions of vmlinux that it redirects.
    #[serde(default)]
    pub functions: Vec<RedirectedFunction>,
    /// Findings of `check` that the developer chose to allow, by code and symbol.
    #[serde(default)]
    pub findings_allowed: Vec<String>,
}

/// One function of vmlinux that is redirected.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RedirectedFunction {
    /// Symbol name in vmlinux.
    pub name: String,
    /// Which of the symbols of that name, in kallsyms' order, counted from 1, as livepatch does;
    /// 0 when the name is unique.
    pub sympos: u32,
}

/// A manifest that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or a field is missing or of the wrong type.
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
    /// A field's value cannot be right.
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
    pub fn parse(json: &[u8]) -> Result<Manifest, ManifestError> {
        /// Read first, so that a newer format is named as such and not as a missing field.
        #[derive(Deserialize)]
        struct Versioned {
            format: u64,
        }
        let versioned: Versioned = serde_json::from_slice(json).map_err(ManifestError::Json)?;
        if !(1..=u64::from(FORMAT)).contains(&versioned.format) {
            return Err(ManifestError::Format { found: versioned.format });
        }
        let manifest: Manifest = serde_json::from_slice(json).map_err(ManifestError::Json)?;
        let field = |field, found: &str, expected| {
            Err(ManifestError::Field { field, found: found.to_owned(), expected })
        };
        // The loader joins it to a directory and hands the file to the kernel as root.
        if manifest.module.is_empty() || manifest.module.contains('/') || manifest.module.starts_with('.') {
            return field("module", &manifest.module, "a plain file name");
        }
        if manifest.kernel_release.is_empty() {
            return field("kernel_release", &manifest.kernel_release, "what `uname -r` prints there");
        }
        Ok(manifest)
    }

    /// The manifest as `manifest.json` holds it.
    pub fn to_json(&self) -> String {
        let mut json = serde_json::to_string_pretty(self).expect("strings and numbers always become JSON");
        json.push('\n');
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        Manifest {
            format: FORMAT,
            name: "my-scheduler".into(),
            version: "1.2".into(),
            release: "3".into(),
            sdk_version: "0.1.0".into(),
            source_commit: Some("0123abc".into()),
            kernel_release: "6.1.0-1-amd64".into(),
            build_id: "00ff".parse().unwrap(),
            machine: "x86_64".into(),
            module: "scheduler.ko".into(),
            summary: "for tests".into(),
            module_name: "scheduler_0123abcd".into(),
            boundary_hash: "ab".repeat(32),
            digests: [("scheduler.ko".to_owned(), "cd".repeat(32))].into(),
            functions: vec![RedirectedFunction { name: "set_load_weight".into(), sympos: 2 }],
            findings_allowed: vec![],
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
        assert!(edited("\"format\": 2,", "\"format\": 2, \"kernels\": {},").is_ok());
    }

    #[test]
    fn the_format_before_is_read_too() {
        let old = br#"{"format": 1, "name": "x", "version": "1", "release": "1", "sdk_version": "0.1.0",
            "kernel_release": "6.1.0-1-amd64", "build_id": "00ff", "machine": "x86_64", "module": "scheduler.ko"}"#;
        let manifest = Manifest::parse(old).unwrap();
        assert!(manifest.module_name.is_empty() && manifest.digests.is_empty());
    }

    #[test]
    fn a_module_outside_the_directory_is_refused() {
        for name in ["../scheduler.ko", "/tmp/x.ko", "", ".hidden", "a/b.ko"] {
            let error = edited("scheduler.ko", name).unwrap_err();
            assert!(error.to_string().contains("plain file name"), "{name}: {error}");
        }
    }

    #[test]
    fn a_build_id_that_is_no_hex_is_refused() {
        assert!(matches!(edited("00ff", "00fg"), Err(ManifestError::Json(_))));
    }
}
