//! Embedding looks at the files that were there when the crate was compiled: a new asset must compile it again.

fn main() {
    println!("cargo::rerun-if-changed=assets");
}
