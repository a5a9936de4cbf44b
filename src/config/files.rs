//! Reads the files that a configuration names, up to a deadline. A file system that hangs, or a pipe without a writer, delays
//! only the thread that reads it.

use crossbeam_channel::{RecvTimeoutError, bounded};
use std::cell::RefCell;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

/// Reads files until a deadline that all of them share.
pub struct Files {
    deadline: Instant,
    /// Whether a FIFO is read. A second read of one would wait for a second writer, so a reload refuses it.
    takes_fifo: bool,
    /// Warnings about what was read.
    notes: RefCell<Vec<String>>,
}

/// What a file holds.
pub struct Contents {
    /// As UTF-8, without a byte-order mark.
    pub text: String,
    /// Whether users other than its owner and group may read or write it.
    pub is_open_to_others: bool,
}

impl Files {
    /// For the start: regular files and FIFOs.
    pub fn at_start() -> Files {
        Files { deadline: Instant::now() + TIME_MAX, takes_fifo: true, notes: RefCell::default() }
    }

    /// For a reload: paths that lead, through symbolic links, to a regular file.
    pub fn at_reload() -> Files {
        Files { takes_fifo: false, ..Files::at_start() }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// A text that names the path and says what is wrong, without anything that the file holds.
    pub fn read(&self, path: &Path) -> Result<Contents, String> {
        let at = path.display();
        let read = self.read_within(path).map_err(|error| format!("cannot read {at}: {error}"));
        let (mut bytes, mode) = read?;
        if bytes.starts_with(b"\xEF\xBB\xBF") {
            bytes.drain(..3);
        }
        if bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF") {
            return Err(format!("cannot read {at}: it is UTF-16; save it as UTF-8"));
        }
        let text = String::from_utf8(bytes).map_err(|_| format!("cannot read {at}: it is not valid UTF-8"))?;
        Ok(Contents { text, is_open_to_others: mode & 0o006 != 0 })
    }

    /// Reads the text of a file that holds secrets.
    ///
    /// # Errors
    /// As [`Files::read`].
    pub fn read_secret(&self, path: &Path) -> Result<String, String> {
        let contents = self.read(path)?;
        if contents.is_open_to_others {
            self.note_open(path);
        }
        Ok(contents.text)
    }

    /// Notes that other users may read or write a file that holds secrets.
    pub fn note_open(&self, path: &Path) {
        let at = path.display();
        let note = format!("every user of this machine can read or change {at}, which holds a secret; chmod o-rw {at}");
        self.notes.borrow_mut().push(note);
    }

    /// The warnings so far.
    pub fn take_notes(&self) -> Vec<String> {
        self.notes.take()
    }

    /// Bytes and mode of a file, read by another thread.
    fn read_within(&self, path: &Path) -> io::Result<(Vec<u8>, u32)> {
        if ABANDONED.load(SeqCst) >= ABANDONED_MAX {
            return Err(io::Error::other("earlier reads of files still wait for their disk"));
        }
        // Without a buffer a send succeeds only if the result is received.
        let (sender, receiver) = bounded(0);
        let (path, takes_fifo) = (path.to_owned(), self.takes_fifo);
        let read = move || {
            if sender.send(read_file(&path, takes_fifo)).is_err() {
                ABANDONED.fetch_sub(1, SeqCst);
            }
        };
        thread::Builder::new().name("files".into()).spawn(read)?;
        receiver.recv_deadline(self.deadline).unwrap_or_else(|error| match error {
            RecvTimeoutError::Timeout => {
                ABANDONED.fetch_add(1, SeqCst);
                Err(io::Error::other(format!("it was not read within {TIME_MAX:?}")))
            }
            RecvTimeoutError::Disconnected => Err(io::Error::other("the thread that reads it has ended")),
        })
    }
}

fn read_file(path: &Path, takes_fifo: bool) -> io::Result<(Vec<u8>, u32)> {
    let is_fifo = takes_fifo && fs::metadata(path)?.file_type().is_fifo();
    // A path that has become a FIFO meanwhile is opened without waiting for a writer, and refused.
    let flags = if is_fifo { 0 } else { rustix::fs::OFlags::NONBLOCK.bits() as i32 };
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    let is_allowed = metadata.is_file() || takes_fifo && metadata.file_type().is_fifo();
    if !is_allowed {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {}", super::bytes(BYTES_MAX))));
    }
    Ok((bytes, metadata.mode()))
}

