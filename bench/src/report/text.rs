//! Lines, paragraphs and tables of plain text, for terminals and for Markdown.

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

use super::Style;

/// The text so far.
pub(crate) struct Out {
    text: String,
    pub style: Style,
}

impl Out {
    pub fn new(style: Style) -> Out {
        Out {
            text: String::new(),
            style,
        }
    }

    pub fn into_string(self) -> String {
        self.text
    }

    pub fn line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    /// A table's lines.
    pub fn table(&mut self, table: &Table) {
        for line in table.trim_fmt().lines() {
            self.line(line);
        }
    }

    /// Words broken at spaces to fit, each line after `indent`.
    pub fn paragraph(&mut self, indent: &str, text: &str) {
        let room = usize::from(self.style.width_chars).saturating_sub(indent.len()).max(20);
        let mut line = String::new();
        for word in visible(text).split_whitespace() {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > room {
                self.line(&format!("{indent}{line}"));
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        if !line.is_empty() {
            self.line(&format!("{indent}{line}"));
        }
    }

    pub fn painted(&self, code: &str, text: &str) -> String {
        if self.style.colour {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.into()
        }
    }

    pub fn bold(&self, text: &str) -> String {
        self.painted("1", text)
    }
}

/// A record's text without control characters: it must not move the cursor.
pub(crate) fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A table of plain words; the columns in `right` are numbers.
pub(crate) fn table<const N: usize>(
    titles: &[&str; N],
    rows: &[[String; N]],
    right: &[usize],
    width_chars: u16,
) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    table.force_no_tty().set_width(width_chars);
    let cell = |index: usize, text: &str| {
        let alignment = if right.contains(&index) {
            CellAlignment::Right
        } else {
            CellAlignment::Left
        };
        Cell::new(visible(text)).set_alignment(alignment)
    };
    table.set_header(
        titles
            .iter()
            .enumerate()
            .map(|(index, title)| cell(index, title))
            .collect::<Vec<_>>(),
    );
    for row in rows {
        table.add_row(
            row.iter()
                .enumerate()
                .map(|(index, text)| cell(index, text))
                .collect::<Vec<_>>(),
        );
    }
    table
}

/// Text that stays text in a table cell: no new cell, no new line, no HTML, no image, no link.
pub(crate) fn markdown_text(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '|' => safe.push_str("\\|"),
            '<' => safe.push_str("&lt;"),
            '[' | ']' | '*' | '_' => {
                safe.push('\\');
                safe.push(c);
            }
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}
