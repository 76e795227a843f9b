//! Host pairs and the IKE engine's peers, which are the same seen from two sides.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use datapath::snapshot::PolicyId;
use ikev2::crypto::SystemRng;
use ikev2::proposal::{EspOffer, IkeOffer};
use ikev2::{Encapsulation, Endpoint, Lifetimes, Limits, PeerConfig, PeerId, Selector};

use super::credentials::{Credentials, Loaded, Stamps};
use super::pairs::{Kind, PairKey, WantedPair, selectors};
use super::sas::Sas;
use crate::reconcile::actual::Ids;
use crate::reconcile::protection::{self, Protection};

/// Silence after which a peer is asked whether it lives, unless a row says otherwise.
const LIVENESS: Duration = Duration::from_secs(10);
/// How long a text why there is no SA stands before another takes its place.
const STANDS: Duration = Duration::from_secs(5);

/// All of them, and the engine.
pub struct Peers {
    /// The engine.
    pub engine: Endpoint,
    /// What is configured.
    pub pairs: BTreeMap<PairKey, Pair>,
    /// By the number that the engine knows them by. Numbers are used once.
    by_peer: HashMap<PeerId, PairKey>,
    last_peer: u32,
    policies: Ids,
    /// Policies of pairs that are gone, to which tunnels may still refer.
    retired: Vec<PolicyId>,
    credentials: Credentials,
}

/// A host pair that is configured.
#[derive(Debug)]
pub struct Pair {
    /// The numbers of its kinds of tunnels in the datapath.
    pub policies: BTreeMap<Kind, PolicyId>,
    /// Its number in the engine.
    pub peer: PeerId,
    /// What there are SAs for.
    pub up: BTreeSet<Selector>,
    /// Who is protected, and how.
    pub wanted: WantedPair,
    /// What both ends prove themselves with.
    pub loaded: Loaded,
    /// Of the files that was read from last.
    stamps: Stamps,
    /// Why they cannot be used as they are now; what they held before still is.
    pub unreadable: Option<String>,
    /// Why there is no SA, as the engine said, and until when that text stands.
    trouble: Option<(String, Instant)>,
    /// What it has said since.
    unsaid: Option<String>,
}

impl Pair {
    /// The number in the datapath of what a child SA is for.
    pub fn policy(&self, selector: Selector) -> Option<PolicyId> {
        let of = |(kind, _): &(&Kind, &PolicyId)| selectors(**kind).contains(&selector);
        self.policies.iter().find(of).map(|(_, policy)| *policy)
    }

    /// All that there have to be child SAs for.
    fn protects(&self) -> Vec<Selector> {
        self.policies.keys().copied().flat_map(selectors).collect()
    }

    /// There is an SA for this. Once there are all, nothing is wrong any more.
    pub fn set_up(&mut self, selector: Selector) {
        self.up.insert(selector);
        if self.protects().iter().all(|selector| self.up.contains(selector)) {
            self.clear_trouble();
        }
    }

    /// Why there is no SA.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_ref().map(|(why, _)| why.as_str())
    }

    /// The engine says why there is no SA. True: that is news. Both ends fail in turns, and a stranger may add to it: a text
    /// that is new stands for a while, for each of them is written to the database. What was said meanwhile comes after it.
    pub fn set_trouble(&mut self, why: String, now: Instant) -> bool {
        if self.trouble() != Some(why.as_str()) {
            self.unsaid = Some(why);
        }
        self.next_trouble(now)
    }

    /// What was said last has its turn, once the text before it has stood long enough. True: that is news.
    pub fn next_trouble(&mut self, now: Instant) -> bool {
        if self.trouble.as_ref().is_some_and(|(_, until)| now < *until) {
            return false;
        }
        let Some(why) = self.unsaid.take() else { return false };
        tracing::warn!("{}: {why}", self.wanted.name());
        self.trouble = Some((why, now + STANDS));
        true
    }

    /// There is no SA any more. Why the next attempt fails says more.
    pub fn set_down(&mut self, why: String, now: Instant) {
        (self.trouble, self.unsaid) = (Some((why, now)), None);
    }

    /// There is an SA.
    pub fn clear_trouble(&mut self) {
        (self.trouble, self.unsaid) = (None, None);
    }
}

