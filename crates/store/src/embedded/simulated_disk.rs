//! A disk that forgets, for tests: only what was synced is certain.
//!
//! Of everything written since the last sync, any sector may have reached the disk or not, in any order.

use std::io;
use std::sync::{Arc, Mutex};

use redb::StorageBackend;

/// What a disk writes whole.
const SECTOR: usize = 512;

/// A disk with a number of operations to go before it fails. Clones are the same disk.
#[derive(Clone, Debug)]
pub(super) struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug)]
struct Platter {
    /// What is certain to be there after a power loss.
    durable: Vec<u8>,
    /// What the running system sees.
    current: Vec<u8>,
    /// What was done since the last sync.
    pending: Vec<Change>,
    operations_left: u64,
}

#[derive(Debug)]
enum Change {
    Length(usize),
    Bytes(usize, Vec<u8>),
}

impl Disk {
    /// Fails after so many reads, writes and syncs.
    pub(super) fn new(content: Vec<u8>, operations_left: u64) -> Self {
        let platter = Platter { durable: content.clone(), current: content, pending: Vec::new(), operations_left };
        Self(Arc::new(Mutex::new(platter)))
    }

    /// Does something, unless the power has failed.
    fn operate<T>(&self, operation: impl FnOnce(&mut Platter) -> io::Result<T>) -> io::Result<T> {
        let mut platter = self.0.lock().unwrap();
        platter.operations_left = platter.operations_left.checked_sub(1).ok_or(io::ErrorKind::BrokenPipe)?;
        operation(&mut platter)
    }

    /// Whether it has not failed yet.
    pub(super) fn has_power(&self) -> bool {
        self.0.lock().unwrap().operations_left > 0
    }

    /// Every operation fails from now on.
    pub(super) fn fail(&self) {
        self.0.lock().unwrap().operations_left = 0;
    }

    /// Works again, for so many operations, with what has really reached it.
    pub(super) fn revive(&self, operations: u64, dice: &mut Dice) {
        let content = self.remains(dice);
        *self.0.lock().unwrap() =
            Platter { durable: content.clone(), current: content, pending: Vec::new(), operations_left: operations };
    }

    /// What is there when the power comes back.
    pub(super) fn remains(&self, dice: &mut Dice) -> Vec<u8> {
        let platter = self.0.lock().unwrap();
        let mut content = platter.durable.clone();
        for change in &platter.pending {
            match change {
                Change::Length(length) => {
                    if dice.roll(2) == 0 {
                        content.resize(*length, 0);
                    }
                }
                Change::Bytes(offset, bytes) => {
                    for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                        if dice.roll(2) == 0 {
                            write(&mut content, offset + index * SECTOR, sector);
                        }
                    }
                }
            }
        }
        content
    }
}

fn write(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.operate(|platter| Ok(platter.current.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.operate(|platter| {
            let start = offset as usize;
            let bytes = platter.current.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            out.copy_from_slice(bytes);
            Ok(())
        })
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.operate(|platter| {
            platter.current.resize(length as usize, 0);
            platter.pending.push(Change::Length(length as usize));
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.operate(|platter| {
            for change in std::mem::take(&mut platter.pending) {
                match change {
                    Change::Length(length) => platter.durable.resize(length, 0),
                    Change::Bytes(offset, bytes) => write(&mut platter.durable, offset, &bytes),
                }
            }
            Ok(())
        })
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.operate(|platter| {
            write(&mut platter.current, offset as usize, bytes);
            platter.pending.push(Change::Bytes(offset as usize, bytes.to_vec()));
            Ok(())
        })
    }
}

/// A generator of its own (xorshift), so that a seed means the same for ever.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % sides
    }
}
