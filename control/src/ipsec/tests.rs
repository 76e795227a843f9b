//! A whole host with one protected tunnel, and a peer of the test's own: the same engine over plain sockets in another
//! network namespace. It knows when it begins to send by an SA, and then the host must have it in force.

use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::time::{Duration, Instant};

use datapath::handle::Datapath;
use ikev2::auth::{Credential, Psk, Trust};
use ikev2::crypto::SystemRng;
use ikev2::proposal::{EspOffer, IkeOffer};
use ikev2::{
    Child, Encapsulation, Endpoint, Event, Lifetimes, Limits, NAT_PORT, Output, PORT, Path, PeerConfig,
    PeerId, Selector,
};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;
use tokio::sync::Notify;

use super::{Ipsec, Renewal};
use crate::devices::testing::{in_namespace, ip};
use crate::reconcile::Reconciler;
use crate::reconcile::testing::*;

const HOST: &str = "192.0.2.9";
const PEER: &str = "192.0.2.1";
const SECRET: &str = "thisisnotagoodpsk";
const THE_HOST: PeerId = PeerId(1);

/// The peer's sockets, on a network of its own that a link leads to.
fn sockets() -> [UdpSocket; 2] {
    let (here, there) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let tid = rustix::thread::gettid().as_raw_nonzero();
        here.0.send(format!("/proc/{}/task/{tid}/ns/net", std::process::id())).unwrap();
        let () = there.1.recv().unwrap();
        ip(&format!("addr add {PEER}/24 dev peer0\nlink set peer0 up"));
        [PORT, NAT_PORT].map(|port| UdpSocket::bind((PEER, port)).unwrap())
    });
    let namespace = here.1.recv().unwrap();
    ip(&format!(
        "link add eth0 type veth peer name peer0 netns {namespace}
         addr add {HOST}/24 dev eth0
         link set eth0 up"
    ));
    there.0.send(()).unwrap();
    thread.join().unwrap()
}

struct Peer {
    engine: Endpoint,
    sockets: [tokio::net::UdpSocket; 2],
    host: Rc<Datapath>,
    sending: Option<Child>,
    installed: Vec<Child>,
    up: bool,
    down: Option<String>,
    /// How often it began to send by an SA.
    switches: usize,
}

impl Peer {
    fn new(sockets: [UdpSocket; 2], host: Rc<Datapath>, initiate: bool) -> Peer {
        let psk = Psk::new(SECRET.as_bytes()).unwrap();
        let mut engine = Endpoint::new(Box::new(SystemRng::new()), Limits::default());
        let config = PeerConfig {
            name: "host".into(),
            local: Some(PEER.parse().unwrap()),
            remote: HOST.parse().unwrap(),
            local_id: None,
            remote_id: None,
            credential: Credential::Psk(psk.clone()),
            trust: Trust::Psk(psk),
            ike: IkeOffer::default(),
            esp: EspOffer::default(),
            protects: vec![Selector::Gre],
            encapsulation: Encapsulation::Auto,
            lifetimes: Lifetimes::default(),
            liveness: Duration::ZERO,
            initiate,
        };
        engine.configure(Instant::now(), THE_HOST, config);
        let sockets = sockets.map(|socket| {
            socket.set_nonblocking(true).unwrap();
            tokio::net::UdpSocket::from_std(socket).unwrap()
        });
        let (installed, switches) = (Vec::new(), 0);
        Peer { engine, sockets, host, sending: None, installed, up: false, down: None, switches }
    }

    /// Lives until something is so.
    async fn until(&mut self, what: &str, mut so: impl FnMut(&mut Peer) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut buffers = [[0; 2000]; 2];
        loop {
            while let Some(output) = self.engine.poll() {
                self.carry_out(output).await;
            }
            if so(self) {
                return;
            }
            assert!(Instant::now() < deadline, "never: {what}");
            let due =
                self.engine.timeout().unwrap_or(deadline).min(Instant::now() + Duration::from_millis(50));
            let [clear, marked] = &mut buffers;
            let (path, datagram) = tokio::select! {
                () = tokio::time::sleep_until(due.into()) => {
                    self.engine.handle_timeout(Instant::now());
                    continue;
                }
                got = self.sockets[0].recv_from(clear) => {
                    let (len, from) = got.unwrap();
                    (path(PORT, from), &clear[..len])
                }
                got = self.sockets[1].recv_from(marked) => {
                    let (len, from) = got.unwrap();
                    if len < 4 || marked[..4] != [0; 4] {
                        continue;
                    }
                    (path(NAT_PORT, from), &marked[4..len])
                }
            };
            self.engine.receive(Instant::now(), 0, path, datagram);
        }
    }

    async fn carry_out(&mut self, output: Output) {
        match output {
            Output::Transmit { path, datagram } if path.local.port() == NAT_PORT => {
                let marked = [&[0; 4], datagram.as_slice()].concat();
                self.sockets[1].send_to(&marked, path.remote).await.unwrap();
            }
            Output::Transmit { path, datagram } => {
                self.sockets[0].send_to(&datagram, path.remote).await.unwrap();
            }
            Output::Keepalive(_) => {}
            Output::Event(_, Event::Install(child)) => {
                // Whoever asked for the first SAs has them before the other can know: that is IKE's way
                let asked = self.engine.status(Instant::now())[0].ike.iter().all(|ike| ike.initiator);
                if child.use_outbound {
                    self.send_by(child.clone(), asked);
                }
                self.installed.push(child);
            }
            Output::Event(_, Event::UseOutbound(id)) => {
                let child = self.installed.iter().find(|child| child.id == id).unwrap().clone();
                self.send_by(child, true);
            }
            Output::Event(_, Event::Up(_)) => self.up = true,
            Output::Event(_, Event::Down(_, why)) => self.down = Some(why),
            Output::Event(..) => {}
        }
    }

