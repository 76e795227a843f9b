//! The command lines to compare. Each script starts on a fresh database.

/// Run with `--no-wait` and no switch.
pub const DATABASE: &[(&str, &str)] = &[
    (
        "the command line itself",
        r#"
        --version
        -V foo
        --foo
        --no
        -z
        -t
        --timeout
        --timeout=x list-br
        --timeout=0 list-br
        --timeout=-1 list-br
        -t list-br
        -t5 list-br
        --time=5 list-br
        --no-headings=3 list-br
        --oneline --no-headings list-br
        -f foo list port
        -d foo list port
        -f
        -vfoo list-br
        --verbose=foo:console list-br
        -vwarn list-br
        --verbose=vsctl:console:warn list-br
        -v:warn list-br
        --no-syslog list-br
        --log-file=/dev/null list-br

        --
        -- --
        foo
        list
        list-br foo
        list-br --foo
        list-br -- foo
        list-br --
        list-br -- -- list-br
        -- -- list-br
        -x list-br
        -- -x list-br
        --may-exist list-br
        -- --may-exist list-br
        --may-exist
        -- --may-exist
        --if-exists --if-exists del-br foo
        -- --if-exists --if-exists del-br foo
        --if-exists=3 del-br foo
        -- --if-exists=3 del-br foo
        --columns
        -- --columns list port
        -- --columns=name --foo list port
        --id=@x list-br
        -- --id create qos
        add-br
        add-br a b c d
        add-br --may-exist br0
        add-port br0
        del-port
        set port p0
        get port
        clear port p0
        remove port p0 tag
        create qos
        init x
        init
        comment
        comment a 'b c' "d
        --oneline comment a -- list-br
        --dry-run list-br
        -- list-br
        --columns=name list bridge -- list-br
        --col=name list bridge
        --db=unix:/nonexistent/db.sock list-br
        --db=unix:nonexistent list-br
        --db=unix:db.sock list-br
        --db=foo list-br
        --db=foo:bar list-br
        --db=tcp:127.0.0.1:1 list-br
        --db=unix:/nonexistent/db.sock list foo
        --db=unix:/nonexistent/db.sock list bridge nosuch
        "#,
    ),
    (
        "bridges",
        r#"
        list-br
        add-br br0
        list-br
        br-exists br0
        br-exists br1
        add-br br0
        --may-exist add-br br0
        add-br ''
        add-br br1 -- add-br br2
        list-br
        --oneline list-br -- br-to-vlan br0
        br-to-vlan br0
        br-to-vlan nosuch
        br-to-parent br0
        br-to-parent nosuch
        br-set-external-id br0 key value
        br-set-external-id br0 other 'a value'
        br-get-external-id br0
        br-get-external-id br0 key
        br-get-external-id br0 nosuch
        br-set-external-id br0 key new
        br-get-external-id br0 key
        br-set-external-id br0 key
        br-set-external-id br0 nosuch
        br-get-external-id br0
        br-get-external-id nosuch
        br-set-external-id nosuch a b
        del-br br1
        del-br br1
        --if-exists del-br br1
        del-br br2 -- list-br
        add-br a -- add-br b -- del-br a -- list-br
        add-br c -- nosuch
        add-br c -- add-br c
        list-br
        del-br br0 -- add-br br0 -- br-get-external-id br0 -- list-br
        del-br br0 -- del-br b
        list-br
        "#,
    ),
    (
        "VLAN bridges",
        r#"
        add-br br0
        add-br v5 br0 5
        add-br v5 br0 6
        add-br v6 br0 5
        add-br v6 br0
        add-br v6 nosuch 6
        add-br v6 br0 4096
        add-br v6 br0 -1
        add-br v6 v5 6
        add-br '' br0 4096
        add-br v0 br0 x
        --may-exist add-br v5 br0 5
        --may-exist add-br v5 br0 6
        --may-exist add-br v5 other 5
        --may-exist add-br v5
        --may-exist add-br br0 v5 6
        --may-exist add-br br0
        list-br
        --real list-br
        --fake list-br
        -- --real --fake list-br
        br-to-vlan v5
        br-to-parent v5
        add-port v5 p5
        add-port br0 p0
        add-port br0 q5 tag=5
        list-ports br0
        list-ports v5
        list-ifaces br0
        list-ifaces v5
        port-to-br p5
        port-to-br q5
        iface-to-br p5
        get port p5 tag
        --may-exist add-port br0 p5
        del-port br0 p5
        del-port v5 p0
        br-set-external-id v5 a b
        br-get-external-id v5
        br-get-external-id v5 a
        get port v5 external_ids
        br-set-external-id v5 a
        br-get-external-id v5
        get-fail-mode v5
        set-fail-mode v5 secure
        set-controller v5 tcp:127.0.0.1:6653
        get-controller v5
        del-controller v5
        del-port v5 v5
        del-br v5
        list-ports br0
        list-br
        add-br w7 br0 7 -- add-port w7 p7
        del-br br0
        list-br
        "#,
    ),
    (
        "ports",
        r#"
        add-br br0
        add-br br1
        add-port br0 p0
        add-port br0 p0
        add-port br1 p0
        add-port nosuch p0
        add-port nosuch p1
        add-port br0 br0
        add-port br0 br1
        add-br p0
        add-port br0 ''
        add-port br0 p1 tag=5 trunks=1,2,5-7
        add-port br0 p2 foo
        add-port br0 p2 foo=1
        add-port br0 p2 tag=5 trunks:3=1
        add-port br0 p2 tag
        add-port br0 p2 =5
        add-port br0 p2 tag=
        add-port br0 p2 tag=5000
        add-port br0 p2 name=other
        --may-exist add-port br0 p0
        --may-exist add-port br0 p0 tag=7
        --may-exist add-port br1 p0
        --may-exist add-port br0 br0
        --may-exist add-port br0 br1
        --may-exist add-port nosuch p0
        list-ports br0
        list-ports nosuch
        list-ifaces br0
        list-ifaces nosuch
        port-to-br p0
        port-to-br nosuch
        port-to-br br0
        iface-to-br p0
        iface-to-br nosuch
        iface-to-br br0
        add-port br0 gre0 -- set interface gre0 type=gre options:remote_ip=192.0.2.1 options:key=5
        get interface gre0 type options options:remote_ip options:key
        add-port br0 x1 -- set interface x1 options:a=b -- get interface x1 options type
        add-port br0 1x -- add-port br0 br-int.5 -- add-port br0 true
        list-ports br0
        get port 1x name
        get port true name
        get port br-int.5 name
        del-port br1 p0
        del-port nosuch p0
        del-port nosuch nosuch
        del-port br0 nosuch
        del-port nosuch
        del-port br0
        del-port br0 br0
        del-port br1 br0
        --if-exists del-port nosuch
        --if-exists del-port br0 nosuch
        --if-exists del-port nosuch nosuch
        --if-exists del-port br1 p0
        --if-exists del-port br0
        --if-exists del-port br0 br0
        -- --with-iface del-port nosuch
        -- --if-exists --with-iface del-port nosuch
        -- --with-iface del-port br0
        -- --with-iface del-port x1
        del-port br0 p0
        del-port p1
        del-port gre0 -- add-port br1 gre0 -- list-ports br1
        list-ports br0
        add-port br0 n1 -- del-port n1 -- list-ports br0
        "#,
    ),
    (
        "bonds",
        r#"
        add-br br0
        add-bond br0 bond0 b1
        add-bond br0 bond0 b1 lacp=active
        add-bond br0 bond0 b1 b2 lacp=active bond_mode=balance-slb
        add-bond br0 bond0 b1 b2
        add-bond br0 bond1 b1 b3
        add-bond br0 bond1 b3 b4 foo=1
        add-bond br0 bond1 b3 ''
        add-bond nosuch bond1 b3 b4
        --may-exist add-bond br0 bond0 b2 b1
        --may-exist add-bond br0 bond0 b1 b3
        --may-exist add-bond br0 bond0 b1 b2 b3
        --fake-iface add-bond br0 bond1 c1 c2
        get port bond0 lacp bond_mode
        get port bond1 bond_fake_iface
        list-ports br0
        list-ifaces br0
        iface-to-br b1
        add-port br0 b1
        add-br b1
        add-bond-iface bond0 b3
        add-bond-iface bond0 b3
        add-bond-iface nosuch b4
        --may-exist add-bond-iface bond0 b3
        --may-exist add-bond-iface bond0 c1
        --may-exist add-port br0 bond0
        del-bond-iface bond0 b3
        del-bond-iface b2
        del-bond-iface b1
        del-bond-iface bond0 c1
        del-bond-iface nosuch b1
        del-bond-iface nosuch
        --if-exists del-bond-iface nosuch
        --if-exists del-bond-iface bond0 nosuch
        del-port c1
        -- --with-iface del-port c1
        ~ show
        "#,
    ),
    (
        "reading columns",
        r#"
        add-br br0 -- add-port br0 p0 tag=5 trunks=1,2,5-7 -- set interface p0 type=gre options:remote_ip=192.0.2.1
        set interface p0 external_ids:dot=a.b-c_d external_ids:n=5 external_ids:t=true 'external_ids:"x y"="q\"r"'
        set interface p0 external_ids:sl=a/b 'external_ids:é=ü' 'external_ids:nl="a\nb"' 'external_ids:html="<&>"'
        set interface p0 external_ids:uuid=424f63c4-b7da-4486-9c98-5aa09f14079f 'external_ids:empty=""'
        set interface p0 external_ids:beef=deadbeef external_ids:deadbee=a1b2c3d4e5f6 external_ids:bee=deadbeef-12
        set interface p0 external_ids:longer=424f63c4-b7da-4486-9c98-5aa09f14079fxx external_ids:x=deadbeefx
        get port p0 tag trunks name interfaces vlan_mode external_ids _uuid
        get interface p0 external_ids
        get interface p0 external_ids:dot external_ids:n external_ids:t external_ids:nl external_ids:empty
        get interface p0 'external_ids:"x y"'
        get interface p0 external_ids:nosuch
        get interface p0 'external_ids:"nosuch"'
        --if-exists get interface p0 external_ids:nosuch name
        --if-exists get interface nosuch name
        get interface nosuch name
        get interface nosuch
        get interface p0
        get interface p0 foo
        get interface p0 o
        get interface p0 opt
        get interface p0 OPTIONS
        get interface p0 external-ids:dot
        get interface p0 name:x
        get interface p0 external_ids:x:y
        get interface p0 'external_ids:"x"y'
        get interface p0 'external_ids:"x'
        get interface p0 external_ids:
        get interface p0 =
        get interface p0 name=
        get interface p0 ''
        get interface p0 _uuid
        get interface p0 _UUID
        get interface p0 _uui
        get int p0 name
        get i p0 name
        get foo p0 name
        get '' p0 name
        get INTERFACE p0 name
        get open . bridges
        get open-vswitch . next_cfg
        get bridge . name
        get port . name
        get ssl . private_key
        get bridge br name
        get qos p0 type
        get controller br0 target
        get netflow br0 targets
        get sflow nosuch targets
        list manager ptcp:6640
        list queue nosuch
        list queue
        list ssl
        get port 00000000-0000-0000-0000-000000000000 name
        get port 0000 name
        get port 000 name
        list port p0
        list interface p0
        list bridge br0
        list open .
        list open
        --columns=name,tag list port p0
        --columns=tag,name,tag list port p0
        '--columns=name trunks' list port p0
        --columns=_uuid,name list port p0
        --columns=name,foo list port p0
        --columns= list port p0
        --columns=, list port p0
        --columns=external_ids:dot list interface p0
        --columns=external_ids,name list interface p0 br0
        --columns=name list interface p0 nosuch
        -- --if-exists --columns=name list interface p0 nosuch br0
        -f table --columns=name,type,options list interface p0 br0
        -f table --columns=external_ids,name list interface p0 br0
        -f csv --columns=name,external_ids,options list interface p0 br0
        -f json --columns=name,external_ids,options,ofport list interface p0 br0
        -f html --columns=_uuid,name,external_ids,options list interface p0 br0
        -f html --columns=name,interfaces list port p0
        -f list --columns=name,options list interface p0 br0
        -d bare --columns=name,external_ids,options,ofport list interface p0
        -d json --columns=name,external_ids,options,ofport list interface p0
        -d string --columns=name,options list interface p0
        -f table -d bare --columns=name,trunks,vlan_mode list port p0 br0
        -f table -d json --columns=name,trunks,vlan_mode list port p0 br0
        -f csv -d json --columns=name,trunks,vlan_mode list port p0 br0
        -f csv -d bare --columns=name,trunks,vlan_mode list port p0 br0
        -f html -d bare --columns=name,trunks,vlan_mode list port p0 br0
        --bare --columns=name,trunks,vlan_mode list port p0 br0
        --bare get port p0 trunks
        -f table --max-column-width=10 --columns=external_ids,name,type list interface p0
        -f table --max-column-width=3 --columns=type,name list interface p0
        --no-headings -f table --columns=name,options list interface p0 br0
        --no-headings -f csv --columns=name,options list interface p0 br0
        --no-headings -f list --columns=name,options list interface p0 br0
        --no-headings -f html --columns=name,options list interface p0 br0
        --no-headings -f json --columns=name,options list interface p0 br0
        --pretty -f json --columns=name,trunks,external_ids list port p0
        --pretty -d json --columns=name,trunks list port p0
        --pretty -f json --columns=name find port name=nosuch
        -f table --columns=name find bridge name=nosuch
        -f csv --columns=name find bridge name=nosuch
        -f json --columns=name find bridge name=nosuch
        -f html --columns=name find bridge name=nosuch
        -f list --columns=name find bridge name=nosuch
        -f table --columns=name list bridge br0 -- list-br -- --columns=name list port br0
        -f csv --columns=name list bridge br0 -- list-br -- --columns=name list port br0
        -f json --columns=name list bridge br0 -- list-br -- --columns=name list port br0
        -f html --columns=name list bridge br0 -- list-br -- --columns=name list port br0
        -f list --columns=name list bridge br0 -- list-br -- --columns=name list port br0
        --columns=name find bridge name=nosuch -- --columns=name list bridge
        --oneline get port p0 tag name -- list-br -- --columns=name list port p0 -- get interface p0 external_ids:nl
        ~ --columns=name list port
        ~ -f table --columns=name list port
        "#,
    ),
    (
        "finding rows",
        r#"
        add-br br0 -- add-port br0 p0 tag=7 trunks=1,2,5-7 -- add-port br0 p1 -- set port p0 external_ids:a=b external_ids:c=d
        --columns=name find port name=p0
        --columns=name find port name=p0 tag=7
        --columns=name find port name=p0 tag=8
        --columns=name find port name!=p0 name!=br0
        ~ --columns=name find port
        ~ --columns=name find port 'tag>3'
        ~ --columns=name find port 'tag<3'
        ~ --columns=name find port 'tag>=7'
        ~ --columns=name find port 'tag<=7'
        ~ --columns=name find port 'tag!=7'
        ~ --columns=name find port 'tag=[]'
        ~ --columns=name find port 'tag!=[]'
        ~ --columns=name find port 'name>p'
        ~ --columns=name find port 'tag{=}7'
        ~ --columns=name find port 'tag{!=}7'
        ~ --columns=name find port 'trunks{<=}1,2,5-8'
        ~ --columns=name find port 'trunks{<}1,2,5-7'
        ~ --columns=name find port 'trunks{<}1,2,5-8'
        ~ --columns=name find port 'trunks{>}1'
        ~ --columns=name find port 'trunks{>=}1'
        ~ --columns=name find port 'trunks{>=}1,2,5-7'
        ~ --columns=name find port 'trunks{in}1,2'
        ~ --columns=name find port 'trunks{not-in}9'
        ~ --columns=name find port 'trunks{not-in}1,9'
        ~ --columns=name find port 'trunks<1,2,5-8'
        ~ --columns=name find port 'trunks<1,2,5,6,8'
        ~ --columns=name find port external_ids:a=b
        ~ --columns=name find port external_ids:a!=c
        ~ --columns=name find port 'external_ids:a<c'
        ~ --columns=name find port 'external_ids:a{=}[]'
        ~ --columns=name find port 'external_ids:a=[]'
        ~ --columns=name find port 'external_ids:a{!=}c'
        ~ --columns=name find port 'external_ids:a{in}b,c'
        ~ --columns=name find port 'external_ids:a{not-in}b,c'
        ~ --columns=name find port 'external_ids{>=}a=b'
        ~ --columns=name find port 'external_ids{<=}a=b,c=d,e=f'
        ~ --columns=name find port external_ids={}
        ~ --columns=name find port external_ids=a=b
        ~ --columns=name find port 'external_ids>a=b'
        ~ --columns=name find port 'external_ids<a=b,c=e'
        ~ --columns=name find port 'interfaces!=[]'
        ~ --columns=name find port bond_fake_iface=false
        --columns=name find port interfaces=@x
        --columns=name find port interfaces=x
        --columns=name find port 'tag{foo}9'
        --columns=name find port tag
        --columns=name find port tag:
        --columns=name find port tag=
        --columns=name find port tag=foo
        --columns=name find port tag=5000
        --columns=name find port tag=1,2
        --columns=name find port 'tag{<}1,2'
        --columns=name find port tag:x=foo
        --columns=name find port foo=foo
        --columns=name find port =foo
        --columns=name find port _uuid=foo
        --columns=name find port external_ids:a=x=y
        --columns=name find port 'external_ids:a={x'
        --columns=name find port 'external_ids{>=}a'
        --columns=foo find port name=p0
        find foo name=p0
        wait-until port p0
        wait-until port p0 tag=7 external_ids:a=b -- get port p0 name
        wait-until port p0 tag
        wait-until port p0 foo=x
        wait-until foo p0
        --timeout=1 wait-until port nosuch
        -t 1 wait-until port p0 tag=8 -- list-br
        "#,
    ),
    (
        "setting columns",
        r#"
        add-br br0 -- add-port br0 p0
        set port p0 tag=5
        set port p0 tag=5
        set port p0 tag=6 -- get port p0 tag
        set port p0 tag=[] -- get port p0 tag
        set port p0 tag=[7] -- get port p0 tag
        set port p0 'tag= 8 ' -- get port p0 tag
        set port p0 tag=5000
        set port p0 tag=-1
        set port p0 tag=x
        set port p0 tag=
        set port p0 tag
        set port p0 tag=1,2
        set port p0 tag=1-2
        set port p0 tag={1}
        set port p0 tag=5.0
        set port p0 tag=0x10
        set port p0 tag=+9 -- get port p0 tag
        set port p0 tag=99999999999999999999
        set port p0 tag:a=x
        set port p0 foo=1
        set port p0 t=1
        set port p0 =x
        set port p0 name=x
        set port p0 na=x
        set port nosuch tag=1
        set port nosuch name=x
        set port nosuch tag
        set port nosuch foo
        set foo p0 tag=1
        set port . tag=1
        --if-exists set port nosuch tag=x
        --if-exists set port nosuch foo=x
        set port p0 trunks=1,2,3 -- get port p0 trunks
        set port p0 'trunks=[3 1 2]' -- get port p0 trunks
        set port p0 'trunks=[ 3 , 1 ]' -- get port p0 trunks
        set port p0 trunks=5-7,1 -- get port p0 trunks
        set port p0 trunks=0-4095 -- get port p0 name
        set port p0 trunks=[] -- get port p0 trunks
        set port p0 trunks=1,1
        set port p0 trunks=1-3,2
        set port p0 trunks=1-5000
        set port p0 trunks=5-1
        set port p0 trunks=1-
        set port p0 trunks=1-2-3
        set port p0 trunks=-1-2
        set port p0 'trunks=1 x'
        set port p0 trunks=[1
        set port p0 trunks=1]
        set port p0 trunks=[1]]
        set port p0 trunks=[1]2
        set port p0 trunks={1}
        set port p0 trunks=1=2
        set port p0 trunks=1:2
        set port p0 'trunks= '
        set port p0 trunks=1, -- get port p0 trunks
        set port p0 trunks=,1
        set port p0 vlan_mode=trunk -- get port p0 vlan_mode
        set port p0 vlan_mode=foo
        set port p0 'vlan_mode="access"' -- get port p0 vlan_mode
        set port p0 bond_updelay=[]
        set port p0 bond_updelay=1,2
        set port p0 bond_updelay=-3 -- get port p0 bond_updelay
        set port p0 bond_fake_iface=TRUE
        set port p0 bond_fake_iface=yes -- get port p0 bond_fake_iface
        set port p0 bond_fake_iface=off -- get port p0 bond_fake_iface
        set port p0 interfaces=[]
        set port p0 interfaces=abc
        set port p0 interfaces=00000000-0000-0000-0000-000000000001
        set port p0 qos=@x
        set bridge br0 stp_enable=maybe
        set bridge br0 stp_enable=true other_config:hwaddr=00:11:22:33:44:55 fail_mode=secure
        set bridge br0 protocols=OpenFlow10,OpenFlow13 -- get bridge br0 protocols
        set bridge br0 protocols=OpenFlow99
        set bridge br0 flood_vlans=1-4 -- get bridge br0 flood_vlans
        set interface p0 ofport_request=0
        set interface p0 ofport_request=65280
        set interface p0 mtu_request=0
        set interface p0 ingress_policing_rate=-1
        set interface p0 type=
        set interface p0 type=[]
        set interface p0 'type=""'
        set interface p0 type=gre options:remote_ip=192.0.2.1 -- get interface p0 type options
        set interface p0 options:remote_ip=192.0.2.1
        set interface p0 options:remote_ip=192.0.2.2 options:key=flow -- get interface p0 options
        set interface p0 options={} -- get interface p0 options
        set interface p0 options=a=b,c=d -- get interface p0 options
        set interface p0 'options={a=b, c="d e"}' -- get interface p0 options
        set interface p0 'options=a =  b' -- get interface p0 options
        set interface p0 'options={a=b} ' -- get interface p0 options
        set interface p0 'options={a=b,}' -- get interface p0 options
        set interface p0 options=a
        set interface p0 options=a,b=c
        set interface p0 options=a=
        set interface p0 options==a
        set interface p0 options=a=b=c
        set interface p0 options=a=b,a=c
        set interface p0 options=,a=b
        set interface p0 options={a=b
        set interface p0 options={a=b]
        set interface p0 options={a=b}x
        set interface p0 options=[a=b]
        set interface p0 options=
        set interface p0 options:remote_ip
        set interface p0 options:remote_ip=
        set interface p0 options:=x
        set interface p0 options:a:b=c
        set interface p0 'options:a=b c' 'options:d={e' 'options:f=g\' -- get interface p0 options
        set interface p0 'options:a="b'
        set interface p0 'options:"a=b'
        set interface p0 'options:a="b"c'
        set interface p0 'options:a="b"c"'
        set interface p0 'options:a="b\"'
        set interface p0 'options:a="b\x"'
        set interface p0 'options:a="b\u12"'
        set interface p0 'options:a="\u00e9\/\t\b\f\n\r\\"' -- get interface p0 options:a
        set interface p0 'options:a="\ud83d\ude00"' -- get interface p0 options:a
        set interface p0 'options:a="\u0000"'
        set interface p0 'options:a="\ud83d"'
        set interface p0 'options:a="\u00zz"'
        set interface p0 'options="a b"="c d"' -- get interface p0 options
        set interface p0 'options=a="b'
        set interface p0 'options=a="b\'
        set open . external-ids:a=b other_config:c=d -- get open . external_ids other_config
        set open . foo=bar
        set open x external_ids:a=b
        set open_vswitch . ovs_version=5 -- get open . ovs_version
        "#,
    ),
    (
        "adding, removing, clearing",
        r#"
        add-br br0 -- add-port br0 p0 trunks=1,2,3 -- set port p0 external_ids:a=b external_ids:c=d
        add port p0 trunks 7 -- get port p0 trunks
        add port p0 trunks 7 8 9-11 -- get port p0 trunks
        add port p0 trunks 1,20 [21] -- get port p0 trunks
        add port p0 trunks x
        add port p0 trunks ''
        add port p0 trunks []
        add port p0 trunks 5000
        add port p0 tag 5 -- get port p0 tag
        add port p0 tag 6
        add port p0 bond_updelay 5
        add port p0 name x
        add port p0 foo x
        add port nosuch trunks 1
        --if-exists add port nosuch trunks 1
        add port p0 external_ids e=f -- get port p0 external_ids
        add port p0 external_ids e=g -- get port p0 external_ids
        add port p0 external_ids x
        add port p0 external_ids g=h,i=j k=l -- get port p0 external_ids
        remove port p0 trunks 7 -- get port p0 trunks
        remove port p0 trunks 8,9 10 -- get port p0 trunks
        remove port p0 trunks 99 -- get port p0 trunks
        remove port p0 trunks x
        remove port p0 trunks ''
        remove port p0 trunks []
        remove port p0 external_ids a -- get port p0 external_ids
        remove port p0 external_ids c=x -- get port p0 external_ids
        remove port p0 external_ids c=d -- get port p0 external_ids
        remove port p0 external_ids e g -- get port p0 external_ids
        remove port p0 external_ids x=
        remove port p0 external_ids ''
        remove port p0 external_ids {}
        remove port p0 name x
        remove port p0 foo x
        remove port nosuch trunks 1
        --if-exists remove port nosuch trunks 1
        remove port p0 bond_updelay 5
        remove port p0 bond_updelay 0
        clear port p0 trunks tag -- get port p0 trunks tag
        clear port p0 external_ids -- get port p0 external_ids
        clear port p0 name
        clear port p0 foo
        clear port p0 interfaces
        clear port p0 bond_updelay
        clear port nosuch tag
        --if-exists clear port nosuch tag
        clear bridge br0 ports -- list-ports br0
        ~ list-br
        "#,
    ),
    (
        "rows of one's own",
        r#"
        add-br br0 -- add-port br0 p0 -- add-port br0 p1
        create qos type=linux-htb
        create qos type=linux-htb other_config:max-rate=5
        create queue dscp=64
        create queue dscp=6
        create qos foo=1
        create qos type
        create foo type=x
        create bridge name=x
        -- --id=@b create bridge name=x
        -- --id=b create qos type=x
        -- --id=@q create qos type=x -- --id=@q create qos type=y
        -- --id=@q create qos type=linux-htb queues:0=@r -- --id=@r create queue other_config:min-rate=1 -- set port p0 qos=@q
        get qos p0 type
        get qos p1 type
        set qos p0 type=linux-hfsc -- get qos p0 type
        set port p1 qos=@nosuch
        -- --id=@p get port p0 -- --id=@m create mirror name=m output_port=@p select_all=true -- set bridge br0 mirrors=@m
        get mirror m select_all
        -- --id=@m create mirror name=n
        -- --id=@x get port p0 -- --id=@x get port p1
        -- --id=x get port p0
        -- --id=@x get port nosuch
        -- set bridge br0 mirrors=@m -- --id=@m get mirror m
        -- --if-exists --id=@x get port p0
        -- --id=@rec get mirror m -- remove bridge br0 mirrors @rec
        list mirror
        -- --id=12345678-1234-1234-1234-123456789abc create qos type=fixed
        get qos 12345678-1234-1234-1234-123456789abc type
        get qos 12345678 type
        get qos 1234 type
        get qos 123 type
        get qos 12345678-1234-1234-1234-1 type
        -- --id=1234ffff-1234-1234-1234-123456789abc create qos type=other
        get qos 1234 type
        get qos 12345 type
        -- --id=12345678-1234-1234-1234-123456789abc create qos type=again
        destroy qos 12345678
        destroy qos nosuch
        destroy qos
        --if-exists destroy qos nosuch
        -- --all destroy qos x
        -- --all --if-exists destroy qos
        destroy qos p0
        clear port p0 qos
        -- --all destroy qos
        -- --all destroy queue
        destroy bridge br0
        destroy port p0 -- list-ports br0
        list-br
        "#,
    ),
    (
        "controllers, managers, TLS",
        r#"
        add-br br0
        get-controller br0
        get-controller nosuch
        set-controller br0 tcp:192.0.2.1:6653 foo
        get-controller br0
        set-controller br0 tcp:192.0.2.1
        get controller br0 target
        --inactivity-probe=500 set-controller br0 tcp:192.0.2.2
        get controller br0 inactivity_probe
        -- --inactivity-probe=x set-controller br0 tcp:192.0.2.2
        get controller br0 inactivity_probe
        show
        set-controller nosuch tcp:192.0.2.1
        set-controller br0
        get-controller br0
        del-controller br0
        del-controller nosuch
        get-fail-mode br0
        set-fail-mode br0 foo
        set-fail-mode br0 secure
        get-fail-mode br0
        get-fail-mode nosuch
        set-fail-mode nosuch secure
        del-fail-mode br0
        del-fail-mode nosuch
        get-manager
        set-manager ptcp:6640:127.0.0.1 foo:bar
        get-manager
        set-manager ptcp:6640:127.0.0.1
        --inactivity-probe=5 set-manager ptcp:6640:127.0.0.1
        list manager ptcp:6640:127.0.0.1
        set manager ptcp:6640:127.0.0.1 is_connected=true
        show
        del-manager
        get-manager
        get-ssl
        set-ssl key cert ca
        get-ssl
        -- --bootstrap set-ssl key cert ca
        get-ssl
        get ssl . ca_cert
        del-ssl
        get-ssl
        set-controller br0 tcp:192.0.2.1 -- set-fail-mode br0 secure -- set bridge br0 other_config:hwaddr=00:00:00:00:00:01
        set bridge br0 other_config:x=y -- set port br0 other_config:a=b -- set interface br0 ingress_policing_rate=5
        emer-reset
        show
        "#,
    ),
    (
        "overview",
        r#"
        show
        add-br br0 -- show
        show
        set bridge br0 datapath_type=netdev fail_mode=secure
        set port br0 tag=5 trunks=1,2
        set interface br0 'error="no such thing"' bfd_status:state=up 'options:key="a b"'
        set-controller br0 tcp:192.0.2.1
        set-manager ptcp:6640
        set open . ovs_version=1.2.3
        show
        set controller br0 is_connected=true
        show
        set open . ovs_version=x -- show
        --oneline show
        -f json show
        ~ add-br br-int -- show -- del-br br-int
        del-br br0 -- show
        add-br 1st -- show
        ~ add-br a1 -- add-port a1 p1 -- show
        "#,
    ),
];

