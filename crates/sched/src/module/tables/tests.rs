//! The tables compiled against the runtime's own headers, as they are and with planted faults.
//!
//! The kernel's headers are replaced by a few lines, so that these tests need a compiler only; the same agreement is
//! asked for with the kernel's own headers whenever a module is built.

use super::agreement::{Disagreement, agree, structures};
use super::rows::{
    CarriedVariable, EXPECTED, ModuleText, Patch, SchedClass, StateRow, VmlinuxRange, WINDOW_MAX,
};
use super::text::{Address, Location, Pointer, Text, c_string};
use super::{Contents, FeatureSet, features};
use schedswap_kernel::address::Addr;
use schedswap_kernel::objects::{self, Object, Place, SectionId};
use schedswap_kernel::types::{self, Types};
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

const KERNEL_HEADERS: &[(&str, &str)] = &[
    (
        "linux/types.h",
        "typedef unsigned char u8; typedef unsigned short u16; typedef unsigned int u32;\n\
         typedef unsigned long long u64; typedef unsigned long size_t; typedef _Bool bool;\n",
    ),
    (
        "linux/compiler.h",
        "#define __always_inline inline __attribute__((__always_inline__))\n\
         #define __percpu\n\
         #define likely(x) (x)\n\
         #define READ_ONCE(x) (x)\n\
         #define smp_load_acquire(p) (*(p))\n",
    ),
    ("linux/kernel.h", ""),
    ("linux/log2.h", "#define ilog2(n) (31 - __builtin_clz(n))\n"),
    ("linux/percpu.h", ""),
];
const RUNTIME_HEADERS: [&str; 4] = ["schedswap.h", "extension.h", "hooks.h", "include/schedswap/author.h"];

/// The runtime's headers beside those few lines of the kernel's.
struct Headers(TempDir);

impl Headers {
    fn new() -> Headers {
        let headers = Headers(tempfile::tempdir().expect("a directory"));
        KERNEL_HEADERS.iter().for_each(|(name, text)| headers.put(name, text));
        let runtime = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runtime");
        for name in RUNTIME_HEADERS {
            headers.put(name, &std::fs::read_to_string(runtime.join(name)).expect("a header of the runtime"));
        }
        headers
    }

    fn put(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, text).expect("a file");
    }

    fn compile(&self, source: &str) -> Object {
        self.put("a.c", source);
        let output = Command::new("gcc")
            .args(["-std=gnu11", "-O2", "-fno-pie", "-Wall", "-Werror", "-gdwarf-4", "-c", "-o"])
            .args([self.0.path().join("a.o"), self.0.path().join("a.c")])
            .arg("-I")
            .arg(self.0.path())
            .output()
            .expect("gcc runs: the kernel is built with it");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        objects::read("a.o", &std::fs::read(self.0.path().join("a.o")).expect("the object"))
            .expect("an object")
    }

    fn types(&self) -> Types {
        types::of_object("structures.c", &self.compile(&structures())).expect("debug information")
    }

    fn disagreements(&self) -> Vec<Disagreement> {
        agree(&self.types()).err().unwrap_or_default()
    }

    /// Replaces one declaration in a structure by others.
    fn edit(&self, tag: &str, member: &str, edit: impl Fn(&str) -> String) {
        let header = header_of(tag);
        let path = self.0.path().join(header);
        let text = std::fs::read_to_string(&path).expect("the header");
        let declaration = declaration(&text, tag, member);
        let at = declaration.as_ptr() as usize - text.as_ptr() as usize;
        let edited = format!("{}{}{}", &text[..at], edit(declaration), &text[at + declaration.len()..]);
        self.put(header, &edited);
    }

    /// Lets two members of a structure change places.
    fn exchange(&self, tag: &str, one: &str, other: &str) {
        let text = std::fs::read_to_string(self.0.path().join(header_of(tag))).expect("the header");
        let (first, second) =
            (declaration(&text, tag, one).to_owned(), declaration(&text, tag, other).to_owned());
        self.edit(tag, one, |_| "int placeholder;".to_owned());
        self.edit(tag, other, |_| first.clone());
        self.edit(tag, "placeholder", |_| second.clone());
    }
}

