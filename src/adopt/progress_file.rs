//! What a survey has described so far, in a file: a survey that ended early continues where it was.
//!
//! Each line is one stream with the time of its description, and is written before the next stream is described. A line
//! that is older than an hour, that is cut off or that another version wrote counts as absent. A stream that was
//! changing, or about which a permission was missing, is not written, so that it is described again. The file holds
//! names, keys and tools, no tag and no secret. It is a help only: if it cannot be written, the survey goes on without it.
//!
//! A person may name any file. One without a line of a stream, or the beginning of one, is not the survey's to empty and
//! to delete.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest as _, Sha256};
use stream_encryption_core::model::arn::StreamArn;

use super::found::{FoundEncryption, FoundStream};

/// The age from which a description is not used any more.
pub const MAX_AGE: SignedDuration = SignedDuration::from_hours(1);
/// The format of a line. Files of another format have other names.
const FORMAT: &str = "2";
/// The beginning of each line.
const BEGINNING: &[u8] = br#"{"arn":"arn:"#;

/// The file of one survey.
#[derive(Debug)]
pub struct ProgressFile {
    /// The file to delete at the end.
    path: Option<PathBuf>,
    known: HashMap<StreamArn, FoundStream>,
    file: Mutex<Result<Option<File>, String>>,
}

/// Returns the path of the file for a survey in a folder. `asked` states what the survey covers: surveys that cover the
/// same share a file.
#[must_use]
pub fn path(folder: &Path, asked: &[String]) -> PathBuf {
    let digest = Sha256::digest(format!("{FORMAT}\n{}", asked.join("\n")).as_bytes());
    let number = u64::from_be_bytes(digest[..8].try_into().unwrap_or_default());
    folder.join(format!("adopt-{number:016x}.jsonl"))
}

impl ProgressFile {
    /// Returns a file that stores nothing.
    #[must_use]
    pub fn none() -> Self {
        Self { path: None, known: HashMap::new(), file: Mutex::new(Ok(None)) }
    }

    /// Opens the file, and reads the streams that were described in the hour before `now`. With `restart` it is
    /// emptied first. A device or a pipe is only written. A file with other content is an error.
    pub fn open(path: &Path, now: Timestamp, restart: bool) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let is_device = path.metadata().is_ok_and(|existing| !existing.is_file());
        let mut known = if is_device { HashMap::new() } else { read(path, now)? };
        if restart {
            known.clear();
        }
        // Another survey may write to the same file now, so each line goes to the end.
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        if known.is_empty() {
            if !is_device {
                file.set_len(0)?;
            }
        } else {
            // Ends a line that was cut off.
            file.write_all(b"\n")?;
        }
        // Other programs may need a link, such as /dev/stdout.
        let is_deletable = !is_device && !path.is_symlink();
        let path = is_deletable.then(|| path.to_owned());
        Ok(Self { path, known, file: Mutex::new(Ok(Some(file))) })
    }

    /// Keeps only the known streams that satisfy a condition. The other ones are described again.
    pub fn retain(&mut self, is_usable: impl Fn(&FoundStream) -> bool) {
        self.known.retain(|_, stream| is_usable(stream));
    }

    /// Returns a stream that was described before, by this survey or by an earlier one.
    #[must_use]
    pub fn known(&self, stream: &StreamArn) -> Option<&FoundStream> {
        self.known.get(stream)
    }

    /// Adds a stream that was described now.
    pub fn add(&self, stream: &FoundStream) {
        if !is_final(stream) {
            return;
        }
        let mut file = self.file();
        if let Ok(Some(open)) = &mut *file {
            let line = serde_json::to_string(stream).map_err(io::Error::other);
            // One write for a whole line, so that two surveys at the same time do not mix theirs.
            let written = line.and_then(|line| open.write_all(format!("{line}\n").as_bytes()));
            if let Err(error) = written {
                *file = Err(error.to_string());
            }
        }
    }

    /// Returns why the file is not written any more, if so.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.file().as_ref().err().cloned()
    }

    /// Deletes the file: the survey is complete. A device, a pipe, or a link with the file that it names stays.
    pub fn delete(&self) -> io::Result<()> {
        *self.file() = Ok(None);
        match &self.path {
            Some(path) => fs::remove_file(path),
            None => Ok(()),
        }
    }

    fn file(&self) -> MutexGuard<'_, Result<Option<File>, String>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether another description would have the same result. Without tags or an identified key it may not: the person
/// may have granted a permission since.
fn is_final(stream: &FoundStream) -> bool {
    let is_clear =
        stream.encryption.is_settled() && !matches!(stream.encryption, FoundEncryption::UnknownKey(_));
    is_clear && stream.owners.is_some()
}

