//! A folder of YAML: reads it whole within limits, and tells when to read it again.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::{Diagnostic, MAX_FILE_BYTES};

/// Most YAML files of one folder.
pub const MAX_FILES: usize = 1000;
/// Largest sum of all files of one folder, in bytes.
pub const MAX_FOLDER_BYTES: usize = 64 * 1024 * 1024;
/// How long a folder is left to settle after a change before it is told.
pub const DEBOUNCE: Duration = Duration::from_millis(100);

/// Reads all `*.yaml` and `*.yml` of a folder, sorted by name: (path, text). Sub-folders and hidden files are
/// left out; links are followed. Blocks on the file system.
///
/// # Errors
/// All files that cannot be read, are too large or are not UTF-8, and limits of the folder that are passed.
pub fn read_folder(dir: &Path) -> Result<Vec<(String, String)>, Vec<Diagnostic>> {
    let unreadable = |error: &io::Error| vec![of_path(dir, format!("the folder cannot be read: {error}"))];
    let paths = yaml_files(dir).map_err(|error| unreadable(&error))?;
    if paths.len() > MAX_FILES {
        let why = format!(
            "the folder has {} YAML files, which is over {MAX_FILES}",
            paths.len()
        );
        return Err(vec![of_path(dir, why)]);
    }
    let (mut files, mut problems, mut total) = (Vec::new(), Vec::new(), 0);
    for path in paths {
        match read_file(&path) {
            Ok(text) => {
                total += text.len();
                files.push((path.display().to_string(), text));
            }
            Err(problem) => problems.push(problem),
        }
        if total > MAX_FOLDER_BYTES {
            problems.push(of_path(
                dir,
                format!("the folder's YAML is over {MAX_FOLDER_BYTES} bytes"),
            ));
            break;
        }
    }
    if problems.is_empty() {
        Ok(files)
    } else {
        Err(problems)
    }
}

fn yaml_files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let is_yaml = matches!(path.extension().and_then(OsStr::to_str), Some("yaml" | "yml"));
        let is_hidden = path
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        // A link to nowhere is kept, so that reading it tells of it.
        let is_folder = fs::metadata(&path).is_ok_and(|metadata| metadata.is_dir());
        if is_yaml && !is_hidden && !is_folder {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn read_file(path: &Path) -> Result<String, Diagnostic> {
    let unreadable = |error: io::Error| of_path(path, format!("the file cannot be read: {error}"));
    // A pipe would block its reader for ever.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(of_path(path, "is not a file"));
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_FILE_BYTES)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    File::open(path)
        .map_err(unreadable)?
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() > MAX_FILE_BYTES {
        return Err(of_path(path, format!("the file is over {MAX_FILE_BYTES} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error
            .as_bytes()
            .get(..error.utf8_error().valid_up_to())
            .unwrap_or_default();
        let before = String::from_utf8_lossy(valid);
        let last_line = before.rsplit('\n').next().unwrap_or_default();
        let from_one = |count: usize| u32::try_from(count).unwrap_or(u32::MAX).saturating_add(1);
        Diagnostic {
            line: from_one(before.matches('\n').count()),
            column: from_one(last_line.chars().count()),
            ..of_path(path, "is not UTF-8")
        }
    })
}

fn of_path(path: &Path, why: impl Into<String>) -> Diagnostic {
    Diagnostic::of_file(&path.display().to_string(), why)
}

/// A folder cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch {}", path.display())]
pub struct WatchError {
    pub path: PathBuf,
    #[source]
    pub source: notify::Error,
}

/// Tells when a folder has changed, until it is dropped. Changes that follow each other closely are told once.
#[derive(Debug)]
pub struct Watcher {
    changed: mpsc::Receiver<()>,
}

impl Watcher {
    /// Watches `dir`, which exists, and everything in it; also its being replaced, since that is how a mounted
    /// ConfigMap changes. Must be called within a tokio runtime.
    pub fn start(dir: &Path, debounce: Duration) -> Result<Self, WatchError> {
        let failed = |source| WatchError {
            path: dir.to_owned(),
            source,
        };
        let dir = fs::canonicalize(dir).map_err(|error| failed(notify::Error::io(error)))?;
        let (touch, touched) = mpsc::channel(1);
        let watched = dir.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // A full channel already holds the news; a closed one has nobody to tell.
            if concerns(&watched, &event) {
                let _: Result<(), TrySendError<()>> = touch.try_send(());
            }
        })
        .map_err(failed)?;
        watcher.watch(&dir, RecursiveMode::Recursive).map_err(failed)?;
        if let Some(parent) = dir.parent() {
            watcher
                .watch(parent, RecursiveMode::NonRecursive)
                .map_err(failed)?;
        }
        let (tell, changed) = mpsc::channel(1);
        tokio::spawn(settle(watcher, dir, debounce, touched, tell));
        Ok(Self { changed })
    }

    /// Waits for the next change. `None` if watching has ended.
    pub async fn changed(&mut self) -> Option<()> {
        self.changed.recv().await
    }
}

/// Reading a folder is an event too, which must not lead to reading it again.
fn concerns(dir: &Path, event: &notify::Result<notify::Event>) -> bool {
    let Ok(event) = event else { return true };
    let only_read = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
        EventKind::Access(_) => true,
        _ => false,
    };
    let inside = event.paths.is_empty() || event.paths.iter().any(|path| path.starts_with(dir));
    !only_read && inside
}

async fn settle(
    mut watcher: notify::RecommendedWatcher,
    dir: PathBuf,
    debounce: Duration,
    mut touched: mpsc::Receiver<()>,
    tell: mpsc::Sender<()>,
) {
    loop {
        let touch = tokio::select! {
            () = tell.closed() => None,
            touch = touched.recv() => touch,
        };
        if touch.is_none() {
            return;
        }
        tokio::time::sleep(debounce).await;
        // A folder that was removed and made again is another one to the kernel. While there is none, the
        // parent's watch goes on.
        let _: notify::Result<()> = watcher.unwatch(&dir);
        if let Err(error) = watcher.watch(&dir, RecursiveMode::Recursive) {
            tracing::debug!(dir = %dir.display(), %error, "the configuration folder is gone");
        }
        // What happened up to here is in what will be read.
        while touched.try_recv().is_ok() {}
        let _: Result<(), TrySendError<()>> = tell.try_send(());
    }
}
