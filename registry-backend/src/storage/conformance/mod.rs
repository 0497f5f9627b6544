//! The promises of [`Driver`], each as a check that every driver must pass.

mod appends;

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use super::layout::{self, Key};
use super::{Driver, Durability, Error, Piece, Read, Stat, Wait};

/// Checks every promise.
pub(crate) fn check(driver: &dyn Driver) {
    what_is_not_there_is_not_found(driver);
    an_object_is_read_as_it_was_written(driver);
    an_object_of_any_size_is_read_whole_or_not_at_all(driver);
    an_object_is_replaced_in_one_step(driver);
    what_is_open_stays_readable(driver);
    objects_are_put_step_by_step(driver);
    a_folder_is_listed_in_order(driver);
    many_are_read_and_listed_as_one_is(driver);
    a_folder_is_deleted_whole_and_can_be_made_again(driver);
    some_of_a_folder_are_deleted_and_the_rest_is_not(driver);
    appends::an_append_goes_on_where_the_last_one_ended(driver);
    appends::an_append_is_cut_back(driver);
    appends::an_append_takes_parts_of_any_size(driver);
    appends::an_append_outruns_the_disk_no_further_than_it_may(driver);
    a_published_object_has_left_its_old_place(driver);
    a_published_object_replaces_another(driver);
    writers_of_one_key_end_with_the_whole_content_of_one(driver);
    a_folder_is_locked_by_one_at_a_time(driver);
    old_leftovers_are_swept(driver);
}

/// Asks without waiting and with: where the first brings an answer, it is that of the second.
fn asked<T: Debug>(ask: impl Fn(Wait) -> Result<T, Error>) -> Result<T, Error> {
    let at_hand = ask(Wait::Never);
    let answer = ask(Wait::AsNeeded);
    assert!(!matches!(answer, Err(Error::WouldWait { .. })));
    if !matches!(at_hand, Err(Error::WouldWait { .. })) {
        assert_eq!(format!("{at_hand:?}"), format!("{answer:?}"));
    }
    answer
}

/// Reads an object, alone and with the object itself.
fn read(driver: &dyn Driver, key: &Key, size_max: u64) -> Result<Vec<u8>, Error> {
    let read = asked(|wait| driver.read(key, size_max, wait));
    let and_opened = asked(|wait| {
        let (content, open) = driver.read_open(key, size_max, wait)?;
        let mut again = vec![0; content.len()];
        open.read_at(0, &mut again).unwrap();
        assert_eq!(open.size_bytes(), content.len() as u64);
        assert!(again == content, "{key}");
        Ok(content)
    });
    assert_eq!(format!("{and_opened:?}"), format!("{read:?}"));
    read
}

fn stat(driver: &dyn Driver, key: &Key) -> Result<Stat, Error> {
    asked(|wait| driver.stat(key, wait))
}

/// Opens an object in each of the ways that it can be.
fn open(driver: &dyn Driver, key: &Key) -> Vec<Result<Box<dyn Read>, Error>> {
    [Wait::Never, Wait::AsNeeded]
        .into_iter()
        .map(|wait| driver.open(key, wait))
        .filter(|opened| !matches!(opened, Err(Error::WouldWait { .. })))
        .collect()
}

/// A folder of its own for a check.
fn folder(name: &str) -> Key {
    layout::repositories().child(name)
}

fn both() -> [Durability; 2] {
    [Durability::Process, Durability::Power]
}

fn what_is_not_there_is_not_found(driver: &dyn Driver) {
    let folder = folder("absent");
    let object = folder.child("object");
    driver.write(&object, b"", Durability::Process).unwrap();
    for key in [
        folder.child("nothing"),
        folder.child("no/folder"),
        object.child("below"),
    ] {
        assert!(matches!(read(driver, &key, 1), Err(Error::NotFound { .. })));
        for opened in open(driver, &key) {
            assert!(matches!(opened, Err(Error::NotFound { .. })));
        }
        assert!(matches!(stat(driver, &key), Err(Error::NotFound { .. })));
        assert!(matches!(driver.list(&key), Err(Error::NotFound { .. })));
        for durability in both() {
            let deleted = driver.delete(&key, durability);
            assert!(matches!(deleted, Err(Error::NotFound { .. })));
        }
    }
    assert!(matches!(driver.list(&object), Err(Error::NotFound { .. })));
    assert!(matches!(
        read(driver, &folder, 1),
        Err(Error::NotFound { .. })
    ));
}

