//! The modules of a kernel: those that its initramfs loads, and a disk with all of them.

use super::cached::CachedFile;
use crate::{Error, Result, host};
use object::elf::FileHeader64;
use object::read::elf::{FileHeader, SectionHeader};
use object::{LittleEndian, SectionIndex};
use schedswap_host::progress::Progress;
use schedswap_source::{Bootable, Cache};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::UNIX_EPOCH;

/// A module in the form that the kernel loads.
#[derive(Clone, Debug)]
pub(super) struct Module {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// How distributions compress modules: suffix, program, package.
const COMPRESSED: &[(&str, &str, &str)] =
    &[(".ko.xz", "xz", "xz-utils"), (".ko.zst", "zstd", "zstd"), (".ko.gz", "gzip", "gzip")];

/// The named modules and all that they need, in the order in which to load them. Built-in ones are left out.
pub(super) fn to_load(kernel: &Bootable, wanted: &[&str], if_any: &[&str]) -> Result<Vec<Module>> {
    let index = Index::of(kernel)?;
    let mut order = Order { kernel, index: &index, seen: BTreeSet::new(), modules: Vec::new() };
    for name in if_any.iter().filter(|name| index.files.contains_key(**name)) {
        order.add(name)?;
    }
    for name in wanted {
        order.add(name)?;
    }
    Ok(order.modules)
}

/// The file of each module, by the module's name.
struct Index {
    files: BTreeMap<String, PathBuf>,
    built_in: BTreeSet<String>,
}

impl Index {
    fn of(kernel: &Bootable) -> Result<Index> {
        let mut files = BTreeMap::new();
        walk(&kernel.modules.join("kernel"), &mut files)?;
        // Lines like `kernel/fs/ext4/ext4.ko`.
        let path = kernel.modules.join("modules.builtin");
        let text = fs::read_to_string(&path).map_err(Error::io(format!("cannot read {}", path.display())))?;
        let built_in = text.lines().filter_map(|line| module_name(line.rsplit('/').next()?)).collect();
        Ok(Index { files, built_in })
    }
}

fn walk(dir: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let unreadable = || Error::io(format!("cannot read {}", dir.display()));
    for entry in fs::read_dir(dir).map_err(unreadable())? {
        let entry = entry.map_err(unreadable())?;
        if entry.file_type().map_err(unreadable())?.is_dir() {
            walk(&entry.path(), files)?;
        } else if let Some(name) = module_name(&entry.file_name().to_string_lossy()) {
            files.insert(name, entry.path());
        }
    }
    Ok(())
}

/// `virtio-rng.ko.xz` is the module virtio_rng.
fn module_name(file: &str) -> Option<String> {
    let (name, ending) = file.split_once(".ko")?;
    let known = ending.is_empty() || COMPRESSED.iter().any(|(compressed, ..)| file.ends_with(compressed));
    known.then(|| name.replace('-', "_"))
}

struct Order<'a> {
    kernel: &'a Bootable,
    index: &'a Index,
    seen: BTreeSet<String>,
    modules: Vec<Module>,
}

impl Order<'_> {
    fn add(&mut self, name: &str) -> Result<()> {
        if self.index.built_in.contains(name) || !self.seen.insert(name.to_string()) {
            return Ok(());
        }
        let file = self.index.files.get(name).ok_or_else(|| Error::ModuleMissing {
            release: self.kernel.release.clone(),
            module: name.to_string(),
            looked_in: self.kernel.modules.clone(),
        })?;
        let bytes = read(file)?;
        let unreadable = |reason: String| Error::ModuleUnreadable { file: file.clone(), reason };
        for needed in depends(&bytes).map_err(unreadable)? {
            self.add(&needed)?;
        }
        self.modules.push(Module { name: name.to_string(), bytes });
        Ok(())
    }
}

fn read(file: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(file).map_err(Error::io(format!("cannot read {}", file.display())))?;
    let name = file.to_string_lossy();
    let Some((_, program, package)) = COMPRESSED.iter().find(|(ending, ..)| name.ends_with(ending)) else {
        return Ok(bytes);
    };
    let doing = format!("uncompressing {name}");
    host::run_bytes(Command::new(program).args(["--decompress", "--stdout"]).arg(file), package, &doing)
}

