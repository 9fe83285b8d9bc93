//! The requests of FUSE by the names that rules give them.

/// A set of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Methods(u64);

macro_rules! methods {
    ($($name:ident = $text:literal),* $(,)?) => {
        /// One request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Method { $($name),* }

        const NAMES: &[(&str, Method)] = &[$(($text, Method::$name)),*];
    };
}

// The first 32 in upstream's order; what upstream lacks after them.
methods! {
    Lookup = "lookup", Forget = "forget", GetAttr = "getattr", SetAttr = "setattr", ReadLink = "readlink",
    MkNod = "mknod", MkDir = "mkdir", Unlink = "unlink", RmDir = "rmdir", Symlink = "symlink",
    Rename = "rename", Link = "link", Open = "open", Read = "read", Write = "write", Flush = "flush",
    Release = "release", Fsync = "fsync", OpenDir = "opendir", ReadDir = "readdir",
    ReleaseDir = "releasedir", FsyncDir = "fsyncdir", StatFs = "statfs", SetXattr = "setxattr",
    GetXattr = "getxattr", ListXattr = "listxattr", RemoveXattr = "removexattr", Access = "access",
    Create = "create", GetLk = "getlk", SetLk = "setlk", Bmap = "bmap",
    Fallocate = "fallocate", Lseek = "lseek", CopyFileRange = "copy_file_range",
}

impl Methods {
    pub const ALL: Self = Self(u64::MAX);
    pub const NONE: Self = Self(0);

    /// Those of these names, in any case; no name stands for all.
    pub fn named(names: &[String]) -> Result<Self, String> {
        if names.is_empty() {
            return Ok(Self::ALL);
        }
        names.iter().try_fold(Self(0), |set, name| {
            let found = NAMES
                .iter()
                .find(|(known, _)| name.eq_ignore_ascii_case(known));
            match found {
                Some((_, method)) => Ok(set.and(*method)),
                None => Err(format!("no such method: {name}")),
            }
        })
    }

    pub const fn or(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    const fn and(self, method: Method) -> Self {
        Self(self.0 | 1 << method as u8)
    }

    /// Is it one of them?
    pub const fn has(self, method: Method) -> bool {
        self.0 & 1 << method as u8 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::{Method, Methods};

    #[test]
    fn no_name_is_every_name() {
        let all = Methods::named(&[]).unwrap();
        assert!(all.has(Method::Lookup) && all.has(Method::CopyFileRange));
    }

    #[test]
    fn names_are_those_of_the_requests_in_any_case() {
        let two = Methods::named(&["READ".to_owned(), "fsync".to_owned()]).unwrap();
        assert!(two.has(Method::Read) && two.has(Method::Fsync));
        assert!(!two.has(Method::Write) && !two.has(Method::FsyncDir));
        let wrong = Methods::named(&["reed".to_owned()]);
        assert_eq!(wrong.unwrap_err(), "no such method: reed");
    }
}
