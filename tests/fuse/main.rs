//! Real kernel mounts. Needs `/dev/fuse` and the right to mount; without them each test says so aloud and counts as skipped.

mod live;
mod scene;
