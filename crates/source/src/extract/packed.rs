//! How a kernel's source is packed, told from the file's content: a file may be saved under any name.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::super::SourceError;

/// A form in which distributions publish a kernel's source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Packed {
    /// `kernel-….src.rpm`
    SourceRpm,
    /// `linux_….dsc`, with the files that it names beside it
    Dsc,
    /// `linux-….tar.xz`
    Tarball,
}

/// More than the header of each kind; the fields of a signed `.dsc` begin after a few lines.
const LOOKED_AT: u64 = 4096;
/// How a tar archive, or a compressed file, begins: offset and bytes.
const TAR: [(usize, &[u8]); 5] = [
    (0, b"\x1f\x8b"),         // gzip
    (0, b"BZh"),              // bzip2
    (0, b"\xfd7zXZ\0"),       // xz
    (0, b"\x28\xb5\x2f\xfd"), // zstd
    (257, b"ustar"),
];

impl Packed {
    pub(super) fn of(path: &Path) -> Result<Packed, SourceError> {
        let not = |found: &'static str| SourceError::NotPackedSource { path: path.to_owned(), found };
        if path.is_dir() {
            return Err(not("is a directory; if it holds the source, use it as it is"));
        }
        let mut start = Vec::new();
        let read = File::open(path).and_then(|file| file.take(LOOKED_AT).read_to_end(&mut start));
        read.map_err(SourceError::io(path))?;
        let has = |at: usize, bytes: &[u8]| start.get(at..).is_some_and(|rest| rest.starts_with(bytes));
        // The lead: magic, version, and a big-endian type, of which 1 is a source package.
        if has(0, b"\xed\xab\xee\xdb") {
            return match start.get(6..8) {
                Some([0, 1]) => Ok(Packed::SourceRpm),
                _ => Err(not(
                    "is an rpm of programs; the source is in the package whose name ends with .src.rpm",
                )),
            };
        }
        if has(0, b"!<arch>\n") {
            return Err(not(
                "is a package of programs or files; unpack it with dpkg-deb -x and give the tar file \
                            inside, or the source package's .dsc",
            ));
        }
        let has_field = |name: &[u8]| start.split(|byte| *byte == b'\n').any(|line| line.starts_with(name));
        if has_field(b"Format:") && has_field(b"Source:") {
            return Ok(Packed::Dsc);
        }
        match TAR.iter().any(|(at, bytes)| has(*at, bytes)) {
            true => Ok(Packed::Tarball),
            false => Err(not("is not a source rpm, .dsc or tar file")),
        }
    }

    /// What is being done, for progress messages.
    pub(super) fn doing(self) -> &'static str {
        match self {
            Packed::SourceRpm => "preparing with rpmbuild",
            Packed::Dsc => "unpacking with dpkg-source",
            Packed::Tarball => "unpacking",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_what_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let of = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            Packed::of(&path).map_err(|error| error.to_string())
        };
        assert_eq!(of(b"\xed\xab\xee\xdb\x03\x00\x00\x01kernel"), Ok(Packed::SourceRpm));
        assert!(of(b"\xed\xab\xee\xdb\x03\x00\x00\x00kernel").unwrap_err().contains(".src.rpm"));
        assert_eq!(of(b"Format: 3.0 (quilt)\nSource: linux\n"), Ok(Packed::Dsc));
        let signed = b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nFormat: 1.0\nSource: linux\n";
        assert_eq!(of(signed), Ok(Packed::Dsc));
        assert_eq!(of(b"\xfd7zXZ\0rest"), Ok(Packed::Tarball));
        assert_eq!(of(&[&[0; 257], &b"ustar\0"[..]].concat()), Ok(Packed::Tarball));
        assert!(of(b"!<arch>\ndebian-binary").unwrap_err().contains("dpkg-deb -x"));
        assert!(of(b"").unwrap_err().contains("is not a source rpm"));
        assert!(Packed::of(dir.path()).unwrap_err().to_string().contains("is a directory"));
    }
}
