//! What the service manager is told (sd_notify(3)). Where none asked for it, in `NOTIFY_SOCKET`, nothing is sent.

use sd_notify::NotifyState;
use std::time::Duration;

/// Clients are served from now on.
pub fn tell_ready() {
    tell(&[NotifyState::Ready]);
}

/// The server is on its way out, and will be gone within this time: it is not to be killed before, whatever the unit says.
pub fn tell_stopping(within: Duration) {
    let within_us = within.as_micros().try_into().unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(within_us)]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}
