//! Asks for a password on the terminal.

use std::io::{self, IsTerminal};

use zeroize::Zeroizing;

use crate::config::Error;
use crate::store::url::Location;

/// What to do where nobody can be asked.
const NOWHERE: &str = "no password: set REWINDFS_PASSWORD_FILE, REWINDFS_PASSWORD_COMMAND or REWINDFS_PASSWORD, \
                       or run this on a terminal";

/// Asks once, for a repository that exists.
pub(crate) fn ask(location: &Location) -> anyhow::Result<Zeroizing<String>> {
    prompt(&format!("password (or recovery key) of {location}: "))
}

/// Asks twice, for a repository that is to be made.
pub(crate) fn choose(location: &Location) -> anyhow::Result<Zeroizing<String>> {
    let first = prompt(&format!("new password for {location}: "))?;
    let second = prompt("the same again: ")?;
    match *first == *second {
        true => Ok(first),
        false => Err(Error::Secret("the two passwords differ; nothing was made".into()).into()),
    }
}

fn prompt(question: &str) -> anyhow::Result<Zeroizing<String>> {
    if !io::stdin().is_terminal() {
        return Err(Error::Secret(NOWHERE.into()).into());
    }
    let typed = rpassword::prompt_password(question)
        .map(Zeroizing::new)
        .map_err(|error| Error::Secret(format!("{NOWHERE} ({error})")))?;
    match typed.is_empty() {
        false => Ok(typed),
        true => Err(Error::Secret("an empty password protects nothing; choose one".into()).into()),
    }
}
