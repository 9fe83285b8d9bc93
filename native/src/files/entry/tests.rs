//! Running programs are moved to another mount of the same directory, and back.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use super::passage::{enter, leave, open_namespace, Standing};
use super::place::Place;
use super::repoint::Report;
use super::service::Service;
use super::target::{difference, Target};
use crate::system::own;

/// A mount like a filter's that passes everything on: the directory once more.
fn double(pid: i32, place: &Place) -> OwnedFd {
    const OPEN_TREE_CLONE: u32 = 1;
    let path = CString::new(place.path.as_os_str().as_bytes()).unwrap();
    let entry = open_namespace(pid).unwrap();
    let within = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).unwrap();
        nix::sched::setns(entry, nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as u32;
        // SAFETY: the name outlives the call.
        own(
            unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) }
                as i32,
        )
        .unwrap()
    };
    std::thread::spawn(within).join().unwrap()
}

const NOTHING: [&str; 0] = [];

/// How many times as long something may take on a processor that is a program.
fn slowness() -> u64 {
    match std::env::var_os("SQUALL_TEST_EMULATED") {
        Some(_) => 50,
        None => 1,
    }
}

struct Entered {
    standing: Standing,
    report: Report,
}

fn into(target: &Target) -> Entered {
    let path = target.directory.to_str().unwrap();
    let place = Place::find(target.pid(), path).unwrap();
    assert_eq!(place.path.as_os_str().as_bytes(), path.as_bytes());
    let mount = double(target.pid(), &place);
    let (standing, report) = enter(target.pid(), place, mount, Service::LOST.locks).unwrap();
    Entered { standing, report }
}

impl Entered {
    fn leave(self) -> Report {
        leave(
            &[&self.standing],
            Service {
                filter: Some(std::process::id() as i32),
                ..Service::LOST
            },
            None,
            false,
        )
        .unwrap()
    }
}

#[test]
fn open_files_are_moved_with_position_and_flags_and_back() {
    let mut target = Target::start("files");
    target.ask("open(d + 'a', 'w').write('0123456789')");
    target.ask("a = os.open(d + 'a', os.O_RDWR | os.O_APPEND)");
    target.ask("os.lseek(a, 4, 0)");
    target.ask("b = os.dup(a); os.set_inheritable(b, True)");
    target.ask("e = os.open(d, os.O_RDONLY)");
    target.ask("os.chdir(d)");
    let numbers = ["a", "b", "e"].map(|name| target.ask(name));
    let before = target.picture();
    let entered = into(&target);
    for number in &numbers {
        assert_eq!(target.mount_of(number), entered.standing.id);
    }
    assert_eq!(entered.report.descriptors, 3);
    assert_eq!(entered.report.directories, 1);
    assert!(entered.report.left.is_empty(), "{:?}", entered.report);
    assert_eq!(target.ask("os.read(b, 3)"), "b'456'");
    assert_eq!(target.ask("os.read(a, 1)"), "b'7'");
    assert_eq!(target.ask("os.write(a, b'end')"), "3");
    assert_eq!(target.ask("os.lseek(b, 0, 1)"), "13");
    assert_eq!(target.ask("os.listdir(e)"), "['a']");
    assert_eq!(target.ask("os.listdir('.')"), "['a']");
    assert_eq!(target.ask("os.lseek(a, 4, 0)"), "4");
    assert_eq!(target.ask("os.lseek(e, 0, 0)"), "0");
    entered.leave();
    assert_eq!(difference(&before, &target.picture()), NOTHING);
    assert_eq!(target.ask("os.pread(a, 3, 10)"), "b'end'");
}

