//! The files in a payload's directory on the host, and the manifest that describes them.

use super::changelog::Changelog;
use super::name::Name;
use super::recipe::{Architecture, DebName, PackageEntry, Recipe, Role, RpmName, check_summary};
use super::scripts::Scripts;
use super::{Error, Result};
use object::read::elf::{ElfFile64, FileHeader as _, ProgramHeader as _};
use object::{Endianness, Object as _, ObjectSection as _};
use schedswap_host::libexec;
use schedswap_kernel::vmlinux::Machine;
use schedswap_payload::manifest::{self, DivertedFunction};
use schedswap_payload::{BuildId, Manifest, Sha256};
use schedswap_sched::boundary::Boundary;
use std::fs;
use std::path::Path;

/// The module's file name.
const MODULE: &str = "scheduler.ko";
/// The loader's file name.
const LOADER: &str = "schedswap-loader";

/// The licences of everything in a payload: the module consists of the kernel's scheduler and `runtime/`, the loader
/// of Rust crates.
const LICENCES: [(&str, &str); 4] = [
    ("LICENSE-APACHE", include_str!("../../../LICENSE-APACHE")),
    ("LICENSE-BSD-3-Clause", include_str!("../../../LICENSES/BSD-3-Clause.txt")),
    ("LICENSE-GPL-2.0", include_str!("../../../LICENSES/GPL-2.0.txt")),
    ("LICENSE-MIT", include_str!("../../../LICENSE-MIT")),
];

/// What a payload is made from.
pub struct Input<'a> {
    /// Its name, and for which kernel it is.
    pub name: Name,
    /// One line on its purpose; `None` for a standard one.
    pub summary: Option<String>,
    /// The linked module, signed if it is to be signed.
    pub module: Vec<u8>,
    /// The functions of vmlinux that it diverts.
    pub functions: Vec<DivertedFunction>,
    /// The loader, as [`find_loader`] reads it; `None` if no package is made.
    pub loader: Option<Vec<u8>>,
    /// The kernel's build-id.
    pub build_id: BuildId,
    /// The boundary that the module was built for.
    pub boundary: &'a Boundary,
    /// Code and symbol of each warning that the author has allowed.
    pub findings_allowed: Vec<String>,
    /// Code and symbol of each other warning.
    pub warnings: Vec<String>,
    /// Why the module's memory must not be freed once it has run; empty if it may.
    pub unproved: Vec<String>,
    /// Commit of the work dir; `None` if it contains changes that are in no commit.
    pub source_commit: Option<String>,
}

/// The files of a payload.
#[derive(Clone, Debug)]
pub struct Payload {
    name: Name,
    architecture: Architecture,
    /// `manifest.json`.
    pub manifest: Manifest,
    /// All other files.
    files: Vec<File>,
}

#[derive(Clone, Debug)]
struct File {
    name: &'static str,
    bytes: Vec<u8>,
    executable: bool,
    role: Role,
}

impl Payload {
    /// Puts the files together and writes their manifest.
    ///
    /// # Errors
    /// [`Error::Summary`] if the summary cannot be used; [`Error::NoModuleName`] or [`Error::UnknownMachine`] if the
    /// module does not say its name or its architecture.
    pub fn new(input: Input) -> Result<Payload> {
        let summary = match input.summary {
            Some(summary) => summary,
            None => format!("live replacement for the scheduler of Linux {}", input.name.kernel_release()),
        };
        check_summary(&summary)?;
        let module_name = modinfo(&input.module, "name").ok_or(Error::NoModuleName)?;
        let architecture = Architecture::from(machine(&input.module).ok_or(Error::UnknownMachine)?);
        let file = |name, bytes, executable, role| File { name, bytes, executable, role };
        let mut files = vec![file(MODULE, input.module, false, Role::Plain)];
        files.extend(input.loader.map(|bytes| file(LOADER, bytes, true, Role::Plain)));
        files.extend(LICENCES.map(|(name, text)| file(name, text.into(), false, Role::Licence)));
        let manifest = Manifest {
            format: manifest::FORMAT,
            name: input.name.name().to_owned(),
            version: input.name.version(),
            release: input.name.release().to_owned(),
            summary,
            sdk_version: env!("CARGO_PKG_VERSION").to_owned(),
            source_commit: input.source_commit,
            kernel_release: input.name.kernel_release().to_owned(),
            build_id: input.build_id,
            machine: architecture.rpm().to_owned(),
            module: MODULE.to_owned(),
            module_name,
            boundary_hash: hash(input.boundary),
            functions: input.functions,
            findings_allowed: input.findings_allowed,
            warnings: input.warnings,
            unproved: input.unproved,
            digests: files.iter().map(|file| (file.name.to_owned(), Sha256::of(&file.bytes))).collect(),
        };
        Ok(Payload { name: input.name, architecture, manifest, files })
    }

