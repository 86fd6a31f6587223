//! A tank: a fast task measures its level and sends it, a slow one, which hears of it over
//! the network's channel and through shared memory, moves the valve.
use insane_rt::Session;

#[vplc::app(jitter = 200us, fifo = 40)]
mod app {
    use insane_rt::{ChannelId, Qos, SinkOptions, SourceOptions};
    use vplc::{In, Out};

    #[shared]
    struct Shared {
        valve: f64,
    }

    #[local]
    struct Local {
        levels_out: Out,
        levels_in: In,
    }

    #[init]
    fn init(cx: init::Context) -> (Shared, Local, init::Monotonics) {
        let stream = cx.session.stream("tank", Qos::default()).expect("a stream");
        let sink = stream.sink(ChannelId(1), SinkOptions::default()).expect("a sink");
        let source = stream.source(ChannelId(1), SourceOptions::small()).expect("a source");
        let local = Local { levels_out: Out::new(source), levels_in: In::new(sink) };
        (Shared { valve: 0.0 }, local, init::Monotonics())
    }

    #[task(priority = 2, cycle = 2ms, deadline = 1ms, wcet = 200us, lock = 20us,
           shared = [valve], local = [levels_out, level: f64 = 0.0])]
    fn measure(mut cx: measure::Context) {
        let valve = cx.shared.valve.lock(|valve| *valve);
        *cx.local.level += (valve - 0.2) * 0.002;
        // A full ring means that nobody listens; the next level is newer anyway.
        let _ = cx.local.levels_out.put(&cx.local.level.to_le_bytes());
    }

    #[task(priority = 1, cycle = 10ms, offset = 1ms, wcet = 1ms, lock = 50us,
           shared = [valve], local = [levels_in, cycles: u32 = 0])]
    fn control(mut cx: control::Context) {
        let mut bytes = [0; 8];
        if let Ok(Some(_)) = cx.local.levels_in.newest(&mut bytes) {
            let level = f64::from_le_bytes(bytes);
            cx.shared.valve.lock(|valve| *valve = (0.2 + 4.0 * (0.1 - level)).clamp(0.0, 1.0));
        }
        *cx.local.cycles += 1;
        if *cx.local.cycles == 50 {
            cx.stop.ask();
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let session = Session::embedded("tank")?;
    let running = app::start(&session)?;
    for notice in running.notices() {
        eprintln!("notice: {notice}: deadlines are not guaranteed");
    }
    for task in running.join().tasks {
        let (name, cycles, misses) = (task.spec.name, task.statistics.cycles, task.statistics.deadline_misses);
        println!("{name}: {cycles} cycles, {misses} late, at most {} of processor time", task.cpu_worst);
    }
    Ok(())
}
