//! The tables that tell the runtime what to divert: `tables.c`, which the build writes and the compiler lays out.
//!
//! The one definition of their structures is the runtime's headers, which `tables.c` includes. It names the members
//! that it fills in, so their order does not matter. What the build takes the members to be is held against what the
//! compiler made of those headers (`agreement.rs`): a member that the header has and the build does not know, or one of
//! another width, ends the build.

mod agreement;
mod rows;
#[cfg(test)]
mod tests;
mod text;

pub use agreement::Disagreement;
pub(super) use agreement::{agree, structures};
pub(super) use text::Location;

use super::extension::{self, Extension};
use crate::boundary::{self, Boundary, BoundaryFunction, Class, Fate, PatchSite};
use rows::{
    CarriedVariable, Features, ModuleText, Patch, Row, SchedClass, StateRow, VmlinuxRange, WINDOW_MAX,
};
use schedswap_kernel::address::Addr;
use schedswap_kernel::vmlinux::Image;
use std::collections::BTreeMap;
use std::ops::Range;
use text::{Address, Pointer, Text, Value, Writer, c_string};
use thiserror::Error;

/// The kernel lies in the upper half of the address space; per-CPU data linked at 0 has offsets.
const KERNEL_HALF: Addr = Addr(1 << 63);
/// The stub that vmlinux's `__schedule` jumps to (`stub.S` of its architecture below `runtime/arch`).
const STUB: &str = "ss_schedule_stub";
/// How `tables.c` begins.
const HEAD: &str = "\
/* SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause */
/* Written by the build. */
#include \"schedswap.h\"
#include \"extension.h\"
#include \"hooks.h\"
";

/// Why the tables cannot be written.
#[derive(Debug, Error)]
pub enum Error {
    /// A replaced function has no counterpart in the module.
    #[error(
        "the module has no function for {name} ({unit}), which vmlinux's entry at {addr} should jump to: the edit \
         removed it, or the compiler no longer makes that clone. Keep the function, and keep its signature"
    )]
    NoTarget {
        /// The function.
        name: String,
        /// Its unit.
        unit: String,
        /// Its entry.
        addr: Addr,
    },
    /// A patch window is longer than the runtime's tables hold.
    #[error(
        "{what} takes {found} bytes; the runtime's tables hold {limit}. schedswap does not support this kernel"
    )]
    TooLong {
        /// What.
        what: String,
        /// Bytes found.
        found: usize,
        /// Bytes there is room for.
        limit: usize,
    },
    /// More symbols of one name than the runtime's tables can tell apart.
    #[error(
        "vmlinux has {position} symbols named {name}; the runtime's tables hold 65535. schedswap does not support this kernel"
    )]
    TooManyNamesakes {
        /// The name.
        name: String,
        /// The position of the one that is meant, from 1.
        position: u32,
    },
    /// The runtime's headers declare something else than what the build fills in.
    #[error(
        "the runtime's tables are not what the build fills in, which is a fault of schedswap; nothing was built. Make \
         runtime/schedswap.h and crates/sched/src/module/tables/rows.rs agree:\n{}",
        list(.0)
    )]
    Disagree(Vec<Disagreement>),
}

fn list(disagreements: &[Disagreement]) -> String {
    disagreements.iter().map(Disagreement::to_string).collect::<Vec<_>>().join("\n")
}

/// The feature switches on one side.
#[derive(Clone, Debug)]
pub(super) struct FeatureSet {
    /// `sysctl_sched_features`
    pub bits: Location,
    /// `sched_feat_names`
    pub names: Location,
    /// `sched_feat_keys`; null without jump labels.
    pub keys: Location,
    /// How many features.
    pub count: u32,
    /// Bytes of `sysctl_sched_features`.
    pub bits_bytes: u32,
}

impl FeatureSet {
    /// Of a kernel whose features are constants.
    const NONE: FeatureSet = FeatureSet {
        bits: Location::Null,
        names: Location::Null,
        keys: Location::Null,
        count: 0,
        bits_bytes: 0,
    };
}

