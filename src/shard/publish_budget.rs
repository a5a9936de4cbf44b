//! How much of what is to be published one turn takes.

use crate::hub::Laid;

/// The bounds of a turn's intake, from publishers and from other shards. What is beyond them waits where it is.
#[derive(Clone, Copy)]
pub struct PublishBudget {
    /// Bytes of lines that are read from publishers.
    pub read_bytes_max: usize,
    /// Bytes of messages laid out for one subscriber.
    pub laid_bytes_max: usize,
}

impl PublishBudget {
    /// For connections whose outbox has this limit: one turn must not break it.
    pub fn new(outbox_bytes_max: usize) -> PublishBudget {
        PublishBudget {
            read_bytes_max: READ_BYTES_MAX,
            laid_bytes_max: (outbox_bytes_max / 4).clamp(1, READ_BYTES_MAX),
        }
    }

    /// Whether this much must be written before more is laid out.
    pub fn is_enough(self, laid: Laid) -> bool {
        laid.bytes >= self.laid_bytes_max || laid.fan_out_bytes >= FAN_OUT_BYTES_MAX
    }
}

/// Measured: 16 KB per turn halved the throughput at 256 messages outstanding.
const READ_BYTES_MAX: usize = 256 * 1024;
/// Every message as often as it is delivered: 10 to 30 ms of copying. For 10 000 subscribers that is still 20 messages of 300
/// bytes a write, where a further message costs little.
const FAN_OUT_BYTES_MAX: usize = 64 * 1024 * 1024;
