//! Users of presence channels: their names, their signed subscribes, and what the server says about them.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::rest::{mac_of, sign};
use crate::server::Admin;

/// The numbers of users.
pub type Users = BTreeSet<usize>;

/// The name of a presence channel.
pub fn channel_name(channel: usize) -> String {
    format!("presence-c{channel}")
}

/// The `user_id` of a user.
pub fn user_id(user: usize) -> String {
    format!("u{user}")
}

/// The user in an object with a `user_id`.
pub fn user_of(member: &Value) -> Option<usize> {
    member["user_id"].as_str()?.strip_prefix('u')?.parse().ok()
}

/// The users of a list of members.
pub fn users_of(members: &Value) -> Option<Users> {
    members.as_array()?.iter().map(user_of).collect()
}

/// The message with which a user subscribes, signed with a key pair of the server.
pub fn subscribe(key: (&str, &str), socket_id: &str, channel: usize, user: usize) -> String {
    let channel = channel_name(channel);
    let channel_data = format!(r#"{{"user_id":"{}","user_info":{{"name":"User {user}"}}}}"#, user_id(user));
    let auth = format!("{}:{}", key.0, sign(&mac_of(key.1), &format!("{socket_id}:{channel}:{channel_data}")));
    let data = serde_json::json!({ "channel": channel, "auth": auth, "channel_data": channel_data });
    serde_json::json!({ "event": "socket:subscribe", "data": data }).to_string()
}

/// Asks the server for the members of channels. Each user must have one connection.
pub fn ask(admin: &Path, channels: impl Iterator<Item = usize>) -> anyhow::Result<Vec<(usize, Users)>> {
    let mut admin = Admin::connect(admin)?;
    let mut lists = Vec::new();
    for channel in channels {
        let command = serde_json::json!({ "id": channel, "command": "members", "channel": channel_name(channel) });
        let reply = admin.ask(&command.to_string())?;
        let members = users_of(&reply["members"]);
        let rows = reply["members"].as_array().map_or(&[][..], Vec::as_slice);
        let is_single = rows.iter().all(|member| member["connections"] == 1);
        match members {
            Some(users) if is_single && reply["count"] == users.len() && users.len() == rows.len() => {
                lists.push((channel, users));
            }
            _ => anyhow::bail!("the members of {}: {reply}", channel_name(channel)),
        }
    }
    Ok(lists)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_as_the_server_lists_them() {
        let list = serde_json::json!([{ "user_id": "u11", "user_info": {} }, { "user_id": "u7" }]);
        assert_eq!(users_of(&list), Some(Users::from([7, 11])));
        assert_eq!(users_of(&serde_json::json!([{ "user_id": "Ada" }])), None);
        assert_eq!(users_of(&Value::Null), None);
    }

    /// Signed by hand: `printf '1.2:presence-c3:{…}' | openssl dgst -sha256 -hmac secret`.
    #[test]
    fn a_subscribe_is_signed_over_the_data_of_its_user() {
        let message: Value = serde_json::from_str(&subscribe(("key", "secret"), "1.2", 3, 7)).unwrap();
        assert_eq!(message["data"]["channel_data"], r#"{"user_id":"u7","user_info":{"name":"User 7"}}"#);
        assert_eq!(message["data"]["auth"], "key:ed9d09d3a88b3b9d1641240c89ff52665928c9d166423a0545294eb7dfea124c");
    }
}