fn an_object_is_read_as_it_was_written(driver: &dyn Driver) {
    for durability in both() {
        let key = folder("written").child(&format!("{durability:?}"));
        driver.write(&key, b"content", durability).unwrap();
        assert_eq!(read(driver, &key, 7).unwrap(), b"content");
        assert!(matches!(
            read(driver, &key, 6),
            Err(Error::TooLarge { size_max: 6, .. })
        ));
        assert_eq!(stat(driver, &key).unwrap().size_bytes, 7);
        for open in open(driver, &key) {
            let open = open.unwrap();
            assert_eq!(open.size_bytes(), 7);
            let mut part = [0; 3];
            open.read_at(2, &mut part).unwrap();
            assert_eq!(&part, b"nte");
            assert!(matches!(open.read_at(5, &mut part), Err(Error::Io { .. })));
        }
    }
}

/// Sizes at and beside those of pages and of buffers.
fn an_object_of_any_size_is_read_whole_or_not_at_all(driver: &dyn Driver) {
    let bytes: Vec<u8> = (0..=250).cycle().take(1 << 20).collect();
    for edge in [0_i32, 256, 4096, 8192, 65_536, 1 << 20] {
        for size in [edge - 1, edge, edge + 1] {
            let Some(wanted) = usize::try_from(size)
                .ok()
                .and_then(|size| bytes.get(..size))
            else {
                continue;
            };
            let key = folder("sized").child(&size.to_string());
            driver.write(&key, wanted, Durability::Process).unwrap();
            for more in [0, 1, 5000] {
                let size_max = wanted.len() as u64 + more;
                assert!(read(driver, &key, size_max).unwrap() == wanted, "{size}");
            }
            if let Some(size_max) = wanted.len().checked_sub(1) {
                let refused = read(driver, &key, size_max as u64);
                assert!(matches!(refused, Err(Error::TooLarge { .. })), "{size}");
            }
        }
    }
}

fn an_object_is_replaced_in_one_step(driver: &dyn Driver) {
    for durability in both() {
        let key = folder("replaced").child("object");
        driver.write(&key, b"a longer content", durability).unwrap();
        driver.write(&key, b"short", durability).unwrap();
        assert_eq!(read(driver, &key, 100).unwrap(), b"short");
    }
}

fn what_is_open_stays_readable(driver: &dyn Driver) {
    let key = folder("open").child("object");
    driver.write(&key, b"old", Durability::Process).unwrap();
    let open = open(driver, &key);
    driver.write(&key, b"new", Durability::Process).unwrap();
    let (_, new) = driver.read_open(&key, 3, Wait::AsNeeded).unwrap();
    driver.delete(&key, Durability::Power).unwrap();
    let mut content = [0; 3];
    new.read_at(0, &mut content).unwrap();
    assert_eq!(&content, b"new");
    for open in open {
        let mut content = [0; 3];
        open.unwrap().read_at(0, &mut content).unwrap();
        assert_eq!(&content, b"old");
    }
}

/// Few and many, new ones and others in their place. A reader who finds one of a step finds all of
/// those before it.
fn objects_are_put_step_by_step(driver: &dyn Driver) {
    let folder = folder("steps");
    let is = |key: &Key, content: &[u8]| {
        driver
            .read(key, 9, Wait::AsNeeded)
            .is_ok_and(|it| it == content)
    };
    driver.write_in_steps(&[]).unwrap();
    driver.write_in_steps(&[&[], &[]]).unwrap();
    for (count, content) in [(1, b"1"), (2, b"2"), (100, b"3"), (100, b"4")] {
        let keys = |step: &str| -> Vec<Key> {
            let key = |number: u32| folder.child(&format!("{number}/{step}/object"));
            (0..count).map(key).collect()
        };
        let (first, second) = (keys("first"), keys("second"));
        let writes = |keys: &[Key]| -> Vec<_> {
            let write = |key: &Key| (key.clone(), &content[..]);
            keys.iter().map(write).collect()
        };
        let written = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let done = || written.load(Ordering::SeqCst);
                while !done() && !second.iter().any(|key| is(key, content)) {
                    std::thread::yield_now();
                }
                first.iter().all(|key| is(key, content))
            });
            let steps = [writes(&first), writes(&second)];
            let result = driver.write_in_steps(&[&steps[0], &[], &steps[1]]);
            written.store(true, Ordering::SeqCst);
            result.unwrap();
            assert!(reader.join().unwrap(), "{count}");
        });
        assert!(second.iter().all(|key| is(key, content)));
    }
    assert!(driver.list(&layout::staging()).unwrap().is_empty());
}

