//! Seccomp: profiles compiled to BPF decision trees.
