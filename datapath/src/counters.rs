//! What is counted, without sharing a cache line between workers: each worker has its own cell, readers add them up.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Most workers a datapath may run.
pub const MAX_WORKERS: usize = 16;

/// Counters of one port as one worker sees it. A superframe counts as the packets it stands for.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct PortCell {
    /// Packets received.
    pub rx_packets: AtomicU64,
    /// Bytes received (Ethernet header included, FCS not).
    pub rx_bytes: AtomicU64,
    /// Received multicast and broadcast packets.
    pub rx_multicast: AtomicU64,
    /// Received but not forwarded, whatever the reason.
    pub rx_dropped: AtomicU64,
    /// Packets sent.
    pub tx_packets: AtomicU64,
    /// Bytes sent.
    pub tx_bytes: AtomicU64,
    /// Could not be sent for want of room or fit. A superframe that finds a device full counts once.
    pub tx_dropped: AtomicU64,
    /// Refused by the device or, a tunnel's, by the underlay. A superframe counts once.
    pub tx_errors: AtomicU64,
}

/// The counters of a port, one cell a worker. Kept by [`std::sync::Arc`] so that they outlive a snapshot.
#[derive(Debug, Default)]
pub struct PortCounters {
    cells: [PortCell; MAX_WORKERS],
}

/// Sums over all workers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the same names as in PortCell
pub struct PortStats {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub rx_multicast: u64,
    pub rx_dropped: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub tx_dropped: u64,
    pub tx_errors: u64,
}

impl PortCounters {
    /// The cell of worker `w`.
    #[inline]
    pub fn cell(&self, w: usize) -> &PortCell {
        &self.cells[w % MAX_WORKERS]
    }

    /// Sums over all workers.
    pub fn sum(&self) -> PortStats {
        let mut s = PortStats::default();
        for c in &self.cells {
            s.rx_packets += c.rx_packets.load(Relaxed);
            s.rx_bytes += c.rx_bytes.load(Relaxed);
            s.rx_multicast += c.rx_multicast.load(Relaxed);
            s.rx_dropped += c.rx_dropped.load(Relaxed);
            s.tx_packets += c.tx_packets.load(Relaxed);
            s.tx_bytes += c.tx_bytes.load(Relaxed);
            s.tx_dropped += c.tx_dropped.load(Relaxed);
            s.tx_errors += c.tx_errors.load(Relaxed);
        }
        s
    }
}

/// Adds to a counter that only this thread writes: a plain load and store, no locked instruction.
#[inline]
pub fn bump(c: &AtomicU64, n: u64) {
    c.store(c.load(Relaxed).wrapping_add(n), Relaxed);
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// Why a frame or packet went no further. Each has a counter a worker, shown by `coverage/show`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        pub enum DropReason { $($(#[doc = $doc])+ $name,)+ }

        impl DropReason {
            /// Every reason, in order.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$name,)+];

            /// The counter's name, as `coverage/show` prints it.
            pub fn name(self) -> &'static str {
                match self { $(DropReason::$name => $text,)+ }
            }
        }
    };
}

