//! Client events: messages that a subscriber sends to the other subscribers of a channel.

use crate::protocol::error_code::ErrorCode;

/// Checks the name and the data of a client event, both as written.
pub fn check(event: &str, data: Option<&str>) -> Result<(), ErrorCode> {
    if event.len() > EVENT_BYTES_MAX {
        return Err(ErrorCode::ClientEventRefused("the name is over the limit of 200 bytes: use a shorter one"));
    }
    if data.map_or(0, str::len) > DATA_BYTES_MAX {
        return Err(ErrorCode::ClientEventRefused("data is over the limit of 10240 bytes: send less at once"));
    }
    Ok(())
}

/// The refusal of a client event of a connection that is not subscribed to the channel.
pub const NOT_SUBSCRIBED: ErrorCode =
    ErrorCode::ClientEventRefused("the connection is not subscribed to the channel: wait for socket:subscribed");

/// Most bytes of the name.
const EVENT_BYTES_MAX: usize = 200;
/// Most bytes of `data`.
const DATA_BYTES_MAX: usize = 10 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_and_data_are_bounded_as_written() {
        let check = |event_len: usize, data_len: Option<usize>, is_legal: bool| {
            let data = data_len.map(|len| "1".repeat(len));
            let found = check(&"e".repeat(event_len), data.as_deref());
            assert_eq!(found.map_err(ErrorCode::code), if is_legal { Ok(()) } else { Err("client_event_refused") });
        };
        check(200, None, true);
        check(201, None, false);
        check(7, Some(10_240), true);
        check(7, Some(10_241), false);
    }
}
