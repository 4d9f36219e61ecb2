//! Content-defined chunking with a gear table derived from a repository key.
