//! Atoms and datums: what a column of a row holds (RFC 7047 section 5.1).

use crate::error::{Error, Tag};
use crate::schema::{AtomType, BaseType, ColumnType};
use serde_json::{Value, json};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use uuid::Uuid;

/// One indivisible value. Ordered by type, then by value; strings by their bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Atom {
    Integer(i64),
    Real(Real),
    Boolean(bool),
    String(Arc<str>),
    Uuid(Uuid),
}

/// A finite number with a total order, so that it can be a set's element.
#[derive(Debug, Clone, Copy)]
pub struct Real(f64);

impl Real {
    /// None for infinities and NaN, which JSON cannot express. Negative zero becomes zero.
    pub fn new(value: f64) -> Option<Real> {
        value.is_finite().then_some(Real(value + 0.0))
    }

    pub fn get(self) -> f64 {
        self.0
    }
}

impl Ord for Real {
    fn cmp(&self, other: &Real) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}
impl PartialOrd for Real {
    fn partial_cmp(&self, other: &Real) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Real {
    fn eq(&self, other: &Real) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Real {}
impl std::hash::Hash for Real {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

/// The `uuid-name`s of one transaction. A name may be used before the insert that defines it.
#[derive(Debug, Default)]
pub struct Symbols(HashMap<String, Symbol>);

#[derive(Debug)]
struct Symbol {
    uuid: Uuid,
    defined: bool,
}

impl Symbols {
    /// The UUID that `name` stands for, allotted at the first use.
    pub fn refer(&mut self, name: &str) -> Uuid {
        self.entry(name).uuid
    }

    /// Marks `name` as defined by an insert of a row, whose UUID may be given. None if an earlier insert did so already.
    pub fn define(&mut self, name: &str, uuid: Option<Uuid>) -> Option<Uuid> {
        let symbol = self.entry(name);
        if std::mem::replace(&mut symbol.defined, true) {
            return None;
        }
        symbol.uuid = uuid.unwrap_or(symbol.uuid);
        Some(symbol.uuid)
    }

    fn entry(&mut self, name: &str) -> &mut Symbol {
        self.0.entry(name.to_owned()).or_insert_with(|| Symbol { uuid: Uuid::new_v4(), defined: false })
    }
}

impl Atom {
    pub fn default_of(atom_type: AtomType) -> Atom {
        match atom_type {
            AtomType::Integer => Atom::Integer(0),
            AtomType::Real => Atom::Real(Real(0.0)),
            AtomType::Boolean => Atom::Boolean(false),
            AtomType::String => Atom::from(""),
            AtomType::Uuid => Atom::Uuid(Uuid::nil()),
        }
    }

    /// Reads an atom and checks it against `base`'s range or choices. `symbols` gives meaning to `["named-uuid", …]`.
    pub fn from_json(json: &Value, base: &BaseType, symbols: Option<&mut Symbols>) -> Result<Atom, Error> {
        let atom = Atom::parse(json, base.atom_type(), symbols)?;
        base.check(&atom)?;
        Ok(atom)
    }

    /// Reads an atom by its type alone.
    pub fn parse(json: &Value, atom_type: AtomType, symbols: Option<&mut Symbols>) -> Result<Atom, Error> {
        let atom = match atom_type {
            AtomType::Integer => integer(json).map(Atom::Integer),
            AtomType::Real => json.as_f64().and_then(Real::new).map(Atom::Real),
            AtomType::Boolean => json.as_bool().map(Atom::Boolean),
            AtomType::String => match json.as_str() {
                // Such a string would make the log unreadable for OVS's own tools.
                Some(s) if s.contains('\0') => {
                    return Err(Error::syntax(json, "null bytes not supported in quoted strings"));
                }
                other => other.map(Atom::from),
            },
            AtomType::Uuid => return parse_uuid(json, symbols),
        };
        atom.ok_or_else(|| Error::syntax(json, format!("expected {}", atom_type.as_str())))
    }

    pub fn to_json(&self) -> Value {
        match self {
            Atom::Integer(value) => json!(value),
            Atom::Real(value) => real_to_json(*value),
            Atom::Boolean(value) => json!(value),
            Atom::String(value) => json!(**value),
            Atom::Uuid(value) => json!(["uuid", value.to_string()]),
        }
    }

    pub fn atom_type(&self) -> AtomType {
        match self {
            Atom::Integer(_) => AtomType::Integer,
            Atom::Real(_) => AtomType::Real,
            Atom::Boolean(_) => AtomType::Boolean,
            Atom::String(_) => AtomType::String,
            Atom::Uuid(_) => AtomType::Uuid,
        }
    }

    pub fn as_int(&self) -> Option<i64> {
        if let Atom::Integer(value) = self { Some(*value) } else { None }
    }
    pub fn as_bool(&self) -> Option<bool> {
        if let Atom::Boolean(value) = self { Some(*value) } else { None }
    }
    pub fn as_str(&self) -> Option<&str> {
        if let Atom::String(value) = self { Some(value) } else { None }
    }
    pub fn as_uuid(&self) -> Option<Uuid> {
        if let Atom::Uuid(value) = self { Some(*value) } else { None }
    }
}

/// An integer however it is spelled: `1.0` and `1e3` are integers to OVS too.
pub(crate) fn integer(json: &Value) -> Option<i64> {
    json.as_i64().or_else(|| {
        let value = json.as_f64()?;
        // 2^63 as f64 is exact, so that the cast below cannot saturate.
        (value.fract() == 0.0 && (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&value))
            .then_some(value as i64)
    })
}

fn real_to_json(value: Real) -> Value {
    match integer(&json!(value.0)) {
        Some(whole) if whole.unsigned_abs() < 1 << 53 => json!(whole),
        _ => json!(value.0),
    }
}

fn parse_uuid(json: &Value, symbols: Option<&mut Symbols>) -> Result<Atom, Error> {
    let (kind, text) = match json.as_array().map(Vec::as_slice) {
        Some([Value::String(kind), Value::String(text)]) => (kind.as_str(), text.as_str()),
        _ => ("", ""),
    };
    match (kind, symbols) {
        ("uuid", _) => match parse_uuid_text(text) {
            Some(uuid) => Ok(Atom::Uuid(uuid)),
            None => Err(Error::syntax(json, format!("\"{text}\" is not a valid UUID"))),
        },
        ("named-uuid", Some(symbols)) if is_id(text) => Ok(Atom::Uuid(symbols.refer(text))),
        ("named-uuid", Some(_)) => Err(Error::syntax(json, "named-uuid string is not a valid <id>")),
        _ => Err(Error::syntax(json, "expected [\"uuid\", <string>]")),
    }
}

/// The one spelling that RFC 7047 allows: 8-4-4-4-12 hexadecimal digits.
pub fn parse_uuid_text(text: &str) -> Option<Uuid> {
    if text.len() == 36 { Uuid::try_parse(text).ok() } else { None }
}

/// RFC 7047 section 3.1: an `<id>` is a C identifier.
pub(crate) fn is_id(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

impl From<&str> for Atom {
    fn from(value: &str) -> Atom {
        Atom::String(value.into())
    }
}
impl From<String> for Atom {
    fn from(value: String) -> Atom {
        Atom::String(value.into())
    }
}
impl From<i64> for Atom {
    fn from(value: i64) -> Atom {
        Atom::Integer(value)
    }
}
impl From<bool> for Atom {
    fn from(value: bool) -> Atom {
        Atom::Boolean(value)
    }
}
impl From<Uuid> for Atom {
    fn from(value: Uuid) -> Atom {
        Atom::Uuid(value)
    }
}

/// As OVS's tools print it: a string that is a plain word goes without quotes.
impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Atom::String(value) if needs_quotes(value) => write!(f, "{}", json!(**value)),
            Atom::Integer(value) => write!(f, "{value}"),
            Atom::Real(value) => write!(f, "{}", value.0),
            Atom::Boolean(value) => write!(f, "{value}"),
            Atom::String(value) => f.write_str(value),
            Atom::Uuid(value) => write!(f, "{value}"),
        }
    }
}

/// Words, except those that would be read back as something else: booleans and what begins with a UUID.
fn needs_quotes(text: &str) -> bool {
    let word = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    let uuid = text.get(..36).is_some_and(|start| parse_uuid_text(start).is_some());
    !word || uuid || text == "true" || text == "false"
}

/// The value of one column: a set (a scalar is a set of one) or a map. Elements are unique and sorted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Datum(Repr);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Repr {
    Set(Vec<Atom>),
    Map(Vec<(Atom, Atom)>),
}

