//! JSON Web Tokens: good ones, and the many ways to be bad.

use std::fs;
use std::path::{Path, PathBuf};

use feedlog_core::command::Scopes;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::jwt::Jwt;
use super::{AuthError, JwtAlgorithm, JwtConfig, JwtKey, USER_ONLY};

const NOW_MS: u64 = 1_700_000_000_000;
const NOW_S: u64 = NOW_MS / 1000;
const SECRET: &[u8] = b"a secret that is long enough to be one, 64 bytes for HS512: 1234";
const RSA_PRIVATE: &str = include_str!("test_keys/rsa_private.pem");
const RSA_PUBLIC: &str = include_str!("test_keys/rsa_public.pem");
const EC_PRIVATE: &str = include_str!("test_keys/ec_private.pem");
const EC_PUBLIC: &str = include_str!("test_keys/ec_public.pem");
const ED_PRIVATE: &str = include_str!("test_keys/ed_private.pem");
const ED_PUBLIC: &str = include_str!("test_keys/ed_public.pem");

fn file(dir: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn config(keys: Vec<JwtKey>) -> JwtConfig {
    JwtConfig {
        keys,
        audience: vec!["feedlog".to_owned()],
        issuer: vec!["https://issuer.example".to_owned()],
        leeway_s: 5,
        default_scopes: USER_ONLY,
    }
}

fn claims() -> Value {
    json!({ "sub": "ann", "exp": NOW_S + 60, "aud": "feedlog", "iss": "https://issuer.example" })
}

fn with(field: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[field] = value;
    claims
}

fn without(field: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(field);
    claims
}

fn sign(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
    encode(&Header::new(algorithm), claims, key).unwrap()
}

fn hs256(claims: &Value) -> String {
    sign(Algorithm::HS256, &EncodingKey::from_secret(SECRET), claims)
}

fn secret_only(dir: &TempDir) -> Jwt {
    let path = file(dir, "secret", SECRET);
    Jwt::open(config(vec![JwtKey::Secret { path, algorithm: JwtAlgorithm::Hs256 }]), NOW_MS).unwrap()
}

#[test]
fn every_algorithm_with_its_own_key() {
    let dir = TempDir::new().unwrap();
    let secret = |algorithm| JwtKey::Secret { path: file(&dir, "secret", SECRET), algorithm };
    let keys = vec![
        secret(JwtAlgorithm::Hs256),
        secret(JwtAlgorithm::Hs384),
        secret(JwtAlgorithm::Hs512),
        JwtKey::Pem { path: file(&dir, "rsa", RSA_PUBLIC.as_bytes()), algorithm: JwtAlgorithm::Rs256 },
        JwtKey::Pem { path: file(&dir, "ec", EC_PUBLIC.as_bytes()), algorithm: JwtAlgorithm::Es256 },
        JwtKey::Pem { path: file(&dir, "ed", ED_PUBLIC.as_bytes()), algorithm: JwtAlgorithm::EdDsa },
    ];
    let jwt = Jwt::open(config(keys), NOW_MS).unwrap();
    let hs = EncodingKey::from_secret(SECRET);
    let rsa = EncodingKey::from_rsa_pem(RSA_PRIVATE.as_bytes()).unwrap();
    let ec = EncodingKey::from_ec_pem(EC_PRIVATE.as_bytes()).unwrap();
    let ed = EncodingKey::from_ed_pem(ED_PRIVATE.as_bytes()).unwrap();
    for (algorithm, key) in [
        (Algorithm::HS256, &hs),
        (Algorithm::HS384, &hs),
        (Algorithm::HS512, &hs),
        (Algorithm::RS256, &rsa),
        (Algorithm::ES256, &ec),
        (Algorithm::EdDSA, &ed),
    ] {
        let principal = jwt.authenticate(&sign(algorithm, key, &claims()), NOW_MS).unwrap();
        assert_eq!((principal.uid.as_str(), principal.scopes), ("ann", USER_ONLY), "{algorithm:?}");
    }
    // Supported by the library, bound to no key of ours.
    for algorithm in [Algorithm::RS384, Algorithm::RS512, Algorithm::PS256] {
        let token = sign(algorithm, &rsa, &claims());
        assert_eq!(jwt.authenticate(&token, NOW_MS), Err(AuthError::Unauthenticated), "{algorithm:?}");
    }
}

#[test]
fn claims_decide_who_and_what() {
    let dir = TempDir::new().unwrap();
    let jwt = secret_only(&dir);
    let service = Scopes { send_as: true, ..Scopes::default() };
    for (claims, scopes) in [
        (with("scope", json!("openid send-as")), service),
        (with("scopes", json!(["send_as"])), service),
        (
            with("scope", json!("user audit admin")),
            Scopes { send_as: false, user: true, audit: true, admin: true },
        ),
        (with("scope", json!("")), Scopes::default()),
        (with("aud", json!(["other", "feedlog"])), USER_ONLY),
        (with("nbf", json!(NOW_S + 5)), USER_ONLY),
        (with("exp", json!(NOW_S as f64 + 0.5)), USER_ONLY),
    ] {
        let principal = jwt.authenticate(&hs256(&claims), NOW_MS).unwrap();
        assert_eq!(principal.scopes, scopes, "{claims}");
    }
}

#[test]
fn bad_claims_are_refused() {
    let dir = TempDir::new().unwrap();
    let jwt = secret_only(&dir);
    for claims in [
        with("exp", json!(NOW_S - 5)),
        with("exp", json!("soon")),
        with("exp", json!(-1)),
        without("exp"),
        with("nbf", json!(NOW_S + 6)),
        with("aud", json!("other")),
        with("aud", json!([])),
        without("aud"),
        with("iss", json!("https://other.example")),
        without("iss"),
        without("sub"),
        with("sub", json!("")),
        with("sub", json!("a\u{0}b")),
        with("sub", json!("x".repeat(101))),
        with("sub", json!("anon:1")),
        with("sub", json!(7)),
    ] {
        assert_eq!(jwt.authenticate(&hs256(&claims), NOW_MS), Err(AuthError::Unauthenticated), "{claims}");
    }
}

#[test]
fn a_token_ends_although_its_signature_is_remembered() {
    let dir = TempDir::new().unwrap();
    let jwt = secret_only(&dir);
    let token = hs256(&claims());
    assert!(jwt.authenticate(&token, NOW_MS).is_ok());
    assert!(jwt.authenticate(&token, NOW_MS + 64_999).is_ok(), "within the leeway");
    assert_eq!(jwt.authenticate(&token, NOW_MS + 65_000), Err(AuthError::Unauthenticated));
}

#[test]
fn forged_tokens_are_refused() {
    let dir = TempDir::new().unwrap();
    let rsa = file(&dir, "rsa", RSA_PUBLIC.as_bytes());
    let keys = vec![JwtKey::Pem { path: rsa, algorithm: JwtAlgorithm::Rs256 }];
    let jwt = Jwt::open(config(keys), NOW_MS).unwrap();
    let good = sign(Algorithm::RS256, &EncodingKey::from_rsa_pem(RSA_PRIVATE.as_bytes()).unwrap(), &claims());
    assert!(jwt.authenticate(&good, NOW_MS).is_ok());
    let parts: Vec<&str> = good.split('.').collect();
    let none = |alg: &str| base64url(&format!(r#"{{"alg":"{alg}","typ":"JWT"}}"#));
    let other = base64url(&with("sub", json!("root")).to_string());
    let mut forged = vec![
        // Another body under the same signature.
        format!("{}.{other}.{}", parts[0], parts[2]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}.{}", parts[0], parts[1]),
        format!("{}.{}.{}.{}", parts[0], parts[1], parts[2], parts[2]),
        String::from("..."),
        hs256(&claims()),
        "x".repeat(100_000),
    ];
    // The public key as a shared secret, in every form it has.
    for secret in [RSA_PUBLIC, RSA_PUBLIC.trim(), RSA_PUBLIC.trim_end()] {
        let key = EncodingKey::from_secret(secret.as_bytes());
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            forged.push(sign(algorithm, &key, &claims()));
        }
    }
    for alg in ["none", "None", "NONE", "nOnE", "", "HS256"] {
        forged.push(format!("{}.{}.", none(alg), parts[1]));
        forged.push(format!("{}.{}.{}", none(alg), parts[1], parts[2]));
    }
    for token in forged {
        assert_eq!(jwt.authenticate(&token, NOW_MS), Err(AuthError::Unauthenticated));
    }
    // Another key pair's signature, an unknown critical extension.
    let mut critical = Header::new(Algorithm::RS256);
    critical.crit = Some(vec!["exp".to_owned()]);
    let key = EncodingKey::from_rsa_pem(RSA_PRIVATE.as_bytes()).unwrap();
    let token = encode(&critical, &claims(), &key).unwrap();
    assert_eq!(jwt.authenticate(&token, NOW_MS), Err(AuthError::Unauthenticated));
}

fn base64url(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let mut group = [0; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from(group[0]) << 16 | u32::from(group[1]) << 8 | u32::from(group[2]);
        for at in 0..=chunk.len() {
            out.push(char::from(DIGITS[(bits >> (18 - 6 * at) & 63) as usize]));
        }
    }
    out
}

fn jwks(keys: &[Value]) -> Vec<u8> {
    json!({ "keys": keys }).to_string().into_bytes()
}

fn oct(kid: &str, secret: &[u8]) -> Value {
    json!({ "kty": "oct", "alg": "HS256", "kid": kid, "k": base64url(std::str::from_utf8(secret).unwrap()) })
}

#[test]
fn a_jwks_file_is_followed_when_it_changes() {
    let dir = TempDir::new().unwrap();
    let path = file(&dir, "jwks", &jwks(&[oct("one", SECRET)]));
    let jwt = Jwt::open(config(vec![JwtKey::Jwks { path: path.clone() }]), NOW_MS).unwrap();
    let old = hs256(&claims());
    let other = b"another secret that is long enough";
    let new = sign(Algorithm::HS256, &EncodingKey::from_secret(other), &claims());
    assert!(jwt.authenticate(&old, NOW_MS).is_ok());
    assert!(jwt.authenticate(&new, NOW_MS).is_err());
    rewrite(&path, &jwks(&[oct("two", other)]));
    assert!(jwt.authenticate(&old, NOW_MS + 999).is_ok(), "looked at once a second");
    assert!(jwt.authenticate(&new, NOW_MS + 1000).is_ok());
    assert_eq!(jwt.authenticate(&old, NOW_MS + 1000), Err(AuthError::Unauthenticated), "the old key is gone");
    // A file that cannot be used leaves the keys as they are.
    rewrite(&path, b"not a key set");
    assert!(jwt.authenticate(&new, NOW_MS + 2000).is_ok());
}

fn rewrite(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
}

#[test]
fn keys_of_a_jwks_are_bound_to_their_algorithm_and_name() {
    let dir = TempDir::new().unwrap();
    let encryption = {
        let mut key = oct("enc", SECRET);
        key["use"] = json!("enc");
        key
    };
    let unbound = {
        let mut key = oct("unbound", SECRET);
        key.as_object_mut().unwrap().remove("alg");
        key
    };
    for keys in [vec![encryption], vec![unbound], vec![]] {
        let path = file(&dir, "jwks", &jwks(&keys));
        let jwt = Jwt::open(config(vec![JwtKey::Jwks { path }]), NOW_MS).unwrap();
        assert!(jwt.authenticate(&hs256(&claims()), NOW_MS).is_err(), "{keys:?}");
    }
    let path = file(&dir, "jwks", &jwks(&[oct("one", SECRET)]));
    let jwt = Jwt::open(config(vec![JwtKey::Jwks { path }]), NOW_MS).unwrap();
    let named = |kid: &str| {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(kid.to_owned());
        encode(&header, &claims(), &EncodingKey::from_secret(SECRET)).unwrap()
    };
    assert!(jwt.authenticate(&named("one"), NOW_MS).is_ok());
    assert!(jwt.authenticate(&named("two"), NOW_MS).is_err());
}

#[test]
fn unusable_key_files_are_told_at_start() {
    let dir = TempDir::new().unwrap();
    let short = file(&dir, "short", b"too short");
    let secret = file(&dir, "secret", SECRET);
    let rsa = file(&dir, "rsa", RSA_PUBLIC.as_bytes());
    for key in [
        JwtKey::Secret { path: short, algorithm: JwtAlgorithm::Hs256 },
        JwtKey::Secret { path: secret.clone(), algorithm: JwtAlgorithm::Rs256 },
        JwtKey::Secret { path: dir.path().join("missing"), algorithm: JwtAlgorithm::Hs256 },
        JwtKey::Pem { path: secret.clone(), algorithm: JwtAlgorithm::Rs256 },
        JwtKey::Pem { path: rsa.clone(), algorithm: JwtAlgorithm::Hs256 },
        JwtKey::Pem { path: rsa, algorithm: JwtAlgorithm::Es256 },
        JwtKey::Jwks { path: secret },
    ] {
        let opened = Jwt::open(config(vec![key.clone()]), NOW_MS);
        assert!(matches!(opened.err(), Some(AuthError::BadKeyFile { .. })), "{key:?}");
    }
}
