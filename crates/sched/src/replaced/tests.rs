//! The sets of small edits, compiled by a real compiler.

use super::{Input, Reason, Replaced, replaced};
use crate::boundary::{
    Boundary, BoundaryFunction, BoundaryVariable, Class, Fate, PatchSite, Sharing, StayReason,
};
use crate::check::fixture::{UNIT, compile};
use schedswap_kernel::address::Addr;
use schedswap_kernel::objects::Object;
use std::collections::BTreeMap;

const SOURCE: &str = r#"
#define noinline __attribute__((noinline))

struct static_key { int enabled; void *type; };

static noinline int nice_of(int prio)
{
	return prio - 120;
}

static const int weights[] = { 1024, 820, 655, 526 };

int weight_of(int prio)
{
	return weights[prio & 3];
}

int name_of(int kind)
{
	switch (kind) {
	case 0: return 7;
	case 1: return 11;
	case 2: return 3;
	case 3: return 90;
	case 4: return 41;
	}
	return 0;
}

static noinline int no_room(int a)
{
	return a * 3;
}

int caller(int a)
{
	return no_room(a) + 1;
}

int counts(void)
{
	static int count = 5;

	return ++count;
}

int tick(int prio)
{
	return nice_of(prio) * 2;
}

static inline __attribute__((always_inline)) int next_number(void)
{
	static int number;

	return ++number;
}

int numbers_one(void) { return next_number() + 1; }
int numbers_two(void) { return next_number() + 2; }

int twin_one(int a)
{
	static int twin;

	return twin += a;
}

int twin_two(int a)
{
	static int twin;

	return twin -= a;
}

int stays(int a)
{
	return a + 9;
}

const char *const sched_feat_names[] = { "ONE", "TWO" };
struct static_key sched_feat_keys[2];
unsigned int sysctl_sched_features = 3;

static inline __attribute__((always_inline)) int is_on(struct static_key *key)
{
	asm goto("1: .byte 0x0f, 0x1f, 0x44, 0x00, 0x00\n"
		 ".pushsection __jump_table, \"aw\"\n"
		 ".balign 8\n"
		 ".long 1b - ., %l[yes] - .\n"
		 ".quad %c0 - .\n"
		 ".popsection" : : "i" (key) : : yes);
	return 0;
yes:
	return 1;
}

#define ONE 0
#define TWO 1

int asks_one(void) { return is_on(&sched_feat_keys[ONE]); }
int asks_two(void) { return is_on(&sched_feat_keys[TWO]); }
int sched_feat_write(int i)
{
	sysctl_sched_features ^= 1u << i;
	return sched_feat_keys[i].enabled;
}
"#;

fn divert() -> Fate {
    Fate::Divert(PatchSite { at: Addr(0), expect: vec![], mask: vec![], after_fentry: true })
}

fn function(name: &str, at: u64, fate: Fate) -> BoundaryFunction {
    BoundaryFunction {
        name: name.into(),
        unit: UNIT.into(),
        decl_file: UNIT.into(),
        decl_line: 1,
        addr: Addr(0x1000 + 16 * at),
        ranges: vec![],
        local: true,
        class: Class::Insider,
        class_configured: None,
        fate,
        called_from: vec![],
        stored_in: vec![],
        exported: false,
    }
}

fn variable(name: &str, in_function: Option<&str>, sharing: Sharing) -> BoundaryVariable {
    BoundaryVariable {
        name: name.into(),
        unit: UNIT.into(),
        in_function: in_function.map(str::to_owned),
        decl_file: UNIT.into(),
        decl_line: 1,
        addr: Addr(0x9000),
        size: 4,
        sharing,
        carry: false,
        configured: None,
        used_from: vec![],
        held_by: vec![],
        not_private: vec![],
    }
}

