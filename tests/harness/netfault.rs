//! What can go wrong with a host's network: a pulled cable, packets dropped by what they are or at random, a slow link, a
//! long one. Each can be laid over the others; `mend` takes all away. Without netem: nftables, tbf, and a relay.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use crate::{
    netns::{Host, Network, ip},
    process::Process,
};

/// Packets that a host drops: expressions of nftables, each one alone enough.
#[derive(Clone, Debug, Default)]
pub struct Drops {
    pub arriving: Vec<String>,
    pub leaving: Vec<String>,
}

/// The relay that makes a link long, as a program for Python.
const RELAY: &str = include_str!("relay.py");

impl Host {
    /// Drops from now on, besides what it drops already.
    pub fn drop_packets(&self, drops: &Drops) {
        let mut script = String::from(
            "add table inet chaos\n\
             add chain inet chaos arriving { type filter hook input priority 0; }\n\
             add chain inet chaos leaving { type filter hook output priority 0; }\n",
        );
        for (chain, rules) in [("arriving", &drops.arriving), ("leaving", &drops.leaving)] {
            rules.iter().for_each(|rule| script += &format!("add rule inet chaos {chain} {rule} drop\n"));
        }
        self.nft(&script);
    }

    /// Limits the link in both directions.
    pub fn slow(&self, network: &Network, kilobits: u32) {
        let rate = format!("{kilobits}kbit");
        for (namespace, device) in [(&self.namespace.name, "eth0"), (&network.switch.name, &self.cable)] {
            let shape = ["root", "tbf", "rate", &rate, "burst", "32kb", "latency", "400ms"];
            let out = Command::new("tc")
                .args(["-n", namespace, "qdisc", "replace", "dev", device])
                .args(shape)
                .output()
                .expect("tc can be run (Debian: iproute2)");
            assert!(out.status.success(), "tc at {device}: {}", String::from_utf8_lossy(&out.stderr));
        }
    }

    /// Puts a relay into the link that holds every frame for so long; it ends with the returned process.
    pub fn delay(&self, network: &Network, folder: &std::path::Path, milliseconds: u32) -> Process {
        let switch = &network.switch.name;
        let (near, far) = (format!("{}n", self.cable), format!("{}f", self.cable));
        ip(&["-n", switch, "link", "add", &near, "type", "veth", "peer", "name", &far]);
        ip(&["-n", switch, "link", "set", &far, "up"]);
        ip(&["-n", switch, "link", "set", &near, "master", "br0", "up"]);
        ip(&["-n", switch, "link", "set", &self.cable, "nomaster"]);
        let mut command = network.switch.command(std::path::Path::new("python3"));
        command.args(["-c", RELAY, &self.cable, &far, &milliseconds.to_string()]);
        Process::spawn(folder, &format!("relay-{}", self.cable), command)
    }

    /// Undoes everything; nothing is said when there is nothing to undo. A relay must have ended.
    pub fn mend(&self, network: &Network) {
        self.nft("add table inet chaos\ndelete table inet chaos\n");
        for (namespace, device) in [(&self.namespace.name, "eth0"), (&network.switch.name, &self.cable)] {
            quietly("tc", &["-n", namespace, "qdisc", "del", "dev", device, "root"]);
        }
        quietly("ip", &["-n", &network.switch.name, "link", "del", &format!("{}n", self.cable)]);
        self.heal(network);
    }

    fn nft(&self, script: &str) {
        let mut nft = self.namespace.command(std::path::Path::new("nft"));
        let child = nft.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("nft can be run (Debian: nftables)");
        child.stdin.take().expect("a pipe").write_all(script.as_bytes()).expect("nft reads its rules");
        let out = child.wait_with_output().expect("nft ends");
        assert!(out.status.success(), "nft: {}\n{script}", String::from_utf8_lossy(&out.stderr));
    }
}

fn quietly(program: &str, args: &[&str]) {
    let _ = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
}
