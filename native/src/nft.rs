//! Our nft table, kept by an open netlink socket: with `flags owner` it lives as long as that.

use std::ffi::{c_char, c_int, c_uint, c_void, CStr, CString};

use serde_json::Value;

use crate::rpc::Refusal;

/// Debian's package libnftables1; loaded at the first use, for it is half of our memory.
const LIBRARY: &CStr = c"libnftables.so.1";

const OUTPUT_JSON: c_uint = 1 << 4;

type Context = *mut c_void;

/// A context of libnftables, and the functions used of it (libnftables(3)).
///
/// Its netlink socket stays open from `open` to drop: all tables it owns go with it.
pub struct Nft {
    /// The one table that is ours; of the family inet.
    table: &'static str,
    context: Context,
    free: unsafe extern "C" fn(Context),
    run: unsafe extern "C" fn(Context, *const c_char) -> c_int,
    set_flags: unsafe extern "C" fn(Context, c_uint),
    output: unsafe extern "C" fn(Context) -> *const c_char,
    errors: unsafe extern "C" fn(Context) -> *const c_char,
}

impl Nft {
    /// Opens a netlink socket in the namespace of this thread.
    pub fn open(table: &'static str) -> Result<Self, Refusal> {
        // SAFETY: the signatures are those of nftables/libnftables.h, stable since 0.9.
        unsafe {
            let library = libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL);
            if library.is_null() {
                let name = LIBRARY.to_string_lossy();
                return Err(Refusal::unsupported(format!(
                    "{name} is not there; install the package libnftables1"
                )));
            }
            let new: unsafe extern "C" fn(u32) -> Context = symbol(library, c"nft_ctx_new")?;
            let buffer_output: unsafe extern "C" fn(Context) -> c_int =
                symbol(library, c"nft_ctx_buffer_output")?;
            let buffer_error: unsafe extern "C" fn(Context) -> c_int =
                symbol(library, c"nft_ctx_buffer_error")?;
            let nft = Self {
                table,
                free: symbol(library, c"nft_ctx_free")?,
                run: symbol(library, c"nft_run_cmd_from_buffer")?,
                set_flags: symbol(library, c"nft_ctx_output_set_flags")?,
                output: symbol(library, c"nft_ctx_get_output_buffer")?,
                errors: symbol(library, c"nft_ctx_get_error_buffer")?,
                context: new(0),
            };
            if nft.context.is_null() {
                return Err(Refusal::unsupported("libnftables cannot open netlink"));
            }
            buffer_output(nft.context);
            buffer_error(nft.context);
            Ok(nft)
        }
    }

    /// Runs a script as one transaction.
    pub fn run(&mut self, script: &str) -> Result<(), Refusal> {
        self.command(script, 0).map(drop)
    }

    /// Reads our table from the kernel: the objects of `nft -j list table`, but for the table
    /// itself. Empty when there is none.
    ///
    /// Chain by chain, since libnftables 1.0.6 reads beyond an array when it prints the flags of an
    /// owned table as JSON: rubbish at best.
    pub fn list(&mut self) -> Result<Vec<Value>, Refusal> {
        let table = self.table;
        let mut found = Vec::new();
        for object in self.objects("list chains inet")? {
            if object["chain"]["table"] == self.table {
                if let Some(chain) = object["chain"]["name"].as_str() {
                    // One command at a time: libnftables reads only what the first one names.
                    found.extend(self.objects(&format!("list chain inet {table} {chain}"))?);
                }
            }
        }
        if !found.is_empty() {
            found.extend(self.objects(&format!("list sets table inet {table}"))?);
            found.extend(self.objects(&format!("list counters table inet {table}"))?);
        }
        Ok(found)
    }

    /// Runs commands that list something; each answers with a JSON document of its own.
    fn objects(&mut self, script: &str) -> Result<Vec<Value>, Refusal> {
        let listed = self.command(script, OUTPUT_JSON)?;
        let mut objects = Vec::new();
        for document in serde_json::Deserializer::from_str(&listed).into_iter::<Value>() {
            let document = document.map_err(|error| {
                Refusal::try_again(format!("nft printed what is no JSON: {error}"))
            })?;
            let found = document["nftables"].as_array().cloned().unwrap_or_default();
            objects.extend(
                found
                    .into_iter()
                    .filter(|object| object["metainfo"].is_null()),
            );
        }
        Ok(objects)
    }

    fn command(&mut self, script: &str, flags: c_uint) -> Result<String, Refusal> {
        let script = CString::new(script).map_err(Refusal::invalid)?;
        // SAFETY: the context is alive, the script outlives the call, and the buffers are read
        // before the next call changes them.
        let (status, output, errors) = unsafe {
            (self.set_flags)(self.context, flags);
            let status = (self.run)(self.context, script.as_ptr());
            let text =
                |buffer: *const c_char| CStr::from_ptr(buffer).to_string_lossy().into_owned();
            let output = text((self.output)(self.context));
            let errors = text((self.errors)(self.context));
            libc::malloc_trim(0); // the library leaves a megabyte of free memory behind
            (status, output, errors)
        };
        if status == 0 {
            return Ok(output);
        }
        let message = format!("nft: {}", errors.trim());
        Err(if message.contains("not supported") {
            Refusal::unsupported(message)
        } else {
            Refusal::try_again(message)
        })
    }
}

impl Drop for Nft {
    fn drop(&mut self) {
        // The kernel would do it as well, but within the close of the socket, and wait 30 ms there
        // for packets under way.
        let _ = self.run(&format!("delete table inet {}", self.table));
        // SAFETY: made by nft_ctx_new, freed once. The library stays loaded.
        unsafe { (self.free)(self.context) }
    }
}

/// Finds one function of the library.
///
/// # Safety
/// `F` must be the function's type.
unsafe fn symbol<F: Copy>(library: *mut c_void, name: &CStr) -> Result<F, Refusal> {
    let found = libc::dlsym(library, name.as_ptr());
    if found.is_null() {
        let name = name.to_string_lossy();
        return Err(Refusal::unsupported(format!("libnftables has no {name}")));
    }
    Ok(std::mem::transmute_copy::<*mut c_void, F>(&found))
}
