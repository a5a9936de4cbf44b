//! The kinds of option values: which texts an option takes, and their description for help and errors.

/// Which values an option takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// An IP address and a port.
    Address,
    /// `off`, or an IP address and a port.
    AddressOrOff,
    /// Letters, digits, `_` and `-`.
    Word,
    /// The path of a Unix socket.
    SocketPath,
    /// The path of a file.
    FilePath,
    /// The path of a request.
    UrlPath,
    /// The origin of a page, as browsers write it.
    Origin,
    /// A network in CIDR notation, or one address.
    Network,
    /// `ID:SECRET`.
    KeyPair,
    /// Where a webhook is posted to.
    WebhookUrl,
    /// A pattern for the names of channels.
    Pattern,
    /// Some of these words, separated by commas.
    Words(&'static [&'static str]),
    /// One of these words; with the placeholder.
    Choice(&'static str, &'static [&'static str]),
    /// `auto`, or a whole number from the first to the second.
    AutoOr(u64, u64),
    /// A whole number from the first to the second, of this unit.
    Count(u64, u64, &'static str),
    /// Whole seconds from the first to the second.
    Seconds(u64, u64),
    /// A number of bytes from the first to the second, plain or with KiB, MiB or GiB.
    Bytes(u64, u64),
    /// `auto`, or a number of bytes from the first to the second.
    AutoOrBytes(u64, u64),
    /// Seconds from the first to the second, both in milliseconds; up to three decimals.
    Millis(u64, u64),
}

impl Kind {
    /// Placeholder of the value in the help.
    pub(super) const fn placeholder(self) -> &'static str {
        match self {
            Kind::Address => "ADDR:PORT",
            Kind::AddressOrOff => "ADDR:PORT|off",
            Kind::Word => "ID",
            Kind::SocketPath | Kind::FilePath | Kind::UrlPath => "PATH",
            Kind::Origin => "ORIGIN",
            Kind::Network => "CIDR",
            Kind::KeyPair => "ID:SECRET",
            Kind::WebhookUrl => "URL",
            Kind::Pattern => "PATTERN",
            Kind::Words(_) => "LIST",
            Kind::Choice(placeholder, _) => placeholder,
            Kind::AutoOr(..) => "N|auto",
            Kind::Seconds(..) | Kind::Millis(..) => "S",
            Kind::Count(..) => "N",
            Kind::Bytes(..) => "BYTES",
            Kind::AutoOrBytes(..) => "BYTES|auto",
        }
    }

    /// Whether `text` is of this kind, judged by its characters alone.
    pub(super) fn accepts(self, text: &str) -> bool {
        match self {
            Kind::Word => {
                let is_of_word = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
                (1..=WORD_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_of_word)
            }
            Kind::SocketPath => (1..=SOCKET_PATH_BYTES_MAX).contains(&text.len()) && !text.contains('\0'),
            Kind::FilePath => !text.is_empty() && !text.contains('\0'),
            Kind::UrlPath => is_url_path(text),
            Kind::Pattern => {
                let is_of_pattern = |byte: u8| byte.is_ascii_alphanumeric() || b"_-=@,.;:/*".contains(&byte);
                (1..=PATTERN_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_of_pattern)
            }
            Kind::Words(words) => text.split(',').all(|word| words.contains(&word.trim())),
            Kind::Choice(_, words) => words.contains(&text),
            _ => false,
        }
    }

    /// The number in `text`, if this kind takes it; 0 for the `auto` of `shards`.
    pub(super) fn number(self, text: &str) -> Option<u64> {
        let (number, min, max) = match self {
            Kind::AutoOr(..) if text == "auto" => return Some(0),
            Kind::AutoOr(min, max) | Kind::Count(min, max, _) | Kind::Seconds(min, max) => (digits(text)?, min, max),
            Kind::Bytes(min, max) | Kind::AutoOrBytes(min, max) => (parse_bytes(text)?, min, max),
            Kind::Millis(min, max) => (parse_millis(text)?, min, max),
            _ => return None,
        };
        (min..=max).contains(&number).then_some(number)
    }

    /// What it takes, in words, for errors: "it takes …".
    pub(super) fn allowed(self) -> String {
        match self {
            Kind::Address => {
                "an IP address and a port, such as 127.0.0.1:9000, 0.0.0.0:9000 or [::1]:9000 (no host names)".into()
            }
            Kind::AddressOrOff => format!("off, or {}", Kind::Address.allowed()),
            Kind::Word => format!("1 to {WORD_BYTES_MAX} of A-Z a-z 0-9 _ -"),
            Kind::SocketPath => format!("the path of a Unix socket, 1 to {SOCKET_PATH_BYTES_MAX} bytes"),
            Kind::FilePath => "the path of a file".into(),
            Kind::UrlPath => {
                "a request path that starts with /, percent-encoded as browsers send it, without ?, # and segments . or .."
                    .into()
            }
            Kind::Origin => {
                "an origin such as https://example.com, https://example.com:8443, https://*.example.com or file:// (no path)"
                    .into()
            }
            Kind::Network => "a network such as 10.0.0.0/8 or fd00::/8, or one IP address without a port or zone".into(),
            Kind::KeyPair => "ID:SECRET, neither of them empty, no spaces, no : in the ID".into(),
            Kind::WebhookUrl => {
                "an http or https URL such as https://example.com/hooks, without a user name, password or fragment"
                    .into()
            }
            Kind::Pattern => {
                format!("1 to {PATTERN_BYTES_MAX} of the characters of names, A-Z a-z 0-9 _ - = @ , . ; : /, and *, any text")
            }
            Kind::Words(words) => format!("some of {}, separated by commas", words.join(", ")),
            Kind::Choice(_, words) => words.join(" or "),
            Kind::AutoOr(min, max) => format!("auto, or a whole number from {min} to {max}"),
            Kind::Count(min, max, unit) => format!("a whole number from {min} to {max} {unit}"),
            Kind::Seconds(min, max) => Kind::Count(min, max, "seconds").allowed(),
            Kind::Bytes(min, max) => format!("{min} to {max} bytes, as a plain number or with KiB, MiB or GiB behind it"),
            Kind::AutoOrBytes(min, max) => format!("auto, or {}", Kind::Bytes(min, max).allowed()),
            Kind::Millis(min, max) => {
                format!("{} to {} seconds, with up to three decimals", min as f64 / 1000.0, max as f64 / 1000.0)
            }
        }
    }
}

/// A path as requests hold it (RFC 3986 §3.3). Clients remove the segments `.` and `..`, so that they never match.
fn is_url_path(text: &str) -> bool {
    let is_char = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(&byte);
    let is_escaped = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    let is_dots = |segment: &str| matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
    text.starts_with('/')
        && text.bytes().all(is_char)
        && text.split('%').skip(1).all(is_escaped)
        && !text.split('/').any(is_dots)
}

/// Digits and nothing else: `parse` alone would take `+5`.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn parse_bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return None,
    };
    digits(number)?.checked_mul(factor)
}

