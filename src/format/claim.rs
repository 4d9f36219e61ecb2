//! Claims and leases.
