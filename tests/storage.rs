//! The spool and the dead-letter file under damage: corrupted, truncated, swapped and foreign files, full disks,
//! killed processes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::single_range_in_vec_init)]

use kubehose::storage::chunks::{Chunks, Damaged, Found, Loaded, SyncMode};
use kubehose::storage::letters::{DeadLetter, Letters};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A chunk's events are lines here; an event's number is its line number.
fn body(seed: u64, events: usize) -> Vec<u8> {
    (0..events).flat_map(|event| format!("chunk {seed} event {event} {:0>9}\n", seed * 31).into_bytes()).collect()
}

fn identity(bytes: &[u8]) -> [u8; 16] {
    kubehose::delivery::Identity::of(b"kube.a", bytes).to_bytes()
}

fn open(folder: &Path) -> (Chunks, Vec<Found>, Vec<Damaged>) {
    Chunks::open(folder, 1 << 30, SyncMode::None).unwrap()
}

fn add(chunks: &mut Chunks, bytes: &[u8]) -> u64 {
    let id = chunks.next_id();
    chunks.add(id, identity(bytes), "logs", b"kube.a", bytes).unwrap();
    id
}

fn name(id: u64, ending: &str) -> String {
    format!("{id:012}.{ending}")
}

/// Every file in a folder, with its content.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    files.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

/// The lines of a chunk that would be sent.
fn sent(loaded: &Loaded) -> BTreeSet<Vec<u8>> {
    let lines = loaded.bytes.split_inclusive(|byte| *byte == b'\n').enumerate();
    let open = lines.filter(|(event, _)| !loaded.settled.iter().any(|range| range.contains(&(*event as u32))));
    open.map(|(_, line)| line.to_vec()).collect()
}

const EVENTS: usize = 40;

/// A folder with three chunks, two of them partly settled. Returns each chunk's bytes and its settled events.
fn prepare(folder: &Path) -> Vec<(u64, Vec<u8>, Vec<Range<u32>>)> {
    let (mut chunks, _, _) = open(folder);
    let mut all = Vec::new();
    for (seed, settled) in [(1, vec![3..9, 20..21]), (2, vec![0..5, 30..40]), (3, vec![])] {
        let bytes = body(seed, EVENTS);
        let id = add(&mut chunks, &bytes);
        for range in &settled {
            chunks.settle(id, std::slice::from_ref(range)).unwrap();
        }
        all.push((id, bytes, settled));
    }
    all
}

fn corrupt(random: &mut fastrand::Rng, folder: &Path) -> String {
    let files: Vec<(String, Vec<u8>)> = contents(folder).into_iter().filter(|(name, _)| name != "lock").collect();
    let (name, mut bytes) = files[random.usize(..files.len())].clone();
    let path = folder.join(&name);
    if bytes.len() < 8 {
        fs::write(&path, b"garbage").unwrap();
        return format!("{name} is garbage");
    }
    let what = match random.u32(..10) {
        0..4 => {
            let (byte, bit) = (random.usize(..bytes.len()), random.u32(..8));
            bytes[byte] ^= 1 << bit;
            format!("bit {bit} of byte {byte} of {name} flipped")
        }
        4 => {
            // Prefer the head: it is small compared with the events and would rarely be hit otherwise.
            let byte = random.usize(..90.min(bytes.len()));
            bytes[byte] = random.u8(..);
            format!("byte {byte} of {name} changed")
        }
        5 => {
            bytes.truncate(random.usize(..=bytes.len()));
            format!("{name} cut to {}", bytes.len())
        }
        6 => {
            let more = random.usize(1..100);
            bytes.extend((0..more).map(|_| random.u8(..)));
            format!("{more} bytes appended to {name}")
        }
        7 => {
            let (other, _) = &files[random.usize(..files.len())];
            let aside = folder.join("aside");
            fs::rename(&path, &aside).unwrap();
            if *other != name {
                fs::rename(folder.join(other), &path).unwrap();
            }
            fs::rename(&aside, folder.join(other)).unwrap();
            return format!("{name} and {other} swapped");
        }
        8 => {
            bytes[7] = b'0' + random.u8(..10);
            format!("{name} has another version")
        }
        _ => {
            let from = random.usize(..bytes.len());
            let to = random.usize(from..bytes.len());
            bytes[from..to].fill(0);
            format!("{from}..{to} of {name} zeroed")
        }
    };
    fs::write(&path, bytes).unwrap();
    what
}

