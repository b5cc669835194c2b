//! Opening files safely: regular files only, no links followed, nothing that can block, nobody else's folder.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Opens a regular file with `options`; a new file gets mode 0600.
///
/// # Errors
/// What the system says, with the file's name; [`io::ErrorKind::InvalidInput`] if it is not a regular file. That is
/// checked before opening, because opening a device may have effects, and after, because the file may have been replaced.
pub fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    match fs::symlink_metadata(path) {
        Ok(found) => regular(path, &found)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(named(path, &error)),
    }
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = options.mode(0o600).custom_flags(flags).open(path).map_err(|error| named(path, &error))?;
    regular(path, &file.metadata().map_err(|error| named(path, &error))?)?;
    Ok(file)
}

/// An error unless this is a regular file.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`], with the name and what it is instead.
pub fn regular(path: &Path, found: &fs::Metadata) -> io::Result<()> {
    let kind = found.file_type();
    let is = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_symlink() => "a symbolic link",
        () if kind.is_dir() => "a folder",
        () if kind.is_fifo() => "a pipe",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} is {is}, not a regular file", path.display())))
}

/// The same error with the file's name, unless it is a shortage, which has nothing to do with the file.
pub fn named(path: &Path, error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) if is_shortage(error) => io::Error::from_raw_os_error(code),
        _ => io::Error::new(error.kind(), format!("{}: {error}", path.display())),
    }
}

/// Whether the process ran out of open files or memory, so that nothing need be wrong with the file.
pub fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
}

/// Whether anything has this name, even a dangling link.
///
/// # Errors
/// What the system says.
pub fn exists(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(named(path, &error)),
    }
}

/// Creates a folder that only this user may enter, unless it exists. An existing one may be open to everybody, as
/// Kubernetes' `emptyDir` volumes are.
///
/// # Errors
/// What the system says.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Checks that this process may create files in a folder, and that the folder belongs to its user or to root. `probe`
/// is the name of a file that nobody else uses.
///
/// # Errors
/// What the system says, or whose the folder is.
pub fn probe_folder(folder: &Path, probe: &Path) -> io::Result<()> {
    let file = open(probe, OpenOptions::new().write(true).create_new(true))?;
    // The owner of a new file is the user that the file system sees this process as.
    let user = file.metadata()?.uid();
    fs::remove_file(probe)?;
    let owner = fs::metadata(folder)?.uid();
    if owner != user && owner != 0 {
        let text = format!("it belongs to user {owner}, and this process runs as user {user}");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(())
}

/// Syncs a folder's entries.
///
/// # Errors
/// What the system says.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| named(folder, &error))
}
