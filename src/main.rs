//! The program: parses, runs, and turns the result into an exit code. Everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    rewindfs::cli::run()
}
