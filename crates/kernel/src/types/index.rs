//! All units of a vmlinux, known by name, and which of them refer to the scheduler's source at all.

use super::debug_info::{Dwarf, Slice, path_of};
use super::paths;
use gimli::UnitHeader;
use rayon::prelude::*;

/// One unit, not yet walked.
pub(crate) struct IndexedUnit<'a> {
    pub header: UnitHeader<Slice<'a>>,
    /// Offset in `.debug_info`.
    pub start: usize,
    /// One past its last byte.
    pub end: usize,
    /// Name, with its compilation directory put before it where it is relative.
    pub path: String,
    /// Whether its line table lists a file of one of the directories asked for. A function can only be inlined
    /// into a unit that includes the file, so the other units need no walk.
    pub is_concerned: bool,
}

/// All units, in `.debug_info`'s order.
pub(crate) struct UnitIndex<'a> {
    pub units: Vec<IndexedUnit<'a>>,
}

impl<'a> UnitIndex<'a> {
    /// `directories` are relative to the kernel source, and those below them count.
    pub(crate) fn build(dwarf: &Dwarf<'a>, directories: &[&str]) -> gimli::Result<UnitIndex<'a>> {
        let mut headers = Vec::new();
        let mut iter = dwarf.units();
        while let Some(header) = iter.next()? {
            headers.push(header);
        }
        let units = headers.into_par_iter();
        let units = units.map(|h| index_unit(dwarf, h, directories)).collect::<gimli::Result<_>>()?;
        Ok(UnitIndex { units })
    }

    /// Directory of the kernel source as the units name it, ending in `/`; found from the scheduler's core.
    pub(crate) fn source_root(&self) -> Option<String> {
        let roots = self.units.iter().filter_map(|u| paths::root_of_core(&u.path));
        roots.min_by_key(|root| root.len()).map(str::to_owned)
    }

    /// The unit that holds an offset in `.debug_info`.
    pub(crate) fn unit_at(&self, offset: usize) -> Option<&IndexedUnit<'a>> {
        let after = self.units.partition_point(|u| u.start <= offset);
        self.units[..after].last().filter(|u| offset < u.end)
    }
}

fn index_unit<'a>(
    dwarf: &Dwarf<'a>,
    header: UnitHeader<Slice<'a>>,
    directories: &[&str],
) -> gimli::Result<IndexedUnit<'a>> {
    let start = header.debug_info_offset().map_or(0, |offset| offset.0);
    let end = start.saturating_add(header.length_including_self());
    let unit = dwarf.unit(header)?;
    let path = path_of(&unit);
    let is_concerned = line_table_mentions(dwarf, &unit, directories);
    Ok(IndexedUnit { header, start, end, path, is_concerned })
}

/// A quick test on the raw strings; the walk of the unit compares real paths.
fn line_table_mentions(dwarf: &Dwarf<'_>, unit: &gimli::Unit<Slice<'_>>, directories: &[&str]) -> bool {
    let Some(program) = &unit.line_program else { return false };
    let header = program.header();
    let string = |value| dwarf.attr_string(unit, value).map(|s| s.slice()).unwrap_or_default();
    let is_or_is_below = |dir: &[u8]| {
        directories
            .iter()
            .any(|wanted| dir.ends_with(wanted.as_bytes()) || contains(dir, format!("{wanted}/").as_bytes()))
    };
    let directory_matches = |dir: &[u8]| {
        // `kernel/livepatch/../sched`
        let roundabout = contains(dir, b"./");
        is_or_is_below(dir)
            || roundabout && is_or_is_below(paths::join("", &String::from_utf8_lossy(dir)).as_bytes())
    };
    if header.include_directories().iter().any(|dir| directory_matches(string(*dir))) {
        return true;
    }
    // A file may be named with a directory of its own: `sched/sched.h` in `kernel`, or a path in one piece.
    header.file_names().iter().any(|file| {
        let name = string(file.path_name());
        let last = |wanted: &&str| format!("{}/", wanted.rsplit('/').next().unwrap_or(wanted));
        name.contains(&b'/') && directories.iter().any(|wanted| contains(name, last(wanted).as_bytes()))
    })
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
