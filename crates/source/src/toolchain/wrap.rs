//! Running programs with the C library that they came with.
//!
//! The dynamic loader can be run as a program. It then takes the place of libraries as an argument, and does not pass
//! it on: programs that a program starts are not affected. So each program gets a script that calls the loader. The
//! scripts of programs that are called by name are in a directory of their own. Programs that the compiler's driver
//! calls by path (`cc1`) are moved one directory down, and the script takes their place. The driver itself stays
//! where it is, because it finds its programs relative to itself.
//!
//! For programs of another machine the script calls the emulator, and that the loader. Of these only programs whose
//! names say for which machine they are get a script by name, so none hides a program of this machine.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use object::LittleEndian;
use object::elf::FileHeader64;
use object::read::ReadCache;
use object::read::elf::{FileHeader, ProgramHeader};

use super::super::SourceError;
use super::super::sysroot;
use super::super::unpack::emulator_names;

/// Where the programs are that other programs call by path.
const INTERNAL: [&str; 2] = ["usr/lib", "usr/libexec"];
/// The directory into which such programs are moved.
const MOVED: &str = ".programs";

/// Gives every program below `root` its script: those in `usr/bin` into `bin`, the others in place. Work that was
/// done before is not done again.
pub(super) fn wrap_all(root: &Path, bin: &Path) -> Result<(), SourceError> {
    let root = Root::of(root);
    root.wrap_internal()?;
    appear(bin, |bin| root.wrap_into(bin, ""))
}

/// The same for a compiler of `machine`. This machine's own programs replace its assembler and linker: those below
/// `native` whose names begin with `triplet`. The driver looks for them beside itself.
pub(super) fn wrap_foreign(
    root: &Path,
    native: &Path,
    (machine, triplet): (&str, &str),
    bin: &Path,
) -> Result<(), SourceError> {
    let names = emulator_names(machine);
    let places: Vec<PathBuf> = names.iter().map(|name| native.join("usr/bin").join(name)).collect();
    let emulator = places.iter().find(|place| place.is_file());
    let emulator = emulator.ok_or_else(|| SourceError::NoEmulator { places: places.clone() })?;
    let (prefix, native) = (format!("{triplet}-"), Root::of(native));
    let foreign = Root { directory: root, emulator: Some(emulator) };
    foreign.wrap_internal()?;
    let parts = root.join("usr").join(triplet).join("bin");
    appear(bin, |bin| {
        foreign.wrap_into(bin, &prefix)?;
        native.wrap_into(bin, &prefix)?;
        fs::create_dir_all(&parts).map_err(SourceError::io(&parts))?;
        for (name, script) in native.scripts(&prefix)? {
            write_script(&parts.join(name.strip_prefix(&prefix).unwrap_or(&name)), &script)?;
        }
        Ok(())
    })
}

/// Fills a directory that appears only once it is complete: if it exists, everything is done.
fn appear(bin: &Path, fill: impl FnOnce(&Path) -> Result<(), SourceError>) -> Result<(), SourceError> {
    let partial = bin.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial).map_err(SourceError::io(&partial))?;
    }
    fs::create_dir_all(&partial).map_err(SourceError::io(&partial))?;
    fill(&partial)?;
    fs::rename(&partial, bin).map_err(SourceError::io(bin))
}

/// Where packages were unpacked, and what runs their programs.
#[derive(Clone, Copy)]
pub(super) struct Root<'a> {
    directory: &'a Path,
    /// For programs of another machine.
    emulator: Option<&'a Path>,
}

/// What a wrapped program gets as its own name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Called {
    /// Its own path: the compiler's driver uses it to find its other programs.
    Itself,
    /// The script's path: objtool uses it to find the objtool for the architecture, beside itself.
    AsTheScript,
}

/// The loader's option for that, in glibc 2.33 and later.
const ARGV0: &str = "--argv0";

