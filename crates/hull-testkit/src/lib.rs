//! What tests share: bundles, root file systems, tiers, the probe that runs inside containers.