fn header_of(tag: &str) -> &'static str {
    if tag == "ss_state_row" { "extension.h" } else { "schedswap.h" }
}

/// The declaration of a member, without its comment.
fn declaration<'t>(header: &'t str, tag: &str, member: &str) -> &'t str {
    let (_, body) = header.split_once(&format!("struct {tag} {{\n")).expect("the structure");
    let (body, _) = body.split_once("\n};").expect("its end");
    let declares = |line: &&str| {
        let (declaration, _) = line.split_once(';').unwrap_or((line, ""));
        let name = declaration.split('[').next().unwrap_or_default();
        name.rsplit([' ', '*', '\t']).next() == Some(member)
    };
    let line = body.lines().find(declares).unwrap_or_else(|| panic!("struct {tag} declares {member}"));
    let end = line.find(';').expect("its end");
    line[..=end].trim_start()
}

const PRINTK: Addr = Addr(0xffff_ffff_8110_0000);

fn vmlinux(distance: i64) -> Location {
    Location::Vmlinux(Addr(PRINTK.0.wrapping_add_signed(distance)))
}

fn module(symbol: &str) -> Location {
    Location::Module(symbol.to_owned())
}

/// One row in every table, no two members of the same value.
fn contents() -> Contents {
    let numbered = |first: u8| std::array::from_fn::<u8, WINDOW_MAX, _>(|i| first + i as u8);
    Contents {
        patches: vec![Patch {
            site: Address(vmlinux(-0x1000)),
            target: Address(module("pick.isra.0")),
            func: Address(vmlinux(-0x1004)),
            name: Text("pick \"it\"\n\u{e9}".into()),
            len: 5,
            after_fentry: true,
            expect: numbered(0x10),
            mask: numbered(0x80),
            sympos: 0x1234,
        }],
        ranges: vec![VmlinuxRange {
            start: Address(vmlinux(-0x2000)),
            end: Address(vmlinux(0x1_0000_0000)),
            name: Text("range".into()),
        }],
        classes: vec![SchedClass {
            vmlinux: Pointer(vmlinux(0x3000)),
            module: Pointer(module("fair_sched_class")),
            size: 0x1_0000_00d8,
            name: Text("class".into()),
        }],
        variables: vec![CarriedVariable {
            addr: Pointer(module("count.5 of mine")),
            name: Text("kernel/sched/fair.c:count".into()),
            size: 0x1_0000_0008,
            type_hash: 0xfedc_ba98_7654_3210,
            vmlinux: Pointer(Location::Offset(0x2_3456_7890)),
            per_cpu: true,
        }],
        states: vec![StateRow {
            state: Pointer(module("mine__state")),
            type_hash: 0x0123_4567_89ab_cdef,
            holds_pointers: 1,
        }],
        hooks: vec!["ss_in_swap__mine".into()],
        unproved: vec!["f hands out the address of \"x\"".into()],
        kinds: vec!["ss_kind_tasks".into()],
        texts: vec![ModuleText {
            start: Address(module("ss_text_start")),
            end: Address(module("ss_text_end")),
        }],
        features: [
            features(FeatureSet {
                bits: vmlinux(0x4000),
                names: vmlinux(0x5000),
                keys: vmlinux(0x6000),
                count: 0x1_0001,
                bits_bytes: 0x2_0004,
            }),
            features(FeatureSet::NONE),
        ],
        build_id: vec![0xab, 0xcd],
        version: "custom-1".into(),
        rebuilds: true,
    }
}

/// What a compiled table has in a member.
#[derive(PartialEq, Eq, Debug)]
enum Seen {
    Bytes(Vec<u8>),
    Symbol(String, i64),
    Text(Vec<u8>),
}

/// The tables as the compiler has laid them out.
struct Compiled {
    object: Object,
    types: Types,
}

impl Compiled {
    fn new(headers: &Headers, contents: &Contents) -> Compiled {
        let types = headers.types();
        Compiled { object: headers.compile(&contents.source(("_printk", PRINTK))), types }
    }

