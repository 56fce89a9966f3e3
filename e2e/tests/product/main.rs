//! The product on a real Kubernetes: installed from its own image and manifests, it puts pods to sleep and wakes them.
//!
//! All tests share one cluster, which the first of them starts. The image and the samples are what `cargo xtask image
//! --samples` wrote last; `cargo xtask test-cluster` writes them before it runs these tests.

mod commands;
mod guard;
mod installed;
mod leaving;
mod load;
mod node;
mod pages;
mod path;
mod rights;
mod scripts;
mod tokens;
mod workload;

use std::process::ExitCode;

use anyhow::Context;
use installed::Installed;
use nagi_e2e::suite::{self, Needs, Test};

const TESTS: &[Test<World>] = &[
    Test {
        name: "a_call_wakes_a_pod_and_puts_it_to_sleep",
        needs: Needs::Namespaces,
        run: path::calls,
    },
    Test {
        name: "the_first_request_to_a_sleeping_pod_is_held_and_answered_by_it",
        needs: Needs::Namespaces,
        run: path::first_request,
    },
    Test {
        name: "a_scheduled_wake_fires_once_with_two_replicas_of_the_api",
        needs: Needs::Namespaces,
        run: path::schedule,
    },
    Test {
        name: "no_request_is_lost_while_the_scale_api_is_replaced_and_a_schedule_fires_once",
        needs: Needs::Namespaces,
        run: load::scale_api,
    },
    Test {
        name: "no_request_is_lost_while_the_gateway_is_replaced",
        needs: Needs::Namespaces,
        run: load::gateway,
    },
    Test {
        name: "a_user_of_the_cluster_does_what_the_cluster_allows",
        needs: Needs::Namespaces,
        run: tokens::all,
    },
    Test {
        name: "preflight_in_the_pod_finds_what_the_manifests_grant",
        needs: Needs::Namespaces,
        run: leaving::preflight,
    },
    Test {
        name: "commands_of_the_founding_documents_work_as_written",
        needs: Needs::Namespaces,
        run: commands::all,
    },
    Test {
        name: "commands_of_the_pages_for_a_cluster_work_as_written",
        needs: Needs::Namespaces,
        run: pages::all,
    },
    Test {
        name: "each_integration_script_passes_and_names_an_injected_fault",
        needs: Needs::Namespaces,
        run: scripts::all,
    },
    Test {
        name: "a_node_that_breaks_is_not_told_as_serving_and_what_it_ran_is_woken_again",
        needs: Needs::Namespaces,
        run: node::breaks,
    },
    // It judges what all before it made Nagi do.
    Test {
        name: "each_account_uses_the_rights_that_it_has_and_no_others",
        needs: Needs::Namespaces,
        run: rights::all,
    },
    Test {
        name: "the_guard_of_each_node_tells_of_a_full_disk_without_an_api_server",
        needs: Needs::Namespaces,
        run: guard::all,
    },
    // From here on what the others need is taken away.
    Test {
        name: "helm_uninstall_wakes_what_sleeps_and_leaves_nothing",
        needs: Needs::Namespaces,
        run: leaving::uninstall,
    },
    Test {
        name: "with_roles_in_two_namespaces_these_are_served_and_no_other",
        needs: Needs::Namespaces,
        run: leaving::namespaced,
    },
];

/// What the tests share.
#[derive(Debug, Default)]
struct World {
    installed: Option<Installed>,
}

// === impl World ===

impl World {
    fn installed(&mut self) -> anyhow::Result<&mut Installed> {
        if self.installed.is_none() {
            self.installed = Some(Installed::start()?);
        }
        self.installed.as_mut().context("it was just started")
    }
}

fn main() -> ExitCode {
    suite::run(TESTS)
}
