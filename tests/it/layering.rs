//! The house, floor by floor: an import that points upward fails here. Reads the source text.

use std::path::{Path, PathBuf};

/// Every top-level module and its floor; a module may use only what stands on a lower one.
const FLOORS: [(&str, u8); 11] = [
    ("config", 0),
    ("metrics", 0),
    ("wire", 1),
    ("protocol", 2),
    ("api", 3),
    ("hub", 4),
    ("admin", 5),
    ("control", 6),
    ("shard", 6),
    ("server", 7),
    ("main", 8),
];
/// Parts of the command line, on the top floor.
const COMMAND_LINE: [&str; 1] = ["cli"];

/// Pure modules, and what they may not mention: no sockets, no clock, no other thread.
const PURE: [&str; 4] = ["wire", "protocol", "api", "hub"];
const IMPURE: [&str; 6] = ["std::net", "std::os", "std::time", "std::thread", "mio", "crossbeam"];

/// Files and folders of `src/` that are tests as a whole.
const TESTS: [&str; 3] = ["/tests.rs", "/simulation/", "/differential.rs"];

/// What only these may mention; addresses are no sockets.
const SOCKETS: [&str; 4] = ["std::net", "std::os::unix::net", "mio", "socket2"];
const MAY_TOUCH_SOCKETS: [&str; 8] = [
    "src/shard/",
    "src/control/",
    "src/admin/client.rs",
    "src/admin/client/",
    "src/server.rs",
    "src/main.rs",
    "src/cli.rs",
    "src/cli/",
];
const ADDRESSES: [&str; 8] =
    ["SocketAddr", "SocketAddrV4", "SocketAddrV6", "IpAddr", "Ipv4Addr", "Ipv6Addr", "AddrParseError", "ToSocketAddrs"];

#[test]
fn imports_point_downwards() {
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(own) = source.module() else { continue };
        let floor = floor_of(&own).unwrap_or_else(|| panic!("{}: give `{own}` a floor in layering.rs", source.path));
        for used in source.modules_used() {
            if used == own {
                continue;
            }
            match floor_of(&used) {
                Some(below) if below < floor => {}
                Some(_) => wrong.push(format!("{}: `{own}` uses `{used}`, which does not stand below it", source.path)),
                None => wrong.push(format!("{}: uses `{used}`, which has no floor in layering.rs", source.path)),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pure_modules_know_no_sockets_clocks_or_threads() {
    let mut wrong = Vec::new();
    for source in sources() {
        if source.module().is_some_and(|module| PURE.contains(&module.as_str())) {
            let impure = source.mentions(&IMPURE).filter(|path| !is_address(path));
            wrong.extend(impure.map(|path| format!("{}: mentions {path}", source.path)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_a_few_touch_sockets() {
    let mut wrong = Vec::new();
    for source in sources() {
        if MAY_TOUCH_SOCKETS.iter().any(|start| source.path.starts_with(start)) {
            continue;
        }
        let sockets = source.mentions(&SOCKETS).filter(|path| !is_address(path));
        wrong.extend(sockets.map(|path| format!("{}: mentions {path}", source.path)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Addresses are plain data, wherever they are mentioned.
fn is_address(path: &str) -> bool {
    let name = path.strip_prefix("std::net::").and_then(|rest| rest.split("::").next());
    name.is_some_and(|name| ADDRESSES.contains(&name))
}

fn floor_of(module: &str) -> Option<u8> {
    if COMMAND_LINE.contains(&module) {
        return floor_of("main");
    }
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

/// One file of `src/`, without comments, literals and test modules.
struct Source {
    /// From the root of the repository.
    path: String,
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&root.join("src"), &mut files);
    let sources: Vec<Source> = files
        .iter()
        .filter(|file| !TESTS.iter().any(|tests| file.to_string_lossy().contains(tests)))
        .map(|file| {
            let path = file.strip_prefix(root).expect("below the root").display().to_string();
            let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{path}: {error}"));
            Source { path, code: without_tests(&code_of(&text)) }
        })
        .collect();
    assert!(
        sources.iter().any(|source| source.path == "src/protocol/mod.rs"),
        "the sources are where they are looked for"
    );
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
    /// The top-level module that the file belongs to; `None` for the crate's root, which only names the modules.
    fn module(&self) -> Option<String> {
        let below = self.path.strip_prefix("src/").expect("below src");
        let first = below.split('/').next().expect("a file name").trim_end_matches(".rs");
        (first != "lib").then(|| first.to_owned())
    }

    /// How many `super::` lead from the file to the crate's root.
    fn depth(&self) -> usize {
        let below = self.path.strip_prefix("src/").expect("below src").trim_end_matches(".rs");
        below.split('/').filter(|part| *part != "mod").count()
    }

    /// Top-level modules of the crate that the file names.
    fn modules_used(&self) -> Vec<String> {
        let mut used = Vec::new();
        for path in paths(&self.code) {
            let parts: Vec<&str> = path.split("::").collect();
            let supers = parts.iter().take_while(|part| **part == "super").count();
            let module = match parts[0] {
                "crate" | "corecast" => parts.get(1),
                "super" if supers >= self.depth() => parts.get(supers),
                _ => None,
            };
            // A capital or a brace that holds nothing: an item of the root itself.
            if let Some(module) = module.filter(|module| module.starts_with(|c: char| c.is_ascii_lowercase())) {
                used.push((*module).to_owned());
            }
        }
        used
    }

    /// Paths in the file that start with one of `roots`.
    fn mentions(&self, roots: &[&str]) -> impl Iterator<Item = String> {
        let starts = |path: &str, root: &str| {
            // `crossbeam` stands for crossbeam_channel and its like.
            path.strip_prefix(root)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::") || rest.starts_with('_'))
        };
        let found: Vec<String> =
            paths(&self.code).into_iter().filter(|path| roots.iter().any(|root| starts(path, root))).collect();
        found.into_iter()
    }
}

/// Every path in the code, groups spelled out: `a::{b, c::{d, self}}` gives `a::b`, `a::c::d`, `a::c::self`.
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
        let source = Source { path: path.into(), code: without_tests(&code_of(text)) };
        source.modules_used().join(" ")
    };
    assert_eq!(used("src/hub/mod.rs", "use crate::shard::Shard;"), "shard");
    assert_eq!(used("src/hub/mod.rs", "use crate::{wire::frame, protocol::{self, event}};"), "wire protocol protocol");
    assert_eq!(used("src/hub/mod.rs", "fn f(x: &'a crate::admin::Admin) { crate :: server :: run() }"), "admin server");
    assert_eq!(used("src/hub/mod.rs", "use super::shard;"), "shard");
    assert_eq!(used("src/hub/a.rs", "use super::shard; use super::super::server::run;"), "server");
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
        let source = Source { path: "src/hub/mod.rs".into(), code: code_of(text) };
        source.mentions(&IMPURE).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(mentions("use std::{fmt, net::{SocketAddr, TcpStream}};"), "std::net::SocketAddr std::net::TcpStream");
    assert_eq!(mentions("use crossbeam_channel::Sender; use miochannel::X;"), "crossbeam_channel::Sender");
    assert_eq!(mentions("let now = std::time::Instant::now();"), "std::time::Instant::now");
    assert_eq!(mentions("// std::net\nuse std::sync::Arc;"), "");
}
