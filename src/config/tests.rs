use super::*;

fn parse(text: &str) -> Result<Config, Vec<String>> {
    Config::parse(text, []).map_err(|err| err.problems)
}

fn with_env(vars: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    Config::parse("", vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
        .map_err(|err| err.problems)
}

#[test]
fn without_configuration_it_is_loopback_only() {
    let config = parse("").unwrap();
    assert!(config.http.addr.ip().is_loopback());
    assert_eq!(config.check_bind(false, false), Ok(()));
    assert_eq!(config.check_bind(true, false), Ok(()));
}

#[test]
fn unknown_names_are_refused_with_the_nearest() {
    for (text, expected) in [
        ("[http]\nadr = \"127.0.0.1:1\"", "unknown key http.adr; did you mean addr?"),
        ("[htp]\naddr = \"127.0.0.1:1\"", "unknown section [htp]; did you mean http?"),
        ("[http]\ndrain_ms = 1", "unknown key http.drain_ms; did you mean shutdown.drain_ms?"),
        ("[storage]\ncache_byte = 1", "unknown key storage.cache_byte; did you mean cache_bytes?"),
        ("[storage]\nqqq = 1", "unknown key storage.qqq; `feedlog config show` lists all"),
    ] {
        assert_eq!(parse(text), Err(vec![expected.to_owned()]), "{text}");
    }
    assert_eq!(
        with_env(&[("FEEDLOG__HTTP__ADRR", "127.0.0.1:1")]),
        Err(vec![
            "unknown environment variable FEEDLOG__HTTP__ADRR; did you mean FEEDLOG__HTTP__ADDR?".to_owned()
        ])
    );
}

#[test]
fn wrong_types_are_named() {
    for (text, expected) in [
        (
            "[shutdown]\ndrain_ms = \"10s\"",
            "shutdown.drain_ms: expected a whole number, 0 or more, found string",
        ),
        (
            "[shutdown]\ndrain_ms = -1",
            "shutdown.drain_ms: expected a whole number, 0 or more, found integer -1",
        ),
        ("[http]\ncompression = 1", "http.compression: expected true or false, found integer 1"),
        ("[storage]\nengine = \"leveldb\"", "storage.engine: expected \"rocksdb\" or \"sled\", found string"),
        ("http = 3", "http: expected a section [http], found integer"),
    ] {
        assert_eq!(parse(text), Err(vec![expected.to_owned()]), "{text}");
    }
    assert_eq!(
        with_env(&[("FEEDLOG__SHUTDOWN__DRAIN_MS", "soon")]),
        Err(vec!["FEEDLOG__SHUTDOWN__DRAIN_MS: expected a whole number, 0 or more".to_owned()])
    );
}

#[test]
fn every_problem_is_told_at_once() {
    let problems = parse("[http]\nadr = 1\ncompression = 2\n[nope]\n").unwrap_err();
    assert_eq!(problems.len(), 3, "{problems:?}");
}

#[test]
fn the_environment_overrides_the_file() {
    let env = [
        ("FEEDLOG__HTTP__ADDR", "[::1]:9000"),
        ("FEEDLOG__HTTP__CORS_ORIGINS", "https://a.example, https://b.example"),
        ("FEEDLOG__STORAGE__ENGINE", "sled"),
        ("FEEDLOG__STORAGE__CACHE_BYTES", "16_777_216"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = Config::parse("[http]\naddr = \"127.0.0.1:1\"\ndocs = false\n", env).unwrap();
    assert_eq!(config.http.addr.to_string(), "[::1]:9000");
    assert_eq!(config.http.cors_origins, ["https://a.example", "https://b.example"]);
    assert_eq!(config.storage.engine, Engine::Sled);
    assert_eq!(config.storage.cache_bytes, 16 << 20);
    assert!(!config.http.docs);
}

#[test]
fn secrets_are_masked_and_short_ones_refused() {
    let secret = "correct-horse-battery-staple";
    let config = with_env(&[("FEEDLOG__AUTH__ADMIN_TOKEN", secret)]).unwrap();
    assert_eq!(config.auth.admin_token.as_ref().unwrap().expose(), secret);
    assert!(!config.show().contains(secret));
    assert!(config.show().contains("admin_token = \"********\""));
    assert!(!config.show_json().to_string().contains(secret));
    assert!(!format!("{config:?}").contains(secret));
    let problems = with_env(&[("FEEDLOG__AUTH__ADMIN_TOKEN", "hunter2")]).unwrap_err();
    assert!(!problems[0].contains("hunter2"), "{problems:?}");
    // Not TOML on the very line of a secret: the line is not quoted.
    let problems = parse("[auth]\nadmin_token = \"correct-horse").unwrap_err();
    assert!(!problems[0].contains("horse"), "{problems:?}");
    assert!(problems[0].contains("line 2"), "{problems:?}");
}

#[test]
fn other_addresses_need_auth_and_tls() {
    let config = |extra: &str| {
        parse(&format!("[http]\naddr = \"0.0.0.0:7171\"\n{extra}")).unwrap().check_bind(false, false)
    };
    let tls = "tls_cert_file = \"c\"\ntls_key_file = \"k\"\n";
    let auth = "[auth]\nadmin_token = \"0123456789abcdef\"\n";
    assert_eq!(config("").unwrap_err().problems.len(), 2);
    assert!(config(tls).unwrap_err().to_string().contains("no auth"));
    assert!(config(auth).unwrap_err().to_string().contains("TLS"));
    assert_eq!(config(&format!("{tls}{auth}")), Ok(()));
    assert_eq!(config(&format!("plain_text = true\n{auth}")), Ok(()));
    let open = parse("[http]\naddr = \"0.0.0.0:7171\"\nplain_text = true").unwrap();
    assert_eq!(open.check_bind(false, true), Ok(()));
    assert!(open.check_bind(true, true).unwrap_err().to_string().contains("--dev"));
}

#[test]
fn bounds_are_checked() {
    for text in [
        "[limits]\npayload_max_bytes = 0",
        "[limits]\npayload_max_bytes = 16777217\n[http]\nbatch_max_bytes = 33554432",
        "[http]\nheader_max_bytes = 100",
        "[http]\ntls_cert_file = \"x\"",
        "[limits]\nrequests_per_address_per_second = 4294967296",
        "[auth]\njwt_hmac_algorithm = \"none\"",
    ] {
        assert_eq!(parse(text).unwrap_err().len(), 1, "{text}");
    }
}

#[test]
fn the_example_file_is_the_generated_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/feedlog.example.toml");
    let example = Config::example();
    if std::env::var_os("FEEDLOG_WRITE_EXAMPLE").is_some() {
        std::fs::write(path, &example).unwrap();
    }
    let stored = std::fs::read_to_string(path).unwrap();
    assert!(
        stored == example,
        "docs/feedlog.example.toml is old: run this test with FEEDLOG_WRITE_EXAMPLE=1"
    );
}

#[test]
fn the_example_file_is_the_default_also_uncommented() {
    assert_eq!(parse(&Config::example()), Ok(Config::default()));
    let uncommented: String = Config::example()
        .lines()
        .filter(|line| !line.starts_with("# "))
        .map(|line| format!("{}\n", line.strip_prefix('#').unwrap_or(line)))
        .filter(|line| !line.contains("otlp_endpoint"))
        .collect();
    let config = parse(&uncommented).unwrap();
    assert!(config.has_jwt());
    let shown = parse(&Config::default().show()).unwrap();
    assert_eq!(shown, Config::default());
}

#[test]
fn listeners_of_systems_that_are_off_and_hidden_paths_are_refused() {
    for (text, expected) in [
        ("[gws]\nenabled = false\naddr = \"127.0.0.1:4998\"", "gws.addr: is set, but gws.enabled is false"),
        (
            "[connmix]\nenabled = false\napi_addr = \"127.0.0.1:6789\"",
            "connmix.api_addr: is set, but connmix.enabled is false",
        ),
        ("[connmix]\npath = \"/v1/ws\"", "connmix.path: begins like a path of our own"),
    ] {
        assert_eq!(parse(text), Err(vec![expected.to_owned()]), "{text}");
    }
    assert!(parse("[connmix]\npath = \"/center\"").is_ok());
}
