//! Host pairs and their SAs as the datapath has them. Receiving comes first: an SA is sent by only once IKE says so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering::Relaxed;

use datapath::esp::{InboundSa, OutboundSa, Road, SaConfig, SaKey, Selector};
use datapath::snapshot::{Policy, PolicyId, Snapshot};
use ikev2::{Child, ChildId, ChildUse, UdpPorts};

use super::pairs::{Kind, PairKey};

/// Width of the replay window in packets: several queues and workers put packets out of order.
const REPLAY_WINDOW: u32 = 4096;

/// All pairs, by the number of their policy.
#[derive(Debug, Default)]
pub struct Sas(BTreeMap<u16, PairSas>);

/// One kind of tunnels between two hosts. Without an SA to send by nothing is sent.
#[derive(Debug)]
pub struct PairSas {
    /// The name of its first tunnel.
    pub name: String,
    /// Between whom.
    pub key: PairKey,
    /// What the tunnels' packets are in.
    pub kind: Kind,
    /// `options:plaintext=allow`.
    pub plaintext: bool,
    children: BTreeMap<ChildId, Installed>,
    sending: Option<ChildId>,
}

/// A child SA in force, and what it was made of, kept so that an operator can have it exported. Wiped with it.
#[derive(Debug)]
pub struct Installed {
    /// What IKE agreed on.
    pub child: Child,
    /// By which packets come in.
    pub inbound: Arc<InboundSa>,
    /// By which they go out.
    pub outbound: Arc<OutboundSa>,
    /// The far end's UDP port, shared by both.
    remote_port: Option<Arc<AtomicU16>>,
}

impl Sas {
    /// A pair as it shall be; a new one has nothing to send by yet. True: it is not what it was.
    pub fn set(&mut self, policy: PolicyId, name: &str, key: PairKey, kind: Kind, plaintext: bool) -> bool {
        if let Some(pair) = self.0.get_mut(&policy.0) {
            let changed = pair.name != name || pair.plaintext != plaintext;
            pair.name = name.to_owned();
            pair.plaintext = plaintext;
            return changed;
        }
        let (name, children) = (name.to_owned(), BTreeMap::new());
        self.0.insert(policy.0, PairSas { name, key, kind, plaintext, children, sending: None });
        true
    }

    /// Forgets a pair with all its SAs.
    pub fn remove(&mut self, policy: PolicyId) {
        self.0.remove(&policy.0);
    }

    /// The pair of a policy.
    pub fn pair(&self, policy: PolicyId) -> Option<&PairSas> {
        self.0.get(&policy.0)
    }

    /// Receives by a new child SA from the next snapshot on. Err: its keys are of no known kind,
    /// or it is for something else.
    pub fn install(&mut self, policy: PolicyId, child: Child) -> Result<(), String> {
        let Some(pair) = self.0.get_mut(&policy.0) else { return Ok(()) };
        let remote_port = child.udp.map(|udp| Arc::new(AtomicU16::new(udp.remote)));
        let road = match (&remote_port, child.udp) {
            (Some(port), Some(udp)) => Road::Udp { remote_port: port.clone(), local_port: udp.local },
            _ => Road::Esp,
        };
        let key = |keymat: &[u8]| {
            SaKey::aes_gcm(keymat)
                .ok_or_else(|| format!("keys of {} bytes for {}", keymat.len(), child.suite))
        };
        let (inward, outward) =
            selectors(child.selector, pair.kind).ok_or("it is for another kind of tunnel")?;
        let config = |selector, spi, hard_packets, hard_bytes| SaConfig {
            selector,
            spi,
            local: child.local,
            remote: child.remote,
            esn: child.suite.esn,
            road: road.clone(),
            hard_packets,
            hard_bytes,
        };
        let inbound = config(inward, child.inbound.spi, u64::MAX, u64::MAX);
        let outbound = config(outward, child.outbound.spi, child.hard_packets, child.hard_bytes);
        let inbound = InboundSa::new(inbound, key(child.inbound.keymat.as_bytes())?, policy, REPLAY_WINDOW);
        let outbound = OutboundSa::new(outbound, key(child.outbound.keymat.as_bytes())?);
        if child.use_outbound && sends(&child) {
            pair.sending = Some(child.id);
        }
        let (inbound, outbound) = (Arc::new(inbound), Arc::new(outbound));
        pair.children.insert(child.id, Installed { child, inbound, outbound, remote_port });
        Ok(())
    }