#[test]
fn ten_thousand_corruptions_lose_no_event_that_a_file_still_holds_and_delete_no_file() {
    let rounds = std::env::var("CORRUPTIONS").map_or(10_000, |text| text.parse().unwrap());
    let base = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let original = base.path().join("original");
    let chunks = prepare(&original);
    let originals = contents(&original);
    let (mut with_damage, mut beyond) = (0, 0);
    for seed in 0..rounds {
        let mut random = fastrand::Rng::with_seed(seed);
        let folder = base.path().join("spool");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        for (name, bytes) in &originals {
            fs::write(folder.join(name), bytes).unwrap();
        }
        let what: Vec<String> = (0..random.u32(1..=2)).map(|_| corrupt(&mut random, &folder)).collect();
        let before = contents(&folder);
        let (mut spool, found, damaged) = open(&folder);
        let loaded: Vec<(u64, Loaded)> =
            found.iter().map(|found| (found.id, spool.load(found.id, Vec::new()).unwrap())).collect();
        let sent: BTreeSet<Vec<u8>> = loaded.iter().flat_map(|(_, loaded)| sent(loaded)).collect();
        // Nothing is deleted: each file still exists, under its own name or as `*.bad`.
        let after = contents(&folder);
        for (name, bytes) in &before {
            let bad = |other: &str| other.ends_with(".bad") && other.starts_with(&name[..name.len().min(12)]);
            let kept = after.iter().any(|(other, kept)| (other == name || bad(other)) && kept == bytes);
            assert!(kept, "seed {seed}: {what:?}: {name} was deleted");
        }
        let quarantined: Vec<&Vec<u8>> = damaged.iter().map(|damaged| &after[file_name(&damaged.file)]).collect();
        for (id, bytes, settled) in &chunks {
            for (event, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
                let open = !settled.iter().any(|range| range.contains(&(event as u32)));
                if open && !sent.contains(line) && before.values().any(|file| holds(file, line)) {
                    let kept = quarantined.iter().any(|file| holds(file, line)) || merged_with_damage(&loaded, line);
                    assert!(kept, "seed {seed}: {what:?}: event {event} of chunk {id} is lost");
                }
            }
        }
        // If a chunk's content was changed, the chunk is reported as damaged.
        for (id, loaded) in &loaded {
            let genuine = chunks.iter().any(|(_, bytes, _)| *bytes == loaded.bytes);
            assert!(
                genuine || loaded.damage.is_some(),
                "seed {seed}: {what:?}: chunk {id} is changed, but not reported as damaged"
            );
            with_damage += u32::from(loaded.damage.is_some());
            if loaded.damage.is_some() {
                let file = spool.quarantine(*id).unwrap();
                assert!(file.exists() && file.to_string_lossy().ends_with(".bad"));
            } else {
                spool.remove(*id).unwrap();
            }
        }
        beyond += damaged.len();
        assert_eq!(spool.used(), 0);
        drop(spool);
        fs::remove_dir_all(&folder).unwrap();
    }
    // Enough corruptions had an effect.
    assert!(with_damage > rounds as u32 / 4 && beyond > rounds as usize / 50, "{with_damage} {beyond}");
}

fn file_name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

fn holds(file: &[u8], line: &[u8]) -> bool {
    file.windows(line.len()).any(|window| window == line)
}

/// Whether the line was sent as one with its neighbour, whose newline was damaged.
fn merged_with_damage(loaded: &[(u64, Loaded)], line: &[u8]) -> bool {
    loaded.iter().any(|(_, loaded)| loaded.damage.is_some() && loaded.settled.is_empty() && holds(&loaded.bytes, line))
}

