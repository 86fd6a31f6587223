//! The table of docs/POLICY.md is the default one, and the function does what it says.

use insane_core::{Consumption, Datapath, DatapathIndex, Determinism, LinkIndex, Nanos, Priority, Qos, Reliability};
use insane_policy::budget::{Account, Cause, Claimed, LinkKey, Wishes};
use insane_policy::health::Health;
use insane_policy::{Amount, Offer, Reason, Request, Rules, Technology, rank};
use std::collections::BTreeSet;

fn document() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/POLICY.md")).unwrap()
}

/// The cells of each row below this head.
fn table(head: &str) -> Vec<Vec<String>> {
    let document = document();
    let rows = document.lines().skip_while(|line| !line.starts_with(head)).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    let rows: Vec<Vec<String>> = rows.map(cells).collect();
    assert!(!rows.is_empty(), "no table {head}");
    rows
}

#[test]
fn the_document_has_the_default_rules() {
    let rows = table("| rule |");
    let rules = Rules::default();
    assert_eq!(rows.len(), rules.all().len());
    for (at, (row, rule)) in rows.iter().zip(rules.all()).enumerate() {
        let order: Vec<&str> = rule.order.iter().map(|technology| technology.name()).collect();
        let spares = if rule.spares_others { "yes" } else { "no" };
        let expected = [(at + 1).to_string(), rule.when.to_string(), order.join(", "), spares.to_owned()];
        assert_eq!(row[..4], expected);
    }
}

fn offer(technology: Technology) -> Offer {
    Offer {
        technology,
        reaches: true,
        health: Health::Good,
        takes_time_sensitive: true,
        costs_kernel_traffic: false,
        room: None,
    }
}

/// For every quality of service: the row of the document that is for it, read as people read
/// it, and what comes first of any two technologies.
#[test]
fn every_quality_of_service_is_served_as_its_row_says() {
    let rows = table("| rule |");
    let mut used = BTreeSet::new();
    for bits in 0..32u32 {
        let is = |bit: u32| bits & (1 << bit) != 0;
        let size = if is(4) { 1 << 20 } else { 64 };
        let qos = Qos {
            reliability: if is(0) { Reliability::Reliable } else { Reliability::Unreliable },
            datapath: if is(1) { Datapath::Fast } else { Datapath::Standard },
            consumption: if is(2) { Consumption::Poll } else { Consumption::Low },
            determinism: if is(3) {
                Determinism::periodic(Nanos::from_millis(1), size)
            } else {
                Determinism::BestEffort
            },
            priority: Priority::NORMAL,
        };
        let request = Request::new(qos);
        let row = match (is(1), is(3), is(2)) {
            (true, true, _) => 1,
            (true, false, true) => 2,
            (true, false, false) => 3,
            (false, true, _) => 4,
            (false, false, _) => 5,
        };
        used.insert(row);
        let cells = &rows[row - 1];
        let order: Vec<Technology> = cells[2].split(", ").map(|name| Technology::from_name(name).unwrap()).collect();
        let spares = cells[3] == "yes";
        for (place, better) in order.iter().enumerate() {
            for worse in &order[place + 1..] {
                let first = |offers: &[Offer]| {
                    let ranking = rank(&request, offers, &Rules::default(), 0);
                    assert_eq!(ranking.rule + 1, row, "{request:?}");
                    offers[ranking.first().unwrap()].technology
                };
                assert_eq!(first(&[offer(*worse), offer(*better)]), *better, "{request:?}");
                // What costs others goes behind where the row says so.
                let costly = Offer { costs_kernel_traffic: true, ..offer(*better) };
                assert_eq!(first(&[costly, offer(*worse)]), if spares { *worse } else { *better }, "{request:?}");
                let failed = Offer { health: Health::Failed, ..offer(*better) };
                assert_eq!(first(&[failed, offer(*worse)]), *worse, "{request:?}");
            }
        }
    }
    assert_eq!(used.len(), rows.len(), "a row is for nobody");
}

/// Of two links of one technology the first of the configuration.
#[test]
fn the_configuration_decides_among_equals() {
    let ranking = rank(&Request::new(Qos::default()), &[offer(Technology::Udp); 3], &Rules::default(), 0);
    assert_eq!(ranking.usable().collect::<Vec<_>>(), [0, 1, 2]);
    assert!(ranking.verdicts[1].reasons.iter().any(|reason| matches!(reason, Reason::Behind(_))));
}

/// The order of importance that the document has.
#[test]
fn importance_is_as_the_document_says() {
    let rows = table("| goes first |");
    assert_eq!([rows[0][1].as_str(), rows[1][1].as_str()], ["15 to 8", "7 to 0"]);
    for priority in 0..8 {
        let of = |determinism| {
            let priority = Priority::new(priority).unwrap();
            Request::new(Qos { determinism, priority, ..Qos::default() }).importance().get()
        };
        assert_eq!(of(Determinism::periodic(Nanos::from_millis(1), 1)), 8 + priority);
        assert_eq!(of(Determinism::BestEffort), priority);
    }
}

/// The rows of the document's example, carried out.
#[test]
fn the_example_of_budgets_happens_as_told() {
    const FAST: LinkKey = (DatapathIndex(0), LinkIndex(0));
    const PLANT: LinkKey = (DatapathIndex(0), LinkIndex(1));
    let mut account: Account<&str> = Account::new(8);
    account.set_limit(FAST, Some(Amount { streams: 2, ..Amount::UNBOUNDED }));
    let wishes: Wishes = [FAST, PLANT].into_iter().collect();
    let mut names: Vec<&str> = Vec::new();
    let rows = table("| comes |");
    for row in &rows {
        let mut words = row[0].trim_matches(|c| c == '(' || c == ')').split(", ");
        let first = words.next().unwrap();
        match first.strip_suffix(" goes") {
            Some(name) => {
                account.release(name);
                names.retain(|other| *other != name);
            }
            None => {
                let determinism = if row[0].contains("time-sensitive") {
                    Determinism::periodic(Nanos::from_millis(1), 100)
                } else {
                    Determinism::BestEffort
                };
                let priority = words.last().unwrap().strip_prefix("priority ").unwrap().parse().unwrap();
                let priority = Priority::new(priority).unwrap();
                let request = Request::new(Qos { determinism, priority, ..Qos::default() });
                let claimed = account.claim(first, request.importance(), request.need(0), &wishes);
                assert_eq!(claimed, Claimed::Noted);
                names.push(first);
            }
        }
        account.settle();
        let mut gave_way = Vec::new();
        while let Some(step) = account.next_move() {
            if let Cause::Displaced(by) = step.cause {
                gave_way.push(format!("{}, gave way to {by}", step.claim));
            }
        }
        let on = |link: LinkKey| -> BTreeSet<String> {
            names.iter().filter(|name| account.held(name) == Some(link)).map(|name| (*name).to_owned()).collect()
        };
        let told = |cell: &str| -> BTreeSet<String> {
            let names = cell.split([',', ';']).map(|name| name.trim().to_owned());
            names.filter(|name| !name.is_empty() && !name.starts_with("gave way")).collect()
        };
        assert_eq!((on(FAST), on(PLANT)), (told(&row[1]), told(&row[2])), "{row:?}");
        assert_eq!(row[2].matches("gave way").count(), gave_way.len(), "{row:?}");
        assert!(gave_way.iter().all(|words| row[2].contains(words.as_str())), "{row:?} {gave_way:?}");
    }
}
