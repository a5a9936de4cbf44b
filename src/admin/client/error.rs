//! The errors of a command, with the way out.

use super::stream;
use rustix::process::Uid;
use std::fmt;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

/// Why a command failed.
#[derive(Debug)]
pub enum Error {
    /// No server listens on the socket, or it may not be opened.
    NoServer {
        /// The admin socket.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// The default path belongs to a process of another user, which would receive what is published.
    OtherUser {
        /// The admin socket.
        path: PathBuf,
        /// The user.
        user: Uid,
    },
    /// The server closed the connection, does not answer, or does not speak this protocol.
    Broken {
        /// The admin socket.
        path: PathBuf,
        /// What went wrong.
        what: String,
    },
    /// The server refused the request.
    Refused {
        /// The code, for programs.
        code: String,
        /// The text, for people.
        text: String,
    },
    /// The answer could not be printed.
    Output(io::Error),
    /// The input with the messages to publish could not be read.
    Input {
        /// The error of the system.
        error: io::Error,
        /// The result of the lines before.
        summary: stream::Summary,
    },
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoServer { path, error } => {
                let is_socket = path.metadata().is_ok_and(|metadata| metadata.file_type().is_socket());
                let path = path.display();
                let remedy = match error.kind() {
                    io::ErrorKind::PermissionDenied => {
                        "Run this as the user that the server runs as, or as one that the socket's mode allows"
                    }
                    io::ErrorKind::ConnectionRefused if !is_socket => {
                        "That file is not a socket: --admin-socket PATH names one"
                    }
                    io::ErrorKind::ConnectionRefused => {
                        "The socket is left over from a server that has ended: start one with `corecast serve`"
                    }
                    _ => {
                        "Start a server with `corecast serve`, or name the socket of the one that runs with \
                         --admin-socket PATH or CORECAST_ADMIN_SOCKET; the systemd unit's is /run/corecast/admin.sock"
                    }
                };
                write!(f, "no server answers on the admin socket {path} ({error}). {remedy}")
            }
            Error::OtherUser { path, user } => write!(
                f,
                "the admin socket {} belongs to another user ({}), so nothing was sent. Name the server's with \
                 --admin-socket PATH or CORECAST_ADMIN_SOCKET, in a directory that others may not write to",
                path.display(),
                user.as_raw()
            ),
            Error::Broken { path, what } => write!(
                f,
                "the server on the admin socket {} failed: {what}. Its log says more; `corecast ping` checks whether it \
                 is alive",
                path.display()
            ),
            Error::Refused { code, text } => write!(f, "{code}: {text}"),
            Error::Output(error) => write!(f, "cannot write the answer: {error}"),
            Error::Input { error, summary } => write!(f, "cannot read the input: {error}; before that, {summary}"),
        }
    }
}
