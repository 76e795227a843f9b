//! The Open_vSwitch schema in the 8.3.1 shape. It only ever grew, so clients of every OVS since 2.3 find their columns.

use crate::schema::{AtomType, BaseType, ColumnSchema, ColumnType, Range, Reference, Schema, TableSchema};
use crate::value::Atom;

const U32: std::ops::RangeInclusive<i64> = 0..=0xffff_ffff;
const VLAN: std::ops::RangeInclusive<i64> = 0..=4095;

/// All 19 tables of database Open_vSwitch.
pub fn schema() -> Schema {
    let tables = vec![
        open_vswitch(),
        bridge(),
        port(),
        interface(),
        mirror(),
        controller(),
        manager(),
        flow_table(),
        table("QoS", vec![c("type", string()), c("queues", map(int_in(U32), to("Queue")))]).root(),
        table("Queue", vec![c("dscp", int_in(0..=63).opt())]).root(),
        net_flow(),
        s_flow(),
        ipfix(),
        flow_sample_collector_set(),
        datapath(),
        table("CT_Zone", vec![c("timeout_policy", to("CT_Timeout_Policy").opt())]),
        ct_timeout_policy(),
        ssl(),
        auto_attach(),
    ];
    Schema::new("Open_vSwitch", "8.3.1", "3012963480 26720", tables)
}

fn open_vswitch() -> TableSchema {
    let mut table = table(
        "Open_vSwitch",
        vec![
            c("bridges", to("Bridge").set()),
            c("manager_options", to("Manager").set()),
            c("ssl", to("SSL").opt()),
            c("datapaths", map(string(), to("Datapath"))),
            c("next_cfg", int()),
            c("cur_cfg", int()),
            c("statistics", strings()).ephemeral(),
            c("ovs_version", string().opt()),
            c("db_version", string().opt()),
            c("system_type", string().opt()),
            c("system_version", string().opt()),
            c("datapath_types", string().set()),
            c("iface_types", string().set()),
            c("dpdk_initialized", boolean()),
            c("dpdk_version", string().opt()),
        ],
    )
    .root();
    table.max_rows = 1;
    table
}

fn bridge() -> TableSchema {
    let protocols = ["OpenFlow10", "OpenFlow11", "OpenFlow12", "OpenFlow13", "OpenFlow14", "OpenFlow15"];
    table(
        "Bridge",
        vec![
            c("name", string()).immutable(),
            c("datapath_type", string()),
            c("datapath_version", string()),
            c("datapath_id", string().opt()).ephemeral(),
            c("ports", to("Port").set()),
            c("mirrors", to("Mirror").set()),
            c("netflow", to("NetFlow").opt()),
            c("sflow", to("sFlow").opt()),
            c("ipfix", to("IPFIX").opt()),
            c("controller", to("Controller").set()),
            c("auto_attach", to("AutoAttach").opt()),
            c("flow_tables", map(int_in(0..=254), to("Flow_Table"))),
            c("protocols", one_of(&protocols).set()),
            c("fail_mode", one_of(&["standalone", "secure"]).opt()),
            c("stp_enable", boolean()),
            c("rstp_enable", boolean()),
            c("mcast_snooping_enable", boolean()),
            c("flood_vlans", int_in(VLAN).up_to(4096)),
            c("status", strings()).ephemeral(),
            c("rstp_status", strings()).ephemeral(),
        ],
    )
    .indexed(&["name"])
}

