//! Source files as the layering tests read them: without comments, literals and test modules, as a list of paths.

use std::path::{Path, PathBuf};

/// Files and folders that are tests as a whole.
const TESTS: [&str; 7] =
    ["/tests.rs", "/simulation/", "/differential.rs", "/trial.rs", "/trial/", "/model.rs", "/end_to_end.rs"];

/// One source file.
pub struct Source {
    /// From the root of the repository.
    pub path: String,
    /// The module that it is, from the root of its crate: `["hub", "mail"]`.
    pub module: Vec<String>,
    pub code: String,
}

/// All files below `folder`, which is the source of a crate.
pub fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&root.join(folder), &mut files);
    files.sort();
    let paths = files.iter().map(|file| file.strip_prefix(root).expect("below the root").display().to_string());
    let sources: Vec<Source> = paths
        .filter(|path| !TESTS.iter().any(|tests| path.contains(tests)))
        .map(|path| {
            let text = std::fs::read_to_string(root.join(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
            Source::new(folder, path, &text)
        })
        .collect();
    assert!(sources.iter().any(|source| source.path.ends_with("/main.rs")), "{folder} holds no crate");
    sources
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let path = entry.expect("a directory entry").path();
        match path.extension() {
            _ if path.is_dir() && path.file_name().is_some_and(|name| name != "tests") => collect(&path, files),
            Some(extension) if extension == "rs" => files.push(path),
            _ => {}
        }
    }
}

impl Source {
    /// A file of the crate whose source is `folder`.
    pub fn new(folder: &str, path: String, text: &str) -> Source {
        let below = path.strip_prefix(folder).expect("below the crate's source").trim_end_matches(".rs");
        let parts = below.split('/').filter(|part| !["", "mod", "lib", "main"].contains(part));
        Source { module: parts.map(str::to_owned).collect(), code: without_tests(&code_of(text)), path }
    }

    /// Paths in the file that lead into its crate, from the crate's root: `["hub", "mail", "Mail"]`.
    pub fn paths_into_crate(&self) -> Vec<Vec<String>> {
        self.paths().iter().filter_map(|path| self.absolute(path)).collect()
    }

    /// A path from the crate's root, where it is one that leads into the crate.
    fn absolute(&self, path: &str) -> Option<Vec<String>> {
        let mut parts = path.split("::");
        let mut absolute = match parts.next()? {
            "crate" | "corecast" => Vec::new(),
            // From the root it leads to the file's own items.
            "self" if !self.module.is_empty() => self.module.clone(),
            "super" => self.module[..self.module.len().checked_sub(1)?].to_vec(),
            _ => return None,
        };
        for part in parts {
            match part {
                "super" => drop(absolute.pop()?),
                "self" => {}
                name => absolute.push(name.to_owned()),
            }
        }
        Some(absolute)
    }

    /// Every path in the code, groups spelled out: `a::{b, c::{d, self}}` gives `a::b`, `a::c::d`, `a::c::self`.
    pub fn paths(&self) -> Vec<String> {
        paths(&self.code)
    }

    /// Paths in the file that start with one of `roots`.
    pub fn mentions(&self, roots: &[&str]) -> impl Iterator<Item = String> {
        let starts = |path: &str, root: &str| {
            // `crossbeam` stands for crossbeam_channel and its like.
            path.strip_prefix(root)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::") || rest.starts_with('_'))
        };
        let found: Vec<String> =
            self.paths().into_iter().filter(|path| roots.iter().any(|root| starts(path, root))).collect();
        found.into_iter()
    }
}

fn paths(code: &str) -> Vec<String> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if is_name(tokens[at]) {
            at = path(&tokens, at, "", &mut found);
        } else {
            at += 1;
        }
    }
    found
}

/// Reads the path that starts at `at`, appends it (or its branches) to `found`, gives the place after it.
fn path(tokens: &[&str], mut at: usize, prefix: &str, found: &mut Vec<String>) -> usize {
    let mut whole = prefix.to_owned();
    loop {
        match tokens.get(at) {
            Some(name) if is_name(name) || *name == "*" => {
                whole.push_str(name);
                at += 1;
            }
            Some(&"{") if !whole.is_empty() => {
                at += 1;
                while at < tokens.len() && tokens[at] != "}" {
                    at =
                        if is_name(tokens[at]) || tokens[at] == "*" { path(tokens, at, &whole, found) } else { at + 1 };
                }
                return at + 1;
            }
            _ => break,
        }
        if tokens.get(at) != Some(&"::") {
            break;
        }
        whole.push_str("::");
        at += 1;
    }
    found.push(whole);
    at
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Names, `::`, and single characters.
fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let len = if first.is_alphanumeric() || first == '_' {
            rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        tokens.push(&rest[..len]);
        rest = rest[len..].trim_start();
    }
    tokens
}

