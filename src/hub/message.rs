//! A message before it is encoded for subscribers: borrowed from the publisher's line, or shared by letters.

use crate::protocol::channel::Channel;
use crate::protocol::pusher::data::{Text, unpadded};
use std::num::NonZeroU64;
use std::sync::Arc;

/// A message, borrowed from the line or the letter that holds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message<'a> {
    /// The event's name, as written between the quotes.
    pub event: &'a str,
    /// Raw JSON, byte for byte. `null` counts as data.
    pub data: Option<&'a str>,
    /// The text that Pusher's clients receive for the data.
    pub text: Text<'a>,
    /// Names the value that the message updates, for channels that conflate by key.
    pub key: Option<&'a str>,
    /// The user whose client event it is, as written between quotes.
    pub user_id: Option<&'a str>,
    /// Its place in the channel's order, if the channel keeps a history.
    pub offset: Option<NonZeroU64>,
}

impl Message<'_> {
    /// An upper bound of the bytes of its frame.
    #[inline]
    pub fn frame_bytes_max(&self, channel: Channel<'_>) -> usize {
        let texts = [self.event, self.data.unwrap_or_default(), self.user_id.unwrap_or_default(), channel.as_str()];
        texts.iter().map(|text| text.len()).sum::<usize>() + ENVELOPE_BYTES_MAX
    }
}

/// Bytes of a frame besides texts: the header, names of members, punctuation, the offset.
const ENVELOPE_BYTES_MAX: usize = 96;

/// A message in letters to other shards and in histories: immutable, one allocation, shared by all that hold it. It has no
/// offset, because each channel of a publish gives it another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The event, the data, the key and the user id.
    text: Arc<str>,
    data_at: u16,
    key: Part,
    user_id: Part,
    data: DataIs,
}

/// What a payload holds as data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DataIs {
    Absent,
    /// The value, with [`Text::Json`].
    Value,
    /// The value, with [`Text::Content`].
    String,
    /// The text of [`Text::Padded`], which contains the value.
    Padded,
}

/// Length of an optional part of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part(u16);

impl Payload {
    /// Copies the message. `scratch` is overwritten; it is a parameter so that its memory is reused.
    pub fn new(message: &Message<'_>, scratch: &mut String) -> Payload {
        let &Message { event, data, text, key, user_id, offset: _ } = message;
        let (data, data_is) = match (data, text) {
            (None, _) => ("", DataIs::Absent),
            (Some(_), Text::Padded(text)) => (text, DataIs::Padded),
            (Some(data), Text::Content) => (data, DataIs::String),
            (Some(data), Text::Json) => (data, DataIs::Value),
        };
        scratch.clear();
        scratch.push_str(event);
        scratch.push_str(data);
        if let Some(key) = key {
            scratch.push_str(key);
        }
        if let Some(user_id) = user_id {
            scratch.push_str(user_id);
        }
        let payload = Payload {
            text: scratch.as_str().into(),
            data_at: event.len() as u16,
            key: Part::of(key),
            user_id: Part::of(user_id),
            data: data_is,
        };
        if scratch.capacity() > SCRATCH_BYTES_KEPT {
            *scratch = String::new();
        }
        payload
    }

    /// The message, with the offset that the channel has given it.
    pub fn message(&self, offset: Option<NonZeroU64>) -> Message<'_> {
        let (event, rest) = self.text.split_at(self.data_at.into());
        let (rest, user_id) = self.user_id.split_off(rest);
        let (data, key) = self.key.split_off(rest);
        let (data, text) = match self.data {
            DataIs::Absent => (None, Text::Json),
            DataIs::Value => (Some(data), Text::Json),
            DataIs::String => (Some(data), Text::Content),
            DataIs::Padded => (Some(unpadded(data)), Text::Padded(data)),
        };
        Message { event, data, text, key, user_id, offset }
    }

    /// Bytes of event, data, key and user id.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// Heap bytes, which all holders share.
    pub fn heap_bytes(&self) -> usize {
        allocated(2 * size_of::<usize>() + self.text.len())
    }
}

impl Part {
    const ABSENT: Part = Part(u16::MAX);

    fn of(text: Option<&str>) -> Part {
        text.map_or(Part::ABSENT, |text| Part(text.len() as u16))
    }

    /// Separates the part from the end of `text`.
    fn split_off(self, text: &str) -> (&str, Option<&str>) {
        match self.0 {
            u16::MAX => (text, None),
            len => {
                let (rest, part) = text.split_at(text.len() - usize::from(len));
                (rest, Some(part))
            }
        }
    }
}

/// Bytes that jemalloc takes for an allocation: it has four sizes to each doubling, at least 16 bytes apart.
fn allocated(bytes: usize) -> usize {
    bytes.next_multiple_of((bytes.next_power_of_two() / 8).max(16))
}

/// Capacity that the scratch buffer keeps between messages.
const SCRATCH_BYTES_KEPT: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::event::Envelope;
    use crate::protocol::native::event;

    #[test]
    fn a_frame_is_not_longer_than_its_bound() {
        let [id, data] = [128, 100_000].map(|len| "x".repeat(len));
        let message = Message {
            event: "e",
            data: Some(&data),
            user_id: Some(&id),
            offset: NonZeroU64::new(u64::MAX),
            ..Message::default()
        };
        let channel = Channel::parse("c").unwrap();
        let Message { event, data, user_id, offset, .. } = message;
        let mut out = Vec::new();
        event::message(&mut out, &Envelope { channel: Some("c"), event, data, offset, user_id });
        let bound = message.frame_bytes_max(channel);
        assert!((out.len()..out.len() + ENVELOPE_BYTES_MAX).contains(&bound), "{bound} for {}", out.len());
    }

    #[test]
    fn a_payload_holds_the_message_that_it_was_made_from() {
        let mut scratch = String::new();
        let large = "é".repeat(SCRATCH_BYTES_KEPT);
        for event in ["e", "é", r#"a\"b"#] {
            for (data, text) in [
                (None, Text::Json),
                (Some(""), Text::Json),
                (Some("null"), Text::Json),
                (Some("\"é\""), Text::Content),
                (Some("{ }"), Text::Padded("\n{ } ")),
                (Some(&large[..]), Text::Json),
            ] {
                for (key, user_id) in [(None, None), (Some(""), None), (Some("ké"), Some("")), (None, Some("ü"))] {
                    let offset = NonZeroU64::new(7);
                    let message = Message { event, data, text, key, user_id, offset };
                    assert_eq!(Payload::new(&message, &mut scratch).clone().message(offset), message);
                    assert!(scratch.capacity() <= SCRATCH_BYTES_KEPT, "a large message does not leave a large buffer");
                }
            }
        }
        assert_eq!(size_of::<Payload>(), 24);
    }

    /// The size classes of jemalloc(3).
    #[test]
    fn an_allocation_takes_as_much_as_its_size_class() {
        let classes =
            [16, 32, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 14_336, 16_384, 20_480, 65_536, 81_920];
        for class in classes {
            assert_eq!((allocated(class - 15), allocated(class)), (class, class));
        }
    }
}
