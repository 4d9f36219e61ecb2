//! The recovery key's text: forgiving in form, strict in content.

use super::*;

fn key() -> RecoveryKey {
    let mut bytes = [0; 32];
    for (n, byte) in (0..).zip(&mut bytes) {
        *byte = n * 7 + 3;
    }
    RecoveryKey(Zeroizing::new(bytes))
}

#[test]
fn reads_what_it_shows() {
    for key in [key(), RecoveryKey::random(), RecoveryKey::random()] {
        let text = key.to_text();
        assert_eq!(text.len(), 69);
        assert_eq!(text.split('-').count(), 14);
        let read = RecoveryKey::parse(&text).unwrap();
        assert_eq!(*read.0, *key.0);
    }
}

/// People write it down in their own way.
#[test]
fn case_dashes_spaces_and_lookalikes_do_not_matter() {
    let text = key().to_text();
    assert!(text.contains('0') && text.contains('1'), "{}", *text);
    let written = [
        text.to_lowercase(),
        text.replace('-', ""),
        text.replace('-', " \n"),
        format!("  {}\t", *text),
        text.replace('0', "O").replace('1', "l"),
        text.replace('0', "o").replace('1', "I"),
    ];
    for text in written {
        assert_eq!(*RecoveryKey::parse(&text).unwrap().0, *key().0, "{text}");
    }
}

#[test]
fn a_slip_of_the_pen_is_told() {
    let text = key().to_text();
    for at in 0..text.len() {
        let mut letters: Vec<char> = text.chars().collect();
        if letters[at] == '-' {
            continue;
        }
        letters[at] = if letters[at] == 'X' { 'Y' } else { 'X' };
        let wrong: String = letters.iter().collect();
        assert_eq!(
            RecoveryKey::parse(&wrong).unwrap_err(),
            RecoveryKeyError::Checksum
        );
        letters.remove(at);
        let short: String = letters.iter().collect();
        assert_eq!(
            RecoveryKey::parse(&short).unwrap_err(),
            RecoveryKeyError::Length(55)
        );
    }
    let long = format!("{}0", *text);
    assert_eq!(
        RecoveryKey::parse(&long).unwrap_err(),
        RecoveryKeyError::Length(57)
    );
    assert_eq!(
        RecoveryKey::parse("").unwrap_err(),
        RecoveryKeyError::Length(0)
    );
    for (text, character) in [("U", 'U'), ("0$", '$'), ("ſ", 'ſ'), ("é", 'é')] {
        assert_eq!(
            RecoveryKey::parse(text).unwrap_err(),
            RecoveryKeyError::Character(character)
        );
    }
}

#[test]
fn errors_do_not_repeat_the_key() {
    let text = key().to_text();
    let wrong = format!("{}7", &text[..text.len() - 1]);
    let message = RecoveryKey::parse(&wrong).unwrap_err().to_string();
    assert!(!message.contains(&text[..4]), "{message}");
}
