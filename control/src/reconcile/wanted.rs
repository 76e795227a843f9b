//! What the database wants: bridges and ports with everything about them checked. Pure: rows in, wishes out.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use datapath::tunnel::TunnelConfig;
use ovsdb::{Database, Row, Uuid};

use super::absent;
use super::mirrors::{self, WantedMirror};
use super::options;
use super::protection::{self, HostSettings, Protection};
use super::rules::{BridgeRules, PortRules};
use crate::bond::wishes::{self, WantedBond};
use crate::devices::parse_mac;
use crate::loops;
use crate::sflow;
use crate::snooping::wishes::Wish;
use crate::spanning::wishes as spanning;

/// Seconds after which an address is forgotten, and the range that `mac-aging-time` is held to.
const MAX_AGE: (u32, u32, u32) = (15, 300, 3600);
/// Addresses that a bridge remembers, and the range that `mac-table-size` is held to.
const TABLE_SIZE: (u32, u32, u32) = (10, 8192, 1_000_000);

/// Everything that shall be there.
#[derive(Debug, Default)]
pub struct Wanted {
    /// By name.
    pub bridges: BTreeMap<String, WantedBridge>,
    /// What the rows ask for that there is not, in words for the log.
    pub warnings: Vec<String>,
    /// What they say of this host.
    pub host: HostSettings,
    /// Managers, whom nobody speaks to.
    pub managers: Vec<Uuid>,
}

/// A bridge that shall be there.
#[derive(Debug)]
pub struct WantedBridge {
    /// Its row.
    pub row: Uuid,
    /// `other_config:mac-aging-time`, in seconds.
    pub max_age: u32,
    /// `other_config:mac-table-size`.
    pub max_entries: usize,
    /// `other_config:forward-bpdu`.
    pub forward_bpdu: bool,
    /// What it says of VLANs.
    pub rules: BridgeRules,
    /// Its mirrors.
    pub mirrors: Vec<WantedMirror>,
    /// Multicast snooping, if it shall snoop.
    pub snooping: Option<Wish>,
    /// Its loops shall be found.
    pub loops: Option<loops::Wish>,
    /// sFlow, if it shall be sampled.
    pub sflow: Option<sflow::wish::Wish>,
    /// `other_config:hwaddr`.
    pub mac: Option<[u8; 6]>,
    /// `other_config:datapath-id`.
    pub datapath_id: Option<String>,
    /// Controllers, whom nobody speaks to.
    pub controllers: Vec<Uuid>,
    /// `fail_mode=secure`: without a controller nothing shall be forwarded.
    pub fail_secure: bool,
    /// Its datapath's type, as Open vSwitch names it where the row does not.
    pub datapath_type: String,
    /// By interface name. Always has one with the bridge's name.
    pub ports: BTreeMap<String, WantedPort>,
    /// Ports of several interfaces, by name.
    pub bonds: BTreeMap<String, WantedBond>,
}

/// A port that shall be there.
#[derive(Debug, Clone)]
pub struct WantedPort {
    /// The interface's row. None: the bridge's own port, when the database has no row for it.
    pub row: Option<Uuid>,
    /// What it shall be, or why it cannot.
    pub what: Result<What, String>,
    /// The number asked for.
    pub ofport_request: Option<i64>,
    /// The number it had before, perhaps in an earlier run.
    pub ofport: Option<i64>,
    /// `mtu_request`, in bytes.
    pub mtu_request: Option<u32>,
    /// `other_config:host-input=true`: what comes in by the device goes to the host's own stack, too.
    pub host_input: bool,
    /// What may pass, and with which tags.
    pub rules: PortRules,
    /// The bond that it is a member of.
    pub bond: Option<String>,
    /// Column `bfd`, if there shall be a session.
    pub bfd: Option<::bfd::Config>,
    /// Column `cfm_mpid`, if there shall be a maintenance point.
    pub cfm: Option<::cfm::Config>,
}

/// What a port shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A device that the daemon makes (a TAP), with this address if one is given.
    Internal {
        /// Column `mac`, or the bridge's `hwaddr`.
        mac: Option<[u8; 6]>,
    },
    /// A device of the host.
    System {
        /// How.
        attach: Attach,
        /// `other_config:take-address`: the bridge's own port takes the device's addresses.
        take_address: bool,
    },
    /// A tunnel.
    Tunnel(WantedTunnel),
    /// One end of a pair of patch ports.
    Patch {
        /// The other.
        peer: String,
    },
}

/// A tunnel as its row has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedTunnel {
    /// Where to, and how the GRE header looks.
    pub config: TunnelConfig,
    /// What it asks of IPsec; None is a plain tunnel. Err: what is wrong with that, for the row.
    pub protection: Option<Result<Box<Protection>, String>>,
}

