//! Writing a file as a whole. While it is written, and after a failure, for example of a full disk, the file has its old
//! content.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::Path;
use std::process;

use jiff::Timestamp;

/// Writes a file, and creates it if it does not exist.
///
/// A pipe or a device is written in place. So is a file that cannot be replaced: the person may create no file in its folder,
/// may not give the new file the old owner and group, or it is a mount.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let is_replaceable = match path.metadata() {
        Ok(existing) => existing.is_file(),
        // A link to a file that does not exist yet stays a link.
        Err(_) => !path.is_symlink(),
    };
    if !is_replaceable {
        return fs::write(path, content);
    }
    match replace(path, |file| file.write_all(content)) {
        Err(error) if is_irreplaceable(&error) => fs::write(path, content),
        replaced => replaced,
    }
}

fn is_irreplaceable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        // The last one: the owner or the group does not exist in the user namespace of a container.
        ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::ResourceBusy
            | ErrorKind::InvalidInput
    )
}

/// Replaces a file by one that `write` has written, or creates it.
fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    // This fails if the person may only read the file. A rename would replace such a file nevertheless.
    let existing = match OpenOptions::new().write(true).open(path) {
        Ok(file) => Some(file.metadata()?),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    // A link stays, and the file that it names is replaced.
    let target = if existing.is_some() { path.canonicalize()? } else { path.to_owned() };
    // Without the name of the file, which may be as long as a name can be.
    let name = format!(".stream-encryption-{}-{}.tmp", process::id(), Timestamp::now().as_nanosecond());
    let temporary = target.with_file_name(name);
    let mut file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
    let finish = || {
        if let Some(existing) = &existing {
            keep_owner_and_permissions(&file, existing)?;
        }
        write(&mut file)?;
        if existing.is_some() {
            // The old content is given up only when the new one is on the disk.
            file.sync_all()?;
        }
        fs::rename(&temporary, &target)
    };
    let finished = finish();
    if finished.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    finished
}

/// Gives the new file the owner, the group and the permissions of the existing one. Fails if the person may not: with another
/// group, the old permissions would let other people read the file.
fn keep_owner_and_permissions(file: &File, existing: &Metadata) -> io::Result<()> {
    let created = file.metadata()?;
    // The owner is last: a person may not change a file of somebody else.
    if created.gid() != existing.gid() {
        fchown(file, None, Some(existing.gid()))?;
    }
    if created.uid() != existing.uid() {
        fchown(file, Some(existing.uid()), None)?;
    }
    file.set_permissions(existing.permissions())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn failed_write_keeps_the_old_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.yaml");
        for old in [None, Some("old")] {
            if let Some(old) = old {
                fs::write(&path, old).unwrap();
            }
            let error = replace(&path, |file| {
                file.write_all(b"half of the new content")?;
                Err(ErrorKind::StorageFull.into())
            });
            assert_eq!(error.unwrap_err().kind(), ErrorKind::StorageFull);
            assert_eq!(fs::read_to_string(&path).ok().as_deref(), old);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), usize::from(old.is_some()));
        }
    }

    #[test]
    fn replaced_file_keeps_its_link_and_its_permissions() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("report"), "old").unwrap();
        fs::set_permissions(path("report"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::hard_link(path("report"), path("earlier")).unwrap();
        symlink("report", path("latest")).unwrap();
        write(&path("latest"), b"new").unwrap();
        assert_eq!(fs::read_link(path("latest")).unwrap(), Path::new("report"));
        assert_eq!(fs::read_to_string(path("report")).unwrap(), "new");
        assert_eq!(fs::metadata(path("report")).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_to_string(path("earlier")).unwrap(), "old", "the old file was not written");
        symlink("next", path("link")).unwrap();
        write(&path("link"), b"new").unwrap();
        assert_eq!(fs::read_to_string(path("next")).unwrap(), "new");
    }
}
