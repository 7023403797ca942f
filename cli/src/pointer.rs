//! The file by which `weft` in another terminal finds the running `weft up`.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where a running `weft up` is, and how to talk to it. Readable by its owner alone: it holds `key`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pointer {
    /// The process that wrote it; a pointer whose process is gone points nowhere.
    pub pid: i32,
    /// `name` of its up.yaml.
    pub name: String,
    /// The control plane's data folder, with the operator's credential.
    pub data: PathBuf,
    /// Where it answers about its traces.
    pub traces: SocketAddr,
    /// What it wants to see before it answers.
    pub key: String,
}

/// Takes the pointer file away when the `weft up` that wrote it ends.
#[derive(Debug)]
pub(crate) struct Published {
    path: PathBuf,
    pid: i32,
}

/// Writes the pointer to the first place of [`places`] that can be written.
pub(crate) fn publish(pointer: &Pointer, env: impl Fn(&str) -> Option<OsString>) -> io::Result<Published> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "neither XDG_RUNTIME_DIR nor HOME is set");
    for path in places(env) {
        match write_private(&path, pointer) {
            Ok(()) => {
                return Ok(Published {
                    path,
                    pid: pointer.pid,
                });
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// The pointer of a `weft up` that runs now, if there is one.
pub(crate) fn find(env: impl Fn(&str) -> Option<OsString>) -> Option<Pointer> {
    places(env)
        .iter()
        .filter_map(|path| read(path))
        .find(|pointer| is_running(pointer.pid))
}

/// Where the pointer may be: the user's runtime folder first, which ends with the login session, then the state folder.
pub(crate) fn places(env: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let folder = |name: &str| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = folder("XDG_STATE_HOME").or_else(|| folder("HOME").map(|home| home.join(".local/state")));
    [folder("XDG_RUNTIME_DIR"), state]
        .into_iter()
        .flatten()
        .map(|folder| folder.join("weft/up.json"))
        .collect()
}

fn read(path: &Path) -> Option<Pointer> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn is_running(pid: i32) -> bool {
    let Some(pid) = rustix::process::Pid::from_raw(pid) else {
        return false;
    };
    // EPERM: it runs, but belongs to somebody else.
    !matches!(
        rustix::process::test_kill_process(pid),
        Err(rustix::io::Errno::SRCH)
    )
}

fn write_private(path: &Path, pointer: &Pointer) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    // Written beside it and renamed, so that nobody reads half of it.
    let draft = path.with_extension(format!("{}.tmp", pointer.pid));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(&serde_json::to_vec_pretty(pointer)?)?;
    drop(file);
    fs::rename(&draft, path)
}

impl Drop for Published {
    fn drop(&mut self) {
        // Another `weft up` may have taken the place over meanwhile.
        if read(&self.path).is_some_and(|pointer| pointer.pid == self.pid) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointer(pid: i32) -> Pointer {
        Pointer {
            pid,
            name: "shop".to_owned(),
            data: "/data".into(),
            traces: "127.0.0.1:9".parse().expect("an address"),
            key: "k".to_owned(),
        }
    }

    fn own_pid() -> i32 {
        rustix::process::getpid().as_raw_nonzero().get()
    }

    #[test]
    fn what_is_published_is_found_until_it_is_dropped() {
        let folder = tempfile::tempdir().expect("a folder");
        let env = |name: &str| (name == "XDG_RUNTIME_DIR").then(|| folder.path().as_os_str().to_owned());
        let published = publish(&pointer(own_pid()), env).expect("written");
        assert_eq!(find(env), Some(pointer(own_pid())));
        drop(published);
        assert_eq!(find(env), None);
    }

    #[test]
    fn the_state_folder_is_used_where_there_is_no_runtime_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let env = |name: &str| match name {
            "XDG_RUNTIME_DIR" => Some("/proc/nowhere".into()),
            "HOME" => Some(folder.path().as_os_str().to_owned()),
            _ => None,
        };
        let _published = publish(&pointer(own_pid()), env).expect("written");
        assert!(folder.path().join(".local/state/weft/up.json").exists());
        assert!(find(env).is_some());
    }

    #[test]
    fn a_pointer_of_a_process_that_is_gone_points_nowhere() {
        let folder = tempfile::tempdir().expect("a folder");
        let env = |name: &str| (name == "XDG_RUNTIME_DIR").then(|| folder.path().as_os_str().to_owned());
        let mut child = std::process::Command::new("true").spawn().expect("runs");
        let pid = i32::try_from(child.id()).expect("a pid");
        child.wait().expect("ends");
        let _published = publish(&pointer(pid), env).expect("written");
        assert_eq!(find(env), None);
    }

    #[test]
    fn relative_folders_are_ignored() {
        let env = |name: &str| (name == "XDG_STATE_HOME").then(|| "relative".into());
        assert_eq!(places(env), Vec::<PathBuf>::new());
    }
}