/// A variable of the module's own whose value a swap takes along.
#[derive(Clone, Debug)]
pub struct State {
    /// Its symbol in the module.
    pub symbol: String,
    /// Unit, function if any, and variable: the same in every version.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Hash of its declaration.
    pub type_hash: u64,
    /// Whether each CPU has its own.
    pub is_per_cpu: bool,
    /// vmlinux's variable that the value comes from at load and goes back to at unload; `None` for one that only
    /// modules have.
    pub vmlinux: Option<Addr>,
}

/// What the tables are made of.
pub(super) struct Tables<'a> {
    /// The kernel.
    pub image: &'a Image,
    /// Its boundary.
    pub boundary: &'a Boundary,
    /// (unit, function) → the module's symbol.
    pub targets: &'a BTreeMap<(String, String), String>,
    /// `sched_class` object → the module's symbol for its own build of it.
    pub classes: &'a BTreeMap<String, String>,
    /// An exported symbol and its address.
    pub anchor: (&'a str, Addr),
    /// Shown in sysfs.
    pub version: &'a str,
    /// Whether a swap rebuilds the queues.
    pub rebuilds: bool,
    /// Variables of the module's own whose values a swap takes along.
    pub states: &'a [State],
    /// vmlinux's and the module's feature switches, where the kernel has them.
    pub features: Option<(FeatureSet, FeatureSet)>,
    /// What the author declares to the runtime.
    pub extension: &'a Extension,
    /// Why the module's memory must not be freed once its code has run; empty if it may.
    pub unproved: &'a [String],
}

