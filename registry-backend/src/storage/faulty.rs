//! A driver that keeps a record of what is made durable, in order, and fails on demand.

use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use super::{
    Append, Driver, Durability, Entry, Error, Figures, Filesystem, Key, Lock, Read, Space, Stat,
    Wait, Write,
};

/// What the driver did and is to do.
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<State>);

type Hook = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    record: Vec<String>,
    waits: usize,
    full: bool,
    broken: Option<String>,
    unreadable: Option<String>,
    before_list: Option<(String, Hook)>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

impl Faults {
    /// Returns the durable steps so far, and begins a new record.
    pub(crate) fn take_record(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().record)
    }

    /// Returns how many reads the caller was to wait for, and counts anew.
    pub(crate) fn take_waits(&self) -> usize {
        std::mem::take(&mut self.0.lock().unwrap().waits)
    }

    /// Makes the disk full, or gives it room.
    pub(crate) fn set_full(&self, full: bool) {
        self.0.lock().unwrap().full = full;
    }

    /// Lets every write fail whose key contains `part`.
    pub(crate) fn break_keys(&self, part: Option<&str>) {
        self.0.lock().unwrap().broken = part.map(str::to_owned);
    }

    /// Lets every opening and listing fail whose key contains `part`.
    pub(crate) fn break_reads(&self, part: Option<&str>) {
        self.0.lock().unwrap().unreadable = part.map(str::to_owned);
    }

    /// Does `hook` once, just before something is listed whose key contains `part`.
    pub(crate) fn before_list(&self, part: &str, hook: impl FnOnce() + Send + 'static) {
        self.0.lock().unwrap().before_list = Some((part.to_owned(), Box::new(hook)));
    }

    fn listing(&self, key: &Key) {
        let is_it = |(part, _): &mut (String, Hook)| key.to_string().contains(part.as_str());
        let hook = self.0.lock().unwrap().before_list.take_if(is_it);
        if let Some((_, hook)) = hook {
            hook();
        }
    }

    fn waiting(&self, wait: Wait) {
        if wait == Wait::AsNeeded {
            self.0.lock().unwrap().waits += 1;
        }
    }

    fn reading(&self, key: &Key) -> Result<(), Error> {
        let state = self.0.lock().unwrap();
        let key = key.to_string();
        match &state.unreadable {
            Some(part) if key.contains(part) => Err(Error::Io {
                path: key.into(),
                source: std::io::Error::from_raw_os_error(libc::EIO),
            }),
            _ => Ok(()),
        }
    }

    fn step(&self, verb: &str, key: &Key, durability: Durability) -> Result<(), Error> {
        let mut state = self.0.lock().unwrap();
        let key = key.to_string();
        let path = key.clone().into();
        if state.broken.as_ref().is_some_and(|part| key.contains(part)) {
            let source = std::io::Error::from_raw_os_error(libc::EIO);
            return Err(Error::Io { path, source });
        }
        if state.full && verb != "delete" {
            let source = std::io::Error::from_raw_os_error(libc::ENOSPC);
            return Err(Error::NoSpace { path, source });
        }
        if durability == Durability::Power {
            state.record.push(format!("{verb} {key}"));
        }
        Ok(())
    }
}

/// Wraps the file system.
#[derive(Debug)]
pub(crate) struct Faulty {
    inner: Filesystem,
    faults: Arc<Faults>,
}

impl Faulty {
    pub(crate) fn new(inner: Filesystem, faults: Arc<Faults>) -> Self {
        Self { inner, faults }
    }
}

impl Driver for Faulty {
    fn read(&self, key: &Key, size_max: u64, wait: Wait) -> Result<Vec<u8>, Error> {
        self.faults.waiting(wait);
        self.inner.read(key, size_max, wait)
    }

    fn read_open(
        &self,
        key: &Key,
        size_max: u64,
        wait: Wait,
    ) -> Result<(Vec<u8>, Box<dyn Read>), Error> {
        self.faults.waiting(wait);
        self.inner.read_open(key, size_max, wait)
    }

    fn open(&self, key: &Key, wait: Wait) -> Result<Box<dyn Read>, Error> {
        self.faults.waiting(wait);
        self.faults.reading(key)?;
        self.inner.open(key, wait)
    }

    fn stat(&self, key: &Key, wait: Wait) -> Result<Stat, Error> {
        self.faults.waiting(wait);
        self.inner.stat(key, wait)
    }

    fn list(&self, key: &Key) -> Result<Vec<Entry>, Error> {
        self.faults.reading(key)?;
        self.faults.listing(key);
        self.inner.list(key)
    }

    fn write(&self, key: &Key, content: &[u8], durability: Durability) -> Result<(), Error> {
        self.faults.step("write", key, durability)?;
        self.inner.write(key, content, durability)
    }

    /// Fails at the first object that is to fail, after all before it.
    fn write_in_steps(&self, steps: &[&[Write<'_>]]) -> Result<(), Error> {
        for (number, step) in steps.iter().enumerate() {
            for (at, (key, _)) in step.iter().enumerate() {
                if let Err(error) = self.faults.step("write", key, Durability::Power) {
                    let mut before = steps[..number].to_vec();
                    before.push(&step[..at]);
                    self.inner.write_in_steps(&before)?;
                    return Err(error);
                }
            }
        }
        self.inner.write_in_steps(steps)
    }

    fn make_folder(&self, key: &Key) -> Result<(), Error> {
        self.faults.step("make", key, Durability::Power)?;
        self.inner.make_folder(key)
    }

    fn delete(&self, key: &Key, durability: Durability) -> Result<(), Error> {
        self.faults.step("delete", key, durability)?;
        self.inner.delete(key, durability)
    }

    fn delete_each(&self, folder: &Key, names: &[&str]) -> Result<(), Error> {
        for (at, name) in names.iter().enumerate() {
            let key = folder.child(name);
            if let Err(error) = self.faults.step("delete", &key, Durability::Power) {
                self.inner.delete_each(folder, &names[..at])?;
                return Err(error);
            }
        }
        self.inner.delete_each(folder, names)
    }

    fn append(&self, key: &Key) -> Result<Box<dyn Append>, Error> {
        Ok(Box::new(FaultyAppend {
            inner: self.inner.append(key)?,
            key: key.clone(),
            faults: Arc::clone(&self.faults),
        }))
    }

    fn try_lock(&self, folder: &Key, wait: Wait) -> Result<Option<Lock>, Error> {
        self.inner.try_lock(folder, wait)
    }

    fn epoch(&self) -> &str {
        self.inner.epoch()
    }

    fn figures(&self) -> &Figures {
        self.inner.figures()
    }

    fn space(&self) -> Result<Space, Error> {
        self.inner.space()
    }

    fn sweep(&self, before: SystemTime) -> Result<usize, Error> {
        self.inner.sweep(before)
    }
}

#[derive(Debug)]
struct FaultyAppend {
    inner: Box<dyn Append>,
    key: Key,
    faults: Arc<Faults>,
}

impl Append for FaultyAppend {
    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.faults.step("append", &self.key, Durability::Process)?;
        self.inner.write(bytes)
    }

    fn truncate(&mut self, size_bytes: u64) -> Result<(), Error> {
        self.inner.truncate(size_bytes)
    }

    fn publish(self: Box<Self>, to: &Key) -> Result<(), Error> {
        self.faults.step("publish", to, Durability::Power)?;
        self.inner.publish(to)
    }
}
