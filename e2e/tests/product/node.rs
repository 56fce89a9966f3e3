//! A machine that breaks without a word: its node object stays, and so do the pods that nobody runs any more.

use anyhow::{Context, ensure};
use nagi_e2e::NodeKind;
use nagi_e2e::wait::{self, Look};

use crate::World;
use crate::installed::SOON;
use crate::path::{GATEWAY, HOST};

const APP: &str = "/api/v1/deployments/project-a/sample-app-a";
const REASON: &str = r#"{"reason":"a test"}"#;

// Issue 4, faults, "node gone": "nothing lost, nothing run twice, the answer says what is true"
pub(crate) fn breaks(world: &mut World) -> anyhow::Result<()> {
    let installed = world.installed()?;
    let kind = NodeKind::standard()
        .into_iter()
        .find(|kind| kind.name == "projecta")
        .context("there is a node for project a")?;
    installed.complete()?;
    // Another count than the one that its annotation names: only what is remembered tells it.
    let up = r#"{"replicas":2,"reason":"a test"}"#;
    installed.api("POST", &format!("{APP}/scale-up"), up)?;
    installed.settle("project-a", "sample-app-a", 2)?;
    let answer = installed.http(GATEWAY, HOST)?;
    ensure!(answer.status == 200, "{answer:?}");
    installed.cluster.break_node(&kind.name)?;
    // The cluster itself learns of it after 40 s or more; from then on nothing is told as serving.
    let status = wait::until("a status that knows", SOON, || {
        let status = installed.api("GET", &format!("{APP}/status"), "")?;
        let deployment = &status["deployment"];
        Ok(if deployment["available_replicas"] == 0 {
            Look::There(deployment.clone())
        } else {
            Look::NotYet(status.to_string())
        })
    })?;
    let silent = "its node projecta does not answer";
    ensure!(
        status["status"] != "active" && status.to_string().contains(silent),
        "{status}"
    );
    // Nobody serves it: whoever asks is held for as long as that may help, and then told why.
    let answer = installed.http(GATEWAY, HOST)?;
    ensure!(
        answer.status == 503 && answer.took.as_secs() < 40 && answer.text.contains(silent),
        "{answer:?}"
    );
    // Orders are carried out, though the pod cannot end.
    installed.api("POST", &format!("{APP}/scale-to-zero"), REASON)?;
    let wanted = installed.wanted("project-a", "sample-app-a")?;
    ensure!(wanted == "0", "{wanted}");
    let status = installed.api("GET", &format!("{APP}/status"), "")?;
    ensure!(status["deployment"]["status"] != "active", "{status}");
    // A machine that was repaired: the first request wakes it there, to the count that it had.
    installed.cluster.add_node(&kind)?;
    wait::until("an answer", SOON, || {
        let answer = installed.http(GATEWAY, HOST)?;
        Ok(if answer.status == 200 {
            Look::There(())
        } else {
            Look::NotYet(format!("{answer:?}"))
        })
    })?;
    installed.settle("project-a", "sample-app-a", 2)
}
