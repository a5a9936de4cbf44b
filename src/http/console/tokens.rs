//! Tokens for the console. The admin command `console_token` makes a token for a link. The page exchanges it for the token
//! of a session. So a link opens the console once, and is worthless afterwards.
//!
//! Both tables are bounded. If one is full, its oldest token makes room: an operator who needs the console gets in.

use super::super::bearer::Digest;
use crate::hub::identity::derived;
use crate::metrics::HttpCounters;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What a user of the console may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Send requests with the method GET.
    Read,
    /// Everything.
    All,
}

/// The tokens that are valid. They end with the process.
pub struct Tokens {
    /// Makes tokens of the numbers 0, 1, 2 ….
    maker: Hmac<Sha256>,
    made: u64,
    links: Table,
    sessions: Table,
    counts: HttpCounters,
}

/// Tokens of one kind, the oldest first. They all have the same lifetime, so it is also the first to expire.
struct Table {
    entries: VecDeque<Entry>,
    lifetime: Duration,
    entries_max: usize,
}

struct Entry {
    digest: Digest,
    rights: Rights,
    expires: Instant,
}

impl Tokens {
    /// No tokens. `seed` is the random seed of the process.
    pub fn new(seed: [u64; 4]) -> Tokens {
        let secret = derived(seed, "tokens of the console").map(u64::to_le_bytes);
        let maker = Hmac::new_from_slice(secret.as_flattened()).expect("HMAC takes keys of every length (RFC 2104)");
        Tokens {
            maker,
            made: 0,
            links: Table::new(LINK_LIFETIME, LINKS_MAX),
            sessions: Table::new(SESSION_LIFETIME, SESSIONS_MAX),
            counts: HttpCounters::default(),
        }
    }

    /// The token of a new link.
    pub fn link(&mut self, rights: Rights, now: Instant) -> String {
        let token = self.make();
        self.counts.console_links += 1;
        self.counts.console_tokens_dropped += u64::from(self.links.add(&token, rights, now));
        token
    }

    /// Ends the link with this token, and begins a session. The result is the token of the session.
    pub fn exchange(&mut self, link: &Digest, now: Instant) -> Option<(String, Rights)> {
        let at = self.links.find(link, now)?;
        let rights = self.links.entries.remove(at)?.rights;
        let token = self.make();
        self.counts.console_sessions += 1;
        self.counts.console_tokens_dropped += u64::from(self.sessions.add(&token, rights, now));
        Some((token, rights))
    }

    /// The rights of the session with this token.
    pub fn rights(&mut self, session: &Digest, now: Instant) -> Option<Rights> {
        let at = self.sessions.find(session, now)?;
        Some(self.sessions.entries[at].rights)
    }

    /// Ends all links and sessions.
    pub fn end_all(&mut self) {
        self.links.entries.clear();
        self.sessions.entries.clear();
    }

    /// Adds its counts to those of the HTTP listener.
    pub fn count(&self, counters: &mut HttpCounters) {
        counters.add(&self.counts);
    }