reasons! {
    /// Shorter than its headers, or its lengths contradict each other.
    Malformed = "drop_malformed",
    /// Its source address is a group address or zero.
    BadSource = "drop_bad_source",
    /// Its port does not forward, or the one where its destination was learned: spanning tree.
    NotForwarding = "drop_stp",
    /// It came in by a member of a bond that is not the active one, or was to leave there.
    BondBackup = "drop_bond_backup",
    /// BPDU that came while its port had had its share of control's time.
    BpduFull = "drop_bpdu_full",
    /// BFD control packet that came while its port had had its share of control's time.
    BfdFull = "drop_bfd_full",
    /// Continuity check that came while its port had had its share of control's time.
    CfmFull = "drop_cfm_full",
    /// IGMP or MLD message that came while its port had had its share of control's time. It went on, and nothing was learned of it.
    MembershipFull = "drop_membership_full",
    /// To a reserved group address (IEEE 802.1D 7.12.6), which a bridge never forwards.
    ReservedGroup = "drop_reserved_group",
    /// Its destination was learned on the port that it came in by.
    SamePort = "drop_same_port",
    /// Its VLAN is none that the port it came in by takes.
    VlanIn = "drop_vlan_in",
    /// Its destination was learned on a port, or put there, that is not in its VLAN.
    VlanOut = "drop_vlan_out",
    /// More bits than `ingress_policing_rate` of its interface.
    PolicedRate = "drop_policed_rate",
    /// More packets than `ingress_policing_kpkts_rate` of its interface.
    PolicedPackets = "drop_policed_kpkts",
    /// More broadcasts than `other_config:storm-control-broadcast-pps` of its port.
    StormBroadcast = "drop_storm_broadcast",
    /// More multicasts than `other_config:storm-control-multicast-pps`.
    StormMulticast = "drop_storm_multicast",
    /// More to unknown stations than `other_config:storm-control-unknown-unicast-pps`.
    StormUnknownUnicast = "drop_storm_unknown_unicast",
    /// To or from a port that is kept for the copies of a mirror.
    MirrorOutput = "drop_mirror_output",
    /// To a port that the one it came in by is kept apart from: both are protected, or tunnels with a split horizon.
    Apart = "drop_kept_apart",
    /// Its port belongs to no bridge, or to nobody any more.
    NoBridge = "drop_no_bridge",
    /// Out of a patch port whose peer is not there, or is the peer of another.
    PatchNoPeer = "drop_patch_no_peer",
    /// Through more pairs of patch ports than there should be: they are wired into a loop.
    PatchLoop = "drop_patch_loop",
    /// Longer than the output takes, and neither splitting, fragmenting nor an ICMP answer applies.
    TooBig = "drop_too_big",
    /// Answered with ICMP fragmentation-needed or packet-too-big instead.
    TooBigAnswered = "drop_too_big_answered",
    /// A checksum is wrong, and it would have had to be split or fragmented: new checksums would have hidden the damage.
    BadChecksum = "drop_bad_checksum",
    /// The batch had no room left.
    NoRoom = "drop_no_room",
    /// GRE packet from an address, or with a key, that no tunnel has.
    GreNoTunnel = "gre_no_tunnel",
    /// GRE version, reserved or routing bits that RFC 2784 says to discard.
    GreUnsupported = "gre_unsupported",
    /// GRE payload that is not Ethernet.
    GreProtocol = "gre_protocol",
    /// GRE checksum wrong.
    GreChecksum = "gre_checksum",
    /// VXLAN or Geneve packet from an address, or with a VNI, that no tunnel has.
    VniNoTunnel = "vni_no_tunnel",
    /// VXLAN packet without a VNI: its I flag is not set (RFC 7348 section 5).
    VxlanNoVni = "vxlan_no_vni",
    /// Geneve of another version.
    GeneveUnsupported = "geneve_unsupported",
    /// Geneve payload that is not Ethernet.
    GeneveProtocol = "geneve_protocol",
    /// Geneve packet with an option that must not be ignored, and is not known.
    GeneveCritical = "geneve_critical_option",
    /// Outer CE on an inner packet that cannot carry it (RFC 6040 section 4.2).
    EcnDrop = "gre_ecn_not_capable",
    /// GRE in the clear for a tunnel that takes it in ESP only.
    GrePlain = "gre_unprotected",
    /// ESP packet shorter than its headers, or not a multiple of four bytes.
    EspMalformed = "esp_malformed",
    /// No SA has its SPI.
    EspNoSa = "esp_no_sa",
    /// Its sequence number has come before.
    EspReplayed = "esp_replayed",
    /// Its sequence number lies left of the replay window.
    EspTooOld = "esp_too_old",
    /// Its integrity check value is wrong: damaged, forged, or sealed with another key.
    EspIcv = "esp_icv",
    /// Its padding is not the one that RFC 4303 section 2.4 wants.
    EspPadding = "esp_padding",
    /// Next header 59: sent to hide how much is sent (RFC 4303 section 2.6).
    EspDummy = "esp_dummy",
    /// Its payload is not GRE.
    EspNextHeader = "esp_next_header",
    /// Not between the hosts of its SA, or for a tunnel that another SA protects, or none.
    EspSelector = "esp_selector",
    /// A protected tunnel has no SA to send by.
    EspNoOutbound = "esp_no_outbound_sa",
    /// The SA has carried as many packets or bytes as it may.
    EspLimit = "esp_hard_limit",
    /// IKE message that came on the ESP port while too many waited to be looked at.
    IkeFull = "drop_ike_full",
    /// Came while a tunnel socket's buffer was full.
    UnderlayRx = "drop_underlay_rx",
    /// The kernel refused to send on the underlay.
    UnderlayTx = "drop_underlay_tx",
    /// The kernel refused to send on a local port.
    PortTx = "drop_port_tx",
}

/// One counter a reason, of one worker.
#[derive(Debug)]
pub struct DropCell {
    counts: Box<[AtomicU64]>,
}

impl DropCell {
    /// All zero.
    pub fn new() -> DropCell {
        DropCell { counts: DropReason::ALL.iter().map(|_| AtomicU64::new(0)).collect() }
    }

    /// Count `n` more for `why`. Only the owning worker calls this.
    #[inline]
    pub fn add(&self, why: DropReason, n: u64) {
        if let Some(c) = self.counts.get(why as usize) {
            bump(c, n);
        }
    }

    /// The count of `why`.
    pub fn get(&self, why: DropReason) -> u64 {
        self.counts.get(why as usize).map_or(0, |c| c.load(Relaxed))
    }
}

impl Default for DropCell {
    fn default() -> Self {
        Self::new()
    }
}
