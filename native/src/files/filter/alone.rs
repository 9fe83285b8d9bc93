//! The filter without anything around it: over a directory of the namespace that one is in.
//!
//! For benchmarks and tests. It is in force until standard input ends; lines of JSON there are
//! answered on standard output.

use std::fs::File;
use std::io::{self, BufRead, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::mount::{mount, umount2, MntFlags, MsFlags};
use serde_json::{json, Value};

use super::{sys, Filter, Rules};
use crate::failure::{Failure, Outcome, While};
use crate::files::request::{Set, Volume};
use crate::rpc::Refusal;

/// Runs the subcommand: `squall-node filter DIRECTORY`.
pub fn run(arguments: &[String]) -> Outcome<i32> {
    let (path, old) = match arguments {
        [path] => (path, false),
        [path, old] if old == "--as-on-linux-6.1" => (path, true),
        _ => {
            let usage = "usage: squall-node filter DIRECTORY [--as-on-linux-6.1]";
            return Err(Failure::new(usage));
        }
    };
    let nothing = Volume {
        path: path.clone(),
        rules: Vec::new(),
    };
    let rules = Arc::new(Rules::new(&nothing).on("rules")?);
    let device = File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .on("/dev/fuse")?;
    let device = OwnedFd::from(device);
    let name = std::ffi::CString::new(path.as_str()).on(path)?;
    // SAFETY: the name outlives the call.
    let below = sys::own(unsafe {
        libc::open(
            name.as_ptr(),
            libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC,
        )
    });
    let below = below.map_err(io::Error::from_raw_os_error).on(path)?;
    let how = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other",
        device.as_raw_fd()
    );
    mount(
        Some("squall"),
        path.as_str(),
        Some("fuse.squall"),
        MsFlags::empty(),
        Some(how.as_str()),
    )
    .on("mount")?;
    let filter = Filter::new(device, below, Arc::clone(&rules)).on("filter")?;
    let filter = if old {
        filter.limited_to_linux_6_1()
    } else {
        filter
    };
    filter.run().on("threads")?;
    let mut out = io::stdout();
    writeln!(out, "{}", json!({ "pid": std::process::id() })).on("answer")?;
    for line in io::stdin().lock().lines() {
        let line = line.on("standard input")?;
        let answer = match act(&filter, &rules, &line) {
            Ok(ok) => json!({ "ok": ok }),
            Err(refusal) => json!({ "error": refusal }),
        };
        writeln!(out, "{answer}").on("answer")?;
    }
    umount2(path.as_str(), MntFlags::MNT_DETACH).on("umount")?;
    drop(filter);
    Ok(0)
}

fn act(filter: &Filter, rules: &Rules, line: &str) -> Result<Value, Refusal> {
    let mut asked: Value = serde_json::from_str(line).map_err(Refusal::invalid)?;
    let verb = asked
        .as_object_mut()
        .and_then(|asked| asked.remove("do"))
        .unwrap_or_default();
    match verb.as_str() {
        Some("set") => {
            let set: Set = serde_json::from_value(asked).map_err(Refusal::invalid)?;
            set.check()?;
            set.volumes
                .iter()
                .try_for_each(|volume| rules.replace(volume))?;
            Ok(json!({}))
        }
        Some("state") => {
            Ok(json!({ "counters": rules.counters(), "bypassing": filter.bypassing() }))
        }
        Some("lose") => filter
            .lose()
            .map(|lost| json!(lost))
            .map_err(Refusal::try_again),
        _ => Err(Refusal::invalid("no such verb")),
    }
}