fn a_folder_is_listed_in_order(driver: &dyn Driver) {
    let folder = folder("listed");
    for name in ["b", "a-b", "A", "a/inner", "é"] {
        driver
            .write(&folder.child(name), b"", Durability::Process)
            .unwrap();
    }
    driver.make_folder(&folder.child("empty")).unwrap();
    driver.make_folder(&folder.child("empty")).unwrap();
    let listed: Vec<(String, bool)> = driver
        .list(&folder)
        .unwrap()
        .into_iter()
        .map(|entry| (entry.name, entry.is_folder))
        .collect();
    let expected = [
        ("A", false),
        ("a", true),
        ("a-b", false),
        ("b", false),
        ("empty", true),
        ("é", false),
    ];
    assert_eq!(
        listed,
        expected.map(|(name, is_folder)| (name.to_owned(), is_folder))
    );
    let mut visited = Vec::new();
    driver
        .visit(&folder, &mut |name| visited.push(name.to_owned()))
        .unwrap();
    visited.sort_unstable();
    assert_eq!(visited, expected.map(|(name, _)| name));
    let nothing = driver.visit(&folder.child("nothing"), &mut |name| {
        panic!("{name} is not there")
    });
    assert!(matches!(nothing, Err(Error::NotFound { .. })));
}

