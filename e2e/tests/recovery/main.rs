//! The whole, once: a control-plane node whose static pods are real, broken in each way that Nagi knows, and brought back.
//!
//! All tests share one cluster, which the first of them starts; each leaves it healthy, or says that it did not. Those that
//! break it in other ways run with `NAGI_TEST_SOAK`, or when they are asked for by their names.

#![expect(
    clippy::disallowed_methods,
    reason = "a test program that knows what time it is, and is asked for more by its environment"
)]

mod causes;
mod decoys;
mod fill;
mod full;
mod history;
mod node;

use std::process::ExitCode;

use nagi_e2e::suite::{self, Needs, Test};

use node::World;

/// Set to anything: those too that break the node.
const SOAK: &str = "NAGI_TEST_SOAK";

/// Those that run always, in less than six minutes; of these two go by until a disk counts as relieved.
const SHORT: [&str; 3] = [
    "a_control_plane_of_static_pods_runs_pods_and_is_found_sound",
    "a_full_disk_that_took_the_api_server_down_is_freed_as_announced_and_the_cluster_is_back",
    "a_broken_cluster_leaves_nothing_on_the_machine",
];

const TESTS: [Test<World>; 8] = [
    Test {
        name: SHORT[0],
        needs: Needs::Namespaces,
        run: node::sound,
    },
    Test {
        name: SHORT[1],
        needs: Needs::Namespaces,
        run: full::disk,
    },
    Test {
        name: "etcd_above_its_quota_is_copied_compacted_and_takes_writes_again",
        needs: Needs::Namespaces,
        run: causes::etcd_quota,
    },
    Test {
        name: "an_expired_certificate_is_left_to_a_person_with_the_command",
        needs: Needs::Namespaces,
        run: causes::expired_certificate,
    },
    Test {
        name: "a_name_that_the_certificate_has_not_is_said_and_nothing_is_done_to_the_node",
        needs: Needs::Namespaces,
        run: causes::wrong_name,
    },
    Test {
        name: "a_node_without_inodes_comes_back_and_is_not_called_stable",
        needs: Needs::Namespaces,
        run: causes::no_inodes,
    },
    Test {
        name: "space_in_a_deleted_file_is_refused_with_the_process_that_holds_it",
        needs: Needs::Namespaces,
        run: causes::deleted_open,
    },
    // Nothing is tested behind it: the cluster is gone.
    Test {
        name: SHORT[2],
        needs: Needs::Namespaces,
        run: node::leaves_nothing,
    },
];

fn main() -> ExitCode {
    let is_asked = std::env::var_os(SOAK).is_some() || std::env::args().len() > 1;
    let tests: Vec<Test<World>> = TESTS
        .into_iter()
        .filter(|test| is_asked || SHORT.contains(&test.name))
        .collect();
    suite::run(&tests)
}
