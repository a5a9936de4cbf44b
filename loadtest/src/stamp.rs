//! Stamps: every published payload begins with one, so that its receipt can be judged without parsing JSON.
//!
//! `~%` + 8 letters of sequence number + 16 letters of time in nanoseconds. A letter is `@` + a nibble: legal in a JSON
//! string as it is, and eight of them are decoded with three shifts.

/// Length of a stamp in bytes.
pub const LEN: usize = 26;

const MARK: [u8; 2] = *b"~%";

/// The `data` of a publish: a JSON string of exactly `size` bytes (quotes included) that starts with the stamp.
pub fn push_payload(out: &mut Vec<u8>, sequence: u32, time_ns: u64, size: usize) {
    let end = out.len() + size.max(LEN + 2);
    out.push(b'"');
    out.extend_from_slice(&MARK);
    out.extend_from_slice(&letters(sequence).to_be_bytes());
    out.extend_from_slice(&letters((time_ns >> 32) as u32).to_be_bytes());
    out.extend_from_slice(&letters(time_ns as u32).to_be_bytes());
    out.resize(end - 1, b'x');
    out.push(b'"');
}

/// Reads stamps. It remembers the last two offsets, because the next stamp is almost always at one of them: there are two
/// where subscribers speak two dialects.
#[derive(Default)]
pub struct Reader {
    offset: usize,
    other: usize,
}

impl Reader {
    /// Sequence number and time of the first stamp in `message`.
    #[inline]
    pub fn read(&mut self, message: &[u8]) -> Option<(u32, u64)> {
        match read_at(message, self.offset) {
            Some(stamp) => Some(stamp),
            None => self.search(message),
        }
    }

    fn search(&mut self, message: &[u8]) -> Option<(u32, u64)> {
        std::mem::swap(&mut self.offset, &mut self.other);
        if let Some(stamp) = read_at(message, self.offset) {
            return Some(stamp);
        }
        let offset = memchr::memmem::find_iter(message, &MARK).find(|&offset| is_stamp(message, offset))?;
        self.offset = offset;
        read_at(message, offset)
    }
}

/// Finds every stamp in `bytes`, for servers that put several messages into one frame.
pub fn all(bytes: &[u8], mut found: impl FnMut(u32, u64)) {
    let mut at = 0;
    while let Some(skip) = memchr::memmem::find(&bytes[at..], &MARK) {
        at += skip;
        match read_at(bytes, at) {
            Some((sequence, time)) if is_stamp(bytes, at) => {
                found(sequence, time);
                at += LEN;
            }
            _ => at += MARK.len(),
        }
    }
}

/// Whether letters follow the mark. At the offset of the last stamp the mark alone is enough.
fn is_stamp(message: &[u8], offset: usize) -> bool {
    let letters = message.get(offset + MARK.len()..offset + LEN);
    letters.is_some_and(|letters| letters.iter().all(|letter| letter & 0xf0 == 0x40))
}

#[inline]
fn read_at(message: &[u8], offset: usize) -> Option<(u32, u64)> {
    let stamp: &[u8; LEN] = message.get(offset..offset + LEN)?.try_into().ok()?;
    if stamp[..2] != MARK {
        return None;
    }
    let sequence = number(stamp[2..10].try_into().ok()?);
    let high = number(stamp[10..18].try_into().ok()?);
    let low = number(stamp[18..26].try_into().ok()?);
    Some((sequence, u64::from(high) << 32 | u64::from(low)))
}

fn letters(number: u32) -> u64 {
    let mut x = u64::from(number);
    x = (x | x << 16) & 0x0000_ffff_0000_ffff;
    x = (x | x << 8) & 0x00ff_00ff_00ff_00ff;
    x = (x | x << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    x | 0x4040_4040_4040_4040
}

#[inline]
fn number(letters: [u8; 8]) -> u32 {
    let mut x = u64::from_be_bytes(letters) & 0x0f0f_0f0f_0f0f_0f0f;
    x = (x | x >> 4) & 0x00ff_00ff_00ff_00ff;
    x = (x | x >> 8) & 0x0000_ffff_0000_ffff;
    (x | x >> 16) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_survives_the_trip_and_is_legal_json() {
        for (sequence, time) in [(0, 0), (1, 2), (u32::MAX, u64::MAX), (0x1234_5678, 0x9abc_def0_1122_3344)] {
            let mut message = b"{\"event\":\"m\",\"channel\":\"c0\",\"data\":".to_vec();
            push_payload(&mut message, sequence, time, 128);
            message.push(b'}');
            let value: serde_json::Value = serde_json::from_slice(&message).unwrap();
            assert_eq!(value["data"].as_str().unwrap().len(), 126);
            let mut reader = Reader::default();
            assert_eq!(reader.read(&message), Some((sequence, time)));
            assert_eq!(reader.read(&message), Some((sequence, time)), "by the remembered offset");
            let mut longer = b"{\"x\":1,".to_vec();
            longer.extend_from_slice(&message[1..]);
            for message in [&longer, &message, &longer] {
                assert_eq!(reader.read(message), Some((sequence, time)), "at two offsets in turn");
            }
        }
    }

    #[test]
    fn several_stamps_in_one_frame_are_all_found() {
        let mut bytes = Vec::new();
        for sequence in 0..5 {
            bytes.extend_from_slice(b"MSG c 1 40\r\n~%");
            push_payload(&mut bytes, sequence, 7, 40);
        }
        let mut seen = Vec::new();
        all(&bytes, |sequence, time| seen.push((sequence, time)));
        assert_eq!(seen, (0..5).map(|s| (s, 7)).collect::<Vec<_>>());
    }

    #[test]
    fn what_has_no_stamp_has_none() {
        assert_eq!(Reader::default().read(b"{\"event\":\"socket:pong\"}"), None);
        assert_eq!(Reader::default().read(b"~%"), None);
    }
}
