use insane_rt::Sink;

fn slice_of_peers_memory(sink: &Sink) {
    let message = sink.consume().unwrap().unwrap();
    let bytes: &[u8] = message.shared();
    println!("{bytes:?}");
}

fn main() {}
