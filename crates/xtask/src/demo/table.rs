//! What the demo prints once everything runs: the table, what to try, and the same for machines. Pure.

use serde_json::{Value, json};

use super::plan::{Plan, Spec};

/// A started program.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) spec: Spec,
    pub(crate) pid: u32,
}

/// What runs where, and what to try next.
pub(crate) fn for_a_person(rows: &[Row], plan: &Plan, requests_per_s: u32) -> String {
    let traffic = match requests_per_s {
        0 => "No traffic is sent (--no-traffic).".to_owned(),
        rate => format!("About {rate} requests/s flow through the load balancer (--no-traffic, --traffic N)."),
    };
    format!("\n{}\n{traffic}\n\n{}", table(rows), suggestions(rows, plan))
}

/// One line of JSON: the contract of `demo --json`.
pub(crate) fn for_a_machine(rows: &[Row], plan: &Plan) -> Value {
    let of = |program: &'static str| rows.iter().filter(move |row| row.spec.program == program);
    let server = |row: &Row| json!({ "name": row.spec.name, "url": row.spec.url, "pid": row.pid });
    let pids: serde_json::Map<String, Value> =
        rows.iter().map(|row| (row.spec.name.to_owned(), json!(row.pid))).collect();
    json!({
        "ready": true,
        "proxy": plan.proxy_url(),
        "admin": plan.admin_url(),
        "dashboard": plan.dashboard_url(),
        "servers": of("server").map(server).collect::<Vec<_>>(),
        "pids": pids,
    })
}

fn table(rows: &[Row]) -> String {
    let header = ["program", "name", "URL", "pid"].map(str::to_owned);
    let cells = rows
        .iter()
        .map(|row| [row.spec.program.to_owned(), row.spec.name.to_owned(), row.spec.url.clone(), row.pid.to_string()]);
    let cells: Vec<[String; 4]> = std::iter::once(header).chain(cells).collect();
    let widths: [usize; 4] =
        std::array::from_fn(|column| cells.iter().map(|row| row[column].len()).max().unwrap_or_default());
    let line = |row: &[String; 4]| {
        let padded = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect::<Vec<_>>();
        format!("  {}\n", padded.join("  ").trim_end())
    };
    cells.iter().map(line).collect()
}

fn suggestions(rows: &[Row], plan: &Plan) -> String {
    let servers: Vec<&Row> = rows.iter().filter(|row| row.spec.program == "server").collect();
    let mut tries = vec![
        (format!("curl {}", plan.proxy_url()), "four times: the name changes each time".to_owned()),
        (format!("open {}", plan.dashboard_url()), "watch it there, and drain a server".to_owned()),
    ];
    if let Some(last) = servers.last() {
        let what = format!("{} dies, and no request fails", last.spec.name);
        tries.push((format!("kill -9 {}", last.pid), what));
    }
    if let [_, second, ..] = servers.as_slice() {
        let faults = |faults: &str| format!("curl -X PUT {}/admin/faults -d '{faults}'", second.spec.url);
        tries.push((faults("latency=300ms"), format!("{} becomes slow", second.spec.name)));
        tries.push((faults("none"), "and well again".to_owned()));
    }
    tries.push(("Ctrl-C".to_owned(), "stops all of it".to_owned()));
    let width = tries.iter().map(|(command, _)| command.len()).max().unwrap_or_default();
    let lines: String = tries.iter().map(|(command, what)| format!("  {command:width$}   {what}\n")).collect();
    format!("Try:\n{lines}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(plan: &Plan) -> Vec<Row> {
        let specs = plan.servers().into_iter().chain([plan.loadbalancer(), plan.dashboard()]);
        specs.zip(900..).map(|(spec, pid)| Row { spec, pid }).collect()
    }

    #[test]
    fn the_table_says_what_runs_where() {
        let plan = Plan::at(8080).unwrap();
        let expected = "  program       name          URL                    pid
  server        alpha         http://127.0.0.1:8081  900
  server        beta          http://127.0.0.1:8082  901
  server        gamma         http://127.0.0.1:8083  902
  loadbalancer  loadbalancer  http://127.0.0.1:8080  903
  dashboard     dashboard     http://127.0.0.1:8090  904
";
        assert_eq!(table(&rows(&plan)), expected);
    }

    #[test]
    fn a_person_is_told_what_to_try_with_the_real_ports_and_pids() {
        let plan = Plan::at(100).unwrap();
        let text = for_a_person(&rows(&plan), &plan, 20);
        for expected in
            ["curl http://127.0.0.1:100 ", "open http://127.0.0.1:110 ", "kill -9 902 ", "http://127.0.0.1:102/admin"]
        {
            assert!(text.contains(expected), "no {expected} in {text}");
        }
        assert!(text.contains("About 20 requests/s"));
        assert!(for_a_person(&rows(&plan), &plan, 0).contains("No traffic is sent"));
    }

    #[test]
    fn the_ready_line_for_machines() {
        let plan = Plan::at(8080).unwrap();
        let line = for_a_machine(&rows(&plan), &plan);
        let expected = json!({
            "ready": true,
            "proxy": "http://127.0.0.1:8080",
            "admin": "http://127.0.0.1:8089",
            "dashboard": "http://127.0.0.1:8090",
            "servers": [
                { "name": "alpha", "url": "http://127.0.0.1:8081", "pid": 900 },
                { "name": "beta", "url": "http://127.0.0.1:8082", "pid": 901 },
                { "name": "gamma", "url": "http://127.0.0.1:8083", "pid": 902 },
            ],
            "pids": { "alpha": 900, "beta": 901, "gamma": 902, "loadbalancer": 903, "dashboard": 904 },
        });
        assert_eq!(line, expected);
    }
}
