//! What a symbol is to the boundary, in words.

use super::{Boundary, BoundaryFunction, BoundaryVariable, Class, Fate, Sharing, StayReason};
use serde::Serialize;
use std::fmt;

/// What is to be said of one symbol.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The symbol, with its unit.
    pub symbol: String,
    /// Where it is defined.
    pub defined: String,
    /// What it is, in one sentence.
    pub what: String,
    /// Why.
    pub why: String,
    /// Whether the last build replaces it, if it is a function and there was a build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_build: Option<String>,
    /// What may be changed.
    pub may_change: String,
    /// Who calls it from outside.
    pub called_from: Vec<String>,
    /// Who holds its address.
    pub stored_in: Vec<String>,
}

/// Explains every function or variable called `name`; with a clone's or without (`finish_task_switch` finds
/// `finish_task_switch.isra.0`). Empty when the scheduler has none.
pub fn explain(boundary: &Boundary, name: &str) -> Vec<Explanation> {
    let is_clone = |full: &str| full.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
    let functions =
        boundary.functions.iter().filter(|f| f.name == name || is_clone(&f.name)).map(explain_function);
    let variables = boundary.variables.iter().filter(|v| v.name == name).map(explain_variable);
    functions.chain(variables).collect()
}

pub(super) fn explain_function(f: &BoundaryFunction) -> Explanation {
    let class = match f.class {
        Class::Interface if f.class_configured.is_some() => "an interface (the configuration says so)",
        Class::Interface if f.exported => "an interface (exported to modules)",
        Class::Interface => "an interface (called from outside the scheduler)",
        Class::Callback => "a callback (reached through a stored address)",
        Class::Insider => "an insider (reached only from inside the scheduler)",
    };
    let (fate, why, may_change) = match &f.fate {
        Fate::Divert(site) => (
            "replaced",
            format!(
                "vmlinux's entry {} gets a jump to the module's function at {}{}",
                f.addr,
                site.at,
                if site.after_fentry { ", after ftrace's nop" } else { "" }
            ),
            signature(f.class),
        ),
        Fate::InsideOnly(obstacle) => (
            "replaced inside the module only",
            format!("only replaced functions reach it, and its entry has no room for a jump: {obstacle}"),
            signature(f.class),
        ),
        Fate::Duplicate(header) => (
            "in vmlinux and, as a copy, in the module",
            format!("it comes from {header}, which is not part of the work dir, so both copies are the same"),
            "nothing: it is not in the work dir".to_string(),
        ),
        Fate::Springboard(_) => (
            "replaced, through the stub",
            "every sleeping thread's stack ends in it, so a stub calls the module's and leaves the \
             same frame"
                .to_string(),
            "its body; not its tail after the context switch, which goes on running in vmlinux".to_string(),
        ),
        Fate::Stay(reason) => ("kept in vmlinux", stay(reason), "nothing: a change is refused".to_string()),
    };
    Explanation {
        symbol: f.symbol(),
        defined: format!("{}:{}", f.decl_file, f.decl_line),
        what: format!("{} is {class}; it is {fate}.", f.name),
        why,
        last_build: None,
        may_change,
        called_from: f.called_from.clone(),
        stored_in: f.stored_in.clone(),
    }
}

fn signature(class: Class) -> String {
    match class {
        Class::Insider => "everything".to_string(),
        Class::Interface | Class::Callback => {
            "its body; not its signature, which code in vmlinux was compiled against".to_string()
        }
    }
}

pub(super) fn stay(reason: &StayReason) -> String {
    match reason {
        StayReason::Sleeps { via } => {
            format!(
                "threads sleep inside it, so some thread is always on its frame: it reaches {}",
                via.join(" → ")
            )
        }
        StayReason::Init => "__init code: it ran at boot and its memory is gone".to_string(),
        StayReason::OverriddenWeak => {
            "a weak definition that the kernel does not run: another definition overrides it".to_string()
        }
        StayReason::Nmi { via } => format!("NMIs run it while text is written: {}", via.join(" → ")),
        StayReason::NoInstr => "it is noinstr: entry code that must not be diverted".to_string(),
        StayReason::NoRoom { obstacle } => format!("there is no room for a jump: {obstacle}"),
        StayReason::Configured { by } => format!("the configuration keeps it: {by}"),
        StayReason::NotNamed => "its unit is there as a sidecar, of which only the functions named by the \
             configuration are replaced: name it there as well"
            .to_string(),
        StayReason::NoSpringboard => {
            "the frame of a sleeping thread cannot be rebuilt on this kernel".to_string()
        }
        StayReason::Unchanged => "the edit leaves it as it is".to_string(),
    }
}

fn explain_variable(v: &BoundaryVariable) -> Explanation {
    let (what, mut why, may_change) = match &v.sharing {
        Sharing::Shared => (
            "shared with vmlinux",
            "the module refers to vmlinux's, so both schedulers see one state".to_string(),
            "not its type, size or initialiser: vmlinux's object is already there",
        ),
        Sharing::Private(reason) if v.carry => {
            ("private to the module", reason.clone(), "not its type, which its value has in vmlinux too")
        }
        Sharing::Private(reason) => ("private to the module", reason.clone(), "everything"),
    };
    if let Some(by) = &v.configured {
        why += &format!(" ({by})");
    }
    if v.sharing == Sharing::Shared && !v.not_private.is_empty() {
        why += &format!("; it could not be private: {}", v.not_private.join("; "));
    }
    let place = v.in_function.as_ref().map_or(String::new(), |f| format!(", static in {f}()"));
    Explanation {
        symbol: format!("{} ({}{place})", v.name, v.unit),
        defined: format!("{}:{}", v.decl_file, v.decl_line),
        what: format!("{} is a variable of {} bytes, {what}.", v.name, v.size),
        why,
        last_build: None,
        may_change: may_change.to_string(),
        called_from: v.used_from.clone(),
        stored_in: v.held_by.clone(),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.symbol)?;
        writeln!(f, "  defined      {}", self.defined)?;
        writeln!(f, "  what         {}", self.what)?;
        writeln!(f, "  why          {}", self.why)?;
        if let Some(last_build) = &self.last_build {
            writeln!(f, "  last build   {last_build}")?;
        }
        writeln!(f, "  may change   {}", self.may_change)?;
        list(f, "called from", &self.called_from)?;
        list(f, "stored in", &self.stored_in)
    }
}

fn list(f: &mut fmt::Formatter<'_>, what: &str, names: &[String]) -> fmt::Result {
    if names.is_empty() {
        return Ok(());
    }
    const SHOWN: usize = 12;
    let more = names.len().saturating_sub(SHOWN);
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    writeln!(f, "  {what:<12} {shown}{rest}")
}
