//! Users, as the backend signs them: a member of a presence channel in `channel_data`, and the user of a sign-in in `user_data`.

use crate::config::USER_ID_BYTES_MAX;
use crate::protocol::channel::{Channel, USER};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::json::{Reader, Value, escape_required_into};
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// A user. Borrows from the text that the backend signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedUser<'a> {
    /// 1 to [`USER_ID_BYTES_MAX`] bytes of any text.
    pub id: Cow<'a, str>,
    /// `user_info`: raw JSON, byte for byte.
    pub info: Option<&'a str>,
}

impl<'a> SignedUser<'a> {
    /// The user in `channel_data`. Its `user_id` is a string or a number; the id of a number is the number as it was written.
    pub fn of_member(
        channel_data: &'a str,
        info_bytes_max: usize,
        reader: &mut Reader,
    ) -> Result<SignedUser<'a>, ErrorCode> {
        let [id, info] = members(channel_data, ["user_id", "user_info"], reader).ok_or(NO_MEMBER)?;
        let id = id.and_then(|id| if id.is_number() { Some(Cow::Borrowed(id.raw)) } else { id.text() });
        Ok(SignedUser { id: checked(id).ok_or(NO_USER_ID)?, info: bounded(info, info_bytes_max)? })
    }

    /// The user in `user_data`.
    pub fn of_sign_in(
        user_data: &'a str,
        info_bytes_max: usize,
        reader: &mut Reader,
    ) -> Result<SignedUser<'a>, ErrorCode> {
        let [id, info] = members(user_data, ["id", "user_info"], reader).ok_or(NO_USER)?;
        Ok(SignedUser { id: checked(id.and_then(Value::text)).ok_or(NO_ID)?, info: bounded(info, info_bytes_max)? })
    }
}

/// The users that a signed-in user watches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watchlist {
    /// At most [`WATCHLIST_MAX`], in their order. Elements that are not the id of a user are left out.
    pub ids: Vec<String>,
    /// The number of entries beyond [`WATCHLIST_MAX`].
    pub left_out: usize,
}

/// The watchlist in `user_data` that was accepted for a sign-in; `None`: it has none.
pub fn watchlist(user_data: &str, reader: &mut Reader) -> Option<Watchlist> {
    if !user_data.contains("watchlist") {
        return None;
    }
    let document = reader.read(user_data)?;
    let [list] = document.object()?.named(["watchlist"]);
    let mut entries = document.elements(list?)?;
    let ids = entries.by_ref().take(WATCHLIST_MAX).filter_map(|entry| checked(entry.text()).map(Cow::into_owned));
    Some(Watchlist { ids: ids.collect(), left_out: entries.count() })
}

fn members<'a, const N: usize>(text: &'a str, names: [&str; N], reader: &mut Reader) -> Option<[Option<Value<'a>>; N]> {
    Some(reader.read(text)?.object()?.named(names))
}

