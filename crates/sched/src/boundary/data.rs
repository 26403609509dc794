//! Which variables the module shares with vmlinux, and the `sched_class` objects.

use super::exceptions::PRIVATE_VARIABLES;
use super::privacy::{Privacy, Users};
use super::{BoundaryVariable, SchedClass, Sharing};
use crate::config::{At, Config, DataRule};
use schedswap_kernel::vmlinux::{Image, Unit, Variable};

/// What was decided of all variables.
#[derive(Default)]
pub(super) struct Variables {
    pub variables: Vec<BoundaryVariable>,
    /// What the configuration asks for and cannot have: where, and why.
    pub refused: Vec<(At, String)>,
    /// What a person who asked for it should know.
    pub notes: Vec<String>,
}

/// Every variable of the scheduler's units.
pub(super) fn variables(image: &Image, config: &Config, users: &Users<'_>) -> Variables {
    let mut all = Variables::default();
    for unit in &image.units {
        for variable in &unit.variables {
            let privacy = users.of(variable);
            let decided = Decision { image, config, unit, variable, privacy: &privacy }.take(&mut all);
            all.variables.push(BoundaryVariable {
                name: variable.name.clone(),
                unit: unit.name.clone(),
                in_function: variable.in_function.clone(),
                decl_file: variable.decl_file.clone(),
                decl_line: variable.decl_line,
                addr: variable.addr,
                size: variable.size,
                sharing: decided.sharing,
                carry: decided.carry,
                configured: decided.configured,
                used_from: privacy.used_from,
                held_by: privacy.held_by,
                not_private: privacy.obstacles.into_iter().chain(privacy.needs_value).collect(),
            });
        }
    }
    all.variables.sort_by(|a, b| (&a.unit, a.addr).cmp(&(&b.unit, b.addr)));
    all
}

struct Decided {
    sharing: Sharing,
    carry: bool,
    configured: Option<String>,
}

struct Decision<'a> {
    image: &'a Image,
    config: &'a Config,
    unit: &'a Unit,
    variable: &'a Variable,
    privacy: &'a Privacy,
}

