//! Circles of imports: a file must not use a file that uses it, directly or by way of others. Uses between a module and its
//! ancestors do not count, because a parent exists to assemble its parts.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, sources};

type Module = Vec<String>;

/// Circles that are still there, each as the modules in it. A circle that has gone or has become smaller fails the test until it
/// is taken off the list, so the list only becomes shorter. Do not add to it.
const KNOWN: [&[&str]; 0] = [];

#[test]
fn imports_make_no_circles() {
    let mut known: BTreeSet<String> = KNOWN.iter().map(|circle| circle.join(" ")).collect();
    let mut wrong = Vec::new();
    for folder in ["src", "loadtest/src"] {
        for circle in circles(&imports(&sources(folder))) {
            if !known.remove(&circle.modules) {
                wrong.push(format!(
                    "{folder}: a circle of imports: {}\n  {}",
                    circle.modules,
                    circle.imports.join("\n  ")
                ));
            }
        }
    }
    wrong.extend(known.iter().map(|circle| format!("take this circle off the list, it has been removed: {circle}")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Modules that use each other, in order, and their imports of each other.
struct Circle {
    modules: String,
    imports: Vec<String>,
}

/// The modules that each file uses, its ancestors and descendants left out.
fn imports(sources: &[Source]) -> BTreeMap<Module, BTreeSet<Module>> {
    let modules: BTreeSet<&[String]> = sources.iter().map(|source| &source.module[..]).collect();
    let mut imports = BTreeMap::<Module, BTreeSet<Module>>::new();
    for source in sources {
        let mut paths = source.paths_into_crate();
        // A module that was imported by name: `use crate::hub; … hub::mail::Mail`.
        let named: Vec<Module> = paths.iter().filter(|path| modules.contains(&path[..])).cloned().collect();
        for path in source.paths() {
            let (first, rest) = path.split_once("::").unwrap_or((&path, ""));
            if let Some(module) = named.iter().find(|module| module.last().is_some_and(|last| last == first)) {
                paths.push(module.iter().cloned().chain(rest.split("::").map(str::to_owned)).collect());
            }
        }
        let used = imports.entry(source.module.clone()).or_default();
        for path in paths {
            // The file that defines the item, or says where it comes from.
            let file = (0..=path.len()).rev().map(|len| &path[..len]).find(|module| modules.contains(module));
            if let Some(file) =
                file.filter(|file| !file.starts_with(&source.module) && !source.module.starts_with(file))
            {
                used.insert(file.to_vec());
            }
        }
    }
    imports
}

fn circles(imports: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<Circle> {
    let reached: BTreeMap<&Module, BTreeSet<&Module>> =
        imports.keys().map(|module| (module, reached_from(module, imports))).collect();
    let mut circles = BTreeMap::<Vec<&Module>, Vec<String>>::new();
    for (module, used) in imports.iter().filter(|(module, _)| reached[module].contains(module)) {
        let circle: Vec<&Module> =
            reached[module].iter().copied().filter(|other| reached[other].contains(module)).collect();
        let within = used.iter().filter(|used| circle.contains(used));
        let lines: Vec<String> = within.map(|used| format!("{} uses {}", name(module), name(used))).collect();
        circles.entry(circle).or_default().extend(lines);
    }
    let text = |modules: Vec<&Module>| modules.into_iter().map(name).collect::<Vec<_>>().join(" ");
    circles.into_iter().map(|(modules, imports)| Circle { modules: text(modules), imports }).collect()
}

/// Everything that a module uses, directly or by way of others.
fn reached_from<'a>(module: &Module, imports: &'a BTreeMap<Module, BTreeSet<Module>>) -> BTreeSet<&'a Module> {
    let mut reached = BTreeSet::new();
    let mut left: Vec<&Module> = imports[module].iter().collect();
    while let Some(module) = left.pop() {
        if reached.insert(module) {
            left.extend(&imports[module]);
        }
    }
    reached
}

fn name(module: &Module) -> String {
    module.join("::")
}

#[test]
fn circles_are_found() {
    let check = |files: &[(&str, &str)], expected: &[&str]| {
        let sources: Vec<Source> =
            files.iter().map(|(path, text)| Source::new("src", format!("src/{path}.rs"), text)).collect();
        let found: Vec<String> = circles(&imports(&sources)).into_iter().map(|circle| circle.modules).collect();
        assert_eq!(found, expected, "{files:?}");
    };
    check(&[("a", "use crate::b::B;"), ("b", "use crate::c;"), ("c", "")], &[]);
    check(&[("a", "use crate::b::B;"), ("b", "use crate::c::{self, C};"), ("c", "use super::a;")], &["a b c"]);
    check(&[("a", "fn f() { crate::b::g() }"), ("b", "fn g(_: crate::a::A) {}")], &["a b"]);
    // A parent and its child, and a circle through the parent alone.
    check(&[("a/mod", "mod b; use b::B;"), ("a/b", "use super::A;")], &[]);
    check(&[("a/b", "use super::c::C;"), ("a/c", "use super::b::B;"), ("a/mod", "")], &["a::b a::c"]);
    // By way of a module that was imported by name.
    check(&[("a", "use crate::b; fn f(_: b::c::C) {}"), ("b/mod", ""), ("b/c", "use crate::a;")], &["a b::c"]);
    // Tests may use what they like.
    check(&[("a", "use crate::b;"), ("b", "#[cfg(test)] mod tests { use crate::a; }")], &[]);
    check(
        &[("a", "use crate::b;"), ("b", "use crate::a;"), ("c", "use crate::d;"), ("d", "use crate::c; use crate::a;")],
        &["a b", "c d"],
    );
}
