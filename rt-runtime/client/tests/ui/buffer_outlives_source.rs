use insane_rt::{Buffer, Source};

fn keep(source: Source) -> Buffer<'static> {
    source.get_buffer(8).unwrap()
}

fn main() {}
