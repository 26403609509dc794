//! SS107 and SS108: what two declarations must have in common.

use super::super::declared::Declared;
use super::super::layouts::differences;
use super::super::signatures::changed_signatures;
use super::{UNIT, frozen, function};
use crate::boundary::{Boundary, BoundaryFunction, Class, Fate, PatchSite};
use crate::check::Code;
use schedswap_kernel::objects;
use schedswap_kernel::types::{Layouts, Types, of_object};
use std::process::Command;

fn compile(source: &str) -> Types {
    let dir = tempfile::tempdir().unwrap();
    let (c, o) = (dir.path().join("a.c"), dir.path().join("a.o"));
    std::fs::write(&c, source).unwrap();
    let status = Command::new("gcc").args(["-gdwarf-4", "-w", "-c", "-o"]).args([&o, &c]).status().unwrap();
    assert!(status.success(), "does not compile:\n{source}");
    of_object(UNIT, &objects::read("a.o", &std::fs::read(&o).unwrap()).unwrap()).unwrap()
}

/// What an old user of `struct s` with these members would trip over in one with those.
fn struct_s(before: &str, after: &str) -> Vec<String> {
    let of =
        |members: &str| compile(&format!("struct in {{ char a; long b; }}; struct s {{ {members} }} s;"));
    differences(&of(before).layout("s").unwrap(), &of(after).layout("s").unwrap())
}

#[test]
fn a_member_in_padding_is_fine_and_one_that_moves_others_is_not() {
    assert_eq!(struct_s("char a; long b;", "char a; char novel; int more; long b;"), [""; 0]);
    assert_eq!(struct_s("long a; char b;", "long a; char b; int novel;"), [""; 0]);
    assert_eq!(
        struct_s("char a; long b;", "char a; long novel; long b;"),
        [
            "its size becomes 24 bytes instead of 16",
            "novel (long int) is new at 8, where b was",
            "b (long int) moves from 8 to 16"
        ]
    );
    assert_eq!(
        struct_s("long a; long b;", "long a; long b; char novel;"),
        ["its size becomes 24 bytes instead of 16", "novel (char) is new at 16, where the structure ended"]
    );
}

#[test]
fn padding_of_an_inner_structure_is_not_the_outer_ones() {
    let before = "struct in in; union { char c; long whole; }; char d;";
    assert_eq!(
        struct_s(before, "struct in in; union { char c; long whole; struct { char x, novel; }; }; char d;")
            .len(),
        2
    );
    assert_eq!(struct_s(before, &format!("{before} char novel;")), [""; 0]);
}

#[test]
fn members_that_change_type_or_go_and_such_that_get_another_name() {
    assert_eq!(struct_s("int a; int b;", "int a; unsigned b;"), ["b (int) is unsigned int instead of int"]);
    assert_eq!(struct_s("int a; int b;", "int a; int other;"), [""; 0]);
    assert_eq!(struct_s("long a; char b; char c;", "long a; char b;"), ["c (char) is gone"]);
    assert_eq!(struct_s("int a; int b;", "int b; int a;").len(), 2);
}

#[test]
fn reserved_members_and_spare_bits_may_be_used() {
    let before = "long a; unsigned long abi_reserved1; unsigned f : 3;";
    assert_eq!(struct_s(before, "long a; unsigned novel; unsigned more; unsigned f : 3;"), [""; 0]);
    assert_eq!(
        struct_s(before, "long a; unsigned long abi_reserved1; unsigned f : 3; unsigned g : 2;"),
        [""; 0]
    );
    assert_eq!(
        struct_s(before, "long a; unsigned long abi_reserved1; unsigned g : 1; unsigned f : 3;").len(),
        2
    );
}

/// Findings about the prototype of `f`, reached from outside.
fn prototype(before: &str, after: &str, class: Class) -> Vec<(Code, String)> {
    let of = |source: &str| compile(&format!("struct rq; struct task;\n{source} {{ return 0; }}"));
    let declared = Declared { pristine: Layouts { units: vec![of(before)] }, edited: vec![of(after)] };
    let fate = Fate::Divert(PatchSite {
        at: schedswap_kernel::address::Addr(0),
        expect: vec![],
        mask: vec![],
        after_fentry: true,
    });
    let function =
        BoundaryFunction { class, called_from: vec!["fork".into()], ..function("f", "void tick(", fate) };
    let boundary = Boundary { functions: vec![function], ..Boundary::default() };
    let findings = changed_signatures(&declared, &boundary, &frozen());
    findings.into_iter().map(|finding| (finding.code, finding.symbol)).collect()
}

#[test]
fn an_interface_keeps_its_parameters() {
    let before = "int f(struct rq *rq, int flags)";
    let refused = vec![(Code::ChangedSignature, "f".to_owned())];
    for after in [
        "int f(struct rq *rq, int flags, int more)",
        "int f(struct rq *rq)",
        "int f(struct task *rq, int flags)",
        "int f(struct rq *rq, long flags)",
        "long f(struct rq *rq, int flags)",
        "int f(int flags, struct rq *rq)",
    ] {
        assert_eq!(prototype(before, after, Class::Interface), refused, "{after}");
        assert_eq!(prototype(before, after, Class::Callback), refused, "{after}");
        assert_eq!(prototype(before, after, Class::Insider), [], "{after}");
    }
    for after in [
        "int f(struct rq *queue, int enqueue_flags)",
        "int f(const struct rq *rq, const unsigned flags)",
        "typedef int number; number f(struct rq *rq, number flags)",
    ] {
        assert_eq!(prototype(before, after, Class::Interface), [], "{after}");
    }
    assert_eq!(prototype("void f(struct rq *rq)", "int f(struct rq *rq)", Class::Interface), []);
}
