//! The `mutate` operation's changes to a row (RFC 7047 section 5.1).

use crate::condition::{type_mismatch, unknown_column};
use crate::error::{Error, Tag};
use crate::row::Row;
use crate::schema::{AtomType, BaseType, Column, ColumnType, TableSchema};
use crate::value::{Atom, Datum, Real, Symbols};
use serde_json::Value;

#[derive(Debug)]
pub(crate) struct Mutation {
    column: Column,
    mutator: Mutator,
    arg: Datum,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mutator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Insert,
    Delete,
}

impl Mutator {
    fn from_str(name: &str) -> Result<Mutator, Error> {
        Ok(match name {
            "+=" => Mutator::Add,
            "-=" => Mutator::Subtract,
            "*=" => Mutator::Multiply,
            "/=" => Mutator::Divide,
            "%=" => Mutator::Remainder,
            "insert" => Mutator::Insert,
            "delete" => Mutator::Delete,
            _ => return Err(Error::new(Tag::UnknownMutator, format!("No mutator named {name}."))),
        })
    }

    fn as_str(self) -> &'static str {
        match self {
            Mutator::Add => "+=",
            Mutator::Subtract => "-=",
            Mutator::Multiply => "*=",
            Mutator::Divide => "/=",
            Mutator::Remainder => "%=",
            Mutator::Insert => "insert",
            Mutator::Delete => "delete",
        }
    }

    /// Whether it can be applied to a column of this type at all.
    fn suits(self, column_type: &ColumnType) -> bool {
        match (self, column_type.key.atom_type()) {
            (Mutator::Insert | Mutator::Delete, _) => !column_type.is_scalar(),
            (_, AtomType::Integer) => !column_type.is_map(),
            (Mutator::Remainder, _) => false,
            (_, AtomType::Real) => !column_type.is_map(),
            _ => false,
        }
    }
}

impl Mutation {
    pub(crate) fn from_json(
        table: &TableSchema,
        json: &Value,
        symbols: &mut Symbols,
    ) -> Result<Mutation, Error> {
        let elements = json.as_array().map(Vec::as_slice);
        let Some([Value::String(name), Value::String(mutator_name), arg]) = elements else {
            return Err(Error::syntax(json, "Parse error in mutation."));
        };
        let column = table.resolve(name).ok_or_else(|| unknown_column(table, name).at(json))?;
        if !table.is_mutable(column) {
            let details = format!("Cannot mutate immutable column {name} in table {}.", table.name);
            return Err(Error::constraint(details).at(json));
        }
        let mutator = Mutator::from_str(mutator_name)?;
        let column_type = table.type_of(column);
        if !mutator.suits(column_type) {
            return Err(type_mismatch(mutator_name, name, column_type).at(json));
        }
        let mut relaxed = column_type.clone();
        let arg = match mutator {
            Mutator::Insert => {
                relaxed.min = 0;
                Datum::from_json(arg, &relaxed, Some(symbols))?
            }
            Mutator::Delete => {
                (relaxed.min, relaxed.max) = (0, u32::MAX);
                Datum::from_json(arg, &relaxed, Some(symbols)).or_else(|error| {
                    // From a map one may also delete by key alone.
                    relaxed
                        .value
                        .take()
                        .map_or(Err(error), |_| Datum::from_json(arg, &relaxed, Some(symbols)))
                })?
            }
            _ => {
                let operand = ColumnType::scalar(column_type.key.atom_type());
                Datum::from_json(arg, &operand, Some(symbols))?
            }
        };
        Ok(Mutation { column, mutator, arg })
    }

    pub(crate) fn apply(&self, row: &mut Row) -> Result<(), Error> {
        let schema = row.schema().clone();
        let column_type = schema.type_of(self.column);
        let old = row.value(self.column);
        let new = match self.mutator {
            Mutator::Insert => old.union(&self.arg),
            Mutator::Delete => old.difference(&self.arg),
            _ => self.calculate(&old, &column_type.key)?,
        };
        if !column_type.allows(new.len()) {
            let details =
                format!("Attempted to store {} elements in {}.", new.len(), column_type.to_english());
            return Err(Error::constraint(details));
        }
        row.set(self.column, new);
        Ok(())
    }

    /// Applies the operator to each element.
    fn calculate(&self, old: &Datum, base: &BaseType) -> Result<Datum, Error> {
        let out_of_range = || {
            Error::new(
                Tag::Range,
                format!("Result of \"{}\" operation is out of range.", self.mutator.as_str()),
            )
        };
        let arg = self.arg.one();
        let mut atoms = Vec::with_capacity(old.len());
        for atom in old.atoms() {
            let result = match (atom, arg) {
                (Atom::Integer(x), Some(Atom::Integer(y))) => self.integer(*x, *y)?.map(Atom::Integer),
                (Atom::Real(x), Some(Atom::Real(y))) => self.real(x.get(), y.get())?.map(Atom::Real),
                _ => None,
            };
            atoms.push(result.ok_or_else(out_of_range)?);
        }
        atoms.iter().try_for_each(|atom| base.check(atom))?;
        let new = Datum::set(atoms);
        if new.len() != old.len() {
            let details = format!("Result of \"{}\" operation contains duplicates.", self.mutator.as_str());
            return Err(Error::constraint(details));
        }
        Ok(new)
    }

    /// None if the result does not fit.
    fn integer(&self, x: i64, y: i64) -> Result<Option<i64>, Error> {
        Ok(match self.mutator {
            Mutator::Add => x.checked_add(y),
            Mutator::Subtract => x.checked_sub(y),
            Mutator::Multiply => x.checked_mul(y),
            _ if y == 0 => return Err(division_by_zero()),
            Mutator::Divide => x.checked_div(y),
            _ => x.checked_rem(y),
        })
    }

    fn real(&self, x: f64, y: f64) -> Result<Option<Real>, Error> {
        Ok(Real::new(match self.mutator {
            Mutator::Add => x + y,
            Mutator::Subtract => x - y,
            Mutator::Multiply => x * y,
            _ if y == 0.0 => return Err(division_by_zero()),
            _ => x / y,
        }))
    }
}

fn division_by_zero() -> Error {
    Error::new(Tag::Domain, "Division by zero.")
}
