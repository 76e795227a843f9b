//! Values as people write and read them: `5`, `[1, 2]`, `{key="a b"}`, `@name`.
//!
//! Reading is lenient (`1,2,5-7`, braces optional), printing is exact: what is printed reads back as the same value.

use super::error::{Result, fatal};
use ovsdb::schema::{AtomType, BaseType, ColumnType};
use ovsdb::{Atom, Datum, Real, Uuid, parse_uuid_text};
use std::fmt::Write as _;

/// More elements than this must be given as several ranges.
const LONGEST_RANGE: i64 = 4096;

/// Gives `@name` its meaning. The flag says whether the reference keeps the row alive.
pub type Resolve<'a> = &'a mut dyn FnMut(&str, Option<bool>) -> Uuid;

/// Takes the next word off `rest`: up to a delimiter outside of double quotes.
///
/// # Errors
/// If a quote is still open at the end.
pub fn token<'a>(rest: &mut &'a str) -> Result<&'a str> {
    let text = *rest;
    let mut quoted = false;
    let mut escaped = false;
    let mut end = text.len();
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if !quoted && is_delimiter(byte) => {
                end = at;
                break;
            }
            _ => {}
        }
    }
    if escaped {
        return fatal(format!("{text}: backslash at end of argument"));
    }
    if quoted {
        return fatal(format!("{text}: quoted string extends past end of argument"));
    }
    // Delimiters are ASCII, so that both halves are whole characters.
    let (word, remaining) = text.split_at(end);
    *rest = remaining;
    Ok(word)
}

fn is_delimiter(byte: u8) -> bool {
    b":=, []{}!<>".contains(&byte)
}

/// Reads one atom. A range has no place here.
pub fn parse_atom(text: &str, base: &BaseType, resolve: Resolve<'_>) -> Result<Atom> {
    let atom = match base.atom_type() {
        AtomType::Integer => match text.trim_start().parse() {
            Ok(value) => Atom::Integer(value),
            Err(_) => return fatal(format!("\"{text}\" is not a valid integer or range")),
        },
        AtomType::Real => match text.parse().ok().and_then(Real::new) {
            Some(value) => Atom::Real(value),
            None => return fatal(format!("\"{text}\" is not a valid real number")),
        },
        AtomType::Boolean => match text {
            "true" | "yes" | "on" | "1" => Atom::Boolean(true),
            "false" | "no" | "off" | "0" => Atom::Boolean(false),
            _ => return fatal(format!("\"{text}\" is not a valid boolean (use \"true\" or \"false\")")),
        },
        AtomType::String => Atom::from(parse_string(text)?),
        AtomType::Uuid if text.starts_with('@') => {
            Atom::Uuid(resolve(text, base.reference().map(|reference| reference.strong)))
        }
        AtomType::Uuid => match parse_uuid_text(text) {
            Some(uuid) => Atom::Uuid(uuid),
            None => return fatal(format!("\"{text}\" is not a valid UUID")),
        },
    };
    match base.check(&atom) {
        Ok(()) => Ok(atom),
        Err(error) => fatal(error.to_string()),
    }
}

fn parse_string(text: &str) -> Result<String> {
    if text.is_empty() {
        return fatal("An empty string is not valid as input; use \"\" to represent the empty string");
    }
    let Some(opened) = text.strip_prefix('"') else { return Ok(text.to_owned()) };
    let Some(inner) = opened.strip_suffix('"') else {
        return fatal(format!("{text}: missing quote at end of quoted string"));
    };
    unescape(inner).or_else(|problem| fatal(format!("{text}: {problem}")))
}

/// Undoes JSON's escapes (RFC 8259 section 7).
fn unescape(inner: &str) -> std::result::Result<String, String> {
    let mut plain = String::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        match c {
            '"' => return Err("quoted string may not include unescaped \"".into()),
            '\0'..' ' => return Err(format!("U+{:04X} must be escaped in quoted string", u32::from(c))),
            '\\' => plain.push(match rest.next() {
                None => return Err("quoted string may not end with backslash".into()),
                Some(same @ ('"' | '\\' | '/')) => same,
                Some('b') => '\u{8}',
                Some('f') => '\u{c}',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('u') => unicode_escape(&mut rest)?,
                Some(other) => return Err(format!("bad escape \\{other}")),
            }),
            other => plain.push(other),
        }
    }
    Ok(plain)
}

