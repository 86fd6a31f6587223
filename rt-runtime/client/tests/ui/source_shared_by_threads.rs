use insane_rt::Source;

fn share(source: Source) {
    std::thread::scope(|scope| {
        scope.spawn(|| source.emit_copy(b"one").unwrap());
        scope.spawn(|| source.emit_copy(b"two").unwrap());
    });
}

fn main() {}