#[test]
fn mappings_are_moved_and_keep_what_the_process_has_changed() {
    let mut target = Target::start("mappings");
    target.ask("open(d + 'a', 'wb').write(b'x' * 16384)");
    target.ask("a = os.open(d + 'a', os.O_RDWR)");
    target.ask("s = mmap.mmap(a, 16384)");
    target.ask("p = mmap.mmap(a, 16384, mmap.MAP_PRIVATE)");
    target.ask("r = mmap.mmap(a, 8192, mmap.MAP_SHARED, mmap.PROT_READ, offset=8192)");
    target.ask("os.close(a)");
    target.ask("p[4096:4100] = b'mine'");
    target.ask("s[0:4] = b'ours'");
    let before = target.picture();
    let entered = into(&target);
    assert!(entered.report.left.is_empty(), "{:?}", entered.report);
    assert!(entered.report.mappings >= 3, "{:?}", entered.report);
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", target.pid())).unwrap();
    let mapped = maps.lines().filter(|line| line.ends_with("-mappings-x/a"));
    assert_eq!(mapped.count(), 0); // the name has our number in it
    assert_eq!(
        target.ask("p[4096:4100], p[0:4], s[0:4], s[4096:4100]"),
        "(b'mine', b'ours', b'ours', b'xxxx')"
    );
    target.ask("s[8192:8196] = b'both'");
    assert_eq!(target.ask("r[0:4]"), "b'both'");
    assert_eq!(
        target.ask("open(d + 'a', 'rb').read()[8192:8196]"),
        "b'both'"
    );
    target.ask("p[8192:8196] = b'more'");
    entered.leave();
    assert_eq!(difference(&before, &target.picture()), NOTHING);
    assert_eq!(
        target.ask("p[4096:4100], p[8192:8196], s[8192:8196]"),
        "(b'mine', b'more', b'both')"
    );
}

#[test]
fn what_forked_processes_share_stays_shared() {
    let mut target = Target::start("shared");
    target.ask("open(d + 'a', 'w').write('0123456789')");
    target.ask("a = os.open(d + 'a', os.O_RDONLY)");
    target.ask("x, y = socket.socketpair()");
    target
        .ask("child = os.fork() or [x.send(os.read(a, 1)) for _ in iter(lambda: x.recv(1), b'')]");
    target.ask("os.read(a, 2)");
    let entered = into(&target);
    assert!(entered.report.left.is_empty(), "{:?}", entered.report);
    assert_eq!(target.ask("y.send(b'!') and y.recv(1)"), "b'2'");
    assert_eq!(target.ask("os.read(a, 1)"), "b'3'");
    entered.leave();
    assert_eq!(target.ask("y.send(b'!') and y.recv(1)"), "b'4'");
    assert_eq!(target.ask("os.read(a, 1)"), "b'5'");
    target.ask("os.kill(child, 9)");
}

#[test]
fn calls_that_wait_go_on_waiting() {
    let mut target = Target::start("waiting");
    target.ask("open(d + 'a', 'w').write('0123456789')");
    target.ask("a = os.open(d + 'a', os.O_RDONLY)");
    target.ask("x, y = os.pipe()");
    target.ask("took = []");
    target.ask("t = threading.Thread(target=lambda: (lambda t: (time.sleep(1), took.append(time.monotonic() - t)))(time.monotonic()))");
    target.ask("u = threading.Thread(target=lambda: took.append(os.read(x, 1)))");
    target.ask("t.start(); u.start()");
    let entered = into(&target);
    entered.leave();
    target.ask("t.join()");
    target.ask("os.write(y, b'!')");
    target.ask("u.join()");
    target.ask(&format!("most = 1 + 0.3 * {}", slowness()));
    assert_eq!(target.ask("1.0 <= took[0] < most, took[1]"), "(True, b'!')");
}

