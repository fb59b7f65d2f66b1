//! Containers: configuration to spec, monitor, state.
