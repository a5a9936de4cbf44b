//! Users: connections that have signed in. A user is an internal channel to which its connections are subscribed. So a
//! publish to the user and its disconnect keep their order, and the server needs no table of users.

use super::channel::directory::total;
use super::mail::{Answer, Mail, Membership};
use super::{Hub, Port};
use crate::api::Reply;
use crate::api::operation::Disconnect;
use crate::hub::channel::presence::user::User;
use crate::ids::{Asker, Slot};
use crate::protocol::auth::{Attempt, Failure};
use crate::protocol::channel::ChannelName;
use crate::protocol::close::CloseReason;
use crate::protocol::command::Auth;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::event::Subscribed;
use crate::protocol::json::JsonString;
use crate::protocol::user::{NO_USER_DATA, SignedUser};
use std::sync::Arc;

/// What is known of a connection that has signed in.
pub(super) struct SignedIn {
    user: Arc<User>,
    /// What the backend signed, until a Pusher client is sent it back.
    user_data: Option<Box<str>>,
}

impl Hub {
    /// Signs a connection in. The reply follows once the owner of the user's channel counts the connection.
    pub(super) fn sign_in(
        &mut self,
        slot: Slot,
        auth: &Auth<'_>,
        user_data: Option<&JsonString<'_>>,
        port: &mut impl Port,
    ) -> Result<(), ErrorCode> {
        self.count_change(slot)?;
        let dialect = self.audiences.dialect(slot);
        let auth = match auth {
            Auth::Absent => return Err(self.not_signed_in(slot, None)),
            Auth::NotString => None,
            Auth::Text(auth) => Some(auth),
        };
        let user_data = user_data.ok_or(NO_USER_DATA)?;
        let verified = auth.ok_or(Failure::NotString).and_then(|auth| {
            let id = self.socket_id(slot);
            self.keys.verify(&Attempt::of_user(id, auth, &user_data.value))
        });
        verified.map_err(|failure| self.not_signed_in(slot, Some(failure)))?;
        let max = self.limits.presence_info_bytes_max;
        let user = SignedUser::of_sign_in(&user_data.value, max, &mut self.reader)?;
        let user = User::new(&user.id, user.info);
        match self.users.get(&slot) {
            Some(known) if known.user.id() != user.id() => return Err(ErrorCode::AlreadySignedIn),
            Some(_) => {
                self.audiences.answer(slot, port, |out| dialect.signed_in(out, user.id(), &user_data.value));
                return Ok(());
            }
            None => {}
        }
        let channel = ChannelName::of_user(user.id());
        let hash = self.hash(channel.as_channel());
        let change = self.audiences.sign_in(slot, channel.as_channel(), hash);
        self.audiences.authorize(slot);
        let user_data = dialect.is_pusher().then(|| Box::from(&*user_data.value));
        self.users.insert(slot, SignedIn { user: Arc::new(user), user_data });
        self.post(self.owner(hash), Mail::Subscribe(change), port);
        Ok(())
    }

    /// The owner of the user's channel counts the connection. Messages to the user follow the reply.
    pub(super) fn signed_in(&mut self, membership: &Membership, request: u32, port: &mut impl Port) {
        let slot = membership.member.slot;
        let opens = (!self.audiences.is_muted(slot)).then_some(membership.audience);
        let Some(SignedIn { user, user_data }) = self.users.get_mut(&slot) else { return };
        self.counters.sign_ins += 1;
        let (dialect, user_data) = (self.audiences.dialect(slot), user_data.take().unwrap_or_default());
        self.audiences.reply(slot, request, opens, port, |out| dialect.signed_in(out, user.id(), &user_data));
        if dialect.is_pusher() {
            self.watch(slot, &user_data, port);
        }
    }

    /// A Pusher client subscribes to the channel of its user. It already receives the messages, since its sign-in.
    pub(super) fn subscribe_to_user(
        &mut self,
        slot: Slot,
        id: &str,
        channel: &JsonString<'_>,
        port: &mut impl Port,
    ) -> Result<(), ErrorCode> {
        if self.user_of(slot).is_none_or(|user| user.id() != id) {
            self.counters.auth_failures += 1;
            return Err(ErrorCode::OtherUser);
        }
        let dialect = self.audiences.dialect(slot);
        self.audiences.answer(slot, port, |out| dialect.subscribed(out, channel.raw, &Subscribed::default()));
        Ok(())
    }

    fn not_signed_in(&mut self, slot: Slot, failure: Option<Failure>) -> ErrorCode {
        self.counters.auth_failures += 1;
        let Some(failure) = failure else { return ErrorCode::SignInAuthRequired };
        tracing::debug!(socket_id = %self.socket_id(slot), ?failure, "sign-in not authorized");
        ErrorCode::SignInAuthInvalid(failure)
    }

    /// The user that a connection has signed in as.
    pub(super) fn user_of(&self, slot: Slot) -> Option<&Arc<User>> {
        self.users.get(&slot).map(|signed_in| &signed_in.user)
    }

    /// As the owner of a user's channel: closes all connections of the user, after what was published to it before. Answers
    /// their number.
    pub(super) fn disconnect_user(
        &mut self,
        channel: &ChannelName,
        hash: u64,
        Disconnect { code, reason, .. }: &Disconnect,
        asker: Asker,
        port: &mut impl Port,
    ) {
        let connections = total(self.directory.counts(channel.as_channel(), hash));
        let shards = self.shards_with(channel, hash);
        for &shard in &shards {
            let reason = CloseReason::by_operator(*code, reason.as_deref());
            self.post(shard, Mail::Disconnect { channel: channel.clone(), hash, reason: Box::new(reason) }, port);
        }
        let answer = Answer::Reply(Ok(Reply::Disconnected { connections }));
        self.post_after(&shards, asker.shard, Mail::Answer(asker, Box::new(answer)), port);
    }

    /// Closes the connections of this shard that are subscribed to a user's channel.
    pub(super) fn close_all(&mut self, channel: &ChannelName, hash: u64, reason: &CloseReason, port: &mut impl Port) {
        for slot in self.audiences.subscribers(channel.as_channel(), hash) {
            // At once: letters of this turn may hold messages that were published after the disconnect.
            self.mute(slot, reason, port);
            port.close(slot, reason.clone());
        }
    }
}
