//! How a shard sleeps without missing mail: a flag that coalesces wake-ups, and marks left by senders that found its inbox
//! full.
//!
//! ```text
//! sender                                   receiver
//!   offer to inbox ── full ─► mark refused   clear rung, then drain
//!     └► note the peer       └► offer again  for each refused mark: clear it, ring that shard
//!   end of turn: ring each noted peer        before sleeping: nothing left over, or poll with timeout 0
//!     (swap rung; the first one writes the eventfd)
//! ```
//!
//! Both flags are sequentially consistent. A sender that pushes after the receiver's last look sees `rung` cleared, and rings.
//! A sender that marks `refused` after the receiver's look finds room at the second offer. No timeout hides a lost wake-up: the
//! tests below try every interleaving.

use mio::Waker;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// How a shard is woken. The parameters are for the model checker, which brings flags and sleepers of its own.
pub struct Doorbell<W = Waker, F = AtomicBool> {
    /// Set by the first ring, cleared by the shard before it looks.
    rung: F,
    waker: W,
    /// Shards whose mail found the inbox full.
    refused: Box<[F]>,
}

/// What ends a shard's sleep.
pub trait Wake {
    /// Ends the sleep that is under way, or else the next one.
    fn wake(&self) -> io::Result<()>;
}

/// A sequentially consistent flag, cleared at first.
pub trait Flag: Default {
    /// Whether it is set.
    fn is_set(&self) -> bool;
    /// Sets or clears it. Returns what it was.
    fn swap(&self, value: bool) -> bool;
}

impl<W: Wake, F: Flag> Doorbell<W, F> {
    /// The doorbell of one of `peers` peers, which sleeps until `waker` wakes it.
    pub fn new(waker: W, peers: usize) -> Doorbell<W, F> {
        Doorbell { rung: F::default(), waker, refused: (0..peers).map(|_| F::default()).collect() }
    }

    /// Wakes the shard, if it was not woken since it last looked. Returns whether a system call was made.
    pub fn ring(&self) -> io::Result<bool> {
        if self.rung.swap(true) {
            return Ok(false);
        }
        self.waker.wake().map(|()| true)
    }

    /// Call this before the inbox is drained: a shard that mails from now on rings again.
    pub fn look(&self) {
        // A swap costs what a sequentially consistent store does, and orders itself behind every ring that it undoes.
        self.rung.swap(false);
    }

    /// Offers a letter of shard `from` to this shard's inbox. If it is refused, `from` offers it again once it is rung.
    pub fn offer<T>(&self, from: usize, letter: T, mut try_send: impl FnMut(T) -> Result<(), T>) -> Result<(), T> {
        try_send(letter).or_else(|letter| {
            self.refused[from].swap(true);
            // The inbox may have been drained, and its marks handled, in between.
            try_send(letter)
        })
    }

    /// There is room in the inbox: rings the `doorbells` of the shards whose mail was refused.
    pub fn call_refused(&self, doorbells: &[Doorbell<W, F>]) -> io::Result<()> {
        for (refused, doorbell) in self.refused.iter().zip(doorbells) {
            if refused.is_set() && refused.swap(false) {
                doorbell.ring()?;
            }
        }
        Ok(())
    }
}

impl Wake for Waker {
    fn wake(&self) -> io::Result<()> {
        Waker::wake(self)
    }
}

impl Flag for AtomicBool {
    fn is_set(&self) -> bool {
        self.load(SeqCst)
    }

    fn swap(&self, value: bool) -> bool {
        AtomicBool::swap(self, value, SeqCst)
    }
}

#[cfg(test)]
mod model;
