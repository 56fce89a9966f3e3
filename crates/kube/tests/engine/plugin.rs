//! Credentials that a program gives.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use nagi_kube::{Rights, Source};
use nagi_kube_double::{Double, objects};
use nagi_ports::{PortError, Read, Workloads};
use tokio::time::Instant;

use crate::lab::{Lab, eventually, id};

/// Gives a token that ends at once; with words in a file `hang` beside it, it hangs.
const PLUGIN: &str = r#"#!/bin/sh
here=$(dirname "$0")
echo run >> "$here/runs"
while [ -s "$here/hang" ]; do sleep 0.05; done
cat <<END
{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential",
 "status":{"token":"t","expirationTimestamp":"2020-01-01T00:00:00Z"}}
END
"#;

// Issue 4 item 2: a deadline on every call, whatever a plugin does. The test has one thread, as a machine may have one core.
#[tokio::test]
async fn a_plugin_that_hangs_stops_nothing_but_the_calls_that_need_it() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("plugin"), PLUGIN).unwrap();
    std::fs::set_permissions(at("plugin"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let double = Double::start().await;
    double.require_token("t");
    double.put(objects::deployment("project-a", "sample-app-a", 2));
    let config = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         clusters: [{{ name: c, cluster: {{ server: '{}' }} }}]\n\
         users: [{{ name: u, user: {{ exec: {{ apiVersion: client.authentication.k8s.io/v1, command: '{}', interactiveMode: Never }} }} }}]\n\
         contexts: [{{ name: c, context: {{ cluster: c, user: u }} }}]\n",
        double.url(),
        at("plugin").display(),
    );
    std::fs::write(at("config"), config).unwrap();
    let source = Source::Rules {
        kubeconfig: Some(at("config").into()),
        home: None,
        context: None,
    };
    let lab = Lab::from_source(double, source, Rights::Full);
    lab.synced().await;
    std::fs::write(at("hang"), "yes").unwrap();
    let before = std::fs::read_to_string(at("runs")).unwrap().lines().count();
    let begun = Instant::now();
    let failed = lab.engine.get(&id(), Read::Live).await.unwrap_err();
    let took = begun.elapsed();
    let runs = std::fs::read_to_string(at("runs")).unwrap().lines().count();
    std::fs::write(at("hang"), "").unwrap();
    assert!(runs > before, "the plugin was not asked");
    assert!(matches!(failed, PortError::Timeout(_)), "{failed}");
    assert!(took < Duration::from_secs(8), "{took:?}");
    eventually("calls again", async || {
        lab.engine.get(&id(), Read::Live).await.is_ok()
    })
    .await;
}
