//! Log lines about clients that cannot be served: what their request looked like, and what to change.

use super::Clients;
use crate::hub::Notice;
use crate::ids::Slot;
use crate::protocol::pusher::handshake;
use crate::shard::advice;
use crate::shard::notices::Kind;
use crate::wire::upgrade::Refusal;

impl Clients {
    /// A request was refused with an HTTP error.
    pub(super) fn note_refusal(&self, slot: Slot, refusal: &Refusal, request: &[u8]) {
        let Some(left_out) = self.notices.may_write(Kind::of_upgrade(refusal)) else { return };
        let (address, source) = self.origin(slot);
        tracing::info!(
            shard = self.me,
            address,
            source,
            why = refusal.why,
            request = ?advice::looks(request),
            left_out = shown(left_out),
            "upgrade refused: {}",
            advice::of_refusal(refusal, request, &self.live.access)
        );
    }

    /// The request of a Pusher client was refused, after its upgrade.
    pub(super) fn note_pusher_refusal(&self, slot: Slot, refusal: &handshake::Refusal, target: &str) {
        let Some(left_out) = self.notices.may_write(Kind::of_pusher(refusal)) else { return };
        let (address, source) = self.origin(slot);
        tracing::info!(
            shard = self.me,
            address,
            source,
            why = %refusal,
            request = ?advice::shortened(target),
            left_out = shown(left_out),
            "Pusher client refused: {}",
            advice::of_pusher_refusal(refusal, !self.live.keys.is_empty())
        );
    }

    /// A request was upgraded to the native dialect: notes it if it looks like that of a Pusher client.
    pub(super) fn note_native(&self, slot: Slot, request: &[u8]) {
        if self.live.access.pusher || !advice::is_of_pusher(request) {
            return;
        }
        let Some(left_out) = self.notices.may_write(Kind::PUSHER_OFF) else { return };
        let (address, source) = self.origin(slot);
        tracing::info!(
            shard = self.me,
            address,
            source,
            request = ?advice::looks(request),
            left_out = shown(left_out),
            "this looks like a Pusher client, but is served in the native dialect: --pusher on serves Pusher's clients"
        );
    }

    /// A client's message cannot be served.
    pub(super) fn write_notice(&self, slot: Slot, notice: Notice<'_>) {
        let kind = match notice {
            Notice::PusherOnNative { .. } => Kind::PUSHER_ON_NATIVE,
            Notice::NativeOnPusher { .. } => Kind::NATIVE_ON_PUSHER,
            Notice::SignInRefused { .. } => Kind::SIGN_IN,
        };
        let Some(left_out) = self.notices.may_write(kind) else { return };
        let (address, source) = self.origin(slot);
        let (shard, left_out) = (self.me, shown(left_out));
        match notice {
            Notice::PusherOnNative { event } => tracing::info!(
                shard, address, source, event = ?advice::shortened(event), left_out,
                "a Pusher client is connected to a path of the native dialect: Pusher clients belong on /app/KEY, where KEY is \
                 the ID of a key pair{}",
                if self.live.access.pusher { "" } else { ", with --pusher on" }
            ),
            Notice::NativeOnPusher { event } => tracing::info!(
                shard, address, source, event = ?advice::shortened(event), left_out,
                "a native client is connected to /app/KEY, which is for Pusher clients: it belongs on another path"
            ),
            Notice::SignInRefused { why } => tracing::warn!(
                shard,
                address,
                source,
                why,
                left_out,
                "the sign-in of a Pusher client is refused, and pusher-js does not tell its application: correct the \
                 backend's user authentication"
            ),
        }
    }
}

/// The number of lines that were left out, if there are any.
fn shown(left_out: u64) -> Option<u64> {
    Some(left_out).filter(|left_out| *left_out > 0)
}
