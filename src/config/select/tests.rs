//! What a person means, from few words.

use super::*;
use crate::clock::Stamp;
use crate::config::state::{MountRecord, State};

fn known(number: u8, repo: &str, source: &str, mountpoint: &str) -> Known {
    Known {
        state: State::new(Path::new("/state")).volume(VolumeId([number; 16])),
        record: MountRecord::new(
            repo.into(),
            format!("v{number}"),
            source.into(),
            mountpoint.into(),
            Stamp(0),
        ),
    }
}

fn id(number: u8) -> VolumeRef {
    VolumeRef::Id(VolumeId([number; 16]))
}

const ELSEWHERE: &str = "/elsewhere";

fn select(wanted: &Wanted, known: &[Known], here: &str) -> Result<Selected, Error> {
    wanted.select(known, Path::new(here))
}

#[test]
fn a_path_inside_a_source_or_its_mount_names_the_volume() {
    let known = [
        known(1, "/r", "/h/docs", "/mnt/docs"),
        known(2, "/r", "/h/docs/inner", "/h/docs/inner"),
    ];
    for (path, volume, below) in [
        ("/h/docs/a/b", 1, "/a/b"),
        ("/mnt/docs", 1, "/"),
        ("/h/docs/inner/x", 2, "/x"),
    ] {
        let path = Path::new(path);
        let (selected, inside) = Wanted::default()
            .select_path(&known, path, path, Path::new(ELSEWHERE))
            .unwrap();
        assert_eq!(selected.volume, id(volume));
        assert_eq!(inside.to_string(), below);
    }
}

#[test]
fn a_path_elsewhere_counts_from_the_root_of_the_volume() {
    let known = [known(1, "/r", "/h/docs", "/h/docs")];
    let (selected, inside) = Wanted::default()
        .select_path(
            &known,
            Path::new("a/b"),
            Path::new("/elsewhere/a/b"),
            Path::new(ELSEWHERE),
        )
        .unwrap();
    assert_eq!(selected.volume, id(1));
    assert_eq!(inside.to_string(), "/a/b");
}

#[test]
fn a_named_repository_hides_mounts_of_others() {
    let known = [known(1, "/r", "/h/docs", "/h/docs")];
    let wanted = Wanted {
        repo: Some("/other".into()),
        ..Default::default()
    };
    let selected = select(&wanted, &known, "/h/docs").unwrap();
    assert_eq!(
        selected,
        Selected {
            repo: "/other".into(),
            volume: VolumeRef::Only
        }
    );
    assert!(wanted.exactly(&known, Path::new("/h/docs")).is_none());
}

#[test]
fn the_only_one_known_needs_no_name_and_several_do() {
    let one = known(1, "/r", "/a", "/a");
    let same = known(2, "/r", "/b", "/b");
    let other = known(3, "/q", "/c", "/c");
    let wanted = Wanted::default();
    assert_eq!(
        select(&wanted, std::slice::from_ref(&one), ELSEWHERE)
            .unwrap()
            .volume,
        id(1)
    );
    let both = select(&wanted, &[one.clone(), same], ELSEWHERE).unwrap();
    assert_eq!((both.repo.as_str(), both.volume), ("/r", VolumeRef::Only));
    let several = select(&wanted, &[one, other], ELSEWHERE).unwrap_err();
    assert!(several.to_string().contains("--repo"), "{several}");
}

#[test]
fn here_wins_over_the_file_and_the_file_over_the_default() {
    let known = [known(1, "/r", "/a", "/a")];
    let wanted = Wanted {
        configured: Some(("/file".into(), Some("vol".into()))),
        default: Some("/default".into()),
        ..Default::default()
    };
    assert_eq!(select(&wanted, &known, "/a/b").unwrap().repo, "/r");
    let from_file = select(&wanted, &known, ELSEWHERE).unwrap();
    assert_eq!(from_file.volume, VolumeRef::Name("vol".into()));
    let wanted = Wanted {
        configured: None,
        ..wanted
    };
    assert_eq!(select(&wanted, &[], ELSEWHERE).unwrap().repo, "/default");
    let nothing = select(&Wanted::default(), &[], ELSEWHERE).unwrap_err();
    assert!(matches!(nothing, Error::NoRepository(_)));
}

#[test]
fn paths_that_climb_are_refused() {
    assert!(repo_path(Path::new("a/../b")).is_err());
}
