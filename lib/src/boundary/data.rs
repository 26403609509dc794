//! Which variables the module shares with vmlinux, and the `sched_class` objects.

use super::exceptions::PRIVATE_VARIABLES;
use super::{BoundaryVariable, SchedClass, Sharing};
use crate::vmlinux::{Image, Unit, Variable};

/// Data that exists in vmlinux is shared, so that both schedulers see one state; the exceptions have state
/// that belongs to one build of the code.
fn sharing(variable: &Variable) -> Sharing {
    if let Some((_, reason)) = PRIVATE_VARIABLES.iter().find(|(name, _)| *name == variable.name) {
        return Sharing::Private((*reason).to_string());
    }
    match &variable.in_function {
        Some(function) => {
            Sharing::Private(format!("static in {function}(): its number differs between builds"))
        }
        None => Sharing::Shared,
    }
}

/// Every variable of the scheduler's units.
pub fn variables(image: &Image) -> Vec<BoundaryVariable> {
    let mut all = Vec::new();
    for unit in &image.units {
        for variable in &unit.variables {
            all.push(BoundaryVariable {
                name: variable.name.clone(),
                unit: unit.name.clone(),
                in_function: variable.in_function.clone(),
                decl_file: variable.decl_file.clone(),
                decl_line: variable.decl_line,
                addr: variable.addr,
                size: variable.size,
                sharing: sharing(variable),
                used_from: Vec::new(),
            });
        }
    }
    all.sort_by(|a, b| (&a.unit, a.addr).cmp(&(&b.unit, b.addr)));
    all
}

/// The variables whose type is `struct sched_class`.
pub fn classes(image: &Image) -> Vec<SchedClass> {
    let of_unit = |unit: &Unit| -> Vec<SchedClass> {
        unit.variables
            .iter()
            .filter(|v| v.type_name.as_deref() == Some("sched_class"))
            .map(|v| SchedClass { name: v.name.clone(), unit: unit.name.clone(), addr: v.addr, size: v.size })
            .collect()
    };
    image.units.iter().flat_map(of_unit).collect()
}
