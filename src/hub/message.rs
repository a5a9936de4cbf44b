//! A message before it is encoded for subscribers: borrowed from the publisher's line, or shared by letters.

use std::sync::Arc;

/// A message, borrowed from the line or the letter that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The event's name, as written between the quotes.
    pub event: &'a str,
    /// Raw JSON, byte for byte. `null` counts as data.
    pub data: Option<&'a str>,
}

/// A message in letters to other shards: immutable, one allocation, shared by all letters that carry it.
#[derive(Clone, Debug)]
pub struct Payload {
    /// The event, then the data.
    text: Arc<str>,
    event_len: u32,
    has_data: bool,
}

impl Payload {
    /// Copies the message. `scratch` is overwritten; it is a parameter so that its memory is reused.
    pub fn new(message: Message<'_>, scratch: &mut String) -> Payload {
        let Message { event, data } = message;
        scratch.clear();
        scratch.push_str(event);
        scratch.push_str(data.unwrap_or_default());
        let payload =
            Payload { text: scratch.as_str().into(), event_len: event.len() as u32, has_data: data.is_some() };
        if scratch.capacity() > SCRATCH_BYTES_KEPT {
            *scratch = String::new();
        }
        payload
    }

    /// The message.
    pub fn message(&self) -> Message<'_> {
        let (event, data) = self.text.split_at(self.event_len as usize);
        Message { event, data: self.has_data.then_some(data) }
    }
}

/// Capacity that the scratch buffer keeps between messages.
const SCRATCH_BYTES_KEPT: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_holds_the_message_that_it_was_made_from() {
        let mut scratch = String::new();
        let large = "é".repeat(SCRATCH_BYTES_KEPT);
        for event in ["e", "é", r#"a\"b"#] {
            for data in [None, Some(""), Some("null"), Some("\"é\""), Some(&large[..])] {
                let message = Message { event, data };
                assert_eq!(Payload::new(message, &mut scratch).clone().message(), message);
                assert!(scratch.capacity() <= SCRATCH_BYTES_KEPT, "a large message does not leave a large buffer");
            }
        }
    }
}
