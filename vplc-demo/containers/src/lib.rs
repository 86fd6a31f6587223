//! Containers for virtual PLCs: OCI bundles made of one program and the libraries that it is
//! linked with, and the engines that run them. Nothing is downloaded.
//!
//! A container has an ordinary user, no capability, no way to get one, a root file system
//! that it cannot write, namespaces of its own (no network interface in them but its own
//! loopback), and one thing of the host: the directory of the control socket.
#![forbid(unsafe_code)]

pub mod bundle;
pub mod engine;
