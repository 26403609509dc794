//! The tables that tell the runtime what to divert: `tables.S`, in the layout of `runtime/schedswap.h`.

use super::extension::Extension;
use crate::boundary::{Boundary, BoundaryFunction, Class, Fate, PatchSite};
use schedswap_kernel::address::Addr;
use schedswap_kernel::vmlinux::Image;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;
use thiserror::Error;

/// `SS_WINDOW_MAX` of `runtime/schedswap.h`.
const WINDOW_MAX: usize = 16;
/// `SS_BUILD_ID_MAX` of `runtime/schedswap.h`.
const BUILD_ID_MAX: usize = 64;
/// The kernel lies in the upper half of the address space; per-CPU data linked at 0 has offsets.
const KERNEL_HALF: Addr = Addr(1 << 63);
/// The stub that vmlinux's `__schedule` jumps to (`stub.S` of its architecture below `runtime/arch`).
const STUB: &str = "ss_schedule_stub";

/// Why the tables cannot be written.
#[derive(Debug, Error)]
pub enum Error {
    /// A replaced function has no counterpart in the module.
    #[error(
        "the module has no function for {name} ({unit}), which vmlinux's entry at {addr} should jump to; the edit \
         removed it, or the compiler no longer makes that clone. Keep the function, or keep its signature"
    )]
    NoTarget {
        /// The function.
        name: String,
        /// Its unit.
        unit: String,
        /// Its entry.
        addr: Addr,
    },
    /// A patch window or the build-id is longer than the runtime's tables hold.
    #[error("{what} takes {found} bytes; the runtime's tables hold {limit}")]
    TooLong {
        /// What.
        what: String,
        /// Bytes found.
        found: usize,
        /// Bytes there is room for.
        limit: usize,
    },
}

/// The feature switches on one side.
#[derive(Clone, Debug, Default)]
pub struct FeatureSet {
    /// Assembler expression of `sysctl_sched_features`.
    pub bits: String,
    /// … of `sched_feat_names`.
    pub names: String,
    /// … of `sched_feat_keys`; `None` without jump labels.
    pub keys: Option<String>,
    /// How many features.
    pub count: u64,
    /// Bytes of `sysctl_sched_features`.
    pub bits_bytes: u64,
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
pub struct Tables<'a> {
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
    /// Variables of the module's own whose values a swap takes along.
    pub states: &'a [State],
    /// vmlinux's and the module's feature switches, where the kernel has them.
    pub features: Option<(FeatureSet, FeatureSet)>,
    /// What the author declares to the runtime.
    pub extension: &'a Extension,
}

