//! Metric names and counters.
