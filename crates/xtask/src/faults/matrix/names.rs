//! Faults of names: a small name server that fails in every way, and then gives another address.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use super::super::rig::{ORIGINS, Wishes};
use super::super::surroundings::replace_file;
use super::super::trial::Trial;
use crate::Error;

/// Between look-ups, so that each way to fail is met several times.
const REFRESH: &str = "[discovery]\nrefresh = \"100ms\"\n";

/// How names are answered; the numbers of a DNS answer's code (RFC 1035 §4.1.1), and two of ours.
const WELL: u8 = 0;
const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;
const EMPTY: u8 = 100;
const SILENT: u8 = 101;

/// A name server on 127.0.0.1:53 of our own network. Ends when dropped.
struct Names {
    how: Arc<AtomicU8>,
    /// The last number of the address 127.0.0.N that each name has.
    addresses: Arc<Mutex<[u8; ORIGINS]>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Names {
    fn start() -> std::io::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:53")?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let how = Arc::new(AtomicU8::new(WELL));
        let addresses = Arc::new(Mutex::new([1, 2, 3]));
        let stop = Arc::new(AtomicBool::new(false));
        let own = (Arc::clone(&how), Arc::clone(&addresses), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let (how, addresses, stop) = own;
            let mut query = [0; 512];
            while !stop.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut query) else { continue };
                let addresses = addresses.lock().map(|addresses| *addresses).unwrap_or_default();
                if let Some(answer) = answer(&query[..length], how.load(Ordering::Relaxed), addresses) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Ok(Self { how, addresses, stop, thread: Some(thread) })
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// `None` for silence.
fn answer(query: &[u8], how: u8, addresses: [u8; ORIGINS]) -> Option<Vec<u8>> {
    if how == SILENT {
        return None;
    }
    // One question: its name begins at 12 and ends with a zero, then type and class.
    let end = 12 + query.get(12..)?.iter().position(|byte| *byte == 0)? + 1;
    let question = query.get(12..end + 4)?;
    let wants_v4 = question[question.len() - 4..question.len() - 2] == [0, 1];
    // The first label is "originN".
    let number = question.get(7).and_then(|digit| digit.checked_sub(b'1')).map(usize::from);
    let address = number.and_then(|number| addresses.get(number)).filter(|_| wants_v4 && how == WELL);
    let code = if how < EMPTY { how } else { WELL };
    let mut out = vec![query[0], query[1], 0x81, 0x80 | code, 0, 1, 0, u8::from(address.is_some()), 0, 0, 0, 0];
    out.extend_from_slice(question);
    if let Some(last) = address {
        // A pointer to the name, type A, class IN, for no time at all, four bytes.
        out.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        out.extend_from_slice(&Ipv4Addr::new(127, 0, 0, *last).octets());
    }
    Some(out)
}

pub(super) fn dns(trial: &mut Trial<'_>) -> Result<(), Error> {
    let dir = &trial.ground.dir;
    let resolv = dir.write("resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")?;
    if let Err(reason) = replace_file(&resolv, "/etc/resolv.conf") {
        trial.not_here(reason);
        return Ok(());
    }
    let names = Names::start().map_err(|e| Error::Failed(format!("a name server: {e}")))?;
    let config = dir.write("names.toml", REFRESH)?;
    let wishes = Wishes {
        names: Some((1..=ORIGINS).map(|n| format!("origin{n}.faults.test")).collect()),
        arguments: vec!["--config".to_owned(), config.to_string_lossy().into_owned()],
        ..Wishes::default()
    };
    let mut moved_us = 0;
    let told = trial.under_load(wishes, |trial, _, _| {
        for how in [NO_SUCH_NAME, SERVER_FAILURE, EMPTY, SILENT] {
            names.how.store(how, Ordering::Relaxed);
            sleep(trial.fault_time() / 2);
        }
        if let Ok(mut addresses) = names.addresses.lock() {
            // The first name moves to where the second is.
            addresses[0] = 2;
        }
        names.how.store(WELL, Ordering::Relaxed);
        // A look-up that met the silence has to end first.
        sleep(Duration::from_secs(2));
        moved_us = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(u64::MAX, |since| since.as_micros() as u64);
        sleep(trial.fault_time());
        Ok(())
    })?;
    trial.demand_none_failed(&told.asked, true);
    let executed = told.rig.executed()?;
    let old = executed.iter().filter(|record| record.origin == 0 && record.at_us > moved_us).count();
    trial.report.demand(old == 0, || format!("{old} requests still went to the address that the name has no more"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u8) -> Vec<u8> {
        let mut query = vec![7, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(label.len() as u8);
            query.extend_from_slice(label.as_bytes());
        }
        query.extend_from_slice(&[0, 0, kind, 0, 1]);
        query
    }

    #[test]
    fn a_name_has_its_address_or_fails_as_told() {
        let question = query("origin2.faults.test", 1);
        let well = answer(&question, WELL, [1, 9, 3]).unwrap();
        assert_eq!((&well[..2], well[3] & 15, well[7]), (&[7, 8][..], 0, 1));
        assert_eq!(well[well.len() - 4..], [127, 0, 0, 9]);
        assert_eq!(answer(&question, NO_SUCH_NAME, [1, 9, 3]).unwrap()[3] & 15, 3);
        assert_eq!(answer(&question, EMPTY, [1, 9, 3]).unwrap()[7], 0);
        assert_eq!(answer(&question, SILENT, [1, 9, 3]), None);
        assert_eq!(answer(&query("origin2.faults.test", 28), WELL, [1, 9, 3]).unwrap()[7], 0, "no IPv6");
        assert_eq!(answer(&[1, 2, 3], WELL, [1, 9, 3]), None);
    }
}
