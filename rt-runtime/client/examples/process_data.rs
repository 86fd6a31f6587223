//! A cyclic exchange that falls silent: the value becomes stale, and a safe one takes its
//! place.
use insane_rt::{ChannelId, Edge, OnStale, ProcessOptions, ProcessSourceOptions, Qos, Schema, Session, Validity};
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let session = Session::embedded("process-data")?;
    let stream = session.stream("plant", Qos::default())?;
    let schema = Schema::new("position_mm", 0x51ce_0001).ok_or("a bad name")?;

    let period = Duration::from_millis(5);
    let safe = OnStale::Substitute(0_u32.to_le_bytes().to_vec());
    let options = ProcessOptions::new(4).period(period).max_missed(2).on_stale(safe).schema(schema);
    let mut position = stream.process_sink(ChannelId(1), options)?;
    let mut sensor = stream.process_source(ChannelId(1), ProcessSourceOptions::new(4).history(1).schema(schema))?;
    sensor.wait_for_receivers(Duration::from_secs(1))?;

    // The receiver's task looks once a cycle, at the cycle's planned start; the sensor falls
    // silent after the fifth.
    let start = position.now();
    let mut edges = Vec::new();
    for cycle in 0..10_u32 {
        if cycle < 5 && !sensor.emit(&(100 + cycle).to_le_bytes())?.is_sent() {
            return Err("refused".into());
        }
        let sample = position.poll(start + (period * cycle).into())?;
        let millimetres = u32::from_le_bytes(sample.bytes.try_into()?);
        println!("cycle {cycle}: {millimetres} mm, {:?}", sample.validity);
        edges.extend(sample.edge.map(|edge| (cycle, edge)));
        assert_eq!(sample.validity == Validity::Substituted, cycle >= 7);
        std::thread::sleep(period);
    }
    assert_eq!(edges, [(0, Edge::Fresh), (7, Edge::Stale)]);
    Ok(())
}
