//! Patterns for channel names: `*` stands for any text, every other character for itself.

/// Whether a name fits a pattern.
pub fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    // The earliest match of each part leaves the most text for the parts behind it.
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Whether every name that fits `inner` fits `outer`, too.
pub(super) fn covers(outer: &str, inner: &str) -> bool {
    // A star in `inner` is like a character that `outer` does not name: only a star of `outer` matches it.
    matches(outer, inner)
}

/// Whether some name that fits the pattern begins with `prefix`.
pub(super) fn reaches(pattern: &str, prefix: &str) -> bool {
    pattern.starts_with(prefix) || pattern.split_once('*').is_some_and(|(head, _)| prefix.starts_with(head))
}

#[cfg(test)]
pub(in crate::config) mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_star_matches_any_text() {
        for (pattern, name, expected) in [
            ("user:13", "user:13", true),
            ("user:13", "user:131", false),
            ("user:*", "user:", true),
            ("user:*", "users:1", false),
            ("*", "anything", true),
            ("*:1*:z", "a:1:1b:z", true),
            ("*:1*:z", "a:2b:z", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("**x**", "abxcd", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_reaches_a_prefix_that_its_start_allows() {
        for (pattern, expected) in [
            ("cache-*", true),
            ("cache-x", true),
            ("*", true),
            ("c*", true),
            ("*:eur", true),
            ("cache-", true),
            ("cache", false),
            ("prices:*", false),
            ("x*cache-", false),
        ] {
            assert_eq!(reaches(pattern, "cache-"), expected, "{pattern}");
        }
    }

    /// One character after the other, as the definition says.
    pub fn naive(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, rest) => rest.is_none(),
            (Some((b'*', rest)), None) => naive(rest, name),
            (Some((b'*', rest)), Some((_, shorter))) => naive(rest, name) || naive(pattern, shorter),
            (Some((first, rest)), Some((is, shorter))) => first == is && naive(rest, shorter),
            (Some(_), None) => false,
        }
    }

    proptest! {
        #[test]
        fn matching_follows_the_definition(pattern in "[ab*]{0,8}", name in "[ab]{0,10}") {
            prop_assert_eq!(matches(&pattern, &name), naive(pattern.as_bytes(), name.as_bytes()));
        }

        #[test]
        fn a_pattern_reaches_a_prefix_if_a_name_that_fits_begins_with_it(
            pattern in "[ab*]{1,5}", prefix in "[ab]{1,3}", name in "[ab]{0,6}"
        ) {
            if matches(&pattern, &name) && name.starts_with(&prefix) {
                prop_assert!(reaches(&pattern, &prefix));
            }
            if reaches(&pattern, &prefix) {
                let (head, tail) = pattern.split_once('*').unwrap_or((&pattern, ""));
                let start = if head.starts_with(&prefix) { head } else { &prefix };
                let name = format!("{start}{}", tail.replace('*', ""));
                prop_assert!(matches(&pattern, &name) && name.starts_with(&prefix), "{pattern} {prefix} {name}");
            }
        }

        /// The name replaces each star of the inner pattern with a text that no literal of the outer one holds, or any other.
        #[test]
        fn a_pattern_that_covers_another_matches_all_of_its_names(
            outer in "[ab*]{1,5}", inner in "[ab*]{1,5}", texts in prop::collection::vec("[abc]{0,3}", 5)
        ) {
            let mut texts = texts.iter();
            let fill = |c: char| if c == '*' { texts.next().cloned().unwrap_or_default() } else { c.into() };
            let name: String = inner.chars().map(fill).collect();
            if covers(&outer, &inner) {
                prop_assert!(matches(&outer, &name), "{outer} {inner} {name}");
            } else {
                prop_assert!(!matches(&outer, &inner.replace('*', "c")), "{outer} {inner}");
            }
        }
    }
}
