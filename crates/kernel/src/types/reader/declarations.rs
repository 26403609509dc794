//! Entries that describe functions and variables.

use super::super::debug_info::{Die, fixed_address, reference};
use super::super::model::{Function, Prototype, SourceLine, Variable};
use super::{CHAIN_MAX, Enclosing, Reader, Scope, Source, flag, line};
use gimli::constants as dw;
use std::rc::Rc;

impl<'a> Reader<'a, '_> {
    /// A function's code that completes an earlier entry repeats neither name nor types.
    pub(super) fn function(
        &mut self,
        source: &Source<'a>,
        die: &Die<'a>,
        parent: Enclosing,
    ) -> gimli::Result<Enclosing> {
        let Some(name) = self.name(source, die)? else {
            return Ok(match parent {
                Enclosing::Function(index) | Enclosing::Inside(index) => Enclosing::Inside(index),
                _ => Enclosing::Skipped,
            });
        };
        let returns = self.type_referred_to(source, die);
        self.out.functions.push(Function {
            name,
            is_external: flag(die, dw::DW_AT_external),
            is_declaration: flag(die, dw::DW_AT_declaration),
            prototype: Prototype { returns, ..Prototype::default() },
            place: self.place(source, die),
        });
        Ok(Enclosing::Function(self.out.functions.len() - 1))
    }

    /// A variable is read if its entry has a name and a type, or an address: then the entries that it completes
    /// have the others.
    pub(super) fn variable(
        &mut self,
        source: &Source<'a>,
        die: &Die<'a>,
        parent: Scope,
    ) -> gimli::Result<()> {
        let address = match die.attr_value(dw::DW_AT_location) {
            Some(location) => fixed_address(&self.info.dwarf, &source.unit, location)?,
            None => None,
        };
        let is_whole = die.attr(dw::DW_AT_name).is_some() && die.attr(dw::DW_AT_type).is_some();
        if !is_whole && address.is_none() {
            return Ok(());
        }
        let Some(name) = self.resolve(source, die, |reader, source, die| reader.name(source, die))? else {
            return Ok(());
        };
        let of = self.resolve(source, die, |_, source, die| {
            let value = die.attr_value(dw::DW_AT_type);
            Ok(value.and_then(|value| reference(source.start, &value)))
        })?;
        let Some(of) = of.map(|offset| self.id_at(offset)) else { return Ok(()) };
        let external =
            |_: &Self, _: &Source<'a>, die: &Die<'a>| Ok(flag(die, dw::DW_AT_external).then_some(()));
        let is_external = self.resolve(source, die, external)?.is_some();
        let file = self.resolve(source, die, |reader, source, die| Ok(reader.file(source, die)))?;
        let line = self.resolve(source, die, |_, _, die| Ok(line(die)))?;
        let function = match parent.enclosing {
            Enclosing::Function(index) | Enclosing::Inside(index) if address.is_none() => {
                Some(self.out.functions[index].name.clone())
            }
            _ if address.is_none() => None,
            _ => self.function_around(source, parent)?,
        };
        self.out.variables.push(Variable {
            name,
            of: Some(of),
            is_automatic: function.is_some() && address.is_none() && !is_external,
            function,
            address,
            is_external,
            is_declaration: flag(die, dw::DW_AT_declaration),
            place: SourceLine { file: file.unwrap_or_default(), line: line.unwrap_or(0) },
        });
        Ok(())
    }

    /// Name of the innermost function around an entry, which may be one that was inlined.
    fn function_around(&mut self, source: &Source<'a>, scope: Scope) -> gimli::Result<Option<String>> {
        let Some(offset) = scope.code else { return Ok(None) };
        let die = source.unit.entry(offset)?;
        self.resolve(source, &die, |reader, source, die| reader.name(source, die))
    }

    /// The first value found in an entry or, in turn, in those that it completes.
    fn resolve<T>(
        &mut self,
        source: &Source<'a>,
        die: &Die<'a>,
        get: impl Fn(&Self, &Source<'a>, &Die<'a>) -> gimli::Result<Option<T>>,
    ) -> gimli::Result<Option<T>> {
        let mut value = get(self, source, die)?;
        let mut next = origin(source, die);
        for _ in 0..CHAIN_MAX {
            let Some(offset) = next.filter(|_| value.is_none()) else { break };
            let Some(source): Option<Rc<Source<'a>>> = self.source_at(offset)? else { break };
            let die = source.unit.entry(gimli::UnitOffset(offset - source.start))?;
            value = get(self, &source, &die)?;
            next = origin(&source, &die);
        }
        Ok(value)
    }
}

/// The entry that an entry completes.
fn origin(source: &Source<'_>, die: &Die<'_>) -> Option<usize> {
    let attributes = [dw::DW_AT_abstract_origin, dw::DW_AT_specification];
    let value = attributes.into_iter().find_map(|attribute| die.attr_value(attribute))?;
    reference(source.start, &value)
}