impl Default for Peers {
    fn default() -> Peers {
        Peers {
            engine: Endpoint::new(Box::new(SystemRng::new()), Limits::default()),
            pairs: BTreeMap::new(),
            by_peer: HashMap::new(),
            last_peer: 0,
            policies: Ids::default(),
            retired: Vec::new(),
            credentials: Credentials::default(),
        }
    }
}

impl Peers {
    /// Makes pairs and peers what is wanted. For each tunnel its policy, which is in `sas` now, or why it must stay down;
    /// and whether `sas` has changed.
    pub fn follow(
        &mut self,
        wanted: BTreeMap<PairKey, WantedPair>,
        sas: &mut Sas,
        now: Instant,
    ) -> (BTreeMap<String, Result<PolicyId, String>>, bool) {
        self.credentials.look_again();
        let (mut plan, mut changed) = (BTreeMap::new(), false);
        let mut before = std::mem::take(&mut self.pairs);
        for (key, wanted) in wanted {
            let tunnels = wanted.tunnels.clone();
            let read = match before.remove(&key) {
                Some(mut pair) => match self.renew(&mut pair, wanted) {
                    Ok(()) => Ok(pair),
                    Err(why) => {
                        before.insert(key, pair);
                        Err(why)
                    }
                },
                None => self.establish(key, wanted),
            };
            let told: Result<BTreeMap<Kind, PolicyId>, String> = read.map(|mut pair| {
                if self.withdraw(&mut pair, sas) {
                    changed = true;
                    // A kind that comes may have the selectors of one that goes, but not its SAs
                    self.engine.configure(now, pair.peer, config(key, &pair));
                }
                changed |= self.allot(&mut pair, key, sas);
                let policies = pair.policies.clone();
                self.engine.configure(now, pair.peer, config(key, &pair));
                self.pairs.insert(key, pair);
                policies
            });
            plan.extend(tunnels.into_iter().map(|(tunnel, kind)| {
                let of_kind = |policies: &BTreeMap<_, _>| policies.get(&kind).copied();
                let told = told.as_ref().map_err(String::as_str);
                let told = told.and_then(|policies| of_kind(policies).ok_or("too many hosts to protect"));
                let told = told.map_err(|why| format!("{tunnel}: {why}"));
                (tunnel, told)
            }));
        }
        changed |= !before.is_empty();
        before.into_values().for_each(|pair| self.dismiss(&pair, sas, now));
        (plan, changed)
    }

    /// Takes the policies of kinds that a pair has no tunnels of any more, with their SAs. True: there were some.
    fn withdraw(&mut self, pair: &mut Pair, sas: &mut Sas) -> bool {
        let kinds = pair.wanted.kinds();
        let gone: Vec<_> = pair.policies.extract_if(.., |kind, _| !kinds.contains(kind)).collect();
        gone.iter().for_each(|(_, policy)| sas.remove(*policy));
        self.retired.extend(gone.iter().map(|(_, policy)| *policy));
        !gone.is_empty()
    }

    /// Sees to it that each kind of a pair's tunnels has its policy, in `sas`, as long as numbers last. True: they have changed.
    fn allot(&mut self, pair: &mut Pair, key: PairKey, sas: &mut Sas) -> bool {
        let mut changed = false;
        for kind in pair.wanted.kinds() {
            let standing = pair.policies.get(&kind).copied();
            let Some(policy) = standing.or_else(|| self.policies.take().map(PolicyId)) else { continue };
            pair.policies.insert(kind, policy);
            changed |= sas.set(policy, pair.wanted.name(), key, kind, pair.wanted.protection.plaintext);
        }
        changed
    }

    /// Policies of pairs that are gone are free again once no tunnel refers to them: a tunnel that has outlived its pair, for
    /// its row went and no pass has seen that yet, must not find itself with the keys of others, or in the clear.
    pub fn reclaim(&mut self, in_use: &BTreeSet<PolicyId>) {
        let (standing, free): (Vec<_>, Vec<_>) = self.retired.drain(..).partition(|id| in_use.contains(id));
        self.retired = standing;
        free.into_iter().for_each(|id| self.policies.give_back(id.0));
    }

