//! The console: whether it is served; access keys, its own and the token of `POST /publish`.

use super::REDACTED;
use super::files::Files;
use std::fmt;
use std::path::{Path, PathBuf};

/// Whether there is a console, and its access key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Console {
    /// Whether it is served.
    pub is_on: bool,
    /// The key that opens it without a token.
    pub key: Option<AccessKey>,
}

/// The access key, and the file that it comes from.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// The file.
    pub path: PathBuf,
    /// The key; never printed.
    pub secret: String,
}

impl AccessKey {
    /// Reads the first line that is neither blank nor a comment.
    ///
    /// # Errors
    /// What is wrong with the file, without anything that it holds.
    pub fn load(path: &Path, files: &Files) -> Result<AccessKey, String> {
        let at = path.display();
        let text = files.read_secret(path).map_err(|why| format!("{why}; `corecast keygen > FILE` makes one"))?;
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let secret = lines.next().unwrap_or_default();
        let is_legal = (SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&secret.len())
            && secret.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_legal || lines.next().is_some() {
            return Err(format!(
                "{at} does not hold one line of {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} ASCII characters without spaces; \
                 `corecast keygen > FILE` makes one"
            ));
        }
        Ok(AccessKey { path: path.into(), secret: secret.into() })
    }

    /// Whether the same file holds another key now.
    pub(super) fn is_changed(&self, new: &AccessKey) -> bool {
        self.path == new.path && self.secret != new.secret
    }
}

/// The secret stays out of logs, panics and test output.
impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccessKey({}:{REDACTED})", self.path.display())
    }
}

/// A shorter key could be guessed.
const SECRET_BYTES_MIN: usize = 16;
const SECRET_BYTES_MAX: usize = 256;
