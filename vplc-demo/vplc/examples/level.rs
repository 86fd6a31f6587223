//! A tank: a fast task measures its level and sends it, a slow one, which hears of it over
//! the network's channel and through shared memory, moves the valve. What is too high is an
//! alarm: a task that is spawned, at most so often, more urgent than who computes the valve.
use insane_rt::Session;

#[vplc::app(jitter = 200us, fifo = 40)]
mod app {
    use insane_rt::{ChannelId, Qos, SinkOptions, SourceOptions};
    use vplc::{In, Out};

    #[shared]
    struct Shared {
        valve: f64,
        alarms: u32,
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
        (Shared { valve: 0.0, alarms: 0 }, local, init::Monotonics())
    }

    #[task(priority = 2, cycle = 2ms, deadline = 1ms, wcet = 200us, lock = 20us,
           shared = [valve], local = [levels_out, level: f64 = 0.0])]
    fn measure(mut cx: measure::Context) {
        let valve = cx.shared.valve.lock(|valve| *valve);
        *cx.local.level += (valve - 0.2) * 0.002;
        // A full ring means that nobody listens; the next level is newer anyway.
        let _ = cx.local.levels_out.put(&cx.local.level.to_le_bytes());
        if *cx.local.level > 0.05 {
            // Refused: the last alarm is not 50 ms old, and says the same.
            let _ = alarm::spawn(*cx.local.level);
        }
    }

    #[task(priority = 3, interval = 50ms, deadline = 1ms, wcet = 50us, lock = 10us,
           shared = [alarms], local = [highest: f64 = 0.0])]
    fn alarm(mut cx: alarm::Context, level: f64) {
        *cx.local.highest = cx.local.highest.max(level);
        cx.shared.alarms.lock(|alarms| *alarms += 1);
    }

    #[idle(shared = [alarms], lock = 10us)]
    fn idle(mut cx: idle::Context) -> ! {
        let mut told = 0;
        loop {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let alarms = cx.shared.alarms.lock(|alarms| *alarms);
            if alarms > told {
                println!("the level is too high");
                told = alarms;
            }
        }
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
    let report = running.join();
    for task in report.tasks() {
        let (name, ran, worst) = (task.spec.name, &task.statistics, task.cpu_worst);
        let (cycles, misses, skipped) = (ran.cycles, ran.deadline_misses, ran.skipped);
        println!("{name}: {cycles} cycles, {misses} late, {skipped} left out, at most {worst} of processor time");
    }
    for task in report.spawned_tasks() {
        let (name, runs, early) = (task.spec.name, task.runs, task.refused_early);
        println!("{name}: ran {runs} times, refused {early} times, over {} after it was spawned", task.response_worst);
    }
    Ok(())
}
