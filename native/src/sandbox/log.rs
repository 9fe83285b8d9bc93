//! What a container wrote must not fill the disk.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Cut a log that grew beyond `limit` to whole lines of its last `kept` octets. Everybody appends,
/// so the writers go on at the new end; what they write in this very moment is lost.
pub fn shorten(log: &Path, limit: u64, kept: u64) -> std::io::Result<()> {
    let size = fs::metadata(log)?.len();
    if size <= limit {
        return Ok(());
    }
    let mut file = File::options().read(true).append(true).open(log)?;
    file.seek(SeekFrom::Start(size - kept))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    let begin = tail
        .iter()
        .position(|octet| *octet == b'\n')
        .map_or(0, |end| end + 1);
    file.set_len(0)?;
    file.write_all(&tail[begin..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_grew_too_long_keeps_its_last_whole_lines() {
        let log = std::env::temp_dir().join(format!("squall-log-{}", std::process::id()));
        fs::write(&log, "first\nsecond\nthird\n").unwrap();
        let mut writer = File::options().append(true).open(&log).unwrap();
        shorten(&log, 100, 9).unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap(), "first\nsecond\nthird\n");
        shorten(&log, 10, 9).unwrap();
        writer.write_all(b"fourth\n").unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap(), "third\nfourth\n");
        fs::remove_file(&log).unwrap();
    }
}
