//! The members of a request: their values as entry points provide them, and how a declaration reads and writes them.

use super::refusal::Refusal;
use std::borrow::Cow;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A value as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given<'a> {
    /// A string.
    Text(Cow<'a, str>),
    /// A number, with its digits as written.
    Number(Cow<'a, str>),
    /// Text that may stand for a string or a number, as in a query string.
    Word(Cow<'a, str>),
    /// An array of strings; `None` stands for an element of another type.
    Texts(Vec<Option<Cow<'a, str>>>),
    /// `true` or `false`.
    Flag(bool),
    /// A value of any type, as JSON. Entry points use it for objects and `null`.
    Json(Cow<'a, str>),
    /// A string that is not Unicode.
    Other,
}

/// The members of one request.
pub trait Members {
    /// The value of a member, if it was given. If several have the name, the last one counts.
    fn given(&self, name: &str) -> Option<Given<'_>>;
}

/// One member of a declaration: its name, and the value that was given for it.
pub struct Member<'a> {
    name: &'static str,
    given: Option<Given<'a>>,
}

impl<'a> Member<'a> {
    /// The member of this name.
    pub fn of(name: &'static str, members: &'a impl Members) -> Member<'a> {
        Member { name, given: members.given(name) }
    }
}

impl<'a> Member<'a> {
    /// The value that was given.
    pub(super) fn given(&self) -> Option<&Given<'a>> {
        self.given.as_ref()
    }

    pub(super) fn must_be(&self, what: impl Display) -> Refusal {
        Refusal::malformed(format!("{} must be {what}", self.name))
    }
}

/// An optional string.
pub fn text(member: Member<'_>) -> Result<Option<Box<str>>, Refusal> {
    match member.given {
        None => Ok(None),
        Some(Given::Text(text) | Given::Word(text)) => Ok(Some(text.into())),
        Some(_) => Err(member.must_be("a string")),
    }
}

/// A required string.
pub fn required(member: Member<'_>) -> Result<Box<str>, Refusal> {
    let name = member.name;
    text(member)?.ok_or(Refusal::MissingMember(name))
}

/// An optional string of bounded length.
pub fn short_text(member: Member<'_>, bytes_max: usize, what: &'static str) -> Result<Option<Box<str>>, Refusal> {
    let text = text(member)?;
    at_most(bytes_max, what, text.as_deref().map_or(0, str::len))?;
    Ok(text)
}

/// An optional integer. It is read as written: `4e3`, `4000.0` and `+4000` are refused.
pub fn integer<T>(member: Member<'_>, range: RangeInclusive<T>) -> Result<Option<T>, Refusal>
where
    T: FromStr + PartialOrd + Display,
{
    let number = match &member.given {
        None => return Ok(None),
        Some(Given::Number(digits) | Given::Word(digits)) if !digits.starts_with('+') => digits.parse().ok(),
        Some(_) => None,
    };
    match number.filter(|number| range.contains(number)) {
        Some(number) => Ok(Some(number)),
        None => Err(member.must_be(format_args!("an integer from {} to {}", range.start(), range.end()))),
    }
}

/// An optional array of words from a list; the default is an empty array.
pub fn words(member: Member<'_>, known: &[&str]) -> Result<Vec<Box<str>>, Refusal> {
    let texts = match &member.given {
        None => return Ok(Vec::new()),
        Some(Given::Texts(texts)) => {
            let known =
                |text: &Option<Cow<'_, str>>| text.as_deref().filter(|text| known.contains(text)).map(Box::from);
            texts.iter().map(known).collect::<Option<Vec<_>>>()
        }
        Some(_) => None,
    };
    texts.ok_or_else(|| member.must_be(format_args!("an array of {}", known.join(", "))))
}

/// An optional word from a list; the default is the first word.
pub fn word<T: Copy>(member: Member<'_>, known: &[(&str, T)]) -> Result<T, Refusal> {
    let found = match &member.given {
        None => known.first(),
        Some(Given::Text(text) | Given::Word(text)) => known.iter().find(|(word, _)| word == text),
        Some(_) => None,
    };
    let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
    found.map(|(_, value)| *value).ok_or_else(|| member.must_be(words.join(" or ")))
}

/// An optional `true` or `false`; the default is `false`.
pub fn flag(member: Member<'_>) -> Result<bool, Refusal> {
    let flag = match &member.given {
        None => Some(false),
        Some(Given::Flag(flag)) => Some(*flag),
        Some(Given::Word(word)) => word.parse().ok(),
        Some(_) => None,
    };
    flag.ok_or_else(|| member.must_be("true or false"))
}

/// Refuses a count over the limit.
pub fn at_most(limit: usize, what: &'static str, count: usize) -> Result<(), Refusal> {
    if count > limit { Err(Refusal::TooLarge { what, limit }) } else { Ok(()) }
}

/// A value of a declared type, as a client writes it.
pub trait Written {
    /// `None`: the member is omitted.
    fn written(&self) -> Option<Given<'_>>;
}

impl Written for Box<str> {
    fn written(&self) -> Option<Given<'_>> {
        Some(Given::Text(Cow::Borrowed(self)))
    }
}

impl Written for bool {
    fn written(&self) -> Option<Given<'_>> {
        self.then_some(Given::Flag(true))
    }
}

impl<T: Written> Written for Option<T> {
    fn written(&self) -> Option<Given<'_>> {
        self.as_ref().and_then(Written::written)
    }
}

impl Written for Vec<Box<str>> {
    fn written(&self) -> Option<Given<'_>> {
        let texts = || self.iter().map(|text| Some(Cow::Borrowed(&**text))).collect();
        (!self.is_empty()).then(|| Given::Texts(texts()))
    }
}

macro_rules! integers_are_written {
    ($($integer:ty),+) => {$(
        impl Written for $integer {
            fn written(&self) -> Option<Given<'_>> {
                Some(Given::Number(self.to_string().into()))
            }
        }
    )+};
}

integers_are_written!(u8, u16, u32, u64, usize);
