//! That the faults are felt: each is laid on a network or a disk of its own, measured, and undone. A fault that does
//! nothing would make every trial succeed.

use std::{
    fs::File,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use stolon_tests::{
    Test, Weight,
    disk::Disk,
    netfault::Drops,
    netns::{self, Network},
    run,
};

use crate::session::possible;

const PORT: u16 = 7000;
const LONG: Duration = Duration::from_secs(10);
/// Far above what a healthy network here takes.
const QUICK: Duration = Duration::from_millis(500);

/// Host 1 of the network, which sends back what it gets.
struct Echo {
    at: SocketAddr,
}

impl Echo {
    fn start(network: &Network) -> Echo {
        let at = format!("{}:{PORT}", network.hosts[1].address).parse().unwrap();
        let name = network.hosts[1].namespace.name.clone();
        let (ready, is_ready) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            netns::enter(&name);
            let (tcp, udp) = (TcpListener::bind(at).unwrap(), UdpSocket::bind(at).unwrap());
            ready.send(()).unwrap();
            std::thread::spawn(move || {
                let mut packet = [0; 64];
                while let Ok((length, from)) = udp.recv_from(&mut packet) {
                    let _ = udp.send_to(&packet[..length], from);
                }
            });
            for stream in tcp.incoming().flatten() {
                std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
            }
        });
        is_ready.recv_timeout(LONG).unwrap();
        Echo { at }
    }

    /// Time to send so many bytes there and get them back; `None` when that can't be done in time. From the caller's host.
    fn round_trip(&self, bytes: usize, bound: Duration) -> Option<Duration> {
        let began = Instant::now();
        let mut stream = TcpStream::connect_timeout(&self.at, bound).ok()?;
        stream.set_read_timeout(Some(bound)).unwrap();
        let mut writer = stream.try_clone().unwrap();
        let sending = std::thread::spawn(move || writer.write_all(&vec![7; bytes]));
        let mut back = vec![0; bytes];
        stream.read_exact(&mut back).ok()?;
        sending.join().unwrap().ok()?;
        Some(began.elapsed())
    }

    /// Answers to 200 packets sent one by one.
    fn answered(&self) -> usize {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let once = |_: &u32| socket.send_to(b"x", self.at).is_ok() && socket.recv_from(&mut [0; 8]).is_ok();
        (0..200).filter(once).count()
    }
}

#[test]
fn what_is_done_to_a_network_is_felt_and_undone() {
    if !possible("what_is_done_to_a_network_is_felt_and_undone") {
        return;
    }
    let network = Network::new(2);
    let echo = Echo::start(&network);
    netns::inside(&network.hosts[0].namespace, || {
        run("bites-network", Weight::Light, async |test| network_faults(&test, &network, &echo));
    });
}

fn network_faults(test: &Test, network: &Network, echo: &Echo) {
    let host = &network.hosts[0];
    let works = |after: &str| {
        let took = echo.round_trip(1 << 20, LONG);
        assert!(took.is_some_and(|took| took < QUICK), "{after}: a megabyte takes {took:?}");
    };
    works("at first");

    host.cut(network);
    assert_eq!(echo.round_trip(1, QUICK), None, "through a pulled cable");
    host.mend(network);
    works("after the cut");

    for drops in [
        Drops { leaving: vec![format!("tcp dport {PORT}")], ..Drops::default() },
        Drops { arriving: vec!["iifname eth0".into()], ..Drops::default() },
    ] {
        host.drop_packets(&drops);
        assert_eq!(echo.round_trip(1, QUICK), None, "{drops:?}");
        host.mend(network);
        works("after dropped packets");
    }

    host.drop_packets(&Drops { leaving: vec!["oifname eth0 numgen random mod 100 < 30".into()], ..Drops::default() });
    let answered = echo.answered();
    assert!((80..190).contains(&answered), "{answered} of 200 packets were answered at 30 % loss");
    host.mend(network);
    assert_eq!(echo.answered(), 200, "after the loss");

    host.slow(network, 8000);
    let took = echo.round_trip(1 << 20, LONG).unwrap();
    assert!(took > Duration::from_millis(900), "a megabyte at 8 megabits takes {took:?}");
    host.mend(network);
    works("after the slow link");

    let relay = host.delay(network, test.folder(), 40);
    stolon_tests::wait::blocking("the relay passes packets", LONG, || echo.round_trip(1, LONG));
    let took = echo.round_trip(1, LONG).unwrap();
    // Connecting, and one exchange.
    assert!(took > Duration::from_millis(150), "two exchanges over 40 ms each way take {took:?}");
    let large = echo.round_trip(1 << 20, LONG);
    assert!(large.is_some(), "a megabyte passes the relay");
    drop(relay);
    host.mend(network);
    works("after the delay");
}

#[test]
fn what_is_done_to_a_disk_is_felt_and_undone() {
    if !possible("what_is_done_to_a_disk_is_felt_and_undone") {
        return;
    }
    run("bites-disk", Weight::Light, async |test| {
        let disk = Disk::new(&test.subfolder("disk"), 32);
        let write = |path: &Path| File::create(path).and_then(|mut file| file.write_all(&[7; 4096]));
        let path = disk.mount.join("file");
        write(&path).unwrap();
        disk.fill();
        assert!(write(&disk.mount.join("other")).is_err(), "a full disk takes a file");
        disk.mend();
        write(&path).unwrap();

        disk.freeze();
        let mut writer = Command::new("dd");
        writer.args(["if=/dev/zero", "bs=4k", "count=1", "conv=fsync"]).arg(format!("of={}", path.display()));
        let mut writer = writer.stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(QUICK);
        assert!(writer.try_wait().unwrap().is_none(), "a frozen disk takes a write");
        disk.mend();
        let status = stolon_tests::wait::blocking("the write's end", LONG, || writer.try_wait().unwrap());
        assert!(status.success());
    });
}
