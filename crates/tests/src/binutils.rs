//! What objdump, nm, readelf and addr2line say of a vmlinux: a view of it that does not depend on our own code.

use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One direct branch.
pub struct Branch {
    /// Where.
    pub at: u64,
    /// The symbol it lies under.
    pub from: String,
    /// `call`, `jmp`, `jne`, …
    pub mnemonic: String,
    /// Where to.
    pub to: u64,
}

impl fmt::Display for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Branch { at, from, mnemonic, to } = self;
        write!(f, "{mnemonic} at {at:#x} in {from} to {to:#x}")
    }
}

/// One symbol of `nm`.
pub struct Symbol {
    /// Its name.
    pub name: String,
    /// Its value.
    pub addr: u64,
    /// Absent for symbols without one (labels).
    pub size: u64,
    /// `nm`'s letter: upper case for a global symbol.
    pub letter: char,
}

/// One instruction, as objdump prints it.
pub struct Instruction {
    /// Where.
    pub at: u64,
    /// What, blanks made single.
    pub text: String,
}

/// Whose binutils.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tools {
    /// This machine's, for an x86-64 kernel.
    Native,
    /// Those of the package binutils-aarch64-linux-gnu.
    Aarch64,
}

impl Tools {
    fn name(self, tool: &str) -> String {
        match self {
            Tools::Native => tool.to_owned(),
            Tools::Aarch64 => format!("aarch64-linux-gnu-{tool}"),
        }
    }

    /// Whether an instruction goes where its last operand says.
    fn is_branch(self, mnemonic: &str) -> bool {
        match self {
            Tools::Native => mnemonic == "call" || mnemonic.starts_with('j') || mnemonic.starts_with("loop"),
            Tools::Aarch64 => {
                matches!(mnemonic, "b" | "bl" | "cbz" | "cbnz" | "tbz" | "tbnz") || mnemonic.starts_with("b.")
            }
        }
    }
}

/// One section that has bytes in the file.
struct Section {
    name: String,
    addr: u64,
    offset: u64,
    size: u64,
}

/// A vmlinux as the tools see it.
pub struct Binutils {
    tools: Tools,
    path: PathBuf,
    file: File,
    sections: Vec<Section>,
    /// Sorted by address.
    pub symbols: Vec<Symbol>,
}

/// Starts a tool that reads the vmlinux, and yields what it prints.
fn lines(tool: &str, arguments: &[&str], path: &Path) -> Result<impl Iterator<Item = String> + use<>> {
    let mut command = Command::new(tool);
    command.args(arguments).arg(path).env("LC_ALL", "C").stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("{tool} (package binutils)"))?;
    let output = BufReader::new(child.stdout.take().context("piped")?);
    let mut rest = output.lines().map_while(Result::ok);
    Ok(std::iter::from_fn(move || {
        let line = rest.next();
        if line.is_none() {
            assert!(child.wait().expect("it was started").success(), "it failed");
        }
        line
    })
    .fuse())
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

impl Binutils {
    /// Reads sections and symbols.
    pub fn of(path: &Path) -> Result<Binutils> {
        Binutils::with(Tools::Native, path)
    }

    /// … by these tools.
    pub fn with(tools: Tools, path: &Path) -> Result<Binutils> {
        let mut sections = Vec::new();
        // `  [ 1] .text  PROGBITS  ffffffff81000000 200000 e01ef2 00  AX …`
        for line in lines(&tools.name("readelf"), &["-SW"], path)? {
            let Some((_, rest)) = line.split_once("] ") else { continue };
            let words: Vec<&str> = rest.split_whitespace().collect();
            let &[name, kind, addr, offset, size, ..] = words.as_slice() else { continue };
            let (Some(addr), Some(offset), Some(size)) = (hex(addr), hex(offset), hex(size)) else {
                continue;
            };
            if kind != "NOBITS" && addr != 0 {
                sections.push(Section { name: name.to_owned(), addr, offset, size });
            }
        }
        let mut symbols = Vec::new();
        // `ffffffff81a114f0 00000000000000c7 T schedule`, the size missing for some
        for line in lines(&tools.name("nm"), &["-S", "-n"], path)? {
            let words: Vec<&str> = line.split(' ').collect();
            let (addr, size, letter, name) = match *words.as_slice() {
                [addr, letter, name] => (addr, "0", letter, name),
                [addr, size, letter, name] => (addr, size, letter, name),
                _ => continue,
            };
            let (Some(addr), Some(size), Some(letter)) = (hex(addr), hex(size), letter.chars().next()) else {
                continue;
            };
            symbols.push(Symbol { name: name.to_owned(), addr, size, letter });
        }
        ensure!(
            sections.len() > 10 && symbols.len() > 10_000,
            "readelf and nm say little of {}",
            path.display()
        );
        let file = File::open(path)?;
        Ok(Binutils { tools, path: path.to_owned(), file, sections, symbols })
    }

