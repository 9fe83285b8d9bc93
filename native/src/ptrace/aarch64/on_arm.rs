//! The code for 64-bit Arm, and its signal frame, under qemu.

use std::path::Path;
use std::process::Command;

use super::{frame, Registers};
use crate::ptrace::thread::Vectors;

/// Runs the code in a child, at addresses that the frame was made for.
const HARNESS: &str = r#"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
extern char squall_inside[], squall_inside_end[];
static void back(void) {
    register uint64_t x20 __asm__("x20"), x28 __asm__("x28");
    double d; __asm__ volatile("fmov %d0, d8" : "=w"(d));
    _exit(x20 == 2020 && x28 == 2828 && d == 1.5 ? 42 : 1);
}
int main(int n, char **argv) {
    char *data = mmap((void *)0x60000000, 1 << 20, 3, MAP_FIXED | MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char *code = mmap((void *)0x50000000, 4096, 7, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mmap((void *)0x40000000, 1 << 16, 3, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(code, squall_inside, squall_inside_end - squall_inside);
    uint32_t jump[] = {0x58000050, 0xd61f0200}; /* ldr x16, #8; br x16 */
    memcpy(code + 2048, jump, 8);
    uint64_t to = (uint64_t)back;
    memcpy(code + 2056, &to, 8);
    __builtin___clear_cache(code, code + 4096);
    FILE *f = fopen(argv[1], "rb");
    fread(data + 64, 1, 8192, f);
    int ends[2];
    socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends);
    uint64_t *orders = (uint64_t *)(data + 20480);
    orders[0] = 0; orders[1] = ends[0];
    pid_t child = fork();
    if (child == 0) {
        close(ends[1]);
        __asm__ volatile("mov x19, %0\n mov sp, %1\n br %2" :: "r"(orders), "r"(data + 64), "r"(code) : "x19");
    }
    close(ends[0]);
    char word[8];
    if (recv(ends[1], word, 8, 0) != 1) return 2;
    int *number = (int *)(data + 65536);
    *number = 1;
    uint64_t lot[2][10] = {{SYS_getpid}, {SYS_dup, 65536 + (uint64_t)data, 0, 0, 0, 0, 0, 1}};
    memcpy(orders + 2, lot, sizeof lot);
    orders[0] = 2;
    send(ends[1], "!", 1, 0);
    if (recv(ends[1], word, 8, 0) != 1) return 3;
    if (orders[2 + 8] != child || (int64_t)orders[12 + 8] < 3) return 4;
    close(ends[1]);
    int status;
    waitpid(child, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 42 ? 0 : 5;
}
"#;

/// The lines of the code, as an assembler takes them.
fn source() -> String {
    let text = include_str!("../aarch64.rs");
    let from = text.find("global_asm!(").unwrap();
    let until = from + text[from..].find("\n);").unwrap();
    let lines = text[from..until].lines().filter_map(|line| {
        let line = line.trim().strip_prefix('"')?;
        Some(line.split('"').next()?.to_owned() + "\n")
    });
    lines
        .collect::<String>()
        .replace(".pushsection", ".section")
        .replace(".popsection", "")
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

#[test]
fn calls_are_done_and_the_thread_is_put_back_when_nobody_is_there() {
    let (compiler, emulator) = ("aarch64-linux-gnu-gcc", "qemu-aarch64");
    if !has(compiler) || !has(emulator) {
        eprintln!("{compiler} or {emulator} is not installed");
        return;
    }
    let directory = std::env::temp_dir().join(format!("squall-arm-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let at = |name: &str| directory.join(name);
    let mut registers = Registers {
        sp: 0x4000_f000,
        pc: 0x5000_0800,
        ..Registers::default()
    };
    (registers.x[20], registers.x[28]) = (2020, 2828);
    let mut state = vec![0; 528];
    state[8 * 16..8 * 16 + 8].copy_from_slice(&1.5_f64.to_ne_bytes());
    let vectors = Vectors { state, lost: None };
    let (bytes, _) = frame(&registers, 0, &vectors, 0x6000_0040);
    std::fs::write(at("frame"), bytes).unwrap();
    std::fs::write(at("code.s"), source()).unwrap();
    std::fs::write(at("harness.c"), HARNESS).unwrap();
    let run = |program: &str, words: &[&Path]| Command::new(program).args(words).status().unwrap();
    let (code, harness, program) = (at("code.s"), at("harness.c"), at("program"));
    let words = ["-static", "-w", "-O1", "-o"].map(Path::new);
    let words = [&words[..], &[&program, &harness, &code]].concat();
    assert!(run(compiler, &words).success());
    let ended = run(emulator, &[&program, &at("frame")]);
    std::fs::remove_dir_all(&directory).unwrap();
    assert_eq!(ended.code(), Some(0));
}