impl Tables<'_> {
    /// `tables.c`
    ///
    /// # Errors
    /// A diverted function or a class has no counterpart in the module, or something is longer than its table.
    pub fn source(&self) -> Result<String, Error> {
        Ok(self.contents()?.source(self.anchor))
    }

    fn contents(&self) -> Result<Contents, Error> {
        let (vmlinux, module) = self.features.clone().unwrap_or((FeatureSet::NONE, FeatureSet::NONE));
        let kinds = self.extension.numbered.iter().filter_map(|numbered| numbered.kind.source());
        Ok(Contents {
            patches: self.patches()?,
            ranges: self.ranges(),
            classes: self.classes()?,
            variables: self.states.iter().map(variable).collect(),
            states: self.states(),
            hooks: self.extension.hooks.clone(),
            kinds: kinds.map(|source| format!("ss_kind_{source}")).collect(),
            texts: self.texts(),
            features: [features(vmlinux), features(module)],
            build_id: self.image.build_id.clone(),
            version: self.version.to_owned(),
            rebuilds: self.rebuilds,
            unproved: self.unproved.to_vec(),
        })
    }

    fn patches(&self) -> Result<Vec<Patch>, Error> {
        let mut patches = Vec::new();
        for function in &self.boundary.functions {
            let (site, target) = match &function.fate {
                Fate::Divert(site) => {
                    let key = (function.unit.clone(), function.name.clone());
                    match self.targets.get(&key) {
                        Some(target) => (site, target.as_str()),
                        // The edit, or the compiler after it, has removed a function that only the scheduler
                        // called: nothing reaches vmlinux's any more.
                        None if function.class == Class::Insider => continue,
                        None => {
                            return Err(Error::NoTarget {
                                name: function.name.clone(),
                                unit: function.unit.clone(),
                                addr: function.addr,
                            });
                        }
                    }
                }
                Fate::Springboard(site) => (site, STUB),
                Fate::InsideOnly(_) | Fate::Duplicate(_) | Fate::Stay(_) => continue,
            };
            patches.push(self.patch(site, target, function)?);
        }
        Ok(patches)
    }

    fn patch(&self, site: &PatchSite, target: &str, function: &BoundaryFunction) -> Result<Patch, Error> {
        let position = self.image.symbol_position(&function.name, function.addr).0;
        let what = || format!("the window at {}", site.at);
        let too_long = |found, limit| Error::TooLong { what: what(), found, limit };
        let found = site.expect.len();
        Ok(Patch {
            site: Address(Location::Vmlinux(site.at)),
            target: Address(Location::Module(target.to_owned())),
            func: Address(Location::Vmlinux(function.addr)),
            name: Text(function.name.clone()),
            len: u8::try_from(found).map_err(|_| too_long(found, WINDOW_MAX))?,
            after_fentry: site.after_fentry,
            expect: padded(&site.expect, &what)?,
            mask: padded(&site.mask, &what)?,
            sympos: u16::try_from(position)
                .map_err(|_| Error::TooManyNamesakes { name: function.name.clone(), position })?,
        })
    }

    /// The code that no thread may be inside of. `__schedule` is left out: every sleeping thread is inside it, and the
    /// code after its context switch stays in use.
    fn ranges(&self) -> Vec<VmlinuxRange> {
        let mut ranges: Vec<(Range<Addr>, &str)> = self
            .boundary
            .functions
            .iter()
            .filter(|f| matches!(f.fate, Fate::Divert(_) | Fate::InsideOnly(_)))
            .flat_map(|f| f.ranges.iter().map(|r| (r.clone(), f.name.as_str())))
            .collect();
        ranges.sort_by_key(|(range, _)| range.start);
        ranges.dedup_by_key(|(range, _)| range.start);
        let row = |(range, name): (Range<Addr>, &str)| VmlinuxRange {
            start: Address(Location::Vmlinux(range.start)),
            end: Address(Location::Vmlinux(range.end)),
            name: Text(name.to_owned()),
        };
        ranges.into_iter().map(row).collect()
    }

    fn classes(&self) -> Result<Vec<SchedClass>, Error> {
        let row = |class: &boundary::SchedClass| {
            let module = self.classes.get(&class.name).ok_or_else(|| Error::NoTarget {
                name: class.name.clone(),
                unit: class.unit.clone(),
                addr: class.addr,
            })?;
            Ok(SchedClass {
                vmlinux: Pointer(Location::Vmlinux(class.addr)),
                module: Pointer(Location::Module(module.clone())),
                size: class.size,
                name: Text(class.name.clone()),
            })
        };
        self.boundary.classes.iter().map(row).collect()
    }

    fn states(&self) -> Vec<StateRow> {
        let row = |state: &extension::State| StateRow {
            state: Pointer(Location::Module(state.symbol.clone())),
            type_hash: state.type_hash,
            holds_pointers: u32::from(state.holds_pointers),
        };
        self.extension.states.iter().map(row).collect()
    }

    /// The module's code that a thread may be inside of: the scheduler's, and the runtime's entry points.
    fn texts(&self) -> Vec<ModuleText> {
        let scheduler = ("ss_text_start".to_owned(), "ss_text_end".to_owned());
        let bounds = std::iter::once(scheduler).chain(self.extension.text_bounds());
        let row = |(start, end)| ModuleText {
            start: Address(Location::Module(start)),
            end: Address(Location::Module(end)),
        };
        bounds.map(row).collect()
    }
}

/// Bytes of a window, followed by zeros up to the table's width.
fn padded(bytes: &[u8], what: &dyn Fn() -> String) -> Result<[u8; WINDOW_MAX], Error> {
    let mut window = [0; WINDOW_MAX];
    let (found, limit) = (bytes.len(), WINDOW_MAX);
    window
        .get_mut(..found)
        .ok_or_else(|| Error::TooLong { what: what(), found, limit })?
        .copy_from_slice(bytes);
    Ok(window)
}

fn variable(state: &State) -> CarriedVariable {
    let vmlinux = match state.vmlinux {
        None => Location::Null,
        Some(offset) if state.is_per_cpu && offset < KERNEL_HALF => Location::Offset(offset.0),
        Some(addr) => Location::Vmlinux(addr),
    };
    CarriedVariable {
        addr: Pointer(Location::Module(state.symbol.clone())),
        name: Text(state.name.clone()),
        size: state.size,
        type_hash: state.type_hash,
        vmlinux: Pointer(vmlinux),
        per_cpu: state.is_per_cpu,
    }
}

