use insane_rt::Sink;

fn read_released(sink: &Sink) {
    let message = sink.consume().unwrap().unwrap();
    let bytes = message.bytes().unwrap();
    message.release();
    println!("{bytes:?}");
}

fn main() {}
