//! What stands on a terminal: colour where one looks, tables that align, text that cannot play tricks.

use std::error::Error;
use std::io::{self, IsTerminal as _, Write as _};

/// Colours, or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    /// Colours if standard output is a terminal that takes them and `NO_COLOR` is not set (no-color.org).
    pub(crate) fn for_stdout() -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { on: io::stdout().is_terminal() && !set("NO_COLOR") && !dumb }
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.wrap("32", text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    pub(crate) fn warning(self, text: &str) -> String {
        self.wrap("33", text)
    }

    /// A green ✔ or a red ✘.
    pub(crate) fn mark(self, good: bool) -> String {
        if good { self.good("✔") } else { self.bad("✘") }
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Lines with aligned columns. Widths are counted in characters, before anything is coloured.
#[derive(Debug)]
pub(crate) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
    right: [bool; N],
}

impl<const N: usize> Table<N> {
    /// A table that begins with this header.
    pub(crate) fn new(header: [&str; N]) -> Self {
        Self { rows: vec![header.map(str::to_owned)], right: [false; N] }
    }

    /// Aligns a column to the right, as numbers want it.
    pub(crate) fn right(mut self, column: usize) -> Self {
        if let Some(right) = self.right.get_mut(column) {
            *right = true;
        }
        self
    }

    pub(crate) fn push(&mut self, row: [String; N]) {
        self.rows.push(row);
    }

    /// The lines. `paint` colours the padded cell in that row (0 is the header) and column.
    pub(crate) fn lines(&self, paint: impl Fn(usize, usize, &str) -> String) -> Vec<String> {
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
        };
        let widths: [usize; N] = std::array::from_fn(|column| width(column).unwrap_or(0));
        let line = |(at, row): (usize, &[String; N])| {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let (width, last) = (widths[column], column + 1 == N);
                let padded = match self.right[column] {
                    true => format!("{cell:>width$}"),
                    false if last => cell.clone(),
                    false => format!("{cell:<width$}"),
                };
                line.push_str(if column == 0 { "  " } else { "   " });
                line.push_str(&paint(at, column, &padded));
            }
            line.trim_end().to_owned()
        };
        self.rows.iter().enumerate().map(line).collect()
    }
}

/// Somebody else's text as it may be shown: escaped, and cut to `most` characters.
///
/// Only letters and signs of ASCII pass: a kid may hold line breaks, terminal commands, or characters that
/// turn the direction of the text.
pub(crate) fn shown(text: &str, most: usize) -> String {
    let escaped: String = text.chars().take(most.saturating_add(1)).flat_map(char::escape_default).collect();
    // Quotes are no trick.
    let escaped = escaped.replace("\\\"", "\"").replace("\\'", "'");
    if escaped.chars().count() <= most {
        return escaped;
    }
    escaped.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// Writes to standard output. Who closes the pipe early has seen enough.
pub(crate) fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Pretty JSON of ASCII alone, and a line break: a terminal shows it and is not commanded by it.
pub(crate) fn json(value: &impl serde::Serialize) -> String {
    let text = serde_json::to_string_pretty(value).expect("plain data has string keys");
    let mut ascii = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        // What is not ASCII stands inside a string, where this is another way to write it (RFC 8259 §7).
        if c.is_ascii() && c != '\x7f' {
            ascii.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                ascii.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    ascii.push('\n');
    ascii
}

/// Tells standard error what went wrong, what lies below it, and what to do.
pub(crate) fn complain(error: &dyn Error, remedy: &str) {
    let whole = error.to_string();
    let (mut text, mut told) = (format!("error: {whole}\n"), whole.clone());
    let mut next = error.source();
    while let Some(cause) = next {
        let message = cause.to_string();
        // A cause that a message above ends with has been told.
        if !told.ends_with(&message) && !whole.ends_with(&message) {
            text.push_str(&format!("  caused by: {}\n", shown(&message, 300)));
        }
        told = message;
        next = cause.source();
    }
    text.push_str(&format!("help: {remedy}\n"));
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_by_characters_and_lines_end_clean() {
        let mut table = Table::new(["A", "N", "LAST"]).right(1);
        table.push(["äöü".into(), "7".into(), "x".into()]);
        table.push(["b".into(), "1234".into(), String::new()]);
        let lines = table.lines(|_, _, cell| cell.to_owned());
        assert_eq!(lines, ["  A        N   LAST", "  äöü      7   x", "  b     1234"]);
    }

    #[test]
    fn foreign_text_is_escaped_and_cut() {
        for (text, want) in [
            ("plain-Kid_1.2:3", "plain-Kid_1.2:3"),
            ("a\"b'c", "a\"b'c"),
            ("\x1b[2J\n", "\\u{1b}[2J\\n"),
            ("\u{202e}x", "\\u{202e}x"),
            ("aaaaaaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaaaaaa"),
            ("aaaaaaaaaaaaaaaaaaaab", "aaaaaaaaaaaaaaaaaaa…"),
        ] {
            assert_eq!(shown(text, 20), want, "{text:?}");
        }
    }

    #[test]
    fn json_is_ascii_and_means_the_same() {
        let value = serde_json::json!({"kid": "é\u{9b}\u{7f}😀\u{202e}"});
        let text = json(&value);
        assert!(text.is_ascii() && !text.contains('\x7f'), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