/// How a device of the host is joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attach {
    /// Through a member port if it is a Linux bridge, else directly.
    Auto,
    /// By a packet socket on the device itself (`other_config:attach=direct`).
    Direct,
}

impl Wanted {
    /// Reads the database.
    pub fn from_database(db: &Database) -> Wanted {
        let mut wanted = Wanted { host: HostSettings::read(db), ..Wanted::default() };
        wanted.warnings.extend(wanted.host.warnings());
        wanted.warnings.extend(absent::warnings(db));
        let mut seen = BTreeSet::new();
        for (_, root) in db.rows("Open_vSwitch") {
            wanted.warn_of_managers(db, root);
            for bridge in root.refs("bridges").into_iter().filter_map(|uuid| db.row("Bridge", uuid)) {
                let read = wanted.bridge(db, bridge, &mut seen);
                wanted.bridges.insert(bridge.str("name").to_owned(), read);
            }
        }
        wanted.refuse_equal_tunnels();
        wanted.warn_of_unprotected_tunnels();
        wanted
    }

    fn warn_of_managers(&mut self, db: &Database, root: &Row) {
        self.managers = root.refs("manager_options");
        for manager in root.refs("manager_options").into_iter().filter_map(|uuid| db.row("Manager", uuid)) {
            self.warnings.push(format!(
                "manager {}: this version speaks OVSDB on its unix socket alone (forward a port with ssh or socat)",
                manager.str("target")
            ));
        }
    }

    fn bridge(&mut self, db: &Database, row: &Row, seen: &mut BTreeSet<Uuid>) -> WantedBridge {
        let name = row.str("name");
        self.warn_of_missing_features(name, row);
        let config = |key| row.map_get("other_config", key);
        let mac = config("hwaddr").and_then(|text| self.unicast(name, "hwaddr", text));
        let mut bridge = WantedBridge {
            row: row.uuid(),
            max_age: within(config("mac-aging-time"), MAX_AGE),
            max_entries: within(config("mac-table-size"), TABLE_SIZE) as usize,
            forward_bpdu: config("forward-bpdu") == Some("true"),
            rules: BridgeRules::read(db, row),
            mirrors: mirrors::read(db, row, &mut self.warnings),
            snooping: Wish::read(db, row),
            loops: loops::Wish::read(db, row),
            sflow: sflow::wish::Wish::read(db, row, &mut self.warnings),
            mac,
            datapath_id: config("datapath-id").and_then(|text| self.datapath_id(name, text)),
            controllers: row.refs("controller"),
            fail_secure: row.opt_str("fail_mode") == Some("secure"),
            datapath_type: match row.str("datapath_type") {
                "" => "system".to_owned(),
                kind => kind.to_owned(),
            },
            ports: BTreeMap::new(),
            bonds: BTreeMap::new(),
        };
        if let Err(error) = device_name(name) {
            self.warnings.push(error);
        }
        for port in row.refs("ports").into_iter().filter_map(|uuid| db.row("Port", uuid)) {
            let interfaces = port.refs("interfaces");
            let interfaces = interfaces.into_iter().filter_map(|uuid| db.row("Interface", uuid)).collect();
            let bond = self.bond(row, &mut bridge, port, &interfaces);
            for interface in interfaces {
                if !seen.insert(interface.uuid()) {
                    self.warnings
                        .push(format!("{}: is in use by another port already", interface.str("name")));
                    continue;
                }
                let read = self.port(name, &bridge, port, interface, &bond);
                bridge.ports.insert(interface.str("name").to_owned(), read);
            }
        }
        bridge.ports.entry(name.to_owned()).or_insert_with(|| WantedPort {
            row: None,
            what: device_name(name).map(|()| What::Internal { mac }),
            ofport_request: None,
            ofport: None,
            mtu_request: None,
            host_input: false,
            rules: PortRules::default(),
            bond: None,
            bfd: None,
            cfm: None,
        });
        bridge
    }

    /// Notes a port of several interfaces. Some: it is a bond, by its name, or it must not come up.
    fn bond(
        &mut self,
        row: &Row,
        bridge: &mut WantedBridge,
        port: &Row,
        interfaces: &Vec<&Row>,
    ) -> Option<Result<String, String>> {
        if interfaces.len() < 2 {
            return None;
        }
        let name = port.str("name");
        let members = interfaces.iter().map(|row| row.str("name").to_owned()).collect();
        let read = wishes::read(port, members, &mut self.warnings);
        if let Some(mode) = spanning::mode(row).filter(|mode| mode.wanted_by(port)) {
            self.warnings.push(format!("port {name}: cannot enable {mode} on bonds, disabling"));
        }
        Some(read.map(|bond| {
            bridge.bonds.insert(name.to_owned(), bond);
            name.to_owned()
        }))
    }

