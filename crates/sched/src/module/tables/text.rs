//! Writing the tables as C: numbers, strings, and addresses that only the linker and the loader know.

use schedswap_kernel::address::Addr;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Where something is that a table leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Location {
    /// Nowhere.
    Null,
    /// In vmlinux.
    Vmlinux(Addr),
    /// A symbol of the module.
    Module(String),
    /// An offset, as of per-CPU data.
    Offset(u64),
}

/// A location in a member of the type `unsigned long`.
#[derive(Clone, Debug)]
pub(super) struct Address(pub Location);

/// A location in a member that is a pointer.
#[derive(Clone, Debug)]
pub(super) struct Pointer(pub Location);

/// A string that a member points to.
#[derive(Clone, Debug)]
pub(super) struct Text(pub String);

/// What a member can hold.
pub(super) trait Value {
    /// Bytes of the member.
    const BYTES: u64;

    /// The initialiser in C.
    fn in_c(&self, writer: &mut Writer) -> String;
}

/// Bytes of a pointer, and of an `unsigned long`.
pub(super) const WORD: u64 = 8;

/// The C source while it grows.
pub(super) struct Writer {
    anchor: (String, Addr),
    /// Symbol of the module → what the C source calls it.
    symbols: BTreeMap<String, String>,
    definitions: String,
}

impl Writer {
    /// `anchor`: a symbol that vmlinux exports, and its address.
    pub fn new((anchor, addr): (&str, Addr)) -> Writer {
        Writer { anchor: (anchor.to_owned(), addr), symbols: BTreeMap::new(), definitions: String::new() }
    }

    /// Adds lines to the definitions.
    pub fn define(&mut self, definitions: &str) {
        self.definitions += definitions;
    }

    /// Adds an array of `rows`, each of them an initialiser, and the constant with their number.
    pub fn define_array(&mut self, of: &str, name: &str, count: &str, rows: &[String]) {
        let _ = writeln!(self.definitions, "\n{of} {name}[] = {{");
        for row in rows {
            let _ = writeln!(self.definitions, "\t{row},");
        }
        let _ = writeln!(self.definitions, "}};\nconst unsigned int {count} = {};", rows.len());
    }

    /// The symbol of the module, as an array in C.
    fn symbol(&mut self, name: &str) -> String {
        let next = self.symbols.len();
        self.symbols.entry(name.to_owned()).or_insert_with(|| format!("module_{next}")).clone()
    }

    /// A constant expression of the type `unsigned long`.
    fn address(&mut self, location: &Location) -> String {
        match location {
            Location::Null => "0".to_owned(),
            Location::Vmlinux(addr) => format!("VMLINUX({})", addr.distance_from(self.anchor.1)),
            Location::Module(symbol) => format!("(unsigned long){}", self.symbol(symbol)),
            Location::Offset(offset) => format!("{offset:#x}UL"),
        }
    }

    /// The source: `head`, the symbols that are declared, the definitions.
    pub fn finish(self, head: &str) -> String {
        let mut out = String::from(head);
        out += "\n/* An address in vmlinux is a distance from a symbol that vmlinux exports. */\n";
        let _ = writeln!(out, "extern char anchor[] __asm__({});", c_symbol(&self.anchor.0));
        out += "#define VMLINUX(distance) ((unsigned long)anchor + (distance))\n\n";
        out += "/* Of the module's symbols only the addresses are wanted. Compilers put dots into their names. */\n";
        for (symbol, name) in &self.symbols {
            let _ = writeln!(out, "extern char {name}[] __asm__({});", c_symbol(symbol));
        }
        out + &self.definitions
    }
}

impl Value for Address {
    const BYTES: u64 = WORD;

    fn in_c(&self, writer: &mut Writer) -> String {
        writer.address(&self.0)
    }
}

impl Value for Pointer {
    const BYTES: u64 = WORD;

    fn in_c(&self, writer: &mut Writer) -> String {
        match &self.0 {
            Location::Null => "(void *)0".to_owned(),
            Location::Module(symbol) => format!("(void *){}", writer.symbol(symbol)),
            location => format!("(void *){}", writer.address(location)),
        }
    }
}

impl Value for Text {
    const BYTES: u64 = WORD;

    fn in_c(&self, _: &mut Writer) -> String {
        c_string(&self.0)
    }
}

impl Value for bool {
    const BYTES: u64 = 1;

    fn in_c(&self, _: &mut Writer) -> String {
        u8::from(*self).to_string()
    }
}

impl Value for u8 {
    const BYTES: u64 = 1;

    fn in_c(&self, _: &mut Writer) -> String {
        self.to_string()
    }
}

impl Value for u16 {
    const BYTES: u64 = 2;

    fn in_c(&self, _: &mut Writer) -> String {
        self.to_string()
    }
}

impl Value for u32 {
    const BYTES: u64 = 4;

    fn in_c(&self, _: &mut Writer) -> String {
        format!("{self}U")
    }
}

impl Value for u64 {
    const BYTES: u64 = WORD;

    fn in_c(&self, _: &mut Writer) -> String {
        format!("{self:#x}UL")
    }
}

impl<const N: usize> Value for [u8; N] {
    const BYTES: u64 = N as u64;

    fn in_c(&self, _: &mut Writer) -> String {
        let bytes: Vec<String> = self.iter().map(|byte| format!("{byte:#04x}")).collect();
        format!("{{ {} }}", bytes.join(", "))
    }
}

/// The string literal. What is not plain ASCII becomes an octal escape, which ends after three digits.
pub(super) fn c_string(text: &str) -> String {
    let mut out = String::from("\"");
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
            b' '..=b'~' => out.push(char::from(byte)),
            other => {
                let _ = write!(out, "\\{other:03o}");
            }
        }
    }
    out + "\""
}

/// The literal that gives a declaration its symbol: in quotes of its own, so that the assembler takes any name.
fn c_symbol(name: &str) -> String {
    c_string(&format!("\"{name}\""))
}
