//! A scheduler module on disk: what it says about itself, before the kernel sees it.

use crate::error::LoaderError;
use object::elf::SHF_ALLOC;
use object::read::elf::ElfFile64;
use object::{Endianness, Object as _, ObjectSection as _, SectionFlags};
use schedswap_payload::manifest::{self, Manifest};
use schedswap_payload::{BuildId, MODULE_NAME, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A module that was read and found to be a scheduler.
#[derive(Debug)]
pub struct ModuleFile {
    /// Its file.
    pub path: PathBuf,
    /// Open for reading: what was checked is what is loaded, even if the path is replaced meanwhile.
    pub file: File,
    /// What its `.modinfo` says.
    pub info: ModuleInfo,
    /// Digest of the whole file, in hex.
    pub sha256: Sha256,
    /// How much memory it takes once it is loaded, but for what the kernel frees again or adds itself.
    pub memory_bytes: u64,
    /// Whether a signature is appended. Only the kernel can tell whether it trusts it.
    pub is_signed: bool,
}

/// How a signed module ends (`MODULE_SIG_STRING`, `include/linux/module_signature.h`).
const SIGNED: &[u8] = b"~Module signature appended~\n";

/// What a scheduler module says in `.modinfo`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModuleInfo {
    /// `name`: the name by which the kernel knows the module.
    pub name: String,
    /// First word of `vermagic`: `uname -r` of the kernel for which it was built.
    pub kernel_release: String,
    /// `schedswap_build_id`: the kernel for which it was built.
    pub build_id: BuildId,
    /// `version`, if it has one.
    pub version: Option<String>,
}

/// Opens a `.ko`, or the module of a directory with a manifest; also returns the manifest, if there is one.
pub fn open(path: &Path) -> Result<(Option<Manifest>, ModuleFile), LoaderError> {
    if !path.is_dir() {
        let module = open_ko(path)?;
        return Ok((manifest_beside(&module), module));
    }
    let manifest = read_manifest(path)?;
    let module = open_of(path, &manifest)?;
    Ok((Some(manifest), module))
}

/// The manifest beside a module, if it belongs to that module.
fn manifest_beside(module: &ModuleFile) -> Option<Manifest> {
    let manifest = read_manifest(module.path.parent()?).ok()?;
    let is_its =
        module.path.file_name()? == manifest.module.as_str() && module.info.build_id == manifest.build_id;
    is_its.then_some(manifest)
}

/// The manifest in a directory.
pub fn read_manifest(dir: &Path) -> Result<Manifest, LoaderError> {
    let path = dir.join(manifest::FILE_NAME);
    let json =
        std::fs::read(&path).map_err(|source| LoaderError::Unreadable { path: path.clone(), source })?;
    Manifest::parse(&json).map_err(|source| LoaderError::Manifest { path, source })
}

/// Opens the module of that manifest, and checks that the two belong together.
pub fn open_of(dir: &Path, manifest: &Manifest) -> Result<ModuleFile, LoaderError> {
    let manifest_path = dir.join(manifest::FILE_NAME);
    let module = open_ko(&dir.join(&manifest.module))?;
    if module.info.build_id != manifest.build_id {
        return Err(LoaderError::ManifestOfAnotherModule {
            manifest_path,
            module_path: module.path,
            manifest: manifest.build_id.clone(),
            module: module.info.build_id,
        });
    }
    Ok(module)
}

