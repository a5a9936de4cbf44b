//! Users, as backends sign them: the server reads the same id and the same `user_info` as serde_json, or refuses both.

use super::json;
use corecast::protocol::channel::{Channel, ChannelName};
use corecast::protocol::error_code::ErrorCode;
use corecast::protocol::json::Reader;
use corecast::protocol::user::SignedUser;

/// Panics where they differ.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let members = json::members(text).unwrap_or_default();
    let info = members.get("user_info").copied();
    let mut reader = Reader::default();
    let is_number = |raw: &str| raw.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    let number = members.get("user_id").filter(|raw| is_number(raw)).map(|raw| raw.to_string());
    let user_id = number.or_else(|| json::string(members.get("user_id")?));
    same(SignedUser::of_member(text, INFO_BYTES_MAX, &mut reader), user_id, info);
    let id = members.get("id").and_then(|raw| json::string(raw));
    same(SignedUser::of_sign_in(text, INFO_BYTES_MAX, &mut reader), id, info);
}

fn same(found: Result<SignedUser<'_>, ErrorCode>, id: Option<String>, info: Option<&str>) {
    let id = id.filter(|id| !id.is_empty() && id.len() <= 128 && info.is_none_or(|info| info.len() <= INFO_BYTES_MAX));
    match found {
        Ok(user) => {
            assert_eq!((Some(&*user.id), user.info), (id.as_deref(), info));
            let channel = ChannelName::of_user(&user.id);
            let name = channel.as_channel().as_str();
            assert!(Channel::parse(name).is_none() && serde_json::to_string(name).unwrap().len() == name.len() + 2);
        }
        Err(code) => assert_eq!((id, code.code()), (None, "invalid_data")),
    }
}

const INFO_BYTES_MAX: usize = 64;
