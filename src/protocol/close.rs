//! Every way a connection can end: code, text, may-reconnect, metric label.

/// Why a connection ended, or is to end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum CloseReason {
    /// The client sent a close frame; its code is echoed.
    ClientClosed { code: Option<u16> },
    /// The client's end closed or reset without a close frame.
    ClientGone,
    /// 1012: the server is stopping.
    ServerRestarting,
    /// 1002
    ProtocolError(&'static str),
    /// 1003
    BinaryMessage,
    /// 1007
    InvalidUtf8,
    /// 1009
    MessageTooBig { limit: usize },
    /// 4000–4999, by the admin socket.
    Disconnected { code: u16, reason: Box<str> },
    /// 4100: "outbox over N bytes (M bytes pending)"
    SlowConsumer { limit: usize, pending: usize },
    /// 4101
    OverCapacity { limit: usize },
    /// 4201
    PongTimeout { timeout_s: u32 },
    /// 4202
    Silent { timeout_s: u32 },
    /// Upgrade not finished in time; no frame.
    HandshakeTimeout,
    /// Upgrade refused with an HTTP error; no frame.
    UpgradeRefused,
}

impl CloseReason {
    /// Number of kinds; `kind()` is below it.
    pub const KINDS: usize = 14;
    /// Index of the kind, for counters.
    pub fn kind(&self) -> usize {
        0
    }
    /// Metric label of each kind, by index.
    pub const LABELS: [&'static str; Self::KINDS] = [""; Self::KINDS];
    /// Close code and text to send; `None`: no frame is sent.
    pub fn frame(&self) -> Option<(u16, String)> {
        None
    }
}
