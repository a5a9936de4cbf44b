//! What the service manager is told (sd_notify(3)). Where none asked for it, in `NOTIFY_SOCKET`, nothing is sent.

use sd_notify::NotifyState;

/// Clients are served from now on.
pub fn tell_ready() {
    tell(NotifyState::Ready);
}

/// The server is on its way out.
pub fn tell_stopping() {
    tell(NotifyState::Stopping);
}

fn tell(state: NotifyState) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}
