//! Unpacks an archive of etcd, kube-apiserver and kubectl. Never writes a file of another name, or outside
//! the given folder, or more bytes than the limit.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path};

use anyhow::{Context as _, ensure};
use flate2::read::GzDecoder;

use super::PROGRAMS;

/// The folder in the archive that has the programs.
const FOLDER: &str = "controller-tools/envtest";

/// Limits what an archive unpacks to; a real one unpacks to 200 MB.
pub(super) const LIMIT: u64 = 1 << 30;

/// Unpacks the programs of a `.tar.gz` into `folder`, which is empty. Passes over other members, but refuses
/// an archive with a path that leads out of it.
pub(super) fn unpack(archive: impl Read, folder: &Path, limit: u64) -> anyhow::Result<()> {
    let mut archive = tar::Archive::new(GzDecoder::new(archive).take(limit));
    for member in archive.entries()? {
        let mut member = member.context("the archive is damaged or too large")?;
        let path = member.path()?.into_owned();
        let inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        ensure!(path.components().all(inside), "the archive has the member {}", path.display());
        let path = path.strip_prefix(".").unwrap_or(&path);
        let Some(name) = PROGRAMS.iter().find(|name| path == Path::new(FOLDER).join(name)) else { continue };
        ensure!(member.header().entry_type().is_file(), "{name} is not a plain file in the archive");
        // The mode is ours, not the archive's. An existing file is an error: two members of one name.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o755).open(folder.join(name))?;
        let written = io::copy(&mut member, &mut file).with_context(|| format!("cannot unpack {name}"))?;
        ensure!(written == member.size(), "the archive ends within {name}, or is too large");
    }
    for name in PROGRAMS {
        ensure!(folder.join(name).is_file(), "the archive has no {name}");
    }
    Ok(())
}

/// Makes a `.tar.gz` of files, by their paths. Unlike a real `tar`, it takes any path.
#[cfg(test)]
pub(super) fn pack(members: &[(&str, &str)]) -> Vec<u8> {
    let compressed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut archive = tar::Builder::new(compressed);
    for (path, content) in members {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        header.set_cksum();
        archive.append(&header, content.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const ETCD: (&str, &str) = ("controller-tools/envtest/etcd", "etcd's content");
    const APISERVER: (&str, &str) = ("controller-tools/envtest/kube-apiserver", "");
    const KUBECTL: (&str, &str) = ("./controller-tools/envtest/kubectl", "");

    /// Unpacks an archive in `inner` of a new folder, and returns the new folder with the outcome.
    fn unpacked(archive: &[u8], limit: u64) -> (tempfile::TempDir, Result<(), String>) {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("inner");
        fs::create_dir(&folder).unwrap();
        let result = unpack(archive, &folder, limit).map_err(|error| format!("{error:#}"));
        (root, result)
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn programs_are_unpacked_as_executables_and_nothing_else() {
        let other = [("README", "read me"), ("controller-tools/envtest/more/etcd", ""), ("etcd", "another")];
        let (root, result) = unpacked(&pack(&[&[ETCD, APISERVER, KUBECTL], &other[..]].concat()), LIMIT);
        assert_eq!(result, Ok(()));
        let folder = root.path().join("inner");
        assert_eq!(names(&folder), PROGRAMS);
        assert_eq!(fs::read_to_string(folder.join("etcd")).unwrap(), ETCD.1);
        for name in PROGRAMS {
            assert_eq!(fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o700, 0o700);
        }
    }

    #[test]
    fn member_outside_folder_is_rejected_and_not_written() {
        for path in ["../outside", "controller-tools/envtest/../../../outside", "/tmp/outside"] {
            let (root, result) = unpacked(&pack(&[(path, ""), ETCD, APISERVER, KUBECTL]), LIMIT);
            assert!(result.unwrap_err().contains(path));
            assert_eq!(names(root.path()), ["inner"]);
        }
    }

    #[test]
    fn archive_without_kubectl_is_rejected() {
        let (_root, result) = unpacked(&pack(&[ETCD, APISERVER]), LIMIT);
        assert_eq!(result.unwrap_err(), "the archive has no kubectl");
    }

    #[test]
    fn program_that_is_a_link_or_comes_twice_is_rejected() {
        let (_root, result) = unpacked(&pack(&[ETCD, ETCD, APISERVER, KUBECTL]), LIMIT);
        assert!(result.unwrap_err().contains("exists"));

        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        let mut archive =
            tar::Builder::new(flate2::write::GzEncoder::new(vec![], flate2::Compression::fast()));
        archive.append_link(&mut link, ETCD.0, "/bin/sh").unwrap();
        let (_root, result) = unpacked(&archive.into_inner().unwrap().finish().unwrap(), LIMIT);
        assert!(result.unwrap_err().contains("not a plain file"));
    }

    #[test]
    fn archive_that_is_damaged_or_above_limit_is_rejected() {
        let large = "x".repeat(100_000);
        let archive = pack(&[(ETCD.0, &large), APISERVER, KUBECTL]);
        assert_eq!(unpacked(&archive, LIMIT).1, Ok(()));
        for limit in [0, 100, 512, 50_000, 100_000, 101_000] {
            assert!(unpacked(&archive, limit).1.is_err(), "{limit}");
        }
        assert!(unpacked(&archive[..archive.len() / 2], LIMIT).1.is_err());
        assert!(unpacked(b"<html>not found</html>", LIMIT).1.is_err());
    }
}
