//! `tests/integration/*.sh` on a cluster whose nodes come and go.

use std::time::Duration;

use anyhow::ensure;

use crate::World;
use crate::installed::{API, Installed};

/// The limits are those of the scripts; they only look more often than on a cluster whose nodes take minutes.
const SETTINGS: &str = "POLL_INTERVAL=1 RETRY_INTERVAL=1 GPU_POOL_AT_ZERO=true";

/// How long a node stays empty.
const EMPTY_FOR: Duration = Duration::from_secs(3);

/// A fault, the script that must name it, and a word of what it says.
struct Fault {
    inject: &'static str,
    script: &'static str,
    names: &'static str,
    mend: &'static str,
}

const FAULTS: &[Fault] = &[
    // The API server refuses the write.
    Fault {
        inject: "kubectl delete clusterrolebinding scale-api-binding",
        script: "test-scale-api.sh",
        names: "FAIL scaled to 3: status 5",
        mend: "kubectl apply -f src/api/manifests/rbac.yaml",
    },
    // There is nobody to ask about.
    Fault {
        inject: "kubectl delete deployment sample-app-a -n project-a",
        script: "test-get-status.sh",
        names: "FAIL valid JSON: status 404",
        mend: "kubectl apply -k src/samples/app-a",
    },
    // Somebody else keeps the node.
    Fault {
        inject: "kubectl run keeps-the-node --image=sample-app-a:0.1.0 --overrides='{\"spec\":{\"nodeSelector\":{\"project\":\"a\"}}}'",
        script: "NODES_GONE_TIMEOUT=15 test-scale-to-zero.sh",
        names: "projecta is still there, with keeps-the-node",
        mend: "kubectl delete pod keeps-the-node --grace-period=1",
    },
    // Pods that no node fits.
    Fault {
        inject: "kubectl wait --for=delete node/projectb --timeout=120s && kubectl patch deployment sample-app-b -n project-b -p '{\"spec\":{\"template\":{\"spec\":{\"nodeSelector\":{\"project\":\"c\"}}}}}'",
        script: "NODE_TIMEOUT=5 test-triton-inference.sh",
        names: "no node has workload=gpu",
        mend: "kubectl apply -k src/samples/app-b",
    },
];

// K-25, W-A43, W-A44
pub(crate) fn all(world: &mut World) -> anyhow::Result<()> {
    let installed = world.installed()?;
    for (namespace, name) in [("project-a", "sample-app-a"), ("project-b", "sample-app-b")] {
        installed.succeed(&format!(
            "kubectl scale deployment {name} -n {namespace} --replicas=0"
        ))?;
        installed.settle(namespace, name, 0)?;
    }
    let _autoscaler = installed.cluster.autoscale(EMPTY_FOR)?;
    passes(installed)?;
    for fault in FAULTS {
        names_fault(installed, fault)?;
    }
    dead_end(installed)
}

/// Bash that runs a script of the directory, with its settings in front.
fn script(line: &str) -> String {
    let (settings, name) = line.rsplit_once(' ').unwrap_or(("", line));
    format!("{SETTINGS} {settings} tests/integration/{name} 2>&1")
}

#[expect(
    clippy::print_stdout,
    reason = "for the person who reads the report of the tests"
)]
fn passes(installed: &Installed) -> anyhow::Result<()> {
    let printed = installed.output(&script("run-integration-tests.sh"))?;
    print!("{printed}");
    ensure!(printed.contains("4 of 4 tests passed"));
    // The GPU pool too comes up for it and goes away with it.
    let printed = installed.output(&format!(
        "{SETTINGS} tests/integration/test-scale-to-zero.sh project-b sample-app-b 2>&1"
    ))?;
    print!("{printed}");
    for name in ["sample-app-a -n project-a", "sample-app-b -n project-b"] {
        let wanted = installed.output(&format!(
            "kubectl get deployment {name} -o 'jsonpath={{.spec.replicas}}'"
        ))?;
        ensure!(wanted == "0", "{name} began with 0 and has {wanted}");
    }
    for port in [8000, 8001, 8080] {
        let left = installed.end(&format!("exec 3<>/dev/tcp/127.0.0.1/{port}"))?;
        ensure!(!left.status.success(), "a port-forward of {port} is left");
    }
    Ok(())
}

fn names_fault(installed: &Installed, fault: &Fault) -> anyhow::Result<()> {
    installed.succeed(fault.inject)?;
    let ended = installed.end(&script(fault.script))?;
    installed.succeed(fault.mend)?;
    ensure!(
        ended.status.code() == Some(1) && ended.output.contains(fault.names),
        "{} must name '{}' and end with 1: {}\n{}",
        fault.script,
        fault.names,
        ended.status,
        ended.output
    );
    Ok(())
}

/// A script that cannot begin, and a runner one of whose tests fails.
fn dead_end(installed: &Installed) -> anyhow::Result<()> {
    for (line, names) in [
        (
            "SCALE_API_ENDPOINT=http://127.0.0.1.invalid:1 test-get-status.sh",
            "nothing answers at",
        ),
        (
            "API_TIMEOUT=soon test-get-status.sh",
            "API_TIMEOUT is 'soon'",
        ),
        (
            "SCALE_API_ENDPOINT=http://127.0.0.1.invalid:1 run-integration-tests.sh",
            "0 of 4 tests passed",
        ),
    ] {
        let ended = installed.end(&script(line))?;
        ensure!(
            ended.status.code() == Some(1) && ended.output.contains(names),
            "{line} must name '{names}' and end with 1: {}\n{}",
            ended.status,
            ended.output
        );
    }
    // Without a GPU node, and nobody who brings one, the inference test is skipped.
    let ended =
        installed.end("GPU_POOL_AT_ZERO=false tests/integration/test-triton-inference.sh 2>&1")?;
    ensure!(
        ended.status.success() && ended.output.contains("SKIP no node has workload=gpu"),
        "{}",
        ended.output
    );
    // A Scale API that the caller has reached already is used as it is.
    let printed = installed.output(&format!(
        "SCALE_API_ENDPOINT={API} tests/integration/test-get-status.sh 2>&1"
    ));
    ensure!(printed.is_ok(), "{printed:?}");
    Ok(())
}
