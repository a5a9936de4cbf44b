//! Bearer tokens: where a request carries one, and how it is compared.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use hmac::digest::CtOutput;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The digest of a secret, for comparison. Comparing two digests takes constant time.
#[derive(Clone, PartialEq, Eq)]
pub struct Digest(CtOutput<Hmac<Sha256>>);

impl Digest {
    /// The digest of this secret.
    pub fn of(secret: &[u8]) -> Digest {
        let keyed = Hmac::<Sha256>::new_from_slice(b"corecast bearer");
        Digest(keyed.expect("HMAC takes keys of every length (RFC 2104)").chain_update(secret).finalize())
    }
}

/// The token of the only `Authorization` header. The scheme's case does not matter, and neither does the number of spaces behind
/// it (RFC 9110 §11.4).
pub fn token(headers: &HeaderMap) -> Option<&[u8]> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else { return None };
    let (scheme, token) = value.as_bytes().split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii_start())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn secrets_are_compared_whole() {
        let digest = Digest::of(b"a-token-of-some-length");
        assert!(digest == Digest::of(b"a-token-of-some-length"));
        for wrong in ["", "a-token-of-some-lengt", "a-token-of-some-length2", " a-token-of-some-length"] {
            assert!(digest != Digest::of(wrong.as_bytes()), "{wrong:?}");
        }
    }

    #[test]
    fn one_bearer_token_is_taken() {
        let check = |given: &[&'static str], expected: Option<&str>| {
            let mut headers = HeaderMap::new();
            given.iter().for_each(|value| _ = headers.append(AUTHORIZATION, HeaderValue::from_static(value)));
            assert_eq!(token(&headers), expected.map(str::as_bytes), "{given:?}");
        };
        check(&["Bearer x"], Some("x"));
        check(&["bearer   x y"], Some("x y"));
        check(&[], None);
        check(&["Bearer"], None);
        check(&["Basic x:yzzzzzz"], None);
        check(&["Bearer x", "Bearer x"], None);
    }
}