    /// The address of the only symbol of that name.
    pub fn address(&self, name: &str) -> Result<u64> {
        let found: Vec<u64> = self.symbols.iter().filter(|s| s.name == name).map(|s| s.addr).collect();
        match found.as_slice() {
            [addr] => Ok(*addr),
            _ => bail!("{} symbols are named {name}", found.len()),
        }
    }

    /// Start and end of a section.
    pub fn section(&self, name: &str) -> Result<(u64, u64)> {
        let section = self.sections.iter().find(|s| s.name == name).with_context(|| name.to_owned())?;
        Ok((section.addr, section.addr + section.size))
    }

    /// The file's bytes for an address.
    pub fn bytes(&self, addr: u64, len: u64) -> Result<Vec<u8>> {
        let within = |s: &&Section| s.addr <= addr && addr + len <= s.addr + s.size;
        let section =
            self.sections.iter().find(within).with_context(|| format!("no section at {addr:#x}"))?;
        let mut bytes = vec![0; len as usize];
        self.file.read_exact_at(&mut bytes, section.offset + (addr - section.addr))?;
        Ok(bytes)
    }

    /// The records of a table between two symbols, each with its address.
    pub fn table<const LEN: usize>(&self, start: &str, end: &str) -> Result<Vec<(u64, [u8; LEN])>> {
        let (start, end) = (self.address(start)?, self.address(end)?);
        let bytes = self.bytes(start, end - start)?;
        ensure!(bytes.len() % LEN == 0 && !bytes.is_empty(), "{} bytes of {LEN} each", bytes.len());
        let records = bytes.chunks_exact(LEN).enumerate();
        Ok(records
            .map(|(n, record)| (start + (n * LEN) as u64, record.try_into().expect("its length")))
            .collect())
    }

    /// Every direct branch of the kernel whose target is in one of `wanted` (start → end), sorted by address.
    /// Code that boot copies elsewhere (alternatives) is left out.
    pub fn branches_into(&self, wanted: &BTreeMap<u64, u64>) -> Result<Vec<Branch>> {
        let mut found = Vec::new();
        let mut from = String::new();
        let sections = ["-j.text", "-j.noinstr.text", "-j.init.text", "-j.exit.text"];
        let arguments = [&["-d", "--no-show-raw-insn"], &sections[..]].concat();
        for line in lines(&self.tools.name("objdump"), &arguments, &self.path)? {
            // `ffffffff81a10af0 <__schedule>:`
            if let Some(name) = line.strip_suffix(">:").and_then(|rest| rest.split_once(" <")) {
                from = name.1.to_owned();
                continue;
            }
            // `ffffffff81a10e38:\tcall   ffffffff81003270 <__switch_to_asm>`
            let Some((at, text)) = line.split_once(":\t") else { continue };
            // `tbz\tw0, #23, ffff800008ce077c <__schedule+0x70c>  // b.none`
            let text = text.split(" <").next().unwrap_or(text);
            let mut words = text.split_whitespace().filter(|word| {
                // `bnd jmp`, `notrack jmp`, and branch hints such as `jne,pn`
                !matches!(*word, "bnd" | "notrack" | "data16")
            });
            let (Some(mnemonic), Some(target)) = (words.next(), words.next_back()) else { continue };
            if !self.tools.is_branch(mnemonic) {
                continue;
            }
            let Some(to) = hex(target) else { continue };
            if wanted.range(..=to).next_back().is_some_and(|(_, end)| to < *end) {
                let at = hex(at.trim()).with_context(|| line.clone())?;
                found.push(Branch { at, from: from.clone(), mnemonic: mnemonic.to_owned(), to });
            }
        }
        Ok(found)
    }