impl<'a> Root<'a> {
    /// Packages of this machine.
    pub fn of(directory: &'a Path) -> Root<'a> {
        Root { directory, emulator: None }
    }

    /// A script that runs `program` with the loader and the libraries below the root; `None` if it needs no loader.
    pub fn wrapper(self, program: &Path, called: Called) -> Result<Option<String>, SourceError> {
        let root = self.directory;
        let Some(interpreter) = interpreter(program)? else { return Ok(None) };
        // Where /lib is a link to usr/lib, the link belongs to a package on which nothing here depends.
        let in_usr = Path::new("/usr").join(interpreter.strip_prefix("/").unwrap_or(&interpreter));
        let places = [interpreter.clone(), in_usr];
        let missing = || SourceError::NoLoader {
            program: program.to_owned(),
            loader: interpreter.clone(),
            root: root.to_owned(),
        };
        let loader = places.iter().find_map(|place| sysroot::resolve(root, place)).ok_or_else(missing)?;
        let libraries = loader.parent().and_then(|path| path.strip_prefix(root).ok()).ok_or_else(missing)?;
        let libraries = libraries.strip_prefix("usr").unwrap_or(libraries);
        let both =
            [root.join(libraries), root.join("usr").join(libraries)].map(|path| path.display().to_string());
        let name = match called {
            Called::AsTheScript if offers_argv0(&loader)? => format!(" {ARGV0} \"$0\""),
            _ => String::new(),
        };
        let emulator = self.emulator.map_or(String::new(), |path| format!("{} ", path.display()));
        Ok(Some(format!(
            "#!/bin/sh\nexec {emulator}{}{name} --inhibit-cache --library-path {} {} \"$@\"\n",
            loader.display(),
            both.join(":"),
            program.display()
        )))
    }

    /// Scripts for the programs in `usr/bin` whose names begin with `prefix`, by name.
    fn scripts(self, prefix: &str) -> Result<Vec<(String, String)>, SourceError> {
        let mut scripts = Vec::new();
        for program in entries(&self.directory.join("usr/bin"))? {
            let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with(prefix)
                && let Some(script) = self.wrapper(&program, Called::Itself)?
            {
                scripts.push((name, script));
            }
        }
        Ok(scripts)
    }

    fn wrap_into(self, bin: &Path, prefix: &str) -> Result<(), SourceError> {
        self.scripts(prefix)?.iter().try_for_each(|(name, script)| write_script(&bin.join(name), script))
    }

    fn wrap_internal(self) -> Result<(), SourceError> {
        INTERNAL.iter().try_for_each(|directory| self.wrap_in_place(&self.directory.join(directory)))
    }

    fn wrap_in_place(self, directory: &Path) -> Result<(), SourceError> {
        for path in entries(directory)? {
            let metadata = path.symlink_metadata().map_err(SourceError::io(&path))?;
            if metadata.is_dir() {
                if path.file_name().is_some_and(|name| name != MOVED) {
                    self.wrap_in_place(&path)?;
                }
                continue;
            }
            let is_library = path.file_name().is_some_and(|name| name.to_string_lossy().contains(".so"));
            if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 || is_library {
                continue;
            }
            let moved = directory.join(MOVED).join(path.file_name().unwrap_or_default());
            if interpreter(&path)?.is_some() {
                fs::create_dir_all(directory.join(MOVED)).map_err(SourceError::io(directory))?;
                fs::rename(&path, &moved).map_err(SourceError::io(&moved))?;
                let script = self.wrapper(&moved, Called::Itself)?.unwrap_or_default();
                write_script(&path, &script)?;
            }
        }
        Ok(())
    }
}

fn offers_argv0(loader: &Path) -> Result<bool, SourceError> {
    let bytes = fs::read(loader).map_err(SourceError::io(loader))?;
    Ok(bytes.windows(ARGV0.len()).any(|window| window == ARGV0.as_bytes()))
}

/// The dynamic loader that a program asks for; `None` for any other file.
fn interpreter(path: &Path) -> Result<Option<PathBuf>, SourceError> {
    let file = match File::open(path) {
        Ok(file) => ReadCache::new(file),
        // A link to a file of another package.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(SourceError::io(path)(error)),
    };
    let Ok(header) = FileHeader64::<LittleEndian>::parse(&file) else { return Ok(None) };
    let Ok(endian) = header.endian() else { return Ok(None) };
    let headers = header.program_headers(endian, &file).unwrap_or_default();
    let name = headers.iter().find_map(|header| header.interpreter(endian, &file).ok().flatten());
    Ok(name.map(|name| String::from_utf8_lossy(name).into_owned().into()))
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let found = match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    found.map_err(SourceError::io(directory))
}

/// Writes an executable shell script.
pub(in super::super) fn write_script(path: &Path, text: &str) -> Result<(), SourceError> {
    fs::write(path, text).map_err(SourceError::io(path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(SourceError::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;
    use std::process::{Command, Output};

    /// A root with this machine's own `true`, its loader and its libraries, laid out like another suite's.
    fn root(directory: &Path) -> PathBuf {
        let root = directory.join("root");
        let program = fs::canonicalize("/bin/true").unwrap();
        let loader = interpreter(&program).unwrap().expect("it is dynamic");
        let real = fs::canonicalize(&loader).unwrap();
        let libraries = fs::canonicalize("/lib/x86_64-linux-gnu/libc.so.6").unwrap();
        for (file, place) in [
            (program.as_path(), root.join("usr/bin/true")),
            (program.as_path(), root.join("usr/lib/gcc/x/1/cc1")),
            (real.as_path(), root.join("usr/lib/x86_64-linux-gnu/ld.so")),
            (libraries.as_path(), root.join("usr/lib/x86_64-linux-gnu/libc.so.6")),
        ] {
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::copy(file, place).unwrap();
        }
        let link = root.join("usr").join(loader.strip_prefix("/").unwrap());
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink("/usr/lib/x86_64-linux-gnu/ld.so", link).unwrap();
        root
    }

    /// A file just written may be open for writing in a child of another test, from its fork until its exec.
    fn run(program: &Path, arguments: &[&str]) -> Output {
        loop {
            match Command::new(program).args(arguments).output() {
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
                output => return output.unwrap(),
            }
        }
    }

    #[test]
    fn a_tool_is_called_as_its_script_is() {
        let dir = tempfile::tempdir().unwrap();
        let root = root(dir.path());
        fs::copy(fs::canonicalize("/bin/sh").unwrap(), root.join("usr/bin/sh")).unwrap();
        let says = |called, name: &str| {
            let script = dir.path().join(name);
            let text = Root::of(&root).wrapper(&root.join("usr/bin/sh"), called).unwrap().unwrap();
            write_script(&script, &text).unwrap();
            let output = run(&script, &["-c", "echo $0"]);
            String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
        };
        assert_eq!(says(Called::AsTheScript, "tool"), dir.path().join("tool").to_string_lossy());
        assert_eq!(says(Called::Itself, "driver"), root.join("usr/bin/sh").to_string_lossy());
    }

    #[test]
    fn programs_run_with_the_loader_they_came_with() {
        let dir = tempfile::tempdir().unwrap();
        let (root, bin) = (root(dir.path()), dir.path().join("bin"));
        // An interrupted run can be repeated: the second time nothing is moved again.
        for _again in 0..2 {
            wrap_all(&root, &bin).unwrap();
            for program in [bin.join("true"), root.join("usr/lib/gcc/x/1/cc1")] {
                assert!(run(&program, &[]).status.success(), "{}", program.display());
                let script = fs::read_to_string(&program).unwrap();
                assert!(script.contains(&*root.join("usr/lib/x86_64-linux-gnu/ld.so").to_string_lossy()));
            }
            assert!(interpreter(&root.join("usr/lib/x86_64-linux-gnu/libc.so.6")).unwrap().is_some());
            fs::remove_dir_all(&bin).unwrap();
        }
        fs::remove_file(root.join("usr/lib/x86_64-linux-gnu/ld.so")).unwrap();
        let error = wrap_all(&root, &bin).unwrap_err().to_string();
        assert!(error.contains("usr/bin/true") && !bin.exists(), "{error}");
    }

    #[test]
    fn of_another_machines_programs_those_named_for_it_run_in_its_emulator() {
        let dir = tempfile::tempdir().unwrap();
        let (foreign, native, bin) = (root(dir.path()), dir.path().join("native"), dir.path().join("bin"));
        let copy = |from: &Path, to: PathBuf| {
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(from, to).unwrap();
        };
        fs::rename(&foreign, &native).unwrap();
        let foreign = root(dir.path());
        let program = native.join("usr/bin/true");
        copy(&program, native.join("usr/bin/x-as"));
        for name in ["x-as", "x-gcc", "gcc"] {
            copy(&program, foreign.join("usr/bin").join(name));
        }
        let of_x = ("x", "x");
        let error = wrap_foreign(&foreign, &native, of_x, &bin).unwrap_err().to_string();
        assert!(error.contains("usr/bin/qemu-x-static"), "{error}");
        // It says that it was used to run the program.
        write_script(&native.join("usr/bin/qemu-x-static"), "#!/bin/sh\necho emulated\nexec \"$@\"\n")
            .unwrap();
        wrap_foreign(&foreign, &native, of_x, &bin).unwrap();
        let mut names: Vec<_> = fs::read_dir(&bin).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["x-as", "x-gcc"]);
        for (program, is_emulated) in [
            (bin.join("x-gcc"), true),
            (foreign.join("usr/lib/gcc/x/1/cc1"), true),
            (bin.join("x-as"), false),
            (foreign.join("usr/x/bin/as"), false),
        ] {
            let output = run(&program, &[]);
            assert!(output.status.success(), "{}", program.display());
            assert_eq!(output.stdout == b"emulated\n", is_emulated, "{}", program.display());
        }
    }
}
