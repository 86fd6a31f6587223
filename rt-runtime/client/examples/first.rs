//! Sends one message to itself.
use insane_rt::{ChannelId, Emit, Qos, Session, SinkOptions, SourceOptions};
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let session = Session::embedded("first")?;
    let stream = session.stream("greetings", Qos::default())?;
    let sink = stream.sink(ChannelId(1), SinkOptions::default())?;
    let source = stream.source(ChannelId(1), SourceOptions::default())?;
    source.wait_for_receivers(Duration::from_secs(1))?;

    let mut buffer = source.get_buffer(5)?;
    buffer.copy_from_slice(b"hello");
    let Emit::Sent(token) = source.emit(buffer) else { return Err("refused".into()) };

    let message = sink.consume_timeout(Duration::from_secs(1))?.ok_or("nothing came")?;
    assert_eq!(message.bytes(), Some(&b"hello"[..]));
    assert_eq!(message.sequence(), token.sequence());
    println!("message {} says {:?}", message.sequence(), String::from_utf8_lossy(&message.to_vec()));
    Ok(())
}
