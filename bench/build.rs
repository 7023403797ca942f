//! Tells the program how it was compiled: what a request costs in instructions depends on it.

use std::process::Command;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = String::from_utf8(Command::new(rustc).arg("--version").output()?.stdout)?;
    println!("cargo::rustc-env=RUSTC_VERSION={}", version.trim());
    // An incremental build inlines less. A release build is one only where the environment asks for it.
    println!(
        "cargo::rustc-env=INCREMENTAL={}",
        std::env::var("CARGO_INCREMENTAL").unwrap_or_default()
    );
    println!("cargo::rerun-if-env-changed=CARGO_INCREMENTAL");
    println!("cargo::rerun-if-changed=build.rs");
    Ok(())
}
