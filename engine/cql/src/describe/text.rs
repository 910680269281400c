//! Text that is built line by line.

use ceto_model::types::quote_identifier;

/// CQL text with indented lines.
#[derive(Default)]
pub(super) struct CqlText {
    text: String,
    indent: usize,
}

const INDENTATION: &str = "    ";

impl CqlText {
    /// Adds to the last line.
    pub(super) fn add(&mut self, text: &str) -> &mut Self {
        if self.text.ends_with('\n') {
            for _ in 0..self.indent {
                self.text.push_str(INDENTATION);
            }
        }
        self.text.push_str(text);
        self
    }

    /// Adds an identifier, quoted where needed.
    pub(super) fn add_name(&mut self, name: &str) -> &mut Self {
        self.add(&quote_identifier(name))
    }

    /// Adds a string constant.
    pub(super) fn add_string(&mut self, text: &str) -> &mut Self {
        self.add(&string_constant(text))
    }

    /// Adds items with commas between them.
    pub(super) fn add_list<T>(&mut self, items: &[T], mut add: impl FnMut(&mut Self, &T)) -> &mut Self {
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                self.add(", ");
            }
            add(self, item);
        }
        self
    }

    /// Adds a map of strings.
    pub(super) fn add_map<'m>(
        &mut self,
        entries: impl IntoIterator<Item = (&'m String, &'m String)>,
    ) -> &mut Self {
        self.add("{");
        for (i, (key, value)) in entries.into_iter().enumerate() {
            if i > 0 {
                self.add(", ");
            }
            self.add_string(key).add(": ").add_string(value);
        }
        self.add("}")
    }

    /// Ends the line.
    pub(super) fn end_line(&mut self) -> &mut Self {
        self.text.push('\n');
        self
    }

    /// Indents the lines that begin from here on.
    pub(super) fn indent(&mut self) -> &mut Self {
        self.indent += 1;
        self
    }

    /// The opposite of [`CqlText::indent`].
    pub(super) fn outdent(&mut self) -> &mut Self {
        self.indent -= 1;
        self
    }

    pub(super) fn finish(self) -> String {
        self.text
    }
}

fn string_constant(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
