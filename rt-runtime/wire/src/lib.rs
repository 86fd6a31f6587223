//! Formats: the data header, bundles of frames, reports on reliable flows and the overlay's frames between
//! runtimes, the control protocol between an application and its runtime.
#![forbid(unsafe_code)]

pub mod bundle;
pub mod control;
pub mod data;
pub mod flow_head;
pub mod group;
pub mod link;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod overlay;
pub mod refusal;
pub mod reliable;
pub mod reload;
pub mod schedule;
pub mod status;
