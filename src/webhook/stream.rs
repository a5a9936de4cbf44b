//! The stream of events: a session with the shard that keeps the journal, which is asked once and then only read.

use crate::admin::link::{Asked, Link, Opener, Outlet, Sent};
use crate::api::Command;
use crate::api::operation::Events;
use crate::hub::observe::journal::JOURNAL;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::sync::mpsc;

/// One session.
pub struct Stream {
    link: Link,
    pieces: mpsc::UnboundedReceiver<Vec<Sent>>,
    /// How many were sent and are not read.
    unread: Arc<AtomicUsize>,
}

struct Pieces {
    pieces: mpsc::UnboundedSender<Vec<Sent>>,
    unread: Arc<AtomicUsize>,
}

impl Outlet for Pieces {
    fn take(&mut self, pieces: Vec<Sent>) -> bool {
        self.unread.fetch_add(pieces.len(), Relaxed);
        self.pieces.send(pieces).is_ok()
    }

    fn has_room(&self) -> bool {
        self.unread.load(Relaxed) < UNREAD_MAX
    }
}

impl Stream {
    /// Opens a session and sends the request. `None`: the shard has ended.
    pub fn open(opener: &Opener, request: Events) -> Option<Stream> {
        let (sender, pieces) = mpsc::unbounded_channel();
        let unread = Arc::<AtomicUsize>::default();
        let link = opener(JOURNAL, Box::new(Pieces { pieces: sender, unread: unread.clone() }))?;
        link.send(Asked { command: Command::Request(request.into()), bytes: 0 });
        link.ring();
        Some(Stream { link, pieces, unread })
    }

    /// Reads what was sent in one turn; `None`: the end. It can be cancelled.
    pub async fn read(&mut self) -> Option<Vec<Sent>> {
        let pieces = self.pieces.recv().await?;
        if self.unread.fetch_sub(pieces.len(), Relaxed) >= UNREAD_MAX {
            self.link.ring();
        }
        Some(pieces)
    }
}

/// Replies and pieces that wait to be read before the shard makes more. A piece has up to a thousand entries.
const UNREAD_MAX: usize = 8;