fn unicode_escape(rest: &mut std::str::Chars<'_>) -> std::result::Result<char, String> {
    let mut units = vec![unicode_unit(rest)?];
    if matches!(units.as_slice(), [0]) {
        return Err("null bytes not supported in quoted strings".into());
    }
    if matches!(units.as_slice(), [0xd800..0xdc00]) {
        let Some(tail) = rest.as_str().strip_prefix("\\u") else {
            return Err("malformed escaped surrogate pair".into());
        };
        *rest = tail.chars();
        units.push(unicode_unit(rest)?);
    }
    match char::decode_utf16(units).next() {
        Some(Ok(c)) => Ok(c),
        _ => Err("second half of escaped surrogate pair is not trailing surrogate".into()),
    }
}

/// The four hexadecimal digits after `\u`.
fn unicode_unit(rest: &mut std::str::Chars<'_>) -> std::result::Result<u16, String> {
    let Some((digits, tail)) = rest.as_str().split_at_checked(4) else {
        return Err("quoted string ends within \\u escape".to_owned());
    };
    *rest = tail.chars();
    u16::from_str_radix(digits, 16).map_err(|_| "malformed \\u escape".to_owned())
}

/// Reads a whole column value: a scalar, a set or a map with any of its spellings.
pub fn parse_datum(text: &str, column: &ColumnType, resolve: Resolve<'_>) -> Result<Datum> {
    let (open, close) = if column.is_map() { ('{', '}') } else { ('[', ']') };
    let mut rest = skip(text, " ");
    let bracketed = rest.strip_prefix(open).map(|inner| rest = skip(inner, " ")).is_some();
    if !bracketed && rest.is_empty() {
        let (empty, kind) = if column.is_map() { ("{}", "map") } else { ("[]", "set") };
        return fatal(format!("use \"{empty}\" to specify the empty {kind}"));
    }
    let mut elements = Elements { text, column, atoms: Vec::new(), pairs: Vec::new() };
    let at_end = |rest: &str| rest.is_empty() || bracketed && rest.starts_with(close);
    while !at_end(rest) {
        elements.parse_next(&mut rest, resolve)?;
        rest = skip(rest, ", ");
    }
    if bracketed {
        let Some(after) = rest.strip_prefix(close) else {
            return fatal(format!("{text}: missing \"{close}\" at end of data"));
        };
        if !skip(after, " ").is_empty() {
            return fatal(format!("{text}: trailing garbage after \"{close}\""));
        }
    }
    elements.finish()
}

fn skip<'a>(text: &'a str, ignored: &str) -> &'a str {
    text.trim_start_matches(|c| ignored.contains(c))
}

struct Elements<'a> {
    text: &'a str,
    column: &'a ColumnType,
    atoms: Vec<Atom>,
    pairs: Vec<(Atom, Atom)>,
}

impl Elements<'_> {
    fn parse_next(&mut self, rest: &mut &str, resolve: Resolve<'_>) -> Result<()> {
        let word = self.word(rest)?;
        let Some(value) = &self.column.value else {
            return match range(word, &self.column.key)? {
                Some(range) => {
                    self.atoms.extend(range.map(Atom::Integer));
                    Ok(())
                }
                None => parse_atom(word, &self.column.key, resolve).map(|atom| self.atoms.push(atom)),
            };
        };
        let key = parse_atom(word, &self.column.key, resolve)?;
        *rest = skip(rest, " ");
        match rest.strip_prefix('=') {
            Some(after) => *rest = skip(after, " "),
            // The stock tool's text stops here at the end of the argument: it prints a NUL as a character.
            None => match rest.chars().next() {
                Some(c) => return fatal(format!("{}: syntax error at \"{c}\" expecting \"=\"", self.text)),
                None => return fatal(format!("{}: syntax error at \"", self.text)),
            },
        }
        let word = if rest.is_empty() { "" } else { self.word(rest)? };
        self.pairs.push((key, parse_atom(word, value, resolve)?));
        Ok(())
    }

    fn word<'r>(&self, rest: &mut &'r str) -> Result<&'r str> {
        let word = token(rest)?;
        match rest.chars().next() {
            Some(c) if word.is_empty() => {
                fatal(format!("{}: unexpected \"{c}\" parsing {}", self.text, in_english(self.column)))
            }
            _ => Ok(word),
        }
    }

    fn finish(self) -> Result<Datum> {
        let given = self.atoms.len() + self.pairs.len();
        let (text, column) = (self.text, self.column);
        let noun = if column.is_map() { "pair(s)" } else { "value(s)" };
        if given < column.min as usize {
            return fatal(format!(
                "{text}: {given} {noun} specified but the minimum number is {}",
                column.min
            ));
        }
        if given > column.max as usize {
            return fatal(format!(
                "{text}: {given} {noun} specified but the maximum number is {}",
                column.max
            ));
        }
        let (datum, duplicate) = if column.is_map() {
            (Datum::map(self.pairs), "map contains duplicate key")
        } else {
            (Datum::set(self.atoms), "set contains duplicate value")
        };
        if datum.len() == given { Ok(datum) } else { fatal(format!("{text}: {duplicate}")) }
    }
}

