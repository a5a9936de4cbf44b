//! Who may use the console.

use super::REDACTED;
use super::files::Files;
use std::fmt;
use std::path::{Path, PathBuf};

/// Whether there is a console, and what it asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Console {
    /// It is wanted. Without a key it is served to this machine only.
    pub is_on: bool,
    /// What whoever uses it has to know.
    pub key: Option<ConsoleKey>,
}

/// The access key, and where it is from.
#[derive(Clone, PartialEq, Eq)]
pub struct ConsoleKey {
    /// The file.
    pub path: PathBuf,
    /// What it says; never printed.
    pub secret: String,
}

impl ConsoleKey {
    /// Reads the first line that is neither blank nor a comment.
    ///
    /// # Errors
    /// What is wrong with the file, for people; nothing of what it holds.
    pub fn load(path: &Path, files: &Files) -> Result<ConsoleKey, String> {
        let at = path.display();
        let read = files.read(path).map_err(|why| format!("{why}; `corecast keygen > FILE` makes one"))?;
        let mut lines = read.text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let secret = lines.next().unwrap_or_default();
        let is_legal = (SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&secret.len())
            && secret.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_legal || lines.next().is_some() {
            return Err(format!(
                "{at} holds no access key: one line of {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} ASCII characters without \
                 spaces; `corecast keygen > FILE` makes one"
            ));
        }
        Ok(ConsoleKey { path: path.into(), secret: secret.into() })
    }

    /// Whether the same file says something else now.
    pub(super) fn is_changed(&self, new: &ConsoleKey) -> bool {
        self.path == new.path && self.secret != new.secret
    }
}

/// The secret stays out of logs, panics and test output.
impl fmt::Debug for ConsoleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConsoleKey({}:{REDACTED})", self.path.display())
    }
}

/// Shorter ones could be guessed.
const SECRET_BYTES_MIN: usize = 16;
const SECRET_BYTES_MAX: usize = 256;