#[test]
fn chunks_come_back_in_order_with_their_settled_events() {
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("deep/spool");
    let chunks = prepare(&spool);
    assert_eq!(fs::metadata(&spool).unwrap().permissions().mode() & 0o777, 0o700);
    for (name, _) in contents(&spool) {
        assert_eq!(fs::metadata(spool.join(&name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
    let (mut spool_again, found, damaged) = open(&spool);
    assert!(damaged.is_empty());
    assert_eq!(found.iter().map(|found| found.id).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(spool_again.next_id(), 4);
    for (id, bytes, settled) in &chunks {
        let loaded = spool_again.load(*id, Vec::new()).unwrap();
        assert_eq!((&loaded.bytes, &loaded.settled, loaded.damage), (bytes, settled, None));
        assert_eq!(loaded.tag, b"kube.a");
        spool_again.settle(*id, &[0..20, 21..40, 40..40]).unwrap();
        spool_again.remove(*id).unwrap();
    }
    drop(spool_again);
    assert_eq!(contents(&spool).into_keys().collect::<Vec<_>>(), ["lock"]);
}

#[test]
fn notes_apply_only_to_their_own_chunk() {
    let folder = tempfile::tempdir().unwrap();
    let (mut chunks, _, _) = open(folder.path());
    // Both chunks have the same bytes and tag: only the salt differs.
    let bytes = body(7, EVENTS);
    let (first, second) = (add(&mut chunks, &bytes), add(&mut chunks, &bytes));
    chunks.settle(first, &[0..10, 12..13]).unwrap();
    chunks.settle(first, &[10..12]).unwrap();
    assert_eq!(chunks.load(first, Vec::new()).unwrap().settled, [Range { start: 0, end: 13 }]);
    fs::rename(folder.path().join(name(first, "acked")), folder.path().join(name(second, "acked"))).unwrap();
    let loaded = chunks.load(second, Vec::new()).unwrap();
    assert!(loaded.settled.is_empty() && loaded.disbelieved == 3);
    // Ranges beyond the chunk's last event are ignored, and do not affect the next range.
    chunks.settle(second, &[5..u32::MAX, 7..8]).unwrap();
    assert_eq!(chunks.load(second, Vec::new()).unwrap().settled, [Range { start: 7, end: 8 }]);
}

#[test]
fn a_write_cut_at_any_byte_loses_nothing_written_before() {
    let base = tempfile::tempdir().unwrap();
    let original = base.path().join("original");
    let chunks = prepare(&original);
    let files = contents(&original);
    let notes = &files[&name(1, "acked")];
    let whole = files[&name(3, "chunk")].len();
    for (file, cut) in (0..=notes.len()).map(|cut| (name(1, "acked"), cut)).chain(
        // A chunk that is still being written has its temporary name.
        (0..=whole).map(|cut| (name(3, "kubehose-tmp"), cut)),
    ) {
        let folder = base.path().join("spool");
        fs::create_dir(&folder).unwrap();
        for (name, bytes) in &files {
            fs::write(folder.join(name), bytes).unwrap();
        }
        if file.ends_with("tmp") {
            fs::rename(folder.join(name(3, "chunk")), folder.join(&file)).unwrap();
        }
        fs::OpenOptions::new().write(true).open(folder.join(&file)).unwrap().set_len(cut as u64).unwrap();
        let (mut spool, found, damaged) = open(&folder);
        assert!(damaged.is_empty(), "{file} cut at {cut}: {damaged:?}");
        assert_eq!(found.len(), if file.ends_with("tmp") { 2 } else { 3 });
        assert!(!folder.join(name(3, "kubehose-tmp")).exists());
        let loaded = spool.load(1, Vec::new()).unwrap();
        if file.ends_with("acked") {
            // All complete entries after the magic number are read.
            assert_eq!(loaded.settled, chunks[0].2[..(cut / 16).saturating_sub(1)], "cut at {cut}");
            spool.settle(1, &[33..34]).unwrap();
            let settled = spool.load(1, Vec::new()).unwrap().settled;
            assert_eq!(settled.last(), Some(&(33..34)), "a note written after a cut at {cut} is read");
            assert_eq!(settled.len(), loaded.settled.len() + 1);
        }
        drop(spool);
        let (_spool, found, damaged) = open(&folder);
        assert!(damaged.is_empty() && found.len() >= 2);
        fs::remove_dir_all(&folder).unwrap();
    }
}

#[test]
fn foreign_files_and_other_kinds_of_files_stay_as_they_are() {
    let base = tempfile::tempdir().unwrap();
    let folder = base.path().join("spool");
    prepare(&folder);
    let target = base.path().join("precious");
    fs::write(&target, "precious").unwrap();
    for foreign in ["film.part", "notes.txt", "12.chunk", "000000000050.CHUNK", "000000000051.kubehose-tmp", "x.acked"]
    {
        fs::write(folder.join(foreign), "mine").unwrap();
    }
    for (number, ending) in (60..).zip(["chunk", "acked", "kubehose-tmp", "bad", "acked.bad"]) {
        symlink(&target, folder.join(name(number, ending))).unwrap();
        fs::create_dir(folder.join(name(number + 10, ending))).unwrap();
        let fifo = Command::new("mkfifo").arg(folder.join(name(number + 20, ending))).status().unwrap();
        assert!(fifo.success());
    }
    let before = listing(&folder);
    let (mut spool, found, damaged) = open(&folder);
    assert_eq!(found.len(), 3);
    assert_eq!(spool.next_id(), 85, "no number is reused");
    let reasons: String = damaged.iter().map(|damaged| format!("{}\n", damaged.reason)).collect();
    for (kind, count) in [("a symbolic link", 5), ("a folder", 5), ("a pipe", 5), ("did not write it", 1)] {
        assert_eq!(reasons.matches(kind).count(), count, "{reasons}");
    }
    for found in &found {
        spool.remove(found.id).unwrap();
    }
    for _ in 0..8 {
        let id = add(&mut spool, b"more\n");
        spool.remove(id).unwrap();
    }
    drop(spool);
    let expected: BTreeSet<String> = before.into_iter().filter(|file| !file.starts_with("00000000000")).collect();
    assert_eq!(listing(&folder), expected);
    assert_eq!(fs::read(&target).unwrap(), b"precious");
    assert_eq!(fs::read(folder.join("film.part")).unwrap(), b"mine");
}

/// Names and types of all files.
fn listing(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| format!("{} {:?}", entry.file_name().display(), entry.file_type().unwrap())).collect()
}

#[test]
fn files_replaced_while_the_spool_is_open_are_neither_followed_nor_overwritten() {
    let base = tempfile::tempdir().unwrap();
    let folder = base.path().join("spool");
    let (mut spool, _, _) = open(&folder);
    let target = base.path().join("precious");
    fs::write(&target, "precious").unwrap();
    let bytes = body(1, 10);
    // The notes, the chunk itself and the next chunk's file are replaced by symbolic links.
    let id = add(&mut spool, &bytes);
    symlink(&target, folder.join(name(id, "acked"))).unwrap();
    let error = spool.settle(id, &[Range { start: 0, end: 1 }]).unwrap_err().to_string();
    assert!(error.contains("acked") && error.contains("symbolic link"), "{error}");
    assert!(spool.load(id, Vec::new()).unwrap().settled.is_empty());
    fs::remove_file(folder.join(name(id, "chunk"))).unwrap();
    symlink(&target, folder.join(name(id, "chunk"))).unwrap();
    assert!(spool.load(id, Vec::new()).unwrap_err().to_string().contains("symbolic link"));
    assert!(spool.remove(id).is_err());
    for ending in ["kubehose-tmp", "chunk"] {
        let next = spool.next_id();
        symlink(&target, folder.join(name(next, ending))).unwrap();
        assert!(spool.add(next, [0; 16], "logs", b"t", &bytes).is_err());
        assert!(folder.join(name(next, ending)).is_symlink(), "a foreign file with our file's name is not removed");
    }
    // A spool file waiting to be reused must not be overwritten if it has another hard link.
    let id = add(&mut spool, &bytes);
    let link = base.path().join("backup");
    fs::hard_link(folder.join(name(id, "chunk")), &link).unwrap();
    let kept = fs::read(&link).unwrap();
    spool.remove(id).unwrap();
    add(&mut spool, &body(9, 10));
    assert_eq!(fs::read(&link).unwrap(), kept);
    assert_eq!(fs::read(&target).unwrap(), b"precious");
}

#[test]
fn a_folder_that_is_not_safe_or_in_use_is_refused_with_the_fix() {
    let base = tempfile::tempdir().unwrap();
    let folder = base.path().join("spool");
    fs::create_dir(&folder).unwrap();
    // Like a Kubernetes emptyDir.
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    drop(open(&folder));
    let refused = |folder: &Path| Chunks::open(folder, 1 << 20, SyncMode::None).unwrap_err().to_string();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    if std::os::unix::fs::chown(&folder, Some(65534), None).is_ok() {
        assert!(refused(&folder).contains("belongs to user 65534"), "{}", refused(&folder));
        std::os::unix::fs::chown(&folder, Some(0), None).unwrap();
    }
    let target = base.path().join("precious");
    fs::write(&target, "precious").unwrap();
    fs::remove_file(folder.join("lock")).unwrap();
    symlink(&target, folder.join("lock")).unwrap();
    assert!(refused(&folder).contains("symbolic link"), "{}", refused(&folder));
    fs::remove_file(folder.join("lock")).unwrap();
    assert!(refused(&target).contains(target.to_str().unwrap()));
    let (mut first, _, _) = open(&folder);
    assert!(refused(&folder).contains("in use by another process or output"), "{}", refused(&folder));
    // Another thread releases the lock; the old instance can write nothing any more.
    let id = add(&mut first, b"event\n");
    let revoker = first.revoker();
    std::thread::spawn(move || revoker.revoke()).join().unwrap();
    let (second, found, _) = open(&folder);
    assert_eq!(found.len(), 1);
    assert!(first.add(first.next_id(), [0; 16], "logs", b"t", b"late\n").is_err());
    assert!(first.remove(id).is_err() && first.settle(id, &[Range { start: 0, end: 1 }]).is_err());
    drop(first);
    assert!(refused(&folder).contains("in use"), "dropping the old instance does not release the new one's lock");
    drop(second);
    open(&folder);
}

#[test]
fn the_limit_holds_and_names_the_damaged_files_that_fill_it() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, _, _) = Chunks::open(folder.path(), 10_000, SyncMode::None).unwrap();
    let first = add(&mut spool, &[1; 6000]);
    let full = spool.add(spool.next_id(), [0; 16], "logs", b"t", &[2; 6000]).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    assert_eq!(contents(folder.path()).len(), 2);
    let bad = spool.quarantine(first).unwrap();
    let full = spool.add(spool.next_id(), [0; 16], "logs", b"t", &[2; 6000]).unwrap_err();
    assert!(full.kind() == io::ErrorKind::StorageFull && full.to_string().contains("*.bad"), "{full}");
    fs::remove_file(bad).unwrap();
    // Files kept for reuse make room, and a shorter chunk leaves no bytes of the longer one it overwrites.
    for size in [6000, 100, 7000, 0, 9000] {
        let bytes = vec![size as u8; size];
        let id = add(&mut spool, &bytes);
        assert_eq!(spool.load(id, Vec::new()).unwrap().bytes, bytes);
        let files: usize = contents(folder.path()).values().map(Vec::len).sum();
        assert!(files <= 10_000 && spool.used() <= 10_000);
        spool.remove(id).unwrap();
    }
    assert_eq!(spool.used(), 0);
}

#[test]
fn an_interval_sync_is_due_once_after_a_write() {
    let folder = tempfile::tempdir().unwrap();
    let every = Duration::from_secs(1);
    let (mut spool, _, _) = Chunks::open(folder.path(), 1 << 20, SyncMode::Interval(every)).unwrap();
    assert_eq!(spool.sync_due(), None);
    let id = add(&mut spool, b"event\n");
    spool.settle(id, &[Range { start: 0, end: 1 }]).unwrap();
    let due = spool.sync_due().unwrap();
    spool.sync_if_due(due - Duration::from_millis(1)).unwrap();
    assert_eq!(spool.sync_due(), Some(due));
    spool.sync_if_due(due).unwrap();
    assert_eq!(spool.sync_due(), None);
    // If a file has vanished, the error names it.
    let id = add(&mut spool, b"event\n");
    fs::remove_file(folder.path().join(name(id, "chunk"))).unwrap();
    let error = spool.sync_now().unwrap_err().to_string();
    assert!(error.contains(&name(id, "chunk")), "{error}");
    drop(spool);
    let (mut spool, _, _) = Chunks::open(folder.path(), 1 << 20, SyncMode::Always).unwrap();
    let id = add(&mut spool, b"event\n");
    assert_eq!((spool.sync_due(), spool.load(id, Vec::new()).unwrap().damage), (None, None));
}

/// A file system of a given size in KiB; `mount` returns None where the process may not mount one.
struct Small(PathBuf);

impl Small {
    fn mount(folder: &Path, kibibytes: u32) -> Option<Small> {
        let size = format!("size={kibibytes}k,mode=700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Small(folder.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_an_error_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_small) = Small::mount(folder.path(), 256) else {
        eprintln!("no file system can be mounted here: the full disk is not tried");
        return;
    };
    let path = folder.path().join("dead");
    let (mut spool, _, _) = open(&folder.path().join("spool"));
    let first = add(&mut spool, &body(1, 1000));
    let before = contents(&folder.path().join("spool"));
    let error = spool.add(spool.next_id(), [0; 16], "logs", b"t", &vec![b'x'; 500_000]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
    assert_eq!(contents(&folder.path().join("spool")), before);
    let mut letters = Letters::open(&path, 1 << 30).unwrap();
    let letter = |size: usize| DeadLetter::new("t", "logs", "refused", vec![b'x'; size]);
    letters.write(&letter(1000)).unwrap();
    assert_eq!(letters.write(&letter(500_000)).unwrap_err().kind(), io::ErrorKind::StorageFull);
    letters.write(&letter(2000)).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let sizes: Vec<u64> = text.lines().map(|line| serde_json::from_str::<DeadLetter>(line).unwrap().bytes).collect();
    assert_eq!(sizes, [1000, 2000]);
    // Writing a note on a full disk fails, and a later note is still read.
    fs::write(folder.path().join("fill"), vec![0; 300_000]).unwrap_err();
    assert!(spool.settle(first, &[Range { start: 0, end: 1 }]).is_err());
    fs::remove_file(folder.path().join("fill")).unwrap();
    spool.settle(first, &[Range { start: 4, end: 5 }]).unwrap();
    assert_eq!(spool.load(first, Vec::new()).unwrap().settled, [Range { start: 4, end: 5 }]);
}

/// Adds, settles and removes chunks until it is killed; prints each addition after doing it, and the others before.
#[test]
#[ignore = "run by the test that kills it"]
fn the_process_that_is_killed() {
    use std::io::Write;
    let Some(folder) = std::env::var_os("KUBEHOSE_TEST_SPOOL").map(PathBuf::from) else { return };
    let (mut spool, found, damaged) = open(&folder);
    assert!(damaged.is_empty());
    let mut live: Vec<u64> = found.iter().map(|found| found.id).collect();
    let mut random = fastrand::Rng::new();
    let tell = |text: String| {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).unwrap();
        out.flush().unwrap();
    };
    loop {
        match (random.u32(..3), live.len()) {
            (0, 1..) | (_, 12..) => {
                let id = live.swap_remove(random.usize(..live.len()));
                tell(format!("removing {id}\n"));
                spool.remove(id).unwrap();
            }
            (1, 1..) => {
                let id = live[random.usize(..live.len())];
                let event = random.u32(..10);
                tell(format!("settling {id} {event}\n"));
                spool.settle(id, &[Range { start: event, end: event + 1 }]).unwrap();
            }
            _ => {
                let id = spool.next_id();
                let bytes = body(id, random.usize(10..2000));
                spool.add(id, identity(&bytes), "logs", b"kube.a", &bytes).unwrap();
                live.push(id);
                tell(format!("added {id}\n"));
            }
        }
    }
}

#[test]
fn a_process_that_is_killed_leaves_all_that_it_added_and_nothing_torn() {
    let base = tempfile::tempdir().unwrap();
    let folder = base.path().join("spool");
    let (mut added, mut removing, mut settled) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for round in 0..25 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_process_that_is_killed", "--ignored", "--nocapture"])
            .env("KUBEHOSE_TEST_SPOOL", &folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(fastrand::u64(20..120)));
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                [.., "added", id] => _ = added.insert(id.parse::<u64>().unwrap()),
                ["removing", id] => _ = removing.insert(id.parse::<u64>().unwrap()),
                ["settling", id, event] => _ = settled.insert((id.parse().unwrap(), event.parse::<u32>().unwrap())),
                _ => {}
            }
        }
        let (mut spool, found, damaged) = open(&folder);
        assert!(damaged.is_empty(), "round {round}: {damaged:?}");
        let there: BTreeSet<u64> = found.iter().map(|found| found.id).collect();
        for id in &added {
            assert!(there.contains(id) || removing.contains(id), "round {round}: chunk {id} was lost");
        }
        for id in there {
            let loaded = spool.load(id, Vec::new()).unwrap();
            let events = loaded.bytes.iter().filter(|byte| **byte == b'\n').count();
            assert_eq!((loaded.damage, loaded.bytes == body(id, events)), (None, true), "round {round}: chunk {id}");
            for event in loaded.settled.into_iter().flatten() {
                assert!(settled.contains(&(id, event)), "round {round}: event {event} of chunk {id} was never settled");
            }
        }
    }
    assert!(added.len() > 50 && !removing.is_empty() && !settled.is_empty());
}

