//! Builds the library by which the fault matrix moves a process's clock. Without a C compiler it is empty, and the matrix says
//! that it cannot.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    const SOURCE: &str = "src/fault_matrix/skew.c";
    println!("cargo::rerun-if-changed={SOURCE}");
    let library = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo names a folder")).join("skew.so");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(SOURCE).status();
    if !built.is_ok_and(|status| status.success()) {
        std::fs::write(&library, []).expect("the folder can be written to");
    }
}
