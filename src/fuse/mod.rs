//! What both FUSE fronts share.