    fn place(&self, symbol: &str) -> (SectionId, u64, u64) {
        let found = self.object.symbols.iter().find(|s| s.name == symbol);
        let found = found.unwrap_or_else(|| panic!("{symbol} is defined"));
        match found.place {
            Place::Section(section) => (section, found.value, found.size),
            other => panic!("{symbol} is defined, not {other:?}"),
        }
    }

    /// Bytes of a section, or what a relocation puts there.
    fn seen(&self, section: SectionId, offset: u64, bytes: u64) -> Seen {
        let section = self.object.section(section);
        if let Some(relocation) = section.relocations.iter().find(|r| r.offset == offset) {
            let symbol = &self.object.symbols[relocation.symbol.0 as usize];
            return match symbol.place {
                Place::Section(strings) => {
                    let strings = &self.object.section(strings).data;
                    let start = (symbol.value as i64 + relocation.addend) as usize;
                    Seen::Text(strings[start..].split(|byte| *byte == 0).next().unwrap_or_default().to_vec())
                }
                _ => Seen::Symbol(symbol.name.clone(), relocation.addend),
            };
        }
        let range = offset as usize..(offset + bytes) as usize;
        Seen::Bytes(section.data.get(range.clone()).map_or(vec![0; range.len()], <[u8]>::to_vec))
    }

    /// A member of the first structure of a table, by what the debug information says of its place.
    fn member(&self, table: &str, tag: &str, member: &str) -> Seen {
        let record = self.types.record_named(tag).expect("the structure");
        let found = record.members.iter().find(|m| m.name.as_deref() == Some(member)).expect("the member");
        let (section, start, size) = self.place(table);
        assert_eq!(size, record.bytes, "{table} has one row");
        self.seen(section, start + found.offset, self.types.bytes(found.of))
    }

    /// All of [`contents`] is where it belongs.
    fn holds_the_contents(&self) {
        let bytes = |bytes: &[u8]| Seen::Bytes(bytes.to_vec());
        let word = |word: u64| Seen::Bytes(word.to_le_bytes().to_vec());
        let half = |half: u32| Seen::Bytes(half.to_le_bytes().to_vec());
        let text = |text: &str| Seen::Text(text.as_bytes().to_vec());
        let symbol = |symbol: &str| Seen::Symbol(symbol.to_owned(), 0);
        let anchored = |distance: i64| Seen::Symbol("_printk".to_owned(), distance);
        let numbered = |first: u8| bytes(&(first..first + 16).collect::<Vec<_>>());
        let expected = [
            ("ss_patches", "ss_patch", "site", anchored(-0x1000)),
            ("ss_patches", "ss_patch", "target", symbol("pick.isra.0")),
            ("ss_patches", "ss_patch", "func", anchored(-0x1004)),
            ("ss_patches", "ss_patch", "name", text("pick \"it\"\n\u{e9}")),
            ("ss_patches", "ss_patch", "len", bytes(&[5])),
            ("ss_patches", "ss_patch", "after_fentry", bytes(&[1])),
            ("ss_patches", "ss_patch", "expect", numbered(0x10)),
            ("ss_patches", "ss_patch", "mask", numbered(0x80)),
            ("ss_patches", "ss_patch", "sympos", bytes(&[0x34, 0x12])),
            ("ss_ranges", "ss_range", "start", anchored(-0x2000)),
            ("ss_ranges", "ss_range", "end", anchored(0x1_0000_0000)),
            ("ss_ranges", "ss_range", "name", text("range")),
            ("ss_classes", "ss_class", "vmlinux", anchored(0x3000)),
            ("ss_classes", "ss_class", "module", symbol("fair_sched_class")),
            ("ss_classes", "ss_class", "size", word(0x1_0000_00d8)),
            ("ss_classes", "ss_class", "name", text("class")),
            ("ss_variables", "ss_variable", "addr", symbol("count.5 of mine")),
            ("ss_variables", "ss_variable", "name", text("kernel/sched/fair.c:count")),
            ("ss_variables", "ss_variable", "size", word(0x1_0000_0008)),
            ("ss_variables", "ss_variable", "type_hash", word(0xfedc_ba98_7654_3210)),
            ("ss_variables", "ss_variable", "vmlinux", word(0x2_3456_7890)),
            ("ss_variables", "ss_variable", "per_cpu", bytes(&[1])),
            ("ss_states", "ss_state_row", "state", symbol("mine__state")),
            ("ss_states", "ss_state_row", "type_hash", word(0x0123_4567_89ab_cdef)),
            ("ss_states", "ss_state_row", "holds_pointers", half(1)),
            ("ss_texts", "ss_text", "start", symbol("ss_text_start")),
            ("ss_texts", "ss_text", "end", symbol("ss_text_end")),
            ("ss_features_vmlinux", "ss_feature_set", "bits", anchored(0x4000)),
            ("ss_features_vmlinux", "ss_feature_set", "names", anchored(0x5000)),
            ("ss_features_vmlinux", "ss_feature_set", "keys", anchored(0x6000)),
            ("ss_features_vmlinux", "ss_feature_set", "count", half(0x1_0001)),
            ("ss_features_vmlinux", "ss_feature_set", "bits_size", half(0x2_0004)),
            ("ss_features_module", "ss_feature_set", "bits", word(0)),
            ("ss_features_module", "ss_feature_set", "count", half(0)),
        ];
        for (table, tag, member, expected) in expected {
            assert_eq!(self.member(table, tag, member), expected, "{member} in {table}");
        }
    }
}

