//! Runs README.md, CONTRIBUTING.md and docs/*.md: each fenced block runs in the order of the page, in a directory of the page's own,
//! and the output that is shown is compared with the output that is printed. The info string of a fence says how:
//!
//! | info string | |
//! |---|---|
//! | `sh` | bash runs it; it must succeed |
//! | `console` | bash runs each line that starts with `$ `; the lines below it are its whole output (`> ` continues a command) |
//! | `python`, `js` | python3 or node runs it; it must succeed |
//! | `output` | the whole output of the `sh`, `python` or `js` block before it |
//! | `sh server` | starts a server and waits until it listens; it runs until the next such block or the end of the page |
//! | `sh background` | starts a program that runs as long |
//! | `output server`, `output background` | the next lines of that program |
//! | `ws` | a WebSocket connection: `→` is sent, `←` is received, `← close 1009 text` ends it; a block that does not begin with `socket:connected` continues the last one |
//! | `admin` | a connection to the admin socket: `→` is sent, `←` is received |
//! | `toml NAME.toml` and the like | the block is written to that file |
//! | `json` | the block is one JSON value, or one in each line |
//! | `LANGUAGE not-run` | the block is not run; its first line is a comment that says why |
//!
//! `needs=PROGRAM` or `needs=MODULE` (of `tests/clients` or `tests/pusher`) skips a block and its output, with a message, where that is missing.
//!
//! A block that signs a `socket_id` is run a second time, with forged inputs that its `sign` must refuse (`signing.rs`).
//!
//! Outputs are equal if they differ only in UUIDs, times and the width of columns; `…` matches any text (`likeness.rs`). Each page has
//! ports and a directory of its own, which the page calls 9000, 9001, 8080 and /run/user/1000. In a `ws` block, a signature that is valid
//! for the shown `socket_id` by the file `keys` is replaced by that of the real `socket_id`.

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
    contributing: "CONTRIBUTING.md",
    configuration: "docs/configuration.md",
    getting_started: "docs/getting-started.md",
    protocol: "docs/protocol.md",
    publishing: "docs/publishing.md",
    events: "docs/events.md",
    webhooks: "docs/webhooks.md",
    channels: "docs/channels.md",
    presence: "docs/presence.md",
    pusher: "docs/pusher.md",
    laravel: "docs/laravel.md",
    migrating: "docs/migrating.md",
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
    found.extend(["README.md".into(), "CONTRIBUTING.md".into()]);
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
            assert!(target.exists(), "{page}: {file} does not exist");
            if !anchor.is_empty() {
                let anchors = page::anchors(&fs::read_to_string(&target).expect("a page"));
                assert!(anchors.iter().any(|known| known == anchor), "{page}: no heading for {link}: {anchors:?}");
            }
        }
    }
}

/// Checks that the page contains each of these names.
#[track_caller]
fn check_names(page: &str, names: impl IntoIterator<Item = String>) {
    let text = read(page);
    let names: Vec<String> = names.into_iter().collect();
    assert!(!names.is_empty());
    let missing: Vec<&String> = names.iter().filter(|name| !text.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "{page} does not name {missing:?}");
}

#[test]
fn pages_name_every_close_alert_option_and_command() {
    check_names("docs/protocol.md", CloseReason::LABELS.map(|label| format!("`closes_{label}`")));
    let alerts = read("ops/alerts.yml");
    let alerts = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    check_names("docs/operating.md", alerts.map(|alert| format!("`{alert}`")));
    let help = |args| String::from_utf8(output(corecast(args), b"").stdout).expect("text");
    let serve = help(&["serve", "--help"]);
    let options = serve.lines().filter_map(|line| line.trim().strip_prefix("--")?.split(' ').next());
    check_names("docs/configuration.md", options.clone().map(|option| format!("`--{option}")));
    let kept = options.filter(|option| !["config", "print-config", "check-config"].contains(option));
    check_names("docs/operating.md", kept.map(|option| format!("`{option}`"))); // when each takes effect after a reload
    let commands = help(&["--help"]);
    let commands = commands.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands = commands.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let commands = commands.filter(|command| !["", "help"].contains(command)); // "": the next line of a summary
    let text: String = PAGES.iter().map(|page| read(page)).collect();
    let missing: Vec<&str> = commands.filter(|command| !text.contains(&format!("corecast {command}"))).collect();
    assert!(missing.is_empty(), "no page shows the commands {missing:?}");
}

#[test]
fn pages_name_every_error_code() {
    for (source, page) in
        [("src/protocol/error_code.rs", "docs/protocol.md"), ("src/api/refusal.rs", "docs/publishing.md")]
    {
        let source = read(source);
        let (_, function) = source.split_once("pub fn code(").expect("the function");
        let lines = function.lines().take_while(|line| *line != "    }");
        let codes = lines.filter_map(|line| line.split_once("=> \"")?.1.split('"').next());
        check_names(page, codes.map(|code| format!("`{code}`")));
    }
}

/// The cells of each table row of a page.
fn rows(text: &str) -> impl Iterator<Item = Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        line.replace("\\|", "/").split('|').skip(1).map(|cell| cell.trim().to_owned()).collect()
    };
    text.lines().filter(|line| line.starts_with("| ")).map(cells)
}