/// Run without `--no-wait`, with a switch that answers.
pub const SWITCH: &[(&str, &str)] = &[(
    "waiting for the switch",
    r#"
    -- list-br
    -- -x list-br
    -- --may-exist list-br
    --version
    add-br br0 -- set bridge br0 datapath_type=netdev
    get interface br0 ofport error
    add-br br9 -- set bridge br9 datapath_type=nosuch
    del-br br9
    add-port br0 nosuch
    get interface nosuch ofport error
    add-port br0 gre0 -- set interface gre0 type=gre options:remote_ip=192.0.2.1
    get interface gre0 error type
    --may-exist add-port br0 gre0
    add-port br0 int0 -- set interface int0 type=internal
    add-port br0 a1 -- add-port br0 a2 -- add-port br0 int1 -- set interface int1 type=internal
    add-br v5 br0 5
    add-bond br0 bond0 e1 e2
    set port int0 tag=5
    set port int0 tag=5
    clear port int0 tag
    comment nothing
    wait-until interface int0 ofport!=[] -- get interface int0 error
    wait-until interface int0 'ofport>0'
    --no-wait add-port br0 later
    del-port later
    --timeout=20 set bridge br0 other_config:mac-aging-time=60
    -t 1 wait-until interface int0 ofport=-1
    del-port nosuch -- del-port gre0
    del-br br0
    show
    "#,
)];

/// For ovs-appctl, asking an ovsdb-server.
pub const APPCTL: &str = "
    version
    -t ovsdb-server version
    -tovsdb-server ovsdb-server/list-dbs
    --target=ovsdb-server --timeout=20 ovsdb-server/sync-status
    --targ=ovsdb-server vlog/list-pattern
    -t ovsdb-server -T 20 -- version
    -t SOCKET version
    -t SOCKET nosuch/command
    -t SOCKET version extra
    -t SOCKET version --extra
    -t SOCKET vlog/set nonsense
    -t SOCKET vlog/set
    -t SOCKET ovsdb-server/get-db-storage-status nosuch
    -t ovsdb-server nosuch/command
    -t stale version
    -t garbage version
    -t nosuch version
    -t ./SOCKET version
    -t /nonexistent/x.ctl version
    -t /dev/null version
    -t
    -T
    -T 0 version
    -T x version
    -x
    --foo
    --version
    -V version
    -vnonsense version
    -t ovsdb-server -vwarn version
";
