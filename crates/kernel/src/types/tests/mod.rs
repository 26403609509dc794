//! Structures as a real compiler lays them out and describes them.

mod shapes;

use super::{HeldKind, RecordLayout, Types, of_object, symbol_at};
use crate::objects::Object;
use std::process::Command;

fn compile(source: &str, dwarf: &str) -> Types {
    of_object("a.c", &object(source, dwarf)).unwrap()
}

fn object(source: &str, dwarf: &str) -> Object {
    let dir = tempfile::tempdir().unwrap();
    let (c, o) = (dir.path().join("a.c"), dir.path().join("a.o"));
    std::fs::write(&c, source).unwrap();
    let status = Command::new("gcc").args(["-O2", dwarf, "-w", "-c", "-o"]).args([&o, &c]).status().unwrap();
    assert!(status.success());
    crate::objects::read("a.o", &std::fs::read(&o).unwrap()).unwrap()
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

#[test]
fn sizes_and_values_whose_highest_bit_is_set_in_the_debug_information() {
    // The compiler writes 199, 255 and 39999 as unsigned numbers of one and two bytes.
    let source = "struct s { char a[200]; char b[256]; char c[40000]; } o; enum e { X = 200u, Y = -56 } v;";
    let layout = layout(source, "s");
    let sizes: Vec<(u64, u64)> = layout.members.iter().map(|m| (m.offset, m.bytes)).collect();
    assert_eq!(sizes, [(0, 200), (200, 256), (456, 40000)]);
    for dwarf in ["-gdwarf-4", "-gdwarf-5"] {
        let types = compile(source, dwarf);
        let (_, enumeration) = types.enumerations().next().unwrap();
        assert_eq!(enumeration.values, [("X".to_owned(), 200), ("Y".to_owned(), -56)]);
    }
}

#[test]
fn variables_have_the_address_of_their_symbol() {
    let source = "extern int q; int q = 5; static int kept[4]; int *p = kept;
        static inline int next(void) { static int count; return ++count; }
        int f(void) { kept[1]++; return next(); } int g(void) { int local = f(); return next() + local; }";
    for dwarf in ["-gdwarf-4", "-gdwarf-5"] {
        let object = object(source, dwarf);
        let types = of_object("a.c", &object).unwrap();
        let symbol = |name: &str| {
            let found: Vec<_> = types.variables.iter().filter(|v| v.name == name).collect();
            found.iter().find_map(|v| Some(symbol_at(&object, v.address?)?.name.as_str()))
        };
        assert_eq!((symbol("q"), symbol("kept"), symbol("p")), (Some("q"), Some("kept"), Some("p")));
        assert!(symbol("count").unwrap().starts_with("count."), "{:?}", symbol("count"));
        assert_eq!(symbol("local"), None);
        let all = |name: &str| types.variables.iter().filter(|v| v.name == name).collect::<Vec<_>>();
        let q: Vec<_> =
            all("q").iter().map(|v| (v.is_declaration, v.address.is_some(), v.is_external)).collect();
        assert_eq!(q, [(true, false, true), (false, true, true)], "declared, then defined");
        assert!(all("count").iter().all(|v| v.function.as_deref() == Some("next")), "{:?}", all("count"));
        assert!(all("kept").iter().all(|v| !v.is_external && !v.is_automatic));
        assert!(all("local").iter().all(|v| v.is_automatic && v.address.is_none()));
    }
}

#[test]
fn what_a_variable_holds_beside_values() {
    let source = "struct list_head { struct list_head *next, *prev; };
        struct hlist_node { struct hlist_node *next, **pprev; }; struct hlist_head { struct hlist_node *first; };
        typedef struct raw_spinlock { int v; } raw_spinlock_t; struct later;
        struct s { int n; struct list_head list; struct hlist_head heads[4]; raw_spinlock_t lock;
                   struct { struct later *to; }; const char *names[2]; } o;";
    let types = compile(source, "-gdwarf-4");
    let o = types.variables.iter().find(|v| v.name == "o").unwrap();
    let held = types.holds(o.of);
    let held: Vec<_> = held.iter().map(|h| (h.kind, h.path.as_str(), h.type_name.as_str())).collect();
    assert_eq!(
        held,
        [
            (HeldKind::Link, ".list", "list_head"),
            (HeldKind::Link, ".heads[]", "hlist_head"),
            (HeldKind::Lock, ".lock", "raw_spinlock"),
            (HeldKind::Pointer, ".to", ""),
            (HeldKind::Pointer, ".names[]", ""),
        ]
    );
}

#[test]
fn types_as_the_source_writes_them() {
    let source = "typedef unsigned int u32; struct t; typedef struct { int v; } lock_t; enum e { A };
        struct s { const u32 a; const struct t *b; int (*c)(int); lock_t d; u32 *e[2][3]; enum e f; void *g;
                   struct { int x; } h; volatile long i; } o;";
    let types = compile(source, "-gdwarf-4");
    let record = types.record_named("s").unwrap();
    let words: Vec<String> = record.members.iter().map(|m| types.source_words(m.of)).collect();
    assert_eq!(
        words,
        [
            "const u32",
            "const struct t *",
            "function *",
            "lock_t",
            "u32 *[2][3]",
            "enum e",
            "void *",
            "struct {…}",
            "long int",
        ]
    );
}
