//! What a live mount asks of its store, counted at the server: nothing while nothing changes, little for each seal, and what `status`
//! says it was. And that it goes on with new keys when the old ones are withdrawn.

use std::fs;
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::Value;

use crate::s3_server::{ACCESS_KEY, S3Server, SECRET_KEY};
use crate::world::{World, can_mount};

/// For so long an idle mount is watched: thirty of the intervals at which it seals.
const WATCHED: Duration = Duration::from_secs(3);

/// When a mount that has nothing to do, or something to tell, must say so, however busy the machine.
const IDLE_MAX: Duration = Duration::from_secs(60);

fn sync(world: &World) {
    world.run(["sync", world.source().to_str().unwrap()]);
}

fn status(world: &World) -> Value {
    let text = world.run(["status", world.source().to_str().unwrap(), "--json"]);
    serde_json::from_str(&text).unwrap()
}

fn snapshots(world: &World) -> u64 {
    let text = world.run(["snapshots", "--json"]);
    let listed: Vec<Value> = serde_json::from_str(&text).unwrap();
    listed.len() as u64
}

#[test]
fn an_idle_mount_asks_for_nothing_but_its_lease() {
    if !can_mount("an_idle_mount_asks_for_nothing_but_its_lease") {
        return;
    }
    let server = S3Server::start("bucket");
    let world = World::on_s3(&server, &server.location("p"));
    world.init();
    let before = server.requests();
    world.mount(&["--interval", "100ms"]);
    fs::write(world.source().join("a"), "a").unwrap();
    sync(&world);
    let began = Instant::now();
    while status(&world)["phase"] != "idle" {
        assert!(began.elapsed() < IDLE_MAX, "{}", status(&world));
    }

    let (began, idle_since) = (Instant::now(), server.requests());
    while began.elapsed() < WATCHED {
        status(&world);
    }
    let asked = server.requests() - idle_since;
    // A lease that is renewed just then: read, written, and proven.
    assert!(asked <= 3, "{asked} requests while nothing happened");

    let told = &status(&world)["requests"];
    let kinds = ["put", "list", "get", "head", "delete"];
    let count = |kind: &str| told[kind].as_u64().unwrap();
    let sum: u64 = kinds.iter().map(|kind| count(kind)).sum();
    assert_eq!(sum, server.requests() - before, "{told}");
    assert_eq!(count("delete"), 0);
    assert!(told["sent_bytes"].as_u64().unwrap() > 0, "{told}");
    assert!(told["seconds"].as_f64().unwrap() >= 3.0, "{told}");
    // Neither is this AWS, nor has it been watched for long enough.
    assert_eq!(told["usd_per_month"], Value::Null);
    world.unmount(&world.source());
}

#[test]
fn a_seal_takes_less_than_three_puts() {
    if !can_mount("a_seal_takes_less_than_three_puts") {
        return;
    }
    let server = S3Server::start("bucket");
    let world = World::on_s3(&server, &server.location("p"));
    world.init();
    world.mount(&["--interval", "100ms"]);
    fs::write(world.source().join("first"), "x").unwrap();
    sync(&world);
    let lists = || status(&world)["requests"]["list"].as_u64().unwrap();
    let listed = lists();
    let (seals, puts) = (snapshots(&world), server.requests_of(&Method::PUT));
    for round in 0..8_u8 {
        let place = world.source().join(format!("file-{round}"));
        fs::write(place, vec![round; 300_000]).unwrap();
        fs::write(world.source().join("again"), [round; 100]).unwrap();
        sync(&world);
    }
    let seals = snapshots(&world) - seals;
    let puts = server.requests_of(&Method::PUT) - puts;
    assert!(seals >= 8, "{seals}");
    assert!(puts < 3 * seals, "{puts} PUTs for {seals} seals");
    // As dear as PUTs. One for each time that the lease is renewed, which on a slow machine it is.
    let listed = lists() - listed;
    assert!(2 * listed < seals, "{listed} LISTs for {seals} seals");
    world.unmount(&world.source());
}

#[test]
fn keys_that_are_replaced_while_it_runs_are_taken_up() {
    if !can_mount("keys_that_are_replaced_while_it_runs_are_taken_up") {
        return;
    }
    let server = S3Server::start("bucket");
    let mut world = World::on_s3(&server, &server.location("p"));
    let file = world.path("credentials");
    let hand_out = |access: &str, secret: &str| {
        let text =
            format!("[work]\naws_access_key_id = {access}\naws_secret_access_key = {secret}\n");
        fs::write(&file, text).unwrap();
    };
    hand_out(ACCESS_KEY, SECRET_KEY);
    world.set_environment(vec![
        ("AWS_SHARED_CREDENTIALS_FILE", file.display().to_string()),
        ("AWS_PROFILE", "work".into()),
        ("AWS_EC2_METADATA_DISABLED", "true".into()),
    ]);
    world.init();
    world.mount(&["--interval", "100ms"]);
    let write = |text: &str| fs::write(world.source().join("a"), text).unwrap();
    write("with the first keys");
    sync(&world);

    // New ones lie ready when the old ones are withdrawn: nobody notices.
    hand_out("AKIDSECOND", "second");
    server.change_keys("AKIDSECOND", "second");
    write("with the second keys");
    sync(&world);
    assert_eq!(status(&world)["last_error"], Value::Null);

    // They come late: it is told, and goes on by itself when they are there.
    server.change_keys("AKIDTHIRD", "third");
    write("with the third keys");
    let source = world.source();
    let began = Instant::now();
    loop {
        let refused = world.try_run(["sync", source.to_str().unwrap(), "--timeout", "2s"]);
        assert_eq!(refused.status.code(), Some(5), "{refused:?}");
        let told = String::from_utf8_lossy(&refused.stderr);
        // Before the server has refused it there is nothing to tell.
        if told.contains("check the access key") {
            break;
        }
        assert!(began.elapsed() < IDLE_MAX, "{told}");
    }
    hand_out("AKIDTHIRD", "third");
    sync(&world);
    let began = Instant::now();
    while status(&world)["last_error"] != Value::Null {
        assert!(began.elapsed() < IDLE_MAX, "{}", status(&world));
    }
    world.unmount(&world.source());
}