#[test]
fn every_dead_letter_is_on_disk_or_counted_across_rotations() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let path = folder.path().join("dead");
        let limit = random.u64(300..8000);
        let (mut written, mut discarded, mut refused) = (0_u64, 0, 0);
        let mut letters = Letters::open(&path, limit).unwrap();
        for _ in 0..random.u32(1..80) {
            let largest = if random.u32(..8) == 0 { 9000 } else { 200 };
            let size = random.usize(..largest);
            match letters.write(&DeadLetter::new("t", "logs", "refused", vec![b'x'; size])) {
                Ok(outcome) => {
                    written += 1;
                    discarded += outcome.discarded;
                }
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::FileTooLarge, "{error}");
                    refused += 1;
                }
            }
            if random.u32(..10) == 0 {
                drop(letters);
                letters = Letters::open(&path, limit).unwrap();
            }
        }
        let files = contents(folder.path());
        let lines: usize = files.values().map(|file| file.split(|byte| *byte == b'\n').count() - 1).sum();
        assert_eq!(written, lines as u64 + discarded, "seed {seed}, {refused} refused");
        assert!(files.values().map(Vec::len).sum::<usize>() as u64 <= limit, "seed {seed}");
        assert!(files.len() <= 6, "{:?}", files.keys());
    }
}