impl Datum {
    pub fn scalar(atom: impl Into<Atom>) -> Datum {
        Datum(Repr::Set(vec![atom.into()]))
    }

    pub fn empty_set() -> Datum {
        Datum(Repr::Set(Vec::new()))
    }

    pub fn empty_map() -> Datum {
        Datum(Repr::Map(Vec::new()))
    }

    /// A set of at most one element.
    pub fn optional(atom: Option<impl Into<Atom>>) -> Datum {
        Datum(Repr::Set(atom.into_iter().map(Into::into).collect()))
    }

    /// A set; equal elements become one.
    pub fn set<A: Into<Atom>>(atoms: impl IntoIterator<Item = A>) -> Datum {
        let mut atoms: Vec<Atom> = atoms.into_iter().map(Into::into).collect();
        atoms.sort_unstable();
        atoms.dedup();
        Datum(Repr::Set(atoms))
    }

    /// A map; of pairs with equal keys the first stays.
    pub fn map<K: Into<Atom>, V: Into<Atom>>(pairs: impl IntoIterator<Item = (K, V)>) -> Datum {
        let mut pairs: Vec<(Atom, Atom)> = pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        pairs.dedup_by(|later, first| later.0 == first.0);
        Datum(Repr::Map(pairs))
    }

    /// The value that a column of this type has in a new row.
    pub fn default_of(column: &ColumnType) -> Datum {
        let key = || Atom::default_of(column.key.atom_type());
        match &column.value {
            _ if column.min == 0 && column.value.is_some() => Datum::empty_map(),
            _ if column.min == 0 => Datum::empty_set(),
            Some(value) => Datum::map([(key(), Atom::default_of(value.atom_type()))]),
            None => Datum::scalar(key()),
        }
    }

