//! Both ends of the control socket, over a real socket.

use super::*;

/// Answers without a mount; a sync never ends.
struct Fake;

#[async_trait]
impl Live for Fake {
    async fn answer(&self, request: Request) -> Answer {
        match request {
            Request::Status => Answer::Status(Box::new(Status {
                pid: 17,
                ..Status::default()
            })),
            Request::Snapshot { name } => Answer::Snapshot(name),
            Request::Sync { .. } => std::future::pending().await,
            Request::Stop { .. } => Answer::Failed {
                message: "not now".into(),
                exit: 5,
            },
            Request::HandOver => Answer::Done,
        }
    }
}

struct Running {
    dir: tempfile::TempDir,
    _ending: oneshot::Sender<()>,
    _runtime: tokio::runtime::Runtime,
}

fn start() -> Running {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = {
        let _inside = runtime.enter();
        Server::bind(dir.path()).unwrap()
    };
    let (ending, ended) = oneshot::channel();
    runtime.spawn(server.serve(Arc::new(Fake), ended));
    Running {
        dir,
        _ending: ending,
        _runtime: runtime,
    }
}

impl Running {
    fn ask(&self, request: &Request) -> Result<Answer, Error> {
        Client::connect(self.dir.path())?.ask(request, Some(STATUS_WAIT_MAX))
    }
}

#[test]
fn questions_are_answered() {
    let running = start();
    let mut client = Client::connect(running.dir.path()).unwrap();
    assert_eq!(client.status().unwrap().pid, 17);
    let named = Request::Snapshot { name: "x".into() };
    assert_eq!(running.ask(&named).unwrap(), Answer::Snapshot("x".into()));
    assert_eq!(running.ask(&Request::HandOver).unwrap(), Answer::Done);
    let refused = running.ask(&Request::Stop { publish: true }).unwrap_err();
    assert!(matches!(refused, Error::Reported { exit: 5, .. }));
}

#[test]
fn one_that_waits_keeps_nobody_else_waiting() {
    let running = start();
    let waiting: Vec<_> = (0..CONNECTIONS_MAX - 1)
        .map(|_| {
            let mut client = Client::connect(running.dir.path()).unwrap();
            let endless = Request::Sync { timeout_ms: None };
            let timed_out = client.ask(&endless, Some(Duration::from_millis(20)));
            assert!(timed_out.is_err());
            client
        })
        .collect();
    assert_eq!(running.ask(&Request::HandOver).unwrap(), Answer::Done);
    drop(waiting);
}

#[test]
fn nonsense_gets_an_error_and_harms_nobody() {
    let running = start();
    for text in ["\n", "{}\n", "{\"do\":\"explode\"}\n", "\0\0\n"] {
        let mut client = Client::connect(running.dir.path()).unwrap();
        client.stream.write_all(text.as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(&client.stream).read_line(&mut line).unwrap();
        assert!(line.contains("not understood"), "{text:?}: {line}");
    }
    let mut client = Client::connect(running.dir.path()).unwrap();
    // The server stops reading before all of this is written, so writing may fail.
    let _ = client
        .stream
        .write_all(&vec![b'x'; 2 * LINE_LEN_MAX as usize]);
    assert_eq!(running.ask(&Request::HandOver).unwrap(), Answer::Done);
}

#[test]
fn the_socket_is_private_replaces_a_dead_one_and_goes_with_its_server() {
    let dir = tempfile::tempdir().unwrap();
    // Deeper than a socket's path may be.
    let deep = dir.path().join("d".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    std::fs::write(deep.join(SOCKET), "left behind").unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let server = Server::bind(&deep).unwrap();
    let mode = deep.join(SOCKET).metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(server);
    assert!(!deep.join(SOCKET).exists());
    assert!(Client::connect(&deep).is_err());
}

/// Answers when it is told to.
struct Slow(tokio::sync::Notify);

#[async_trait]
impl Live for Slow {
    async fn answer(&self, _: Request) -> Answer {
        self.0.notified().await;
        Answer::Done
    }
}

#[test]
fn an_answer_under_way_is_written_before_the_end() {
    // `umount` was told that the background process had died, because that ended before it had written its answer.
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let slow = Arc::new(Slow(tokio::sync::Notify::new()));
    let (ending, ended) = oneshot::channel();
    let server = {
        let _inside = runtime.enter();
        Server::bind(dir.path()).unwrap()
    };
    let serving = runtime.spawn(server.serve(slow.clone(), ended));
    let mut client = Client::connect(dir.path()).unwrap();
    let asking = std::thread::spawn(move || client.ask(&Request::HandOver, None));
    slow.0.notify_one();
    let answered = asking.join().unwrap().unwrap();
    drop(ending);
    runtime.block_on(serving).unwrap();
    assert_eq!(answered, Answer::Done);
}
