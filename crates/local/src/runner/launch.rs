//! What a replica is started with: its environment, its port, its mark, its control group.

use std::collections::BTreeSet;

use nagi_core::id::NodeName;

use super::replica::Replica;
use super::{Runner, port};
use crate::engine::shared::Description;
use crate::shim::record::{Launch, REPLICA_VARIABLE};
use crate::store::random_id;
use crate::world::ReplicaId;

impl Runner {
    /// A new attempt of a replica. Makes its control group; everything else is made by the attempt.
    ///
    /// # Errors
    /// In words: no port is free, or the system has no random bytes.
    pub(super) fn launch(
        &self,
        id: &ReplicaId,
        node: &NodeName,
        of: &Description,
    ) -> Result<Launch, String> {
        let spec = &of.spec;
        let attempt = random_id().map_err(|error| error.to_string())?;
        let in_charge = self.shared.store.in_charge();
        let (namespace, name) = (&id.workload.namespace, &id.workload.name);
        let mark = format!(
            "{}/{namespace}/{name}/{}/{attempt}",
            in_charge.instance, id.number
        );
        let mut environment = self.environment.clone();
        environment.extend(spec.env.clone());
        environment.insert(REPLICA_VARIABLE.to_owned(), mark.clone());
        let port = if spec.port.is_some() {
            let promised: BTreeSet<u16> =
                self.replicas.values().filter_map(Replica::port).collect();
            let random = u64::from_str_radix(&attempt, 16).unwrap_or(0);
            let port = port::free(&promised, random).ok_or("no free port on 127.0.0.1")?;
            environment.insert("PORT".to_owned(), port.to_string());
            Some(port)
        } else {
            None
        };
        let group = self
            .group
            .as_ref()
            .and_then(|group| group.make_inside(&attempt));
        Ok(Launch {
            mark,
            digest: of.digest.to_string(),
            command: spec.command.clone(),
            environment,
            working_directory: spec.working_directory.clone(),
            port,
            node: node.to_string(),
            cpu_milli: spec.resources.cpu_milli,
            memory_bytes: spec.resources.memory_bytes,
            gpu: spec.resources.gpu,
            stop_grace_ms: u64::try_from(spec.stop_grace.as_millis()).unwrap_or(u64::MAX),
            control_group: group.map(|group| group.directory().to_path_buf()),
            engine_file: self.shared.store.engine_file(),
            generation: in_charge.generation,
            restarts: self.replicas.get(id).map_or(0, |replica| replica.restarts),
            attempt,
        })
    }
}