/// `5-7` as the integers that it stands for; None if `word` is no range.
fn range(word: &str, base: &BaseType) -> Result<Option<std::ops::RangeInclusive<i64>>> {
    if base.atom_type() != AtomType::Integer {
        return Ok(None);
    }
    // A dash in front is a sign.
    let Some(dash) = word.bytes().skip(1).position(|byte| byte == b'-').map(|at| at + 1) else {
        return Ok(None);
    };
    let (Some(Ok(start)), Some(Ok(end))) =
        (word.get(..dash).map(str::parse::<i64>), word.get(dash + 1..).map(str::parse::<i64>))
    else {
        return Ok(None);
    };
    if end < start {
        return fatal(format!("\"{word}\" is not a valid range. Range end cannot be before start."));
    }
    for bound in [start, end] {
        base.check(&Atom::Integer(bound)).or_else(|error| fatal(error.to_string()))?;
    }
    if end.checked_sub(start).is_none_or(|length| length >= LONGEST_RANGE) {
        return fatal(format!("Range \"{word}\" is too big. Maximum allowed size is {LONGEST_RANGE}."));
    }
    Ok(Some(start..=end))
}

/// A column's type in words, as error messages name it.
pub fn in_english(column: &ColumnType) -> String {
    let key = column.key.atom_type().as_str();
    if column.is_scalar() {
        return key.to_owned();
    }
    let (kind, elements) = match &column.value {
        None => ("set", format!("{key}s")),
        Some(value) => ("map", format!("({key}, {}) pairs", value.atom_type().as_str())),
    };
    match (column.min, column.max) {
        (0, u32::MAX) => format!("{kind} of {elements}"),
        (min, u32::MAX) => format!("{kind} of {min} or more {elements}"),
        (0, max) => format!("{kind} of up to {max} {elements}"),
        (min, max) => format!("{kind} of {min} to {max} {elements}"),
    }
}

/// A value as `get` and `list` print it.
pub fn print_datum(datum: &Datum, column: &ColumnType) -> String {
    let mut text = String::new();
    if column.is_map() {
        text.push('{');
        for (i, (key, value)) in datum.pairs().iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            let _ = write!(text, "{comma}{key}={value}");
        }
        text.push('}');
        return text;
    }
    let bare = column.max == 1 && datum.len() == 1;
    let atoms: Vec<String> = datum.atoms().iter().map(Atom::to_string).collect();
    let atoms = atoms.join(", ");
    if bare { atoms } else { format!("[{atoms}]") }
}

/// A value without punctuation, for scripts (`--data=bare`).
pub fn print_bare(datum: &Datum) -> String {
    let atoms = datum.atoms().iter().map(plain);
    let pairs = datum.pairs().iter().map(|(key, value)| format!("{}={}", plain(key), plain(value)));
    atoms.chain(pairs).collect::<Vec<_>>().join(" ")
}

