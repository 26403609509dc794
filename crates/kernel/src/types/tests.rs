//! Structures as a real compiler lays them out and describes them.

use super::{RecordLayout, Types, of_object};
use std::process::Command;

fn compile(source: &str, dwarf: &str) -> Types {
    let dir = tempfile::tempdir().unwrap();
    let (c, o) = (dir.path().join("a.c"), dir.path().join("a.o"));
    std::fs::write(&c, source).unwrap();
    let status = Command::new("gcc").args(["-O2", dwarf, "-w", "-c", "-o"]).args([&o, &c]).status().unwrap();
    assert!(status.success());
    let object = crate::objects::read("a.o", &std::fs::read(&o).unwrap()).unwrap();
    of_object("a.c", &object).unwrap()
}

fn layout(source: &str, name: &str) -> RecordLayout {
    let of = |dwarf| compile(source, dwarf).layout(name).unwrap_or_else(|| panic!("no {name}"));
    let (four, five) = (of("-gdwarf-4"), of("-gdwarf-5"));
    assert_eq!(four, five, "both versions say the same");
    four
}

/// Offset, bytes, path and owner of each hole.
fn holes(layout: &RecordLayout) -> Vec<(u64, u64, &str, &str)> {
    layout.holes.iter().map(|h| (h.offset, h.bytes, h.path.as_str(), h.owner.as_str())).collect()
}

#[test]
fn padding_between_members_at_the_end_and_in_inner_structures() {
    let source = "struct inner { char a; long b; short c; };
        struct outer { int x; struct inner in; char y; } o;";
    let layout = layout(source, "outer");
    assert_eq!((layout.bytes, layout.align, layout.title.as_str()), (40, 8, "struct outer"));
    assert_eq!(
        holes(&layout),
        [
            (4, 4, "", "struct outer"),
            (9, 7, "in", "struct inner"),
            (26, 6, "in", "struct inner"),
            (33, 7, "", "struct outer"),
        ]
    );
    assert_eq!(layout.holes[0].after.as_deref(), Some("x"));
    assert_eq!(layout.holes[0].before.as_deref(), Some("in"));
    assert_eq!(layout.holes[3].before, None);
}

#[test]
fn what_another_variant_of_a_union_uses_is_not_free() {
    let source = "struct s { union { struct { char a; long b; } one; char two[12]; }; char end; } o;";
    let layout = layout(source, "s");
    // Bytes 1 to 7 are two's; of the last four of the union nothing but `b` has any.
    assert_eq!(holes(&layout), [(17, 7, "", "struct s")]);
    let paths: Vec<&str> = layout.members.iter().map(|m| m.path.as_str()).collect();
    assert_eq!(paths, ["one.a", "two", "one.b", "end"]);
}

#[test]
fn a_flexible_array_owns_what_follows_it() {
    let source = "struct s { long a; char b; char rest[]; }; struct s *p;
        struct z { long a; char b; char rest[0]; } o;";
    assert_eq!(holes(&layout(source, "s")), []);
    assert_eq!(holes(&layout(source, "z")), []);
}

#[test]
fn spare_bits_of_bit_fields_are_told_from_free_bytes() {
    let source = "struct s { unsigned a : 3; unsigned b : 6; long c; } o;";
    let layout = layout(source, "s");
    assert_eq!(holes(&layout), [(2, 6, "", "struct s")]);
    let spare: Vec<(u64, u8)> = layout.spare_bits.iter().map(|s| (s.offset, s.mask)).collect();
    assert_eq!(spare, [(1, 0xfe)]);
    let bits: Vec<_> = layout.members.iter().map(|m| m.bits.map(|b| (b.start, b.width))).collect();
    assert_eq!(bits, [Some((0, 3)), Some((3, 6)), None]);
}

#[test]
fn each_element_of_an_array_has_its_padding_reported_once() {
    let source = "struct e { long a; char b; }; struct s { struct e many[3]; } o;";
    assert_eq!(holes(&layout(source, "s")), [(9, 7, "many[]", "struct e")]);
}

#[test]
fn alignment_as_asked_for_and_as_packed() {
    let source = "struct a { long x; char y; } __attribute__((aligned(64))) o;
        struct p { char a; long b; } __attribute__((packed)) q;
        struct m { char a; char b __attribute__((aligned(32))); } r;";
    let aligned = layout(source, "a");
    assert_eq!((aligned.bytes, aligned.align), (64, 64));
    assert_eq!(holes(&aligned), [(9, 55, "", "struct a")]);
    let packed = layout(source, "p");
    assert_eq!((packed.bytes, packed.align, packed.holes.len()), (9, 1, 0));
    assert_eq!(layout(source, "m").align, 32);
}

#[test]
fn types_in_words_do_not_depend_on_typedefs_and_qualifiers() {
    let source = "typedef unsigned int u32; struct t; typedef struct { int v; } lock_t; enum e { A, B };
        struct s { const u32 a; struct t *b; int (*c)(struct t *, ...); lock_t d; u32 *e[2][3]; enum e f; void *g; } o;";
    let layout = layout(source, "s");
    let types: Vec<&str> = layout.members.iter().map(|m| m.type_words.as_str()).collect();
    assert_eq!(
        types,
        [
            "unsigned int",
            "struct t *",
            "int (*)(struct t *, ...)",
            "lock_t",
            "unsigned int *[2][3]",
            "enum e",
            "void *"
        ]
    );
}

#[test]
fn functions_and_variables() {
    let source = "struct s { int a; }; static int kept;
        int f(struct s *s, const long n) { struct s here = *s; static int count; count++; kept = here.a; return n + count; }
        void g(int, ...);  void h(void) { g(1); }";
    let types = compile(source, "-gdwarf-4");
    let f = types.functions.iter().find(|f| f.name == "f").unwrap();
    assert_eq!(types.prototype_words(&f.prototype), "int (struct s *, long int)");
    assert!(f.is_external && !f.is_declaration);
    let h = types.functions.iter().find(|f| f.name == "h").unwrap();
    assert_eq!(types.prototype_words(&h.prototype), "void (void)");
    let here = types.variables.iter().find(|v| v.name == "here").unwrap();
    assert_eq!((here.is_automatic, here.function.as_deref()), (true, Some("f")));
    let count = types.variables.iter().find(|v| v.name == "count").unwrap();
    assert!(!count.is_automatic);
    assert_eq!(types.structures_in(here.of).into_iter().collect::<Vec<_>>(), ["s"]);
}
