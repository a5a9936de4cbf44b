//! Parses a Markdown page into its fenced blocks.

use std::path::Path;

/// A fenced block.
pub struct Block {
    /// Page and line of the fence, for messages.
    pub place: String,
    pub kind: Kind,
    /// The names of `needs=NAME`, and the interpreter of a script.
    pub needs: Vec<String>,
    pub lines: Vec<String>,
}

impl Block {
    /// The same block with more code behind its own.
    pub fn followed_by(&self, code: &str) -> Block {
        let lines = self.lines.iter().map(String::as_str).chain(code.lines()).map(str::to_owned).collect();
        Block { place: self.place.clone(), kind: self.kind.clone(), needs: self.needs.clone(), lines }
    }
}

/// How a block is run, by its info string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `sh`
    Shell,
    /// `console`
    Console,
    /// `sh server`
    Server,
    /// `sh background`
    Background,
    /// `output`
    Output,
    /// `output server`
    OutputOfServer,
    /// `output background`
    OutputOfBackground,
    /// `ws`
    WebSocket,
    /// `admin`
    Admin,
    /// `python` or `js`
    Script(&'static Interpreter),
    /// `LANGUAGE NAME`: the name of the file.
    File(String),
    /// `json`
    Json,
    /// `LANGUAGE not-run`
    NotRun,
}

/// The program that runs a script.
#[derive(Debug, PartialEq, Eq)]
pub struct Interpreter {
    pub program: &'static str,
    /// Where `tests/clients/run.sh` installs it, in the repository; empty if it does not.
    pub installed: &'static str,
    pub file: &'static str,
}

const PYTHON: Interpreter =
    Interpreter { program: "python3", installed: "target/clients/venv/bin/python3", file: "example.py" };
const NODE: Interpreter = Interpreter { program: "node", installed: "", file: "example.cjs" };

/// The blocks of a page. Code outside of a fence is an error, because it would not be run.
pub fn blocks(path: &Path, text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let place = format!("{}:{}", path.display(), index + 1);
        let Some(info) = line.trim_start().strip_prefix("```") else {
            assert!(!line.starts_with("    "), "{place}: an indented block is not run: use a fence");
            continue;
        };
        let indent = line.len() - line.trim_start().len();
        let content = lines.by_ref().map(|(_, line)| line.get(indent..).unwrap_or_default().to_owned());
        let lines: Vec<String> = content.take_while(|line| line != "```").collect();
        let (needs, words): (Vec<&str>, Vec<&str>) = info.split(' ').partition(|word| word.starts_with("needs="));
        let Some(kind) = kind(&words) else {
            panic!("{place}: ```{info} is not a known info string; see tests/it/documentation.rs");
        };
        let mut needs: Vec<String> = needs.into_iter().map(|word| word["needs=".len()..].to_owned()).collect();
        if let Kind::Script(interpreter) = &kind {
            needs.push(interpreter.program.into());
        }
        blocks.push(Block { place, kind, needs, lines });
    }
    blocks
}

fn kind(words: &[&str]) -> Option<Kind> {
    Some(match words {
        ["sh"] => Kind::Shell,
        ["console"] => Kind::Console,
        ["sh", "server"] => Kind::Server,
        ["sh", "background"] => Kind::Background,
        ["output"] => Kind::Output,
        ["output", "server"] => Kind::OutputOfServer,
        ["output", "background"] => Kind::OutputOfBackground,
        ["ws"] => Kind::WebSocket,
        ["admin"] => Kind::Admin,
        ["python"] => Kind::Script(&PYTHON),
        ["js"] => Kind::Script(&NODE),
        ["json"] => Kind::Json,
        [_, "not-run"] => Kind::NotRun,
        [_, file] if file.contains('.') => Kind::File((*file).to_owned()),
        _ => return None,
    })
}

/// The targets of the page's links, as written.
pub fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// The anchors that GitHub gives to the headings.
pub fn anchors(text: &str) -> Vec<String> {
    let mut is_fenced = false;
    let headings = text.lines().filter_map(|line| {
        is_fenced ^= line.trim_start().starts_with("```");
        line.strip_prefix('#').filter(|_| !is_fenced)
    });
    let anchor = |heading: &str| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.collect::<String>().trim().to_lowercase().replace(' ', "-")
    };
    headings.map(anchor).collect()
}
