//! Checks of a request's head that apply to every path, in addition to hyper's own checks.

use crate::wire::host;
use axum::extract::Request;
use axum::http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, HOST, TRANSFER_ENCODING};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// The reason to refuse a request for its head alone.
fn fault(version: Version, headers: &HeaderMap) -> Option<(StatusCode, &'static str)> {
    let mut hosts = headers.get_all(HOST).iter();
    let is_valid = match (hosts.next(), hosts.next()) {
        (None, _) => version < Version::HTTP_11,
        (Some(value), None) => host::is_valid(value.as_bytes()),
        (Some(_), Some(_)) => false,
    };
    if !is_valid {
        return Some((
            StatusCode::BAD_REQUEST,
            "a request needs exactly one Host header, with a host and perhaps a port\n",
        ));
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let is_decoded = match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    };
    if !is_decoded {
        return Some((StatusCode::NOT_IMPLEMENTED, "the only transfer coding is chunked\n"));
    }
    // A list, which may have empty elements (RFC 9110 §5.6.1).
    let is_plain = |coding: &[u8]| coding.is_empty() || coding.eq_ignore_ascii_case(b"identity");
    let mut codings =
        headers.get_all(CONTENT_ENCODING).iter().flat_map(|list| list.as_bytes().split(|&byte| byte == b','));
    let is_encoded = codings.any(|coding| !is_plain(coding.trim_ascii()));
    is_encoded.then_some((
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "a body with a Content-Encoding is not decoded: send it as it is\n",
    ))
}

/// For every path: refuses a head that is not valid (RFC 9112 §3.2, §6.1), or a body in another form (RFC 9110 §8.4), and
/// closes the connection.
pub async fn check(request: Request, next: Next) -> Response {
    match fault(request.version(), request.headers()) {
        Some(fault) => {
            let mut response = fault.into_response();
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            response.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            response
        }
        None => next.run(request).await,
    }
}

/// For paths that programs use without a password: refuses requests that a browser sends for a page of another site.
/// Such a page cannot read the answer, but it can see whether there is one. Any Host is accepted: monitoring systems
/// use addresses.
pub async fn refuse_cross_site(request: Request, next: Next) -> Response {
    let mut sites = request.headers().get_all("sec-fetch-site").iter();
    if sites.any(|site| site.as_bytes().eq_ignore_ascii_case(b"cross-site")) {
        return (StatusCode::FORBIDDEN, "requests of another site's pages are refused\n").into_response();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderName;

    #[track_caller]
    fn check(version: Version, headers: &[(HeaderName, &str)], expected: Option<u16>) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.clone(), HeaderValue::from_str(value).expect("a value"));
        }
        assert_eq!(fault(version, &map).map(|(status, _)| status.as_u16()), expected, "{version:?} {headers:?}");
    }

    #[test]
    fn a_request_names_one_host() {
        for host in ["a", "", "a:80", "10.0.0.1:9001", "[::1]:9001"] {
            check(Version::HTTP_11, &[(HOST, host)], None);
        }
        for host in ["a b", "a:x", "a/b", "a@b", "[::1", "a, b"] {
            check(Version::HTTP_11, &[(HOST, host)], Some(400));
            check(Version::HTTP_10, &[(HOST, host)], Some(400));
        }
        check(Version::HTTP_11, &[], Some(400));
        check(Version::HTTP_10, &[], None);
        check(Version::HTTP_11, &[(HOST, "a"), (HOST, "a")], Some(400));
    }

    #[test]
    fn the_only_transfer_coding_is_chunked() {
        for coding in ["chunked", "Chunked", " chunked "] {
            check(Version::HTTP_11, &[(HOST, "a"), (TRANSFER_ENCODING, coding)], None);
        }
        for coding in ["gzip, chunked", "gzip", "identity", ""] {
            check(Version::HTTP_11, &[(HOST, "a"), (TRANSFER_ENCODING, coding)], Some(501));
        }
        let two = [(HOST, "a"), (TRANSFER_ENCODING, "gzip"), (TRANSFER_ENCODING, "chunked")];
        check(Version::HTTP_11, &two, Some(501));
    }

    #[test]
    fn a_body_has_no_content_coding() {
        for coding in ["identity", "Identity", "", " , identity,"] {
            check(Version::HTTP_11, &[(HOST, "a"), (CONTENT_ENCODING, coding)], None);
        }
        for coding in ["gzip", "br", "identity, gzip", "x"] {
            check(Version::HTTP_11, &[(HOST, "a"), (CONTENT_ENCODING, coding)], Some(415));
        }
        let two = [(HOST, "a"), (CONTENT_ENCODING, "identity"), (CONTENT_ENCODING, "deflate")];
        check(Version::HTTP_11, &two, Some(415));
    }
}
