//! The values that a session and its peer exchange.

use crate::api::publish::Placed;
use crate::api::{Published, Refusal, Reply};
use crate::hub::observe::piece::Piece;

/// The encoding between a session and its peer.
pub trait Codec {
    /// Identifies the request that a reply answers.
    type Tag<'a>: Copy;
    /// The tag while the reply waits.
    type Kept;
    /// Replies that are ready to be sent.
    type Output: Default;

    /// Keeps a tag.
    fn keep(tag: Self::Tag<'_>) -> Self::Kept;
    /// Restores a kept tag.
    fn tag(kept: &Self::Kept) -> Self::Tag<'_>;
    /// Appends a reply.
    fn reply(output: &mut Self::Output, tag: Self::Tag<'_>, reply: Result<Reply, Refusal>);
    /// Appends the reply to a publish to one channel. Apart from the others because it is the most frequent.
    fn published(output: &mut Self::Output, tag: Self::Tag<'_>, subscribers: u64, placed: Option<Placed>) {
        let published = Published { placed, ..Published::to(subscribers) };
        Self::reply(output, tag, Ok(Reply::Published(published)));
    }
    /// Appends a piece of a stream.
    fn tell(output: &mut Self::Output, piece: Piece);
    /// Appends output that was made earlier.
    fn append(output: &mut Self::Output, more: Self::Output);
    /// Bytes of memory that the output uses.
    fn bytes(output: &Self::Output) -> usize;
}