fn boundary() -> Boundary {
    let own = || Sharing::Private("of one build".into());
    let diverted = [
        "nice_of",
        "weight_of",
        "name_of",
        "caller",
        "counts",
        "tick",
        "numbers_one",
        "numbers_two",
        "twin_one",
        "twin_two",
        "asks_one",
        "asks_two",
    ];
    let mut functions: Vec<_> =
        diverted.iter().zip(0..).map(|(name, at)| function(name, at, divert())).collect();
    functions.push(function("sched_feat_write", 20, divert()));
    functions.push(function("no_room", 21, Fate::InsideOnly("a static call".into())));
    functions.push(function("stays", 22, Fate::Stay(StayReason::NoInstr)));
    Boundary {
        functions,
        variables: vec![
            variable("weights", None, Sharing::Shared),
            variable("count", Some("counts"), own()),
            variable("number", Some("next_number"), own()),
            variable("twin", Some("twin_one"), own()),
            variable("twin", Some("twin_two"), own()),
            variable("sched_feat_names", None, own()),
            variable("sched_feat_keys", None, own()),
            variable("sysctl_sched_features", None, own()),
        ],
        ..Boundary::default()
    }
}

/// The set of an edit: each `(from, to)` replaced.
fn set_in(boundary: &Boundary, edits: &[(&str, &str)]) -> Replaced {
    let edited = edits.iter().fold(SOURCE.to_owned(), |source, (from, to)| {
        assert_eq!(source.matches(from).count(), 1, "{from:?} has to be there once");
        source.replace(from, to)
    });
    let [pristine, edited] = [SOURCE, &edited].map(|source| [(UNIT.to_owned(), compile(source))]);
    replaced(&Input {
        boundary,
        pristine: &pristine,
        edited: &edited,
        entry_sizes: &BTreeMap::from([("jump_entry".to_owned(), 16)]),
        followed: &[],
        class_members: &BTreeMap::new(),
        runtime: &Object::default(),
    })
}

fn set(edits: &[(&str, &str)]) -> Replaced {
    set_in(&boundary(), edits)
}

fn members(set: &Replaced) -> Vec<(&str, Reason)> {
    set.members.iter().map(|member| (member.name.as_str(), member.reason.clone())).collect()
}

fn changed(names: &[&'static str]) -> Vec<(&'static str, Reason)> {
    names.iter().map(|name| (*name, Reason::Changed)).collect()
}

fn sharing<'s>(set: &'s Replaced, name: &str) -> &'s Sharing {
    &set.boundary.variables.iter().find(|v| v.name == name).unwrap().sharing
}

#[test]
fn an_edit_of_words_changes_nothing() {
    let set = set(&[("static noinline int nice_of", "/* From 0 to 39. */\nstatic noinline int nice_of")]);
    assert!(set.is_empty && set.members.is_empty());
}

#[test]
fn one_function_is_replaced_and_its_callers_are_not() {
    let set = set(&[("prio - 120", "prio - 100")]);
    assert_eq!(members(&set), changed(&["nice_of"]));
    assert!(!set.is_empty);
    let fate = |name| &set.boundary.function(UNIT, name).unwrap().fate;
    assert_eq!(*fate("nice_of"), divert());
    assert_eq!(*fate("tick"), Fate::Stay(StayReason::Unchanged));
    assert_eq!(*fate("no_room"), Fate::Stay(StayReason::Unchanged));
    assert_eq!(*fate("stays"), Fate::Stay(StayReason::NoInstr));
}

#[test]
fn a_new_function_comes_with_the_one_that_calls_it() {
    let new = "static noinline int doubled(int a) { return a + a; }\n\nint tick(int prio)";
    let set = set(&[("int tick(int prio)", new), ("nice_of(prio) * 2", "doubled(nice_of(prio))")]);
    assert_eq!(members(&set), changed(&["tick"]));
    assert_eq!(set.added, [(UNIT.to_owned(), "doubled".to_owned())]);
}

#[test]
fn who_calls_a_function_without_room_for_a_jump_joins() {
    let set = set(&[("a * 3", "a * 5")]);
    let calls = Reason::Calls("no_room".into());
    assert_eq!(members(&set), [("caller", calls), ("no_room", Reason::Changed)]);
}

