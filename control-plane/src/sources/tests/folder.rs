//! Reading and watching a folder, with real files.

use std::fs;
use std::time::Duration;

use super::*;

/// Waits for a change; a watcher that is deaf fails the test rather than hanging it.
async fn told(watcher: &mut Watcher) {
    let change = tokio::time::timeout(Duration::from_secs(20), watcher.changed()).await;
    change.expect("told in time").expect("still watching");
}

#[test]
fn yaml_files_are_read_in_order_and_others_left_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, text) in [
        ("b.yml", "b"),
        ("a.yaml", "a"),
        (".hidden.yaml", "h"),
        ("notes.txt", "n"),
    ] {
        fs::write(dir.path().join(name), text).expect("written");
    }
    fs::create_dir(dir.path().join("folder.yaml")).expect("made");
    let files = read_folder(dir.path()).expect("read");
    let texts: Vec<&str> = files.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(texts, ["a", "b"]);
    assert!(files[0].0.ends_with("a.yaml"));
}

#[test]
fn what_cannot_be_read_is_told() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("bytes.yaml"), b"a: 1\nb: \xff\n").expect("written");
    fs::write(dir.path().join("large.yaml"), vec![b'#'; MAX_FILE_BYTES + 1]).expect("written");
    let problems = read_folder(dir.path()).expect_err("refused");
    assert_eq!(
        (problems[0].line, problems[0].column, problems[0].message.as_str()),
        (2, 4, "is not UTF-8")
    );
    assert_eq!(problems[1].message, "the file is over 4194304 bytes");
    let missing = read_folder(&dir.path().join("none")).expect_err("refused");
    assert!(missing[0].message.contains("cannot be read"), "{missing:?}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_swapped_link_is_told_and_then_read() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name);
    for (version, text) in [("..1", "old"), ("..2", "new")] {
        fs::create_dir(at(version)).expect("made");
        fs::write(at(version).join("mesh.yaml"), text).expect("written");
    }
    symlink("..1", at("..data")).expect("linked");
    symlink("..data/mesh.yaml", at("mesh.yaml")).expect("linked");
    assert_eq!(read_folder(dir.path()).expect("read")[0].1, "old");
    let mut watcher = Watcher::start(dir.path(), Duration::from_millis(5)).expect("watching");
    symlink("..2", at("..tmp")).expect("linked");
    fs::rename(at("..tmp"), at("..data")).expect("swapped");
    told(&mut watcher).await;
    assert_eq!(read_folder(dir.path()).expect("read")[0].1, "new");
}

#[tokio::test]
async fn a_folder_that_is_made_again_is_watched_again() {
    let parent = tempfile::tempdir().expect("a folder");
    let dir = parent.path().join("mesh");
    fs::create_dir(&dir).expect("made");
    let mut watcher = Watcher::start(&dir, Duration::from_millis(5)).expect("watching");
    fs::remove_dir_all(&dir).expect("removed");
    told(&mut watcher).await;
    fs::create_dir(&dir).expect("made");
    told(&mut watcher).await;
    fs::write(dir.join("a.yaml"), "a").expect("written");
    told(&mut watcher).await;
}

#[tokio::test]
async fn reading_is_no_change() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("a.yaml"), "a").expect("written");
    let mut watcher = Watcher::start(dir.path(), Duration::from_millis(1)).expect("watching");
    read_folder(dir.path()).expect("read");
    let told = tokio::time::timeout(Duration::from_millis(100), watcher.changed()).await;
    assert!(told.is_err(), "reading was told as a change");
}
