//! Which ports are taken, and by whom: from `/proc`, so on Linux only and only as far as this user may look.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use super::plan::{HOST, Plan};

/// State `LISTEN` in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// Where to look for other ports, in this order, when the wanted ones are taken.
const OTHER_BASES: [u16; 6] = [18080, 28080, 38080, 9080, 10080, 48080];

/// What to say when ports of `plan` are taken; `None` when all are free.
pub(crate) fn complaint(plan: &Plan) -> Option<String> {
    let taken: Vec<String> = plan
        .ports()
        .into_iter()
        .filter(|(port, _)| !is_free(*port))
        .map(|(port, role)| format!("\n  port {port} (for {role}) is taken by {}", holder(port)))
        .collect();
    if taken.is_empty() {
        return None;
    }
    let free = |base: &u16| Plan::at(*base).is_ok_and(|plan| plan.ports().iter().all(|(port, _)| is_free(*port)));
    let example = OTHER_BASES.iter().find(|base| free(base)).unwrap_or(&OTHER_BASES[0]);
    Some(format!(
        "the demo cannot have all its ports:{}\nEnd what holds them, or move the whole demo: --port-base N uses N to \
         N+3, N+9 and N+10; for example: cargo demo --port-base {example}",
        taken.concat()
    ))
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((HOST, port)).is_ok()
}

/// The process that listens on `port`, in words.
fn holder(port: u16) -> String {
    let inodes: Vec<u64> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening_inodes(&table, port))
        .collect();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        holds_socket(&entry.path(), &inodes).then_some(pid)
    });
    let holders: Vec<String> = pids
        .map(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!("{} (pid {pid})", name.trim())
        })
        .collect();
    if holders.is_empty() { "a process of another user or container".to_owned() } else { holders.join(", ") }
}

fn holds_socket(process: &Path, inodes: &[u64]) -> bool {
    let links = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    links.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|link| {
        let inode = link.to_str().and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        inode.is_some_and(|inode: u64| inodes.contains(&inode))
    })
}

/// The inodes of the sockets that listen on `port`, from the text of `/proc/net/tcp` or `tcp6`.
fn listening_inodes(table: &str, port: u16) -> Vec<u64> {
    let wanted = format!(":{port:04X}");
    let inode = |line: &str| {
        // sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode ...
        let fields: Vec<&str> = line.split_whitespace().collect();
        let listens = fields.get(1)?.ends_with(&wanted) && *fields.get(3)? == LISTEN;
        if listens { fields.get(9)?.parse().ok() } else { None }
    };
    table.lines().skip(1).filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listening_sockets_of_the_port_are_found() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 101 1 0 100 0 0 10 0
   1: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 102 1 0 100 0 0 10 0
   2: 0100007F:1F90 0100007F:B2A4 01 00000000:00000000 00:00000000 00000000  1000        0 103 1 0 20 4 30 10 -1
";
        assert_eq!(listening_inodes(table, 8080), [101]);
        assert_eq!(listening_inodes(table, 8082), [] as [u64; 0]);
    }

    #[test]
    fn a_taken_port_is_named_with_its_holder_and_the_way_out() {
        // Find a base whose ports are free, then take one of them in this very process.
        let (plan, listener) = (20_000..60_000)
            .step_by(11)
            .map(|base| Plan::at(base).unwrap())
            .find_map(|plan| {
                let free = complaint(&plan).is_none();
                free.then(|| TcpListener::bind((HOST, plan.admin)).ok().map(|listener| (plan, listener))).flatten()
            })
            .expect("eleven free ports in a row");
        let complaint = complaint(&plan).expect("one port is taken");
        let expected =
            format!("port {} (for loadbalancer, admin API) is taken by ", listener.local_addr().unwrap().port());
        assert!(complaint.contains(&expected), "{complaint}");
        assert!(complaint.contains(&format!("(pid {})", std::process::id())), "{complaint}");
        assert!(complaint.contains("--port-base"), "{complaint}");
        assert!(!complaint.contains("server alpha"), "only the taken port is named: {complaint}");
    }
}
