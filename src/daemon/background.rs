//! Goes into the background, and tells the command that was typed how that went.
//!
//! The process is forked before it has any thread or runtime; the child then opens the repository and mounts, and reports
//! through a pipe. The parent prints what it is told and exits when the mount answers, or with the child's exit code.

use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter, Write};

use daemonize::{Daemonize, Outcome};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Error;

/// One line through the pipe.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Message {
    /// Something to tell the person.
    Note(String),
    /// The mount answers.
    Ready,
    /// It will not come to be.
    Failed {
        /// One line.
        message: String,
        /// Exit code.
        exit: u8,
    },
}

/// How a process that is starting tells the person about it: through the pipe to the parent, or at once where it runs in
/// front.
pub struct Reporter {
    pipe: Option<PipeWriter>,
    front: fn(&str),
}

impl Reporter {
    /// For a process that stays in front: `note` prints a line.
    pub fn in_front(note: fn(&str)) -> Self {
        Self {
            pipe: None,
            front: note,
        }
    }

    /// Tells the person a line. Best effort: a parent that was killed cannot be told, and that must not stop the mount.
    pub fn note_best_effort(&mut self, text: &str) {
        match &self.pipe {
            None => (self.front)(text),
            Some(_) => self.send_best_effort(&Message::Note(text.to_owned())),
        }
    }

    /// The mount answers: the parent may go. What is noted from now on reaches nobody; it belongs into the log.
    pub fn ready(&mut self) {
        self.send_best_effort(&Message::Ready);
        self.pipe = None;
        self.front = |_| {};
    }

    fn failed(&mut self, message: String, exit: u8) {
        self.send_best_effort(&Message::Failed { message, exit });
    }

    fn send_best_effort(&mut self, message: &Message) {
        let Some(pipe) = &mut self.pipe else { return };
        // May hold a recovery key on its way to the terminal, so it is wiped.
        let Ok(text) = serde_json::to_string(message).map(Zeroizing::new) else {
            return;
        };
        let _ = writeln!(pipe, "{}", *text);
    }
}

/// What this process has become.
pub enum Side {
    /// The command that was typed; the background process has started, and the mount answers.
    Parent,
    /// The background process, whose work is done, or has failed and been reported.
    Child,
}

/// Forks; runs `body` in the background process, and waits in the other until that has called [`Reporter::ready`].
/// `note` prints a line in the parent; `describe` turns the child's error into a line and an exit code.
///
/// Must be called before any thread exists. Every path that `body` uses must be absolute: it runs in `/`.
pub fn run(
    note: fn(&str),
    describe: fn(&anyhow::Error) -> (String, u8),
    body: impl FnOnce(&mut Reporter) -> anyhow::Result<()>,
) -> anyhow::Result<Side> {
    let (reader, writer) = io::pipe().map_err(Error::io("make", "a pipe"))?;
    // No umask: the modes of files that programs create in the mount come with the programs' own umask applied.
    match Daemonize::new().umask(0).execute() {
        Outcome::Parent(Ok(_)) => {
            drop(writer);
            listen(reader, note)?;
            Ok(Side::Parent)
        }
        Outcome::Parent(Err(error)) => {
            Err(Error::Failed(format!("go into the background: {error}")).into())
        }
        Outcome::Child(started) => {
            drop(reader);
            let mut reporter = Reporter {
                pipe: Some(writer),
                front: note,
            };
            let ended = match started {
                Ok(_) => body(&mut reporter),
                Err(error) => Err(Error::Failed(format!("go into the background: {error}")).into()),
            };
            if let Err(error) = &ended {
                let (message, exit) = describe(error);
                match error.downcast_ref() {
                    Some(Error::Interrupted | Error::Terminated) => tracing::info!("{message}"),
                    _ => tracing::error!("{message}"),
                }
                reporter.failed(message, exit);
            }
            ended.map(|()| Side::Child)
        }
    }
}

/// Hears the child out.
fn listen(pipe: PipeReader, note: fn(&str)) -> Result<(), Error> {
    for line in BufReader::new(pipe).lines() {
        let line = Zeroizing::new(line.map_err(Error::io("read", "the background process"))?);
        match serde_json::from_str(&line) {
            Ok(Message::Note(text)) => note(&Zeroizing::new(text)),
            Ok(Message::Ready) => return Ok(()),
            Ok(Message::Failed { message, exit }) => {
                return Err(Error::Reported { message, exit });
            }
            Err(error) => {
                return Err(Error::Failed(format!(
                    "the background process spoke nonsense: {error}"
                )));
            }
        }
    }
    Err(Error::Failed(
        "the background process died before the mount answered; its log tells more (`rewindfs status`)"
            .into(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(messages: &[&str]) -> Result<(), Error> {
        let (reader, mut writer) = io::pipe().unwrap();
        for message in messages {
            writeln!(writer, "{message}").unwrap();
        }
        drop(writer);
        listen(reader, |_| {})
    }

    fn reporter() -> (PipeReader, Reporter) {
        let (reader, writer) = io::pipe().unwrap();
        let reporter = Reporter {
            pipe: Some(writer),
            front: |_| {},
        };
        (reader, reporter)
    }

    #[test]
    fn ready_ends_the_wait() {
        let (reader, mut reporter) = reporter();
        reporter.note_best_effort("two\nlines");
        reporter.ready();
        listen(reader, |text| assert_eq!(text, "two\nlines")).unwrap();
    }

    #[test]
    fn a_failure_keeps_its_words_and_its_code() {
        let (reader, mut reporter) = reporter();
        reporter.failed("wrong password".into(), 12);
        let Err(Error::Reported { message, exit }) = listen(reader, |_| {}) else {
            panic!("not reported");
        };
        assert_eq!((message.as_str(), exit), ("wrong password", 12));
    }

    #[test]
    fn death_and_nonsense_are_failures() {
        assert!(matches!(hear(&[]), Err(Error::Failed(_))));
        assert!(matches!(hear(&["{"]), Err(Error::Failed(_))));
        assert!(hear(&["\"ready\""]).is_ok());
    }

    #[test]
    fn a_parent_that_is_gone_stops_nothing() {
        let (reader, mut reporter) = reporter();
        drop(reader);
        reporter.note_best_effort("x");
        reporter.ready();
    }
}
