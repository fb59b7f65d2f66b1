//! Process attributes: scheduler, I/O priority, personality, NUMA policy, keyrings.
