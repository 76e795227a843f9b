//! strongSwan: its IKE on a host; with the kernel's ESP in a guest.

use std::fmt;
use std::process::{Child, Stdio};

use crate::cli::{Out, poll};
use crate::guest::Guest;
use crate::interop::{Auth, Connection, Peer};
use crate::topology::{Host, Shell};

/// A running charon. It ends when dropped, or with its guest.
pub struct Charon<'a> {
    at: &'a dyn Shell,
    dir: String,
    daemon: Option<Child>,
}

impl fmt::Debug for Charon<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Charon").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// Its settings: the plugins that it needs, a log, and a socket for `swanctl`. The kernel's SAs carry the connection's
/// protocol in their selectors.
const SETTINGS: &str = "charon-systemd {
  load = random nonce openssl curve25519 aes sha1 sha2 hmac kdf gcm drbg pem pkcs1 pkcs8 x509 pubkey revocation constraints kernel-netlink socket-default vici
  install_routes = no
  filelog {
    file {
      path = DIR/log
      default = 1
      flush_line = yes
      time_format = %T
      time_add_ms = yes
    }
  }
  plugins {
    vici {
      socket = unix://DIR/vici
    }
    kernel-netlink {
      set_proto_port_transport_sa = yes
    }
  }
}
swanctl {
  load = random openssl pem pkcs1 pkcs8 x509 pubkey sha1 sha2 curve25519
}
";

impl<'a> Charon<'a> {
    /// On a host. Where its kernel has no ESP, IKE SAs come up and child SAs do not.
    #[track_caller]
    pub fn native(host: &'a Host) -> Charon<'a> {
        let dir = host.rundir().join("charon").to_str().expect("a path in UTF-8").to_owned();
        host.put(&format!("{dir}/strongswan.conf"), &SETTINGS.replace("DIR", &dir));
        let out = std::fs::File::create(format!("{dir}/out")).expect("a file for its output");
        let daemon = host
            .ns
            .bound("charon-systemd")
            .env("STRONGSWAN_CONF", format!("{dir}/strongswan.conf"))
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("a file for its output"))
            .stderr(out)
            .spawn()
            .expect("charon-systemd");
        Charon { at: host, dir, daemon: Some(daemon) }.ready()
    }

