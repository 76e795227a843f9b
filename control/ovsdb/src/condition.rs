//! `where` clauses (RFC 7047 section 5.1).

use crate::error::{Error, Tag};
use crate::row::Row;
use crate::schema::{AtomType, Column, ColumnType, TableSchema};
use crate::value::{Atom, Datum, Symbols};
use serde_json::Value;
use uuid::Uuid;

#[derive(Debug, Clone, Default)]
pub(crate) struct Condition(Vec<Clause>);

#[derive(Debug, Clone)]
enum Clause {
    /// `true` or `false` in the place of a clause.
    Constant(bool),
    Compare {
        column: Column,
        function: Function,
        arg: Datum,
    },
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Function {
    Lt,
    Le,
    Eq,
    Ne,
    Ge,
    Gt,
    Includes,
    Excludes,
}

impl Condition {
    pub(crate) fn from_json(
        table: &TableSchema,
        json: &[Value],
        symbols: &mut Symbols,
    ) -> Result<Condition, Error> {
        json.iter()
            .map(|clause| Clause::from_json(table, clause, symbols))
            .collect::<Result<_, _>>()
            .map(Condition)
    }

    /// All clauses hold, as in `where`.
    pub(crate) fn all(&self, row: &Row) -> bool {
        self.0.iter().all(|clause| clause.holds(row))
    }

    /// Some clause holds, or there is none: the meaning in monitor_cond (ovsdb-server(7) section 4.1.12).
    pub(crate) fn any(&self, row: &Row) -> bool {
        self.0.is_empty() || self.0.iter().any(|clause| clause.holds(row))
    }

    pub(crate) fn extend(&mut self, other: Condition) {
        self.0.extend(other.0);
    }

    /// The one row that can match, if a clause names it by its UUID.
    pub(crate) fn uuid(&self) -> Option<Uuid> {
        self.equal_to(Column::Uuid)?.one()?.as_uuid()
    }

    /// The value that `column` must have in every row that matches, if a clause says so.
    pub(crate) fn equal_to(&self, column: Column) -> Option<&Datum> {
        self.0.iter().find_map(|clause| match clause {
            Clause::Compare { column: at, function: Function::Eq, arg } if *at == column => Some(arg),
            _ => None,
        })
    }
}

impl Function {
    fn from_str(name: &str) -> Result<Function, Error> {
        Ok(match name {
            "<" => Function::Lt,
            "<=" => Function::Le,
            "==" => Function::Eq,
            "!=" => Function::Ne,
            ">=" => Function::Ge,
            ">" => Function::Gt,
            "includes" => Function::Includes,
            "excludes" => Function::Excludes,
            _ => return Err(Error::new(Tag::UnknownFunction, format!("No function named {name}."))),
        })
    }

    fn is_order(self) -> bool {
        matches!(self, Function::Lt | Function::Le | Function::Ge | Function::Gt)
    }
}

impl Clause {
    fn from_json(table: &TableSchema, json: &Value, symbols: &mut Symbols) -> Result<Clause, Error> {
        let (name, function_name, arg) = match json {
            Value::Bool(constant) => return Ok(Clause::Constant(*constant)),
            Value::Array(elements) => match elements.as_slice() {
                [Value::String(name), Value::String(function), arg] => (name, function, arg),
                _ => return Err(Error::syntax(json, "Parse error in condition.")),
            },
            _ => return Err(Error::syntax(json, "Parse error in condition.")),
        };
        let column = table.resolve(name).ok_or_else(|| unknown_column(table, name).at(json))?;
        let function = Function::from_str(function_name)?;
        let column_type = table.type_of(column);
        if function.is_order() {
            let number = matches!(column_type.key.atom_type(), AtomType::Integer | AtomType::Real);
            if !number || !(column_type.is_scalar() || column_type.is_optional()) {
                return Err(type_mismatch(function_name, name, column_type).at(json));
            }
        }
        let mut relaxed = column_type.clone();
        if !relaxed.is_scalar() && matches!(function, Function::Includes | Function::Excludes) {
            relaxed.min = 0;
            if function == Function::Excludes {
                relaxed.max = u32::MAX;
            }
        }
        let arg = Datum::from_json(arg, &relaxed, Some(symbols))?;
        Ok(Clause::Compare { column, function, arg })
    }

    fn holds(&self, row: &Row) -> bool {
        let (column, function, arg) = match self {
            Clause::Constant(constant) => return *constant,
            Clause::Compare { column, function, arg } => (*column, *function, arg),
        };
        let value = row.value(column);
        match function {
            Function::Eq => *value == *arg,
            Function::Ne => *value != *arg,
            Function::Includes => {
                arg.atoms().iter().all(|atom| value.contains(atom))
                    && arg.pairs().iter().all(|(k, v)| value.get(k) == Some(v))
            }
            Function::Excludes => {
                !arg.atoms().iter().any(|atom| value.contains(atom))
                    && !arg.pairs().iter().any(|(k, v)| value.get(k) == Some(v))
            }
            // An absent optional value is neither below nor above anything.
            _ => match (value.one(), arg.one()) {
                (Some(value), Some(arg)) => ordered(function, value, arg),
                _ => false,
            },
        }
    }
}

fn ordered(function: Function, value: &Atom, arg: &Atom) -> bool {
    match function {
        Function::Lt => value < arg,
        Function::Le => value <= arg,
        Function::Ge => value >= arg,
        _ => value > arg,
    }
}

pub(crate) fn unknown_column(table: &TableSchema, name: &str) -> Error {
    Error::new(Tag::UnknownColumn, format!("No column {name} in table {}.", table.name))
}

pub(crate) fn type_mismatch(operator: &str, column: &str, column_type: &ColumnType) -> Error {
    let english = column_type.to_english();
    let details = format!(
        "Type mismatch: \"{operator}\" operator may not be applied to column {column} of type {english}."
    );
    Error::new(Tag::Syntax, details)
}