/// The code without comments, and with empty string and character literals.
fn code_of(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let raw_hashes = raw_string_hashes(rest, code.chars().last());
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment_len(rest)
        } else if let Some(hashes) = raw_hashes {
            let end = format!("\"{}", "#".repeat(hashes));
            let start = rest.find('"').expect("an opening quote") + 1;
            rest[start..].find(&end).map_or(rest.len(), |len| start + len + end.len())
        } else if first == '"' {
            string_len(rest)
        } else if first == '\'' {
            char_len(rest)
        } else {
            0
        };
        if skip == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.push(' ');
            rest = &rest[skip..];
        }
    }
    code
}

/// The number of `#` of the raw string that starts here, if one does.
fn raw_string_hashes(rest: &str, before: Option<char>) -> Option<usize> {
    if before.is_some_and(|c| c.is_alphanumeric() && c != 'b' || c == '_') {
        return None;
    }
    let after = rest.strip_prefix('r')?;
    let hashes = after.bytes().take_while(|byte| *byte == b'#').count();
    after[hashes..].starts_with('"').then_some(hashes)
}

fn block_comment_len(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

fn string_len(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of a character literal; 0 for a lifetime.
fn char_len(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((at, c))) => {
            let from = at + c.len_utf8();
            rest[from..].find('\'').map_or(0, |len| from + len + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

/// The code without the items that `#[cfg(test)]` guards.
fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..at]);
        rest = &rest[at..];
        let Some(end) = rest.find(['{', ';']) else { return kept };
        if rest[end..].starts_with(';') {
            rest = &rest[end + 1..];
            continue;
        }
        let mut depth = 0;
        let close = rest.char_indices().find(|(_, c)| {
            depth += i32::from(*c == '{') - i32::from(*c == '}');
            *c == '}' && depth == 0
        });
        rest = close.map_or("", |(at, _)| &rest[at + 1..]);
    }
    kept.push_str(rest);
    kept
}

#[test]
fn the_reader_of_source_text_reads_it() {
    let used = |path: &str, text: &str| {
        let paths = Source::new("src", path.into(), text).paths_into_crate();
        paths.iter().filter_map(|path| path.first().cloned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(used("src/hub/mod.rs", "use crate::shard::Shard;"), "shard");
    assert_eq!(used("src/hub/mod.rs", "use crate::{wire::frame, protocol::{self, event}};"), "wire protocol protocol");
    assert_eq!(used("src/hub/mod.rs", "fn f(x: &'a crate::admin::Admin) { crate :: server :: run() }"), "admin server");
    assert_eq!(used("src/hub/mod.rs", "use super::shard;"), "shard");
    assert_eq!(used("src/hub/a.rs", "use super::shard; use super::super::server::run;"), "hub server");
    assert_eq!(used("src/config.rs", "use super::wire;"), "wire");
    assert_eq!(used("src/main.rs", "use corecast::{config, server};"), "config server");
    assert_eq!(
        used("src/hub/mod.rs", "// crate::a\n/* crate::b /* */ crate::c */ \"crate::d\\\" crate::e\" '\"' crate::f"),
        "f"
    );
    assert_eq!(used("src/hub/mod.rs", "r#\"crate::a\" crate::b\"# '\\'' crate::c b\"crate::d\""), "c");
    assert_eq!(used("src/hub/mod.rs", "#[cfg(test)] mod tests { use crate::a; mod b { } } use crate::c;"), "c");
    assert_eq!(used("src/hub/mod.rs", "#[cfg(test)] mod tests; use crate::c; pub(crate) fn f() {}"), "c");

    let mentions = |text: &str| {
        Source::new("src", "src/hub/mod.rs".into(), text)
            .mentions(&["std::net", "std::time", "crossbeam"])
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(mentions("use std::{fmt, net::{SocketAddr, TcpStream}};"), "std::net::SocketAddr std::net::TcpStream");
    assert_eq!(mentions("use crossbeam_channel::Sender; use timer::X;"), "crossbeam_channel::Sender");
    assert_eq!(mentions("let now = std::time::Instant::now();"), "std::time::Instant::now");
    assert_eq!(mentions("// std::net\nuse std::sync::Arc;"), "");
}
