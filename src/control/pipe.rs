//! The way to the shards: an admin connection that never left the process. Requests go out in lines, replies come back in
//! order, and the session at the other end holds this one to its window like any publisher.

use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, oneshot};

/// A pipelined client of one admin session. Clones share it.
#[derive(Clone)]
pub struct Pipe(Arc<Shared>);

/// Why a request did not reach the shards. None of it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// Too much is under way: [`REQUESTS_MAX`] or [`BYTES_MAX`].
    Overloaded,
    /// The shards are gone, or going.
    Closed,
}

/// The reply to a request, to come.
pub struct Pending(oneshot::Receiver<Box<[u8]>>);

struct Shared {
    state: Mutex<State>,
    /// There is something to write.
    wake: Notify,
}

#[derive(Default)]
struct State {
    /// Lines that are not yet given to the socket. All of a turn of the runtime go in one write.
    lines: Vec<u8>,
    /// Who waits for a reply, oldest request first.
    waiting: VecDeque<oneshot::Sender<Box<[u8]>>>,
    is_closed: bool,
}

impl Pipe {
    /// Starts the two tasks that move bytes. Called on the runtime.
    pub fn open(stream: UnixStream) -> io::Result<Pipe> {
        stream.set_nonblocking(true)?;
        let (read, write) = tokio::net::UnixStream::from_std(stream)?.into_split();
        let shared = Arc::new(Shared { state: Mutex::default(), wake: Notify::new() });
        tokio::spawn(read_replies(shared.clone(), read));
        tokio::spawn(write_lines(shared.clone(), write));
        Ok(Pipe(shared))
    }

    /// Sends one request, a line without its newline.
    pub fn ask(&self, line: &[u8]) -> Result<Pending, Unavailable> {
        let mut pending = self.ask_all(&[line])?;
        pending.pop().ok_or(Unavailable::Closed)
    }

    /// Sends all of these requests, or none.
    pub fn ask_all(&self, lines: &[impl AsRef<[u8]>]) -> Result<Vec<Pending>, Unavailable> {
        let mut state = self.0.lock();
        if state.is_closed {
            return Err(Unavailable::Closed);
        }
        if state.waiting.len() + lines.len() > REQUESTS_MAX || state.lines.len() > BYTES_MAX {
            return Err(Unavailable::Overloaded);
        }
        let mut pending = Vec::with_capacity(lines.len());
        for line in lines {
            state.lines.extend_from_slice(line.as_ref());
            state.lines.push(b'\n');
            let (sender, receiver) = oneshot::channel();
            state.waiting.push_back(sender);
            pending.push(Pending(receiver));
        }
        drop(state);
        self.0.wake.notify_one();
        Ok(pending)
    }
}

impl Pending {
    /// The reply line. Whoever stops waiting leaves the request to be done all the same.
    pub async fn reply(self) -> Result<Box<[u8]>, Unavailable> {
        self.0.await.map_err(|_| Unavailable::Closed)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everybody who waits is told.
    fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        state.waiting.clear();
        drop(state);
        self.wake.notify_one();
    }
}

async fn write_lines(shared: Arc<Shared>, mut write: OwnedWriteHalf) {
    let mut lines = Vec::new();
    loop {
        shared.wake.notified().await;
        {
            let mut state = shared.lock();
            if state.is_closed {
                return;
            }
            std::mem::swap(&mut lines, &mut state.lines);
        }
        if write.write_all(&lines).await.is_err() {
            return shared.close();
        }
        lines.clear();
        lines.shrink_to(BYTES_KEPT);
    }
}

async fn read_replies(shared: Arc<Shared>, mut read: OwnedReadHalf) {
    let mut input = Vec::with_capacity(BYTES_KEPT);
    let mut searched = 0;
    loop {
        if !matches!(read.read_buf(&mut input).await, Ok(1..)) {
            return shared.close();
        }
        let mut start = 0;
        let mut state = shared.lock();
        while let Some(found) = memchr::memchr(b'\n', &input[searched..]) {
            let end = searched + found;
            if let Some(waiting) = state.waiting.pop_front() {
                // Refused where nobody waits any more.
                let _ = waiting.send(input[start..end].into());
            }
            (start, searched) = (end + 1, end + 1);
        }
        drop(state);
        input.drain(..start);
        searched = input.len();
        if input.is_empty() {
            input.shrink_to(BYTES_KEPT);
        }
    }
}

/// Requests that may be under way. HTTP connections have one each, a batch of events up to ten.
pub const REQUESTS_MAX: usize = 1024;
/// Bytes of requests that may wait for the session to read them, before the next is refused.
pub const BYTES_MAX: usize = 4 * 1024 * 1024;
/// What a buffer keeps when it is empty.
const BYTES_KEPT: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: impl AsyncFnOnce(Pipe, tokio::net::UnixStream)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let (ours, theirs) = UnixStream::pair().unwrap();
            theirs.set_nonblocking(true).unwrap();
            script(Pipe::open(ours).unwrap(), tokio::net::UnixStream::from_std(theirs).unwrap()).await;
        });
    }

    #[test]
    fn replies_find_their_requests_in_order() {
        run(async |pipe, mut session| {
            let first = pipe.ask(b"one").unwrap();
            let rest = pipe.ask_all(&["two", "three"]).unwrap();
            let mut lines = [0; 14];
            session.read_exact(&mut lines).await.unwrap();
            assert_eq!(&lines, b"one\ntwo\nthree\n");
            session.write_all(b"1\n2").await.unwrap();
            assert_eq!(*first.reply().await.unwrap(), *b"1");
            session.write_all(b"2\n\n").await.unwrap();
            let mut replies = Vec::new();
            for pending in rest {
                replies.push(pending.reply().await.unwrap());
            }
            assert_eq!(replies, [b"22"[..].into(), b""[..].into()]);
        });
    }

    #[test]
    fn a_reply_that_nobody_waits_for_is_passed_over() {
        run(async |pipe, mut session| {
            drop(pipe.ask(b"one").unwrap());
            let second = pipe.ask(b"two").unwrap();
            session.write_all(b"1\n2\n").await.unwrap();
            assert_eq!(*second.reply().await.unwrap(), *b"2");
        });
    }

    #[test]
    fn what_is_under_way_is_bounded() {
        run(async |pipe, _session| {
            let pending: Vec<_> = (1..REQUESTS_MAX).map(|_| pipe.ask(b"x").unwrap()).collect();
            assert_eq!(pipe.ask_all(&["x", "x"]).err(), Some(Unavailable::Overloaded));
            assert!(pipe.ask(b"x").is_ok());
            assert_eq!(pipe.ask(b"x").err(), Some(Unavailable::Overloaded));
            drop(pending);
        });
        run(async |pipe, _session| {
            let large = vec![b'x'; BYTES_MAX];
            assert!(pipe.ask(&large).is_ok());
            assert_eq!(pipe.ask(b"x").err(), Some(Unavailable::Overloaded));
        });
    }

    #[test]
    fn the_end_of_the_session_is_told_to_all() {
        run(async |pipe, session| {
            let pending = pipe.ask(b"x").unwrap();
            drop(session);
            assert_eq!(pending.reply().await.err(), Some(Unavailable::Closed));
            assert_eq!(pipe.ask(b"x").err(), Some(Unavailable::Closed));
        });
    }
}