    /// Which pair a peer of the engine is.
    pub fn pair_of(&mut self, peer: PeerId) -> Option<&mut Pair> {
        self.pairs.get_mut(self.by_peer.get(&peer)?)
    }

    /// The pair that a tunnel belongs to.
    pub fn pair_with(&self, tunnel: &str) -> Option<(&PairKey, &Pair)> {
        self.pairs.iter().find(|(_, pair)| pair.wanted.names().any(|t| t == tunnel))
    }

    /// Whether there are peers over IPv4, and over IPv6.
    pub fn families(&self) -> [bool; 2] {
        let any = |v6| self.pairs.keys().any(|key| key.remote.is_ipv6() == v6);
        [any(false), any(true)]
    }

    fn establish(&mut self, key: PairKey, wanted: WantedPair) -> Result<Pair, String> {
        let stamps = self.credentials.stamps(&wanted.protection.auth);
        let loaded = self.credentials.load(&wanted.protection)?;
        let (policies, up) = (BTreeMap::new(), BTreeSet::new());
        self.last_peer += 1;
        let peer = PeerId(self.last_peer);
        self.by_peer.insert(peer, key);
        Ok(Pair { policies, peer, up, wanted, loaded, stamps, unreadable: None, trouble: None, unsaid: None })
    }

    /// Follows what changed in the rows or in the files that they name. Files that have changed and cannot be used do not
    /// take away what works: they may be half-written just now.
    fn renew(&mut self, pair: &mut Pair, wanted: WantedPair) -> Result<(), String> {
        let stamps = self.credentials.stamps(&wanted.protection.auth);
        let same_rows = pair.wanted.protection == wanted.protection;
        if !same_rows || pair.stamps != stamps {
            match self.credentials.load(&wanted.protection) {
                Ok(loaded) => {
                    (pair.loaded, pair.unreadable) = (loaded, None);
                    pair.clear_trouble();
                }
                Err(why) if same_rows => {
                    tracing::warn!("{}: {why}; going on with what it held before", wanted.name());
                    pair.unreadable = Some(why);
                }
                Err(why) => return Err(why),
            }
            pair.stamps = stamps;
        }
        pair.wanted = wanted;
        Ok(())
    }

    fn dismiss(&mut self, pair: &Pair, sas: &mut Sas, now: Instant) {
        pair.policies.values().for_each(|policy| sas.remove(*policy));
        self.by_peer.remove(&pair.peer);
        self.engine.remove(now, pair.peer);
        self.retired.extend(pair.policies.values());
    }
}