fn port() -> TableSchema {
    let vlan_modes = ["access", "trunk", "native-tagged", "native-untagged", "dot1q-tunnel"];
    table(
        "Port",
        vec![
            c("name", string()).immutable(),
            c("interfaces", at_least_one(to("Interface"))),
            c("tag", int_in(VLAN).opt()),
            c("trunks", int_in(VLAN).up_to(4096)),
            c("cvlans", int_in(VLAN).up_to(4096)),
            c("vlan_mode", one_of(&vlan_modes).opt()),
            c("qos", to("QoS").opt()),
            c("mac", string().opt()),
            c("bond_mode", one_of(&["balance-tcp", "balance-slb", "active-backup"]).opt()),
            c("lacp", one_of(&["active", "passive", "off"]).opt()),
            c("bond_updelay", int()),
            c("bond_downdelay", int()),
            c("bond_active_slave", string().opt()),
            c("bond_fake_iface", boolean()),
            c("fake_bridge", boolean()),
            c("protected", boolean()),
            c("status", strings()).ephemeral(),
            c("statistics", counters()).ephemeral(),
            c("rstp_status", strings()).ephemeral(),
            c("rstp_statistics", counters()).ephemeral(),
        ],
    )
    .indexed(&["name"])
}

fn interface() -> TableSchema {
    let up_down = || one_of(&["up", "down"]).opt();
    table(
        "Interface",
        vec![
            c("name", string()).immutable(),
            c("type", string()),
            c("options", strings()),
            c("mac", string().opt()),
            c("ofport", int().opt()),
            c("ofport_request", int_in(1..=65279).opt()),
            c("mtu_request", int_in(1..=i64::MAX).opt()),
            c("error", string().opt()),
            c("ingress_policing_rate", int_in(0..=i64::MAX)),
            c("ingress_policing_burst", int_in(0..=i64::MAX)),
            c("ingress_policing_kpkts_rate", int_in(0..=i64::MAX)),
            c("ingress_policing_kpkts_burst", int_in(0..=i64::MAX)),
            c("bfd", strings()),
            c("lldp", strings()),
            c("cfm_mpid", int().opt()),
            c("cfm_flap_count", int().opt()),
            c("mac_in_use", string().opt()).ephemeral(),
            c("ifindex", int_in(U32).opt()).ephemeral(),
            c("mtu", int().opt()).ephemeral(),
            c("admin_state", up_down()).ephemeral(),
            c("link_state", up_down()).ephemeral(),
            c("link_resets", int().opt()).ephemeral(),
            c("link_speed", int().opt()).ephemeral(),
            c("duplex", one_of(&["half", "full"]).opt()).ephemeral(),
            c("lacp_current", boolean().opt()).ephemeral(),
            c("statistics", counters()).ephemeral(),
            c("status", strings()).ephemeral(),
            c("bfd_status", strings()).ephemeral(),
            c("cfm_fault", boolean().opt()).ephemeral(),
            c("cfm_fault_status", string().set()).ephemeral(),
            c("cfm_health", int_in(0..=100).opt()).ephemeral(),
            c("cfm_remote_mpids", int().set()).ephemeral(),
            c("cfm_remote_opstate", up_down()).ephemeral(),
        ],
    )
    .indexed(&["name"])
}

fn mirror() -> TableSchema {
    table(
        "Mirror",
        vec![
            c("name", string()),
            c("select_all", boolean()),
            c("select_src_port", weakly_to("Port").set()),
            c("select_dst_port", weakly_to("Port").set()),
            c("select_vlan", int_in(VLAN).up_to(4096)),
            c("output_port", weakly_to("Port").opt()),
            c("output_vlan", int_in(1..=4095).opt()),
            c("snaplen", int_in(14..=65535).opt()),
            c("statistics", counters()).ephemeral(),
        ],
    )
}

fn controller() -> TableSchema {
    let mut columns = connection();
    columns.extend([
        c("type", one_of(&["primary", "service"]).opt()),
        c("local_ip", string().opt()),
        c("local_netmask", string().opt()),
        c("local_gateway", string().opt()),
        c("enable_async_messages", boolean().opt()),
        c("controller_queue_size", int_in(1..=512).opt()),
        c("controller_rate_limit", int_in(100..=i64::MAX).opt()),
        c("controller_burst_limit", int_in(25..=i64::MAX).opt()),
        c("role", one_of(&["other", "master", "slave"]).opt()).ephemeral(),
    ]);
    table("Controller", columns)
}

fn manager() -> TableSchema {
    table("Manager", connection()).indexed(&["target"])
}