fn many_are_read_and_listed_as_one_is(driver: &dyn Driver) {
    let folder = folder("many");
    let names: Vec<String> = (0..40).map(|number| format!("{number:02}")).collect();
    for (number, name) in names.iter().enumerate() {
        let child = folder.child(name);
        match number % 4 {
            0 => driver.make_folder(&child).unwrap(),
            1 => {} // not there
            _ => {
                let content = vec![b'x'; number];
                let key = child.child("at/rest");
                driver.write(&key, &content, Durability::Process).unwrap();
            }
        }
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for (folder, names) in [
        (&folder, names.as_slice()),
        (&folder, &names[..3]),
        (&folder, &[]),
        (&folder.child("nothing"), &names),
    ] {
        let read = driver.read_each(folder, names, "at/rest", 30);
        let listed = driver.list_each(folder, names);
        assert_eq!((read.len(), listed.len()), (names.len(), names.len()));
        for (name, (read, listed)) in names.iter().zip(read.into_iter().zip(listed)) {
            let child = folder.child(name);
            let one = driver.read(&child.child("at/rest"), 30, Wait::AsNeeded);
            assert_eq!(format!("{read:?}"), format!("{one:?}"));
            assert_eq!(format!("{listed:?}"), format!("{:?}", driver.list(&child)));
        }
    }
}

fn a_folder_is_deleted_whole_and_can_be_made_again(driver: &dyn Driver) {
    let folder = folder("deleted");
    let inner = folder.child("inner/object");
    for durability in both() {
        driver.write(&inner, b"x", Durability::Power).unwrap();
        driver.delete(&folder, durability).unwrap();
        assert!(matches!(stat(driver, &folder), Err(Error::NotFound { .. })));
        assert!(matches!(
            read(driver, &inner, 1),
            Err(Error::NotFound { .. })
        ));
    }
    driver.make_folder(&folder.child("inner")).unwrap();
    assert!(stat(driver, &folder.child("inner")).is_ok());
    driver.delete(&folder, Durability::Process).unwrap();
    driver.make_folder(&folder.child("inner")).unwrap();
    assert!(stat(driver, &folder.child("inner")).is_ok());
}

fn some_of_a_folder_are_deleted_and_the_rest_is_not(driver: &dyn Driver) {
    let folder = folder("thinned");
    for name in ["a", "b/inner", "c", "d/inner"] {
        let key = folder.child(name);
        driver.write(&key, b"x", Durability::Power).unwrap();
    }
    driver
        .delete_each(&folder, &["b", "a", "not-there"])
        .unwrap();
    driver.delete_each(&folder, &[]).unwrap();
    driver
        .delete_each(&folder.child("nothing"), &["a"])
        .unwrap();
    let left = driver.list(&folder).unwrap().into_iter();
    assert_eq!(left.map(|it| it.name).collect::<Vec<_>>(), ["c", "d"]);
}

fn a_published_object_has_left_its_old_place(driver: &dyn Driver) {
    let (from, to) = (
        folder("published").child("data"),
        folder("published").child("new/place"),
    );
    let mut append = driver.append(&from).unwrap();
    append.write(b"content").unwrap();
    append.publish(&to).unwrap();
    assert!(matches!(stat(driver, &from), Err(Error::NotFound { .. })));
    assert_eq!(read(driver, &to, 100).unwrap(), b"content");
    // One that holds nothing is an object, too.
    driver
        .append(&from)
        .unwrap()
        .publish(&folder("published").child("new/empty"))
        .unwrap();
    assert_eq!(
        stat(driver, &folder("published").child("new/empty"))
            .unwrap()
            .size_bytes,
        0
    );
}

fn a_published_object_replaces_another(driver: &dyn Driver) {
    let (from, to) = (
        folder("replacing").child("data"),
        folder("replacing").child("object"),
    );
    driver.write(&to, b"torn", Durability::Power).unwrap();
    let mut append = driver.append(&from).unwrap();
    append.write(b"whole").unwrap();
    append.publish(&to).unwrap();
    assert_eq!(read(driver, &to, 100).unwrap(), b"whole");
}

fn writers_of_one_key_end_with_the_whole_content_of_one(driver: &dyn Driver) {
    let key = folder("contended").child("deep/er/object");
    let read = |wait| match driver.read(&key, 10_000, wait) {
        Err(Error::WouldWait { .. }) if wait == Wait::Never => {}
        read => {
            let read = read.unwrap();
            assert!(read.len() == 10_000 && read.iter().all(|byte| *byte == read[0]));
        }
    };
    let write = |writer: u8| {
        for durability in both() {
            driver.write(&key, &[writer; 10_000], durability).unwrap();
            read(Wait::Never);
            read(Wait::AsNeeded);
        }
    };
    std::thread::scope(|scope| {
        for writer in 0..8 {
            scope.spawn(move || write(writer));
        }
    });
}

fn a_folder_is_locked_by_one_at_a_time(driver: &dyn Driver) {
    let (locked, other) = (folder("locked"), folder("other"));
    let try_lock = |folder: &Key| match driver.try_lock(folder, Wait::Never) {
        Err(Error::WouldWait { .. }) => driver.try_lock(folder, Wait::AsNeeded),
        answer => answer,
    };
    assert!(matches!(try_lock(&locked), Err(Error::NotFound { .. })));
    for folder in [&locked, &other] {
        driver.make_folder(folder).unwrap();
    }
    let lock = try_lock(&locked).unwrap();
    assert!(lock.is_some());
    assert!(try_lock(&locked).unwrap().is_none());
    assert!(try_lock(&other).unwrap().is_some());
    // What is locked can be removed; what comes in its place is another one.
    driver.delete(&locked, Durability::Power).unwrap();
    driver.make_folder(&locked).unwrap();
    assert!(try_lock(&locked).unwrap().is_some());
    drop(lock);
    assert!(try_lock(&locked).unwrap().is_some());
}

fn old_leftovers_are_swept(driver: &dyn Driver) {
    let now = SystemTime::now();
    for name in ["leftover", "folder/leftover"] {
        let key = layout::staging().child(name);
        driver.write(&key, b"x", Durability::Process).unwrap();
    }
    assert_eq!(driver.sweep(now - Duration::from_secs(60)).unwrap(), 0);
    assert_eq!(driver.sweep(now + Duration::from_secs(60)).unwrap(), 2);
    assert!(driver.list(&layout::staging()).unwrap().is_empty());
}