    /// Number of elements or pairs.
    pub fn len(&self) -> usize {
        match &self.0 {
            Repr::Set(atoms) => atoms.len(),
            Repr::Map(pairs) => pairs.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements in ascending order; none if this is a map.
    pub fn atoms(&self) -> &[Atom] {
        match &self.0 {
            Repr::Set(atoms) => atoms,
            Repr::Map(_) => &[],
        }
    }

    /// The pairs in ascending order of keys; none if this is a set.
    pub fn pairs(&self) -> &[(Atom, Atom)] {
        match &self.0 {
            Repr::Map(pairs) => pairs,
            Repr::Set(_) => &[],
        }
    }

    pub fn is_map(&self) -> bool {
        matches!(self.0, Repr::Map(_))
    }

    /// The one element of a scalar or of an optional value that is set.
    pub fn one(&self) -> Option<&Atom> {
        if let [atom] = self.atoms() { Some(atom) } else { None }
    }

    pub fn contains(&self, atom: &Atom) -> bool {
        self.atoms().binary_search(atom).is_ok()
    }

    /// The value that a map holds for `key`.
    pub fn get(&self, key: &Atom) -> Option<&Atom> {
        let pairs = self.pairs();
        let at = pairs.binary_search_by(|(k, _)| k.cmp(key)).ok()?;
        pairs.get(at).map(|(_, value)| value)
    }

    /// The string that a string map holds for `key`.
    pub fn get_str(&self, key: &str) -> Option<&str> {
        let pairs = self.pairs();
        let at = pairs.binary_search_by(|(k, _)| k.as_str().unwrap_or_default().cmp(key)).ok()?;
        pairs.get(at).and_then(|(_, value)| value.as_str())
    }

    /// Reads a value and checks it fully against `column`. Accepts a one-element set with or without `["set", …]`.
    pub fn from_json(
        json: &Value,
        column: &ColumnType,
        symbols: Option<&mut Symbols>,
    ) -> Result<Datum, Error> {
        Datum::parse(json, column, true, symbols)
    }

    /// Like `from_json`, but any number of elements will do: differences and mutations are not bound by min and max.
    pub fn from_json_unsized(
        json: &Value,
        column: &ColumnType,
        symbols: Option<&mut Symbols>,
    ) -> Result<Datum, Error> {
        Datum::parse(json, column, false, symbols)
    }

    fn parse(
        json: &Value,
        column: &ColumnType,
        sized: bool,
        mut symbols: Option<&mut Symbols>,
    ) -> Result<Datum, Error> {
        let class = if column.is_map() { "map" } else { "set" };
        let Some(elements) = wrapped(json, class) else {
            if column.is_map() || json.get(0).and_then(Value::as_str) == Some("set") {
                return Err(Error::syntax(json, format!("expected [\"{class}\", <array>]")));
            }
            return Atom::from_json(json, &column.key, symbols).map(Datum::scalar);
        };
        if sized && !column.allows(elements.len()) {
            let ColumnType { min, max, .. } = column;
            let n = elements.len();
            let details = match (min, max) {
                (1, 1) => format!("{class} must have exactly one member but {n} are present"),
                _ => format!("{class} must have {min} to {max} members but {n} are present"),
            };
            return Err(Error::syntax(json, details));
        }
        let datum = match &column.value {
            None => {
                let atoms = elements.iter().map(|e| Atom::from_json(e, &column.key, symbols.as_deref_mut()));
                Datum::set(atoms.collect::<Result<Vec<_>, _>>()?)
            }
            Some(value) => {
                let pairs = elements.iter().map(|element| match element.as_array().map(Vec::as_slice) {
                    Some([k, v]) => Ok((
                        Atom::from_json(k, &column.key, symbols.as_deref_mut())?,
                        Atom::from_json(v, value, symbols.as_deref_mut())?,
                    )),
                    _ => Err(Error::syntax(element, "expected 2-element array")),
                });
                Datum::map(pairs.collect::<Result<Vec<_>, _>>()?)
            }
        };
        if datum.len() != elements.len() {
            let what = if column.is_map() { "map contains duplicate key" } else { "set contains duplicate" };
            return Err(Error::new(Tag::Other, what));
        }
        Ok(datum)
    }

    /// Whether the atoms' types and the number of elements are those of `column`, and each atom is in its range.
    pub fn check(&self, column: &ColumnType) -> Result<(), Error> {
        let atom = |atom: &Atom, base: &BaseType| {
            if atom.atom_type() != base.atom_type() {
                return Err(Error::constraint(format!(
                    "{atom} is not of type {}",
                    base.atom_type().as_str()
                )));
            }
            base.check(atom)
        };
        self.atoms().iter().try_for_each(|key| atom(key, &column.key))?;
        for (key, value) in self.pairs() {
            atom(key, &column.key)?;
            column.value.as_ref().map_or(Ok(()), |base| atom(value, base))?;
        }
        if self.is_map() != column.is_map() || !column.allows(self.len()) {
            let details = format!("Attempted to store {} elements in {}.", self.len(), column.to_english());
            return Err(Error::constraint(details));
        }
        Ok(())
    }

    /// A set of exactly one element is written bare.
    pub fn to_json(&self) -> Value {
        match &self.0 {
            Repr::Set(atoms) => match atoms.as_slice() {
                [atom] => atom.to_json(),
                _ => json!(["set", atoms.iter().map(Atom::to_json).collect::<Vec<_>>()]),
            },
            Repr::Map(pairs) => {
                let pairs: Vec<Value> =
                    pairs.iter().map(|(k, v)| json!([k.to_json(), v.to_json()])).collect();
                json!(["map", pairs])
            }
        }
    }
}

/// The array inside `[class, [ … ]]`.
fn wrapped<'a>(json: &'a Value, class: &str) -> Option<&'a [Value]> {
    match json.as_array()?.as_slice() {
        [Value::String(name), Value::Array(elements)] if name == class => Some(elements),
        _ => None,
    }
}

impl<A: Into<Atom>> From<A> for Datum {
    fn from(atom: A) -> Datum {
        Datum::scalar(atom)
    }
}

/// As OVS's tools print it: a set of one bare, others as `[a, b]`, maps as `{a=b}`.
impl fmt::Display for Datum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(atom) = self.one() {
            return atom.fmt(f);
        }
        let elements: Vec<String> = match &self.0 {
            Repr::Set(atoms) => atoms.iter().map(Atom::to_string).collect(),
            Repr::Map(pairs) => pairs.iter().map(|(key, value)| format!("{key}={value}")).collect(),
        };
        let (open, close) = if self.is_map() { ('{', '}') } else { ('[', ']') };
        write!(f, "{open}{}{close}", elements.join(", "))
    }
}
