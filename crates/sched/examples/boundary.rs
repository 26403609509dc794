//! Computes the boundary of a kernel's scheduler: which functions a module replaces, which stay in vmlinux, and why.
//!
//! Without a symbol it lists the functions by what becomes of them; with one it explains that function or variable.
//!
//! ```text
//! cargo run --release -p schedswap-sched --example boundary -- VMLINUX [SYMBOL]
//! ```

use schedswap_kernel::vmlinux;
use schedswap_sched::boundary::{self, Boundary, BoundaryFunction, Class, Fate};
use schedswap_sched::config::Config;
use std::collections::BTreeMap;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: boundary VMLINUX [SYMBOL]")?;

    // Everything is computed from the debug vmlinux. A configuration could override it; this one is empty.
    let image = vmlinux::open(Path::new(&path))?;
    let boundary = boundary::compute(&image, &Config::default())?;

    let Some(symbol) = arguments.next() else {
        print(&boundary);
        return Ok(());
    };
    let explanations = boundary::explain(&boundary, &symbol);
    if explanations.is_empty() {
        return Err(format!("the scheduler has no function or variable {symbol}").into());
    }
    explanations.iter().for_each(|explanation| println!("{explanation}"));
    Ok(())
}

fn print(boundary: &Boundary) {
    let mut by_fate: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for function in &boundary.functions {
        by_fate.entry(fate(function)).or_default().push(&function.name);
    }
    for (fate, names) in by_fate {
        println!("{:4} {fate}: {}", names.len(), names.join(" "));
    }
    for (class, name) in
        [(Class::Interface, "interfaces"), (Class::Callback, "callbacks"), (Class::Insider, "insiders")]
    {
        println!("{} {name}", boundary.functions.iter().filter(|function| function.class == class).count());
    }
    println!("{} variables, scheduling classes:", boundary.variables.len());
    for class in &boundary.classes {
        println!("  {} at {}, {} bytes", class.name, class.addr, class.size);
    }
}

fn fate(function: &BoundaryFunction) -> String {
    match &function.fate {
        Fate::Divert(site) if site.after_fentry => "diverted after ftrace's nop".to_owned(),
        Fate::Divert(_) => "diverted at the entry".to_owned(),
        Fate::InsideOnly(_) => "replaced inside the module only".to_owned(),
        Fate::Duplicate(_) => "in vmlinux and in the module".to_owned(),
        Fate::Springboard(_) => "replaced through the stub".to_owned(),
        Fate::Stay(reason) => {
            let reason = format!("{reason:?}");
            let (name, _) = reason.split_once(' ').unwrap_or((&reason, ""));
            format!("kept in vmlinux ({name})")
        }
    }
}