fn parse_millis(text: &str) -> Option<u64> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    if decimals.is_empty() || decimals.len() > 3 {
        return None;
    }
    let millis = digits(decimals)? * 10_u64.pow(3 - decimals.len() as u32);
    digits(whole)?.checked_mul(1000)?.checked_add(millis)
}

/// `sockaddr_un` holds 108 bytes, the last one zero (unix(7)).
const SOCKET_PATH_BYTES_MAX: usize = 107;
const WORD_BYTES_MAX: usize = 64;
/// As many as a name has.
const PATTERN_BYTES_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OPTIONS;

    fn kind(name: &str) -> Kind {
        OPTIONS.iter().find(|option| option.name == name).expect("an option").kind
    }

    #[test]
    fn numbers_are_read_in_the_units_people_write() {
        let (bytes, heart, deadline) = (kind("max-message"), kind("heart-interval"), kind("shutdown-timeout"));
        let check = |kind: Kind, text: &str, expected| assert_eq!(kind.number(text), expected, "{text}");
        check(bytes, "128", Some(128));
        check(bytes, "64KiB", Some(65_536));
        check(bytes, "1 MiB", Some(1 << 20));
        check(bytes, "16mib", Some(16 << 20));
        for refused in
            ["", "KiB", "127", "16777217", "1MB", "1M", "1.5MiB", "-1", "+200", "0x100", "99999999999999999999GiB"]
        {
            check(bytes, refused, None);
        }
        check(heart, "1", Some(1));
        check(heart, "86400", Some(86_400));
        check(heart, "0", None);
        check(heart, "86401", None);
        check(heart, "1.5", None);
        check(deadline, "10", Some(10_000));
        check(deadline, "0.25", Some(250));
        check(deadline, "3600", Some(3_600_000));
        for refused in ["0", "0.05", "3600.001", "1.", ".5", "1.2345", "1e3", ""] {
            check(deadline, refused, None);
        }
    }

    #[test]
    fn request_paths_are_those_that_a_client_can_send() {
        for legal in ["/", "/ws", "/a/b/", "/a//b", "/caf%C3%A9", "/a.b/..c", "/~a!$&'()*+,;=:@"] {
            assert!(Kind::UrlPath.accepts(legal), "{legal}");
        }
        for refused in
            ["", "ws", "/ws?x", "/a#b", "/a b", "/café", "/%", "/%4", "/%zz", "/a<b", "/a{b}", "/a|b", "/a^b"]
                .into_iter()
                .chain(["/.", "/a/../b", "/%2e/a", "/a/%2E.", "/./a"])
        {
            assert!(!Kind::UrlPath.accepts(refused), "{refused}");
        }
    }

    #[test]
    fn socket_paths_fit_into_the_kernels_field() {
        assert!(!Kind::SocketPath.accepts(&"x".repeat(108)));
        assert!(!Kind::SocketPath.accepts(""));
        assert!(Kind::SocketPath.accepts(&"x".repeat(107)));
    }
}
