//! The debug information of a vmlinux, for phases that read more of it than the image holds.

use super::dwarf;
pub(crate) use super::dwarf::{IndexedUnit, files, path_of};
use super::error::Error;
use super::image::Image;

/// All units, found and named but not walked.
pub(crate) struct Units<'a> {
    image: &'a Image,
    /// Its sections.
    pub dwarf: dwarf::Dwarf<'a>,
    index: dwarf::UnitIndex<'a>,
    /// Directory of the kernel source as the units name it, ending in `/`.
    pub root: String,
}

impl<'a> Units<'a> {
    /// Finds the units.
    pub fn of(image: &'a Image) -> Result<Units<'a>, Error> {
        let (dwarf, index, root) = dwarf::index(image)?;
        Ok(Units { image, dwarf, index, root })
    }

    /// The scheduler's units and sidecars, by name relative to the kernel source.
    pub fn of_the_module(&self) -> impl Iterator<Item = (String, &IndexedUnit<'a>)> {
        self.all().filter(|(name, _)| self.image.units.iter().any(|unit| unit.name == *name))
    }

    /// Those that are not the scheduler's: sidecars too, of which only some functions are replaced.
    pub fn others(&self) -> impl Iterator<Item = (String, &IndexedUnit<'a>)> {
        self.all().filter(|(name, _)| !dwarf::is_below_scheduler(name))
    }

    fn all(&self) -> impl Iterator<Item = (String, &IndexedUnit<'a>)> {
        let name = |unit: &IndexedUnit| dwarf::below_root(&self.root, &unit.path).to_owned();
        self.index.units.iter().map(move |unit| (name(unit), unit))
    }
}

/// The error for debug information that cannot be read.
pub(crate) fn malformed(image: &Image, error: gimli::Error) -> Error {
    dwarf::malformed(image, error)
}