#[test]
fn a_sleep_lasts_as_long_as_was_asked() {
    let mut target = Target::start("sleeping");
    target.ask("import ctypes, select");
    target.ask("x, y = socket.socketpair()");
    target.ask("a = os.open(d + 'a', os.O_RDWR | os.O_CREAT)");
    // Its only thread, which is to be entered, sleeps for some time, and not until a moment.
    target.ask("def sleep():\n  begun = time.monotonic()\n  x.send(b'!')\n  ended = ctypes.CDLL(None).nanosleep(struct.pack('qq', seconds, 0), None)\n  x.send(b'%d %f' % (ended, time.monotonic() - begun))");
    let entered_in_time = |target: &mut Target, seconds: u64| {
        target.ask(&format!("seconds = {seconds}"));
        target.ask("child = os.fork() or (sleep(), os._exit(0))");
        target.ask("y.recv(1), time.sleep(seconds / 2)");
        let entered = into(target);
        assert!(entered.report.left.is_empty(), "{:?}", entered.report);
        let sleeps = target.ask("select.select([y], [], [], 0)[0]") == "[]";
        entered.leave();
        target.ask("ended, took = y.recv(99).split()");
        target.ask("os.waitpid(child, 0)");
        sleeps
    };
    let lengths = [2, 4, 8, 16, 32];
    let slept = lengths.iter().any(|one| entered_in_time(&mut target, *one));
    assert!(slept, "this machine takes more than ten seconds to enter");
    assert_eq!(
        target.ask("ended, 1 <= float(took) / seconds < 1.45"),
        "(b'0', True)"
    );
}

#[test]
fn locks_are_carried_over() {
    let mut target = Target::start("locks");
    target.ask("open(d + 'a', 'w').write('0123456789'); open(d + 'b', 'w').write('x')");
    target.ask("a = os.open(d + 'a', os.O_RDWR); b = os.open(d + 'b', os.O_RDWR)");
    target.ask("fcntl.lockf(a, fcntl.LOCK_EX, 4, 2)");
    target.ask("fcntl.flock(b, fcntl.LOCK_SH)");
    let number = target.ask("a");
    let locks = |target: &Target, number: &str| {
        let info =
            std::fs::read_to_string(format!("/proc/{}/fdinfo/{number}", target.pid())).unwrap();
        info.lines()
            .filter(|line| line.starts_with("lock:"))
            .count()
    };
    let other = target.ask("b");
    let before = target.picture();
    let entered = into(&target);
    assert_eq!((locks(&target, &number), locks(&target, &other)), (1, 1));
    entered.leave();
    assert_eq!(difference(&before, &target.picture()), NOTHING);
}

#[test]
fn what_was_removed_stays_where_it_is() {
    let mut target = Target::start("removed");
    target.ask("a = os.open(d + 'a', os.O_RDWR | os.O_CREAT)");
    target.ask("os.write(a, b'kept'); os.unlink(d + 'a'); open(d + 'a', 'w').write('other')");
    let number = target.ask("a");
    let before = target.mount_of(&number);
    let entered = into(&target);
    assert_eq!(entered.report.left.get("removed while open"), Some(&1));
    assert_eq!(target.mount_of(&number), before);
    assert_eq!(target.ask("os.pread(a, 9, 0)"), "b'kept'");
    entered.leave();
}

#[test]
fn threads_at_work_lose_nothing() {
    let mut target = Target::start("threads");
    target.ask(
        "files = [os.open(d + str(i), os.O_RDWR | os.O_CREAT | os.O_APPEND) for i in range(32)]",
    );
    target.ask("going = True; written = [0] * 32; errors = []");
    target.ask("def work(i):\n  while going:\n    try: written[i] += os.write(files[i], b'12345678')\n    except OSError as e: errors.append(e)");
    target.ask("threads = [threading.Thread(target=work, args=(i,)) for i in range(32)]");
    target.ask("[t.start() for t in threads]");
    for _ in 0..3 {
        let entered = into(&target);
        assert!(entered.report.left.is_empty(), "{:?}", entered.report);
        assert!(
            entered.report.longest_stop_us < 200_000 * slowness(),
            "{:?}",
            entered.report
        );
        entered.leave();
    }
    target.ask("going = False");
    target.ask("[t.join() for t in threads]");
    assert_eq!(target.ask("errors"), "[]");
    assert_eq!(
        target.ask("[os.fstat(f).st_size for f in files] == written"),
        "True"
    );
}