    /// Sends by this child SA from the next snapshot on.
    pub fn use_outbound(&mut self, id: ChildId) {
        if let Some(pair) = self.with(id)
            && pair.children.get(&id).is_some_and(|installed| sends(&installed.child))
        {
            pair.sending = Some(id);
        }
    }

    /// The far end has another UDP port. In force at once.
    pub fn moved(&mut self, id: ChildId, udp: UdpPorts) {
        let child = self.with(id).and_then(|p| p.children.get_mut(&id));
        if let Some(port) = child.as_ref().and_then(|c| c.remote_port.as_ref()) {
            port.store(udp.remote, Relaxed);
        }
    }

    /// Forgets a child SA from the next snapshot on. If it was the one to send by, nothing is sent.
    pub fn forget(&mut self, id: ChildId) {
        if let Some(pair) = self.with(id) {
            pair.children.remove(&id);
            pair.sending.take_if(|sending| *sending == id);
        }
    }

    fn with(&mut self, id: ChildId) -> Option<&mut PairSas> {
        self.0.values_mut().find(|pair| pair.children.contains_key(&id))
    }

    /// Every child SA with its policy.
    pub fn children(&self) -> impl Iterator<Item = (PolicyId, &Installed)> {
        self.0.iter().flat_map(|(id, pair)| pair.children.values().map(|c| (PolicyId(*id), c)))
    }

    /// Puts them into a snapshot.
    pub fn fill(&self, snapshot: &mut Snapshot) {
        for (id, pair) in &self.0 {
            let place = usize::from(*id);
            if snapshot.policies.len() <= place {
                snapshot.policies.resize_with(place + 1, || None);
            }
            let outbound = pair.sending.and_then(|id| pair.children.get(&id)).map(|c| c.outbound.clone());
            if let Some(slot) = snapshot.policies.get_mut(place) {
                *slot = Some(Arc::new(Policy {
                    name: pair.name.clone(),
                    local: pair.key.local,
                    remote: pair.key.remote,
                    outbound,
                    may_send_plain: pair.plaintext,
                }));
            }
            let inbound = pair.children.values().map(|c| (c.child.inbound.spi, c.inbound.clone()));
            snapshot.inbound.extend(inbound);
        }
    }
}

/// What comes in by a child SA and what goes out, if it is for tunnels of that kind.
fn selectors(selector: ikev2::Selector, kind: Kind) -> Option<(Selector, Selector)> {
    let udp = |port, kind: Kind, from_port| {
        let kind = kind.filter(|kind| kind.port() == port)?;
        Some((Selector::InUdp { kind, from_port }, Selector::InUdp { kind, from_port: !from_port }))
    };
    match selector {
        ikev2::Selector::Gre => kind.is_none().then_some((Selector::Gre, Selector::Gre)),
        ikev2::Selector::UdpOut(port) => udp(port, kind, true),
        ikev2::Selector::UdpIn(port) => udp(port, kind, false),
    }
}

/// Whether tunnels send by it: not by one for what comes to our port, as they send from others.
fn sends(child: &Child) -> bool {
    !matches!(child.selector, ikev2::Selector::UdpIn(_))
}

impl Installed {
    /// What has passed.
    pub fn usage(&self) -> ChildUse {
        let (inbound, outbound) = (self.inbound.usage(), self.outbound.usage());
        ChildUse {
            inbound_packets: inbound.packets,
            inbound_bytes: inbound.bytes,
            outbound_packets: outbound.packets,
            outbound_bytes: outbound.bytes,
        }
    }
}
