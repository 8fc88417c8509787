//! The configuration: what is wrong is told with its place, its field and what to do; file, environment and flags count in
//! that order; secrets stand in files.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod folder;

use std::time::Duration;

use folder::Folder;
use jwks_cache::PrivateNetworks;
use jwks_cache_server::{Access, Config, Listen, Loaded, Place, Problem, Problems, Source, Span, schema};

fn load_with(
    text: &str,
    variables: &[(&str, &str)],
    flags: &[(&str, &str, &str)],
) -> Result<Loaded, Problems> {
    let folder = Folder::new();
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let flags =
        flags.iter().map(|(flag, field, value)| (flag.to_string(), field.to_string(), value.to_string()));
    Source { file: Some(folder.write("c.toml", text)), variables, flags: flags.collect() }.load()
}

fn load(text: &str) -> Result<Config, Problems> {
    load_with(text, &[], &[]).map(|loaded| loaded.config)
}

fn first(text: &str) -> Problem {
    load(text).expect_err(text).0.remove(0)
}

/// A provider that is right, and this beside it.
fn provider(lines: &str) -> String {
    format!("[tenants.acme.providers.main]\njwks_url = \"https://id.example.com/jwks.json\"\n{lines}\n")
}

/// The file; line and column; the field; a part of what is wrong; a part of what to do.
type Row<'a> = (&'a str, (usize, usize), &'a str, &'a str, &'a str);

