//! Key pairs: `corecast keygen` makes one, `corecast sign` signs with one.

use super::Sign;
use super::process::{Usage, gather, print};
use corecast::protocol::auth;
use corecast::protocol::channel::{Channel, RULE};
use corecast::protocol::socket_id::SocketId;
use std::process::ExitCode;

pub fn sign(options: &Sign) -> anyhow::Result<ExitCode> {
    let keys = gather(&options.keys.flags())?.keys()?;
    let key = keys.first().ok_or(Usage(
        "no key pair to sign with: give --key ID:SECRET, --key-file PATH, CORECAST_KEY or --config PATH".into(),
    ))?;
    let (socket_id, channel) = (&options.socket_id, &options.channel);
    // An upper-case UUID names the connection, too, but the server verifies the signature over its own spelling.
    let signed_id = socket_id.to_ascii_lowercase();
    if SocketId::parse(&signed_id).is_none() {
        let text = "is not a socket_id: a UUID, or two numbers joined by a dot, as in socket:connected";
        return Err(Usage(format!("{socket_id:?} {text}")).into());
    }
    match Channel::parse(channel).map(Channel::kind) {
        Some(kind) if kind.needs_auth() => {}
        Some(_) => eprintln!("note: {channel} is a public channel, which needs no signature"),
        None => {
            return Err(Usage(format!("{channel:?} is not a channel: {RULE}")).into());
        }
    }
    print(&(auth::sign(key, &signed_id, channel, options.channel_data.as_deref()) + "\n"))?;
    Ok(ExitCode::SUCCESS)
}

pub fn keygen() -> anyhow::Result<ExitCode> {
    let id = random_hex::<10>()?;
    let secret = random_hex::<32>()?;
    print(&format!("{id}:{secret}\n"))?;
    eprint!(
        "\
# A key pair, ID:SECRET. The business backend signs with it, the server verifies with it; keep it secret from all others.
#   (umask 077; corecast keygen >> keys)      keep it in a file that only its owner can read
#   corecast serve --key-file keys            serve with every pair of the file
#   corecast sign SOCKET_ID private-CHANNEL --key-file keys
# To rotate, add a pair, let the backend change over, then remove the old one.
"
    );
    Ok(ExitCode::SUCCESS)
}

fn random_hex<const BYTES: usize>() -> anyhow::Result<String> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("the system provides no random numbers: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
