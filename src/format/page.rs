//! Tree pages: sorted entries, 32 KiB plain.

/// A decoded page.
pub struct Page;
