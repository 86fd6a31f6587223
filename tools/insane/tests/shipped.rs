//! The plant and the configurations in `configs/` fit each other: two real daemons, as the files
//! say, under the schedule that is found for the plant.

mod common;

use common::{Daemon, Namespaces, insane, ip, text, wait_for};
use std::path::Path;

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs").join(name)).unwrap()
}

/// A configuration of the folder, without what the test says itself: name and socket.
fn rest_of(name: &str, host: &str) -> String {
    let text = read(name);
    let named = format!("host: (name: \"{host}\"),");
    assert!(text.contains(&named), "{text}");
    let text = text.replace(&named, "");
    let begin = text.find("\n(\n").expect("a parenthesis of its own line") + 3;
    text[begin..text.rfind(')').unwrap()].to_owned()
}

#[test]
fn the_schedule_of_the_plant_takes_over_on_the_hosts_of_the_folder() {
    let Some(namespaces) = Namespaces::pair("ship") else { return };
    let hosts = [(0, "a"), (1, "b")].map(|(at, side)| {
        let address = format!("-n {} addr add 192.168.10.{}/24 dev eth0", namespaces.name(at), at + 1);
        assert!(ip(&address));
        let host = format!("cell-{side}");
        Daemon::start_in(Some(namespaces.name(at)), &host, &rest_of(&format!("slots-{side}.ron"), &host))
    });
    let folder = &hosts[0].folder;
    let (plant, certificate) = (folder.join("cells.ron"), folder.join("cells.cert"));
    std::fs::write(&plant, read("plants/cells.ron")).unwrap();
    let output = insane().args(["schedule", "synth"]).arg(&plant).arg("-o").arg(&certificate).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));

    let sockets: Vec<String> = hosts.iter().map(|host| host.socket().display().to_string()).collect();
    let mut activate = insane();
    activate.args(["schedule", "activate", "--local-clock", "--hosts", &sockets.join(",")]).arg(&certificate);
    let output = activate.output().unwrap();
    assert!(output.status.success(), "{}{}", text(&output.stderr), hosts[0].log());
    for host in &hosts {
        wait_for("it is in force", || host.status().schedule.is_some_and(|schedule| schedule.streams == 12));
    }
}
