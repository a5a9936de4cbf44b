//! Notifications to systemd (sd_notify(3)). Without `NOTIFY_SOCKET` nothing is sent.

use sd_notify::NotifyState;
use std::time::Duration;

/// The server is ready: clients are served.
pub fn tell_ready() {
    tell(&[NotifyState::Ready]);
}

/// The server is stopping and ends within this time; systemd must not kill it before, even if the unit's timeout is shorter.
pub fn tell_stopping(within: Duration) {
    let within_us = within.as_micros().try_into().unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(within_us)]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}
