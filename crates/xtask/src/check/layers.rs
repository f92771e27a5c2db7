//! `cargo xtask layers`: the direction in which crates import each other, and what lies at the top of the repository.
//!
//! An arrow that points the wrong way is cheap to turn on the day it is made, and never afterwards.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::Error;
use crate::workspace::Workspace;

/// Which of our crates a crate may import.
const MAY_IMPORT: [(&str, &[&str]); 8] = [
    ("lb-fuzz", &[]),
    ("lb-core", &["lb-fuzz"]),
    ("loadbalancer", &["lb-core", "lb-fuzz"]),
    // An origin must not share the balancer's bugs.
    ("server", &[]),
    ("dashboard", &["lb-core"]),
    ("lb-sim", &["lb-core"]),
    ("xtask", &[]),
    ("e2e", &["lb-core", "lb-fuzz", "loadbalancer", "server", "dashboard", "lb-sim"]),
];

/// The domain is pure: what does I/O may be asked for only through a feature, and the command line never.
const CORE: &str = "lb-core";
const CORE_NEVER: [&str; 2] = ["clap", "axum"];
const CORE_ONLY_OPTIONAL: [&str; 3] = ["tokio", "hyper", "hyper-util"];

/// What only tests may depend on: it must never be part of a program.
const ONLY_IN_TESTS: &str = "lb-fuzz";

/// What a visitor sees first. Everything else belongs to a crate. Names with a leading dot belong to tools.
const TOP_LEVEL: [&str; 7] = ["CHANGELOG.md", "Cargo.lock", "Cargo.toml", "LICENSE", "README.md", "crates", "tests"];

/// # Errors
/// As [`check`].
pub(crate) fn run() -> Result<(), Error> {
    check(&Workspace::find()?)
}

/// # Errors
/// When an import points the wrong way, or the top level is not as agreed.
pub(crate) fn check(workspace: &Workspace) -> Result<(), Error> {
    let mut wrong = wrong_imports(&workspace.packages);
    wrong.extend(wrong_core_dependencies(&workspace.packages));
    wrong.extend(tests_in_programs(&workspace.packages));
    wrong.extend(wrong_wire_imports(&workspace.root.join("crates/dashboard/src")));
    let gitignore = fs::read_to_string(workspace.root.join(".gitignore")).unwrap_or_default();
    wrong.extend(wrong_top_level(&visible(&workspace.root, &gitignore)));
    if wrong.is_empty() {
        println!("{} crates import in the agreed direction", workspace.packages.len());
        return Ok(());
    }
    Err(Error::Failed(format!("the layers are broken:\n  {}", wrong.join("\n  "))))
}

fn wrong_imports(packages: &[Value]) -> Vec<String> {
    let ours: BTreeSet<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let mut wrong = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(krate, _)| *krate == name) else {
            wrong.push(format!("{name}: a new crate; say what it may import in crates/xtask/src/check/layers.rs"));
            continue;
        };
        let imports = dependencies(package).map(|(import, _)| import).collect::<BTreeSet<_>>();
        for import in imports.iter().filter(|import| ours.contains(*import) && !allowed.contains(import)) {
            let may = if allowed.is_empty() { "none of ours".to_owned() } else { allowed.join(", ") };
            wrong.push(format!("{name} imports {import}, but may import {may}"));
        }
    }
    wrong
}

fn wrong_core_dependencies(packages: &[Value]) -> Vec<String> {
    let core = packages.iter().filter(|package| package["name"] == CORE);
    core.flat_map(dependencies)
        .filter_map(|(name, always)| {
            if CORE_NEVER.contains(&name) {
                Some(format!("{CORE} depends on {name}: the domain knows no command line and no server"))
            } else if always && CORE_ONLY_OPTIONAL.contains(&name) {
                Some(format!("{CORE} always depends on {name}: only a feature may, the domain does no I/O"))
            } else {
                None
            }
        })
        .collect()
}

fn tests_in_programs(packages: &[Value]) -> Vec<String> {
    let with = packages.iter().filter(|package| {
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        dependencies.into_iter().any(|found| found["name"] == ONLY_IN_TESTS && found["kind"] != "dev")
    });
    with.map(|package| format!("{} depends on {ONLY_IN_TESTS} not only in its tests", package["name"])).collect()
}

/// The dependencies of a package, and whether each comes with every build of it (not optional, not for tests only).
fn dependencies(package: &Value) -> impl Iterator<Item = (&str, bool)> {
    package["dependencies"].as_array().into_iter().flatten().filter_map(|dependency| {
        let always = dependency["optional"] == false && dependency["kind"].is_null();
        Some((dependency["name"].as_str()?, always))
    })
}

