//! Layers: an import that points upward fails here, and so does a circle of imports. Reads the source text.

mod circles;
mod source;

use source::{Source, sources};

/// Every top-level module and its floor; a module may use only what stands on a lower one.
const FLOORS: [(&str, u8); 13] = [
    ("ids", 0),
    ("config", 0),
    ("metrics", 0),
    ("wire", 1),
    ("protocol", 2),
    ("api", 3),
    ("hub", 4),
    ("admin", 5),
    ("http", 6),
    ("webhook", 6),
    ("shard", 6),
    ("server", 7),
    ("main", 8),
];
/// Parts of the command line, on the top floor.
const COMMAND_LINE: [&str; 1] = ["cli"];

/// Pure modules, and what they may not mention: no sockets, no clock, no other thread.
const PURE: [&str; 4] = ["wire", "protocol", "api", "hub"];
const IMPURE: [&str; 6] = ["std::net", "std::os", "std::time", "std::thread", "mio", "crossbeam"];

/// What only these may mention. Addresses are plain data and do not count.
const SOCKETS: [&str; 4] = ["std::net", "std::os::unix::net", "mio", "socket2"];
const MAY_TOUCH_SOCKETS: [&str; 12] = [
    "src/shard/",
    "src/http/",
    "src/webhook/",
    "src/server/http_thread.rs",
    "src/admin/client.rs",
    "src/admin/client/",
    "src/server.rs",
    "src/server/listeners.rs",
    "src/server/socket_activation.rs",
    "src/main.rs",
    "src/cli.rs",
    "src/cli/",
];
const ADDRESSES: [&str; 8] =
    ["SocketAddr", "SocketAddrV4", "SocketAddrV6", "IpAddr", "Ipv4Addr", "Ipv6Addr", "AddrParseError", "ToSocketAddrs"];

#[test]
fn imports_point_downwards() {
    let mut wrong = Vec::new();
    for source in sources("src") {
        // The roots of the crates only name the modules.
        let Some(own) = top_level(&source) else { continue };
        let floor = floor_of(&own).unwrap_or_else(|| panic!("{}: give `{own}` a floor in layering.rs", source.path));
        let used = source.paths_into_crate().into_iter().filter_map(|path| path.into_iter().next());
        // What begins with a capital is an item of the root itself.
        let is_module = |name: &String| *name != own && name.starts_with(|c: char| c.is_ascii_lowercase());
        for used in used.filter(is_module) {
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
    for source in sources("src") {
        if top_level(&source).is_some_and(|module| PURE.contains(&module.as_str())) {
            let impure = source.mentions(&IMPURE).filter(|path| !is_address(path));
            wrong.extend(impure.map(|path| format!("{}: mentions {path}", source.path)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_a_few_touch_sockets() {
    let mut wrong = Vec::new();
    for source in sources("src") {
        if MAY_TOUCH_SOCKETS.iter().any(|start| source.path.starts_with(start)) {
            continue;
        }
        let sockets = source.mentions(&SOCKETS).filter(|path| !is_address(path));
        wrong.extend(sockets.map(|path| format!("{}: mentions {path}", source.path)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The module of the crate's root that the file belongs to; `None` for the library's root itself.
fn top_level(source: &Source) -> Option<String> {
    if source.path == "src/main.rs" { Some("main".into()) } else { source.module.first().cloned() }
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
