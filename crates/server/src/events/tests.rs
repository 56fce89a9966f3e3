//! Events: differences, the ring, who may listen.
