//! Where the admin token lies when the operator gave none: part of the contract between the load balancer, which
//! writes it, and a dashboard of the same user, which reads it. No I/O here; the caller names its environment.

use std::path::PathBuf;

/// Only the owner may read the token.
pub const TOKEN_FILE_MODE: u32 = 0o600;

/// The directory of run-time files for user `uid`.
///
/// In this order: systemd's `RUNTIME_DIRECTORY`, `$XDG_RUNTIME_DIR/loadbalancer`, `/run/loadbalancer` for root, and
/// else `<temp_dir>/loadbalancer-<uid>`, which the writer makes with mode 0700 and refuses when somebody else owns it.
pub fn runtime_dir(var: impl Fn(&str) -> Option<String>, uid: u32, temp_dir: PathBuf) -> PathBuf {
    let set = |name| var(name).filter(|value| !value.is_empty());
    if let Some(dirs) = set("RUNTIME_DIRECTORY") {
        // systemd lists several directories with colons between them; ours is the first.
        return PathBuf::from(dirs.split(':').next().unwrap_or_default());
    }
    if let Some(dir) = set("XDG_RUNTIME_DIR") {
        return PathBuf::from(dir).join("loadbalancer");
    }
    if uid == 0 {
        return PathBuf::from("/run/loadbalancer");
    }
    temp_dir.join(format!("loadbalancer-{uid}"))
}

/// The token's file name. It carries the admin port, so that several load balancers of one user do not collide.
pub fn token_file_name(admin_port: u16) -> String {
    format!("admin-{admin_port}.token")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_directory_that_applies_wins() {
        let dir = |vars: &'static [(&str, &str)], uid| {
            let var = move |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            runtime_dir(var, uid, PathBuf::from("/tmp")).display().to_string()
        };
        assert_eq!(dir(&[("RUNTIME_DIRECTORY", "/run/a:/run/b"), ("XDG_RUNTIME_DIR", "/x")], 0), "/run/a");
        assert_eq!(dir(&[("XDG_RUNTIME_DIR", "/run/user/7")], 7), "/run/user/7/loadbalancer");
        assert_eq!(dir(&[("XDG_RUNTIME_DIR", "")], 0), "/run/loadbalancer");
        assert_eq!(dir(&[], 7), "/tmp/loadbalancer-7");
    }
}