    fn port(
        &mut self,
        bridge_name: &str,
        bridge: &WantedBridge,
        port: &Row,
        row: &Row,
        bond: &Option<Result<String, String>>,
    ) -> WantedPort {
        let name = row.str("name");
        let what = match (bond, row.str("type")) {
            (Some(Err(error)), _) => Err(error.clone()),
            (Some(Ok(bond)), "patch") => {
                Err(format!("{name}: a patch port cannot be a member of a bond in this version ({bond})"))
            }
            (Some(Ok(bond)), _) if name == bridge_name => Err(format!(
                "{name}: a bridge's own port cannot be a member of a bond in this version ({bond})"
            )),
            _ => self.what(bridge_name, bridge, port, row),
        };
        self.warn_of_missing_port_features(name, port, row);
        WantedPort {
            row: Some(row.uuid()),
            what,
            ofport_request: row.opt_int("ofport_request"),
            ofport: row.opt_int("ofport"),
            mtu_request: row.opt_int("mtu_request").and_then(|mtu| u32::try_from(mtu).ok()),
            host_input: [row, port].iter().any(|r| r.map_get("other_config", "host-input") == Some("true")),
            rules: PortRules::read(port, row, &mut self.warnings),
            bond: bond.clone().and_then(Result::ok),
            bfd: ::bfd::Config::read(row.map("bfd"), |why| self.warnings.push(format!("{name}: {why}"))),
            cfm: ::cfm::Config::read(
                row.opt_int("cfm_mpid"),
                |key| row.map_get("other_config", key),
                |why| self.warnings.push(format!("{name}: {why}")),
            ),
        }
    }

    fn what(
        &mut self,
        bridge_name: &str,
        bridge: &WantedBridge,
        port: &Row,
        row: &Row,
    ) -> Result<What, String> {
        let name = row.str("name");
        if name == bridge_name {
            if row.opt_str("mac").is_some() {
                let instead = "set other_config:hwaddr of the bridge instead";
                self.warnings
                    .push(format!("{name}: the bridge's own port does not go by column mac; {instead}"));
            }
            return device_name(name).map(|()| What::Internal { mac: bridge.mac });
        }
        let config = |key| row.map_get("other_config", key).or_else(|| port.map_get("other_config", key));
        match row.str("type") {
            "" | "system" => {
                let attach = match config("attach") {
                    Some("direct") => Attach::Direct,
                    None | Some("member") => Attach::Auto,
                    Some(other) => {
                        return Err(format!(
                            "{name}: other_config:attach '{other}' is neither 'member' nor 'direct'"
                        ));
                    }
                };
                let take_address = config("take-address") == Some("true");
                if take_address && attach != Attach::Direct {
                    return Err(format!(
                        "{name}: other_config:take-address needs other_config:attach=direct"
                    ));
                }
                device_name(name).map(|()| What::System { attach, take_address })
            }
            "internal" | "tap" => {
                let mac = row.opt_str("mac").and_then(|text| self.unicast(name, "mac", text));
                device_name(name).map(|()| What::Internal { mac })
            }
            "patch" => patch(name, row).map(|peer| What::Patch { peer }),
            kind if options::TUNNELS.contains(&kind) => self.tunnel(name, kind, row).map(What::Tunnel),
            kind => Err(format!(
                "could not open network device {name} (type '{kind}' is not supported by this version)"
            )),
        }
    }

    fn tunnel(&mut self, name: &str, kind: &str, row: &Row) -> Result<WantedTunnel, String> {
        let options = row.map("options").collect();
        // Beside IPsec options it is how ESP travels
        let asked = protection::is_asked(kind, &options);
        let own = row.map("options").filter(|(option, _)| !(asked && *option == "encapsulation"));
        let config = options::tunnel(name, kind, own, &mut self.warnings)?;
        let protection = protection::read(name, kind, &options, &self.host, &mut self.warnings);
        let protection = protection.map(|read| read.map(Box::new).map_err(|why| format!("{name}{why}")));
        Ok(WantedTunnel { config, protection })
    }

