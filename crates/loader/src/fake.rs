//! A machine for tests: files below a temporary directory, and a kernel that changes its /sys as a real one does.

use crate::disk::Disk;
use crate::host::{Host, Machine};
use crate::module_file::ModuleFile;
use crate::paths::Paths;
use rustix::io::Errno;
use schedswap_payload::manifest::{DivertedFunction, FORMAT};
use schedswap_payload::{Manifest, Sha256};
use std::cell::RefCell;
use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// The kernel that runs until another is booted.
pub const RELEASE: &str = "6.1.0-1-amd64";
const BUILD_ID: &str = "00ff10aa00ff10aa";

pub struct Fake {
    root: tempfile::TempDir,
    pub kernel: Rc<RefCell<Kernel>>,
}

/// What the kernel is told to do, and what it was asked to do.
pub struct Kernel {
    root: PathBuf,
    pub release: String,
    /// In how many attempts to switch a thread is in the way.
    pub busy: u32,
    /// How many threads a plan finds in the way.
    pub planned_busy: u32,
    /// The error of switching to another scheduler.
    pub swap_fails: Option<Errno>,
    /// The error of loading a module.
    pub refuses: Option<Errno>,
    /// The machine dies during the switch; from then on nothing reaches the disk.
    pub dies: bool,
    pub is_dead: bool,
    /// A module fails to retire.
    pub cannot_retire: bool,
    /// What a module's build could not show, one reason a line.
    pub unproved: String,
    /// How much memory a module takes.
    pub module_bytes: u64,
    /// How many looks find a thread in a module's code that is out of use.
    pub inside: u32,
    pub systemctl: Vec<String>,
    /// Modules loaded, switched to and unloaded, in order.
    pub log: Vec<String>,
    boots: u32,
}

impl Fake {
    pub fn new() -> Fake {
        // In memory if possible: the tests would wait for the disk thousands of times.
        let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let path = root.path().to_owned();
        for dir in ["run", "sys/kernel", "sys/module", "proc/sys/kernel/random", "var/lib/schedswap"] {
            directory(&path.join(dir));
        }
        let kernel = Kernel {
            root: path,
            release: RELEASE.into(),
            busy: 0,
            planned_busy: 0,
            swap_fails: None,
            refuses: None,
            dies: false,
            is_dead: false,
            cannot_retire: false,
            unproved: String::new(),
            module_bytes: 1 << 20,
            inside: 0,
            systemctl: Vec::new(),
            log: Vec::new(),
            boots: 0,
        };
        let fake = Fake { root, kernel: Rc::new(RefCell::new(kernel)) };
        fake.boot(RELEASE);
        fake
    }

