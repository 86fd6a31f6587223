//! There is nothing to build: only a package with a build program has dependencies of it.

fn main() {}