/// What Controller and Manager have in common.
fn connection() -> Vec<ColumnSchema> {
    vec![
        c("target", string()),
        c("max_backoff", int_in(1000..=i64::MAX).opt()),
        c("inactivity_probe", int().opt()),
        c("connection_mode", one_of(&["in-band", "out-of-band"]).opt()),
        c("is_connected", boolean()).ephemeral(),
        c("status", strings()).ephemeral(),
    ]
}

fn flow_table() -> TableSchema {
    table(
        "Flow_Table",
        vec![
            c("name", string().opt()),
            c("flow_limit", int_in(0..=i64::MAX).opt()),
            c("overflow_policy", one_of(&["refuse", "evict"]).opt()),
            c("groups", string().set()),
            c("prefixes", string().up_to(3)),
        ],
    )
}

fn net_flow() -> TableSchema {
    table(
        "NetFlow",
        vec![
            c("targets", at_least_one(string())),
            c("engine_type", int_in(0..=255).opt()),
            c("engine_id", int_in(0..=255).opt()),
            c("add_id_to_interface", boolean()),
            c("active_timeout", int_in(-1..=i64::MAX)),
        ],
    )
}

fn s_flow() -> TableSchema {
    table(
        "sFlow",
        vec![
            c("targets", at_least_one(string())),
            c("agent", string().opt()),
            c("header", int().opt()),
            c("polling", int().opt()),
            c("sampling", int().opt()),
        ],
    )
}

fn ipfix() -> TableSchema {
    table(
        "IPFIX",
        vec![
            c("targets", string().set()),
            c("sampling", int_in(1..=0xffff_ffff).opt()),
            c("obs_domain_id", int_in(U32).opt()),
            c("obs_point_id", int_in(U32).opt()),
            c("cache_active_timeout", int_in(0..=4200).opt()),
            c("cache_max_flows", int_in(U32).opt()),
        ],
    )
}

fn flow_sample_collector_set() -> TableSchema {
    let columns = vec![c("id", int_in(U32)), c("bridge", to("Bridge")), c("ipfix", to("IPFIX").opt())];
    table("Flow_Sample_Collector_Set", columns).indexed(&["id", "bridge"]).root()
}

fn datapath() -> TableSchema {
    let columns = vec![
        c("datapath_version", string()),
        c("capabilities", strings()),
        c("ct_zones", map(int_in(0..=65535), to("CT_Zone"))),
    ];
    table("Datapath", columns)
}

fn ct_timeout_policy() -> TableSchema {
    let phases = [
        "icmp_first",
        "icmp_reply",
        "tcp_close",
        "tcp_close_wait",
        "tcp_established",
        "tcp_fin_wait",
        "tcp_last_ack",
        "tcp_retransmit",
        "tcp_syn_recv",
        "tcp_syn_sent",
        "tcp_syn_sent2",
        "tcp_time_wait",
        "tcp_unack",
        "udp_first",
        "udp_multiple",
        "udp_single",
    ];
    table("CT_Timeout_Policy", vec![c("timeouts", map(one_of(&phases), int_in(U32)))])
}

fn ssl() -> TableSchema {
    let mut table = table(
        "SSL",
        vec![
            c("private_key", string()),
            c("certificate", string()),
            c("ca_cert", string()),
            c("bootstrap_ca_cert", boolean()),
        ],
    );
    table.max_rows = 1;
    table
}

fn auto_attach() -> TableSchema {
    table(
        "AutoAttach",
        vec![
            c("system_name", string()),
            c("system_description", string()),
            c("mappings", map(int_in(0..=0xff_ffff), int_in(VLAN))),
        ],
    )
}

/// Every table has external_ids but one, and these have other_config besides.
const WITHOUT_EXTERNAL_IDS: &[&str] = &["AutoAttach"];
const WITH_OTHER_CONFIG: &[&str] =
    &["Open_vSwitch", "Bridge", "Port", "Interface", "Controller", "Manager", "IPFIX", "QoS", "Queue"];