#[test]
fn a_torn_moved_or_deleted_dead_letter_file_gets_whole_new_letters() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dead");
    let letter = |text: &str| DeadLetter::new("t", "logs", text, b"x".to_vec());
    let whole = serde_json::to_string(&letter("first")).unwrap() + "\n";
    for cut in 0..=whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        Letters::open(&path, 1 << 20).unwrap().write(&letter("second")).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let last: DeadLetter = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(last.reason, "second", "cut at {cut}");
    }
    let mut letters = Letters::open(&path, 1 << 20).unwrap();
    let moved = folder.path().join("moved");
    fs::rename(&path, &moved).unwrap();
    let before = fs::read(&moved).unwrap();
    letters.write(&letter("third")).unwrap();
    assert_eq!(fs::read(&moved).unwrap(), before);
    fs::remove_file(&path).unwrap();
    letters.write(&letter("fourth")).unwrap();
    assert!(fs::read_to_string(&path).unwrap().contains("fourth"));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_dead_letter_file_that_cannot_be_used_is_refused_with_the_fix() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("dead");
    let refused = |path: &Path| Letters::open(path, 1 << 20).unwrap_err().to_string();
    let first = Letters::open(&path, 1 << 20).unwrap();
    let text = refused(&base.path().join("./dead"));
    assert!(text.contains("dead_letter_file") && text.contains("a file of its own"), "{text}");
    drop(first);
    fs::remove_file(&path).unwrap();
    let target = base.path().join("precious");
    fs::write(&target, "precious\n").unwrap();
    let endings = ["", ".1", ".4", ".lock", ".kubehose-tmp"];
    for ending in endings {
        let at = base.path().join(format!("dead{ending}"));
        let _ = fs::remove_file(&at);
        symlink(&target, &at).unwrap();
        assert!(refused(&path).contains("symbolic link"), "{ending}: {}", refused(&path));
        fs::remove_file(&at).unwrap();
        fs::create_dir(&at).unwrap();
        assert!(refused(&path).contains("a folder, not"), "{ending}: {}", refused(&path));
        fs::remove_dir(&at).unwrap();
        // With and without a reader: opening must not block.
        assert!(Command::new("mkfifo").arg(&at).status().unwrap().success());
        assert!(fs::symlink_metadata(&at).unwrap().file_type().is_fifo());
        let started = Instant::now();
        assert!(refused(&path).contains("a pipe"), "{ending}: {}", refused(&path));
        assert!(started.elapsed() < Duration::from_secs(5));
        fs::remove_file(&at).unwrap();
        if !ending.ends_with("lock") {
            fs::write(&at, "somebody's notes\n").unwrap();
            refused(&path);
            assert_eq!(fs::read(&at).unwrap(), b"somebody's notes\n");
            fs::remove_file(&at).unwrap();
        }
    }
    assert!(refused(Path::new("/proc/dead")).contains("dead_letter_file"), "a folder that cannot be written");
    assert!(refused(Path::new("/dev/full")).contains("a device"), "{}", refused(Path::new("/dev/full")));
    assert_eq!(fs::read(&target).unwrap(), b"precious\n");
    let mut letters = Letters::open(&path, 300).unwrap();
    let error = letters.write(&DeadLetter::new("t", "logs", "refused", vec![b'x'; 400])).unwrap_err();
    assert!(error.to_string().contains("dead_letter_limit"), "{error}");
}

