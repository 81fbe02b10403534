//! The access list: which back ends may call, from where, by HTTP Basic. Off while it is empty.

use std::net::IpAddr;

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use feedlog_core::event::MENTION_ALL;
use feedlog_core::ids::Uid;

use super::config::{ConnmixConfig, ConnmixError};

/// The longest `Authorization` that is looked at.
const CREDENTIAL_BYTES_MAX: usize = 1024;

/// What a back end may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Roles {
    /// Pop from topics, ask for nodes.
    pub(crate) read: bool,
    /// Publish, send, call connections.
    pub(crate) write: bool,
}

impl Roles {
    /// Everything.
    pub(crate) const BOTH: Self = Self { read: true, write: true };

    fn parse(text: &str) -> Option<Self> {
        match text {
            "read" => Some(Self { read: true, write: false }),
            "write" => Some(Self { read: false, write: true }),
            "read+write" | "write+read" => Some(Self::BOTH),
            _ => None,
        }
    }
}

/// The list.
#[derive(Default)]
pub(crate) struct AccessList(Vec<Rule>);

struct Rule {
    name: String,
    /// Of `name:secret`, so that the secret is nowhere in memory and comparing takes the same time for all.
    digest: blake3::Hash,
    roles: Roles,
    mask: Mask,
}

/// From where.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mask {
    Any,
    /// The bits that count, and how many.
    Net(IpAddr, u32),
    /// CONNMIX's own form: bytes of an IPv4 address, `None` for any.
    Parts([Option<u8>; 4]),
}

impl AccessList {
    /// Reads the rules of the configuration and of its file.
    pub(crate) fn load(config: &ConnmixConfig) -> Result<Self, ConnmixError> {
        let mut lines: Vec<String> = config.access.iter().map(|rule| rule.expose().to_owned()).collect();
        if let Some(path) = &config.access_file {
            let text = std::fs::read_to_string(path)
                .map_err(|error| ConnmixError::BadFile { path: path.clone(), problem: error.to_string() })?;
            let rules = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            lines.extend(rules.map(str::to_owned));
        }
        let rules = lines
            .iter()
            .enumerate()
            .map(|(at, line)| Rule::parse(line).ok_or(ConnmixError::BadRule { number: at + 1 }));
        Ok(Self(rules.collect::<Result<_, _>>()?))
    }

    /// Whether there are rules.
    pub(crate) fn is_on(&self) -> bool {
        !self.0.is_empty()
    }

    /// Who asks, and what it may do. Takes as long whoever asks.
    pub(crate) fn find(&self, name_and_secret: &str, address: IpAddr) -> Option<(&str, Roles)> {
        let digest = blake3::hash(name_and_secret.as_bytes());
        let mut found = None;
        for rule in &self.0 {
            if (rule.digest == digest) & rule.mask.covers(address) {
                found = Some((rule.name.as_str(), rule.roles));
            }
        }
        found
    }
}

impl Rule {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, ':');
        let (name, secret, roles) = (parts.next()?, parts.next()?, parts.next()?);
        let mask = Mask::parse(parts.next().unwrap_or("*"))?;
        // INVARIANT: the name is one that a service can have, so that its entries can be written.
        let is_name = Uid::parse(name).is_ok() && name != MENTION_ALL;
        if !is_name || secret.is_empty() {
            return None;
        }
        let digest = blake3::hash(format!("{name}:{secret}").as_bytes());
        Some(Self { name: name.to_owned(), digest, roles: Roles::parse(roles)?, mask })
    }
}

impl Mask {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        let width = |address: IpAddr| if address.is_ipv4() { 32 } else { 128 };
        if let Some((address, bits)) = text.split_once('/') {
            let address: IpAddr = address.parse().ok()?;
            let bits = bits.parse().ok().filter(|bits| *bits <= width(address))?;
            return Some(Self::Net(address, bits));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Self::Net(address, width(address)));
        }
        let parts: Vec<&str> = text.split('.').collect();
        let parts: [&str; 4] = parts.try_into().ok()?;
        let mut mask = [None; 4];
        for (to, part) in mask.iter_mut().zip(parts) {
            *to = if part == "*" { None } else { Some(part.parse().ok()?) };
        }
        Some(Self::Parts(mask))
    }

    fn covers(&self, address: IpAddr) -> bool {
        match (self, address.to_canonical()) {
            (Self::Any, _) => true,
            (Self::Net(IpAddr::V4(net), bits), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
                net.to_bits() & mask == address.to_bits() & mask
            }
            (Self::Net(IpAddr::V6(net), bits), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
                net.to_bits() & mask == address.to_bits() & mask
            }
            (Self::Parts(parts), IpAddr::V4(address)) => {
                parts.iter().zip(address.octets()).all(|(part, octet)| part.is_none_or(|part| part == octet))
            }
            (Self::Net(..) | Self::Parts(_), _) => false,
        }
    }
}