/// The dashboard speaks to load balancers of other versions: it may know their wire types, not their insides.
fn wrong_wire_imports(dir: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            wrong.extend(wrong_wire_imports(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let lines = text.lines().filter(|line| {
                line.match_indices("lb_core::").any(|(at, found)| !line[at + found.len()..].starts_with("api"))
            });
            wrong.extend(lines.map(|line| {
                format!("dashboard may use lb_core::api only, but {} has: {}", path.display(), line.trim())
            }));
        }
    }
    wrong
}

fn wrong_top_level(visible: &BTreeSet<String>) -> Vec<String> {
    let agreed: BTreeSet<String> = TOP_LEVEL.iter().map(|name| (*name).to_owned()).collect();
    let extra = visible.difference(&agreed).map(|name| format!("{name} does not belong at the top of the repository"));
    let missing = agreed.difference(visible).map(|name| format!("{name} is missing at the top of the repository"));
    extra.chain(missing).collect()
}

/// What lies at the root, without dotfiles and without what git is told to ignore there (`/name` lines).
fn visible(root: &Path, gitignore: &str) -> BTreeSet<String> {
    let ignored: Vec<&str> = gitignore.lines().filter_map(|line| line.strip_prefix('/')).collect();
    fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && !ignored.contains(&name.as_str()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn package(name: &str, dependencies: &[&str]) -> Value {
        let dependency = |name: &&str| json!({ "name": name, "kind": null, "optional": false });
        json!({ "name": name, "dependencies": dependencies.iter().map(dependency).collect::<Vec<_>>() })
    }

    #[test]
    fn an_import_against_the_arrows_is_named() {
        let packages = [package("lb-core", &[]), package("loadbalancer", &["lb-core", "bytes"])];
        assert_eq!(wrong_imports(&packages), [] as [String; 0]);
        let packages = [package("lb-core", &["server"]), package("server", &["lb-core"])];
        let expected =
            ["lb-core imports server, but may import lb-fuzz", "server imports lb-core, but may import none of ours"];
        assert_eq!(wrong_imports(&packages), expected);
        assert!(wrong_imports(&[package("lb-new", &[])])[0].starts_with("lb-new: a new crate"));
    }

    #[test]
    fn the_core_does_io_only_behind_a_feature() {
        let core = |kind: Value, optional: bool| json!({ "name": "lb-core", "dependencies": [{ "name": "tokio", "kind": kind, "optional": optional }] });
        assert_eq!(wrong_core_dependencies(&[core(Value::Null, true), core(json!("dev"), false)]).len(), 0);
        assert_eq!(wrong_core_dependencies(&[core(Value::Null, false)]).len(), 1);
        assert_eq!(wrong_core_dependencies(&[package("lb-core", &["clap"])]).len(), 1);
        assert_eq!(wrong_core_dependencies(&[package("server", &["clap", "tokio"])]).len(), 0);
    }

    #[test]
    fn what_is_for_tests_is_in_no_program() {
        let with = |kind: Value| json!({ "name": "a", "dependencies": [{ "name": "lb-fuzz", "kind": kind }] });
        assert_eq!(tests_in_programs(&[with(json!("dev")), package("b", &["c"])]), [] as [String; 0]);
        assert_eq!(tests_in_programs(&[with(Value::Null)]).len(), 1);
    }

    #[test]
    fn the_dashboard_knows_the_wire_types_only() {
        let dir = std::env::temp_dir().join(format!("xtask-layers-{}", std::process::id()));
        fs::create_dir_all(dir.join("sub")).unwrap();
        fs::write(dir.join("a.rs"), "use lb_core::api::{Status, Delta};\n").unwrap();
        assert_eq!(wrong_wire_imports(&dir), [] as [String; 0]);
        fs::write(dir.join("sub/b.rs"), "use lb_core::pool::Pool;\n").unwrap();
        let wrong = wrong_wire_imports(&dir);
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(wrong.len(), 1);
        assert!(wrong[0].ends_with("b.rs has: use lb_core::pool::Pool;"), "{wrong:?}");
    }

    #[test]
    fn the_top_level_is_exactly_what_was_agreed() {
        let mut names: BTreeSet<String> = TOP_LEVEL.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(wrong_top_level(&names), [] as [String; 0]);
        names.insert("docs".to_owned());
        names.remove("LICENSE");
        let expected =
            ["docs does not belong at the top of the repository", "LICENSE is missing at the top of the repository"];
        assert_eq!(wrong_top_level(&names), expected);
    }
}