    /// How to make packages of it.
    pub fn recipe(&self, changelog: Changelog) -> Recipe {
        let (name, manifest) = (&self.name, &self.manifest);
        let dir = name.payload_dir();
        let above = |levels: usize| dir.rsplitn(levels + 1, '/').last().unwrap_or_default().to_owned();
        let mut entries =
            vec![PackageEntry::dir(above(2)), PackageEntry::dir(above(1)), PackageEntry::dir(&dir)];
        let manifest_file = PackageEntry::file(
            format!("{dir}/{}", manifest::FILE_NAME),
            manifest.to_json().into_bytes(),
            false,
            Role::Plain,
        );
        entries.push(manifest_file);
        entries.extend(self.files.iter().map(|file| {
            PackageEntry::file(format!("{dir}/{}", file.name), file.bytes.clone(), file.executable, file.role)
        }));
        let (deb_name, deb_version) = (name.deb_name(), name.release().to_owned());
        let architecture = self.architecture;
        Recipe {
            deb: DebName {
                file_name: format!(
                    "scheduler-{}-{}.{deb_version}.{}.deb",
                    name.name(),
                    name.kernel_release(),
                    architecture.deb()
                ),
                package: deb_name,
                version: deb_version,
            },
            rpm: RpmName {
                name: name.rpm_name(),
                version: name.rpm_version().to_owned(),
                release: name.rpm_release(),
            },
            architecture,
            summary: manifest.summary.clone(),
            description: description(manifest),
            licence: "GPL-2.0-only AND (MIT OR Apache-2.0)",
            copyright: COPYRIGHT.to_owned(),
            section: "kernel",
            rpm_group: "System/Kernel",
            deb_requires: Vec::new(),
            rpm_requires: Vec::new(),
            entries,
            scripts: Scripts::of_scheduler(name),
            changelog,
        }
    }

    /// The content of one of its files.
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        self.files.iter().find(|file| file.name == name).map(|file| file.bytes.as_slice())
    }
}

fn description(manifest: &Manifest) -> Vec<String> {
    let source = match &manifest.source_commit {
        Some(commit) => format!("commit {commit} of its work dir"),
        None => "changes in its work dir that are in no commit".to_owned(),
    };
    vec![
        format!(
            "Replaces {} functions of the running kernel {} (build-id {}) with those of another build of its \
             scheduler, without a reboot. It was built under the name {} from {source}, with schedswap {}.",
            manifest.functions.len(),
            manifest.kernel_release,
            manifest.build_id,
            manifest.version,
            manifest.sdk_version
        ),
        "If that kernel is running, installation swaps the scheduler in; otherwise the scheduler is loaded \
         when that kernel boots. Removal puts the kernel's own scheduler back."
            .to_owned(),
    ]
}

/// As `debian/copyright` (format 1.0).
const COPYRIGHT: &str = "\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: schedswap

Files: *
Copyright: © 1991 and later, Linus Torvalds and the authors of the Linux kernel
           © 2026 and later, the schedswap authors
License: GPL-2
 The module is made of the Linux kernel's scheduler, which is under version 2 of
 the GNU General Public License, and of schedswap's runtime, which is under that
 licence (version 2 or later) or the 3-clause BSD licence.
 .
 On Debian systems, the full text of the GNU General Public License version 2 is
 in /usr/share/common-licenses/GPL-2. The others are beside the module, in its
 directory below /var/lib/schedswap.

Files: var/lib/schedswap/*/*/schedswap-loader
Copyright: © 2026 and later, the schedswap authors
License: MIT or Apache-2.0
 Both licences are beside the program, in its directory below
 /var/lib/schedswap. On Debian systems, that of Apache is in
 /usr/share/common-licenses/Apache-2.0 as well.
";

/// The digest of the boundary, as the work dir holds it, apart from white space.
fn hash(boundary: &Boundary) -> Sha256 {
    Sha256::of(&serde_json::to_vec(boundary).expect("names and numbers always become JSON"))
}

/// The loader that goes into packages for a machine. It is looked for in [`libexec::directories`]; for another
/// architecture than this machine's, in a directory there that has the architecture's name.
///
/// # Errors
/// [`Error::NoLoader`] if there is none, and [`Error::NotStatic`] if it needs a dynamic linker: on the host it
/// runs before anything else does.
pub fn find_loader(machine: Machine) -> Result<Vec<u8>> {
    let mut looked_in = libexec::directories();
    let is_foreign = Machine::host() != Some(machine);
    if is_foreign {
        looked_in.iter_mut().for_each(|dir| dir.push(machine.name()));
    }
    let make = if is_foreign { "make static-arm64" } else { "make" };
    let path = libexec::find(LOADER, &looked_in).ok_or(Error::NoLoader { looked_in, make })?;
    read_static_program(&path)
}

/// Reads a program and makes sure that it runs on any machine.
pub(super) fn read_static_program(path: &Path) -> Result<Vec<u8>> {
    let bytes =
        fs::read(path).map_err(|source| Error::Io { doing: "read", path: path.to_owned(), source })?;
    match interpreter(&bytes) {
        Some(interpreter) => Err(Error::NotStatic { path: path.to_owned(), interpreter }),
        None => Ok(bytes),
    }
}

/// The dynamic linker that a program asks for.
fn interpreter(program: &[u8]) -> Option<String> {
    let elf = ElfFile64::<Endianness>::parse(program).ok()?;
    let mut headers = elf.elf_program_headers().iter();
    let name = headers.find_map(|header| header.interpreter(elf.endian(), program).ok().flatten())?;
    Some(String::from_utf8_lossy(name).into_owned())
}

/// The architecture for which a module was built.
fn machine(module: &[u8]) -> Option<Machine> {
    let elf = ElfFile64::<Endianness>::parse(module).ok()?;
    Machine::of_elf(elf.elf_header().e_machine(elf.endian()).0)
}

/// A value from a module's `.modinfo`: `key=value` strings, each followed by at least one zero byte.
fn modinfo(module: &[u8], key: &str) -> Option<String> {
    let elf = ElfFile64::<Endianness>::parse(module).ok()?;
    let modinfo = elf.section_by_name(".modinfo")?.data().ok()?;
    let value = modinfo
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(key.as_bytes())?.strip_prefix(b"="))?;
    Some(String::from_utf8_lossy(value).into_owned())
}
