//! Settings as people write them, good and bad.

use super::*;

fn home() -> Home {
    Home {
        state: None,
        directory: Some("/home/member".into()),
        name: "nagi",
        in_pod: false,
    }
}

fn resolve(change: impl FnOnce(&mut ServeArgs)) -> Result<ServeConfig, ConfigErrors> {
    let mut args = ServeArgs::default();
    change(&mut args);
    ServeConfig::resolve(&args, &home())
}

//
#[test]
fn everything_has_a_default_and_it_is_loopback() {
    let config = resolve(|_| {}).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.metrics_listen.to_string(), "127.0.0.1:9090");
    assert_eq!(config.gateway_listen.to_string(), "127.0.0.1:8000");
    assert_eq!(
        config.state_dir,
        PathBuf::from("/home/member/.local/state/nagi")
    );
    assert_eq!(config.rails, Guardrails::default());
    assert_eq!(config.rate_limit, RateLimit::default());
}

// the probes of kubelet and the Service come from outside
#[test]
fn in_a_pod_every_address_is_served() {
    let pod = Home {
        in_pod: true,
        ..home()
    };
    let config = ServeConfig::resolve(&ServeArgs::default(), &pod).unwrap();
    assert_eq!(config.listen.to_string(), "0.0.0.0:8080");
    assert_eq!(config.metrics_listen.to_string(), "0.0.0.0:9090");
    let kube = |names: &str| {
        KubeArgs {
            namespaces: Some(names.into()),
            ..KubeArgs::default()
        }
        .namespaces()
    };
    assert_eq!(kube("").unwrap(), None);
    assert_eq!(kube("project-a, project-b").unwrap().unwrap().len(), 2);
    assert!(kube("Bad").is_err());
}

// A-162, W-A20
#[test]
fn bad_ports_and_levels_are_refused_with_their_rule() {
    for bad in ["0", "65536", "-1", "http", "80 80"] {
        let error = resolve(|a| a.port = Some(bad.into())).unwrap_err();
        assert!(
            error.to_string().contains("PORT") && error.to_string().contains("1 to 65535"),
            "{error}"
        );
    }
    assert_eq!(
        resolve(|a| a.port = Some("9000".into()))
            .unwrap()
            .listen
            .port(),
        9000
    );
    let error = resolve(|a| a.log_level = Some("verbose".into())).unwrap_err();
    assert!(error.to_string().contains("LOG_LEVEL"), "{error}");
}

#[test]
fn an_empty_path_is_told_what_it_must_name() {
    let directory = resolve(|a| a.state_dir = Some(String::new())).unwrap_err();
    assert!(directory.to_string().contains("must name a directory"));
    let file = resolve(|a| a.log_file = Some(String::new())).unwrap_err();
    assert!(file.to_string().contains("must name a file"));
}

#[test]
fn every_wrong_setting_is_named() {
    let error = resolve(|a| {
        a.port = Some("x".into());
        a.rate_limit = Some("-1".into());
        a.log_level = Some("loud".into());
    });
    let text = error.unwrap_err().to_string();
    for name in ["PORT", "NAGI_RATE_LIMIT", "LOG_LEVEL"] {
        assert!(text.contains(name), "{text}");
    }
    let config = resolve(|a| a.api_key = Some(String::new())).unwrap();
    assert_eq!(config.api_key.as_deref(), Some(""), "off, not unset (K-14)");
}

// K-14: what protects and was left empty by mistake must not open a door.
#[test]
fn a_setting_that_protects_may_not_be_empty() {
    type Set = fn(&mut ServeArgs, String);
    let empty: [(Set, &str); 4] = [
        (|a, text| a.api_key_file = Some(text), API_KEY_FILE.env),
        (|a, text| a.keys_file = Some(text), KEYS_FILE.env),
        (|a, text| a.require_auth = Some(text), REQUIRE_AUTH.env),
        (
            |a, text| a.allowed_namespaces = Some(text),
            ALLOWED_NAMESPACES.env,
        ),
    ];
    for (set, name) in empty {
        for text in ["", " "] {
            let error = resolve(|a| set(a, text.to_owned())).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }
    assert!(resolve(|a| a.allowed_namespaces = Some(" , ".into())).is_err());
}

#[test]
fn every_other_setting_is_checked_too() {
    let bad: [fn(&mut ServeArgs); 9] = [
        |a| a.listen = Some("8080".into()),
        |a| a.metrics_listen = Some("localhost:9090".into()),
        |a| a.require_auth = Some("maybe".into()),
        |a| a.max_replicas = Some("0".into()),
        |a| a.allowed_namespaces = Some("project-a,Bad".into()),
        |a| a.rate_limit = Some("-1".into()),
        |a| a.rate_burst = Some("0".into()),
        |a| a.trusted_proxies = Some("proxy".into()),
        |a| a.hold_seconds = Some("0".into()),
    ];
    for change in bad {
        assert!(resolve(change).is_err());
    }
    assert!(
        ServeConfig::resolve(
            &ServeArgs::default(),
            &Home {
                directory: None,
                ..home()
            }
        )
        .is_err(),
        "no home directory"
    );
}
