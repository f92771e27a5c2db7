//! The README is true: its tables come from the code, its commands and its links exist.
//!
//! `UPDATE_README=1` writes the tables again instead of comparing them.

use std::collections::HashSet;
use std::process::Command;

use e2e::program::{bin_dir, scratch_dir, workspace_root};

const PICTURE: &str = "crates/dashboard/docs/dashboard.png";
const END: &str = "<!-- /options -->";

#[test]
fn tables_of_options_are_what_the_code_says() {
    let before = readme();
    let tables = [
        ("loadbalancer", loadbalancer::options_markdown()),
        ("server", table(&server::command())),
        ("dashboard", table(&dashboard::command())),
    ];
    let after = tables.iter().fold(before.clone(), |text, (program, table)| with_table(&text, program, table));
    if std::env::var_os("UPDATE_README").is_some_and(|value| !value.is_empty()) {
        std::fs::write(workspace_root().join("README.md"), after).expect("README.md can be written");
        return;
    }
    for (old, new) in before.lines().zip(after.lines()) {
        assert_eq!(old, new, "a table of options is not what the code says; UPDATE_README=1 writes it again");
    }
    assert_eq!(before.len(), after.len(), "a table of options is not as long as the code says");
}

#[test]
fn every_command_exists() {
    let readme = readme();
    let commands: Vec<Vec<&str>> = readme.lines().filter_map(cargo_command).collect();
    for wanted in [&["demo"] as &[_], &["xtask", "test"], &["run", "--release", "--bin", "loadbalancer"]] {
        assert!(commands.iter().any(|command| command.starts_with(wanted)), "the README does not show {wanted:?}");
    }
    let aliases = std::fs::read_to_string(workspace_root().join(".cargo/config.toml")).expect("aliases are set");
    for command in commands {
        match command.as_slice() {
            ["demo", ..] => {
                assert!(aliases.contains("\ndemo = "), "no alias for {command:?}");
                assert_xtask_has("demo", &command[1..]);
            }
            ["xtask", name, options @ ..] => {
                assert!(aliases.contains("\nxtask = "), "no alias for {command:?}");
                assert_xtask_has(name, options);
            }
            ["run", "--release", "--bin", program, ..] => {
                assert!(workspace_root().join(format!("crates/{program}/src/main.rs")).exists(), "{command:?}");
            }
            ["build", "--release"] => {}
            _ => panic!("nothing here knows whether this command exists: cargo {}", command.join(" ")),
        }
    }
}

#[test]
fn the_example_of_a_file_is_valid() {
    let readme = readme();
    let (_, rest) = readme.split_once("```toml\n").expect("the README shows a configuration file");
    let (example, _) = rest.split_once("```").expect("the example ends");
    let path = scratch_dir().join("readme.toml");
    std::fs::write(&path, example).expect("the scratch directory is writable");
    let output = Command::new(bin_dir().join("loadbalancer")).arg("check").arg(&path).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_link_leads_somewhere() {
    let readme = readme();
    let anchors: HashSet<String> = readme.lines().filter_map(heading).collect();
    let links: Vec<&str> = links(&readme).filter(|link| !link.contains("://")).collect();
    assert!(links.contains(&PICTURE), "the README shows a picture of the dashboard");
    for link in links {
        match link.strip_prefix('#') {
            Some(anchor) => assert!(anchors.contains(anchor), "no heading for {link}"),
            None => assert!(workspace_root().join(link).exists(), "{link} does not exist"),
        }
    }
}

fn readme() -> String {
    std::fs::read_to_string(workspace_root().join("README.md")).expect("there is a README.md")
}

/// `text` with the table of `program` between its marks replaced.
fn with_table(text: &str, program: &str, table: &str) -> String {
    let start = format!("<!-- options:{program} -->");
    let (before, rest) = text.split_once(&start).unwrap_or_else(|| panic!("README.md has no {start}"));
    let (_, after) = rest.split_once(END).unwrap_or_else(|| panic!("README.md has no {END} after {start}"));
    format!("{before}{start}\n{}\n{END}{after}", table.trim_end())
}

/// A table of all options of a command line.
fn table(command: &clap::Command) -> String {
    let code = |text: String| if text.is_empty() { "–".to_owned() } else { format!("`{text}`") };
    let row = |arg: &clap::Arg| {
        let flag = arg.get_long().map(|long| format!("--{long}")).unwrap_or_default();
        let variable = arg.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let takes_value = arg.get_action().takes_values();
        let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let words: Vec<_> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        let mut what = arg.get_help().map(ToString::to_string).unwrap_or_default().replace('\n', " ");
        if takes_value && !words.is_empty() {
            what.push_str(&format!(": {}", words.join(", ")));
        }
        let default = if takes_value { defaults.join(",") } else { String::new() };
        let cells = [code(flag), code(variable), code(default), what].map(|cell| cell.replace('|', "\\|"));
        format!("| {} |", cells.join(" | "))
    };
    let options = command.get_arguments().filter(|arg| !arg.is_hide_set() && !arg.is_positional());
    let rows = options.filter(|arg| !["help", "version"].contains(&arg.get_id().as_str())).map(row);
    let head = ["| flag | variable | default | what it does |".to_owned(), "|---|---|---|---|".to_owned()];
    head.into_iter().chain(rows).collect::<Vec<_>>().join("\n")
}

/// The words after `cargo` of a line in a code block, without variables before it and a comment after it.
fn cargo_command(line: &str) -> Option<Vec<&str>> {
    let code = line.strip_prefix("    ")?.split(" #").next()?;
    let mut words = code.split_whitespace().skip_while(|word| word.contains('='));
    (words.next() == Some("cargo")).then(|| words.collect())
}

/// Asks the real xtask, whose `--help` fails for an unknown command.
fn assert_xtask_has(name: &str, options: &[&str]) {
    let output = Command::new(bin_dir().join("xtask")).args([name, "--help"]).output().expect("xtask runs");
    assert!(output.status.success(), "there is no cargo xtask {name}");
    let help = String::from_utf8_lossy(&output.stdout);
    for option in options.iter().filter(|option| option.starts_with("--")) {
        assert!(help.contains(*option), "cargo xtask {name} has no {option}");
    }
}

/// The targets of Markdown links and pictures.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let markdown = text.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
    let html = text.split("src=\"").skip(1).filter_map(|rest| rest.split('"').next());
    markdown.chain(html)
}

/// The anchor of a heading, as GitHub makes it.
fn heading(line: &str) -> Option<String> {
    let title = line.strip_prefix('#')?.trim_start_matches('#').trim();
    let kept = title.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    Some(kept.collect::<String>().to_lowercase().replace(' ', "-"))
}
