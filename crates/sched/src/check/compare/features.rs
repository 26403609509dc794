//! Which feature (`features.h`) a key belongs to. An edit that adds a feature moves the keys after it, and the code that
//! asks about those still asks about the same features.

use super::canonical::{is, relocations_in};
use crate::boundary::features::{KEYS, NAMES};
use object::elf;
use schedswap_kernel::objects::{Object, Place, Section, Symbol};

/// The names of the features in the order of their keys.
pub struct FeatureKeys {
    bytes_each: i64,
    names: Vec<String>,
}

impl FeatureKeys {
    /// Reads them from a build of all units; `None` if it has no keys (a kernel without jump labels or CONFIG_SCHED_DEBUG).
    pub fn of<'a>(objects: impl Iterator<Item = &'a Object> + Clone) -> Option<FeatureKeys> {
        let find = |name: &str| {
            objects.clone().find_map(|object| {
                let mut named = object.symbols.iter().filter(|s| s.name == name && is(s, elf::STT_OBJECT));
                let symbol = named.find(|symbol| matches!(symbol.place, Place::Section(_)))?;
                Some((object, symbol))
            })
        };
        let ((object, names), (_, keys)) = (find(NAMES)?, find(KEYS)?);
        let names = strings(object, names)?;
        let bytes_each = i64::try_from(keys.size).ok()?.checked_div(i64::try_from(names.len()).ok()?)?;
        (bytes_each > 0).then_some(FeatureKeys { bytes_each, names })
    }

    /// The feature to which a place in the keys belongs, and how far into its key that is.
    pub fn feature(&self, variable: &str, distance: i64) -> Option<(&str, i64)> {
        if variable != KEYS || distance < 0 {
            return None;
        }
        let name = self.names.get(usize::try_from(distance / self.bytes_each).ok()?)?;
        Some((name, distance % self.bytes_each))
    }
}

/// The strings that an array of pointers holds.
fn strings(object: &Object, array: &Symbol) -> Option<Vec<String>> {
    let Place::Section(id) = array.place else { return None };
    let fields = relocations_in(object.section(id), &(array.value..array.value + array.size));
    let string = |field: &schedswap_kernel::objects::Relocation| {
        let symbol = object.symbol(field.symbol);
        let Place::Section(section) = symbol.place else { return None };
        let at = usize::try_from(symbol.value as i64 + field.addend).ok()?;
        text(object.section(section), at)
    };
    fields.iter().map(string).collect()
}

fn text(section: &Section, at: usize) -> Option<String> {
    let bytes: Vec<u8> = section.data.get(at..)?.iter().copied().take_while(|byte| *byte != 0).collect();
    String::from_utf8(bytes).ok()
}
