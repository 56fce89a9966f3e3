//! The shortest way through everything: a call wakes and puts to sleep, a schedule fires, the first request is held.

use anyhow::ensure;
use nagi_e2e::wait::{self, Look};

use crate::World;
use crate::installed::{Installed, SOON};

const STATUS: &str = "/api/v1/deployments/project-a/sample-app-a/status";
const TO_ZERO: &str = "/api/v1/deployments/project-a/sample-app-a/scale-to-zero";
const UP: &str = "/api/v1/deployments/project-a/sample-app-a/scale-up";

/// The gateway under the name of its Service, and the default host of the sample.
pub(crate) const GATEWAY: &str = "http://wake-gateway.scale-system.svc.cluster.local/";
pub(crate) const HOST: &str = "-H 'Host: sample-app-a.project-a.localhost'";

/// Puts the sample to sleep and waits until its pods are gone.
fn put_to_sleep(installed: &Installed, more: &str) -> anyhow::Result<()> {
    let body = format!(r#"{{"reason":"a test"{more}}}"#);
    let answer = installed.api("POST", TO_ZERO, &body)?;
    ensure!(
        answer["deployment"]["target_status"] == "scaled-to-zero",
        "{answer}"
    );
    installed.settle("project-a", "sample-app-a", 0)
}

// A-003, A-004, A-020, A-025, A-120, A-124
pub(crate) fn calls(world: &mut World) -> anyhow::Result<()> {
    let installed = world.installed()?;
    let ready = installed.api("GET", "/ready", "")?;
    ensure!(ready["kubernetes"] == "connected", "{ready}");
    let answer = installed.api("POST", UP, r#"{"replicas":2,"reason":"a test"}"#)?;
    ensure!(
        answer["deployment"]["target_status"] == "scaling-up",
        "{answer}"
    );
    installed.settle("project-a", "sample-app-a", 2)?;
    wait::until("status active", SOON, || {
        let status = installed.api("GET", STATUS, "")?;
        let deployment = &status["deployment"];
        Ok(
            if deployment["status"] == "active" && deployment["available_replicas"] == 2 {
                Look::There(())
            } else {
                Look::NotYet(status.to_string())
            },
        )
    })?;
    put_to_sleep(installed, "")?;
    let status = installed.api("GET", STATUS, "")?;
    ensure!(status["deployment"]["status"] == "inactive", "{status}");
    // What a wake goes to lies on the object, written together with the count.
    let remembered = installed.output(
        r"kubectl get deployment sample-app-a -n project-a -o 'jsonpath={.metadata.annotations.nagi\.dev/replicas}'",
    )?;
    ensure!(remembered == "2", "{remembered}");
    let events = installed.output("kubectl get events -n project-a")?;
    ensure!(events.contains("deployment/sample-app-a"), "{events}");
    Ok(())
}

// F11, A-129
pub(crate) fn first_request(world: &mut World) -> anyhow::Result<()> {
    let installed = world.installed()?;
    put_to_sleep(installed, "")?;
    installed.succeed("kubectl annotate deployment sample-app-a -n project-a nagi.dev/learned-")?;
    let answer = installed.http(GATEWAY, HOST)?;
    ensure!(
        answer.status == 200 && answer.text.contains("sample-app-a is awake"),
        "{answer:?}"
    );
    ensure!(
        installed.wanted("project-a", "sample-app-a")? != "0",
        "the answer came from a pod, so there is one"
    );
    let again = installed.http(GATEWAY, HOST)?;
    ensure!(again.status == 200, "{again:?}");
    report(&format!(
        "the first request was held for {:.1} s, the next took {:.0} ms",
        answer.took.as_secs_f64(),
        again.took.as_secs_f64() * 1000.0
    ));
    // The gateway may not write annotations; the leader clears what the sleep left, and writes how long the wake took, unless it
    // was over before anybody looked: then the next one tells.
    wait::until("a cleared mark of the sleep, and a lesson", SOON, || {
        let marks = installed.output(
            "kubectl get deployment sample-app-a -n project-a -o 'jsonpath={.metadata.annotations}'",
        )?;
        if !marks.contains("nagi.dev/asleep-by") && marks.contains("nagi.dev/learned") {
            return Ok(Look::There(()));
        }
        put_to_sleep(installed, "")?;
        let answer = installed.http(GATEWAY, HOST)?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(Look::NotYet(marks))
    })
}

// A-110, A-111
pub(crate) fn schedule(world: &mut World) -> anyhow::Result<()> {
    let installed = world.installed()?;
    installed.api("POST", UP, r#"{"replicas":1,"reason":"a test"}"#)?;
    installed.settle("project-a", "sample-app-a", 1)?;
    let before = installed.wakes_in_audit_log("sample-app-a")?;
    let due = installed.output("date -u -d '+20 seconds' +%Y-%m-%dT%H:%M:%SZ")?;
    put_to_sleep(
        installed,
        &format!(r#","scheduled_scale_up":"{}""#, due.trim()),
    )?;
    wait::until("the scheduled wake", SOON, || {
        let wanted = installed.wanted("project-a", "sample-app-a")?;
        Ok(if wanted == "1" {
            Look::There(())
        } else {
            Look::NotYet(format!("{wanted} replicas wanted"))
        })
    })?;
    installed.settle("project-a", "sample-app-a", 1)?;
    // Two replicas of the API saw it, and one wrote.
    let wakes = installed.wakes_in_audit_log("sample-app-a")? - before;
    ensure!(wakes == 1, "{wakes} writes for one schedule");
    let status = installed.api("GET", STATUS, "")?;
    ensure!(
        status["deployment"]["scheduled_scale_up"].is_null(),
        "it is done: {status}"
    );
    Ok(())
}

#[expect(
    clippy::print_stdout,
    reason = "for the person who reads the report of the tests"
)]
fn report(line: &str) {
    println!("product: {line}");
}