fn features(set: FeatureSet) -> Features {
    Features {
        bits: Pointer(set.bits),
        names: Pointer(set.names),
        keys: Pointer(set.keys),
        count: set.count,
        bits_size: set.bits_bytes,
    }
}

/// All tables, row by row.
struct Contents {
    patches: Vec<Patch>,
    ranges: Vec<VmlinuxRange>,
    classes: Vec<SchedClass>,
    variables: Vec<CarriedVariable>,
    states: Vec<StateRow>,
    /// Symbols of the hooks' descriptors.
    hooks: Vec<String>,
    /// Names of the runtime's `struct ss_kind`s.
    kinds: Vec<String>,
    texts: Vec<ModuleText>,
    /// vmlinux's and the module's.
    features: [Features; 2],
    build_id: Vec<u8>,
    version: String,
    rebuilds: bool,
    unproved: Vec<String>,
}

impl Contents {
    fn source(&self, anchor: (&str, Addr)) -> String {
        let mut writer = Writer::new(anchor);
        table(&mut writer, "ss_patches", "ss_patch_count", &self.patches);
        table(&mut writer, "ss_ranges", "ss_range_count", &self.ranges);
        table(&mut writer, "ss_classes", "ss_class_count", &self.classes);
        table(&mut writer, "ss_variables", "ss_variable_count", &self.variables);
        table(&mut writer, "ss_states", "ss_state_count", &self.states);
        table(&mut writer, "ss_texts", "ss_text_count", &self.texts);
        let pointer = |hook: &String| Pointer(Location::Module(hook.clone()));
        let hooks: Vec<String> = self.hooks.iter().map(|hook| pointer(hook).in_c(&mut writer)).collect();
        writer.define_array("const struct ss_hook *const", "ss_hooks", "ss_hook_count", &hooks);
        for kind in &self.kinds {
            writer.define(&format!("\nextern struct ss_kind {kind};"));
        }
        let reasons: Vec<String> = self.unproved.iter().map(|reason| c_string(reason)).collect();
        writer.define_array("const char *const", "ss_unproved", "ss_unproved_count", &reasons);
        let kinds: Vec<String> = self.kinds.iter().map(|kind| format!("&{kind}")).collect();
        writer.define_array("struct ss_kind *const", "ss_kinds", "ss_kind_count", &kinds);
        for (name, set) in ["ss_features_vmlinux", "ss_features_module"].into_iter().zip(&self.features) {
            let set = set.initialiser(&mut writer);
            writer.define(&format!("\nconst struct ss_feature_set {name} = {set};\n"));
        }
        let build_id: Vec<String> = self.build_id.iter().map(|byte| format!("{byte:#04x}")).collect();
        let length = build_id.len();
        let modinfo: String = self.build_id.iter().map(|byte| format!("{byte:02x}")).collect();
        writer.define(&format!(
            "\n_Static_assert({length} <= SS_BUILD_ID_MAX, \"the build-id is longer than ss_build_id\");\n\
             const u8 ss_build_id[SS_BUILD_ID_MAX] = {{ {} }};\n\
             const unsigned int ss_build_id_len = {length};\n\
             const char ss_version[] = {};\n\
             const u8 ss_rebuilds = {};\n\
             static const char build_id_for_modinfo[]\n\
             \t__attribute__((__section__(\".modinfo\"), __used__, __aligned__(1))) = {};\n",
            build_id.join(", "),
            c_string(&self.version),
            u8::from(self.rebuilds),
            c_string(&format!("schedswap_build_id={modinfo}")),
        ));
        writer.finish(HEAD)
    }
}

fn table<R: Row>(writer: &mut Writer, name: &str, count: &str, rows: &[R]) {
    let rows: Vec<String> = rows.iter().map(|row| row.initialiser(writer)).collect();
    writer.define_array(&format!("const struct {}", R::EXPECTED.tag), name, count, &rows);
}