#[test]
fn each_broken_file_says_where_what_and_what_to_do() {
    let long = format!("[tenants.{}.providers.main]\njwks_url = \"https://a.example/\"", "x".repeat(65));
    let with = |lines: &str| provider(lines);
    let rows: &[Row<'_>] = &[
        ("[data\n", (1, 6), "", "is not TOML", "[data]"),
        ("[data]\nlisten = 127.0.0.1:80\n", (2, 0), "", "is not TOML", "in quotes"),
        ("[data]\nlisten = \"off\"\nlisten = \"off\"\n", (3, 1), "", "is not TOML", "tables"),
        ("[dta]\nlisten = \"off\"\n", (1, 2), "dta", "no such field", "did you mean data?"),
        ("[data]\nlissten = \"off\"\n", (2, 1), "data.lissten", "no such field", "did you mean listen?"),
        (
            "[data]\n\n  zzz = 1\n",
            (3, 3),
            "data.zzz",
            "no such field",
            "the fields here are listen, public_url, tls",
        ),
        ("[data]\nlisten = \"8080\"\n", (2, 10), "data.listen", "not host:port", "127.0.0.1:8080"),
        ("[data]\nlisten = \"::1:80\"\n", (2, 10), "data.listen", "not host:port", "unix:/path"),
        ("[data]\nlisten = \"localhost:99999\"\n", (2, 10), "data.listen", "not host:port", "host:port"),
        ("[data]\nlisten = \"unix:\"\n", (2, 10), "data.listen", "names no socket", "unix:/path"),
        (
            "[data]\npublic_url = \"keys.example.com\"\n",
            (2, 14),
            "data.public_url",
            "not the beginning of a URL",
            "https://keys.example.com",
        ),
        ("[ops]\nlisten = 9090\n", (2, 10), "ops.listen", "integer `9090`", "127.0.0.1:9090"),
        ("[data.tls]\ncertificate = \"c.pem\"\n", (1, 1), "data.tls.key", "is missing", "PEM file"),
        ("[control]\nlisten = \"127.0.0.1:1\"\n", (2, 10), "control.listen", "credentials", "control.tokens"),
        (
            "[[control.tokens]]\nname = \"ci\"\n",
            (1, 1),
            "control.tokens[0]",
            "sha256 or token_file",
            "openssl rand",
        ),
        (
            "[[control.tokens]]\nname = \"ci\"\nsha256 = \"abc\"\n",
            (3, 10),
            "control.tokens[0].sha256",
            "64 hexadecimal",
            "sha256sum",
        ),
        (
            "[[control.tokens]]\nname = \"ci\"\ntoken = \"short\"\n",
            (3, 9),
            "control.tokens[0].token",
            "guessed",
            "openssl rand",
        ),
        ("[[control.tokens]]\nsha256 = \"x\"\n", (2, 10), "control.tokens[0].sha256", "64 hex", "sha256sum"),
        (
            "[[control.tokens]]\nname = \"ci\"\ntoken_file = \"nowhere\"\n",
            (3, 14),
            "control.tokens[0].token_file",
            "cannot be read",
            "path of a file",
        ),
        (
            "[[control.clients]]\nname = \"ci\"\nidentity = \"cn:ci\"\n",
            (1, 1),
            "control.clients",
            "asks for certificates",
            "client_ca",
        ),
        (
            "[[control.clients]]\nname = \"ci\"\nidentity = \"spiffe://prod/ci\"\n",
            (3, 12),
            "control.clients[0].identity",
            "which kind of name",
            "uri:spiffe://",
        ),
        (
            "[[control.clients]]\nname = \"a\"\nidentity = \"dns:a\"\n[[control.clients]]\nname = \"b\"\nidentity = \"dns:A\"\n",
            (4, 1),
            "control.clients[1]",
            "control.clients[0] again",
            "remove one",
        ),
        (
            &format!(
                "[[control.tokens]]\nname = \"a\"\nsha256 = \"{0}\"\n[[control.tokens]]\nname = \"b\"\nsha256 = \"{0}\"\n",
                "7".repeat(64)
            ),
            (4, 1),
            "control.tokens[1]",
            "the token of control.tokens[0]",
            "of its own",
        ),
        (
            &format!("[[control.tokens]]\nname = \" \"\nsha256 = \"{}\"\n", "7".repeat(64)),
            (2, 8),
            "control.tokens[0].name",
            "is blank",
            "name its bearer",
        ),
        (
            &format!("[[control.tokens]]\nname = \"a\"\ntenants = []\nsha256 = \"{}\"\n", "7".repeat(64)),
            (3, 11),
            "control.tokens[0].tenants",
            "names no tenant",
            "for all tenants",
        ),
        (
            "[limits]\nconnections = -1\n",
            (2, 15),
            "limits.connections",
            "expected a whole number",
            "Connections at once",
        ),
        ("[limits]\nheader_bytes = 100\n", (2, 16), "limits.header_bytes", "8192 to 1048576", "32768"),
        ("[limits]\nidle_timeout = \"soon\"\n", (2, 16), "limits.idle_timeout", "no span of time", "75s"),
        ("[limits]\nidle_timeout = \"1ms\"\n", (2, 16), "limits.idle_timeout", "at least 1s", "10s or more"),
        (
            "[defaults]\nprivate_networks = \"none\"\n",
            (2, 20),
            "defaults.private_networks",
            "unknown variant",
            "deny_except",
        ),
        (
            "[defaults]\nprivate_networks = { deny_except = [\"10.0.0.0/99\"] }\n",
            (2, 20),
            "defaults.private_networks",
            "10.0.0.0/99",
            "10.0.0.0/8",
        ),
        (
            "[store]\nsigning_keys = \"short\"\n",
            (2, 16),
            "store.signing_keys",
            "32 random bytes",
            "openssl rand",
        ),
        ("[store.redis]\nnamespace = \"x\"\n", (1, 1), "store.redis.url", "is missing", "redis://"),
        ("[store]\nredis = { url = 5 }\n", (2, 17), "store.redis.url", "is not a text", "redis://"),
        ("[log]\nlevel = \"a=b=c\"\n", (2, 9), "log.level", "is no level", "error, warn, info"),
        ("[log]\nformat = \"xml\"\n", (2, 10), "log.format", "unknown variant `xml`", "json or pretty"),
        (
            "[tenants.acme.providers.main]\n",
            (1, 1),
            "tenants.acme.providers.main.jwks_url",
            "is missing",
            "https://id.example.com",
        ),
        (
            "[tenants.acme.provider.main]\n",
            (1, 15),
            "tenants.acme.provider",
            "no such field",
            "did you mean providers?",
        ),
        (&long, (1, 10), "tenants.xxx", "64", ""),
        (
            "[tenants.acme.providers.\"a b\"]\njwks_url = \"https://a.example/\"\n",
            (1, 1),
            "tenants.acme.providers.a b",
            "",
            "",
        ),
        (
            &with("max_ttl = \"1s\""),
            (3, 11),
            "tenants.acme.providers.main.max_ttl",
            "at least 30s",
            "min_ttl",
        ),
        (
            &with("tenant_id = \"b\""),
            (3, 1),
            "tenants.acme.providers.main.tenant_id",
            "no such field",
            "the fields here",
        ),
        (
            &with("retry_policy = { deadline = \"1ms\" }"),
            (3, 29),
            "tenants.acme.providers.main.retry_policy.deadline",
            "at least",
            "attempt_timeout",
        ),
        (
            &with("bearer_token = \"secret-text\""),
            (3, 16),
            "tenants.acme.providers.main.bearer_token",
            "must be",
            "file = path",
        ),
        (
            &with("require_https = false"),
            (3, 17),
            "tenants.acme.providers.main.require_https",
            "is false",
            "[defaults]",
        ),
        (
            &with("[defaults]\nallowed_domains = [\"b.example\"]"),
            (2, 12),
            "tenants.acme.providers.main.jwks_url",
            "not in defaults.allowed_domains",
            "add the host",
        ),
        (&with("born = 1979-05-27"), (3, 8), "tenants.acme.providers.main.born", "date", "text in quotes"),
        (
            &with("max_keys = 99999999999999999999"),
            (3, 12),
            "tenants.acme.providers.main.max_keys",
            "number",
            "2^63",
        ),
    ];
    let (mut texts, mut wrong) = (std::collections::BTreeSet::new(), Vec::new());
    for (text, at, field, what, remedy) in rows {
        let problem = first(text);
        let Some(Place::File { path, line, column }) = problem.place.clone() else {
            panic!("{text}: {problem}");
        };
        assert!(path.ends_with("c.toml"));
        // A column of 0 stands for any: where TOML breaks is its parser's to say.
        let place = (line, if at.1 == 0 { 0 } else { column }) == *at;
        let same = problem.field == *field || (field.ends_with("xxx") && problem.field.starts_with(field));
        let said =
            problem.what.contains(what) && problem.remedy.contains(remedy) && !problem.remedy.is_empty();
        if !(place && same && said) || problem.to_string().contains("secret-text") {
            wrong.push(format!("{text}\n{problem}"));
        }
        texts.insert(problem.to_string().replace(&path.display().to_string(), ""));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(rows.len() >= 30 && texts.len() == rows.len(), "each has a message of its own");
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let Problems(all) = load("[dta]\n[limits]\nconections = 1\n").unwrap_err();
    let fields: Vec<&str> = all.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(fields, ["dta", "limits.conections"]);
    let Problems(all) = load("[limits]\nconnections = 1\nheader_bytes = 1\n").unwrap_err();
    assert_eq!(all.len(), 2);
}

#[test]
fn flags_count_more_than_the_environment_and_that_more_than_the_file() {
    let file = "[limits]\nconnections = 100\nheader_bytes = 10000\nhttp2_streams = 7\n[data]\nlisten = \"127.0.0.1:1\"\n";
    let variables = [
        ("JWKS_CACHE__LIMITS__HEADER_BYTES", "20000"),
        ("JWKS_CACHE__LIMITS__HTTP2_STREAMS", "8"),
        ("JWKS_CACHE__DATA__LISTEN", "unix:/run/a.sock"),
        ("JWKS_CACHE__DEFAULTS__ALLOWED_DOMAINS", "a.example, b.example"),
        ("JWKS_CACHE__DEFAULTS__PRIVATE_NETWORKS", "{ deny_except = [\"10.0.0.0/8\"] }"),
        ("JWKS_CACHE__STORE__FILES", "false"),
        ("JWKS_CACHE_CONFIG", "passed over"),
        ("PATH", "passed over"),
    ];
    let flags = [("--data", "data.listen", "off"), ("--set", "limits.http2_streams", "9")];
    let config = load_with(file, &variables, &flags).unwrap().config;
    let limits = &config.limits;
    assert_eq!((limits.connections, limits.header_bytes, limits.http2_streams), (100, 20_000, 9));
    assert_eq!(config.data.listen, Listen::Off);
    assert_eq!(config.defaults.allowed_domains, ["a.example", "b.example"]);
    assert_eq!(config.defaults.private_networks, PrivateNetworks::DenyExcept(vec!["10.0.0.0/8".into()]));
    assert!(!config.store.files);
}

#[test]
fn a_variable_finds_the_names_of_the_file_and_its_mistakes_are_told_by_its_name() {
    let file = "[tenants.big-corp.providers.main]\njwks_url = \"https://a.example/\"\n";
    let name = "JWKS_CACHE__TENANTS__BIG_CORP__PROVIDERS__MAIN__MAX_KEYS";
    let config = load_with(file, &[(name, "7")], &[]).unwrap().config;
    assert_eq!(config.tenants.keys().collect::<Vec<_>>(), ["big-corp"]);
    assert_eq!(config.registrations().next().unwrap().max_keys, 7);
    for (name, value, what) in [
        (name, "many", "invalid type"),
        ("JWKS_CACHE__DATA__LISTN", "off", "no such field"),
        ("JWKS_CACHE__STORE__FILES", "maybe", "invalid type"),
        ("JWKS_CACHE__DATA__LISTEN__MORE", "x", "invalid type"),
        ("JWKS_CACHE__", "x", "no such field"),
    ] {
        let Problems(problems) = load_with(file, &[(name, value)], &[]).unwrap_err();
        assert_eq!(problems[0].place, Some(Place::Variable(name.into())), "{}", problems[0]);
        assert!(problems[0].what.contains(what), "{}", problems[0]);
    }
    let Problems(problems) = load_with("", &[], &[("--data", "data.listen", "x")]).unwrap_err();
    assert_eq!(problems[0].place, Some(Place::Flag("--data".into())));
}

#[test]
fn a_secret_may_stand_in_a_file_which_is_then_watched() {
    let folder = Folder::new();
    let token = folder.write("token", "0123456789abcdef0123456789abcdef-from-a-file\n");
    let keys = folder.write("keys", &format!("{}\n{}\n", "a".repeat(64), "b".repeat(64)));
    let file = format!(
        "[[control.tokens]]\nname = \"ci\"\ntoken_file = {:?}\naccess = \"write\"\ntenants = [\"acme\"]\n[store]\nsigning_keys_file = {:?}\n",
        token, keys
    );
    let loaded = load_with(&file, &[], &[]).unwrap();
    let token_of = &loaded.config.control.tokens[0];
    assert_eq!(token_of.token.as_ref().unwrap().expose(), "0123456789abcdef0123456789abcdef-from-a-file");
    assert_eq!(
        (token_of.access, token_of.tenants.as_deref()),
        (Access::Write, Some(&["acme".to_owned()][..]))
    );
    assert!(loaded.files.contains(&token) && loaded.files.contains(&keys));
    assert!(!format!("{:?}", loaded.config).contains("from-a-file"));

    // A variable's file stands over the file's text, and the other way round.
    let url = folder.write("url", "redis://from-a-file/");
    let redis = |text: &str, name: &str, value: &str| {
        load_with(text, &[(name, value)], &[]).unwrap().config.store.redis.unwrap().url.expose().to_owned()
    };
    let url = url.to_str().unwrap();
    assert_eq!(
        redis("[store.redis]\nurl = \"redis://text/\"\n", "JWKS_CACHE__STORE__REDIS__URL_FILE", url),
        "redis://from-a-file/"
    );
    let text = format!("[store.redis]\nurl_file = {url:?}\n");
    assert_eq!(redis(&text, "JWKS_CACHE__STORE__REDIS__URL", "redis://variable/"), "redis://variable/");
    let both = first(&format!("[store.redis]\nurl = \"redis://x/\"\nurl_file = {url:?}\n"));
    assert!(both.what.contains("stands beside url"), "{both}");
}

#[test]
fn the_servers_defaults_are_its_own() {
    let config = load(&provider("")).unwrap();
    assert_eq!(config.defaults.stale_while_error, Span(Duration::from_secs(24 * 3600)));
    assert_eq!(config.defaults.private_networks, PrivateNetworks::Deny);
    let registration = config.registrations().next().unwrap();
    assert_eq!((registration.tenant_id.as_str(), registration.provider_id.as_str()), ("acme", "main"));
    assert!(config.registers("acme", "main") && !config.registers("acme", "other"));
    let config = load("state_dir = \"/var/lib/x\"").unwrap();
    assert_eq!(config.control_listen(), Listen::Unix("/var/lib/x/control.sock".into()));
}

#[test]
fn what_a_provider_says_counts_though_it_is_the_librarys_default() {
    let stale = |text: &str, flags: &[(&str, &str, &str)]| {
        let config = load_with(text, &[], flags).unwrap().config;
        config.registrations().next().unwrap().stale_while_error.as_secs()
    };
    let flag = ("--set", "tenants.acme.providers.main.stale_while_error", "60s");
    for (defaults, said, flags, want) in [
        ("", "", &[][..], 24 * 3600),
        ("", "stale_while_error = \"60s\"", &[], 60),
        ("", "", &[flag], 60),
        ("[defaults]\nstale_while_error = \"2h\"\n", "", &[], 7200),
        ("[defaults]\nstale_while_error = \"2h\"\n", "stale_while_error = \"PT1M\"", &[], 60),
        ("[defaults]\nstale_while_error = \"2h\"\n", "stale_while_error = \"24h\"", &[], 24 * 3600),
    ] {
        assert_eq!(stale(&format!("{defaults}{}", provider(said)), flags), want, "{defaults} {said}");
    }
}

#[test]
fn the_schema_describes_every_field_and_takes_no_other() {
    fn look(schema: &serde_json::Value, path: &str, found: &mut usize) {
        if let Some(fields) = schema["properties"].as_object() {
            assert_eq!(schema["additionalProperties"], false, "{path}");
            for (name, field) in fields {
                let below = format!("{path}.{name}");
                let nested = path.contains(".tls")
                    || path.contains("private_networks")
                    || path.contains("bearer_token");
                assert!(nested || field["description"].is_string(), "{below} has no description");
                *found += 1;
                look(field, &below, found);
            }
        }
        for kind in ["anyOf", "oneOf"] {
            for branch in schema[kind].as_array().into_iter().flatten() {
                look(branch, path, found);
            }
        }
        for kind in ["items", "additionalProperties"] {
            if schema[kind].is_object() {
                look(&schema[kind], path, found);
            }
        }
    }
    let mut found = 0;
    look(schema(), "", &mut found);
    assert!(found > 90, "{found}");
    assert_eq!(schema()["$schema"], "https://json-schema.org/draft/2020-12/schema");
}

#[test]
fn no_text_makes_it_panic() {
    let mut state = 7_u64;
    let mut next = move |most: usize| {
        // A generator that always brings the same: a failure can be seen again.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % most
    };
    let good = format!(
        "{}[data]\nlisten = \"é:1\"\n[[control.tokens]]\nname = \"x\"\n",
        provider("headers = { a = \"b\" }")
    );
    for _ in 0..2000 {
        let mut bytes = good.clone().into_bytes();
        for _ in 0..=next(6) {
            let at = next(bytes.len());
            bytes[at] = b"[]{}\"=.\n\\a0-"[next(12)];
        }
        let _ = load(&String::from_utf8_lossy(&bytes));
    }
}
