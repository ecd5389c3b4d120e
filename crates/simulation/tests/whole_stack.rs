//! Whole schedulers, agents and clients on simulated hosts.
