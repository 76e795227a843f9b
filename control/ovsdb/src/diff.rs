//! Set operations on datums, and the differences that update2 and the log are made of.

use crate::error::{Error, Tag};
use crate::schema::ColumnType;
use crate::value::{Atom, Datum};
use std::collections::BTreeMap;

impl Datum {
    /// Both together. A key that is already there keeps its value.
    pub(crate) fn union(&self, other: &Datum) -> Datum {
        if self.is_map() {
            return Datum::map(self.pairs().iter().chain(other.pairs()).cloned());
        }
        Datum::set(self.atoms().iter().chain(other.atoms()).cloned())
    }

    /// Without the elements of `other`. From a map, a set takes keys away, and a map takes exact pairs.
    pub(crate) fn difference(&self, other: &Datum) -> Datum {
        if !self.is_map() {
            return Datum::set(self.atoms().iter().filter(|atom| !other.contains(atom)).cloned());
        }
        let keep = |key: &Atom, value: &Atom| match other.is_map() {
            true => other.get(key) != Some(value),
            false => !other.contains(key),
        };
        Datum::map(self.pairs().iter().filter(|(key, value)| keep(key, value)).cloned())
    }

    /// What `apply_diff` needs to make `new` of `self`: for a scalar or optional value the new value; for a set the
    /// elements that came or went; for a map the new pairs, and those that went with their old values.
    pub fn diff(&self, new: &Datum, column: &ColumnType) -> Datum {
        if !column.is_composite() {
            return new.clone();
        }
        if column.is_map() {
            let changed = new.pairs().iter().filter(|(key, value)| self.get(key) != Some(value));
            let gone = self.pairs().iter().filter(|(key, _)| new.get(key).is_none());
            return Datum::map(changed.chain(gone).cloned());
        }
        let came = new.atoms().iter().filter(|atom| !self.contains(atom));
        let went = self.atoms().iter().filter(|atom| !new.contains(atom));
        Datum::set(came.chain(went).cloned())
    }

    /// The inverse of `diff`. An error if the result has too many or too few elements for the column.
    pub fn apply_diff(&self, diff: &Datum, column: &ColumnType) -> Result<Datum, Error> {
        let new = if !column.is_composite() {
            diff.clone()
        } else if column.is_map() {
            let mut pairs: BTreeMap<&Atom, &Atom> = self.pairs().iter().map(|(k, v)| (k, v)).collect();
            for (key, value) in diff.pairs() {
                if pairs.insert(key, value) == Some(value) {
                    pairs.remove(key);
                }
            }
            Datum::map(pairs.into_iter().map(|(k, v)| (k.clone(), v.clone())))
        } else {
            self.diff(diff, column)
        };
        if !column.allows(new.len()) {
            return Err(Error::new(Tag::Other, "the difference leaves too many or too few elements"));
        }
        Ok(new)
    }
}
