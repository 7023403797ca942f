//! Configuration files that a command names, and what is wrong with them.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use control_plane::rehearsal::Configuration;
use proto::v1::{Diagnostic, SourceFile};

use crate::diagnostic;

/// Why there is nothing to read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("cannot read {}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} holds no .yaml or .yml file", .0.display())]
    EmptyFolder(PathBuf),
    /// They are shown already.
    #[error("{0}")]
    Refused(&'static str),
}

/// The texts of all these files, of folders of them and of standard input, in this order.
pub(crate) fn read_all(paths: &[PathBuf]) -> Result<Vec<SourceFile>, SourceError> {
    let mut files = Vec::new();
    for path in paths {
        files.extend(read(path)?);
    }
    Ok(files)
}

/// Reads configuration, or shows everything that is wrong with it, and says `refused`.
pub(crate) fn configuration(paths: &[PathBuf], refused: &'static str) -> Result<Configuration, SourceError> {
    let files = read_all(paths)?;
    let texts = files.iter().map(|file| (&*file.name, &*file.text));
    Configuration::read(texts).map_err(|problems| {
        let problems: Vec<Diagnostic> = problems.iter().map(Diagnostic::from).collect();
        show(&problems, &files);
        SourceError::Refused(refused)
    })
}

/// Shows what is wrong with files, each fault with its line.
pub(crate) fn show(problems: &[Diagnostic], files: &[SourceFile]) {
    let styled = io::stderr().is_terminal();
    let texts: BTreeMap<&str, &str> = files.iter().map(|file| (&*file.name, &*file.text)).collect();
    for problem in problems {
        let text = texts.get(&*problem.file).copied();
        eprintln!("{}", diagnostic::render(problem, text, styled));
    }
}

/// A file's text, the texts of a folder's YAML files in the order of their names, or standard input.
fn read(path: &Path) -> Result<Vec<SourceFile>, SourceError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| SourceError::Unreadable { path, source }
    };
    if path == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map_err(unreadable(path))?;
        return Ok(vec![SourceFile {
            name: "<stdin>".to_owned(),
            text,
        }]);
    }
    if !path.is_dir() {
        let text = std::fs::read_to_string(path).map_err(unreadable(path))?;
        return Ok(vec![SourceFile {
            name: path.display().to_string(),
            text,
        }]);
    }
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable(path))? {
        let path = entry.map_err(unreadable(path))?.path();
        let is_yaml = path
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml");
        let is_hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if is_yaml && !is_hidden && path.is_file() {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(SourceError::EmptyFolder(path.to_owned()));
    }
    paths.sort();
    let mut files = Vec::with_capacity(paths.len());
    for path in &paths {
        files.extend(read(path)?);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_its_yaml_files_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["b.yml", "a.yaml", ".hidden.yaml", "notes.md"] {
            std::fs::write(folder.path().join(name), name).expect("written");
        }
        std::fs::create_dir(folder.path().join("c.yaml")).expect("a folder");
        let texts: Vec<String> = read(folder.path())
            .expect("read")
            .into_iter()
            .map(|file| file.text)
            .collect();
        assert_eq!(texts, ["a.yaml", "b.yml"]);
    }

    #[test]
    fn a_folder_without_yaml_and_a_missing_file_are_errors() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(matches!(read(folder.path()), Err(SourceError::EmptyFolder(_))));
        assert!(matches!(
            read(&folder.path().join("no")),
            Err(SourceError::Unreadable { .. })
        ));
    }
}