    pub fn with_systemd() -> Fake {
        let fake = Fake::new();
        directory(&fake.root().join("run/systemd/system"));
        fake
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    pub fn machine(&self) -> Machine {
        let kernel = self.kernel.clone();
        let gate = move |_: &str| match kernel.borrow().is_dead {
            true => Err(io::Error::other("the machine is dead")),
            false => Ok(()),
        };
        Machine {
            paths: Paths::below(self.root()),
            host: Box::new(FakeHost(self.kernel.clone())),
            disk: Disk { gate: Some(Rc::new(gate)) },
            owner: rustix::process::geteuid().as_raw(),
            is_live: true,
            retired_max_mib: 64,
        }
    }

    /// Boots that kernel: afterwards nothing is loaded, and /run is empty.
    pub fn boot(&self, release: &str) {
        let mut kernel = self.kernel.borrow_mut();
        kernel.boots += 1;
        (kernel.dies, kernel.is_dead) = (false, false);
        kernel.release = release.to_owned();
        for dir in ["sys/kernel", "sys/module"] {
            fs::remove_dir_all(self.root().join(dir)).unwrap();
            directory(&self.root().join(dir));
        }
        for file in ["run/schedswap.healthy", "run/schedswap.refused"] {
            let _ = fs::remove_file(self.root().join(file));
        }
        let boot_id = self.root().join("proc/sys/kernel/random/boot_id");
        fs::write(boot_id, format!("boot-{}\n", kernel.boots)).unwrap();
        let mut notes: Vec<u8> = [4u32, 8, 3].iter().flat_map(|word| word.to_ne_bytes()).collect();
        notes.extend(b"GNU\0");
        notes.extend([0x00, 0xff, 0x10, 0xaa, 0x00, 0xff, 0x10, 0xaa]);
        fs::write(self.root().join("sys/kernel/notes"), notes).unwrap();
    }

    /// A payload for the kernel that runs first.
    pub fn payload(&self, name: &str) -> PathBuf {
        self.payload_for(RELEASE, name)
    }

    /// A payload as a package installs it; `name` is `<name>-<release>`.
    pub fn payload_for(&self, kernel: &str, name: &str) -> PathBuf {
        let dir = self.root().join("var/lib/schedswap").join(kernel).join(name);
        directory(&dir);
        let module_name = module_name(name);
        let module = ko(&module_name, kernel, name);
        let loader = loader(name).into_bytes();
        let (short, release) = name.rsplit_once('-').unwrap();
        let manifest = Manifest {
            format: FORMAT,
            name: short.into(),
            version: "1".into(),
            release: release.into(),
            sdk_version: "0.1.0".into(),
            source_commit: None,
            kernel_release: kernel.into(),
            build_id: BUILD_ID.parse().unwrap(),
            machine: "x86_64".into(),
            module: "scheduler.ko".into(),
            summary: format!("{short} for tests"),
            module_name,
            boundary_hash: Sha256::of(b""),
            digests: [
                ("scheduler.ko".to_owned(), Sha256::of(&module)),
                ("schedswap-loader".to_owned(), Sha256::of(&loader)),
            ]
            .into(),
            functions: vec![DivertedFunction { name: "schedule_tail".into(), sympos: 0 }],
            findings_allowed: vec![],
            warnings: vec![],
            unproved: vec![],
        };
        for (file, bytes, mode) in [
            ("scheduler.ko", module, 0o644),
            ("manifest.json", manifest.to_json().into_bytes(), 0o644),
            ("schedswap-loader", loader, 0o755),
        ] {
            fs::write(dir.join(file), bytes).unwrap();
            fs::set_permissions(dir.join(file), fs::Permissions::from_mode(mode)).unwrap();
        }
        dir
    }

    /// The version of the scheduler that runs.
    pub fn runs(&self) -> Option<String> {
        let dir = self.root().join("sys/kernel/schedswap");
        let read = |name: &str| fs::read_to_string(dir.join(name)).ok().map(|text| text.trim().to_owned());
        read("version").filter(|_| read("state").as_deref() == Some("enabled"))
    }

    /// What is in /sys/module.
    pub fn modules(&self) -> Vec<String> {
        let names = fs::read_dir(self.root().join("sys/module")).unwrap();
        let mut names: Vec<_> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub fn systemctl(&self) -> Vec<String> {
        self.kernel.borrow().systemctl.clone()
    }

    /// Every file and link below the root, except in /sys and /proc.
    pub fn files(&self) -> Vec<String> {
        fn below(dir: &Path, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_dir() {
                    below(&entry.path(), found);
                } else {
                    found.push(entry.path());
                }
            }
        }
        let mut found = Vec::new();
        below(self.root(), &mut found);
        let relative = |path: &PathBuf| path.strip_prefix(self.root()).unwrap().to_str().unwrap().to_owned();
        let mut files: Vec<String> = found.iter().map(relative).collect();
        files.retain(|file| {
            !file.starts_with("sys/") && !file.starts_with("proc/") && !file.ends_with(".lock")
        });
        files.sort();
        files
    }
}

struct FakeHost(Rc<RefCell<Kernel>>);

impl Kernel {
    fn dir(&self, name: &str) -> PathBuf {
        self.root.join("sys/kernel").join(name)
    }

    /// The directory of that module.
    fn dir_of(&self, module: &str) -> Option<PathBuf> {
        [self.dir(&format!("schedswap-{module}")), self.dir("schedswap")]
            .into_iter()
            .find(|dir| fs::read_to_string(dir.join("module")).is_ok_and(|name| name.trim() == module))
    }
}

impl Kernel {
    /// The module gives up its name, and stays.
    fn retire(&mut self, dir: &Path) -> Result<(), Errno> {
        if read(dir, "state") == "enabled" || read(dir, "kept") != "1" {
            return Err(Errno::BUSY);
        }
        if self.cannot_retire {
            return Err(Errno::NOMEM);
        }
        let module = read(dir, "module");
        let modules = self.root.join("sys/module");
        let name = (1..).map(|n| format!("{module}_r{n}")).find(|name| !modules.join(name).exists()).unwrap();
        fs::rename(modules.join(&module), modules.join(&name)).unwrap();
        set(dir, "module", &name);
        set(dir, "state", "retired");
        fs::remove_dir_all(dir.join("vmlinux")).unwrap();
        fs::rename(dir, self.dir(&format!("schedswap-{name}"))).unwrap();
        self.log.push(format!("retire {}", read(&self.dir(&format!("schedswap-{name}")), "version")));
        Ok(())
    }

