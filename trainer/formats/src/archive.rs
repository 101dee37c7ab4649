//! The zip container of PyTorch: `NAME/data.pkl`, `NAME/data/0` and so on, never compressed.

use std::io::{self, Cursor, Read, Seek, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::error::FormatError;

/// Bytes that a file of weights may have; that of YOLOv5's largest model with its optimiser has 1.7 GB.
pub const MAX_BYTES: u64 = 4 << 30;
/// Bytes that a pickle may have; that of YOLOv5's largest model with its optimiser has less than 2 MB.
const MAX_PICKLE: u64 = 64 << 20;
/// PyTorch maps files into memory, for which it wants their numbers at multiples of this.
const ALIGNMENT: u16 = 64;

/// A container that is open for reading.
pub struct Archive<R> {
    zip: ZipArchive<R>,
    /// The folder in which all parts lie, with its `/`.
    folder: String,
    /// Bytes of the whole file.
    size: u64,
}

impl<R: Read + Seek> Archive<R> {
    /// Looks at the parts of a container.
    pub fn open(mut file: R) -> Result<Self, FormatError> {
        let size = file.seek(io::SeekFrom::End(0)).map_err(FormatError::Read)?;
        let zip = ZipArchive::new(file).map_err(FormatError::Zip)?;
        let folder = zip
            .file_names()
            .flatten()
            .filter_map(|name| Some(name.strip_suffix("data.pkl")?.to_owned()))
            .find(|folder| folder.ends_with('/') && !folder.trim_end_matches('/').contains('/'))
            .ok_or_else(|| FormatError::NoPart("data.pkl".to_owned()))?;
        let mut archive = Self { zip, folder, size };
        if archive.has("byteorder") {
            let order = archive.part("byteorder", 64)?;
            if order != b"little" {
                return Err(FormatError::ByteOrder(
                    String::from_utf8_lossy(&order).into_owned(),
                ));
            }
        }
        Ok(archive)
    }

    /// Whether there is a part `name`.
    pub fn has(&self, name: &str) -> bool {
        self.zip
            .index_for_name(&format!("{}{name}", self.folder))
            .is_some()
    }

    /// Whether it holds a program besides the tensors, as `TorchScript` does.
    pub fn has_code(&self) -> bool {
        let code = format!("{}code/", self.folder);
        self.zip
            .file_names()
            .flatten()
            .any(|name| name.starts_with(&code))
    }

    /// The bytes of the pickle `name`.
    pub fn pickle(&mut self, name: &str) -> Result<Vec<u8>, FormatError> {
        self.part(name, MAX_PICKLE)
    }

    /// The bytes of a storage.
    pub fn storage(&mut self, key: &str) -> Result<Vec<u8>, FormatError> {
        self.part(&format!("data/{key}"), self.size)
    }

    /// Bytes of the whole file.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn part(&mut self, name: &str, most: u64) -> Result<Vec<u8>, FormatError> {
        let most = most.min(self.size);
        let index = self.zip.index_for_name(&format!("{}{name}", self.folder));
        let index = index.ok_or_else(|| FormatError::NoPart(name.to_owned()))?;
        let part = self.zip.by_index_raw(index).map_err(FormatError::Zip)?;
        if part.compression() != CompressionMethod::Stored {
            return Err(FormatError::Compressed(name.to_owned()));
        }
        let size = part.size();
        if size > most {
            let name = name.to_owned();
            return Err(FormatError::PartSize { name, size, most });
        }
        let mut bytes = Vec::with_capacity(size as usize);
        part.take(size)
            .read_to_end(&mut bytes)
            .map_err(FormatError::Read)?;
        if bytes.len() as u64 != size {
            return Err(FormatError::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(bytes)
    }
}

/// A part of a container to write.
#[derive(Debug)]
pub struct ArchiveEntry<'a> {
    /// Its name below the container's folder.
    pub name: String,
    /// What is in it.
    pub bytes: &'a [u8],
}

/// The bytes of a container whose folder is `folder`. Equal parts give equal bytes.
pub fn write_archive(folder: &str, entries: &[ArchiveEntry<'_>]) -> Result<Vec<u8>, FormatError> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for entry in entries {
        add(&mut zip, &format!("{folder}/{}", entry.name), entry.bytes)?;
    }
    Ok(zip.finish().map_err(FormatError::Write)?.into_inner())
}

/// The bytes of the container `archive` with one part more.
pub fn add_to_archive(archive: Vec<u8>, entry: &ArchiveEntry<'_>) -> Result<Vec<u8>, FormatError> {
    let folder = Archive::open(Cursor::new(archive.as_slice()))?.folder;
    let mut zip = ZipWriter::new_append(Cursor::new(archive)).map_err(FormatError::Write)?;
    add(&mut zip, &format!("{folder}{}", entry.name), entry.bytes)?;
    Ok(zip.finish().map_err(FormatError::Write)?.into_inner())
}

fn add(zip: &mut ZipWriter<Cursor<Vec<u8>>>, name: &str, bytes: &[u8]) -> Result<(), FormatError> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(zip::DateTime::default())
        .with_alignment(ALIGNMENT);
    zip.start_file(name, options).map_err(FormatError::Write)?;
    zip.write_all(bytes)
        .map_err(|error| FormatError::Write(error.into()))
}