    /// In a guest, whose kernel has ESP.
    #[track_caller]
    pub fn in_guest(guest: &'a Guest<'_>) -> Charon<'a> {
        guest.load_esp();
        let dir = "/run/charon".to_owned();
        guest.put(&format!("{dir}/strongswan.conf"), &SETTINGS.replace("DIR", &dir));
        guest.sh(&format!(
            "STRONGSWAN_CONF={dir}/strongswan.conf setsid charon-systemd </dev/null >{dir}/out 2>&1 &"
        ));
        Charon { at: guest, dir, daemon: None }.ready()
    }

    fn ready(self) -> Self {
        poll("charon", || self.swanctl("--stats").success().then_some(()));
        self
    }

    /// `swanctl` with the words of `line`, whatever its status.
    #[track_caller]
    pub fn swanctl(&self, line: &str) -> Out {
        let dir = &self.dir;
        self.at.try_sh(&format!(
            "export STRONGSWAN_CONF={dir}/strongswan.conf SWANCTL_DIR={dir}/swanctl
             timeout 60 swanctl {line} --uri unix://{dir}/vici 2>&1"
        ))
    }

    /// Replaces what it was configured with.
    #[track_caller]
    pub fn load(&self, c: &Connection) {
        let dir = format!("{}/swanctl", self.dir);
        self.at.sh(&format!(
            "rm -rf {dir}; cd {}; for d in x509 x509ca x509ocsp x509aa x509ac x509crl pubkey private rsa ecdsa \
             bliss pkcs8 pkcs12; do mkdir -p swanctl/$d; done",
            self.dir
        ));
        let (local, remote, secret) = match c.auth {
            Auth::Psk(key) => {
                ("auth = psk".into(), "auth = psk".into(), format!("ike {{ secret = \"{key}\" }}"))
            }
            Auth::Authority { own, authority, name } => {
                self.own(own);
                self.at.put(&format!("{dir}/x509ca/ca.pem"), &authority.cert_pem());
                let local = format!("auth = pubkey\n      certs = own.pem\n      id = {}", own.name);
                let remote = format!("auth = pubkey\n      cacerts = ca.pem\n      id = {name}");
                (local, remote, String::new())
            }
            Auth::Pinned { own, other } => {
                self.own(own);
                self.at.put(&format!("{dir}/x509/other.pem"), &other.cert_pem());
                let local = format!("auth = pubkey\n      certs = own.pem\n      id = {}", own.name);
                let remote = format!("auth = pubkey\n      certs = other.pem\n      id = {}", other.name);
                (local, remote, String::new())
            }
        };
        let yes = |b| if b { "yes" } else { "no" };
        let Connection { local: from, remote: to, ike, esp, more, .. } = c;
        let (udp, start) = (yes(c.udp), if c.trap { "trap" } else { "none" });
        self.at.put(
            &format!("{dir}/swanctl.conf"),
            &format!(
                "connections {{
  gre {{
    version = 2
    local_addrs = {from}
    remote_addrs = {to}
    proposals = {ike}
    encap = {udp}
    {more}
    local {{
      {local}
    }}
    remote {{
      {remote}
    }}
    children {{
      gre {{
        mode = transport
        local_ts = dynamic[gre]
        remote_ts = dynamic[gre]
        esp_proposals = {esp}
        start_action = {start}
      }}
    }}
  }}
}}
secrets {{
  {secret}
}}"
            ),
        );
        self.swanctl("--load-all --clear").ok();
    }

    fn own(&self, own: &crate::pki::Pair) {
        self.at.put(&format!("{}/swanctl/x509/own.pem", self.dir), &own.cert_pem());
        self.at.put(&format!("{}/swanctl/private/own.pem", self.dir), &own.key_pem());
    }

    /// Its IKE SAs and what is under them, as `swanctl --list-sas` prints it.
    #[track_caller]
    pub fn sas(&self) -> String {
        self.swanctl("--list-sas").ok()
    }

    /// Its log.
    pub fn log(&self) -> String {
        self.at.try_sh(&format!("cat {}/log", self.dir)).stdout
    }
}

impl Peer for Charon<'_> {
    #[track_caller]
    fn initiate(&self) {
        let out = self.swanctl("--initiate --child gre --timeout 30");
        assert!(out.success(), "{out:?}\n{}", self.log());
    }

    #[track_caller]
    fn rekey_child(&self) {
        self.swanctl("--rekey --child gre").ok();
    }

    #[track_caller]
    fn rekey_ike(&self) {
        self.swanctl("--rekey --ike gre").ok();
    }

    #[track_caller]
    fn terminate(&self) {
        self.swanctl("--terminate --ike gre --timeout 10").ok();
    }

    #[track_caller]
    fn children(&self) -> usize {
        self.sas().lines().filter(|l| l.contains(", INSTALLED, TRANSPORT")).count()
    }

    fn describe(&self) -> String {
        let log = self.log();
        let last: Vec<&str> = log.lines().rev().take(60).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        format!("{}\n{}", self.swanctl("--list-sas").stdout, last.join("\n"))
    }
}

impl Drop for Charon<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- charon\n{}", self.describe());
        }
        match &mut self.daemon {
            Some(daemon) => {
                let _ = daemon.kill();
                let _ = daemon.wait();
            }
            None => drop(self.at.try_sh(&format!(
                "for p in $(pidof charon-systemd); do kill $p; done; rm -rf {}; ip xfrm state flush; ip xfrm policy flush",
                self.dir
            ))),
        }
    }
}
