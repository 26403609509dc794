//! Prints the boundary of a vmlinux: `cargo run --release --example boundary -- <vmlinux> [symbol]`.

use schedswap_sched::boundary::{self, Class, Fate};
use std::collections::BTreeMap;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: boundary <vmlinux> [symbol]")?;
    let image = schedswap_kernel::vmlinux::open(Path::new(&path))?;
    let started = std::time::Instant::now();
    let boundary = boundary::compute(&image, &schedswap_sched::config::Config::default())?;
    if let Some(symbol) = arguments.next() {
        for explanation in boundary::explain(&boundary, &symbol) {
            println!("{explanation}");
        }
        return Ok(());
    }
    let mut fates: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for function in &boundary.functions {
        let fate = match &function.fate {
            Fate::Divert(site) if site.after_fentry => "diverted behind fentry".to_string(),
            Fate::Divert(_) => "diverted at the entry".to_string(),
            Fate::InsideOnly(_) => "inside only".to_string(),
            Fate::Duplicate(_) => "duplicate".to_string(),
            Fate::Springboard(_) => "springboard".to_string(),
            Fate::Stay(reason) => {
                format!("stays: {}", format!("{reason:?}").split(' ').next().unwrap_or_default())
            }
        };
        fates.entry(fate).or_default().push(&function.name);
    }
    for (fate, names) in &fates {
        println!(
            "{:4} {fate}{}",
            names.len(),
            if names.len() < 90 { format!(": {}", names.join(" ")) } else { String::new() }
        );
    }
    let count = |class| boundary.functions.iter().filter(|f| f.class == class).count();
    println!(
        "{} functions: {} interfaces, {} callbacks, {} insiders; {} exported, {} called from outside, {} stored; {} variables, classes {:?}; {:?}",
        boundary.functions.len(),
        count(Class::Interface),
        count(Class::Callback),
        count(Class::Insider),
        boundary.functions.iter().filter(|f| f.exported).count(),
        boundary.functions.iter().filter(|f| !f.called_from.is_empty()).count(),
        boundary.functions.iter().filter(|f| !f.stored_in.is_empty()).count(),
        boundary.variables.len(),
        boundary.classes.iter().map(|c| &c.name).collect::<Vec<_>>(),
        started.elapsed()
    );
    Ok(())
}
