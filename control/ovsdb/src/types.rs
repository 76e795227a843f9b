//! The types of values: atoms, their ranges, and how many of them a column holds (RFC 7047 section 3.2).

use crate::error::{Error, Tag};
use crate::value::{Atom, Datum, integer};
use serde_json::{Map, Value, json};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtomType {
    Integer,
    Real,
    Boolean,
    String,
    Uuid,
}

impl AtomType {
    pub fn as_str(self) -> &'static str {
        match self {
            AtomType::Integer => "integer",
            AtomType::Real => "real",
            AtomType::Boolean => "boolean",
            AtomType::String => "string",
            AtomType::Uuid => "uuid",
        }
    }

    fn from_json(json: &Value) -> Result<AtomType, Error> {
        match json.as_str() {
            Some("integer") => Ok(AtomType::Integer),
            Some("real") => Ok(AtomType::Real),
            Some("boolean") => Ok(AtomType::Boolean),
            Some("string") => Ok(AtomType::String),
            Some("uuid") => Ok(AtomType::Uuid),
            Some(other) => Err(Error::syntax(json, format!("\"{other}\" is not an atomic-type"))),
            None => Err(Error::syntax(json, "atomic-type expected")),
        }
    }
}

/// The rows of another table that a uuid may point to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    pub table: String,
    /// A strong reference keeps its row alive; a weak one vanishes with its row.
    pub strong: bool,
}

/// An atom's type with the range that it must lie in. Bounds are inclusive.
#[derive(Debug, Clone, PartialEq)]
pub enum Range {
    Integer {
        min: i64,
        max: i64,
    },
    Real {
        min: f64,
        max: f64,
    },
    Boolean,
    /// Length in characters.
    String {
        min: u32,
        max: u32,
    },
    Uuid(Option<Reference>),
}

/// The type of a set's elements, of a map's keys or of its values.
#[derive(Debug, Clone, PartialEq)]
pub struct BaseType {
    pub range: Range,
    /// The only values allowed, ascending; empty if any will do.
    pub choices: Vec<Atom>,
}

impl BaseType {
    pub fn new(atom_type: AtomType) -> BaseType {
        let range = match atom_type {
            AtomType::Integer => Range::Integer { min: i64::MIN, max: i64::MAX },
            AtomType::Real => Range::Real { min: f64::MIN, max: f64::MAX },
            AtomType::Boolean => Range::Boolean,
            AtomType::String => Range::String { min: 0, max: u32::MAX },
            AtomType::Uuid => Range::Uuid(None),
        };
        BaseType { range, choices: Vec::new() }
    }

    pub fn atom_type(&self) -> AtomType {
        match self.range {
            Range::Integer { .. } => AtomType::Integer,
            Range::Real { .. } => AtomType::Real,
            Range::Boolean => AtomType::Boolean,
            Range::String { .. } => AtomType::String,
            Range::Uuid(_) => AtomType::Uuid,
        }
    }

    pub fn reference(&self) -> Option<&Reference> {
        if let Range::Uuid(reference) = &self.range { reference.as_ref() } else { None }
    }