/// A row that stands alone is shown as text.
#[test]
fn each_table_has_a_head_and_rows_of_its_width() {
    let mut count = 0;
    for page in [PAGES, &["sdk/js/README.md", "loadtest/README.md", "benches/NOTES.md"]].concat() {
        let text = read(page);
        let mut is_code = false;
        let mut table: Vec<&str> = Vec::new();
        for line in text.lines().chain([""]) {
            is_code ^= line.trim_start().starts_with("```");
            if !is_code && line.trim_start().starts_with('|') {
                table.push(line);
                continue;
            }
            let widths = table.iter().map(|row| row.replace("\\|", "").matches('|').count());
            if let [head, ..] = table[..] {
                assert!(table.len() > 2 && table[1].trim_start().starts_with("|--"), "{page}: no head above {head}");
                assert_eq!(widths.clone().min(), widths.max(), "{page}: the rows of {head} differ in width");
                count += 1;
            }
            table.clear();
        }
    }
    assert!(count > 60, "only {count} tables");
}

#[test]
fn defaults_are_those_of_the_manual() {
    let page = read("docs/configuration.md");
    let manual = read("corecast.toml");
    let options = manual.lines().filter(|line| line.starts_with(char::is_lowercase));
    let plain = |value: &str| value.replace(['"', '`', ' '], "").replace("true", "on").replace("false", "off");
    let mut count = 0;
    for (option, value) in options.filter_map(|line| line.split_once(" = ")) {
        let mut shown = rows(&page).filter(|row| row[0].starts_with(&format!("`--{option} ")));
        let row = shown.next().unwrap_or_else(|| panic!("docs/configuration.md has no row for --{option}"));
        assert!(
            plain(&row[1]).starts_with(&plain(value)),
            "--{option}: docs/configuration.md says {}, not {value}",
            row[1]
        );
        count += 1;
    }
    assert!(count > 20, "only {count} defaults in corecast.toml");
}

#[test]
fn figures_are_the_same_on_every_page() {
    let (measured, sizing) = (read("docs/measured.md"), read("docs/sizing.md"));
    let readme = read("README.md");
    let (_, table) = readme.split_once("## Measured").expect("the figures of the README");
    for line in table.lines().filter(|line| line.starts_with("| ")) {
        assert!(measured.lines().any(|other| other == line), "not in docs/measured.md: {line}");
    }
    // NAME=VALUE # ROW
    let assignments = sizing.lines().filter_map(|line| line.split_once(" # "));
    let quoted =
        assignments.filter_map(|(assignment, label)| Some((assignment.trim().split_once('=')?.1, label.trim())));
    let quoted: Vec<_> = quoted.filter(|(value, _)| value.bytes().all(|byte| byte.is_ascii_digit())).collect();
    for (value, label) in &quoted {
        let all: Vec<_> = rows(&measured).chain(rows(&sizing)).filter(|row| row[0] == *label).collect();
        assert_eq!(all.len(), 1, "rows with the label {label:?}");
        let shown: String = all[0][1].chars().take_while(|c| c.is_ascii_digit() || *c == ' ').collect();
        assert_eq!(shown.replace(' ', ""), *value, "{label}");
    }
    assert!(quoted.len() > 5, "{quoted:?}");
}

#[test]
fn paths_in_the_repository_exist() {
    let folders: Vec<String> = fs::read_dir(root())
        .expect("the repository")
        .map(|entry| entry.expect("a name").file_name().display().to_string())
        .collect();
    let mut count = 0;
    for page in PAGES {
        for path in read(page).split('`').filter(|text| !text.contains([' ', '\n'])) {
            let is_path = path.split_once('/').is_some_and(|(first, _)| folders.iter().any(|folder| folder == first));
            if is_path && !path.starts_with("target/") {
                assert!(root().join(path).exists(), "{page}: {path} does not exist");
                count += 1;
            }
        }
    }
    assert!(count > 30, "only {count} paths");
}

#[test]
fn the_readme_is_short_and_has_the_picture_of_the_crate() {
    let readme = read("README.md");
    assert!(readme.lines().count() <= 150);
    let source = read("src/lib.rs");
    let block = source.lines().skip_while(|line| *line != "//! ```text").skip(1).take_while(|line| *line != "//! ```");
    let picture: String = block.map(|line| line[4..].to_owned() + "\n").collect();
    assert!(
        picture.contains("shard 0") && readme.contains(&picture),
        "README.md needs the picture of src/lib.rs:\n{picture}"
    );
}

/// What a page of the Debian package links to is in the package.
#[test]
fn links_of_packaged_pages_lead_to_packaged_files() {
    let manifest = read("Cargo.toml");
    let assets = manifest.lines().filter(|line| line.contains("\"usr/share/doc/corecast/"));
    let packaged: Vec<&str> = assets.filter_map(|line| line.split('"').nth(1)).collect();
    let is_packaged = |file: &str| {
        packaged.iter().any(|asset| match asset.split_once('*') {
            Some((start, end)) => file.starts_with(start) && file.ends_with(end),
            None => file == *asset,
        })
    };
    for page in PAGES.iter().filter(|page| is_packaged(page)) {
        for link in page::links(&read(page)).filter(|link| !link.contains("://") && !link.starts_with('#')) {
            let path = Path::new(page).with_file_name(link.split('#').next().unwrap_or_default());
            let path = path.to_str().expect("a path").replace("docs/../", "");
            assert!(is_packaged(&path), "{page}: {path} is not in the Debian package");
        }
    }
    assert!(is_packaged("docs/sizing.md"));
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
            let reason = reason.unwrap_or_else(|| {
                panic!("{}: the first line must be a comment that says why this is not run", block.place)
            });
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

/// Prints to the terminal even if the test succeeds.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