/// An atom without quotes.
pub fn plain(atom: &Atom) -> String {
    match atom {
        Atom::String(text) => text.to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ovsdb::schema::{Range, Reference};
    use proptest::prelude::*;

    fn set_of(atom_type: AtomType, min: u32, max: u32) -> ColumnType {
        ColumnType { key: BaseType::new(atom_type), value: None, min, max }
    }

    fn map_of(key: AtomType, value: AtomType) -> ColumnType {
        ColumnType { key: BaseType::new(key), value: Some(BaseType::new(value)), min: 0, max: u32::MAX }
    }

    fn parse(text: &str, column: &ColumnType) -> Result<Datum> {
        parse_datum(text, column, &mut |_, _| Uuid::nil())
    }

    fn complaint(text: &str, column: &ColumnType) -> String {
        parse(text, column).unwrap_err().to_string()
    }

    #[test]
    fn sets_have_many_spellings() {
        let integers = set_of(AtomType::Integer, 0, u32::MAX);
        let expected = Datum::set([1, 2, 5, 6, 7]);
        for text in ["1,2,5-7", "[1, 2, 5, 6, 7]", "5-7 2 1", " [ 1,2 5-7 ] ", "1,,2,5-7,"] {
            assert_eq!(parse(text, &integers), Ok(expected.clone()), "{text}");
        }
        assert_eq!(parse("[]", &integers), Ok(Datum::empty_set()));
    }

    #[test]
    fn maps_have_many_spellings() {
        let strings = map_of(AtomType::String, AtomType::String);
        let expected = Datum::map([("a", "b c"), ("d", "e")]);
        for text in ["a=\"b c\",d=e", "{a=\"b c\", d=e}", "d = e a = \"b c\"", "{ \"d\"=\"e\" a=\"b c\" } "] {
            assert_eq!(parse(text, &strings), Ok(expected.clone()), "{text}");
        }
        assert_eq!(parse("{}", &strings), Ok(Datum::empty_map()));
    }

    #[test]
    fn each_mistake_has_its_own_words() {
        let integers = set_of(AtomType::Integer, 0, 3);
        let strings = map_of(AtomType::String, AtomType::String);
        for (text, expected) in [
            ("x", "\"x\" is not a valid integer or range"),
            ("1,1", "1,1: set contains duplicate value"),
            ("1-4", "1-4: 4 value(s) specified but the maximum number is 3"),
            ("4-1", "\"4-1\" is not a valid range. Range end cannot be before start."),
            ("0-4096", "Range \"0-4096\" is too big. Maximum allowed size is 4096."),
            ("-9223372036854775808-9223372036854775807", RANGE_TOO_BIG),
            ("[1", "[1: missing \"]\" at end of data"),
            ("[1]]", "[1]]: trailing garbage after \"]\""),
            ("{1}", "{1}: unexpected \"{\" parsing set of up to 3 integers"),
            ("", "use \"[]\" to specify the empty set"),
        ] {
            assert_eq!(complaint(text, &integers), expected, "{text}");
        }
        for (text, expected) in [
            ("a", "a: syntax error at \""),
            ("a,b=c", "a,b=c: syntax error at \",\" expecting \"=\""),
            ("a=", "An empty string is not valid as input; use \"\" to represent the empty string"),
            ("a=\"b", "\"b: quoted string extends past end of argument"),
            ("a=\"b\\", "\"b\\: backslash at end of argument"),
            ("a=b,a=c", "a=b,a=c: map contains duplicate key"),
            ("", "use \"{}\" to specify the empty map"),
        ] {
            assert_eq!(complaint(text, &strings), expected, "{text}");
        }
    }

    const RANGE_TOO_BIG: &str =
        "Range \"-9223372036854775808-9223372036854775807\" is too big. Maximum allowed size is 4096.";

    #[test]
    fn names_stand_for_rows_and_say_how_they_are_held() {
        let reference = Reference { table: "Port".to_owned(), strong: false };
        let key = BaseType { range: Range::Uuid(Some(reference)), choices: Vec::new() };
        let ports = ColumnType { key, value: None, min: 0, max: u32::MAX };
        let row = Uuid::from_u128(7);
        let mut seen = Vec::new();
        let datum = parse_datum("@a", &ports, &mut |name, strong| {
            seen.push((name.to_owned(), strong));
            row
        });
        assert_eq!(datum, Ok(Datum::scalar(row)));
        assert_eq!(seen, [("@a".to_owned(), Some(false))]);
    }

    #[test]
    fn types_in_english() {
        assert_eq!(in_english(&set_of(AtomType::String, 1, 1)), "string");
        assert_eq!(in_english(&set_of(AtomType::Uuid, 1, u32::MAX)), "set of 1 or more uuids");
        assert_eq!(in_english(&set_of(AtomType::String, 0, u32::MAX)), "set of strings");
        assert_eq!(
            in_english(&map_of(AtomType::Integer, AtomType::String)),
            "map of (integer, string) pairs"
        );
    }

    fn without_null() -> impl Strategy<Value = String> {
        // A NUL has no place in a database.
        any::<String>().prop_map(|text| text.replace('\0', ""))
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(texts in proptest::collection::vec(without_null(), 0..5)) {
            let column = set_of(AtomType::String, 0, u32::MAX);
            let datum = Datum::set(texts.iter().map(String::as_str));
            prop_assert_eq!(parse(&print_datum(&datum, &column), &column), Ok(datum));
        }

        #[test]
        fn printed_maps_read_back(pairs in proptest::collection::vec((any::<i64>(), without_null()), 0..5)) {
            let column = map_of(AtomType::Integer, AtomType::String);
            let datum = Datum::map(pairs.iter().map(|(key, value)| (*key, value.as_str())));
            prop_assert_eq!(parse(&print_datum(&datum, &column), &column), Ok(datum));
        }

        #[test]
        fn no_argument_makes_it_panic(text in any::<String>()) {
            for column in [
                set_of(AtomType::Integer, 0, 3),
                set_of(AtomType::Uuid, 1, 1),
                set_of(AtomType::Real, 0, 1),
                map_of(AtomType::String, AtomType::Boolean),
            ] {
                let _ = parse(&text, &column);
            }
        }
    }
}
