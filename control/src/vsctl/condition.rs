//! `column[:key]=value` and the other comparisons that select rows.

use super::column::{Named, find_column, split};
use super::error::{Result, fatal};
use super::symbols::Symbols;
use super::text::{parse_atom, parse_datum};
use super::transaction::Transaction;
use ovsdb::schema::{ColumnType, TableSchema};
use ovsdb::{Datum, Uuid};
use std::cmp::Ordering;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Eq,
    Ne,
    Lt,
    Gt,
    Le,
    Ge,
    SetEq,
    SetNe,
    SetLt,
    SetGt,
    SetLe,
    SetGe,
    In,
    NotIn,
}

/// In the order in which messages list them.
const OPERATORS: &[(&str, Operator)] = &[
    ("=", Operator::Eq),
    ("!=", Operator::Ne),
    ("<", Operator::Lt),
    (">", Operator::Gt),
    ("<=", Operator::Le),
    (">=", Operator::Ge),
    ("{=}", Operator::SetEq),
    ("{!=}", Operator::SetNe),
    ("{<}", Operator::SetLt),
    ("{>}", Operator::SetGt),
    ("{<=}", Operator::SetLe),
    ("{>=}", Operator::SetGe),
    ("{in}", Operator::In),
    ("{not-in}", Operator::NotIn),
];

impl Operator {
    /// Takes the longest operator off `rest`.
    fn take(rest: &str) -> Option<(Operator, &str)> {
        let fitting =
            OPERATORS.iter().filter_map(|(sign, operator)| Some((sign, *operator, rest.strip_prefix(sign)?)));
        fitting.max_by_key(|(sign, ..)| sign.len()).map(|(_, operator, rest)| (operator, rest))
    }

    /// Whether it compares whole sets, for which a key that is not there is the empty set.
    fn is_of_sets(self) -> bool {
        !matches!(
            self,
            Operator::Eq | Operator::Ne | Operator::Lt | Operator::Gt | Operator::Le | Operator::Ge
        )
    }

    fn holds(self, a: &Datum, b: &Datum) -> bool {
        match self {
            Operator::Eq | Operator::SetEq => a == b,
            Operator::Ne | Operator::SetNe => a != b,
            Operator::Lt => order(a, b).is_lt(),
            Operator::Gt => order(a, b).is_gt(),
            Operator::Le => order(a, b).is_le(),
            Operator::Ge => order(a, b).is_ge(),
            Operator::SetLt => a.len() < b.len() && includes(b, a),
            Operator::SetGt => b.len() < a.len() && includes(a, b),
            Operator::SetLe | Operator::In => includes(b, a),
            Operator::SetGe => includes(a, b),
            Operator::NotIn => {
                !a.atoms().iter().any(|atom| b.contains(atom))
                    && !a.pairs().iter().any(|(key, value)| b.get(key) == Some(value))
            }
        }
    }
}

/// More elements are more; then keys decide, one after the other, and only then values.
fn order(a: &Datum, b: &Datum) -> Ordering {
    let keys = |datum: &Datum| datum.pairs().iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
    let by_length = a.len().cmp(&b.len());
    by_length
        .then_with(|| a.atoms().cmp(b.atoms()))
        .then_with(|| keys(a).cmp(&keys(b)))
        .then_with(|| a.cmp(b))
}

fn includes(whole: &Datum, part: &Datum) -> bool {
    part.atoms().iter().all(|atom| whole.contains(atom))
        && part.pairs().iter().all(|(key, value)| whole.get(key) == Some(value))
}

/// Whether `row` meets the condition in `argument`.
pub fn is_met(
    txn: &Transaction<'_>,
    symbols: &mut Symbols,
    table: &TableSchema,
    row: Uuid,
    argument: &str,
) -> Result<bool> {
    let Named { column, key, rest } = split(argument)?;
    let column = find_column(table, column)?;
    let (operator, value) = match Operator::take(rest) {
        Some((operator, value)) if !value.is_empty() => (operator, value),
        _ => {
            return fatal(format!(
                "{argument}: argument does not end in {} followed by a value.",
                all_operators()
            ));
        }
    };
    let actual = txn.read(&table.name, row, &column.name);
    let column_type = &column.column_type;
    let mut resolve = symbols.resolver();
    let Some(key) = key else {
        let wanted = parse_datum(value, column_type, &mut resolve)?;
        return Ok(operator.holds(&actual, &wanted));
    };
    let Some(value_type) = &column_type.value else {
        return fatal(format!("cannot specify key to check for non-map column {}", column.name));
    };
    let key = parse_atom(key, &column_type.key, &mut resolve)?;
    let set = ColumnType { key: value_type.clone(), value: None, min: 0, max: u32::MAX };
    let wanted = parse_datum(value, &set, &mut resolve)?;
    match actual.get(&key) {
        None if !operator.is_of_sets() => Ok(false),
        held => Ok(operator.holds(&Datum::optional(held.cloned()), &wanted)),
    }
}

fn all_operators() -> String {
    let signs: Vec<String> = OPERATORS.iter().map(|(sign, _)| format!("\"{sign}\"")).collect();
    match signs.split_last() {
        Some((last, others)) => format!("{}, or {last}", others.join(", ")),
        None => String::new(),
    }
}
