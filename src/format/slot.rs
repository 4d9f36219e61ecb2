//! Key slots and wrapped volume keys.