/// The names after `depends=` in a module's `.modinfo`, which consists of strings that each end with a zero byte.
fn depends(bytes: &[u8]) -> std::result::Result<Vec<String>, String> {
    let reason = |error: object::read::Error| error.to_string();
    let header = FileHeader64::<LittleEndian>::parse(bytes).map_err(reason)?;
    let endian = header.endian().map_err(reason)?;
    let sections = header.sections(endian, bytes).map_err(reason)?;
    let (_, section): (SectionIndex, _) =
        sections.section_by_name(endian, b".modinfo").ok_or("it has no .modinfo section")?;
    let info = section.data(endian, bytes).map_err(reason)?;
    let value = info.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(b"depends="));
    let value = String::from_utf8_lossy(value.unwrap_or_default());
    Ok(value.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect())
}

/// The image of a disk with `/lib/modules` of one kernel, with `depmod` run, from the cache or made now.
pub(super) fn disk_image(cache: &Cache, kernel: &Bootable, progress: &dyn Progress) -> Result<PathBuf> {
    // One release may be built more than once; the list of its modules tells the builds apart.
    let list = kernel.modules.join("modules.order");
    let built = fs::metadata(&list).map_err(Error::io(format!("cannot read {}", list.display())))?;
    let seconds = built.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let name = format!("modules-{}-{}.ext4", kernel.release, seconds.unwrap_or_default().as_secs());
    let place = CachedFile::lock(cache, &name)?;
    place.get_or_make(|staging, image| {
        progress.begin(&format!("making a disk of the modules of {}", kernel.release), None);
        // depmod wants the full path below a root directory.
        let tree = staging.join("lib/modules").join(&kernel.release);
        fs::create_dir_all(&tree).map_err(Error::io(format!("cannot make {}", tree.display())))?;
        let mut copy = Command::new("cp");
        copy.args(["--archive", "--reflink=auto"]).arg(kernel.modules.join("kernel"));
        copy.args(
            ["modules.order", "modules.builtin", "modules.builtin.modinfo"].map(|f| kernel.modules.join(f)),
        );
        host::run(copy.arg(&tree), "coreutils", "copying a kernel's modules")?;
        let mut depmod = Command::new("/sbin/depmod");
        depmod.arg("-b").arg(staging).arg(&kernel.release);
        host::run(&mut depmod, "kmod", "listing what a kernel's modules need")?;
        let kib = host::run(Command::new("du").arg("-sk").arg(&tree), "coreutils", "measuring modules")?;
        let kib: u64 = kib.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(1 << 20);
        let mut mke2fs = Command::new("/sbin/mke2fs");
        mke2fs.args(["-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-E", "root_owner=0:0", "-d"]);
        mke2fs.arg(staging.join("lib/modules")).arg(image).arg(format!("{}k", kib + kib / 8 + (16 << 10)));
        host::run(&mut mke2fs, "e2fsprogs", "making a disk of modules")?;
        progress.end("");
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_modules() {
        assert_eq!(module_name("virtio-rng.ko").as_deref(), Some("virtio_rng"));
        assert_eq!(module_name("ext4.ko.xz").as_deref(), Some("ext4"));
        assert_eq!(module_name("modules.order"), None);
        assert_eq!(module_name("x.ko.bak"), None);
    }

    /// A kernel with three modules: `a` needs `b`, `b` needs `c-c`; d is built in.
    fn kernel(dir: &Path) -> Bootable {
        let place = dir.join("kernel/sub");
        fs::create_dir_all(&place).unwrap();
        for (name, depends) in [("a", "b,d"), ("b", "c-c"), ("c-c", "")] {
            let source = place.join("info.S");
            let text =
                format!(".section .modinfo,\"a\"\n.asciz \"license=GPL\"\n.asciz \"depends={depends}\"\n");
            fs::write(&source, text).unwrap();
            let object = place.join(format!("{name}.ko"));
            let done = Command::new("cc").arg("-c").arg(&source).arg("-o").arg(object).status().unwrap();
            assert!(done.success());
        }
        fs::write(dir.join("modules.builtin"), "kernel/x/d.ko\n").unwrap();
        Bootable { release: "1-x".into(), bzimage: "k".into(), modules: dir.to_path_buf() }
    }

    #[test]
    fn what_is_needed_comes_first_and_what_is_built_in_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let kernel = kernel(dir.path());
        let modules = to_load(&kernel, &["a", "d"], &["not_there"]).unwrap();
        let names: Vec<&str> = modules.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["c_c", "b", "a"]);
        let error = to_load(&kernel, &["e"], &[]).unwrap_err();
        assert!(matches!(&error, Error::ModuleMissing { module, .. } if module == "e"), "{error}");
    }
}
