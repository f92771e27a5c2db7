//! Faults of the network, made with packet filters in a namespace of our own.

use std::thread::sleep;
use std::time::Duration;

use super::super::origin::Mode;
use super::super::proxy::Timing;
use super::super::rig::Wishes;
use super::super::surroundings::Packets;
use super::super::trial::Trial;
use crate::Error;

/// What a machine adds to any wait; less than what a second connect would.
const SLACK: Duration = Duration::from_millis(700);

/// Whether packets can be filtered at all; said in the report if not.
fn can_filter(trial: &mut Trial<'_>) -> bool {
    match Packets::rules(&[]) {
        Ok(_) => true,
        Err(reason) => {
            trial.not_here(reason);
            false
        }
    }
}

pub(super) fn syn_hole(trial: &mut Trial<'_>) -> Result<(), Error> {
    if !can_filter(trial) {
        return Ok(());
    }
    let told = trial.under_load(Wishes::default(), |trial, rig, _| {
        let port = rig.origins[0].port;
        let rule = format!("tcp dport {port} tcp flags & (syn | ack) == syn drop");
        let packets = Packets::rules(&[rule]).map_err(Error::Failed)?;
        // Every connection there is to be a new one.
        rig.origins[0].order(Mode::CloseEach)?;
        // Three connects in a row that time out, and what comes after them.
        sleep(3 * Timing::QUICK.connect + trial.fault_time());
        drop(packets);
        rig.origins[0].order(Mode::Serve)
    })?;
    trial.demand_none_failed(&told.asked, true);
    let longest = told.asked.iter().map(|asked| asked.took_us).max().unwrap_or_default();
    trial.demand_felt(longest > 500_000);
    let most = (Timing::QUICK.connect + SLACK).as_micros() as u64;
    trial.demand_time(longest <= most, || format!("a request took {} ms", longest / 1000));
    let slow = told.during(0.75, 1.0).filter(|asked| asked.took_us > most / 2).count();
    trial.report.demand(slow == 0, || format!("{slow} requests still waited when it had long been known"));
    Ok(())
}

pub(super) fn dead(trial: &mut Trial<'_>) -> Result<(), Error> {
    if !can_filter(trial) {
        return Ok(());
    }
    let told = trial.under_load(Wishes::default(), |trial, rig, _| {
        let port = rig.origins[0].port;
        let rules = [format!("tcp dport {port} drop"), format!("tcp sport {port} drop")];
        let packets = Packets::rules(&rules).map_err(Error::Failed)?;
        sleep(Timing::QUICK.head + trial.fault_time());
        drop(packets);
        Ok(())
    })?;
    let failed = told.asked.iter().filter(|asked| !asked.is_well()).count();
    trial.demand_felt(failed > 0 || told.asked.iter().any(|asked| asked.took_us > 500_000));
    // A kept connection: the time for an answer. A new one: the time to connect, and then another server.
    let most = (Timing::QUICK.connect + Timing::QUICK.head + SLACK).as_micros() as u64;
    let longest = told.asked.iter().map(|asked| asked.took_us).max().unwrap_or_default();
    trial.demand_time(longest <= most, || format!("a request took {} ms", longest / 1000));
    let slow = told.during(0.85, 1.0).filter(|asked| !asked.is_well()).count();
    trial.report.demand(slow == 0, || format!("{slow} requests still failed when it had long been known"));
    trial.report.note(format!("{failed} requests on connections that went dead got 504"));
    Ok(())
}

pub(super) fn loss(trial: &mut Trial<'_>) -> Result<(), Error> {
    if !can_filter(trial) {
        return Ok(());
    }
    let told = trial.under_load(Wishes::default(), |trial, rig, _| {
        let ports: Vec<String> = rig.origins.iter().map(|origin| origin.port.to_string()).collect();
        let ports = ports.join(", ");
        let rules = ["dport", "sport"].map(|end| format!("tcp {end} {{ {ports} }} numgen random mod 100 < 1 drop"));
        let packets = Packets::rules(&rules).map_err(Error::Failed)?;
        sleep(trial.fault_time() * 2);
        drop(packets);
        Ok(())
    })?;
    trial.demand_none_failed(&told.asked, true);
    trial.report.note(format!(
        "p99 {} ms with loss, {} ms before",
        told.p99_during_us() / 1000,
        told.p99_before_us() / 1000
    ));
    Ok(())
}
