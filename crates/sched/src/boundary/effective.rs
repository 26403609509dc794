//! The boundary said in the configuration's words: what the effective configuration is, and every function and
//! variable with its class, its fate and why.

use super::explain::explain_function;
use super::{Boundary, BoundaryFunction, BoundaryVariable, Class, Fate, Sharing, StayReason};
use crate::config::{Config, DataRule, Divert};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The effective configuration. Written down it is a configuration that leads to the same boundary.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Effective {
    /// The rule for variables that are not named.
    pub data: DataRule,
    /// The scheduler's files that make up the module.
    pub mod_files: Vec<String>,
    /// As configured.
    pub interface_prefix: Vec<String>,
    /// Functions.
    pub function: EffectiveFunctions,
    /// Variables.
    pub global_var: EffectiveVariables,
    /// As configured: function and file.
    pub sidecar: Vec<BTreeMap<String, String>>,
    /// As configured. What stays for computed reasons stays anyway.
    pub stay_in_vmlinux: Vec<String>,
    /// Which functions a module replaces.
    pub divert: Divert,
}

/// Functions of the effective configuration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct EffectiveFunctions {
    /// All interfaces, computed and configured.
    pub interface: Vec<String>,
}

/// Variables of the effective configuration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct EffectiveVariables {
    /// As configured.
    pub extra_public: Vec<String>,
    /// All that are private and can be named so: those of the configuration, and those that always are.
    pub force_private: Vec<EffectivePrivate>,
}

/// A private variable.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(untagged)]
pub enum EffectivePrivate {
    /// It begins as the source says.
    Name(String),
    /// Its value goes along.
    Carried {
        /// Which.
        name: String,
        /// Always true.
        carry: bool,
    },
}

/// What the configuration amounts to. `files`: the scheduler's files, for one that does not list them.
pub fn effective(boundary: &Boundary, config: &Config, files: Vec<String>) -> Effective {
    let names =
        |entries: &[crate::config::ListedName]| entries.iter().map(|e| e.name.clone()).collect::<Vec<_>>();
    // No name may be in two lists.
    let is_elsewhere = |f: &BoundaryFunction| {
        matches!(f.fate, Fate::Stay(StayReason::Configured { .. } | StayReason::NotNamed))
            || config.sidecar.iter().any(|s| s.file.name == f.unit)
    };
    let interfaces = boundary.functions.iter().filter(|f| f.class == Class::Interface && !is_elsewhere(f));
    let interface: BTreeSet<String> = interfaces.map(|f| name_of(boundary, f)).collect();
    let mut seen = BTreeSet::new();
    let private = |v: &BoundaryVariable| {
        let is_named = v.configured.as_ref().is_some_and(|by| by.starts_with("global_var"));
        let is_private = matches!(v.sharing, Sharing::Private(_));
        if !is_private || v.in_function.is_some() && !is_named || v.configured.is_some() && !is_named {
            return None;
        }
        let name = match &v.in_function {
            Some(function) => format!("{}:{function}:{}", v.unit, v.name),
            None => format!("{}:{}", v.unit, v.name),
        };
        let name = if is_only(boundary, v) { v.name.clone() } else { name };
        let is_first = seen.insert(name.clone());
        let private = match v.carry {
            true => EffectivePrivate::Carried { name, carry: true },
            false => EffectivePrivate::Name(name),
        };
        is_first.then_some(private)
    };
    Effective {
        data: config.data,
        mod_files: config.mod_files.as_deref().map_or(files, names),
        interface_prefix: names(&config.interface_prefix),
        function: EffectiveFunctions { interface: interface.into_iter().collect() },
        global_var: EffectiveVariables {
            extra_public: names(&config.extra_public),
            force_private: boundary.variables.iter().filter_map(private).collect(),
        },
        sidecar: config
            .sidecar
            .iter()
            .map(|s| BTreeMap::from([(s.function.name.clone(), s.file.name.clone())]))
            .collect(),
        stay_in_vmlinux: names(&config.stay_in_vmlinux),
        divert: config.divert,
    }
}

/// A function's name as a configuration has to give it to mean no other.
fn name_of(boundary: &Boundary, function: &BoundaryFunction) -> String {
    let mut namesakes =
        boundary.functions.iter().filter(|f| f.name == function.name && f.unit != function.unit);
    match namesakes.next() {
        None => function.name.clone(),
        Some(_) => format!("{}:{}", function.unit, function.name),
    }
}

fn is_only(boundary: &Boundary, variable: &BoundaryVariable) -> bool {
    boundary.variables.iter().filter(|v| v.name == variable.name).count() == 1
}

/// One function of `boundary_extract.yaml`.
#[derive(Clone, Debug, Serialize)]
pub struct FunctionRow<'a> {
    name: &'a str,
    unit: &'a str,
    defined: String,
    class: Class,
    #[serde(skip_serializing_if = "Option::is_none")]
    class_configured: Option<&'a str>,
    fate: &'static str,
    reason: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    exported: bool,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    called_from: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stored_in: &'a [String],
}

/// One variable of `boundary_extract.yaml`.
#[derive(Clone, Debug, Serialize)]
pub struct VariableRow<'a> {
    name: &'a str,
    unit: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_function: Option<&'a str>,
    defined: String,
    bytes: u64,
    class: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    carry: bool,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    configured: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    used_from: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    held_by: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    not_private: &'a [String],
}

/// Every function and variable with its class, its fate and the reason.
#[derive(Clone, Debug, Serialize)]
pub struct Extract<'a> {
    release: &'a str,
    build_id: &'a str,
    functions: Vec<FunctionRow<'a>>,
    variables: Vec<VariableRow<'a>>,
}

impl Extract<'_> {
    /// Of a boundary.
    pub fn of(boundary: &Boundary) -> Extract<'_> {
        Extract {
            release: &boundary.release,
            build_id: &boundary.build_id,
            functions: boundary.functions.iter().map(function_row).collect(),
            variables: boundary.variables.iter().map(variable_row).collect(),
        }
    }
}

fn function_row(f: &BoundaryFunction) -> FunctionRow<'_> {
    FunctionRow {
        name: &f.name,
        unit: &f.unit,
        defined: format!("{}:{}", f.decl_file, f.decl_line),
        class: f.class,
        class_configured: f.class_configured.as_deref(),
        fate: match f.fate {
            Fate::Divert(_) => "replaced",
            Fate::InsideOnly(_) => "replaced-inside-the-module",
            Fate::Duplicate(_) => "duplicated",
            Fate::Springboard(_) => "replaced-through-the-stub",
            Fate::Stay(_) => "stays",
        },
        reason: explain_function(f).why,
        exported: f.exported,
        called_from: &f.called_from,
        stored_in: &f.stored_in,
    }
}

fn variable_row(v: &BoundaryVariable) -> VariableRow<'_> {
    let (class, reason) = match &v.sharing {
        Sharing::Shared => ("shared", "it exists in vmlinux, so that both schedulers see one state"),
        Sharing::Private(why) => ("private", why.as_str()),
    };
    VariableRow {
        name: &v.name,
        unit: &v.unit,
        in_function: v.in_function.as_deref(),
        defined: format!("{}:{}", v.decl_file, v.decl_line),
        bytes: v.size,
        class,
        carry: v.carry,
        reason,
        configured: v.configured.as_deref(),
        used_from: &v.used_from,
        held_by: &v.held_by,
        not_private: &v.not_private,
    }
}
