//! A program of another mount namespace, for tests: Python that does what it is told.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const LOOP: &str = "
import sys, os, mmap, fcntl, threading, time, struct, socket
names = globals()
for line in sys.stdin:
    text = line.rstrip().replace('\\\\n', '\\n')
    try:
        answer = eval(text, names)
    except SyntaxError:
        answer = exec(text, names)
    print(repr(answer), flush=True)
";

pub struct Target {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    pub directory: PathBuf,
}

impl Target {
    /// Starts one with an empty directory of its own in its mount namespace.
    pub fn start(name: &str) -> Self {
        Self::start_in(name, "private")
    }

    pub fn start_in(name: &str, propagation: &str) -> Self {
        let unique = format!("squall-entry-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(unique);
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        let mut child = Command::new("unshare")
            .args([
                "-m",
                "--propagation",
                propagation,
                "python3",
                "-u",
                "-c",
                LOOP,
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut target = Self {
            child,
            input,
            output,
            directory,
        };
        let directory = target.directory.display().to_string();
        target.ask(&format!("d = '{directory}/'"));
        target
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn say(&mut self, line: &str) {
        writeln!(self.input, "{}", line.replace('\n', "\\n")).unwrap();
    }

    pub fn hear(&mut self) -> String {
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }

    /// Evaluates, or executes, a line of Python.
    pub fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.hear()
    }

    /// The mount that a descriptor of it is on.
    pub fn mount_of(&self, number: &str) -> u64 {
        let info =
            std::fs::read_to_string(format!("/proc/{}/fdinfo/{number}", self.pid())).unwrap();
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix("mnt_id:"))
            .unwrap();
        line.trim().parse().unwrap()
    }

    /// All that must be the same again afterwards.
    pub fn picture(&self) -> Vec<String> {
        let of = |name: &str| format!("/proc/{}/{name}", self.pid());
        let mut picture: Vec<String> = Vec::new();
        for name in ["maps", "mountinfo", "limits"] {
            let text = std::fs::read_to_string(of(name)).unwrap();
            // Memory without a file comes and goes as Python likes.
            let lines = text.lines().filter(|line| match name {
                "maps" => line.contains('/'),
                // Whoever made a namespace may remove its file, and its mounts everywhere.
                _ => !line.contains(" - nsfs "),
            });
            picture.extend(lines.map(str::to_owned));
        }
        let link = |path: &Path| std::fs::read_link(path).unwrap().display().to_string();
        picture.push(link(Path::new(&of("cwd"))));
        let mut open: Vec<PathBuf> = std::fs::read_dir(of("fd"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        open.sort();
        for path in open {
            let number = path.file_name().unwrap().to_str().unwrap().to_owned();
            let info = std::fs::read_to_string(of(&format!("fdinfo/{number}"))).unwrap();
            picture.push(format!("{number} {} {info}", link(&path)));
        }
        picture
    }
}

/// Lines that are in only one of two pictures.
pub fn difference(before: &[String], after: &[String]) -> Vec<String> {
    let lost = before
        .iter()
        .filter(|line| !after.contains(line))
        .map(|line| format!("- {line}"));
    let new = after
        .iter()
        .filter(|line| !before.contains(line))
        .map(|line| format!("+ {line}"));
    lost.chain(new).collect()
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
