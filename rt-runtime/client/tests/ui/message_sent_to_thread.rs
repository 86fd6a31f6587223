use insane_rt::Sink;

fn hand_over(sink: &Sink) {
    let message = sink.consume().unwrap().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || message.len());
    });
}

fn main() {}
