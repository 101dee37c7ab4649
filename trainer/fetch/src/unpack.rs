//! Archives: zip and tar, plain or compressed. Only files and folders below the folder come out of them.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::Path;

use contract::spec::ArchiveFormat;
use tar::EntryType;
use zip::ZipArchive;

use crate::error::FetchError;
use crate::folder::{Complete, Folder};
use crate::names;
use frames::Frames;
use members::Members;

mod frames;
mod members;
#[cfg(test)]
mod tests;

/// Entries that an archive may have: more would use up the volume's inodes before its bytes.
const MAX_ENTRIES: u64 = 20_000_000;

/// Unpacks an archive whose address tells its format.
pub fn unpack(file: &Path, url: &str, folder: &Folder) -> Result<Complete, FetchError> {
    let bad = |problem: &str| FetchError::BadArchive {
        url: url.to_owned(),
        problem: problem.to_owned(),
    };
    let format = ArchiveFormat::of(url).ok_or_else(|| bad("its name has no known ending"))?;
    let open = File::open(file).map_err(FetchError::volume("open", file))?;
    let reader = BufReader::with_capacity(1 << 20, open);
    let mut out = Output {
        url,
        folder,
        complete: Complete { files: 0, bytes: 0 },
        entries: 0,
    };
    match format {
        ArchiveFormat::Zip => unzip(reader, &mut out)?,
        ArchiveFormat::Tar => untar(reader, &mut out)?,
        ArchiveFormat::TarGz => untar(Members::new(reader), &mut out)?,
        ArchiveFormat::TarZst => untar(Frames::new(reader), &mut out)?,
    }
    if out.complete.files == 0 {
        return Err(bad("it holds no file"));
    }
    Ok(out.complete)
}

struct Output<'a> {
    url: &'a str,
    folder: &'a Folder,
    complete: Complete,
    entries: u64,
}

impl Output<'_> {
    fn bad(&self, problem: &impl ToString) -> FetchError {
        FetchError::BadArchive {
            url: self.url.to_owned(),
            problem: problem.to_string(),
        }
    }

    fn kind(&self, name: &str, kind: &'static str) -> FetchError {
        FetchError::Kind {
            url: self.url.to_owned(),
            name: name.to_owned(),
            kind,
        }
    }

    fn count(&mut self) -> Result<(), FetchError> {
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(self.bad(&format!("it holds more than {MAX_ENTRIES} entries")));
        }
        Ok(())
    }

    /// Writes a file under another name first. An entry that comes twice is the later one, as tar has it.
    fn file(&mut self, name: &str, mut content: impl Read, size: u64) -> Result<(), FetchError> {
        let path = names::inside(name).map_err(|problem| FetchError::UnsafeName {
            url: self.url.to_owned(),
            name: name.to_owned(),
            problem,
        })?;
        let free = self.folder.free()?;
        if size > free {
            return Err(FetchError::Full {
                url: self.url.to_owned(),
                needed: size,
                free,
            });
        }
        let part = self.folder.part("entry");
        let file = File::create(&part).map_err(FetchError::volume("write", &part))?;
        let mut file = Recorded { file, failed: None };
        // No entry writes more than it announced.
        let copied = io::copy(
            &mut content.by_ref().take(size.saturating_add(1)),
            &mut file,
        );
        if let Some(kind) = file.failed {
            return Err(FetchError::volume("write", &part)(kind.into()));
        }
        let copied = copied.map_err(|error| self.bad(&format!("'{name}': {error}")))?;
        if copied != size {
            return Err(self.bad(&format!("'{name}' has another size than announced")));
        }
        self.folder.put(&part, &path)?;
        self.complete.files += 1;
        self.complete.bytes += size;
        Ok(())
    }

    fn folder(&self, name: &str) -> Result<(), FetchError> {
        // The root of the archive itself.
        if name.trim_matches(['.', '/']).is_empty()
            && !name.contains("..")
            && !name.starts_with('/')
        {
            return Ok(());
        }
        let path = names::inside(name).map_err(|problem| FetchError::UnsafeName {
            url: self.url.to_owned(),
            name: name.to_owned(),
            problem,
        })?;
        let place = self.folder.place(&path);
        fs::create_dir_all(&place).map_err(FetchError::volume("make the folder", place))
    }
}

/// A file that remembers that writing failed, to tell that from an archive that cannot be read.
struct Recorded {
    file: File,
    failed: Option<io::ErrorKind>,
}

impl io::Write for Recorded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file
            .write(bytes)
            .inspect_err(|error| self.failed = Some(error.kind()))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn unzip(reader: BufReader<File>, out: &mut Output) -> Result<(), FetchError> {
    let mut archive = ZipArchive::new(reader).map_err(|error| out.bad(&error))?;
    for index in 0..archive.len() {
        out.count()?;
        let entry = archive.by_index(index).map_err(|error| out.bad(&error))?;
        let name = entry.name().map_err(|error| out.bad(&error))?.into_owned();
        if entry.is_symlink() {
            return Err(out.kind(&name, "a link"));
        }
        if entry.is_dir() {
            out.folder(&name)?;
        } else {
            let size = entry.size();
            out.file(&name, entry, size)?;
        }
    }
    Ok(())
}

/// A reader that remembers whether it came to its end.
struct Watched<R> {
    reader: R,
    ended: bool,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.ended |= count == 0 && !buffer.is_empty();
        Ok(count)
    }
}

fn untar(reader: impl Read, out: &mut Output) -> Result<(), FetchError> {
    let mut archive = tar::Archive::new(Watched {
        reader,
        ended: false,
    });
    let entries = archive.entries().map_err(|error| out.bad(&error))?;
    for entry in entries {
        out.count()?;
        let entry = entry.map_err(|error| out.bad(&error))?;
        let name = entry.path_bytes();
        let name = std::str::from_utf8(&name)
            .map_err(|error| out.bad(&error))?
            .to_owned();
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let size = entry.size();
                out.file(&name, entry, size)?;
            }
            EntryType::Directory => out.folder(&name)?,
            // Comments for all that follows, which say nothing of files.
            EntryType::XGlobalHeader => {}
            EntryType::Symlink | EntryType::Link => return Err(out.kind(&name, "a link")),
            _ => return Err(out.kind(&name, "a device or the like")),
        }
    }
    let mut rest = archive.into_inner();
    // tar takes the end of a file for its own, but every archive has a block of zeros there.
    if rest.ended {
        return Err(out.bad(&"it ends without tar's mark of the end, so a part of it is missing"));
    }
    // Checksums come after the content.
    let drained = io::copy(&mut rest, &mut io::sink());
    drained.map(|_| ()).map_err(|error| out.bad(&error))
}
