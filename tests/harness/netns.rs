//! Hosts as network namespaces: each with an address of its own, joined by a bridge in one more namespace, so that
//! nothing of the machine's own network is touched. Needs root.

use std::{
    fs::File,
    os::fd::AsFd,
    process::Command,
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::runner::report;

/// True when namespaces can be made here. A test that needs them says that it was skipped.
pub fn allowed(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        report(&format!("SKIPPED {test}: network namespaces and mounts need root"));
    }
    root
}

/// A namespace, deleted when dropped (what runs in it must be gone by then).
pub struct Namespace {
    pub name: String,
}

impl Namespace {
    pub fn new(label: &str) -> Namespace {
        static SWEEP: Once = Once::new();
        SWEEP.call_once(sweep);
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("st{}-{}-{label}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        ip(&["netns", "add", &name]);
        ip(&["-n", &name, "link", "set", "lo", "up"]);
        Namespace { name }
    }

    /// Moves the calling thread, and whatever threads and processes it starts from now on, into it.
    pub fn enter(&self) {
        enter(&self.name);
    }

    /// `ip netns exec NAME program`.
    pub fn command(&self, program: &std::path::Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// As `Namespace::enter`, by the namespace's name.
pub fn enter(name: &str) {
    let file = File::open(format!("/run/netns/{name}")).expect("the namespace's file");
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("entering a namespace");
}

/// Runs `work` on a thread of its own in the namespace; what it starts stays in there too. A panic goes through.
pub fn inside(namespace: &Namespace, work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            namespace.enter();
            work();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Hosts on one switch.
pub struct Network {
    pub switch: Namespace,
    pub hosts: Vec<Host>,
}

pub struct Host {
    pub namespace: Namespace,
    pub address: String,
    /// Its cable's end at the switch.
    pub cable: String,
}

/// The switch's own address: where the test itself stands.
pub const SWITCH: &str = "10.77.0.1";

impl Network {
    pub fn new(hosts: usize) -> Network {
        let switch = Namespace::new("sw");
        let sw = switch.name.clone();
        ip(&["-n", &sw, "link", "add", "br0", "type", "bridge"]);
        ip(&["-n", &sw, "addr", "add", &format!("{SWITCH}/24"), "dev", "br0"]);
        ip(&["-n", &sw, "link", "set", "br0", "up"]);
        let hosts = (0..hosts).map(|index| Host::new(&sw, index)).collect();
        Network { switch, hosts }
    }
}

impl Host {
    fn new(switch: &str, index: usize) -> Host {
        let namespace = Namespace::new(&format!("h{index}"));
        let (inside, cable) = (namespace.name.clone(), format!("cable{index}"));
        let address = format!("10.77.0.{}", 10 + index);
        ip(&["-n", switch, "link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", &inside]);
        ip(&["-n", switch, "link", "set", &cable, "master", "br0", "up"]);
        ip(&["-n", &inside, "addr", "add", &format!("{address}/24"), "dev", "eth0"]);
        ip(&["-n", &inside, "link", "set", "eth0", "up"]);
        Host { namespace, address, cable }
    }

    /// Pulls the cable: packets vanish, in both directions, without an error on the other side.
    pub fn cut(&self, network: &Network) {
        ip(&["-n", &network.switch.name, "link", "set", &self.cable, "nomaster"]);
    }

    pub fn heal(&self, network: &Network) {
        ip(&["-n", &network.switch.name, "link", "set", &self.cable, "master", "br0"]);
    }
}

/// Takes namespaces away that test processes left behind which were killed.
fn sweep() {
    let out = Command::new("ip").args(["netns", "list"]).output().expect("ip can be run (Debian: iproute2)");
    for name in String::from_utf8_lossy(&out.stdout).lines().filter_map(|line| line.split_whitespace().next()) {
        let owner = name.strip_prefix("st").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !crate::proc::alive(pid)) {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

pub fn ip(args: &[&str]) {
    let out = Command::new("ip").args(args).output().expect("ip can be run (Debian: iproute2)");
    assert!(out.status.success(), "ip {}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr));
}
