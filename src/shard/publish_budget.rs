//! How much published data one turn takes in.

use crate::hub::TurnOutput;

/// The bounds of a turn's intake, from publishers and from other shards. The rest waits in sockets and inboxes.
#[derive(Clone, Copy)]
pub struct PublishBudget {
    /// Bytes of messages fanned out to one subscriber.
    pub turn_bytes_max: usize,
}

impl PublishBudget {
    /// The budget for this outbox limit, which one turn must not exceed.
    pub fn new(outbox_bytes_max: usize) -> PublishBudget {
        PublishBudget { turn_bytes_max: (outbox_bytes_max / 4).clamp(1, READ_BYTES_MAX) }
    }

    /// Whether this much must be written before more is fanned out.
    pub fn is_enough(self, turn_output: TurnOutput) -> bool {
        turn_output.bytes >= self.turn_bytes_max || turn_output.fan_out_bytes >= FAN_OUT_BYTES_MAX
    }
}

/// Bytes of lines that are read from publishers. Measured: 16 KB per turn halved the throughput at 256 messages outstanding.
pub const READ_BYTES_MAX: usize = 256 * 1024;
/// A message counts once for each delivery: 10 to 30 ms of copying. For 10 000 subscribers that is still 20 messages of 300
/// bytes in a write, to which a further message adds little cost.
const FAN_OUT_BYTES_MAX: usize = 64 * 1024 * 1024;