    fn send_by(&mut self, child: Child, answered: bool) {
        let host = self.host.snapshot();
        if answered {
            assert!(host.inbound.contains_key(&child.outbound.spi), "the host does not receive by it");
            assert!(self.host.wait_applied(host.generation, Duration::ZERO), "not every worker does");
        }
        self.switches += 1;
        self.sending = Some(child);
    }

    /// Whether the host sends by what we receive by.
    fn hears_the_host(&self) -> bool {
        let snapshot = self.host.snapshot();
        let outbound = snapshot.policies.iter().flatten().next().and_then(|p| p.outbound.clone());
        let ours = self.sending.as_ref().map(|child| child.inbound.spi);
        outbound.map(|sa| sa.config.spi) == ours && ours.is_some()
    }

    /// Does something, and waits until both ends have left the SA of before.
    async fn renewed(&mut self, what: &str, renew: impl FnOnce(&mut Peer)) {
        let before = self.switches;
        renew(self);
        self.until(what, |peer| peer.switches > before && peer.hears_the_host()).await;
    }
}

fn path(port: u16, from: SocketAddr) -> Path {
    Path { local: SocketAddr::new(PEER.parse().unwrap(), port), remote: from }
}

/// Runs a host and, beside it, what a test does with the peer. It ends the host by notifying.
async fn with_host(
    script: impl AsyncFnOnce(Rc<Ipsec>, Rc<Datapath>, &std::cell::RefCell<ovsdb::Server>, &Notify),
) {
    let db = database();
    let datapath = Rc::new(Datapath::start(2).unwrap());
    let ipsec = Rc::new(Ipsec::new(datapath.clone()));
    let spanning = Rc::new(crate::spanning::Spanning::new(datapath.clone(), ipsec.state()));
    let reconciler =
        Reconciler::new(datapath.clone(), ipsec.clone(), spanning, "test", "identity", Rc::default())
            .await
            .unwrap();
    add_br(&db, "br0", json!({}));
    let options = map(&[("remote_ip", PEER), ("psk", SECRET)]);
    add_port(&db, "br0", "gre0", json!({"type": "ipsec_gre", "options": options}), json!({}));
    let (changed, end) = (Notify::new(), Notify::new());
    changed.notify_one();
    tokio::join!(reconciler.run(&db, &changed, end.notified()), script(ipsec, datapath, &db, &end));
}

#[test]
fn what_the_peer_sends_by_is_received_by_already() {
    for peer_asks in [false, true] {
        in_namespace(async move {
            let sockets = sockets();
            with_host(async |ipsec, datapath, db, end| {
                if peer_asks {
                    // What the host sends now is lost, so that the peer is the one who asks
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    for socket in &sockets {
                        socket.set_nonblocking(true).unwrap();
                        while socket.recv_from(&mut [0; 2000]).is_ok() {}
                    }
                }
                let mut peer = Peer::new(sockets, datapath.clone(), peer_asks);
                peer.until("up", |peer| peer.up && peer.hears_the_host()).await;
                assert!(peer.sending.as_ref().unwrap().udp.is_some(), "two of a kind take UDP");

                let renew = |what| ipsec.renew("gre0", what).unwrap();
                peer.renewed("the host rekeys its child SA", |_| renew(Renewal::Child)).await;
                peer.renewed("the peer does", |p| p.engine.rekey_child(Instant::now(), THE_HOST)).await;
                for host_asks in [true, false] {
                    let ike = |p: &Peer| p.engine.status(Instant::now())[0].ike.clone();
                    let before = ike(&peer)[0].spi_i;
                    match host_asks {
                        true => renew(Renewal::Ike),
                        false => peer.engine.rekey_ike(Instant::now(), THE_HOST),
                    }
                    peer.until("a new IKE SA alone", |p| ike(p).len() == 1 && ike(p)[0].spi_i != before)
                        .await;
                }
                peer.renewed("by the new one", |_| renew(Renewal::Child)).await;

                let row = || row(db, "Interface", "gre0");
                peer.until("the row says so", |_| row().str("link_state") == "up").await;
                for (key, value) in [("ipsec", "up"), ("ipsec_encapsulation", "udp"), ("ipsec_peer", PEER)] {
                    assert_eq!(row().map_get("status", key), Some(value));
                }
                let keys = ipsec.keys();
                let spi = format!("\"0x{:08x}\"", peer.sending.as_ref().unwrap().outbound.spi);
                assert!(keys.esp_sa.contains(&spi), "what is in use can be exported");
                let ike = u64::from_be_bytes(peer.engine.status(Instant::now())[0].ike[0].spi_i);
                assert!(keys.ikev2_decryption_table.contains(&format!("{ike:016x},")));
                let shown = ipsec.status(Some("gre0")).unwrap() + &ipsec.tunnels_show(db.borrow().db());
                assert!(shown.contains("Tunnel gre0") && shown.contains("gre0-1{1}:   192.0.2.9/32[gre]"));
                assert!(!shown.contains(SECRET), "{shown}");

                end.notify_one();
                peer.until("the host says farewell", |peer| peer.down.is_some()).await;
                peer.until("its keys are gone", |_| {
                    let snapshot = datapath.snapshot();
                    snapshot.inbound.is_empty()
                        && snapshot.policies.iter().flatten().all(|p| p.outbound.is_none())
                })
                .await;
                assert_eq!(ipsec.keys().esp_sa, "");
            })
            .await;
        });
    }
}