    /// Where an `adrp` and the `add` right after it, in the same register, make one of the `wanted` addresses: the
    /// place of the `add`, and the address.
    pub fn addresses_made(&self, wanted: &BTreeSet<u64>) -> Result<Vec<(u64, u64)>> {
        let mut found = Vec::new();
        // The register and page of the line before.
        let mut page: Option<(String, u64)> = None;
        for line in lines(&self.tools.name("objdump"), &["-d", "--no-show-raw-insn", "-j.text"], &self.path)?
        {
            // `ffff800008083f64:\tadrp\tx1, ffff800008d1b000 <…>`, `…:\tadd\tx1, x1, #0x894`
            let before = page.take();
            let Some((at, text)) = line.split_once(":\t") else { continue };
            let (mnemonic, operands) = text.split_once('\t').unwrap_or((text, ""));
            let operands: Vec<&str> = operands.split(", ").collect();
            match (mnemonic, operands.as_slice(), before) {
                ("adrp", [register, target], _) => {
                    let target = hex(target.split(' ').next().unwrap_or_default());
                    page = target.map(|target| ((*register).to_owned(), target));
                }
                ("add", [to, from, by], Some((register, page))) if *to == register && *from == register => {
                    let by = by.strip_prefix("#0x").and_then(hex);
                    let made = by.map(|by| page + by).filter(|made| wanted.contains(made));
                    found.extend(hex(at.trim()).zip(made));
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// The instructions of one function.
    pub fn disassemble(&self, function: &str) -> Result<Vec<Instruction>> {
        let symbol = self.symbols.iter().find(|s| s.name == function && s.size > 0);
        let symbol = symbol.with_context(|| format!("no {function}"))?;
        let (start, stop) = (symbol.addr, symbol.addr + symbol.size);
        let range = [format!("--start-address={start:#x}"), format!("--stop-address={stop:#x}")];
        let mut instructions = Vec::new();
        let arguments = ["-d", "--no-show-raw-insn", &range[0], &range[1]];
        for line in lines(&self.tools.name("objdump"), &arguments, &self.path)? {
            let Some((at, text)) = line.split_once(":\t") else { continue };
            let Some(at) = hex(at.trim()) else { continue };
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            instructions.push(Instruction { at, text });
        }
        Ok(instructions)
    }

    /// The words that boot code writes: where, and what.
    pub fn relative_relocations(&self) -> Result<BTreeMap<u64, u64>> {
        let mut found = BTreeMap::new();
        // `ffff800008d000c8  0000000000000403 R_AARCH64_RELATIVE  ffff800008a1b2c0`
        for line in lines(&self.tools.name("readelf"), &["-rW"], &self.path)? {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let [at, _, "R_AARCH64_RELATIVE", value] = words.as_slice() {
                // Addends are signed, and addresses of the kernel negative: `-7ffff75e4d40`.
                let value = match value.strip_prefix('-') {
                    Some(digits) => hex(digits).map(u64::wrapping_neg),
                    None => hex(value),
                };
                found.insert(hex(at).context("an address")?, value.context("a value")?);
            }
        }
        Ok(found)
    }

    /// The source file of each address, by the line table; of what is inlined there, that of the outermost
    /// function.
    pub fn source_files(&self, addresses: &[u64]) -> Result<Vec<String>> {
        let mut child = Command::new(self.tools.name("addr2line"))
            .args(["-a", "-i", "-e"])
            .arg(&self.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("addr2line (package binutils)")?;
        let mut input = child.stdin.take().context("piped")?;
        let text: String = addresses.iter().map(|addr| format!("{addr:x}\n")).collect();
        let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
        let output = child.wait_with_output()?;
        writer.join().expect("it does not panic")?;
        // For each address itself, `0xffffffff81a114f0`, then `file:line` from the innermost to the outermost.
        let mut files: Vec<String> = Vec::new();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            match files.last_mut() {
                _ if line.starts_with("0x") => files.push(String::new()),
                Some(file) => *file = line.rsplit_once(':').map_or(line, |(file, _)| file).to_owned(),
                None => bail!("not what addr2line -a prints: {line}"),
            }
        }
        ensure!(files.len() == addresses.len(), "addr2line answered {} times", files.len());
        Ok(files)
    }
}
