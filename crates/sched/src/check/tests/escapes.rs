//! SS110, SS112 and SS203: what the module would leave behind, and what it would not bring.

use super::{NONE, UNIT, boundary, check, edited, frozen, one};
use crate::boundary::{BoundaryVariable, Sharing};
use crate::check::Code;
use schedswap_kernel::address::Addr;

/// Code before `tick`, and code in it.
fn with(before: &str, inside: &str) -> Vec<(Code, String)> {
    let before = format!("{before}\nvoid tick(struct task *task)");
    check(&[("void tick(struct task *task)", &before), ("clock_now & 15", &format!("({inside}, 4)"))])
}

const TIMER: &str = "struct timer { long at; void (*fn)(void *); };
    extern void start(struct timer *timer, long at); extern void call_later(void (*fn)(void *), void *data);
    extern struct timer *kernels_timer;
    extern long used;
    static __attribute__((noinline)) void fire(void *data) { used += (long)data; }";

#[test]
fn an_address_handed_to_a_function_outside_escapes() {
    assert_eq!(with(TIMER, "call_later(fire, task)"), one(Code::Escapes, "fire"));
}

#[test]
fn an_address_stored_in_the_kernels_memory_escapes() {
    assert_eq!(with(TIMER, "kernels_timer->fn = fire"), one(Code::Escapes, "fire"));
}

#[test]
fn an_address_in_a_variable_that_is_handed_out_escapes() {
    let before = format!("{TIMER}\nstatic struct timer novel = {{ 0, fire }};");
    assert_eq!(with(&before, "start(&novel, 5)"), one(Code::Escapes, "fire"));
}

#[test]
fn an_address_that_a_function_of_the_module_hands_on_escapes() {
    let before = format!(
        "{TIMER}\nstatic __attribute__((noinline)) void arm(int when, void (*fn)(void *)) {{ used += when; call_later(fn, 0); }}"
    );
    assert_eq!(with(&before, "arm(5, fire), arm(clock_now, fire)"), one(Code::Escapes, "fire"));
}

#[test]
fn a_clean_up_makes_it_a_warning_and_another_hook_does_not() {
    let hook = |point: &str| {
        format!(
            "{TIMER}\nstatic void stop(int event) {{ used = event; }}
            static const struct {{ int point; void (*call)(int); }} ss_{point}__stop
            __attribute__((used, section(\".schedswap.hooks\"))) = {{ 3, stop }};"
        )
    };
    assert_eq!(with(&hook("before_unload"), "call_later(fire, task)"), one(Code::EscapesWithCleanUp, "fire"));
    assert_eq!(with(&hook("before_swap"), "call_later(fire, task)"), one(Code::Escapes, "fire"));
}

#[test]
fn what_is_called_compared_or_kept_inside_does_not_escape() {
    assert_eq!(with(TIMER, "fire(task)"), NONE);
    assert_eq!(with(TIMER, "used = kernels_timer->fn == fire"), NONE);
    let inside = format!(
        "{TIMER}\nstatic __attribute__((noinline)) void each(void (*fn)(void *), void *data) {{ fn(data); fn(0); }}
        static __attribute__((noinline)) void other(void *data) {{ used -= (long)data; }}"
    );
    assert_eq!(with(&inside, "each(fire, task), each(other, task)"), NONE);
    let table = format!(
        "{TIMER}\nstatic __attribute__((noinline)) void other(void *data) {{ used -= (long)data; }}
        static void (*const table[])(void *) = {{ fire, other }};"
    );
    assert_eq!(with(&table, "table[task->nice & 1](task)"), NONE);
}

#[test]
fn the_address_of_a_function_that_vmlinux_has_is_safe() {
    assert_eq!(with(TIMER, "call_later((void *)inner, task)"), NONE);
}

fn variable(name: &str, sharing: Sharing) -> BoundaryVariable {
    BoundaryVariable {
        name: name.into(),
        unit: UNIT.into(),
        in_function: None,
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

/// Findings when `limit` has another initial value.
fn other_value(declaration: &str, sharing: Sharing) -> Vec<(Code, String)> {
    let user = [("clock_now & 15", "clock_now & limit")];
    let source = |value: &str| {
        let declaration = declaration.replace("VALUE", value);
        edited(&user).replace("static int boosted;", &format!("static int boosted;\n\n{declaration}"))
    };
    let mut boundary = boundary();
    boundary.functions.iter_mut().for_each(|f| f.decl_line += 2);
    boundary.variables.push(variable("limit", sharing));
    let findings = super::compare(&frozen(), &boundary, &source("15"), &source("31"));
    for finding in &findings {
        assert_eq!((finding.file.as_str(), finding.line > 1), (UNIT, true), "{finding}");
    }
    findings.into_iter().map(|finding| (finding.code, finding.symbol)).collect()
}

#[test]
fn another_initial_value_of_shared_data_has_no_effect() {
    let found = other_value("int limit = VALUE;", Sharing::Shared);
    assert_eq!(found, one(Code::ChangedInitialValue, "limit"));
}

#[test]
fn another_initial_value_of_a_constant_or_of_private_data_has_one() {
    assert_eq!(other_value("extern const int limit;\nconst int limit = VALUE;", Sharing::Shared), NONE);
    assert_eq!(other_value("int limit = VALUE;", Sharing::Private("local".into())), NONE);
}
