use insane_rt::Source;

fn emit_twice(source: &Source) {
    let mut buffer = source.get_buffer(8).unwrap();
    let _ = source.emit(buffer);
    buffer[0] = 1;
}

fn main() {}