/// Threads that still wait for their disk after their read was given up.
static ABANDONED: AtomicUsize = AtomicUsize::new(0);
/// With this many such threads no further file is read.
const ABANDONED_MAX: usize = 8;
/// For all files of a configuration together.
const TIME_MAX: Duration = Duration::from_secs(10);
/// Of one file.
const BYTES_MAX: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, Mode, mkfifoat};
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    /// A path of this test's own, removed when the test is over.
    struct Temporary(PathBuf);

    impl Temporary {
        fn new(name: &str) -> Temporary {
            Temporary(std::env::temp_dir().join(format!("corecast-files-{}-{name}", std::process::id())))
        }

        fn file(name: &str, bytes: &[u8]) -> Temporary {
            let file = Temporary::new(name);
            fs::write(&file.0, bytes).expect("a temporary file");
            file
        }

        fn fifo(name: &str) -> Temporary {
            let fifo = Temporary::new(name);
            mkfifoat(CWD, &fifo.0, Mode::RUSR | Mode::WUSR).expect("a FIFO");
            fifo
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    #[track_caller]
    fn refused(files: &Files, path: &Path, expected: &str) {
        let error = files.read(path).err().expect("an error");
        assert!(error.contains(expected) && error.contains(&path.display().to_string()), "{error}");
    }

    #[test]
    fn a_fifo_is_read_at_the_start_and_refused_by_a_reload() {
        let fifo = Temporary::fifo("fifo");
        let path = fifo.0.clone();
        let writer = thread::spawn(move || fs::write(path, "a:1"));
        let files = Files { deadline: Instant::now() + Duration::from_secs(60), ..Files::at_start() };
        assert_eq!(files.read(&fifo.0).expect("a text").text, "a:1");
        writer.join().expect("no panic").expect("written");
        refused(&Files::at_reload(), &fifo.0, "not a regular file");
        let link = Temporary::new("link");
        std::os::unix::fs::symlink(&fifo.0, &link.0).expect("a link");
        refused(&Files::at_reload(), &link.0, "not a regular file");
    }

    #[test]
    fn a_fifo_without_a_writer_fails_at_the_deadline() {
        let fifo = Temporary::fifo("silent");
        let files = Files { deadline: Instant::now() + Duration::from_millis(20), ..Files::at_start() };
        refused(&files, &fifo.0, "not read within 10s");
        // Lets the thread end.
        drop(OpenOptions::new().write(true).open(&fifo.0));
    }

    #[test]
    fn devices_directories_and_missing_files_are_refused() {
        for files in [Files::at_start(), Files::at_reload()] {
            refused(&files, Path::new("/dev/zero"), "not a regular file");
            refused(&files, Path::new("/tmp"), "not a regular file");
            refused(&files, Path::new("/none/such"), "No such file");
        }
    }

    #[test]
    fn a_link_to_a_regular_file_is_read_by_a_reload() {
        let (file, link) = (Temporary::file("target", b"a:1"), Temporary::new("link-to-target"));
        std::os::unix::fs::symlink(&file.0, &link.0).expect("a link");
        assert_eq!(Files::at_reload().read(&link.0).expect("a text").text, "a:1");
    }

    #[test]
    fn secrets_that_others_may_read_are_noted() {
        let file = Temporary::file("mode", b"a:1");
        let notes = |mode: u32| {
            fs::set_permissions(&file.0, fs::Permissions::from_mode(mode)).expect("our own file");
            let files = Files::at_start();
            files.read_secret(&file.0).expect("a text");
            files.take_notes()
        };
        for mode in [0o600, 0o400, 0o640, 0o440] {
            assert_eq!(notes(mode), [""; 0], "{mode:o}");
        }
        for mode in [0o644, 0o604, 0o602, 0o666] {
            assert!(notes(mode)[0].contains(&file.0.display().to_string()), "{mode:o}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_not_part_of_the_text() {
        let read = |bytes: &[u8]| Files::at_start().read(&Temporary::file("mark", bytes).0).map(|read| read.text);
        assert_eq!(read(b"\xEF\xBB\xBFa:1").as_deref(), Ok("a:1"));
        assert!(read(b"\xFF\xFEa\0:\x001\0").is_err_and(|error| error.contains("UTF-16")));
        assert!(read(b"a:\xFF").is_err_and(|error| error.contains("not valid UTF-8")));
    }
}