impl Decision<'_> {
    fn take(&self, all: &mut Variables) -> Decided {
        let v = self.variable;
        let is_meant = |entry: &crate::config::ListedName| {
            entry.means_variable(&self.unit.name, v.in_function.as_deref(), &v.name)
        };
        if let Some(private) = self.config.force_private.iter().find(|p| is_meant(&p.variable)) {
            return self.forced(private.carry, private.variable.at, all);
        }
        let computed = self.computed();
        let Some(entry) = self.config.extra_public.iter().find(|entry| is_meant(entry)) else {
            return self.by_rule(computed);
        };
        let configured = Some(format!("global_var.extra_public, {}", self.config.place(entry.at)));
        if let Some(why) = self.always_private() {
            all.refused.push((entry.at, format!("{} cannot be shared: {why}", self.name())));
        }
        Decided { sharing: Sharing::Shared, carry: false, configured }
    }

    /// Data that exists in vmlinux is shared, so that both schedulers see one state; the exceptions have state that
    /// belongs to one build of the code.
    fn computed(&self) -> Sharing {
        if let Some(why) = self.always_private() {
            return Sharing::Private(why);
        }
        match &self.variable.in_function {
            Some(function) => {
                Sharing::Private(format!("static in {function}(): its number differs between builds"))
            }
            None => Sharing::Shared,
        }
    }

    fn always_private(&self) -> Option<String> {
        if let Some((_, why)) = PRIVATE_VARIABLES.iter().find(|(name, _)| *name == self.variable.name) {
            return Some((*why).to_owned());
        }
        let at = |name: &str| self.image.unique_symbol(name).map(|s| s.addr);
        let once = at("__start_once").zip(at("__end_once"));
        once.is_some_and(|(start, end)| start <= self.variable.addr && self.variable.addr < end).then(|| {
            "it says whether something was done or said once, which the module does for itself".to_owned()
        })
    }

    /// Where the configuration does not name the variable. What a sidecar's unit has is vmlinux's, whatever the rule.
    fn by_rule(&self, computed: Sharing) -> Decided {
        let decided = |sharing| Decided { sharing, carry: false, configured: None };
        let is_static = !self.variable.external;
        let is_beside = self.unit.sidecar.is_some();
        if self.config.data == DataRule::Shared || computed != Sharing::Shared || !is_static || is_beside {
            return decided(computed);
        }
        let privacy = self.privacy;
        let is_free = privacy.obstacles.is_empty()
            && privacy.needs_value.is_none()
            && privacy.pointers.is_empty()
            && !self.is_class();
        if !is_free {
            return decided(Sharing::Shared);
        }
        Decided {
            sharing: Sharing::Private("static, and the rule is plugsched's".to_owned()),
            carry: false,
            configured: Some(format!("data, {}", self.config.file.as_deref().unwrap_or("configuration"))),
        }
    }

    /// Named in force_private.
    fn forced(&self, carry: bool, at: At, all: &mut Variables) -> Decided {
        let place = self.config.place(at);
        let configured = Some(format!("global_var.force_private, {place}"));
        if let Some(why) = self.always_private() {
            // It is so already, and how it begins is not a matter of choice.
            if carry {
                let what = format!("{} cannot be carried as it is: {why}; leave `carry` out", self.name());
                all.refused.push((at, what));
            }
            return Decided { sharing: Sharing::Private(why), carry: false, configured };
        }
        if self.is_class() {
            all.notes.push(format!(
                "{}: vmlinux's stays, for its address is in vmlinux's code; the module has a build of its own, from \
                 which the methods are taken ({place})",
                self.name()
            ));
            if carry {
                all.refused.push((at, format!("{} has no value to carry; leave `carry` out", self.name())));
            }
            return Decided { sharing: Sharing::Shared, carry: false, configured };
        }
        let privacy = self.privacy;
        let is_private_anyway = matches!(self.computed(), Sharing::Private(_));
        let mut why_not = if is_private_anyway { Vec::new() } else { privacy.obstacles.clone() };
        if !carry
            && !is_private_anyway
            && let Some(why) = &privacy.needs_value
        {
            let hint = if why_not.is_empty() { ", and `carry: true` would take its value along" } else { "" };
            why_not.push(format!("{why}{hint}"));
        }
        if carry && let Some(why) = &privacy.not_carried {
            why_not.push(format!("its value cannot be carried: {why}"));
        }
        if !why_not.is_empty() {
            all.refused.push((at, format!("{} cannot be private: {}", self.name(), why_not.join("; "))));
        }
        let doubts = privacy.pointers.iter().chain(&privacy.doubts);
        all.notes.extend(doubts.map(|doubt| format!("{} is private: {doubt} ({place})", self.name())));
        let why = if carry {
            "the configuration says so; its value goes along at load and unload"
        } else {
            "the configuration says so; it begins as the source says"
        };
        Decided { sharing: Sharing::Private(why.to_owned()), carry, configured }
    }

    fn is_class(&self) -> bool {
        self.variable.type_name.as_deref() == Some(CLASS)
    }

    fn name(&self) -> String {
        let Unit { name: unit, .. } = self.unit;
        match &self.variable.in_function {
            Some(function) => format!("{} ({unit}, in {function}())", self.variable.name),
            None => format!("{} ({unit})", self.variable.name),
        }
    }
}

/// The type of scheduling classes.
const CLASS: &str = "sched_class";

/// The variables whose type is `struct sched_class`.
pub fn classes(image: &Image) -> Vec<SchedClass> {
    let of_unit = |unit: &Unit| -> Vec<SchedClass> {
        unit.variables
            .iter()
            .filter(|v| v.type_name.as_deref() == Some(CLASS))
            .map(|v| SchedClass { name: v.name.clone(), unit: unit.name.clone(), addr: v.addr, size: v.size })
            .collect()
    };
    image.units.iter().flat_map(of_unit).collect()
}