impl Tables<'_> {
    /// The assembler source.
    pub fn assemble(&self) -> Result<String, Error> {
        let mut out = String::from(
            "/* SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause */\n\
             /* Written by the build; the layout is that of schedswap.h. */\n\
             \t.section .rodata, \"a\"\n\t.balign 8\n",
        );
        let mut names = Names::default();
        let patches = self.patches(&mut out, &mut names)?;
        let ranges = self.ranges(&mut out, &mut names);
        let classes = self.classes(&mut out, &mut names)?;
        let states = self.states(&mut out, &mut names);
        let extension = self.extension(&mut out);
        let counts = [
            ("ss_patch_count", patches),
            ("ss_range_count", ranges),
            ("ss_class_count", classes),
            ("ss_variable_count", states),
        ];
        for (name, count) in counts.into_iter().chain(extension) {
            let _ = writeln!(out, "{}\t.long {count}", global(name));
        }
        self.features(&mut out);
        if self.image.build_id.len() > BUILD_ID_MAX {
            return Err(Error::TooLong {
                what: "the build-id".into(),
                found: self.image.build_id.len(),
                limit: BUILD_ID_MAX,
            });
        }
        let _ =
            writeln!(out, "{}\t.byte {}", global("ss_build_id"), bytes(&self.image.build_id, BUILD_ID_MAX));
        let _ =
            writeln!(out, "\t.balign 8\n{}\t.long {}", global("ss_build_id_len"), self.image.build_id.len());
        let _ = writeln!(out, "{}\t.asciz {:?}", global("ss_version"), self.version);
        names.write(&mut out);
        let id: String = self.image.build_id.iter().map(|b| format!("{b:02x}")).collect();
        let _ = writeln!(out, "\t.section .modinfo, \"a\"\n\t.asciz \"schedswap_build_id={id}\"");
        let _ = writeln!(out, "\t.section .note.GNU-stack, \"\", @progbits");
        Ok(out)
    }

    /// An address of vmlinux as a distance from the anchor.
    fn anchored(&self, addr: Addr) -> String {
        anchored(self.anchor, addr)
    }

    fn patches(&self, out: &mut String, names: &mut Names) -> Result<usize, Error> {
        out.push_str(&global("ss_patches"));
        let mut count = 0;
        for function in &self.boundary.functions {
            let (site, target) = match &function.fate {
                Fate::Divert(site) => {
                    let key = (function.unit.clone(), function.name.clone());
                    match self.targets.get(&key) {
                        Some(target) => (site, target.as_str()),
                        // The edit, or the compiler after it, has done away with a function that only the
                        // scheduler called: nobody reaches vmlinux's any more.
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
            self.patch(out, site, target, function, &names.label(&function.name))?;
            count += 1;
        }
        Ok(count)
    }

    fn patch(
        &self,
        out: &mut String,
        site: &PatchSite,
        target: &str,
        function: &BoundaryFunction,
        name: &str,
    ) -> Result<(), Error> {
        let len = site.expect.len();
        if len > WINDOW_MAX {
            return Err(Error::TooLong {
                what: format!("the window at {}", site.at),
                found: len,
                limit: WINDOW_MAX,
            });
        }
        let _ = writeln!(
            out,
            "\t.quad {}, \"{target}\", {}, {name}\n\t.byte {len}, {}\n\t.byte {}\n\t.byte {}\n\t.short {}\n\t.zero 4",
            self.anchored(site.at),
            self.anchored(function.addr),
            u8::from(site.after_fentry),
            bytes(&site.expect, WINDOW_MAX),
            bytes(&site.mask, WINDOW_MAX),
            self.image.symbol_position(&function.name, function.addr).0,
        );
        Ok(())
    }

    /// The code that nobody may be inside of. `__schedule` is not among it: every sleeping thread is there, and
    /// the code behind its context switch goes on being used.
    fn ranges(&self, out: &mut String, names: &mut Names) -> usize {
        let mut ranges: Vec<(Range<Addr>, &str)> = self
            .boundary
            .functions
            .iter()
            .filter(|f| matches!(f.fate, Fate::Divert(_) | Fate::InsideOnly(_)))
            .flat_map(|f| f.ranges.iter().map(|r| (r.clone(), f.name.as_str())))
            .collect();
        ranges.sort_by_key(|(range, _)| range.start);
        ranges.dedup_by_key(|(range, _)| range.start);
        out.push_str(&global("ss_ranges"));
        for (range, name) in &ranges {
            let _ = writeln!(
                out,
                "\t.quad {}, {}, {}",
                self.anchored(range.start),
                self.anchored(range.end),
                names.label(name)
            );
        }
        ranges.len()
    }

    fn classes(&self, out: &mut String, names: &mut Names) -> Result<usize, Error> {
        out.push_str(&global("ss_classes"));
        for class in &self.boundary.classes {
            let module = self.classes.get(&class.name).ok_or_else(|| Error::NoTarget {
                name: class.name.clone(),
                unit: class.unit.clone(),
                addr: class.addr,
            })?;
            let _ = writeln!(
                out,
                "\t.quad {}, \"{module}\", {}, {}",
                self.anchored(class.addr),
                class.size,
                names.label(&class.name)
            );
        }
        Ok(self.boundary.classes.len())
    }

    fn states(&self, out: &mut String, names: &mut Names) -> usize {
        out.push_str(&global("ss_variables"));
        for state in self.states {
            let vmlinux = match state.vmlinux {
                None => "0".to_owned(),
                Some(offset) if state.is_per_cpu && offset < KERNEL_HALF => format!("{:#x}", offset.0),
                Some(addr) => self.anchored(addr),
            };
            let _ = writeln!(
                out,
                "\t.quad \"{}\", {}, {}, {:#x}, {vmlinux}\n\t.byte {}\n\t.zero 7",
                state.symbol,
                names.label(&state.name),
                state.size,
                state.type_hash,
                u8::from(state.is_per_cpu),
            );
        }
        self.states.len()
    }

    /// Addresses of descriptors, and the code that goes with the module. Returns how many there are of each.
    fn extension(&self, out: &mut String) -> [(&'static str, usize); 4] {
        let Extension { states, hooks, numbered } = self.extension;
        out.push_str(&global("ss_states"));
        for state in states {
            let holds_pointers = u8::from(state.holds_pointers);
            let _ = writeln!(
                out,
                "\t.quad \"{}\", {:#x}\n\t.long {holds_pointers}, 0",
                state.symbol, state.type_hash
            );
        }
        out.push_str(&global("ss_hooks"));
        for hook in hooks {
            let _ = writeln!(out, "\t.quad \"{hook}\"");
        }
        out.push_str(&global("ss_kinds"));
        for source in numbered.iter().filter_map(|numbered| numbered.kind.source()) {
            let _ = writeln!(out, "\t.quad ss_kind_{source}");
        }
        let bounds = self.extension.text_bounds();
        let _ = writeln!(out, "{}\t.quad ss_text_start, ss_text_end", global("ss_texts"));
        for (start, end) in &bounds {
            let _ = writeln!(out, "\t.quad {start}, {end}");
        }
        [
            ("ss_state_count", states.len()),
            ("ss_hook_count", hooks.len()),
            ("ss_kind_count", numbered.len()),
            ("ss_text_count", 1 + bounds.len()),
        ]
    }

    fn features(&self, out: &mut String) {
        let none = FeatureSet { bits: "0".into(), names: "0".into(), ..FeatureSet::default() };
        let (vmlinux, module) = match &self.features {
            Some((vmlinux, module)) => (vmlinux, module),
            None => (&none, &none),
        };
        for (name, set) in [("ss_features_vmlinux", vmlinux), ("ss_features_module", module)] {
            let _ = writeln!(
                out,
                "\t.balign 8\n{}\t.quad {}, {}, {}\n\t.long {}, {}",
                global(name),
                set.bits,
                set.names,
                set.keys.as_deref().unwrap_or("0"),
                set.count,
                set.bits_bytes
            );
        }
    }
}

/// An address of vmlinux as an assembler expression on the anchor.
pub fn anchored((anchor, at): (&str, Addr), addr: Addr) -> String {
    format!("{anchor} + ({})", addr.distance_from(at))
}

fn global(name: &str) -> String {
    format!("\t.globl {name}\n{name}:\n")
}

fn bytes(bytes: &[u8], width: usize) -> String {
    let padded = bytes.iter().copied().chain(std::iter::repeat(0)).take(width.max(bytes.len()));
    padded.map(|b| format!("{b:#04x}")).collect::<Vec<_>>().join(", ")
}

/// The strings that the tables point to, each once.
#[derive(Default)]
struct Names {
    labels: BTreeMap<String, usize>,
}

impl Names {
    fn label(&mut self, name: &str) -> String {
        let next = self.labels.len();
        format!(".Lname{}", self.labels.entry(name.to_string()).or_insert(next))
    }

    fn write(&self, out: &mut String) {
        for (name, index) in &self.labels {
            let _ = writeln!(out, ".Lname{index}:\t.asciz {name:?}");
        }
    }
}