/// What the engine has to know of a pair.
fn config(key: PairKey, pair: &Pair) -> PeerConfig {
    let Protection { encapsulation, ike_lifetime, esp_lifetime, liveness, .. } = &pair.wanted.protection;
    let default = Lifetimes::default();
    PeerConfig {
        name: pair.wanted.name().to_owned(),
        local: key.local,
        remote: key.remote,
        local_id: pair.loaded.local_id.clone(),
        remote_id: pair.loaded.remote_id.clone(),
        credential: pair.loaded.credential.clone(),
        trust: pair.loaded.trust.clone(),
        ike: IkeOffer::default(),
        esp: EspOffer::default(),
        protects: pair.protects(),
        encapsulation: match encapsulation {
            protection::Encapsulation::Auto => Encapsulation::Auto,
            protection::Encapsulation::Esp => Encapsulation::Esp,
            protection::Encapsulation::Udp => Encapsulation::Udp,
        },
        lifetimes: Lifetimes {
            ike: ike_lifetime.unwrap_or(default.ike),
            child: esp_lifetime.unwrap_or(default.child),
            ..default
        },
        liveness: liveness.unwrap_or(LIVENESS),
        initiate: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::protection::Auth;
    use crate::secret::SecretText;

    fn key(last: u8) -> PairKey {
        PairKey { local: Some([192, 0, 2, 9].into()), remote: [192, 0, 2, last].into() }
    }

    fn wanted(tunnels: &[&str], auth: Auth) -> WantedPair {
        WantedPair {
            protection: Protection::by(auth),
            tunnels: tunnels.iter().map(|t| ((*t).to_owned(), None)).collect(),
        }
    }

    fn psk(text: &str) -> Auth {
        Auth::Psk(SecretText::new(text))
    }

    #[test]
    fn policies_follow_what_is_wanted_and_none_changes_hands_in_a_round() {
        let (mut peers, mut sas, now) = (Peers::default(), Sas::default(), Instant::now());
        let mut follow = |wanted: Vec<(PairKey, WantedPair)>| {
            let (plan, changed) = peers.follow(wanted.into_iter().collect(), &mut sas, now);
            let there = plan.values().flatten().all(|policy| sas.pair(*policy).is_some());
            assert!(there, "a policy is there before who refers to it");
            (plan, changed)
        };
        let (first, changed) = follow(vec![(key(1), wanted(&["gre0", "gre1"], psk("x")))]);
        assert!(changed);
        assert_eq!(first["gre0"], first["gre1"]);
        let (again, changed) = follow(vec![(key(1), wanted(&["gre0", "gre1"], psk("x")))]);
        assert_eq!((&again, changed), (&first, false));
        let (other, changed) = follow(vec![(key(1), wanted(&["gre1"], psk("y")))]);
        assert_eq!((other["gre1"].clone(), changed), (first["gre1"].clone(), true), "it has another name");
        let (moved, changed) = follow(vec![(key(2), wanted(&["gre1"], psk("y")))]);
        assert!(changed);
        assert_ne!(moved["gre1"], other["gre1"]);

        // what was fine is so no longer
        let absent = Auth::PskFile("/nonexistent/psk".into());
        let (refused, changed) = follow(vec![(key(2), wanted(&["gre1"], absent))]);
        let why = "gre1: cannot read /nonexistent/psk: No such file or directory";
        assert_eq!((refused["gre1"].clone(), changed), (Err(why.to_owned()), true));
        assert!(peers.pairs.is_empty() && sas.children().next().is_none());
        assert_eq!(peers.families(), [false, false]);
    }

    /// A row may go, and another come, before a pass takes the first one's tunnel away.
    #[test]
    fn a_policy_that_a_tunnel_still_refers_to_is_not_given_to_another_pair() {
        let (mut peers, mut sas, now) = (Peers::default(), Sas::default(), Instant::now());
        let mut only = |in_use: &[PolicyId], last: u8| {
            peers.reclaim(&in_use.iter().copied().collect());
            let pairs = [(key(last), wanted(&["gre0"], psk("x")))];
            let (plan, _) = peers.follow(pairs.into_iter().collect(), &mut sas, now);
            plan["gre0"].clone().unwrap()
        };
        let first = only(&[], 1);
        let second = only(&[first], 2);
        let third = only(&[first], 3);
        assert!(first != second && first != third && second != third);
        let later: BTreeSet<PolicyId> = (4..=255).map(|last| only(&[third], last)).collect();
        assert!(later.contains(&first) && !later.contains(&third), "free again once nothing refers to it");
    }

    #[test]
    fn what_fails_in_turns_is_not_written_in_turns() {
        let mut peers = Peers::default();
        let mut pair = peers.establish(key(1), wanted(&["gre0"], psk("x"))).unwrap();
        let now = Instant::now();
        assert!(pair.set_trouble("one".into(), now));
        assert!(!pair.set_trouble("two".into(), now + STANDS / 2));
        assert!(!pair.set_trouble("one".into(), now + STANDS / 2));
        assert_eq!(pair.trouble(), Some("one"));
        assert!(!pair.next_trouble(now + STANDS / 2));
        // its turn has come, though the other end's complaint was the last to be heard
        assert!(pair.next_trouble(now + STANDS));
        assert!(!pair.next_trouble(now + 2 * STANDS));
        assert_eq!(pair.trouble(), Some("two"));
        assert!(!pair.set_trouble("two".into(), now + 3 * STANDS));
        pair.clear_trouble();
        pair.set_down("down".into(), now + STANDS);
        assert_eq!(pair.trouble(), Some("down"));
        assert!(pair.set_trouble("one".into(), now + STANDS));
    }
}