#[test]
fn who_uses_a_changed_constant_joins() {
    // The code of weight_of is the same.
    assert_eq!(members(&set(&[("820", "821")])), [("weight_of", Reason::Uses("weights".into()))]);
    // A table that the compiler made of a switch.
    assert_eq!(members(&set(&[("return 90", "return 91")])), changed(&["name_of"]));
}

#[test]
fn a_static_is_vmlinuxs_unless_it_begins_otherwise() {
    let with_another = set(&[("prio - 120", "prio - 100")]);
    assert_eq!(*sharing(&with_another, "count"), Sharing::Shared);
    let changed = set(&[("count = 5", "count = 6")]);
    assert_eq!(members(&changed), [("counts", Reason::Uses("count".into()))]);
    assert!(matches!(sharing(&changed, "count"), Sharing::Private(_)));
}

#[test]
fn a_variable_that_is_shared_is_what_it_is_in_the_kernel() {
    let mut boundary = boundary();
    boundary.variables[1].sharing = Sharing::Shared;
    assert_eq!(members(&set_in(&boundary, &[("count = 5", "count = 6")])), []);
}

#[test]
fn what_the_configuration_makes_private_keeps_all_its_users_together() {
    let mut boundary = boundary();
    boundary.variables[1].configured = Some("global_var.force_private, line 3".into());
    let set = set_in(&boundary, &[("prio - 120", "prio - 100")]);
    let uses = Reason::Uses("count".into());
    assert_eq!(members(&set), [("counts", uses), ("nice_of", Reason::Changed)]);
}

const NEW_FEATURE: [(&str, &str); 4] = [
    ("{ \"ONE\", \"TWO\" }", "{ \"ONE\", \"NEW\", \"TWO\" }"),
    ("sched_feat_keys[2]", "sched_feat_keys[3]"),
    ("sysctl_sched_features = 3", "sysctl_sched_features = 5"),
    ("#define TWO 1", "#define TWO 2"),
];

#[test]
fn a_new_feature_leaves_alone_who_asks_about_others() {
    let set = set(&NEW_FEATURE);
    let uses = |name: &str| Reason::Uses(name.into());
    assert_eq!(members(&set), [("sched_feat_write", uses("sysctl_sched_features"))]);
    for name in ["sched_feat_keys", "sched_feat_names", "sysctl_sched_features"] {
        assert!(matches!(sharing(&set, name), Sharing::Private(_)), "{name}");
    }
}

#[test]
fn who_asks_about_another_feature_is_changed() {
    assert_eq!(
        members(&set(&[("is_on(&sched_feat_keys[ONE])", "is_on(&sched_feat_keys[1])")])),
        changed(&["asks_one"])
    );
}

/// If vmlinux's switches cannot follow the module's, all who ask about a feature have to ask the module's.
#[test]
fn without_a_writer_that_is_diverted_all_who_ask_join() {
    let mut boundary = boundary();
    boundary.functions.retain(|f| f.name != "sched_feat_write");
    let set = set_in(&boundary, &NEW_FEATURE);
    let uses = || Reason::Uses("sched_feat_keys".into());
    assert_eq!(members(&set), [("asks_one", uses()), ("asks_two", uses())]);
}

#[test]
fn features_that_are_the_same_are_vmlinuxs() {
    let set = set(&[("prio - 120", "prio - 100")]);
    for name in ["sched_feat_keys", "sched_feat_names", "sysctl_sched_features"] {
        assert_eq!(*sharing(&set, name), Sharing::Shared, "{name}");
    }
}

/// There is one, so vmlinux's can be found for each function that has a copy of the function that it is local to.
#[test]
fn the_only_static_of_its_name_is_vmlinuxs_for_all_copies() {
    let set = set(&[("next_number() + 1", "next_number() + 4")]);
    assert_eq!(members(&set), changed(&["numbers_one"]));
    assert_eq!(*sharing(&set, "number"), Sharing::Shared);
}

#[test]
fn who_may_use_the_same_static_as_a_changed_function_joins() {
    let set = set(&[("twin += a", "twin += a + 1")]);
    let shares = Reason::Shares("twin".into(), "twin_one".into());
    assert_eq!(members(&set), [("twin_one", Reason::Changed), ("twin_two", shares)]);
}