#[test]
fn a_revoked_dead_letter_file_can_be_opened_while_its_first_user_still_exists() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letters");
    let mut first = Letters::open(&path, 10_000).unwrap();
    assert!(Letters::open(&path, 10_000).is_err());
    first.revoker().revoke();
    let mut second = Letters::open(&path, 10_000).unwrap();
    let letter = DeadLetter::new("t", "logs", "refused", vec![b'x'; 40]);
    assert!(first.write(&letter).is_err());
    second.write(&letter).unwrap();
    drop(first);
    assert!(Letters::open(&path, 10_000).is_err(), "dropping the first user does not release the second one's lock");
}

/// Measures the cost of a 2 MB chunk in each mode: `cargo test --release --test storage -- --ignored cost`.
#[test]
#[ignore = "measures"]
fn the_cost_of_a_chunk_in_each_mode() {
    let bytes = vec![b'x'; 2 << 20];
    let id = kubehose::delivery::Identity::of(b"kube.a", &bytes);
    let rounds = 300;
    for keep in [0_usize, 8] {
        for turn in 0..2 {
            for sync in [SyncMode::None, SyncMode::Interval(Duration::from_secs(1)), SyncMode::Always] {
                let folder = tempfile::tempdir_in(".").unwrap();
                let (mut spool, _, _) = Chunks::open(folder.path(), 1 << 30, sync).unwrap();
                let mut live = std::collections::VecDeque::new();
                let rounds = if sync == SyncMode::Always { rounds / 3 } else { rounds };
                let started = Instant::now();
                for _ in 0..rounds {
                    let number = spool.next_id();
                    spool.add(number, id.to_bytes(), "logs", b"kube.a", &bytes).unwrap();
                    live.push_back(number);
                    if live.len() > keep {
                        spool.remove(live.pop_front().unwrap()).unwrap();
                    }
                    spool.sync_if_due(Instant::now()).unwrap();
                }
                eprintln!("turn {turn}, {keep} live: {sync:?} {:?}", started.elapsed() / rounds);
            }
        }
    }
}
