//! Compares printed output with the output that a page shows. They may differ in UUIDs, times and the width of columns. `…` matches any
//! text, and alone on a line it matches any number of lines.

/// The smallest number of lines at the start of `printed` that match `shown`.
pub fn shown_first(shown: &[String], printed: &[String]) -> Option<usize> {
    covers(shown, printed, &|_| true)
}

/// Whether all of `printed` matches `shown`.
pub fn is_shown(shown: &[String], printed: &[String]) -> bool {
    covers(shown, printed, &|left| left == 0).is_some()
}

/// How many lines of `printed` match, so that `will_do` accepts the number of the remaining lines.
fn covers(shown: &[String], printed: &[String], will_do: &dyn Fn(usize) -> bool) -> Option<usize> {
    let Some((line, rest)) = shown.split_first() else {
        return will_do(printed.len()).then_some(0);
    };
    if line.trim() == "…" {
        return (0..=printed.len()).find_map(|skipped| Some(skipped + covers(rest, &printed[skipped..], will_do)?));
    }
    let (first, after) = printed.split_first()?;
    if is_like(line, first) { Some(1 + covers(rest, after, will_do)?) } else { None }
}

/// Whether a printed line matches the one that is shown.
pub fn is_like(shown: &str, printed: &str) -> bool {
    // `…` may match the text between two columns, spaces included.
    let (shown, printed) = (plain(shown).replace("… ", "…").replace(" …", "…"), plain(printed));
    let parts: Vec<&str> = shown.split('…').collect();
    let [first, between @ .., last] = &parts[..] else {
        return shown == printed;
    };
    let Some(mut rest) = printed.strip_prefix(first) else {
        return false;
    };
    for part in between {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// The line with single spaces, and with every UUID and time replaced by its pattern.
fn plain(line: &str) -> String {
    let mut plain = String::new();
    let spaced = line.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    let mut rest = &spaced[..];
    while let Some(first) = rest.chars().next() {
        let pattern = PATTERNS.iter().find(|pattern| has_pattern(rest, pattern));
        plain.push_str(pattern.map_or(&rest[..first.len_utf8()], |pattern| pattern));
        rest = &rest[pattern.map_or(first.len_utf8(), |pattern| pattern.len())..];
    }
    plain
}

/// `x`: a hexadecimal digit; `0`: a decimal one.
const PATTERNS: [&str; 2] = ["xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", "0000-00-00T00:00:00.000000Z"];

fn has_pattern(text: &str, pattern: &str) -> bool {
    text.len() >= pattern.len()
        && text.bytes().zip(pattern.bytes()).all(|(byte, expected)| match expected {
            b'x' => byte.is_ascii_hexdigit(),
            b'0' => byte.is_ascii_digit(),
            other => byte == other,
        })
}

#[test]
fn differences_are_found() {
    let lines = |text: &str| -> Vec<String> { text.lines().map(str::to_owned).collect() };
    let check = |shown: &str, printed: &str| is_shown(&lines(shown), &lines(printed));
    assert!(check("", ""));
    assert!(check("a\nb ", "a\nb"));
    assert!(!check("a", "a\nb"));
    assert!(!check("a\nb", "a"));
    assert!(!check("", "a"));
    assert!(check("answered in … ms", "answered in 0.08 ms"));
    assert!(!check("answered in … ms", "answered in 0.08 s"));
    assert!(check("a\n…\nd", "a\nb\nc\nd"));
    assert!(check("a\n…\nd", "a\nd"));
    assert!(check("a\n…\nd", "a\nd\nd"));
    assert!(!check("a\n…\nd", "a\nb\nc"));
    assert!(check("a\n…", "a\nb\nc"));
    assert!(!check("a\n…\nb", "a\nb\nc"));
    assert!(check("…", "a\nb"));
    assert!(check("NAME  7 0 ", "NAME       7        0"));
    assert!(!check("NAME  7 0", "NAME       70"));
    assert!(check("NAME … 7", "NAME       7"));
    let uuid = "c38d3b54-fcf0-419c-a455-e60b6cfb937d";
    assert!(check(uuid, "00000000-fcf0-419c-a455-e60b6cfb937d"));
    assert!(!check(uuid, "00000000-fcf0-419c-a455-e60b6cfb937"));
    assert!(check("at 2026-11-25T20:50:39.458508Z", "at 2027-01-01T00:00:00.000000Z"));
    assert_eq!(shown_first(&lines("…\nb"), &lines("a\nb\nc")), Some(2));
}
