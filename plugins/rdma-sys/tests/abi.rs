//! The foreign structures are as the headers have them, and what is missing is told.

use insane_rdma_sys::{Device, VerbsError, layout, probe};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

/// Compiles a small program that prints every number, where headers and compiler are there.
#[test]
fn structures_are_as_the_headers_have_them() {
    if !Path::new("/usr/include/rdma/rdma_cma.h").exists() || Command::new("cc").arg("--version").output().is_err() {
        eprintln!("passed over: needs cc, libibverbs-dev and librdmacm-dev");
        return;
    }
    let mut source = String::from(
        "#include <stddef.h>\n#include <stdio.h>\n#include <infiniband/verbs.h>\n#include <rdma/rdma_cma.h>\n\
         int main(void) {\n",
    );
    for (expression, _) in layout() {
        writeln!(source, "printf(\"%zu\\n\", (size_t)({expression}));").unwrap();
    }
    source += "return 0;\n}\n";
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (file, program) = (folder.join("rdma_abi.c"), folder.join("rdma_abi"));
    std::fs::write(&file, source).unwrap();
    let built = Command::new("cc").arg(&file).arg("-o").arg(&program).status().unwrap();
    assert!(built.success());
    let output = Command::new(&program).output().unwrap();
    let theirs: Vec<usize> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    let ours = layout();
    assert_eq!(theirs.len(), ours.len());
    for ((expression, ours), theirs) in ours.into_iter().zip(theirs) {
        assert_eq!(ours, theirs, "{expression}");
    }
}

#[test]
fn what_is_missing_is_a_reason_and_no_panic() {
    if let Err(error) = probe() {
        assert!(matches!(error, VerbsError::Absent { .. }), "{error}");
        return;
    }
    // An address for documentation, which no device has.
    let error = Device::at("192.0.2.1:7400".parse().unwrap()).unwrap_err();
    assert!(!error.to_string().is_empty());
    assert!(matches!(error, VerbsError::NoKernel { .. } | VerbsError::NoDevice { .. }), "{error}");
}
