//! README.md and docs/*.md do what they say: each fenced block is run, in the order of the page, in a directory of the page's
//! own, and what is shown is compared with what is printed. The info string of a fence says how:
//!
//! | info string | |
//! |---|---|
//! | `sh` | bash runs it, and it succeeds |
//! | `console` | bash runs each line that starts with `$ `; the lines below are all that it prints (continue a command with `> `) |
//! | `python`, `js` | python3 or node runs it, and it succeeds |
//! | `output` | all that the `sh`, `python` or `js` block before it printed |
//! | `sh server` | starts a server, and goes on once it listens; it runs until the next such block or the end of the page |
//! | `sh background` | starts a program that runs as long |
//! | `output server`, `output background` | what that one prints next |
//! | `ws` | a WebSocket connection: `→` is sent, `←` comes, `← close 1009 text` ends it; begins with `socket:connected` or goes on |
//! | `admin` | a connection to the admin socket: `→` is sent, `←` comes |
//! | `toml NAME.toml` and the like | is written to that file |
//! | `json` | is JSON, a value or a value a line |
//! | `LANGUAGE not-run` | is not run; its first line is a comment that says why |
//!
//! `needs=PROGRAM` or `needs=MODULE` (of `tests/clients`) skips a block and its output, loudly, where that is missing.
//!
//! A block that signs a `socket_id` is run a second time, with forged inputs that its `sign` must refuse (`signing.rs`).
//!
//! The same means: UUIDs and times may be others, columns wider, and `…` stands for anything (`likeness.rs`). Ports are the page's own, so
//! that servers do not meet: 9000, 9001 and 8080 stand for them, and /run/user/1000 for its directory. In a `ws` block a
//! signature that is shown is that of the `socket_id` that is shown, by the file `keys`; what is sent is that of the real one.

mod likeness;
mod page;
mod runner;
mod signing;

use crate::harness::{corecast, output};
use corecast::protocol::close::CloseReason;
use page::Kind;
use runner::Runner;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

macro_rules! pages {
    ($($name:ident: $path:literal),+ $(,)?) => {
        $(#[test] fn $name() { run($path); })+
        const PAGES: &[&str] = &[$($path),+];
    };
}

pages! {
    readme: "README.md",
    getting_started: "docs/getting-started.md",
    protocol: "docs/protocol.md",
    publishing: "docs/publishing.md",
    events: "docs/events.md",
    webhooks: "docs/webhooks.md",
    operating: "docs/operating.md",
    troubleshooting: "docs/troubleshooting.md",
    sizing: "docs/sizing.md",
    testing: "docs/testing.md",
    measured: "docs/measured.md",
}

#[test]
fn every_page_is_run() {
    let names = fs::read_dir(root().join("docs")).expect("docs").map(|entry| entry.expect("a name").file_name());
    let mut found: Vec<String> = names.map(|name| format!("docs/{}", name.display())).collect();
    found.retain(|name| name.ends_with(".md"));
    found.push("README.md".into());
    found.sort_unstable();
    let mut run = PAGES.to_vec();
    run.sort_unstable();
    assert_eq!(found, run);
}

#[test]
fn every_link_leads_somewhere() {
    for page in [PAGES, &["sdk/js/README.md"]].concat() {
        let path = root().join(page);
        let text = read(page);
        for link in page::links(&text).filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.with_file_name(file) };
            assert!(target.exists(), "{page}: there is no {file}");
            if !anchor.is_empty() {
                let anchors = page::anchors(&fs::read_to_string(&target).expect("a page"));
                assert!(anchors.iter().any(|known| known == anchor), "{page}: no heading for {link}: {anchors:?}");
            }
        }
    }
}

/// The page holds each of these.
#[track_caller]
fn check_names(page: &str, names: impl IntoIterator<Item = String>) {
    let text = read(page);
    let names: Vec<String> = names.into_iter().collect();
    assert!(!names.is_empty());
    let missing: Vec<&String> = names.iter().filter(|name| !text.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "{page} does not say {missing:?}");
}

#[test]
fn nothing_is_left_out() {
    check_names("docs/protocol.md", CloseReason::LABELS.map(|label| format!("`closes_{label}`")));
    let alerts = read("ops/alerts.yml");
    let alerts = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    check_names("docs/operating.md", alerts.map(|alert| format!("`{alert}`")));
    let help = |args| String::from_utf8(output(corecast(args), b"").stdout).expect("text");
    let serve = help(&["serve", "--help"]);
    let options = serve.lines().filter_map(|line| line.trim().strip_prefix("--")?.split(' ').next());
    check_names("README.md", options.clone().map(|option| format!("`--{option}")));
    let kept = options.filter(|option| !["config", "print-config", "check-config"].contains(option));
    check_names("docs/operating.md", kept.map(|option| format!("`{option}`"))); // what holds when after a reload
    let commands = help(&["--help"]);
    let commands = commands.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands = commands.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let commands = commands.filter(|command| !["", "help"].contains(command)); // "": a summary goes on
    let text: String = PAGES.iter().map(|page| read(page)).collect();
    let missing: Vec<&str> = commands.filter(|command| !text.contains(&format!("corecast {command}"))).collect();
    assert!(missing.is_empty(), "no page shows the commands {missing:?}");
}

#[test]
fn signing_examples_are_recognized() {
    let blocks = page::blocks(Path::new("docs/publishing.md"), &read("docs/publishing.md"));
    let examples = blocks.iter().filter(|block| signing::is_example(block));
    assert_eq!(examples.count(), 2);
}

/// Runs the blocks of a page.
fn run(path: &str) {
    let text = read(path);
    let mut runner = Runner::new(&text);
    let blocks = page::blocks(Path::new(path), &text);
    let (mut not_run, mut skipped) = (0, 0);
    let mut is_skipped = false;
    for block in &blocks {
        let is_output = matches!(block.kind, Kind::Output | Kind::OutputOfServer | Kind::OutputOfBackground);
        if is_output && is_skipped {
            continue;
        }
        is_skipped = false;
        let attack = signing::is_example(block).then(|| signing::attack(block));
        if block.kind == Kind::NotRun {
            let reason = block.lines.first().filter(|line| line.starts_with(['#', ';']) || line.starts_with("//"));
            let reason = reason.unwrap_or_else(|| panic!("{}: a comment first, why this is not run", block.place));
            say(&format!("not run: {}: {reason}", block.place));
            not_run += 1;
        } else if let Some(missing) = block.needs.iter().find(|name| !runner.has(name)) {
            say(&format!("*** SKIPPED: {}: {missing} is missing here ***", block.place));
            skipped += 1;
            is_skipped = true;
        } else {
            if let Some(attack) = attack {
                runner.run(&block.followed_by(&attack));
            }
            runner.run(block);
        }
    }
    runner.stop();
    say(&format!("{path}: {} blocks, {not_run} of them not run, {skipped} skipped", blocks.len()));
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// To the terminal, though the test succeeds.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