    /// 256 bits that nothing but the process's seed determines, in hexadecimal digits.
    fn make(&mut self) -> String {
        let bits = self.maker.clone().chain_update(self.made.to_le_bytes()).finalize().into_bytes();
        self.made += 1;
        bits.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Table {
    fn new(lifetime: Duration, entries_max: usize) -> Table {
        Table { entries: VecDeque::new(), lifetime, entries_max }
    }

    /// Adds a token. Returns whether the oldest one was dropped for it.
    fn add(&mut self, token: &str, rights: Rights, now: Instant) -> bool {
        self.expire(now);
        let is_full = self.entries.len() == self.entries_max;
        if is_full {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry { digest: Digest::of(token.as_bytes()), rights, expires: now + self.lifetime });
        is_full
    }

    fn find(&mut self, digest: &Digest, now: Instant) -> Option<usize> {
        self.expire(now);
        self.entries.iter().position(|entry| entry.digest == *digest)
    }

    fn expire(&mut self, now: Instant) {
        while self.entries.front().is_some_and(|entry| entry.expires <= now) {
            self.entries.pop_front();
        }
    }
}

/// Long enough to open a link, too short to find it in a log.
const LINK_LIFETIME: Duration = Duration::from_secs(60);
/// A working day.
const SESSION_LIFETIME: Duration = Duration::from_secs(12 * 3600);
const LINKS_MAX: usize = 64;
const SESSIONS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(token: &str) -> Digest {
        Digest::of(token.as_bytes())
    }

    fn session(tokens: &mut Tokens, rights: Rights, now: Instant) -> String {
        let link = tokens.link(rights, now);
        tokens.exchange(&digest(&link), now).expect("a session").0
    }

    #[test]
    fn a_token_has_256_bits_of_its_own() {
        let (mut one, mut other, now) = (Tokens::new([1; 4]), Tokens::new([2; 4]), Instant::now());
        let mut tokens: Vec<String> =
            (0..50).flat_map(|_| [&mut one, &mut other].map(|t| t.link(Rights::All, now))).collect();
        assert!(tokens.iter().all(|token| token.len() == 64 && token.bytes().all(|byte| byte.is_ascii_hexdigit())));
        tokens.sort_unstable();
        tokens.dedup();
        assert_eq!(tokens.len(), 100);
    }

    #[test]
    fn a_link_works_once_and_within_60_s() {
        let (mut tokens, now) = (Tokens::new([1; 4]), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        let [first, second] = [(); 2].map(|()| tokens.link(Rights::All, now));
        assert_eq!(tokens.rights(&digest(&first), now), None, "a link is not a session");
        let (session, rights) = tokens.exchange(&digest(&first), after(59)).expect("a session");
        assert_eq!(rights, Rights::All);
        assert!(tokens.exchange(&digest(&first), after(59)).is_none(), "used");
        assert!(tokens.exchange(&digest(&session), after(59)).is_none(), "a session is not a link");
        assert!(tokens.exchange(&digest(&second), after(60)).is_none(), "expired");
    }

    #[test]
    fn a_session_ends_after_12_hours() {
        let (mut tokens, now) = (Tokens::new([1; 4]), Instant::now());
        for rights in [Rights::Read, Rights::All] {
            let session = digest(&session(&mut tokens, rights, now));
            let almost = now + Duration::from_secs(12 * 3600 - 1);
            assert_eq!(tokens.rights(&session, almost), Some(rights));
        }
        let session = digest(&session(&mut tokens, Rights::All, now));
        assert_eq!(tokens.rights(&session, now + Duration::from_secs(12 * 3600)), None);
        assert!(tokens.sessions.entries.is_empty());
    }

    #[test]
    fn the_oldest_token_makes_room_and_is_counted() {
        let (mut tokens, now) = (Tokens::new([1; 4]), Instant::now());
        let links: Vec<String> = (0..LINKS_MAX + 3).map(|_| tokens.link(Rights::All, now)).collect();
        assert_eq!(tokens.links.entries.len(), LINKS_MAX);
        let opened: Vec<bool> = links.iter().map(|link| tokens.exchange(&digest(link), now).is_some()).collect();
        assert_eq!(opened.iter().take_while(|opened| !**opened).count(), 3);
        assert!(opened[3..].iter().all(|opened| *opened));

        let mut tokens = Tokens::new([1; 4]);
        let sessions: Vec<String> = (0..SESSIONS_MAX + 2).map(|_| session(&mut tokens, Rights::Read, now)).collect();
        assert_eq!(tokens.sessions.entries.len(), SESSIONS_MAX);
        let is_live: Vec<bool> =
            sessions.iter().map(|session| tokens.rights(&digest(session), now).is_some()).collect();
        assert_eq!(is_live, [vec![false; 2], vec![true; SESSIONS_MAX]].concat());
        let mut counters = HttpCounters::default();
        tokens.count(&mut counters);
        let counted = (counters.console_links, counters.console_sessions, counters.console_tokens_dropped);
        assert_eq!(counted, (SESSIONS_MAX as u64 + 2, SESSIONS_MAX as u64 + 2, 2));
        tokens.end_all();
        assert_eq!(tokens.rights(&digest(sessions.last().expect("a session")), now), None);
    }
}
