//! The rules by which a stream gets its technology, and the budgets of links.

use super::{check_name, number, quoted};
use crate::diagnostic::nearest;
use crate::plan::{DatapathPlan, LinkBudget, LinkPlan, PolicyPlan};
use crate::raw;
use crate::report::Report;
use insane_core::Nanos;
use insane_policy::rules::RulesError;
use insane_policy::{Rule, Rules, When};

/// The policy. All that is wrong is in the report.
pub(super) fn policy(raw: &raw::TechnologyPolicy, datapaths: &[DatapathPlan], report: &mut Report<'_>) -> PolicyPlan {
    let links: Vec<&LinkPlan> = datapaths.iter().flat_map(|datapath| &datapath.links).collect();
    let milliseconds = |report: &mut Report<'_>, field: &str, value: i64| {
        let millis: u32 = number(report, &format!("policy.{field}"), value);
        Nanos::from_millis(millis.into())
    };
    let plan = PolicyPlan {
        rules: raw.rules.as_ref().map_or_else(Rules::default, |raw| rules(raw, &links, report)),
        budgets: budgets(raw, &links, report),
        best_effort_kbps: number(report, "policy.best_effort_kbps", raw.best_effort_kbps),
        silent_after: milliseconds(report, "silent_ms", raw.silent_ms),
        return_after: milliseconds(report, "return_after_ms", raw.return_after_ms),
        hold_down_max: milliseconds(report, "hold_down_max_ms", raw.hold_down_max_ms),
    };
    if plan.hold_down_max < plan.return_after {
        let message = format!("it is less than `return_after_ms`, {}", raw.return_after_ms);
        report.error_accepting("policy.hold_down_max_ms", message, "as much or more");
    }
    plan
}

fn rules(raw: &[raw::PolicyRule], links: &[&LinkPlan], report: &mut Report<'_>) -> Rules {
    let rule = |(at, raw): (usize, &raw::PolicyRule)| {
        let raw::PolicyWhen { reliability, datapath, consumption, determinism, bytes_min } = raw.when;
        let path = format!("policy.rules[{at}].when.bytes_min");
        let bytes_min = bytes_min.map(|bytes| number(report, &path, bytes));
        let when = When { reliability, datapath, consumption, determinism, bytes_min };
        Rule { when, order: raw.order.clone(), spares_others: raw.spare_others }
    };
    let rules: Vec<Rule> = raw.iter().enumerate().map(rule).collect();
    match Rules::new(rules) {
        Ok(rules) => {
            warn_of_unused_links(&rules, links, report);
            rules
        }
        Err(errors) => {
            for error in errors {
                tell(error, raw.len(), report);
            }
            Rules::default()
        }
    }
}

fn tell(error: RulesError, count: usize, report: &mut Report<'_>) {
    match error {
        RulesError::Count => report.error("policy.rules", format!("there are {count} rules")),
        RulesError::NotTotal => {
            let message = "the last rule is not for all streams, and every stream needs one";
            report.error_accepting(&format!("policy.rules[{}]", count - 1), message, "a last rule with `when: ()`");
        }
        RulesError::Unreachable(at, first) => {
            let line = report.line(&format!("policy.rules[{first}]"));
            let message = format!("it is never used: rules[{first}] (line {line}) is, wherever it could be");
            report.error_accepting(&format!("policy.rules[{at}]"), message, "the narrower rule before the wider one");
        }
        RulesError::Impossible(at) => {
            let message = "of best-effort streams no size is known: it is never used";
            report.error_accepting(
                &format!("policy.rules[{at}].when.bytes_min"),
                message,
                "`determinism: time_sensitive`",
            );
        }
        RulesError::NoOrder(at) => report.error(&format!("policy.rules[{at}].order"), "it names no technology"),
        RulesError::Twice(at, technology) => {
            report.error(&format!("policy.rules[{at}].order"), format!("{technology} is there twice"));
        }
    }
}

/// A link that no rule lets anybody use is there in vain.
fn warn_of_unused_links(rules: &Rules, links: &[&LinkPlan], report: &mut Report<'_>) {
    for link in links {
        let name = link.technology.name();
        let is_named = |rule: &Rule| rule.order.iter().any(|technology| technology.name() == name);
        if !rules.all().iter().any(is_named) {
            let message = format!("no rule names {name}: link \"{}\" is never used", link.name);
            report.warning("policy.rules", message, format!("a rule with {name} in its `order`"));
        }
    }
}

fn budgets(raw: &raw::TechnologyPolicy, links: &[&LinkPlan], report: &mut Report<'_>) -> Vec<LinkBudget> {
    let mut budgets = Vec::new();
    for (name, budget) in &raw.budgets {
        let path = format!("policy.budgets[\"{name}\"]");
        let names = || links.iter().map(|link| link.name.as_str());
        if check_name(report, &path, name) && !names().any(|link| link == name) {
            let near = nearest(name, names()).map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default();
            report.error_at_key(&path, format!("there is no link \"{name}\"{near}"), quoted(names()));
        }
        if (budget.streams, budget.mbps) == (None, None) {
            report.error(&path, "it bounds nothing");
        }
        budgets.push(LinkBudget {
            link: name.clone(),
            streams: budget.streams.map(|streams| number(report, &format!("{path}.streams"), streams)),
            mbps: budget.mbps.map(|mbps| number(report, &format!("{path}.mbps"), mbps)),
        });
    }
    budgets
}