    /// What `other_config:datapath-id` says: 16 hexadecimal digits, or up to 16 after `0x`, and not 0.
    fn datapath_id(&mut self, name: &str, text: &str) -> Option<String> {
        let digits = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
            Some(digits) => Some(digits),
            None => Some(text).filter(|text| text.len() == 16),
        };
        let digits = digits.filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let id = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).filter(|id| *id != 0);
        if id.is_none() {
            self.warnings.push(format!(
                "{name}: datapath-id '{text}' is neither 16 hexadecimal digits nor a number after 0x; it is not heeded"
            ));
        }
        id.map(|id| format!("{id:016x}"))
    }

    /// The address that a column says, if a device can have it.
    fn unicast(&mut self, name: &str, column: &str, text: &str) -> Option<[u8; 6]> {
        let mac = parse_mac(text).filter(|mac| *mac != [0; 6] && mac.first().is_some_and(|b| b & 1 == 0));
        if mac.is_none() {
            self.warnings.push(format!("{name}: {column} '{text}' is not a unicast Ethernet address"));
        }
        mac
    }

    /// Of tunnels that a received packet could not tell apart, the one that worked before stays; among new ones, the
    /// first by name.
    fn refuse_equal_tunnels(&mut self) {
        let mut tunnels: Vec<(&String, &mut WantedPort)> =
            self.bridges.values_mut().flat_map(|b| &mut b.ports).collect();
        tunnels.sort_by_key(|(name, port)| (port.ofport.is_none_or(|n| n < 1), (*name).clone()));
        let mut standing = HashMap::<_, &String>::new();
        for (name, port) in tunnels {
            let Ok(What::Tunnel(WantedTunnel { config, .. })) = &port.what else { continue };
            // RFC 2890: no key and key 0 arrive at the same port; so do VNI 0 and none
            let tuple = (config.local, config.remote, config.in_key.unwrap_or(0), config.in_udp);
            if let Some(first) = standing.get(&tuple) {
                port.what = Err(format!(
                    "could not add network device {name} to ofproto (File exists): \
                     remote_ip, local_ip and key are those of {first}"
                ));
            } else {
                standing.insert(tuple, name);
            }
        }
    }

    fn warn_of_missing_port_features(&mut self, name: &str, port: &Row, row: &Row) {
        let tunnel = options::TUNNELS.contains(&row.str("type"));
        let bonded = port.refs("interfaces").len() > 1;
        for (set, feature) in [
            (row.map_get("lldp", "enable") == Some("true"), "LLDP (lldp)"),
            (!port.refs("qos").is_empty(), "QoS (qos)"),
            (!bonded && port.opt_str("lacp").is_some_and(|mode| mode != "off"), "LACP (lacp)"),
            (tunnel && row.opt_int("mtu_request").is_some(), "an MTU of a tunnel's own (mtu_request)"),
        ] {
            if set {
                self.warnings
                    .push(format!("{name}: {feature} is not in this version; the port works without"));
            }
        }
    }

    fn warn_of_missing_features(&mut self, name: &str, row: &Row) {
        if row.bool("stp_enable") && row.bool("rstp_enable") {
            self.warnings.push(format!(
                "{name}: RSTP and STP are mutually exclusive but both are configured; enabling RSTP"
            ));
        }
        for (set, feature) in [
            (!row.refs("controller").is_empty(), "OpenFlow (controller)"),
            (row.opt_str("fail_mode") == Some("secure"), "OpenFlow (fail_mode=secure)"),
            (!row.refs("netflow").is_empty(), "NetFlow (netflow)"),
            (!row.refs("ipfix").is_empty(), "IPFIX (ipfix)"),
            (!row.refs("auto_attach").is_empty(), "auto-attach (auto_attach)"),
            (
                !matches!(row.str("datapath_type"), "" | "system" | "netdev"),
                "another datapath_type than system and netdev",
            ),
        ] {
            if set {
                self.warnings.push(format!(
                    "{name}: {feature} is not in this version; the bridge learns and forwards"
                ));
            }
        }
    }
}

/// The peer of a patch port.
fn patch(name: &str, row: &Row) -> Result<String, String> {
    match row.map_get("options", "peer") {
        None | Some("") => Err(format!("{name}: patch type requires valid 'peer' argument")),
        Some(_) if row.map("options").count() > 1 => {
            Err(format!("{name}: patch type takes only a 'peer' argument"))
        }
        Some(peer) if peer == name => Err(format!("{name}: patch peer must not be self")),
        Some(peer) => Ok(peer.to_owned()),
    }
}

/// The kernel's rules for the name of a device.
fn device_name(name: &str) -> Result<(), String> {
    let odd = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if name.is_empty() || name.len() > 15 || name == "." || name == ".." || name.contains(odd) {
        return Err(format!("could not open network device {name} (not a valid interface name)"));
    }
    Ok(())
}

/// A number held to (least, default, most) as OVS does: out of range becomes the nearest end, and 0 the
/// default.
fn within(value: Option<&str>, (least, default, most): (u32, u32, u32)) -> u32 {
    value
        .and_then(|v| v.parse::<i64>().ok())
        .filter(|n| *n != 0)
        .map_or(default, |n| n.clamp(least.into(), most.into()) as u32)
}

#[cfg(test)]
#[path = "wanted_tests.rs"]
mod tests;