fn table(name: &str, mut columns: Vec<ColumnSchema>) -> TableSchema {
    if !WITHOUT_EXTERNAL_IDS.contains(&name) {
        columns.push(c("external_ids", strings()));
    }
    if WITH_OTHER_CONFIG.contains(&name) {
        columns.push(c("other_config", strings()));
    }
    TableSchema::new(name, columns)
}

impl TableSchema {
    fn root(mut self) -> TableSchema {
        self.is_root = true;
        self
    }
}

fn c(name: &str, column_type: ColumnType) -> ColumnSchema {
    ColumnSchema { name: name.to_owned(), column_type, ephemeral: false, mutable: true }
}

impl ColumnSchema {
    fn ephemeral(mut self) -> ColumnSchema {
        self.ephemeral = true;
        self
    }
    fn immutable(mut self) -> ColumnSchema {
        self.mutable = false;
        self
    }
}

impl ColumnType {
    fn opt(self) -> ColumnType {
        self.up_to(1)
    }
    fn set(self) -> ColumnType {
        self.up_to(u32::MAX)
    }
    fn up_to(mut self, max: u32) -> ColumnType {
        self.min = 0;
        self.max = max;
        self
    }
}

fn at_least_one(column_type: ColumnType) -> ColumnType {
    ColumnType { min: 1, ..column_type.set() }
}

fn map(key: ColumnType, value: ColumnType) -> ColumnType {
    ColumnType { value: Some(value.key), ..key.set() }
}

/// The map string to string that holds options and the like.
fn strings() -> ColumnType {
    map(string(), string())
}

fn counters() -> ColumnType {
    map(string(), int())
}

fn string() -> ColumnType {
    ColumnType::scalar(AtomType::String)
}

fn boolean() -> ColumnType {
    ColumnType::scalar(AtomType::Boolean)
}

fn int() -> ColumnType {
    ColumnType::scalar(AtomType::Integer)
}

fn int_in(range: std::ops::RangeInclusive<i64>) -> ColumnType {
    let mut column_type = int();
    column_type.key.range = Range::Integer { min: *range.start(), max: *range.end() };
    column_type
}

fn one_of(choices: &[&str]) -> ColumnType {
    let mut column_type = string();
    column_type.key.choices = choices.iter().map(|choice| Atom::from(*choice)).collect();
    column_type.key.choices.sort_unstable();
    column_type
}

fn to(table: &str) -> ColumnType {
    reference(table, true)
}

fn weakly_to(table: &str) -> ColumnType {
    reference(table, false)
}

fn reference(table: &str, strong: bool) -> ColumnType {
    let mut key = BaseType::new(AtomType::Uuid);
    key.range = Range::Uuid(Some(Reference { table: table.to_owned(), strong }));
    ColumnType { key, value: None, min: 1, max: 1 }
}

#[cfg(test)]
mod tests {
    use super::schema;
    use crate::schema::Schema;

    #[test]
    fn has_every_table_and_survives_its_own_json() {
        let schema = schema();
        assert_eq!(schema.tables.len(), 19);
        assert_eq!(Schema::from_json(&schema.to_json()), Ok(schema));
    }

    /// Where Open vSwitch is installed, its own schema file says whether ours means the same.
    #[test]
    fn equals_the_installed_schema() {
        let file = "/usr/share/openvswitch/vswitch.ovsschema";
        let Ok(text) = std::fs::read_to_string(file) else {
            eprintln!("skipped: {file} is not there (install openvswitch-switch to run this test)");
            return;
        };
        let theirs = Schema::from_json(&serde_json::from_str(&text).unwrap()).unwrap();
        if theirs.version != schema().version {
            eprintln!("skipped: {file} has version {}, not {}", theirs.version, schema().version);
            return;
        }
        for (name, table) in &theirs.tables {
            assert_eq!(schema().table(name), Some(table), "table {name}");
        }
        assert_eq!(theirs, schema());
    }
}
