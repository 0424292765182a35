//! HTML that cannot be anything but what was meant: markup comes from this program's text alone, everything else is
//! escaped.

use std::fmt::Display;

use serde_json::Value;

/// A page in the making.
#[derive(Debug, Default)]
pub(crate) struct Page(String);

impl Page {
    /// Markup. That it is `&'static` is the proof that no record wrote it.
    pub fn raw(&mut self, markup: &'static str) -> &mut Page {
        self.0.push_str(markup);
        self
    }

    /// Text, or the inside of a quoted attribute: markup in it becomes visible instead of working.
    pub fn text(&mut self, text: impl Display) -> &mut Page {
        for c in text.to_string().chars() {
            match c {
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '&' => self.0.push_str("&amp;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                // Controls have no business in HTML, except those that are white space.
                c if c.is_control() && !c.is_whitespace() => self.0.push('\u{fffd}'),
                c => self.0.push(c),
            }
        }
        self
    }

    /// One element with text in it.
    pub fn element(&mut self, open: &'static str, text: impl Display, close: &'static str) -> &mut Page {
        self.raw(open).text(text).raw(close)
    }

    /// Text with `code` between backquotes, as the messages of this program have it.
    pub fn prose(&mut self, text: &str) -> &mut Page {
        let parts: Vec<&str> = text.split('`').collect();
        for (index, part) in parts.iter().enumerate() {
            // The last part is outside of quotes, even when a quote is missing.
            if index % 2 == 1 && index + 1 < parts.len() {
                self.element("<code>", part, "</code>");
            } else {
                if index % 2 == 1 {
                    self.raw("`");
                }
                self.text(part);
            }
        }
        self
    }

    /// JSON inside a script element. Every `<` leaves as an escape, so nothing in it ends the element.
    pub fn json(&mut self, value: &Value) -> &mut Page {
        self.0.push_str(&value.to_string().replace('<', "\\u003c"));
        self
    }

    /// The finished page.
    pub fn into_string(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_never_markup() {
        let mut page = Page::default();
        page.text("<script>alert('x')</script> & \"quotes\"\u{0}\u{1b}\n");
        assert_eq!(
            page.into_string(),
            "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;quotes&quot;\u{fffd}\u{fffd}\n"
        );
    }

    #[test]
    fn prose_has_code() {
        let cases = [
            ("run `a <b>` now", "run <code>a &lt;b&gt;</code> now"),
            ("a ` alone", "a ` alone"),
            ("`x`", "<code>x</code>"),
            ("", ""),
        ];
        for (text, html) in cases {
            let mut page = Page::default();
            page.prose(text);
            assert_eq!(page.into_string(), html);
        }
    }

    #[test]
    fn json_does_not_end_its_script() {
        let mut page = Page::default();
        page.json(&serde_json::json!({"a": "</script><!--"}));
        assert_eq!(page.into_string(), "{\"a\":\"\\u003c/script>\\u003c!--\"}");
    }
}
