//! What commands print: lines of text, or tables in one of five formats.

use super::text::{print_bare, print_datum};
use ovsdb::schema::{AtomType, ColumnType};
use ovsdb::{Datum, Uuid, parse_uuid_text};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::sync::LazyLock;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableFormat {
    Table,
    List,
    Html,
    Csv,
    Json,
}

impl TableFormat {
    pub fn from_name(name: &str) -> Option<TableFormat> {
        Some(match name {
            "table" => TableFormat::Table,
            "list" => TableFormat::List,
            "html" => TableFormat::Html,
            "csv" => TableFormat::Csv,
            "json" => TableFormat::Json,
            _ => return None,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CellFormat {
    String,
    Bare,
    Json,
}

impl CellFormat {
    pub fn from_name(name: &str) -> Option<CellFormat> {
        Some(match name {
            "string" => CellFormat::String,
            "bare" => CellFormat::Bare,
            "json" => CellFormat::Json,
            _ => return None,
        })
    }
}

/// How tables are printed.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    pub format: TableFormat,
    pub cells: CellFormat,
    pub headings: bool,
    /// JSON over many lines.
    pub pretty: bool,
    /// In bytes; 0 for no limit.
    pub max_column_width: usize,
}

impl Default for Style {
    fn default() -> Style {
        Style {
            format: TableFormat::List,
            cells: CellFormat::String,
            headings: true,
            pretty: false,
            max_column_width: 0,
        }
    }
}

/// What one command has to say.
#[derive(Debug)]
pub enum Output {
    Text(String),
    Table(Table),
    /// The UUID that a new row goes by until the server has given it a real one.
    Created(Uuid),
}

impl Output {
    pub fn nothing() -> Output {
        Output::Text(String::new())
    }

    pub fn lines<S: AsRef<str>>(lines: impl IntoIterator<Item = S>) -> Output {
        Output::Text(lines.into_iter().map(|line| format!("{}\n", line.as_ref())).collect())
    }
}

/// All that `text` has to say on one line.
pub fn one_line(text: &str) -> String {
    let text = text.strip_suffix('\n').unwrap_or(text);
    format!("{}\n", text.replace('\\', "\\\\").replace('\n', "\\n"))
}

#[derive(Debug, Default)]
pub struct Table {
    pub headings: Vec<String>,
    pub rows: Vec<Vec<Cell>>,
}

/// A value with what is needed to print it.
#[derive(Debug)]
pub struct Cell {
    datum: Datum,
    column_type: ColumnType,
}

static UUID: LazyLock<ColumnType> = LazyLock::new(|| ColumnType::scalar(AtomType::Uuid));

impl Cell {
    pub fn new(datum: Datum, column_type: &ColumnType) -> Cell {
        Cell { datum, column_type: column_type.clone() }
    }

    pub fn uuid(uuid: Uuid) -> Cell {
        Cell::new(Datum::scalar(uuid), &UUID)
    }

    fn text(&self, format: CellFormat) -> String {
        match format {
            CellFormat::String => print_datum(&self.datum, &self.column_type),
            CellFormat::Bare => print_bare(&self.datum),
            CellFormat::Json => self.datum.to_json().to_string(),
        }
    }
}

impl Table {
    /// The table as text. `first`: nothing stands above it from which it would have to be set off.
    pub fn render(&self, style: &Style, first: bool) -> String {
        let mut text = String::new();
        if !first && matches!(style.format, TableFormat::Table | TableFormat::List | TableFormat::Csv) {
            text.push('\n');
        }
        match style.format {
            TableFormat::Table => self.render_table(style, &mut text),
            TableFormat::List => self.render_list(style, &mut text),
            TableFormat::Csv => self.render_csv(style, &mut text),
            TableFormat::Html => self.render_html(style, &mut text),
            TableFormat::Json => {
                let json = self.to_json();
                text += &if style.pretty { pretty(&json, 0) } else { json.to_string() };
                text.push('\n');
            }
        }
        text
    }

    fn cells(&self, style: &Style) -> Vec<Vec<String>> {
        let row = |row: &Vec<Cell>| row.iter().map(|cell| cell.text(style.cells)).collect();
        self.rows.iter().map(row).collect()
    }

    fn render_table(&self, style: &Style, text: &mut String) {
        let rows = self.cells(style);
        let limit = if style.max_column_width == 0 { usize::MAX } else { style.max_column_width };
        let width_of = |column: usize, heading: &String| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(String::len);
            let least = if style.headings { heading.len() } else { 0 };
            cells.max().unwrap_or(0).min(limit).max(least)
        };
        let widths: Vec<usize> =
            self.headings.iter().enumerate().map(|(i, heading)| width_of(i, heading)).collect();
        let mut line = |cells: &[String]| {
            let joined = cells
                .iter()
                .zip(&widths)
                .map(|(cell, width)| fit(cell, *width))
                .collect::<Vec<_>>()
                .join(" ");
            *text += joined.trim_end_matches(' ');
            text.push('\n');
        };
        if style.headings {
            line(&self.headings);
            line(&widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>());
        }
        rows.iter().for_each(|row| line(row));
    }

    fn render_list(&self, style: &Style, text: &mut String) {
        for (i, row) in self.cells(style).iter().enumerate() {
            if i > 0 {
                text.push('\n');
            }
            for (heading, cell) in self.headings.iter().zip(row) {
                let _ = match style.headings {
                    true => writeln!(text, "{heading:20}: {cell}"),
                    false => writeln!(text, "{cell}"),
                };
            }
        }
    }

    fn render_csv(&self, style: &Style, text: &mut String) {
        let quote = |cell: &String| match cell.contains(['"', ',', '\n', '\r']) {
            true => format!("\"{}\"", cell.replace('"', "\"\"")),
            false => cell.clone(),
        };
        let headings = style.headings.then(|| self.headings.clone());
        for row in headings.into_iter().chain(self.cells(style)) {
            *text += &row.iter().map(quote).collect::<Vec<_>>().join(",");
            text.push('\n');
        }
    }

    fn render_html(&self, style: &Style, text: &mut String) {
        *text += "<table border=1>\n";
        let mut row = |element: &str, cells: Vec<String>| {
            *text += "  <tr>\n";
            for cell in cells {
                let _ = writeln!(text, "    <{element}>{cell}</{element}>");
            }
            *text += "  </tr>\n";
        };
        if style.headings {
            row("th", self.headings.iter().map(|heading| escape_html(heading)).collect());
        }
        for cells in self.cells(style) {
            let cells = self.headings.iter().zip(cells);
            row("td", cells.map(|(heading, cell)| link_uuids(&cell, heading == "_uuid")).collect());
        }
        *text += "</table>\n";
    }

    fn to_json(&self) -> Value {
        let row = |row: &Vec<Cell>| row.iter().map(|cell| cell.datum.to_json()).collect::<Vec<_>>();
        json!({ "data": self.rows.iter().map(row).collect::<Vec<_>>(), "headings": self.headings })
    }
}

/// `cell` cut or filled up to `width` bytes: the stock tool counts bytes too, and scripts cut columns by position.
fn fit(cell: &str, width: usize) -> String {
    let end = (0..=width.min(cell.len())).rev().find(|end| cell.is_char_boundary(*end)).unwrap_or(0);
    let mut fitted = cell.get(..end).unwrap_or_default().to_owned();
    fitted.extend(std::iter::repeat_n(' ', width - end));
    fitted
}

fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Turns each UUID into a link to the row where it is an anchor.
fn link_uuids(cell: &str, is_anchor: bool) -> String {
    const LENGTH: usize = 36;
    let mut html = String::new();
    let mut rest = cell;
    while let Some(next) = rest.chars().next() {
        let (taken, added) = match rest.get(..LENGTH).filter(|text| parse_uuid_text(text).is_some()) {
            Some(uuid) => {
                let attribute =
                    if is_anchor { format!("name=\"{uuid}\"") } else { format!("href=\"#{uuid}\"") };
                let short = uuid.get(..8).unwrap_or(uuid);
                (LENGTH, format!("<a {attribute}>{short}</a>"))
            }
            None => (next.len_utf8(), escape_html(next.encode_utf8(&mut [0; 4]))),
        };
        html += &added;
        rest = rest.get(taken..).unwrap_or_default();
    }
    html
}

/// JSON with one member a line, closing brackets behind the last.
fn pretty(json: &Value, depth: usize) -> String {
    let indent = "  ".repeat(depth + 1);
    let items: Vec<String> = match json {
        Value::Array(items) => items.iter().map(|item| pretty(item, depth + 1)).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| format!("{}: {}", Value::from(name.as_str()), pretty(value, depth + 1)))
            .collect(),
        scalar => return scalar.to_string(),
    };
    let body = items.join(&format!(",\n{indent}"));
    match (json.is_array(), items.is_empty()) {
        (true, true) => "[]".to_owned(),
        (true, false) => format!("[\n{indent}{body}]"),
        (false, true) => "{}".to_owned(),
        (false, false) => format!("{{\n{indent}{body}}}"),
    }
}