    /// The module lets itself be removed, if no thread is in its code and the build has shown that it may be.
    fn release(&mut self, dir: &Path) -> Result<(), Errno> {
        if read(dir, "state") == "enabled" {
            return Err(Errno::BUSY);
        }
        if !read(dir, "unproved").is_empty() {
            return Err(Errno::PERM);
        }
        if self.inside > 0 {
            self.inside -= 1;
            set(dir, "blocker", "sleeper 7 do_wait");
            return Err(Errno::BUSY);
        }
        set(dir, "kept", "0");
        Ok(())
    }
}

fn read(dir: &Path, file: &str) -> String {
    fs::read_to_string(dir.join(file)).unwrap().trim().to_owned()
}

fn set(dir: &Path, file: &str, content: &str) {
    fs::write(dir.join(file), format!("{content}\n")).unwrap();
}

const TIMING: &str = "op=load\nthreads=512\ncpus=4\nlogged=17\nchecked=21\nrequeued=3\nstop_ns=310000\n\
    handler_ns=150000\nstack_check_ns=21000\ndequeue_ns=4000\npatch_ns=90000\nenqueue_ns=5000\n\
    check_outside_ns=2000000\ntotal_ns=9000000";

impl Host for FakeHost {
    fn release(&self) -> String {
        self.0.borrow().release.clone()
    }

    fn load(&self, module: &ModuleFile, parameters: &CStr) -> Result<(), Errno> {
        let mut kernel = self.0.borrow_mut();
        let parameters = parameters.to_str().unwrap();
        assert!(parameters.contains("enable=0"), "a module must not act before it is looked at");
        if let Some(errno) = kernel.refuses {
            return Err(errno);
        }
        let name = module.info.name.clone();
        let mut dir = kernel.dir("schedswap");
        if dir.exists() {
            if !parameters.contains("replace=1") {
                return Err(Errno::EXIST);
            }
            dir = kernel.dir(&format!("schedswap-{name}"));
        }
        directory(&dir.join("vmlinux"));
        fs::write(dir.join("vmlinux/schedule_tail,1"), "").unwrap();
        let busy = kernel.planned_busy;
        let plan = format!("threads=140\nbusy={busy}\nlogged=9\nwalk_ns=2100000\nqueued=3\ncpus=4");
        if busy > 0 {
            set(&dir, "blocker", "sleeper 7 do_wait");
        }
        let version = module.info.version.clone().unwrap();
        let files =
            [("version", version.as_str()), ("module", &name), ("state", "disabled"), ("functions", "1")];
        let others =
            [("enable", "0"), ("since", ""), ("plan", &plan), ("kept", "0"), ("retire", ""), ("release", "")];
        for (file, content) in files.into_iter().chain(others) {
            set(&dir, file, content);
        }
        fs::write(dir.join("unproved"), &kernel.unproved).unwrap();
        directory(&kernel.root.join("sys/module").join(&name));
        set(&kernel.root.join("sys/module").join(&name), "coresize", &kernel.module_bytes.to_string());
        kernel.log.push(format!("load {version}"));
        Ok(())
    }

    fn unload(&self, name: &str) -> Result<(), Errno> {
        let mut kernel = self.0.borrow_mut();
        let Some(dir) = kernel.dir_of(name) else { return Err(Errno::NOENT) };
        let kept = fs::read_to_string(dir.join("kept")).unwrap();
        if kept.trim() == "1" {
            return Err(Errno::AGAIN);
        }
        let version = fs::read_to_string(dir.join("version")).unwrap();
        fs::remove_dir_all(dir).unwrap();
        fs::remove_dir_all(kernel.root.join("sys/module").join(name)).unwrap();
        kernel.log.push(format!("unload {}", version.trim()));
        Ok(())
    }