    /// Whether `atom` is one of the choices, or within the range.
    pub fn check(&self, atom: &Atom) -> Result<(), Error> {
        if !self.choices.is_empty() {
            if self.choices.contains(atom) {
                return Ok(());
            }
            let choices: Vec<String> = self.choices.iter().map(Atom::to_string).collect();
            let choices = choices.join(", ");
            return Err(Error::constraint(format!("{atom} is not one of the allowed values ([{choices}])")));
        }
        match (atom, &self.range) {
            (Atom::Integer(value), Range::Integer { min, max }) => {
                in_range(value, min, max, *min == i64::MIN, *max == i64::MAX)
            }
            (Atom::Real(value), Range::Real { min, max }) => {
                in_range(&value.get(), min, max, *min == f64::MIN, *max == f64::MAX)
            }
            (Atom::String(value), Range::String { min, max }) => {
                let length = value.chars().count();
                let complain = |what, limit| {
                    Error::constraint(format!("\"{value}\" length {length} is {what} allowed length {limit}"))
                };
                if length < *min as usize {
                    return Err(complain("less than minimum", min));
                }
                if length > *max as usize {
                    return Err(complain("greater than maximum", max));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn from_json(json: &Value) -> Result<BaseType, Error> {
        let Some(object) = json.as_object() else { return AtomType::from_json(json).map(BaseType::new) };
        let atom_type = AtomType::from_json(object.get("type").unwrap_or(&Value::Null))?;
        let mut base = BaseType::new(atom_type);
        if let Some(choices) = object.get("enum") {
            let set = ColumnType { key: base.clone(), value: None, min: 1, max: u32::MAX };
            base.choices = Datum::from_json(choices, &set, None)?.atoms().to_vec();
        }
        match &mut base.range {
            Range::Integer { min, max } => {
                *min = member(object, "minInteger", integer)?.unwrap_or(*min);
                *max = member(object, "maxInteger", integer)?.unwrap_or(*max);
                if min > max {
                    return Err(Error::syntax(json, "minInteger exceeds maxInteger"));
                }
            }
            Range::Real { min, max } => {
                *min = member(object, "minReal", Value::as_f64)?.unwrap_or(*min);
                *max = member(object, "maxReal", Value::as_f64)?.unwrap_or(*max);
                if *min > *max {
                    return Err(Error::syntax(json, "minReal exceeds maxReal"));
                }
            }
            Range::String { min, max } => {
                *min = member(object, "minLength", as_u32)?.unwrap_or(*min);
                *max = member(object, "maxLength", as_u32)?.unwrap_or(*max);
                if min > max {
                    return Err(Error::syntax(json, "minLength exceeds maxLength"));
                }
            }
            Range::Uuid(reference) => {
                if let Some(table) = member(object, "refTable", as_string)? {
                    let strong = match member(object, "refType", as_string)?.as_deref() {
                        None | Some("strong") => true,
                        Some("weak") => false,
                        Some(other) => {
                            let details = format!("refType must be \"strong\" or \"weak\" (not \"{other}\")");
                            return Err(Error::syntax(json, details));
                        }
                    };
                    *reference = Some(Reference { table, strong });
                }
            }
            Range::Boolean => {}
        }
        Ok(base)
    }

    fn to_json(&self) -> Value {
        let mut object = Map::new();
        let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
        put("type", json!(self.atom_type().as_str()));
        if !self.choices.is_empty() {
            put("enum", Datum::set(self.choices.iter().cloned()).to_json());
        }
        match &self.range {
            Range::Integer { min, max } => {
                if *min != i64::MIN {
                    put("minInteger", json!(min));
                }
                if *max != i64::MAX {
                    put("maxInteger", json!(max));
                }
            }
            Range::Real { min, max } => {
                if *min != f64::MIN {
                    put("minReal", json!(min));
                }
                if *max != f64::MAX {
                    put("maxReal", json!(max));
                }
            }
            Range::String { min, max } => {
                if *min != 0 {
                    put("minLength", json!(min));
                }
                if *max != u32::MAX {
                    put("maxLength", json!(max));
                }
            }
            Range::Uuid(Some(reference)) => {
                put("refTable", json!(reference.table));
                if !reference.strong {
                    put("refType", json!("weak"));
                }
            }
            Range::Uuid(None) | Range::Boolean => {}
        }
        if object.len() == 1 { json!(self.atom_type().as_str()) } else { Value::Object(object) }
    }
}

fn in_range<T: PartialOrd + std::fmt::Display>(
    value: &T,
    min: &T,
    max: &T,
    no_min: bool,
    no_max: bool,
) -> Result<(), Error> {
    if value >= min && value <= max {
        return Ok(());
    }
    Err(Error::constraint(match (no_min, no_max) {
        (false, false) => format!("{value} is not in the valid range {min} to {max} (inclusive)"),
        (false, true) => format!("{value} is less than minimum allowed value {min}"),
        _ => format!("{value} is greater than maximum allowed value {max}"),
    }))
}

/// The full type of a column.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnType {
    pub key: BaseType,
    /// Present for maps.
    pub value: Option<BaseType>,
    /// 0 or 1.
    pub min: u32,
    /// `u32::MAX` stands for "unlimited".
    pub max: u32,
}

impl ColumnType {
    pub fn scalar(atom_type: AtomType) -> ColumnType {
        ColumnType { key: BaseType::new(atom_type), value: None, min: 1, max: 1 }
    }

    pub fn is_map(&self) -> bool {
        self.value.is_some()
    }

    pub fn is_scalar(&self) -> bool {
        !self.is_map() && self.min == 1 && self.max == 1
    }

    pub fn is_set(&self) -> bool {
        !self.is_map() && !self.is_scalar()
    }

    /// At most one element that may be absent.
    pub fn is_optional(&self) -> bool {
        !self.is_map() && self.min == 0 && self.max == 1
    }

    /// More than one element is possible: differences are made element by element.
    pub fn is_composite(&self) -> bool {
        self.max > 1
    }

    /// The type in words, for messages: "set of up to 1 integers".
    pub fn to_english(&self) -> String {
        let key = self.key.atom_type().as_str();
        if self.is_scalar() {
            return key.to_owned();
        }
        let size = match (self.min, self.max) {
            (0, u32::MAX) => String::new(),
            (min, u32::MAX) => format!(" {min} or more"),
            (0, max) => format!(" up to {max}"),
            (min, max) => format!(" {min} to {max}"),
        };
        match &self.value {
            None => format!("set of{size} {key}s"),
            Some(value) => format!("map of{size} ({key}, {}) pairs", value.atom_type().as_str()),
        }
    }

    /// Whether a value may have `len` elements.
    pub fn allows(&self, len: usize) -> bool {
        len >= self.min as usize && (self.max == u32::MAX || len <= self.max as usize)
    }

    pub fn from_json(json: &Value) -> Result<ColumnType, Error> {
        let Some(object) = json.as_object() else {
            return AtomType::from_json(json).map(ColumnType::scalar);
        };
        let key = BaseType::from_json(object.get("key").unwrap_or(&Value::Null))?;
        let value = object.get("value").map(BaseType::from_json).transpose()?;
        let min = member(object, "min", as_u32)?.unwrap_or(1);
        let max = match object.get("max") {
            Some(Value::String(s)) if s == "unlimited" => u32::MAX,
            _ => member(object, "max", as_u32)?.unwrap_or(1),
        };
        if min > 1 || max < 1 || min > max {
            return Err(Error::syntax(json, "ovsdb type fails constraint checks"));
        }
        Ok(ColumnType { key, value, min, max })
    }

    pub fn to_json(&self) -> Value {
        let key = self.key.to_json();
        if self.is_scalar() && key.is_string() {
            return key;
        }
        let mut object = Map::new();
        object.insert("key".into(), key);
        if let Some(value) = &self.value {
            object.insert("value".into(), value.to_json());
        }
        if self.min != 1 {
            object.insert("min".into(), json!(self.min));
        }
        if self.max == u32::MAX {
            object.insert("max".into(), json!("unlimited"));
        } else if self.max != 1 {
            object.insert("max".into(), json!(self.max));
        }
        Value::Object(object)
    }
}

pub(crate) fn as_u32(json: &Value) -> Option<u32> {
    integer(json).and_then(|n| u32::try_from(n).ok())
}

pub(crate) fn as_string(json: &Value) -> Option<String> {
    json.as_str().map(str::to_owned)
}

/// An optional member of an object that must have the right type if it is there.
pub(crate) fn member<T>(
    object: &Map<String, Value>,
    name: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Option<T>, Error> {
    match object.get(name) {
        None => Ok(None),
        Some(json) => match read(json) {
            Some(value) => Ok(Some(value)),
            None => Err(Error::new(Tag::Syntax, format!("Type mismatch for member '{name}'.")).at(json)),
        },
    }
}