/// `name:secret` of `Authorization: Basic` (RFC 7617 §2).
pub(crate) fn basic(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, credential) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") || credential.len() > CREDENTIAL_BYTES_MAX {
        return None;
    }
    String::from_utf8(STANDARD.decode(credential.trim()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use feedlog_service::auth::Secret;

    use super::*;

    fn list(rules: &[&str]) -> Result<AccessList, ConnmixError> {
        let access = rules.iter().map(|rule| Secret::new(rule)).collect();
        AccessList::load(&ConnmixConfig { access, ..ConnmixConfig::default() })
    }

    #[test]
    fn a_rule_is_name_secret_roles_and_mask() {
        let list = list(&[
            "shop:s3cret:write:127.0.0.1",
            "work:er:read:10.0.0.0/8",
            "both:pass:read+write",
            "six:pass:read:2001:db8::/32",
            "old:pass:read:172.*.*.*",
        ])
        .unwrap();
        let find = |credential: &str, address: &str| {
            list.find(credential, address.parse().unwrap()).map(|(name, roles)| (name.to_owned(), roles))
        };
        let (read, write) = (Roles { read: true, write: false }, Roles { read: false, write: true });
        assert_eq!(find("shop:s3cret", "127.0.0.1"), Some(("shop".into(), write)));
        assert_eq!(find("shop:s3cret", "::ffff:127.0.0.1"), Some(("shop".into(), write)));
        assert_eq!(find("shop:s3cret", "127.0.0.2"), None);
        assert_eq!(find("shop:s3cre", "127.0.0.1"), None);
        assert_eq!(find("shop:", "127.0.0.1"), None);
        assert_eq!(find("work:er", "10.255.0.1"), Some(("work".into(), read)));
        assert_eq!(find("work:er", "11.0.0.1"), None);
        assert_eq!(find("both:pass", "::1"), Some(("both".into(), Roles::BOTH)));
        assert_eq!(find("six:pass", "2001:db8::7"), Some(("six".into(), read)));
        assert_eq!(find("six:pass", "2001:db9::7"), None);
        assert_eq!(find("six:pass", "1.2.3.4"), None);
        assert_eq!(find("old:pass", "172.16.0.9"), Some(("old".into(), read)));
        assert_eq!(find("old:pass", "173.16.0.9"), None);
    }

    #[test]
    fn a_rule_that_is_none_is_told_at_start_without_its_secret() {
        for rule in [
            "",
            "shop",
            "shop:s3cr3t",
            "shop:s3cr3t:admin",
            ":s3cr3t:read",
            "shop::read",
            "@all:s3cr3t:read",
            "shop:s3cr3t:read:",
            "shop:s3cr3t:read:10.0.0.0/33",
            "shop:s3cr3t:read:nowhere",
            "shop:s3cr3t:read:1.2.3",
        ] {
            let error = list(&["good:rule:read", rule]).err().unwrap();
            assert_eq!(error, ConnmixError::BadRule { number: 2 }, "{rule}");
            assert!(!error.to_string().contains("s3cr3t"), "{error}");
        }
        assert!(!list(&[]).unwrap().is_on());
    }

    #[test]
    fn basic_credentials_are_read() {
        let header = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            basic(&headers)
        };
        assert_eq!(header("Basic c2hvcDpzM2NyZXQ=").as_deref(), Some("shop:s3cret"));
        assert_eq!(header("basic c2hvcDpzM2NyZXQ=").as_deref(), Some("shop:s3cret"));
        assert_eq!(header("Bearer c2hvcDpzM2NyZXQ="), None);
        assert_eq!(header("Basic ***"), None);
        assert_eq!(header("Basic"), None);
        assert_eq!(basic(&HeaderMap::new()), None);
    }
}