fn checked(id: Option<Cow<'_, str>>) -> Option<Cow<'_, str>> {
    id.filter(|id| (1..=USER_ID_BYTES_MAX).contains(&id.len()))
}

fn bounded(info: Option<Value<'_>>, max: usize) -> Result<Option<&str>, ErrorCode> {
    match info.map(|info| info.raw) {
        Some(info) if info.len() > max => Err(ErrorCode::UserInfoTooLarge { bytes: info.len(), max }),
        info => Ok(info),
    }
}

/// The user whose channel a Pusher client names.
pub fn id_in_pusher(channel: &str) -> Option<&str> {
    channel.strip_prefix(USER)
}

/// The user whose channel this is.
pub fn id_of(channel: Channel<'_>) -> Cow<'_, str> {
    percent_decode_str(channel.as_str().strip_prefix(USER).unwrap_or(channel.as_str())).decode_utf8_lossy()
}

/// The name by which Pusher's clients know the channel of a user, as it stands between the quotes of a JSON string.
pub fn channel_in_pusher(channel: Channel<'_>) -> String {
    let mut name = Vec::with_capacity(channel.as_str().len());
    escape_required_into(&mut name, &percent_decode_str(channel.as_str()).decode_utf8_lossy());
    String::from_utf8_lossy(&name).into_owned()
}

/// Entries of a watchlist that are used.
pub const WATCHLIST_MAX: usize = 100;

/// The refusal of a subscribe without `channel_data`.
pub const NO_CHANNEL_DATA: ErrorCode =
    ErrorCode::InvalidData("channel_data is missing: sign a user_id for this presence channel, or sign in first");
/// The refusal of a sign-in without `user_data`.
pub const NO_USER_DATA: ErrorCode =
    ErrorCode::InvalidData("data.user_data must be a string of Unicode text: the text that the backend signed");

const NO_MEMBER: ErrorCode = ErrorCode::InvalidData("channel_data must hold a JSON object with a user_id");
const NO_USER_ID: ErrorCode =
    ErrorCode::InvalidData("user_id in channel_data must be a number or a string of Unicode text, of 1 to 128 bytes");
const NO_USER: ErrorCode = ErrorCode::InvalidData("user_data must hold a JSON object with an id");
const NO_ID: ErrorCode = ErrorCode::InvalidData("id in user_data must be a string of Unicode text of 1 to 128 bytes");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json::tests::{mutated, slips, written_json};
    use proptest::prelude::*;

    const INFO_MAX: usize = 32;

    #[track_caller]
    fn check_member(channel_data: &str, expected: Result<(&str, Option<&str>), ErrorCode>) {
        let expected = expected.map(|(id, info)| SignedUser { id: id.into(), info });
        assert_eq!(SignedUser::of_member(channel_data, INFO_MAX, &mut Reader::default()), expected, "{channel_data}");
    }

    #[track_caller]
    fn check_user(user_data: &str, expected: Result<(&str, Option<&str>), ErrorCode>) {
        let expected = expected.map(|(id, info)| SignedUser { id: id.into(), info });
        assert_eq!(SignedUser::of_sign_in(user_data, INFO_MAX, &mut Reader::default()), expected, "{user_data}");
    }

    #[test]
    fn a_watchlist_is_its_first_hundred_ids() {
        let check = |user_data: &str, expected: Option<(&[&str], usize)>| {
            let list = watchlist(user_data, &mut Reader::default());
            let found =
                list.as_ref().map(|list| (list.ids.iter().map(String::as_str).collect::<Vec<_>>(), list.left_out));
            assert_eq!(found, expected.map(|(ids, left_out)| (ids.to_vec(), left_out)), "{user_data}");
        };
        check(r#"{"id":"1"}"#, None);
        check(r#"{"id":"1","watchlist":5}"#, None);
        check(r#"{"id":"watchlist"}"#, None);
        check(r#"{"id":"1","watchlist":[]}"#, Some((&[], 0)));
        check(r#"{"id":"1","watchlist":["a","\u0062\"",7,null,{"x":[]},"","a"]}"#, Some((&["a", "b\"", "a"], 0)));
        check(r#"{"watchlist":["a","\ud83c",1e999,"b"]}"#, Some((&["a", "b"], 0)));
        check(&format!(r#"{{"watchlist":["a",{}{}]}}"#, "[".repeat(200), "]".repeat(200)), Some((&["a"], 0)));
        let ids: Vec<String> = (0..103).map(|n| n.to_string()).collect();
        let list = format!(r#"{{"watchlist":{ids:?},"id":"1"}}"#);
        let first: Vec<&str> = ids[..100].iter().map(String::as_str).collect();
        check(&list, Some((&first, 3)));
        for id in ["7", "é \"|\\n", "a:b/c", "100%"] {
            assert_eq!(id_of(crate::protocol::channel::ChannelName::of_user(id).as_channel()), id);
        }
    }

    #[test]
    fn an_id_is_a_text_and_a_members_id_may_be_a_number() {
        for (id, expected) in [
            (r#""11""#, "11"),
            (r#""\u0031""#, "1"),
            (r#""é\n\"""#, "é\n\""),
            (r#"" ""#, " "),
            (r#""\u0000""#, "\0"),
            (r#""\ud83d\ude00""#, "😀"),
        ] {
            check_member(&format!(r#"{{"user_id":{id}}}"#), Ok((expected, None)));
            check_user(&format!(r#"{{"id":{id}}}"#), Ok((expected, None)));
        }
        for number in ["10", "-0", "1.50", "1E+3", "18446744073709551616"] {
            check_member(&format!(r#"{{ "user_id" : {number} }}"#), Ok((number, None)));
            check_user(&format!(r#"{{"id":{number}}}"#), Err(NO_ID));
        }
        for other in ["null", "true", "[]", "{}", r#""""#, r#"["1"]"#, r#""\ud83d""#, r#""a\udc00""#] {
            check_member(&format!(r#"{{"user_id":{other}}}"#), Err(NO_USER_ID));
            check_user(&format!(r#"{{"id":{other}}}"#), Err(NO_ID));
        }
        for data in ["{}", r#"{"user_info":1}"#, r#"{"User_id":"1","ID":"1"}"#] {
            check_member(data, Err(NO_USER_ID));
            check_user(data, Err(NO_ID));
        }
        check_member(r#"{"id":"1"}"#, Err(NO_USER_ID));
        check_user(r#"{"user_id":"1"}"#, Err(NO_ID));
    }

    #[test]
    fn an_id_has_at_most_128_bytes_unescaped() {
        for (id, is_legal) in [
            ("x".repeat(128), true),
            ("x".repeat(129), false),
            (r"\u0041".repeat(128), true),
            (r"\u0041".repeat(129), false),
            ("é".repeat(64), true),
            ("é".repeat(65), false),
        ] {
            let member = format!(r#"{{"user_id":"{id}"}}"#);
            assert_eq!(SignedUser::of_member(&member, 0, &mut Reader::default()).is_ok(), is_legal, "{id}");
            let user = format!(r#"{{"id":"{id}"}}"#);
            assert_eq!(SignedUser::of_sign_in(&user, 0, &mut Reader::default()).is_ok(), is_legal, "{id}");
        }
        let number = |digits: usize| format!(r#"{{"user_id":{}}}"#, "7".repeat(digits));
        check_member(&number(128), Ok((&"7".repeat(128), None)));
        check_member(&number(129), Err(NO_USER_ID));
    }

    #[test]
    fn user_info_is_any_json_byte_for_byte() {
        for info in ["null", "true", "1e999", r#""\ud83d\u00e9""#, "{ \"a\" :\t[1 , {}]}", "[[[[]]]]"] {
            check_member(&format!(r#"{{"user_id":1,"user_info": {info} }}"#), Ok(("1", Some(info))));
            check_user(&format!(r#"{{"user_info":{info},"id":"1","watchlist":[]}}"#), Ok(("1", Some(info))));
        }
        let bytes = INFO_MAX + 1;
        let largest = "1".repeat(INFO_MAX);
        check_member(&format!(r#"{{"user_id":1,"user_info":{largest}}}"#), Ok(("1", Some(&largest))));
        let refused = Err(ErrorCode::UserInfoTooLarge { bytes, max: INFO_MAX });
        check_member(&format!(r#"{{"user_id":1,"user_info":{largest}1}}"#), refused);
        check_user(&format!(r#"{{"id":"1","user_info":{largest}1}}"#), refused);
    }

    #[test]
    fn the_last_of_two_members_counts() {
        check_member(r#"{"user_id":"1","user_info":1,"user_id":2,"us\u0065r_info":3}"#, Ok(("2", Some("3"))));
        check_member(r#"{"user_id":"1","user_id":null}"#, Err(NO_USER_ID));
        check_user(r#"{"id":1,"\u0069d":"2"}"#, Ok(("2", None)));
    }

    #[test]
    fn a_text_that_is_not_a_json_object_is_refused() {
        for text in
            ["", " ", "1", "null", r#""a""#, "[]", r#"[{"user_id":"1","id":"1"}]"#, "{", r#"{"user_id":1,}"#, "{}x"]
        {
            check_member(text, Err(NO_MEMBER));
            check_user(text, Err(NO_USER));
        }
    }

    proptest! {
        #[test]
        fn a_user_is_read_as_serde_json_reads_it(
            id in written_json(), info in written_json(), slips in prop::collection::vec(slips(), 0..2),
        ) {
            #[derive(serde::Deserialize)]
            struct Data<'a> {
                #[serde(borrow)]
                user_id: &'a serde_json::value::RawValue,
                #[serde(borrow)]
                user_info: &'a serde_json::value::RawValue,
            }
            let data = format!(r#"{{"user_id":{id},"user_info":{info}}}"#);
            let data = slips.iter().fold(data, |data, (at, len, with)| mutated(&data, *at, *len, with));
            let found = SignedUser::of_member(&data, 1 << 20, &mut Reader::default());
            let Ok(Data { user_id, user_info }) = serde_json::from_str(&data) else { return Ok(()) };
            let id = match user_id.get().as_bytes()[0] {
                b'-' | b'0'..=b'9' => Some(user_id.get().to_owned()),
                b'"' => serde_json::from_str::<String>(user_id.get()).ok(),
                _ => None,
            };
            let expected = id.filter(|id| !id.is_empty() && id.len() <= 128);
            let expected = expected.map(|id| SignedUser { id: id.into(), info: Some(user_info.get()) });
            prop_assert_eq!(found, expected.ok_or(NO_USER_ID));
        }
    }
}
