//! Slots and wrapped volume keys in the store.