#[test]
fn each_value_is_in_its_member() {
    let headers = Headers::new();
    assert_eq!(headers.disagreements(), []);
    let compiled = Compiled::new(&headers, &contents());
    compiled.holds_the_contents();
    for count in ["patch", "range", "class", "variable", "state", "hook", "kind", "text"] {
        let (section, at, size) = compiled.place(&format!("ss_{count}_count"));
        assert_eq!(compiled.seen(section, at, size), Seen::Bytes(vec![1, 0, 0, 0]), "{count}");
    }
    for (list, symbol) in [("ss_hooks", "ss_in_swap__mine"), ("ss_kinds", "ss_kind_tasks")] {
        let (section, at, size) = compiled.place(list);
        assert_eq!(compiled.seen(section, at, size), Seen::Symbol(symbol.to_owned(), 0));
    }
    let bytes = |symbol: &str| {
        let (section, at, size) = compiled.place(symbol);
        compiled.seen(section, at, size)
    };
    let Seen::Bytes(build_id) = bytes("ss_build_id") else { panic!("the build-id is bytes") };
    assert_eq!((&build_id[..3], build_id.len()), (&[0xab, 0xcd, 0][..], 64));
    assert_eq!(bytes("ss_build_id_len"), Seen::Bytes(vec![2, 0, 0, 0]));
    assert_eq!(bytes("ss_version"), Seen::Bytes(b"custom-1\0".to_vec()));
    assert_eq!(bytes("ss_rebuilds"), Seen::Bytes(vec![1]));
    let modinfo = compiled.object.sections.iter().find(|s| s.name == ".modinfo").expect("a .modinfo");
    assert_eq!(modinfo.data, b"schedswap_build_id=abcd\0");
}

#[test]
fn a_module_without_rows_has_empty_tables() {
    let headers = Headers::new();
    let empty = Contents {
        patches: Vec::new(),
        ranges: Vec::new(),
        classes: Vec::new(),
        variables: Vec::new(),
        states: Vec::new(),
        hooks: Vec::new(),
        unproved: Vec::new(),
        kinds: Vec::new(),
        texts: Vec::new(),
        ..contents()
    };
    let compiled = Compiled::new(&headers, &empty);
    for (table, count) in [
        ("ss_patches", "ss_patch_count"),
        ("ss_hooks", "ss_hook_count"),
        ("ss_unproved", "ss_unproved_count"),
    ] {
        assert_eq!(compiled.place(table).2, 0, "{table}");
        let (section, at, size) = compiled.place(count);
        assert_eq!(compiled.seen(section, at, size), Seen::Bytes(vec![0; 4]), "{count}");
    }
}

#[test]
fn members_that_change_places_take_their_values_along() {
    for expected in &EXPECTED {
        for pair in expected.members.windows(2) {
            let headers = Headers::new();
            headers.exchange(expected.tag, pair[0].0, pair[1].0);
            assert_eq!(headers.disagreements(), [], "{} {pair:?}", expected.tag);
            Compiled::new(&headers, &contents()).holds_the_contents();
        }
    }
}

