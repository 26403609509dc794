//! `boundary.txt`: what is replaced, what stays and why, one function or variable a line.

use schedswap_sched::boundary::{self, Boundary, Fate};

/// The boundary as a list to be read.
pub(super) fn boundary_text(boundary: &Boundary) -> String {
    let mut text = format!(
        "# The boundary of {} (build-id {}).\n# `schedswap explain` says more of each, and what may be changed.\n",
        boundary.release, boundary.build_id
    );
    let mut unit = "";
    for function in &boundary.functions {
        if function.unit != unit {
            unit = &function.unit;
            text += &format!("\n## {unit}\n");
        }
        let class = match function.class {
            boundary::Class::Interface => "interface",
            boundary::Class::Callback => "callback",
            boundary::Class::Insider => "insider",
        };
        let symbol = format!("{} ({unit})", function.name);
        let why = || {
            let explanations = boundary::explain(boundary, &function.name);
            explanations.into_iter().find(|e| e.symbol == symbol).map(|e| e.why).unwrap_or_default()
        };
        let fate = match &function.fate {
            Fate::Divert(_) => "replaced".to_owned(),
            Fate::Springboard(_) => "replaced, through the stub".to_owned(),
            Fate::InsideOnly(_) => format!("replaced inside the module: {}", why()),
            Fate::Duplicate(header) => format!("in both, from {header}"),
            Fate::Stay(_) => format!("stays: {}", why()),
        };
        text += &format!("{:<40} {class:<9}  {fate}\n", function.name);
    }
    text += "\n## variables\n";
    for variable in &boundary.variables {
        let sharing = match &variable.sharing {
            boundary::Sharing::Shared => "shared with vmlinux".to_owned(),
            boundary::Sharing::Private(why) => format!("private to the module: {why}"),
        };
        text += &format!("{:<40} {sharing}\n", variable.name);
    }
    text
}
