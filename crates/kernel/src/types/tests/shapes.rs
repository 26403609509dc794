//! What is handed over from one build to another.

use super::compile;
use crate::types::{Shape, Types};

const SOURCE: &str = r"
    typedef unsigned int u32;
    enum e { A, B };
    struct inner { char c; u32 many[3]; enum e e; unsigned low : 3, high : 5; };
    struct list { struct list *next, *prev; };
    struct with_pointer { int count; struct { void *to[2]; } in; };
    long plain = 1;
    volatile u32 counter __attribute__((used));
    struct inner nested = { 1 };
    struct with_pointer pointing = { 1 };
    struct list list = { &list, &list };
    struct { int a; struct { void (*f)(int); }; } nameless[2] = { { 1 } };
    int (*function)(void);
    extern struct unknown { int known; } declared;
    int used(void) { static int local = 5; return local++ + nested.many[0] + (int)plain + pointing.count + !!function; }
";

fn shape_in(types: &Types, variable: &str) -> Shape {
    let found = types.variables.iter().find(|v| v.name == variable && v.address.is_some());
    types.shape(found.unwrap_or_else(|| panic!("no {variable}")).of)
}

fn shape(source: &str, variable: &str) -> Shape {
    let of = |dwarf| shape_in(&compile(source, dwarf), variable);
    let (four, five) = (of("-gdwarf-4"), of("-gdwarf-5"));
    assert_eq!(four, five, "both versions of the debug information say the same");
    four
}

#[test]
fn the_hash_is_the_same_in_every_build() {
    // A change here changes what modules hand over to each other: count SS_HANDOVER_ABI up.
    assert_eq!(shape(SOURCE, "plain").hash, Some(HASH_OF_LONG));
    assert_eq!(shape(SOURCE, "nested").hash, Some(HASH_OF_NESTED));
}

/// SHA-256 of `base 5 8;`, its first eight bytes.
const HASH_OF_LONG: u64 = 0x0397_6e9d_1048_ffa9;
/// … of `struct 24{at 0 c:base 6 1;at 4 many:[3]base 7 4;at 16 e:enum 4{A=0;B=1;}bits 160+3 low:base 7 4;bits 163+5 high:base 7 4;}`.
const HASH_OF_NESTED: u64 = 0xb6c9_5c78_30aa_5943;

#[test]
fn values_are_told_from_what_holds_a_pointer() {
    for name in ["plain", "counter", "nested", "local"] {
        assert_eq!(shape(SOURCE, name).pointer, None, "{name}");
    }
    for (name, at) in [("pointing", ".in.to[]"), ("function", ""), ("list", ".next"), ("nameless", "[].f")] {
        let shape = shape(SOURCE, name);
        assert_eq!(shape.pointer.as_deref(), Some(at), "{name}");
        assert!(shape.hash.is_some(), "a pointer is described: {name}");
    }
}

#[test]
fn only_what_is_declared_alike_has_the_same_hash() {
    let before = shape(SOURCE, "nested");
    assert!(before.hash.is_some_and(|hash| hash != 0));
    for alike in [
        SOURCE.replace("u32 many", "const volatile unsigned many"),
        SOURCE.replace("inner", "renamed").replace("enum e", "enum other"),
        format!("\n\n{SOURCE}"),
    ] {
        assert_eq!(before, shape(&alike, "nested"), "{alike}");
    }
    for (old, new) in [
        ("many[3]", "many[4]"),
        ("char c;", "char d;"),
        ("u32 many", "int many"),
        ("char c;", "char c, pad;"),
        ("low : 3, high : 5", "low : 4, high : 4"),
        ("low : 3, high : 5", "high : 3, low : 5"),
        ("enum e { A, B }", "enum e { B, A }"),
        ("struct inner", "union inner"),
    ] {
        let changed = SOURCE.replace(old, new);
        assert_ne!(changed, SOURCE, "{old}");
        assert_ne!(before, shape(&changed, "nested"), "{old} became {new}");
    }
}

#[test]
fn what_is_not_described_has_no_hash() {
    assert_eq!(Types::default().shape(None), Shape { hash: None, pointer: None });
    let types = compile(
        "struct later; extern struct later declared; void *f(void) { return &declared; }",
        "-gdwarf-4",
    );
    let declared = types.variables.iter().find(|v| v.name == "declared").unwrap();
    assert_eq!((declared.address, declared.is_declaration), (None, true));
    assert_eq!(types.shape(declared.of), Shape { hash: None, pointer: None });
}