/// Returns whether a line of which only this part was written may be one of a stream.
fn is_beginning(line: &[u8]) -> bool {
    line.starts_with(BEGINNING) || BEGINNING.starts_with(line)
}

/// Reads the streams that were described in the hour before `now`. Fails if the file has something else than streams.
fn read(path: &Path, now: Timestamp) -> io::Result<HashMap<StreamArn, FoundStream>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(error) => return Err(error),
    };
    let mut known = HashMap::new();
    let (mut is_empty, mut has_streams, mut is_cut_off) = (true, false, false);
    for (number, line) in BufReader::new(file).split(b'\n').enumerate() {
        let line = line?;
        is_empty &= line.is_empty();
        let stream = match serde_json::from_slice::<FoundStream>(&line) {
            Ok(stream) => stream,
            Err(error) => {
                // A full disk may have cut off the first line, and then it is the only one.
                is_cut_off = number == 0 && error.is_eof() && is_beginning(&line);
                continue;
            }
        };
        has_streams = true;
        let age = now.duration_since(stream.described_time);
        if age < MAX_AGE && age > -MAX_AGE {
            known.insert(stream.arn.clone(), stream);
        }
    }
    if is_empty || has_streams || is_cut_off {
        return Ok(known);
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "the file has no progress of this version; delete it, or name another one with --progress-file",
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn now() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    fn found(name: &str, encryption: FoundEncryption) -> FoundStream {
        let arn = format!("arn:aws:firehose:eu-west-1:111122223333:deliverystream/{name}").parse().unwrap();
        FoundStream { arn, described_time: now(), encryption, owners: Some(Vec::new()) }
    }

    /// A stream in plaintext that was described at this time.
    fn found_at(name: &str, described_time: Timestamp) -> FoundStream {
        FoundStream { described_time, ..found(name, FoundEncryption::Plaintext) }
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn described_streams_are_known_to_the_next_survey() {
        let folder = folder();
        let path = path(&folder.path().join("new"), &["eu-west-1".to_owned()]);
        let first = ProgressFile::open(&path, now(), false).unwrap();
        let (orders, moving) = (
            found("orders", FoundEncryption::Plaintext),
            found("moving", FoundEncryption::Changing("changing".to_owned())),
        );
        first.add(&orders);
        first.add(&moving);
        assert_eq!(first.known(&orders.arn), None, "it is the survey's own");
        let second = ProgressFile::open(&path, now(), false).unwrap();
        assert_eq!(second.known(&orders.arn), Some(&orders));
        assert_eq!(second.known(&moving.arn), None);
        second.add(&found("audit", FoundEncryption::AwsOwned));
        let third = ProgressFile::open(&path, now(), false).unwrap();
        assert_eq!(third.known.len(), 2);
        assert_eq!(third.problem(), None);
        third.delete().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn answers_that_lack_a_permission_are_not_kept() {
        let folder = folder();
        let path = folder.path().join("file");
        let first = ProgressFile::open(&path, now(), false).unwrap();
        let without_tags = FoundStream { owners: None, ..found("orders", FoundEncryption::AwsOwned) };
        first.add(&without_tags);
        first.add(&found("audit", FoundEncryption::UnknownKey("alias/x".to_owned())));
        assert_eq!(ProgressFile::open(&path, now(), false).unwrap().known.len(), 0);
    }

    #[test]
    fn old_broken_and_foreign_lines_are_ignored() {
        let folder = folder();
        let path = folder.path().join("file");
        let first = ProgressFile::open(&path, now(), false).unwrap();
        first.add(&found_at("old", now() - MAX_AGE));
        first.add(&found_at("young", now() - MAX_AGE + SignedDuration::from_secs(1)));
        first.add(&found_at("of-a-wrong-clock", now() + MAX_AGE));
        let mut text = fs::read_to_string(&path).unwrap();
        text.push_str("{\"another\":\"version\"}\nno JSON\n\u{fffd}\n{\"arn\":\"arn:aws");
        fs::write(&path, text).unwrap();
        let second = ProgressFile::open(&path, now(), false).unwrap();
        let names: Vec<&str> = second.known.keys().map(StreamArn::name).collect();
        assert_eq!(names, ["young"]);
        second.add(&found("after-a-cut", FoundEncryption::Plaintext));
        assert_eq!(ProgressFile::open(&path, now(), false).unwrap().known.len(), 2);
    }

    #[test]
    fn file_with_only_a_cut_off_line_is_used() {
        let folder = folder();
        let path = folder.path().join("file");
        let orders = found("orders", FoundEncryption::Plaintext);
        let line = serde_json::to_string(&orders).unwrap();
        for length in 1..line.len() {
            for restart in [false, true] {
                fs::write(&path, &line[..length]).unwrap();
                let file = ProgressFile::open(&path, now(), restart).unwrap();
                file.add(&orders);
                assert_eq!(fs::read_to_string(&path).unwrap(), format!("{line}\n"), "{length}");
            }
        }
    }

    #[test]
    fn file_with_other_content_is_an_error_and_stays() {
        let folder = folder();
        let path = folder.path().join("file");
        let of_others = [
            "hello\n",
            r#"{"name":"x"#,
            r#"{"arn":"arn:aws:iam::111122223333:role/x"}"#,
            "{\"arn\":\"arn:aws\nhello",
        ];
        for (content, restart) in
            of_others.into_iter().flat_map(|content| [(content, false), (content, true)])
        {
            fs::write(&path, content).unwrap();
            let error = ProgressFile::open(&path, now(), restart).unwrap_err().to_string();
            assert!(error.contains("has no progress"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        fs::write(&path, "").unwrap();
        assert!(ProgressFile::open(&path, now(), false).is_ok(), "a person may create the file");
    }

    #[test]
    fn device_is_written_and_not_deleted() {
        let file = ProgressFile::open(Path::new("/dev/null"), now(), false).unwrap();
        // Before the call that would delete the machine's device.
        assert_eq!(file.path, None);
        file.add(&found("orders", FoundEncryption::Plaintext));
        assert_eq!(file.problem(), None);
        file.delete().unwrap();
    }

    #[test]
    fn link_is_read_and_not_deleted() {
        let folder = folder();
        let (path, link) = (folder.path().join("file"), folder.path().join("link"));
        // One without a file, and one to an empty file.
        for is_dangling in [true, false] {
            if !is_dangling {
                fs::write(&path, "").unwrap();
            }
            symlink(&path, &link).unwrap();
            let file = ProgressFile::open(&link, now(), false).unwrap();
            file.add(&found("orders", FoundEncryption::Plaintext));
            file.delete().unwrap();
            assert_eq!(fs::read_link(&link).unwrap(), path);
            assert_eq!(ProgressFile::open(&link, now(), false).unwrap().known.len(), 1);
            fs::remove_file(&link).unwrap();
        }
    }

    #[test]
    fn surveys_at_the_same_time_keep_each_others_lines() {
        let folder = folder();
        let path = folder.path().join("file");
        let open = || ProgressFile::open(&path, now(), false).unwrap();
        let (first, second) = (open(), open());
        first.add(&found("orders", FoundEncryption::Plaintext));
        second.add(&found("audit", FoundEncryption::AwsOwned));
        assert_eq!(open().known.len(), 2);
    }

    #[test]
    fn restart_forgets_what_was_described() {
        let folder = folder();
        let path = folder.path().join("file");
        ProgressFile::open(&path, now(), false).unwrap().add(&found("orders", FoundEncryption::Plaintext));
        assert_eq!(ProgressFile::open(&path, now(), true).unwrap().known.len(), 0);
        assert_eq!(ProgressFile::open(&path, now(), false).unwrap().known.len(), 0);
    }

    #[test]
    fn stream_that_is_not_retained_is_not_known() {
        let folder = folder();
        let path = folder.path().join("file");
        let open = || ProgressFile::open(&path, now(), false).unwrap();
        let (orders, audit) =
            (found("orders", FoundEncryption::Plaintext), found("audit", FoundEncryption::AwsOwned));
        open().add(&orders);
        open().add(&audit);
        let mut file = open();
        file.retain(|stream| stream.arn == audit.arn);
        assert_eq!((file.known(&orders.arn), file.known(&audit.arn)), (None, Some(&audit)));
        // The next description replaces the earlier one.
        let described = FoundStream { encryption: FoundEncryption::AwsOwned, ..orders };
        file.add(&described);
        assert_eq!(open().known(&described.arn), Some(&described));
    }

    #[test]
    fn different_surveys_have_different_files() {
        let of = |asked: &[&str]| {
            path(Path::new("cache"), &asked.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(of(&["eu-west-1"]), of(&["eu-west-1"]));
        assert_ne!(of(&["eu-west-1"]), of(&["eu-west-2"]));
        assert_ne!(of(&["a", "b"]), of(&["a"]));
        assert_eq!(of(&[]).extension().unwrap(), "jsonl");
    }

    #[test]
    fn survey_without_a_file_stores_nothing() {
        let none = ProgressFile::none();
        none.add(&found("orders", FoundEncryption::Plaintext));
        none.delete().unwrap();
        assert_eq!(none.problem(), None);
    }
}
