//! Raw spans of a JSON text that a parser has already found valid.

use std::borrow::Cow;

/// A JSON string as it was written and as it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonString<'a> {
    /// Between the quotes, as written: may be put between quotes again, byte for byte.
    pub raw: &'a str,
    /// Unescaped.
    pub value: Cow<'a, str>,
}