/// The same declaration with a type of another width.
fn of_other_width(declaration: &str) -> String {
    let wider = [
        ("[SS_WINDOW_MAX]", "[SS_WINDOW_MAX - 1]"),
        ("unsigned long ", "unsigned int "),
        ("unsigned int ", "unsigned long "),
        ("u8 ", "u16 "),
        ("u16 ", "u32 "),
        ("u32 ", "u64 "),
        ("u64 ", "u32 "),
    ];
    let change = wider.iter().find(|(from, _)| declaration.contains(from));
    match change {
        Some((from, to)) => declaration.replacen(from, to, 1),
        None => format!("int {}", declaration.rsplit(['*', ' ']).next().expect("a pointer's name")),
    }
}

#[test]
fn a_member_of_another_width_is_named() {
    for expected in &EXPECTED {
        for (member, bytes) in expected.members {
            let headers = Headers::new();
            headers.edit(expected.tag, member, of_other_width);
            let found = headers.disagreements();
            let [Disagreement::Width { structure, member: named, found: Some(width), expected: filled }] =
                &found[..]
            else {
                panic!("{} {member}: {found:?}", expected.tag)
            };
            assert_eq!((structure.as_str(), named.as_str(), filled), (expected.tag, *member, bytes));
            assert_ne!(width, filled);
            let text = found[0].to_string();
            assert!(text.contains(expected.tag) && text.contains(member), "{text}");
        }
    }
}

#[test]
fn a_bit_field_is_named() {
    let headers = Headers::new();
    headers.edit("ss_patch", "len", |_| "u8 len : 7;".to_owned());
    let text: Vec<String> = headers.disagreements().iter().map(ToString::to_string).collect();
    assert_eq!(text, ["struct ss_patch: len is a bit-field, but the build fills in 1 bytes"]);
}

#[test]
fn a_member_that_the_build_does_not_know_is_named_wherever_it_stands() {
    for expected in &EXPECTED {
        for (member, _) in expected.members {
            let headers = Headers::new();
            headers.edit(expected.tag, member, |declaration| format!("u8 added; {declaration}"));
            let unknown =
                Disagreement::Unknown { structure: expected.tag.to_owned(), member: "added".to_owned() };
            assert_eq!(headers.disagreements(), [unknown], "before {member}");
        }
    }
}

#[test]
fn a_member_that_is_gone_or_renamed_is_named() {
    for expected in &EXPECTED {
        for (member, _) in expected.members {
            let headers = Headers::new();
            headers.edit(expected.tag, member, |_| String::new());
            let structure = || expected.tag.to_owned();
            let missing = Disagreement::Missing { structure: structure(), member: (*member).to_owned() };
            assert_eq!(headers.disagreements(), std::slice::from_ref(&missing));

            let headers = Headers::new();
            headers.edit(expected.tag, member, |declaration| {
                let (before, after) = declaration.rsplit_once(member).expect("its name");
                format!("{before}renamed{after}")
            });
            let unknown = Disagreement::Unknown { structure: structure(), member: "renamed".to_owned() };
            assert_eq!(headers.disagreements(), [unknown, missing]);
        }
    }
}

#[test]
fn every_structure_of_the_tables_is_known_to_the_build() {
    let text = |name: &str| {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runtime").join(name))
            .expect("a header of the runtime")
    };
    let mut declared = Vec::new();
    for header in ["schedswap.h", "extension.h", "hooks.h"] {
        let text = text(header);
        for line in text.lines().filter_map(|line| line.strip_prefix("extern const struct ")) {
            declared.push(line.split(' ').next().unwrap_or_default().to_owned());
        }
    }
    // A list of pointers to what the author's header defines.
    declared.retain(|tag| tag != "ss_hook");
    declared.sort();
    let mut known: Vec<&str> = EXPECTED.iter().map(|expected| expected.tag).collect();
    known.sort_unstable();
    assert_eq!(declared, known);
}

#[test]
fn any_text_is_a_string_of_c() {
    assert_eq!(c_string("a\\\"b\n1\u{e9}"), "\"a\\\\\\\"b\\0121\\303\\251\"");
}