    fn write(&self, file: &Path, value: char) -> io::Result<()> {
        let mut kernel = self.0.borrow_mut();
        assert!(file.exists(), "{file:?}");
        let dir = file.parent().unwrap().to_owned();
        if kernel.dies {
            kernel.is_dead = true;
        }
        if kernel.is_dead {
            return Err(Errno::IO.into());
        }
        match file.file_name().unwrap().to_str().unwrap() {
            "enable" => {}
            "retire" => return Ok(kernel.retire(&dir)?),
            "release" => return Ok(kernel.release(&dir)?),
            other => panic!("{other} is written"),
        }
        if let Some(errno) = kernel.swap_fails {
            return Err(errno.into());
        }
        if kernel.busy > 0 {
            kernel.busy -= 1;
            set(&dir, "blocker", "sleeper 7 do_wait");
            return Err(Errno::BUSY.into());
        }
        let (module, version) = (read(&dir, "module"), read(&dir, "version"));
        kernel.log.push(format!("{} {version}", if value == '1' { "enable" } else { "disable" }));
        if value == '1' {
            set(&dir, "kept", "1");
        }
        set(&dir, "timing", TIMING);
        set(&dir, "enable", &value.to_string());
        set(&dir, "since", if value == '1' { "1700000000" } else { "" });
        set(&dir, "state", if value == '1' { "enabled" } else { "disabled" });
        let in_charge = kernel.dir("schedswap");
        if value == '1' && dir != in_charge {
            let old = kernel.dir(&format!("schedswap-{}", read(&in_charge, "module")));
            fs::rename(&in_charge, &old).unwrap();
            set(&old, "state", "superseded");
            fs::rename(kernel.dir(&format!("schedswap-{module}")), &in_charge).unwrap();
        }
        Ok(())
    }

    fn systemctl(&self, arguments: &[&str]) -> io::Result<()> {
        self.0.borrow_mut().systemctl.push(arguments.join(" "));
        Ok(())
    }

    fn pause(&self, _: Duration) {}

    fn epoch_seconds(&self) -> u64 {
        1_700_000_000 + u64::from(self.0.borrow().boots)
    }
}

fn directory(path: &Path) {
    fs::create_dir_all(path).unwrap();
    // With the modes that packages set, whatever the umask of the user who runs the tests.
    for dir in path.ancestors().take(3) {
        let _ = fs::set_permissions(dir, fs::Permissions::from_mode(0o755));
    }
}

/// The complete content of a payload's loader.
pub fn loader(payload: &str) -> String {
    format!("the loader of {payload} <schedswap-loader version 0.1.0> to the end")
}

pub fn module_name(payload: &str) -> String {
    format!("scheduler_{}", &Sha256::of(payload.as_bytes()).to_string()[..8])
}

/// A module file with a scheduler's `.modinfo`: an ELF header, `.modinfo`, the section names, three section headers.
fn ko(module: &str, kernel: &str, version: &str) -> Vec<u8> {
    let modinfo = format!(
        "version={version}\0schedswap_build_id={BUILD_ID}\0name={module}\0vermagic={kernel} SMP preempt \0"
    );
    let names = b"\0.modinfo\0.shstrtab\0";
    let (modinfo_at, names_at) = (64, 64 + modinfo.len());
    let headers_at = (names_at + names.len()).next_multiple_of(8);
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    elf.extend([1, 0, 62, 0, 1, 0, 0, 0]);
    elf.extend([0; 16]);
    elf.extend((headers_at as u64).to_le_bytes());
    elf.extend([0; 4]);
    elf.extend([64u16, 0, 0, 64, 3, 2].iter().flat_map(|half| half.to_le_bytes()));
    elf.extend(modinfo.as_bytes());
    elf.extend(names);
    elf.resize(headers_at, 0);
    let mut section = |name: u32, kind: u32, at: usize, size: usize| {
        elf.extend([name, kind].iter().flat_map(|word| word.to_le_bytes()));
        let words = [0, 0, at as u64, size as u64, 0, u64::from(kind > 0), 0];
        elf.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    };
    section(0, 0, 0, 0);
    section(1, 1, modinfo_at, modinfo.len());
    section(10, 3, names_at, names.len());
    elf
}
