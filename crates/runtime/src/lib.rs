//! What every process of Quiesce needs from its surroundings: telemetry, clock, signals, drain
