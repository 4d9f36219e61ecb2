//! The live mount as programs meet it: each test runs with the mount over its own source and beside it, and ends by
//! comparing the two trees.

mod contents;
mod identity;
mod lifetime;
mod names;
mod permissions;
