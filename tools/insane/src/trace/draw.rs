//! The timeline as a page with pictures, which needs nothing but a browser.

use super::events::{Event, Span, What, handlers, runs};
use super::own::{Told, deeds};
use super::text::{AROUND, heading, range};
use super::{Shown, Watched};
use insane_core::{MonoTime, Nanos};
use insane_shm::trace::{SlotFate, SlotRecord};

const WIDTH: f64 = 1100.0;
const LEFT: f64 = 90.0;
const HEIGHT: f64 = 246.0;
/// Rows of a picture: top and height.
const RUNTIME: Row = (20.0, 18.0);
const SLOTS: Row = (58.0, 22.0);
const TURNS: Row = (88.0, 16.0);
const CORE: Row = (112.0, 24.0);
const HANDLERS: Row = (148.0, 16.0);
const TIMERS: Row = (176.0, 16.0);
const WAKE_UPS: Row = (198.0, 16.0);
/// Where lines through all rows end.
const BOTTOM: f64 = 216.0;
type Row = (f64, f64);
/// Rectangles of one row of a picture, at most: more cannot be told apart.
const SPANS_MAX: usize = 400;
/// What is drawn where nothing was missed: the end of the trace.
const CALM: Nanos = Nanos::from_millis(4);

/// The page.
pub fn page(watched: &Watched, events: &[Event], told: &Told, shown: &[Shown]) -> String {
    let (runs, handlers) = (runs(events), handlers(events));
    let mut body = String::new();
    for one in shown {
        body += &format!("<h2>{}</h2>\n", escape(&heading(one)));
        body += &picture(watched, events, told, (&runs, &handlers), range(one), Some(one));
    }
    if let (true, Some(last)) = (shown.is_empty(), events.last()) {
        body += "<h2>nothing was missed; the end of the trace</h2>\n";
        body += &picture(watched, events, told, (&runs, &handlers), (last.at - CALM, last.at), None);
        if let Some(last) = told.last() {
            body += "<h2>the last slot or turn</h2>\n";
            body += &picture(watched, events, told, (&runs, &handlers), (last - AROUND, last + AROUND), None);
        }
    }
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>insane trace: {name}</title>\n\
         <style>body {{ font: 14px sans-serif; margin: 24px; color: #222 }} h2 {{ font-size: 15px; margin: 22px 0 4px }}\n\
         svg {{ border: 1px solid #ccc; background: #fff }} text {{ font: 11px sans-serif; fill: #333 }}</style></head><body>\n\
         <h1>{name}, core {core}</h1>\n\
         <p>Slots: a mark where each was to begin, and a line from there to where its message was on its way; green: in its \
         slot, red: after it missed its own, or dropped. Dark blue: a turn of the datapath that moved something or took \
         long. Blue: the datapath's thread runs. Orange: another thread. Grey: idle. Red: handlers. Hatched: a timer was \
         due, and nothing ran. Names and times show where the pointer rests.</p>\n<pre>{summary}</pre>\n{body}</body></html>\n",
        summary = if told.is_empty() { String::new() } else { escape(&told.summary()) },
        name = escape(&watched.name),
        core = watched.core,
    )
}

/// Places in a picture.
struct Scale {
    from: MonoTime,
    to: MonoTime,
}

impl Scale {
    fn x(&self, at: MonoTime) -> f64 {
        let at = at.clamp(self.from, self.to);
        LEFT + at.since(self.from).0 as f64 / self.to.since(self.from).0.max(1) as f64 * (WIDTH - LEFT - 10.0)
    }

    fn bar(&self, (from, to): (MonoTime, MonoTime), (y, height): (f64, f64), fill: &str, title: &str) -> String {
        if to < self.from || from > self.to {
            return String::new();
        }
        let (x, width) = (self.x(from), (self.x(to) - self.x(from)).max(0.8));
        format!(
            "<rect x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{fill}\"><title>{}</title></rect>\n",
            escape(title)
        )
    }

    fn mark(&self, at: MonoTime, (y, height): (f64, f64), stroke: &str, title: &str) -> String {
        if !(self.from..=self.to).contains(&at) {
            return String::new();
        }
        let x = self.x(at);
        format!(
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{y}\" y2=\"{}\" stroke=\"{stroke}\" stroke-width=\"1.5\"><title>{}</title></line>\n",
            y + height,
            escape(title)
        )
    }
}

fn picture(
    watched: &Watched,
    events: &[Event],
    told: &Told,
    (runs, handlers): (&[Span], &[Span]),
    (from, to): (MonoTime, MonoTime),
    shown: Option<&Shown>,
) -> String {
    let scale = Scale { from, to };
    let zero = shown.map_or(from, |one| one.miss.planned);
    let us = |at: MonoTime| (at.0 as f64 - zero.0 as f64) / 1e3;
    let mut svg = format!(
        "<svg width=\"{WIDTH}\" height=\"{HEIGHT}\" xmlns=\"http://www.w3.org/2000/svg\">\n\
         <defs><pattern id=\"hole\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
         <rect width=\"6\" height=\"6\" fill=\"#fff\"/><line x1=\"0\" x2=\"0\" y1=\"0\" y2=\"6\" stroke=\"#a000a0\" stroke-width=\"3\"/>\
         </pattern></defs>\n"
    );
    let rows = [
        (RUNTIME, "misses"),
        (SLOTS, "slots"),
        (TURNS, "turns"),
        (CORE, "core"),
        (HANDLERS, "handlers"),
        (TIMERS, "timers"),
        (WAKE_UPS, "wake-ups"),
    ];
    for ((y, height), name) in rows {
        svg += &format!("<text x=\"8\" y=\"{}\">{name}</text>\n", y + height / 2.0 + 4.0);
    }
    let spans = |spans: &[Span]| -> Vec<Span> {
        let inside = spans.iter().filter(|span| span.to >= from && span.from <= to);
        inside.take(SPANS_MAX).cloned().collect()
    };
    for run in spans(runs) {
        let (fill, name) = match run.id {
            0 => ("#e4e4e4", "idle".to_owned()),
            id if id == watched.tid => ("#3b78c4", "the datapath".to_owned()),
            id => ("#e8912d", format!("{} ({id})", run.name)),
        };
        let title = format!("{name}: {:+.1} us, for {}", us(run.from), run.to.since(run.from));
        svg += &scale.bar((run.from, run.to), CORE, fill, &title);
        if scale.x(run.to) - scale.x(run.from) > 90.0 {
            let colour = if run.id == 0 { "#333" } else { "#fff" };
            let x = scale.x(run.from) + 4.0;
            svg += &format!(
                "<text x=\"{x:.1}\" y=\"{}\" style=\"fill:{colour}\">{}</text>\n",
                CORE.0 + 16.0,
                escape(&name)
            );
        }
    }
    for span in spans(handlers) {
        let title = format!("{}: {:+.1} us, for {}", span.name, us(span.from), span.to.since(span.from));
        svg += &scale.bar((span.from, span.to), HANDLERS, "#c83232", &title);
    }
    for event in events.iter().filter(|event| (from..=to).contains(&event.at)).take(SPANS_MAX) {
        svg += &match event.what {
            What::Timer { due } => {
                let title = format!("a timer at {:+.1} us, {} after it was due", us(event.at), event.at.since(due));
                scale.mark(event.at, TIMERS, "#555", &title)
            }
            What::Wakeup { tid } => {
                let title = format!("{} ({tid}) is woken at {:+.1} us", event.name(), us(event.at));
                scale.mark(event.at, WAKE_UPS, "#2a8a2a", &title)
            }
            _ => String::new(),
        };
    }
    for turn in told.turns_in((from, to)).take(SPANS_MAX) {
        let took = turn.ends.since(turn.begins);
        let title = format!("a turn at {:+.1} us, for {took}: {}", us(turn.begins), deeds(turn));
        svg += &scale.bar((turn.begins, turn.ends), TURNS, "#1d3d73", &title);
    }
    for slot in told.slots_in((from, to)).take(SPANS_MAX) {
        svg += &of_slot(&scale, slot, told, us);
    }
    if let Some(one) = shown {
        svg += &of_runtime(&scale, one, us);
    }
    for step in 0..=5 {
        let at = MonoTime(from.0 + to.since(from).0 * step / 5);
        svg += &format!(
            "<text x=\"{:.1}\" y=\"234\" text-anchor=\"middle\">{:+.0} us</text>\n",
            scale.x(at).min(WIDTH - 30.0),
            us(at)
        );
    }
    svg + "</svg>\n"
}

/// A slot: a mark at its planned instant, and a line from there to the actual one.
fn of_slot(scale: &Scale, slot: &SlotRecord, told: &Told, us: impl Fn(MonoTime) -> f64) -> String {
    let stroke = match slot.fate {
        SlotFate::Used | SlotFate::HandedAhead => "#18a018",
        SlotFate::SentLate | SlotFate::Dropped | SlotFate::Refused => "#b00000",
    };
    let title = format!(
        "{}: planned {:+.1} us, decided {:+.1} us, {} {:+.1} us",
        told.whose(slot),
        us(slot.planned),
        us(slot.decided),
        slot.fate.name(),
        us(slot.sent)
    );
    let (top, height) = SLOTS;
    let (planned, sent) = (scale.x(slot.planned), scale.x(slot.sent));
    let (middle, bottom) = (top + height / 2.0, top + height);
    let mut svg = scale.mark(slot.planned, (top, height / 2.0), stroke, &title);
    svg += &format!(
        "<line x1=\"{planned:.1}\" x2=\"{sent:.1}\" y1=\"{middle}\" y2=\"{bottom}\" stroke=\"{stroke}\" \
         stroke-width=\"1.5\"><title>{title}</title></line>\n",
        title = escape(&title)
    );
    if (scale.from..=scale.to).contains(&slot.sent) {
        svg += &format!(
            "<circle cx=\"{sent:.1}\" cy=\"{bottom}\" r=\"3\" fill=\"{stroke}\"><title>{}</title></circle>\n",
            escape(&title)
        );
    }
    svg
}

/// What the runtime knows, above what the kernel told.
fn of_runtime(scale: &Scale, one: &Shown, us: impl Fn(MonoTime) -> f64) -> String {
    let miss = &one.miss;
    let title =
        format!("{}, as the datapath has it: {:+.1} to {:+.1} us", miss.cause.name(), us(miss.from), us(miss.to));
    let mut svg = scale.bar((miss.from, miss.to), RUNTIME, "#f3c6c6", &title);
    for (begins, ends) in &one.judged.holes {
        let title = format!("nothing ran from {:+.1} to {:+.1} us", us(*begins), us(*ends));
        svg += &scale.bar((*begins, *ends), (CORE.0 - 2.0, CORE.1 + 4.0), "url(#hole)", &title);
    }
    svg += &scale.mark(miss.planned, (12.0, BOTTOM - 12.0), "#18a018", "the slot begins");
    let label = |at: MonoTime, y: u32, text: &str| {
        let x = scale.x(at);
        // Near the right edge it stands to the left of its mark.
        let (anchor, x) = if x > WIDTH - 160.0 { ("end", x - 4.0) } else { ("start", x + 4.0) };
        format!("<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"{anchor}\">{}</text>\n", escape(text))
    };
    svg += &label(miss.planned, 12, "slot");
    svg += &scale.mark(miss.noticed, (12.0, BOTTOM - 12.0), "#b00000", miss.fate.name());
    svg += &label(miss.noticed, 34, miss.fate.name());
    if miss.emitted > MonoTime(0) {
        svg += &scale.mark(miss.emitted, (12.0, 30.0), "#3b78c4", "the application emits");
        svg += &label(miss.emitted.clamp(scale.from, scale.to), 50, "emitted");
    }
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::judge::judge;
    use crate::trace::own::tests::{slot, turn};
    use insane_core::{Cause, Fate};
    use insane_shm::misses::Miss;

    #[test]
    fn a_page_shows_the_miss_and_lets_no_name_break_it() {
        let at = |us: u64| MonoTime(us * 1_000);
        let switch = |us: u64, from: u32, to: u32| Event {
            at: at(us),
            what: What::Switch { to, from, preempts: true },
            name: *b"<hog>&\0\0\0\0\0\0\0\0\0\0",
        };
        let events = [switch(900, 7, 9), switch(1_400, 9, 7), switch(1_600, 7, 0)];
        let miss = Miss {
            sequence: 41,
            source: 3,
            planned: at(1_000),
            noticed: at(1_402),
            emitted: at(500),
            cause: Cause::TurnOverrun,
            fate: Fate::Dropped,
            messages: 1,
            from: at(900),
            to: at(1_401),
        };
        let shown = [Shown { miss, judged: judge(&miss, &events, 7) }];
        let watched = Watched { core: 1, tid: 7, name: "fast".into(), misses: None };
        let told = Told {
            turns: vec![turn(at(1_401).0, at(1_404).0, 1)],
            slots: vec![slot(at(1_000).0, at(1_402).0, at(1_402).0, SlotFate::SentLate)],
            streams: [(3, "<axis>".to_owned())].into(),
            ..Told::default()
        };
        let page = page(&watched, &events, &told, &shown);
        assert!(page.contains("source 3 message 41: turn overrun"));
        assert!(page.contains("&lt;hog&gt;&amp; (9)") && !page.contains("<hog>"));
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        assert!(page.contains("a turn at") && page.contains("1 message sent, 2 frames received, a sink woken"));
        assert!(page.contains("stream &lt;axis&gt;, source 3, lane 0: planned") && !page.contains("<axis>"));
        let calm = super::page(&watched, &events, &told, &[]);
        assert!(calm.contains("the last slot or turn"));
        assert!(calm.contains("nothing was missed"));
    }
}