fn open_ko(path: &Path) -> Result<ModuleFile, LoaderError> {
    let unreadable = |source| LoaderError::Unreadable { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(unreadable)?;
    let modinfo = modinfo_section(&bytes)
        .ok_or(LoaderError::NotAModule { path: path.to_owned(), expected: "a 64-bit ELF with .modinfo" })?;
    let info = ModuleInfo::parse(modinfo).map_err(|(key, found, expected)| LoaderError::NotAScheduler {
        path: path.to_owned(),
        key,
        found,
        expected,
    })?;
    let is_signed = bytes.ends_with(SIGNED);
    let memory_bytes = memory_bytes(&bytes);
    Ok(ModuleFile { path: path.to_owned(), file, info, sha256: Sha256::of(&bytes), memory_bytes, is_signed })
}

/// The size of all sections that are loaded.
fn memory_bytes(bytes: &[u8]) -> u64 {
    let Ok(elf) = ElfFile64::<Endianness>::parse(bytes) else { return 0 };
    let is_loaded =
        |flags| matches!(flags, SectionFlags::Elf { sh_flags, .. } if sh_flags.contains(SHF_ALLOC));
    elf.sections().filter(|section| is_loaded(section.flags())).map(|section| section.size()).sum()
}

/// `scheduler`, or `scheduler_` and 8 hex digits, which distinguish versions.
pub fn is_a_scheduler_s_name(name: &str) -> bool {
    name.strip_prefix(MODULE_NAME).is_some_and(|rest| {
        rest.is_empty()
            || rest
                .strip_prefix('_')
                .is_some_and(|id| id.len() == 8 && id.bytes().all(|b| b.is_ascii_hexdigit()))
    })
}

/// The same, followed by `_r` and a number: a scheduler that has retired.
pub fn is_a_retired_scheduler_s_name(name: &str) -> bool {
    let is_number = |number: &str| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    name.rsplit_once("_r").is_some_and(|(name, number)| is_a_scheduler_s_name(name) && is_number(number))
}

fn modinfo_section(bytes: &[u8]) -> Option<&[u8]> {
    let elf = ElfFile64::<Endianness>::parse(bytes).ok()?;
    elf.section_by_name(".modinfo")?.data().ok()
}

/// A key, the value that was found, and what was expected.
type Mismatch = (&'static str, String, &'static str);

impl ModuleInfo {
    /// Reads the content of `.modinfo`: `key=value` strings, each followed by at least one zero byte.
    fn parse(modinfo: &[u8]) -> Result<ModuleInfo, Mismatch> {
        let value = |key: &str| {
            modinfo.split(|byte| *byte == 0).find_map(|entry| {
                let value = entry.strip_prefix(key.as_bytes())?.strip_prefix(b"=")?;
                Some(String::from_utf8_lossy(value).into_owned())
            })
        };
        let require = |key: &'static str, expected: &'static str| {
            value(key).ok_or_else(|| (key, "(nothing)".to_owned(), expected))
        };
        let expected = "scheduler, or scheduler_ and 8 hex digits";
        let name = require("name", expected)?;
        if !is_a_scheduler_s_name(&name) {
            return Err(("name", name, expected));
        }
        let build_id = require("schedswap_build_id", "the build-id of a kernel")?;
        let build_id = build_id
            .parse()
            .map_err(|_| ("schedswap_build_id", build_id, "the build-id of a kernel, in hex"))?;
        let vermagic = require("vermagic", "a kernel release")?;
        let kernel_release = match vermagic.split_whitespace().next() {
            Some(release) => release.to_owned(),
            None => return Err(("vermagic", vermagic, "a kernel release")),
        };
        Ok(ModuleInfo { name, kernel_release, build_id, version: value("version") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MODINFO: &[u8] =
        b"license=Dual BSD/GPL\0\0schedswap_build_id=00ff10\0version=x 1-2\0depends=\0name=scheduler\0\
        vermagic=6.1.0-1-amd64 SMP preempt mod_unload modversions \0";

    fn without(key: &str) -> Vec<u8> {
        let entries = MODINFO.split(|b| *b == 0).filter(|entry| !entry.starts_with(key.as_bytes()));
        entries.collect::<Vec<_>>().join(&0)
    }

    #[test]
    fn what_a_module_says_of_itself() {
        let info = ModuleInfo::parse(MODINFO).unwrap();
        assert_eq!(info.kernel_release, "6.1.0-1-amd64");
        assert_eq!(info.build_id.to_string(), "00ff10");
        assert_eq!(info.version.as_deref(), Some("x 1-2"));
    }

    #[test]
    fn a_module_that_lacks_a_field_is_refused_by_that_name() {
        for key in ["name", "schedswap_build_id", "vermagic"] {
            assert_eq!(ModuleInfo::parse(&without(key)).unwrap_err().0, key);
        }
        assert!(ModuleInfo::parse(&without("version")).is_ok());
    }

    #[test]
    fn any_other_module_is_refused() {
        let named = |name: &str| {
            let other = String::from_utf8_lossy(MODINFO).replace("name=scheduler", &format!("name={name}"));
            ModuleInfo::parse(other.as_bytes()).map(|info| info.name)
        };
        assert_eq!(named("scheduler_0123abcd"), Ok("scheduler_0123abcd".into()));
        for name in [
            "ext4",
            "scheduler_",
            "scheduler_0123abc",
            "scheduler_0123abcg",
            "schedulers",
            "scheduler0123abcd",
        ] {
            assert_eq!(named(name).unwrap_err().1, name);
        }
    }

    #[test]
    fn a_file_that_is_no_module() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR"));
        let error = open_ko(&dir.join("Cargo.toml")).unwrap_err();
        assert!(matches!(error, LoaderError::NotAModule { .. }), "{error}");
        assert!(matches!(open(&dir.join("none.ko")).unwrap_err(), LoaderError::Unreadable { .. }));
        let error = open(dir).unwrap_err();
        assert!(matches!(&error, LoaderError::Unreadable { path, .. } if path.ends_with("manifest.json")));
        // The test program itself: an ELF file, but not a module.
        let program = std::env::current_exe().unwrap();
        assert!(matches!(open_ko(&program).unwrap_err(), LoaderError::NotAModule { .. }));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = ModuleInfo::parse(&bytes);
            let _ = modinfo_section(&bytes);
        }
    }
}
