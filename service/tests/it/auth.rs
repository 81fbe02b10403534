//! Static tokens, acting for others, rates and development mode through the store.

use feedlog_core::command::Scopes;
use feedlog_service::auth::{AuthConfig, AuthError, Credential, NewToken, Rate, Secret};
use feedlog_service::clock::Clock;
use feedlog_service::{Store, StoreConfig};
use feedlog_storage::{Engine, StateTable};

use crate::world::*;

fn closed() -> StoreConfig {
    StoreConfig {
        auth: AuthConfig { admin_token: Some(Secret::new("the first token")), ..AuthConfig::default() },
        ..config()
    }
}

fn token(name: &str, expires_ms: Option<u64>) -> NewToken {
    NewToken { uid: uid(name), scopes: user(name).scopes, expires_ms, note: Some("test".into()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_made_listed_used_revoked_and_survive_a_restart() {
    let (clock, time) = Clock::manual(NOW_MS);
    let engine = Gated::new();
    let config = || StoreConfig { clock: clock.clone(), ..closed() };
    let store = Store::open(config(), engine.clone()).unwrap();
    let auth = store.auth();
    let root = auth.authenticate(Credential::Token("the first token")).unwrap();
    assert!(root.scopes.admin && root.scopes.user && root.scopes.audit && root.scopes.send_as);
    let ann = auth.create_token(&root, token("ann", None)).await.unwrap();
    let brief = auth.create_token(&root, token("bob", Some(NOW_MS + 1000))).await.unwrap();
    let who = auth.authenticate(Credential::Token(ann.secret.expose())).unwrap();
    assert_eq!((who.uid.as_str(), who.scopes.admin), ("ann", false));
    assert_eq!(auth.create_token(&who, token("eve", None)).await.unwrap_err(), AuthError::Forbidden);
    assert_eq!(auth.tokens(&who, None, 10).await.unwrap_err(), AuthError::Forbidden);
    let past = auth.create_token(&root, token("bob", Some(NOW_MS))).await;
    assert!(matches!(past, Err(AuthError::BadField { field: "expires_ms", .. })));

    let mut listed = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let page = auth.tokens(&root, cursor.as_deref(), 1).await.unwrap();
        listed.extend(page.rows);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(listed.len(), 2);
    assert!(listed.contains(&ann.info) && listed.contains(&brief.info));
    // Nothing stored gives the secret away.
    for (_, value) in engine.states(StateTable::Token, &[], None, 10).unwrap() {
        let secret = ann.secret.expose().rsplit('_').next().unwrap().to_owned();
        assert!(!String::from_utf8_lossy(&value).contains(&secret));
    }

    assert!(auth.authenticate(Credential::Token(brief.secret.expose())).is_ok());
    time.advance(1000);
    let store_again = Store::open(config(), engine.clone()).unwrap();
    for auth in [store.auth(), store_again.auth()] {
        assert_eq!(
            auth.authenticate(Credential::Token(brief.secret.expose())),
            Err(AuthError::Unauthenticated)
        );
        assert!(auth.authenticate(Credential::Token(ann.secret.expose())).is_ok());
    }
    let revoked = auth.revoke_token(&root, &ann.info.id).await.unwrap();
    assert_eq!(revoked.revoked_ms, Some(NOW_MS + 1000));
    assert_eq!(auth.authenticate(Credential::Token(ann.secret.expose())), Err(AuthError::Unauthenticated));
    assert_eq!(auth.revoke_token(&root, &ann.info.id).await.unwrap(), revoked, "again is fine");
    for unknown in ["0000000000000000", "nonsense", ""] {
        assert_eq!(auth.revoke_token(&root, unknown).await.unwrap_err(), AuthError::NotFound);
    }
}

#[tokio::test]
async fn forged_and_missing_credentials_are_one_answer() {
    let (store, _) = open(closed());
    let auth = store.auth();
    let root = auth.authenticate(Credential::Token("the first token")).unwrap();
    let secret = auth.create_token(&root, token("ann", None)).await.unwrap().secret;
    let secret = secret.expose();
    let last = if secret.ends_with('0') { "1" } else { "0" };
    let forged = [
        String::new(),
        "admin".to_owned(),
        "ann".to_owned(),
        "the first toke".to_owned(),
        "the first token ".to_owned(),
        format!("{}{last}", &secret[..secret.len() - 1]),
        secret.to_uppercase(),
        format!("{secret}0"),
        secret[..secret.len() - 1].to_owned(),
        "x".repeat(1 << 20),
        "a.b.c".to_owned(),
    ];
    for text in &forged {
        assert_eq!(auth.authenticate(Credential::Token(text)), Err(AuthError::Unauthenticated));
    }
    assert_eq!(auth.authenticate(Credential::None { connection: "1" }), Err(AuthError::Unauthenticated));
}

#[tokio::test]
async fn services_act_for_users_and_not_beyond() {
    let (store, _) = open(closed());
    let auth = store.auth();
    let root = auth.authenticate(Credential::Token("the first token")).unwrap();
    let acting = auth.act_for(&root, uid("ann")).unwrap();
    assert_eq!(acting.scopes, Scopes { user: true, ..Scopes::default() });
    assert_eq!(
        (acting.uid.as_str(), acting.via.as_ref().map(feedlog_core::ids::Uid::as_str)),
        ("ann", Some("admin"))
    );
    assert_eq!(auth.act_for(&acting, uid("bob")), Err(AuthError::Forbidden), "no further");
    assert_eq!(auth.act_for(&user("ann"), uid("bob")), Err(AuthError::Forbidden));
    for reserved in ["anon:1", "@all"] {
        assert!(auth.act_for(&root, uid(reserved)).is_err());
    }
}

#[tokio::test]
async fn development_mode_takes_any_uid() {
    let (store, _) = open(config());
    let auth = store.auth();
    assert!(auth.authenticate(Credential::Token("admin")).unwrap().scopes.admin);
    let ann = auth.authenticate(Credential::Token("ann")).unwrap();
    assert_eq!((ann.uid.as_str(), ann.scopes), ("ann", user("ann").scopes));
    let nobody = auth.authenticate(Credential::None { connection: "7" }).unwrap();
    assert!(nobody.anonymous && nobody.uid.as_str() == "anon:7");
    for bad in ["", "anon:1", "@all", "a\u{7}b"] {
        assert_eq!(auth.authenticate(Credential::Token(bad)), Err(AuthError::Unauthenticated));
    }
}

#[tokio::test]
async fn rates_hold_per_principal_and_per_address() {
    let (clock, time) = Clock::manual(NOW_MS);
    let mut config = StoreConfig { clock, ..closed() };
    config.auth.rate_per_principal = Some(Rate { per_second: 10, burst: 2 });
    config.auth.rate_per_address = Some(Rate { per_second: 1, burst: 1 });
    let (store, _) = open(config);
    let auth = store.auth();
    let service = admin();
    let acting = auth.act_for(&service, uid("ann")).unwrap();
    auth.check_principal(&service).unwrap();
    auth.check_principal(&acting).unwrap();
    let limited = auth.check_principal(&acting).unwrap_err();
    assert_eq!(
        limited,
        AuthError::RateLimited { retry_after_ms: 100 },
        "acts for others count for the service"
    );
    auth.check_principal(&user("ann")).unwrap();
    time.advance(100);
    auth.check_principal(&service).unwrap();
    let (one, other) = ("2001:db8::1".parse().unwrap(), "2001:db8::ffff".parse().unwrap());
    auth.check_address(one).unwrap();
    assert!(auth.check_address(other).is_err(), "one /64 is one address");
    auth.check_address("2001:db8:0:1::1".parse().unwrap()).unwrap();
    auth.check_address("192.0.2.1".parse().unwrap()).unwrap();
    assert!(auth.check_address("::ffff:192.0.2.1".parse().unwrap()).is_err());
}

#[test]
fn whom_the_operator_trusts_may_name_users_and_services_but_no_reserved_ones() {
    let dev = AuthConfig { dev: true, ..AuthConfig::default() };
    let (store, _) = open(StoreConfig { auth: dev, ..config() });
    let auth = store.auth();
    let ann = auth.vouched(uid("ann")).unwrap();
    assert_eq!((ann.uid.as_str(), ann.scopes, ann.via), ("ann", user("ann").scopes, None));
    let service = auth.configured_service("shop").unwrap();
    assert_eq!(service.scopes, Scopes { send_as: true, ..Scopes::default() });
    for reserved in ["anon:1", "@all"] {
        assert!(auth.vouched(uid(reserved)).is_err(), "{reserved}");
        assert!(auth.configured_service(reserved).is_err(), "{reserved}");
    }
    assert!(auth.vouched(uid("admin")).is_err(), "the administrator is no webhook's to name");
    assert_eq!(auth.configured_service("").unwrap_err(), AuthError::Unauthenticated);
    // A bare uid is a token in development mode, but not where others are asked as well.
    assert!(auth.authenticate(Credential::Token("ann")).is_ok());
    assert_eq!(auth.issued("ann").unwrap_err(), AuthError::Unauthenticated);
}
