//! The harness itself: what it promises to everyone who tests with it.

use std::process::ExitCode;

use nagi_e2e::suite::{self, Needs, Test};
use nagi_e2e::{ControlPlane, Options, Where};

const TESTS: &[Test] = &[Test {
    name: "a_control_plane_without_root_keeps_objects_and_says_who_wrote_them",
    needs: Needs::Nothing,
    run: control_plane_on_loopback,
}];

fn main() -> ExitCode {
    suite::run(TESTS)
}

fn control_plane_on_loopback() -> anyhow::Result<()> {
    let options = Options {
        place: Where::Loopback,
        ..Options::default()
    };
    let control_plane = ControlPlane::start("harness-loopback", &options)?;
    control_plane
        .kubectl()
        .arguments([
            "create",
            "deployment",
            "web",
            "--image=nagi.test/none",
            "--replicas=3",
        ])
        .succeed()?;
    let scaled = control_plane
        .kubectl()
        .arguments([
            "get",
            "deployment",
            "web",
            "--output=jsonpath={.spec.replicas}",
        ])
        .output()?;
    assert_eq!(scaled, "3");
    let audit = std::fs::read_to_string(control_plane.audit_log())?;
    assert!(
        audit.lines().any(|line| {
            line.contains(r#""verb":"create""#)
                && line.contains(r#""username":"admin""#)
                && line.contains(r#""resource":"deployments""#)
        }),
        "the audit log names the writer"
    );
    let directory = control_plane.directory().to_owned();
    let server = control_plane.process("kube-apiserver")?;
    control_plane.stop()?;
    assert!(!directory.exists(), "nothing is left");
    assert!(!server.is_running());
    Ok(())
}
