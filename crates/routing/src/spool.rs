//! A message while it is received and handed on: its first part in memory, the rest in a file without a name.

use std::{
    io,
    path::{Path, PathBuf},
};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

/// Octets of each message that are kept in memory; trace lines are looked for in these.
pub(crate) const IN_MEMORY: usize = 256 * 1024;

/// One message. Nothing of it is left when it is dropped, nor when the process is killed.
pub(crate) struct Spool {
    folder: PathBuf,
    head: Vec<u8>,
    rest: Option<tokio::fs::File>,
    length: u64,
    read: u64,
}

impl Spool {
    /// An empty one, which will use `folder` if it grows.
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            head: Vec::new(),
            rest: None,
            length: 0,
            read: 0,
        }
    }

    /// How many octets it holds.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// The first octets, at most [`IN_MEMORY`].
    pub(crate) fn head(&self) -> &[u8] {
        &self.head
    }

    /// Adds octets at the end. Not to be mixed with reading.
    pub(crate) async fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        let (near, far) = octets.split_at(octets.len().min(IN_MEMORY - self.head.len()));
        self.head.extend_from_slice(near);
        self.length += octets.len() as u64;
        if far.is_empty() {
            return Ok(());
        }
        if self.rest.is_none() {
            let folder = self.folder.clone();
            let file = tokio::task::spawn_blocking(move || {
                std::fs::create_dir_all(&folder)?;
                tempfile::tempfile_in(&folder)
            })
            .await
            .map_err(io::Error::other)??;
            self.rest = Some(tokio::fs::File::from_std(file));
        }
        match &mut self.rest {
            Some(file) => file.write_all(far).await,
            None => Ok(()),
        }
    }

    /// Begins reading at the first octet.
    pub(crate) async fn rewind(&mut self) -> io::Result<()> {
        self.read = 0;
        if let Some(file) = &mut self.rest {
            file.flush().await?;
            file.seek(io::SeekFrom::Start(0)).await?;
        }
        Ok(())
    }

    /// Reads on; 0 means the end.
    pub(crate) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = if self.read < self.head.len() as u64 {
            let from = &self.head[self.read as usize..];
            let count = from.len().min(buffer.len());
            buffer[..count].copy_from_slice(&from[..count]);
            count
        } else {
            match &mut self.rest {
                Some(file) => file.read(buffer).await?,
                None => 0,
            }
        };
        self.read += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn gives_back_what_it_took_twice() {
        let folder = tempfile::tempdir().unwrap();
        for length in [0, 1, IN_MEMORY - 1, IN_MEMORY, IN_MEMORY + 1, 3 * IN_MEMORY] {
            let octets: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let mut spool = Spool::new(folder.path());
            for piece in octets.chunks(70_001) {
                spool.write(piece).await.unwrap();
            }
            assert_eq!(spool.length(), length as u64);
            for _ in 0..2 {
                spool.rewind().await.unwrap();
                let mut back = Vec::new();
                let mut buffer = [0; 4096];
                loop {
                    let count = spool.read(&mut buffer).await.unwrap();
                    if count == 0 {
                        break;
                    }
                    back.extend_from_slice(&buffer[..count]);
                }
                assert!(back == octets);
            }
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
