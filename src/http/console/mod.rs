//! The console: a page for people at `/console`, and its data at `/console/api/…`.
//!
//! The page consists of the files in `page/`, compiled in. It has no build step and loads nothing from other origins,
//! which its policy enforces. It contains no secret and is served to every client. [`tokens`] give access to the data,
//! [`access`] judges requests, and [`data`] answers.

pub mod access;
pub mod data;
pub mod tokens;

use super::Face;
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// The URL of the console of a listener, for a browser on this machine.
pub fn url(listener: SocketAddr) -> String {
    let ip = match listener.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        named => named,
    };
    format!("http://{}/console", SocketAddr::new(ip, listener.port()))
}

/// The routes below `/console`.
pub fn routes(face: &Arc<Face>) -> Router<Arc<Face>> {
    let api = Router::new()
        .route("/info", get(data::info))
        .route("/stats", get(data::stats))
        .route("/busiest", get(data::busiest))
        .route("/channel", get(data::channel))
        .route("/{list}", get(data::list))
        .route("/connections/{socket_id}", get(data::connection))
        .route("/disconnect", post(data::disconnect))
        .route("/publish", post(data::publish))
        .route("/sign", post(data::sign))
        .fallback(data::unknown)
        .method_not_allowed_fallback(data::wrong_method)
        .layer(middleware::from_fn_with_state(face.clone(), access::admit))
        .route("/token", post(access::exchange).fallback(data::wrong_method));
    let page = Router::new()
        .route("/console", get(index))
        .route("/console/", get(to_index))
        .route("/console/{file}", get(file))
        .layer(middleware::from_fn_with_state(face.clone(), if_open));
    page.nest("/console/api", api).layer(middleware::map_response(guarded))
}

/// The page; 404 while the console is off.
async fn if_open(State(face): State<Arc<Face>>, request: Request, next: Next) -> Response {
    match face.held().door.closed() {
        Some(why) => (StatusCode::NOT_FOUND, format!("{why}\n")).into_response(),
        None => next.run(request).await,
    }
}

/// Headers of every answer: what the page may load, that it may not be framed, and that it sends no referrer.
async fn guarded(mut response: Response) -> Response {
    for (name, value) in GUARDS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn index() -> Response {
    asset("index.html")
}

/// The page, whose links are relative to `/console`.
async fn to_index() -> Response {
    (StatusCode::PERMANENT_REDIRECT, [(LOCATION, "../console")]).into_response()
}

async fn file(Path(name): Path<String>) -> Response {
    asset(&name)
}

fn asset(name: &str) -> Response {
    match ASSETS.iter().find(|asset| asset.name == name) {
        // Revalidated each time: a new server may have a new page, and the page is small.
        Some(asset) => ([(CONTENT_TYPE, asset.kind), (CACHE_CONTROL, "no-cache")], asset.text).into_response(),
        None => (StatusCode::NOT_FOUND, "the console has no such file\n").into_response(),
    }
}

/// A file of the page.
struct Asset {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
}

macro_rules! assets {
    ($($name:literal: $kind:ident),+ $(,)?) => {
        [$(Asset { name: $name, kind: $kind, text: include_str!(concat!("page/", $name)) }),+]
    };
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

static ASSETS: [Asset; 13] = assets! {
    "index.html": HTML,
    "console.css": CSS,
    "icon.svg": SVG,
    "main.js": JS,
    "api.js": JS,
    "dom.js": JS,
    "numbers.js": JS,
    "chart.js": JS,
    "overview.js": JS,
    "busiest.js": JS,
    "channels.js": JS,
    "connections.js": JS,
    "debug.js": JS,
};

/// `connect-src` is wider than the rest: the debug panel connects to any WebSocket server that the user names.
const GUARDS: [(HeaderName, &str); 6] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'self'; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_on_this_machine_can_open_the_url() {
        let check = |listener: &str, expected| assert_eq!(url(listener.parse().expect("an address")), expected);
        check("127.0.0.1:9001", "http://127.0.0.1:9001/console");
        check("0.0.0.0:80", "http://127.0.0.1:80/console");
        check("[::]:9001", "http://[::1]:9001/console");
        check("[::1]:9001", "http://[::1]:9001/console");
        check("10.0.0.7:9001", "http://10.0.0.7:9001/console");
    }
}
